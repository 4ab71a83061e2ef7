"""The notifier on Kafka: one member of its group has the one partition of alerts, the others wait to take over.

    alerts ─► hear ─► the offset ─► incidents, one batch, acknowledged ─► send ─► delivered, with the next batch

What is known is in the compacted topic of incidents, with the offset up to which alerts were heard: whoever takes over reads
it from its start, and goes on there. A worker that was frozen while it was replaced may send once more what it was sending,
under the same id.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from ...producers.kafka_client import client_options
from ...schemas.kafka_url import KafkaAddress
from ...schemas.settings import Settings
from ...schemas.signal import Alert
from ...schemas.topics import ALERTS, INCIDENTS
from ...sinks.notify import deliver
from ..notifier import Notifier, last_words, readable, tell_log
from ..on_call_watch import OnCallWatch
from ..sending import Sending
from ..topology import NOTIFIER
from .wire import Wire

log = structlog.get_logger("tidegate.notifier")

_LOOK_MS: Final = 200
# Kafka is away: nothing is lost, and nothing can be kept, so nothing is sent.
_PAUSE_S: Final = 2.0


class KafkaNotifier:
    """One member of the group. `run` until cancelled; `failure` is what a person must mend. `clock` is seconds since 1970."""

    def __init__(self, settings: Settings, wire: Wire, *, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._wire = wire
        self._clock = clock
        self._watch = OnCallWatch(settings.on_call_file)
        self._address = KafkaAddress.parse(settings.url)
        self._tp = TopicPartition(self._address.topic(ALERTS), 0)
        self._consumer: Any = None
        self._notifier: Notifier | None = None
        self.sending = Sending(deliver)
        self.failure: BaseException | None = None

    async def start(self) -> None:
        self._consumer = AIOKafkaConsumer(
            self._tp.topic,
            **client_options(self._settings),
            group_id=self._address.group(NOTIFIER.name),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=int(self._settings.worker_session_s * 1_000),
        )
        await self._consumer.start()

    async def run(self) -> None:
        """Tell people until cancelled."""
        try:
            while True:
                try:
                    await self.run_once()
                except KafkaError as error:
                    log.warning("notifier_waits", error=type(error).__name__, retry_in_s=_PAUSE_S)
                    self._notifier = None  # what was written of it is read again
                    await asyncio.sleep(_PAUSE_S)
        except Exception as error:
            self.failure = error
            raise

    async def run_once(self) -> None:
        """Hear what is new, keep it, and send what is due; or only look whether the partition is ours now."""
        found = (
            await self._consumer.getmany(self._tp, timeout_ms=_LOOK_MS)
            if self._has_it()
            else await self._consumer.getmany(timeout_ms=_LOOK_MS)
        )
        if not self._has_it():
            self._notifier = None
            return
        now = self._clock()
        if self._notifier is None:
            await self._take_up(now)
            return  # read again from where it goes on
        notifier = self._notifier
        problem = self._watch.problem
        notifier.on_call = self._watch.poll(now)
        if self._watch.problem and self._watch.problem != problem:
            log.error("on_call_file_refused", error=self._watch.problem)
        records = found.get(self._tp, [])
        told = notifier.hear(_alerts(records), now, problem=self._watch.problem)
        self.sending.note(notifier, now)
        if records:
            notifier.heard_to = records[-1].offset + 1
        await self._keep()
        tell_log(told)
        self.sending.begin(notifier, now)

    def _has_it(self) -> bool:
        return self._tp in self._consumer.assignment()

    async def _take_up(self, now: float) -> None:
        """Read what is known. Where nothing is, what lies in the topic of alerts is history."""
        memory = last_words([(record.key or b"", record.value or b"") async for record in self._wire.follow(INCIDENTS, 0)])
        notifier = Notifier(memory.items(), self._watch.poll(now))
        if notifier.is_new:
            history = [record async for record in self._wire.follow(ALERTS, 0)]
            notifier.adopt(_alerts(history), now)
            notifier.heard_to = history[-1].offset + 1 if history else 0
        self._notifier = notifier
        await self._keep()
        # Retention may have let go of what was not heard; then the oldest that is there is next.
        begin = (await self._consumer.beginning_offsets([self._tp]))[self._tp]
        if notifier.heard_to < begin:
            log.error("alerts_lost", count=begin - notifier.heard_to)
        self._consumer.seek(self._tp, max(notifier.heard_to, begin))

    async def _keep(self) -> None:
        notifier = self._notifier
        if notifier is None or not (changes := notifier.changes()):
            return
        # First, although it says too much for a moment: whoever takes over goes by the memory, and who was replaced while
        # it stood still is told so here, before it writes what it knew then.
        await self._consumer.commit({self._tp: notifier.heard_to})
        written = await self._wire.send_flush(INCIDENTS, 0, [(key, value or None) for key, value in changes])
        await written
        notifier.written(changes)

    def lags(self) -> dict[tuple[str, int], int]:
        """Alerts that were not heard yet, where the partition is ours."""
        if self._notifier is None or not self._has_it():
            return {}
        end = self._consumer.highwater(self._tp)
        return {(ALERTS.name, 0): max(0, (end or 0) - self._notifier.heard_to)}

    def status(self) -> dict[str, Any]:
        """As a data folder's notifier tells it; nothing is open where another one works."""
        notifier = self._notifier
        return {
            "incidents": notifier.phases() if notifier is not None else {},
            "waiting": len(notifier.deliveries) if notifier is not None else 0,
            **self.sending.counts(),
            "problem": self._watch.problem,
        }

    async def close(self) -> None:
        await asyncio.to_thread(self.sending.close)
        try:
            if self._notifier is not None and self._has_it():
                self.sending.note(self._notifier, self._clock())
                await self._keep()
        except KafkaError:
            log.warning("notifier_closed_without_a_note")
        if self._consumer is not None:
            await self._consumer.stop()


def _alerts(records: list[Any]) -> list[Alert]:
    return readable((record.offset, record.value or b"") for record in records)
