"""POST /v1/content: sealed texts in, for the guardrails. The node holds no key here and opens nothing.

Bodies are those of /v1/events, with events of schema `content/1`. It is apart from that door in everything, bodies under way,
thread and connection included: what fills up here keeps no call out.

202 {"accepted"}               all of it is durable; what may not rest here by the residency map is {"rejected", "errors"},
                               and only its fingerprint goes on
422 {"errors": [{"line", "error"}]}   a line is no content event. Nothing of the body is kept, not even a dead letter: it may
                               hold texts in the clear
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from ...producers.ports import Log
from ...schemas.content import decode_content
from ...schemas.envelope import CONTENT_SCHEMA, MAX_ENVELOPE_BYTES
from ...schemas.errors import InvalidEvent
from ...schemas.residency import Residency
from . import ingest
from .body import Bodies
from .intake import Intake

# With its sealed texts at their longest and every name at its own; one envelope holds it.
MAX_CONTENT_EVENT_BYTES: Final = MAX_ENVELOPE_BYTES - 20_000

Identity = Callable[[Mapping[str, str], int, str], tuple[str | None, int, int]]


class ContentDoor:
    """The handler of one node. `identity` reads who numbers the lines of a body; the caller has checked the token."""

    def __init__(self, log: Log, max_body_bytes: int, identity: Identity, residency: Residency | None = None) -> None:
        self._intake = Intake(log, CONTENT_SCHEMA)
        self._bodies = Bodies(max_body_bytes)
        self._max_body_bytes = max_body_bytes
        self._identity = identity
        self._residency = residency
        self._pool = ThreadPoolExecutor(1, "tidegate-content")

    def close(self) -> None:
        self._pool.shutdown()

    async def discard(self, request: Request) -> None:
        """Let the sender finish, whose body is not wanted."""
        await self._bodies.discard(request)

    async def serve(self, request: Request) -> Response:
        """Once it answers 202, all of it is durable in the log. Raises `ClientDisconnect`, `NoRoom`, `TooLarge`, `BadBody`,
        `LogUnavailable`."""
        async with self._bodies.read(request) as body:
            loop = asyncio.get_running_loop()
            status, answer, headers = await loop.run_in_executor(self._pool, self._take, request.headers, body)
        return Response(orjson.dumps(answer), status, headers, media_type="application/json")

    def _take(self, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, Any], dict[str, str]]:
        plain = ingest.unpack(body, headers.get("content-encoding", ""), self._max_body_bytes * 4)
        lines = ingest.split(plain, headers.get("content-type", ""))
        producer, seq, dropped = self._identity(headers, len(lines), CONTENT_SCHEMA)
        if errors := judge_content(lines):
            return 422, {"error": "not content events; nothing was kept", "errors": errors}, {}
        judged = allowed_here(lines, self._residency, datetime.now(UTC))
        position = self._intake.append(producer, seq, dropped, judged.lines)
        told = {}
        if position is not None:
            told = {"X-Tidegate-Partition": str(position.partition), "X-Tidegate-Offset": str(position.offset)}
        answer: dict[str, Any] = {"accepted": judged.accepted}
        if judged.rejected:
            answer |= {"rejected": judged.rejected, "errors": judged.errors}
        return 202, answer, told


def allowed_here(lines: list[ingest.Line], residency: Residency | None, now: datetime) -> ingest.Judged:
    """Content events as they go into the log: one that may not rest here is replaced by a `rejected` event, which the
    guardrails hand on under its number."""
    judged = ingest.Judged()
    for number, line in lines:
        crossed = None
        if residency is not None:
            event = decode_content(line)
            crossed = residency.refusal(event.tenant, event.region)
        if residency is None or crossed is None:
            judged.accepted += 1
            judged.lines.append(line)
            continue
        reason = residency.reason(crossed)
        judged.rejected += 1
        judged.lines.append(ingest.rejection(line, reason, "content", number, now, crossed=crossed))
        if len(judged.errors) < ingest.MAX_ERRORS_TOLD:
            judged.errors.append({"line": number, "error": reason})
    return judged


def judge_content(lines: list[ingest.Line]) -> list[dict[str, object]]:
    """What is wrong with which lines, the first hundred of them; empty when all are content events."""
    errors: list[dict[str, object]] = []
    for number, line in lines:
        try:
            if len(line) > MAX_CONTENT_EVENT_BYTES:
                raise InvalidEvent(f"a content event may be at most {MAX_CONTENT_EVENT_BYTES} bytes")
            decode_content(line)
        except InvalidEvent as error:
            errors.append({"line": number, "error": error.reason})
            if len(errors) == ingest.MAX_ERRORS_TOLD:
                break
    return errors
