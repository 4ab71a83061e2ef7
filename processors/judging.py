"""What a policy says of a scope: the measure over its window, the steps that it has reached, the word that follows.

    usage ─► read ─► Reading ─► judge (steps, hysteresis, hold, the last Word) ─► Verdict

Pure arithmetic on one scope; which scopes are judged, and when, is `policies.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ..schemas.policy import SEVERITY, Action, Policy, State
from ..schemas.signal import Signal
from .series import ScopeUsage, Series, Values
from .sketch import quantile
from .windows import RatioRing, Ring

# From this share of the limit on a gate's part of the rest may be too small for a call, so it must hear when there is more.
NEAR: Final = 0.5
_RATES: Final = frozenset({"error_rate", "finding_rate"})
_QUANTILES: Final = {"latency_p50_s": 0.5, "latency_p95_s": 0.95, "latency_p99_s": 0.99}
AT_EASE: Final = -1


@dataclass(frozen=True, slots=True)
class Step:
    """What happens from which share of the limit on."""

    at: float
    state: State
    action: Action | None


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy made ready: its series, and its steps from mild to harsh. A step goes by its number; below the first is -1."""

    policy: Policy
    series: Series
    steps: tuple[Step, ...]
    # In counted units; of scopes without a row of their own.
    usual_limit: float | None

    @classmethod
    def of(cls, policy: Policy, series: Series) -> Rule:
        steps = [Step(at, "warn", None) for at in policy.warn_at]
        steps += [Step(a.at, "warn" if a.do == "alert" else a.do, a) for a in policy.actions]
        steps.sort(key=lambda step: (SEVERITY[step.state], step.at))
        return cls(policy, series, tuple(steps), None if policy.limit is None else float(policy.limit) * policy.unit)

    def state(self, step: int) -> State:
        return "ok" if step == AT_EASE else self.steps[step].state

    def limit(self, values: Values) -> float | None:
        """A scope's limit in counted units."""
        if not self.policy.limits:
            return self.usual_limit
        limit = self.policy.limit_of(values)
        return None if limit is None else float(limit) * self.policy.unit

    def step_of(self, signal: Signal) -> int:
        """The step at which a signal was sent."""
        used = signal.spend + signal.reserved
        found = AT_EASE
        for number, step in enumerate(self.steps):
            action = step.action
            told = (action.model, action.per_minute, action.probe_every) if action else (None, None, None)
            if step.state == signal.state and told == (signal.model, signal.per_minute, signal.probe_every_s):
                # Of several warnings, the last that the spend had reached.
                if found != AT_EASE and signal.limit is not None and used < step.at * signal.limit:
                    break
                found = number
        return found


@dataclass(slots=True)
class Word:
    """What a policy last said of a scope. `since` is when it came to this step; -1: under other rules, so that neither hold
    nor hysteresis bind it."""

    state: State = "ok"
    step: int = AT_EASE
    since: float = -1.0
    at: float = 0.0
    sequence: int = 0
    spend: float = -1.0
    reserved: float = 0.0
    limit: float | None = None

    def says(self, verdict: Verdict) -> bool:
        """Whether it would be said again in the same words."""
        reading = verdict.reading
        return (self.step, self.state, self.spend, self.reserved, self.limit) == (
            *(verdict.step, verdict.state, reading.value or 0.0, reading.reserved, verdict.limit),
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """The measure of a scope now, in counted units, and what is held in reserve. `value` None: too few calls to say."""

    value: float | None
    reserved: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the policy says of the scope now."""

    state: State
    step: int
    reading: Reading
    limit: float | None


def is_near(verdict: Verdict) -> bool:
    used, limit = verdict.reading.value, verdict.limit
    return limit is not None and used is not None and used + verdict.reading.reserved >= NEAR * limit


def judge(rule: Rule, values: Values, usage: Iterable[ScopeUsage], now: float, word: Word) -> Verdict:
    """What a policy says of a scope, given what it said before: entering a step is at once, leaving it takes the
    hysteresis and the hold."""
    policy = rule.policy
    reading = read(rule, usage, now)
    limit = rule.limit(values)
    if limit is None:
        return Verdict("ok", AT_EASE, reading, None)
    used = None if reading.value is None else reading.value + reading.reserved
    step = _reached(rule, used, limit, 1.0, len(rule.steps) - 1)
    if step < word.step and word.since >= 0:
        if now < word.since + policy.hold:
            step = word.step
        else:
            step = max(step, _reached(rule, used, limit, 1.0 - policy.hysteresis, word.step))
    return Verdict(rule.state(step), step, reading, limit)


def _reached(rule: Rule, used: float | None, limit: float, ease: float, at_most: int) -> int:
    """The harshest step that the usage has reached, its threshold eased by a factor. A limit of zero is always reached."""
    for number in range(at_most, AT_EASE, -1):
        if limit == 0 or (used is not None and used >= rule.steps[number].at * limit * ease):
            return number
    return AT_EASE


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
