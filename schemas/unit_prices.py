"""Unit prices: what a token of a model costs at most, for gates, which carry no price book.

One record of the signals topic, beside the policy set. A gate multiplies what a call is expected to use, and holds that
of a budget in money until the ledger has the exact cost.
"""

from __future__ import annotations

from typing import Final

import msgspec

PRICES_KEY: Final = b"prices"


class UnitPrices(msgspec.Struct, frozen=True):
    """By request model: nano-dollars of one input token and of one output token, at the dearest rates that the model may
    be charged by (no cache, highest tier): an estimate too low would let a gate spend more than its lease. A model that
    is known to have no price, and so adds nothing to any spend, has [0, 0]; one that is absent is unknown.
    """

    nano_usd: dict[str, tuple[float, float]]
    at: float = 0.0


_unit_prices: Final = msgspec.json.Decoder(UnitPrices)


def decode_unit_prices(value: bytes) -> UnitPrices:
    return _unit_prices.decode(value)
