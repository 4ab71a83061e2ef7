"""One worker of the meter: the partitions of `calls` that the group has given it, each with its state.

    assigned ─► loading ─► at work ─► revoked: flushed to the end, at rest ─► still ours? as it was : let go

A partition that stays ours over a rebalance keeps its state, unless somebody else has written to its changelog meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from ...schemas.errors import UsageError
from ...schemas.residency_file import residency_of
from ...schemas.settings import Settings
from ...schemas.topics import CALLS, METER_CHANGELOG, USAGE
from ..call_account import CallAccount
from ..letters import Keeper
from ..pricing import PriceBook
from ..residency_alerts import Refusals
from ..series import Series
from .call_record import CallRecord
from .meter_brake import Hold
from .meter_partition import MeterPartition
from .wire import Wire
from .worker_doors import Lags, WorkerMetrics

log = structlog.get_logger("tidegate.meter")


class MeterWorker:
    """`Hands` of the meter. `failed` is told of the first thing that went wrong; nothing is taken from then on."""

    def __init__(self, settings: Settings, wire: Wire, failed: Callable[[BaseException], None], metrics: WorkerMetrics) -> None:
        # Where each partition of `calls` ends, as far as the last fetch knew.
        self.ends: Callable[[], dict[int, int]] = dict
        self.hold: Hold = lambda _partition, _held: None
        self._keeper = Keeper.of(settings)
        self._residency = residency_of(settings)
        self.refusals = Refusals(self._residency)
        self._metrics = metrics
        self._settings = settings
        self._wire = wire
        self._told = failed
        self._book = PriceBook.load(settings.price_file)
        self._series: dict[str, Series] = {}
        self._ours: dict[int, asyncio.Task[MeterPartition]] = {}
        self._broken = False

    def watch(self, series: dict[str, Series]) -> None:
        """Count these series in every partition."""
        self._series = series
        for partition in self.partitions():
            partition.watch(series)

    def partitions(self) -> list[MeterPartition]:
        """Those at work."""
        # A scrape asks from another thread while partitions come and go.
        return [task.result() for task in list(self._ours.values()) if _is_at_work(task)]

    def lags(self) -> Lags:
        """Records not flushed yet."""
        ends = self.ends()
        return {
            (CALLS.name, one.partition): max(ends[one.partition] - one.state.next_offset, 0)
            for one in self.partitions()
            if one.partition in ends
        }

    def accounts(self) -> dict[int, CallAccount]:
        """What is counted of calls, by partition."""
        return {one.partition: one.state.usage.account for one in self.partitions()}

    def stopped(self) -> int:
        """How many partitions the brake holds."""
        return sum(one.state.brake.stopped for one in self.partitions())

    async def take(self, partition: int, record: CallRecord) -> None:
        ours = self._ours.get(partition)
        if ours is None or self._broken:
            return  # not acked: its next owner gets it
        # Neither its failing nor its being let go of while it loads may end the agent that waits here.
        await asyncio.wait({ours})
        if not _is_at_work(ours):
            return
        try:
            await ours.result().take(record)
        except Exception as error:  # noqa: BLE001 — the engine's per-record boundary
            self._failed(error)

    async def assigned(self, partitions: set[int]) -> None:
        for gone in self._ours.keys() - partitions:
            await self._let_go(self._ours.pop(gone))
        for partition in partitions:
            self._ours[partition] = asyncio.create_task(self._bring(partition, self._ours.get(partition)))
        log.info("partitions_assigned", step="meter", partitions=sorted(partitions))

    async def revoked(self) -> None:
        try:
            await asyncio.gather(*(partition.rest() for partition in self.partitions()))
        except Exception as error:  # noqa: BLE001 — what is not flushed comes again to whoever is next
            self._failed(error)

    async def _bring(self, partition: int, before: asyncio.Task[MeterPartition] | None) -> MeterPartition:
        try:
            if before is not None:
                known = await before
                kept = False
                try:
                    kept = known.changelog_end == await self._wire.end(METER_CHANGELOG, partition)
                finally:
                    if not kept:
                        await known.close()
                if kept:
                    await self._look_at_the_end_of(known)
                    known.go_on()
                    return known
            usage_partitions = await self._wire.partitions(USAGE)
            fresh = MeterPartition(
                partition,
                self._wire,
                self._settings,
                self._book,
                usage_partitions,
                self._metrics,
                failed=self._failed,
                end_of=lambda number: self.ends().get(number),
                keeper=self._keeper,
                residency=self._residency,
                refusals=self.refusals,
                hold=lambda number, held: self.hold(number, held),
            )
            await fresh.load(self._series)
            await self._look_at_the_end_of(fresh)
            return fresh
        except Exception as error:
            self._failed(error)
            raise

    async def _look_at_the_end_of(self, one: MeterPartition) -> None:
        """Raises `UsageError` when records that we have applied are gone: new ones would be taken for those."""
        end = await self._wire.end(CALLS, one.partition)
        if end < one.expected:
            await one.close()
            raise UsageError(
                f"partition {one.partition} of {self._wire.address.topic(CALLS)} ends at {end}, but {one.expected} records of"
                " it are metered: it was made anew, or its brokers have lost records. What was derived from it fits no more:"
                " begin a new namespace, at the end of TIDEGATE_URL, or delete all topics of this one and make them anew"
            )

    async def _let_go(self, task: asyncio.Task[MeterPartition]) -> None:
        if _is_at_work(task):
            await task.result().close()
        else:
            task.cancel()

    def _failed(self, error: BaseException) -> None:
        if not self._broken:
            self._broken = True
            self._told(error)

    async def close(self) -> None:
        """See everything off, unless something is broken, and end."""
        if not self._broken:
            await self.revoked()
        for task in self._ours.values():
            await self._let_go(task)
        self._ours.clear()


def _is_at_work(task: asyncio.Task[MeterPartition]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None
