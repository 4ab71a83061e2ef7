"""Lines of JSON in, lines of JSON out: what `tidegate score` and `tidegate evaluate` read, and what is said of a sample.

    {"id", "prompt", "response", "context": [...]}  ─► Sample ─► Assessment ─►  {"id", "findings", "scores", "redacted"}

Any part of a line may be absent, but not all; `context` may also be one string. What is wrong with a line is told by field,
never by content. Every result has the same keys, whatever became of the line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ...schemas.content import MAX_CHUNKS, WHERES, Where
from ...schemas.errors import InvalidEvent
from .ports import Evidence, Finding, Sample, Scores
from .redaction import Redacted
from .suite import Assessment

# The scores that are always there, null where nothing was scored. What else a detector says is told apart from them.
SCORES: Final[Mapping[Where, tuple[str, ...]]] = {
    "prompt": ("toxicity", "injection"),
    "response": ("toxicity", "faithfulness", "relevance"),
    "context": ("injection",),
}

# Longer texts are no prompts; they would hold a process, and its memory, for minutes.
MAX_TEXT_CHARS: Final = 4_000_000
# A few texts of that length; and a file that has no line ends stays out of memory.
MAX_LINE_BYTES: Final = 64 << 20
# Beyond a millionth a score is noise, and fifteen digits of it are hard to read.
SCORE_DIGITS: Final = 6

# What to do about a field that is wrong, where the message alone does not say it.
_WANTED: Final = {
    "context": "; give a list of texts, or one text",
    "id": "; give a text or a whole number, or leave it out",
}

Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else [] if value is None else value


class Line(BaseModel):
    """One line as it is read. What else stands in it is kept for who knows it (`labels`), and otherwise ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, hide_input_in_errors=True)

    id: str | int | None = None
    prompt: Text | None = Field(default=None, repr=False)
    response: Text | None = Field(default=None, repr=False)
    context: Annotated[list[Text], BeforeValidator(_listed), Field(max_length=MAX_CHUNKS, repr=False)] = []
    known: dict[str, str] = Field(default_factory=dict, repr=False)

    def sample(self, number: int) -> Sample:
        """What the detectors see; without an id of its own it is called by its number."""
        name = str(number) if self.id is None else str(self.id)
        return Sample(name, self.prompt, self.response, tuple(self.context), self.known)


def read_json(line: bytes) -> dict[str, Any]:
    """Raises `InvalidEvent`: what is wrong, without what is in it."""
    if len(line) > MAX_LINE_BYTES:
        raise InvalidEvent(f"longer than {MAX_LINE_BYTES >> 20} MB")
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        # The message is the parser's own; the error object holds the line, so it goes no further.
        raise InvalidEvent(f"not valid JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(found, dict):
        raise InvalidEvent("not a JSON object")
    return found


def read_line(line: bytes) -> Line:
    """Raises `InvalidEvent`: also where there is nothing to score, which is a file of another kind or a key mistyped."""
    try:
        read = Line.model_validate(read_json(line))
    except ValidationError as error:
        raise InvalidEvent(problems_of(error)) from None
    refuse_empty(read)
    return read


def refuse_empty(read: Line) -> None:
    """Raises `InvalidEvent`."""
    if read.prompt is None and read.response is None and not read.context:
        raise InvalidEvent("nothing to score: it has none of prompt, response and context")


def id_of(line: bytes) -> str | int | None:
    """The id of a line that is otherwise wrong, where it has one."""
    try:
        found = read_json(line).get("id")
    except InvalidEvent:
        return None
    return found if isinstance(found, str | int) and not isinstance(found, bool) else None


def problems_of(error: ValidationError) -> str:
    """The fields that are wrong, and how; never their values."""
    problems = error.errors(include_input=False, include_url=False, include_context=False)
    # Below the first part of a place may stand keys that somebody else chose.
    fields = [str(problem["loc"][0]) if problem["loc"] else "line" for problem in problems]
    said = {f"{name}: {problem['msg']}{_WANTED.get(name, '')}": None for name, problem in zip(fields, problems, strict=True)}
    return "; ".join(said)


def result(line: Line, assessment: Assessment, redacted: Redacted | None) -> dict[str, Any]:
    """What is said of one line. `redacted` is None where PHI was not looked for, or could not be: nothing is shown then."""
    shown = None
    if redacted is not None:
        shown = {"prompt": redacted.prompt, "response": redacted.response, "context": list(redacted.context)}
    said = _said(line.id, [finding_dict(found) for found in in_reading_order(assessment.findings)], assessment.scores, shown)
    if more := _more_scores(assessment.scores):
        said["more_scores"] = more
    if assessment.evidence:
        said["evidence"] = [evidence_dict(evidence) for evidence in assessment.evidence]
    if assessment.failed:
        said["failed"] = dict(assessment.failed)
    return said


def no_result(own_id: str | int | None) -> dict[str, Any]:
    """What stands in the place of a line of which nothing is known, so that none is dropped in silence."""
    return _said(own_id, [], {}, None)


def _said(
    own_id: str | int | None, findings: list[dict[str, Any]], scores: Scores, shown: Mapping[str, Any] | None
) -> dict[str, Any]:
    return {
        "id": own_id,
        "findings": findings,
        "scores": scores_dict(scores),
        "redacted": dict.fromkeys(WHERES) if shown is None else shown,
    }


def scores_dict(scores: Scores) -> dict[str, dict[str, float | None]]:
    """Always the same keys; null was not scored."""
    return {where: {name: _rounded(scores.get((where, name))) for name in SCORES[where]} for where in WHERES}


def _more_scores(scores: Scores) -> dict[str, dict[str, float | None]]:
    more: dict[str, dict[str, float | None]] = {}
    for (where, name), score in scores.items():
        if name not in SCORES[where]:
            more.setdefault(where, {})[name] = _rounded(score)
    return more


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(float(score), SCORE_DIGITS)


def finding_dict(finding: Finding) -> dict[str, Any]:
    said: dict[str, Any] = {
        "detector": finding.detector,
        "type": finding.type,
        "where": finding.where,
        "start": finding.start,
        "end": finding.end,
        "score": round(float(finding.score), SCORE_DIGITS),
    }
    if finding.where == "context":
        said["chunk"] = finding.chunk
    if finding.leak:
        said["leak"] = True
    if finding.rule:
        said["rule"] = finding.rule
    return said


def evidence_dict(evidence: Evidence) -> dict[str, Any]:
    """What one sentence of the response rests on; an empty span where nothing speaks of it."""
    said = evidence._asdict() | {"score": round(float(evidence.score), SCORE_DIGITS)}
    if evidence.source != "context":
        del said["chunk"]
    return said


def in_reading_order(findings: Sequence[Finding]) -> list[Finding]:
    """Prompt, response, context; within each, by place."""
    return sorted(findings, key=lambda found: (WHERES.index(found.where), found.chunk, found.start, found.end, found.type))
