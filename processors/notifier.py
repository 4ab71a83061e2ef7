"""The notifier's step: alerts in; incidents kept, and messages on their way to each destination. No clock and no socket.

    alerts ─► hear ─► incidents ─► notifications ─► deliveries ──(an engine sends)──► delivered

A person's word on an incident is an alert, too, of a kind of its own: so it is kept, and read again, like all others.

Memory is a record for each thing that is known, by key; `changes` gives those to be written, in one transaction with the
offset of the alerts that were heard. A delivery is in the memory from the notification on until its destination has taken it:
one that was being sent when the notifier died is sent again, under the same id.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, Final

import msgspec
import orjson
import structlog
from msgspec.structs import replace

from ..schemas.errors import InvalidEvent
from ..schemas.notice import Delivery, GivenUp
from ..schemas.signal import Alert, Contributor
from .incident_words import message, veiled_by
from .incidents import (
    AGAIN_S,
    Acknowledge,
    Heard,
    Incident,
    Incidents,
    Notification,
    Resolve,
    Silence,
    Unsilence,
    Window,
    Word,
    step,
)
from .on_call_file import MAINTENANCE, OnCall

log = structlog.get_logger("tidegate.notifier")

# A destination that is away is tried again after so long, then twice as long, and at least this often.
_FIRST_RETRY_S: Final = 2.0
_RETRY_MAX_S: Final = 300.0
# What nobody could be told of for a day is in the store; a page of yesterday helps nobody.
_GIVE_UP_S: Final = 86_400.0

ON_CALL_FILE: Final = "on_call_file"

ACKNOWLEDGED: Final = "acknowledged"
RESOLVED: Final = "resolved_by_hand"
SILENCED: Final = "silenced"
UNSILENCED: Final = "unsilenced"


# By name, so that a test can count.
_encode: Final = msgspec.json.encode


class _Rest(msgspec.Struct, frozen=True):
    """What is known beside incidents, windows and deliveries. `heard_to`: the offset of the alert that is heard next;
    `veil_key`: by which values that may name people are told, in hexadecimal."""

    opened: int = 0
    order: int = 0
    heard_to: int = 0
    veil_key: str = ""


class Notifier:
    """All that is known of incidents, from its memory. Used from one thread."""

    def __init__(self, memory: Iterable[tuple[bytes, bytes]], on_call: OnCall) -> None:
        self.on_call = on_call
        self.deliveries: dict[str, Delivery] = {}
        self.given_up: dict[str, GivenUp] = {}
        self._written = dict(memory)
        # What was last compared with the memory, by key: whoever is the same object still need not be encoded.
        self._compared: dict[bytes, object] = {}
        self.heard_to = 0
        self._order = 0
        self._veil_key = secrets.token_hex(16)
        self._heard_with: OnCall | None = None
        self._state = Incidents()
        for key, value in self._written.items():
            kind, _, name = key.decode().partition("|")
            if kind == "incident":
                self._state.open[name] = msgspec.json.decode(value, type=Incident)
            elif kind == "window":
                self._state.windows[name] = msgspec.json.decode(value, type=Window)
            elif kind == "delivery":
                self.deliveries[name] = msgspec.json.decode(value, type=Delivery)
            elif kind == "given_up":
                self.given_up[name] = msgspec.json.decode(value, type=GivenUp)
            elif kind == "rest":
                rest = msgspec.json.decode(value, type=_Rest)
                self._state.opened, self._order, self.heard_to = rest.opened, rest.order, rest.heard_to
                self._veil_key = rest.veil_key or self._veil_key
        # Where records are written one after the other, the last of them may be missing.
        self._state.opened = max([self._state.opened, *(incident.number for incident in self._state.open.values())])
        self._order = max([self._order, *(delivery.order for delivery in self.deliveries.values())])

    @property
    def is_new(self) -> bool:
        """Nothing was ever heard: what lies in the log is history."""
        return b"rest" not in self._written

    def adopt(self, alerts: Iterable[Alert], now: float) -> None:
        """Take in what was before anybody was told: what is still open is known, and told when it goes on or worsens."""
        self.hear(alerts, now)
        self.deliveries.clear()
        for key, incident in list(self._state.open.items()):
            if incident.well_since is not None:
                del self._state.open[key]
            elif incident.told_at is None:
                self._state.open[key] = replace(incident, phase="firing", told_at=now, told_severity=incident.severity)

    @property
    def incidents(self) -> list[Incident]:
        """The open ones, the oldest first."""
        return sorted(self._state.open.values(), key=lambda incident: incident.number)

    def phases(self) -> dict[str, int]:
        """How many incidents are in which phase."""
        return dict(Counter(incident.phase for incident in self._state.open.values()))

    @property
    def windows(self) -> list[Window]:
        return sorted(self._state.windows.values(), key=lambda window: (window.since, window.id))

    def hear(
        self, alerts: Iterable[Alert], now: float, heard: Iterable[Heard] = (), problem: str | None = None
    ) -> list[Notification]:
        """Take in alerts, and let time go by; what people are told, of which each destination's part is in `deliveries`.
        `problem` is what is wrong with the on-call file that was edited last: they are told of it as the one before says."""
        if self.on_call is not self._heard_with:
            self._heard_with, self._state.quiet_until = self.on_call, 0.0  # another patience
        windows = {window.id: window for window in self.on_call.windows(now)}
        known = self._state.windows
        # Those of the file are as the file has them now.
        ended = [id_ for id_ in known if id_.startswith(MAINTENANCE) and id_ not in windows]
        begun = [window for window in windows.values() if known.get(window.id) != window]
        for delivery in [one for one in self.deliveries.values() if one.destination not in self.on_call.destinations]:
            del self.deliveries[delivery.id]
            log.error("notification_given_up", destination=delivery.destination, why="it is in the on-call file no more")
        for gone in [one for one in self.given_up.values() if now - one.at >= _GIVE_UP_S]:
            del self.given_up[gone.destination]
        words = [*map(Unsilence, ended), *map(Silence, begun), *map(_word, alerts), *heard, *self._of_file(problem, now)]
        told = step(self._state, words, now, self.on_call.timing)
        for notification in told:
            self._deliver(notification, now)
        return told

    def _of_file(self, problem: str | None, now: float) -> list[Alert]:
        """The word on the on-call file, when it is another than was said last, or that is long ago."""
        title = f"the on-call file is not taken, the one before it is in force: {problem}"[:1_000]
        known = self._state.open.get(ON_CALL_FILE)
        stands = known if known is not None and known.well_since is None else None
        if problem is None:
            well = "the on-call file is in force"
            return [Alert(key=ON_CALL_FILE, kind="on_call_file", severity="info", title=well, at=now)] if stands else []
        if stands is not None and stands.alert.title == title and now - stands.heard_at < AGAIN_S:
            return []
        return [Alert(key=ON_CALL_FILE, kind="on_call_file", severity="warning", title=title, at=now)]

    def _deliver(self, told: Notification, now: float) -> None:
        to: dict[str, list[Incident]] = {}
        veil = veiled_by(bytes.fromhex(self._veil_key))
        for incident in told.incidents:
            wanted = incident.told_to if told.occasion == "resolved" else self.on_call.to(incident)
            for destination in wanted:
                if destination in self.on_call.destinations:
                    to.setdefault(destination, []).append(incident)
            if (known := self._state.open.get(incident.key)) is not None and known.number == incident.number:
                told_to = tuple(dict.fromkeys((*known.told_to, *wanted)))
                self._state.open[incident.key] = replace(known, told_to=told_to)
        for destination, incidents in to.items():
            self._order += 1
            known_open = self._state.open.values()
            left = sum(one.group() == told.group and destination in one.told_to for one in known_open)
            words = message(told, incidents, left, self.on_call.runbooks, veil)
            delivery = Delivery(self._order, destination, words, made_at=now, opens=told.occasion == "opened", due_at=now)
            self._supersede(delivery)
            self.deliveries[delivery.id] = delivery

    def _supersede(self, newest: Delivery) -> None:
        """A destination that was away is told that they opened, and how they are now; not all that was between."""
        if newest.opens:
            return
        spoken_of = {entry.number for entry in newest.message.entries}
        later = [one for one in self.deliveries.values() if one.destination == newest.destination and not one.opens]
        for known in sorted(later, key=lambda delivery: -delivery.order):
            numbers = {entry.number for entry in known.message.entries}
            if numbers <= spoken_of:
                del self.deliveries[known.id]
            spoken_of |= numbers

    def due(self, now: float) -> list[Delivery]:
        """The next delivery of each destination that is due. One that waits for another try holds up those behind it."""
        first: dict[str, Delivery] = {}
        for delivery in sorted(self.deliveries.values(), key=lambda delivery: delivery.order):
            first.setdefault(delivery.destination, delivery)
        return [delivery for delivery in first.values() if delivery.due_at <= now]

    def delivered(self, delivery: Delivery, now: float, problem: str = "", patience_s: float | None = None) -> bool:
        """Note that it has arrived, or what went wrong. False: it will never be tried again, although it has not: such
        problems have gone on for `patience_s`, or it is older than any may be."""
        if delivery.id not in self.deliveries:
            return True  # another one has seen to it
        if not problem:
            del self.deliveries[delivery.id]
            return True
        # Not its age: it may have waited long for a receiver that was away, and that refuses all while it comes up.
        since = now if delivery.refused_since is None else delivery.refused_since
        if now - delivery.made_at >= _GIVE_UP_S or (patience_s is not None and now - since >= patience_s):
            del self.deliveries[delivery.id]
            before = self.given_up.get(delivery.destination)
            count = before.count + 1 if before is not None else 1
            self.given_up[delivery.destination] = GivenUp(
                delivery.destination, delivery.message.title, problem[:200], now, count
            )
            return False
        wait_s = min(_FIRST_RETRY_S * 2**delivery.attempts, _RETRY_MAX_S)
        self.deliveries[delivery.id] = replace(
            delivery,
            attempts=delivery.attempts + 1,
            due_at=now + wait_s,
            problem=problem[:200],
            refused_since=None if patience_s is None else since,
        )
        return True

    def changes(self) -> list[tuple[bytes, bytes]]:
        """Memory records that are new, changed, or gone (empty) since `written`."""
        now = dict(self._memory())
        changed = [(key, b"") for key in self._written if key not in now]
        for key, thing in now.items():
            if self._compared.get(key) is thing:
                continue
            value = _encode(thing)
            if self._written.get(key) == value:
                self._compared[key] = thing
            else:
                changed.append((key, value))
        return changed

    def written(self, changes: Iterable[tuple[bytes, bytes]]) -> None:
        """These records are in the memory."""
        for key, value in changes:
            self._compared.pop(key, None)
            if value:
                self._written[key] = value
            else:
                self._written.pop(key, None)

    def _memory(self) -> Iterator[tuple[bytes, msgspec.Struct]]:
        for key, incident in self._state.open.items():
            yield b"incident|" + key.encode(), incident
        for id_, window in self._state.windows.items():
            yield b"window|" + id_.encode(), window
        for id_, delivery in self.deliveries.items():
            yield b"delivery|" + id_.encode(), delivery
        for name, given_up in self.given_up.items():
            yield b"given_up|" + name.encode(), given_up
        yield b"rest", self._rest()

    def _rest(self) -> _Rest:
        rest = _Rest(self._state.opened, self._order, self.heard_to, self._veil_key)
        known = self._compared.get(b"rest")
        return known if isinstance(known, _Rest) and known == rest else rest


def tell_log(told: Iterable[Notification]) -> None:
    """One line a notification; scopes, which may name people, are not in it."""
    for notification in told:
        log.info(
            "notified",
            occasion=notification.occasion,
            group=notification.group,
            severity=notification.severity,
            incidents=[incident.number for incident in notification.incidents][:20],
        )


# what alerts say, as they lie in the log


def last_words(records: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The memory, of its records in order: of each key the last, and none that is empty."""
    return {key: value for key, value in dict(records).items() if value}


