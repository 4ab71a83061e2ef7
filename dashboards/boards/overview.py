"""What a wall shows: is money, traffic, speed and health as it should be."""

from __future__ import annotations

from typing import Final

from ..panel import Board, Column, Panel
from .budgets import NOT_FINE
from .cost import COST_OVER_TIME
from .latency import ERRORS_OVER_TIME, OVER_TIME
from .sources import COST_USD, ERROR_SHARE, compared, counted, quantile, series

OVERVIEW: Final = Board(
    key="overview",
    title="Overview",
    about="Cost, traffic, speed and health of everything",
    panels=(
        Panel(
            key="cost",
            title="Cost",
            about="USD in the range; calls without a known price are in none of it",
            sql=compared("totals_between", COST_USD),
            shape="stat",
            unit="usd",
            width=3,
            more="cost",
        ),
        Panel(
            key="calls",
            title="Calls",
            about="Calls that ended in the range, those that failed too",
            sql=compared("totals_between", "sum(requests)"),
            shape="stat",
            unit="calls",
            width=3,
        ),
        Panel(
            key="error_share",
            title="Failed",
            about="Calls that failed, of all",
            sql=compared("totals_between", ERROR_SHARE),
            shape="stat",
            unit="share",
            width=3,
            more="latency",
        ),
        Panel(
            key="latency_p95",
            title="Latency, p95",
            about="Nineteen of twenty calls were faster",
            sql=compared("totals_between", quantile("latency_s_state", 95)),
            shape="stat",
            unit="seconds",
            width=3,
            more="latency",
        ),
        Panel(
            key="cost_over_time",
            title="Cost over time",
            about="USD in each step; calls without a known price are in none of it",
            sql=COST_OVER_TIME,
            shape="series",
            unit="usd",
            stacked=True,
            more="cost",
            series_of="by",
        ),
        Panel(
            key="calls_over_time",
            title="Calls over time",
            about="Calls in each step, by when they began",
            sql=series(counted(("requests",), by=True), "sum(requests)"),
            shape="series",
            unit="calls",
            stacked=True,
            series_of="by",
        ),
        Panel(
            key="latency_over_time",
            title="Latency over time",
            about="Half of the calls, nineteen of twenty, and ninety-nine of a hundred were faster",
            sql=OVER_TIME,
            shape="series",
            unit="seconds",
            more="latency",
        ),
        Panel(
            key="errors_over_time",
            title="Errors by type",
            about="Failed calls in each step, by OpenTelemetry's error.type",
            sql=ERRORS_OVER_TIME,
            shape="series",
            unit="calls",
            stacked=True,
            more="latency",
            series_of="error_type",
        ),
        Panel(
            key="leaks",
            title="Calls that leaked",
            about="Judged calls whose answer gave health information away; unknown where none was judged",
            sql=compared("verdicts_between", "if(sum(judged) = 0, NULL, sum(with_leaks))", "sum(judged) = 0"),
            shape="stat",
            unit="calls",
            width=4,
            more="guardrails",
        ),
        Panel(
            key="not_fine",
            title="Policies that are not fine now",
            about="What gates were told last, the harshest first",
            sql=NOT_FINE,
            shape="table",
            unit="count",
            width=8,
            columns=(
                Column("state", "State"),
                Column("policy", "Policy"),
                Column("scope_text", "Scope"),
                Column("limit_share", "Of the limit", "share"),
                Column("resets_at", "Resets", "time"),
            ),
            more="budgets",
        ),
    ),
)
