"""A gate's ear on Kafka: the compacted topic of signals, read from its start and then followed, and news of this gate in turn.

    signals  partition 0 ──► poll       positions are offsets
    gates    partition 0 ◄── announce   key: the gate's id, value {}; none: goodbye

A broker holds a fetch back until there is something, and answers at once when there is: news takes a few milliseconds.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError, RequestTimedOutError

from ..schemas.kafka_url import KafkaAddress
from ..schemas.settings import Settings
from ..schemas.topics import GATES, SIGNALS
from .kafka_client import client_options
from .kafka_log import count_partitions
from .kafka_loop import REQUEST_TIMEOUT_S, KafkaLoop, LoopEnded, started
from .kafka_trouble import KAFKA_ERRORS, translated
from .signals import START, SignalRecord

# How long a broker holds a fetch back when there is nothing new: twice a second costs it nothing, and tells us that it lives.
_FETCH_WAIT_S: Final = 0.5
# As large as one record may be there; the larger, the sooner all is read from the start.
_FETCH_BYTES: Final = 4 * 1024 * 1024
# A broker that has not answered for as long as several fetches is away, whatever aiokafka still tries.
_SILENCE_S: Final = 5.0
# All that there is to be read from the start: a million signals are some hundred megabytes.
_CATCH_UP_S: Final = 120.0
# A record takes a few milliseconds; whoever leaves does not wait longer than a person notices. A gate that is not heard of
# any more is taken for gone after a minute.
_GOODBYE_S: Final = 0.5

_inherited: Final[list[Any]] = []


class KafkaSignals:
    """`SignalSource` on Kafka, without a consumer group: every gate hears everything. Raises `UsageError` when a setting is
    wrong."""

    def __init__(self, settings: Settings) -> None:
        address = KafkaAddress.parse(settings.url)
        self.bootstrap = address.bootstrap
        self.signals = address.topic(SIGNALS)
        self.gates = address.topic(GATES)
        self._options = client_options(settings) | {"request_timeout_ms": int(REQUEST_TIMEOUT_S * 1e3)}
        self._begin()

    def _begin(self) -> None:
        self._loop: KafkaLoop[_Ear] | None = None
        # Reentrant: a signal handler may close what it has interrupted. Never held while something is waited for.
        self._guard = threading.RLock()
        self._gate: str | None = None
        self._announcing: Future[None] | None = None

    def poll(self, after: int, timeout_s: float) -> tuple[Sequence[SignalRecord], int]:
        loop = self._opened()
        patience_s = _CATCH_UP_S if after == START else _SILENCE_S + 2 * REQUEST_TIMEOUT_S
        try:
            return loop.call(lambda ear: ear.poll(after, timeout_s), timeout_s + patience_s)
        except LoopEnded:
            return [], after
        except KAFKA_ERRORS as error:
            self._drop(loop)
            raise translated(error, self.bootstrap, self.signals, loop) from error

    def announce(self, gate_id: str) -> None:
        """Does not wait: news must not come late because of it. What went wrong is raised by the next announcement."""
        before = self._announcing
        if before is not None and not before.done():
            return
        loop = self._opened()
        self._gate = gate_id
        self._announcing = loop.cast(lambda ear: ear.say(gate_id, b"{}"))
        error = before.exception() if before is not None else None
        if isinstance(error, KAFKA_ERRORS):
            raise translated(error, self.bootstrap, self.gates, loop) from error

    def close(self) -> None:
        with self._guard:
            (loop, self._loop), (gate, self._gate) = (self._loop, None), (self._gate, None)
            self._announcing = None
        if loop is not None:
            loop.close(None if gate is None else lambda ear: ear.say(gate, None), _GOODBYE_S)

    def abandon(self) -> None:
        _inherited.append(self._loop)
        self._begin()

    def _opened(self) -> KafkaLoop[_Ear]:
        with self._guard:
            if self._loop is None or self._loop.ended:
                self._loop = KafkaLoop(self._open, "tidegate-kafka-signals")
            return self._loop

    def _drop(self, loop: KafkaLoop[_Ear]) -> None:
        """Open a new connection the next time."""
        with self._guard:
            if self._loop is loop:
                self._loop = None
        loop.close()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[_Ear]:
        async with AsyncExitStack() as clients:
            # One acknowledgement is enough for what is said again in a second.
            producer = AIOKafkaProducer(**self._options, acks=1, linger_ms=0)
            await clients.enter_async_context(started(producer))
            for topic in (self.signals, self.gates):
                await count_partitions(producer.client, topic)
            consumer = AIOKafkaConsumer(
                **self._options,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                fetch_max_wait_ms=int(_FETCH_WAIT_S * 1e3),
                max_partition_fetch_bytes=_FETCH_BYTES,
            )
            await clients.enter_async_context(started(consumer))
            yield _Ear(consumer, producer, self.signals, self.gates)


class _Ear:
    """The clients of one connection."""

    def __init__(self, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer, signals: str, gates: str) -> None:
        self._consumer = consumer
        self._producer = producer
        self._partition = TopicPartition(signals, 0)
        self._gates = gates
        self._told: int | None = None  # the position that the last poll has ended with
        self._answer: int | None = None  # which of the broker's answers was the last one
        self._answered_at = 0.0

    async def say(self, gate_id: str, value: bytes | None) -> None:
        await self._producer.send_and_wait(self._gates, value, key=gate_id.encode(), partition=0)

    async def poll(self, after: int, timeout_s: float) -> tuple[list[SignalRecord], int]:
        until = asyncio.get_running_loop().time() + timeout_s
        if after == START:
            found, self._told = await self._last_words()
            if found:
                return found, self._told
        elif after != self._told:
            self._seek(after + 1)
        self._told = after
        try:
            records = await self._next(until)
        except OffsetOutOfRangeError:  # another topic has this name now
            found, self._told = await self._last_words()
            return found, self._told
        if records:
            self._told = records[-1].offset
        return [(record.key or b"", record.value or b"") for record in records], self._told

    async def _last_words(self) -> tuple[list[SignalRecord], int]:
        """What is in the topic now, of each key the last; and where that ends."""
        partition = self._partition
        begin = (await self._consumer.beginning_offsets([partition]))[partition]
        end = (await self._consumer.end_offsets([partition]))[partition]
        self._seek(begin)
        words: dict[bytes, bytes] = {}
        last = START
        loop = asyncio.get_running_loop()
        while await self._consumer.position(partition) < end:
            asked = self._answer
            records = await self._next(loop.time() + _FETCH_WAIT_S)
            for record in records:
                key = record.key or b""
                words.pop(key, None)  # in the order of the last words
                words[key] = record.value or b""
                last = record.offset
            # Compaction may have taken the very end; then the broker answers, and has nothing.
            if not records and self._answer != asked:
                break
        return list(words.items()), last

    def _seek(self, offset: int) -> None:
        if not self._consumer.assignment():
            self._consumer.assign([self._partition])
        self._consumer.seek(self._partition, offset)
        self._answered_at = asyncio.get_running_loop().time()

    async def _next(self, until: float) -> list[Any]:
        """The records that come next, waiting for one until then. Raises `RequestTimedOutError` when the broker is silent."""
        loop = asyncio.get_running_loop()
        while True:
            wait_s = max(0.0, min(until - loop.time(), 2 * _FETCH_WAIT_S))
            found = await self._consumer.getmany(self._partition, timeout_ms=int(wait_s * 1e3))
            answer = self._consumer.last_poll_timestamp(self._partition)
            if answer != self._answer:
                self._answer, self._answered_at = answer, loop.time()
                # With an answer there may be records, of which that wait has just not heard any more.
                found = found or await self._consumer.getmany(self._partition)
            if records := found.get(self._partition):
                return list(records)
            if loop.time() - self._answered_at > _SILENCE_S:
                raise RequestTimedOutError
            if loop.time() >= until:
                return []
