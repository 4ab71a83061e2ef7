"""The ClickHouse door for tenants: the questions of `tenant_question`, within bounds that leave the machine to the meter.

One question of a token at a time, two of all tenants', each with one core, 1 GB, 30 seconds and 100,000 rows. A token asks
60 times at once, and then once a second. What the engine says of an error is not passed on: it may speak of what others have.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ...schemas.errors import StoreUnavailable, TidegateError, UsageError
from ...sinks.clickhouse import Encoded, QueryRefused, Store
from ..tenant_question import FORMATS, QuestionRefused, question
from ..tenant_tokens import Grant, TenantTokens
from .body import Bodies
from .clickhouse_door import Asked, ClickHouseDoor, code_of, problem, wrong_password

log = structlog.get_logger("tidegate.tenants")

# All tenants together; operators have threads of their own.
_AT_ONCE: Final = 2
# The panels of a dashboard, asked all at once.
_WAITING: Final = 24
_TIMEOUT_S: Final = 30.0
_MAX_ROWS: Final = 100_000
# A client's greeting is three questions; a dashboard of twenty panels may be opened twice.
_BURST: Final = 60
_PER_S: Final = 1.0
# Remembered at once; strangers' addresses are without number.
_MOST_ASKERS: Final = 100_000
_QUOTA_EXCEEDED: Final = 201
_TOO_MANY: Final = 202
_UNKNOWN_FORMAT: Final = 73
_REASONS: Final = {
    6: "a parameter of the view is not what it takes",
    38: "since and until are times in UTC, such as 2026-11-01 or 2026-11-01T08:30:00Z",
    41: "since and until are times in UTC, such as 2026-11-01 or 2026-11-01T08:30:00Z",
    43: "a column is of a type that this cannot be done with",
    47: "the view has no such column; DESCRIBE it",
    53: "a column is of a type that this cannot be compared with",
    153: "division by zero",
    159: f"the answer takes longer than {_TIMEOUT_S:g} s; ask for a shorter range",
    241: "the answer takes more memory than a tenant may have; ask for a shorter range",
    386: "a column is of a type that this cannot be compared with",
    395: "`by` is none that this view knows; see docs/analysts.md",
    396: f"the answer is larger than a tenant's may be ({_MAX_ROWS:,} rows, 64 MB); give LIMIT or a shorter range",
}


class Quota:
    """How often each token may ask: a burst, and then so often a second."""

    def __init__(self, burst: int, per_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._per_s = per_s
        self._monotonic = monotonic
        self._left: dict[str, tuple[float, float]] = {}

    def wait_s(self, who: str, *, counts: bool = True) -> float:
        """0: it may, and if this `counts`, it has. Otherwise in how many seconds it may."""
        now = self._monotonic()
        left, at = self._left.get(who, (float(self._burst), now))
        left = min(self._burst, left + (now - at) * self._per_s)
        may = left >= 1
        if len(self._left) >= _MOST_ASKERS:
            self._left.clear()
        self._left[who] = (left - 1 if may and counts else left, now)
        return 0.0 if may else (1 - left) / self._per_s


class TenantDoor:
    """Answers the clients of tenants. Used from the node's event loop."""

    def __init__(self, bodies: Bodies, tokens: TenantTokens) -> None:
        self._bodies = bodies
        self._tokens = tokens
        self._pool = ThreadPoolExecutor(_AT_ONCE, "tidegate-tenants")
        self._door = ClickHouseDoor(bodies, self._pool)
        self._quota = Quota(_BURST, _PER_S)
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._waiting: Counter[str] = Counter()

    async def serve(self, request: Request, secret: str, store: Store) -> Response:
        """The answer to whoever has none of the node's tokens: a tenant, or nobody."""
        try:
            grant = self._tokens.grant_of(secret)
        except UsageError as error:
            log.error("tokens_not_read", error=str(error))
            return problem(503, 210, "the node cannot tell whose token this is; its log says why")
        if grant is None or grant.tenant is None:
            # Nobody's, or a person's of the console, which opens nothing here.
            return wrong_password()
        if grant.has_expired(self._tokens.now()):
            return problem(403, 516, f"Authentication failed: this token ended on {grant.expires_at:%Y-%m-%d}; ask for another")
        if wait_s := self._quota.wait_s(grant.id):
            return await self._later(request, _QUOTA_EXCEEDED, "too many questions; ask again in a moment", wait_s)
        if self._waiting[grant.id] >= _WAITING:
            return await self._later(request, _TOO_MANY, f"{_WAITING} questions of this token wait already", 1.0)
        client, tenant = request.client.host if request.client is not None else None, grant.tenant
        self._waiting[grant.id] += 1
        try:
            async with self._turns[grant.id]:
                return await self._door.serve(request, lambda asked: self._answer(store, asked, grant, tenant, client))
        finally:
            self._waiting[grant.id] -= 1

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    async def _later(self, request: Request, code: int, reason: str, wait_s: float) -> Response:
        with contextlib.suppress(ClientDisconnect):
            await self._bodies.discard(request)
        answer = problem(429, code, reason)
        answer.headers["Retry-After"] = str(int(wait_s) + 1)
        return answer

    def _answer(self, store: Store, asked: Asked, grant: Grant, tenant: str, client: str | None) -> Encoded:
        """Runs in a thread of the tenants'."""
        try:
            self._tokens.used(grant, client)
        except UsageError as error:
            log.error("use_not_written", token=grant.id, error=str(error))
            raise StoreUnavailable("the node cannot write down that this token was used; its log says why") from None
        asking = question(asked.sql, {name: str(value) for name, value in asked.values.items()}, tenant)
        if asked.format not in FORMATS:
            raise QuestionRefused(_UNKNOWN_FORMAT, f"a tenant's answers come as {', '.join(sorted(FORMATS))}")
        try:
            return store.answer(
                asking.sql,
                asked.format,
                asking.values,
                max_rows=_MAX_ROWS,
                # Not what the client wishes: each limit has a reader of its own, and guests would push out the operators'.
                timeout_s=_TIMEOUT_S,
                guest=True,
            )
        except StoreUnavailable:
            raise StoreUnavailable("the store cannot answer now; try again") from None
        except QueryRefused as error:
            raise in_own_words(error) from None


def in_own_words(error: TidegateError) -> QuestionRefused:
    """What a tenant is told of an engine's error: its number, and nothing that the engine says."""
    code = code_of(error) or 0
    return QuestionRefused(code, _REASONS.get(code, "the store refuses this question"))
