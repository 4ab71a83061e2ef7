"""One worker process: the step of its role, its doors, and an orderly end.

    start ─► … ─► told to stop ─► hands what it has to the others ─► 0
                └► something is wrong ─► says what ─► 1, and whoever started it starts it again

A worker mends nothing in itself: it ends, and the next one begins from what was acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

import structlog
from aiokafka.errors import KafkaError

from ...schemas.errors import LogUnavailable, UsageError
from ...schemas.kafka_url import KafkaAddress
from ...schemas.settings import Settings
from ...schemas.topics import CALLS
from ..listening import bind
from ..topology import METER, POLICIES, SINK
from .worker_doors import WorkerDoors, WorkerMetrics

log = structlog.get_logger("tidegate.worker")

ROLES: Final = (METER.name, POLICIES.name, SINK.name)
_LOOK_S: Final = 0.2


class Role(Protocol):
    """A step at work. `failure` is what has ended it, if anything has."""

    @property
    def failure(self) -> BaseException | None: ...


async def run_worker(settings: Settings, role: str, stopping: Callable[[], bool], told: Callable[[str], None]) -> None:
    """Run one role until `stopping` says so. `told` gets the address of its doors once it works.

    Raises what went wrong: `UsageError` and `LogUnavailable` with advice, everything else as it is.
    """
    if role not in _ROLES:
        raise UsageError(f"this version has no role {role}; choose from {', '.join(_ROLES)}")
    bound = bind(settings.worker_host, settings.worker_port, "TIDEGATE_WORKER_PORT")
    metrics = WorkerMetrics(role)
    at_work: list[Role] = []
    doors = WorkerDoors(metrics, lambda: bool(at_work) and at_work[0].failure is None)
    try:
        doors.open(bound)
        async with _ROLES[role](settings, metrics) as running:
            at_work.append(running)
            host, port = bound.getsockname()[:2]
            log.info("worker_started", role=role, metrics=f"http://{host}:{port}/metrics")
            told(f"http://{host}:{port}")
            while not stopping() and running.failure is None:
                await asyncio.sleep(_LOOK_S)
            if running.failure is not None:
                raise running.failure
    except KafkaError as error:
        where = KafkaAddress.parse(settings.url).bootstrap
        raise LogUnavailable(
            f"Kafka at {where}: {type(error).__name__}; are the brokers there, and has `tidegate topics create` been run?"
        ) from error
    finally:
        doors.close()
        bound.close()


class _Meter:
    """The meter, its policies and its Faust."""

    def __init__(self, settings: Settings, metrics: WorkerMetrics) -> None:
        from .faust_engine import FaustEngine  # only a worker of this role needs Faust in memory
        from .meter_worker import MeterWorker
        from .policy_following import PolicyFollower
        from .wire import Wire

        self._failed: BaseException | None = None
        self.wire = Wire(settings)
        self.worker = MeterWorker(settings, self.wire, self._fail, metrics)
        self.following = PolicyFollower(settings, self.worker.watch)
        self.faust = FaustEngine(settings, CALLS, METER.name, self.worker)
        metrics.lags = lambda: self.worker.lags(self.faust.ends())

    def _fail(self, error: BaseException) -> None:
        self._failed = self._failed or error

    @property
    def failure(self) -> BaseException | None:
        return self._failed or self.following.failure or self.faust.failure


@asynccontextmanager
async def _meter(settings: Settings, metrics: WorkerMetrics) -> AsyncIterator[Role]:
    meter = _Meter(settings, metrics)
    await meter.wire.start()
    try:
        await meter.following.start()
        try:
            await meter.faust.start()
            try:
                yield meter
            finally:
                await meter.worker.close()
                await meter.faust.stop()
        finally:
            await meter.following.stop()
    finally:
        await meter.wire.stop()


_ROLES: Final[dict[str, Callable[[Settings, WorkerMetrics], Any]]] = {METER.name: _meter}
