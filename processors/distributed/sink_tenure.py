"""The partitions a sink has between one rebalance and the next: it reads them into batches, and hands them over in order.

One batch of one partition, numbered as the crash test aborts it:

    1  cut           what waits, to a bounded batch
    2  promise       (first, last) is committed beside the offset before anything is sent
    3  insert        with the token topic:partition:first-last/appended; the store drops what it has seen
       dead letters  for the rows it refused, named by where they came from; acknowledged
    4  commit        the offset moves behind the batch and the promise is taken back, in one commit

A promise found standing is kept first, to the letter. Only the member of the group that has a partition can commit to it,
so a sink that was thought dead and comes back can at worst send a batch that the store knows.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Final

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    KafkaTimeoutError,
    OffsetMetadataTooLargeError,
)

from ...schemas.errors import StoreUnavailable, UsageError
from ...schemas.settings import Settings
from ...schemas.topics import DEAD_LETTERS, Topic
from ...sinks.clickhouse import RowsRefused, Store
from ..refused import dead_letter, refused_lines
from ..topology import TABLES
from .sink_state import MOST_NOTE_BYTES, KafkaRecord, Note, Partition, Promise, Rows

log = structlog.get_logger("tidegate.sink")

# What waits in memory, over all partitions, and of one. An insert is one block in memory, several times over; 48 MB are
# some 50,000 rows.
_BUFFER_BYTES: Final = 256 << 20
_BATCH_BYTES: Final = 48 << 20
_LEAST_BATCH_BYTES: Final = 1 << 20
# The first retry of a store that hiccuped is at once; one that is away for the night is asked twice a minute.
_BACKOFF_S: Final = 0.1
_BACKOFF_MAX_S: Final = 30.0
# A scrape shall not see a lag that is older than itself by more than that.
_ENDS_EVERY_S: Final = 1.0
# The group waits for the slowest member, and thinks it dead after 30 s (`sink.py`); an insert takes a second, on a bad day
# ten. What is cut off is found standing by the next owner.
_HAND_OVER_S: Final = 20.0


@dataclass(slots=True)
class Account:
    """What one sink has done since it started, for its metrics."""

    rows: int = 0
    batches: int = 0
    batch_seconds: float = 0.0
    skipped_records: int = 0
    refused_rows: int = 0
    lost_records: int = 0
    store_away: bool = False


class HandedOver(Exception):
    """These partitions are another sink's now, or about to be; whatever was promised is found by it."""


@dataclass(frozen=True, slots=True)
class Ports:
    """What a tenure works with. `dead_letters(partition, records)` returns once all are acknowledged."""

    settings: Settings
    group: str
    consumer: Any
    admin: Any
    store: Store
    dead_letters: Callable[[int, Sequence[tuple[Mapping[str, str], bytes]]], Awaitable[None]]
    account: Account
    at: Callable[[str], None]
    clock: Callable[[], float]


