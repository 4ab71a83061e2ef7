"""Takes a person out of the store's tables, so that every sum stays what it was.

    rows of their calls that name nobody        ─► named after them first, so that a run which is cut off finds them again
    transcripts                                 ─► deleted
    rows whose scope names them                 ─► deleted; of the spenders of other scopes, their entry
    rollups that have `user` in their key       ─► their sums are moved under nobody, then their rows are deleted
    other rows with a `user`                    ─► stay under nobody: without ids, labels, and what they retrieved

What a table has is asked of the store itself, so that a table which is new is not left out. Who it is stands in `forgetting`, a
table in memory: statements are kept, in the files of mutations and in a server's diary, and none of them names anybody.

Each step changes nothing when it is done again. A move adds the sums under nobody, and takes them off the person, in one
insert: in each partition both are there or neither is, and what is to be moved is always what is left. Nobody else may insert
meanwhile.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any, Final

import orjson

from ..schemas.errors import StoreUnavailable
from .clickhouse import Store

# Texts go. What else tells of a call stays, for its sums.
_DELETED: Final = frozenset({"transcripts"})
_LOADING: Final = "forgetting"
# Old parts are cleaned up by a thread of the engine, which looks ever more rarely while nothing happens: within a minute, here.
_PARTS_WITHIN_S: Final = 600.0
_PARTS_EVERY_S: Final = 1.0
# A statement that a run left behind finds nobody: it ends as soon as it has read its table, if the engine does it at all.
_STATEMENTS_WITHIN_S: Final = 120.0
_STATEMENTS_EVERY_S: Final = 0.2

_USER: Final = f"(SELECT any(user) FROM {_LOADING})"
_TENANT: Final = f"(SELECT any(tenant) FROM {_LOADING})"
_SALT: Final = f"(SELECT any(salt) FROM {_LOADING})"
# As `Eraser.new_id`.
_NEW_ID: Final = f"lower(hex(substring(SHA256(concat({_SALT}, call_id)), 1, 16)))"
_EMPTIED: Final[Mapping[str, str]] = {
    "user": "''",
    "call_id": _NEW_ID,
    "conversation_id": "''",
    "trace_id": "''",
    "span_id": "''",
    "response_id": "''",
    "labels": "map()",
}
# Of a column of tuples, what is put in the place of which element.
_EMPTIED_PARTS: Final[Mapping[str, Mapping[str, str]]] = {
    "retrieval": {"chunk_id": "'-'", "source": "'-'"},
    "findings": {"fingerprint": "''"},
}
_STATE: Final = re.compile(r"AggregateFunction\((\w+)(\([^()]*\))?, (.*)\)\Z", re.DOTALL)
_SIMPLE: Final = re.compile(r"SimpleAggregateFunction\((\w+), (.*)\)\Z", re.DOTALL)

_UNFINISHED: Final = "SELECT count() FROM system.mutations WHERE database = currentDatabase() AND NOT is_done"
_COLUMNS: Final = """
SELECT c.table AS table, c.name AS name, c.type AS type, c.is_in_sorting_key OR c.is_in_partition_key AS key,
    c.default_kind IN ('', 'DEFAULT') AS stored
FROM system.columns AS c
JOIN system.tables AS t ON t.database = c.database AND t.name = c.table
WHERE c.database = currentDatabase() AND t.engine LIKE '%MergeTree'
ORDER BY table, c.position
"""


# Which table's inserts go on to which other one.
_FEEDS: Final = r"""
SELECT t.name AS source, extract(v.create_table_query, ' TO (?:[^\s(.]+\.)?`?(\w+)`?') AS target
FROM (SELECT name, arrayJoin(dependencies_table) AS view FROM system.tables WHERE database = currentDatabase()) AS t
JOIN system.tables AS v ON v.database = currentDatabase() AND v.name = t.view
"""


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `key`: rows are told apart by it, and it cannot be changed."""

    name: str
    type: str
    key: bool
    stored: bool


