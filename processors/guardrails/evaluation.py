"""`tidegate evaluate`: labelled lines in, figures out.

    {"prompt", "response", "context", "labels": {"phi": [{"type", "start", "end", "where", "chunk"}],
                                                 "toxicity": 0|1, "injection": 0|1, "faithful": 0|1}, "source"}

A line is judged on the labels it has; `phi: []` says that there is none. `source` names where a line is from: every figure is
also given by source, for a mean over sources hides the one that fails.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...schemas.content import Where
from ...schemas.errors import InvalidEvent
from . import evaluation_scores, evaluation_spans
from .evaluation_scores import ScoreReport
from .evaluation_spans import Marked, SpanReport
from .lines import Line, problems_of, read_json, refuse_empty
from .ports import Sample
from .suite import Assessment

Offset = Annotated[int, Field(ge=0)]
Flag = Literal[0, 1]


class GoldSpan(BaseModel):
    """Where PHI stands, in characters of the text as it is in the line."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    type: Annotated[str, Field(min_length=1, max_length=64)]
    start: Offset
    end: Offset
    where: Where = "prompt"
    chunk: Offset = 0
    optional: bool = False


class Labels(BaseModel):
    """What is known of a line; None is not known."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    phi: tuple[GoldSpan, ...] | None = None
    toxicity: Flag | None = None
    injection: Flag | None = None
    faithful: Flag | None = None

    @model_validator(mode="before")
    @classmethod
    def _booleans(cls, found: Any) -> Any:
        if isinstance(found, dict):
            return {name: int(value) if isinstance(value, bool) else value for name, value in found.items()}
        return found


_LABELS: Final = ", ".join(Labels.model_fields)


class LabelledLine(Line):
    """One line to evaluate on."""

    labels: Labels
    source: str = "all"


def read_labelled(line: bytes) -> LabelledLine:
    """Raises `InvalidEvent`: also where a span lies outside its text, which would count as missed for ever."""
    found = read_json(line)
    if "labels" not in found:
        raise InvalidEvent(f'no "labels": an object with some of {_LABELS}')
    try:
        read = LabelledLine.model_validate(found, strict=False)
    except ValidationError as error:
        raise InvalidEvent(_problems(error)) from None
    refuse_empty(read)
    if read.labels == Labels():
        raise InvalidEvent(f"labels: none is given; give some of {_LABELS}")
    lengths = {(where, chunk): len(text) for where, chunk, text in read.sample(0).texts()}
    for number, span in enumerate(read.labels.phi or ()):
        if not span.start < span.end <= lengths.get((span.where, span.chunk), -1):
            raise InvalidEvent(f"labels.phi[{number}] is outside the text that it names")
    return read


def _problems(error: ValidationError) -> str:
    """As `problems_of`, with the label's name where it is one of ours: another may be somebody's text."""
    problems = error.errors(include_input=False, include_url=False, include_context=False)
    for problem in problems:
        match problem["loc"]:
            case ("labels", str(name), *_) if name in Labels.model_fields:
                return f"labels.{name}: {problem['msg']}"
            case ("labels", _, *_):
                return f"labels: an unknown label; known are {_LABELS}"
    return problems_of(error)


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked of one label: whose score, over which texts, speaks for `speaks_for`; what is alarmed on.

    `alarm_means` is the label that a finding speaks for: an unsupported claim speaks for unfaithful, 0.
    """

    label: str
    detector: str
    scores: tuple[tuple[Where, str], ...]
    over: tuple[Where, ...]
    alarm_means: Flag = 1
    # Findings whose type begins so; others of the detector say something else, such as "unverifiable".
    alarms: tuple[str, ...] = ("",)

    def alarmed(self, assessment: Assessment) -> bool:
        return any(
            found.detector == self.detector and found.where in self.over and found.type.startswith(self.alarms)
            for found in assessment.findings
        )

    def score(self, assessment: Assessment) -> float | None:
        found = [assessment.scores[key] for key in self.scores if key in assessment.scores]
        return max(found) if found else None


