"""What a wall shows: is money, traffic, speed and health as it should be."""

from __future__ import annotations

from typing import Final

from ..panel import Board, Panel

_RANGE: Final = "minute >= parseDateTimeBestEffort({since:String}) AND minute < parseDateTimeBestEffort({until:String})"
_TENANT: Final = "({tenant:String} = '*' OR tenant = {tenant:String})"

OVERVIEW: Final = Board(
    key="overview",
    title="Overview",
    about="Cost, traffic, speed and errors of everything",
    panels=(
        Panel(
            key="cost_over_time",
            title="Cost by model",
            about="USD in each step; calls without a known price are in none of it",
            sql=f"""
SELECT toStartOfInterval(minute, toIntervalSecond({{step_s:UInt32}})) AS t, model AS series, sum(cost_usd) AS value
FROM v_calls_1m WHERE {_RANGE} AND {_TENANT} GROUP BY t, series ORDER BY t, series
""",
            shape="series",
            unit="usd",
            width=6,
            stacked=True,
            more="cost",
        ),
    ),
)
