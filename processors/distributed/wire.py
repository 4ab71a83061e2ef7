"""What a worker sends and reads, over aiokafka: rows in batches, a flush as one batch, and a partition from its start.

Sends keep their order within a partition, and are pipelined: each returns a future of its acknowledgement.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from ...producers.kafka_client import client_options
from ...schemas.errors import UsageError
from ...schemas.kafka_url import KafkaAddress
from ...schemas.settings import Settings
from ...schemas.topics import Topic

# A broker that restarts is back in half a minute, a rolling upgrade of a cluster in two; then somebody should look.
_GIVE_UP_S: Final = 120
# A batch of rows before compression; the topic takes 16 MB after it, and a single envelope's rows may be 3 MB.
_ROWS_BYTES: Final = 1 << 20
_MOST_ROWS_BYTES: Final = 16 << 20
# A flush is one batch, however many scopes it changed. A megabyte of envelopes changes some 10 MB of them at the very most
# that policies make of it; the topic takes 64 MB.
_FLUSH_BYTES: Final = 64 << 20
_FETCH_BYTES: Final = 16 << 20

Headers = Mapping[str, str]


class Wire:
    """The connections of one worker. Used from one event loop, between `start` and `stop`."""

    def __init__(self, settings: Settings) -> None:
        self.address = KafkaAddress.parse(settings.url)
        self._options = client_options(settings)
        common: dict[str, Any] = {
            "enable_idempotence": True,
            "acks": "all",
            "linger_ms": 0,
            # zstd: 1.6 µs an 800-byte event and the smallest; aiokafka's lz4 runs at level 9 and takes 8.
            "compression_type": "zstd",
            "request_timeout_ms": _GIVE_UP_S * 1_000,
        }
        self._rows = (common, _ROWS_BYTES, _MOST_ROWS_BYTES)
        self._flushes = (common, _FLUSH_BYTES, _FLUSH_BYTES)
        self._rows_producer: Any = None
        self._flush_producer: Any = None

    async def start(self) -> None:
        self._rows_producer = await self._producer(*self._rows)
        try:
            self._flush_producer = await self._producer(*self._flushes)
        except BaseException:
            await self._rows_producer.stop()
            raise

    async def _producer(self, common: dict[str, Any], batch_bytes: int, most_bytes: int) -> Any:
        producer = AIOKafkaProducer(**self._options, **common, max_batch_size=batch_bytes, max_request_size=most_bytes)
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        return producer

    async def stop(self) -> None:
        """Wait for what is on its way, and let go."""
        for producer in (self._rows_producer, self._flush_producer):
            if producer is not None:
                await producer.stop()

    async def require(self, topics: Iterable[Topic]) -> None:
        """Raises `UsageError` when one of these is not there: clients would wait for it, each in its own way."""
        there = (await self._rows_producer.client.fetch_all_metadata()).topics()
        if missing := sorted({self.address.topic(topic) for topic in topics} - there):
            raise UsageError(
                f"Kafka at {self.address.bootstrap} has no topic for us: {', '.join(missing)}; run `tidegate topics create`,"
                " look at the namespace at the end of TIDEGATE_URL, and at this user's rights (`tidegate topics acls`)"
            )

    async def partitions(self, topic: Topic) -> int:
        """How many partitions a topic has."""
        return len(await self._rows_producer.partitions_for(self.address.topic(topic)))

    async def send_rows(
        self,
        topic: Topic,
        partition: int,
        records: Sequence[tuple[Headers, bytes]],
        key: Callable[[Headers], bytes | None] = lambda _headers: None,
    ) -> list[asyncio.Future[Any]]:
        """Send records in as few batches as they fit in: each batch is a request of its own, one after the other. `key` tells
        the key of a record by its headers."""
        name, producer = self.address.topic(topic), self._rows_producer
        acknowledged = []
        batch, held = producer.create_batch(), 0
        for headers, value in records:
            encoded = [(name, text.encode()) for name, text in headers.items()]
            while batch.append(key=key(headers), value=value, timestamp=None, headers=encoded) is None:
                acknowledged.append(await producer.send_batch(batch, name, partition=partition))
                batch, held = producer.create_batch(), 0
            held += 1
        if held:
            acknowledged.append(await producer.send_batch(batch, name, partition=partition))
        return acknowledged

    async def send_flush(
        self, topic: Topic, partition: int, changes: Iterable[tuple[bytes, bytes | None]]
    ) -> asyncio.Future[Any]:
        """Send all changes as one batch. Raises `UsageError` when they do not fit in one."""
        producer = self._flush_producer
        batch = producer.create_batch()
        append = batch.append
        for key, value in changes:
            if append(key=key, value=value, timestamp=None) is None:
                raise UsageError(f"one flush changes more than {_FLUSH_BYTES >> 20} MB; lower TIDEGATE_WORKER_FLUSH_BYTES")
        batch.close()
        return await producer.send_batch(batch, self.address.topic(topic), partition=partition)  # type: ignore[no-any-return]

    async def end(self, topic: Topic, partition: int) -> int:
        """The offset that the next record of a partition will get."""
        tp = TopicPartition(self.address.topic(topic), partition)
        async with self._reader() as consumer:
            return int((await consumer.end_offsets([tp]))[tp])

    async def committed(self, step: str, topic: Topic, partition: int) -> int:
        """The offset that a step's group reads next; 0 before its first commit."""
        tp = TopicPartition(self.address.topic(topic), partition)
        consumer = AIOKafkaConsumer(**self._options, group_id=self.address.group(step), enable_auto_commit=False)
        try:
            await consumer.start()
            return int(await consumer.committed(tp) or 0)
        finally:
            await consumer.stop()

    async def follow(
        self, topic: Topic, partition: int, start: int | None = None, end: int | None = None
    ) -> AsyncIterator[ConsumerRecord]:
        """The records of a partition from `start` (none: its beginning) to before `end` (none: its end now)."""
        tp = TopicPartition(self.address.topic(topic), partition)
        async with self._reader() as consumer:
            consumer.assign([tp])
            if start is None:
                await consumer.seek_to_beginning(tp)
            else:
                consumer.seek(tp, start)
            last = (await consumer.end_offsets([tp]))[tp] if end is None else end
            while await consumer.position(tp) < last:
                for record in (await consumer.getmany(tp, timeout_ms=1_000)).get(tp, []):
                    if record.offset >= last:
                        return
                    yield record

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[Any]:
        """A consumer of no group."""
        consumer = AIOKafkaConsumer(
            **self._options, enable_auto_commit=False, max_partition_fetch_bytes=_FETCH_BYTES, auto_offset_reset="earliest"
        )
        try:
            await consumer.start()
            yield consumer
        finally:
            await consumer.stop()
