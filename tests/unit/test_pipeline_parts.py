"""Parts of the pipeline on one machine: begun again when they end, each time a little later, and stopped by their pid."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from tidegate.bench.kafka.parts import Watched, Worker


class Fragile:
    """A part that ends when it is told to."""

    def __init__(self) -> None:
        self.pid: int | None = 100
        self.running = True
        self.starts = 0
        self.stops = 0
        self.broken = False
        self.gate = threading.Event()
        self.gate.set()

    def start(self) -> None:
        self.gate.wait(10)
        if self.broken:
            raise OSError("no memory\nat all")
        self.starts += 1
        self.pid, self.running = 100 + self.starts, True

    def stop(self) -> None:
        self.stops += 1
        self.pid, self.running = None, False


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def news(watched: Watched) -> str:
    """What it says next; starts go on in a thread."""
    return eventually(watched.look)


def eventually(ask: Callable[[], str | None]) -> str:
    deadline = time.monotonic() + 10
    while (said := ask()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return said


def test_a_part_that_runs_is_left_alone() -> None:
    part = Fragile()
    watched = Watched("meter", part, Clock())

    assert watched.look() is None
    assert (part.starts, part.stops, watched.down) == (0, 0, False)


def test_a_part_that_ends_is_told_of_and_started_again_after_a_pause() -> None:
    part, clock = Fragile(), Clock()
    watched = Watched("meter", part, clock)
    part.running = False

    ended = watched.look()
    waiting = watched.look()
    clock.now += 1
    started = news(watched)

    assert ended == "meter (pid 100) ended by itself; starts again in 1 s"
    assert waiting is None
    assert started == "meter started again (pid 101)"
    assert not watched.down


def test_each_time_it_dies_at_once_it_is_waited_longer_and_a_good_minute_makes_up_for_it() -> None:
    part, clock = Fragile(), Clock()
    watched = Watched("meter", part, clock)
    pauses = []
    for lived_s in (0, 0, 0, 0, 0, 0, 61):
        clock.now += lived_s
        part.running = False
        pauses.append(float(news(watched).split(" again in ")[1].removesuffix(" s")))
        clock.now += pauses[-1]
        news(watched)

    assert pauses == [1, 2, 4, 8, 16, 30, 1]


def test_a_part_that_does_not_start_says_why_in_one_line_and_is_tried_again() -> None:
    part, clock = Fragile(), Clock()
    watched = Watched("broker", part, clock)
    part.running, part.broken = False, True
    watched.look()

    clock.now += 1
    failed = news(watched)
    part.broken = False
    clock.now += 2

    assert failed == "broker does not start: no memory; starts again in 2 s"
    assert news(watched) == "broker started again (pid 101)"


def test_a_stop_while_it_starts_leaves_nothing_behind() -> None:
    part, clock = Fragile(), Clock()
    watched = Watched("broker", part, clock)
    part.running = False
    watched.look()
    part.gate.clear()
    clock.now += 1
    watched.look()

    stopping = threading.Thread(target=watched.stop)
    stopping.start()
    part.gate.set()
    stopping.join(10)

    assert (part.starts, part.running) == (1, False)


def test_a_worker_is_a_process_whose_words_go_to_a_file_and_that_ends_when_told(tmp_path: Path) -> None:
    worker = Worker("nobody", tmp_path / "nobody.log", {"TIDEGATE_URL": "kafka://127.0.0.1:1"})

    worker.start()
    pid = worker.pid
    deadline = time.monotonic() + 30
    while worker.running and time.monotonic() < deadline:
        time.sleep(0.05)
    said, ran = worker.said.read_text(), worker.running
    worker.stop()

    assert pid is not None
    assert not ran
    assert not worker.works
    assert "no role nobody" in said
    assert worker.pid is None
