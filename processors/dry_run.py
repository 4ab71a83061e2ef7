"""What policies would have done with calls that were made: the engine's own steps, driven by the calls' own time.

    stored calls, oldest first ─► refused? ─► series ─► policies step ─► changes of mind
                                     │          ▲
                                     │          └ verdicts on those that were made, when they were told
                                     └ saved: its cost, and the call itself

Until `since` calls only fill the windows, as they were made. From then on a call that comes while a policy blocks its
scope is refused: it is saved, and counts in no window, since it would not have been made (`probe_every` lets its one
call through). Throttled calls count when they were made and downgraded ones at what they did cost; what that would have
changed is not guessed at.

Every call is decided and counted in the moment it starts. A real gate hears of a block up to a flush later, and a call
counts only once it has ended, so the real overspend is that of the calls in flight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from ..schemas.policy import PolicySet, State
from ..schemas.signal import Signal
from .judging import Rule
from .policies import PoliciesOutputs, PoliciesState, ScopeKey, policies
from .series import ScopeUsage, SeriesKey, SeriesState, parse_usage_key

_HARSH: Final = ("throttle", "downgrade", "block")


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What rows of the store have in common. `at_us` is when the call began, microseconds since 1970."""

    call_id: str
    at_us: int
    source_partition: int = 0
    source_offset: int = 0
    seq: int = 0
    tenant: str | None = None
    team: str | None = None
    user: str | None = None
    service: str | None = None
    environment: str | None = None
    region: str | None = None
    task_type: str | None = None
    provider_name: str | None = None
    request_model: str | None = None
    response_model: str | None = None
    prompt_name: str | None = None
    prompt_version: str | None = None

    @property
    def at_s(self) -> float:
        return self.at_us / 1_000_000

    @property
    def heard_s(self) -> float:
        """When the dry run takes notice."""
        return self.at_s

    @property
    def place(self) -> tuple[int, int, int, int]:
        """Where it stands in the order in which rows are heard; no two of a kind stand in the same place."""
        return self.at_us, self.source_partition, self.source_offset, self.seq


class StoredCall(_Stored, frozen=True, kw_only=True):
    """A row of `calls` as far as policies look at it."""

    labels: dict[str, str] = {}
    input_tokens: int | None = None
    output_tokens: int | None = None
    latency_s: float | None = None
    error_type: str | None = None
    cost_nano_usd: int | None = None
    price_status: str = ""


class StoredFinding(msgspec.Struct, frozen=True):
    """As much of a finding as a policy looks at."""

    detector: str
    type: str
    leak: bool = False


class StoredVerdict(_Stored, frozen=True, kw_only=True):
    """A row of `scored_calls` as far as policies look at it; `heard_us` is when it was told."""

    heard_us: int
    outcome: str
    findings: list[StoredFinding] = []
    more_findings: int = 0
    detectors: dict[str, str] = {}
    failed: dict[str, str] = {}

    @property
    def heard_s(self) -> float:
        return self.heard_us / 1_000_000

    @property
    def place(self) -> tuple[int, int, int, int]:
        return self.heard_us, self.source_partition, self.source_offset, self.seq


@dataclass(frozen=True, slots=True)
class Change:
    """A policy changes its mind about a scope, or says the same more urgently: what somebody would have been alerted to.

    `call_id` names the call that did it; None: time alone.
    """

    policy: str
    scope: Mapping[str, str | None]
    previous: State
    signal: Signal
    call_id: str | None


@dataclass(slots=True)
class Tally:
    """Calls, and their cost in nano-dollars as far as it is known."""

    calls: int = 0
    cost_nano_usd: int = 0

    def add(self, call: StoredCall) -> None:
        self.calls += 1
        self.cost_nano_usd += call.cost_nano_usd or 0


@dataclass(slots=True)
class Outcome:
    """What came of one scope under one policy: calls that came while it was in these states."""

    throttled: Tally = field(default_factory=Tally)
    downgraded: Tally = field(default_factory=Tally)
    refused: Tally = field(default_factory=Tally)

    def of(self, state: State) -> Tally:
        return {"throttle": self.throttled, "downgrade": self.downgraded, "block": self.refused}[state]


