"""One store for two places: chDB inside this process, or a ClickHouse server. Same schema, same SQL, same code.

    Store.open ──► migrate ──► insert(table, lines, token) …
                         └───► query(sql) …

Lines go in as they stand in the log (`FORMAT JSONEachRow`); Python touches no row. They travel inside the statement,
not through a file: clickhouse_connect's own raw insert would write them to a temporary file first.

    refused by the store            → RowsRefused       the batch can never be taken; somebody must look
    cannot be reached, full, busy   → StoreUnavailable  the same batch may be sent again, and will count once
    a question that cannot be asked → QueryRefused      the message says what to change
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self
from urllib.parse import unquote, urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from ..schemas.errors import StoreUnavailable, TidegateError, UsageError

DATABASE: Final = "tidegate"
MIGRATIONS: Final = Path(__file__).parent / "migrations"

_MIGRATION_NAME: Final = re.compile(r"(\d{4})_[a-z0-9_]+\.sql\Z")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_TOKEN: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,200}\Z")
_FORMAT: Final = re.compile(r"[A-Za-z0-9]{1,64}\Z")
# A statement ends with a semicolon at the end of a line.
_STATEMENT_END: Final = re.compile(r";[ \t]*$", re.MULTILINE)

# A batch must reach the table as one block, for its token names the whole batch: no bound may cut it, and one thread
# parses it. The bounds are far above any batch (500,000 rows of 64 KiB).
_ONE_BLOCK: Final = 2**40
INSERT_SETTINGS: Final[Mapping[str, Any]] = {
    "session_timezone": "UTC",
    "async_insert": 0,
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "input_format_parallel_parsing": 0,
    "max_insert_threads": 1,
    "max_insert_block_size": _ONE_BLOCK,
    "max_insert_block_size_bytes": _ONE_BLOCK,
    "min_insert_block_size_rows": _ONE_BLOCK,
    "min_insert_block_size_bytes": _ONE_BLOCK,
    "min_insert_block_size_rows_for_materialized_views": _ONE_BLOCK,
    "min_insert_block_size_bytes_for_materialized_views": _ONE_BLOCK,
    # A backfill may touch more months than the default 100 partitions.
    "max_partitions_per_insert_block": 0,
    "date_time_input_format": "best_effort",
    "input_format_null_as_default": 1,
    "input_format_skip_unknown_fields": 0,
    "input_format_json_ignore_unknown_keys_in_named_tuple": 0,
}

# ClickHouse's error codes, by what follows from them.
_ROWS_REFUSED: Final = frozenset(
    {
        6,  # CANNOT_PARSE_TEXT
        10,  # NOT_FOUND_COLUMN_IN_BLOCK: an unknown key inside a tuple
        25,  # CANNOT_PARSE_ESCAPE_SEQUENCE
        26,  # CANNOT_PARSE_QUOTED_STRING
        27,  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
        32,  # ATTEMPT_TO_READ_AFTER_EOF
        33,  # CANNOT_READ_ALL_DATA
        38,  # CANNOT_PARSE_DATE
        41,  # CANNOT_PARSE_DATETIME
        53,  # TYPE_MISMATCH
        69,  # ARGUMENT_OUT_OF_BOUND
        72,  # CANNOT_PARSE_NUMBER
        108,  # NO_DATA_TO_INSERT
        117,  # INCORRECT_DATA
        130,  # CANNOT_READ_ARRAY_FROM_TEXT
        131,  # TOO_LARGE_STRING_SIZE
        349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
        407,  # DECIMAL_OVERFLOW
        467,  # CANNOT_PARSE_BOOL
        469,  # VIOLATED_CONSTRAINT
        636,  # CANNOT_EXTRACT_TABLE_STRUCTURE
    }
)
_UNAVAILABLE: Final = frozenset(
    {
        159,  # TIMEOUT_EXCEEDED
        202,  # TOO_MANY_SIMULTANEOUS_QUERIES
        209,  # SOCKET_TIMEOUT
        210,  # NETWORK_ERROR
        241,  # MEMORY_LIMIT_EXCEEDED
        242,  # TABLE_IS_READ_ONLY
        243,  # NOT_ENOUGH_SPACE
        252,  # TOO_MANY_PARTS
        279,  # ALL_CONNECTION_TRIES_FAILED
        319,  # UNKNOWN_STATUS_OF_INSERT
        394,  # QUERY_WAS_CANCELLED
        425,  # SYSTEM_ERROR
        439,  # CANNOT_SCHEDULE_TASK
        999,  # KEEPER_EXCEPTION
    }
)


class RowsRefused(TidegateError):
    """The store will never take these rows: a field it does not know, or a value of the wrong type.

    `reason` names the field, the row of the batch and the kind of trouble, never the value.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class QueryRefused(UsageError):
    """The question cannot be asked: it writes, is wrong, takes too long or answers with too much."""


