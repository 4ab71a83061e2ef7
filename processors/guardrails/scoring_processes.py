"""Scoring processes of `tidegate score`: batches of lines out, scored batches back, in the order of the file.

    lines ─► batches ─► processes ─► scored batches, in order
                │
        process died, or took too long: another takes its place
                │
        the batch again, line by line ─► the line without the detector that broke on it ─► said to be unjudged

Memory does not grow with the file: at most two batches wait for each process.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Final, NamedTuple, Self

from ...schemas.errors import TidegateError, UsageError
from ..undumped import end_with_parent, leave_no_core
from .scoring import Numbered, Plan, Scored, Scorer, unjudged

# A second of work or two: what waits for each process stays small, however long the lines are.
_BATCH_BYTES: Final = 4 << 20
# Loading takes seconds; the largest torch models on a slow disk a minute.
_LOAD_WITHIN_S: Final = 180.0
_LOAD_TRIES: Final = 3
# In a file nobody waits for the first line: four times a pipeline's batch take a sixth less time a line, and may take four
# times as long.
_BATCHES: Final = 4
_END_WITHIN_S: Final = 2.0

Make = Callable[[Plan, Callable[[str], None]], Scorer]


class ScoredBatch(NamedTuple):
    lines: list[Scored]
    troubles: tuple[str, ...] = ()


class _Ready(NamedTuple):
    troubles: tuple[str, ...]


class _Refused(NamedTuple):
    problem: str


class _At(NamedTuple):
    """The detector that is asked next."""

    detector: str


@dataclass(slots=True, eq=False)
class _Work:
    """Lines of one batch of the file. `again`: a process has ended over just this line."""

    place: int
    lines: Sequence[Numbered] = field(repr=False)
    without: dict[str, str] = field(default_factory=dict)
    again: bool = False


@dataclass(slots=True, eq=False)
class _Process:
    """One process, and what it has. `at`: the detector that it was last heard to ask."""

    process: SpawnProcess
    line: Connection
    ready: bool = False
    work: _Work | None = None
    at: str = ""
    deadline: float = 0.0


def batches(lines: Iterable[Numbered], size: int) -> Iterator[list[Numbered]]:
    """Of `size` lines, or fewer long ones."""
    batch: list[Numbered] = []
    weight = 0
    for line in lines:
        if batch and (len(batch) == size or weight + len(line[1]) > _BATCH_BYTES):
            yield batch
            batch, weight = [], 0
        batch.append(line)
        weight += len(line[1])
    if batch:
        yield batch


def score_apart(
    lines: Iterable[Numbered], plan: Plan, processes: int, make: Make = Scorer
) -> Generator[ScoredBatch, None, None]:
    """In processes of their own. A line that ends or holds up its process is judged without the detector that did it; the
    others are scored. Raises `UsageError` where the detectors cannot be had."""
    with _Processes(plan, processes, make) as apart:
        yield from apart.score(batches(lines, _BATCHES * plan.settings.guard_batch))


class _Processes:
    def __init__(self, plan: Plan, most: int, make: Make) -> None:
        self._plan, self._most, self._make = plan, most, make
        self._spawn = multiprocessing.get_context("spawn")
        self._processes: list[_Process] = []
        self._again: deque[_Work] = deque()
        # Batches that are not complete: place in the file → how many lines it has, and those that are scored.
        self._open: dict[int, tuple[int, list[Scored]]] = {}
        self._troubles: tuple[str, ...] = ()
        # Processes that have ended since one was loaded.
        self._unready = 0

    def __enter__(self) -> Self:
        # Loading takes longer than reading does.
        self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for each in self._processes:
            each.line.close()
        for each in self._processes:
            if kind is not None or each.work is not None or not each.ready:
                each.process.kill()
            each.process.join(_END_WITHIN_S)
            each.process.kill()
            each.process.join()

    def score(self, source: Iterator[list[Numbered]]) -> Iterator[ScoredBatch]:
        first = 0
        more = True
        while more or self._open:
            while more and len(self._open) < 2 * self._most:
                batch = next(source, None)
                more = batch is not None
                if batch is not None:
                    place = first + len(self._open)
                    self._open[place] = len(batch), []
                    self._again.append(_Work(place, batch))
                    self._give()
            if self._open:
                self._listen()
                self._give()
            while first in self._open and len(self._open[first][1]) == self._open[first][0]:
                _, scored = self._open.pop(first)
                first += 1
                yield ScoredBatch(sorted(scored, key=lambda each: each.number), self._troubles)

    def _start(self) -> None:
        ours, theirs = self._spawn.Pipe()
        # Spawned, never forked: this process may have threads, and native libraries do not survive a fork.
        process = self._spawn.Process(target=_serve, args=(theirs, self._plan, self._make, os.getpid()), daemon=True)
        process.start()
        theirs.close()
        self._processes.append(_Process(process, ours, deadline=time.monotonic() + _LOAD_WITHIN_S))

    def _give(self) -> None:
        """To each process that has nothing to do the work that has waited longest; begin another one where all are busy."""
        while self._again and (idle := next((each for each in self._processes if each.ready and each.work is None), None)):
            work = self._again.popleft()
            idle.work, idle.at = work, ""
            time_s = self._plan.settings.guard_timeout_s
            idle.deadline = time.monotonic() + (time_s if len(work.lines) == 1 else _BATCHES * time_s)
            with contextlib.suppress(OSError):  # it has died: its end of the line says so
                idle.line.send((work.lines, work.without))
        while len(self._processes) < self._most and len(self._again) > sum(not each.ready for each in self._processes):
            self._start()

    def _listen(self) -> None:
        busy = {each.line: each for each in self._processes if each.work is not None or not each.ready}
        wait_s = min((each.deadline for each in busy.values()), default=0.0) - time.monotonic()
        heard = multiprocessing.connection.wait(list(busy), max(wait_s, 0.0))
        for line, each in busy.items():
            if line in heard:
                self._hear(each)
            elif time.monotonic() >= each.deadline:
                self._ended(each, "timeout")

    def _hear(self, each: _Process) -> None:
        try:
            said = each.line.recv()
        except (EOFError, OSError):
            self._ended(each, "crash")
            return
        if isinstance(said, _Refused):
            raise UsageError(said.problem)
        if isinstance(said, _Ready):
            each.ready, self._unready = True, 0
            self._troubles = said.troubles
        elif isinstance(said, _At):
            each.at = said.detector
        elif each.work is not None:
            self._open[each.work.place][1].extend(said)
            each.work = None

    def _ended(self, each: _Process, why: str) -> None:
        each.process.kill()
        each.process.join()
        each.line.close()
        self._processes.remove(each)
        work = each.work
        if work is None:
            # Somebody else may have ended one; not one after another.
            self._unready += 1
            if self._unready == _LOAD_TRIES:
                raise UsageError(f"scoring processes end while they are loading ({why}); is there enough memory?")
            return
        if len(work.lines) > 1:
            alone = [_Work(work.place, [line]) for line in work.lines]
            self._again.extendleft(reversed(alone))
        elif why == "crash" and not work.again:
            # Somebody else may have ended it.
            self._again.appendleft(_Work(work.place, work.lines, work.without, again=True))
        elif each.at and each.at not in work.without:
            self._again.appendleft(_Work(work.place, work.lines, work.without | {each.at: why}, again=True))
        else:
            ((number, line),) = work.lines
            self._open[work.place][1].append(unjudged(number, line, work.without | {"worker": why}))


def _serve(line: Connection, plan: Plan, make: Make, parent: int) -> None:
    """In a process of its own: load, then score what is asked for until the other end closes."""
    # Ctrl-C is for the command, which ends this process in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    leave_no_core()
    end_with_parent()
    if os.getppid() != parent:
        return
    try:
        scorer = make(plan, lambda detector: line.send(_At(detector)))
    except TidegateError as error:
        line.send(_Refused(str(error)))
        return
    _close_in(plan.settings.guard_memory_mb)
    line.send(_Ready(scorer.troubles))
    with contextlib.suppress(EOFError, OSError):
        while True:
            lines, without = line.recv()
            line.send(scorer.score(lines, without))


def _close_in(most_mb: int) -> None:
    """From now on this process has texts in it: a detector that wants too much memory gets an error, and what a library
    says in its last words may quote a text."""
    from .worker import bound_memory

    bound_memory(most_mb)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
