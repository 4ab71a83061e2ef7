"""ClickHouse's own HTTP interface to the store, read-only: Grafana, DBeaver, clickhouse-connect and JDBC drivers come in here.

GET|POST /      ?query=… or the statement as body; `param_x`, `default_format`, `compress`, `database` as ClickHouse takes them
GET /ping       "Ok."

Whoever has the node's token may ask: as password of any user, or as bearer; with a tenant's token, `tenant_door` says what.
What is answered, and within which bounds, is the store's business (`Store.answer`); settings that a client sends along are its
wishes, and the node keeps its own.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import lz4.frame
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

from ...schemas.errors import StoreUnavailable, TidegateError
from ...sinks.clickhouse import Encoded, Heard, Store
from .body import Bodies, NoRoom, TooLarge
from .clickhouse_blocks import blocks

MAX_STATEMENT_BYTES: Final = 1 << 20
_TIMEOUT_S: Final = 120.0
_FORMAT: Final = re.compile(r"\s+FORMAT\s+([A-Za-z0-9]+)\s*;?\s*\Z", re.IGNORECASE)
_CODE: Final = re.compile(r"(\d+)\. DB::Exception")
# ClickHouse's numbers for what can go wrong before it is asked.
_READONLY: Final = 164
_WRONG_PASSWORD: Final = 516
_TOO_LARGE: Final = 62
_UNAVAILABLE: Final = 210
_STATUS: Final = {60: 404, 497: 403}


class _Escaped:
    """A parameter's value that is escaped already, as ClickHouse takes it: to be handed on as it came."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


class Asked:
    """One request, read: what is asked, in which format, and how the answer is to be packed."""

    def __init__(self, parameters: Mapping[str, str], headers: Mapping[str, str], body: str) -> None:
        statement = "\n".join(part for part in (parameters.get("query", ""), body) if part.strip())
        own_format = _FORMAT.search(statement)
        self.sql = statement[: own_format.start()] if own_format else statement.rstrip().rstrip(";")
        wished = headers.get("x-clickhouse-format") or parameters.get("default_format") or "TabSeparated"
        self.format = own_format[1] if own_format else wished
        given = {name.removeprefix("param_"): value for name, value in parameters.items() if name.startswith("param_")}
        self.values = {name: _Escaped(value) for name, value in given.items() if f"{{{name}:" in self.sql.replace(" ", "")}
        self.timeout_s = _seconds(parameters.get("max_execution_time"))
        self.in_blocks = parameters.get("compress") == "1"
        accepted = headers.get("accept-encoding", "").replace(" ", "").split(",")
        wanted = parameters.get("enable_http_compression") == "1" and not self.in_blocks
        self.encoding = next((name for name in ("lz4", "gzip") if wanted and name in accepted), "")

    def packed(self, answer: bytes) -> bytes:
        """The answer as the client wants it: in ClickHouse's compressed blocks, in one frame of HTTP's encoding, or plain."""
        if self.in_blocks:
            return blocks(answer)
        if self.encoding == "lz4":
            framed: bytes = lz4.frame.compress(answer)
            return framed
        if self.encoding == "gzip":
            packer = zlib.compressobj(1, zlib.DEFLATED, 31)
            return packer.compress(answer) + packer.flush()
        return answer


class ClickHouseDoor:
    """Answers ClickHouse's clients, in the threads of one pool."""

    def __init__(self, bodies: Bodies, pool: ThreadPoolExecutor) -> None:
        self._bodies = bodies
        self._pool = pool

    async def serve(self, request: Request, answer: Callable[[Asked], Encoded]) -> Response:
        """The answer to a statement of somebody who may ask; `answer` gives it, in a thread of the pool."""
        try:
            async with self._bodies.read(request, MAX_STATEMENT_BYTES) as body:
                asked = Asked(request.query_params, request.headers, body.decode())
        except (ClientDisconnect, UnicodeDecodeError):
            return problem(400, _TOO_LARGE, "the statement is no UTF-8, or ended before its length")
        except NoRoom:
            return problem(503, _UNAVAILABLE, "too many bodies at once; try again")
        except TooLarge:
            return problem(413, _TOO_LARGE, f"a statement may have at most {MAX_STATEMENT_BYTES} bytes")
        try:
            packed, rows = await asyncio.get_running_loop().run_in_executor(self._pool, self._packed, asked, answer)
        except StoreUnavailable as error:
            return problem(503, _UNAVAILABLE, str(error))
        except TidegateError as error:
            code = code_of(error)
            return problem(_STATUS.get(code, 400) if code is not None else 403, _READONLY if code is None else code, str(error))
        headers = {"X-ClickHouse-Format": asked.format, "X-ClickHouse-Timezone": "UTC"}
        if rows is not None:
            # The JDBC driver reads no row of an answer that does not say how many it has.
            headers["X-ClickHouse-Summary"] = f'{{"result_rows":"{rows}","result_bytes":"{len(packed)}"}}'
        if asked.encoding:
            headers["Content-Encoding"] = asked.encoding
        return Response(packed, headers=headers, media_type="application/octet-stream")

    @staticmethod
    def _packed(asked: Asked, answer: Callable[[Asked], Encoded]) -> tuple[bytes, int | None]:
        answered = answer(asked)
        return asked.packed(answered.data), answered.rows


def anything(store: Store, heard: Heard) -> Callable[[Asked], Encoded]:
    """What answers somebody who may ask everything; `heard` as `Store.answer` has it."""
    return lambda asked: store.answer(asked.sql, asked.format, asked.values or None, timeout_s=asked.timeout_s, heard=heard)


async def ping(_request: Request) -> Response:
    """What a client asks before it asks anything."""
    return PlainTextResponse("Ok.\n")


def is_for_clickhouse(request: Request) -> bool:
    """Whether a request to / is a statement, and not a person's who wants to see the page."""
    return request.method == "POST" or "query" in request.query_params


def secret_of(request: Request) -> str:
    """The password or token that came along, in any of the ways ClickHouse's clients send it; "" when none did."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(given, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return request.headers.get("x-clickhouse-key") or request.query_params.get("password", "")


def wrong_password() -> Response:
    """The answer to somebody without the token."""
    return problem(
        403, _WRONG_PASSWORD, "Authentication failed: give the node's token (TIDEGATE_TOKEN, or node.json's) as the password"
    )


def problem(status: int, code: int, reason: str) -> Response:
    """An error as ClickHouse's clients expect it: its number in a header, and a text that begins with it."""
    text = reason if _CODE.search(reason) else f"{code}. DB::Exception: {reason}"
    headers = {"X-ClickHouse-Exception-Code": str(code)}
    return PlainTextResponse(f"Code: {text}\n", status, headers)


def code_of(error: TidegateError) -> int | None:
    """ClickHouse's number for an error, where it has one."""
    code = _CODE.search(str(error))
    return int(code[1]) if code else None


def _seconds(wished: str | None) -> float:
    try:
        given = float(wished or 0)
    except ValueError:
        given = 0.0
    return min(given, _TIMEOUT_S) if given > 0 else _TIMEOUT_S
