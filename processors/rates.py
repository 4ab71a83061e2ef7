"""Rates as whole numbers: a model's prices, made linear in the token fields and put over one denominator.

genai-prices charges each token once, at the price of the most specific kind that has one: cached audio input is taken out
of cached input and out of audio input, and both out of input. What follows is linear in the counts, so a price per count
suffices; for a part it is the difference to what the whole already charges.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from math import lcm
from typing import Final

from genai_prices.data_units import unit_data
from genai_prices.decompose import is_descendant_or_self
from genai_prices.types import ModelPrice, TieredPrices
from genai_prices.units import UnitDef, UnitRegistry

UNITS: Final = UnitRegistry(unit_data)

# The token fields that make up a unit of the book. Units of other things (images, searches) are not in the schema: 0.
_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "input_tokens": ("input",),
    "output_tokens": ("output",),
    "cache_read_tokens": ("cache_read",),
    "cache_write_tokens": ("cache_write_5m", "cache_write_1h"),
    "cache_write_5m_tokens": ("cache_write_5m",),
    "cache_write_1h_tokens": ("cache_write_1h",),
    "output_reasoning_tokens": ("reasoning",),
    "input_audio_tokens": ("input_audio",),
    "output_audio_tokens": ("output_audio",),
    "cache_audio_read_tokens": ("cache_audio_read",),
}
_NANO: Final = 1_000_000_000


class TokenRates:
    """Nano-dollars per token as numerators over `denominator`; parts (all but input and output) as differences.

    `steps` are the rates of long prompts, longest first: the first whose start the input exceeds prices the whole call.
    """

    __slots__ = (
        *("per_call", "input", "output", "cache_read", "cache_write_5m", "cache_write_1h", "reasoning"),
        *("input_audio", "output_audio", "cache_audio_read", "denominator"),
        *("steps", "needs_input", "needs_output", "has_output", "splits_cached_audio"),
    )

    def __init__(self, per_call: Fraction, per_token: Mapping[str, Fraction], priced: frozenset[str]) -> None:
        denominator = lcm(per_call.denominator, *(rate.denominator for rate in per_token.values()))

        def numerator(field: str) -> int:
            return int(per_token.get(field, Fraction(0)) * denominator)

        self.denominator = denominator
        self.per_call = int(per_call * denominator)
        self.input = numerator("input")
        self.output = numerator("output")
        self.cache_read = numerator("cache_read")
        self.cache_write_5m = numerator("cache_write_5m")
        self.cache_write_1h = numerator("cache_write_1h")
        self.reasoning = numerator("reasoning")
        self.input_audio = numerator("input_audio")
        self.output_audio = numerator("output_audio")
        self.cache_audio_read = numerator("cache_audio_read")
        self.steps: tuple[tuple[int, TokenRates], ...] = ()
        self.needs_input = self.input != 0
        self.needs_output = self.output != 0
        self.has_output = "output_tokens" in priced
        self.splits_cached_audio = "cache_audio_read_tokens" in priced


def token_rates(prices: ModelPrice, multiplier: Fraction) -> TokenRates | None:
    """The rates of a model, times `multiplier`; None when it has no price for plain input."""
    by_key: dict[str, Decimal | TieredPrices] = {
        UNITS.unit_for_price_key(key).usage_key: price for key, price in vars(prices).items() if price is not None
    }
    if "input_tokens" not in by_key:
        return None
    if "cache_write_1h_tokens" not in by_key:
        # Anthropic, the one provider with hour-long writes, charges twice the input for them; the book often leaves it out.
        by_key["cache_write_1h_tokens"] = _twice(by_key["input_tokens"])
    starts = sorted({tier.start for price in by_key.values() if isinstance(price, TieredPrices) for tier in price.tiers})
    rates = _at_size(by_key, 0, multiplier)
    # A tier holds above its start, so the smallest prompt of a step is one token more.
    rates.steps = tuple((start, _at_size(by_key, start + 1, multiplier)) for start in reversed(starts))
    rates.needs_input = rates.needs_input or bool(rates.steps)
    rates.needs_output = rates.needs_output or any(step.needs_output for _, step in rates.steps)
    return rates


def _at_size(by_key: Mapping[str, Decimal | TieredPrices], input_tokens: int, multiplier: Fraction) -> TokenRates:
    per_token: dict[str, Fraction] = {}
    per_call = Fraction(0)
    for unit, fields in _leaves([UNITS.units[key] for key in by_key]):
        rate = Fraction(_of_size(by_key[unit.usage_key], input_tokens)) * _NANO / unit.per * multiplier
        if unit.usage_key == "requests":
            per_call = rate
        for field, times in fields.items():
            per_token[field] = per_token.get(field, Fraction(0)) + times * rate
    return TokenRates(per_call, per_token, frozenset(by_key))


def _leaves(units: list[UnitDef]) -> list[tuple[UnitDef, dict[str, int]]]:
    """For each priced unit, how often each token field counts towards it once more specific units have taken theirs."""
    leaves: list[tuple[UnitDef, dict[str, int]]] = []
    for unit in sorted(units, key=lambda unit: -len(unit.dimensions)):
        own = dict.fromkeys(_FIELDS.get(unit.usage_key, ()), 1)
        for specific, taken in leaves:
            if is_descendant_or_self(unit, specific):
                for field, times in taken.items():
                    own[field] = own.get(field, 0) - times
        leaves.append((unit, own))
    return leaves


def _of_size(price: Decimal | TieredPrices, input_tokens: int) -> Decimal:
    if isinstance(price, Decimal):
        return price
    return next((tier.price for tier in reversed(price.tiers) if input_tokens > tier.start), price.base)


def _twice(price: Decimal | TieredPrices) -> Decimal | TieredPrices:
    if isinstance(price, Decimal):
        return 2 * price
    tiers = [type(tier)(start=tier.start, price=2 * tier.price) for tier in price.tiers]
    return TieredPrices(base=2 * price.base, tiers=tiers)
