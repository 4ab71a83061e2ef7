"""Carries the derived topics from Kafka into ClickHouse, each row once in effect.

    metered, requests, dead letters, alerts ──(consumer group)──► KafkaSink ──► Tenure ──► Store.insert
                                                  ▲                              │
                                              rebalance                          └─► refused rows ─► dead letters

As many sinks as there are partitions may share the work. Reading goes on while the store is away, until what waits in
memory is enough; then partitions are paused, and the sink stays in its group. Nothing is passed that the store does not
have: what is promised and what was seen is kept by Kafka, in `sink_state.py`'s notes beside the offsets.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    TopicAuthorizationFailedError,
)

from ...producers.kafka_client import client_options
from ...schemas.errors import LogUnavailable, UsageError
from ...schemas.kafka_url import KafkaAddress
from ...schemas.settings import Settings
from ...schemas.topics import DEAD_LETTERS
from ...sinks.clickhouse import Store
from ..topology import SINK
from .sink_tenure import Account, Ports, Tenure

log = structlog.get_logger("tidegate.sink")

# Compressed, some 30 MB of rows; a batch that is larger alone still comes.
_FETCH_BYTES: Final = 4 << 20
_FETCHES_BYTES: Final = 16 << 20
# A record has a hundred rows or so: some 40 MB before we look at how full the buffers are.
_POLL_RECORDS: Final = 500
# Only how soon an idle reader looks again; records wake it.
_POLL_MS: Final = 1_000
# A dead sink's partitions are taken over after this; a pause of Python must not look like death.
_SESSION_MS: Final = 10_000
_HEARTBEAT_MS: Final = 3_000
# How long the group waits for a member that finishes its batch. aiokafka gives up on an answer after 40 s, so less.
_REBALANCE_MS: Final = 30_000
# What is read is in memory and takes a second or two; what does not get in stays in the log.
_DRAIN_S: Final = 20.0
# The topic's own bound.
_LETTER_BYTES: Final = 16 << 20
_GIVE_UP_MS: Final = 40_000


def _nothing(_step: str) -> None:
    return None


class KafkaSink:
    """One member of the group of sinks. `clock` is monotonic seconds; a crash test aborts in `at`."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        *,
        at: Callable[[str], None] = _nothing,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._store = store
        self._at = at
        self._clock = clock
        self._address = KafkaAddress.parse(settings.url)
        self._options = client_options(settings)
        self._topics = {self._address.topic(topic): topic for topic in SINK.reads}
        self._account = Account()
        self._tenure: Tenure | None = None
        self._closing = False
        self._consumer: Any = None
        self._admin: Any = None
        self._letters: Any = None
        self._broken: asyncio.Future[None] | None = None
        self.failure: BaseException | None = None

    # ---- for metrics

    @property
    def rows(self) -> int:
        """Rows that went into the store since the start. A batch that a crash made us send twice counts twice here."""
        return self._account.rows

    @property
    def batches(self) -> int:
        """Batches that were committed; they took `batch_seconds` together."""
        return self._account.batches

    @property
    def batch_seconds(self) -> float:
        return self._account.batch_seconds

    @property
    def skipped_records(self) -> int:
        """Records that a meter sent again, and that were left out."""
        return self._account.skipped_records

    @property
    def refused_rows(self) -> int:
        """Rows that the store would not take, and that are dead letters now."""
        return self._account.refused_rows

    @property
    def lost_records(self) -> int:
        """Records that retention ate before they were read. Anything but 0 is an incident."""
        return self._account.lost_records

    @property
    def store_away(self) -> bool:
        return self._account.store_away

    @property
    def ready(self) -> bool:
        """Whether it is a member of its group, with partitions or without."""
        return self._tenure is not None

    def lag(self) -> dict[tuple[str, int], int]:
        """Records that are not in the store yet, of the partitions this sink has; by topic (`tidegate.metered`, …) and
        partition. A second old at most."""
        return self._tenure.lag() if self._tenure is not None else {}

    # ---- life

    async def run(self, stopping: asyncio.Event) -> None:
        """Carry rows until `stopping`, then write what has been read and leave the group. Once.

        Raises `UsageError` for what a person must mend, `LogUnavailable` when Kafka cannot be reached at the start, and
        whatever else it does not know; then `failure` holds it too. Running again, in any process, loses and doubles
        nothing.
        """
        try:
            await self._run(stopping)
        except asyncio.CancelledError:
            raise
        except (GroupAuthorizationFailedError, TopicAuthorizationFailedError) as error:
            self.failure = UsageError(
                f"Kafka does not let the sink in ({type(error).__name__}); `tidegate topics acls` prints what it needs"
            )
            raise self.failure from error
        except BaseException as error:
            self.failure = error
            raise

    async def _run(self, stopping: asyncio.Event) -> None:
        if self._broken is not None:
            raise ValueError("a sink runs once; make another one")
        self._broken = asyncio.get_running_loop().create_future()
        stop = asyncio.create_task(stopping.wait())
        working: asyncio.Task[None] | None = None
        try:
            working = asyncio.create_task(self._work())
            until: set[asyncio.Future[Any]] = {working, stop, self._broken}
            await asyncio.wait(until, return_when=asyncio.FIRST_COMPLETED)
            self._closing = True
            for ended in (working, self._broken):
                if ended.done():
                    ended.result()
            await _cancelled(working)
            if self._tenure is not None:
                await self._tenure.drain(_DRAIN_S)
                if self._broken.done():
                    self._broken.result()
        finally:
            self._closing = True
            stop.cancel()
            if working is not None:
                await _cancelled(working)
            if self._tenure is not None:
                await self._tenure.cut_off()
            await self._disconnect()
            self._tenure = None
            if self._broken.done():
                self._broken.exception()  # said above
            else:
                self._broken.cancel()

    async def _work(self) -> None:
        await self._connect()
        while True:
            found = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=_POLL_RECORDS)
            if self._tenure is not None:
                self._tenure.take(found)

    async def _connect(self) -> None:
        self._admin = AIOKafkaAdminClient(**self._options)
        try:
            await self._admin.start()
            there = set(await self._admin.list_topics())
        except KafkaConnectionError as error:
            raise LogUnavailable(
                f"Kafka at {self._address.bootstrap} cannot be reached; check TIDEGATE_URL and that a broker runs there"
            ) from error
        if missing := self._topics.keys() - there:
            raise UsageError(f"Kafka has no topic {', '.join(sorted(missing))}; run `tidegate topics create` first")
        self._consumer = AIOKafkaConsumer(
            **self._options,
            group_id=self._address.group(SINK.name),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_uncommitted",
            max_partition_fetch_bytes=_FETCH_BYTES,
            fetch_max_bytes=_FETCHES_BYTES,
            session_timeout_ms=_SESSION_MS,
            heartbeat_interval_ms=_HEARTBEAT_MS,
            rebalance_timeout_ms=_REBALANCE_MS,
        )
        self._consumer.subscribe(list(self._topics), listener=_Listener(self))
        await self._consumer.start()

    async def _disconnect(self) -> None:
        """Leave the group, so that somebody else takes over at once."""
        for client in (self._letters, self._consumer, self._admin):
            if client is not None:
                await (client.close() if client is self._admin else client.stop())

    # ---- the group

    def begin(self, assigned: set[TopicPartition]) -> None:
        """These partitions are ours now."""
        if self._closing:
            return
        ports = Ports(
            self._settings,
            self._address.group(SINK.name),
            self._consumer,
            self._admin,
            self._store,
            self._send_dead_letters,
            self._account,
            self._at,
            self._clock,
        )
        self._tenure = Tenure({tp: self._topics[tp.topic] for tp in assigned}, ports)
        self._tenure.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        if self._broken is not None and not self._broken.done():
            self._broken.set_exception(error)

    async def hand_over(self) -> None:
        """What we have may be somebody else's soon."""
        tenure, self._tenure = self._tenure, None
        if tenure is not None:
            await tenure.end()

    # ---- dead letters

    async def _send_dead_letters(self, partition: int, records: Sequence[tuple[Mapping[str, str], bytes]]) -> None:
        """Send, and wait for every acknowledgement. A retry may double them; their sources tell."""
        if self._letters is None:
            self._letters = AIOKafkaProducer(
                **self._options,
                enable_idempotence=True,
                acks="all",
                compression_type="zstd",
                max_request_size=_LETTER_BYTES,
                request_timeout_ms=_GIVE_UP_MS,
            )
            await self._letters.start()
        name = self._address.topic(DEAD_LETTERS)
        for headers, value in records:
            encoded = [(key, text.encode()) for key, text in headers.items()]
            try:
                await self._letters.send_and_wait(name, value, partition=partition, headers=encoded)
            except MessageSizeTooLargeError:
                raise UsageError(
                    f"the topic {name} does not take {len(value)} bytes of dead letters; `tidegate topics check` says what it"
                    " should be set to"
                ) from None
            except KafkaError:
                # Whether it arrived is not known, and then neither is the next sequence number.
                producer, self._letters = self._letters, None
                await producer.stop()
                raise


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """What aiokafka tells of the group. It waits for `on_partitions_revoked` before it lets anything go."""

    def __init__(self, sink: KafkaSink) -> None:
        self._sink = sink

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        await self._sink.hand_over()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._sink.begin(assigned)


async def _cancelled(task: asyncio.Task[Any]) -> None:
    """End a task, and wait until it has ended; what it says then, nobody asks."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()
