"""The policies on one partition of the usage topic: blocks of scopes in; signals and alerts out.

    usage ─► take ─┐                                   ┌─► alerts, acknowledged
    gates ─────────┤ run_once: hear, judge, publish ───┤
    signals ───────┘                                   └─► signals, acknowledged ─► the blocks may be committed

Nothing is kept but what the topics hold. A start reads the signals (what was said), then the meters' changelog (what is
counted); each scope that was counted further than the last heartbeat says is judged anew. Blocks that come again are in
that already.

Alerts go first: a crash between the two tells an alert twice, as the word that would keep it back is not said yet. The
other way round it would never be told. What could not be published is published again, the same, before anything is
judged: signals are numbered, so hearing one twice changes nothing.

The worker of partition 0 speaks for all: it follows the policy file, says which policies are coming, so that meters count
what is new and its past, and puts them in force. The others follow it. Each says in its records who it is: should somebody
else speak of one of our scopes (a worker that was frozen while its partition was given away), the last word is ours.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, TopicAuthorizationFailedError

from ...producers.kafka_client import client_options
from ...schemas.errors import LogUnavailable, UsageError
from ...schemas.kafka_url import KafkaAddress
from ...schemas.policy import PolicySet
from ...schemas.settings import Settings
from ...schemas.signal import (
    COMING_KEY,
    POLICIES_KEY,
    SCHEMA,
    Alert,
    Gates,
    decode_gates,
    heartbeat_key,
    heartbeat_number,
    parse_signal_key,
)
from ...schemas.topics import ALERTS, GATES, METER_CHANGELOG, SIGNALS, USAGE, Topic
from ..alert_rows import alert_record
from ..enforcement import Enforcement, Publication, last_policies
from ..policy_file import PolicyWatch
from ..series import series_of
from .policies_memory import PoliciesMemory, share_of
from .wire import Wire

log = structlog.get_logger("tidegate.policies")

# Blocks wake us at once; gates that come and go, and an edit of the policies, are looked for this often.
_LOOK_S: Final = 0.1
# The store answers for a day of calls in less than a second. When it is away, a policy that does not know its past yet is
# better than none.
_PAST_WITHIN_S: Final = 10.0
# The first worker has waited for that already; its word may only be a moment ahead of our blocks.
_BLOCKS_WITHIN_S: Final = 1.0
# A broker that restarts is back in ten seconds; after thirty, somebody should hear that nothing can be said.
_GIVE_UP_S: Final = 30.0
# A record of signals is below a kilobyte; the one that may be large holds all policies, and the topic takes 4 MiB.
_BATCH_BYTES: Final = 512 << 10
_LARGEST: Final = (4 << 20) - 4_096
# Alerts a record of rows: some 0.5 MB.
_ROWS: Final = 500
# Between two looks at the event loop, while a changelog is read.
_SLICE: Final = 2_000
_BY: Final = "by"
_ADVICE: Final[dict[type[KafkaError], str]] = {
    MessageSizeTooLargeError: "a record is larger than a topic lets in; see tidegate topics check",
    TopicAuthorizationFailedError: "this worker has not the right to; see tidegate topics acls",
}


@dataclass(slots=True)
class _Unsaid:
    """What is to be published, or may have been in part."""

    records: list[tuple[bytes, bytes]]
    alerts: list[Alert]
    publication: Publication | None


class PoliciesPartition:
    """The policies of the scopes of one usage partition. Used from one event loop, between `load` and `close`.

    Give it a `producer` that is idempotent and waits for all acknowledgements, or it makes one of its own. `clock` is
    seconds since 1970, `patience` monotonic.
    """

    def __init__(
        self,
        settings: Settings,
        partition: int,
        partitions_of_calls: int,
        *,
        producer: Any = None,
        clock: Callable[[], float] = time.time,
        patience: Callable[[], float] = time.monotonic,
        at: Callable[[str], None] = lambda _step: None,
    ) -> None:
        self.partition = partition
        self.signals = 0
        self.alerts = 0
        self._settings = settings
        self._partitions_of_calls = partitions_of_calls
        self._address = KafkaAddress.parse(settings.url)
        self._shared_producer = producer
        self._producer: Any = None
        self._consumer: Any = None
        self._clock = clock
        self._patience = patience
        self._at = at
        self._running = asyncio.Lock()

    # starting and ending

    async def load(self) -> None:
        """Take up what the topics say. Raises `LogUnavailable`, and `UsageError` when topics are missing, or the policy file
        is bad and no policies were in force before."""
        try:
            async with self._running:
                await self._load()
        except KafkaError as error:
            await self.close()
            raise _unavailable(error) from error
        except BaseException:
            await self.close()
            raise

    async def _load(self) -> None:
        self._id = _new_id(self.partition)
        self._unsaid: _Unsaid | None = None
        self._extra: dict[bytes, bytes] = {}
        self._coming: PolicySet | None = None
        self._coming_until = 0.0
        self._ran_at = float("-inf")
        await self._start_producer()
        of = await self._partitions(USAGE)
        for topic in (SIGNALS, GATES, ALERTS, METER_CHANGELOG):
            await self._partitions(topic)
        if not 0 <= self.partition < of:
            raise UsageError(f"{self._address.topic(USAGE)} has {of} partitions; there is no number {self.partition}")
        wire = Wire(self._settings)
        signals_end, gates_end = await wire.end(SIGNALS, 0), await wire.end(GATES, 0)
        self._memory, beats = await self._read_words(wire, signals_end, of, await wire.end(USAGE, self.partition))
        last = last_policies(self._memory)
        news = await self._read_changelogs(wire, _told(beats.get(self.partition), of, self._partitions_of_calls, last))
        now = self._clock()
        self._enforcement = Enforcement(
            self._memory,
            self._partitions_of_calls,
            now,
            unit_prices=self._memory.prices,
            share=self._memory.share,
        )
        self._in_force = last is not None
        self._memory.keep_own(self._enforcement.state.rules)
        self._watch_series()
        for partition, key in news:
            self._enforcement.hear(partition, key, self._memory.usage(partition, key) or b"", now)
        for gate_id, seen_at in (await self._read_gates(wire, gates_end, now)).items():
            self._enforcement.hear_gate(gate_id, seen_at)
        if self.partition == 0:
            self._extra |= {heartbeat_key(number): b"" for number in beats if number >= of}
            self._open_policy_file(last)
        self._consumer = AIOKafkaConsumer(
            **client_options(self._settings), enable_auto_commit=False, auto_offset_reset="earliest"
        )
        await self._consumer.start()
        self._signals_tp = TopicPartition(self._address.topic(SIGNALS), 0)
        gates_tp = TopicPartition(self._address.topic(GATES), 0)
        self._consumer.assign([self._signals_tp, gates_tp])
        self._consumer.seek(self._signals_tp, signals_end)
        self._consumer.seek(gates_tp, gates_end)

    async def _read_words(self, wire: Wire, end: int, of: int, covered: int) -> tuple[PoliciesMemory, dict[int, Gates]]:
        """What was said last, and every worker's last heartbeat."""
        memory = PoliciesMemory(self._partitions_of_calls, share_of(self.partition, of), covered)
        beats: dict[int, Gates] = {}
        async for record in wire.follow(SIGNALS, 0, end=end):
            key, value = record.key or b"", record.value or b""
            try:
                number = heartbeat_number(key)
                if number is not None:
                    beats |= {number: decode_gates(value)} if value else {}
                    continue
                parse_signal_key(key)
                memory.said([(key, value)])
            except (ValueError, TypeError, msgspec.MsgspecError) as error:
                # Of another version, or nobody's: as if it had not been said.
                log.error("signal_refused", offset=record.offset, error_type=type(error).__name__)
                memory.said([(key, b"")])
        return memory, beats

    async def _read_changelogs(self, wire: Wire, told: list[int]) -> list[tuple[int, bytes]]:
        """What the meters remember. The scopes that counted on since we last told all: (source partition, usage key)."""
        news = []
        for partition in range(self._partitions_of_calls):
            applied: dict[bytes, int] = {}
            some: list[tuple[bytes, bytes | None]] = []
            async for record in wire.follow(METER_CHANGELOG, partition):
                some.append((record.key, record.value))
                if len(some) >= _SLICE:
                    self._memory.remember(partition, some, applied)
                    some.clear()
                    await asyncio.sleep(0)
            self._memory.remember(partition, some, applied)
            # A scope may count on without a record, when a call is given up on: the offset told of is news, too.
            news += [(partition, key) for key, offset in applied.items() if offset >= told[partition]]
        return news

    async def _read_gates(self, wire: Wire, end: int, now: float) -> dict[str, float]:
        """When each gate was last seen. By the log's clock it was so long before the last of all; ours may differ."""
        seen_ms = {}
        async for record in wire.follow(GATES, 0, end=end):
            name = (record.key or b"").decode("utf-8", "replace")
            if record.value:
                seen_ms[name] = record.timestamp
            else:
                seen_ms.pop(name, None)
        newest = max(seen_ms.values(), default=0)
        return {name: now - (newest - ms) / 1_000 for name, ms in seen_ms.items()}

    async def close(self) -> None:
        """Let go of connections. What waits for acknowledgement is the next owner's to say again."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()
        await self._stop_producer()

    # feeding

    def take(self, headers: dict[str, str], value: bytes, offset: int) -> None:
        """Take in one block, from its offset of our usage partition. Never raises: what cannot be read is counted
        (`refused`) and logged."""
        now = self._clock()
        for partition, key, usage in self._memory.take(headers, value, offset):
            self._enforcement.hear(partition, key, usage, now)

    @property
    def refused(self) -> int:
        """Blocks, and entries of blocks, that could not be read."""
        return self._memory.refused

    @property
    def next_due(self) -> float:
        """When `run_once` is wanted although no block has come, seconds since 1970."""
        soon = self._ran_at + _LOOK_S
        return min(soon, self._enforcement.next_due()) if self._in_force else soon

    async def run_once(self) -> int:
        """Judge what was taken in, and publish. Returns how many signals went out; whatever was taken in before the call may
        be committed then. Raises `LogUnavailable`; calling again later loses nothing."""
        async with self._running:
            try:
                told = await self._publish()  # what was left unsaid when Kafka was away
                await self._follow()
                now = self._ran_at = self._clock()
                self._look_at_policy_file()
                await self._put_in_force(now)
                self._unsaid = self._judge(now)
                return told + await self._publish()
            except KafkaError as error:
                raise _unavailable(error) from error

    def _judge(self, now: float) -> _Unsaid | None:
        extra, publication = self._extra, None
        # A gate that hears a heartbeat before any policies would take it that there are none.
        if self._in_force:
            publication = self._enforcement.judge(list(self._memory.marks), now, anyway=bool(extra))
        if publication is None and not extra:
            return None
        self._extra = {}
        records = publication.records if publication else []
        return _Unsaid([*records, *extra.items()], publication.alerts if publication else [], publication)

    async def _publish(self) -> int:
        unsaid = self._unsaid
        if unsaid is None:
            return 0
        if self._producer is None:
            await self._start_producer()
        self._at("1 judged")
        try:
            if unsaid.alerts:
                starts = range(0, len(unsaid.alerts), _ROWS)
                await self._send(ALERTS, (alert_record(unsaid.alerts[start : start + _ROWS]) for start in starts))
                self.alerts += len(unsaid.alerts)
                unsaid.alerts = []
            self._at("2 alerted")
            headers = {"schema": SCHEMA, _BY: self._id}
            await self._send(SIGNALS, ((key, headers, value or None) for key, value in unsaid.records))
        except KafkaError:
            # What is on its way may still arrive, so from now on it is somebody else's.
            self._id = _new_id(self.partition)
            await self._stop_producer()
            raise
        self._at("3 signalled")
        self._unsaid = None
        self._memory.said(unsaid.records)
        if unsaid.publication is None:
            return 0
        self._enforcement.published(unsaid.publication)
        self._memory.keep_own(self._enforcement.state.rules)
        self.signals += unsaid.publication.signals
        return unsaid.publication.signals

    # policies

    def _open_policy_file(self, last: PolicySet | None) -> None:
        path = self._settings.policy_file
        missing = path is not None and not path.is_file()
        if missing and last is None:
            raise UsageError(f"{path}: is not there; correct TIDEGATE_POLICY_FILE, or put it there")
        self._watch = PolicyWatch(path, last)
        if missing:
            self._tell_of_file(f"{path}: is not there; the policies that were in force stay so")
        elif self._watch.problem:
            self._tell_of_file(self._watch.problem)
        elif path is not None or last is None:
            # Without a file what is in force stays: the next worker to be the first one may have it.
            self._come(self._watch.current)
        self._announce()

    def _look_at_policy_file(self) -> None:
        """Follow the policy file; what is wrong with it is told once. A bad edit keeps the old policies."""
        if self.partition != 0:
            return
        problem = self._watch.problem
        changed = self._watch.poll(self._patience())
        if changed is not None:
            self._come(changed)
        if self._watch.problem and self._watch.problem != problem:
            self._tell_of_file(self._watch.problem)

    def _tell_of_file(self, problem: str) -> None:
        log.warning("policy_file_refused", error=problem)
        self._enforcement.tell("policy_file", f"policy file: {problem}", self._clock())

    def _come(self, policy_set: PolicySet) -> None:
        """These are to be in force, once the past of what they count is counted."""
        said = policy_set.model_dump_json().encode()
        if len(said) > _LARGEST:
            problem = f"its policies make a record of {len(said):,} bytes, at most {_LARGEST:,} fit; use fewer rows of limits"
            if not self._in_force:
                raise UsageError(problem)
            self._tell_of_file(problem)
            return
        if self._in_force and policy_set == self._enforcement.policy_set:
            self._coming = None
        else:
            within_s = _BLOCKS_WITHIN_S if self.partition else _PAST_WITHIN_S
            self._coming, self._coming_until = policy_set, self._patience() + within_s
        self._announce()
        self._watch_series()

    async def _put_in_force(self, now: float) -> None:
        """Put the policies that come in force, once the past of what they count is counted or that has taken too long."""
        coming = self._coming
        if coming is None:
            return
        wanted = series_of(coming.policies).keys()
        if not all(wanted <= watched for watched in self._memory.watched) and self._patience() < self._coming_until:
            return
        if self._memory.share.of > 1:
            # A policy that counts something else now may bring us scopes of which others have spoken so far.
            wire = Wire(self._settings)
            everything, _ = await self._read_words(wire, await wire.end(SIGNALS, 0), self._memory.share.of, 0)
            self._memory.words = everything.words
        self._enforcement.enforce(coming, now)
        self._coming, self._in_force = None, True
        self._announce()
        self._watch_series()
        log.info("policies_in_force", version=coming.version, policies=len(coming.policies), partition=self.partition)

    def _announce(self) -> None:
        """Say which policies are coming, or that none are, unless the topic does."""
        if self.partition != 0:
            return
        said = self._coming.model_dump_json().encode() if self._coming else b""
        if self._memory.words.get(COMING_KEY, b"") == said:
            self._extra.pop(COMING_KEY, None)
        else:
            self._extra[COMING_KEY] = said

    def _watch_series(self) -> None:
        sets = [self._enforcement.policy_set, *([self._coming] if self._coming else [])]
        self._memory.series = series_of(policy for policies in sets for policy in policies.policies)

    # what others say

    async def _follow(self) -> None:
        now = self._clock()
        for tp, records in (await self._consumer.getmany(timeout_ms=0)).items():
            for record in records:
                if tp != self._signals_tp:
                    # When it came here: the log's clock, or the gate's, need not be ours.
                    name = (record.key or b"").decode("utf-8", "replace")
                    self._enforcement.hear_gate(name, now if record.value else None)
                elif dict(record.headers or ()).get(_BY) != self._id.encode():
                    self._hear_other(record.key or b"", record.value or b"", now)

    def _hear_other(self, key: bytes, value: bytes, now: float) -> None:
        """Take in what another worker said."""
        try:
            if key == POLICIES_KEY:
                self._memory.said([(key, value)])
                if self.partition != 0 and value:
                    self._come(PolicySet.model_validate_json(value))
                elif self._in_force:
                    self._enforcement.repeat_policies()
            elif key == COMING_KEY and self.partition == 0:
                self._memory.said([(key, value)])
                self._announce()
            elif (parsed := parse_signal_key(key)) is not None:
                rule = self._enforcement.state.rules.get(parsed[0])
                if rule is not None and self._memory.share.owns(rule.series.id, parsed[1]):
                    self._memory.said([(key, value)])
                    self._enforcement.repeat(*parsed, now)
        except (ValueError, TypeError, msgspec.MsgspecError) as error:
            log.error("signal_refused", error_type=type(error).__name__)

    # the wire

    async def _start_producer(self) -> None:
        if self._shared_producer is not None:
            self._producer = self._shared_producer
            return
        producer = AIOKafkaProducer(
            **client_options(self._settings),
            enable_idempotence=True,
            acks="all",
            linger_ms=0,
            compression_type="zstd",
            request_timeout_ms=int(_GIVE_UP_S * 1_000),
            max_batch_size=_BATCH_BYTES,
            max_request_size=_LARGEST + 4_096,
        )
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._producer = producer

    async def _stop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None and producer is not self._shared_producer:
            await producer.stop()

    async def _partitions(self, topic: Topic) -> int:
        """How many partitions a topic has. Raises `UsageError` when it is not there."""
        name = self._address.topic(topic)
        metadata = await self._producer.client.fetch_all_metadata()
        found = metadata.partitions_for_topic(name)
        if not found:
            raise UsageError(f"there is no topic {name}; make the topics with: tidegate topics create")
        return len(found)

    async def _send(self, topic: Topic, records: Iterable[tuple[bytes | None, dict[str, str], bytes | None]]) -> None:
        """Send records in as few batches as they fit in, and wait until they are acknowledged."""
        name, producer = self._address.topic(topic), self._producer
        batch, sent = producer.create_batch(), []
        for key, headers, value in records:
            encoded = [(header, text.encode()) for header, text in headers.items()]
            while batch.append(key=key, value=value, timestamp=None, headers=encoded) is None:
                sent.append(await producer.send_batch(batch, name, partition=0))
                batch = producer.create_batch()
        if batch.record_count():
            sent.append(await producer.send_batch(batch, name, partition=0))
        for result in await asyncio.gather(*sent, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result


def _told(beat: Gates | None, of: int, partitions: int, last: PolicySet | None) -> list[int]:
    """Up to which offset of each source partition everything was told, by the last heartbeat of the same share under the
    same policies."""
    if beat is None or last is None or (beat.of, beat.policies, len(beat.applied)) != (of, last.version, partitions):
        return [-1] * partitions
    return list(beat.applied)


def _new_id(partition: int) -> str:
    return f"{partition}-{uuid4().hex[:12]}"


def _unavailable(error: KafkaError) -> LogUnavailable:
    advice = _ADVICE.get(type(error), "they wait until it can be reached")
    return LogUnavailable(f"Kafka takes no signals or alerts ({type(error).__name__}): {advice}", retry_after_s=0.5)
