"""Runs the guardrails on the embedded log, in a thread of their own beside the meter's and the sink's.

    content ─► read ─► Runtime (pool of processes) ─► calls, transcripts, quarantine, dead letters, alerts and the offset,
                                                      in one transaction

One commit, numbered as the crash test aborts it: 1 judged, 2 appended (inside the transaction), 3 committed. A crash before
the commit leaves the old offset: the same records are judged again, and the meter knows their verdicts by number.

Transactions are short, and wait for no disk: what is lost in a power cut is judged again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import orjson
import structlog

from ...producers.key_source import KeySource
from ...producers.sqlite_log import SqliteLog
from ...schemas.errors import UsageError
from ...schemas.settings import Settings
from ...schemas.signal import Alert
from ...schemas.topics import ALERTS, CALLS, CONTENT, DEAD_LETTERS, QUARANTINE, SIGNALS, TRANSCRIPTS
from ..alert_rows import alert_record
from ..forgetting import Forgotten
from ..guardrails.outputs import Outputs
from ..guardrails.pool import LOADER
from ..guardrails.runtime import Runtime, Tally
from ..guardrails.sampling import FORGOTTEN_MS, MOST_NAMES, Sampling, Sighting
from ..guardrails.watched import WatchedScopes
from ..meter import KEYED, KEYED_RETENTION_MS, PRODUCER_RETENTION_MS
from ..topology import GUARDRAILS
from .forgetting import forgotten_in

log = structlog.get_logger("tidegate.guardrails")

# The meter waits for our transactions; a read of this much is some milliseconds to write out again.
_READ_BYTES: Final = 1 << 18
# How often it is looked which policies on findings are not at ease.
_WATCH_EVERY_S: Final = 2.0
# Producers are remembered for as long as the meter does: one of last month that sends again is known by both. So many are
# forgotten at once: some milliseconds; as long as there are more, each time that the engine runs.
_MOST_FORGOTTEN: Final = 2_000
_TIDY_EVERY_S: Final = 600.0

_SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS guard_producers (
        partition INTEGER, producer TEXT, next_seq INTEGER NOT NULL, seen_ms INTEGER NOT NULL,
        PRIMARY KEY (partition, producer)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS guard_names (
        name TEXT PRIMARY KEY, first_ms INTEGER NOT NULL, kept_ms INTEGER NOT NULL) WITHOUT ROWID""",
)


