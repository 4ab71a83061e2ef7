"""ClickHouse's HTTP interface over chDB, in a process that can be killed: what stands in for a server where there is none.

    GET  /ping                       "Ok."
    GET|POST /?query=…&setting=…     a statement, in the query, the body or both; an INSERT's rows are the body

    python -m bench.chdb_server FOLDER PORT

The engine is ClickHouse's own: DDL, materialized views, deduplication and errors are a server's. What is not: there are no
users, answers come whole, and a folder is opened as Tidegate opens it, mending a last insert that a kill has torn
(`sinks/dedup_log.py`), which a server with plain MergeTree tables would not.

What was inserted, in that order, is in FOLDER/inserts.ndjson: token, rows, and the source offsets of the rows.
"""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import chdb
import orjson
import urllib3
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from tidegate.sinks.engines import Folder

# chDB is loaded in two seconds, several times that on a busy machine; then a folder with a day's parts is read.
_START_S: Final = 90.0
# Of HTTP's parameters, those that are no settings of the engine.
_TRANSPORT: Final = frozenset(
    {
        *("query", "database", "user", "password", "query_id", "session_id", "session_timeout", "session_check", "quota_key"),
        *("compress", "decompress", "buffer_size", "wait_end_of_query", "client_protocol_version", "role", "default_format"),
        *("send_progress_in_http_headers", "http_headers_progress_interval_ms", "enable_http_compression"),
    }
)
# Rows follow behind the name of their format.
_INSERT: Final = re.compile(rb"\s*(?P<into>INSERT\s+INTO\s[^']*?)\s+FORMAT\s+(?P<format>\w+)\s+(?=\S)", re.IGNORECASE)
_CODE: Final = re.compile(r"Code: (\d+)\.")
_NAME: Final = re.compile(r"\w+\Z")


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


@dataclass(frozen=True, slots=True)
class Inserted:
    """One insert that was taken. `sources`: of each source partition the first and last offset, as the rows have them, and
    whether they ascend."""

    token: str
    rows: int
    sources: Mapping[str, tuple[int, int, bool]]


class _Statements:
    """Runs statements, each on a handle of its own, so that nobody's settings are another's."""

    def __init__(self, folder: Path) -> None:
        # As Tidegate opens a folder; held open, for without any handle the engine ends.
        self._held = Folder(folder / "store").connect({})
        self._path = str(folder / "store")
        self._connect: Any = chdb.connect
        self._journal = (folder / "inserts.ndjson").open("ab")
        self._inserting = threading.Lock()

    def run(self, parameters: Mapping[str, str], body: bytes) -> bytes:
        """The answer. Raises `RuntimeError` with ClickHouse's own words."""
        asked = b"\n".join(filter(None, (parameters.get("query", "").encode(), body)))
        values = {name[6:]: value for name, value in parameters.items() if name.startswith("param_")}
        settings = {
            name: value for name, value in parameters.items() if name not in _TRANSPORT and not name.startswith("param_")
        }
        if wrong := [name for name in settings if not _NAME.match(name)]:
            raise RuntimeError(f"Code: 115. DB::Exception: Unknown setting {wrong[0]!r}")
        handle: Any = self._connect(self._path)
        try:
            if database := parameters.get("database"):
                handle.query(f"USE `{database}`")
            if settings:
                # All at once, as a server does: with `readonly` in force, nothing else could be set.
                handle.query("SET " + ", ".join(f"{name} = {_quoted(value)}" for name, value in settings.items()))
            if insert := _INSERT.match(asked):
                rows = asked[insert.end() :]
                self._insert(handle, insert["into"].decode(), insert["format"].decode(), rows, settings)
                return b""
            answer: bytes = handle.query(
                asked.decode(), parameters.get("default_format", "TabSeparated"), **({"params": values} if values else {})
            ).bytes()
            return answer
        finally:
            handle.close()

    def _insert(self, handle: Any, into: str, form: str, rows: bytes, settings: Mapping[str, str]) -> None:
        # One at a time, so that the journal's order is the order in which they went in.
        with self._inserting, _in_memory(rows) as name:
            handle.query(f"{into} FROM INFILE {_quoted(name)} COMPRESSION 'none' FORMAT {form}")
            if form == "JSONEachRow":
                self._journal.write(orjson.dumps(_told(settings.get("insert_deduplication_token", ""), rows)) + b"\n")
                self._journal.flush()

    def close(self) -> None:
        self._journal.close()
        self._held.close()


def _told(token: str, body: bytes) -> Inserted:
    sources: dict[str, tuple[int, int, bool]] = {}
    rows = [orjson.loads(line) for line in body.split(b"\n") if line]
    for row in rows:
        if "source_offset" in row:
            partition, offset = str(row["source_partition"]), int(row["source_offset"])
            first, last, ascending = sources.get(partition, (offset, offset, True))
            sources[partition] = (first, offset, ascending and offset >= last)
    return Inserted(token, len(rows), sources)


@contextmanager
def _in_memory(body: bytes) -> Iterator[str]:
    with os.fdopen(os.memfd_create("insert"), "wb") as memory:
        memory.write(body)
        memory.flush()
        yield f"/proc/self/fd/{memory.fileno()}"


def _app(statements: _Statements) -> Starlette:
    async def ping(_request: Request) -> Response:
        return PlainTextResponse("Ok.\n")

    async def serve(request: Request) -> Response:
        body = await request.body()
        try:
            answer = await run_in_threadpool(statements.run, dict(request.query_params), body)
        except RuntimeError as error:
            code = _CODE.search(str(error))
            text = str(error)[code.start() :] if code else str(error)
            return PlainTextResponse(text, 500, {"X-ClickHouse-Exception-Code": code[1] if code else "1002"})
        return Response(answer, headers={"X-ClickHouse-Timezone": "UTC"}, media_type="application/octet-stream")

    return Starlette(routes=[Route("/ping", ping), Route("/", serve, methods=["GET", "POST"])])


class ChdbServer:
    """Such a server in a process of its own, on a port that stays its own; killed and started at will."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._port = _free_port()
        self.dsn = f"clickhouse://tidegate@127.0.0.1:{self._port}/tidegate"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Returns once it answers."""
        command = [sys.executable, "-m", "tidegate.bench.chdb_server", str(self.folder), str(self._port)]
        with (self.folder / "server.out").open("ab") as said:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        deadline = time.monotonic() + _START_S
        with urllib3.PoolManager(retries=False, timeout=5) as http:
            while self._process.poll() is None and time.monotonic() < deadline:
                try:
                    if http.request("GET", f"http://127.0.0.1:{self._port}/ping").status == 200:
                        return self
                except urllib3.exceptions.HTTPError:
                    time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"the store did not start:\n{(self.folder / 'server.out').read_text()[-2_000:]}")

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(60)

    def inserts(self) -> list[Inserted]:
        """What went in, in that order, over all its lives."""
        lines = (self.folder / "inserts.ndjson").read_bytes().split(b"\n")
        # One that was being written when it was killed is not whole.
        return [Inserted(**orjson.loads(line)) for line in lines[:-1]]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _free_port() -> int:
    """Below those that the system hands out to clients: one of them would keep it from a server that comes back."""
    while True:
        port = random.randint(15_000, 30_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def main(folder: Path, port: int) -> None:
    """Serve until SIGTERM."""
    statements = _Statements(folder)
    try:
        uvicorn.run(_app(statements), host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=5)
    finally:
        statements.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
