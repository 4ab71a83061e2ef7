"""What a guardrails worker hears of others: the scopes that policies are not at ease with, and the names that were met.

signals ────────► WatchedScopes ─┐
guardrails.names ────────────────┴─► Sampling, in the thread that uses it
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from ...producers.kafka_client import client_options
from ...schemas.kafka_url import KafkaAddress
from ...schemas.settings import Settings
from ...schemas.topics import GUARDRAILS_NAMES, SIGNALS
from ..guardrails.sampling import Sampling
from ..guardrails.watched import WatchedScopes
from .names_met import load_names
from .wire import Wire

_POLL_MS: Final = 1_000
# A topic that nobody has cleaned yet may have many more records than there are names to know.
_AT_ONCE: Final = 1_000


class Hearing:
    """`recall` once, then `follow` until cancelled. `apply` runs a change of the sampling where nobody else uses it."""

    def __init__(self, settings: Settings, apply: Callable[[Callable[[Sampling], None]], Awaitable[Any]]) -> None:
        address = KafkaAddress.parse(settings.url)
        self._options = client_options(settings)
        self._signals = TopicPartition(address.topic(SIGNALS), 0)
        self._names = TopicPartition(address.topic(GUARDRAILS_NAMES), 0)
        self._apply = apply
        self._next = 0

    async def recall(self, wire: Wire) -> None:
        """Know all names that were met until now."""
        records: list[ConsumerRecord] = []
        async for record in wire.follow(GUARDRAILS_NAMES, 0):
            records.append(record)
            self._next = record.offset + 1
            if len(records) == _AT_ONCE:
                await self._restore(records)
                records = []
        await self._restore(records)

    async def _restore(self, records: list[ConsumerRecord]) -> None:
        await self._apply(lambda sampling: sampling.restore(load_names(records)))

    async def follow(self) -> None:
        """Know what is said and met from now on."""
        watched = WatchedScopes()
        consumer = AIOKafkaConsumer(**self._options, enable_auto_commit=False, auto_offset_reset="earliest")
        try:
            await consumer.start()
            consumer.assign([self._signals, self._names])
            consumer.seek(self._names, self._next)
            while True:
                found = await consumer.getmany(timeout_ms=_POLL_MS)
                for record in found.get(self._signals, []):
                    watched.hear(record.key or b"", record.value or b"")
                scopes, names = watched.scopes(), load_names(found.get(self._names, []))

                def change(sampling: Sampling, scopes: Any = scopes, names: Any = names) -> None:
                    sampling.watched = scopes
                    sampling.restore(names)

                if found:
                    await self._apply(change)
        finally:
            await consumer.stop()
