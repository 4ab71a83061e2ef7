"""Whether the store adds up: the meter's own sums of an hour beside those of its rows and of the rollups; and the rollups by
day beside that by the hour.

Pure: rows of the questions below in, differences out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

MEASURES: Final = ("requests", "errors", "cost_nano_usd", "unpriced", "input_tokens", "output_tokens", "cache_read_tokens")


def _range(column: str) -> str:
    return f"{column} >= toDateTime('{{since}}', 'UTC') AND {column} < toDateTime('{{until}}', 'UTC')"


_ROLLUP: Final = ", ".join(f"sum(r.{'requests_without_price' if name == 'unpriced' else name}) AS {name}" for name in MEASURES)
_TOKENS: Final = ", ".join(f"ifNull(sum(c.{name}), 0) AS {name}" for name in MEASURES if name.endswith("_tokens"))

# What each source says of the hours from {since} to {until}, in one question each. Each scope set of the ledger counts every
# call; the one that counts the most is taken, for one that was configured amid an hour has only a part of it.
QUESTIONS: Final[Mapping[str, str]] = {
    "ledger": (
        f"SELECT toString(t.hour) AS hour, {', '.join(f'sum(t.{name}) AS {name}' for name in MEASURES)}"
        f" FROM usage_ledger_totals AS t WHERE {_range('t.hour')}"
        " GROUP BY hour, scope_set ORDER BY requests DESC, scope_set LIMIT 1 BY hour"
    ),
    "calls": (
        "SELECT toString(toStartOfHour(toDateTime(started_at, 'UTC'))) AS hour, count() AS requests,"
        " countIf(error_type != '') AS errors, ifNull(sum(c.cost_nano_usd), 0) AS cost_nano_usd,"
        f" countIf(isNull(c.cost_nano_usd)) AS unpriced, {_TOKENS}"
        f" FROM calls AS c WHERE {_range('started_at')} GROUP BY hour"
    ),
    "calls_1h": (f"SELECT toString(r.hour) AS hour, {_ROLLUP} FROM calls_1h AS r WHERE {_range('r.hour')} GROUP BY hour"),
    "calls_1m": (
        f"SELECT toString(toStartOfHour(r.minute)) AS hour, {_ROLLUP} FROM calls_1m AS r"
        f" WHERE {_range('r.minute')} GROUP BY hour"
    ),
}
# Days are the sums of hours, whatever the ledger has. From the day of {since}, the whole of it, to the last that ended by
# {until}: into the day that runs, rows come between one question and the next.
_DAYS: Final = "{day} >= toDate('{{since}}') AND {day} < toDate('{{until}}')"
DAY_QUESTIONS: Final[Mapping[str, str]] = {
    source: f"SELECT toString({day}) AS of_day, {_ROLLUP} FROM {source} AS r WHERE {_DAYS.format(day=day)} GROUP BY of_day"
    for source, day in {"calls_1h": "toDate(r.hour, 'UTC')", "calls_1d": "r.day", "calls_1d_totals": "r.day"}.items()
}
BEFORE: Final = f"SELECT DISTINCT toString(b.hour) AS hour FROM hours_before_ledger AS b WHERE {_range('b.hour')}"


@dataclass(frozen=True, slots=True)
class Difference:
    """A measure of an hour on which the sources do not agree; None: the source is not kept that long, or has not counted it."""

    hour: str
    measure: str
    said: Mapping[str, int | None]


@dataclass(frozen=True, slots=True)
class DayDifference:
    """A measure of a UTC day on which the rollup by the hour and those by the day do not agree."""

    day: str
    measure: str
    said: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Checked:
    """How many hours were compared, which were left out because they began before the ledger did, of which the ledger has
    nothing, so that the others were compared without it, and what differs; the same of days."""

    hours: int
    before: tuple[str, ...]
    not_counted: tuple[str, ...]
    differences: tuple[Difference, ...]
    days: int
    day_differences: tuple[DayDifference, ...]


Found = Mapping[str, Iterable[Mapping[str, Any]]]


def check(found: Found, of_days: Found, before: Iterable[str], gone_before: Mapping[str, str]) -> Checked:
    """Compare what the sources say (see `QUESTIONS`), hour by hour; one of which a source says nothing is one of zeros there.
    Not so of the ledger, which has nothing where each scope set names a user, or the meter was older than the store.

    `of_days`: what they say of days (see `DAY_QUESTIONS`). `gone_before`: of a source that does not keep all, the hour before
    which it cannot be asked.
    """
    told = {source: _by("hour", rows) for source, rows in found.items()}
    left_out = set(before)
    hours = sorted({hour for rows in told.values() for hour in rows})
    differences, not_counted = [], []
    for hour in hours:
        if hour in left_out:
            continue
        asked = [source for source in told if hour >= gone_before.get(source, "")]
        if "ledger" in asked and hour not in told["ledger"]:
            asked.remove("ledger")
            not_counted.append(hour)
        for measure in MEASURES:
            said = {source: told[source].get(hour, {}).get(measure, 0) for source in asked}
            if len(set(said.values())) > 1:
                differences.append(Difference(hour, measure, {source: said.get(source) for source in told}))
    compared = [hour for hour in hours if hour not in left_out]
    daily = {source: _by("of_day", rows) for source, rows in of_days.items()}
    days = sorted({day for rows in daily.values() for day in rows})
    day_differences = []
    for day in days:
        for measure in MEASURES:
            sums = {source: rows.get(day, {}).get(measure, 0) for source, rows in daily.items()}
            if len(set(sums.values())) > 1:
                day_differences.append(DayDifference(day, measure, sums))
    return Checked(
        len(compared),
        tuple(hour for hour in hours if hour in left_out),
        tuple(not_counted),
        tuple(differences),
        len(days),
        tuple(day_differences),
    )


def _by(bucket: str, rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    return {row[bucket]: {name: int(row[name]) for name in MEASURES} for row in rows}
