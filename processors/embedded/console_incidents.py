"""The console's desk: open incidents for all to see, and the words of those who may act.

    GET    /console/incidents                       the open ones, and the silences
    POST   /console/incidents/{number}/ack|resolve  seen; over
    POST   /console/silences                        {"incident": number} or {"match": {field: value}}; "for": "1h", "why": "…"
    DELETE /console/silences/{id}                   taken back

As `tidegate alerts` has it, and on Kafka as well: a word goes among the alerts, and the notifier hears it. Each is in the audit
log first, by whoever signed in.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from ...dashboards.incident_view import incidents_shown
from ...producers.audit_log import AuditLog
from ...schemas.errors import LogUnavailable, UsageError
from ...schemas.policy import parse_duration
from .. import incident_desk
from ..console_access import Digests, Who
from ..incident_desk import Desk
from ..incidents import Incident
from ..on_call_file import MAINTENANCE
from .console_hub import Said, Source, Wanted

T = TypeVar("T")

# Sooner than a person has looked from one screen to the other.
_PACE_S: Final = 1.0
_LONGEST_SILENCE_S: Final = 31 * 86_400
_MOST_FIELDS: Final = 20
_LONGEST_WORDS: Final = 500
WORDS: Final = {"ack": ("acknowledged", incident_desk.acknowledged), "resolve": ("resolved", incident_desk.resolved)}


class ConsoleIncidents:
    """One desk, opened when it is first needed, in a thread of its own: on Kafka a look takes a round trip."""

    def __init__(self, open_desk: Callable[[], Desk], audit: AuditLog, digests: Digests) -> None:
        self._open_desk = open_desk
        self._audit = audit
        self._digests = digests
        self._pool = ThreadPoolExecutor(1, "tidegate-console-desk")
        self._desk: Desk | None = None
        self.source = Source("incidents", "incidents", self._said, _PACE_S)

    async def shown(self) -> dict[str, Any]:
        """The open incidents and the silences. Raises `TidegateError`."""
        return await self._at_the_desk(lambda desk: incidents_shown(desk.incidents(), desk.windows(), self._digests))

    async def _said(self, _wanted: Wanted) -> Said:
        def look(desk: Desk) -> Said:
            began = time.monotonic()
            shown = incidents_shown(desk.incidents(), desk.windows(), self._digests)
            return Said("incidents", shown, cost_s=time.monotonic() - began)

        return await self._at_the_desk(look)

    async def say(self, number: str, word: str, who: Who) -> dict[str, Any]:
        """Acknowledge or resolve. Raises `UsageError` where there is no such incident."""
        done, words = WORDS[word]

        def say(desk: Desk) -> dict[str, Any]:
            incident = incident_desk.find(desk.incidents(), number)
            self._audit.append(f"incident.{done}", details={"incidents": [incident.number], "by": who.name}, actor=who.actor)
            desk.say(words(incident, who.name, max(time.time(), incident.heard_at)))
            return {"number": incident.number, "said": done, "by": who.name}

        return await self._at_the_desk(say)

    async def silence(self, asked: dict[str, Any], who: Who) -> dict[str, Any]:
        """Raises `UsageError` where it cannot be understood."""
        match, seconds, why = _silence(asked)
        id_ = f"silence-{secrets.token_hex(3)}"

        def say(desk: Desk) -> dict[str, Any]:
            if (number := asked.get("incident")) is not None:
                # Its scope as it is: a page knows persons and labels by their digests alone.
                match.update(_only(incident_desk.find(desk.incidents(), str(number))))
            told = {"silence": id_, "fields": sorted(match), "for_s": seconds, "by": who.name}
            self._audit.append("incident.silenced", details=told, actor=who.actor)
            now = time.time()
            desk.say(incident_desk.silenced(id_, match, now, now + seconds, who.name, why))
            return {"id": id_}

        return await self._at_the_desk(say)

    async def unsilence(self, silence_id: str, who: Who) -> dict[str, Any]:
        """Raises `UsageError` where there is no such silence."""
        if silence_id.startswith(MAINTENANCE):
            raise UsageError("that window is the on-call file's: take it out there")

        def say(desk: Desk) -> dict[str, Any]:
            if silence_id not in {window.id for window in desk.windows()}:
                raise UsageError(f"there is no silence {silence_id[:60]} any more")
            self._audit.append("incident.unsilenced", details={"silence": silence_id, "by": who.name}, actor=who.actor)
            desk.say(incident_desk.unsilenced(silence_id, who.name, time.time()))
            return {"id": silence_id}

        return await self._at_the_desk(say)

    async def _at_the_desk(self, work: Callable[[Desk], T]) -> T:
        def done() -> T:
            if self._desk is None:
                self._desk = self._open_desk()
            try:
                return work(self._desk)
            except LogUnavailable:
                # Its connection may be of a broker that is gone for good.
                self._let_go()
                raise

        return await asyncio.get_running_loop().run_in_executor(self._pool, done)

    def _let_go(self) -> None:
        desk, self._desk = self._desk, None
        if desk is not None:
            with contextlib.suppress(LogUnavailable):
                desk.close()

    def close(self) -> None:
        self._pool.submit(self._let_go)
        self._pool.shutdown()


def _only(incident: Incident) -> dict[str, str]:
    """What matches this incident, and others of the same policy and scope alone."""
    alert = incident.alert
    of = {"policy": alert.policy} if alert.policy else {"kind": alert.kind}
    return of | {name: value for name, value in alert.scope.items() if value}


def _silence(asked: dict[str, Any]) -> tuple[dict[str, str], int, str]:
    match, why = asked.get("match", {}), asked.get("why", "")
    if "incident" in asked and match:
        raise UsageError("a silence is of an incident, or of what matches: not of both")
    if not (
        isinstance(match, dict) and len(match) <= _MOST_FIELDS and isinstance(why, str) and len(why) <= _LONGEST_WORDS
    ) or not (match or asked.get("incident")):
        raise UsageError('send {"incident": 42}, or {"match": {"tenant": "batch"}}, with "for": "1h" and "why": "…"')
    if not all(isinstance(value, str) and 0 < len(value) <= _LONGEST_WORDS for value in match.values()):
        raise UsageError("each field of a silence has a text to match, with a * at its end for the rest")
    try:
        seconds = parse_duration(asked.get("for", "1h"))
    except ValueError as error:
        raise UsageError(f"for: {error}") from None
    if not isinstance(seconds, int) or not 0 < seconds <= _LONGEST_SILENCE_S:
        raise UsageError("a silence lasts from a second to 31d")
    return {str(name): value for name, value in match.items()}, seconds, why
