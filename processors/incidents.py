"""Incidents: what a person is told, made of alerts. Pure: alerts, a person's words and the time in, notifications out.

              bad for `pending_s`          again and again
    (none) ──► pending ──────► firing ──► renotified ──► acknowledged
                  │ well          │ well for `settle_s`       │
                  └─► (none)      └────────► resolved ◄───────┘

An incident is an alert's key, from its first bad word until it has been well for `settle_s`. Each is in one opening
notification, and in one that says it is over; in between it is told again while nobody has acknowledged it. One that is well
and bad in turns stays open, so it is told once; from `flaps_most` turns on, it is said to be flapping, and must be well for
`flapping_settle_s`.

What opens together is told together: a notification is of a group (a policy, or a kind of trouble), and lists its incidents.
Nobody is told of an incident in a maintenance window, but once it is over and the incident is not. What was bad for long enough
is told even if it is well again before its group was told, or one that breathes faster than that would never be.

Times are seconds since 1970. Nothing is lost by a word that comes late or twice: a word older than the last is not heard.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from ..schemas.signal import Alert

Phase = Literal["pending", "firing", "acknowledged"]
Occasion = Literal["opened", "worsened", "renotified", "flapping", "resolved"]
Severity = Literal["warning", "critical"]

# Trouble that stands is told of so often by whoever finds it, or its incident would be taken for over (`Timing.silent_s`).
AGAIN_S: Final = 3_600.0
# All are looked at once in so long anyway.
_LOOKED_AT_S: Final = 3_600.0
_LEVEL: Final = {"info": 0, "warning": 1, "critical": 2}
# How bad a policy's state is, however it was come to: an alert's severity speaks of the change, and a block that has become a
# warning is better, and not yet well.
_STATE: Final[dict[str, Severity | None]] = {
    "ok": None,
    "warn": "warning",
    "throttle": "warning",
    "downgrade": "critical",
    "block": "critical",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How patient the on-call's telephone is, in seconds."""

    # Shorter than a person notices; long enough that a gate that breathes in and out is not told.
    pending_warning_s: float = 30.0
    pending_critical_s: float = 0.0
    # Whoever has not acknowledged a critical incident in half an hour has not seen it.
    renotify_warning_s: float = 14_400.0
    renotify_critical_s: float = 1_800.0
    settle_s: float = 60.0
    flaps_most: int = 3
    flaps_within_s: float = 3_600.0
    flapping_settle_s: float = 900.0
    # What opens within this is one message. A page may wait so long, no longer.
    group_wait_s: float = 10.0
    # Trouble that has no state is over when it has not been told of for so long: twice the hour after which the rarest word is
    # said again.
    silent_s: float = 7_200.0
    # Alerts come with every change; a source that promised a word and is silent for this is an incident itself.
    no_data_s: float = 300.0

    def pending_s(self, severity: Severity) -> float:
        return self.pending_critical_s if severity == "critical" else self.pending_warning_s

    def renotify_s(self, severity: Severity) -> float:
        return self.renotify_critical_s if severity == "critical" else self.renotify_warning_s


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A maintenance window or a silence: incidents that match all of `match` are not told of in [since, until)."""

    id: str
    since: float
    until: float
    # kind, policy, severity, or a dimension of the scope; `*` at the end of a value stands for the rest.
    match: dict[str, str] = {}
    by: str = ""
    why: str = ""

    def holds(self, incident: Incident, now: float) -> bool:
        return self.since <= now < self.until and incident.fits(self.match)


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """One trouble, as far as it is known. Its number is how people call it. Another one takes its place when more is known: so
    one that is the same object is as it was."""

    number: int
    key: str
    phase: Phase
    severity: Severity
    # The newest word; whoever is told reads its numbers.
    alert: Alert
    opened_at: float
    # When it has been bad for long enough: the earliest that any of its words asks for.
    due_at: float
    well_since: float | None = None
    heard_at: float
    told_at: float | None = None
    told_severity: Severity | None = None
    times_told: int = 0
    # Which destinations were told of it, and as how bad: they hear of its end, whatever it is by then.
    told_to: tuple[str, ...] = ()
    told_as: tuple[Severity, ...] = ()
    turns: tuple[float, ...] = ()
    flapping: bool = False
    acknowledged_by: str = ""
    acknowledged_at: float | None = None

    @property
    def is_owed(self) -> bool:
        """It was bad for long enough, is well again, and nobody was told yet."""
        return self.told_at is None and self.well_since is not None and self.well_since >= self.due_at

    def group(self) -> str:
        return f"policy|{self.alert.policy}" if self.alert.policy else self.alert.kind

    def fits(self, wanted: Mapping[str, str]) -> bool:
        """Whether it is of this kind, policy, severity and scope; a `*` at the end stands for the rest of a value."""
        facts = {**self.alert.scope, "kind": self.alert.kind, "policy": self.alert.policy, "severity": self.severity}
        return all(_matches(facts.get(name), value) for name, value in wanted.items())


class Incidents(msgspec.Struct):
    """The state: open incidents by key, windows by id, and who promised to be heard of."""

    open: dict[str, Incident] = {}
    windows: dict[str, Window] = {}
    promised: dict[str, float] = {}
    opened: int = 0
    # Before this time nothing is due, unless something is heard: ten thousand incidents are not looked at five times a second.
    quiet_until: float = 0.0


@dataclass(frozen=True, slots=True)
class Notification:
    """One message to people about a group, with its incidents as they were then. Made again from the same words, it has the
    same `id`: whoever receives it can tell a repetition."""

    id: str
    occasion: Occasion
    group: str
    severity: Severity
    incidents: tuple[Incident, ...]
    at: float


@dataclass(frozen=True, slots=True)
class Acknowledge:
    key: str
    by: str
    at: float


@dataclass(frozen=True, slots=True)
class Resolve:
    """A person says it is over. It opens again with the next bad word."""

    key: str
    by: str
    at: float


@dataclass(frozen=True, slots=True)
class Silence:
    window: Window


@dataclass(frozen=True, slots=True)
class Unsilence:
    id: str


@dataclass(frozen=True, slots=True)
class Heard:
    """A source that promises to be heard of again: a step's heartbeat."""

    source: str
    at: float