TASKS: Final = (
    Task("toxicity", "toxicity", (("prompt", "toxicity"), ("response", "toxicity")), ("prompt", "response")),
    Task("injection", "injection", (("prompt", "injection"), ("context", "injection")), ("prompt", "context")),
    Task("faithful", "faithfulness", (("response", "faithfulness"),), ("response",), 0, ("CONTRADICT", "UNSUPPORTED")),
)
# Whom labels can measure.
MEASURED: Final = frozenset(("phi", *(task.detector for task in TASKS)))


@dataclass(slots=True)
class Series:
    """Everything a score's report and plots are made of. `labels` and `alarmed` are of the kind that should alarm."""

    labels: list[bool] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    alarmed: list[bool] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    unscored: int = 0

    def report(self) -> ScoreReport:
        return evaluation_scores.compare(self.labels, self.scores, self.alarmed, self.lengths)


@dataclass(slots=True)
class Evaluation:
    """Figures by label, then by source; `all` holds every line. `asked`: the detectors that had a say; a label that is for
    another one is in no figure, and a line with no other label is none of `lines`."""

    asked: frozenset[str] = MEASURED
    lines: int = 0
    failed: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    spans: dict[str, list[tuple[list[Marked], list[Marked]]]] = field(default_factory=lambda: defaultdict(list))
    series: dict[str, dict[str, Series]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(Series)))

    def add(self, line: LabelledLine, sample: Sample, assessment: Assessment) -> None:
        spans = line.labels.phi is not None and "phi" in self.asked
        tasks = [task for task in TASKS if task.detector in self.asked and getattr(line.labels, task.label) is not None]
        if not (spans or tasks):
            return
        self.lines += 1
        for detector in assessment.failed:
            self.failed[detector] += 1
        sources = dict.fromkeys(("all", line.source))
        if spans:
            pair = _gold(line, sample), _said(assessment)
            for source in sources:
                self.spans[source].append(pair)
        for task in tasks:
            for source in sources:
                label = bool(getattr(line.labels, task.label))
                self._score(task, label, self.series[task.label][source], sample, assessment)

    def _score(self, task: Task, label: bool, series: Series, sample: Sample, assessment: Assessment) -> None:
        score = task.score(assessment)
        if score is None:
            series.unscored += 1
            return
        # A faithful answer scores high; what should alarm is the other kind, so both are turned round.
        turned = task.alarm_means == 0
        series.labels.append(label != turned)
        series.scores.append(1.0 - score if turned else score)
        series.alarmed.append(task.alarmed(assessment))
        series.lengths.append(sum(len(text) for where, _, text in sample.texts() if where in task.over))

    def span_reports(self) -> dict[str, SpanReport]:
        return {source: evaluation_spans.compare(pairs) for source, pairs in self.spans.items()}

    def score_reports(self) -> dict[str, dict[str, ScoreReport]]:
        return {
            label: {source: series.report() for source, series in by_source.items() if series.labels}
            for label, by_source in self.series.items()
        }

    def as_dict(self) -> dict[str, Any]:
        return {
            "lines": self.lines,
            "failed": dict(self.failed),
            "phi": {source: report.as_dict() for source, report in self.span_reports().items()},
            **{
                label: {source: report.as_dict() for source, report in reports.items()}
                for label, reports in self.score_reports().items()
            },
        }


def _gold(line: LabelledLine, sample: Sample) -> list[Marked]:
    texts = {(where, chunk): text for where, chunk, text in sample.texts()}
    return [
        Marked.gold(place, span.start, span.end, span.type, texts[place], span.optional)
        for span in line.labels.phi or ()
        for place in [(span.where, span.chunk)]
    ]


def _said(assessment: Assessment) -> list[Marked]:
    return [
        Marked((found.where, found.chunk), found.start, found.end, found.type)
        for found in assessment.findings
        if found.detector == "phi"
    ]
