"""What waits for a flush is taken in the order of the log, as much at once as a flush should hold."""

from __future__ import annotations

import pytest
from tidegate.processors.distributed.call_record import CallRecord
from tidegate.processors.distributed.waiting import Waiting


def record(offset: int) -> CallRecord:
    """Ten bytes that say they hold five events."""
    return CallRecord(offset, 0, b"x" * 10, {"count": "5"}, lambda: None)


def taken(waiting: Waiting, most_bytes: int, most_events: int) -> list[int]:
    return [one.offset for one in waiting.take(most_bytes, most_events)]


@pytest.mark.parametrize(
    ("most_bytes", "most_events", "first"),
    [(1_000, 1_000, 6), (30, 1_000, 3), (31, 1_000, 4), (1_000, 10, 2), (1, 1, 1)],
)
def test_a_flush_takes_no_more_than_the_record_that_fills_it(most_bytes: int, most_events: int, first: int) -> None:
    waiting = Waiting()
    for offset in range(6):
        waiting.put(record(offset))

    offsets = taken(waiting, most_bytes, most_events)

    assert offsets == list(range(first))
    assert (len(waiting), waiting.size_bytes, waiting.events) == (6 - first, 10 * (6 - first), 5 * (6 - first))


def test_what_was_put_back_comes_before_what_was_left_and_what_has_come_since() -> None:
    waiting = Waiting()
    for offset in range(4):
        waiting.put(record(offset))

    some = waiting.take(20, 1_000)
    waiting.put(record(4))
    waiting.put_back(some[1:])

    assert taken(waiting, 1_000, 1_000) == [1, 2, 3, 4]
    assert (len(waiting), waiting.size_bytes, waiting.events) == (0, 0, 0)
