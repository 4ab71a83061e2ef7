"""The guardrails on Kafka: one member of a group that reads the content topic.

    content ─(consumer group)─► held ─► Runtime (pool of processes) ─► calls, transcripts, quarantine, dead letters, alerts
                                                                          └─ all acknowledged ─► the offset is committed

One commit, numbered as the crash test aborts it: 1 judged, 2 acknowledged, 3 committed. A crash before the commit judges the
same records again: the meter knows their verdicts by number, the sink their transcripts by source. Beside the offset stands who
has been heard (`guardrails_note.py`), so that an envelope sent twice is judged once even across a hand-over. Which models and
prompt versions are new, all workers of the group know together (`names_met.py`).

The runtime has a thread of its own, and is used from there alone; what Kafka says, and what it is told, is in the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from ...producers.kafka_client import client_options
from ...producers.key_source import KeySource
from ...schemas.errors import UsageError
from ...schemas.kafka_url import KafkaAddress
from ...schemas.settings import Settings
from ...schemas.signal import Alert
from ...schemas.topics import ALERTS, CALLS, CONTENT, DEAD_LETTERS, GUARDRAILS_NAMES, QUARANTINE, TRANSCRIPTS
from ..alert_rows import alert_record
from ..guardrails.outputs import Outputs
from ..guardrails.pool import LOADER
from ..guardrails.runtime import Runtime
from ..guardrails.telling import told
from ..topology import GUARDRAILS
from .call_record import CallRecord, call_record
from .guardrails_hearing import Hearing
from .guardrails_note import Note
from .names_met import dump_names
from .wire import Wire
from .worker_doors import Lags

log = structlog.get_logger("tidegate.guardrails")

T = TypeVar("T")

_FETCH_BYTES: Final = 2 << 20
_FETCHES_BYTES: Final = 16 << 20
# A record is an envelope of up to 900 KB.
_POLL_RECORDS: Final = 64
_POLL_MS: Final = 500
# How often it is tried whether the key ring can be read again; judgements wait no longer than that meanwhile.
_TROUBLE_MS: Final = 50
_WORK_S: Final = 0.05
# As long as the others of the group wait for us; what is under way is dropped, so it takes no time.
_REBALANCE_MS: Final = 30_000
_AGAIN_S: Final = 0.2


class KafkaGuardrails:
    """`start`, then `run` until it is cancelled or `failure` says why not. A crash test aborts in `at`."""

    def __init__(
        self,
        settings: Settings,
        wire: Wire,
        keys: KeySource,
        *,
        at: Callable[[str], None] = lambda _step: None,
        loader: str = LOADER,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._wire = wire
        self._keys = keys
        self._at = at
        self._loader = loader
        self._clock = clock
        self._address = KafkaAddress.parse(settings.url)
        self._name = self._address.topic(CONTENT)
        self._options = client_options(settings)
        self._thread = ThreadPoolExecutor(1, "tidegate-guardrails")
        self._runtime: Runtime | None = None
        self._consumer: Any = None
        self._admin: Any = None
        # Records that are read and not taken: there was no room, or no key ring.
        self._held: dict[int, deque[CallRecord]] = {}
        self._committed: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._notes: dict[int, Note] = {}
        # Held while outputs go out, and while partitions change hands.
        self._handing = asyncio.Lock()
        self._hearing = Hearing(settings, lambda change: self._in_thread(lambda: change(self.runtime.sampling)))
        self.trouble: str | None = None
        self.failure: BaseException | None = None
        self.said: dict[str, Any] = {}

    # ---- life

    async def start(self) -> None:
        """Join the group."""
        self._runtime = await self._in_thread(lambda: Runtime(self._settings, self._keys, loader=self._loader))
        await self._hearing.recall(self._wire)
        self._tell()
        self._admin = AIOKafkaAdminClient(**self._options)
        await self._admin.start()
        self._consumer = AIOKafkaConsumer(
            **self._options,
            group_id=self._address.group(GUARDRAILS.name),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=_FETCH_BYTES,
            fetch_max_bytes=_FETCHES_BYTES,
            session_timeout_ms=int(self._settings.worker_session_s * 1_000),
            heartbeat_interval_ms=int(self._settings.worker_session_s * 300),
            rebalance_timeout_ms=_REBALANCE_MS,
        )
        self._consumer.subscribe([self._name], listener=_Listener(self))
        await self._consumer.start()

    async def run(self) -> None:
        """Judge what comes. Ends by being cancelled, or with what went wrong in `failure`."""
        following = asyncio.create_task(self._hearing.follow(), name="what others say")
        try:
            while True:
                await self._round()
                if following.done():
                    following.result()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.failure = error
            raise
        finally:
            following.cancel()
            await asyncio.wait({following})

    async def close(self) -> None:
        """Leave the group and end the processes; what they had is judged by the next owner."""
        if self._consumer is not None:
            await self._consumer.stop()
        if self._admin is not None:
            await self._admin.close()
        if self._runtime is not None:
            await self._in_thread(self._runtime.close)
        self._thread.shutdown()

    @property
    def runtime(self) -> Runtime:
        if self._runtime is None:
            raise UsageError("the guardrails are not started")
        return self._runtime

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # ---- one round

    async def _round(self) -> None:
        found = await self._consumer.getmany(timeout_ms=self._patience_ms(), max_records=_POLL_RECORDS)
        async with self._handing:
            for tp, records in found.items():
                # Of a partition that we do not know from where to read, it is read again.
                if tp.partition in self._held:
                    self._held[tp.partition].extend(call_record(record, lambda: None) for record in records)
            outputs = await self._in_thread(self._work)
            for number, output in outputs:
                await self._put_out(number, output)
            self._steer()
            self._tell()
            if alerts := self.runtime.behind(self._clock()):
                await asyncio.gather(*await self._send_alerts(alerts))

    def _patience_ms(self) -> int:
        """For how long nothing but new content is waited for."""
        if self.trouble:
            return _TROUBLE_MS
        return 0 if self.runtime.busy or any(self._held.values()) else _POLL_MS

    def _work(self) -> list[tuple[int, Outputs]]:
        runtime, now = self.runtime, self._clock()
        try:
            # The oldest first, whosesoever: no partition waits for a busier one.
            while runtime.has_room and (waiting := [one for one in self._held.items() if one[1]]):
                number, held = min(waiting, key=lambda one: one[1][0].appended_ms)
                runtime.take(number, held[0], now)
                held.popleft()
            self.trouble = None
        except UsageError as error:
            # Not passed: content waits for its keys.
            if self.trouble != str(error):
                log.warning("guardrails_wait", reason=str(error))
            self.trouble = str(error)
        runtime.work(_WORK_S)
        return list(runtime.finished(self._clock()))

    async def _put_out(self, number: int, outputs: Outputs) -> None:
        self._at("1 judged")
        sent = await self._wire.send_rows(CALLS, number, outputs.scored, lambda headers: headers["producer"].encode())
        for topic, records in (
            (TRANSCRIPTS, outputs.transcripts),
            (QUARANTINE, outputs.quarantine),
            (DEAD_LETTERS, outputs.dead_letters),
        ):
            sent += await self._wire.send_rows(topic, number, records)
        if outputs.alerts:
            sent += await self._send_alerts(outputs.alerts)
        if fresh := self.runtime.sampling.fresh:
            sent.append(await self._wire.send_flush(GUARDRAILS_NAMES, 0, dump_names(fresh)))
        await asyncio.gather(*sent)
        self._at("2 acknowledged")
        note = self._notes[number]
        note.put(outputs.producers)
        try:
            await self._consumer.commit({TopicPartition(self._name, number): (outputs.next_offset, note.dump())})
        except (CommitFailedError, IllegalStateError):
            # Another's by now; what we have sent, it sends again, and that is known.
            log.info("commit_refused", partition=number)
            return
        self._committed[number] = outputs.next_offset
        self.runtime.sampling.fresh.clear()
        self.runtime.put_out(outputs)
        self._at("3 committed")

    async def _send_alerts(self, alerts: Sequence[Alert]) -> list[asyncio.Future[Any]]:
        _, headers, value = alert_record(alerts)
        return await self._wire.send_rows(ALERTS, 0, [(headers, value)])

    def _steer(self) -> None:
        """Read on where nothing is held: of each partition the next is at hand, and no more."""
        with contextlib.suppress(IllegalStateError):
            for number, held in self._held.items():
                tp = TopicPartition(self._name, number)
                if held:
                    self._consumer.pause(tp)
                else:
                    self._consumer.resume(tp)

    def _tell(self) -> None:
        unread = [held[0].appended_ms for held in self._held.values() if held]
        self.said = told(self.runtime.look(self._clock(), min(unread, default=None), self.trouble))

    def lags(self) -> Lags:
        """Records without a verdict, of the partitions that are ours. From any thread."""
        found: Lags = {}
        for number, committed in list(self._committed.items()):
            # Known from the first record that is fetched on; until then, from when we were given it.
            end = self._consumer.highwater(TopicPartition(self._name, number)) or self._ends.get(number, committed)
            found[CONTENT.name, number] = max(end - committed, 0)
        return found

    # ---- the group

    async def taken(self) -> None:
        """What we have may be somebody else's soon: what is not acknowledged is dropped."""
        async with self._handing:
            for number in list(self._held):
                await self._in_thread(lambda number=number: self.runtime.revoke(number))  # type: ignore[misc]
            self._held.clear()
            self._committed.clear()
            self._notes.clear()

    async def given(self, assigned: set[TopicPartition]) -> None:
        """These partitions are ours now."""
        tps = sorted(assigned)
        if not tps:
            return
        self._consumer.pause(*tps)
        places, begins, ends = await self._places(tps)
        async with self._handing:
            for tp in tps:
                position, note = places.get(tp, (begins[tp], Note()))
                if position > ends[tp]:
                    # A topic that was made anew: the numbers of the old one say nothing.
                    log.error("log_went_back", topic=tp.topic, partition=tp.partition, at=position, to=begins[tp])
                    position, note = begins[tp], Note()
                number = tp.partition
                await self._in_thread(
                    lambda number=number, position=position, note=note: self.runtime.assign(  # type: ignore[misc]
                        number, position, note.next_seq
                    )
                )
                self._notes[number] = note
                self._ends[number] = ends[tp]
                self._committed[number] = position
                self._held[number] = deque()
                with contextlib.suppress(IllegalStateError):
                    self._consumer.seek(tp, max(position, begins[tp]))
                    self._consumer.resume(tp)
        log.info("partitions_taken_over", partitions=len(tps))

    async def _places(
        self, tps: Sequence[TopicPartition]
    ) -> tuple[dict[TopicPartition, tuple[int, Note]], dict[Any, int], dict[Any, int]]:
        group = self._address.group(GUARDRAILS.name)
        while True:
            try:
                found = await self._admin.list_consumer_group_offsets(group, partitions=list(tps))
                # A coordinator that is still loading answers with nothing, and aiokafka does not look at the reason.
                if found.keys() == set(tps):
                    places = {tp: (at.offset, Note.load(at.metadata)) for tp, at in found.items() if at.offset >= 0}
                    return places, await self._consumer.beginning_offsets(tps), await self._consumer.end_offsets(tps)
            except KafkaError as error:
                if not error.retriable:
                    raise
            await asyncio.sleep(_AGAIN_S)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """What aiokafka tells of the group. It waits for `on_partitions_revoked` before it lets anything go."""

    def __init__(self, guardrails: KafkaGuardrails) -> None:
        self._guardrails = guardrails

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        await self._guardrails.taken()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        await self._guardrails.given(assigned)
