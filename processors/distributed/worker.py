"""One worker process: the step of its role, its doors, and an orderly end.

    start ─► … ─► told to stop ─► hands what it has to the others ─► 0
                ├► cannot end in order ─► ends all the same ─► 1
                └► something is wrong ─► says what ─► 2, or a traceback ─► 1; whoever started it starts it again

A worker mends nothing in itself: it ends, and the next one begins from what was acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from typing import Final

import structlog
from aiokafka.errors import KafkaError

from ...producers.kafka_trouble import translated
from ...schemas.errors import UsageError
from ...schemas.kafka_url import KafkaAddress
from ...schemas.residency_file import residency_of
from ...schemas.settings import Settings
from ..audit_events import RESIDENCY, residency_in_force, started
from ..listening import bind
from .roles import BY_NAME, Role
from .worker_audit import WorkerAudit
from .worker_doors import WorkerDoors, WorkerMetrics

log = structlog.get_logger("tidegate.worker")

_LOOK_S: Final = 0.2
# An orderly end takes a second or two, and a sink may be in the middle of an insert. With Kafka away, its clients would wait
# for it for minutes, or for ever.
_END_WITHIN_S: Final = 30.0
# To say that it ends, it waits no longer for a broker that is away.
_LAST_WORD_S: Final = 3.0


async def run_worker(settings: Settings, role: str, stopping: Callable[[], bool], told: Callable[[str], None]) -> None:
    """Run one role until `stopping` says so. `told` gets the address of its doors once it works.

    Raises what went wrong: `UsageError` and `LogUnavailable` with advice, everything else as it is.
    """
    if role not in BY_NAME:
        raise UsageError(f"this version has no role {role}; choose from {', '.join(BY_NAME)}")
    residency = residency_of(settings)  # what may not be written to is not opened
    bound = bind(settings.worker_host, settings.worker_port, "TIDEGATE_WORKER_PORT")
    metrics, audit = WorkerMetrics(role), WorkerAudit(settings)
    at_work: list[Role] = []
    doors = WorkerDoors(metrics, lambda: bool(at_work) and at_work[0].failure is None)
    cut = threading.Timer(_END_WITHIN_S, _cut_off, (role,))
    cut.daemon = True
    starting = asyncio.create_task(_break_off(asyncio.current_task(), stopping, cut))
    try:
        doors.open(bound)
        async with BY_NAME[role](settings, metrics, audit) as running:
            await audit.append("worker.started", {"role": role, **started(settings)})
            if residency is not None:
                await audit.append(RESIDENCY, residency_in_force(residency, settings.residency_file))
            starting.cancel()
            at_work.append(running)
            host, port = bound.getsockname()[:2]
            log.info("worker_started", role=role, metrics=f"http://{host}:{port}/metrics")
            told(f"http://{host}:{port}")
            while not stopping() and running.failure is None:
                await asyncio.sleep(_LOOK_S)
            cut.start()
            if running.failure is not None:
                raise running.failure
    except asyncio.CancelledError:
        if at_work or not stopping():
            raise
        log.info("worker_stopped", role=role, while_="starting")
    except KafkaError as error:
        address = KafkaAddress.parse(settings.url)
        raise translated(error, address.bootstrap, "a topic of ours") from error
    finally:
        starting.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORD_S):
                if at_work:
                    failure = at_work[0].failure
                    told_why = {"role": role, "failure": type(failure).__name__ if failure is not None else None}
                    await audit.tell("worker.stopped", told_why)
                await audit.stop()
        cut.cancel()
        doors.close()
        bound.close()


async def _break_off(start: asyncio.Task[None] | None, stopping: Callable[[], bool], cut: threading.Timer) -> None:
    """End a start that waits, for a broker that does not answer or a store that is slow, when it is not wanted any more."""
    while not stopping():
        await asyncio.sleep(_LOOK_S)
    cut.start()
    if start is not None:
        start.cancel()


def _cut_off(role: str) -> None:
    """As after kill -9: whatever is not acknowledged comes again to whoever is next."""
    log.error("worker_cut_off", role=role, waited_s=_END_WITHIN_S)
    os._exit(1)
