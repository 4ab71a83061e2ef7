"""The policies step: usage of scopes in; signals and alerts out.

    usage record ─► the scope of every policy on that series ─► judge(measure, limit, now) ─► signal, if it is news
    timer ────────► scopes whose window will move by itself, or whose hold ends

Usage is absolute per source partition, so a record heard twice changes nothing. A signal goes out when the state of a
scope changes, and as a heartbeat, at most every `HEARTBEAT_S`, while its spend does; so a gate's lease is never older
than that. Scopes that are idle and fine leave memory and come back with their next usage.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from ..schemas.policy import ADDITIVE, SEVERITY, Action, CalendarWindow, Policy, PolicySet, State
from ..schemas.signal import Alert, Contributor, Signal
from .series import ScopeUsage, Series, parse_usage_key, series_of, usage_key
from .sketch import quantile
from .windows import RatioRing, Ring, forecast

# A gate may use its lease up in a fraction of a second; four words a second keep it going without flooding the topic.
HEARTBEAT_S: Final = 0.25
# How long a scope that is fine and silent stays in memory.
IDLE_S: Final = 600.0
_TOP: Final = 5

_RATES: Final = frozenset({"error_rate", "finding_rate"})
_QUANTILES: Final = {"latency_p50_s": 0.5, "latency_p95_s": 0.95, "latency_p99_s": 0.99}

ScopeKey = tuple[str, tuple[str | None, ...]]


@dataclass(frozen=True, slots=True)
class Step:
    """What happens from which share of the limit on."""

    at: float
    state: State
    action: Action | None


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy made ready: its series, and its steps from mild to harsh."""

    policy: Policy
    series: Series
    steps: tuple[Step, ...]

    @classmethod
    def of(cls, policy: Policy, series: Series) -> Rule:
        steps = [Step(at, "warn", None) for at in policy.warn_at]
        steps += [Step(a.at, "warn" if a.do == "alert" else a.do, a) for a in policy.actions]
        return cls(policy, series, tuple(sorted(steps, key=lambda step: SEVERITY[step.state])))


@dataclass(slots=True)
class Scope:
    """What is known of one scope of one policy."""

    usage: dict[int, ScopeUsage] = field(default_factory=dict)
    state: State = "ok"
    since: float = 0.0
    heard_at: float = 0.0
    sent_at: float = 0.0
    sent_value: float = -1.0
    sequence: int = 0
    timer: float = 0.0