@dataclass(frozen=True, slots=True)
class Table:
    """The answer to a question. `types` are ClickHouse's names; `rows` hold Python values."""

    columns: list[str]
    types: list[str]
    rows: list[tuple[Any, ...]]

    def dicts(self) -> list[dict[str, Any]]:
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class Store:
    """A ClickHouse database. Safe to use from several threads: inserts queue behind one another, questions do not.

    chDB holds one engine and one data folder per process, and one process per data folder. Never fork after opening it.
    """

    def __init__(self, connect: Connect, database: str) -> None:
        self.database = database
        self._connect = connect
        self._writer = connect(INSERT_SETTINGS)
        self._writing = threading.Lock()
        self._columns: dict[str, str] = {}
        self._readers = _Readers(connect, database)
        with _store_errors():
            if not self._writer.query(
                "SELECT 1 FROM system.databases WHERE name = {name:String}", {"name": database}
            ).result_rows:
                self._writer.command(f"CREATE DATABASE IF NOT EXISTS `{database}`")
            self._writer.database = database

    @classmethod
    def open(cls, *, path: Path | None = None, dsn: str | None = None, database: str | None = None) -> Self:
        """The store in a data folder (`path`, made if missing) or on a server (`dsn`); exactly one of them.

        The database is the DSN's (clickhouse://user:password@host:8123/database), else `database`, else `tidegate`; it is
        made if missing. Raises `StoreUnavailable` when it cannot be reached, `UsageError` when it refuses us.
        """
        if dsn is not None and path is None:
            connect, named = _server(dsn)
            database = named or database
        elif path is not None and dsn is None:
            connect = _folder(path)
        else:
            raise UsageError("give the store either a data folder or a server's DSN")
        database = database or DATABASE
        if not _NAME.match(database):
            raise UsageError("the store's database must be a plain name: letters, digits and _")
        return cls(connect, database)

    def migrate(self) -> list[int]:
        """Bring the schema up to date; the numbers of the migrations applied now. Harmless when there is nothing to do.

        A migration that was cut off half-way is run again from its start; its statements are IF NOT EXISTS. Raises
        `UsageError` when an applied migration has been changed, or the store is ahead of this version.
        """
        return self._migrate(MIGRATIONS)

    def _migrate(self, folder: Path) -> list[int]:
        migrations = _read_migrations(folder)
        with self._writing, _store_errors():
            self._writer.command(
                "CREATE TABLE IF NOT EXISTS schema_migrations (number UInt32, name String, sha256 String,"
                " applied_at DateTime64(3, 'UTC') DEFAULT now64(3)) ENGINE = MergeTree ORDER BY number"
            )
            applied = {
                number: (name, checksum)
                for number, name, checksum in self._writer.query(
                    "SELECT number, name, sha256 FROM schema_migrations ORDER BY number"
                ).result_rows
            }
            for number, (name, checksum) in applied.items():
                migration = migrations.get(number)
                if migration is None:
                    raise UsageError(f"the store has migration {name}, which this version does not know; upgrade tidegate")
                if migration.sha256 != checksum:
                    raise UsageError(f"migration {name} was changed after it was applied; restore it and add a new one instead")
            done = []
            for number, migration in sorted(migrations.items()):
                if number in applied:
                    continue
                for statement in migration.statements:
                    self._writer.command(statement)
                self._writer.command(
                    "INSERT INTO schema_migrations (number, name, sha256) SELECT"
                    " {number:UInt32}, {name:String}, {sha256:String}",
                    {"number": number, "name": migration.name, "sha256": migration.sha256},
                )
                done.append(number)
            self._columns.clear()
            return done

    def insert(self, table: str, lines: bytes, token: str) -> None:
        """Insert a batch of NDJSON lines, all or none. The same token again changes nothing, in no rollup either.

        `token` must name these very rows for ever (`Batch.token`). Also heals a batch that was cut off after some of its
        rollups. Raises `RowsRefused` when a row cannot be taken, `StoreUnavailable` when the batch should be sent again.
        """
        if not _NAME.match(table) or not _TOKEN.match(token):
            raise ValueError("table must be a plain name and token made of letters, digits and _.:/-")
        if not lines:
            return
        with self._writing, _store_errors(refused=_rows_refused):
            columns = self._columns.get(table) or self._insertable(table)
            try:
                self._writer.command(
                    f"INSERT INTO `{table}` ({columns}) SETTINGS insert_deduplication_token = '{token}' FORMAT JSONEachRow",
                    data=lines,
                )
            except UnicodeDecodeError:
                raise RowsRefused(f"{table}: a line is not UTF-8") from None

    def _insertable(self, table: str) -> str:
        """The columns a line may name, quoted. EPHEMERAL ones are taken only when the INSERT names them."""
        found = self._writer.query(
            "SELECT name FROM system.columns WHERE database = {database:String} AND table = {table:String}"
            " AND default_kind IN ('', 'DEFAULT', 'EPHEMERAL') ORDER BY position",
            {"database": self.database, "table": table},
        ).result_rows
        if not found:
            raise UsageError(f"the store has no table {table}; run its migrations first")
        self._columns[table] = ", ".join(f"`{name}`" for (name,) in found)
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
        with self._readers.take(max_rows, timeout_s) as client, _store_errors(refused=_query_refused):
            result = client.query(sql, dict(parameters or {}))
            return Table(
                columns=list(result.column_names),
                types=[kind.name for kind in result.column_types],
                rows=[tuple(row) for row in result.result_rows],
            )

    def query_bytes(
        self,
        sql: str,
        format: str,  # noqa: A002  # ClickHouse's own word for it
        parameters: Mapping[str, Any] | None = None,
        *,
        max_rows: int = 1_000_000,
        timeout_s: float = 60.0,
    ) -> bytes:
        """As `query`, the answer encoded by ClickHouse: CSVWithNames, JSONEachRow, Parquet, Arrow …"""
        if not _FORMAT.match(format):
            raise QueryRefused("a format is one word, such as CSVWithNames, JSONEachRow or Parquet")
        with self._readers.take(max_rows, timeout_s) as client, _store_errors(refused=_query_refused):
            return client.raw_query(sql, dict(parameters or {}), fmt=format)

    def close(self) -> None:
        """Let go of the engine or the connections. Waits for what is under way."""
        self._readers.close()
        with self._writing:
            self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Connect(Protocol):
    """Makes one more client of the store, with these settings in force."""

    def __call__(self, settings: Mapping[str, Any]) -> Client: ...


