"""One worker process: the step of its role, its doors, and an orderly end.

    start ─► … ─► told to stop ─► hands what it has to the others ─► 0
                └► something is wrong ─► says what ─► 1, and whoever started it starts it again

A worker mends nothing in itself: it ends, and the next one begins from what was acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog
from aiokafka.errors import KafkaError

from ...schemas.errors import LogUnavailable, UsageError
from ...schemas.kafka_url import KafkaAddress
from ...schemas.settings import Settings
from ..listening import bind
from .roles import BY_NAME, Role
from .worker_doors import WorkerDoors, WorkerMetrics

log = structlog.get_logger("tidegate.worker")

_LOOK_S: Final = 0.2


async def run_worker(settings: Settings, role: str, stopping: Callable[[], bool], told: Callable[[str], None]) -> None:
    """Run one role until `stopping` says so. `told` gets the address of its doors once it works.

    Raises what went wrong: `UsageError` and `LogUnavailable` with advice, everything else as it is.
    """
    if role not in BY_NAME:
        raise UsageError(f"this version has no role {role}; choose from {', '.join(BY_NAME)}")
    bound = bind(settings.worker_host, settings.worker_port, "TIDEGATE_WORKER_PORT")
    metrics = WorkerMetrics(role)
    at_work: list[Role] = []
    doors = WorkerDoors(metrics, lambda: bool(at_work) and at_work[0].failure is None)
    try:
        doors.open(bound)
        async with BY_NAME[role](settings, metrics) as running:
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
