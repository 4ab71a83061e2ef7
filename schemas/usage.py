"""Usage: the additive counters of one scope in one time bucket, as they stand after a source partition's offset.

Counters are absolute, never deltas: whoever receives the same bucket twice, or late, overwrites; whoever needs the whole
sums over source partitions. Money is integer nano-dollars. What is not known is counted, not added as zero: calls whose
tokens or price are unknown are in `unknown_tokens` and `unpriced`.
"""

from __future__ import annotations

from typing import Final, Literal, Self, get_args

import msgspec

from .call import TOKEN_FIELDS, ErrorType

BucketUnit = Literal["minute", "hour", "day"]
BUCKET_S: Final[dict[BucketUnit, int]] = {"minute": 60, "hour": 3_600, "day": 86_400}

# The places of the counters. Append only: stored usage knows them by number.
# `scored`: calls whose texts were judged, at least in part. `findings`: what was found in them.
COUNTERS: Final = (
    *("requests", "errors", "cache_hits", "cost_nano_usd", "unpriced", "unknown_tokens"),
    *TOKEN_FIELDS,
    *("scored", "findings"),
)
ERROR_TYPES: Final[tuple[str, ...]] = get_args(ErrorType)

# Errors by type, and the bins of the two sketches, stand at places of their own; bins may be as low as -2,000.
FIRST_ERROR: Final = 100
LATENCY_BINS: Final = 10_000
TTFT_BINS: Final = 20_000
HALF: Final = (TTFT_BINS - LATENCY_BINS) // 2


class Usage(dict[int, int]):
    """Counters by place. A plain dict of integers, because a meter adds millions of them: merging is adding."""

    __slots__ = ()

    def merge(self, other: dict[int, int]) -> None:
        """Add the other's counters to these."""
        get = self.get
        for place, count in other.items():
            self[place] = get(place, 0) + count

    @property
    def counts(self) -> list[int]:
        """The counters in the order of `COUNTERS`."""
        return [self.get(place, 0) for place in range(len(COUNTERS))]

    @property
    def errors(self) -> dict[str, int]:
        """Errors by type."""
        places = range(FIRST_ERROR, FIRST_ERROR + len(ERROR_TYPES))
        return {ERROR_TYPES[place - FIRST_ERROR]: self[place] for place in places if place in self}

    @property
    def latency(self) -> dict[int, int]:
        """The sketch of latencies: bin to count; see processors/sketch.py."""
        return self._bins(LATENCY_BINS)

    @property
    def ttft(self) -> dict[int, int]:
        """The sketch of times to the first token."""
        return self._bins(TTFT_BINS)

    def _bins(self, first: int) -> dict[int, int]:
        return {place - first: count for place, count in self.items() if abs(place - first) < HALF}

    def dump(self) -> bytes:
        """As stored; `load` reads it."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def load(cls, value: bytes) -> Self:
        return cls(_stored.decode(value))


ERROR_PLACES: Final = {name: FIRST_ERROR + place for place, name in enumerate(ERROR_TYPES)}

_stored: Final = msgspec.msgpack.Decoder(dict[int, int])