class _Readers:
    """Read-only clients, one question at a time each, kept for reuse. Limits are part of a client: once readonly is 1,

    nothing can be set any more, by us or by the person asking.
    """

    _KEPT: Final = 8  # an idle chDB handle costs little; eight cover the console's panels

    def __init__(self, connect: Connect, database: str) -> None:
        self._connect = connect
        self._database = database
        self._lock = threading.Lock()
        self._idle: list[tuple[tuple[int, float], Client]] = []
        self._closed = False

    @contextmanager
    def take(self, max_rows: int, timeout_s: float) -> Iterator[Client]:
        limits = (max_rows, timeout_s)
        client = self._pop(limits) or self._open(limits)
        try:
            yield client
        finally:
            self._put(limits, client)

    def _open(self, limits: tuple[int, float]) -> Client:
        max_rows, timeout_s = limits
        client = self._connect(
            {
                "session_timezone": "UTC",
                "max_result_rows": max_rows,
                "result_overflow_mode": "throw",
                "max_execution_time": timeout_s,
                "readonly": 1,
            }
        )
        client.database = self._database
        return client

    def _pop(self, limits: tuple[int, float]) -> Client | None:
        with self._lock:
            if self._closed:
                raise UsageError("the store is closed")
            for index in range(len(self._idle) - 1, -1, -1):
                if self._idle[index][0] == limits:
                    return self._idle.pop(index)[1]
        return None

    def _put(self, limits: tuple[int, float], client: Client) -> None:
        with self._lock:
            surplus = client if self._closed else None
            if surplus is None:
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


