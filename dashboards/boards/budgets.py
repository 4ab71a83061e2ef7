"""What policies say of their scopes: how full budgets are, who is kept back, and for how long.

A scope is told by what is no person's: of a dimension that could name one (`user`, a label) only that it is there.
"""

from __future__ import annotations

from typing import Final

from ..panel import Board, Column, Panel
from .sources import MINUTES, RANGE, SINCE, UNKNOWN, UNTIL, compared, filled, start, widened

_PLAIN: Final = (
    *("tenant", "team", "service", "environment", "region", "task_type"),
    *("provider_name", "model", "prompt_name", "prompt_version"),
)
_SCOPE: Final = (
    "if(empty(scope), 'everything', arrayStringConcat(arrayMap((name, value) -> if("
    f"name IN ({', '.join(repr(name) for name in _PLAIN)}), concat(name, '=', value), concat(name, '=…')),"
    " mapKeys(scope), mapValues(scope)), ', '))"
)
_TENANT: Final = "({tenant:String} = '*' OR scope['tenant'] = {tenant:String})"
_SHARE: Final = "spend / nullIf(`limit`, 0)"
_HARSHNESS: Final = "indexOf(['warn', 'downgrade', 'throttle', 'block'], toString(state))"
_KEPT_BACK: Final = "('block', 'throttle')"
# Gates are told what is left more often than the store keeps it: the first word in five minutes.
_KEPT_EVERY: Final = widened(300)
_SAID_IN: Final = f"greatest(toStartOfInterval(toDateTime(at, 'UTC'), toIntervalSecond({_KEPT_EVERY})), {start(_KEPT_EVERY)})"
_MOST: Final = 20

NOT_FINE: Final = f"""
SELECT state, policy, {_SCOPE} AS scope_text, {_SHARE} AS limit_share, resets_at
FROM signals_now
WHERE state != 'ok' AND {_TENANT}
ORDER BY {_HARSHNESS} DESC, limit_share DESC NULLS LAST, policy, scope_text
LIMIT 20
"""

_NOW: Final = f"""
SELECT state, policy, {_SCOPE} AS scope_text, {_SHARE} AS limit_share, resets_at, exhausted_at, at, reason
FROM signals_now
WHERE {_TENANT}
ORDER BY {_HARSHNESS} DESC, limit_share DESC NULLS LAST, policy, scope_text
LIMIT 100
"""

# A word holds until the next one, so the last one from before the range is at its beginning.
_SHARES: Final = f"""
SELECT t, series, value
FROM
(
    SELECT t, series, value
    FROM
    (
        SELECT *, dense_rank() OVER (ORDER BY fullest DESC NULLS LAST, series) AS place
        FROM
        (
            SELECT t, series, max(share) AS value, max(max(share)) OVER (PARTITION BY series) AS fullest
            FROM
            (
                SELECT
                    {_SAID_IN} AS t,
                    concat(policy, ' ', any({_SCOPE})) AS series,
                    argMax(if(withdrawn, NULL, {_SHARE}), sequence) AS share
                FROM signals
                WHERE at >= {SINCE} - toIntervalDay(7) AND at < {UNTIL} AND {_TENANT}
                GROUP BY t, policy, scope_key
            )
            GROUP BY t, series
        )
    )
    WHERE place <= {_MOST}
    ORDER BY series, t WITH FILL TO {UNTIL} STEP toIntervalSecond({_KEPT_EVERY}) INTERPOLATE (value AS value)
)
ORDER BY t, series
"""

_CHANGES: Final = f"""
SELECT t, series, value
FROM
(
    SELECT
        toStartOfInterval(toDateTime(at, 'UTC'), toIntervalSecond({MINUTES})) AS t, toString(state) AS series, count() AS value
    FROM policy_states({RANGE})
    GROUP BY t, series
    ORDER BY series, t {filled(MINUTES, "0")}
)
WHERE series != ''
ORDER BY t, series
"""

