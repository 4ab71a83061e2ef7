"""The node's doors over HTTP.

POST /v1/events   events in (JSON, NDJSON, gzip) → 202 {"accepted", "rejected", "errors": [{"line", "error"}]}
POST /v1/content  sealed texts in, the same way → 202 {"accepted"}, or 422 and nothing is kept
POST /v1/query    {"sql", "format"} → the answer of the store; needs the node's own token
GET  /v1/status   totals and lags; needs the node's own token
GET|POST /?query  ClickHouse's own interface, read-only, and GET /ping (`clickhouse_door`); needs the node's own token, or a
                  tenant's, which opens that tenant's views and nothing else here (`tenant_door`)
GET  /metrics     Prometheus      GET /healthz  alive      GET /readyz  takes traffic
GET  /            the console, and all it asks below /console (`console_door`)
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

import orjson
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ...producers.audit_log import AuditLog, operator
from ...schemas.envelope import SCHEMA, Envelope
from ...schemas.errors import InvalidEvent, LogUnavailable, StoreUnavailable, TidegateError
from ...schemas.residency import Residency
from ...schemas.settings import Settings
from ...sinks.clickhouse import Heard
from ..letters import REPLAYED
from ..listening import is_at_home
from ..meter import KEYED, VERDICTS
from ..tenant_tokens import TenantTokens
from ..transcript_reads import TranscriptReads
from . import clickhouse_door, ingest
from .backend import Backend
from .body import Bodies, NoRoom, TooLarge
from .console_door import ConsoleDoor
from .content_door import ContentDoor
from .intake import Intake
from .metrics import Metrics
from .signals_door import SignalsDoor
from .tenant_door import TenantDoor

# Long enough for a heavy analytical query on one machine; short enough that a forgotten one ends.
_QUERY_TIMEOUT_S: Final = 120.0
# The longest statement anyone has written by hand is a hundredth of this.
_MAX_STATEMENT_BYTES: Final = 1 << 20


class Doors:
    """The request handlers of one node, the same whatever is behind them."""

    def __init__(
        self,
        backend: Backend,
        settings: Settings,
        own_token: str,
        status: Callable[[], dict[str, Any]],
        audit: AuditLog,
        tenants: TenantTokens,
        residency: Residency | None = None,
    ) -> None:
        self._backend = backend
        self._settings = settings
        self._own_token = own_token
        self._status = status
        self._metrics = Metrics(status, backend.accounts)
        self._bodies = Bodies(settings.max_body_bytes)
        self._intake = Intake(backend.log)
        self._content = ContentDoor(backend.content_log, settings.max_body_bytes, _identity, residency)
        self._residency = residency
        # Several judge, so that a small body does not wait for a huge one; they append one at a time.
        self._ingest_pool = ThreadPoolExecutor(4, "tidegate-ingest")
        # Queries get their own, so that none waits for ingest.
        self._query_pool = ThreadPoolExecutor(2, "tidegate-query")
        self._clickhouse = clickhouse_door.ClickHouseDoor(self._bodies, self._query_pool)
        self._tenants = TenantDoor(self._bodies, tenants)
        self._signals = SignalsDoor(backend.feed)
        self._reads = TranscriptReads(audit, backend.store)
        self.console = ConsoleDoor(backend, settings, own_token, status, audit, tenants, self._reads)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/events", self.events, methods=["POST"]),
                Route("/v1/content", self.content, methods=["POST"]),
                Route("/v1/query", self.query, methods=["POST"]),
                Route("/v1/status", self.status),
                Route("/v1/signals", self.signals),
                Route("/metrics", self.metrics),
                Route("/healthz", self.healthz),
                Route("/readyz", self.readyz),
                Route("/ping", clickhouse_door.ping),
                Route("/", self.front, methods=["GET", "POST"]),
                *self.console.routes(),
            ]
        )

    def end_waits(self) -> None:
        """Answer every long poll and end every stream now: the doors are about to close."""
        self._signals.closing = True
        self.console.end_streams()

    def close(self) -> None:
        self._ingest_pool.shutdown()
        self._content.close()
        self._query_pool.shutdown(cancel_futures=True)
        self._tenants.close()
        self._signals.close()
        self.console.close()

    # ingest

    async def events(self, request: Request) -> Response:
        """Events in. Once it answers 202, all of them are durable in the log."""
        try:
            if not self._may_enter(request):
                await self._bodies.discard(request)
                return self._stranger()
            if self._backend.behind:
                await self._bodies.discard(request)
                return self._refused(503, "the node is behind with its work; try again", retry_after_s=2)
            async with self._bodies.read(request) as body:
                judged = await self._in_ingest_thread(self._take, request.headers, body)
        except ClientDisconnect:
            return _problem(400, "the body ended before its length")
        except TooLarge as error:
            return await self._too_large(error)
        except NoRoom:
            return self._refused(503, "too many bodies at once; try again", retry_after_s=1)
        except ingest.BadBody as error:
            return self._refused(error.status, error.reason)
        except LogUnavailable as error:
            return self._refused(503, f"the log cannot take events now: {error}", retry_after_s=1)
        answer = {"accepted": judged.accepted, "rejected": judged.rejected, "errors": judged.errors}
        self._metrics.ingested(judged.accepted, judged.rejected, len(body))
        headers = {}
        if judged.position is not None:
            headers = {
                "X-Tidegate-Partition": str(judged.position.partition),
                "X-Tidegate-Offset": str(judged.position.offset),
            }
        return Response(orjson.dumps(answer), 202, headers, media_type="application/json")

    async def _in_ingest_thread(self, work: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._ingest_pool, work, *args)

    def _refused(self, status: int, error: str, retry_after_s: int | None = None) -> Response:
        self._metrics.refused(status)
        return _problem(status, error, retry_after_s)

    async def _too_large(self, error: TooLarge) -> Response:
        reason = f"the body is larger than {self._settings.max_body_bytes} bytes; send it in parts"
        refusal = ingest.refusal(error.sha256, error.size_bytes, reason, "http", None, datetime.now(UTC))
        try:
            await self._in_ingest_thread(self._intake.append, None, 0, 0, [refusal])
        except LogUnavailable as away:
            return self._refused(503, f"the log cannot take events now: {away}", retry_after_s=1)
        return self._refused(413, reason)

    def _take(self, headers: Mapping[str, str], body: bytes) -> ingest.Judged:
        """Judge and append one body; runs in an ingest thread. A body refused as a whole leaves one dead letter."""
        now = datetime.now(UTC)
        try:
            plain = ingest.unpack(body, headers.get("content-encoding", ""), self._settings.max_body_bytes * 4)
            lines = ingest.split(plain, headers.get("content-type", ""))
            producer, seq, dropped = _identity(headers, len(lines))
            judged = ingest.judge(lines, "http", now, self._backend.keeper.seal, self._residency)
        except ingest.BadBody as error:
            sealed = self._backend.keeper.seal(body)
            self._intake.append(None, 0, 0, [ingest.rejection(body, error.reason, "http", None, now, sealed)])
            raise
        judged.position = self._intake.append(producer, seq, dropped, judged.lines)
        return judged

    async def content(self, request: Request) -> Response:
        """Sealed texts in."""
        try:
            if not self._may_enter(request):
                await self._content.discard(request)
                return self._stranger()
            if self._backend.content_behind:
                await self._content.discard(request)
                return self._refused(503, "the guardrails are behind with their work; try again", retry_after_s=5)
            answer = await self._content.serve(request)
        except ClientDisconnect:
            return _problem(400, "the body ended before its length")
        except TooLarge:
            return self._refused(413, f"the body is larger than {self._settings.max_body_bytes} bytes; send it in parts")
        except NoRoom:
            return self._refused(503, "too many bodies at once; try again", retry_after_s=1)
        except ingest.BadBody as error:
            return self._refused(error.status, error.reason)
        except LogUnavailable as error:
            return self._refused(503, f"the log cannot take content now: {error}", retry_after_s=1)
        if answer.status_code != 202:
            self._metrics.refused(answer.status_code)
        return answer

    # answers

    async def query(self, request: Request) -> Response:
        """The store's answer to one read-only statement."""
        if not _bears(request, self._own_token, self._settings.token):
            return _problem(401, "queries need the token in the data folder's node.json (or TIDEGATE_TOKEN)")
        try:
            async with self._bodies.read(request, _MAX_STATEMENT_BYTES) as body:
                asked = orjson.loads(body)
            sql, form = asked["sql"], asked.get("format", "JSONCompact")
            if not isinstance(sql, str) or not isinstance(form, str):
                raise TypeError("not text")
        except ClientDisconnect:
            return _problem(400, "the body ended before its length")
        except NoRoom:
            return _problem(503, "too many bodies at once; try again", retry_after_s=1)
        except TooLarge:
            return _problem(413, f"a statement may have at most {_MAX_STATEMENT_BYTES} bytes")
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return _problem(400, 'send {"sql": "SELECT …", "format": "JSONCompact"}')
        loop, heard = asyncio.get_running_loop(), self._heard(request, "query", _bears(request, self._own_token))
        try:
            answer = await loop.run_in_executor(
                self._query_pool,
                lambda: self._backend.store.query_bytes(sql, form, timeout_s=_QUERY_TIMEOUT_S, heard=heard),
            )
        except StoreUnavailable as error:
            return _problem(503, str(error), retry_after_s=1)
        except TidegateError as error:
            return _problem(400, str(error))
        return Response(answer, media_type="application/octet-stream")

    async def front(self, request: Request) -> Response:
        """The console, and ClickHouse's interface for those who send a statement to the same place."""
        if not clickhouse_door.is_for_clickhouse(request):
            return self.console.page(request)
        secret = clickhouse_door.secret_of(request)
        if not any(
            token and hmac.compare_digest(secret.encode(), token.encode()) for token in (self._own_token, self._settings.token)
        ):
            return await self._tenants.serve(request, secret, self._backend.store)
        own = hmac.compare_digest(secret.encode(), self._own_token.encode())
        answer = clickhouse_door.anything(self._backend.store, self._heard(request, "clickhouse", own))
        return await self._clickhouse.serve(request, answer)

    def _heard(self, request: Request, door: str, own: bool) -> Heard:
        """What writes down who reads transcripts. The node's own token is in a file that its user alone can read."""
        client = request.client.host if request.client is not None else None
        return self._reads.by(operator() if own else "token", door, client)

    async def signals(self, request: Request) -> Response:
        """What policies say, as it changes."""
        if not self._may_enter(request):
            return self._stranger()
        try:
            return await self._signals.serve(request)
        except LogUnavailable as error:
            return self._refused(503, f"the log does not answer now: {error}", retry_after_s=1)

    # Not async: these ask the log and walk over what the meter holds, so they run in a thread of their own.

    def status(self, request: Request) -> Response:
        if not _bears(request, self._own_token, self._settings.token):
            return _problem(401, "status needs the token in the data folder's node.json (or TIDEGATE_TOKEN)")
        return Response(orjson.dumps(self._status()), media_type="application/json")

    def metrics(self, request: Request) -> Response:
        if not self._may_enter(request):
            return self._stranger("metrics show spend; give Prometheus the token: authorization: credentials: <TIDEGATE_TOKEN>")
        page, content_type = self._metrics.render(request.headers.get("accept"))
        return Response(page, media_type=content_type)

    # who

    def _may_enter(self, request: Request) -> bool:
        """What comes in and what was spent is nobody's business beyond this machine, unless they have the token."""
        if not self._settings.token and is_at_home(request.headers.get("host", ""), request.headers):
            return True
        return _bears(request, self._settings.token, self._own_token)

    def _stranger(self, advice: str = "give the node's token: Authorization: Bearer <TIDEGATE_TOKEN>") -> Response:
        if self._settings.token:
            return _problem(401, advice)
        return _problem(
            401, "without TIDEGATE_TOKEN this node answers its own machine alone, at localhost and not by a proxy; set it"
        )

    async def healthz(self, _request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(self, _request: Request) -> Response:
        reason = self._backend.unready
        return PlainTextResponse(f"{reason or 'ready'}\n", 503 if reason else 200)


def _identity(headers: Mapping[str, str], count: int, schema: str = SCHEMA) -> tuple[str | None, int, int]:
    """Who numbers these events: the producer itself, the client's Idempotency-Key, or this node (None). Raises `BadBody`."""
    producer = headers.get("x-tidegate-producer")
    if producer is not None:
        numbered = {
            "schema": headers.get("x-tidegate-schema", schema),
            "producer": producer,
            "seq": headers.get("x-tidegate-seq", ""),
            "count": headers.get("x-tidegate-count", str(count)),
            "dropped": headers.get("x-tidegate-dropped", "0"),
        }
        try:
            envelope = Envelope.from_record(numbered, b"", frozenset({schema}))
        except InvalidEvent as error:
            raise ingest.BadBody(error.reason.replace("envelope header `", "header `X-Tidegate-")) from None
        if schema == SCHEMA and producer.startswith((*VERDICTS, REPLAYED)):
            # Their numbers are the guardrails' own, or a dead letter's: whoever used them up would silence these.
            raise ingest.BadBody("X-Tidegate-Producer begins as a verdict's or a dead letter's does; choose another name")
        if envelope.count != count:
            raise ingest.BadBody(f"X-Tidegate-Count says {envelope.count} events, the body holds {count}")
        return producer, envelope.seq, envelope.dropped
    if (key := headers.get("idempotency-key")) is not None:
        if not key.strip():
            # One empty key would make all requests that carry it repetitions of the first.
            raise ingest.BadBody("Idempotency-Key is empty; give every request a key of its own, or none")
        return f"{KEYED}{sha256(key.encode()).hexdigest()[:32]}", 0, 0
    return None, 0, 0


def _bears(request: Request, *tokens: str | None) -> bool:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return False
    return any(token and hmac.compare_digest(given.strip().encode(), token.encode()) for token in tokens)


def _problem(status: int, error: str, retry_after_s: int | None = None) -> JSONResponse:
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s else None
    return JSONResponse({"error": error}, status, headers)
