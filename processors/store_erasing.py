"""The store's part in forgetting a person, for the report: what went, and what is left."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

from .erasure_report import ErasureReport
from .forgetting import Person, Traces, is_telling


class Held(Protocol):
    """A table that may hold a person."""

    @property
    def table(self) -> str: ...
    @property
    def way(self) -> str | None: ...


class Rows(Protocol):
    """A person's rows in a store (`sinks/erasure.py`)."""

    @property
    def tables(self) -> Sequence[Held]: ...
    def found(self) -> dict[str, int]: ...
    def erase(self) -> dict[str, str]: ...
    def let_old_parts_go(self, within_s: float) -> int: ...
    def said(self, pattern: str, *, tenants_only: bool) -> dict[str, int]: ...
    def of_others(self) -> int: ...


def erase_rows(report: ErasureReport, rows: Rows) -> None:
    counts = rows.found()
    report.store = {table: (counts.get(table, 0), way) for table, way in rows.erase().items()}


def count_rows(report: ErasureReport, rows: Rows) -> None:
    """How many there are, and what would become of them."""
    ways = {held.table: held.way or "emptied" for held in rows.tables}
    report.store = {table: (count, ways[table]) for table, count in rows.found().items()}


def check_rows(report: ErasureReport, rows: Rows, person: Person, old_parts_within_s: float) -> None:
    """Once the parts that were written anew are gone from the disk."""
    report.checked["old parts of the store's tables"] = rows.let_old_parts_go(old_parts_within_s)
    left = rows.found()
    report.checked |= {f"rows of {held.table}": left.get(held.table, 0) for held in rows.tables}
    if is_telling(person.user):
        said = rows.said(Traces.of(person.user).as_sql, tenants_only=bool(rows.of_others()))
        report.checked["texts in any column of the store"] = sum(said.values())
        report.traces += [f"{count:,} rows of {table} say the id in some column" for table, count in said.items()]


def now() -> str:
    """To the second, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