class GuardrailsEngine:
    """The guardrails over every partition of one data folder's content. Made, used and closed in one thread."""

    def __init__(
        self,
        data_dir: Path,
        settings: Settings,
        keys: KeySource,
        *,
        at: Callable[[str], None] = lambda _step: None,
        loader: str = LOADER,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._at = at
        self._clock = clock
        self._keys = keys
        self._signals_next = 0
        self._watched = WatchedScopes()
        # Partitions in the order they are read next.
        self._turns: deque[int] = deque()
        self._forgotten: Forgotten | None = None
        self._looked_at = self._tidied_at = float("-inf")
        # What is judged and not in the log yet, because that could not be written: it is not asked for again.
        self._in_hand: tuple[int, Outputs] | None = None
        self._untold: list[Alert] = []
        # Why nothing is read: a key ring that cannot be.
        self.trouble: str | None = None
        self.log = SqliteLog(data_dir, fsync="normal")
        self._runtime: Runtime | None = None
        try:
            with self.log.transaction():
                for statement in _SCHEMA:
                    self.log.db.execute(statement)
            self._forgotten = forgotten_in(self.log, lambda: keys.ring().fingerprint_key)
            self._runtime = self._begin(settings, loader)
        except BaseException:
            self.log.close()
            raise

    def _begin(self, settings: Settings, loader: str) -> Runtime:
        sampling = Sampling()
        sampling.restore(
            (tuple(orjson.loads(name)), Sighting(*when))
            for name, *when in self.log.db.execute("SELECT name, first_ms, kept_ms FROM guard_names ORDER BY kept_ms")
        )
        runtime = Runtime(settings, self._keys, sampling=sampling, loader=loader)
        for partition in range(self.log.partitions):
            next_offset = self.log.committed(GUARDRAILS.name, CONTENT.name, partition)
            runtime.assign(partition, next_offset, recall=partial(self._recall, partition))
            self._turns.append(partition)
        return runtime

    def _recall(self, partition: int, producer: str) -> int | None:
        """The number that a producer comes to next, where it was heard of."""
        found = self.log.db.execute(
            "SELECT next_seq FROM guard_producers WHERE partition = ? AND producer = ?", (partition, producer)
        ).fetchone()
        return int(found[0]) if found else None

    @property
    def runtime(self) -> Runtime:
        if self._runtime is None:
            raise UsageError("the guardrails are closed")
        return self._runtime

    def run_once(self, wait_s: float = 0.05) -> int:
        """Read what there is room for, let the processes work, put out what is finished. Returns how many records that was.

        Raises `LogUnavailable`; calling again later loses nothing and judges nothing twice.
        """
        runtime = self.runtime
        now = self._clock()
        self._look(now)
        self._read(now)
        self._warn(now)
        if not runtime.busy and self._in_hand is None:
            return 0
        runtime.work(wait_s)
        passed = 0
        for number, outputs in self._finished():
            before = self.log.committed(GUARDRAILS.name, CONTENT.name, number)
            self._put_out(number, outputs)
            self._in_hand = None
            passed += outputs.next_offset - before
        return passed

    def _finished(self) -> Iterator[tuple[int, Outputs]]:
        if self._in_hand is not None:
            yield self._in_hand
        for found in self.runtime.finished(self._clock()):
            self._in_hand = found
            yield found

    def _read(self, now: float) -> None:
        runtime = self.runtime
        for _ in range(len(self._turns)):
            if not runtime.has_room:
                return
            # Whoever is served is the last to be served again: none waits for a busier one.
            number = self._turns[0]
            self._turns.rotate(-1)
            next_offset = runtime.partitions[number].next_offset
            for record in self.log.read(CONTENT.name, number, next_offset, max_bytes=_READ_BYTES):
                if runtime.fed:
                    return
                if self._forgotten is not None:
                    # Late texts of somebody who was forgotten are not judged, and leave no transcript.
                    value = b"\n".join(map(self._forgotten.erased, record.value.split(b"\n")))
                    record = replace(record, value=value)
                try:
                    runtime.take(number, record, now)
                except UsageError as error:
                    # Not passed: content waits for its keys.
                    if self.trouble != str(error):
                        log.warning("guardrails_wait", reason=str(error))
                    self.trouble = str(error)
                    return
                self.trouble = None

    def _warn(self, now: float) -> None:
        self.look()
        self._untold += self.runtime.behind(now)
        if self._untold:
            with self.log.transaction():
                self.log.append(ALERTS.name, 0, [alert_record(self._untold)])
            self._untold = []

    def _put_out(self, partition: int, outputs: Outputs) -> None:
        self._at("1 judged")
        now_ms = int(self._clock() * 1_000)
        sampling = self.runtime.sampling
        with self.log.transaction():
            for topic, records in (
                (CALLS, outputs.scored),
                (TRANSCRIPTS, outputs.transcripts),
                (QUARANTINE, outputs.quarantine),
                (DEAD_LETTERS, outputs.dead_letters),
            ):
                self.log.append(topic.name, partition, ((None, headers, value) for headers, value in records))
            if outputs.alerts:
                self.log.append(ALERTS.name, 0, [alert_record(outputs.alerts)])
            self.log.db.executemany(
                "INSERT INTO guard_producers VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET next_seq = excluded.next_seq,"
                " seen_ms = excluded.seen_ms",
                [(partition, producer, next_seq, now_ms) for producer, next_seq in outputs.producers.items()],
            )
            self.log.db.executemany(
                "INSERT OR REPLACE INTO guard_names VALUES (?, ?, ?)",
                [(orjson.dumps(name).decode(), *sighting) for name, sighting in sampling.fresh.items()],
            )
            self.log.commit_offset(GUARDRAILS.name, CONTENT.name, partition, outputs.next_offset)
            self._at("2 appended")
        sampling.fresh.clear()
        self.runtime.put_out(outputs)
        self._at("3 committed")

    def _look(self, now: float) -> None:
        """Follow the signals of policies on findings, and forget what nobody asks for any more; now and then."""
        if now - self._looked_at >= _WATCH_EVERY_S:
            self._looked_at = now
            while records := self.log.read(SIGNALS.name, 0, self._signals_next):
                for record in records:
                    self._watched.hear(record.key or b"", record.value)
                self._signals_next = records[-1].offset + 1
            self.runtime.sampling.watched = self._watched.scopes()
        if now - self._tidied_at >= _TIDY_EVERY_S:
            now_ms = int(now * 1_000)
            gone = self.log.db.execute(
                "SELECT partition, producer FROM guard_producers"
                " WHERE seen_ms < ? AND (seen_ms < ? OR producer GLOB ?) LIMIT ?",
                (now_ms - KEYED_RETENTION_MS, now_ms - PRODUCER_RETENTION_MS, f"{KEYED}*", _MOST_FORGOTTEN),
            ).fetchall()
            if len(gone) < _MOST_FORGOTTEN:
                self._tidied_at = now
            with self.log.transaction():
                self.log.db.executemany("DELETE FROM guard_producers WHERE partition = ? AND producer = ?", gone)
                self.log.db.execute("DELETE FROM guard_names WHERE kept_ms < ?", (now_ms - FORGOTTEN_MS,))
                self.log.db.execute(
                    "DELETE FROM guard_names WHERE name NOT IN (SELECT name FROM guard_names ORDER BY kept_ms DESC LIMIT ?)",
                    (MOST_NAMES,),
                )

    def look(self) -> Tally:
        """What was done, and what waits."""
        unread: list[int] = []
        for number, partition in self.runtime.partitions.items():
            if not partition.records and self.log.end_offset(CONTENT.name, number) > partition.next_offset:
                unread += [one.appended_ms for one in self.log.read(CONTENT.name, number, partition.next_offset, max_bytes=1)]
        return self.runtime.look(self._clock(), min(unread, default=None), self.trouble)

    def waits(self) -> bool:
        """Whether there is content that nobody has judged."""
        return self.log.lag(GUARDRAILS.name, [CONTENT.name]) > 0

    def close(self) -> None:
        """End the processes; what they had is judged again by the next."""
        if self._runtime is not None:
            self._runtime.close()
        self._runtime = None
        self.log.close()
