"""Compacted topics of the embedded log: of each key the last word stays, and whoever reads and follows ends up with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import NOW_MS
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.topics import CALLS, GATES, SIGNALS, TOPICS, USAGE

DAY_MS = 86_400_000


class Clock:
    ms = NOW_MS

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> Iterator[SqliteLog]:
    with SqliteLog(tmp_path / "data", fsync="normal", clock_ms=clock) as opened:
        yield opened


def say(log: SqliteLog, *pairs: tuple[bytes, bytes], topic: str = SIGNALS.name) -> tuple[int, int]:
    with log.transaction():
        return log.append(topic, 0, [(key, {}, value) for key, value in pairs])


def last_words(log: SqliteLog, topic: str = SIGNALS.name) -> dict[bytes, bytes]:
    return {record.key or b"": record.value for record in log.read(topic, 0, 0)}


@pytest.mark.parametrize("topic", [topic.name for topic in TOPICS.values() if topic.compacted])
def test_only_the_last_record_of_each_key_stays(log: SqliteLog, topic: str) -> None:
    say(log, (b"a", b"1"), (b"b", b"1"), topic=topic)
    say(log, (b"a", b"2"), (b"c", b"1"), (b"c", b"2"), topic=topic)

    assert [(record.offset, record.key, record.value) for record in log.read(topic, 0, 0)] == [
        (1, b"b", b"1"),
        (2, b"a", b"2"),
        (4, b"c", b"2"),
    ]
    assert log.end_offset(topic, 0) == 5


def test_other_topics_keep_every_record(log: SqliteLog) -> None:
    say(log, (b"a", b"1"), (b"a", b"2"), topic=CALLS.name)

    assert [record.value for record in log.read(CALLS.name, 0, 0)] == [b"1", b"2"]


def test_a_record_without_a_key_is_refused_and_leaves_nothing(log: SqliteLog) -> None:
    say(log, (b"a", b"1"))

    with pytest.raises(ValueError, match=r"tidegate\.signals is compacted: every record needs a key"), log.transaction():
        log.append(SIGNALS.name, 0, [(b"a", {}, b"2"), (None, {}, b"x")])

    assert (last_words(log), log.end_offset(SIGNALS.name, 0)) == ({b"a": b"1"}, 1)


def test_a_key_is_found_by_name_and_by_what_it_begins_with(log: SqliteLog) -> None:
    say(log, (b"signal|a", b"1"), (b"signal|b", b"1"), (b"signal|a", b"2"), (b"signam", b"x"), (b"signal|\xfe", b"3"))

    found = log.last(SIGNALS.name, 0, b"signal|a")

    assert found is not None
    assert (found.offset, found.value) == (2, b"2")
    assert log.last(SIGNALS.name, 0, b"signal|") is None
    assert [(r.key, r.value) for r in log.keyed(SIGNALS.name, 0, b"signal|")] == [
        (b"signal|b", b"1"),
        (b"signal|a", b"2"),
        (b"signal|\xfe", b"3"),
    ]


def test_an_empty_value_takes_a_key_back_and_is_itself_told(log: SqliteLog) -> None:
    say(log, (b"a", b"1"), (b"b", b"1"))
    say(log, (b"a", b""))

    assert last_words(log) == {b"b": b"1", b"a": b""}


def test_tombstones_go_after_their_time_and_nothing_else_does(log: SqliteLog, clock: Clock) -> None:
    say(log, (b"a", b"1"), (b"b", b"1"), (b"c", b"1"))
    say(log, (b"a", b""))
    clock.ms += DAY_MS
    say(log, (b"b", b""))
    end = log.end_offset(SIGNALS.name, 0)

    early = log.trim_tombstones(SIGNALS.name, 0, end, clock.ms - DAY_MS)
    below = log.trim_tombstones(SIGNALS.name, 0, 3, clock.ms - DAY_MS + 1)
    due = log.trim_tombstones(SIGNALS.name, 0, end, clock.ms - DAY_MS + 1)

    assert (early, below, due) == (0, 0, 1)
    assert last_words(log) == {b"c": b"1", b"b": b""}
    assert say(log, (b"d", b"1")) == (end, end + 1)


def test_tombstones_are_found_without_looking_at_the_rest(log: SqliteLog) -> None:
    plan = log.db.execute(
        f'EXPLAIN QUERY PLAN SELECT offset FROM "records/{USAGE.name}/0"'
        " WHERE length(value) = 0 AND offset < ? AND appended_ms < ? ORDER BY offset LIMIT ?",
        (10, 10, 10),
    ).fetchall()

    assert any("tombstones" in step[3] for step in plan)


def test_what_nobody_follows_is_forgotten_by_what_it_begins_with(log: SqliteLog) -> None:
    say(log, (b'["aa",1]', b"1"), (b'["aa",2]', b"1"), (b'["ab",1]', b"1"), topic=USAGE.name)

    with log.transaction():
        gone = log.forget(USAGE.name, 0, b'["aa"')

    assert (gone, last_words(log, USAGE.name)) == (2, {b'["ab",1]': b"1"})


def test_gates_that_are_silent_go_with_the_topics_retention(log: SqliteLog, clock: Clock) -> None:
    say(log, (b"gate-1", b"{}"), (b"gate-2", b"{}"), topic=GATES.name)
    clock.ms += 61_000
    say(log, (b"gate-2", b"{}"), topic=GATES.name)

    assert GATES.retention_s is not None
    log.trim(GATES.name, 0, log.end_offset(GATES.name, 0), clock.ms - GATES.retention_s * 1_000)

    assert set(last_words(log, GATES.name)) == {b"gate-2"}


steps = st.lists(
    st.one_of(
        st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b"d"]), st.sampled_from([b"", b"1", b"22"])), max_size=5),
        st.sampled_from(["follow", "late"]),
        st.integers(1, 200),
    ),
    max_size=25,
)


@given(steps)
def test_reading_from_the_start_and_following_ends_at_the_last_word_of_every_key(
    tmp_path_factory: pytest.TempPathFactory, steps: list[list[tuple[bytes, bytes]] | str | int]
) -> None:
    truth: dict[bytes, bytes] = {}
    followers: list[tuple[int, dict[bytes, bytes]]] = [(0, {})]
    offsets: list[int] = []
    max_bytes = 1 << 20
    with SqliteLog(tmp_path_factory.mktemp("log"), fsync="normal") as log:
        for step in [*steps, "follow"]:
            if isinstance(step, list):
                offsets.append(say(log, *step)[0])
                truth.update(step)
            elif isinstance(step, int):
                max_bytes = step
            elif step == "late":
                followers.append((0, {}))
            else:
                followers = [follow(log, *follower, max_bytes) for follower in followers]
        end = log.end_offset(SIGNALS.name, 0)

    assert offsets == sorted(offsets)
    for position, known in followers:
        assert position <= end
        assert {key: value for key, value in known.items() if value} == {key: value for key, value in truth.items() if value}


def follow(log: SqliteLog, position: int, known: dict[bytes, bytes], max_bytes: int) -> tuple[int, dict[bytes, bytes]]:
    """Read on from a position to the end, in pieces."""
    while records := log.read(SIGNALS.name, 0, position, max_bytes=max_bytes):
        assert [record.offset for record in records] == sorted({record.offset for record in records})
        known = known | {record.key or b"": record.value for record in records}
        position = records[-1].offset + 1
    return position, known
