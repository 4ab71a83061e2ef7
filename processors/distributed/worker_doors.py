"""What a worker shows: `/metrics` for Prometheus, `/healthz` for whoever restarts it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from socket import socket
from typing import Any, Protocol

import uvicorn
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import SummaryMetricFamily
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ...schemas import metrics as defined
from .. import exposition
from ..call_account import CallAccount
from ..call_metrics import call_metrics
from ..enforcement import Beat
from ..guardrails.telling import metrics as guardrails_metrics
from ..notifier_metrics import notifier_metrics
from ..residency_alerts import Refusals

Lags = dict[tuple[str, int], int]
# From a flush on an idle broker to one behind a leader election.
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Writing(Protocol):
    """What a sink tells of itself; all but the lag since it started."""

    @property
    def rows(self) -> int: ...
    @property
    def batches(self) -> int: ...
    @property
    def batch_seconds(self) -> float: ...
    @property
    def refused_rows(self) -> int: ...
    @property
    def lost_records(self) -> int: ...
    @property
    def store_away(self) -> bool: ...
    def lag(self) -> Lags: ...


class WorkerMetrics:
    """A worker's registry. Counts are of this process, so that they may be added over workers."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.lags: Callable[[], Lags] = dict
        self.stopped: Callable[[], int] | None = None
        self.refusals: Refusals | None = None
        self.accounts: Callable[[], Mapping[int, CallAccount]] | None = None
        self.beat: Callable[[], Beat | None] = lambda: None
        self.notifier: Callable[[], Mapping[str, Any]] | None = None
        self._sink: Writing | None = None
        self._guardrails: Callable[[], Mapping[str, Any]] | None = None
        self.registry = CollectorRegistry()
        self.events = exposition.counter(defined.WORKER_EVENTS, self.registry)
        self.flush_seconds = exposition.histogram(defined.FLUSH_SECONDS, self.registry, _SECONDS).labels(role)
        self.registry.register(self)

    def sink(self, sink: Writing) -> None:
        """Show what a sink does."""
        self._sink, self.lags = sink, sink.lag

    def guardrails(self, said: Callable[[], Mapping[str, Any]], lags: Callable[[], Lags]) -> None:
        """Show what guardrails do."""
        self._guardrails, self.lags = said, lags

    def describe(self) -> list[Metric]:
        # Nothing is running yet when this is registered.
        return []

    def collect(self) -> Iterator[Metric]:
        """Called by the registry on every scrape."""
        yield exposition.metrics(
            defined.WORKER_LAG,
            (((self.role, topic, str(partition)), records) for (topic, partition), records in self.lags().items()),
        )
        if self.stopped is not None:
            yield exposition.metric(defined.METER_STOPPED, self.stopped())
        if self.refusals is not None:
            yield exposition.metrics(defined.RESIDENCY_REFUSALS, self.refusals.counts.copy().items())
        if self.accounts is not None:
            yield from call_metrics(self.accounts())
        if (beat := self.beat()) is not None:
            yield exposition.metric(defined.POLICIES_BEAT, beat.at)
            yield exposition.metric(defined.GATES, beat.gates)
        if self.notifier is not None:
            yield from notifier_metrics(self.notifier())
        if self._guardrails is not None:
            yield from guardrails_metrics(self._guardrails())
        sink = self._sink
        if sink is not None:
            batches = defined.SINK_BATCH_SECONDS
            yield exposition.metric(defined.SINK_ROWS, sink.rows)
            yield SummaryMetricFamily(batches.name, batches.meaning, sink.batches, sink.batch_seconds)
            yield exposition.metric(defined.SINK_REFUSED_ROWS, sink.refused_rows)
            yield exposition.metric(defined.SINK_LOST_RECORDS, sink.lost_records)
            yield exposition.metric(defined.STORE_AWAY, int(sink.store_away))

    def render(self, accept: str | None = None) -> tuple[bytes, str]:
        """The page, and its content type."""
        return exposition.page(self.registry, accept)


class WorkerDoors:
    """The doors of one worker, in a thread of their own, so that a busy step does not make it look dead."""

    def __init__(self, metrics: WorkerMetrics, healthy: Callable[[], bool]) -> None:
        async def show(request: Request) -> Response:
            page, content_type = metrics.render(request.headers.get("accept"))
            return Response(page, media_type=content_type)

        async def health(_: Request) -> Response:
            return PlainTextResponse("ok\n") if healthy() else PlainTextResponse("not well\n", 503)

        app = Starlette(routes=[Route("/metrics", show), Route("/healthz", health)])
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    def open(self, bound: socket) -> None:
        """Answer on a bound socket."""
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [bound]}, name="tidegate-doors", daemon=True
        )
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.01)

    def close(self) -> None:
        if self._thread is not None:
            self._server.should_exit = True
            self._thread.join()
