"""Kafka's side of a test: topics in its namespace, and what is in them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from tidegate.processors.distributed.topics import create_topics
from tidegate.schemas.envelope import KNOWN_SCHEMAS, Envelope
from tidegate.schemas.kafka_url import KafkaAddress
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import CALLS, Topic


@dataclass
class KafkaSide:
    """One namespace. `partitions` is of the calls topic."""

    url: str
    partitions: int = 1
    address: KafkaAddress = field(init=False)

    def __post_init__(self) -> None:
        self.address = KafkaAddress.parse(self.url)

    def make_topics(self) -> None:
        asyncio.run(create_topics(Settings(url=self.url), self.partitions, replication=1))

    def write(self, topic: Topic, records: Sequence[tuple[bytes | None, bytes | None]]) -> None:
        """To partition 0, in this order."""
        asyncio.run(self._write(self.address.topic(topic), records))

    def read(self, topic: Topic) -> list[Any]:
        """Everything in all partitions, by partition and offset."""
        return asyncio.run(self._read(self.address.topic(topic)))

    def envelopes(self) -> list[Envelope]:
        """What is in the calls topic, by partition and offset."""
        return [envelope_of(record) for record in self.read(CALLS)]

    def add_partitions(self, total: int) -> None:
        """To the calls topic; returns when its broker knows them."""
        name = self.address.topic(CALLS)

        async def add(admin: AIOKafkaAdminClient) -> None:
            await admin.create_partitions({name: NewPartitions(total)})
            async with asyncio.timeout(30):  # a new partition takes a moment
                while len((await admin.describe_topics([name]))[0]["partitions"]) < total:
                    await asyncio.sleep(0.05)

        self.administer(add)

    def configure(self, topic: Topic, config: dict[str, str]) -> None:
        resource = ConfigResource(ConfigResourceType.TOPIC, self.address.topic(topic), configs=config)
        self.administer(lambda admin: admin.alter_configs([resource]))

    def administer(self, work: Callable[[AIOKafkaAdminClient], Awaitable[Any]]) -> None:
        asyncio.run(self._administer(work))

    async def _administer(self, work: Callable[[AIOKafkaAdminClient], Awaitable[Any]]) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.address.bootstrap)
        await admin.start()
        try:
            await work(admin)
        finally:
            await admin.close()

    async def _write(self, topic: str, records: Sequence[tuple[bytes | None, bytes | None]]) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.address.bootstrap)
        await producer.start()
        try:
            sent = [await producer.send(topic, value, key=key, partition=0) for key, value in records]
            await asyncio.gather(*sent)
        finally:
            await producer.stop()

    async def _read(self, topic: str) -> list[Any]:
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=self.address.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            async with asyncio.timeout(30):  # a minute's work is far less than this
                ends = await consumer.end_offsets(consumer.assignment())
                found: list[Any] = []
                while any([await consumer.position(partition) < end for partition, end in ends.items()]):
                    for records in (await consumer.getmany(timeout_ms=100)).values():
                        found += records
        finally:
            await consumer.stop()
        return sorted(found, key=lambda record: (record.partition, record.offset))


def envelope_of(record: Any) -> Envelope:
    return Envelope.from_record({name: value.decode() for name, value in record.headers}, record.value, KNOWN_SCHEMAS)
