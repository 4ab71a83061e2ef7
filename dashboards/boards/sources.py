"""Where panels read, as fragments of SQL: the rollup that is fine enough, named by what a person chose, twenty names at most.

    calls_1m | calls_1h | calls_1d_totals ─► counted ─┬─► series     a point of each name, the smallest names as "other"
                    scored_1h, findings_1h ─► judged ─┴─► lines      a point of each measure
                  totals_between and its like ──────────► compared   a range, and the range before it

A step is read from the coarsest rollup that it is made of: days from days, an hour from hours. Minutes know no prompts, and
verdicts no minutes: what asks for them has hours at least. A series begins with the whole step that `since` is in,
and ends with the whole minute, hour or day that `until` is in: its points may add up to more than an exact number beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

SINCE: Final = "parseDateTimeBestEffort({since:String}, 'UTC')"
UNTIL: Final = "parseDateTimeBestEffort({until:String}, 'UTC')"
TENANT: Final = "({tenant:String} = '*' OR tenant = {tenant:String})"
# What a view with parameters is asked for.
RANGE: Final = "tenant = {tenant:String}, since = {since:String}, until = {until:String}"

_SINCE_US: Final = "parseDateTime64BestEffort({since:String}, 6, 'UTC')"
_UNTIL_US: Final = "parseDateTime64BestEffort({until:String}, 6, 'UTC')"
_LENGTH: Final = f"toIntervalMicrosecond(dateDiff('microsecond', {_SINCE_US}, {_UNTIL_US}))"
BEFORE: Final = f"tenant = {{tenant:String}}, since = toString({_SINCE_US} - {_LENGTH}), until = {{since:String}}"

# A `before` that nobody can tell: of what is told of now alone.
UNKNOWN: Final = "CAST(NULL, 'Nullable(Float64)')"

_MOST: Final = 20
_MINUTE: Final = 60
HOUR: Final = 3600
_DAY: Final = 86400
_OF_MINUTES: Final = ("tenant", "team", "service", "provider_name", "model")
_OF_HOURS: Final = (*_OF_MINUTES, "prompt")
_PROMPT: Final = "if(prompt_version = '', prompt_name, concat(prompt_name, '@', prompt_version))"
_QUANTILES: Final = "quantilesDDMerge(0.01, 0.5, 0.95, 0.99)"
_QUANTILES_STATE: Final = "quantilesDDMergeState(0.01, 0.5, 0.95, 0.99)"

# Of a table of calls or of one of the aggregates below.
COST_USD: Final = "if(sum(requests) > 0 AND sum(requests) = sum(requests_without_price), NULL, sum(cost_nano_usd) / 1e9)"
ERROR_SHARE: Final = "sum(errors) / nullIf(sum(requests), 0)"


def quantile(column: str, level: int) -> str:
    """One of the quantiles in a column of states: 50, 95 or 99. NULL where no call told a value."""
    at = {50: 1, 95: 2, 99: 3}[level]
    # Within 1 % of the value, as the views have it: the engine's sketch answers with the upper end of its bucket.
    value = f"{_QUANTILES}({column})[{at}]"
    return f"multiIf(isNaN({value}), NULL, {value} < 0.995, {value} * 0.99 / 1.01, {value} < 1.015, 1., {value})"


def widened(to_s: int) -> str:
    """The step in whole minutes, say, up to an hour; beyond that in whole days, which are read as fast as hours are slow."""
    days = f"intDiv({{step_s:UInt32}} + {_DAY - 1}, {_DAY}) * {_DAY}"
    return f"if({{step_s:UInt32}} > {HOUR}, {days}, intDiv({{step_s:UInt32}} + {to_s - 1}, {to_s}) * {to_s})"


MINUTES: Final = widened(_MINUTE)
HOURS: Final = widened(HOUR)
_BY: Final = f"if({{by:String}} = 'prompt', {HOURS}, {MINUTES})"


def named(dimensions: Sequence[str]) -> str:
    """What `by` names, of a table that has these dimensions; what no event told is `unknown`."""
    chosen = "toLowCardinality(toString(throwIf(true, 'this cannot be asked by that')))"
    for name in reversed(dimensions):
        chosen = f"if({{by:String}} = '{name}', {_PROMPT if name == 'prompt' else name}, {chosen})"
    return f"if({chosen} = '', 'unknown', {chosen})"


def counted(columns: Sequence[str], *, by: bool = False) -> str:
    """Rows of `t` and these columns of the rollups of calls, added up; with `name`, what `by` names, if it is to."""
    step = _BY if by else MINUTES
    tables = (
        ("calls_1m", "minute", f"{step} < {HOUR}", _OF_MINUTES),
        ("calls_1h", "hour", f"{step} = {HOUR}", _OF_HOURS),
        ("calls_1d_totals", "day", f"{step} > {HOUR}", _OF_HOURS),
    )
    return _together(
        [_steps(table, at, step, columns, fits, named(known) if by else None) for table, at, fits, known in tables]
    )


def prompted(columns: Sequence[str]) -> str:
    """As `counted`, by the version of a prompt, of the calls that name one: by the hour."""
    tables = (("calls_1h", "hour", f"{HOURS} = {HOUR}"), ("calls_1d_totals", "day", f"{HOURS} > {HOUR}"))
    return _together(
        [_steps(table, at, HOURS, columns, f"{fits} AND prompt_name != ''", _PROMPT) for table, at, fits in tables]
    )


def judged(columns: Sequence[str], *, by: bool = False) -> str:
    """As `counted`, of the verdicts of the guardrails, by the hour."""
    return _together([_steps("scored_1h", "hour", HOURS, columns, "true", named(_OF_HOURS) if by else None)])


def prompts_judged(columns: Sequence[str]) -> str:
    """As `prompted`, of the verdicts of the guardrails."""
    return _together([_steps("scored_1h", "hour", HOURS, columns, "prompt_name != ''", _PROMPT)])


def found(columns: Sequence[str], name: str) -> str:
    """As `counted`, of the findings of the guardrails, by the hour and by one of their own columns."""
    return _together([_steps("findings_1h", "hour", HOURS, columns, "true", name)])


def series(rows: str, value: str, *, weight: str = "requests", step: str = _BY, empty: str = "0", having: str = "1") -> str:
    """A point for each `t` and `name` of these rows: nineteen names, those with most `weight` (a column), and all others.

    `value` is of the aggregated columns. A step without rows is `empty`: nothing was counted, and that is 0; or NULL, where
    there is nothing to tell a mean of.
    """
    return f"""
