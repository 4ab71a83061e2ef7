"""One worker of the policies: the partitions of the usage topic that the group has given it.

    assigned ─► loading ─► blocks taken ─► judged, published ─► acked ─► revoked: published once more, and let go

What comes back after a rebalance is loaded anew: another worker may have spoken in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from ...schemas.errors import LogUnavailable
from ...schemas.settings import Settings
from ...schemas.topics import CALLS, USAGE
from ..enforcement import Beat, beat_of
from .call_record import CallRecord
from .policies_worker import PoliciesPartition, Tell
from .wire import Wire
from .worker_doors import Lags, WorkerMetrics

log = structlog.get_logger("tidegate.policies")

# A block is a flush of one meter; the blocks of the others are a moment away.
_GATHER_S: Final = 0.005
_RETRY_S: Final = 1.0


@dataclass(slots=True)
class _Ours:
    partition: PoliciesPartition
    loading: asyncio.Task[None]
    taken: list[Callable[[], Any]] = field(default_factory=list)
    next_offset: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)
    running: asyncio.Task[None] | None = None


class PoliciesGroup:
    """`Hands` of the policies. `failed` is told of the first thing that went wrong; nothing is taken from then on."""

    def __init__(
        self, settings: Settings, wire: Wire, failed: Callable[[BaseException], None], metrics: WorkerMetrics, tell: Tell
    ) -> None:
        self._settings = settings
        self._wire = wire
        self._told = failed
        self._metrics = metrics
        self._tell = tell
        self._ours: dict[int, _Ours] = {}
        self._broken = False

    def lags(self, ends: dict[int, int]) -> Lags:
        """Blocks not judged yet, where `ends` says where partitions end."""
        return {
            (USAGE.name, number): max(ends[number] - one.next_offset, 0)
            for number, one in self._ours.items()
            if number in ends and one.next_offset
        }

    def beat(self) -> Beat | None:
        """The oldest word that gates have from our partitions, and how many gates live."""
        found = [one.partition.enforcement for one in list(self._ours.values())]
        return beat_of([one for one in found if one is not None])

    async def take(self, partition: int, record: CallRecord) -> None:
        ours = self._ours.get(partition)
        if ours is None or self._broken:
            return
        # Neither its failing nor its being revoked while it loads may end the agent that waits here.
        await asyncio.wait({ours.loading})
        if ours.loading.cancelled() or ours.loading.exception() is not None:
            return
        ours.partition.take(record.headers, record.value, record.offset)
        ours.taken.append(record.passed)
        ours.next_offset = record.offset + 1
        ours.news.set()

    async def assigned(self, partitions: set[int]) -> None:
        for number in partitions:
            self._ours[number] = _Ours(
                partition := PoliciesPartition(self._settings, number, await self._wire.partitions(CALLS), tell=self._tell),
                asyncio.create_task(partition.load(), name=f"policies-loading-{number}"),
            )
            self._ours[number].running = asyncio.create_task(self._run(self._ours[number]), name=f"policies-{number}")
        log.info("partitions_assigned", step="policies", partitions=sorted(partitions))

    async def _run(self, ours: _Ours) -> None:
        try:
            await ours.loading
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(ours.partition.next_due - time.time(), 0.0)):
                        await ours.news.wait()
                        await asyncio.sleep(_GATHER_S)
                await self._judge(ours)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 — a task's death must be seen by the worker, which then ends
            self._failed(error)

    async def _judge(self, ours: _Ours) -> None:
        ours.news.clear()
        taken, ours.taken = ours.taken, []
        begun = time.monotonic()
        try:
            told = await ours.partition.run_once()
        except LogUnavailable as error:
            log.warning("policies_wait", error=str(error), retry_in_s=_RETRY_S)
            ours.taken = taken + ours.taken
            await asyncio.sleep(_RETRY_S)
            return
        if told:
            self._metrics.events.labels("signals").inc(told)
            self._metrics.flush_seconds.observe(time.monotonic() - begun)
        for passed in taken:
            passed()

    async def revoked(self) -> None:
        gone, self._ours = self._ours, {}
        for ours in gone.values():
            if ours.running is not None:
                ours.running.cancel()
                await asyncio.wait({ours.running})
            if not ours.loading.done():
                ours.loading.cancel()
                await asyncio.wait({ours.loading})
            elif not ours.loading.cancelled() and ours.loading.exception() is None:
                if not self._broken:
                    await self._last_word(ours)
                await ours.partition.close()

    async def _last_word(self, ours: _Ours) -> None:
        try:
            await self._judge(ours)
        except Exception as error:  # noqa: BLE001 — the next owner says it
            log.warning("last_word_unsaid", error_type=type(error).__name__)

    def _failed(self, error: BaseException) -> None:
        if not self._broken:
            self._broken = True
            self._told(error)

    async def close(self) -> None:
        await self.revoked()
