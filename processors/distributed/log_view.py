"""What a node sees of Kafka when it is asked how things stand: how far each step has come, and what the meters have counted.

    calls            ends  ─┐
    meter.changelog  tails ─┴─► how far the meter is, and its account of every event
    usage, metered … ends  ─┐
    groups           offsets┴─► how far the policies and the sink are

The meter's word is the last record of each flush, so one look at the tail of each partition has it: as exact as the flush it
belongs to, at the price of one small fetch. Offsets of groups are as old as their last commit, a second or less.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import CoordinatorLoadInProgressError, CoordinatorNotAvailableError, NotCoordinatorError

from ...producers.kafka_client import client_options
from ...producers.kafka_loop import REQUEST_TIMEOUT_S, KafkaLoop, LoopEnded, started
from ...producers.kafka_trouble import KAFKA_ERRORS, translated
from ...schemas.errors import LogUnavailable, UsageError
from ...schemas.kafka_url import KafkaAddress
from ...schemas.settings import Settings
from ...schemas.topics import CALLS, METER_CHANGELOG, TOPICS, USAGE, Topic
from ..topology import GUARDRAILS, METER, POLICIES, SINK, Step
from .changelog import STATE
from .kafka_admin import topics_of

# A look is a few requests, each answered in milliseconds; whoever asks waits no longer than a leader election takes.
_LOOK_S: Final = 2 * REQUEST_TIMEOUT_S
# On a new cluster the first question about a group makes the topic that groups live in, which takes a second or two.
_OPEN_S: Final = 30.0
_AGAIN_S: Final = 0.1
# Partitions are added by hand and rarely.
_COUNT_AGAIN_S: Final = 60.0
# What the groups read. Gates are followed by every policies worker, in no group.
_STEPS: Final = ((METER, METER.reads), (GUARDRAILS, GUARDRAILS.reads), (POLICIES, (USAGE,)), (SINK, SINK.reads))

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far each step has come in each partition it reads, as (passed, end); `totals` is the meters' account, `stopped`
    the partitions that the brake holds."""

    steps: Mapping[str, Mapping[str, tuple[int, int]]] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)
    stopped: Sequence[int] = ()

    def lag(self, step: Step) -> int:
        """Records that a step has not passed."""
        return sum(max(end - passed, 0) for passed, end in self.steps.get(step.name, {}).values())


class LogView:
    """One node's view of one namespace. From any thread; opens with the first look, and again after trouble."""

    def __init__(self, settings: Settings) -> None:
        self._address = KafkaAddress.parse(settings.url)
        self._options = client_options(settings) | {"request_timeout_ms": int(REQUEST_TIMEOUT_S * 1e3)}
        self._loop: KafkaLoop[_Eyes] | None = None
        # Never held while something is waited for.
        self._guard = threading.Lock()

    def cluster(self) -> str:
        """The cluster's id. Raises `UsageError` when topics are missing, `LogUnavailable`."""
        return self._ask(lambda eyes: eyes.cluster(), _OPEN_S)

    def look(self) -> Progress:
        """How things stand now. Raises `LogUnavailable`."""
        try:
            return self._ask(lambda eyes: eyes.look(), _LOOK_S)
        except UsageError as error:  # topics that were there are not: a cluster that is just coming up says that, too
            raise LogUnavailable(str(error)) from error

    def members(self, step: Step) -> list[str]:
        """Who works at a step now, as Kafka's own tools name them. Raises `LogUnavailable`."""
        return self._ask(lambda eyes: eyes.members(step), _LOOK_S)

    def _ask(self, question: Callable[[_Eyes], Awaitable[T]], timeout_s: float) -> T:
        with self._guard:
            loop = self._loop
            if loop is None or loop.ended:
                loop = self._loop = KafkaLoop(self._open, "tidegate-kafka-view")
        try:
            return loop.call(question, timeout_s)
        except LoopEnded as error:  # because somebody else's question has just failed
            raise LogUnavailable(f"Kafka at {self._address.bootstrap} did not answer") from error
        except KAFKA_ERRORS as error:
            self._drop(loop)
            raise translated(error, self._address.bootstrap, self._address.topic(CALLS), loop) from error

    def _drop(self, loop: KafkaLoop[_Eyes]) -> None:
        """Open a new connection the next time."""
        with self._guard:
            if self._loop is loop:
                self._loop = None
        loop.close()

    def close(self) -> None:
        if self._loop is not None:
            self._drop(self._loop)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[_Eyes]:
        admin = _Admin(**self._options)
        # Nothing is made by asking: `topics_of` asks for all topics, never for one.
        consumer = AIOKafkaConsumer(**self._options, group_id=None, enable_auto_commit=False, auto_offset_reset="earliest")
        async with started(admin), started(consumer):
            yield _Eyes(admin, consumer, self._address)