class Tenure:
    """Writes the partitions in `assigned` (with the topic of each) into the store until it is ended.

    `task` is the writing; it fails when something unknown happens, and only then.
    """

    def __init__(self, assigned: Mapping[TopicPartition, Topic], ports: Ports) -> None:
        self._assigned = assigned
        self._ports = ports
        self._partitions: dict[TopicPartition, Partition] = {}
        self._news = asyncio.Event()
        self._ending = asyncio.Event()
        self._draining = False
        self._most_bytes = max(_LEAST_BATCH_BYTES, min(_BATCH_BYTES, _BUFFER_BYTES // max(1, len(assigned))))
        # Until we know from where to read.
        ports.consumer.pause(*assigned)
        self.task = asyncio.create_task(self._run(), name="tidegate-sink")

    # ---- the reader's side

    def take(self, found: Mapping[TopicPartition, Sequence[KafkaRecord]]) -> None:
        """Take what was read; a partition that has enough for now is paused."""
        for tp, records in found.items():
            partition = self._partitions.get(tp)
            if partition is None or not records:
                continue  # read before we knew from where; it is read again
            if records[0].offset < partition.position:
                log.error("log_went_back", topic=tp.topic, partition=tp.partition, at=partition.position, to=records[0].offset)
                partition = self._partitions[tp] = partition.begun_again(records[0].offset)
            gone = partition.take([Rows.of(record) for record in records], self._ports.clock())
            if gone:
                self._lost(tp, gone)
            if partition.is_full(self._most_bytes):
                self._ports.consumer.pause(tp)
        self._news.set()

    def _lost(self, tp: TopicPartition, records: int) -> None:
        self._ports.account.lost_records += records
        log.error(
            "records_lost",
            topic=tp.topic,
            partition=tp.partition,
            records=records,
            why="retention ate them before this sink had them; replay the calls they came from",
        )

    def lag(self) -> dict[tuple[str, int], int]:
        """Records that are not in the store yet, by topic and partition."""
        return {(found.topic.name, found.number): found.lag for found in self._partitions.values()}

    # ---- the end

    async def drain(self, within_s: float) -> None:
        """Write all that has been read, and end."""
        self._draining = True
        self._news.set()
        await asyncio.wait({self.task}, timeout=within_s)
        await self.end()

    async def end(self) -> None:
        """Finish the batch under way, if it can be finished soon, and forget the rest. Never raises; see `task`."""
        self._ending.set()
        self._news.set()
        _, unfinished = await asyncio.wait({self.task}, timeout=_HAND_OVER_S)
        if unfinished:
            # The insert may go on in its thread. Nothing is committed after this.
            log.warning("batch_left_standing", after_s=_HAND_OVER_S)
            await self.cut_off()

    async def cut_off(self) -> None:
        """End at once; what was promised stands."""
        self.task.cancel()
        await asyncio.wait({self.task})

    # ---- the writer

    async def _run(self) -> None:
        following: asyncio.Task[None] | None = None
        try:
            await self._begin()
            following = asyncio.create_task(self._follow_ends())
            await self._write()
        except HandedOver:
            log.info("partitions_handed_over", partitions=len(self._assigned))
        finally:
            if following is not None:
                following.cancel()
                await asyncio.wait({following})

    async def _begin(self) -> None:
        """Find out where each partition stands, and read on from there."""
        consumer, tps = self._ports.consumer, list(self._assigned)
        if not tps:
            return
        notes, begins, ends = await self._patiently(self._places)
        for tp in tps:
            begin, end = begins[tp], ends[tp]
            position, note = notes.get(tp, (begin, Note()))
            if position > end:
                # Not even the records before it can be told from others; the marks tell the rows we had.
                log.error("log_went_back", topic=tp.topic, partition=tp.partition, at=position, to=begin)
                position, note = begin, Note(note.marks)
            elif position < begin:
                self._lost(tp, begin - position)
                position = begin
            partition = Partition(self._assigned[tp], tp.topic, tp.partition, position, note, end)
            with _handing_over():
                consumer.seek(tp, position)
                consumer.resume(tp)
            self._partitions[tp] = partition
            if note.promise:
                log.info("promise_stands", topic=tp.topic, partition=tp.partition, first=note.promise.first)
        log.info("partitions_taken_over", partitions=len(tps), lag=sum(self.lag().values()))

    async def _places(self) -> tuple[dict[TopicPartition, tuple[int, Note]], dict[Any, int], dict[Any, int]]:
        tps, ports = list(self._assigned), self._ports
        found = await ports.admin.list_consumer_group_offsets(ports.group, partitions=tps)
        if found.keys() != self._assigned.keys():
            # A coordinator that is still loading answers with nothing, and aiokafka does not look at the reason.
            raise _NotYet
        notes = {tp: (place.offset, Note.load(place.metadata)) for tp, place in found.items() if place.offset >= 0}
        return notes, await ports.consumer.beginning_offsets(tps), await ports.consumer.end_offsets(tps)

    async def _patiently(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """The answer of the cluster, however long it takes. Raises `HandedOver` when nobody waits for it any more."""
        backoff_s = _BACKOFF_S
        while True:
            try:
                return await ask()
            except KafkaError as error:
                if not (error.retriable or isinstance(error, KafkaTimeoutError)):
                    raise
                log.warning("kafka_away", error=type(error).__name__, retry_in_s=backoff_s)
            await self._rest(backoff_s)
            backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)

    async def _rest(self, delay_s: float) -> None:
        """Wait before trying again. Raises `HandedOver` when these partitions are to be let go, tried or not."""
        if not self._draining:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), delay_s)
        if self._draining or self._ending.is_set():
            raise HandedOver

    async def _follow_ends(self) -> None:
        """Keep an eye on where the log ends, also of what is paused."""
        while True:
            await asyncio.sleep(_ENDS_EVERY_S)
            with contextlib.suppress(KafkaError):  # the reader tells of a broker that is away
                for tp, end in (await self._ports.consumer.end_offsets(list(self._partitions))).items():
                    self._partitions[tp].end = end

    async def _write(self) -> None:
        while not self._ending.is_set():
            self._news.clear()
            now = self._ports.clock()
            due = self._next_due()
            if due is not None and due[0] <= now:
                await self._batch(*due[1])
            elif self._draining:
                return
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), due[0] - now if due else None)

    def _next_due(self) -> tuple[float, tuple[TopicPartition, Partition]] | None:
        """The partition whose batch is due first, and when; of those that are due now, the one that has waited longest."""
        settings = self._ports.settings
        linger_s = 0.0 if self._draining else settings.sink_linger_s
        due = [
            (at, partition.waiting_since or 0.0, tp)
            for tp, partition in self._partitions.items()
            if (at := partition.due_at(linger_s, settings.sink_batch_rows, self._most_bytes)) is not None
        ]
        if not due:
            return None
        at, _, tp = min(due)
        return at, (tp, self._partitions[tp])

    async def _batch(self, tp: TopicPartition, partition: Partition) -> None:
        ports, account = self._ports, self._ports.account
        started = ports.clock()
        promise = partition.promise
        if promise is None:
            promise = partition.make_promise(ports.settings.sink_batch_rows, self._most_bytes)
            ports.at("1 cut")
            await self._commit(tp, promise.first, Note(partition.marks, promise))
            ports.at("2 promise")
        held = partition.promised()
        refused = await self._insert(partition, held.records, promise)
        ports.at("3 insert")
        if refused:
            await self._send_dead_letters(partition, refused)
            ports.at("3 dead letters")
        await self._commit(tp, partition.next_offset, Note(held.marks))
        partition.keep(held.marks, ports.clock())
        ports.at("4 commit")
        if self._partitions.get(tp) is partition and not partition.is_full(self._most_bytes):
            with _handing_over():
                ports.consumer.resume(tp)
        account.rows += sum(record.count for record in held.records) - len(refused)
        account.refused_rows += len(refused)
        account.skipped_records += held.repeated
        account.batches += 1
        account.batch_seconds += ports.clock() - started
        if held.repeated:
            log.info("repetitions_skipped", topic=tp.topic, partition=tp.partition, records=held.repeated)

    async def _insert(self, partition: Partition, records: Sequence[Rows], promise: Promise) -> list[tuple[int, bytes]]:
        """Bring the rows into the store, however long it is away; those that it refuses are returned, with their offset."""
        account, backoff_s = self._ports.account, _BACKOFF_S
        token = promise.token(partition.name, partition.number)
        while True:
            try:
                # The store blocks, and one insert at a time is all it takes.
                refused = await asyncio.to_thread(self._insert_now, partition.topic, records, token)
            except StoreUnavailable as error:
                account.store_away = True
                log.warning("store_away", error=str(error), retry_in_s=backoff_s)
            except RowsRefused as refusal:
                log.error("dead_letters_refused", batch=token, reason=refusal.reason)
                raise
            else:
                account.store_away = False
                return refused
            await self._rest(backoff_s)
            backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)

    def _insert_now(self, topic: Topic, records: Sequence[Rows], token: str) -> list[tuple[int, bytes]]:
        store, table = self._ports.store, TABLES[topic.name]

        def takes(lines: Sequence[bytes], token: str) -> bool:
            try:
                store.insert(table, b"\n".join(lines), token)
            except RowsRefused:
                if topic == DEAD_LETTERS:
                    raise  # there is no further place to put it; a person must look
                return False
            return True

        if takes([record.value for record in records if record.value], token):
            return []
        rows = [(record.offset, line) for record in records if record.value for line in record.value.split(b"\n")]
        refused = refused_lines(takes, [line for _, line in rows], token)
        log.warning("rows_refused", table=table, batch=token, rows=len(refused))
        return [rows[index] for index in refused]

    async def _send_dead_letters(self, partition: Partition, refused: Sequence[tuple[int, bytes]]) -> None:
        """One record for each that had refused rows; sent again after a crash, it is known by its source."""
        topic, at = partition.topic.name, datetime.now(UTC)
        letters = []
        for offset, rows in groupby(refused, key=lambda found: found[0]):
            lines = [dead_letter(line, topic, partition.number, offset, at) for _, line in rows]
            headers = {
                "schema": "rows/1",
                "source_partition": f"sink:{topic}:{partition.number}",
                "source_offset": str(offset),
                "count": str(len(lines)),
            }
            letters.append((headers, b"\n".join(lines)))
        await self._patiently(lambda: self._ports.dead_letters(partition.number, letters))

    async def _commit(self, tp: TopicPartition, offset: int, note: Note) -> None:
        """Raises `HandedOver` when the partition is another's."""
        try:
            with _handing_over():
                await self._ports.consumer.commit({tp: (offset, note.dump())})
        except OffsetMetadataTooLargeError:
            raise UsageError(
                f"the brokers do not keep the sink's note beside an offset: set offset.metadata.max.bytes to {MOST_NOTE_BYTES}"
            ) from None


class _NotYet(KafkaError):  # type: ignore[misc]  # aiokafka has no types
    """The cluster cannot say yet."""

    retriable = True


@contextlib.contextmanager
def _handing_over() -> Any:
    """The client says that a partition is not ours in two ways."""
    try:
        yield
    except (CommitFailedError, IllegalStateError) as error:
        raise HandedOver from error
