"""How long a table keeps its rows: for everybody, and for single tenants. It is the table's TTL, and nowhere else."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from ..schemas.errors import UsageError

# Counted from when a row came, not from when its call was: what is replayed late is kept as long.
TABLES: Final = {
    "alerts": "at",
    "call_requests": "ingested_at",
    "calls": "ingested_at",
    "dead_letters": "at",
    "scored_calls": "ingested_at",
    "signals": "at",
    "usage_ledger": "at",
    "prices": "at",
    "evaluations": "at",
    "transcripts": "ingested_at",
}
_TENANT: Final = dict.fromkeys(("alerts", "signals"), "scope['tenant']") | dict.fromkeys(
    ("call_requests", "calls", "scored_calls", "transcripts", "usage_ledger", "prices"), "tenant"
)

_CLAUSE: Final = re.compile(r" TTL (?P<items>.*?)(?: SETTINGS [\w ,=]+)?\Z", re.DOTALL)
_ITEM: Final = re.compile(
    r"toDateTime\(\w+\) \+ toIntervalDay\((?P<days>\d+)\)"
    r"(?: WHERE (?:tenant|scope\['tenant'\]) = '(?P<tenant>(?:[^'\\]|\\.)*)')?(?:, |\Z)",
    re.DOTALL,
)
_MOST_DAYS: Final = 36_500


@dataclass(frozen=True, slots=True)
class Kept:
    """Days; None is for ever. A tenant is kept as long as everybody at most."""

    days: int | None = None
    tenants: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, engine: str) -> Kept | None:
        """Of `engine_full` in system.tables. None: somebody gave the table a TTL of another form."""
        clause = _CLAUSE.search(engine)
        if clause is None:
            return cls()
        days: int | None = None
        tenants: dict[str, int] = {}
        end = 0
        while (item := _ITEM.match(clause["items"], end)) is not None and end < len(clause["items"]):
            end = item.end()
            if item["tenant"] is None:
                days = int(item["days"])
            else:
                tenants[re.sub(r"\\(.)", r"\1", item["tenant"])] = int(item["days"])
        return cls(days, tenants) if end == len(clause["items"]) else None

    def changed(self, days: int | None, tenant: str | None) -> Kept:
        """Kept for `days`, everybody or one tenant; None takes the rule back."""
        if days is not None and not 1 <= days <= _MOST_DAYS:
            raise UsageError(f"rows are kept for 1 to {_MOST_DAYS:,} days, or for ever")
        if tenant is None:
            return Kept(days, self.tenants)
        others = {name: kept for name, kept in self.tenants.items() if name != tenant}
        return Kept(self.days, others if days is None else {**others, tenant: days})


def statements(table: str, kept: Kept) -> list[str]:
    """What makes it so. Raises `UsageError` for a table that is not kept by time, or not by tenant."""
    if table not in TABLES:
        raise UsageError(f"how long {table} is kept cannot be set; it can for {', '.join(TABLES)}")
    if kept.tenants and table not in _TENANT:
        raise UsageError(f"{table} does not know tenants; set it for everybody")
    since = f"toDateTime({TABLES[table]})"
    items = [] if kept.days is None else [f"{since} + INTERVAL {kept.days} DAY"]
    items += [
        f"{since} + INTERVAL {days} DAY DELETE WHERE {_TENANT[table]} = {_literal(tenant)}"
        for tenant, days in sorted(kept.tenants.items())
    ]
    # Parts of one tenant alone are rare: where one goes sooner, rows have to.
    whole = f"ALTER TABLE {table} MODIFY SETTING ttl_only_drop_parts = {0 if kept.tenants else 1}"
    return [whole, f"ALTER TABLE {table} " + (f"MODIFY TTL {', '.join(items)}" if items else "REMOVE TTL")]


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
