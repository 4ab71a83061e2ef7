"""Policies in a person's words: amounts and windows, said alike by the policies step and by the gates."""

from __future__ import annotations

from .policy import CalendarWindow, Policy


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
