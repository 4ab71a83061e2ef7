"""Whether the store adds up: the meter's own sums of an hour beside those of its rows and of the rollups.

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
BEFORE: Final = f"SELECT DISTINCT toString(b.hour) AS hour FROM hours_before_ledger AS b WHERE {_range('b.hour')}"


@dataclass(frozen=True, slots=True)
class Difference:
    """A measure of an hour on which the sources do not agree; None: the source is not kept that long."""

    hour: str
    measure: str
    said: Mapping[str, int | None]


@dataclass(frozen=True, slots=True)
class Checked:
    """How many hours were compared, which were left out because they began before the ledger did, and what differs."""

    hours: int
    before: tuple[str, ...]
    differences: tuple[Difference, ...]


def check(found: Mapping[str, Iterable[Mapping[str, Any]]], before: Iterable[str], gone_before: Mapping[str, str]) -> Checked:
    """Compare what the sources say (see `QUESTIONS`), hour by hour; one of which a source says nothing is one of zeros there.

    `gone_before`: of a source that does not keep all, the hour before which it cannot be asked.
    """
    told = {
        source: {row["hour"]: {name: int(row[name]) for name in MEASURES} for row in rows} for source, rows in found.items()
    }
    left_out = set(before)
    hours = sorted({hour for rows in told.values() for hour in rows})
    differences = []
    for hour in hours:
        if hour in left_out:
            continue
        asked = [source for source in told if hour >= gone_before.get(source, "")]
        for measure in MEASURES:
            said = {source: told[source].get(hour, {}).get(measure, 0) for source in asked}
            if len(set(said.values())) > 1:
                differences.append(Difference(hour, measure, {source: said.get(source) for source in told}))
    compared = [hour for hour in hours if hour not in left_out]
    return Checked(len(compared), tuple(hour for hour in hours if hour in left_out), tuple(differences))
