from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tidegate.producers import spool as spool_module
from tidegate.producers.shipper import Shipper
from tidegate.producers.spool import Spool, adopt
from tidegate.schemas.envelope import Envelope

MB = 1024 * 1024


def envelope(seq: int, count: int = 1, size: int = 20, producer: str = "py-host-1-abc") -> Envelope:
    return Envelope.of(producer, seq, [b'{"n":%d}' % n + b" " * size for n in range(seq, seq + count)], dropped=3)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool.create(tmp_path / "spool", "py-host-1-abc", 64 * MB)
    yield spool
    spool.abandon()


def drained(spool: Spool, most: int = 3) -> list[Envelope]:
    found: list[Envelope] = []
    while batch := spool.peek(most):
        found.extend(batch)
        spool.ack(len(batch))
    return found


def die(spool: Spool) -> None:
    """What `kill -9` leaves: files as they are, descriptors and lock gone."""
    spool.abandon()


def test_envelopes_come_back_whole_and_in_order(spool: Spool) -> None:
    envelopes = [envelope(n * 10, count=10) for n in range(25)]

    assert spool.append(envelopes) == 25

    assert drained(spool) == envelopes
    assert spool.empty


def test_the_same_envelopes_are_seen_until_they_are_acknowledged(spool: Spool) -> None:
    spool.append([envelope(0), envelope(1), envelope(2)])

    assert spool.peek(2) == spool.peek(2) == [envelope(0), envelope(1)]
    spool.ack(1)
    assert spool.peek(2) == [envelope(1), envelope(2)]


def test_what_is_appended_while_reading_comes_last(spool: Spool) -> None:
    spool.append([envelope(0), envelope(1)])
    assert spool.peek(1) == [envelope(0)]

    spool.append([envelope(2)])

    assert drained(spool) == [envelope(0), envelope(1), envelope(2)]


def test_sent_segments_are_deleted_as_they_are_done(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "_SEGMENT_BYTES", 1_000)
    spool.append([envelope(n, size=300) for n in range(12)])
    assert len(list(spool.folder.glob("*.seg"))) == 4

    for _ in range(5):
        spool.peek(1)
        spool.ack(1)

    assert len(list(spool.folder.glob("*.seg"))) == 3
    assert spool.size_bytes == sum(path.stat().st_size for path in spool.folder.glob("*.seg"))


def test_the_bound_holds_and_room_comes_back(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, "p", 5_000)

    taken = spool.append([envelope(n, size=900) for n in range(10)])

    assert 0 < taken < 10
    assert spool.size_bytes <= 5_000
    assert drained(spool) == [envelope(n, size=900) for n in range(taken)]
    assert spool.append([envelope(99)]) == 1
    spool.close()


def test_nobody_else_may_read_it(spool: Spool) -> None:
    spool.append([envelope(0)])

    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in (spool.folder.parent, spool.folder, *spool.folder.iterdir())
    }

    assert modes.pop(spool.folder.parent.name) == modes.pop(spool.folder.name) == 0o700
    assert set(modes.values()) == {0o600}


def test_closing_an_empty_spool_leaves_nothing(spool: Spool) -> None:
    spool.append([envelope(0)])
    drained(spool)

    spool.close()

    assert list(spool.folder.parent.iterdir()) == []


def test_a_dead_process_s_spool_is_taken_over_with_its_numbers(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, "p", MB)
    spool.append([envelope(5, count=2), envelope(7)])
    die(spool)

    (heir,) = adopt(tmp_path, MB)

    assert drained(heir) == [envelope(5, count=2), envelope(7)]
    heir.close()
    assert list(tmp_path.iterdir()) == []


def test_a_living_process_s_spool_is_left_alone(spool: Spool) -> None:
    spool.append([envelope(0)])

    assert adopt(spool.folder.parent, MB) == []
    assert drained(spool) == [envelope(0)]


def test_only_one_process_takes_a_spool_over(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, "p", MB)
    spool.append([envelope(0)])
    die(spool)

    first, second = adopt(tmp_path, MB), adopt(tmp_path, MB)

    assert len(first) == 1
    assert second == []
    first[0].abandon()


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path / "elsewhere", "p", MB)
    spool.append([envelope(0)])
    die(spool)
    root = tmp_path / "spool"
    root.mkdir()
    (root / "p-1-abc").symlink_to(spool.folder)

    assert adopt(root, MB) == []


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert adopt(tmp_path / "absent", MB) == []


@given(cut=st.integers(0, 2_000), junk=st.binary(max_size=40))
def test_wherever_a_write_was_torn_all_whole_frames_before_it_survive(
    tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes
) -> None:
    tmp_path = tmp_path_factory.mktemp("spool")
    spool = Spool.create(tmp_path, "p", MB)
    ends = []
    for n in range(8):
        spool.append([envelope(n, size=100)])
        ends.append(spool.size_bytes)
    (segment,) = spool.folder.glob("*.seg")
    die(spool)
    whole = segment.read_bytes()
    cut = min(cut, len(whole))
    segment.write_bytes(whole[:cut] + junk)

    (heir,) = adopt(tmp_path, MB) or [None]

    expected = [envelope(n, size=100) for n, end in enumerate(ends) if end <= cut]
    if heir is None:
        pytest.fail("a spool with a segment is taken over, whatever the segment holds")
    found = drained(heir)
    # Junk that happens to continue the frame byte for byte makes it whole again.
    assert found[: len(expected)] == expected
    assert len(found) <= len(expected) + whole.startswith(whole[:cut] + junk[:1])
    heir.close()
    assert list(tmp_path.iterdir()) == []