@dataclass(frozen=True, slots=True)
class Held:
    """One table that may hold a person, and what is to be done with their rows."""

    table: str
    columns: Mapping[str, Column]

    @property
    def way(self) -> str | None:
        """`deleted`, `moved` or `emptied`; None where it holds nobody."""
        if "user" in self.columns:
            return "deleted" if self.table in _DELETED else "moved" if self.columns["user"].key else "emptied"
        return "deleted" if self._has_map("scope") else None

    @property
    def has_spenders(self) -> bool:
        return self._has_map("contributors")

    def _has_map(self, name: str) -> bool:
        return name in self.columns and self.columns[name].type.startswith("Map(")

    def theirs(self, user: str = _USER, tenant: str = _TENANT) -> str:
        """The rows that name the person."""
        if "user" in self.columns:
            return f"user = {user} AND user != ''" + (f" AND tenant = {tenant}" if "tenant" in self.columns else "")
        return f"scope['user'] = {user} AND scope['user'] != '' AND {self._scope_of(tenant)}"

    def spent_by(self, user: str = _USER, tenant: str = _TENANT) -> str:
        """The rows that tell of them among others."""
        return f"mapContains(contributors, concat('user=', {user})) AND {self._scope_of(tenant)}"

    def _scope_of(self, tenant: str) -> str:
        return f"(NOT mapContains(scope, 'tenant') OR scope['tenant'] = {tenant})" if self._has_map("scope") else "true"

    def attributed(self, ids: str) -> str:
        """The rows of their calls that name nobody."""
        return f"user = '' AND tenant = {_TENANT} AND call_id != '' AND call_id IN ({ids})"

    @property
    def attributes(self) -> bool:
        return {"user", "tenant", "call_id"} <= self.columns.keys() and self.way != "moved"

    def emptying(self) -> str:
        """What takes all that identifies out of a row."""
        set_to = {name: how for name, how in _EMPTIED.items() if name in self.columns and not self.columns[name].key}
        for name, parts in _EMPTIED_PARTS.items():
            if name in self.columns:
                set_to[name] = _without(self.columns[name], parts)
        return ", ".join(f"`{name}` = {how}" for name, how in set_to.items())

    def moving(self) -> str:
        """The insert that moves what is theirs, and not moved yet, under nobody."""
        columns = [column for column in self.columns.values() if column.stored]
        keys = [f"`{column.name}`" for column in columns if _aggregated(column) is None]
        summed = [(column, how) for column in columns if (how := _aggregated(column)) is not None]
        inner = [*keys, *(f"{how} AS `{column.name}_all`" for column, how in summed)]
        left = " OR ".join(f"`{column.name}_all` != 0" for column, _ in summed if _is_sum(column))
        outer = [
            f"if(sign = 1, '', user) AS `{column.name}`"
            if column.name == "user"
            else f"`{column.name}`"
            if _aggregated(column) is None
            else f"{_signed(column)} AS `{column.name}`"
            for column in columns
        ]
        return (
            f"INSERT INTO {self.table} ({', '.join(f'`{column.name}`' for column in columns)})"
            f" SELECT {', '.join(outer)} FROM (SELECT {', '.join(inner)} FROM {self.table} WHERE {self.theirs()}"
            f" GROUP BY {', '.join(keys)} HAVING {left}) ARRAY JOIN [1, -1] AS sign"
            # Never taken for one that was there before: somebody may come back, spend the same, and go again.
            " SETTINGS insert_deduplicate = 0, deduplicate_blocks_in_dependent_materialized_views = 0, max_threads = 1"
        )


def _aggregated(column: Column) -> str | None:
    """How what a column holds is added up; None for what rows are told apart by."""
    if simple := _SIMPLE.match(column.type):
        return f"{simple[1]}(`{column.name}`)"
    if state := _STATE.match(column.type):
        return f"{state[1]}MergeState{state[2] or ''}(`{column.name}`)"
    return None


def _is_sum(column: Column) -> bool:
    return column.type.startswith("SimpleAggregateFunction(sum, ")


def _signed(column: Column) -> str:
    """What a row of a move has: a sum with its sign (an unsigned one wraps around, and back when it is added); of all else the
    same on both sides, as what is the person's is deleted next."""
    simple, name = _SIMPLE.match(column.type), f"`{column.name}_all`"
    if simple is None or simple[1] not in ("sum", "sumMap"):
        return name
    if simple[1] == "sum":
        return f"CAST({_times('sign', name, simple[2])} AS {simple[2]})"
    kind = simple[2].rpartition(", ")[2].removesuffix(")")
    return f"mapApply((word, amount) -> (word, CAST({_times('sign', 'amount', kind)} AS {kind})), {name})"


def _times(sign: str, amount: str, kind: str) -> str:
    return f"{sign} * {amount}" if kind.startswith(("Float", "Decimal")) else f"{sign} * toInt128({amount})"


