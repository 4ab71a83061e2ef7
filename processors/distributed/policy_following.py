"""Which policies the meter counts for: those in force and those to come, as the signals topic has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import ValidationError

from ...producers.kafka_client import client_options
from ...schemas.kafka_url import KafkaAddress
from ...schemas.policy import PolicySet
from ...schemas.settings import Settings
from ...schemas.signal import COMING_KEY, POLICIES_KEY
from ...schemas.topics import SIGNALS
from ..series import Series, series_of

log = structlog.get_logger("tidegate.meter")

# News waits for nobody at the broker; this bounds how long a stop waits for us.
_POLL_MS = 500


class PolicyFollower:
    """Follows the signals topic from its start. `changed` hears of the series to count whenever they are others."""

    def __init__(self, settings: Settings, changed: Callable[[dict[str, Series]], None]) -> None:
        self._settings = settings
        self._changed = changed
        self._known: dict[bytes, PolicySet] = {}
        self._task: asyncio.Task[None] | None = None
        self._told: set[str] | None = None

    async def start(self) -> None:
        """Hear all that was said so far, then go on hearing."""
        tp = TopicPartition(KafkaAddress.parse(self._settings.url).topic(SIGNALS), 0)
        self._consumer = AIOKafkaConsumer(
            **client_options(self._settings), enable_auto_commit=False, auto_offset_reset="earliest"
        )
        try:
            await self._consumer.start()
            self._consumer.assign([tp])
            await self._consumer.seek_to_beginning(tp)
            end = (await self._consumer.end_offsets([tp]))[tp]
            while await self._consumer.position(tp) < end:
                await self._hear()
            self._tell()
        except BaseException:
            await self._consumer.stop()
            raise
        self._task = asyncio.create_task(self._follow(), name="policy-following")

    async def _hear(self) -> bool:
        """Take in what has come; whether a policy set was among it."""
        found = False
        for records in (await self._consumer.getmany(timeout_ms=_POLL_MS)).values():
            for record in records:
                if record.key not in (POLICIES_KEY, COMING_KEY):
                    continue
                found = True
                try:
                    self._known[record.key] = PolicySet.model_validate_json(record.value) if record.value else PolicySet()
                except ValidationError as error:
                    log.error("policies_not_understood", errors=error.error_count(), advice="is this worker older?")
        return found

    async def _follow(self) -> None:
        while True:
            if await self._hear():
                self._tell()

    def _tell(self) -> None:
        series = series_of(policy for known in self._known.values() for policy in known.policies)
        if series.keys() != self._told:
            self._told = set(series)
            log.info("series_watched", series=len(series))
            self._changed(series)

    @property
    def failure(self) -> BaseException | None:
        """What ended the following, if anything did."""
        task = self._task
        return task.exception() if task is not None and task.done() and not task.cancelled() else None

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        await self._consumer.stop()
