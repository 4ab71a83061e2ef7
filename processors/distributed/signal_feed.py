"""The signals topic for all gates that ask one node: followed once, its last words kept in memory.

    signals  partition 0 ─► words by key, in the order of their offsets ─► news for each long poll
                                            └─► the policies' standing, for people
    gates    partition 0 ◄─ who asks

Positions are Kafka's own offsets, so a gate may go on at another node, or at this one after a restart.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from ...producers.kafka_client import client_options
from ...producers.kafka_log import count_partitions
from ...producers.kafka_loop import REQUEST_TIMEOUT_S, KafkaLoop, LoopEnded, started
from ...producers.kafka_trouble import KAFKA_ERRORS, translated
from ...producers.signals import START, SignalRecord
from ...schemas.errors import LogUnavailable
from ...schemas.kafka_url import KafkaAddress
from ...schemas.policy import SEVERITY, State
from ...schemas.settings import Settings
from ...schemas.signal import POLICIES_KEY, SIGNAL_PREFIX
from ...schemas.topics import GATES, SIGNALS

log = structlog.get_logger("tidegate.signals")

# A broker holds a fetch back until there is news, and answers at once when there is; this bounds what a stop waits for.
_POLL_MS: Final = 500
_FETCH_BYTES: Final = 4 * 1024 * 1024
# One answer to a gate, as from a data folder: a gate that starts among many scopes asks some times.
_ANSWER_BYTES: Final = 8 << 20
# All that there is to be read at the start: a million signals are some hundred megabytes.
_CATCH_UP_S: Final = 120.0
_BACKOFF_S: Final = 0.5
_BACKOFF_MAX_S: Final = 5.0
# Announcements of many gates go together; a gate is thought gone after seconds.
_ANNOUNCE_LINGER_MS: Final = 50
_SHOWN: Final = 8


class SignalFeed:
    """`Feed` from Kafka. `start` returns when all that was said so far is known; `failure` holds what nobody foresaw."""

    def __init__(self, settings: Settings, *, clock: Any = time.monotonic) -> None:
        self._address = KafkaAddress.parse(settings.url)
        self._topic = self._address.topic(SIGNALS)
        self._gates = self._address.topic(GATES)
        self._options = client_options(settings) | {"request_timeout_ms": int(REQUEST_TIMEOUT_S * 1e3)}
        self._stopping = threading.Event()
        self._caught_up = threading.Event()
        self._loop: KafkaLoop[_Clients] | None = None
        self._thread = threading.Thread(target=self._run, name="tidegate-signals")
        self._trouble: LogUnavailable | None = None
        self.words = Words(clock)
        self.failure: BaseException | None = None

    def start(self) -> None:
        """Raises `LogUnavailable` when the topic cannot be read."""
        self._thread.start()
        deadline = time.monotonic() + _CATCH_UP_S
        while not self._caught_up.wait(0.05):
            if self.failure is not None:
                raise self.failure
            if self._trouble is not None or time.monotonic() > deadline:
                raise self._trouble or LogUnavailable(f"{self._topic} takes too long to be read")

    def news(self, after: int) -> tuple[Sequence[SignalRecord], int]:
        return self.words.behind(after, _ANSWER_BYTES)

    def word(self, key: bytes) -> bytes | None:
        return self.words.word(key)

    def announce(self, gate_id: str) -> None:
        """Does not wait. An announcement that is lost is made again in a second."""
        loop = self._loop
        if loop is not None:
            loop.cast(lambda clients: clients.producer.send(self._gates, b"{}", key=gate_id.encode(), partition=0))

    def close(self) -> None:
        self._stopping.set()
        loop = self._loop
        if loop is not None:
            loop.close(lambda clients: clients.producer.flush(), 0.5)
        if self._thread.is_alive():
            self._thread.join()

    # ---- in the thread

    def _run(self) -> None:
        backoff_s = _BACKOFF_S
        while not self._stopping.is_set():
            began = time.monotonic()
            loop = self._loop = KafkaLoop(self._open, "tidegate-kafka-signals")
            if self._stopping.is_set():
                loop.close()  # `close` may have seen the one before
            try:
                loop.cast(self._follow).result()
            except LoopEnded:
                return
            except KAFKA_ERRORS as error:
                told = translated(error, self._address.bootstrap, self._topic, loop)
                self._trouble = told if isinstance(told, LogUnavailable) else LogUnavailable(str(told))
                log.warning("signals_unheard", error=str(told), retry_in_s=backoff_s)
            except BaseException as error:  # noqa: BLE001 — a thread's death must be seen by the node, which then ends
                self.failure = error
                return
            finally:
                loop.close()
            if time.monotonic() - began > _BACKOFF_MAX_S:
                backoff_s = _BACKOFF_S
            self._stopping.wait(backoff_s)
            backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[_Clients]:
        # One acknowledgement is enough for what is said again in a second.
        producer = AIOKafkaProducer(**self._options, acks=1, linger_ms=_ANNOUNCE_LINGER_MS)
        async with started(producer):
            for topic in (self._topic, self._gates):
                await count_partitions(producer.client, topic)
            consumer = AIOKafkaConsumer(
                **self._options,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                max_partition_fetch_bytes=_FETCH_BYTES,
            )
            async with started(consumer):
                yield _Clients(consumer, producer)

    async def _follow(self, clients: _Clients) -> None:
        consumer, tp = clients.consumer, TopicPartition(self._topic, 0)
        consumer.assign([tp])
        end = (await consumer.end_offsets([tp]))[tp]
        if self.words.position >= end:
            self.words.forget()  # another topic has this name now
        begin = (await consumer.beginning_offsets([tp]))[tp]
        consumer.seek(tp, max(begin, self.words.position + 1))
        while True:
            try:
                found = await consumer.getmany(tp, timeout_ms=_POLL_MS if self._caught_up.is_set() else _POLL_MS // 10)
            except OffsetOutOfRangeError:
                self.words.forget()
                consumer.seek(tp, (await consumer.beginning_offsets([tp]))[tp])
                continue
            for record in found.get(tp, ()):
                self.words.hear(record.offset, record.key or b"", record.value or b"")
            if not self._caught_up.is_set() and await consumer.position(tp) >= end:
                self._caught_up.set()
            self._trouble = None


class _Clients:
    def __init__(self, consumer: Any, producer: Any) -> None:
        self.consumer = consumer
        self.producer = producer


class _Standing(msgspec.Struct):
    """What a signal says that people want to see at a glance."""

    policy: str
    scope: dict[str, str | None]
    state: State


class _Named(msgspec.Struct):
    name: str


class _InForce(msgspec.Struct):
    version: str = ""
    policies: list[_Named] = []


_standing: Final = msgspec.json.Decoder(_Standing)
_in_force: Final = msgspec.json.Decoder(_InForce)


class Words:
    """The last word on every key, in the order of their offsets. From any thread."""

    def __init__(self, clock: Any = time.monotonic) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Begin again: what is heard from now on is another topic's."""
        with self._guard:
            self._words: dict[bytes, tuple[int, bytes]] = {}
            self._taken_back: deque[tuple[float, bytes]] = deque()
            self._not_fine: dict[bytes, _Standing] = {}
            self.position = START

    def hear(self, offset: int, key: bytes, value: bytes) -> None:
        """One record; an empty value takes the key back, and is itself kept for a while, so that gates hear of it."""
        with self._guard:
            self._words.pop(key, None)
            self._words[key] = (offset, value)
            self.position = offset
            if not value:
                self._taken_back.append((self._clock() + SIGNALS.tombstone_s, key))
            while self._taken_back and self._taken_back[0][0] <= self._clock():
                _, old = self._taken_back.popleft()
                if old in self._words and not self._words[old][1]:
                    del self._words[old]
            if key.startswith(SIGNAL_PREFIX):
                self._judge(key, value)

    def _judge(self, key: bytes, value: bytes) -> None:
        try:
            said = _standing.decode(value) if value else None
        except msgspec.DecodeError:
            said = None  # of a newer version; gates judge for themselves
        if said is None or said.state == "ok":
            self._not_fine.pop(key, None)
        else:
            self._not_fine[key] = said

    def behind(self, after: int, max_bytes: int) -> tuple[list[SignalRecord], int]:
        """The words behind a position, oldest first, until `max_bytes` are reached, and the position to go on from."""
        with self._guard:
            if after > self.position:
                after = START  # of another topic, so everything is news
            if after == self.position:
                return [], after
            found: list[tuple[int, SignalRecord]] = []
            if after == START:
                found = [(offset, (key, value)) for key, (offset, value) in self._words.items()]
            else:
                for key, (offset, value) in reversed(self._words.items()):
                    if offset <= after:
                        break
                    found.append((offset, (key, value)))
                found.reverse()
            size = 0
            for number, (offset, (_, value)) in enumerate(found):
                size += len(value)
                if size >= max_bytes:
                    return [record for _, record in found[: number + 1]], offset
            return [record for _, record in found], self.position

    def word(self, key: bytes) -> bytes | None:
        """The last one on a key."""
        with self._guard:
            return self._words.get(key, (START, None))[1]

    def standing(self) -> dict[str, Any]:
        """The policies in force, and the scopes that are not fine, harshest first."""
        with self._guard:
            raw = self._words.get(POLICIES_KEY, (START, b""))[1]
            not_fine = list(self._not_fine.values())
        try:
            in_force = _in_force.decode(raw) if raw else _InForce()
        except msgspec.DecodeError:
            in_force = _InForce()
        known = {policy.name for policy in in_force.policies}
        found = [said for said in not_fine if said.policy in known]
        found.sort(key=lambda said: (-SEVERITY[said.state], said.policy, str(tuple(said.scope.values()))))
        return {
            "version": in_force.version,
            "in_force": len(known),
            "not_fine": len(found),
            "worst": [{"policy": said.policy, "scope": said.scope, "state": said.state} for said in found[:_SHOWN]],
        }