@dataclass(frozen=True, slots=True)
class Reading:
    """The measure of a scope now, in counted units, and what is held in reserve. `value` None: too few calls to say."""

    value: float | None
    reserved: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the policy says of the scope now."""

    state: State
    reading: Reading
    limit: float | None
    step: Step | None


@dataclass(slots=True)
class PoliciesOutputs:
    """News of one step. `removed` are signals to take back."""

    signals: list[Signal] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    removed: list[ScopeKey] = field(default_factory=list)


@dataclass(slots=True)
class PoliciesState:
    """All live scopes. `load(partition, key)` fetches a usage record; `last(policy, values)` the last signal sent."""

    partitions: int
    load: Callable[[int, bytes], bytes | None] = lambda _partition, _key: None
    last: Callable[[str, tuple[str | None, ...]], Signal | None] = lambda _policy, _values: None
    version: str = ""
    rules: dict[str, Rule] = field(default_factory=dict)
    by_series: dict[str, list[Rule]] = field(default_factory=dict)
    scopes: dict[ScopeKey, Scope] = field(default_factory=dict)
    applied: list[int] = field(default_factory=list)
    gates: int = 1
    pending: dict[ScopeKey, None] = field(default_factory=dict)
    timers: list[tuple[float, ScopeKey]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.applied = self.applied or [-1] * self.partitions

    def enforce(self, policies: PolicySet, outputs: PoliciesOutputs) -> None:
        """Put a policy set in force. What other policies said of their scopes is taken back."""
        series = series_of(policies.policies)
        rules = {policy.name: Rule.of(policy, series[Series.of(policy).id]) for policy in policies.policies}
        for key in list(self.scopes):
            if key[0] not in rules or rules[key[0]].series.id != self.rules[key[0]].series.id:
                del self.scopes[key]
                outputs.removed.append(key)
        self.version, self.rules = policies.version, rules
        self.by_series = {}
        for rule in rules.values():
            self.by_series.setdefault(rule.series.id, []).append(rule)
        self.pending.update(dict.fromkeys(self.scopes))

    def hear(self, partition: int, key: bytes, value: bytes, now: float) -> None:
        """Take in one record of the usage topic."""
        parsed = parse_usage_key(key)
        if parsed is None or not value:
            return
        series_id, values = parsed
        for rule in self.by_series.get(series_id, ()):
            scope = self.scope(rule, values, partition)
            scope.usage[partition] = ScopeUsage.load(rule.series, value)
            scope.heard_at = now
            self.pending[rule.policy.name, values] = None

    def scope(self, rule: Rule, values: tuple[str | None, ...], known: int | None = None) -> Scope:
        """A scope, from memory or from what the topics last said of it."""
        key = (rule.policy.name, values)
        scope = self.scopes.get(key)
        if scope is None:
            scope = self.scopes[key] = Scope()
            for partition in range(self.partitions):
                if partition != known and (stored := self.load(partition, usage_key((rule.series.id, values)))):
                    scope.usage[partition] = ScopeUsage.load(rule.series, stored)
            signal = self.last(*key)
            if signal is not None:
                scope.state, scope.sequence, scope.sent_at = signal.state, signal.sequence, signal.at
                scope.since = signal.at
        return scope


def policies(state: PoliciesState, now: float) -> tuple[PoliciesState, PoliciesOutputs]:
    """Judge every scope that has news or whose time has come, at `now` (seconds since 1970), and say what is new."""
    outputs = PoliciesOutputs()
    due, state.pending = state.pending, {}
    while state.timers and state.timers[0][0] <= now:
        at, key = heapq.heappop(state.timers)
        scope = state.scopes.get(key)
        if scope is not None and scope.timer == at:
            scope.timer = 0.0
            due[key] = None
    for key in due:
        scope = state.scopes.get(key)
        if scope is not None:
            _judge_scope(state, key, scope, now, outputs)
    return state, outputs


def _judge_scope(state: PoliciesState, key: ScopeKey, scope: Scope, now: float, outputs: PoliciesOutputs) -> None:
    rule = state.rules[key[0]]
    verdict = judge(rule, key[1], scope, now)
    changed = verdict.state != scope.state
    value = (verdict.reading.value or 0.0) + verdict.reading.reserved
    news = value != scope.sent_value
    if changed or (news and now - scope.sent_at >= HEARTBEAT_S) or not scope.sequence:
        previous = scope.state
        if changed:
            scope.state, scope.since = verdict.state, now
        scope.sequence = max(scope.sequence + 1, int(now * 1_000))
        scope.sent_at, scope.sent_value, news = now, value, False
        signal = _signal(state, rule, key[1], scope, verdict, now)
        outputs.signals.append(signal)
        if changed:
            outputs.alerts.append(_alert(signal, previous))
    _set_timer(state, rule, key, scope, news, now)


def _set_timer(state: PoliciesState, rule: Rule, key: ScopeKey, scope: Scope, news: bool, now: float) -> None:
    """When to look again without being asked: for a heartbeat, when the window moves or the hold ends; or let it go."""
    times = []
    if news:
        times.append(scope.sent_at + HEARTBEAT_S)
    if scope.state != "ok":
        times += [at for usage in scope.usage.values() if (at := usage.ring.next_change(now)) is not None]
        if rule.policy.hold:
            times.append(scope.since + rule.policy.hold)
    elif not news:
        if now - scope.heard_at >= IDLE_S:
            del state.scopes[key]
            return
        times.append(scope.heard_at + IDLE_S)
    at = min((at for at in times if at > now), default=0.0)
    if at and at != scope.timer:
        scope.timer = at
        heapq.heappush(state.timers, (at, key))


def judge(rule: Rule, values: tuple[str | None, ...], scope: Scope, now: float) -> Verdict:
    """What a policy says of a scope, given what it said before: entering a step is at once, leaving it takes the
    hysteresis and the hold."""
    policy = rule.policy
    reading = read(rule, scope.usage.values(), now)
    allowed = policy.limit_of(values)
    if allowed is None:
        return Verdict("ok", reading, None, None)
    limit = float(allowed) * policy.unit
    used = None if reading.value is None else reading.value + reading.reserved
    reached = _reached(rule, used, limit, 1.0)
    target = reached.state if reached else "ok"
    if SEVERITY[target] < SEVERITY[scope.state]:
        kept = _reached(rule, used, limit, 1.0 - policy.hysteresis, scope.state)
        if now < scope.since + policy.hold:
            held = next((step for step in rule.steps if step.state == scope.state), reached)
            return Verdict(scope.state, reading, limit, held)
        if kept is not None and SEVERITY[kept.state] > SEVERITY[target]:
            return Verdict(kept.state, reading, limit, kept)
    return Verdict(target, reading, limit, reached)


def _reached(rule: Rule, used: float | None, limit: float, ease: float, at_most: State = "block") -> Step | None:
    """The harshest step that the usage has reached, its threshold eased by a factor. A limit of zero is always reached."""
    for step in reversed(rule.steps):
        if SEVERITY[step.state] > SEVERITY[at_most]:
            continue
        if limit == 0 or (used is not None and used >= step.at * limit * ease):
            return step
    return None


def read(rule: Rule, usage: Iterable[ScopeUsage], now: float) -> Reading:
    """The measure over the window now, summed over source partitions."""
    policy = rule.policy
    total = reserved = parts = wholes = 0
    bins: dict[int, int] = {}
    for part in usage:
        reserved += part.reserved
        ring = part.ring
        if isinstance(ring, Ring):
            total += ring.sum(now)
        elif isinstance(ring, RatioRing):
            so, of = ring.counts(now)
            parts, wholes = parts + so, wholes + of
        else:
            for index, count in ring.bins(now).items():
                bins[index] = bins.get(index, 0) + count
    if policy.measure in _QUANTILES:
        few = sum(bins.values()) < policy.minimum_requests
        return Reading(None if few else quantile(bins, _QUANTILES[policy.measure]), 0)
    if policy.measure in _RATES:
        return Reading(None if wholes < policy.minimum_requests else parts / wholes, 0)
    return Reading(total, reserved)


def _signal(
    state: PoliciesState, rule: Rule, values: tuple[str | None, ...], scope: Scope, verdict: Verdict, now: float
) -> Signal:
    policy, buckets = rule.policy, rule.series.buckets
    start, end = buckets.bounds(now)
    used = verdict.reading.value
    spent = (used or 0.0) + verdict.reading.reserved
    additive = policy.measure in ADDITIVE
    remaining = None if verdict.limit is None or not additive else max(verdict.limit - spent, 0.0)
    burn = _burn(scope, now) if additive else None
    action = verdict.step.action if verdict.step else None
    return Signal(
        policy=policy.name,
        policy_version=state.version,
        scope=dict(zip(policy.scope, values, strict=True)),
        state=verdict.state,
        measure=policy.measure,
        spend=used or 0.0,
        reserved=verdict.reading.reserved,
        limit=verdict.limit,
        remaining=remaining,
        lease_share=policy.lease_share,
        model=action.model if action else None,
        per_minute=action.per_minute if action else None,
        probe_every_s=action.probe_every if action else None,
        window_start=start,
        window_end=end,
        resets_at=buckets.resets_at(now),
        burn_per_s=burn,
        exhausted_at=None if verdict.limit is None or burn is None else forecast(spent, burn, verdict.limit, now),
        reason=_reason(policy, verdict),
        contributors=_contributors(scope),
        sequence=scope.sequence,
        at=now,
        applied=list(state.applied),
        gates=state.gates,
        stale=policy.stale,
        stale_after_s=policy.stale_after,
        owner=policy.owner,
        runbook=policy.runbook,
    )


def _burn(scope: Scope, now: float) -> float | None:
    rates = [part.ring.burn_per_s(now) for part in scope.usage.values() if isinstance(part.ring, Ring)]
    return sum(rates) if rates else None


def _contributors(scope: Scope) -> list[Contributor]:
    sums: dict[str, int] = {}
    newest = max((part.top_since for part in scope.usage.values()), default=0)
    for part in scope.usage.values():
        if part.top_since == newest:
            for name, amount in part.top.items():
                sums[name] = sums.get(name, 0) + amount
    largest = sorted(sums.items(), key=lambda item: (-item[1], item[0]))[:_TOP]
    return [Contributor({name.partition("=")[0]: name.partition("=")[2]}, amount) for name, amount in largest]


def _reason(policy: Policy, verdict: Verdict) -> str:
    """One sentence for a person: which measure stands where against which limit."""
    if verdict.limit is None:
        return f"{policy.name}: no limit for this scope"
    used = verdict.reading.value
    if used is None:
        return f"{policy.name}: fewer than {policy.minimum_requests} calls in {window_text(policy)}, too few to judge"
    total = used + verdict.reading.reserved
    share = f", {total / verdict.limit:.0%} of it" if verdict.limit else ""
    return (
        f"{policy.name}: {measure_text(policy, total)} in {window_text(policy)},"
        f" limit {measure_text(policy, verdict.limit)}{share}"
    )


def measure_text(policy: Policy, amount: float) -> str:
    """An amount in counted units, as a person writes it."""
    match policy.measure:
        case "cost_usd":
            return f"${amount / policy.unit:,.4f}"
        case "error_rate" | "finding_rate":
            return f"{amount:.1%} {policy.measure.removesuffix('_rate')}s"
        case "latency_p50_s" | "latency_p95_s" | "latency_p99_s":
            return f"{policy.measure.removesuffix('_s').replace('_', ' ')} {amount:.2f} s"
    return f"{amount:,.0f} {policy.measure.replace('_', ' ')}"


def window_text(policy: Policy) -> str:
    """A window, as a person says it."""
    window = policy.window
    if isinstance(window, CalendarWindow):
        return f"this {window.calendar} ({window.time_zone})"
    for length_s, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if window.rolling % length_s == 0:
            return f"the last {window.rolling // length_s} {unit}"
    return f"the last {window.rolling} s"


def _alert(signal: Signal, previous: State) -> Alert:
    worse = SEVERITY[signal.state] > SEVERITY[previous]
    harsh = signal.state in ("block", "downgrade")
    scope = ", ".join(f"{name}={value}" for name, value in signal.scope.items()) or "everything"
    return Alert(
        key=f"policy|{signal.policy}|{scope}",
        kind="policy",
        severity="critical" if worse and harsh else "warning" if worse else "info",
        title=f"{scope} {previous} → {signal.state}: {signal.reason}",
        at=signal.at,
        policy=signal.policy,
        scope=signal.scope,
        state=signal.state,
        previous_state=previous,
        spend=signal.spend,
        limit=signal.limit,
        resets_at=signal.resets_at,
        exhausted_at=signal.exhausted_at,
        contributors=signal.contributors,
        owner=signal.owner,
        runbook=signal.runbook,
    )
