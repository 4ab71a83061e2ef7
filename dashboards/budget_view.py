"""What policies say of their scopes, as burn-downs: what is left over the window so far, and why calls are kept back. Pure.

Amounts are in the unit of the policy's limit: dollars, tokens, calls, a share, seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ..processors.console_access import Digests
from ..processors.signalling import TOO_FEW
from ..schemas.policy import NANO, QUANTILES, RATES, SEVERITY, PolicySet
from ..schemas.signal import Signal
from .incident_view import who_spent
from .policy_words import meaning
from .ranges import iso_of

_UNITS: Final = {
    "cost_usd": "usd",
    "input_tokens": "tokens",
    "output_tokens": "tokens",
    "total_tokens": "tokens",
    "requests": "calls",
    "errors": "calls",
    "unpriced": "calls",
    "findings": "count",
    "error_rate": "share",
    "finding_rate": "share",
}
# As wide as a burn-down is drawn.
_MOST_POINTS: Final = 60


def budgets_shown(
    signals: Sequence[Signal], points: Mapping[bytes, Sequence[tuple[float, float]]], policies: PolicySet, digests: Digests
) -> list[dict[str, Any]]:
    """The harshest first, then the fullest. `points` are (time, spent) of a signal's key, oldest first."""
    known = {policy.name: policy for policy in policies.policies}
    rules = {name: meaning(policy) for name, policy in known.items()}
    shown = [_budget(one, points.get(one.key(), ()), rules.get(one.policy), digests) for one in signals if one.policy in known]
    return sorted(shown, key=lambda one: (-SEVERITY[one["state"]], -(one["share"] or 0.0), one["policy"], str(one["scope"])))


def _budget(one: Signal, spent: Sequence[tuple[float, float]], rule: str | None, digests: Digests) -> dict[str, Any]:
    per_unit = NANO if one.measure == "cost_usd" else 1
    # Of too few calls a rate or a quantile is not known, and not zero; and neither is ever used up.
    judged = one.measure in RATES | QUANTILES
    known = not (judged and one.reason.endswith(TOO_FEW))
    taken = one.spend + one.reserved
    limit = one.limit
    spenders = who_spent(one.contributors, one.spend, digests)

    def amount(value: float | None) -> float | None:
        return None if value is None else value / per_unit

    def left(used: float) -> float | None:
        return None if limit is None else max(limit - used, 0.0) / per_unit

    within = [(at, used) for at, used in spent if one.window_start <= at < one.at]
    within = [*_thinned(within), (one.at, taken)]
    return {
        "policy": one.policy,
        "scope": digests.scope(one.scope),
        "rule": rule,
        "measure": one.measure,
        "unit": _UNITS.get(one.measure, "seconds"),
        "spend": amount(one.spend) if known else None,
        "reserved": amount(one.reserved),
        "limit": amount(limit),
        "share": taken / limit if limit and known else None,
        "remaining": None if judged else left(taken),
        "burn_per_h": None if one.burn_per_s is None else one.burn_per_s * 3_600 / per_unit,
        "exhausted_at": iso_of(one.exhausted_at),
        "state": one.state,
        "why": _why(one),
        "since": iso_of(one.since),
        "at": iso_of(one.at),
        "window_start": iso_of(one.window_start),
        "window_end": iso_of(one.window_end),
        "resets_at": iso_of(one.resets_at),
        "points": [] if limit is None or judged else [[iso_of(at), left(used)] for at, used in within],
        "contributors": [told | {"spend": amount(by.spend)} for told, by in zip(spenders, one.contributors, strict=True)],
        "owner": one.owner,
        "runbook": one.runbook,
    }


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Not more than are drawn: evenly among those there are, the first and the last kept."""
    if len(points) < _MOST_POINTS:
        return points
    step = (len(points) - 1) / (_MOST_POINTS - 2)
    return [points[round(n * step)] for n in range(_MOST_POINTS - 1)]


def _why(one: Signal) -> str:
    """The reason, and what follows from it for calls."""
    match one.state:
        case "block":
            follows = "calls are refused" + (
                "" if one.probe_every_s is None else f", but for one every {one.probe_every_s:g} s"
            )
        case "throttle":
            follows = (
                f"at most {one.per_minute:,g} calls a minute go" if one.per_minute is not None else "calls are slowed down"
            )
        case "downgrade":
            follows = f"calls go to {one.model} instead"
        case _:
            return one.reason
    return f"{one.reason}; {follows}"
