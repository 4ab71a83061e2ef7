"""The embedded log: dense offsets, all or nothing, several processes at once, and nothing torn by `kill -9`."""

from __future__ import annotations

import hashlib
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import NOW_MS, envelope, response
from tidegate.producers import sqlite_log
from tidegate.producers.local_log import LocalLog
from tidegate.producers.sqlite_log import FILE_NAME, SqliteLog
from tidegate.schemas.envelope import Envelope, partition_of
from tidegate.schemas.errors import LogUnavailable, UsageError
from tidegate.schemas.topics import CALLS, METERED, TOPICS

# Another process has to start, import and write; on a busy machine that takes its time.
DEADLINE_S = 60.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def log(folder: Path) -> Iterator[SqliteLog]:
    with SqliteLog(folder, fsync="normal", clock_ms=lambda: NOW_MS) as opened:
        yield opened


def add(log: SqliteLog, *values: bytes, partition: int = 0) -> tuple[int, int]:
    with log.transaction():
        return log.append(CALLS.name, partition, [(None, {}, value) for value in values])


def values(log: SqliteLog, start: int = 0, **bounds: Any) -> list[bytes]:
    return [record.value for record in log.read(CALLS.name, 0, start, **bounds)]


def test_a_record_comes_back_as_it_was_appended(log: SqliteLog) -> None:
    headers = {"producer": "triage-1", "note": "é😀\n"}

    with log.transaction():
        log.append(CALLS.name, 0, [(b"\x00key\xff", headers, b"\x00\xff\n"), (None, {}, b"")])
    first, second = log.read(CALLS.name, 0, 0)

    assert (first.offset, first.key, first.headers, first.value, first.appended_ms) == (
        *(0, b"\x00key\xff", headers, b"\x00\xff\n"),
        NOW_MS,
    )
    assert (second.offset, second.key, second.headers, second.value) == (1, None, {}, b"")


def test_offsets_are_dense_and_told_to_whoever_appends(log: SqliteLog) -> None:
    spans = [add(log, b"a", b"b"), add(log), add(log, b"c")]

    assert spans == [(0, 2), (2, 2), (2, 3)]
    assert [record.offset for record in log.read(CALLS.name, 0, 0)] == [0, 1, 2]
    assert log.end_offset(CALLS.name, 0) == 3


def test_topics_and_partitions_count_apart(folder: Path) -> None:
    with SqliteLog(folder, partitions=3, fsync="normal") as log:
        add(log, b"a", b"b", partition=2)
        with log.transaction():
            log.append(METERED.name, 2, [(None, {}, b"m")])

        ends = {(topic, partition): log.end_offset(topic, partition) for topic in TOPICS for partition in range(3)}

    assert {key: end for key, end in ends.items() if end} == {(CALLS.name, 2): 2, (METERED.name, 2): 1}


def test_reading_keeps_to_its_bounds(log: SqliteLog) -> None:
    add(log, *(b"%d" % number for number in range(10)))

    assert values(log, 4, end=7) == [b"4", b"5", b"6"]
    assert values(log, 8) == [b"8", b"9"]
    assert values(log, 10) == []
    assert values(log, 3, end=3) == []
    assert values(log, 0, max_bytes=1) == [b"0"]


@settings(max_examples=25)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=30), st.integers(1, 2_000))
def test_reading_in_pieces_sees_every_record_once(
    tmp_path_factory: pytest.TempPathFactory, sent: list[bytes], most: int
) -> None:
    with SqliteLog(tmp_path_factory.mktemp("log"), fsync="normal") as log:
        add(log, *sent)

        received: list[bytes] = []
        while piece := values(log, len(received), max_bytes=most):
            received += piece

    assert received == sent


