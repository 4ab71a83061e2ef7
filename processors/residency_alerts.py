"""Refused writes as a person hears of them: one alert an hour of each tenant, region and region; and counts for metrics.

An incident is told when it begins, with what was refused by then. What is refused in the hour after that is told together when
the hour is over, and an incident that has ended is told so once more; a restart loses what was not told yet. Nobody says that
it is over: other workers may refuse the same, and the notifier takes two hours of silence for it.

What could not be written is told again: a node asks for that by `forget`, while a worker on Kafka ends when it cannot write,
and the next one has told nobody. What is kept of it has an end, by `MOST_INCIDENTS`.

One for an engine. Labels are words of the residency map; an alert names the tenant as the event did, as its calls would.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from ..schemas.residency import OTHER, UNTAGGED, CrossRegion, Residency
from ..schemas.signal import Alert

# An incident that goes on is told again after this.
AGAIN_MS: Final = 3_600_000
# Tenants are anybody's words: beyond so many incidents at once they are told as one.
MOST_INCIDENTS: Final = 1_000
RUNBOOK: Final = "docs/residency.md"


class Refusals:
    """What was refused, told and counted. Without a map of its own it knows what others have refused, and no names for it."""

    def __init__(self, residency: Residency | None) -> None:
        self._residency = residency
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self._told_ms: dict[CrossRegion, int] = {}
        # Refused since the incident was told; of those alone that are in `_told_ms`, so that there is an end to them.
        self._untold: Counter[CrossRegion] = Counter()
        # Both as they were before what was told last, until that is written.
        self._before: tuple[dict[CrossRegion, int], Counter[CrossRegion]] | None = None

    def tell(self, found: Sequence[CrossRegion], now_ms: int) -> list[Alert]:
        """The alerts that are due, of what was refused by now. Then `wrote`, or `forget`."""
        if not found and not self._told_ms:
            return []
        self._before = dict(self._told_ms), self._untold.copy()
        due: dict[CrossRegion, None] = {}
        for over in [incident for incident, told_ms in self._told_ms.items() if now_ms - told_ms >= AGAIN_MS]:
            del self._told_ms[over]
            if self._untold[over]:
                due[over] = None
        for one in found:
            incident = CrossRegion(one.tenant, *self._labels(one)[1:])
            known = incident in self._told_ms or incident in due
            if not known and len(self._told_ms) + len(due) >= MOST_INCIDENTS:
                incident = CrossRegion(OTHER, *incident[1:])
            self._untold[incident] += 1
            if incident not in self._told_ms:
                due[incident] = None
        self._told_ms |= dict.fromkeys(due, now_ms)
        return [self._alert(incident, now_ms) for incident in due]

    def wrote(self, found: Sequence[CrossRegion]) -> None:
        """What was told is written, and counts: once, however often it was tried."""
        self._before = None
        for one in found:
            self.counts[self._labels(one)] += 1

    def forget(self) -> None:
        """What was told last was not written: it will be told again."""
        if self._before is not None:
            self._told_ms, self._untold = self._before
            self._before = None

    def status(self) -> list[dict[str, Any]]:
        """Since this process began. From any thread."""
        return [
            {"tenant": tenant, "from": origin, "to": refused_in, "refused": count}
            for (tenant, origin, refused_in), count in sorted(self.counts.copy().items())
        ]

    def _labels(self, one: CrossRegion) -> tuple[str, str, str]:
        return self._residency.labels(one) if self._residency is not None else (OTHER, OTHER, OTHER)

    def _alert(self, incident: CrossRegion, now_ms: int) -> Alert:
        tenant, origin, refused_in = incident.tenant or "(none)", incident.region or UNTAGGED, incident.refused_in
        count = self._untold.pop(incident)
        return Alert(
            key=f"residency|{tenant}|{origin}|{refused_in}",
            kind="residency",
            severity="critical",
            title=f"residency: data of tenant {tenant} from region {origin} was refused in {refused_in} ({count} times)",
            scope={"tenant": incident.tenant},
            at=now_ms / 1_000,
            runbook=RUNBOOK,
        )
