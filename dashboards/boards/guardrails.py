"""What the guardrails found in prompts and answers: types, places and scores, never a text."""

from __future__ import annotations

from typing import Final

from ..panel import Board, Column, Panel
from .sources import BEFORE, HOURS, RANGE, compared, found, judged, lines, series

_NONE_JUDGED: Final = "sum(judged) = 0"
_SCORES: Final = {
    "faithfulness": "response.faithfulness",
    "relevance": "response.relevance",
    "context relevance": "context.relevance",
    "toxicity": "response.toxicity",
    "injection": "prompt.injection",
}


def mean_score(score: str) -> str:
    """The mean of a score, of the texts that have one."""
    return f"sumMap(sum_by_score)['{score}'] / nullIf(sumMap(scored_by_score)['{score}'], 0)"


def _judged_share(asked: str) -> str:
    return (
        f"(SELECT sum(judged) FROM verdicts_between({asked})) / nullIf((SELECT sum(requests) FROM totals_between({asked})), 0)"
    )


GUARDRAILS: Final = Board(
    key="guardrails",
    title="Guardrails",
    about="Health information, toxicity, injections and what answers make up: how much is looked at, and what is found",
    panels=(
        Panel(
            key="judged_share",
            title="Judged",
            about="Of all calls, those whose texts were looked at. Of the others nobody knows",
            sql=f"SELECT {_judged_share(RANGE)} AS value, {_judged_share(BEFORE)} AS before",
            shape="stat",
            unit="share",
            width=3,
        ),
        Panel(
            key="finding_share",
            title="With a finding",
            about="Of the calls that were judged",
            sql=compared("verdicts_between", "sum(with_findings) / nullIf(sum(judged), 0)", _NONE_JUDGED),
            shape="stat",
            unit="share",
            width=3,
        ),
        Panel(
            key="leaks",
            title="Calls that leaked",
            about="Judged calls whose answer gave health information away; unknown where none was judged",
            sql=compared("verdicts_between", "if(sum(judged) = 0, NULL, sum(with_leaks))", _NONE_JUDGED),
            shape="stat",
            unit="calls",
            width=3,
        ),
        Panel(
            key="not_judged",
            title="Could not be judged",
            about="Verdicts that say nothing of the text: left out by sampling, unreadable, or in quarantine",
            sql=compared("verdicts_between", "sum(verdicts) - sum(judged)", "sum(verdicts) = 0"),
            shape="stat",
            unit="calls",
            width=3,
        ),
        Panel(
            key="findings_over_time",
            title="Findings by detector",
            about="Places in texts, by the hour of their calls",
            sql=series(found(("findings",), "detector"), "sum(findings)", weight="findings", step=HOURS),
            shape="series",
            unit="count",
            stacked=True,
        ),
        Panel(
            key="leaks_over_time",
            title="Leaks by type",
            about="Places in answers where health information was given away, by the hour of their calls",
            sql=series(found(("leaks",), "type"), "sum(leaks)", weight="leaks", step=HOURS, having="sum(leaks) > 0"),
            shape="series",
            unit="count",
            stacked=True,
        ),
        Panel(
            key="scores_over_time",
            title="Scores over time",
            about="Means, of the texts that have one: faithfulness and relevance should be high, toxicity and injection low",
            sql=lines(
                judged(("sum_by_score", "scored_by_score")),
                {name: mean_score(score) for name, score in _SCORES.items()},
                step=HOURS,
                empty="NULL",
            ),
            shape="series",
            unit="share",
        ),
        Panel(
            key="outcomes_over_time",
            title="Verdicts by outcome",
            about="Judged: scored, partial. The others say nothing of the text",
            sql=series(
                f"(SELECT t, kind.1 AS name, kind.2 AS verdicts FROM {judged(('verdicts_by_outcome',))}"
                " ARRAY JOIN CAST(verdicts_by_outcome, 'Array(Tuple(String, UInt64))') AS kind)",
                "sum(verdicts)",
                weight="verdicts",
                step=HOURS,
            ),
            shape="series",
            unit="calls",
            stacked=True,
        ),
        Panel(
            key="findings_by",
            title="What is found where",
            about="Judged calls with at least one finding of a type; a call with two types counts in both",
            sql=f"""
SELECT value, detector, type, calls, finding_rate, findings, calls_with_leaks
FROM findings_by(by = {{by:String}}, {RANGE})
ORDER BY calls DESC, value, detector, type
LIMIT 100
""",
            shape="table",
            unit="calls",
            width=12,
            columns=(
                Column("value", "Name"),
                Column("detector", "Detector"),
                Column("type", "Type"),
                Column("calls", "Calls", "calls"),
                Column("finding_rate", "Of those judged", "share"),
                Column("findings", "Findings", "count"),
                Column("calls_with_leaks", "Calls that leaked", "calls"),
            ),
            series_of="by",
        ),
        Panel(
            key="leaks_by_prompt",
            title="Leaks by prompt",
            about="Which version of which prompt gave what away, the most first",
            sql=f"""
SELECT
    if(prompt_version = '', toString(prompt_name), concat(prompt_name, '@', prompt_version)) AS prompt,
    tenant, type, sum(f.calls_with_leaks) AS calls_with_leaks, sum(f.leaks) AS leaks, max(hour) AS last_hour
FROM findings_between({RANGE}) AS f
GROUP BY prompt, tenant, type
HAVING leaks > 0
ORDER BY calls_with_leaks DESC, prompt, tenant, type
LIMIT 100
""",
            shape="table",
            unit="calls",
            width=12,
            columns=(
                Column("prompt", "Prompt"),
                Column("tenant", "Tenant", drill="tenant"),
                Column("type", "Type"),
                Column("calls_with_leaks", "Calls that leaked", "calls"),
                Column("leaks", "Leaks", "count"),
                Column("last_hour", "Last", "time"),
            ),
        ),
    ),
)