def _without(column: Column, parts: Mapping[str, str]) -> str:
    names = [part.split()[0].strip("`") for part in _split(column.type.removeprefix("Array(Tuple(").removesuffix("))"))]
    kept = ", ".join(parts.get(name, f"one.{place}") for place, name in enumerate(names, 1))
    return f"CAST(arrayMap(one -> ({kept}), `{column.name}`) AS {column.type})"


def _split(text: str) -> Iterable[str]:
    """What stands between the commas that are in no brackets."""
    depth = start = 0
    for place, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if char == "," and not depth:
            yield text[start:place].strip()
            start = place + 1
    yield text[start:].strip()


class StoreErasure:
    """One person in one store. `at` hears of each step, for tests of crashes. Raises `StoreUnavailable`."""

    def __init__(
        self,
        store: Store,
        tenant: str,
        user: str,
        salt: str,
        *,
        at: Callable[[str], None] = lambda _step: None,
        statements_within_s: float = _STATEMENTS_WITHIN_S,
    ) -> None:
        self._store = store
        self._person = {"tenant": tenant, "user": user}
        self._salt = salt
        self._at = at
        self._statements_within_s = statements_within_s
        self.tables = tables(store)

    def found(self) -> dict[str, int]:
        """How many rows of each table name the person."""
        return {
            held.table: count
            for held in self.tables
            if (count := self._count(held, held.theirs) + (self._count(held, held.spent_by) if held.has_spenders else 0))
        }

    def call_ids(self) -> set[str]:
        """Of the calls that name them."""
        ids = " UNION DISTINCT ".join(
            f"SELECT call_id FROM {held.table} WHERE {held.theirs('{user:String}', '{tenant:String}')}"
            for held in self._anchors()
        )
        return {row[0] for row in self._store.query(ids, self._person, max_rows=10_000_000, timeout_s=120).rows} - {""}

    def of_others(self) -> int:
        """How many rows name somebody of another tenant by the same id."""
        return sum(
            self._ask(f"SELECT count() FROM {held.table} WHERE user = {{user:String}} AND tenant != {{tenant:String}}")
            for held in self.tables
            if {"user", "tenant"} <= held.columns.keys()
        )

    def erase(self) -> dict[str, str]:
        """Do it; which table's rows were what. The statements wait until all parts are changed."""
        done: dict[str, str] = {}
        self._load()
        try:
            self._attribute()
            for held in self._in_order():
                if held.has_spenders and self._count(held, held.spent_by):
                    kept = f"mapFilter((name, spend) -> name != concat('user=', {_USER}), contributors)"
                    self._change(f"ALTER TABLE {held.table} UPDATE contributors = {kept} WHERE {held.spent_by()}")
                    done[held.table] = "emptied"
                if held.way is not None and self._count(held, held.theirs):
                    self._erase(held)
                    done[held.table] = held.way
                self._at(f"erased {held.table}")
        finally:
            self._unload()
        return done

    def _in_order(self) -> list[Held]:
        """A rollup before those that are made of it: what is moved in the one comes into the other by itself. Calls last: by
        them are the rows found that name nobody."""
        made_of: dict[str, set[str]] = {held.table: set() for held in self.tables}
        for source, target in self._store.query(_FEEDS).rows:
            if {source, target} <= made_of.keys() and source != "calls":
                made_of[target].add(source)
        made_of.get("calls", set()).update(made_of.keys() - {"calls"})
        by_name = {held.table: held for held in self.tables}
        return [by_name[name] for name in TopologicalSorter(made_of).static_order()]

    def _load(self) -> None:
        # What a run that was cut off has left is empty: memory outlives nobody.
        self._store.command(f"CREATE TABLE IF NOT EXISTS {_LOADING} (tenant String, user String, salt String) ENGINE = Memory")
        self._store.command(f"TRUNCATE TABLE {_LOADING}")
        self._let_statements_end()
        self._store.insert(_LOADING, orjson.dumps(self._person | {"salt": self._salt}), f"{_LOADING}:{time.time_ns()}")

    def _let_statements_end(self) -> None:
        """Wait for the statements of a run that was cut off: one that is left would take the next person for its own, and
        delete what was not moved yet. Raises `StoreUnavailable` when they do not end."""
        deadline = time.monotonic() + self._statements_within_s
        while left := self._ask(f"{_UNFINISHED} AND position(command, '{_LOADING}') > 0"):
            if time.monotonic() >= deadline:
                raise StoreUnavailable(
                    f"{left} statement(s) of a run that was cut off have not ended; see system.mutations, then do it again"
                )
            time.sleep(_STATEMENTS_EVERY_S)

    def _unload(self) -> None:
        self._store.command(f"TRUNCATE TABLE {_LOADING}")
        # A statement that was cut off is begun again by the engine, and asks for it: it finds nobody, and ends.
        if not self._ask(_UNFINISHED):
            self._store.command(f"DROP TABLE {_LOADING} SYNC")

    def _attribute(self) -> None:
        ids = " UNION DISTINCT ".join(f"SELECT call_id FROM {held.table} WHERE {held.theirs()}" for held in self._anchors())
        for held in self.tables:
            if held.attributes:
                # Nobody is asked to write a table anew for nothing.
                ours = held.attributed(ids)
                if self._ask(f"SELECT count() FROM {held.table} WHERE {ours}"):
                    self._change(f"ALTER TABLE {held.table} UPDATE user = {_USER} WHERE {ours}")
        self._at("attributed")

    def _erase(self, held: Held) -> None:
        if held.way == "emptied":
            self._change(f"ALTER TABLE {held.table} UPDATE {held.emptying()} WHERE {held.theirs()}")
            return
        if held.way == "moved":
            self._store.command(held.moving())
            self._at(f"moved {held.table}")
        self._change(f"ALTER TABLE {held.table} DELETE WHERE {held.theirs()}")

    def _change(self, statement: str) -> None:
        # On a replicated table every replica finds the same person in the table, or waits for who has it.
        self._store.command(f"{statement} SETTINGS mutations_sync = 2, allow_nondeterministic_mutations = 1")

    def let_old_parts_go(self, within_s: float = _PARTS_WITHIN_S) -> int:
        """Wait until the parts that were written anew are gone from the disk; how many are not."""
        names = sorted(held.table for held in self.tables)
        for name in names:
            self._store.command(f"ALTER TABLE {name} MODIFY SETTING old_parts_lifetime = 0")
        try:
            deadline = time.monotonic() + within_s
            while (left := self._old_parts(names)) and time.monotonic() < deadline:
                time.sleep(_PARTS_EVERY_S)
            return left
        finally:
            for name in names:
                self._store.command(f"ALTER TABLE {name} RESET SETTING old_parts_lifetime")

    def _old_parts(self, names: list[str]) -> int:
        old = "NOT active AND has({names:Array(String)}, table)"
        sql = f"SELECT count() FROM system.parts WHERE database = currentDatabase() AND {old}"
        return int(self._store.query(sql, {"names": names}).rows[0][0])

    def said(self, pattern: str, *, tenants_only: bool = False) -> dict[str, int]:
        """How many rows of each table, of this tenant or of none, have a text that the pattern is found in. `tenants_only`:
        not those of tables that know no tenants."""
        found = {}
        for held in tables(self._store, all_of_them=True):
            texts = [column.name for column in held.columns.values() if _is_text(column)]
            if not texts or (tenants_only and "tenant" not in held.columns):
                continue
            said = " OR ".join(f"match(toString(`{name}`), {{pattern:String}})" for name in texts)
            whose = " AND (tenant = {tenant:String} OR tenant = '')" if "tenant" in held.columns else ""
            if count := self._ask(f"SELECT count() FROM {held.table} WHERE ({said}){whose}", pattern=pattern):
                found[held.table] = count
        return found

    def _anchors(self) -> list[Held]:
        return [held for held in self.tables if held.attributes]

    def _count(self, held: Held, which: Callable[[str, str], str]) -> int:
        return self._ask(f"SELECT count() FROM {held.table} WHERE {which('{user:String}', '{tenant:String}')}")

    def _ask(self, sql: str, **more: Any) -> int:
        return int(self._store.query(sql, self._person | more, timeout_s=120).rows[0][0])


def tables(store: Store, *, all_of_them: bool = False) -> list[Held]:
    """The tables that may hold a person; or all."""
    found: dict[str, dict[str, Column]] = {}
    for table, *column in store.query(_COLUMNS).rows:
        name, kind, key, stored = column
        found.setdefault(table, {})[name] = Column(name, kind, bool(key), bool(stored))
    held = (Held(table, columns) for table, columns in found.items())
    return [one for one in held if all_of_them or one.way is not None or one.has_spenders]


def _is_text(column: Column) -> bool:
    return column.stored and "String" in column.type and not column.type.startswith("AggregateFunction")
