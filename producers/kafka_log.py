"""The emitter's backend on Kafka: one record an envelope, in the one partition of its schema's topic that is its producer's.

    key      producer id
    headers  the envelope's
    value    the envelope's

Order: the meter skips numbers it has seen, and takes a gap for loss; so an envelope must never be in the log before an
earlier one. Batches are sent one after the other, each when the one before is acknowledged (aiokafka has one request at a
time on its way to a broker anyway), and after an error the connection is cut off with all that was waiting in it. Should a
broker still take in what it had received of that, it is a run of envelopes from the oldest unacknowledged one on, and so is
what the emitter tries next: however two such runs mix, the first of each number comes in order.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaClient, AIOKafkaProducer, errors
from aiokafka.codec import has_zstd
from aiokafka.protocol.metadata import MetadataRequest

from ..schemas.envelope import Envelope, partition_of
from ..schemas.kafka_url import KafkaAddress
from ..schemas.settings import Settings
from ..schemas.topics import BY_SCHEMA
from .kafka_client import client_options
from .kafka_loop import REQUEST_TIMEOUT_S, KafkaLoop, started
from .kafka_trouble import KAFKA_ERRORS, translated
from .ports import Position

# Connecting included. Twice what a request may take, so that a new leader gets a chance; what comes in meanwhile waits in
# memory, and the sooner it can go to the spool the better: trying again costs a connection, some ten milliseconds.
_APPEND_TIMEOUT_S: Final = 6.0
# Of a batch, before compression. A broker's default is 1,048,588 with everything, and one envelope has up to 900,000.
_BATCH_BYTES: Final = 1_000_000

_logger: Final = logging.getLogger("tidegate")
_told_uncompressed = False


class KafkaLog:
    """`Log` on Kafka: idempotent, acknowledged by all replicas in sync. Opens on first use and again after `close`.

    The number of partitions is asked once: those that are added later change nothing for as long as this lives, because a
    producer's events must stay in one. Raises `UsageError` when a setting is wrong.
    """

    def __init__(self, settings: Settings) -> None:
        address = KafkaAddress.parse(settings.url)
        self.bootstrap = address.bootstrap
        self._topics = {schema: address.topic(topic) for schema, topic in BY_SCHEMA.items()}
        self._topic = ""  # the last one written to
        self._options = client_options(settings)
        self._partitions: dict[str, int] = {}
        self._loop: KafkaLoop[_Writer] | None = None

    def append(self, envelopes: Sequence[Envelope]) -> list[Position | None]:
        """Returns when all of them are acknowledged, which takes a few milliseconds."""
        loop = self._loop
        if loop is None or loop.ended:
            loop = self._loop = KafkaLoop(self._open, "tidegate-kafka-log")
        self._topic = self._topics[envelopes[0].schema] if envelopes else self._topic
        try:
            return loop.call(lambda writer: writer.append(envelopes), _APPEND_TIMEOUT_S)
        except BaseException as error:
            # Whatever it was: nothing of this call may come behind what is tried next.
            self.close()
            if isinstance(error, KAFKA_ERRORS):
                raise translated(error, self.bootstrap, self._topic, loop) from error
            raise

    def close(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[_Writer]:
        producer = AIOKafkaProducer(
            **self._options,
            enable_idempotence=True,
            acks="all",
            compression_type=compression(),
            linger_ms=0,  # the emitter has lingered
            max_batch_size=_BATCH_BYTES,
            request_timeout_ms=int(REQUEST_TIMEOUT_S * 1e3),
        )
        async with started(producer):
            yield _Writer(producer, self._topics, self._partitions)


class _Writer:
    """The producer of one connection. `partitions` of each topic outlive it."""

    def __init__(self, producer: AIOKafkaProducer, topics: Mapping[str, str], partitions: dict[str, int]) -> None:
        self._producer = producer
        self._topics = topics
        self._partitions = partitions
        self._asked: set[str] = set()

    async def append(self, envelopes: Sequence[Envelope]) -> list[Position | None]:
        positions: list[Position | None] = []
        while len(positions) < len(envelopes):
            positions += await self._send(envelopes[len(positions) :])
        return positions

    async def _send(self, envelopes: Sequence[Envelope]) -> list[Position | None]:
        """As many of the first ones as go into one batch: at least one, however large."""
        topic, partition = await self._place(envelopes[0])
        batch = self._producer.create_batch()
        for envelope in envelopes:
            headers = [(name, value.encode()) for name, value in envelope.headers().items()]
            if await self._place(envelope) != (topic, partition) or not batch.append(
                timestamp=None, key=envelope.producer.encode(), value=envelope.value, headers=headers
            ):
                break
        batch.close()
        told = await (await self._producer.send_batch(batch, topic, partition=partition))
        # A broker that has forgotten where it put a repeated batch says -1.
        return [
            Position(partition, told.offset + number) if told.offset >= 0 else None for number in range(batch.record_count())
        ]

    async def _place(self, envelope: Envelope) -> tuple[str, int]:
        topic = self._topics[envelope.schema]
        if topic not in self._asked:
            partitions = await count_partitions(self._producer.client, topic)
            if not 0 < self._partitions.get(topic, 0) <= partitions:  # the first time, or it was made anew with fewer
                self._partitions[topic] = partitions
            self._asked.add(topic)
        return topic, partition_of(envelope.producer, self._partitions[topic])


async def count_partitions(client: AIOKafkaClient, topic: str) -> int:
    """How many partitions a topic has. Raises what Kafka says when it has none; never makes it, whatever the cluster's
    `auto.create.topics.enable`: it would have neither our partitions nor our retention."""
    answer: Any = await client.send(client.get_random_node(), MetadataRequest([topic], allow_auto_topic_creation=False))
    ((code, *_, partitions),) = answer.topics
    error = errors.for_code(code)
    if error is not errors.NoError:
        raise error(topic)
    return len(partitions)


def compression() -> str | None:
    """zstd, or none where its codec is missing, which is said once."""
    global _told_uncompressed
    if has_zstd():
        return "zstd"
    if not _told_uncompressed:
        _told_uncompressed = True
        _logger.warning(
            "kafka_uncompressed reason=%s", "no codec for zstd; pip install 'aiokafka[zstd]' sends a tenth of the bytes"
        )
    return None
