"""What the guardrails say of a call: one `scored` event for each content record, whether or not it could be scored.

The event holds no text: a finding is a type, a place, a score and a keyed fingerprint of what matched. It flows through
the calls topic like any other event, so that the meter counts findings into Usage exactly once, and policies act on them.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from .call import Slug, Timestamp, _Model
from .content import Fingerprint, OfCall, Where

# What became of a content record. Only `scored` says anything about the text; the others say why nothing is known.
Outcome = Literal[
    "scored",  # every detector asked for has judged it
    "partial",  # some detector failed or ran out of time; see `failed`. Without PHI there is no transcript
    "sampled_out",  # left out by sampling or by the scoring budget
    "hashed",  # there is no text to score
    "unreadable",  # no key opens it, or it is not what it says it is, and quarantined
    "quarantined",  # it broke a worker: the sealed record waits for a person
]

MAX_FINDINGS: Final = 200
MAX_EVIDENCE: Final = 200

Offset = Annotated[int, Field(ge=0, le=2**31 - 1)]
Score = Annotated[float, Field(ge=0, le=1)]


class FindingEntry(_Model):
    """One detector's result at one place of a call's texts. `start` and `end` count characters."""

    detector: Slug
    type: Slug
    where: Where
    chunk: Offset = 0  # of the context
    start: Offset
    end: Offset
    score: Score
    # PHI in an answer that its question and context did not have.
    leak: bool = False
    rule: Slug | None = None  # which of a file of rules says so
    fingerprint: Fingerprint | None = None


class EvidenceEntry(_Model):
    """What one sentence of the response rests on: a place in the context (or the prompt), and how well it bears."""

    start: Offset
    end: Offset
    score: Score
    source: Where
    source_start: Offset
    source_end: Offset
    chunk: Offset = 0  # of the context


class ScoredEvent(OfCall):
    """The verdict on one content record. A score that is absent was not computed: unknown, not zero."""

    event: Literal["scored"]
    scored_at: Timestamp
    outcome: Outcome
    findings: Annotated[list[FindingEntry], Field(max_length=MAX_FINDINGS)] = Field(default_factory=list)
    more_findings: Offset = 0  # found, counted, and left out for want of room
    evidence: Annotated[list[EvidenceEntry], Field(max_length=MAX_EVIDENCE)] = Field(default_factory=list)
    # "prompt.toxicity", "response.faithfulness", … as `tidegate score` names them.
    scores: Annotated[dict[Slug, Score], Field(max_length=32)] | None = None
    # Detector → its version; detector → why it did not judge.
    detectors: Annotated[dict[Slug, Slug], Field(max_length=32)] | None = None
    failed: Annotated[dict[Slug, Slug], Field(max_length=32)] | None = None
    cached: bool = False
    scoring_s: Annotated[float, Field(ge=0, le=86_400)] | None = None
