"""A replay gives each non-blank line one sequence number, whatever the file's shape, and may always be repeated."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from tidegate.producers.emitter import Emitter
from tidegate.producers.log_lines import MAX_LINE_BYTES
from tidegate.producers.replay import ReplayReport, read_lines, replay, replay_files, replay_identity
from tidegate.schemas.envelope import Envelope
from tidegate.schemas.errors import UsageError
from tidegate.schemas.hot import decode_event
from tidegate.schemas.settings import Settings


def call(number: int, started_at: str = "2026-11-02T08:00:00Z") -> bytes:
    event = {"event": "response", "call_id": f"c-{number}", "started_at": started_at, "request_model": "gpt-4o"}
    return json.dumps(event).encode()


class Recorder:
    """An emitter that keeps what it is given, in order; every entry is one sequence number."""

    def __init__(self, takes: bool = True, flushes: bool = True) -> None:
        self.taken: list[str] = []
        self.rejections: list[dict[str, Any]] = []
        self.waits = 0
        self.closed = False
        self.takes, self.flushes = takes, flushes

    def emit(self, event: Mapping[str, Any], /) -> bool:
        decode_event(orjson.dumps(dict(event)))
        if event["event"] == "rejected":
            self.rejections.append(dict(event))
            self.taken.append("rejected")
        elif self.takes:
            self.taken.append(event["call_id"])
        return self.takes

    def reject(self, line: bytes, reason: str, source: str, line_no: int | None = None) -> bool:
        fingerprint = hashlib.sha256(line).hexdigest()
        self.rejections.append({"sha256": fingerprint, "reason": reason, "source": source, "line": line_no})
        self.taken.append("rejected")
        return True

    def wait_for_room(self) -> bool:
        self.waits += 1
        return True

    def flush(self, timeout_s: float) -> bool:
        return self.flushes

    def close(self) -> None:
        self.closed = True


class MemoryLog:
    """A log that counts every event once, by producer and sequence number, as the meter does."""

    def __init__(self) -> None:
        self.events: dict[tuple[str, int], bytes] = {}

    def append(self, envelopes: Sequence[Envelope]) -> None:
        for envelope in envelopes:
            for seq, line in enumerate(envelope.lines(), envelope.seq):
                self.events.setdefault((envelope.producer, seq), line)

    def close(self) -> None: ...

    def call_ids(self) -> list[str]:
        return sorted(json.loads(line)["call_id"] for line in self.events.values())


def emitter_to(log: MemoryLog, producer: str) -> Emitter:
    return Emitter(log, settings=Settings(), producer_id=producer)


def write(path: Path, *lines: bytes, end: bytes = b"\n") -> Path:
    path.write_bytes(b"\n".join(lines) + end)
    return path


def test_each_line_is_published_or_rejected_in_order_and_blanks_are_skipped(tmp_path: Path) -> None:
    log = write(tmp_path / "calls.jsonl", call(1), b"", b"not json", b"  \r", b"{}", call(2) + b"\r")
    emitter = Recorder()

    report = replay([log], emitter)

    assert emitter.taken == ["c-1", "rejected", "rejected", "c-2"]
    assert [(entry["source"], entry["line"]) for entry in emitter.rejections] == [("calls.jsonl", 3), ("calls.jsonl", 5)]
    assert emitter.rejections[0]["sha256"] == hashlib.sha256(b"not json").hexdigest()
    assert (report.files, report.lines, report.published, report.rejected_lines, report.blank) == (1, 4, 2, 2, 2)
    assert report.bytes == log.stat().st_size
    assert report.problems == []


def test_lines_with_the_same_fault_count_under_one_reason(tmp_path: Path) -> None:
    log = write(tmp_path / "calls.jsonl", b"{", b"{ ", b"{  ", b"[]")

    report = replay([log], Recorder())

    assert sorted(report.rejected.values()) == [1, 3]


def test_gzip_is_known_by_its_bytes_and_has_the_identity_of_the_plain_file(tmp_path: Path) -> None:
    plain = write(tmp_path / "calls.jsonl", call(1), call(2))
    packed = tmp_path / "calls.log"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    emitter = Recorder()

    replay([packed], emitter)

    assert emitter.taken == ["c-1", "c-2"]
    assert replay_identity(packed) == replay_identity(plain)


def test_standard_input_is_read_and_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b"\n" + call(1) + b"\n" + call(2)))
    monkeypatch.setattr(sys, "stdin", stdin)
    opened: dict[str, Recorder] = {}

    report = replay_files(["-"], lambda identity: opened.setdefault(identity, Recorder()))

    plain = write(tmp_path / "calls.jsonl", call(1), call(2))
    assert {identity: emitter.taken for identity, emitter in opened.items()} == {replay_identity(plain): ["c-1", "c-2"]}
    assert (report.published, report.blank) == (2, 1)
    assert not stdin.buffer.closed


def test_a_line_above_the_limit_is_rejected_by_its_fingerprint_without_being_held(tmp_path: Path) -> None:
    long = b'{"event":"response","x":"' + b"x" * (MAX_LINE_BYTES + 2_000_000) + b'"}'
    log = write(tmp_path / "calls.jsonl", call(1), long, call(2))
    emitter = Recorder()

    report = replay([log], emitter, now=lambda: datetime(2026, 11, 2, tzinfo=UTC))

    assert emitter.taken == ["c-1", "rejected", "c-2"]
    rejection = emitter.rejections[0]
    assert rejection["sha256"] == hashlib.sha256(long).hexdigest()
    assert (rejection["size_bytes"], rejection["line"], rejection["source"]) == (len(long), 2, "calls.jsonl")
    assert report.bytes == log.stat().st_size


@pytest.mark.parametrize("end", [b"\n", b""])
@pytest.mark.parametrize("size", [9, 10, 11, 25])
def test_lines_around_the_limit_keep_their_size_and_fingerprint(size: int, end: bytes) -> None:
    content = b"x" * size

    line, *rest = read_lines(io.BytesIO(content + end), limit=10)

    assert (line.size_bytes, line.sha256, line.terminated) == (size, hashlib.sha256(content).hexdigest(), end == b"\n")
    assert (line.content == content) == (size <= 10)
    assert rest == []


def test_a_replay_repeated_changes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "calls.jsonl", call(1), call(2), call(3))
    log = MemoryLog()

    for _ in range(3):
        replay_files([path], lambda identity: emitter_to(log, identity))

    assert log.call_ids() == ["c-1", "c-2", "c-3"]


def test_a_file_half_written_in_the_middle_of_a_line_loses_nothing_when_it_is_replayed_whole(tmp_path: Path) -> None:
    path, log = tmp_path / "calls.jsonl", MemoryLog()
    whole = b"\n".join([call(1), call(2), call(3)]) + b"\n"
    reports = []

    for cut in (len(call(1)) + 40, len(whole) - 1, len(whole)):
        path.write_bytes(whole[:cut])
        reports.append(replay_files([path], lambda identity: emitter_to(log, identity)))

    assert log.call_ids() == ["c-1", "c-2", "c-3"]
    assert [report.published for report in reports] == [1, 3, 3]
    assert "calls.jsonl: the last line (2) is unfinished" in reports[0].problems[0]
    assert [report.problems for report in reports[1:]] == [[], []]


def test_an_unfinished_last_line_of_a_file_said_to_be_final_is_rejected(tmp_path: Path) -> None:
    path = write(tmp_path / "calls.jsonl", call(1), call(2)[:30], end=b"")
    emitter = Recorder()

    report = replay([path], emitter, final=True)

    assert emitter.taken == ["c-1", "rejected"]
    assert (report.lines, report.problems) == (2, [])


def test_a_compressed_file_cut_short_gives_what_it_holds_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl.gz"
    numbers = range(2_000)
    packed = gzip.compress(b"\n".join(call(number) for number in numbers) + b"\n")
    path.write_bytes(packed[: len(packed) // 2])
    emitter = Recorder()

    report = replay([path], emitter)

    assert 0 < report.published < 2_000
    assert emitter.taken == [f"c-{number}" for number in numbers[: report.published]]
    assert "the compressed data ends early" in report.problems[0]


def test_a_compressed_file_that_is_damaged_gives_what_it_holds_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl.gz"
    packed = bytearray(gzip.compress(b"\n".join(call(number) for number in range(2_000)) + b"\n"))
    packed[-6] ^= 0xFF  # the checksum
    path.write_bytes(packed)

    report = replay([path], Recorder())

    assert "the compressed data is damaged" in report.problems[0]


def test_two_files_are_two_producers_and_share_a_sequence_only_when_asked_to(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.jsonl", call(1)), write(tmp_path / "b.jsonl", call(2))]
    opened: dict[str, Recorder] = {}
    one = Recorder()

    report = replay_files(paths, lambda identity: opened.setdefault(identity, Recorder()))
    replay(paths, one)

    assert [emitter.taken for emitter in opened.values()] == [["c-1"], ["c-2"]]
    assert all(emitter.closed for emitter in opened.values())
    assert (report.files, report.published) == (2, 2)
    assert one.taken == ["c-1", "c-2"]
    assert not one.closed


def test_two_files_that_begin_alike_are_refused_before_anything_is_published(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.jsonl", call(1), call(2)), write(tmp_path / "b.jsonl", b"", call(1), call(3))]

    with pytest.raises(UsageError, match="begin with the same line"):
        replay_files(paths, lambda identity: pytest.fail("nothing may be published"))


def test_an_identity_survives_growth_and_differs_between_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b"", call(1))
    before = replay_identity(path)
    write(path, call(1), call(2), b"junk")

    assert replay_identity(path) == before
    assert replay_identity(write(tmp_path / "b.jsonl", call(2))) != before
    assert before.startswith("replay-")
    assert len(before) == len("replay-") + 24


def test_an_empty_file_publishes_nothing_and_opens_no_producer(tmp_path: Path) -> None:
    paths = [write(tmp_path / "empty.jsonl", end=b""), write(tmp_path / "blank.jsonl", b" ", b"")]

    report = replay_files(paths[:1], lambda identity: pytest.fail("no producer is needed"))
    blank = replay_files(paths[1:], lambda identity: pytest.fail("no producer is needed"))

    assert (report.files, report.lines, report.blank) == (1, 0, 0)
    assert (blank.lines, blank.blank) == (0, 2)


def test_events_the_emitter_will_not_take_are_reported_as_dropped(tmp_path: Path) -> None:
    path = write(tmp_path / "calls.jsonl", call(1), call(2))

    report = replay([path], Recorder(takes=False))

    assert (report.lines, report.published, report.dropped) == (2, 0, 2)


def test_a_log_that_does_not_take_everything_in_time_is_a_problem(tmp_path: Path) -> None:
    path = write(tmp_path / "calls.jsonl", call(1))

    report = replay_files([path], lambda identity: Recorder(flushes=False), flush_timeout_s=3)

    assert "calls.jsonl: the log has not taken everything after 3 s" in report.problems[0]


def test_room_is_waited_for_before_every_line(tmp_path: Path) -> None:
    path = write(tmp_path / "calls.jsonl", call(1), b"junk", call(2))
    emitter = Recorder()

    replay([path], emitter)

    assert emitter.waits == 3


def test_a_small_buffer_drops_nothing(tmp_path: Path) -> None:
    path, log = write(tmp_path / "calls.jsonl", *(call(number) for number in range(500))), MemoryLog()
    emitter = Emitter(log, settings=Settings(buffer_events=10), producer_id="replay-small")

    report = replay([path], emitter)

    assert emitter.close()
    assert (report.published, report.dropped, len(log.events)) == (500, 0, 500)


class FakeTime:
    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_the_recorded_pace_is_kept_at_the_speed_asked_for(tmp_path: Path) -> None:
    times = ("08:00:00", "08:00:10", "08:00:05", "08:00:12")
    lines = [call(number, f"2026-11-02T{time}Z") for number, time in enumerate(times)]
    path, fake = write(tmp_path / "calls.jsonl", *lines), FakeTime()

    replay([path], Recorder(), speed=4.0, clock=fake.clock, sleep=fake.sleep)

    assert fake.slept == [1.0, 1.0, 0.5, 0.5]


def test_max_speed_never_sleeps(tmp_path: Path) -> None:
    path = write(tmp_path / "calls.jsonl", call(1), call(2, "2026-11-03T08:00:00Z"))

    report = replay([path], Recorder(), sleep=lambda seconds: pytest.fail("max speed sleeps"))

    assert report.published == 2


@pytest.mark.parametrize("speed", [0, -1.0, float("nan")])
def test_a_speed_that_goes_nowhere_is_refused(speed: float) -> None:
    with pytest.raises(UsageError, match="speed must be above 0"):
        replay([], Recorder(), speed=speed)


def test_a_stop_is_heard_between_lines_and_while_waiting(tmp_path: Path) -> None:
    path = write(tmp_path / "calls.jsonl", call(1), call(2, "2026-11-03T08:00:00Z"), call(3, "2026-11-04T08:00:00Z"))
    fake, emitter = FakeTime(), Recorder()

    report = replay([path], emitter, speed=1.0, clock=fake.clock, sleep=fake.sleep, stop=lambda: len(fake.slept) >= 2)

    assert fake.slept == [1.0, 1.0]
    assert report.published == len(emitter.taken) < 3


def test_progress_is_told_on_the_way_and_at_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "calls.jsonl", *(call(number) for number in range(2_500)))
    seen: list[int] = []

    def progress(report: ReplayReport) -> None:
        seen.append(report.lines)

    replay([path], Recorder(), progress=progress)

    assert seen == [1_000, 2_000, 2_500]


def test_a_path_that_cannot_be_read_is_a_usage_error_naming_it(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.jsonl", tmp_path):
        with pytest.raises(UsageError, match="cannot read"):
            replay([path], Recorder())
        with pytest.raises(UsageError, match="cannot read"):
            replay_identity(path)


def test_standard_input_has_no_identity_before_it_is_read() -> None:
    with pytest.raises(UsageError, match="--producer"):
        replay_identity("-")
