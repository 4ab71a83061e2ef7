"""What `tidegate policy` shows in a terminal: policies with their meaning, signals explained, a dry run told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ..processors.dry_run import Change, DryRun
from ..schemas.policy import SEVERITY, Policy, PolicySet, State
from ..schemas.signal import Signal
from .policy_words import STYLES, meaning, moment, request_meaning, scope_text, spend_text

# A screen or two; the whole story is in the JSON.
_MOST_CHANGES = 60
_MOST_SCOPES = 20
_STATES: tuple[State, ...] = ("ok", "warn", "throttle", "downgrade", "block")


def meanings(policies: PolicySet) -> Table:
    """Each policy and bound on single calls, with what it means."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("policy", no_wrap=True)
    table.add_column("what it means")
    for policy in policies.policies:
        table.add_row(Text(policy.name, style="cyan"), Text(meaning(policy)))
    for limit in policies.request_limits:
        table.add_row(Text(limit.name, style="cyan"), Text(request_meaning(limit)))
    return table


def in_force(policies: PolicySet, states: Mapping[str, Mapping[State, int]]) -> Table:
    """The policies in force, with how many scopes each has in which state."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("policy", no_wrap=True)
    for state in _STATES:
        table.add_column(state, justify="right")
    table.add_column("what it means")
    for policy in policies.policies:
        counts = states.get(policy.name, {})
        cells = [Text(f"{count:,}" if (count := counts.get(state, 0)) else "·", style=_lit(state, count)) for state in _STATES]
        table.add_row(Text(policy.name, style="cyan"), *cells, Text(meaning(policy)))
    for limit in policies.request_limits:
        table.add_row(Text(limit.name, style="cyan"), *[""] * len(_STATES), Text(request_meaning(limit)))
    return table


def _lit(state: State, count: int) -> str:
    return STYLES[state] if count else "dim"


def explained(signal: Signal, policy: Policy | None, now: float) -> Panel:
    """Everything that a signal says, for a person who wants to know why."""
    unit = signal.measure
    body = Table.grid(padding=(0, 2))
    body.add_column(style="dim", no_wrap=True)
    body.add_column()

    def line(name: str, text: str, style: str = "") -> None:
        if text:
            body.add_row(name, Text(text, style=style))

    line("why", signal.reason)
    line("rule", meaning(policy) if policy else f"{signal.policy} is not in force any more")
    line("window", f"{moment(signal.window_start, policy)} to {moment(signal.window_end, policy)}")
    share = f", {(signal.spend + signal.reserved) / signal.limit:.0%} of it" if signal.limit else ""
    line("spend", f"{spend_text(unit, signal.spend)}, limit {spend_text(unit, signal.limit)}{share}")
    line("reserved", f"{spend_text(unit, signal.reserved)} by calls in flight" if signal.reserved else "")
    line("remaining", spend_text(unit, signal.remaining) if signal.remaining is not None else "")
    line("most of it", ", ".join(f"{scope_text(c.scope)} {spend_text(unit, c.spend)}" for c in signal.contributors))
    line("forecast", _forecast(signal, policy, now))
    line("resets", _resets(signal, policy, now))
    line("since", "" if signal.since is None else f"{moment(signal.since, policy)} ({_ago(now - signal.since)})")
    line("told", f"{moment(signal.at, policy)} ({_ago(now - signal.at)}), sequence {signal.sequence}, to {_gates(signal)}")
    line("owner", signal.owner or "")
    line("runbook", signal.runbook or "")
    title = Text.assemble((signal.state.upper(), STYLES[signal.state]), "  ", (signal.policy, "bold"), "  ")
    title.append(scope_text(signal.scope))
    return Panel(body, title=title, title_align="left", border_style=STYLES[signal.state], expand=False)


def _gates(signal: Signal) -> str:
    return "one gate" if signal.gates == 1 else f"{signal.gates} gates"


def _forecast(signal: Signal, policy: Policy | None, now: float) -> str:
    if signal.burn_per_s is None or signal.limit is None:
        return ""
    rate = f"{spend_text(signal.measure, signal.burn_per_s * 3_600)} an hour"
    if signal.exhausted_at is None:
        return f"{rate}: the limit holds"
    if signal.exhausted_at <= signal.at:
        return f"{rate}: the limit is reached"
    if signal.resets_at is not None and signal.exhausted_at >= signal.resets_at:
        return f"{rate}: the limit holds until the window starts anew"
    return f"{rate}: the limit is reached at {moment(signal.exhausted_at, policy)} ({_in(signal.exhausted_at - now)})"


def _resets(signal: Signal, policy: Policy | None, now: float) -> str:
    if signal.resets_at is None:
        return "bit by bit, as calls leave the window"
    return f"{moment(signal.resets_at, policy)} ({_in(signal.resets_at - now)})"


def _in(seconds: float) -> str:
    return f"in {_length(seconds)}" if seconds > 0 else f"{_length(-seconds)} ago"


def _ago(seconds: float) -> str:
    return f"{_length(max(seconds, 0))} ago"


def _length(seconds: float) -> str:
    """The two largest units: `3 h 20 min`."""
    parts = []
    rest = int(seconds)
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def scopes(signals: Iterable[Signal], policies: Mapping[str, Policy]) -> Table:
    """One line for each scope, harshest first."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("state", "policy", "scope"):
        table.add_column(name, no_wrap=name == "state")
    for name in ("spend", "limit"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("resets")
    listed = sorted(signals, key=lambda signal: (-SEVERITY[signal.state], -_share(signal)))
    for signal in listed[:_MOST_SCOPES]:
        table.add_row(
            Text(signal.state, style=STYLES[signal.state]),
            Text(signal.policy),
            Text(scope_text(signal.scope)),
            spend_text(signal.measure, signal.spend),
            spend_text(signal.measure, signal.limit),
            moment(signal.resets_at, policies.get(signal.policy)),
        )
    if len(listed) > _MOST_SCOPES:
        table.add_row("", Text(f"… and {len(listed) - _MOST_SCOPES:,} more", style="dim"))
    return table


def _share(signal: Signal) -> float:
    return signal.spend / signal.limit if signal.limit else 0.0


def told(signal: Signal, previous: State, policy: Policy | None = None) -> Text:
    """A signal in one line."""
    line = Text(f"{moment(signal.at, policy)}  ", style="dim")
    line.append(f"{signal.state:<9}", style=STYLES[signal.state])
    line.append(f"  {scope_text(signal.scope)}", style="bold")
    line.append(f"  {signal.reason}")
    if signal.state != previous:
        line.append(f"  (was {previous})", style="dim")
    if signal.state != "ok" and signal.resets_at is not None:
        line.append(f"  resets {moment(signal.resets_at, policy)}", style="dim")
    return line


def dry_run(run: DryRun, policies: PolicySet, until: float) -> RenderableType:
    """The story of a dry run: what changed when, and what came of it."""
    by_name = {policy.name: policy for policy in policies.policies}
    parts: list[RenderableType] = [
        Text(f"{_calls(run.all.calls)}, {_usd(run.all.cost_nano_usd)}, from {moment(run.since)} to {moment(until)}", "dim")
    ]
    if not run.changes:
        parts.append(Text("No policy would have said anything: every scope stayed below its first step."))
        return Group(*parts)
    parts += [Text(), _timeline(run.changes, by_name), Text(), _savings(run, by_name)]
    still = [f"{name} {state} on {_scope_of(by_name[name], values)}" for (name, values), state in run.states().items()]
    if still:
        more = f" and {len(still) - 5:,} more" if len(still) > 5 else ""
        parts.append(Text(f"At the end: {'; '.join(still[:5])}{more}.", "dim"))
    parts.append(
        Text(
            f"{_calls(run.refused.calls)} of {run.all.calls:,} would have been refused:"
            f" {_usd(run.refused.cost_nano_usd)} of {_usd(run.all.cost_nano_usd)} saved.",
            "bold",
        )
    )
    return Group(*parts)


def _timeline(changes: Sequence[Change], policies: Mapping[str, Policy]) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("when", no_wrap=True)
    # Names of any length fold, so that times and amounts stay whole in eighty columns.
    table.add_column("policy", overflow="fold", min_width=12)
    table.add_column("scope", overflow="fold", min_width=12)
    table.add_column("what", no_wrap=True)
    for name in ("spend", "limit"):
        table.add_column(name, justify="right", no_wrap=True)
    for change in changes[:_MOST_CHANGES]:
        signal, policy = change.signal, policies[change.policy]
        table.add_row(
            moment(signal.at, policy)[5:],
            Text(change.policy),
            Text(scope_text(change.scope)),
            _what(change),
            spend_text(signal.measure, signal.spend),
            spend_text(signal.measure, signal.limit),
        )
    if len(changes) > _MOST_CHANGES:
        more = f"… and {len(changes) - _MOST_CHANGES:,} more; --format json has them all"
        table.add_row("", Text(more, style="dim"))
    return table


def _what(change: Change) -> Text:
    signal = change.signal
    if signal.state == "ok" and change.call_id is None:
        return Text("resets" if signal.resets_at is not None else "is over", style=STYLES["ok"])
    words = {"ok": "is over", "warn": "warns", "throttle": "throttles", "downgrade": "downgrades", "block": "blocks"}
    return Text(words[signal.state], style=STYLES[signal.state])


def _savings(run: DryRun, policies: Mapping[str, Policy]) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("policy")
    table.add_column("scope")
    for name in ("throttled", "downgraded", "refused", "saved"):
        table.add_column(name, justify="right", no_wrap=True)
    listed = sorted(run.outcomes.items(), key=lambda item: (-item[1].refused.cost_nano_usd, -item[1].refused.calls))
    for (policy, values), outcome in listed[:_MOST_SCOPES]:
        table.add_row(
            Text(policy),
            Text(_scope_of(policies[policy], values)),
            *(f"{tally.calls:,}" if tally.calls else "·" for tally in (outcome.throttled, outcome.downgraded, outcome.refused)),
            _usd(outcome.refused.cost_nano_usd),
        )
    if len(listed) > _MOST_SCOPES:
        table.add_row(Text(f"… and {len(listed) - _MOST_SCOPES:,} more", style="dim"))
    return table


def dry_run_json(run: DryRun, policies: PolicySet, until: float) -> dict[str, Any]:
    """The same as data. Times are seconds since 1970, money is nano-dollars."""
    by_name = {policy.name: policy for policy in policies.policies}
    return {
        "version": policies.version,
        "since": run.since,
        "until": until,
        "calls": run.all.calls,
        "cost_nano_usd": run.all.cost_nano_usd,
        "refused_calls": run.refused.calls,
        "saved_nano_usd": run.refused.cost_nano_usd,
        "changes": [
            {
                "at": change.signal.at,
                "policy": change.policy,
                "scope": change.scope,
                "previous": change.previous,
                "state": change.signal.state,
                "spend": change.signal.spend,
                "limit": change.signal.limit,
                "resets_at": change.signal.resets_at,
                "reason": change.signal.reason,
                "call_id": change.call_id,
            }
            for change in run.changes
        ],
        "outcomes": [
            {
                "policy": policy,
                "scope": dict(zip(by_name[policy].scope, values, strict=True)),
                "throttled_calls": outcome.throttled.calls,
                "downgraded_calls": outcome.downgraded.calls,
                "downgraded_cost_nano_usd": outcome.downgraded.cost_nano_usd,
                "refused_calls": outcome.refused.calls,
                "saved_nano_usd": outcome.refused.cost_nano_usd,
            }
            for (policy, values), outcome in run.outcomes.items()
        ],
        "still": [
            {"policy": policy, "scope": dict(zip(by_name[policy].scope, values, strict=True)), "state": state}
            for (policy, values), state in run.states().items()
        ],
    }


def _scope_of(policy: Policy, values: tuple[str | None, ...]) -> str:
    return scope_text(dict(zip(policy.scope, values, strict=True)))


def _calls(count: int) -> str:
    return f"{count:,} call{'' if count == 1 else 's'}"


def _usd(nano_usd: int) -> str:
    return f"${nano_usd / 1e9:,.4f}"