def test_a_flipped_bit_is_not_taken_for_events(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, "p", MB)
    spool.append([envelope(0), envelope(1)])
    (segment,) = spool.folder.glob("*.seg")
    die(spool)
    content = bytearray(segment.read_bytes())
    content[-3] ^= 1
    segment.write_bytes(content)

    (heir,) = adopt(tmp_path, MB)

    assert drained(heir) == [envelope(0)]
    assert heir.lost_bytes > 0
    heir.close()


def test_a_full_disk_in_mid_frame_hides_nothing_before_or_after_it(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    spool.append([envelope(0)])
    write = os.write

    def half(fd: int, data: Any) -> int:
        monkeypatch.setattr(os, "write", full)
        return write(fd, bytes(data)[:10])

    def full(fd: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="no space"):
        spool.append([envelope(1)])
    monkeypatch.setattr(os, "write", write)
    spool.append([envelope(1), envelope(2)])

    assert drained(spool) == [envelope(0), envelope(1), envelope(2)]
    assert spool.lost_bytes == 0


class Outages(RuleBasedStateMachine):
    """A process with a spool, a log that comes and goes, and `kill -9`: what was promised is counted once, in order."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.now = 0.0
        self.life = 0
        self.produced = 0
        self.promised: dict[str, int] = {}  # how many of a producer's first events are in the log or on disk
        self.counted: dict[str, list[int]] = {}
        self.begin()

    def begin(self) -> None:
        self.life += 1
        self.produced = 0
        self.shipper = Shipper(
            f"p{self.life}", 0, spool_dir=Path(self.folder.name), spool_max_bytes=4_000, uniform=lambda low, high: high
        )
        self.shipper.adopt()

    def promise(self) -> None:
        shipper = self.shipper
        self.promised[shipper.producer] = shipper.appended_events + shipper.spooled_events

    def count(self, envelopes: list[Envelope]) -> None:
        for envelope in envelopes:
            numbers = self.counted.setdefault(envelope.producer, [])
            for seq, line in enumerate(envelope.lines(), envelope.seq):
                assert line == b'{"n":%d}' % seq, "an event keeps its number"
                if not numbers or seq > numbers[-1]:
                    numbers.append(seq)

    @rule(events=st.integers(1, 20))
    def produce(self, events: int) -> None:
        for _ in range(events):
            self.shipper.add(b'{"n":%d}' % self.produced)
            self.produced += 1

    @rule(outcome=st.sampled_from(["ok", "ok", "ok", "away", "torn", "lost"]), seconds=st.floats(0, 20))
    def ship(self, outcome: str, seconds: float) -> None:
        self.now += seconds
        if self.shipper.wait_s(self.now) != 0.0:
            return
        batch = self.shipper.batch(0)
        if not batch:
            return
        self.count(batch[: {"ok": len(batch), "lost": len(batch), "torn": len(batch) // 2, "away": 0}[outcome]])
        if outcome == "ok":
            self.shipper.appended()
        else:
            self.shipper.unavailable(self.now, None)
            self.shipper.shelve(self.now, 0)
        self.promise()

    @precondition(lambda self: self.shipper.away)
    @rule()
    def shelve(self) -> None:
        self.shipper.shelve(self.now, 0)
        self.promise()

    @rule()
    def kill(self) -> None:
        self.promise()
        self.shipper.abandon()
        self.begin()

    @rule()
    def leave(self) -> None:
        self.shipper.shelve(self.now, 0)
        self.promise()
        self.shipper.give_up()
        self.begin()

    @invariant()
    def numbers_have_no_gaps(self) -> None:
        for numbers in self.counted.values():
            assert numbers == list(range(len(numbers)))

    def teardown(self) -> None:
        self.kill()
        while not self.shipper.idle:
            self.count(self.shipper.batch(0))
            self.shipper.appended()
        for producer, promised in self.promised.items():
            assert len(self.counted.get(producer, [])) >= promised
        self.shipper.give_up()
        assert list(Path(self.folder.name).iterdir()) == []
        self.folder.cleanup()


TestOutages = Outages.TestCase


def test_retries_slow_down_with_jitter_and_take_the_server_s_hint() -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return high

    shipper = Shipper("p", 0, uniform=uniform)
    shipper.add(b"{}")
    waits = []
    for _ in range(10):
        shipper.batch(0)
        shipper.unavailable(0.0, None)
        waits.append(shipper.wait_s(0.0))

    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15.0, 15.0]
    assert all(low == high / 2 for low, high in asked)
    shipper.unavailable(0.0, 40.0)
    assert shipper.wait_s(0.0) == 40.0
    shipper.unavailable(0.0, 86_400.0)
    assert shipper.wait_s(0.0) == 60.0, "a server may ask for patience, not for silence"
    shipper.batch(0)
    shipper.appended()
    assert shipper.wait_s(0.0) is None
