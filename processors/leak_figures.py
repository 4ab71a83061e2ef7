"""The figures of a month's report on leaks of health information: from the store's rollups and the audit log.

    store ─► verdicts, leaks, blocks ┐
                                     ├─► Figures ─► dashboards/leak_report
    audit.jsonl ─► Checked, entries  ┘

A call that nobody judged is unknown, and never counted as one without a leak. A month is UTC's, by the time of the calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final, NamedTuple

import orjson

from ..schemas.audit import EVERYBODY, Entry
from ..schemas.call import SCOPE_FIELDS
from .audit_check import Ask, Checked

# What leaks are told by, and how the store names it.
BY: Final[Mapping[str, str]] = {
    "tenant": "tenant",
    "service": "service",
    "model": "model",
    "prompt version": "if(prompt_version = '', prompt_name, concat(prompt_name, '@', prompt_version))",
}


@dataclass(frozen=True, slots=True)
class Month:
    """A calendar month of UTC."""

    year: int
    number: int

    @property
    def since(self) -> date:
        return date(self.year, self.number, 1)

    @property
    def until(self) -> date:
        return date(self.year + self.number // 12, self.number % 12 + 1, 1)

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.number:02d}"


class Leaks(NamedTuple):
    """Of one value: calls, those that were judged, those of them with a leak. `calls` None: not known by this."""

    value: str
    calls: int | None
    judged: int
    with_leaks: int


class Kind(NamedTuple):
    """Of one type of health information: calls with a leak of it, and the places where it stood."""

    type: str
    calls: int
    leaks: int


class Block(NamedTuple):
    """A block or throttle. `to_block_s`: from the verdict of the first leak in its scope since the last one; None: there was
    none, so that it is about something else."""

    at: datetime
    policy: str
    scope: Mapping[str, str]
    state: str
    lasted_s: float | None
    to_block_s: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """All that a report tells. `tenant` None: of all."""

    month: Month
    tenant: str | None
    calls: int
    judged: int
    outcomes: Mapping[str, int]
    days: Sequence[Leaks]
    by: Mapping[str, Sequence[Leaks]]
    types: Sequence[Kind]
    blocks: Sequence[Block]
    entries: Sequence[Entry]
    checked: Checked

    @property
    def with_leaks(self) -> int:
        return sum(day.with_leaks for day in self.days)

    def acts(self, *beginnings: str) -> list[Entry]:
        """The audit log's entries of the month of some kinds."""
        return [entry for entry in self.entries if entry.action.startswith(beginnings)]


def figures(ask: Ask, checked: Checked, entries: Sequence[Entry], month: Month, tenant: str | None) -> Figures:
    """Ask the store for all of it. `entries` are the audit log's, of any month. Raises `TidegateError`."""
    where = f"hour >= toDateTime('{month.since}', 'UTC') AND hour < toDateTime('{month.until}', 'UTC')"
    if tenant is not None:
        where += f" AND tenant = {_quoted(tenant)}"
    told = _rows(ask, f"SELECT tenant, sum(requests) AS calls FROM v_calls_1h WHERE {where} GROUP BY tenant")
    calls = {row["tenant"]: int(row["calls"]) for row in told}
    outcomes = _rows(
        ask,
        "SELECT one.1 AS outcome, sum(one.2) AS verdicts FROM"
        f" (SELECT arrayJoin(CAST(verdicts_by_outcome, 'Array(Tuple(String, UInt64))')) AS one FROM v_scored_1h WHERE {where})"
        " GROUP BY outcome ORDER BY verdicts DESC, outcome",
    )
    days = _leaks(ask, "toString(toDate(hour, 'UTC'))", where, "value")
    by = {name: _leaks(ask, column, where, "with_leaks DESC, judged DESC, value") for name, column in BY.items()}
    known = {leaks.value for leaks in by["tenant"]}
    by["tenant"] = [leaks._replace(calls=calls.get(leaks.value, 0)) for leaks in by["tenant"]] + [
        Leaks(name, count, 0, 0) for name, count in sorted(calls.items()) if name not in known
    ]
    kinds = _rows(
        ask,
        "SELECT toString(type) AS type, sum(calls_with_leaks) AS calls, sum(leaks) AS places FROM v_findings_1h"
        f" WHERE {where} AND leaks > 0 GROUP BY type ORDER BY calls DESC, type",
    )
    since, until = month.since.isoformat(), month.until.isoformat()
    return Figures(
        month,
        tenant,
        sum(calls.values()),
        sum(day.judged for day in days),
        {row["outcome"]: int(row["verdicts"]) for row in outcomes},
        days,
        by,
        [Kind(row["type"], int(row["calls"]), int(row["places"])) for row in kinds],
        _blocks(ask, month, tenant),
        [
            entry
            for entry in entries
            if since <= entry.at < until and (tenant is None or entry.subject in ("", EVERYBODY, tenant))
        ],
        checked,
    )


def _leaks(ask: Ask, column: str, where: str, order: str) -> list[Leaks]:
    rows = _rows(
        ask,
        f"SELECT toString({column}) AS value, sum(v.judged) AS judged, sum(v.with_leaks) AS with_leaks"
        f" FROM (SELECT * FROM v_scored_1h WHERE {where}) AS v GROUP BY value ORDER BY {order}",
    )
    return [Leaks(row["value"], None, int(row["judged"]), int(row["with_leaks"])) for row in rows]


def _blocks(ask: Ask, month: Month, tenant: str | None) -> list[Block]:
    """The month's blocks, each with the time that passed since the first leak in its scope that no block had answered yet."""
    range_ = f"tenant = {_quoted(tenant or '*')}, since = '{month.since}', until = '{month.until}'"
    rows = _rows(ask, f"SELECT toUnixTimestamp64Milli(at) AS ms, * FROM blocks({range_}) ORDER BY at, policy")
    leaks = _leaks_by_second(ask, month, tenant) if rows else []
    answered: dict[tuple[str, str], float] = {}
    blocks: list[Block] = []
    for row in rows:
        at, scope = int(row["ms"]) / 1_000, dict(row["scope"])
        lasted_s = float(row["lasted_s"]) if row["lasted_s"] is not None else None
        which = (row["policy"], str(sorted(scope.items())))
        since = answered.get(which, 0.0)
        first = min((leak for leak, of in leaks if since <= leak <= at and scope.items() <= of.items()), default=None)
        answered[which] = at + (lasted_s or 0)
        when, to_block_s = datetime.fromtimestamp(at, UTC), at - first if first is not None else None
        blocks.append(Block(when, row["policy"], scope, row["state"], lasted_s, to_block_s))
    return blocks


def _leaks_by_second(ask: Ask, month: Month, tenant: str | None) -> list[tuple[float, dict[str, str]]]:
    """When leaks were found, as Unix seconds, each with what a scope may name; the first of each second."""
    names = ", ".join(f"toString({name}) AS {name}" for name in SCOPE_FIELDS)
    whose = f" AND tenant = {_quoted(tenant)}" if tenant is not None else ""
    rows = _rows(
        ask,
        f"SELECT {names}, toStartOfSecond(scored_calls.scored_at) AS second,"
        " toUnixTimestamp64Micro(min(scored_calls.scored_at)) AS us"
        f" FROM scored_calls WHERE started_at >= '{month.since}' AND started_at < '{month.until}'{whose}"
        " AND has(findings.leak, true) GROUP BY ALL",
    )
    return [(int(row["us"]) / 1_000_000, row) for row in rows]


def _rows(ask: Ask, sql: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in ask(sql).splitlines()]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
