"""Cuts a partition's records into batches, the same batches from the same records every time.

A batch is what one insert carries, and its token names it for ever: the store forgets nothing it was told under that
name, so a batch must hold the same rows whenever it is cut again. Whoever inserts writes (first, last) down before, and
after a crash sends exactly that range again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Batch:
    """Records `first` to `last` of one partition, both included."""

    topic: str
    partition: int
    first: int
    last: int

    @property
    def token(self) -> str:
        """What the store remembers the batch by."""
        return f"{self.topic}:{self.partition}:{self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class Cut:
    """A batch and what it holds. `full`: a further record did or would not fit, so waiting for more is pointless."""

    batch: Batch
    rows: int
    size_bytes: int
    full: bool


def cut(topic: str, partition: int, records: Iterable[tuple[int, int, int]], *, max_rows: int, max_bytes: int) -> Cut | None:
    """The first batch of `records`, each (offset, rows, bytes), offsets ascending. None when there are no records.

    Takes whole records while both bounds hold, and always at least one: a record larger than a bound goes alone. Reads
    no further than the record that does not fit. Raises `ValueError` when offsets do not ascend.
    """
    if max_rows < 1 or max_bytes < 1:
        raise ValueError("a batch must be allowed at least one row and one byte")
    first = last = None
    rows = size = 0
    for offset, record_rows, record_bytes in records:
        if first is None or last is None:
            first = offset
        elif offset <= last:
            raise ValueError(f"offset {offset} of {topic}:{partition} does not come after {last}")
        elif rows + record_rows > max_rows or size + record_bytes > max_bytes:
            return Cut(Batch(topic, partition, first, last), rows, size, full=True)
        last = offset
        rows += record_rows
        size += record_bytes
        if rows >= max_rows or size >= max_bytes:
            return Cut(Batch(topic, partition, first, last), rows, size, full=True)
    if first is None or last is None:
        return None
    return Cut(Batch(topic, partition, first, last), rows, size, full=False)
