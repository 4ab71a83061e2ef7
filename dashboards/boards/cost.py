"""What everything costs, whose it is, and what it is compared with yesterday."""

from __future__ import annotations

from typing import Final

from ..panel import Board, Column, Panel
from .sources import COST_USD, RANGE, compared, counted, lines, series

COST_OVER_TIME: Final = series(
    counted(("cost_nano_usd", "requests", "requests_without_price"), by=True), COST_USD, weight="cost_nano_usd"
)
_PER_CALL: Final = "sum(cost_nano_usd) / 1e9 / nullIf(sum(requests) - sum(requests_without_price), 0)"
# The last whole day of the range, beside the day and the week before it.
_LAST_DAY: Final = "toStartOfDay(parseDateTimeBestEffort({until:String}, 'UTC'))"

COST: Final = Board(
    key="cost",
    title="Cost",
    about="What calls cost, for whom and for which tokens, and what nobody knows the price of",
    panels=(
        Panel(
            key="cost",
            title="Cost",
            about="USD in the range; calls without a known price are in none of it",
            sql=compared("totals_between", COST_USD),
            shape="stat",
            unit="usd",
            width=3,
        ),
        Panel(
            key="cost_per_call",
            title="Cost of a call",
            about="Mean, of the calls with a known price",
            sql=compared("totals_between", _PER_CALL),
            shape="stat",
            unit="usd",
            width=3,
        ),
        Panel(
            key="cache_savings",
            title="Saved by the cache",
            about="What the calls would have cost with nothing cached, less what they did; below 0 where writing cost more",
            sql=compared("totals_between", "if(sum(requests_with_cache_savings) = 0, NULL, sum(cache_savings_nano_usd) / 1e9)"),
            shape="stat",
            unit="usd",
            width=3,
        ),
        Panel(
            key="without_price",
            title="Without a price",
            about="Calls that cost something, and nobody knows what: a line in the price file makes the next ones priced",
            sql=compared("totals_between", "sum(requests_without_price)"),
            shape="stat",
            unit="calls",
            width=3,
        ),
        Panel(
            key="cost_over_time",
            title="Cost over time",
            about="USD in each step; calls without a known price are in none of it",
            sql=COST_OVER_TIME,
            shape="series",
            unit="usd",
            stacked=True,
            series_of="by",
        ),
        Panel(
            key="tokens_over_time",
            title="Tokens over time",
            about="Input from the cache costs a fraction; reasoning is paid for as output. Calls that told none are in none",
            sql=lines(
                counted(("input_tokens", "cache_read_tokens", "output_tokens", "reasoning_tokens")),
                {
                    "input": "toInt64(sum(input_tokens)) - toInt64(sum(cache_read_tokens))",
                    "input from the cache": "toInt64(sum(cache_read_tokens))",
                    "output": "toInt64(sum(output_tokens)) - toInt64(sum(reasoning_tokens))",
                    "reasoning": "toInt64(sum(reasoning_tokens))",
                },
            ),
            shape="series",
            unit="tokens",
            stacked=True,
        ),
        Panel(
            key="cost_by",
            title="Where the money goes",
            about="The dearest hundred",
            sql=f"""
SELECT
    value, if(requests > requests_without_price, cost_usd, NULL) AS known_cost_usd, cost_share, requests, cost_usd_per_request,
    input_tokens, output_tokens, requests_without_price
FROM cost_by(by = {{by:String}}, {RANGE})
ORDER BY cost_usd DESC, value
LIMIT 100
""",
            shape="table",
            unit="usd",
            width=12,
            columns=(
                Column("value", "Name"),
                Column("known_cost_usd", "Cost", "usd"),
                Column("cost_share", "Share", "share"),
                Column("requests", "Calls", "calls"),
                Column("cost_usd_per_request", "A call", "usd"),
                Column("input_tokens", "Input", "tokens"),
                Column("output_tokens", "Output", "tokens"),
                Column("requests_without_price", "Without a price", "calls"),
            ),
            series_of="by",
        ),
        Panel(
            key="day_over_day",
            title="The last whole day, beside the day and the week before",
            about="UTC; the hundred whose cost moved most since the day before",
            sql=f"""
SELECT value, cost_usd, cost_usd_day_before, cost_usd_week_before, requests, requests_day_before
FROM days_by(
    by = {{by:String}}, tenant = {{tenant:String}},
    since = toString({_LAST_DAY} - toIntervalDay(8)), until = toString({_LAST_DAY}))
WHERE day = toDate({_LAST_DAY}) - 1
ORDER BY abs(cost_usd - ifNull(cost_usd_day_before, 0)) DESC, value
LIMIT 100
""",
            shape="table",
            unit="usd",
            columns=(
                Column("value", "Name"),
                Column("cost_usd", "Cost", "usd"),
                Column("cost_usd_day_before", "Day before", "usd"),
                Column("cost_usd_week_before", "Week before", "usd"),
                Column("requests", "Calls", "calls"),
                Column("requests_day_before", "Day before", "calls"),
            ),
            series_of="by",
        ),
        Panel(
            key="tokens_by",
            title="Tokens and the cache",
            about="Who sends most, and what the cache takes off it",
            sql=f"""
SELECT value, input_tokens, output_tokens, cache_read_share, cache_savings_usd, requests_without_tokens
FROM tokens_by(by = {{by:String}}, {RANGE})
ORDER BY input_tokens + output_tokens DESC, value
LIMIT 100
""",
            shape="table",
            unit="tokens",
            columns=(
                Column("value", "Name"),
                Column("input_tokens", "Input", "tokens"),
                Column("output_tokens", "Output", "tokens"),
                Column("cache_read_share", "From the cache", "share"),
                Column("cache_savings_usd", "Saved", "usd"),
                Column("requests_without_tokens", "Without tokens", "calls"),
            ),
            series_of="by",
        ),
        Panel(
            key="unpriced_models",
            title="Models without a price",
            about="A line in the price file makes their next calls priced",
            sql=f"""
SELECT model, provider_name, requests_without_price, requests, first_hour, last_hour
FROM unpriced_models({RANGE})
LIMIT 100
""",
            shape="table",
            unit="calls",
            width=12,
            columns=(
                Column("model", "Model"),
                Column("provider_name", "Provider"),
                Column("requests_without_price", "Without a price", "calls"),
                Column("requests", "Calls", "calls"),
                Column("first_hour", "First", "time"),
                Column("last_hour", "Last", "time"),
            ),
            series_of="model",
        ),
    ),
)
