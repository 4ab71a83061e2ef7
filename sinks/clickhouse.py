"""One store for two places: chDB inside this process, or a ClickHouse server. Same schema, same SQL, same code.

    Store.open ──► migrate ──► insert(table, lines, token) …
                         └───► query(sql) …

Lines go in as they stand in the log (`FORMAT JSONEachRow`); Python touches no row.

    refused by the store            → RowsRefused       the batch can never be taken; somebody must look
    cannot be reached, full, busy   → StoreUnavailable  the same batch may be sent again, and will count once
    a question that cannot be asked → QueryRefused      the message says what to change
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from clickhouse_connect.driver.client import Client

from ..schemas.errors import StoreUnavailable, UsageError
from . import keeping, migrations, replication
from .engines import Engine, Folder, QueryRefused, RowsRefused, Server, insert_errors, query_errors, store_errors
from .keeping import Kept

__all__ = ["DATABASE", "Encoded", "QueryRefused", "RowsRefused", "Store", "StoreUnavailable", "Table"]

DATABASE: Final = "tidegate"

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_TOKEN: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,400}\Z")
_FORMAT: Final = re.compile(r"[A-Za-z0-9]{1,64}\Z")

# A batch must reach the table, and each rollup, as one block, for its token names the whole of it. No bound may cut it:
# this one is far above any batch. The server's defaults cut at about a million rows or 256 MB in memory.
_ONE_BLOCK: Final = 2**40
_INSERT_SETTINGS: Final[Mapping[str, Any]] = {
    "session_timezone": "UTC",
    "async_insert": 0,
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "max_insert_block_size": _ONE_BLOCK,
    "min_insert_block_size_rows": _ONE_BLOCK,
    "min_insert_block_size_bytes": _ONE_BLOCK,
    "min_insert_block_size_rows_for_materialized_views": _ONE_BLOCK,
    "min_insert_block_size_bytes_for_materialized_views": _ONE_BLOCK,
    # One thread reads and writes: with more, who gets which rows is a matter of luck, and the meter needs the other cores.
    "input_format_parallel_parsing": 0,
    "max_insert_threads": 1,
    # A backfill may touch more months than the default of 100 partitions.
    "max_partitions_per_insert_block": 0,
    "date_time_input_format": "best_effort",
    "input_format_null_as_default": 1,
    "input_format_skip_unknown_fields": 0,
    "input_format_json_ignore_unknown_keys_in_named_tuple": 0,
}


@dataclass(frozen=True, slots=True)
class Table:
    """The answer to a question. `types` are ClickHouse's names; `rows` hold Python values, times aware and in UTC."""

    columns: list[str]
    types: list[str]
    rows: list[tuple[Any, ...]]

    def dicts(self) -> list[dict[str, Any]]:
        """The rows as one dict each."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


@dataclass(frozen=True, slots=True)
class Encoded:
    """The answer to a question in one of ClickHouse's formats. `rows`: how many, where the engine says so."""

    data: bytes
    rows: int | None


Heard = Callable[[str, Mapping[str, Any]], None]


def _unheard(_statement: str, _parameters: Mapping[str, Any]) -> None:
    return None