_LONGEST: Final = f"""
WITH parseDateTime64BestEffort({{until:String}}, 3, 'UTC') AS range_end
SELECT
    concat(policy, ' ', {_SCOPE}) AS name,
    sum(dateDiff('millisecond', at, least(ifNull(ended_at, range_end), range_end))) / 1000 AS value
FROM blocks({RANGE})
GROUP BY name
ORDER BY value DESC, name
LIMIT {_MOST}
"""

_BLOCKS: Final = f"""
SELECT at, state, policy, {_SCOPE} AS scope_text, lasted_s, ended_at, limit_share, resets_at
FROM blocks({RANGE})
ORDER BY at DESC, policy, scope_text
LIMIT 100
"""


def _now(value: str) -> str:
    return f"SELECT (SELECT {value} FROM signals_now WHERE {_TENANT}) AS value, {UNKNOWN} AS before"


BUDGETS: Final = Board(
    key="budgets",
    title="Budgets",
    about="How full budgets are, who is kept back, and until when",
    panels=(
        Panel(
            key="kept_back",
            title="Kept back now",
            about="Scopes that are blocked or throttled, by what gates were told last",
            sql=_now(f"countIf(state IN {_KEPT_BACK})"),
            shape="stat",
            unit="count",
            width=3,
        ),
        Panel(
            key="warned",
            title="Warned now",
            about="Scopes that are close to a limit, or go to another model",
            sql=_now("countIf(state IN ('warn', 'downgrade'))"),
            shape="stat",
            unit="count",
            width=3,
        ),
        Panel(
            key="fullest",
            title="Nearest to its limit",
            about="The largest share of a limit that any scope has used",
            sql=_now(f"max({_SHARE})"),
            shape="stat",
            unit="share",
            width=3,
        ),
        Panel(
            key="blocks_begun",
            title="Blocks begun",
            about="How often a policy began to block or to throttle in the range",
            sql=compared("blocks", "count()", "false"),
            shape="stat",
            unit="count",
            width=3,
        ),
        Panel(
            key="shares",
            title="How full",
            about="Of each limit, what is used; the twenty that were fullest. Kept every five minutes, and at each change",
            sql=_SHARES,
            shape="series",
            unit="share",
            width=12,
        ),
        Panel(
            key="now",
            title="What gates are told now",
            about="The last word of each policy on each scope, the harshest first; up to five minutes behind what gates know",
            sql=_NOW,
            shape="table",
            unit="share",
            width=12,
            columns=(
                Column("state", "State"),
                Column("policy", "Policy"),
                Column("scope_text", "Scope"),
                Column("limit_share", "Of the limit", "share"),
                Column("resets_at", "Resets", "time"),
                Column("exhausted_at", "Used up, forecast", "time"),
                Column("at", "Said", "time"),
                Column("reason", "Why"),
            ),
        ),
        Panel(
            key="changes",
            title="What policies said",
            about="Changes of state, by what was said",
            sql=_CHANGES,
            shape="series",
            unit="count",
            stacked=True,
        ),
        Panel(
            key="longest",
            title="Kept back longest",
            about="Time within the range in which a scope was blocked or throttled",
            sql=_LONGEST,
            shape="bars",
            unit="seconds",
        ),
        Panel(
            key="blocks",
            title="Blocks and throttles",
            about="The latest first; without an end it still holds",
            sql=_BLOCKS,
            shape="table",
            unit="seconds",
            width=12,
            columns=(
                Column("at", "Began", "time"),
                Column("state", "State"),
                Column("policy", "Policy"),
                Column("scope_text", "Scope"),
                Column("lasted_s", "Lasted", "seconds"),
                Column("ended_at", "Ended", "time"),
                Column("limit_share", "Of the limit", "share"),
                Column("resets_at", "Resets", "time"),
            ),
        ),
    ),
)
