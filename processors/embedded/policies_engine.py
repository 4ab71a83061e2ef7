"""Runs the policies step on the embedded log, right behind the meter and in the same thread.

    usage, gates ─► read to the end ─► step ─► signals, alerts and offsets in one transaction

One run, numbered as the crash test aborts it: 1 judged, 2 signalled (inside the transaction), 3 committed. A crash before
the commit leaves the old offsets: the same usage is heard again and says the same. A restart takes up what the policies
then in force last said of every scope that is not at ease, and then puts the policies now in force in their place, as it
does with an edit; the other scopes come back with their next usage.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import orjson
from pydantic import ValidationError

from ...producers.sqlite_log import SqliteLog
from ...schemas.policy import PolicySet
from ...schemas.signal import GATES_KEY, POLICIES_KEY, SCHEMA, Alert, Gates, Signal, decode_signal, signal_key, signal_prefix
from ...schemas.topics import ALERTS, GATES, SIGNALS, USAGE
from ...schemas.unit_prices import PRICES_KEY, UnitPrices, decode_unit_prices
from ..judging import NEAR
from ..policies import PoliciesOutputs, PoliciesState, policies
from ..series import usage_prefix
from ..topology import POLICIES

# A gate announces itself every second; after five it is gone, and what it could have spent is the others' again.
GATE_GONE_S: Final = 5.0
# The heartbeat of all gates; a policy's `stale_after` is a second at the least.
BEAT_S: Final = 0.5

_SIGNALS: Final = b"signal|"
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
        unit_prices: Callable[[], dict[str, tuple[float, float]]] = dict,
        clock: Callable[[], float] = time.time,
        at: Callable[[str], None] = lambda _step: None,
    ) -> None:
        self._log = log
        self._counted = counted
        self._unit_prices = unit_prices
        self._clock = clock
        self._at = at
        self._telling: list[Alert] = []
        self._take_up(policy_set)

    def _take_up(self, policy_set: PolicySet) -> None:
        """The state as the log has it."""
        log, now = self._log, self._clock()
        self._next = {partition: log.committed(POLICIES.name, USAGE.name, partition) for partition in range(log.partitions)}
        self._gates_next = 0
        self._gates: dict[str, float] = {}
        self._told: tuple[list[str], list[int]] | None = None
        self._beat_at = float("-inf")
        self.state = PoliciesState(log.partitions, self._stored_usage, self._last_signal)
        self._outputs = PoliciesOutputs()
        self._outdated: dict[bytes, None] = {}
        stored = log.last(SIGNALS.name, 0, PRICES_KEY)
        self._prices = dict(decode_unit_prices(stored.value).nano_usd) if stored and stored.value else {}
        self._news: bytes | None = None
        self.state.enforce(self._last_policies(), now, self._outputs)
        for key, signal in self._signals(_SIGNALS):
            rule = self.state.rules.get(signal.policy)
            if rule is None or tuple(signal.scope) != rule.policy.scope:
                self._outdated[key] = None
            elif signal.state != "ok" or _is_near(signal):
                self.state.scope(rule.series.id, tuple(signal.scope.values()), now)
        self.enforce(policy_set)

    def enforce(self, policy_set: PolicySet) -> None:
        """Put a policy set in force. What is known of the scopes that it judges otherwise is judged in the next run."""
        now, before = self._clock(), self.state.rules
        self.policy_set = policy_set
        again = self.state.enforce(policy_set, now, self._outputs)
        for name, old in before.items():
            rule = self.state.rules.get(name)
            gone = rule is None or rule.policy.scope != old.policy.scope
            if rule is None or rule.series.id != old.series.id:
                # Of scopes at rest nothing is in memory; those that are not go on from what was said of them.
                for key, signal in self._signals(signal_prefix(name)):
                    if gone or signal.state == "ok":
                        self._outdated[key] = None
        for series_id in again:
            for partition in range(self._log.partitions):
                for record in self._log.keyed(USAGE.name, partition, usage_prefix(series_id)):
                    self.state.hear(partition, record.key or b"", record.value, now, news=False)
        news = policy_set.model_dump_json().encode()
        stored = self._log.last(SIGNALS.name, 0, POLICIES_KEY)
        self._news = None if stored and stored.value == news else news

    def run_once(self) -> int:
        """Hear what is new, judge, and publish. Returns how many signals went out."""
        now = self._clock()
        before = dict(self._next)
        counted = self._counted()
        for partition in self._next:
            self._hear(partition, now)
        self.state.applied = counted
        self._count_gates(now)
        try:
            _, outputs = policies(self.state, now)
            outputs.removed += self._outputs.removed
            outputs.alerts += self._outputs.alerts
            news = outputs.signals or outputs.alerts or outputs.removed or self._outdated or self._news or self._telling
            if not news and self._next == before and not self._beat(now):
                return 0
            self._publish(outputs, now)
        except BaseException:
            self._take_up(self.policy_set)
            raise
        return len(outputs.signals)

    def tell(self, kind: str, title: str) -> None:
        """Alert somebody to trouble that is no policy's: it goes out with the next run."""
        self._telling.append(Alert(key=kind, kind=kind, severity="warning", title=title[:1_000], at=self._clock()))

    def _hear(self, partition: int, now: float) -> None:
        while records := self._log.read(USAGE.name, partition, self._next[partition]):
            for record in records:
                self.state.hear(partition, record.key or b"", record.value, now)
            self._next[partition] = records[-1].offset + 1

    def _count_gates(self, now: float) -> None:
        for record in self._log.read(GATES.name, 0, self._gates_next):
            name = (record.key or b"").decode()
            if record.value:
                self._gates[name] = record.appended_ms / 1_000
            else:
                self._gates.pop(name, None)  # it said goodbye
            self._gates_next = record.offset + 1
        for name in [name for name, seen in self._gates.items() if now - seen > GATE_GONE_S]:
            del self._gates[name]
        # A signal names it as it was then; gates divide by the heartbeat's.
        self.state.gates = max(len(self._gates), 1)

    def _beat(self, now: float) -> bool:
        """Whether a heartbeat is due: by time (a clock that was set back counts), or because there is news for it."""
        return not 0 <= now - self._beat_at < BEAT_S or self._told != (sorted(self._gates), self.state.settled)

    def _publish(self, outputs: PoliciesOutputs, now: float) -> None:
        # What is taken back first: of each key the last record counts.
        records = [(signal_key(*key), _HEADERS, b"") for key in outputs.removed]
        records += [(key, _HEADERS, b"") for key in self._outdated]
        if self._news is not None:
            records.append((POLICIES_KEY, _HEADERS, self._news))
        records += [(signal.key(), _HEADERS, msgspec.json.encode(signal)) for signal in outputs.signals]
        beat = self._beat(now)
        if beat:
            gates = Gates(sorted(self._gates), now, self.state.settled)
            records.append((GATES_KEY, _HEADERS, msgspec.json.encode(gates)))
        prices = self._prices | self._unit_prices()
        if prices != self._prices:
            records.append((PRICES_KEY, _HEADERS, msgspec.json.encode(UnitPrices(prices, now))))
        alerts = [*outputs.alerts, *self._telling]
        self._at("1 judged")
        with self._log.transaction():
            self._log.append(SIGNALS.name, 0, records)
            if alerts:
                self._log.append(ALERTS.name, 0, [alert_record(alerts)])
            for partition, offset in self._next.items():
                self._log.commit_offset(POLICIES.name, USAGE.name, partition, offset)
            self._log.commit_offset(POLICIES.name, GATES.name, 0, self._gates_next)
            self._at("2 signalled")
        self._outputs = PoliciesOutputs()
        self._outdated, self._news = {}, None
        self._telling.clear()
        self._prices = prices
        if beat:
            self._beat_at = now
            self._told = (sorted(self._gates), self.state.settled)
        self._at("3 committed")

    def _last_policies(self) -> PolicySet:
        """The set that the signals in the log were said under."""
        stored = self._log.last(SIGNALS.name, 0, POLICIES_KEY)
        try:
            return PolicySet.model_validate_json(stored.value) if stored and stored.value else PolicySet()
        except ValidationError:
            # Written by a version with other rules of what a policy may be: all signals are told anew.
            return PolicySet()

    def _signals(self, prefix: bytes) -> Iterator[tuple[bytes, Signal]]:
        for record in self._log.keyed(SIGNALS.name, 0, prefix):
            if record.value:
                yield record.key or b"", decode_signal(record.value)

    def _stored_usage(self, partition: int, key: bytes) -> bytes | None:
        record = self._log.last(USAGE.name, partition, key)
        return record.value if record else None

    def _last_signal(self, policy: str, values: tuple[str | None, ...]) -> Signal | None:
        record = self._log.last(SIGNALS.name, 0, signal_key(policy, values))
        return decode_signal(record.value) if record and record.value else None


def _is_near(signal: Signal) -> bool:
    return signal.limit is not None and signal.spend + signal.reserved >= NEAR * signal.limit


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