class Store:
    """A ClickHouse database. Safe to use from several threads: inserts queue behind one another, questions do not."""

    def __init__(self, engine: Engine, database: str = DATABASE, *, cluster: str | None = None, lazily: bool = False) -> None:
        if not _NAME.match(database):
            raise UsageError("the store's database must be a plain name: letters, digits and _")
        self.database = database
        self._cluster = None if cluster is None else replication.checked(cluster)
        self._engine = engine
        self._writing = threading.Lock()
        self._columns: dict[str, tuple[str, ...]] = {}
        self._readers = _Readers(engine, database)
        self._connected: Client | None = None
        if not lazily:
            with self._writing:
                _ = self._writer

    @property
    def _writer(self) -> Client:
        """The client that writes: connected the first time, and its database made. Only while writing is ours."""
        if self._connected is None:
            writer = self._engine.connect(_INSERT_SETTINGS)
            try:
                self._choose_database(writer)
            except BaseException:
                writer.close()
                raise
            self._connected = writer
        return self._connected

    def _choose_database(self, writer: Client) -> None:
        with store_errors():
            known = "SELECT 1 FROM system.databases WHERE name = {name:String}"
            if not writer.query(known, {"name": self.database}).result_rows:
                writer.command(self._everywhere(f"CREATE DATABASE IF NOT EXISTS `{self.database}`"))
            writer.database = self.database

    def _everywhere(self, definition: str) -> str:
        """A definition as it is on a cluster, if there is one."""
        return definition if self._cluster is None else replication.replicated(definition, self._cluster)

    @classmethod
    def open(
        cls,
        *,
        path: Path | None = None,
        dsn: str | None = None,
        database: str | None = None,
        cluster: str | None = None,
        lazily: bool = False,
    ) -> Self:
        """The store in a data folder (`path`, made if missing) or on a server (`dsn`); exactly one of them.

        The database is the DSN's (clickhouse://user:password@host:8123/database), else `database`, else `tidegate`; it is
        made if missing. Raises `StoreUnavailable` when it cannot be reached or another process has it, `UsageError` when
        it refuses us; `lazily` opened, only whoever asks for something hears that. On a `cluster` what is defined is defined
        on all its replicas, and replicated.
        """
        if dsn is not None and path is None:
            server = Server(dsn)
            return cls(server, server.database or database or DATABASE, cluster=cluster, lazily=lazily)
        if path is not None and dsn is None:
            if cluster is not None:
                raise UsageError("TIDEGATE_STORE_CLUSTER is a server's: name the server in TIDEGATE_STORE, or leave it out")
            return cls(Folder(path), database or DATABASE, lazily=lazily)
        raise UsageError("give the store either a data folder or a server's DSN")

    def is_behind(self) -> bool:
        """Whether it has a schema, and migrations wait."""
        with self._writing, store_errors():
            if not self._writer.query("EXISTS TABLE schema_migrations").result_rows[0][0]:
                return False
            applied = {number for (number,) in self._writer.query("SELECT number FROM schema_migrations").result_rows}
        return bool(applied) and any(migration.number not in applied for migration in migrations.read())

    def migrate(self, folder: Path = migrations.FOLDER, *, at_most: int | None = None) -> list[int]:
        """Bring the schema up to date, or `at_most` so many migrations further; the numbers of those applied now. Harmless when
        there is nothing to do.

        A migration that was cut off half-way is run again from its start. Raises `UsageError` when an applied migration
        has been changed, the store is ahead of this version, or replicated where it should not be, or not where it should.
        """
        known = {migration.number: migration for migration in migrations.read(folder)}
        with self._writing, store_errors():
            writer = self._writer
            self._keep_to_its_kind(writer)
            writer.command(
                self._everywhere(
                    "CREATE TABLE IF NOT EXISTS schema_migrations (number UInt32, name String, sha256 String,"
                    " applied_at DateTime64(3, 'UTC') DEFAULT now64(3)) ENGINE = MergeTree ORDER BY number"
                )
            )
            # Two that started at once have both brought it up to date, and both said so.
            applied = writer.query("SELECT DISTINCT number, name, sha256 FROM schema_migrations ORDER BY number").result_rows
            for number, name, sha256 in applied:
                if number not in known:
                    raise UsageError(f"the store has migration {name}, which this version does not know; upgrade tidegate")
                if known.pop(number).sha256 != sha256:
                    raise UsageError(f"migration {name} was changed after it was applied; restore it and add a new one")
            wanted = list(known.values())[:at_most]
            for migration in wanted:
                for statement in migration.statements:
                    writer.command(self._everywhere(statement))
                writer.command(
                    "INSERT INTO schema_migrations (number, name, sha256)"
                    " SELECT {number:UInt32}, {name:String}, {sha256:String}",
                    {"number": migration.number, "name": migration.name, "sha256": migration.sha256},
                )
            self._columns.clear()
            return [migration.number for migration in wanted]

    def _keep_to_its_kind(self, writer: Client) -> None:
        """Half a schema that is replicated and half that is not would lose rows with a replica, and say nothing."""
        known = "SELECT engine FROM system.tables WHERE database = {database:String} AND name = 'schema_migrations'"
        for (engine,) in writer.query(known, {"database": self.database}).result_rows:
            if engine.startswith("Replicated") and self._cluster is None:
                raise UsageError("the store's tables are replicated: name their cluster in TIDEGATE_STORE_CLUSTER")
            if not engine.startswith("Replicated") and self._cluster is not None:
                raise UsageError(
                    "the store's tables are not replicated, and TIDEGATE_STORE_CLUSTER asks for that: give it an empty database"
                )

    def keep(self, table: str, days: int | None, tenant: str | None = None) -> Kept:
        """Keep a table's rows for `days` (None: for ever), or one tenant's (None: as long as everybody's); what now holds.

        What is older goes soon after. Rollups are kept apart: the sums stay. Raises `UsageError` where it cannot be set.
        """
        with self._writing, store_errors():
            writer = self._writer
            found = writer.query(
                "SELECT engine_full FROM system.tables WHERE database = {database:String} AND name = {table:String}",
                {"database": self.database, "table": table},
            ).result_rows
            before = Kept.read(found[0][0]) if found else Kept()
            if before is None:
                raise UsageError(f"{table} has a TTL of its own making; ALTER TABLE it by hand")
            kept = before.changed(days, tenant)
            statements = keeping.statements(table, kept)
            # The engine refuses to take a TTL from a table that has none.
            for statement in statements if kept != before or kept != Kept() else ():
                writer.command(self._everywhere(statement))
            return kept

    def drop_partition(self, table: str, partition: str) -> None:
        """Let go of all rows of a partition that is named by one word; harmless when there are none."""
        if not _NAME.match(table):
            raise ValueError("table must be a plain name")
        with self._writing, store_errors():
            self._writer.command(f"ALTER TABLE {table} DROP PARTITION {{partition:String}}", {"partition": partition})

    def command(self, statement: str) -> None:
        """Change what is stored, or how; waits until that is done."""
        with self._writing, store_errors():
            self._writer.command(statement)

    def insert(self, table: str, lines: bytes, token: str) -> None:
        """Insert a batch of NDJSON lines, all or none. The same token again changes nothing, in no rollup either.

        `token` must name these very rows for ever (`Batch.token`). Also heals a batch that was cut off after some of its
        rollups; in a folder wherever that was (`dedup_log`), on a killed server all but for the gap that the README names.
        Raises `RowsRefused` when a row cannot be taken, `StoreUnavailable` when the batch should be sent again.
        """
        if not _NAME.match(table) or not _TOKEN.match(token):
            raise ValueError("table must be a plain name and token made of letters, digits and _.:/-")
        if not lines:
            return
        with self._writing, insert_errors():
            writer = self._writer
            columns = self._columns.get(table) or self._insertable(writer, table)
            self._engine.send(writer, table, columns, lines, token)

    def _insertable(self, writer: Client, table: str) -> tuple[str, ...]:
        """The columns a line may name. EPHEMERAL ones are taken only when the INSERT names them."""
        found = writer.query(
            "SELECT name FROM system.columns WHERE database = {database:String} AND table = {table:String}"
            " AND default_kind IN ('', 'DEFAULT', 'EPHEMERAL') ORDER BY position",
            {"database": self.database, "table": table},
        ).result_rows
        if not found:
            raise UsageError(f"the store has no table {table}; run its migrations first")
        self._columns[table] = tuple(name for (name,) in found)
        return self._columns[table]

    def query(
        self,
        sql: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        max_rows: int = 100_000,
        timeout_s: float = 30.0,
    ) -> Table:
        """Answer one read-only question; `{name:Type}` in it is taken from `parameters`. Raises `QueryRefused`.

        More than `max_rows` rows is an error, not a cut: half an answer looks like a whole one.
        """
        with self._readers.take(max_rows, timeout_s) as client, query_errors():
            text, values = _read_only(client, sql), dict(parameters) if parameters else None
            result = client.query(text, values)
            names, types = list(result.column_names), [kind.name for kind in result.column_types]
            if not names and text.startswith(("SELECT", "WITH")):
                # An answer without rows comes without a header too.
                described = client.query(f"DESCRIBE ({text})", values).result_rows
                names, types = [row[0] for row in described], [row[1] for row in described]
            return Table(names, types, [tuple(row) for row in result.result_rows])

    def query_bytes(
        self,
        sql: str,
        format: str,  # noqa: A002  # ClickHouse's own word for it
        parameters: Mapping[str, Any] | None = None,
        *,
        max_rows: int = 1_000_000,
        timeout_s: float = 60.0,
        heard: Heard = _unheard,
    ) -> bytes:
        """As `query`, the answer encoded by ClickHouse: CSVWithNames, JSONEachRow, Parquet, Arrow …"""
        return self.answer(sql, format, parameters, max_rows=max_rows, timeout_s=timeout_s, heard=heard).data

    def answer(
        self,
        sql: str,
        format: str,  # noqa: A002  # ClickHouse's own word for it
        parameters: Mapping[str, Any] | None = None,
        *,
        max_rows: int = 1_000_000,
        timeout_s: float = 60.0,
        heard: Heard = _unheard,
        guest: bool = False,
    ) -> Encoded:
        """As `query_bytes`, with the number of rows. `heard` is told what is asked, in ClickHouse's own spelling, and the
        parameters, before it is; what it raises keeps the question from being asked. A `guest` gets less of the machine, and no
        statistics."""
        if not _FORMAT.match(format):
            raise QueryRefused("a format is one word, such as CSVWithNames, JSONEachRow or Parquet")
        with self._readers.take(max_rows, timeout_s, guest) as client, query_errors():
            text = _read_only(client, sql)
            heard(text, parameters or {})
            data = client.raw_query(text, dict(parameters) if parameters else None, fmt=format)
            return Encoded(data, self._engine.rows_answered(client))

    def close(self) -> None:
        """Let go of the engine or the connections. Waits for what is under way; afterwards the folder is free."""
        self._readers.close()
        with self._writing:
            if self._connected is not None:
                self._connected.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# What `readonly` lets through: text in SQL quotes is set aside before anything is looked for.
