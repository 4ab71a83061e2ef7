"""The past of series that are new, for the meter partitions of this worker: asked from the ClickHouse server.

Without a server (the node keeps the store to itself) nobody can be asked. The policies then wait in vain for as long as
they wait for anything, and count from when they were new.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from ...producers.kafka_client import client_options
from ...schemas.kafka_url import KafkaAddress
from ...schemas.settings import Settings
from ...schemas.topics import FINDINGS, METERED, Topic
from ...sinks.clickhouse import Store
from ..backfill import Backfill
from ..series import History, Series, Values
from ..topology import SINK
from ..watch import Watch
from .meter_partition import MeterPartition

log = structlog.get_logger("tidegate.backfill")

# A policy that is new waits up to ten seconds for its past.
_LOOK_S: Final = 0.25


class Past:
    """Counts the past of what is new, while it is entered. `partitions` are those at work here."""

    def __init__(self, settings: Settings, store: Store, partitions: Callable[[], list[MeterPartition]]) -> None:
        self._address = KafkaAddress.parse(settings.url)
        self._options = client_options(settings)
        self._partitions = partitions
        self._stored: dict[tuple[str, int], int] = {}
        self._backfill = Backfill(self, store)
        self._task: asyncio.Task[None] | None = None

    def unseeded(self) -> list[tuple[Series, int, Watch]]:
        return [(series, one.partition, watch) for one in self._partitions() for series, watch in one.unseeded()]

    def stored(self, topic: Topic, partition: int) -> int:
        return self._stored.get((topic.name, partition), 0)

    def seed(
        self,
        partition: int,
        series_id: str,
        asked: Watch,
        counted: Watch,
        history: list[History],
        top: list[tuple[Values, str, int]],
        now_s: float,
        at: Callable[[str], None],
    ) -> None:
        for one in self._partitions():
            if one.partition == partition:
                one.seed(series_id, asked, counted, history, top, now_s)
        at("2 seeded")

    async def run_once(self) -> None:
        """Ask for what can be asked for, and count what was answered."""
        if self.unseeded():
            await self._look_at_the_sink()
            self._backfill.run_once()

    async def _look_at_the_sink(self) -> None:
        admin = AIOKafkaAdminClient(**self._options)
        try:
            await admin.start()
            offsets = await admin.list_consumer_group_offsets(self._address.group(SINK.name))
        except KafkaError as error:
            # No sink has ever run, or the group moves; the next look is a moment away.
            log.info("sink_offsets_unknown", error_type=type(error).__name__)
            return
        finally:
            await admin.close()
        names = {self._address.topic(topic): topic.name for topic in (METERED, FINDINGS)}
        self._stored = {
            (names[tp.topic], tp.partition): max(found.offset, 0) for tp, found in offsets.items() if tp.topic in names
        }

    async def _run(self) -> None:
        while True:
            await self.run_once()
            await asyncio.sleep(_LOOK_S)

    @property
    def failure(self) -> BaseException | None:
        task = self._task
        return task.exception() if task is not None and task.done() and not task.cancelled() else None

    async def __aenter__(self) -> Past:
        self._task = asyncio.create_task(self._run(), name="past")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await asyncio.to_thread(self._backfill.close)
