"""How a verdict counts in a policy: which findings its `finding_type` means, and whether the verdict can tell.

    finding_type     the findings it means                          verdicts that can tell
    (none)           all, with those left out for want of room      that judged anything: outcome `scored` or `partial`
    phi              of the detector of that name                   … and that this detector is part of
    US_SSN           of the type of that name                       that judged anything
    phi_leak         with `leak`                                    … and that the detector phi is part of

Names are compared without case. A verdict that cannot tell is unknown, not clean: it is in no share.

The rules stand here twice, side by side: for events as they come, and in ClickHouse's words for rows of `scored_calls`, from
which a new policy learns its past.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from ..schemas.settings import DETECTORS

JUDGED: Final = frozenset({"scored", "partial"})
PHI_LEAK: Final = "phi_leak"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a policy's `finding_type` means."""

    name: str | None
    # Whose verdict it takes; None: any detector's.
    detector: str | None

    @classmethod
    def of(cls, finding_type: str | None) -> Wanted:
        name = None if finding_type is None else finding_type.lower()
        return cls(name, "phi" if name == PHI_LEAK else name if name in DETECTORS else None)

    # an event, as decoded

    def count(self, event: Any) -> int:
        """How many findings of a verdict are meant."""
        if self.name is None:
            return len(event.findings) + event.more_findings  # type: ignore[no-any-return]
        if self.name == PHI_LEAK:
            return sum(found.leak for found in event.findings)
        name = self.name
        return sum(found.type.lower() == name or found.detector.lower() == name for found in event.findings)

    def can_tell(self, event: Any) -> bool:
        """Whether a verdict without such a finding means that there is none."""
        if event.outcome not in JUDGED:
            return False
        if self.detector is None:
            return True
        return self.detector not in (event.failed or ()) and (not event.detectors or self.detector in event.detectors)

    # a row of `scored_calls`

    @property
    def parameters(self) -> dict[str, str]:
        """The values named in the expressions below."""
        return {"finding_type": self.name or "", "detector": self.detector or ""}

    @property
    def count_sql(self) -> str:
        if self.name is None:
            return "length(findings.type) + more_findings"
        if self.name == PHI_LEAK:
            return "countEqual(findings.leak, true)"
        name = "{finding_type:String}"
        return f"arrayCount((t, d) -> lower(t) = {name} OR lower(d) = {name}, findings.type, findings.detector)"

    @property
    def can_tell_sql(self) -> str:
        judged = f"outcome IN ({', '.join(repr(outcome) for outcome in sorted(JUDGED))})"
        if self.detector is None:
            return judged
        name = "{detector:String}"
        return f"({judged} AND NOT mapContains(failed, {name}) AND (empty(detectors) OR mapContains(detectors, {name})))"
