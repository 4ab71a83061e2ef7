"""Prices that the meter found, as rows for the store: what each kind of token costs, and from when on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Final

import orjson

from .pricing import Quote
from .rates import TokenRates

# What a token of a kind adds up from: rates have parts as differences to what the whole charges already.
_KINDS: Final = {
    "input": ("input",),
    "output": ("output",),
    "cache_read": ("input", "cache_read"),
    "cache_write_5m": ("input", "cache_write_5m"),
    "cache_write_1h": ("input", "cache_write_1h"),
    "reasoning": ("output", "reasoning"),
    "input_audio": ("input", "input_audio"),
    "output_audio": ("output", "output_audio"),
    "cache_audio_read": ("input", "cache_read", "input_audio", "cache_audio_read"),
    "request": ("per_call",),
}
_MILLION: Final = 1_000_000
# The first and the last that a DateTime64 holds.
_ALWAYS: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NEVER: Final = datetime(2200, 1, 1, tzinfo=UTC)


def price_record(book: str, quotes: Iterable[Quote], at_ms: int) -> tuple[dict[str, str], bytes] | None:
    """Quotes of a price book as one record of rows, (headers, value); None when there are none."""
    at = datetime.fromtimestamp(at_ms / 1_000, UTC)
    rows = [orjson.dumps(row | {"price_book": book, "at": at}) for quote in quotes for row in _rows(quote)]
    return ({"schema": "rows/1", "count": str(len(rows))}, b"\n".join(rows)) if rows else None


def _rows(quote: Quote) -> Iterator[dict[str, Any]]:
    """One row, and one more for each length of prompt from which on all of it costs something else."""
    stated = {
        "tenant": quote.tenant,
        "provider_name": quote.provider_name,
        "model": quote.model,
        "service_tier": quote.tier,
        "valid_from": max(quote.since, _ALWAYS),
        "valid_until": quote.until if quote.until < _NEVER else None,
    }
    for above, rates in ((0, quote.rates), *quote.rates.steps):
        yield stated | {"above_input_tokens": above} | unit_prices(rates)


def unit_prices(rates: TokenRates) -> dict[str, int | None]:
    """Nano-dollars of a million tokens of each kind, and of a million requests; half-even where that is no whole number."""
    prices: dict[str, int | None] = {
        f"{kind}_nano_usd_per_million": round(
            Fraction(sum(getattr(rates, part) for part in parts) * _MILLION, rates.denominator)
        )
        for kind, parts in _KINDS.items()
    }
    if not rates.has_output:
        for kind in ("output", "reasoning", "output_audio"):
            prices[f"{kind}_nano_usd_per_million"] = None
    return prices
