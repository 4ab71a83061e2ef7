"""Usage: the additive counters of one scope in one time bucket, as they stand after a source partition's offset.

Counters are absolute, never deltas: whoever receives the same key twice, or late, overwrites; whoever needs the whole
sums over source partitions. Money is integer nano-dollars. `None`-like ignorance is counted, not added as zero: calls
whose tokens or price are unknown are in `unknown_tokens` and `unpriced`.
"""

from __future__ import annotations

from operator import add
from typing import Final, Literal, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from .call import TOKEN_FIELDS

_Key = TypeVar("_Key", str, int)

BucketUnit = Literal["minute", "hour", "day"]
BUCKET_S: Final[dict[BucketUnit, int]] = {"minute": 60, "hour": 3_600, "day": 86_400}

# The order of the counters in a bucket's vector; the hot path adds vectors.
COUNTERS: Final = ("requests", "errors", "cache_hits", "cost_nano_usd", "unpriced", "unknown_tokens", *TOKEN_FIELDS)


class UsageRecord(BaseModel):
    """One line of a usage record, spelled out. `bucket_start` is seconds since 1970, UTC.

    On the log a flush is one record: a line `[bucket, start, fields, values, counts, errors, latency, ttft]` for each
    bucket that changed, with `source_partition` and `source_offset` in the headers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scope: dict[str, str | None]
    bucket: BucketUnit
    bucket_start: int
    partition: int
    offset: int = Field(description="the last source offset that these counters include")
    counters: dict[str, int]
    errors_by_type: dict[str, int]
    latency_s: dict[int, int] = Field(description="sketch: bin index to count; see processors/sketch.py")
    time_to_first_token_s: dict[int, int]

    @classmethod
    def from_line(cls, line: bytes, partition: int, offset: int) -> UsageRecord:
        """One line of the usage topic."""
        bucket, start, fields, values, counts, errors, latency, ttft = _line.decode(line)
        return cls(
            scope=dict(zip(fields, values, strict=True)),
            bucket=bucket,
            bucket_start=start,
            partition=partition,
            offset=offset,
            counters=dict(zip(COUNTERS, counts, strict=False)),
            errors_by_type=errors,
            latency_s=latency,
            time_to_first_token_s=ttft,
        )


class Usage:
    """The same counters while they are being added to. `counts` follows `COUNTERS`."""

    __slots__ = ("counts", "errors", "latency", "ttft")

    def __init__(self) -> None:
        self.counts: list[int] = [0] * len(COUNTERS)
        self.errors: dict[str, int] = {}
        self.latency: dict[int, int] = {}
        self.ttft: dict[int, int] = {}

    def merge(self, other: Usage) -> None:
        """Add the other's counters to these."""
        self.counts = list(map(add, self.counts, other.counts))
        if other.errors:
            _add(self.errors, other.errors)
        if other.latency:
            _add(self.latency, other.latency)
        if other.ttft:
            _add(self.ttft, other.ttft)

    def copy(self) -> Usage:
        """The same counters, apart."""
        copied = Usage.__new__(Usage)
        copied.counts = self.counts[:]
        copied.errors, copied.latency, copied.ttft = self.errors.copy(), self.latency.copy(), self.ttft.copy()
        return copied

    def dump(self) -> bytes:
        """The state as stored beside its key; compact, read back by `load`."""
        return msgspec.json.encode((self.counts, self.errors, self.latency, self.ttft))

    @classmethod
    def load(cls, value: bytes) -> Usage:
        """What `dump` wrote. Counters added to `COUNTERS` since then start at 0."""
        counts, errors, latency, ttft = _stored.decode(value)
        usage = cls()
        usage.counts[: len(counts)] = counts
        usage.errors, usage.latency, usage.ttft = errors, latency, ttft
        return usage


def _add(mine: dict[_Key, int], theirs: dict[_Key, int]) -> None:
    for key, count in theirs.items():
        mine[key] = mine.get(key, 0) + count


_stored: Final = msgspec.json.Decoder(tuple[list[int], dict[str, int], dict[int, int], dict[int, int]])
_line: Final = msgspec.json.Decoder(
    tuple[BucketUnit, int, list[str], list[str | None], list[int], dict[str, int], dict[int, int], dict[int, int]]
)