Word = Alert | Acknowledge | Resolve | Silence | Unsilence | Heard


def step(state: Incidents, words: Iterable[Word], now: float, timing: Timing) -> list[Notification]:
    """What people are to be told after these words at `now`, in the order in which it came about. Changes `state`.

    Call it with no words as time goes by: what waits, settles or is told again is due then.
    """
    over: list[Incident] = []
    for word in words:
        _hear(state, word, over, timing)
    _miss(state, now, timing)
    if now < state.quiet_until and not over:
        return []
    _settle(state, now, over, timing)
    told = [*_ended(over, now), *_due(state, now, timing)]
    ends = [window.until for window in state.windows.values()]
    state.quiet_until = min([now + _LOOKED_AT_S, *ends, *(_next_at(incident, timing) for incident in state.open.values())])
    return told


def _next_at(incident: Incident, timing: Timing) -> float:
    """Before this, nothing becomes of it by time alone. In the past: it is due, and waits for its group or a window's end."""
    if incident.told_at is None:
        return incident.due_at if incident.well_since is None else 0.0
    if incident.well_since is not None:
        return incident.well_since + (timing.flapping_settle_s if incident.flapping else timing.settle_s)
    if _is_news(incident, timing):
        return 0.0
    silent_at = incident.heard_at + timing.silent_s if _has_no_end(incident) else float("inf")
    again_at = incident.told_at + timing.renotify_s(incident.severity) if incident.phase == "firing" else float("inf")
    return min(silent_at, again_at)


# what is heard


def _hear(state: Incidents, word: Word, over: list[Incident], timing: Timing) -> None:
    if not isinstance(word, Heard | Alert):
        state.quiet_until = 0.0
    match word:
        case Alert():
            _alert(state, word, timing)
        case Acknowledge():
            if (incident := state.open.get(word.key)) is not None and incident.phase != "acknowledged":
                told_at, told_severity = incident.told_at, incident.told_severity
                if told_at is None:
                    told_at, told_severity = word.at, incident.severity
                state.open[word.key] = replace(
                    incident,
                    phase="acknowledged",
                    acknowledged_by=word.by,
                    acknowledged_at=word.at,
                    told_at=told_at,
                    told_severity=told_severity,
                )
        case Resolve():
            if (incident := state.open.pop(word.key, None)) is not None and incident.told_at is not None:
                over.append(incident)
        case Silence():
            state.windows[word.window.id] = word.window
        case Unsilence():
            state.windows.pop(word.id, None)
        case Heard():
            state.promised[word.source] = max(word.at, state.promised.get(word.source, word.at))
            _alert(state, _no_data(word.source, word.at, well=True), timing)


def _alert(state: Incidents, alert: Alert, timing: Timing) -> None:
    severity = severity_of(alert)
    incident = state.open.get(alert.key)
    if incident is None:
        if severity is None:
            return
        state.quiet_until = 0.0
        state.opened += 1
        state.open[alert.key] = Incident(
            number=state.opened,
            key=alert.key,
            phase="pending",
            severity=severity,
            alert=alert,
            opened_at=alert.at,
            due_at=alert.at + timing.pending_s(severity),
            heard_at=alert.at,
        )
        return
    if alert.at < incident.heard_at:
        return
    state.quiet_until = 0.0
    if severity is None:
        well_since = alert.at if incident.well_since is None else incident.well_since
        known = replace(incident, heard_at=alert.at, well_since=well_since)
        # People are told of what is owed to them in its own words.
        state.open[alert.key] = known if known.is_owed else replace(known, alert=alert)
        return
    due_at, turns = incident.due_at, incident.turns
    if incident.well_since is not None:
        turns = (*(at for at in turns if at > alert.at - timing.flaps_within_s), alert.at)
        if not incident.is_owed:
            due_at = alert.at + timing.pending_s(severity)
    state.open[alert.key] = replace(
        incident,
        heard_at=alert.at,
        alert=alert,
        well_since=None,
        turns=turns,
        severity=severity,
        due_at=min(due_at, alert.at + timing.pending_s(severity)),
    )


