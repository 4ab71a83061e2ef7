"""A meter's series and the policies step on topics in memory, and a model of what they must say that knows no rings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from support import NOW_S, line, request, response, scored
from tidegate.processors.policies import PoliciesOutputs, PoliciesState, policies
from tidegate.processors.series import CALL, ORPHAN_AFTER_MS, SeriesState, series_of
from tidegate.schemas.hot import decode_event
from tidegate.schemas.policy import CalendarWindow, Policy, PolicySet
from tidegate.schemas.signal import Alert, Signal, signal_key

Values = tuple[str | None, ...]


def policy(name: str = "budget", **fields: Any) -> Policy:
    """A policy that blocks at 100 calls an hour for each tenant; `fields` replace or (None) take away."""
    given: dict[str, Any] = {
        "name": name,
        "scope": ("tenant",),
        "measure": "requests",
        "window": {"rolling": "1h"},
        "limit": 100,
        "actions": [{"do": "block"}],
        "hysteresis": 0,
    } | fields
    return Policy.model_validate({key: value for key, value in given.items() if value is not None})


def policy_set(*policies: Policy, version: str = "1") -> PolicySet:
    return PolicySet(policies=policies, version=version)


@dataclass(frozen=True)
class Call:
    """One line of the log: when it was appended, and what it says: a response, a request, or a verdict (`scored`). `cost` is
    what the price book would make of it."""

    appended_s: float
    call_id: str
    kind: str = "response"
    started_s: float | None = None
    cost: int | None = 0
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def at_s(self) -> float:
        return self.appended_s if self.started_s is None else min(self.started_s, self.appended_s)

    def event(self) -> Any:
        started_at = datetime.fromtimestamp(self.appended_s if self.started_s is None else self.started_s, UTC).isoformat()
        make = {"response": response, "request": request, "scored": scored}[self.kind]
        return decode_event(line(make(self.call_id, started_at=started_at, **self.fields)))


def feed(series: SeriesState, call: Call) -> None:
    """What the meter does with a line."""
    event = call.event()
    if call.kind == "response":
        started_s = event.started_at.timestamp()
        series.response(event, started_s, call.cost, call.cost is None, call.appended_s)
    elif call.kind == "scored":
        series.scored(event, event.started_at.timestamp(), call.appended_s)
    else:
        series.request(event, int(call.appended_s * 1_000), call.cost)


class House:
    """Meters of some partitions and a policies step, each of which may be restarted; topics and clock in hand."""

    def __init__(self, policy_set: PolicySet, partitions: int = 1, now: float = NOW_S) -> None:
        self.policy_set = policy_set
        self.partitions = partitions
        self.topic: list[dict[bytes, bytes]] = [{} for _ in range(partitions)]
        self.log: list[list[tuple[bytes, bytes]]] = [[] for _ in range(partitions)]
        self.applied = [0] * partitions  # lines that are applied
        self.flushed = [0] * partitions  # lines that are flushed
        self.heard = [0] * partitions  # usage records heard
        self.committed = [0] * partitions  # … and judged
        self.signals: dict[bytes, Signal] = {}
        self.told: list[Signal] = []
        self.alerts: list[Alert] = []
        self.meters = [self._meter(partition) for partition in range(partitions)]
        self.policies = self._policies(now)

    # the meter

    def _meter(self, partition: int) -> SeriesState:
        topic = self.topic[partition]
        series = SeriesState(series_of(self.policy_set.policies), topic.get)
        series.restore((key, value) for key, value in topic.items() if key.startswith(CALL))
        return series

    def apply(self, partition: int, calls: Sequence[Call]) -> None:
        for call in calls:
            feed(self.meters[partition], call)
        self.applied[partition] += len(calls)

    def flush(self, partition: int, now: float) -> None:
        series = self.meters[partition]
        series.expire(int(now * 1_000))
        for key, value in series.records():
            self.topic[partition].pop(key, None)
            self.topic[partition][key] = value
            self.log[partition].append((key, value))
        series.flushed()
        self.flushed[partition] = self.applied[partition]

    def restart_meter(self, partition: int) -> None:
        """What was not flushed is lost, and will be applied again."""
        self.meters[partition] = self._meter(partition)
        self.applied[partition] = self.flushed[partition]

    def evict(self) -> None:
        """Nobody stays in memory that need not."""
        for series in self.meters:
            for counter in series.counters.values():
                counter.evict(float("inf"))

    # the policies

    def _policies(self, now: float) -> PoliciesState:
        def last(name: str, values: Values) -> Signal | None:
            return self.signals.get(signal_key(name, values))

        state = PoliciesState(self.partitions, lambda partition, key: self.topic[partition].get(key), last)
        state.enforce(self.policy_set, now, PoliciesOutputs())
        for signal in list(self.signals.values()):
            state.scope(state.rules[signal.policy].series.id, tuple(signal.scope.values()), now)
        return state

    def restart_policies(self, now: float) -> None:
        self.policies = self._policies(now)
        self.heard = list(self.committed)

    def hear(self, partition: int, now: float, upto: int | None = None) -> None:
        for key, value in self.log[partition][self.heard[partition] : upto]:
            self.policies.hear(partition, key, value, now)
            self.heard[partition] += 1

    def judge(self, now: float) -> PoliciesOutputs:
        _, outputs = policies(self.policies, now)
        self.publish(outputs)
        self.committed = list(self.heard)
        return outputs

    def publish(self, outputs: PoliciesOutputs) -> None:
        for key in outputs.removed:
            self.signals.pop(signal_key(*key), None)
        for signal in outputs.signals:
            self.signals[signal.key()] = signal
        self.told += outputs.signals
        self.alerts += outputs.alerts

    def edit(self, policy_set: PolicySet, now: float) -> PoliciesOutputs:
        """The policy file is edited: the meter counts what it asks for, the stored usage is heard again."""
        self.policy_set = policy_set
        for series in self.meters:
            series.watch(series_of(policy_set.policies))
        outputs = PoliciesOutputs()
        again = self.policies.enforce(policy_set, now, outputs)
        for partition, topic in enumerate(self.topic):
            for key, value in topic.items():
                if any(name.encode() in key for name in again):
                    self.policies.hear(partition, key, value, now)
        self.publish(outputs)
        return outputs

    # both

    def run(self, calls: Iterable[Call] = (), now: float | None = None, partition: int = 0) -> PoliciesOutputs:
        """Apply, flush, hear and judge, at the time of the last call or at `now`."""
        calls = list(calls)
        now = calls[-1].appended_s if now is None else now
        self.apply(partition, calls)
        for each in range(self.partitions):
            self.flush(each, now)
            self.hear(each, now)
        return self.judge(now)

    def signal(self, *values: str | None, policy: str = "budget") -> Signal:
        return self.signals[signal_key(policy, values)]

    def state(self, *values: str | None, policy: str = "budget") -> str:
        found = self.signals.get(signal_key(policy, values))
        return found.state if found else "ok"

    def pass_time(self, until: float) -> list[tuple[float, str, str]]:
        """Judge whenever something is due by itself. What changed, as (time, policy, state)."""
        changes = []
        while (due := self.policies.next_due()) is not None and due <= until:
            before = dict(self.signals)
            for signal in self.judge(due).signals:
                known = before.get(signal.key())
                if signal.state != (known.state if known else "ok"):
                    changes.append((due, signal.policy, signal.state))
        self.judge(until)
        return changes


# The model: plain sums over all calls. It knows the promises, and nothing of how they are kept.


def counts(policy: Policy, at_s: float, now: float) -> bool:
    """Whether what happened then is in the window now: rolling, for as long as the sixtieth of the window in which it fell
    is not wholly past; calendar, when the wall clock then showed the same period."""
    window = policy.window
    if isinstance(window, CalendarWindow):
        return period(window, at_s) == period(window, now)
    sixtieth = window.bucket_s
    return at_s // sixtieth >= (now - window.rolling) // sixtieth


def period(window: CalendarWindow, at_s: float) -> Any:
    at = datetime.fromtimestamp(at_s, ZoneInfo(window.time_zone))
    day = at.date()
    return {
        "hour": (day, at.hour, at.utcoffset()),
        "day": day,
        "week": day - timedelta(days=day.weekday()),
        "month": date(day.year, day.month, 1),
    }[window.calendar]


def value_of(call: Call, name: str) -> str | None:
    if name == "model":
        return call.fields.get("response_model") or call.fields.get("request_model", "gpt-4o")  # None: a verdict need not say
    if name.startswith("label."):
        return (call.fields.get("labels") or {}).get(name[6:])
    if name == "tenant":
        return call.fields.get("tenant", "harbor-health")
    return call.fields.get(name)


def scope_of(policy: Policy, call: Call) -> Values | None:
    if any(value_of(call, name) not in wanted for name, wanted in policy.match.items()):
        return None
    return tuple(value_of(call, name) for name in policy.scope)


def amount_of(policy: Policy, call: Call) -> int:
    """What a response counts by an additive measure, or a request holds; or a verdict, by its findings."""
    if policy.measure == "findings":
        return findings_of(policy, call)
    if policy.measure == "cost_usd":
        return call.cost or 0
    if policy.measure == "requests":
        return 1
    if policy.measure == "errors":
        return int(call.kind == "response" and call.fields.get("error_type") is not None)
    kind = {"response": ("input_tokens", "output_tokens"), "request": ("estimated_input_tokens", "estimated_output_tokens")}
    default = {"input_tokens": 1_000, "output_tokens": 100}
    tokens = [call.fields.get(name, default.get(name, 0)) or 0 for name in kind[call.kind]]
    return int({"input_tokens": tokens[0], "output_tokens": tokens[1], "total_tokens": sum(tokens)}[policy.measure])


def findings_of(policy: Policy, call: Call) -> int:
    """How many findings of a verdict the policy means."""
    found, kind = call.fields.get("findings", []), policy.finding_type
    if kind is None:
        return len(found) + int(call.fields.get("more_findings", 0))
    if kind == "phi_leak":
        return sum(each.get("leak", False) for each in found)
    return sum(kind in (each["type"], each["detector"]) for each in found)


def counted_kind(policy: Policy) -> str:
    """Which lines a policy counts."""
    return "scored" if policy.measure in ("findings", "finding_rate") else "response"


@dataclass(frozen=True)
class Truth:
    """What must be said of a scope at a time."""

    state: str
    spend: float
    reserved: float
    limit: float | None
    remaining: float | None
    contributors: dict[str, float]


def truth(policy: Policy, calls: Iterable[Call], values: Values, now: float, stretch: Any = None) -> Truth:
    """By plain sums, for a policy without hysteresis, hold and minimum."""
    mine = [call for call in calls if scope_of(policy, call) == values and call.appended_s <= now]
    counted = [call for call in mine if call.kind == counted_kind(policy) and counts(policy, call.at_s, now)]
    spend = sum(amount_of(policy, call) for call in counted)
    answered = {call.call_id: call.appended_s for call in mine if call.kind == "response"}
    reserved = sum(
        amount_of(policy, call)
        for call in mine
        if call.kind == "request"
        and policy.measure != "findings"
        and call.call_id not in answered
        and call.appended_s + ORPHAN_AFTER_MS / 1_000 > now
    )
    limit = policy.limit_of(values)
    units = None if limit is None else float(limit) * policy.unit
    state = "ok"
    steps = [(at, "warn") for at in policy.warn_at]
    steps += [(action.at, {"alert": "warn"}.get(action.do, action.do)) for action in policy.actions]
    for at, said in sorted(steps, key=lambda step: ["warn", "throttle", "downgrade", "block"].index(step[1])):
        if units is not None and (units == 0 or spend + reserved >= at * units):
            state = said
    return Truth(
        state,
        spend,
        reserved,
        units,
        None if units is None else max(units - spend - reserved, 0),
        spenders(policy, [call for call in mine if call.kind == counted_kind(policy) and amount_of(policy, call)], now),
    )


def spenders(policy: Policy, responses: list[Call], now: float) -> dict[str, float]:
    """Who spent how much in the newest stretch: the period, or one of the windows laid end to end from 1970."""

    def stretch(at_s: float) -> Any:
        window = policy.window
        return period(window, at_s) if isinstance(window, CalendarWindow) else at_s // window.rolling

    kept = [call for call in responses if counts(policy, call.at_s, call.appended_s)]
    if not kept:
        return {}
    newest = max(kept, key=lambda call: call.at_s)
    window = policy.window
    if isinstance(window, CalendarWindow):
        if period(window, newest.at_s) != period(window, now):
            return {}
    elif stretch(newest.at_s) < stretch(now) - 1:
        return {}
    sums: dict[str, float] = {}
    for call in kept:
        if stretch(call.at_s) == stretch(newest.at_s):
            open_fields = [name for name in ("user", "team", "service") if name not in policy.scope]
            name = next((name for name in open_fields if value_of(call, name) is not None), "model")
            spender = f"{name}={value_of(call, name) or 'unknown'}"
            sums[spender] = sums.get(spender, 0) + amount_of(policy, call)
    return sums
