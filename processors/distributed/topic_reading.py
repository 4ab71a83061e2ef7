"""A command's look at one topic on Kafka: all of it or a stretch, record by record, from the one thread it has."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError

from ...producers.kafka_client import client_options
from ...schemas.errors import LogUnavailable, UsageError
from ...schemas.kafka_url import KafkaAddress
from ...schemas.settings import Settings
from ...schemas.topics import Topic

T = TypeVar("T")

_POLL_MS: Final = 1_000
# Brokers that answer nothing for so long are away.
_SILENT_POLLS: Final = 30
# As the topics have it: two of the largest envelopes.
_MOST_BYTES: Final = 2 << 20


class TopicReading:
    """One topic of the Kafka of these settings; `role` is whose rights that takes. Raises `LogUnavailable`, and `UsageError`
    where there is no such topic, or no right to it."""

    def __init__(self, settings: Settings, topic: Topic, role: str) -> None:
        self._role = role
        self.where = settings.url
        self.address = KafkaAddress.parse(settings.url)
        self.topic = self.address.topic(topic)
        self._options = client_options(settings)
        self._runner = asyncio.Runner()
        self._reader: Any = None
        self._found: dict[str, list[int]] = {}

    def close(self) -> None:
        if self._reader is not None:
            self.run(self._reader.stop())
        self._runner.close()

    def partitions(self, topic: str | None = None) -> list[TopicPartition]:
        """Those of the topic, or of another one; a command asks once, however many records it looks for."""
        name = topic if topic is not None else self.topic
        if (found := self._found.get(name)) is None:
            found = self.run(self._described(name))
            if not found:
                raise UsageError(f"there is no topic {name} on {self.where}; see `tidegate topics check`")
            self._found[name] = found
        return [TopicPartition(name, partition) for partition in found]

    async def _described(self, name: str) -> list[int]:
        admin = AIOKafkaAdminClient(**self._options)
        try:
            await admin.start()
            [topic] = await admin.describe_topics([name])
        finally:
            await admin.close()
        if topic["error_code"] == TopicAuthorizationFailedError.errno:
            raise TopicAuthorizationFailedError(name)
        return sorted(partition["partition"] for partition in topic["partitions"])

    def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        """The first offset that is there, and the one that the next record gets."""
        consumer = self._consumer()
        return self.run(consumer.beginning_offsets([tp]))[tp], self.run(consumer.end_offsets([tp]))[tp]

    def records(self, tp: TopicPartition, start: int, end: int) -> Iterator[ConsumerRecord]:
        """Those from `start` to before `end`. Where a topic is compacted some of them, and the last, may be gone."""
        consumer, silent = self._consumer(), 0

        async def begin() -> None:
            consumer.assign([tp])
            consumer.seek(tp, start)

        self.run(begin())
        while start < end:
            records = self.run(consumer.getmany(tp, timeout_ms=_POLL_MS)).get(tp, [])
            silent = 0 if records else silent + 1
            if silent >= _SILENT_POLLS:
                raise LogUnavailable(f"{self.where} does not answer")
            for record in records:
                start = record.offset + 1
                if record.offset < end:
                    yield record
            start = max(start, self.run(consumer.position(tp)))

    def producer(self) -> Any:
        """A producer that waits for all copies; to be stopped by whoever asked for it."""
        return self.run(_started(AIOKafkaProducer, **self._options, acks="all", max_request_size=_MOST_BYTES))

    async def member(self, group: str) -> Any:
        """A consumer that may commit for a group; to be stopped by whoever asked for it."""
        return await _started(AIOKafkaConsumer, **self._options, group_id=group, enable_auto_commit=False)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What comes of it, here and now."""
        try:
            return self._runner.run(work)
        except (TopicAuthorizationFailedError, GroupAuthorizationFailedError):
            raise UsageError(f"not allowed on {self.where}: see `tidegate topics acls --role {self._role}`") from None
        except KafkaError as error:
            raise LogUnavailable(f"{self.where}: {type(error).__name__}") from error

    def _consumer(self) -> Any:
        if self._reader is None:
            options = {"enable_auto_commit": False, "max_partition_fetch_bytes": _MOST_BYTES}
            self._reader = self.run(_started(AIOKafkaConsumer, **self._options, **options))
        return self._reader


async def _started(kind: Any, **options: Any) -> Any:
    """A client of that kind; those of aiokafka are made where the loop runs."""
    client = kind(**options)
    try:
        await client.start()
    except BaseException:
        await client.stop()
        raise
    return client
