"""What the meter of one source partition tells the policies: the scopes that changed, and how far it is.

The scopes of a flush go out in blocks, one or more to each partition of the usage topic that has any of them. To the others
goes an empty one now and then: gates let go of what they hold once every policies worker knows that it is counted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import orjson

from ..asked_prices import AskedPrices, UnitPrices
from ..meter import MeterState
from ..pricing import PriceBook
from .blocks import MORE, PRICES, WATCHED, Entry, block_headers, encode_block, partition_of_scope
from .changelog import Memory

# How long the policies go without word of the meter's progress while it works.
TELL_EVERY_S: Final = 0.25
# Scopes a block: some 0.5 MB.
_BLOCK: Final = 2_000

# (partition of the usage topic, its blocks as (headers, value))
Told = list[tuple[int, list[tuple[dict[str, str], bytes]]]]


class Telling:
    """What was said last to each of the `partitions` of the usage topic."""

    def __init__(self, partitions: int, book: PriceBook) -> None:
        self._asked = AskedPrices(book)
        self._prices: UnitPrices = {}
        self._watched: list[str] | None = None
        self._at = [float("-inf")] * partitions
        self._upto = [-1] * partitions

    def owed(self, upto: int, silent_s: float = 0.0) -> bool:
        """Whether some policies do not know that we are as far as `upto`, and have heard nothing for so long. What moved us
        on may have been a dead letter that no policy counts."""
        now = time.monotonic()
        return any(told < upto and now - at >= silent_s for told, at in zip(self._upto, self._at, strict=True))

    def blocks(self, state: MeterState, memory: Memory, heard: Sequence[Entry]) -> Told:
        """What a flush tells; nothing to those for whom nothing is new and who had word a moment ago."""
        now, upto = time.monotonic(), state.next_offset - 1
        headers = block_headers(state.partition, upto)
        found: Told = []
        for partition, entries in enumerate(self._entries(state, memory, heard)):
            if entries or now - self._at[partition] >= TELL_EVERY_S:
                self._at[partition], self._upto[partition] = now, upto
                last = max(len(entries) - 1, 0) // _BLOCK * _BLOCK
                found.append(
                    (
                        partition,
                        [
                            (headers if start == last else headers | MORE, encode_block(entries[start : start + _BLOCK]))
                            for start in range(0, last + 1, _BLOCK)
                        ],
                    )
                )
        return found

    def _entries(self, state: MeterState, memory: Memory, heard: Sequence[Entry]) -> list[list[Entry]]:
        """What each partition hears."""
        found: list[list[Entry]] = [[] for _ in self._at]
        for key, value in heard:
            found[partition_of_scope(key, len(found))].append((key, value))
        prices = self._asked.of([state], datetime.now(UTC))
        if prices != self._prices:
            self._prices = dict(prices)
            found[0].append((PRICES, orjson.dumps(prices)))
        watched = sorted(name for name, watch in memory.watches.items() if watch.complete)
        if watched != self._watched:
            self._watched = watched
            for entries in found:
                entries.append((WATCHED, orjson.dumps(watched)))
        return found
