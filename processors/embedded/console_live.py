"""`GET /console/live`: a board's panels, the node's status, incidents and budgets as server-sent events, as they change.

    panel      {"key", "columns", "rows", "as_of", "took_ms"}      when its answer has changed
    problem    {"key", "error"}                                    in its place, when it cannot be answered
    status     each second, more rarely where a look takes long
    incidents, budgets                                             when they change
    ping       {"at"}                                              every 15 s: the stream is alive

Each question is asked once, however many look (`console_hub`), in two threads, with one core each; one that waits for its turn
when the last viewer leaves is not asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from ...dashboards.answers import FORMAT, Rows, rows_of
from ...dashboards.definitions import board, chosen
from ...dashboards.live_status import Rates, shown
from ...dashboards.panel import Panel
from ...dashboards.ranges import Range, iso
from ...schemas.errors import Backpressure
from ...sinks.clickhouse import Store
from ..console_access import Digests
from .console_hub import Hub, Said, Source, Unwanted, Wanted

_THREADS: Final = 2
# Longer than the longest range takes on a slow machine; what takes longer is told as a problem.
_TIMEOUT_S: Final = 30.0
_MOST_ROWS: Final = 20_000
_PING_S: Final = 15
# How soon a browser comes back when the stream has broken off.
_RETRY_MS: Final = 2_000
_SEND_TIMEOUT_S: Final = 30.0
# Each viewer is a connection and a mailbox of some hundred kilobytes.
_MOST_VIEWERS: Final = 200
_STATUS_PACE_S: Final = 1.0
# How long a stream goes on without a look at whether it still may.
_LOOK_S: Final = 1.0


class ConsoleLive:
    """The streams of one node. Used from its event loop."""

    def __init__(self, store: Callable[[], Store], status: Callable[[], dict[str, Any]], digests: Digests) -> None:
        self._store = store
        self._status = status
        self._digests = digests
        self._pool = ThreadPoolExecutor(_THREADS, "tidegate-console")
        # What there is to choose, and budgets, do not wait for panels.
        self._lists = ThreadPoolExecutor(1, "tidegate-console-lists")
        self._calls, self._cost = Rates(), Rates()
        self._viewers = 0
        self.hub = Hub()
        self.closing = False

    def stream(
        self, request: Request, beside: Callable[[str, str], Sequence[Source]], may: Callable[[], bool]
    ) -> EventSourceResponse:
        """The stream of one viewer, which ends when it `may` not go on; `beside` gives the sources of a board and tenant that
        are no panels. Raises `UsageError` where what is asked for is not there, `Backpressure` when there are too many."""
        asked = request.query_params
        shown_board, stretch, values = board(asked.get("board", "overview")), Range.read(asked), chosen(asked)
        if self._viewers >= _MOST_VIEWERS:
            raise Backpressure(f"{_MOST_VIEWERS} people look already; try again", 10)
        sources = [self._panel(panel, shown_board.key, stretch, values) for panel in shown_board.panels]
        sources = [
            Source("status", "status", self._status_now, _STATUS_PACE_S),
            *beside(shown_board.key, values["tenant"]),
            *sources,
        ]
        return EventSourceResponse(
            self._events(sources, may), ping=_PING_S, ping_message_factory=_ping, send_timeout=_SEND_TIMEOUT_S
        )

    async def _events(self, sources: Sequence[Source], may: Callable[[], bool]) -> AsyncIterator[ServerSentEvent]:
        self._viewers += 1
        try:
            with self.hub.viewing(sources) as mailbox:
                yield ServerSentEvent(comment="hello", retry=_RETRY_MS)
                while not self.closing and may():
                    for event in await mailbox.news(_LOOK_S):
                        yield ServerSentEvent(event.data.decode(), event=event.name)
        finally:
            self._viewers -= 1

    async def ask(self, sql: str, parameters: dict[str, Any], wanted: Wanted | None = None) -> tuple[Rows, float]:
        """One question to the store, and how long it took; those of panels are `wanted` as long as somebody looks, and stand in
        a queue of their own. Raises `TidegateError`, and `Unwanted`."""

        def answered() -> tuple[Rows, float]:
            if wanted is not None and not wanted():
                raise Unwanted
            began = time.monotonic()
            asked = {name: value for name, value in parameters.items() if f"{{{name}:" in sql}
            answer = self._store().answer(sql, FORMAT, asked, max_rows=_MOST_ROWS, timeout_s=_TIMEOUT_S, guest=True)
            return rows_of(answer.data), time.monotonic() - began

        pool = self._pool if wanted is not None else self._lists
        return await asyncio.get_running_loop().run_in_executor(pool, answered)

    def _panel(self, panel: Panel, of_board: str, stretch: Range, values: dict[str, str]) -> Source:
        async def ask(wanted: Wanted) -> Said:
            since, until = stretch.bounds(datetime.now(UTC))
            parameters = values | {"since": iso(since), "until": iso(until), "step_s": stretch.step_s}
            found, took_s = await self.ask(panel.sql, parameters, wanted)
            body = {"key": panel.key, "columns": found.columns, "rows": found.rows}
            beside = {"as_of": iso(until.replace(microsecond=0)), "took_ms": round(took_s * 1e3)}
            beside |= {"since": parameters["since"], "until": parameters["until"], "step_s": stretch.step_s}
            return Said("panel", body, beside, took_s)

        used = tuple(sorted((name, value) for name, value in values.items() if f"{{{name}:" in panel.sql))
        return Source(("panel", of_board, panel.key, stretch, used), panel.key, ask, stretch.pace_s)

    async def _status_now(self, _wanted: Wanted) -> Said:
        def looked() -> tuple[dict[str, Any], float]:
            # A node with many scopes walks over all of them: what that takes of a core is the meter's.
            began = time.thread_time()
            return self._status(), time.thread_time() - began

        status, cost_s = await run_in_threadpool(looked)
        told = shown(status, self._calls, self._cost, time.monotonic(), self._digests)
        return Said("status", told, {"at": iso(datetime.now(UTC).replace(microsecond=0))}, cost_s)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._lists.shutdown(cancel_futures=True)


def _ping() -> ServerSentEvent:
    return ServerSentEvent(f'{{"at":"{iso(datetime.now(UTC).replace(microsecond=0))}"}}', event="ping")
