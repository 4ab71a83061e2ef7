"""One definition per panel: a question to the store and how its answer looks. Grafana and the console both draw from it.

    Panel(sql, shape, unit) ──┬─► Grafana's JSON (`grafana`)
                              └─► the console, which asks the same SQL

**SQL** is one ClickHouse statement with the parameters of `VARIABLES`, each written `{name:Type}`. Moments are UTC text
(`2026-11-23T08:00:00Z`), `tenant` is one or `*`. A statement uses what it needs and must bound its answer.

**Shape** says which columns the answer has:

| shape | columns |
|---|---|
| `series` | `t` DateTime (UTC), `series` String, `value` number or NULL; ordered by `t`; at most 20 series |
| `bars` | `name` String, `value` number or NULL, the largest first, at most 20 rows |
| `stat` | one row: `value`, and `before` (the range before this one, NULL where unknown) |
| `table` | any, the first the most telling; at most 100 rows. `columns` says how each is drawn |

NULL is drawn as unknown (a gap, an en dash), never as zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import Final, Literal

Shape = Literal["series", "bars", "stat", "table"]
# What numbers are: Grafana's unit and the console's way of writing follow from it.
Unit = Literal["usd", "tokens", "calls", "seconds", "share", "per_second", "records", "count", "bytes"]
How = Literal["text", "usd", "tokens", "calls", "seconds", "share", "per_second", "records", "count", "bytes", "time"]
Width = Literal[3, 4, 6, 8, 12]  # of twelve


@dataclass(frozen=True, slots=True)
class Variable:
    """What a person chooses. `choices` is SQL of one column, itself bounded by `since` and `until`, or fixed words."""

    name: str
    label: str
    kind: str
    default: str
    choices: str | tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """How a column of a table is drawn; `drill` names the variable that a click on its value sets."""

    name: str
    title: str
    how: How = "text"
    drill: str | None = None


@dataclass(frozen=True, slots=True)
class Panel:
    key: str
    title: str
    about: str
    sql: str
    shape: Shape
    unit: Unit
    width: Width = 6
    stacked: bool = False
    columns: tuple[Column, ...] = ()
    # The board to go to from here for more of the same.
    more: str | None = None
    # What the names of a series or of bars are: a dimension of calls, or `by`, what that variable says. None: neither.
    series_of: str | None = None


@dataclass(frozen=True, slots=True)
class Board:
    key: str
    title: str
    about: str
    panels: tuple[Panel, ...] = field(default=())


VARIABLES: Final = (
    Variable("since", "from", "String", "now-1h"),
    Variable("until", "to", "String", "now"),
    Variable(
        "tenant",
        "tenant",
        "String",
        "*",
        "SELECT DISTINCT tenant FROM calls_1h WHERE hour >= toStartOfHour(parseDateTimeBestEffort({since:String}))"
        " AND hour < parseDateTimeBestEffort({until:String}) ORDER BY tenant LIMIT 1000",
    ),
    Variable("by", "by", "String", "model", ("tenant", "team", "service", "provider_name", "model", "prompt")),
    # The width of a point in seconds: `step_s` of the range. Any other is widened to whole minutes, an hour or whole days.
    Variable("step_s", "step", "UInt32", "60"),
)

_MOST_POINTS: Final = 300
_DAY: Final = 86400
# An hour is made of each, and beyond it rollups have days.
_STEPS: Final = (60, 120, 300, 600, 900, 1800, 3600, _DAY)


def step_s(range_s: float) -> int:
    """The width of a point that leaves a range 300 of them at most: minutes up to an hour, or whole days."""
    for step in _STEPS:
        if range_s <= step * _MOST_POINTS:
            return step
    return ceil(range_s / _DAY / _MOST_POINTS) * _DAY
