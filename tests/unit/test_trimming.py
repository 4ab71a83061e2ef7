"""What retention no longer asks for goes, in small parts and behind nobody's back; the quarantine is bounded in bytes, too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from support import NOW_MS, NOW_S
from tidegate.processors.embedded.trimming import Trimming
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import ALERTS, CALLS, CONTENT, METERED, QUARANTINE, TRANSCRIPTS, USAGE

DAY_S = 86_400
MIB = 1 << 20


class Clock:
    ms = NOW_MS

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> Iterator[SqliteLog]:
    with SqliteLog(tmp_path, partitions=2, fsync="normal", clock_ms=clock) as opened:
        yield opened


def trimming(log: SqliteLog, later_s: float = 0, **settings: Any) -> Trimming:
    return Trimming(log.path.parent, Settings(**settings), clock=lambda: NOW_S + later_s)


def add(log: SqliteLog, topic: str, *values: bytes, partition: int = 0, key: bytes | None = None) -> None:
    with log.transaction():
        log.append(topic, partition, [(key, {"count": "1"}, value) for value in values])


def offsets(log: SqliteLog, topic: str, partition: int = 0) -> list[int]:
    return [record.offset for record in log.read(topic, partition, 0, max_bytes=1 << 40)]


def test_content_goes_after_a_day_though_nobody_has_judged_it_and_a_transcript_waits_for_the_sink(
    log: SqliteLog, clock: Clock
) -> None:
    for topic in (CONTENT, TRANSCRIPTS):
        add(log, topic.name, b"old")
    clock.ms += DAY_S * 1_000
    for topic in (CONTENT, TRANSCRIPTS):
        add(log, topic.name, b"new")

    with closing(trimming(log, later_s=DAY_S + 60)) as one:
        gone = one.run_once()
        with log.transaction():
            log.commit_offset("sink", TRANSCRIPTS.name, 0, 1)
        gone_then = one.run_once()

    assert (gone, gone_then) == (1, 1)
    assert offsets(log, CONTENT.name) == offsets(log, TRANSCRIPTS.name) == [1]


def test_a_thousand_envelopes_a_second_go_as_fast_as_they_came(log: SqliteLog) -> None:
    add(log, CONTENT.name, *[b"sealed"] * 3_000)
    add(log, CONTENT.name, *[b"sealed"] * 700, partition=1)
    rests: list[int] = []

    with closing(trimming(log, later_s=2 * DAY_S)) as one:
        parts = []
        while gone := one.run_once(lambda: rests.append(1)):
            parts.append(gone)

    assert parts == [1_000, 700, 500, 500, 500, 500]
    assert len(rests) == 8
    assert offsets(log, CONTENT.name) == offsets(log, CONTENT.name, 1) == []


def test_large_records_go_some_megabytes_at_a_time(log: SqliteLog) -> None:
    add(log, CONTENT.name, *[bytes(MIB)] * 10)

    with closing(trimming(log, later_s=2 * DAY_S)) as one:
        parts = [one.run_once() for _ in range(4)]

    assert parts == [4, 4, 2, 0]


def test_nothing_goes_before_everybody_has_passed_it(log: SqliteLog) -> None:
    for topic in (CALLS, METERED):
        add(log, topic.name, b"a", b"b", b"c")
    with log.transaction():
        log.commit_offset("meter", CALLS.name, 0, 2)

    with closing(trimming(log, later_s=40 * DAY_S)) as one:
        one.run_once()

    assert (offsets(log, CALLS.name), offsets(log, METERED.name)) == ([2], [0, 1, 2])


def test_what_takes_a_key_back_goes_once_it_was_heard(log: SqliteLog) -> None:
    add(log, USAGE.name, b"1", key=b"kept")
    add(log, USAGE.name, b"1", b"", key=b"gone")
    with log.transaction():
        log.commit_offset("policies", USAGE.name, 0, 3)

    with closing(trimming(log, later_s=120)) as one:
        one.run_once()

    assert [record.key for record in log.read(USAGE.name, 0, 0)] == [b"kept"]


def test_a_quarantine_that_is_full_loses_its_oldest_and_somebody_is_told(log: SqliteLog, clock: Clock) -> None:
    for number in range(12):
        clock.ms += 100_000
        add(log, QUARANTINE.name, bytes(MIB // 4), partition=number % 2)

    with closing(trimming(log, quarantine_max_bytes=2 * MIB)) as one:
        full = one.status()["quarantine"]
        while one.run_once():
            pass
        status = one.status()["quarantine"]

    kept = {partition: offsets(log, QUARANTINE.name, partition) for partition in (0, 1)}
    assert full == {"bytes": 0, "pushed_out": 0}
    assert status == {"bytes": 7 * MIB // 4, "pushed_out": 5}
    assert kept == {0: [3, 4, 5], 1: [2, 3, 4, 5]}
    [alert] = [orjson.loads(record.value) for record in log.read(ALERTS.name, 0, 0)]
    assert alert["kind"] == "guardrails_quarantine_full"


def test_a_quarantine_that_a_person_has_emptied_is_counted_anew_before_anything_is_pushed_out(log: SqliteLog) -> None:
    add(log, QUARANTINE.name, *[bytes(MIB // 2)] * 3)

    with closing(trimming(log, quarantine_max_bytes=2 * MIB)) as one:
        one.run_once()
        with log.transaction():
            for offset in (0, 1):
                log.remove(QUARANTINE.name, 0, offset)
        add(log, QUARANTINE.name, *[bytes(MIB // 2)] * 2)
        gone = one.run_once()
        status = one.status()["quarantine"]

    assert gone == 0
    assert status == {"bytes": 3 * MIB // 2, "pushed_out": 0}


@pytest.mark.parametrize(("size_mib", "later_s", "told_mib"), [(1, 5, 1), (20, 5, 40), (20, 600, 20)])
def test_what_a_person_has_taken_out_of_quarantine_is_soon_not_told_any_more(
    log: SqliteLog, clock: Clock, size_mib: int, later_s: int, told_mib: int
) -> None:
    add(log, QUARANTINE.name, *[bytes(size_mib * MIB)] * 2)

    with closing(Trimming(log.path.parent, Settings(), clock=lambda: clock.ms / 1_000)) as one:
        one.run_once()
        with log.transaction():
            log.remove(QUARANTINE.name, 0, 0)
        clock.ms += later_s * 1_000
        one.run_once()
        status = one.status()["quarantine"]

    assert status == {"bytes": told_mib * MIB, "pushed_out": 0}


def test_a_quarantine_within_its_bytes_keeps_all_for_a_month(log: SqliteLog) -> None:
    add(log, QUARANTINE.name, *[bytes(MIB // 4)] * 4)

    with closing(trimming(log, later_s=29 * DAY_S, quarantine_max_bytes=MIB)) as one:
        in_time = one.run_once()
    with closing(trimming(log, later_s=31 * DAY_S, quarantine_max_bytes=MIB)) as one:
        over = one.run_once()

    assert (in_time, over) == (0, 4)