def _folder(path: Path) -> Connect:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the store's folder {path} cannot be made: {error.strerror}") from error

    def connect(settings: Mapping[str, Any]) -> Client:
        with _store_errors():
            return clickhouse_connect.get_client(interface="chdb", path=str(path), settings=dict(settings), tz_mode="aware")

    return connect


def _server(dsn: str) -> tuple[Connect, str | None]:
    """A server's clients, and the database its DSN names."""
    try:
        url = urlsplit(dsn)
        port = url.port
    except ValueError:
        raise UsageError("the store's DSN must look like clickhouse://user:password@host:8123/database") from None
    if url.scheme not in ("clickhouse", "clickhouses", "http", "https") or not url.hostname:
        raise UsageError("the store's DSN must look like clickhouse://user:password@host:8123/database")
    database = unquote(url.path.strip("/"))
    # The database may not exist yet, so nobody connects to it by name.
    anywhere = url._replace(path="").geturl()
    interface = "https" if url.scheme in ("clickhouses", "https") or port in (443, 8443) else "http"

    def connect(settings: Mapping[str, Any]) -> Client:
        with _store_errors(where=f"{url.hostname}:{port or (8443 if interface == 'https' else 8123)}"):
            return clickhouse_connect.get_client(
                dsn=anywhere,
                interface=interface,
                settings=dict(settings),
                tz_mode="aware",
                # Sessions would make threads wait for each other, and fail.
                autogenerate_session_id=False,
            )

    return connect, database or None


@dataclass(frozen=True, slots=True)
class _Migration:
    name: str
    sha256: str
    statements: list[str]


def _read_migrations(folder: Path) -> dict[int, _Migration]:
    migrations: dict[int, _Migration] = {}
    for file in sorted(folder.glob("*.sql")):
        match = _MIGRATION_NAME.match(file.name)
        if match is None or int(match[1]) in migrations:
            raise UsageError(f"migration {file.name}: name it NNNN_name.sql, with a number of its own")
        content = file.read_bytes()
        statements = [text.strip() for text in _STATEMENT_END.split(content.decode()) if text.strip()]
        migrations[int(match[1])] = _Migration(file.stem, hashlib.sha256(content).hexdigest(), statements)
    return migrations


@contextmanager
def _store_errors(
    refused: Callable[[DatabaseError], TidegateError | None] | None = None, where: str = "the store"
) -> Iterator[None]:
    """Translate the client's errors into ours; those we do not know stay as they are, and crash."""
    try:
        yield
    except OperationalError as error:
        raise StoreUnavailable(f"{where} cannot be reached: {_first_line(error)}") from error
    except DatabaseError as error:
        if error.code in _UNAVAILABLE and not (refused is _query_refused and error.code in _QUERY_LIMITS):
            raise StoreUnavailable(f"{where} cannot take it now: {_first_line(error)}") from error
        if refused is not None and (translated := refused(error)) is not None:
            raise translated from None
        if error.code in _ACCESS_REFUSED:
            raise UsageError(f"{where} refuses us: {_first_line(error)}") from None
        raise


_QUERY_LIMITS: Final = frozenset({159, 241, 394})
_ACCESS_REFUSED: Final = frozenset({192, 193, 194, 497, 516})
_KEY: Final = re.compile(r"while reading the value of key ([A-Za-z0-9_.]{1,128})")
_UNKNOWN: Final = re.compile(r"Unknown field found while parsing JSONEachRow format: ([A-Za-z0-9_.]{1,128})")
_ROW: Final = re.compile(r"at row (\d+)")


def _rows_refused(error: DatabaseError) -> TidegateError | None:
    # The message quotes the bytes it stumbled over; only names and numbers of ours may pass.
    text = str(error)
    if error.code not in _ROWS_REFUSED and "RowInputFormat" not in text:
        return None
    parts = [error.name or f"error {error.code}"]
    if unknown := _UNKNOWN.search(text):
        parts.append(f"unknown field {unknown[1]}")
    if key := _KEY.search(text):
        parts.append(f"field {key[1]}")
    if row := _ROW.search(text):
        parts.append(f"row {row[1]}")
    return RowsRefused(", ".join(parts))


def _query_refused(error: DatabaseError) -> TidegateError | None:
    return QueryRefused(_first_line(error))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].removeprefix("Code: ")[:500]