class _Admin(AIOKafkaAdminClient):  # type: ignore[misc]  # aiokafka has no types
    async def stop(self) -> None:
        await self.close()


class _Eyes:
    """The clients of one connection."""

    def __init__(self, admin: Any, consumer: Any, address: KafkaAddress) -> None:
        self._admin = admin
        self._consumer = consumer
        self._address = address
        self._partitions: dict[str, int] = {}
        self._counted_at = float("-inf")
        # A consumer has one assignment, and its positions are moved for every look.
        self._looking = asyncio.Lock()

    async def cluster(self) -> str:
        await self._count()
        return str((await self._admin.describe_cluster())["cluster_id"])

    async def _count(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._counted_at < _COUNT_AGAIN_S:
            return
        found, _ = await topics_of(self._admin)
        wanted = {self._address.topic(topic): topic.name for topic in (*TOPICS.values(), METER_CHANGELOG)}
        if missing := sorted(wanted.keys() - found.keys()):
            more = f" and {len(missing) - 2} others" if len(missing) > 2 else ""
            raise UsageError(
                f"Kafka at {self._address.bootstrap} has no topic {', '.join(missing[:2])}{more}: run `tidegate topics create`,"
                " or look at the namespace at the end of TIDEGATE_URL"
            )
        self._partitions = {name: found[called].partitions for called, name in wanted.items()}
        self._counted_at = now
        self._consumer.assign(self._of(METER_CHANGELOG))
        self._consumer.pause(*self._of(METER_CHANGELOG))

    def _of(self, topic: Topic) -> list[TopicPartition]:
        name = self._address.topic(topic)
        return [TopicPartition(name, number) for number in range(self._partitions[topic.name])]

    async def look(self) -> Progress:
        async with self._looking:
            await self._count()
            accounts = await self._accounts()
            steps: dict[str, dict[str, tuple[int, int]]] = {}
            for step, topics in _STEPS:
                parts = [tp for topic in topics for tp in self._of(topic)]
                passed = await self._committed(step) if step is not METER else _applied(parts, accounts)
                begins, ends = await self._consumer.beginning_offsets(parts), await self._consumer.end_offsets(parts)
                # What retention has taken away before it was read is not waited for.
                steps[step.name] = {
                    f"{tp.topic}/{tp.partition}": (max(passed.get(tp, 0), begins[tp]), ends[tp]) for tp in parts
                }
            stopped = sorted(partition for partition, account in accounts.items() if account.get("stop"))
            return Progress(steps, sum_of(account["totals"] for account in accounts.values()), stopped)

    async def _committed(self, step: Step) -> dict[TopicPartition, int]:
        while True:  # until whoever asked has waited enough
            try:
                found = await self._admin.list_consumer_group_offsets(self._address.group(step.name))
                return {tp: told.offset for tp, told in found.items()}
            except (CoordinatorNotAvailableError, CoordinatorLoadInProgressError, NotCoordinatorError):
                await asyncio.sleep(_AGAIN_S)

    async def members(self, step: Step) -> list[str]:
        group = self._address.group(step.name)
        while True:
            try:
                (answer,) = await self._admin.describe_consumer_groups([group])
            except (CoordinatorNotAvailableError, CoordinatorLoadInProgressError, NotCoordinatorError):
                await asyncio.sleep(_AGAIN_S)
                continue
            return [member["client_id"] for found in answer.to_object()["groups"] for member in found["members"]]

    async def _accounts(self) -> dict[int, dict[str, Any]]:
        """What the meter of each source partition has said last of itself."""
        parts = self._of(METER_CHANGELOG)
        ends = await self._consumer.end_offsets(parts)
        begins = await self._consumer.beginning_offsets(parts)
        waiting = {tp for tp in parts if ends[tp] > begins[tp]}
        accounts: dict[int, dict[str, Any]] = {}
        for tp in waiting:
            self._consumer.seek(tp, ends[tp] - 1)
        self._consumer.resume(*waiting)
        try:
            while waiting:
                found = await self._consumer.getmany(*waiting, timeout_ms=1_000)
                for tp, records in found.items():
                    for record in records:
                        if record.key == STATE and record.value:
                            accounts[tp.partition] = orjson.loads(record.value)
                            waiting.discard(tp)
        finally:
            self._consumer.pause(*parts)
        return accounts


def _applied(calls: Iterable[TopicPartition], accounts: Mapping[int, Mapping[str, Any]]) -> dict[TopicPartition, int]:
    return {tp: int(accounts[tp.partition]["next_offset"]) for tp in calls if tp.partition in accounts}


def sum_of(accounts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Several meters' accounts as one."""
    found: Counter[str] = Counter()
    for account in accounts:
        found.update(account)
    return dict(found)
