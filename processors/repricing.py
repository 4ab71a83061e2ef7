"""Calls of the past at other prices: the meter's own arithmetic over rows of the store.

hours with calls ──► spans of so many calls ──► rows ──► Repriced ──► lines of `repriced`, and the sums that tell what changed
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from .pricing import PriceBook

# What a price depends on, in the order in which `PriceBook.price` takes it.
PRICED_BY: Final = (
    "tenant",
    "provider_name",
    "response_model",
    "request_model",
    "service_tier",
    "started_at",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
    "cache_audio_read_tokens",
    "cache_hit",
)
KEPT: Final = ("team", "service", "model", "prompt_name", "prompt_version", "producer", "seq", "cost_nano_usd")
_COPIED: Final = (
    "started_at",
    "tenant",
    "team",
    "service",
    "provider_name",
    "model",
    "prompt_name",
    "prompt_version",
    "producer",
    "seq",
)
_HOUR: Final = timedelta(hours=1)


@dataclass(slots=True)
class Change:
    """What became of the calls of one tenant and model. Sums are of the calls that have a price on that side; the difference is
    of those that have one on both."""

    calls: int = 0
    changed: int = 0
    metered_nano_usd: int = 0
    cost_nano_usd: int = 0
    difference_nano_usd: int = 0
    got_price: int = 0
    lost_price: int = 0

    def add(self, metered: int | None, cost: int | None) -> None:
        """One more call."""
        self.calls += 1
        self.changed += metered != cost
        self.metered_nano_usd += metered or 0
        self.cost_nano_usd += cost or 0
        self.difference_nano_usd += 0 if metered is None or cost is None else cost - metered
        self.got_price += metered is None and cost is not None
        self.lost_price += cost is None and metered is not None


def repriced(book: PriceBook, version: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The row of `repriced` for a row of `calls` with the columns PRICED_BY and KEPT. The empty word is an unknown one."""
    told: list[Any] = [None if value == "" else value for value in (row[name] for name in PRICED_BY)]
    told[3] = row["request_model"]
    price = book.price(*told)
    copied = {name: row[name] for name in _COPIED}
    costs = {"metered_nano_usd": row["cost_nano_usd"], "cost_nano_usd": price.cost_nano_usd, "price_status": price.status}
    return {"version": version, **copied, **costs}


def encoded(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows as the store takes them."""
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)


def spans(hours: Iterable[tuple[datetime, int]], most: int) -> Iterator[tuple[datetime, datetime, int]]:
    """Hours and how many calls each has, ascending → (since, until, calls) of about `most` calls each, an hour at least."""
    since, until, calls = None, None, 0
    for hour, count in hours:
        if since is not None and until is not None and calls + count > most:
            yield since, until, calls
            since, calls = None, 0
        since, until, calls = since or hour, hour + _HOUR, calls + count
    if since is not None and until is not None:
        yield since, until, calls
