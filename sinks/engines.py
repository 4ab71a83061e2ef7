"""The two places a store can be: a data folder of this process (chDB), or a ClickHouse server. What differs, and no more.

Both speak through clickhouse_connect. They differ in how one connects, how lines travel into an INSERT, and how trouble
shows. The schema, the settings and the questions are the same.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import unquote, urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError, ProgrammingError

from ..schemas.errors import StoreUnavailable, TidegateError, UsageError
from .dedup_log import forget_lost_parts

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
        108,  # NO_DATA_TO_INSERT: blank lines only
        117,  # INCORRECT_DATA
        130,  # CANNOT_READ_ARRAY_FROM_TEXT
        349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
        407,  # DECIMAL_OVERFLOW
        467,  # CANNOT_PARSE_BOOL
        469,  # VIOLATED_CONSTRAINT
    }
)
_BUSY: Final = frozenset(
    {
        159,  # TIMEOUT_EXCEEDED
        202,  # TOO_MANY_SIMULTANEOUS_QUERIES
        209,  # SOCKET_TIMEOUT
        210,  # NETWORK_ERROR
        241,  # MEMORY_LIMIT_EXCEEDED
        242,  # TABLE_IS_READ_ONLY: a replica without its keeper
        243,  # NOT_ENOUGH_SPACE
        252,  # TOO_MANY_PARTS
        279,  # ALL_CONNECTION_TRIES_FAILED
        319,  # UNKNOWN_STATUS_OF_INSERT
        394,  # QUERY_WAS_CANCELLED
        439,  # CANNOT_SCHEDULE_TASK
        999,  # KEEPER_EXCEPTION
    }
)
_ACCESS_REFUSED: Final = frozenset(
    {
        192,  # UNKNOWN_USER
        193,  # WRONG_PASSWORD
        194,  # REQUIRED_PASSWORD
        497,  # ACCESS_DENIED
        516,  # AUTHENTICATION_FAILED
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


class Engine(Protocol):
    """Where a store is."""

    def connect(self, settings: Mapping[str, Any]) -> Client:
        """One more client with these settings in force. Raises `StoreUnavailable` or `UsageError`."""

    def send(self, client: Client, table: str, columns: Sequence[str], lines: bytes, token: str) -> None:
        """Insert NDJSON lines as one statement. Raises clickhouse_connect's errors."""

    def rows_answered(self, client: Client) -> int | None:
        """How many rows the client's last `raw_query` answered; None where nobody says so."""