def test_a_transaction_that_fails_leaves_nothing(log: SqliteLog) -> None:
    add(log, b"kept")

    def interrupted() -> None:
        with log.transaction():
            log.append(CALLS.name, 0, [(None, {}, b"gone")])
            log.commit_offset("meter", CALLS.name, 0, 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert values(log) == [b"kept"]
    assert log.committed("meter", CALLS.name, 0) == 0
    assert add(log, b"next") == (1, 2)


def test_nobody_sees_a_transaction_before_it_is_done(log: SqliteLog, folder: Path) -> None:
    with SqliteLog(folder) as other, log.transaction():
        log.append(CALLS.name, 0, [(None, {}, b"soon")])
        seen_within = values(other)

    assert seen_within == []
    assert values(log) == [b"soon"]


def test_committed_offsets_are_of_a_group_a_topic_and_a_partition(folder: Path) -> None:
    with SqliteLog(folder, partitions=2) as log:
        add(log, *[b"x"] * 5, partition=1)
        with log.transaction():
            log.commit_offset("meter", CALLS.name, 1, 2)
            log.commit_offset("meter", CALLS.name, 1, 3)

    with SqliteLog(folder) as log:
        found = {
            (group, partition): log.committed(group, CALLS.name, partition)
            for group in ("meter", "sink")
            for partition in (0, 1)
        }
        lags = log.lag("meter", [CALLS.name]), log.lag("sink", [CALLS.name])

    assert found == {("meter", 0): 0, ("meter", 1): 3, ("sink", 0): 0, ("sink", 1): 0}
    assert lags == (2, 5)


def test_nobody_is_behind_by_what_retention_has_taken(log: SqliteLog) -> None:
    add(log, *[b"x"] * 5)

    lags = []
    for below in (3, 5):
        log.trim(CALLS.name, 0, below, 2**62)
        lags.append(log.lag("meter", [CALLS.name]))
    add(log, b"x")
    lags.append(log.lag("meter", [CALLS.name]))

    assert lags == [2, 0, 1]


def test_waiting_bytes_are_those_not_yet_passed(log: SqliteLog) -> None:
    add(log, *[b"x" * 100] * 10)
    with log.transaction():
        log.commit_offset("meter", CALLS.name, 0, 4)

    few = log.waiting_bytes("meter", CALLS.name)
    add(log, *[b"x" * 100] * 3_000)
    many = log.waiting_bytes("meter", CALLS.name)

    assert few == 600
    assert many == pytest.approx(300_600, rel=0.02)


def test_waiting_bytes_are_guessed_from_the_newest_records_that_are_still_there(log: SqliteLog) -> None:
    nothing = log.waiting_bytes_guessed("meter", CALLS.name)
    add(log, *[b"x" * 1_000] * 10, *[b"x" * 100] * 64)

    all_wait = log.waiting_bytes_guessed("meter", CALLS.name)
    with log.transaction():
        log.commit_offset("meter", CALLS.name, 0, 4)
    some_passed = log.waiting_bytes_guessed("meter", CALLS.name)
    log.trim(CALLS.name, 0, below=70, older_than_ms=2**62)
    most_trimmed = log.waiting_bytes_guessed("meter", CALLS.name)
    log.trim(CALLS.name, 0, below=74, older_than_ms=2**62)

    assert (nothing, all_wait, some_passed, most_trimmed) == (0, 7_400, 7_000, 400)
    assert log.waiting_bytes_guessed("meter", CALLS.name) == 0


def test_trimming_takes_the_oldest_that_are_below_and_older(folder: Path) -> None:
    clock = iter(range(0, 1_000, 100))
    with SqliteLog(folder, fsync="normal", clock_ms=lambda: next(clock)) as log:
        for number in range(6):
            add(log, b"%d" % number)

        by_age = log.trim(CALLS.name, 0, below=6, older_than_ms=200)
        after_age = values(log)
        by_offset = log.trim(CALLS.name, 0, below=4, older_than_ms=10_000, limit=1)
        after_offset = values(log)
        rest = log.trim(CALLS.name, 0, below=4, older_than_ms=10_000)

        assert (by_age, after_age) == (2, [b"2", b"3", b"4", b"5"])
        assert (by_offset, after_offset) == (1, [b"3", b"4", b"5"])
        assert (rest, values(log)) == (1, [b"4", b"5"])


def test_an_offset_is_never_used_again_even_when_all_was_trimmed(log: SqliteLog, folder: Path) -> None:
    add(log, b"a", b"b")
    log.trim(CALLS.name, 0, below=2, older_than_ms=NOW_MS + 1)

    with SqliteLog(folder) as reopened:
        span = add(reopened, b"c")

    assert span == (2, 3)


def test_only_the_owner_may_read_the_log(folder: Path) -> None:
    with SqliteLog(folder) as log:
        add(log, b"a")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert FILE_NAME in modes
    assert len(modes) == 3  # beside it: the write-ahead log and its index
    assert set(modes.values()) == {0o600}


def test_another_number_of_partitions_is_refused_with_both_numbers(folder: Path) -> None:
    SqliteLog(folder, partitions=2).close()

    with pytest.raises(UsageError, match=r"2 partitions, not 3.*TIDEGATE_PARTITIONS"):
        SqliteLog(folder, partitions=3)
    with SqliteLog(folder) as log:
        assert log.partitions == 2


def test_a_log_of_another_format_is_refused(folder: Path) -> None:
    with SqliteLog(folder) as log:
        log.db.execute("UPDATE log_format SET version = '0'")

    with pytest.raises(UsageError, match="log format 0"):
        SqliteLog(folder)


def test_a_log_that_stays_busy_is_unavailable_for_now(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_log, "_BUSY_TIMEOUT_S", 0.01)
    with SqliteLog(folder, fsync="normal") as one, SqliteLog(folder, fsync="normal") as other:
        with one.transaction():
            with pytest.raises(LogUnavailable, match=FILE_NAME) as caught:
                add(other, b"x")
            one.append(CALLS.name, 0, [(None, {}, b"first")])

        assert caught.value.retry_after_s is not None
        assert add(other, b"second") == (1, 2)


def test_a_full_disk_is_unavailable_for_now_and_loses_nothing(log: SqliteLog) -> None:
    add(log, b"kept")
    (pages,) = log.db.execute("PRAGMA page_count").fetchone()
    log.db.execute(f"PRAGMA max_page_count = {pages + 2}")

    with pytest.raises(LogUnavailable, match="full"):
        add(log, b"x" * 100_000)
    left = values(log)
    log.db.execute("PRAGMA max_page_count = 1000000")

    assert left == [b"kept"]
    assert add(log, b"x" * 100_000) == (1, 2)


def test_a_commit_that_fails_leaves_the_log_usable(folder: Path) -> None:
    with SqliteLog(folder, fsync="normal") as log:
        log.db.close()
        log.db = sqlite3.connect(folder / FILE_NAME, isolation_level=None, factory=_FailsToCommitOnce)

        with pytest.raises(LogUnavailable, match="disk I/O error"):
            add(log, b"gone")

        assert add(log, b"kept") == (0, 1)
        assert values(log) == [b"kept"]


class _FailsToCommitOnce(sqlite3.Connection):
    failed = False

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql == "COMMIT" and not self.failed:
            self.failed = True
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, *parameters)


