"""What the sink on Kafka knows of a partition: batches, promises, marks, and the note that carries them over a crash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate.processors.distributed.sink_state import MOST_NOTE_BYTES, Note, Partition, Promise, Rows, unseen
from tidegate.schemas.errors import UsageError
from tidegate.schemas.topics import METERED

MANY = 1 << 30


@dataclass
class FakeRecord:
    """A record as aiokafka gives it."""

    offset: int
    value: bytes | None = b"{}"
    timestamp: int = 1_000
    headers: Sequence[tuple[str, bytes]] = field(default_factory=list)


def rows(offset: int, source: int | None = None, count: int = 1) -> Rows:
    return Rows(offset, 1_000 + offset, b"\n".join([b"{}"] * count), count, None if source is None else ("0", source))


def partition(position: int = 0, note: Note | None = None, end: int = 0) -> Partition:
    return Partition(METERED, "ns.metered", 0, position, note or Note(), end)


# ---- records


def test_a_record_says_its_source_and_how_many_rows_it_has() -> None:
    headers = [("schema", b"rows/1"), ("source_partition", b"3"), ("source_offset", b"17"), ("count", b"2000000000")]

    found = Rows.of(FakeRecord(5, b'{"a":1}\n{"a":2}', 99, headers))

    assert found == Rows(5, 99, b'{"a":1}\n{"a":2}', 2, ("3", 17))


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("source_partition", b"3")],
        [("source_partition", b"3"), ("source_offset", b"many")],
        [("source_partition", b"\xff"), ("source_offset", b"1")],
        [("source_partition", b"3"), ("source_offset", b"-1")],
    ],
)
def test_a_record_without_a_readable_source_is_always_taken(headers: list[tuple[str, bytes]]) -> None:
    record = Rows.of(FakeRecord(5, None, 99, headers))

    assert record == Rows(5, 99, b"", 0, None)
    assert unseen([record, record], {"3": 100}).records == [record, record]


# ---- marks


def test_what_is_not_above_its_partitions_mark_is_left_out() -> None:
    sent = [rows(0, 4), rows(1, 5), rows(2, 9), rows(3, 5), rows(4, 9), rows(5, 10), rows(6)]

    held = unseen(sent, {"0": 4, "1": 70})

    assert [record.offset for record in held.records] == [1, 2, 5, 6]
    assert held.repeated == 3
    assert held.marks == {"0": 10, "1": 70}


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.data())
def test_sending_again_from_any_earlier_place_changes_nothing(steps: list[int], data: st.DataObject) -> None:
    sources = [sum(steps[: number + 1]) for number in range(len(steps))]
    sent: list[int] = []
    for number in range(len(sources)):
        sent.append(sources[number])
        if data.draw(st.booleans()):
            sent += sources[data.draw(st.integers(0, number)) : number + 1]

    held = unseen([rows(offset, source) for offset, source in enumerate(sent)], {})

    assert [record.source[1] for record in held.records if record.source] == sources
    assert held.marks == {"0": sources[-1]}


# ---- notes


@given(
    st.dictionaries(st.text(max_size=12), st.integers(0, 2**63 - 1), max_size=5),
    st.none() | st.builds(Promise, st.integers(0, 2**62), st.integers(0, 2**62), st.integers(-1, 2**50)),
)
def test_a_note_comes_back_as_it_was_written(marks: dict[str, int], promise: Promise | None) -> None:
    note = Note(marks, promise)

    assert Note.load(note.dump()) == note


def test_a_usual_note_is_small() -> None:
    note = Note(
        {"255": 2**53, "sink:tidegate.metered:255": 2**53, "sink:tidegate.requests:255": 2**53}, Promise(2**53, 2**53, 2**41)
    )

    assert len(note.dump()) < MOST_NOTE_BYTES / 10


def test_a_note_that_a_broker_would_not_keep_is_said_before_anything_is_sent() -> None:
    note = Note({f"somebody's-{number}": number for number in range(300)})

    with pytest.raises(UsageError, match=r"rows of 300 sources.*header source_partition"):
        note.dump()


@pytest.mark.parametrize("text", [None, ""])
def test_a_group_that_was_reset_knows_nothing(text: str | None) -> None:
    assert Note.load(text) == Note()


@pytest.mark.parametrize("text", ["x", "{}", '{"marks": {"0": "1"}}', '{"marks": {}, "promise": [1, 2]}', "[1]"])
def test_a_note_that_is_not_ours_is_not_guessed_at(text: str) -> None:
    with pytest.raises(UsageError, match="not the sink's"):
        Note.load(text)


def test_tokens_tell_namespaces_and_topics_made_anew_apart() -> None:
    tokens = {
        Promise(0, 9, 1_000).token("a.metered", 0),
        Promise(0, 9, 1_000).token("b.metered", 0),
        Promise(0, 9, 1_000).token("a.metered", 1),
        Promise(0, 9, 2_000).token("a.metered", 0),
    }

    assert len(tokens) == 4
    assert "a.metered:0:0-9/1000" in tokens


# ---- batches


def test_a_batch_is_due_when_it_is_full_or_has_waited() -> None:
    found = partition()

    nothing = found.due_at(0.5, 10, MANY)
    found.take([rows(0, count=4)], now=7.0)
    waits = found.due_at(0.5, 10, MANY)
    found.take([rows(1, count=6)], now=7.1)
    full = found.due_at(0.5, 10, MANY)
    by_bytes = found.due_at(0.5, 100, 20)

    assert (nothing, waits, full, by_bytes) == (None, 7.5, 0.0, 0.0)


def test_a_promise_is_kept_and_then_the_next_one_follows_it() -> None:
    found = partition(end=5)
    found.take([rows(offset, offset, count=2) for offset in range(5)], now=0.0)

    promise = found.make_promise(most_rows=6, most_bytes=MANY)
    held = found.promised()
    with pytest.raises(ValueError, match="an earlier promise stands"):
        found.make_promise(6, MANY)
    found.keep(held.marks, now=1.0)
    next_promise = found.make_promise(6, MANY)

    assert promise == Promise(0, 2, 1_000)
    assert [record.offset for record in held.records] == [0, 1, 2]
    assert (found.committed, found.rows, found.lag) == (3, 4, 2)
    assert next_promise == Promise(3, 4, 1_003)


def test_whoever_takes_over_sends_the_same_rows_under_the_same_token() -> None:
    """However much more there is by then, and whatever its own bounds are."""
    first = partition(note=Note({"0": 1}))
    first.take([rows(offset, offset) for offset in range(6)], now=0.0)
    promise = first.make_promise(most_rows=4, most_bytes=MANY)
    note = Note(first.marks, promise)

    successor = partition(position=promise.first, note=Note.load(note.dump()), end=50)
    successor.take([rows(offset, offset) for offset in range(50)], now=0.0)

    assert successor.due_at(60.0, 10_000, MANY) == 0.0
    assert successor.promised() == first.promised()
    assert successor.next_offset == first.next_offset == 4


def test_what_is_promised_is_read_to_its_end_however_little_may_wait() -> None:
    """With more partitions than before there is less memory for each; stopping short would stop for good."""
    found = partition(note=Note({}, Promise(0, 9, 1_000)), end=20)

    found.take([rows(offset) for offset in range(9)], now=0.0)
    amid = found.is_full(5), found.due_at(0.0, 5, 5)
    found.take([rows(9)], now=0.0)
    through = found.is_full(5), found.due_at(0.0, 5, 5)

    assert amid == (False, None)
    assert through == (True, 0.0)
    assert len(found.promised().records) == 10


@pytest.mark.parametrize(
    ("position", "end", "left"), [(4, 20, [4, 5, 6, 7, 8, 9]), (0, 7, [0, 1, 2, 3, 4, 5, 6]), (15, 20, [])]
)
def test_of_a_promise_goes_in_what_the_log_still_has(position: int, end: int, left: list[int]) -> None:
    found = partition(position, Note({}, Promise(0, 9, 1_000)), end)

    found.take([rows(offset) for offset in range(position, end)], now=0.0)

    assert found.due_at(60.0, 1_000, MANY) == 0.0
    assert [record.offset for record in found.promised().records] == list(left)
    assert found.next_offset == (left[-1] + 1 if left else position)


def test_a_promise_of_which_nothing_is_left_waits_for_nothing() -> None:
    found = partition(position=20, note=Note({"0": 3}, Promise(0, 9, 1_000)), end=20)

    due, held = found.due_at(60.0, 1_000, MANY), found.promised()
    found.keep(held.marks, now=0.0)

    assert (due, held.records, found.committed) == (0.0, [], 20)


# ---- the log


def test_records_that_are_gone_are_counted() -> None:
    found = partition(position=10)

    gone = found.take([rows(13), rows(14), rows(17)], now=0.0)

    assert gone == 5
    assert found.position == 18


def test_a_log_that_goes_back_is_begun_again_with_the_marks() -> None:
    found = partition(position=10, note=Note({"0": 9}), end=20)
    found.take([rows(10, 10)], now=0.0)

    with pytest.raises(ValueError, match="offset 3 comes after 10"):
        found.take([rows(3, 3)], now=0.0)
    again = found.begun_again(3)
    again.take([rows(3, 3), rows(4, 11)], now=0.0)
    again.make_promise(100, MANY)

    assert [record.offset for record in again.promised().records] == [4]
