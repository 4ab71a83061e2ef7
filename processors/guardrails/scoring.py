"""Lines scored in batches, here or in processes of their own; what comes out is in the order of what went in.

    lines ─► batches ─► Scorer (a suite, redaction) ─► scored lines

Memory does not grow with the file: at most two batches wait for each process.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import orjson

from ...schemas.errors import InvalidEvent
from ...schemas.settings import Settings
from .lines import Line, id_of, read_line, result
from .loading import load_suite
from .redaction import Redacted, redact
from .suite import Assessment, Suite

Numbered = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to score with. Goes to other processes: it holds no key but the one that redaction derives its stand-ins from."""

    settings: Settings
    detectors: tuple[str, ...] | None = None
    strict: bool = False
    redaction_key: bytes = field(default=b"", repr=False)


class Scored(NamedTuple):
    """One line's result. `problem`: why it could not be read; `failed`: detector → the kind of error it broke with."""

    number: int
    output: bytes = b""
    problem: str | None = None
    failed: Mapping[str, str] = {}


class ScoredBatch(NamedTuple):
    lines: list[Scored]
    troubles: tuple[str, ...] = ()


class Scorer:
    """A suite, and what becomes of its verdicts. `troubles`: production models that could not be had."""

    def __init__(self, plan: Plan) -> None:
        troubles: list[str] = []
        self._plan = plan
        self.suite: Suite = load_suite(plan.settings, plan.detectors, strict=plan.strict, trouble=troubles.append)
        self.troubles = tuple(troubles)

    def score(self, batch: Sequence[Numbered]) -> ScoredBatch:
        """One result for each line, in order. A line that cannot be read is said to be so, in its place."""
        scored: list[Scored] = []
        read: list[tuple[int, Line]] = []
        for number, line in batch:
            try:
                read.append((number, read_line(line)))
            except InvalidEvent as error:
                scored.append(Scored(number, unread(number, error.reason, id_of(line)), error.reason))
        for (number, own), assessment in zip(read, self._assess(read), strict=True):
            redacted = self._redacted(number, own, assessment)
            output = orjson.dumps(result(own, assessment, redacted))
            scored.append(Scored(number, output, None, assessment.failed))
        return ScoredBatch(sorted(scored, key=lambda each: each.number), self.troubles)

    def _assess(self, read: Sequence[tuple[int, Line]]) -> list[Assessment]:
        return self.suite.assess([line.sample(number) for number, line in read]) if read else []

    def _redacted(self, number: int, line: Line, assessment: Assessment) -> Redacted | None:
        """Nothing is shown unless PHI was looked for, and found or not found: fail closed."""
        if "phi" not in assessment.detectors:
            return None
        phi = [finding for finding in assessment.findings if finding.detector == "phi"]
        try:
            return redact(line.sample(number), phi, self._plan.settings.redaction, key=self._plan.redaction_key)
        except ValueError as error:  # a finding outside its text: what else it missed nobody knows
            assessment.failed["redaction"] = type(error).__name__
            return None


def unread(number: int, problem: str, own_id: str | int | None = None) -> bytes:
    """What stands in the place of a line that could not be scored, so that none is dropped in silence."""
    return orjson.dumps({"id": own_id, "line": number, "error": problem})


def batches(lines: Iterable[Numbered], size: int) -> Iterator[list[Numbered]]:
    batch: list[Numbered] = []
    for line in lines:
        batch.append(line)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def score_here(lines: Iterable[Numbered], plan: Plan) -> Iterator[ScoredBatch]:
    """In this process. Raises `UsageError` before the first line is read, where the detectors cannot be had."""
    scorer = Scorer(plan)
    return (scorer.score(batch) for batch in batches(lines, plan.settings.guard_batch))


def score_apart(lines: Iterable[Numbered], plan: Plan, processes: int) -> Iterator[ScoredBatch]:
    """In processes of their own. A line that kills its process is said to have done so; the others are scored."""
    waiting: deque[tuple[Sequence[Numbered], Future[ScoredBatch]]] = deque()
    with _Processes(plan, processes) as apart:
        for batch in batches(lines, plan.settings.guard_batch):
            waiting.append((batch, apart.submit(batch)))
            while len(waiting) > 2 * processes:
                yield apart.answer(*waiting.popleft())
        while waiting:
            yield apart.answer(*waiting.popleft())


class _Processes:
    """Scoring processes, made anew when one dies: the pool that it was in is then of no more use."""

    def __init__(self, plan: Plan, processes: int) -> None:
        self._plan = plan
        self._processes = processes
        self._pool = _pool(processes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, batch: Sequence[Numbered]) -> Future[ScoredBatch]:
        try:
            return self._pool.submit(_score, self._plan, batch)
        except BrokenProcessPool:
            self._pool.shutdown(wait=False)
            self._pool = _pool(self._processes)
            return self._pool.submit(_score, self._plan, batch)

    def answer(self, batch: Sequence[Numbered], future: Future[ScoredBatch]) -> ScoredBatch:
        """A process that died took every batch with it that was under way: each is given again, and then line by line."""
        for given in (future, None):
            try:
                return (given or self.submit(batch)).result()
            except BrokenProcessPool:
                continue
        return self._line_by_line(batch)

    def _line_by_line(self, batch: Sequence[Numbered]) -> ScoredBatch:
        scored: list[Scored] = []
        troubles: tuple[str, ...] = ()
        for number, line in batch:
            try:
                answer = self.submit([(number, line)]).result()
            except BrokenProcessPool:
                problem = "the scoring process died of this line"
                scored.append(Scored(number, unread(number, problem, id_of(line)), problem))
            else:
                scored.extend(answer.lines)
                troubles = answer.troubles
        return ScoredBatch(scored, troubles)


def _pool(processes: int) -> ProcessPoolExecutor:
    # Spawned, never forked: the parent may have threads, and native libraries do not survive a fork.
    return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))


_scorer: Scorer | None = None


def _score(plan: Plan, batch: Sequence[Numbered]) -> ScoredBatch:
    """In a process of the pool: the scorer is loaded with the first batch, so that an error of loading is the parent's."""
    global _scorer
    if _scorer is None:
        _scorer = Scorer(plan)
    return _scorer.score(batch)