_QUOTED: Final = re.compile(r"'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`", re.DOTALL)
_QUESTION: Final = re.compile(r"(?:SELECT|WITH|SHOW|DESCRIBE|EXPLAIN|EXISTS)\b")
_OUTFILE: Final = re.compile(r"\bINTO OUTFILE\b")
_FILE: Final = re.compile(r"\bfile`?\(", re.IGNORECASE)
_OWN_FORMAT: Final = re.compile(r"\bFORMAT \w+$")


def _read_only(client: Client, sql: str) -> str:
    """The question in ClickHouse's own spelling, one statement, no comments. Raises `QueryRefused`.

    `readonly = 1` stops writes, definitions, settings and table functions that reach outside. It does not stop, on chDB,
    `file('/any/path')` as a function, `INTO OUTFILE`, `KILL QUERY` and a second statement; that is done here.
    """
    [(text,)] = client.query("SELECT formatQuerySingleLine({sql:String})", {"sql": sql}).result_rows
    bare = _QUOTED.sub(lambda match: match[0] if re.fullmatch(r"`\w+`", match[0]) else "''", text)
    if not _QUESTION.match(bare):
        raise QueryRefused("only questions can be asked here: SELECT, WITH, SHOW, DESCRIBE, EXPLAIN or EXISTS")
    if _OUTFILE.search(bare) or _FILE.search(bare):
        raise QueryRefused("a question may not read or write files")
    if _OWN_FORMAT.search(bare):
        raise QueryRefused("leave FORMAT out of the question; ask for the format beside it")
    return str(text)