SELECT t, series, value
FROM
(
    SELECT t, if(place < {_MOST}, toString(name), 'other') AS series, {value} AS value
    FROM
    (
        SELECT *, dense_rank() OVER (ORDER BY heavy DESC, name) AS place
        FROM (SELECT *, sum({weight}) OVER (PARTITION BY name) AS heavy FROM {rows})
    )
    GROUP BY t, series
    HAVING {having}
    ORDER BY series, t {filled(step, empty)}
)
WHERE series != ''
ORDER BY t, series
"""


def lines(rows: str, values: Mapping[str, str], *, step: str = MINUTES, empty: str = "0") -> str:
    """A point for each `t` of these rows and each of the values, which have the names that they are given by."""
    names = ", ".join(f"'{name}'" for name in values)
    return f"""
SELECT t, series, value
FROM
(
    SELECT t, series, value
    FROM (SELECT t, {", ".join(f"{value} AS v{at}" for at, value in enumerate(values.values()))} FROM {rows} GROUP BY t)
    ARRAY JOIN [{names}] AS series, [{", ".join(f"v{at}" for at in range(len(values)))}] AS value
    ORDER BY series, t {filled(step, empty)}
)
WHERE series != ''
ORDER BY t, series
"""


def compared(view: str, value: str, nothing: str = "sum(requests) = 0") -> str:
    """A value of the range, and of the range before it; NULL where that has `nothing` to compare with."""
    return f"""
SELECT
    (SELECT {value} FROM {view}({RANGE})) AS value,
    (SELECT if({nothing}, NULL, {value}) FROM {view}({BEFORE})) AS before
"""


def start(step: str) -> str:
    """The first moment of a series."""
    return f"toStartOfInterval({SINCE}, toIntervalSecond({step}))"


def _steps(table: str, at: str, step: str, columns: Sequence[str], fits: str, name: str | None) -> str:
    """A table's rows in the range, if it fits, by the step and the name."""
    begins = f"toDate({start(step)})" if at == "day" else start(step)
    sums = "".join(f", {_added(column)} AS {column}" for column in columns)
    return (
        f"SELECT toStartOfInterval(toDateTime({at}, 'UTC'), toIntervalSecond({step})) AS t"
        f"{f', {name} AS name' if name else ''}{sums} FROM {table} AS r"
        f" WHERE {fits} AND {at} >= {begins} AND {at} < {UNTIL} AND {TENANT} GROUP BY t{', name' if name else ''}"
    )


def _added(column: str) -> str:
    if column.endswith("_state"):
        return f"{_QUANTILES_STATE}(r.{column})"
    return f"{'sumMap' if '_by_' in column else 'sum'}(r.{column})"


def _together(branches: Sequence[str]) -> str:
    return "(\n    " + "\n    UNION ALL\n    ".join(branches) + "\n)"


def filled(step: str, empty: str) -> str:
    """What ends `ORDER BY series, t`: every step of the range for each series; where there is none, for one without a name."""
    return f"WITH FILL FROM {start(step)} TO {UNTIL} STEP toIntervalSecond({step}) INTERPOLATE (value AS {empty})"
