"""The roles a worker can have: each a step of the topology, put together and taken apart in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final, Protocol

from ...producers.key_source import KeySource, key_source
from ...schemas.errors import UsageError
from ...schemas.settings import Settings
from ...schemas.topics import AUDIT, CALLS, GUARDRAILS_NAMES, METER_CHANGELOG, SIGNALS, USAGE
from ..audit_events import MIGRATED, migrated
from ..topology import GUARDRAILS, METER, NOTIFIER, POLICIES, SINK
from .worker_audit import WorkerAudit
from .worker_doors import WorkerMetrics

# What is imported within a role is needed by that role alone: a sink has no Faust in memory, a meter no store.


class Role(Protocol):
    """A step at work. `failure` is what has ended it, if anything has."""

    @property
    def failure(self) -> BaseException | None: ...


class _First:
    """The first thing that went wrong, of several that may tell of one."""

    def __init__(self) -> None:
        self.told: BaseException | None = None
        self.asked: list[Callable[[], BaseException | None]] = []

    def tell(self, error: BaseException) -> None:
        self.told = self.told or error

    @property
    def failure(self) -> BaseException | None:
        for ask in self.asked:
            self.told = self.told or ask()
        return self.told


@asynccontextmanager
async def _meter(settings: Settings, metrics: WorkerMetrics, audit: WorkerAudit) -> AsyncIterator[Role]:
    from .faust_engine import FaustEngine
    from .meter_worker import MeterWorker
    from .policy_following import PolicyFollower
    from .wire import Wire

    wrong = _First()
    async with AsyncExitStack() as last_to_first:
        wire = Wire(settings)
        await wire.start()
        last_to_first.push_async_callback(wire.stop)
        await wire.require((*METER.reads, *METER.writes, METER_CHANGELOG, SIGNALS, AUDIT))
        worker = MeterWorker(settings, wire, wrong.tell, metrics)
        following = PolicyFollower(settings, worker.watch)
        await following.start()
        last_to_first.push_async_callback(following.stop)
        faust = FaustEngine(settings, CALLS, METER.name, worker)
        wrong.asked = [lambda: following.failure, lambda: faust.failure]
        if settings.store:
            from ...sinks.clickhouse import Store
            from .past import Past

            # It is asked for the past of new policies; without that, and without the store, calls are metered all the same.
            store = Store.open(dsn=settings.store, cluster=settings.store_cluster, lazily=True)
            last_to_first.callback(store.close)
            past = await last_to_first.enter_async_context(Past(settings, store, worker.partitions))
            wrong.asked.append(lambda: past.failure)
        await faust.start()
        # Not before: who asks Faust for its consumer makes it, and this is asked by another thread.
        worker.ends, worker.hold = faust.ends, faust.hold
        metrics.lags, metrics.stopped, metrics.refusals = worker.lags, worker.stopped, worker.refusals
        metrics.accounts = worker.accounts
        last_to_first.push_async_callback(faust.stop)
        last_to_first.push_async_callback(worker.close)
        yield wrong


@asynccontextmanager
async def _policies(settings: Settings, metrics: WorkerMetrics, audit: WorkerAudit) -> AsyncIterator[Role]:
    from .faust_engine import FaustEngine
    from .policies_group import PoliciesGroup
    from .wire import Wire

    wrong = _First()
    async with AsyncExitStack() as last_to_first:
        wire = Wire(settings)
        await wire.start()
        last_to_first.push_async_callback(wire.stop)
        await wire.require((CALLS, *POLICIES.reads, *POLICIES.writes, METER_CHANGELOG, AUDIT))
        group = PoliciesGroup(settings, wire, wrong.tell, metrics, audit.tell)
        faust = FaustEngine(settings, USAGE, POLICIES.name, group)
        wrong.asked = [lambda: faust.failure]
        await faust.start()
        # Not before: who asks Faust for its consumer makes it, and this is asked by another thread.
        metrics.lags, metrics.beat = lambda: group.lags(faust.ends()), group.beat
        last_to_first.push_async_callback(faust.stop)
        last_to_first.push_async_callback(group.close)
        yield wrong


@asynccontextmanager
async def _sink(settings: Settings, metrics: WorkerMetrics, audit: WorkerAudit) -> AsyncIterator[Role]:
    from ...sinks.clickhouse import Store
    from ..folder import FolderLock, own_or_find
    from .sink import KafkaSink

    async with AsyncExitStack() as last_to_first:
        path = None
        if settings.store is None:
            # A store in a folder: one process may have it, and nobody can ask it anything meanwhile.
            found = await asyncio.to_thread(own_or_find, settings.data_dir)
            if not isinstance(found, FolderLock):
                raise UsageError(
                    f"the node (pid {found.pid}) on {settings.data_dir} writes its store itself; for sinks of their own set"
                    " TIDEGATE_STORE to a ClickHouse server"
                )
            last_to_first.callback(found.release)
            path = settings.data_dir / "store"
        store = await asyncio.to_thread(Store.open, path=path, dsn=settings.store, cluster=settings.store_cluster)
        last_to_first.callback(store.close)
        # Before, not when it is done: a start that fails then finds nothing to migrate the next time, and says nothing.
        await audit.require()
        if done := await asyncio.to_thread(store.migrate):
            await audit.append(MIGRATED, migrated(done))
        sink = KafkaSink(settings, store)
        metrics.sink(sink)
        stopping = asyncio.Event()
        running = asyncio.create_task(sink.run(stopping), name="sink")
        try:
            yield sink
        finally:
            stopping.set()
            await asyncio.wait({running})
            if not running.cancelled():
                running.exception()  # `failure` has it


@asynccontextmanager
async def _guardrails(settings: Settings, metrics: WorkerMetrics, audit: WorkerAudit) -> AsyncIterator[Role]:
    from ..guardrails.runtime import require_extra
    from .guardrails_worker import KafkaGuardrails
    from .wire import Wire

    require_extra()
    keys = ring_of(settings)
    # Whether it can be read is better said now than when the first content comes.
    await asyncio.to_thread(keys.ring)
    async with AsyncExitStack() as last_to_first:
        wire = Wire(settings)
        await wire.start()
        last_to_first.push_async_callback(wire.stop)
        await wire.require((*GUARDRAILS.reads, *GUARDRAILS.writes, SIGNALS, GUARDRAILS_NAMES, AUDIT))
        guardrails = KafkaGuardrails(settings, wire, keys)
        last_to_first.push_async_callback(guardrails.close)
        await guardrails.start()
        metrics.guardrails(lambda: guardrails.said, guardrails.lags)
        running = asyncio.create_task(guardrails.run(), name="guardrails")
        try:
            yield guardrails
        finally:
            running.cancel()
            await asyncio.wait({running})
            if not running.cancelled():
                running.exception()  # `failure` has it


@asynccontextmanager
async def _notifier(settings: Settings, metrics: WorkerMetrics, audit: WorkerAudit) -> AsyncIterator[Role]:
    from .notifier import KafkaNotifier
    from .wire import Wire

    async with AsyncExitStack() as last_to_first:
        wire = Wire(settings)
        await wire.start()
        last_to_first.push_async_callback(wire.stop)
        await wire.require((*NOTIFIER.reads, *NOTIFIER.writes, AUDIT))
        notifier = KafkaNotifier(settings, wire)
        last_to_first.push_async_callback(notifier.close)
        await notifier.start()
        metrics.lags, metrics.notifier = notifier.lags, notifier.status
        running = asyncio.create_task(notifier.run(), name="notifier")
        try:
            yield notifier
        finally:
            running.cancel()
            await asyncio.wait({running})
            if not running.cancelled():
                running.exception()  # `failure` has it


def ring_of(settings: Settings) -> KeySource:
    """Where the keys are that open content. Raises `UsageError` where no ring is named: on Kafka none is made by itself."""
    keys = key_source(settings)
    if keys is None:
        raise UsageError(
            "the guardrails need the key ring that services seal with: set TIDEGATE_KEY_FILE, TIDEGATE_KEYS or"
            " TIDEGATE_KEY_COMMAND (`tidegate keys make` makes one)"
        )
    return keys


BY_NAME: Final[dict[str, Callable[[Settings, WorkerMetrics, WorkerAudit], AbstractAsyncContextManager[Role]]]] = {
    METER.name: _meter,
    POLICIES.name: _policies,
    SINK.name: _sink,
    GUARDRAILS.name: _guardrails,
    NOTIFIER.name: _notifier,
}
