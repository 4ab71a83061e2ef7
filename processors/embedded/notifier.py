"""The notifier over a data folder's log, in a thread and on a connection of its own.

    alerts ─► hear ─► incidents and the offset in one transaction ─► send ─► delivered, in another

One round, numbered as the crash test aborts it: 1 heard, 2 kept, 3 sent. A crash before 2 hears the same alerts again; one
behind 3 that was not noted sends the same message again, under the same id.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog

from ...producers.sqlite_log import SqliteLog
from ...schemas.errors import LogUnavailable, UsageError
from ...schemas.settings import Settings
from ...schemas.signal import GATES_KEY, Alert
from ...schemas.topics import ALERTS, INCIDENTS, SIGNALS
from ...sinks.notify import deliver
from ..incidents import Heard, Notification
from ..notifier import Notifier, last_words, readable, tell_log
from ..on_call_file import OnCall
from ..on_call_watch import OnCallWatch
from ..sending import OUTCOMES, Sending
from ..topology import NOTIFIER

log = structlog.get_logger("tidegate.notifier")

# Soon enough for a page; a look is two lookups in an index.
_LOOK_S: Final = 0.2
_PAUSE_MAX_S: Final = 10.0
_HEADERS: Final = {"schema": "incidents/1"}


def kept(log_: SqliteLog) -> dict[bytes, bytes]:
    """The notifier's memory, as it lies in the log."""
    return last_words((record.key or b"", record.value) for record in log_.keyed(INCIDENTS.name, 0, b""))


def at_rest(log_: SqliteLog) -> dict[str, Any]:
    """The status of a folder whose notifier does not work."""
    return _status(Notifier(kept(log_).items(), OnCall()), dict.fromkeys(OUTCOMES, 0), None)


def _status(notifier: Notifier, counts: dict[str, int], problem: str | None) -> dict[str, Any]:
    return {"incidents": notifier.phases(), "waiting": len(notifier.deliveries), **counts, "problem": problem}


class NotifierThread:
    """`run` in a thread of its own; `status` from any. `clock` is seconds since 1970."""

    def __init__(
        self,
        data_dir: Path,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        at: Callable[[str], None] = lambda _step: None,
    ) -> None:
        self._log = SqliteLog(data_dir, fsync=settings.fsync)
        self._clock = clock
        self._at = at
        self._watch = OnCallWatch(settings.on_call_file)
        self.sending = Sending(deliver, at)
        self._take_up()

    def _take_up(self) -> None:
        """Read what is known, and go on from there."""
        self._torn = True
        memory = kept(self._log)
        self._next = self._log.committed(NOTIFIER.name, ALERTS.name, 0)
        self._notifier = Notifier(memory.items(), self._watch.current)
        # An old sign of life says nothing about a policies step that has just begun.
        last = self._log.last(SIGNALS.name, 0, GATES_KEY)
        self._beat = last.appended_ms / 1_000 if last is not None else None
        if self._notifier.is_new:
            alerts, self._next = self._read()
            self._notifier.adopt(alerts, self._clock())
            self._keep()
        self._torn = False

    def run(self, stopping: threading.Event) -> None:
        """Tell people until told to stop. What is being sent then is waited for, or sent again at the next start."""
        pause_s = _LOOK_S
        while not stopping.wait(pause_s):
            try:
                self.run_once()
                pause_s = _LOOK_S
            except LogUnavailable as error:
                pause_s = min(max(pause_s, _LOOK_S) * 2, _PAUSE_MAX_S)
                log.warning("notifier_waits", error=str(error), retry_in_s=pause_s)
            except Exception as error:  # noqa: BLE001 — people are told later; what is metered must not wait for it
                pause_s = _PAUSE_MAX_S
                log.error("notifier_failed", error_type=type(error).__name__, retry_in_s=pause_s)

    def run_once(self) -> list[Notification]:
        """Hear what is new, keep it, and send what is due. Returns what people are told."""
        if self._torn:
            self._take_up()
        now = self._clock()
        problem = self._watch.problem
        self._notifier.on_call = self._watch.poll(now)
        if self._watch.problem and self._watch.problem != problem:
            log.error("on_call_file_refused", error=self._watch.problem)
        alerts, next_ = self._read()
        # What was heard and not kept is forgotten, and heard again.
        self._torn = True
        told = self._notifier.hear(alerts, now, self._heartbeat(), self._watch.problem)
        self._at("1 heard")
        self.sending.note(self._notifier, now)
        if next_ != self._next or self._notifier.changes():
            self._next = next_
            self._keep()
            self._at("2 kept")
        self._torn = False
        tell_log(told)
        self.sending.begin(self._notifier, now)
        return told

    def _read(self) -> tuple[list[Alert], int]:
        """What was not heard yet, and where it ends."""
        alerts: list[Alert] = []
        next_ = self._next
        while records := self._log.read(ALERTS.name, 0, next_):
            alerts += readable((record.offset, record.value) for record in records)
            next_ = records[-1].offset + 1
        return alerts, next_

    def _heartbeat(self) -> list[Heard]:
        """The policies' sign of life, when it is a new one."""
        record = self._log.last(SIGNALS.name, 0, GATES_KEY)
        if record is None or not record.value or record.appended_ms / 1_000 == self._beat:
            return []
        self._beat = record.appended_ms / 1_000
        return [Heard("policies", self._beat)]

    def _keep(self) -> None:
        changes = self._notifier.changes()
        with self._log.transaction():
            self._log.append(INCIDENTS.name, 0, [(key, _HEADERS, value) for key, value in changes])
            self._log.commit_offset(NOTIFIER.name, ALERTS.name, 0, self._next)
        self._notifier.written(changes)

    def status(self) -> dict[str, Any]:
        """Open incidents by phase, messages on their way, and what became of those that were."""
        return _status(self._notifier, self.sending.counts(), self._watch.problem)

    def close(self) -> None:
        self.sending.close()
        try:
            if not self._torn:
                self.sending.note(self._notifier, self._clock())
                self._keep()
        except (LogUnavailable, UsageError):
            log.warning("notifier_closed_without_a_note")
        self._log.close()
