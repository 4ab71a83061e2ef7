"""What a person does with incidents: looks at them, and says a word. In a data folder, or on Kafka."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ..schemas.errors import UsageError
from ..schemas.notice import Delivery, GivenUp
from ..schemas.signal import Alert
from .incidents import Incident, Window
from .notifier import ACKNOWLEDGED, RESOLVED, SILENCED, UNSILENCED


class Desk(Protocol):
    """The incidents of one log. Used from one thread. Raises `LogUnavailable`."""

    where: str

    def incidents(self) -> list[Incident]:
        """The open ones, the oldest first, as the notifier last kept them."""
        ...

    def windows(self) -> list[Window]: ...

    def deliveries(self) -> list[Delivery]:
        """What is on its way to people."""
        ...

    def given_up(self) -> list[GivenUp]:
        """The last of what people will never be told, by destination, of the last day."""
        ...

    def say(self, word: Alert) -> None:
        """Leave a person's word for the notifier; it is among the alerts from then on."""
        ...

    def close(self) -> None: ...


def find(incidents: list[Incident], asked: str) -> Incident:
    """The open incident of a number (`42`, `#42`) or a key. Raises `UsageError`."""
    number = asked.removeprefix("#")
    for incident in incidents:
        if incident.key == asked or str(incident.number) == number:
            return incident
    raise UsageError(f"no incident {asked} is open; `tidegate alerts list` shows those that are")


def acknowledged(incident: Incident, by: str, at: float) -> Alert:
    return _said(incident, ACKNOWLEDGED, f"acknowledged by {by}", by, at)


def resolved(incident: Incident, by: str, at: float) -> Alert:
    return _said(incident, RESOLVED, f"resolved by {by}", by, at)


def _said(incident: Incident, kind: str, title: str, by: str, at: float) -> Alert:
    alert = incident.alert
    return Alert(
        key=incident.key, kind=kind, severity="info", title=title, at=at, policy=alert.policy, scope=alert.scope, owner=by
    )


def silenced(id_: str, match: Mapping[str, str], since: float, until: float, by: str, why: str) -> Alert:
    scope: dict[str, str | None] = dict(match)
    return Alert(key=id_, kind=SILENCED, severity="info", title=why, at=since, scope=scope, resets_at=until, owner=by)


def unsilenced(id_: str, by: str, at: float) -> Alert:
    return Alert(key=id_, kind=UNSILENCED, severity="info", title=f"silence taken back by {by}", at=at, owner=by)
