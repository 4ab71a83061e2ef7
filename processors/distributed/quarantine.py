"""The quarantine on Kafka. There nothing is taken out of the middle of a topic: what is released lies on until its time is
over, and nothing is dropped one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from ...producers.kafka_client import client_options
from ...schemas.errors import LogUnavailable, UsageError
from ...schemas.kafka_url import KafkaAddress
from ...schemas.settings import Settings
from ...schemas.topics import CONTENT, QUARANTINE
from ..quarantine import Held, Place, Releasing
from .call_record import decode_headers

T = TypeVar("T")

_POLL_MS: Final = 1_000
# Brokers that answer nothing for so long are away.
_SILENT_POLLS: Final = 30
# As the topic has it: two of the largest envelopes.
_MOST_BYTES: Final = 2 << 20


class KafkaQuarantine:
    """`Quarantine` on the Kafka of these settings."""

    lets_go = False

    def __init__(self, settings: Settings) -> None:
        self.where = settings.url
        address = KafkaAddress.parse(settings.url)
        self._topic, self._content = address.topic(QUARANTINE), address.topic(CONTENT)
        self._options = client_options(settings)
        self._runner = asyncio.Runner()
        self._reader: Any = None

    def held(self) -> Iterator[Held]:
        for partition in self._partitions():
            tp = TopicPartition(self._topic, partition)
            begin, end = self._bounds(tp)
            yield from self._read(tp, begin, end)

    def find(self, place: Place) -> Held | None:
        if place.partition not in self._partitions():
            return None
        tp = TopicPartition(self._topic, place.partition)
        begin, end = self._bounds(tp)
        if not begin <= place.offset < end:
            return None
        return next((held for held in self._read(tp, place.offset, end) if held.place == place), None)

    def release(self, places: Iterable[Place]) -> int:
        return self._run(self._release([held for place in places if (held := self.find(place)) is not None]))

    def drop(self, places: Iterable[Place]) -> int:
        raise UsageError(
            f"Kafka takes nothing out of the middle of a topic: what is held goes when its time is over; all of a partition"
            f" up to an offset goes with kafka-delete-records on {self._topic}"
        )

    def close(self) -> None:
        if self._reader is not None:
            self._run(self._reader.stop())
        self._runner.close()

    async def _release(self, found: list[Held]) -> int:
        releasing = Releasing()
        producer = AIOKafkaProducer(**self._options, acks="all", max_request_size=_MOST_BYTES)
        await producer.start()
        try:
            for held in found:
                envelope = releasing.envelope(held)
                await producer.send_and_wait(
                    self._content,
                    envelope.value,
                    key=envelope.producer.encode(),
                    partition=held.place.partition,
                    headers=[(name, value.encode()) for name, value in envelope.headers().items()],
                )
        finally:
            await producer.stop()
        return len(found)

    def _consumer(self) -> Any:
        if self._reader is None:
            self._reader = self._run(self._started())
        return self._reader

    async def _started(self) -> Any:
        reader = AIOKafkaConsumer(**self._options, enable_auto_commit=False, max_partition_fetch_bytes=_MOST_BYTES)
        try:
            await reader.start()
        except BaseException:
            await reader.stop()
            raise
        return reader

    def _partitions(self) -> list[int]:
        found = self._run(self._described())
        if not found:
            raise UsageError(f"there is no topic {self._topic} on {self.where}; see `tidegate topics check`")
        return found

    async def _described(self) -> list[int]:
        admin = AIOKafkaAdminClient(**self._options)
        try:
            await admin.start()
            [topic] = await admin.describe_topics([self._topic])
        finally:
            await admin.close()
        return sorted(partition["partition"] for partition in topic["partitions"])

    def _bounds(self, tp: TopicPartition) -> tuple[int, int]:
        consumer = self._consumer()
        return self._run(consumer.beginning_offsets([tp]))[tp], self._run(consumer.end_offsets([tp]))[tp]

    def _read(self, tp: TopicPartition, start: int, end: int) -> Iterator[Held]:
        consumer, silent = self._consumer(), 0

        async def begin() -> None:
            consumer.assign([tp])
            consumer.seek(tp, start)

        self._run(begin())
        while start < end:
            records = self._run(consumer.getmany(tp, timeout_ms=_POLL_MS)).get(tp, [])
            silent = 0 if records else silent + 1
            if silent >= _SILENT_POLLS:
                raise LogUnavailable(f"{self.where} does not answer")
            for record in records:
                start = record.offset + 1
                if record.offset < end:
                    place = Place(tp.partition, record.offset)
                    yield Held(place, record.timestamp, decode_headers(record.headers), record.value or b"")

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return self._runner.run(work)
        except KafkaError as error:
            raise LogUnavailable(f"{self.where}: {type(error).__name__}") from error