class Folder:
    """chDB over a data folder: one engine and one folder per process, one process per folder. Never fork after connecting."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"the store's folder {path} cannot be made: {error.strerror}") from error

    def connect(self, settings: Mapping[str, Any]) -> Client:
        try:
            with self._taking(), store_errors():
                return _counting(
                    clickhouse_connect.get_client(
                        interface="chdb", path=str(self._path), settings=dict(settings), tz_mode="aware"
                    )
                )
        except ProgrammingError as error:
            if "already initialized" in str(error):
                raise UsageError(
                    "this process has a store open in another folder; chDB allows one, so close it first"
                ) from None
            if self._is_held():
                raise StoreUnavailable(f"another process has the store in {self._path} open; stop it first") from None
            raise

    @contextmanager
    def _taking(self) -> Iterator[None]:
        """One at a time takes the folder, and mends first what an engine that was killed has left; a live one is let be.

        The lock on the folder itself lasts until the engine has its own, so nobody mends what another is just opening.
        """
        taking = os.open(self._path, os.O_RDONLY)
        try:
            fcntl.flock(taking, fcntl.LOCK_EX)
            if not self._is_held():
                try:
                    forget_lost_parts(self._path)
                except OSError as error:
                    raise StoreUnavailable(f"the store in {self._path} cannot be mended: {error.strerror}") from error
            yield
        finally:
            os.close(taking)

    def _is_held(self) -> bool:
        """Whether somebody holds the lock on the engine's status file; chDB itself only says that it failed."""
        try:
            with open(self._path / "status", "rb") as status:
                fcntl.flock(status, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def send(self, client: Client, table: str, columns: Sequence[str], lines: bytes, token: str) -> None:
        with self._as_file(lines) as name:
            client.command(
                f"INSERT INTO `{table}` ({', '.join(f'`{column}`' for column in columns)})"
                f" FROM INFILE '{name}' COMPRESSION 'none' SETTINGS insert_deduplication_token = '{token}' FORMAT JSONEachRow"
            )

    def rows_answered(self, client: Client) -> int | None:
        rows: int | None = getattr(client, _ROWS, None)
        return rows

    @contextmanager
    def _as_file(self, lines: bytes) -> Iterator[str]:
        """A name under which the engine reads the lines: a file in memory where the system has such, so nothing is left.

        chDB parses a file three times as fast as lines inside the statement. clickhouse_connect's raw_insert would write
        them to the system's temporary folder.
        """
        if hasattr(os, "memfd_create"):
            with os.fdopen(os.memfd_create("tidegate-insert"), "wb") as memory:
                memory.write(lines)
                memory.flush()
                yield f"/proc/self/fd/{memory.fileno()}"
        else:
            with tempfile.NamedTemporaryFile(dir=self._path, prefix="insert-", suffix=".ndjson") as file:
                file.write(lines)
                file.flush()
                yield file.name.replace("\\", "\\\\").replace("'", "\\'")


_ROWS: Final = "tidegate_rows_answered"


def _counting(client: Client) -> Client:
    """chDB tells how many rows it answered, and clickhouse_connect drops that from a raw answer: keep it on the client."""
    backend = getattr(client, "_backend", None)
    run = getattr(backend, "_run_with_settings", None)
    if run is None:
        return client

    def counted(*args: Any, **named: Any) -> Any:
        result = run(*args, **named)
        setattr(client, _ROWS, result.rows_read())
        return result

    setattr(backend, "_run_with_settings", counted)  # noqa: B010
    return client


class Server:
    """A ClickHouse server over HTTP, named by clickhouse://user:password@host:8123/database (clickhouses:// for TLS)."""

    def __init__(self, dsn: str) -> None:
        wrong = "the store's DSN must look like clickhouse://user:password@host:8123/database"
        try:
            url = urlsplit(dsn)
            port = url.port
        except ValueError:
            raise UsageError(wrong) from None
        if url.scheme not in ("clickhouse", "clickhouses", "http", "https") or not url.hostname:
            raise UsageError(wrong)
        secure = url.scheme in ("clickhouses", "https") or port in (443, 8443)
        self._interface = "https" if secure else "http"
        self._where = f"{url.hostname}:{port or (8443 if secure else 8123)}"
        self.database = unquote(url.path.strip("/")) or None
        # The database may not exist yet, so nobody connects to it by name.
        self._dsn = url._replace(path="").geturl()

    def connect(self, settings: Mapping[str, Any]) -> Client:
        with store_errors(where=self._where):
            return clickhouse_connect.get_client(
                dsn=self._dsn,
                interface=self._interface,
                settings=dict(settings),
                tz_mode="aware",
                # A session would let one thread at a time through, and refuse the others.
                autogenerate_session_id=False,
            )

    def rows_answered(self, client: Client) -> int | None:
        return None  # the server tells its own clients

    def send(self, client: Client, table: str, columns: Sequence[str], lines: bytes, token: str) -> None:
        client.raw_insert(f"`{table}`", columns, lines, settings={"insert_deduplication_token": token}, fmt="JSONEachRow")


@contextmanager
def store_errors(where: str = "the store") -> Iterator[None]:
    """Trouble with the store itself, in our words; what we do not know stays as it is, and crashes."""
    try:
        yield
    except OperationalError as error:
        raise StoreUnavailable(f"{where} cannot be reached: {_cause(error)}") from error
    except DatabaseError as error:
        if error.code in _BUSY:
            raise StoreUnavailable(f"{where} cannot take it now: {first_line(error)}") from error
        if error.code in _ACCESS_REFUSED:
            raise UsageError(f"{where} refuses us: {first_line(error)}") from None
        raise


@contextmanager
def insert_errors() -> Iterator[None]:
    """As `store_errors`, and rows that cannot be taken are `RowsRefused`."""
    try:
        with store_errors():
            yield
    except DatabaseError as error:
        # "While executing JSONEachRowRowInputFormat" stands in whatever went wrong in reading the lines.
        if error.code in _ROWS_REFUSED or "RowInputFormat" in str(error):
            raise RowsRefused(_reason(error)) from None
        raise


@contextmanager
def query_errors() -> Iterator[None]:
    """The server away is `StoreUnavailable`; all else is for the person asking."""
    try:
        yield
    except OperationalError as error:
        raise StoreUnavailable(f"the store cannot be reached: {_cause(error)}") from error
    except DatabaseError as error:
        raise QueryRefused(first_line(error)) from None


_KEY: Final = re.compile(r"while reading the value of key ([A-Za-z0-9_.]{1,128})")
_UNKNOWN: Final = re.compile(r"Unknown field found while parsing JSONEachRow format: ([A-Za-z0-9_.]{1,128})")
_ROW: Final = re.compile(r"at row (\d+)")


def _reason(error: DatabaseError) -> str:
    """Why rows were refused. ClickHouse quotes the bytes it stumbled over; only names and numbers may pass."""
    text = str(error)
    parts = [error.name or f"error {error.code}"]
    if unknown := _UNKNOWN.search(text):
        parts.append(f"unknown field {unknown[1]}")
    if key := _KEY.search(text):
        parts.append(f"field {key[1]}")
    if row := _ROW.search(text):
        parts.append(f"row {row[1]}")
    return ", ".join(parts)


def _cause(error: OperationalError) -> str:
    """What went wrong on the way. The client's own words begin with the request, all its settings included, and end before
    the reason."""
    cause = error.__cause__
    reason = getattr(cause, "reason", cause)
    return first_line(reason if isinstance(reason, Exception) else error)


def first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].removeprefix("Code: ")[:500]
