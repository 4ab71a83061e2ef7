"""The versions of prompts beside one another: what they cost, how fast and how good they are, and what they stand on."""

from __future__ import annotations

from typing import Final

from ..panel import Board, Column, Panel
from .guardrails import mean_score
from .sources import BEFORE, HOURS, RANGE, UNKNOWN, compared, prompted, prompts_judged, quantile, series

_VERSIONS: Final = "uniqExactIf((prompt_name, prompt_version), prompt_name != '')"
_PER_CALL: Final = "sum(cost_nano_usd) / 1e9 / nullIf(sum(requests) - sum(requests_without_price), 0)"

_NEW: Final = f"""
SELECT
    if(
        (SELECT sum(requests) FROM totals_between({BEFORE})) = 0,
        NULL,
        (
            SELECT {_VERSIONS} FROM totals_between({RANGE})
            WHERE (prompt_name, prompt_version) NOT IN (SELECT prompt_name, prompt_version FROM totals_between({BEFORE}))
        )
    ) AS value,
    {UNKNOWN} AS before
"""

_COMPARED: Final = f"""
WITH quality AS
(
    SELECT
        prompt_name,
        prompt_version,
        sum(v.judged) AS judged,
        sum(v.with_findings) / nullIf(judged, 0) AS finding_rate,
        sum(v.with_leaks) / nullIf(judged, 0) AS leak_rate,
        {mean_score("response.faithfulness")} AS faithfulness,
        {mean_score("response.relevance")} AS relevance
    FROM verdicts_between({RANGE}) AS v
    GROUP BY prompt_name, prompt_version
)
SELECT
    used.prompt_name AS prompt_name,
    nullIf(toString(used.prompt_version), '') AS prompt_version,
    first_hour,
    calls,
    cost_usd_per_request,
    error_rate,
    latency_p50_s,
    latency_p95_s,
    quality.judged AS judged,
    if(quality.judged = 0, NULL, quality.finding_rate) AS finding_rate,
    if(quality.judged = 0, NULL, quality.leak_rate) AS leak_rate,
    if(quality.judged = 0, NULL, quality.faithfulness) AS faithfulness,
    if(quality.judged = 0, NULL, quality.relevance) AS relevance
FROM
(
    SELECT
        prompt_name,
        prompt_version,
        toDateTime(min(u.first_hour), 'UTC') AS first_hour,
        sum(u.requests) AS calls,
        {_PER_CALL} AS cost_usd_per_request,
        sum(errors) / nullIf(sum(requests), 0) AS error_rate,
        {quantile("latency_s_state", 50)} AS latency_p50_s,
        {quantile("latency_s_state", 95)} AS latency_p95_s
    FROM totals_between({RANGE}) AS u
    WHERE prompt_name != ''
    GROUP BY prompt_name, prompt_version
    ORDER BY calls DESC, prompt_name, prompt_version
    LIMIT 100
) AS used
LEFT JOIN quality ON quality.prompt_name = used.prompt_name AND quality.prompt_version = used.prompt_version
ORDER BY prompt_name, first_hour, prompt_version
"""

PROMPTS: Final = Board(
    key="prompts",
    title="Prompts",
    about="Versions beside one another: cost, speed, errors, findings, and what was retrieved for them",
    panels=(
        Panel(
            key="versions",
            title="Versions in use",
            about="Of prompts, by the calls of the range",
            sql=compared("totals_between", _VERSIONS),
            shape="stat",
            unit="count",
            width=4,
        ),
        Panel(
            key="new_versions",
            title="New versions",
            about="With calls in the range, and none in the range before; unknown where that has no calls at all",
            sql=_NEW,
            shape="stat",
            unit="count",
            width=4,
        ),
        Panel(
            key="named_share",
            title="Calls that name a prompt",
            about="Of all calls; the others are on no line of this board",
            sql=compared("totals_between", "sumIf(requests, prompt_name != '') / nullIf(sum(requests), 0)"),
            shape="stat",
            unit="share",
            width=4,
        ),
        Panel(
            key="compared",
            title="Versions compared",
            about="The hundred with most calls, each prompt's versions in the order in which they came",
            sql=_COMPARED,
            shape="table",
            unit="calls",
            width=12,
            columns=(
                Column("prompt_name", "Prompt"),
                Column("prompt_version", "Version"),
                Column("first_hour", "First", "time"),
                Column("calls", "Calls", "calls"),
                Column("cost_usd_per_request", "A call", "usd"),
                Column("error_rate", "Failed", "share"),
                Column("latency_p50_s", "p50", "seconds"),
                Column("latency_p95_s", "p95", "seconds"),
                Column("judged", "Judged", "calls"),
                Column("finding_rate", "With a finding", "share"),
                Column("leak_rate", "Leaked", "share"),
                Column("faithfulness", "Faithfulness", "share"),
                Column("relevance", "Relevance", "share"),
            ),
        ),
        Panel(
            key="calls_over_time",
            title="Calls by version",
            about="By the hour: a new version takes over, or does not",
            sql=series(prompted(("requests",)), "sum(requests)", step=HOURS),
            shape="series",
            unit="calls",
            stacked=True,
            series_of="prompt",
        ),
        Panel(
            key="cost_per_call_over_time",
            title="Cost of a call by version",
            about="Mean, of the calls with a known price",
            sql=series(prompted(("cost_nano_usd", "requests", "requests_without_price")), _PER_CALL, step=HOURS, empty="NULL"),
            shape="series",
            unit="usd",
            series_of="prompt",
        ),
        Panel(
            key="latency_over_time",
            title="Latency by version, p95",
            about="One call in twenty was slower",
            sql=series(prompted(("latency_s_state", "requests")), quantile("latency_s_state", 95), step=HOURS, empty="NULL"),
            shape="series",
            unit="seconds",
            series_of="prompt",
        ),
        Panel(
            key="faithfulness_over_time",
            title="Faithfulness by version",
            about="Mean score of the answers that have one: does what they say stand in what was retrieved",
            sql=series(
                prompts_judged(("sum_by_score", "scored_by_score", "judged")),
                mean_score("response.faithfulness"),
                weight="judged",
                step=HOURS,
                empty="NULL",
            ),
            shape="series",
            unit="share",
            series_of="prompt",
        ),
        Panel(
            key="retrieval_by",
            title="What was retrieved",
            about="Of the calls that retrieved anything: how much, and how well it fits",
            sql=f"""
SELECT value, calls_with_retrieval, chunks_per_call, best_score, mean_score, context_relevance, faithfulness
FROM retrieval_by(by = {{by:String}}, {RANGE})
ORDER BY calls_with_retrieval DESC, value
LIMIT 100
""",
            shape="table",
            unit="calls",
            width=12,
            columns=(
                Column("value", "Name"),
                Column("calls_with_retrieval", "Calls", "calls"),
                Column("chunks_per_call", "Chunks a call", "count"),
                Column("best_score", "Best score", "share"),
                Column("mean_score", "Mean score", "share"),
                Column("context_relevance", "Relevance", "share"),
                Column("faithfulness", "Faithfulness", "share"),
            ),
            series_of="by",
        ),
    ),
)
