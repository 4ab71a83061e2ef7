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

    def take(self, most_bytes: int, most_events: int) -> list[CallRecord]:
        """The first of them, up to and with the one that makes it so many bytes or events."""
        size_bytes = events = count = 0
        for record in self._records:
            if size_bytes >= most_bytes or events >= most_events:
                break
            size_bytes += len(record.value)
            events += _events_of(record)
            count += 1
        taken, self._records = self._records[:count], self._records[count:]
        self.size_bytes -= size_bytes
        self.events -= events
        return taken

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