def readable(records: Iterable[tuple[int, bytes]]) -> list[Alert]:
    """The alerts of records, by offset; one that cannot be read is logged, and holds nobody up."""
    alerts: list[Alert] = []
    for offset, value in records:
        try:
            alerts += alerts_of(value)
        except InvalidEvent as error:
            log.error("alert_refused", offset=offset, error=str(error))
    return alerts


def alerts_of(value: bytes) -> list[Alert]:
    """The alerts of a record of rows. Raises `InvalidEvent`: another version wrote it, or nobody of ours."""
    try:
        return [_alert(orjson.loads(line)) for line in value.split(b"\n") if line]
    except (orjson.JSONDecodeError, msgspec.ValidationError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidEvent(f"an alert that cannot be read ({type(error).__name__})") from None


def _alert(row: dict[str, Any]) -> Alert:
    given = {name: value for name, value in row.items() if value is not None}
    given["contributors"] = [
        Contributor({name.partition("=")[0]: name.partition("=")[2]}, spend)
        for name, spend in row.get("contributors", {}).items()
    ]
    for name in ("at", "resets_at", "exhausted_at"):
        if name in given:
            given[name] = msgspec.convert(given[name], type=datetime).timestamp()
    return msgspec.convert(given, type=Alert)


def _word(alert: Alert) -> Word:
    by = alert.owner or ""
    if alert.kind == ACKNOWLEDGED:
        return Acknowledge(alert.key, by, alert.at)
    if alert.kind == RESOLVED:
        return Resolve(alert.key, by, alert.at)
    if alert.kind == SILENCED:
        match = {name: value or "" for name, value in alert.scope.items()}
        until = alert.resets_at or alert.at
        return Silence(Window(id=alert.key, since=alert.at, until=until, match=match, by=by, why=alert.title))
    if alert.kind == UNSILENCED:
        return Unsilence(alert.key)
    return alert
