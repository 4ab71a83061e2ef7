"""What is on its way through the step: a record of content, and each of its lines, with what is known of it so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...schemas.content import ContentEvent
from ...schemas.envelope import Envelope
from ...schemas.residency import CrossRegion
from .jobs import Job, Judged
from .sampling import Choice


@dataclass(slots=True, eq=False)
class Line:
    """One line of a content envelope on its way. `verdict` is what is known of it, sooner or later."""

    seq: int
    raw: bytes
    event: ContentEvent | None = None
    verdict: Judged | None = None
    problem: str | None = None
    job: Job | None = None
    choice: Choice = Choice.ORDINARY
    # Why it may not rest here; or the `rejected` event by which a door says so, which goes on as it is.
    crossed: CrossRegion | None = None
    rejected: bytes | None = None


@dataclass(slots=True, eq=False)
class Record:
    """One record on its way; without an envelope it is a dead letter for `problem`."""

    offset: int
    appended_ms: int
    value: bytes
    envelope: Envelope | None = None
    lines: list[Line] = field(default_factory=list)
    problem: str | None = None
    # What its producer should send next, once this is passed.
    next_seq: int = 0

    @property
    def finished(self) -> bool:
        return all(line.verdict is not None or line.problem is not None for line in self.lines)
