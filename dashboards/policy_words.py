"""Policies and signals in the words of people: one sentence for each policy, amounts with their units, moments with zones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from ..processors.policy_file import duration_text
from ..schemas.policy import NANO, RATES, Action, CalendarWindow, Policy, RequestLimit, State

STYLES: Final[dict[State, str]] = {
    "ok": "green",
    "warn": "yellow",
    "throttle": "magenta",
    "downgrade": "dark_orange",
    "block": "bold red",
}
_COUNTED: Final = {
    "cost_usd": "cost",
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
    "total_tokens": "tokens",
    "requests": "calls",
    "errors": "failed calls",
    "error_rate": "share of failed calls",
    "latency_p50_s": "median latency",
    "latency_p95_s": "95th percentile of latency",
    "latency_p99_s": "99th percentile of latency",
    "findings": "findings",
    "finding_rate": "share of judged calls with findings",
    "unpriced": "calls without a known price",
}


def limit_text(policy: Policy, limit: Decimal | float | None) -> str:
    """An amount in the unit of the policy's limit: dollars, a share, seconds, or pieces."""
    if limit is None:
        return "unlimited"
    if policy.measure == "cost_usd":
        dollars = Decimal(str(limit)).normalize()
        cents = dollars.quantize(Decimal("0.01"))
        return f"${cents if cents == dollars else dollars:,f}"
    if policy.measure in RATES:
        return f"{float(limit) * 100:g} %"
    if policy.measure.startswith("latency_"):
        return f"{float(limit):g} s"
    return f"{int(limit):,}"


def spend_text(measure: str, amount: float | None) -> str:
    """An amount in the counted unit of a signal: nano-dollars, a share, seconds, or pieces."""
    if amount is None:
        return "–"
    if measure == "cost_usd":
        return f"${amount / NANO:,.4f}"
    if measure in RATES:
        return f"{amount:.1%}"
    if measure.startswith("latency_"):
        return f"{amount:.2f} s"
    return f"{amount:,.0f}"


def scope_text(scope: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name}={'–' if value is None else value}" for name, value in scope.items()) or "everything"


def window_words(policy: Policy) -> str:
    window = policy.window
    if isinstance(window, CalendarWindow):
        return f"{'an' if window.calendar == 'hour' else 'a'} {window.calendar} ({window.time_zone})"
    return f"any {duration_text(window.rolling)}"


def moment(at: float | None, policy: Policy | None = None) -> str:
    """A moment in the policy's time zone, or in UTC, to the second."""
    if at is None:
        return "–"
    named = policy is not None and isinstance(policy.window, CalendarWindow)
    zone = ZoneInfo(policy.window.time_zone) if named else UTC  # type: ignore[union-attr]  # told by `named`
    return f"{datetime.fromtimestamp(at, zone):%Y-%m-%d %H:%M:%S %Z}"


def meaning(policy: Policy) -> str:
    """What the policy does, in one sentence."""
    whom = f"Each {' and '.join(map(_spoken, policy.scope))}" if policy.scope else "All calls together"
    counted = _COUNTED[policy.measure]
    if policy.finding_type is not None:
        counted = counted.replace("findings", f"{policy.finding_type} findings")
    steps = [f"at {_and(_reach(policy, at) for at in policy.warn_at)} a warning"] if policy.warn_at else []
    steps += [f"from {_reach(policy, action.at)} {_does(action)}" for action in policy.actions]
    return f"{whom}{_only(policy.match)}: {counted} in {window_words(policy)} up to {_limits(policy)}; {'; '.join(steps)}."


def request_meaning(limit: RequestLimit) -> str:
    """What the bound on single calls does, in one sentence."""
    bounds = [
        f"at most {most:,} {what} tokens"
        for most, what in ((limit.max_input_tokens, "input"), (limit.max_output_tokens, "output"))
        if most is not None
    ]
    return f"Any one call{_only(limit.match)}: {' and '.join(bounds)}, or it is refused before it costs anything."


def _limits(policy: Policy) -> str:
    if not policy.limits:
        return limit_text(policy, policy.limit)
    rows = f"{len(policy.limits)} scope{'' if len(policy.limits) == 1 else 's'} with a limit of their own"
    return f"{limit_text(policy, policy.limit)} ({rows})" if policy.limit is not None else f"what a table says ({rows})"


def _reach(policy: Policy, at: float) -> str:
    """A step of the limit: as an amount where there is one limit, as a share where there are several."""
    if policy.limits or policy.limit is None:
        return f"{at * 100:g} %"
    return limit_text(policy, policy.limit * Decimal(str(at)))


def _does(action: Action) -> str:
    match action.do:
        case "alert":
            return "an alert"
        case "throttle":
            return f"at most {action.per_minute:,g} calls a minute"
        case "downgrade":
            return f"{action.model} instead"
    if action.probe_every is not None:
        return f"a refusal, but for one call every {duration_text(action.probe_every)}"
    return "a refusal"


def _only(match: Mapping[str, tuple[str, ...]]) -> str:
    if not match:
        return ""
    return f" (only {'; '.join(f'{_spoken(name)} {_or(values)}' for name, values in match.items())})"


def _spoken(name: str) -> str:
    return name.removesuffix("_name").replace("_", " ")


def _and(words: Iterable[str]) -> str:
    listed = list(words)
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}"


def _or(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
