"""Runs the policies step on the embedded log, right behind the meter and in the same thread.

    usage, gates ─► read to the end ─► step ─► signals, alerts and offsets in one transaction

A crash before the commit leaves the old offsets: the same usage is heard again and says the same. A restart takes up
every scope that is not fine from its last signal and its stored usage; the others come back with their next usage.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import orjson

from ...producers.sqlite_log import SqliteLog
from ...schemas.policy import PolicySet
from ...schemas.signal import GATES_KEY, POLICIES_KEY, SCHEMA, Alert, Gates, Signal, decode_signal, signal_key
from ...schemas.topics import ALERTS, GATES, SIGNALS, USAGE
from ..policies import PoliciesOutputs, PoliciesState, policies
from ..topology import POLICIES

# A gate announces itself every second; after five it is gone, and what it could have spent is the others' again.
GATE_GONE_S: Final = 5.0
# The heartbeat of all gates; a policy's `stale_after` is a second at the least.
BEAT_S: Final = 0.5

_SIGNALS: Final = b"signal|"
_HEADERS: Final = {"schema": SCHEMA}


class PoliciesEngine:
    """The policies over one data folder's log. Shares the meter's thread and connection. `clock` is seconds since 1970.

    `counted()` gives, for each partition of `calls`, the last offset that the meter has committed.
    """

    def __init__(
        self,
        log: SqliteLog,
        policy_set: PolicySet,
        counted: Callable[[], list[int]],
        *,
        clock: Callable[[], float] = time.time,
        at: Callable[[str], None] = lambda _step: None,
    ) -> None:
        self._log = log
        self._counted = counted
        self._clock = clock
        self._at = at
        self._take_up(policy_set)

    def _take_up(self, policy_set: PolicySet) -> None:
        """The state as the log has it."""
        log = self._log
        self._next = {partition: log.committed(POLICIES.name, USAGE.name, partition) for partition in range(log.partitions)}
        self._gates_next = 0
        self._gates: dict[str, float] = {}
        self._told: tuple[list[str], list[int]] | None = None
        self._beat_at = 0.0
        self.state = PoliciesState(log.partitions, self._stored_usage, self._last_signal)
        self._outputs = PoliciesOutputs()
        self._outdated: list[bytes] = []
        self._news: bytes | None = None
        self.enforce(policy_set)
        for record in log.keyed(SIGNALS.name, 0, _SIGNALS):
            if not record.value:
                continue
            signal = decode_signal(record.value)
            rule = self.state.rules.get(signal.policy)
            if rule is None or tuple(signal.scope) != rule.policy.scope:
                self._outdated.append(record.key or b"")
            elif signal.state != "ok":
                values = tuple(signal.scope.values())
                self.state.scope(rule, values)
                self.state.pending[signal.policy, values] = None

    def enforce(self, policy_set: PolicySet) -> None:
        """Put a policy set in force. Scopes that its policies already have usage of are judged in the next run."""
        known = {rule.series.id for rule in self.state.rules.values()} if self.state.rules else set()
        self.policy_set = policy_set
        self.state.enforce(policy_set, self._outputs)
        self._news = policy_set.model_dump_json().encode()
        now = self._clock()
        for series_id in {rule.series.id for rule in self.state.rules.values()} - known:
            for partition in range(self._log.partitions):
                for record in self._log.keyed(USAGE.name, partition, b'["' + series_id.encode()):
                    self.state.hear(partition, record.key or b"", record.value, now)

    def run_once(self) -> int:
        """Hear what is new, judge, and publish. Returns how many signals went out."""
        now = self._clock()
        before = dict(self._next)
        counted = self._counted()
        for partition in self._next:
            self._hear(partition, now)
        self.state.applied = counted
        self._count_gates(now)
        _, outputs = policies(self.state, now)
        outputs.removed += self._outputs.removed
        outputs.alerts += self._outputs.alerts
        self._outputs = PoliciesOutputs()
        news = outputs.signals or outputs.alerts or outputs.removed or self._outdated or self._news
        if not news and self._next == before and not self._beat(now):
            return 0
        try:
            self._publish(outputs, now)
        except BaseException:
            self._take_up(self.policy_set)
            raise
        return len(outputs.signals)

    def tell(self, kind: str, title: str) -> None:
        """Alert somebody to trouble that is no policy's: it goes out with the next run."""
        self._outputs.alerts.append(Alert(key=kind, kind=kind, severity="warning", title=title[:1_000], at=self._clock()))

    def _hear(self, partition: int, now: float) -> None:
        while records := self._log.read(USAGE.name, partition, self._next[partition]):
            for record in records:
                self.state.hear(partition, record.key or b"", record.value, now)
            self._next[partition] = records[-1].offset + 1

    def _count_gates(self, now: float) -> None:
        for record in self._log.read(GATES.name, 0, self._gates_next):
            self._gates[(record.key or b"").decode()] = record.appended_ms / 1_000
            self._gates_next = record.offset + 1
        for name in [name for name, seen in self._gates.items() if now - seen > GATE_GONE_S]:
            del self._gates[name]
        if max(len(self._gates), 1) != self.state.gates:
            self.state.gates = max(len(self._gates), 1)
            # What a gate may spend has changed for every scope; whoever is heard of next is told.
            for key, scope in self.state.scopes.items():
                scope.sent_value = -1.0
                self.state.pending[key] = None

    def _beat(self, now: float) -> bool:
        return now - self._beat_at >= BEAT_S or self._told != (sorted(self._gates), self.state.applied)

    def _publish(self, outputs: PoliciesOutputs, now: float) -> None:
        records = [(signal.key(), _HEADERS, msgspec.json.encode(signal)) for signal in outputs.signals]
        records += [(signal_key(*key), _HEADERS, b"") for key in outputs.removed]
        records += [(key, _HEADERS, b"") for key in self._outdated]
        if self._news is not None:
            records.append((POLICIES_KEY, _HEADERS, self._news))
        if self._beat(now):
            gates = Gates(sorted(self._gates), now, self.state.applied)
            records.append((GATES_KEY, _HEADERS, msgspec.json.encode(gates)))
        self._at("1 judged")
        with self._log.transaction():
            self._log.append(SIGNALS.name, 0, records)
            if outputs.alerts:
                self._log.append(ALERTS.name, 0, [alert_record(outputs.alerts)])
            for partition, offset in self._next.items():
                self._log.commit_offset(POLICIES.name, USAGE.name, partition, offset)
            self._log.commit_offset(POLICIES.name, GATES.name, 0, self._gates_next)
            self._at("2 signalled")
        self._at("3 committed")
        self._news = None
        self._outdated.clear()
        self._beat_at = now
        self._told = (sorted(self._gates), list(self.state.applied))

    def _stored_usage(self, partition: int, key: bytes) -> bytes | None:
        record = self._log.last(USAGE.name, partition, key)
        return record.value if record else None

    def _last_signal(self, policy: str, values: tuple[str | None, ...]) -> Signal | None:
        record = self._log.last(SIGNALS.name, 0, signal_key(policy, values))
        return decode_signal(record.value) if record and record.value else None


def alert_record(alerts: list[Alert]) -> tuple[None, dict[str, str], bytes]:
    """Alerts as one record of rows for the store."""
    rows = b"\n".join(orjson.dumps(_row(alert)) for alert in alerts)
    return None, {"schema": "rows/1", "count": str(len(alerts))}, rows


def _row(alert: Alert) -> dict[str, Any]:
    row: dict[str, Any] = {
        name: getattr(alert, name)
        for name in (
            "key", "kind", "severity", "title", "policy", "state", "previous_state", "spend", "limit", "owner", "runbook"
        )
    }  # fmt: skip
    row["scope"] = {name: value or "" for name, value in alert.scope.items()}
    row["contributors"] = {"=".join(map(str, next(iter(c.scope.items())))): c.spend for c in alert.contributors}
    for name in ("at", "resets_at", "exhausted_at"):
        at = getattr(alert, name)
        row[name] = None if at is None else datetime.fromtimestamp(at, UTC)
    return row
