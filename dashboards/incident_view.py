"""Incidents and silences as the console shows them: in words, without ids of persons. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ..processors.console_access import Digests
from ..processors.incident_words import runbook_of, summary
from ..processors.incidents import Incident, Window
from ..schemas.signal import Contributor
from .ranges import iso_of

# A wall shows some; of a storm the harshest and oldest are enough to begin with.
_MOST: Final = 200
_LEVEL: Final = {"critical": 0, "warning": 1}


def incidents_shown(incidents: Sequence[Incident], windows: Sequence[Window], digests: Digests) -> dict[str, Any]:
    """The critical first, then the oldest."""
    ordered = sorted(incidents, key=lambda one: (_LEVEL[one.severity], one.opened_at, one.number))
    return {
        "incidents": [_incident(one, digests) for one in ordered[:_MOST]],
        "more": max(len(ordered) - _MOST, 0),
        "windows": [_window(one, digests) for one in windows],
    }


def who_spent(contributors: Sequence[Contributor], spend: float | None, digests: Digests) -> list[dict[str, Any]]:
    """Who spent which share of it."""
    return [
        {
            "who": ", ".join(_spender(name, value, digests) for name, value in one.scope.items()) or "everything",
            "share": one.spend / spend if spend else None,
        }
        for one in contributors
    ]


def _spender(name: str, value: str | None, digests: Digests) -> str:
    """`team=triage`; of a person the digest alone, which says what it is of."""
    shown = digests.scope({name: value})[name]
    return shown if shown is not None and shown != value else f"{name}={value or '–'}"


def _incident(one: Incident, digests: Digests) -> dict[str, Any]:
    alert = one.alert
    return {
        "number": one.number,
        # The alert's own key may hold a user's id.
        "key": str(one.number),
        "severity": one.severity,
        "phase": one.phase,
        "flapping": one.flapping,
        "settling": one.well_since is not None,
        "kind": alert.kind,
        "policy": alert.policy,
        "state": alert.state,
        "scope": digests.scope(alert.scope),
        "what": summary(alert, digests.veil),
        "opened_at": iso_of(one.opened_at),
        "heard_at": iso_of(one.heard_at),
        "told_at": iso_of(one.told_at),
        "times_told": one.times_told,
        "acknowledged_by": one.acknowledged_by or None,
        "acknowledged_at": iso_of(one.acknowledged_at),
        "resets_at": iso_of(alert.resets_at),
        "exhausted_at": iso_of(alert.exhausted_at),
        "contributors": who_spent(alert.contributors, alert.spend, digests),
        "owner": alert.owner,
        "runbook": runbook_of(alert, "") or None,
    }


def _window(one: Window, digests: Digests) -> dict[str, Any]:
    return {
        "id": one.id,
        "since": iso_of(one.since),
        "until": iso_of(one.until),
        "match": digests.scope(one.match),
        "by": one.by or None,
        "why": one.why or None,
    }
