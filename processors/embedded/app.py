"""The node's doors over HTTP.

POST /v1/events   events in (JSON, NDJSON, gzip) → 202 {"accepted", "rejected", "errors": [{"line", "error"}]}
POST /v1/query    {"sql", "format"} → the answer of the store; needs the node's own token
GET  /v1/status   totals and lags; needs the node's own token
GET  /metrics     Prometheus      GET /healthz  alive      GET /readyz  takes traffic      GET /  for people
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

import orjson
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ...dashboards.page import render
from ...producers.local_log import LocalLog
from ...schemas.envelope import Envelope
from ...schemas.errors import EnvelopeRefused, InvalidEvent, LogUnavailable, StoreUnavailable, TidegateError
from ...schemas.settings import Settings
from . import ingest
from .metrics import Metrics
from .pipeline import Pipeline

# Long enough for a heavy analytical query on one machine; short enough that a forgotten one ends.
_QUERY_TIMEOUT_S: Final = 120.0


class Doors:
    """The request handlers of one node."""

    def __init__(self, pipeline: Pipeline, settings: Settings, own_token: str, status: Callable[[], dict[str, Any]]) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._own_token = own_token
        self._status = status
        self._metrics = Metrics(status)
        self._log = LocalLog(pipeline.data_dir, fsync=settings.fsync)
        self._producer = f"node-{secrets.token_hex(8)}"
        self._next_seq = 0
        self._append_lock = threading.Lock()
        # One thread appends: SQLite takes one writer at a time anyway. Queries get their own, so that none waits for ingest.
        self._ingest_pool = ThreadPoolExecutor(1, "tidegate-ingest")
        self._query_pool = ThreadPoolExecutor(2, "tidegate-query")

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/events", self.events, methods=["POST"]),
                Route("/v1/query", self.query, methods=["POST"]),
                Route("/v1/status", self.status),
                Route("/metrics", self.metrics),
                Route("/healthz", self.healthz),
                Route("/readyz", self.readyz),
                Route("/", self.page),
            ]
        )

    def close(self) -> None:
        self._ingest_pool.shutdown()
        self._query_pool.shutdown(cancel_futures=True)
        self._log.close()

    # ingest

    async def events(self, request: Request) -> Response:
        """Events in. Once it answers 202, all of them are durable in the log."""
        if self._settings.token and not _bears(request, self._settings.token, self._own_token):
            return _problem(401, "give the node's token: Authorization: Bearer <TIDEGATE_TOKEN>")
        if self._pipeline.backlog_bytes > self._settings.max_backlog_bytes:
            return _problem(503, "the node is behind with its work; try again", retry_after_s=2)
        try:
            body = await self._body(request)
        except ClientDisconnect:
            return _problem(400, "the body ended before its length")
        except ingest.BadBody as error:
            return _problem(error.status, error.reason)
        try:
            judged = await asyncio.get_running_loop().run_in_executor(self._ingest_pool, self._take, request, body)
        except ingest.BadBody as error:
            return _problem(error.status, error.reason)
        except LogUnavailable as error:
            return _problem(503, f"the log cannot take events now: {error}", retry_after_s=1)
        answer = {"accepted": judged.accepted, "rejected": judged.rejected, "errors": judged.errors}
        self._metrics.ingested(judged.accepted, judged.rejected, len(body))
        return Response(orjson.dumps(answer), 202, media_type="application/json")

    async def _body(self, request: Request) -> bytes:
        limit = self._settings.max_body_bytes
        chunks: list[bytes] = []
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise ingest.BadBody(f"the body is larger than {limit} bytes; send it in parts", 413)
            chunks.append(chunk)
        return b"".join(chunks)

    def _take(self, request: Request, body: bytes) -> ingest.Judged:
        """Judge and append one body; runs in the ingest thread."""
        headers = request.headers
        now = datetime.now(UTC)
        try:
            encoding = headers.get("content-encoding", "identity").strip().lower()
            if encoding == "gzip":
                plain = ingest.gunzip(body, self._settings.max_body_bytes * 4)
            elif encoding in ("identity", ""):
                plain = body
            else:
                raise ingest.BadBody("Content-Encoding must be gzip or identity", 415)
            lines = ingest.split(plain, headers.get("content-type", ""))
        except ingest.BadBody as error:
            self._append(*self._identity(headers, None), [ingest.rejection(body, error.reason, "http", None, now)])
            raise
        producer, seq, dropped = self._identity(headers, len(lines))
        judged = ingest.judge(lines, "http", now)
        self._append(producer, seq, dropped, judged.lines)
        return judged

    def _identity(self, headers: Any, count: int | None) -> tuple[str | None, int, int]:
        """Who numbers these events: the producer itself, the client's Idempotency-Key, or this node (None)."""
        producer = headers.get("x-tidegate-producer")
        if producer is not None and count is not None:
            numbered = {
                "schema": headers.get("x-tidegate-schema", "calls/1"),
                "producer": producer,
                "seq": headers.get("x-tidegate-seq", ""),
                "count": headers.get("x-tidegate-count", str(count)),
                "dropped": headers.get("x-tidegate-dropped", "0"),
            }
            try:
                envelope = Envelope.from_record(numbered, b"")
            except InvalidEvent as error:
                raise ingest.BadBody(error.reason.replace("envelope header", "header x-tidegate-")) from None
            if envelope.count != count:
                raise ingest.BadBody(f"x-tidegate-count says {envelope.count} events, the body holds {count}")
            return producer, envelope.seq, envelope.dropped
        if (key := headers.get("idempotency-key")) is not None and count is not None:
            return f"http-{sha256(key.encode()).hexdigest()[:32]}", 0, 0
        return None, 0, 0

    def _append(self, producer: str | None, seq: int, dropped: int, lines: list[bytes]) -> None:
        if not lines:
            return
        with self._append_lock:
            if producer is None:
                producer, seq = self._producer, self._next_seq
                self._next_seq += len(lines)
            try:
                self._log.append(ingest.envelopes(producer, seq, lines, dropped))
            except EnvelopeRefused as error:
                raise ingest.BadBody(str(error), 413) from error

    # answers

    async def query(self, request: Request) -> Response:
        """The store's answer to one read-only statement."""
        if not _bears(request, self._own_token, self._settings.token):
            return _problem(401, "queries need the token in the data folder's node.json (or TIDEGATE_TOKEN)")
        try:
            asked = orjson.loads(await request.body())
            sql, form = str(asked["sql"]), str(asked.get("format", "JSONCompact"))
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return _problem(400, 'send {"sql": "SELECT …", "format": "JSONCompact"}')
        loop = asyncio.get_running_loop()
        try:
            answer = await loop.run_in_executor(
                self._query_pool, lambda: self._pipeline.store.query_bytes(sql, form, timeout_s=_QUERY_TIMEOUT_S)
            )
        except StoreUnavailable as error:
            return _problem(503, str(error), retry_after_s=1)
        except TidegateError as error:
            return _problem(400, str(error))
        return Response(answer, media_type="application/octet-stream")

    async def status(self, request: Request) -> Response:
        if not _bears(request, self._own_token, self._settings.token):
            return _problem(401, "status needs the token in the data folder's node.json (or TIDEGATE_TOKEN)")
        return Response(orjson.dumps(self._status()), media_type="application/json")

    async def metrics(self, _request: Request) -> Response:
        return Response(self._metrics.render(), media_type=self._metrics.content_type)

    async def healthz(self, _request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(self, _request: Request) -> Response:
        behind = self._pipeline.backlog_bytes > self._settings.max_backlog_bytes
        ready = self._pipeline.healthy and not self._pipeline.store_away and not behind
        reason = "ready" if ready else "store away" if self._pipeline.store_away else "behind" if behind else "pipeline ended"
        return PlainTextResponse(reason + "\n", 200 if ready else 503)

    async def page(self, _request: Request) -> Response:
        return HTMLResponse(render(self._status()))


def _bears(request: Request, *tokens: str | None) -> bool:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return False
    return any(token and hmac.compare_digest(given.strip().encode(), token.encode()) for token in tokens)


def _problem(status: int, error: str, retry_after_s: int | None = None) -> JSONResponse:
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s else None
    return JSONResponse({"error": error}, status, headers)