def test_a_folder_that_cannot_be_made_is_unavailable_for_now(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")

    with pytest.raises(LogUnavailable, match="taken"):
        SqliteLog(tmp_path / "taken" / "data")


def test_a_folder_has_a_log_once_something_is_in_it(folder: Path) -> None:
    before = SqliteLog.exists(folder)
    folder.mkdir()
    (folder / FILE_NAME).touch()
    empty = SqliteLog.exists(folder)
    SqliteLog(folder).close()

    assert (before, empty, SqliteLog.exists(folder)) == (False, False, True)


APPENDER = """
import hashlib, sys
from pathlib import Path
from tidegate.producers.local_log import LocalLog
from tidegate.schemas.envelope import Envelope

folder, producer, most = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
log = LocalLog(folder, fsync="normal", partitions=2)
for number in range(most):
    body = f"{producer}/{number}".encode() * (number % 50 + 1)
    lines = [body, hashlib.sha256(body).hexdigest().encode()]
    log.append([Envelope.of(producer, number * 2, lines), Envelope.of(producer, number * 2, lines)])
"""


def appender(folder: Path, producer: str, most: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", APPENDER, str(folder), producer, str(most)], stderr=subprocess.PIPE)


def read_all(folder: Path) -> dict[int, list[Envelope]]:
    """Every envelope by partition. Offsets must be dense, envelopes whole."""
    found: dict[int, list[Envelope]] = {}
    with SqliteLog(folder) as log:
        for partition in range(log.partitions):
            records = log.read(CALLS.name, partition, 0, max_bytes=1 << 40)
            assert [record.offset for record in records] == list(range(log.end_offset(CALLS.name, partition)))
            found[partition] = [Envelope.from_record(record.headers, record.value) for record in records]
    for envelopes in found.values():
        for whole in envelopes:
            body, digest = whole.lines()
            assert hashlib.sha256(body).hexdigest().encode() == digest
    return found


def test_several_processes_append_to_a_new_folder_at_once(folder: Path) -> None:
    names = ["p0", "p1", "p2", "p3"]

    running = [appender(folder, name, 100) for name in names]
    errors = [process.communicate(timeout=DEADLINE_S)[1] for process in running]

    assert errors == [b""] * len(names)
    by_partition = read_all(folder)
    for partition, envelopes in by_partition.items():
        mine = [name for name in names if partition_of(name, 2) == partition]
        assert {envelope.producer for envelope in envelopes} == set(mine)
        for name in mine:
            # each of its envelopes twice, in the order it sent them
            assert [envelope.seq for envelope in envelopes if envelope.producer == name] == [i // 2 * 2 for i in range(200)]


OPENER = """
import sys, time
from pathlib import Path
from tidegate.producers.sqlite_log import SqliteLog

print("ready", flush=True)
start = float(sys.stdin.readline())
for number in range(80):
    while time.time() < start + number * 0.01:
        pass
    SqliteLog(Path(sys.argv[1]) / str(number)).close()
"""


def test_processes_that_open_a_new_folder_in_the_same_instant_wait_for_each_other(tmp_path: Path) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = [subprocess.Popen([sys.executable, "-c", OPENER, str(tmp_path)], text=True, **pipes) for _ in range(3)]
    assert [process.stdout.readline() for process in running] == ["ready\n"] * 3

    start = str(time.time() + 0.05)
    for process in running:
        process.stdin.write(start + "\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=DEADLINE_S)[1] for process in running]

    assert errors == [""] * 3


def test_killing_an_appender_leaves_whole_transactions_and_a_log_to_go_on_with(folder: Path) -> None:
    process = appender(folder, "victim", 10_000_000)
    partition = partition_of("victim", 2)

    _until(lambda: SqliteLog.exists(folder) and _end(folder, partition) > 50, process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=DEADLINE_S)
    envelopes = read_all(folder)[partition]

    assert process.returncode == -signal.SIGKILL
    assert len(envelopes) > 50
    assert [envelope.seq for envelope in envelopes] == [i // 2 * 2 for i in range(len(envelopes))]  # always in pairs
    assert len(envelopes) % 2 == 0
    with SqliteLog(folder) as log:
        assert add(log, b"more", partition=partition) == (len(envelopes), len(envelopes) + 1)


def _end(folder: Path, partition: int) -> int:
    try:
        with SqliteLog(folder) as log:
            return log.end_offset(CALLS.name, partition) if partition < log.partitions else 0
    except LogUnavailable:
        return 0


def _until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline, "the appender has written nothing in time"


# --- the emitter's way in; what every log must keep is in test_log.py


def test_a_busy_log_is_unavailable_and_takes_all_of_it_later(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_log, "_BUSY_TIMEOUT_S", 0.01)
    log = LocalLog(folder, fsync="normal", partitions=2)
    sent = [envelope(f"triage-{number}", 0, [response()]) for number in range(5)]
    log.append([envelope("earlier", 0, [response()])])

    with SqliteLog(folder, partitions=2) as other, other.transaction(), pytest.raises(LogUnavailable):
        log.append(sent)
    before = _producers(folder)
    log.append(sent)
    log.close()

    assert before == ["earlier"]
    assert _producers(folder) == ["earlier", *(each.producer for each in sent)]


def _producers(folder: Path) -> list[str]:
    with SqliteLog(folder) as reader:
        records = [record for partition in range(2) for record in reader.read(CALLS.name, partition, 0)]
    return sorted(record.headers["producer"] for record in records)
