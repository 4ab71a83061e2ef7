"""What a worker shows: `/metrics` for Prometheus, `/healthz` for whoever restarts it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from socket import socket
from typing import Any, Protocol

import uvicorn
from prometheus_client import CollectorRegistry, Counter, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ..guardrails.telling import metrics as guardrails_metrics
from ..notifier_metrics import notifier_metrics
from ..residency_alerts import Refusals
from ..residency_metric import residency_metric

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
        self.notifier: Callable[[], Mapping[str, Any]] | None = None
        self._sink: Writing | None = None
        self._guardrails: Callable[[], Mapping[str, Any]] | None = None
        self.registry = CollectorRegistry()
        self.events = Counter(
            "tidegate_worker_events", "Events by what became of them, in this process", ["outcome"], registry=self.registry
        )
        self.flush_seconds = Histogram(
            "tidegate_worker_flush_seconds",
            "From the step until all is acknowledged",
            ["role"],
            buckets=_SECONDS,
            registry=self.registry,
        ).labels(role)
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
        lag = GaugeMetricFamily(
            "tidegate_worker_lag_records",
            "Records of this worker's partitions not passed",
            labels=["role", "topic", "partition"],
        )
        for (topic, partition), records in self.lags().items():
            lag.add_metric([self.role, topic, str(partition)], records)
        yield lag
        if self.stopped is not None:
            yield GaugeMetricFamily("tidegate_meter_stopped", "Partitions whose meter the brake holds", value=self.stopped())
        if self.refusals is not None:
            yield residency_metric((*labels, count) for labels, count in self.refusals.counts.copy().items())
        if self.notifier is not None:
            yield from notifier_metrics(self.notifier())
        if self._guardrails is not None:
            yield from guardrails_metrics(self._guardrails())
        sink = self._sink
        if sink is not None:
            yield CounterMetricFamily("tidegate_sink_rows", "Rows written into the store", value=sink.rows)
            yield SummaryMetricFamily(
                "tidegate_sink_batch_seconds", "One batch, until committed", sink.batches, sink.batch_seconds
            )
            yield CounterMetricFamily("tidegate_sink_refused_rows", "Rows the store refused", value=sink.refused_rows)
            yield CounterMetricFamily(
                "tidegate_sink_lost_records", "Records gone before the store had them", value=sink.lost_records
            )
            yield GaugeMetricFamily("tidegate_store_away", "1 while the store cannot be reached", value=int(sink.store_away))


class WorkerDoors:
    """The doors of one worker, in a thread of their own, so that a busy step does not make it look dead."""

    def __init__(self, metrics: WorkerMetrics, healthy: Callable[[], bool]) -> None:
        async def show(_: Request) -> Response:
            return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

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
