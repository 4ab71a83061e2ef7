"""Runs the policies step on the embedded log, right behind the meter and in the same thread.

    usage, gates ─► read to the end ─► step ─► signals, rows of them, alerts and offsets in one transaction

One run, numbered as the crash test aborts it: 1 judged, 2 signalled (inside the transaction), 3 committed. A crash before
the commit leaves the old offsets: the same usage is heard again and says the same. A restart takes up what the policies
then in force last said of every scope that is not at ease, and then puts the policies now in force in their place, as it
does with an edit; the other scopes come back with their next usage.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from ...producers.sqlite_log import SqliteLog
from ...schemas.policy import PolicySet
from ...schemas.signal import SCHEMA
from ...schemas.topics import ALERTS, GATES, SIGNAL_ROWS, SIGNALS, USAGE
from ..alert_rows import alert_record
from ..enforcement import Beat, Enforcement, Prices, Publication, beat_of
from ..policies import PoliciesState
from ..signal_rows import signal_records
from ..topology import POLICIES

_HEADERS: Final = {"schema": SCHEMA}


class PoliciesEngine:
    """The policies over one data folder's log. Shares the meter's thread and connection. `clock` is seconds since 1970.

    `counted()` gives, for each partition of `calls`, the last offset that the meter has committed; `unit_prices()` what a
    token of each model that was asked costs at most.
    """

    def __init__(
        self,
        log: SqliteLog,
        policy_set: PolicySet,
        counted: Callable[[], list[int]],
        *,
        unit_prices: Callable[[], Prices] = dict,
        clock: Callable[[], float] = time.time,
        at: Callable[[str], None] = lambda _step: None,
    ) -> None:
        self._log = log
        self._counted = counted
        self._unit_prices = unit_prices
        self._clock = clock
        self._at = at
        self._take_up(policy_set)

    def _take_up(self, policy_set: PolicySet) -> None:
        """The state as the log has it."""
        log, now = self._log, self._clock()
        self._next = {partition: log.committed(POLICIES.name, USAGE.name, partition) for partition in range(log.partitions)}
        self._gates_next = 0
        self._enforcement = Enforcement(_LogMemory(log), log.partitions, now, unit_prices=self._unit_prices)
        self._enforcement.enforce(policy_set, now)

    @property
    def state(self) -> PoliciesState:
        return self._enforcement.state

    @property
    def policy_set(self) -> PolicySet:
        """The policies in force."""
        return self._enforcement.policy_set

    def beat(self) -> Beat | None:
        """When gates were last told that somebody is there, and how many live. From any thread."""
        return beat_of([self._enforcement])

    def enforce(self, policy_set: PolicySet) -> None:
        """Put a policy set in force. What is known of the scopes that it judges otherwise is judged in the next run."""
        self._enforcement.enforce(policy_set, self._clock())

    def run_once(self) -> int:
        """Hear what is new, judge, and publish. Returns how many signals went out."""
        now = self._clock()
        before = dict(self._next)
        counted = self._counted()
        for partition in self._next:
            self._hear(partition, now)
        self._hear_gates()
        try:
            publication = self._enforcement.judge(counted, now, anyway=self._next != before)
            if publication is None:
                return 0
            self._publish(publication)
        except BaseException:
            trouble, standing = self._enforcement.trouble, self._enforcement.standing
            self._take_up(self.policy_set)
            self._enforcement.trouble, self._enforcement.standing = trouble, standing
            raise
        return publication.signals

    def stands(self, kind: str, problem: str | None) -> None:
        """Say how it stands with trouble that is no policy's; None: well. People hear of it with the next run."""
        self._enforcement.stands(kind, problem, self._clock())

    def _hear(self, partition: int, now: float) -> None:
        while records := self._log.read(USAGE.name, partition, self._next[partition]):
            for record in records:
                self._enforcement.hear(partition, record.key or b"", record.value, now)
            self._next[partition] = records[-1].offset + 1

    def _hear_gates(self) -> None:
        for record in self._log.read(GATES.name, 0, self._gates_next):
            self._enforcement.hear_gate((record.key or b"").decode(), record.appended_ms / 1_000 if record.value else None)
            self._gates_next = record.offset + 1

    def _publish(self, publication: Publication) -> None:
        self._at("1 judged")
        with self._log.transaction():
            self._log.append(SIGNALS.name, 0, [(key, _HEADERS, value) for key, value in publication.records])
            self._log.append(SIGNAL_ROWS.name, 0, signal_records(publication.kept))
            if publication.alerts:
                self._log.append(ALERTS.name, 0, [alert_record(publication.alerts)])
            for partition, offset in self._next.items():
                self._log.commit_offset(POLICIES.name, USAGE.name, partition, offset)
            self._log.commit_offset(POLICIES.name, GATES.name, 0, self._gates_next)
            self._at("2 signalled")
        self._enforcement.published(publication)
        self._at("3 committed")


class _LogMemory:
    """The last record on every key, looked up in the log itself."""

    def __init__(self, log: SqliteLog) -> None:
        self._log = log

    def usage(self, partition: int, key: bytes) -> bytes | None:
        record = self._log.last(USAGE.name, partition, key)
        return record.value if record else None

    def usage_of(self, prefix: bytes) -> Iterator[tuple[int, bytes, bytes]]:
        for partition in range(self._log.partitions):
            for record in self._log.keyed(USAGE.name, partition, prefix):
                yield partition, record.key or b"", record.value

    def signal(self, key: bytes) -> bytes | None:
        record = self._log.last(SIGNALS.name, 0, key)
        return record.value if record else None

    def signals(self, prefix: bytes) -> Iterable[tuple[bytes, bytes]]:
        return [(record.key or b"", record.value) for record in self._log.keyed(SIGNALS.name, 0, prefix) if record.value]
