"""Puts the same events into Kafka in several wrappings: one a record, and in envelopes of so many."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from tidegate.schemas.envelope import Envelope
from tidegate.schemas.kafka_url import KafkaAddress
from tidegate.schemas.topics import CALLS

# As the emitter compresses; every reader pays the same for it.
_OPTIONS: Final[dict[str, Any]] = {
    "compression_type": "zstd",
    "max_batch_size": 262_144,
    "linger_ms": 5,
    "enable_idempotence": True,
}


def load_plain(bootstrap: str, topic: str, values: Iterable[bytes]) -> None:
    """One event a record, without headers, in a topic of one partition."""

    async def load() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
        finally:
            await admin.close()
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, **_OPTIONS)
        await producer.start()
        try:
            for value in values:
                await producer.send(topic, value, partition=0)
        finally:
            await producer.stop()

    asyncio.run(load())


def load_envelopes(url: str, envelopes: Iterable[tuple[int, Envelope]]) -> None:
    """(partition, envelope) into the calls topic of a namespace, as the emitter's Kafka log does."""
    address = KafkaAddress.parse(url)

    async def load() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=address.bootstrap, **_OPTIONS)
        await producer.start()
        try:
            for partition, envelope in envelopes:
                headers = [(name, text.encode()) for name, text in envelope.headers().items()]
                key = envelope.producer.encode()
                await producer.send(address.topic(CALLS), envelope.value, key=key, partition=partition, headers=headers)
        finally:
            await producer.stop()

    asyncio.run(load())
