"""The quarantine on Kafka. There nothing is taken out of the middle of a topic: what is released lies on until its time is
over, and nothing is dropped one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator
from itertools import groupby
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from ...producers.kafka_client import client_options
from ...schemas.envelope import Envelope
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
# Some hundred kilobytes are read in the time that looking elsewhere takes.
_NEAR: Final = 100


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
        return next(self._those([place]), None)

    def release(self, places: Iterable[Place]) -> int:
        """One text at a time is in memory, and all of a stretch are read at once: there may be as many as a topic holds."""
        producer = self._run(_started(AIOKafkaProducer, **self._options, acks="all", max_request_size=_MOST_BYTES))
        releasing, released = Releasing(), 0
        try:
            for held in self._those(places):
                self._run(self._send(producer, held.place.partition, releasing.envelope(held)))
                released += 1
        finally:
            self._run(producer.stop())
        return released

    def _those(self, places: Iterable[Place]) -> Iterator[Held]:
        """What is held at these places."""
        there, asked = set(self._partitions()), set(places)
        for partition, offsets in groupby(sorted(asked), key=lambda place: place.partition):
            if partition not in there:
                continue
            tp = TopicPartition(self._topic, partition)
            begin, end = self._bounds(tp)
            for first, last in _stretches(place.offset for place in offsets if begin <= place.offset < end):
                yield from (held for held in self._read(tp, first, last + 1) if held.place in asked)

    def drop(self, places: Iterable[Place]) -> int:
        raise UsageError(
            f"Kafka takes nothing out of the middle of a topic: what is held goes when its time is over; all of a partition"
            f" up to an offset goes with kafka-delete-records on {self._topic}"
        )

    def close(self) -> None:
        if self._reader is not None:
            self._run(self._reader.stop())
        self._runner.close()

    async def _send(self, producer: Any, partition: int, envelope: Envelope) -> None:
        headers = [(name, value.encode()) for name, value in envelope.headers().items()]
        await producer.send_and_wait(
            self._content, envelope.value, key=envelope.producer.encode(), partition=partition, headers=headers
        )

    def _consumer(self) -> Any:
        if self._reader is None:
            options = {"enable_auto_commit": False, "max_partition_fetch_bytes": _MOST_BYTES}
            self._reader = self._run(_started(AIOKafkaConsumer, **self._options, **options))
        return self._reader

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
        if topic["error_code"] == TopicAuthorizationFailedError.errno:
            raise TopicAuthorizationFailedError(self._topic)
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
        except TopicAuthorizationFailedError:
            raise UsageError(f"not allowed on {self.where}: see `tidegate topics acls --role reviewer`") from None
        except KafkaError as error:
            raise LogUnavailable(f"{self.where}: {type(error).__name__}") from error


async def _started(kind: Any, **options: Any) -> Any:
    """A client of that kind; those of aiokafka are made where the loop runs."""
    client = kind(**options)
    try:
        await client.start()
    except BaseException:
        await client.stop()
        raise
    return client


def _stretches(offsets: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The first and last of ascending offsets that lie so near each other that it is quicker to read what is between them."""
    first = last = -1
    for offset in offsets:
        if first < 0:
            first = offset
        elif offset - last > _NEAR:
            yield first, last
            first = offset
        last = offset
    if first >= 0:
        yield first, last
