"""How long calls take, and how they fail."""

from __future__ import annotations

from typing import Final

from ..panel import Board, Column, Panel
from .sources import ERROR_SHARE, MINUTES, RANGE, compared, counted, lines, quantile, series

LEVELS: Final = (50, 95, 99)
OVER_TIME: Final = lines(
    counted(("latency_s_state",)), {f"p{level}": quantile("latency_s_state", level) for level in LEVELS}, empty="NULL"
)
ERRORS_OVER_TIME: Final = series(
    f"(SELECT t, kind.1 AS name, kind.2 AS errors FROM {counted(('errors_by_type',))}"
    " ARRAY JOIN CAST(errors_by_type, 'Array(Tuple(String, UInt64))') AS kind)",
    "sum(errors)",
    weight="errors",
    step=MINUTES,
)
_SAID: Final = ("fewer than half of the calls were slower", "one call in twenty was slower", "one call in a hundred was slower")

LATENCY: Final = Board(
    key="latency",
    title="Latency",
    about="How long calls take, until the first token and until the last, and how they fail",
    panels=(
        *(
            Panel(
                key=f"latency_p{level}",
                title=f"Latency, p{level}",
                about=f"Of the calls that told one, {said}; within 1 % of the value",
                sql=compared("totals_between", quantile("latency_s_state", level)),
                shape="stat",
                unit="seconds",
                width=3,
            )
            for level, said in zip(LEVELS, _SAID, strict=True)
        ),
        Panel(
            key="first_token_p95",
            title="First token, p95",
            about="Of the calls that told it, one in twenty let people wait longer",
            sql=compared("totals_between", quantile("time_to_first_token_s_state", 95)),
            shape="stat",
            unit="seconds",
            width=3,
        ),
        Panel(
            key="latency_over_time",
            title="Latency over time",
            about="Half of the calls, nineteen of twenty, and ninety-nine of a hundred were faster",
            sql=OVER_TIME,
            shape="series",
            unit="seconds",
        ),
        Panel(
            key="first_token_over_time",
            title="Time to the first token",
            about="Of the calls that told it: those that were streamed, as a rule",
            sql=lines(
                counted(("time_to_first_token_s_state",)),
                {f"p{level}": quantile("time_to_first_token_s_state", level) for level in LEVELS},
                empty="NULL",
            ),
            shape="series",
            unit="seconds",
        ),
        Panel(
            key="latency_p95_by",
            title="Latency by name, p95",
            about="The nineteen with most calls, and the others together",
            sql=series(counted(("latency_s_state", "requests"), by=True), quantile("latency_s_state", 95), empty="NULL"),
            shape="series",
            unit="seconds",
            series_of="by",
        ),
        Panel(
            key="error_share_by",
            title="Failed, by name",
            about="Of the calls in each step, those that failed; the nineteen with most calls, and the others together",
            sql=series(counted(("errors", "requests"), by=True), ERROR_SHARE, empty="NULL"),
            shape="series",
            unit="share",
            series_of="by",
        ),
        Panel(
            key="latency_by",
            title="The slowest",
            about="The hundred with the longest p95",
            sql=f"""
SELECT
    value, requests, latency_p50_s, latency_p95_s, latency_p99_s, latency_max_s,
    time_to_first_token_p50_s, time_to_first_token_p95_s
FROM latency_by(by = {{by:String}}, {RANGE})
ORDER BY latency_p95_s DESC NULLS LAST, value
LIMIT 100
""",
            shape="table",
            unit="seconds",
            width=12,
            columns=(
                Column("value", "Name"),
                Column("requests", "Calls", "calls"),
                Column("latency_p50_s", "p50", "seconds"),
                Column("latency_p95_s", "p95", "seconds"),
                Column("latency_p99_s", "p99", "seconds"),
                Column("latency_max_s", "Longest", "seconds"),
                Column("time_to_first_token_p50_s", "First token, p50", "seconds"),
                Column("time_to_first_token_p95_s", "First token, p95", "seconds"),
            ),
            series_of="by",
        ),
        Panel(
            key="errors_by",
            title="Errors",
            about="By OpenTelemetry's error.type, the most frequent hundred; the share is of all calls of the name",
            sql=f"""
SELECT value, error_type, errors, error_rate, requests
FROM errors_by(by = {{by:String}}, {RANGE})
ORDER BY errors DESC, value, error_type
LIMIT 100
""",
            shape="table",
            unit="calls",
            width=12,
            columns=(
                Column("value", "Name"),
                Column("error_type", "Error"),
                Column("errors", "Failed", "calls"),
                Column("error_rate", "Of its calls", "share"),
                Column("requests", "Calls", "calls"),
            ),
            series_of="by",
        ),
    ),
)
