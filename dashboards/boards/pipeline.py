"""Whether all that services sent is counted: how old the newest call is, what was refused, and whether the store adds up.

Dead letters name no tenant, and the ledger counts everybody: they are told of all, whoever is chosen.
"""

from __future__ import annotations

from typing import Final

from ..panel import Board, Column, Panel
from .sources import MINUTES, SINCE, TENANT, UNKNOWN, UNTIL, series

_LETTERS: Final = f"stage != 'person' AND at >= {SINCE} AND at < {UNTIL}"
_LENGTH: Final = f"toIntervalSecond(dateDiff('second', {SINCE}, {UNTIL}))"

# As `tidegate db check` compares: of the scope sets the one that counts most, whole hours, none before the ledger was. The last
# hour is left out until the meter has written its sums and the sink its rows.
_ENDED: Final = f"least(toStartOfHour({UNTIL}), toStartOfHour(now('UTC') - toIntervalMinute(5)))"
_HOURS: Final = f"hour >= toStartOfHour({SINCE} + toIntervalSecond(3599)) AND hour < {_ENDED}"
_HELD: Final = f"""
    SELECT
        hour,
        ledger.requests AS counted,
        rows.requests AS stored,
        ledger.nano AS counted_nano,
        rows.nano AS stored_nano
    FROM
    (
        SELECT hour, sum(t.requests) AS requests, sum(t.cost_nano_usd) AS nano
        FROM usage_ledger_totals AS t
        WHERE {_HOURS} AND hour NOT IN (SELECT hour FROM hours_before_ledger)
        GROUP BY hour, scope_set
        ORDER BY requests DESC, scope_set
        LIMIT 1 BY hour
    ) AS ledger
    LEFT JOIN
    (
        SELECT toStartOfHour(minute) AS hour, sum(r.requests) AS requests, sum(r.cost_nano_usd) AS nano
        FROM calls_1m AS r
        WHERE minute >= toStartOfHour({SINCE} + toIntervalSecond(3599)) AND minute < {_ENDED}
        GROUP BY hour
    ) AS rows USING (hour)
"""

PIPELINE: Final = Board(
    key="pipeline",
    title="Pipeline",
    about="Is all that services sent counted, once, and how late",
    panels=(
        Panel(
            key="newest_call",
            title="Newest call",
            about="How long ago the newest call in the store began, to the minute; unknown where none did for a week",
            sql=f"""
SELECT
    if(count() = 0, NULL, greatest(dateDiff('second', max(minute), now('UTC')), 0)) AS value,
    {UNKNOWN} AS before
FROM calls_1m
WHERE minute >= now('UTC') - toIntervalDay(7) AND {TENANT}
""",
            shape="stat",
            unit="seconds",
            width=3,
        ),
        Panel(
            key="refused",
            title="Refused lines",
            about="Lines that were no call, of all tenants; their bytes are not kept",
            sql=f"""
SELECT
    (SELECT count() FROM dead_letters WHERE {_LETTERS}) AS value,
    (SELECT count() FROM dead_letters WHERE stage != 'person' AND at >= {SINCE} - {_LENGTH} AND at < {SINCE}) AS before
""",
            shape="stat",
            unit="records",
            width=3,
        ),
        Panel(
            key="to_mend",
            title="To be mended",
            about="Refused lines of which nobody has decided yet what becomes of them: `tidegate dlq list`",
            sql=f"SELECT countIf(state = 'refused') AS value, {UNKNOWN} AS before FROM dead_letter_states",
            shape="stat",
            unit="records",
            width=3,
        ),
        Panel(
            key="ledger_difference",
            title="Not adding up",
            about="Calls by which the rows differ from the meter's own count, in the whole hours of the range; 0 is right."
            " Unknown where there is no count",
            sql=f"""
SELECT
    if(count() = 0, NULL, sum(abs(toInt64(counted) - toInt64(stored)))) AS value,
    {UNKNOWN} AS before
FROM ({_HELD})
""",
            shape="stat",
            unit="calls",
            width=3,
        ),
        Panel(
            key="refused_over_time",
            title="Refused lines by stage",
            about="edge: at the door; meter: in the log; sink: by the store",
            sql=series(
                f"(SELECT toStartOfInterval(toDateTime(at, 'UTC'), toIntervalSecond({MINUTES})) AS t,"
                f" stage AS name, count() AS letters FROM dead_letters WHERE {_LETTERS} GROUP BY t, name)",
                "sum(letters)",
                weight="letters",
                step=MINUTES,
            ),
            shape="series",
            unit="records",
            stacked=True,
        ),
        Panel(
            key="became",
            title="What became of them",
            about="Lines that were refused in the range: refused as yet, fixed, replayed or dropped",
            sql=f"""
SELECT toString(state) AS name, count() AS value
FROM dead_letter_states
WHERE refused_at >= {SINCE} AND refused_at < {UNTIL}
GROUP BY name
ORDER BY value DESC, name
LIMIT 20
""",
            shape="bars",
            unit="records",
        ),
        Panel(
            key="reasons",
            title="Why lines were refused",
            about="The most frequent reasons; `tidegate dlq show` tells of one line",
            sql=f"""
SELECT reason, stage, count() AS letters, uniqExact(producer) AS producers, min(at) AS first_at, max(at) AS last_at
FROM dead_letters
WHERE {_LETTERS}
GROUP BY reason, stage
ORDER BY letters DESC, reason, stage
LIMIT 100
""",
            shape="table",
            unit="records",
            width=12,
            columns=(
                Column("reason", "Why"),
                Column("stage", "By whom"),
                Column("letters", "Lines", "records"),
                Column("producers", "Producers", "count"),
                Column("first_at", "First", "time"),
                Column("last_at", "Last", "time"),
            ),
        ),
        Panel(
            key="trouble",
            title="Trouble of the pipeline",
            about="What was told to people that is no policy's word, the latest first",
            sql=f"""
SELECT at, severity, kind, title
FROM alerts
WHERE kind != 'policy' AND severity != 'info' AND at >= {SINCE} AND at < {UNTIL}
ORDER BY at DESC, title
LIMIT 100
""",
            shape="table",
            unit="count",
            width=12,
            columns=(
                Column("at", "At", "time"),
                Column("severity", "Severity"),
                Column("kind", "What"),
                Column("title", "Told"),
            ),
        ),
        Panel(
            key="ledger_hours",
            title="Hours that do not add up",
            about="What the meter counted beside what the rows say: none is right; `tidegate db check` tells more",
            sql=f"""
SELECT hour, counted, stored, (counted_nano - stored_nano) / 1e9 AS missing_usd
FROM ({_HELD})
WHERE counted != stored OR counted_nano != stored_nano
ORDER BY hour DESC
LIMIT 100
""",
            shape="table",
            unit="calls",
            width=12,
            columns=(
                Column("hour", "Hour", "time"),
                Column("counted", "Counted", "calls"),
                Column("stored", "Stored", "calls"),
                Column("missing_usd", "Missing", "usd"),
            ),
        ),
    ),
)
