"""The policies on one partition of the usage topic: blocks of scopes in; signals and alerts out.

    usage ─► take ─┐                                   ┌─► alerts, rows for the store, acknowledged
    gates ─────────┤ run_once: hear, judge, publish ───┤
    signals ───────┘                                   └─► signals, acknowledged ─► the blocks may be committed

Nothing is kept but what the topics hold. A start reads the signals (what was said), then the meters' changelog (what is
counted); each scope that was counted further than the last heartbeat says is judged anew. Blocks that come again are in
that already.

Alerts and rows go first: a crash between the two tells an alert twice, as the word that would keep it back is not said yet. The
other way round it would never be told. What could not be published is published again, the same, before anything is
judged: signals are numbered, so hearing one twice changes nothing.

The worker of partition 0 speaks for all: it follows the policy file, says which policies are coming, so that meters count
what is new and its past, and puts them in force. The others follow it. Each says in its records who it is: should somebody
else speak of one of our scopes (a worker that was frozen while its partition was given away), the last word is ours.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from ...producers.kafka_client import client_options
from ...schemas.errors import UsageError
from ...schemas.kafka_url import KafkaAddress
from ...schemas.policy import PolicySet
from ...schemas.settings import Settings
from ...schemas.signal import COMING_KEY, POLICIES_KEY, Alert, heartbeat_key, parse_signal_key
from ...schemas.topics import ALERTS, GATES, METER_CHANGELOG, SIGNAL_ROWS, SIGNALS, USAGE
from ..audit_events import IN_FORCE, in_force
from ..enforcement import Enforcement, Publication
from ..policy_file import PolicyWatch
from ..series import series_of
from ..signal_rows import Kept
from .policies_memory import PoliciesMemory
from .policies_start import Start, read_start, read_words
from .policies_voice import LARGEST, Voice, unavailable
from .wire import Wire

log = structlog.get_logger("tidegate.policies")

# Blocks wake us at once; gates that come and go, and an edit of the policies, are looked for this often.
_LOOK_S: Final = 0.1
# The store answers for a day of calls in less than a second. When it is away, a policy that does not know its past yet is
# better than none.
_PAST_WITHIN_S: Final = 10.0
# The first worker has waited for that already; its word may only be a moment ahead of our blocks.
_BLOCKS_WITHIN_S: Final = 1.0
# Scopes that are judged at once at a start: some 30 µs each, and a group waits ten seconds for a sign of life.
_NEWS: Final = 5_000
# An entry of the audit log takes milliseconds. Where it does not, signals do not wait for it.
_HEARD_WITHIN_S: Final = 1.0


Tell = Callable[[str, Mapping[str, Any]], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class _Unsaid:
    """What is to be published, or may have been in part."""

    records: list[tuple[bytes, bytes]]
    alerts: list[Alert]
    kept: list[Kept]
    publication: Publication | None


class PoliciesPartition:
    """The policies of the scopes of one usage partition. Used from one event loop, between `load` and `close`.

    `tell` hears, of partition 0, which policies came in force, for the audit log.
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
        tell: Tell | None = None,
        clock: Callable[[], float] = time.time,
        patience: Callable[[], float] = time.monotonic,
        at: Callable[[str], None] = lambda _step: None,
    ) -> None:
        self.partition = partition
        self.signals = 0
        self.alerts = 0
        self._settings = settings
        self._partitions_of_calls = partitions_of_calls
        self._tell = tell
        self._voice = Voice(settings, partition, producer)
        self._consumer: Any = None
        self._clock = clock
        self._patience = patience
        self._at = at
        self._running = asyncio.Lock()
        # What the audit log is being told.
        self._telling: list[asyncio.Task[None]] = []

    @property
    def enforcement(self) -> Enforcement | None:
        """What surrounds the step, once it is loaded."""
        return getattr(self, "_enforcement", None)

    # starting and ending

    async def load(self) -> None:
        """Take up what the topics say. Raises `LogUnavailable`, and `UsageError` when topics are missing, or the policy file
        is bad and no policies were in force before."""
        try:
            async with self._running:
                await self._load()
        except KafkaError as error:
            await self.close()
            raise unavailable(error) from error
        except BaseException:
            await self.close()
            raise

    async def _load(self) -> None:
        self._unsaid: _Unsaid | None = None
        self._extra: dict[bytes, bytes] = {}
        self._coming: PolicySet | None = None
        self._coming_until = 0.0
        self._ran_at = float("-inf")
        self._own_words = True
        # Why the file's policies cannot be had, though it has no fault; and what the log was told of.
        self._unfit: str | None = None
        self._refused: str | None = None
        await self._voice.start()
        of = await self._voice.partitions(USAGE)
        for topic in (SIGNALS, GATES, SIGNAL_ROWS, ALERTS, METER_CHANGELOG):
            await self._voice.partitions(topic)
        if not 0 <= self.partition < of:
            raise UsageError(f"the usage topic has {of} partitions; there is no number {self.partition}")
        found = await read_start(Wire(self._settings), self.partition, of, self._partitions_of_calls)
        now = self._clock()
        memory = self._memory = found.memory
        self._told, self._news = found.told, found.news
        self._enforcement = Enforcement(memory, self._partitions_of_calls, now, unit_prices=memory.prices, share=memory.share)
        memory.keep_own(self._enforcement.state.rules)
        self._in_force = found.last is not None
        self._watch_series()
        for gate_id, silent_s in found.silent_s.items():
            self._enforcement.hear_gate(gate_id, now - silent_s)
        if self.partition == 0:
            self._extra |= {heartbeat_key(number): b"" for number in found.beats if number >= of}
            self._open_policy_file(found.last)
        await self._listen(found)

    async def _listen(self, found: Start) -> None:
        """Go on with the signals and the gates from where they were read to."""
        self._consumer = AIOKafkaConsumer(
            **client_options(self._settings), enable_auto_commit=False, auto_offset_reset="earliest"
        )
        await self._consumer.start()
        # aiokafka cannot stop a consumer of which the tasks have not begun.
        await asyncio.sleep(0)
        address = KafkaAddress.parse(self._settings.url)
        self._signals_tp = TopicPartition(address.topic(SIGNALS), 0)
        gates_tp = TopicPartition(address.topic(GATES), 0)
        self._consumer.assign([self._signals_tp, gates_tp])
        self._consumer.seek(self._signals_tp, found.signals_end)
        self._consumer.seek(gates_tp, found.gates_end)

    async def close(self) -> None:
        """Let go of connections. What waits for acknowledgement is the next owner's to say again."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()
        await self._voice.stop()
        telling, self._telling = self._telling, []
        if telling:
            await asyncio.wait(telling, timeout=_HEARD_WITHIN_S)
            for task in telling:
                task.cancel()  # the audit log has kept it for the next time
            await asyncio.gather(*telling, return_exceptions=True)

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
        soon = self._ran_at + (0.0 if self._news else _LOOK_S)
        return min(soon, self._enforcement.next_due()) if self._in_force else soon

    async def run_once(self) -> int:
        """Judge what was taken in, and publish. Returns how many signals went out; whatever was taken in before the call may
        be committed then. Raises `LogUnavailable`; calling again later loses nothing."""
        async with self._running:
            try:
                telling = len(self._telling)
                told = await self._publish()  # what was left unsaid when Kafka was away
                await self._follow()
                now = self._ran_at = self._clock()
                self._look_at_policy_file()
                await self._put_in_force(now)
                self._unsaid = self._judge(now)
                told += await self._publish()
                await self._heard_of(self._telling[telling:])
                return told
            except KafkaError as error:
                raise unavailable(error) from error

    async def _heard_of(self, new: list[asyncio.Task[None]]) -> None:
        """Give the audit log a moment to hear of this turn; what takes it longer goes on beside the next ones. Raises what
        ended one that is over."""
        if new:
            await asyncio.wait(new, timeout=_HEARD_WITHIN_S)
        over = [task for task in self._telling if task.done()]
        self._telling = [task for task in self._telling if not task.done()]
        for task in over:
            task.result()

    def _judge(self, now: float) -> _Unsaid | None:
        extra, publication = self._extra, None
        # A gate that hears a heartbeat before any policies would take it that there are none.
        if self._in_force:
            some, self._news = self._news[:_NEWS], self._news[_NEWS:]
            for partition, key in some:
                self._enforcement.hear(partition, key, self._memory.usage(partition, key) or b"", now)
            # Until all of it is judged, no more is told than was before.
            counted = self._told if self._news else self._memory.marks
            publication = self._enforcement.judge(list(counted), now, anyway=bool(extra))
        if publication is None and not extra:
            return None
        self._extra = {}
        records = publication.records if publication else []
        alerts, kept = (publication.alerts, publication.kept) if publication else ([], [])
        return _Unsaid([*records, *extra.items()], alerts, kept, publication)

    async def _publish(self) -> int:
        unsaid = self._unsaid
        if unsaid is None:
            return 0
        self._at("1 judged")
        if unsaid.alerts:
            await self._voice.alert(unsaid.alerts)
            self.alerts += len(unsaid.alerts)
            unsaid.alerts = []
        if unsaid.kept:
            await self._voice.keep(unsaid.kept)
            unsaid.kept = []
        self._at("2 alerted")
        await self._voice.say(unsaid.records)
        self._at("3 signalled")
        self._unsaid = None
        self._memory.said(unsaid.records)
        if unsaid.publication is None:
            return 0
        self._enforcement.published(unsaid.publication)
        if not self._own_words:
            self._own_words = True
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
            self._unfit = f"{path}: is not there; the policies that were in force stay so"
        if self._watch.problem or missing:
            self._stands()
        elif path is not None or last is None:
            # Without a file what is in force stays: the next worker to be the first one may have it.
            self._come(self._watch.current)
        self._announce()

    def _look_at_policy_file(self) -> None:
        """Follow the policy file; what is wrong with it is told once. A bad edit keeps the old policies."""
        if self.partition != 0:
            return
        changed = self._watch.poll(self._patience())
        if changed is not None:
            self._come(changed)
        self._stands()

    def _stands(self) -> None:
        """Tell of what is wrong with the policy file."""
        problem = self._watch.problem or self._unfit
        if problem != self._refused:
            self._refused = problem
            if problem:
                log.warning("policy_file_refused", error=problem)
        self._enforcement.stands("policy_file", f"policy file: {problem}" if problem else None, self._clock())

    def _come(self, policy_set: PolicySet) -> None:
        """These are to be in force, once the past of what they count is counted."""
        said = policy_set.model_dump_json().encode()
        if len(said) > LARGEST:
            problem = f"its policies make a record of {len(said):,} bytes, at most {LARGEST:,} fit; use fewer rows of limits"
            if not self._in_force:
                raise UsageError(problem)
            self._unfit = problem
            return
        self._unfit = None
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
            everything = PoliciesMemory(self._partitions_of_calls, self._memory.share)
            await read_words(wire, await wire.end(SIGNALS, 0), everything)
            self._memory.words, self._own_words = everything.words, False
        self._enforcement.enforce(coming, now)
        self._coming, self._in_force = None, True
        self._announce()
        self._watch_series()
        if self.partition == 0 and self._tell is not None:
            telling = self._tell(IN_FORCE, in_force(coming, self._settings.policy_file))
            self._telling.append(asyncio.create_task(telling, name="audit"))
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
                elif not self._voice.said(record.headers or ()):
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