def severity_of(alert: Alert) -> Severity | None:
    """How bad what it speaks of is now; None: all is well."""
    if alert.state is not None:
        return _STATE[alert.state]
    return None if alert.severity == "info" else alert.severity


def _miss(state: Incidents, now: float, timing: Timing) -> None:
    for source, at in state.promised.items():
        if now - at >= timing.no_data_s and f"no_data|{source}" not in state.open:
            _alert(state, _no_data(source, now, well=False), timing)


def _no_data(source: str, at: float, *, well: bool) -> Alert:
    return Alert(
        key=f"no_data|{source}",
        kind="no_data",
        severity="info" if well else "critical",
        title=f"{source} is heard of again" if well else f"nothing has been heard of {source}",
        at=at,
    )


# what time does


def _settle(state: Incidents, now: float, over: list[Incident], timing: Timing) -> None:
    for key, incident in list(state.open.items()):
        if incident.well_since is None and _has_no_end(incident) and now - incident.heard_at >= timing.silent_s:
            incident = state.open[key] = replace(incident, well_since=incident.heard_at)
        if incident.well_since is None:
            continue
        if incident.told_at is None:
            if not incident.is_owed or _is_silenced(state, incident, now):
                del state.open[key]  # well again before anybody was to be told
            continue
        patience = timing.flapping_settle_s if incident.flapping else timing.settle_s
        if now - incident.well_since >= patience:
            del state.open[key]
            over.append(incident)
    for id_, window in list(state.windows.items()):
        if window.until <= now:
            del state.windows[id_]


def _ended(over: Sequence[Incident], now: float) -> list[Notification]:
    """One notification for each group of what is over, at once: good news does not wait."""
    groups: dict[str, list[Incident]] = {}
    for incident in over:
        groups.setdefault(incident.group(), []).append(incident)
    return [_notification("resolved", group, incidents, now) for group, incidents in groups.items()]


def _due(state: Incidents, now: float, timing: Timing) -> list[Notification]:
    due: dict[tuple[str, Occasion], list[Incident]] = {}
    waiting_since: dict[str, float] = {}
    for incident in state.open.values():
        occasion = _occasion(incident, now, timing)
        if occasion is None or _is_silenced(state, incident, now):
            continue
        due.setdefault((incident.group(), occasion), []).append(incident)
        if occasion == "opened":
            group = incident.group()
            waiting_since[group] = min(incident.due_at, waiting_since.get(group, incident.due_at))
    told: list[Notification] = []
    for (group, occasion), incidents in due.items():
        if occasion == "opened" and now - waiting_since[group] < timing.group_wait_s:
            continue
        known = [_told(incident, occasion, now) for incident in incidents]
        state.open.update((incident.key, incident) for incident in known)
        told.append(_notification(occasion, group, known, now))
    return told


def _told(incident: Incident, occasion: Occasion, now: float) -> Incident:
    # Whoever acknowledged a warning has not seen what became of it.
    opens = incident.phase == "pending" or occasion == "worsened"
    return replace(
        incident,
        phase="firing" if opens else incident.phase,
        flapping=incident.flapping or occasion == "flapping",
        told_at=now,
        told_severity=incident.severity,
        told_as=tuple(dict.fromkeys((*incident.told_as, incident.severity))),
        times_told=incident.times_told + 1,
    )


def _is_silenced(state: Incidents, incident: Incident, now: float) -> bool:
    return any(window.holds(incident, now) for window in state.windows.values())


def _occasion(incident: Incident, now: float, timing: Timing) -> Occasion | None:
    """Why people are to be told of it now; None: no reason."""
    if incident.is_owed:
        return "opened"
    if incident.well_since is not None:
        return None
    if incident.told_at is None:
        return "opened" if now >= incident.due_at and incident.phase == "pending" else None
    if news := _is_news(incident, timing):
        return news
    if incident.phase == "firing" and now - incident.told_at >= timing.renotify_s(incident.severity):
        return "renotified"
    return None


def _is_news(incident: Incident, timing: Timing) -> Occasion | None:
    if incident.told_severity == "warning" and incident.severity == "critical":
        return "worsened"
    return "flapping" if not incident.flapping and len(incident.turns) >= timing.flaps_most else None


def _has_no_end(incident: Incident) -> bool:
    """Nobody promises to say that it is over."""
    return incident.alert.state is None and incident.alert.kind != "no_data"


def _notification(occasion: Occasion, group: str, incidents: Sequence[Incident], now: float) -> Notification:
    ordered = sorted(incidents, key=lambda incident: (incident.opened_at, incident.key))
    worst = max((incident.told_severity or incident.severity for incident in ordered), key=_LEVEL.__getitem__)
    times = max(incident.times_told for incident in ordered)
    id_ = f"{ordered[0].number}-{ordered[0].opened_at:.0f}-{occasion}-{times}"
    return Notification(id_, occasion, group, worst, tuple(ordered), now)


def _matches(value: str | None, wanted: str) -> bool:
    if wanted.endswith("*"):
        return value is not None and value.startswith(wanted[:-1])
    return value == wanted
