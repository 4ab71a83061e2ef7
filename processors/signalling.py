"""Verdicts put into words: the signal for gates, the alert for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..schemas.policy import ADDITIVE, Policy, State
from ..schemas.signal import Alert, Contributor, Signal
from ..schemas.words import measure_text, window_text
from .judging import AT_EASE, Rule, Verdict, Word
from .runbooks import runbook_of_policy
from .series import ScopeUsage, Series, Values
from .windows import Buckets, Ring, forecast

if TYPE_CHECKING:  # for its version, offsets and gates; it imports this file
    from .policies import PoliciesState

_TOP: Final = 5
# How a reason ends where a rate or a quantile is of too few calls to be known.
TOO_FEW: Final = "too few to judge"


def signal_of(
    state: PoliciesState, rule: Rule, values: Values, word: Word, usage: list[ScopeUsage], verdict: Verdict, now: float
) -> Signal:
    policy, buckets = rule.policy, rule.series.buckets
    start, end = buckets.bounds(now)
    used = verdict.reading.value
    spent = (used or 0.0) + verdict.reading.reserved
    additive = policy.measure in ADDITIVE
    remaining = None if verdict.limit is None or not additive else max(verdict.limit - spent, 0.0)
    burn = _burn(usage, now) if additive else None
    action = rule.steps[verdict.step].action if verdict.step != AT_EASE else None
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
        exhausted_at=None if verdict.limit is None else _exhausted_at(buckets, usage, spent, burn, verdict.limit, now),
        reason=_reason(policy, verdict),
        contributors=_contributors(rule.series, usage, now) if used else [],
        since=word.since,
        sequence=word.sequence,
        at=word.at,
        applied=list(state.applied),
        gates=state.gates,
        stale=policy.stale,
        stale_after_s=policy.stale_after,
        owner=policy.owner,
        runbook=policy.runbook,
    )


def _burn(usage: list[ScopeUsage], now: float) -> float | None:
    rates = [part.ring.burn_per_s(now) for part in usage if isinstance(part.ring, Ring)]
    return sum(rates) if rates else None


def _exhausted_at(
    buckets: Buckets, usage: list[ScopeUsage], spent: float, burn: float | None, limit: float, now: float
) -> float | None:
    """When the limit is reached at this rate; of a calendar window also a moment after its end.

    A rolling window forgets on the way: whatever leaves it before then puts the moment off. Once all has left that counts now,
    what is spent and what leaves are in balance, and a limit that was not reached until then holds.
    """
    found = None if burn is None else forecast(spent, burn, limit, now)
    if not burn or found is None or found <= now or buckets.resets_at(now) is not None:
        return found
    balanced = buckets.falls_out_at(buckets.number(now))
    if found >= balanced:
        return None
    for leaves_at, amount in sorted(pair for part in usage if isinstance(part.ring, Ring) for pair in part.ring.leaving(now)):
        if found < leaves_at:
            break
        found += amount / burn
    return found if found < balanced else None


def _contributors(series: Series, usage: list[ScopeUsage], now: float) -> list[Contributor]:
    """The biggest spenders of the newest stretch, if that has a part in the window."""
    sums: dict[str, int] = {}
    newest = max((part.top_since for part in usage), default=0)
    if newest < series.oldest_stretch(now):
        return []
    for part in usage:
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
        return f"{policy.name}: fewer than {policy.minimum_requests} calls in {window_text(policy)}, {TOO_FEW}"
    total = used + verdict.reading.reserved
    share = f", {total / verdict.limit:.0%} of it" if verdict.limit else ""
    return (
        f"{policy.name}: {measure_text(policy, total)} in {window_text(policy)},"
        f" limit {measure_text(policy, verdict.limit)}{share}"
    )


def alert_of(signal: Signal, policy: Policy, previous: State, worse: bool) -> Alert:
    scope = _scope_text(signal.scope)
    harsh = signal.state in ("block", "downgrade")
    change = signal.state if signal.state == previous else f"{previous} → {signal.state}"
    return Alert(
        key=f"policy|{signal.policy}|{scope}",
        kind="policy",
        severity="critical" if worse and harsh else "warning" if worse else "info",
        title=f"{scope} {change}: {signal.reason}",
        at=signal.at,
        policy=signal.policy,
        scope=signal.scope,
        state=signal.state,
        previous_state=previous,
        spend=signal.spend,
        limit=signal.limit,
        resets_at=signal.resets_at,
        # People are warned of what will be: a period that ends before is no matter.
        exhausted_at=signal.exhausted_at if _is_reached(signal) else None,
        contributors=signal.contributors,
        owner=signal.owner,
        runbook=runbook_of_policy(policy),
    )


def _is_reached(signal: Signal) -> bool:
    """Whether the limit is reached, at this rate, before the period ends."""
    return signal.exhausted_at is not None and (signal.resets_at is None or signal.exhausted_at < signal.resets_at)


def withdrawn(rule: Rule, values: Values, word: Word, now: float) -> Alert:
    """The incident of a policy that is no more in force is over."""
    named = dict(zip(rule.policy.scope, values, strict=True))
    scope = _scope_text(named)
    return Alert(
        key=f"policy|{rule.policy.name}|{scope}",
        kind="policy",
        severity="info",
        title=f"{scope} {word.state} → ok: {rule.policy.name}: no longer in force",
        at=now,
        policy=rule.policy.name,
        scope=named,
        state="ok",
        previous_state=word.state,
        owner=rule.policy.owner,
        runbook=runbook_of_policy(rule.policy),
    )


def _scope_text(scope: dict[str, str | None]) -> str:
    return ", ".join(f"{name}={value}" for name, value in scope.items()) or "everything"
