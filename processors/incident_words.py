"""Incidents put into words for people who were asleep. What may name a person, a user's id or a label, is veiled."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, Literal

from ..schemas.call import SCOPE_FIELDS
from ..schemas.notice import Entry, Message
from ..schemas.signal import Alert
from .incidents import Incident, Notification
from .runbooks import INDEX, KINDS

# A telephone shows so many lines; the rest is counted, and `tidegate alerts list` has it.
_SHOWN: Final = 10
# Alertmanager's names of labels are narrower than ours.
_NOT_IN_A_LABEL: Final = re.compile(r"[^A-Za-z0-9_]")
# What is said plainly: whoever is told may sit in front of a screen on a wall. A label may be anything, a patient's number too.
_PLAIN: Final = frozenset(SCOPE_FIELDS) - {"user"}

# What is said of a dimension, and a value of it, that may name a person.
Veil = Callable[[str, str], str]


def unnamed(name: str, _value: str) -> str:
    return f"a {name}"


def veiled_by(key: bytes) -> Veil:
    """Short keyed digests: the same for the same value, so that two can be told apart, and nobody can tell whose they are."""
    return lambda name, value: (
        f"{name}-{hmac.digest(key, f'{name}={value}'.encode(errors='surrogatepass'), 'sha256').hex()[:8]}"
    )


_OCCASIONS: Final = {
    "opened": "",
    "worsened": "worse: ",
    "renotified": "still: ",
    "flapping": "comes and goes: ",
    "resolved": "resolved: ",
}


def message(told: Notification, incidents: Sequence[Incident], left: int, runbooks: str = "", veil: Veil = unnamed) -> Message:
    """What is sent of a notification, about those of its incidents that a destination is told of; of the same group it knows
    `left` that are open still."""
    over = told.occasion == "resolved" and not left
    lines = [_lines(incident, told, runbooks, veil) for incident in incidents[:_SHOWN]]
    if len(incidents) > _SHOWN:
        lines.append(f"and {len(incidents) - _SHOWN:,} more: tidegate alerts list")
    if told.occasion == "resolved" and left:
        lines.append(f"{left:,} more of this are still open")
    if told.occasion != "resolved":
        lines.append(f"Seen it? tidegate alerts ack {incidents[0].number}")
    return Message(
        id=told.id,
        group=told.group,
        severity=_worst(incidents),
        title=_title(told, incidents, veil),
        body="\n\n".join(lines),
        entries=[_entry(incident, told, runbooks, veil) for incident in incidents],
        over=over,
        at=told.at,
    )


def _title(told: Notification, incidents: Sequence[Incident], veil: Veil) -> str:
    first = incidents[0]
    what = first.alert.policy or first.alert.kind
    who = scope_text(first.alert, veil) if len(incidents) == 1 else f"{len(incidents):,} scopes"
    state = f" {first.alert.state}" if len(incidents) == 1 and first.alert.state and told.occasion != "resolved" else ""
    about = f"{what}: {who}{state}" if first.alert.policy else f"{what}"
    return f"[{'OK' if told.occasion == 'resolved' else _worst(incidents).upper()}] {_OCCASIONS[told.occasion]}{about}"


def _worst(incidents: Sequence[Incident]) -> Literal["warning", "critical"]:
    return "critical" if any(incident.severity == "critical" for incident in incidents) else "warning"


def _lines(incident: Incident, told: Notification, runbooks: str, veil: Veil) -> str:
    alert = incident.alert
    lines = [f"#{incident.number} {summary(alert, veil)}"]
    if told.occasion == "resolved":
        lines.append(f"open from {_clock(incident.opened_at)} to {_clock(incident.well_since or told.at)}")
        return "\n".join(lines)
    times = [f"since {_clock(incident.opened_at)}"]
    if incident.well_since is not None:
        times.append(f"well since {_clock(incident.well_since)}")
    if alert.exhausted_at is not None and alert.exhausted_at > told.at:
        times.append(f"exhausted at {_clock(alert.exhausted_at)} at this rate")
    if alert.resets_at is not None:
        times.append(f"resets {_clock(alert.resets_at)}")
    lines.append(", ".join(times))
    if alert.contributors:
        shares = [f"{_scope(one.scope, veil)} {_share(one.spend, alert.spend)}".rstrip() for one in alert.contributors[:5]]
        lines.append(f"most by: {', '.join(dict.fromkeys(shares))}")
    if incident.flapping:
        lines.append(f"has come back {len(incident.turns)} times within the hour")
    if alert.owner:
        lines.append(f"owner: {alert.owner}")
    lines.append(f"runbook: {runbook_of(alert, runbooks)}")
    return "\n".join(lines)


def summary(alert: Alert, veil: Veil = unnamed) -> str:
    """One line: who, which state, what stands where against which limit. A policy's title begins with its scope, and that may
    name a person: only what follows is said."""
    if alert.policy is None:
        return alert.title
    reason = alert.title.rpartition(f": {alert.policy}: ")[2] if f": {alert.policy}: " in alert.title else ""
    state = f" {alert.state}" if alert.state else ""
    return f"{scope_text(alert, veil)}{state}: {alert.policy}{f', {reason}' if reason else ''}"


def scope_text(alert: Alert, veil: Veil = unnamed) -> str:
    return _scope(alert.scope, veil) or "everything"


def _scope(scope: dict[str, str | None], veil: Veil) -> str:
    return ", ".join(f"{name}={value}" if name in _PLAIN else veil(name, value or "") for name, value in scope.items())


def _share(spend: float, whole: float | None) -> str:
    return f"{spend / whole:.0%}" if whole else ""


def runbook_of(alert: Alert, runbooks: str) -> str:
    """Where it is written what to do: an address, or a path below the address of all runbooks."""
    page = alert.runbook or KINDS.get(alert.kind, INDEX)
    if "://" in page or not runbooks:
        return page
    return f"{runbooks.rstrip('/')}/{page.lstrip('/')}"


def _entry(incident: Incident, told: Notification, runbooks: str, veil: Veil) -> Entry:
    alert = incident.alert
    labels = {"alertname": alert.policy or alert.kind, "kind": alert.kind, "severity": incident.severity, "service": "tidegate"}
    for name, value in alert.scope.items():
        if value:
            labels.setdefault(_NOT_IN_A_LABEL.sub("_", name), value if name in _PLAIN else veil(name, value))
    if any(name not in _PLAIN for name in alert.scope):
        labels["incident"] = str(incident.number)  # or two people whose digests are alike were one alert
    return Entry(
        number=incident.number,
        labels=labels,
        summary=summary(alert, veil),
        starts_at=incident.opened_at,
        over=told.occasion == "resolved",
        was=[severity for severity in incident.told_as if severity != incident.severity],
        runbook=runbook_of(alert, runbooks),
    )


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def trial_message(destination: str, at: float) -> Message:
    """What `tidegate alerts test` sends: it says that nothing is wrong."""
    words = f"A test of the destination {destination}, at {_clock(at)}. Nothing is wrong."
    labels = {"alertname": "TidegateTest", "severity": "warning", "service": "tidegate"}
    entry = Entry(number=0, labels=labels, summary=words, starts_at=at, over=True)
    return Message(f"test-{at:.0f}-{destination}", "test", "warning", "[TEST] Tidegate can reach you", words, [entry], True, at)
