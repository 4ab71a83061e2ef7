"""Records that wait for the next flush of a meter, and how much that is."""

from __future__ import annotations

from collections.abc import Sequence

from .call_record import CallRecord


class Waiting:
    """In the order of the log. What was put back comes before what has come since."""

    def __init__(self) -> None:
        self._records: list[CallRecord] = []
        self.size_bytes = self.events = 0

    def __len__(self) -> int:
        return len(self._records)

    def put(self, record: CallRecord) -> None:
        self._records.append(record)
        self._add(record)

    def take(self) -> list[CallRecord]:
        """All of them."""
        records, self._records = self._records, []
        self.size_bytes = self.events = 0
        return records

    def put_back(self, records: Sequence[CallRecord]) -> None:
        self._records[:0] = records
        for record in records:
            self._add(record)

    def _add(self, record: CallRecord) -> None:
        self.size_bytes += len(record.value)
        self.events += _events_of(record)


def _events_of(record: CallRecord) -> int:
    """How many events a record says it holds; what says nothing sensible is refused, and counts as one."""
    count = record.headers.get("count", "")
    return int(count) if count.isascii() and count.isdigit() and len(count) < 6 else 1