_Limits = tuple[int, float, bool]


class _Readers:
    """Read-only clients, one question at a time each, kept for reuse.

    Its limits are part of a client: once `readonly` is 1 nothing can be set any more, by us or by the person asking.
    """

    _KEPT: Final = 8  # an idle chDB handle costs next to nothing; eight cover the panels of one page
    _MAX_BYTES: Final = 4 << 30  # what one question may take of a machine that it shares with the meter
    _MAX_RESULT_BYTES: Final = 512 << 20
    # One core stays the meter's, whatever guests ask; and how much was read tells how much others have.
    _GUESTS: Final[Mapping[str, Any]] = {
        "max_threads": 1,
        "max_memory_usage": 1 << 30,
        "max_result_bytes": 64 << 20,
        "output_format_write_statistics": 0,
    }

    def __init__(self, engine: Engine, database: str) -> None:
        self._engine = engine
        self._database = database
        self._lock = threading.Lock()
        self._idle: list[tuple[_Limits, Client]] = []
        self._closed = False

    @contextmanager
    def take(self, max_rows: int, timeout_s: float, guest: bool = False) -> Iterator[Client]:
        limits = (max_rows, timeout_s, guest)
        client = self._pop(limits) or self._open(limits)
        try:
            yield client
        except BaseException:
            # chDB gives what an answer that broke off has left to whoever asks the same client next.
            client.close()
            raise
        self._put(limits, client)

    def _open(self, limits: _Limits) -> Client:
        max_rows, timeout_s, guest = limits
        client = self._engine.connect(
            {
                "session_timezone": "UTC",
                "max_result_rows": max_rows,
                "max_result_bytes": self._MAX_RESULT_BYTES,
                "result_overflow_mode": "throw",
                "max_execution_time": timeout_s,
                "max_memory_usage": self._MAX_BYTES,
                **(self._GUESTS if guest else {}),
                "readonly": 1,
            }
        )
        client.database = self._database
        return client

    def _pop(self, limits: _Limits) -> Client | None:
        with self._lock:
            if self._closed:
                raise UsageError("the store is closed")
            for index in range(len(self._idle) - 1, -1, -1):
                if self._idle[index][0] == limits:
                    return self._idle.pop(index)[1]
        return None

    def _put(self, limits: _Limits, client: Client) -> None:
        surplus: Client | None = None
        with self._lock:
            if self._closed:
                surplus = client
            else:
                self._idle.append((limits, client))
                if len(self._idle) > self._KEPT:
                    surplus = self._idle.pop(0)[1]
        if surplus is not None:
            surplus.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for _, client in idle:
            client.close()
