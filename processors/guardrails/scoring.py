"""Lines scored in batches: what one process of `tidegate score` does. The processes themselves: `scoring_processes`.

lines ─► Scorer (a suite, redaction) ─► scored lines, in order
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from ...schemas.errors import InvalidEvent
from ...schemas.settings import Settings
from .lines import Line, id_of, no_result, read_line, result
from .loading import load_suite
from .ports import Batch, Detector, Verdict
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
    own_id: str | int | None = None


class Scorer:
    """A suite, and what becomes of its verdicts. `troubles`: production models that could not be had; `at` is told the name
    of each detector before it is asked, and an empty one when all have answered."""

    def __init__(self, plan: Plan, at: Callable[[str], None] = lambda _: None) -> None:
        troubles: list[str] = []
        self._plan = plan
        self._at = at
        self._suite = load_suite(plan.settings, plan.detectors, strict=plan.strict, trouble=troubles.append)
        self.troubles = tuple(troubles)

    def score(self, batch: Sequence[Numbered], without: Mapping[str, str] | None = None) -> list[Scored]:
        """One result for each line, in order. A line that cannot be read is said to be so, in its place.

        `without`: detector → why it is not asked, as in `failed`.
        """
        without = without or {}
        scored: list[Scored] = []
        read: list[tuple[int, Line]] = []
        for number, line in batch:
            try:
                read.append((number, read_line(line)))
            except InvalidEvent as error:
                scored.append(unread(number, line, error.reason))
        for (number, own), assessment in zip(read, self._assess(read, without), strict=True):
            assessment.failed.update(without)
            redacted = self._redacted(number, own, assessment)
            output = orjson.dumps(result(own, assessment, redacted))
            scored.append(Scored(number, output, None, assessment.failed, own.id))
        return sorted(scored, key=lambda each: each.number)

    def _assess(self, read: Sequence[tuple[int, Line]], without: Collection[str]) -> list[Assessment]:
        if not read:
            return []
        asked = [_Told(one, self._at) for one in self._suite.detectors if one.name not in without]
        assessed = Suite(asked, self._suite.encoder).assess([line.sample(number) for number, line in read])
        self._at("")
        return assessed

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


class _Told:
    """A detector that is named before it is asked."""

    def __init__(self, detector: Detector, at: Callable[[str], None]) -> None:
        self._detector, self._at = detector, at
        self.name, self.version = detector.name, detector.version

    def assess(self, batch: Batch) -> list[Verdict]:
        self._at(self.name)
        return self._detector.assess(batch)

    def describe(self) -> Mapping[str, Any]:
        return self._detector.describe()


def unread(number: int, line: bytes, problem: str) -> Scored:
    own_id = id_of(line)
    return Scored(number, orjson.dumps(no_result(own_id) | {"line": number, "error": problem}), problem, {}, own_id)


def unjudged(number: int, line: bytes, failed: Mapping[str, str]) -> Scored:
    """Of a line that no process survives."""
    own_id = id_of(line)
    return Scored(number, orjson.dumps(no_result(own_id) | {"failed": dict(failed)}), None, failed, own_id)