class DryRun:
    """Feed it calls in the order of `place`, and between them verdicts by `heard_s`; then `finish`. `since` is seconds since
    1970."""

    def __init__(self, policy_set: PolicySet, since: float) -> None:
        self.since = since
        self.changes: list[Change] = []
        self.outcomes: dict[ScopeKey, Outcome] = {}
        # All calls from `since` on, and those of them that any policy would have refused, each once.
        self.all = Tally()
        self.refused = Tally()
        # What the topics would hold: the memory of scopes that have been idle.
        self._usage: dict[SeriesKey, ScopeUsage] = {}
        self._last: dict[ScopeKey, Signal] = {}
        self._policies = PoliciesState(
            partitions=1,
            load=lambda _partition, key: self._stored(key),
            last=lambda policy, values: self._last.get((policy, values)),
        )
        self._policies.enforce(policy_set, since, PoliciesOutputs())
        series = {rule.series.id: rule.series for rule in self._policies.rules.values()}
        self._series = SeriesState(series, self._stored)
        self._states: dict[ScopeKey, State] = {}
        self._not_fine: set[ScopeKey] = set()
        self._probed: dict[ScopeKey, float] = {}
        # Calls that would not have been made; nobody would have judged them.
        self._unmade: set[str] = set()

    @property
    def wants_verdicts(self) -> bool:
        """Whether any policy looks at verdicts."""
        return any(series.of_verdicts for series in self._series.series.values())

    @property
    def reads_from(self) -> float:
        """When the oldest window that counts at `since` began: feed it calls from then on."""
        starts = (series.buckets.bounds(self.since)[0] for series in self._series.series.values())
        return min(starts, default=self.since)

    def states(self) -> dict[ScopeKey, State]:
        """Every scope that is not fine now."""
        return {key: self._states[key] for key in sorted(self._not_fine, key=str)}

    def feed(self, call: StoredCall) -> None:
        at = call.at_s
        self._let_pass(at)
        concerned = [
            (rule, values) for rule in self._policies.rules.values() if (values := rule.series.scope_of(call)) is not None
        ]
        if at >= self.since:
            self.all.add(call)
            if self._refused(call, concerned, at):
                self._unmade.add(call.call_id)
                return
        self._series.response(call, at, call.cost_nano_usd, call.price_status == "unpriced", at)
        self._counted(at, call.call_id)

    def hear(self, verdict: StoredVerdict) -> None:
        """Count what was found in a call, when that was told."""
        at = verdict.heard_s
        self._let_pass(at)
        if verdict.call_id not in self._unmade:
            self._series.scored(verdict, verdict.at_s, at)
            self._counted(at, verdict.call_id)

    def _counted(self, at: float, call_id: str) -> None:
        """Judge the scopes that have changed."""
        for key, usage in self._series.changed():
            self._usage[key] = usage
            self._policies.take(0, *key, usage, at)
        self._series.flushed()
        self._judge(at, call_id)

    def finish(self, until: float) -> None:
        """Let the time pass that is left."""
        self._let_pass(until)

    def _refused(self, call: StoredCall, concerned: list[tuple[Rule, tuple[str | None, ...]]], at: float) -> bool:
        """Whether a gate would have refused the call; counts it in every scope that is not fine."""
        refused = False
        for rule, values in concerned:
            key = (rule.policy.name, values)
            if key not in self._states and rule.policy.limit_of(values) == 0:
                # Nothing need be spent to reach a limit of zero.
                self._policies.scope(rule.series.id, values, at)
                self._judge(at, None)
            state = self._states.get(key, "ok")
            if state == "block" and self._may_probe(rule, key, at):
                continue
            if state in _HARSH:
                self.outcomes.setdefault(key, Outcome()).of(state).add(call)
            refused = refused or state == "block"
        if refused:
            self.refused.add(call)
        return refused

    def _may_probe(self, rule: Rule, key: ScopeKey, at: float) -> bool:
        every = next((action.probe_every for action in rule.policy.actions if action.do == "block"), None)
        if every is None or rule.policy.limit_of(key[1]) == 0 or at < self._probed[key] + every:
            return False
        self._probed[key] = at
        return True

    def _let_pass(self, until: float) -> None:
        """Judge at each moment at which a window moves, a period ends or a hold is over."""
        while (due := self._policies.next_due()) is not None and due <= until:
            self._judge(due, None)

    def _stored(self, key: bytes) -> bytes | None:
        parsed = parse_usage_key(key)
        usage = None if parsed is None else self._usage.get(parsed)
        return None if usage is None else usage.dump()

    def _judge(self, at: float, call_id: str | None) -> None:
        # Worse news is told at once. Better news concerns those alone who are not fine: while there are any, all is told.
        self._policies.heartbeat_s = 0.0 if self._not_fine else float("inf")
        _, outputs = policies(self._policies, at)
        told: dict[ScopeKey, Signal] = {}
        for signal in outputs.signals:
            key = (signal.policy, tuple(signal.scope.values()))
            if signal.state == "block" and self._states.get(key) != "block":
                self._probed[key] = at
            told[key] = self._last[key] = signal
            self._states[key] = signal.state
            if signal.state == "ok":
                self._not_fine.discard(key)
            else:
                self._not_fine.add(key)
        if at < self.since:
            return
        for alert in outputs.alerts:
            if alert.policy is not None:
                signal = told[alert.policy, tuple(alert.scope.values())]
                self.changes.append(Change(signal.policy, signal.scope, alert.previous_state or "ok", signal, call_id))
