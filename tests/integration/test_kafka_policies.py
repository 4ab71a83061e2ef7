"""The policies on a real broker, behind real meters: what is said is true, whoever dies when; and nobody is told too little."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaTimeoutError
from kafka_broker import needs_broker
from signalling import MemorySignals
from support import envelope, response
from tidegate.processors.distributed import policies_worker
from tidegate.processors.distributed.blocks import WATCHED, block_headers, encode_block, partition_of_scope
from tidegate.processors.distributed.call_record import CallRecord
from tidegate.processors.distributed.meter_partition import MeterPartition
from tidegate.processors.distributed.policies_worker import PoliciesPartition
from tidegate.processors.distributed.topics import create_topics
from tidegate.processors.distributed.wire import Wire
from tidegate.processors.distributed.worker_doors import WorkerMetrics
from tidegate.processors.policy_file import read_policies
from tidegate.processors.pricing import PriceBook
from tidegate.processors.series import series_of, usage_key
from tidegate.producers.decision import Estimate
from tidegate.producers.gate import Gate
from tidegate.producers.kafka_client import client_options
from tidegate.producers.ports import Position
from tidegate.schemas.errors import LogUnavailable, UsageError
from tidegate.schemas.kafka_url import KafkaAddress
from tidegate.schemas.policy import PolicySet
from tidegate.schemas.settings import Settings
from tidegate.schemas.signal import (
    COMING_KEY,
    GATES_KEY,
    POLICIES_KEY,
    Signal,
    decode_gates,
    decode_signal,
    heartbeat_key,
    signal_key,
)
from tidegate.schemas.topics import ALERTS, GATES, SIGNAL_ROWS, SIGNALS, USAGE, Topic

pytestmark = [pytest.mark.slow, needs_broker]

# A busy machine with few cores and a broker on it takes its time.
DEADLINE_S = 60.0
BOOK = PriceBook.load()

HOURLY = "  - {name: hourly, scope: [tenant], measure: requests, window: {rolling: 1h}, limit: 5, action: block}\n"
WIDER = "  - {name: hourly, scope: [tenant], measure: requests, window: {rolling: 1h}, limit: 50, action: block}\n"
LONGER = "  - {name: hourly, scope: [tenant], measure: requests, window: {rolling: 2h}, limit: 5, action: block}\n"
DAILY = "  - {name: daily, scope: [tenant], measure: cost_usd, window: {rolling: 24h}, limit: 0.01, action: block}\n"
HARBOR = "harbor-health"


class Abort(BaseException):
    """The power goes out. Not an Exception: nothing may catch it on the way."""


def abort_at(wanted: str, after: int = 0) -> Callable[[str], None]:
    """Aborts when a step is reached for the first time, after so many times."""
    left = [after]

    def at(step: str) -> None:
        if step == wanted:
            left[0] -= 1
            if left[0] < 0:
                raise Abort(step)

    return at


@dataclass
class Town:
    """A namespace on the broker with its topics, and a meter on each partition of `calls`. The test is the producer."""

    settings: Settings
    wire: Wire
    policy_file: Path
    usage_partitions: int
    meters: list[MeterPartition] = field(default_factory=list)
    _sent: dict[int, int] = field(default_factory=dict)

    @classmethod
    @asynccontextmanager
    async def of(cls, url: str, folder: Path, policies: str = HOURLY, calls: int = 1, usage: int = 1) -> AsyncIterator[Town]:
        policy_file = folder / "policies.yaml"
        settings = Settings(url=url, policy_file=policy_file)
        await create_topics(settings, calls, usage, 1)
        wire = Wire(settings)
        await wire.start()
        town = cls(settings, wire, policy_file, usage)
        town.write(policies)
        try:
            for partition in range(calls):
                town.meters.append(await town.meter(partition))
            yield town
        finally:
            for meter in town.meters:
                await meter.close()
            await wire.stop()

    def write(self, policies: str) -> PolicySet:
        """Edit the policy file."""
        self.policy_file.write_text("policies:\n" + policies)
        return read_policies(self.policy_file)

    async def meter(self, partition: int) -> MeterPartition:
        metrics = WorkerMetrics("meter")
        meter = MeterPartition(partition, self.wire, self.settings, BOOK, self.usage_partitions, metrics, failed=_broken)
        await meter.load(series_of(read_policies(self.policy_file).policies))
        return meter

    async def call(self, count: int, tenant: str = HARBOR, partition: int = 0) -> int:
        """So many calls of a tenant, through the meter. The offset at which they stand in `calls`."""
        offset = self._sent.get(partition, 0)
        self._sent[partition] = offset + 1
        now = time.time()
        at = datetime.fromtimestamp(now, UTC).isoformat()
        events = [response(f"call-{partition}-{offset}-{n}", tenant=tenant, started_at=at) for n in range(count)]
        sent = envelope(f"producer-{partition}-{offset}", 0, events)
        meter = self.meters[partition]
        await meter.take(CallRecord(offset, int(now * 1_000), sent.value, sent.headers(), lambda: None))
        await meter.drain()
        return offset

    async def records(self, topic: Topic) -> list[Any]:
        return [record async for record in self.wire.follow(topic, 0)]

    async def words(self) -> dict[bytes, bytes]:
        """The last word on every key of the signals topic."""
        found: dict[bytes, bytes] = {}
        for record in await self.records(SIGNALS):
            if record.value:
                found[record.key] = record.value
            else:
                found.pop(record.key, None)
        return found

    async def signal(self, tenant: str = HARBOR, policy: str = "hourly") -> Signal | None:
        value = (await self.words()).get(signal_key(policy, (tenant,)))
        return decode_signal(value) if value else None

    async def told(self, tenant: str = HARBOR, policy: str = "hourly") -> list[Signal]:
        """Every signal on a scope, in the order of the topic."""
        key = signal_key(policy, (tenant,))
        return [decode_signal(record.value) for record in await self.records(SIGNALS) if record.key == key and record.value]

    async def alerts(self) -> list[tuple[str, str, str]]:
        rows = [orjson.loads(row) for record in await self.records(ALERTS) for row in record.value.split(b"\n")]
        return [(row["key"], row["previous_state"] or "", row["state"] or "") for row in rows]


def _broken(error: BaseException) -> None:
    raise error


@dataclass
class Worker:
    """What a Faust agent does: blocks in order, a run behind them, and then their offset is committed."""

    policies: PoliciesPartition
    consumer: Any
    committed: int

    @classmethod
    @asynccontextmanager
    async def on(cls, town: Town, partition: int = 0, start: int | None = 0, **options: Any) -> AsyncIterator[Worker]:
        """One that goes on from `start`; None: from the end of the topic, as when retention has taken the rest."""
        policies = PoliciesPartition(town.settings, partition, len(town.meters), **options)
        consumer = AIOKafkaConsumer(**client_options(town.settings), enable_auto_commit=False, auto_offset_reset="earliest")
        tp = TopicPartition(KafkaAddress.parse(town.settings.url).topic(USAGE), partition)
        await consumer.start()
        try:
            await policies.load()
            consumer.assign([tp])
            committed = (await consumer.end_offsets([tp]))[tp] if start is None else start
            consumer.seek(tp, committed)
            yield cls(policies, consumer, committed)
        finally:
            await consumer.stop()
            await policies.close()

    async def turn(self) -> None:
        for records in (await self.consumer.getmany(timeout_ms=20)).values():
            for record in records:
                self.policies.take({name: value.decode() for name, value in record.headers}, record.value, record.offset)
                self.committed = record.offset + 1
        await self.policies.run_once()

    async def until(self, said: Callable[[], Awaitable[bool]]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not await said():
            assert time.monotonic() < deadline
            await self.turn()


def states(signals: Iterable[Signal]) -> list[str]:
    """The states in the order in which they were said, each once."""
    found: list[str] = []
    for signal in signals:
        if not found or found[-1] != signal.state:
            found.append(signal.state)
    return found


def run(scene: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scene())  # type: ignore[arg-type]


# What is said


def test_a_budget_that_is_used_up_is_said_told_and_closes_a_gate(kafka_url: str, tmp_path: Path) -> None:
    async def scene() -> None:
        async with Town.of(kafka_url, tmp_path) as town, Worker.on(town) as worker:
            await town.call(3)
            await worker.until(lambda: _spends(town, 3))
            offset = await town.call(2)
            await worker.until(lambda: _is(town, "block"))

            said = await town.signal()
            assert said is not None
            assert (said.spend, said.limit, said.applied) == (5, 5, [offset])
            assert (await town.alerts())[-1] == ("policy|hourly|tenant=harbor-health", "ok", "block")
            gate = Gate(MemorySignals(), gate_id="gate-1", follow=False)
            gate.hear([(record.key, record.value or b"") for record in await town.records(SIGNALS)])
            assert not gate.check({"tenant": HARBOR}).allowed
            assert gate.check({"tenant": "lakeside"}).allowed
            assert (await town.words()).keys() >= {POLICIES_KEY, GATES_KEY, b"prices"}
            assert COMING_KEY not in await town.words()

    run(scene)


def test_signals_wait_for_no_audit_log_that_does_not_answer(kafka_url: str, tmp_path: Path) -> None:
    asked: list[str] = []

    async def silent(action: str, _details: Any) -> None:
        asked.append(action)
        await asyncio.Event().wait()

    async def scene() -> None:
        async with (
            asyncio.timeout(3 * DEADLINE_S),
            Town.of(kafka_url, tmp_path) as town,
            Worker.on(town, tell=silent) as worker,
        ):
            await town.call(5)
            await worker.until(lambda: _is(town, "block"))

    run(scene)
    assert asked == ["policies.in_force"]


def test_a_policy_file_that_is_refused_is_told_once_and_so_is_that_it_is_mended(kafka_url: str, tmp_path: Path) -> None:
    async def scene() -> None:
        async with Town.of(kafka_url, tmp_path) as town, Worker.on(town) as worker:
            await town.call(1)
            await worker.until(lambda: _spends(town, 1))
            good = town.policy_file.read_text()
            town.policy_file.write_text("policies: [{name: half}]")
            await worker.until(lambda: _told(town, ["warning"]))
            town.policy_file.write_text(good + "\n# mended")
            await worker.until(lambda: _told(town, ["warning", "info"]))

    run(scene)


async def _told(town: Town, severities: list[str]) -> bool:
    rows = [orjson.loads(row) for record in await town.records(ALERTS) for row in record.value.split(b"\n")]
    return [row["severity"] for row in rows if row["key"] == "policy_file"] == severities


async def _spends(town: Town, amount: int, tenant: str = HARBOR, policy: str = "hourly") -> bool:
    said = await town.signal(tenant, policy)
    return said is not None and said.spend == amount


async def _is(town: Town, state: str, tenant: str = HARBOR, policy: str = "hourly") -> bool:
    said = await town.signal(tenant, policy)
    return said is not None and said.state == state


def test_gates_are_counted_from_their_announcements_and_one_that_says_goodbye_is_not(kafka_url: str, tmp_path: Path) -> None:
    async def scene() -> None:
        async with Town.of(kafka_url, tmp_path) as town, _producer(town) as producer:
            gates = KafkaAddress.parse(kafka_url).topic(GATES)
            await producer.send_and_wait(gates, key=b"gate-before", value=b"{}")
            async with Worker.on(town) as worker:
                await producer.send_and_wait(gates, key=b"gate-after", value=b"{}")
                await worker.until(lambda: _beats(town, ["gate-after", "gate-before"]))
                await producer.send_and_wait(gates, key=b"gate-before", value=None)
                await worker.until(lambda: _beats(town, ["gate-after"]))
                await worker.until(lambda: _beats(town, []))  # silent for five seconds

    run(scene)


async def _beats(town: Town, ids: list[str]) -> bool:
    beat = (await town.words()).get(GATES_KEY)
    return beat is not None and decode_gates(beat).ids == ids


@asynccontextmanager
async def _producer(town: Town) -> AsyncIterator[Any]:
    async with AIOKafkaProducer(**client_options(town.settings), enable_idempotence=True, acks="all") as producer:
        yield producer


# Dying and coming back


@pytest.mark.parametrize("step", ["1 judged", "2 alerted", "3 signalled"])
def test_a_worker_that_dies_at_any_step_is_followed_by_one_that_says_nothing_wrong(
    kafka_url: str, tmp_path: Path, step: str
) -> None:
    async def scene() -> None:
        async with Town.of(kafka_url, tmp_path, calls=2) as town:
            async with Worker.on(town) as worker:
                await town.call(2)
                await town.call(2, partition=1)
                await worker.until(lambda: _spends(town, 4))
                committed = worker.committed
            await town.call(1, partition=1)
            with pytest.raises(Abort):
                async with Worker.on(town, start=committed, at=abort_at(step)) as dying:
                    await dying.until(lambda: _is(town, "never"))
            async with Worker.on(town, start=committed) as next_one:
                await next_one.until(lambda: _is(town, "block"))
                await town.call(1)
                await next_one.until(lambda: _spends(town, 6))

            told = await town.told()
            assert states(told) == ["ok", "warn", "block"] or states(told) == ["warn", "block"]
            assert [s.sequence for s in told] == sorted({s.sequence for s in told})
            assert told[-1].applied == [1, 1]
            rows = [orjson.loads(row) for record in await town.records(SIGNAL_ROWS) for row in record.value.split(b"\n")]
            kept = [row["state"] for row in rows if row["policy"] == "hourly"]
            assert list(dict.fromkeys(kept)) == states(told)
            # There, too, the store may have a word that no gate heard.
            unheard = {row["sequence"] for row in rows if row["policy"] == "hourly"} - {s.sequence for s in told}
            assert len(unheard) == (1 if step == "2 alerted" else 0)
            changes = [(before, after) for key, before, after in await town.alerts() if key.startswith("policy|hourly")]
            # Between the alert and the word that keeps it back, and only there, somebody is told twice.
            assert changes.count(("warn", "block")) == (2 if step == "2 alerted" else 1)

    run(scene)


def test_what_was_counted_while_no_worker_was_there_is_judged_at_the_start_although_its_blocks_are_gone(
    kafka_url: str, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with Town.of(kafka_url, tmp_path) as town:
            async with Worker.on(town) as worker:
                await town.call(1)
                await worker.until(lambda: _spends(town, 1))
            offset = await town.call(6)

            async with Worker.on(town, start=None) as worker:
                await worker.until(lambda: _is(town, "block"))

                assert await _spends(town, 7)
                beat = decode_gates((await town.words())[GATES_KEY])
                assert beat.applied == [offset]

    run(scene)


def test_scopes_are_judged_in_parts_at_a_start_and_nothing_is_settled_before_all_are(
    kafka_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies_worker, "_NEWS", 1)
    tenants = ["tenant-1", "tenant-2", "tenant-3"]

    async def scene() -> None:
        async with Town.of(kafka_url, tmp_path) as town:
            async with Worker.on(town) as worker:
                before = await town.call(1)
                await worker.until(lambda: _spends(town, 1))
            for tenant in tenants:
                after = await town.call(5, tenant)
            end = await town.wire.end(SIGNALS, 0)

            async with Worker.on(town, start=None) as worker:
                for tenant in tenants:
                    await worker.until(partial(_is, town, "block", tenant))
                await worker.until(partial(_said_since, town, await town.wire.end(SIGNALS, 0), GATES_KEY))

            said = [record async for record in town.wire.follow(SIGNALS, 0, end)]
            blocked = [record.offset for record in said if b"tenant-" in record.key]
            beats = [(record.offset, decode_gates(record.value).applied) for record in said if record.key == GATES_KEY]
            assert {tuple(applied) for offset, applied in beats if offset < max(blocked)} <= {(before,)}
            assert beats[-1][1] == [after]

    run(scene)


def test_blocks_that_come_again_bring_nothing_back_that_was_before(kafka_url: str, tmp_path: Path) -> None:
    async def scene() -> None:
        async with Town.of(kafka_url, tmp_path) as town:
            async with Worker.on(town) as worker:
                for _ in range(6):
                    await town.call(1)
                await worker.until(lambda: _spends(town, 6))
            before = len(await town.told())

            async with Worker.on(town, start=0) as again:
                await town.call(1)
                await again.until(lambda: _spends(town, 7))

            assert {signal.spend for signal in (await town.told())[before:]} <= {6, 7}
            assert states((await town.told())[before:]) == ["block"]

    run(scene)


def test_a_meter_that_dies_between_its_memory_and_its_word_is_followed_by_one_that_says_it(
    kafka_url: str, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with Town.of(kafka_url, tmp_path) as town, Worker.on(town) as worker:
            await town.call(4)
            await worker.until(lambda: _spends(town, 4))
            blocks = await town.wire.end(USAGE, 0)
            dying = town.meters[0]
            dying._at = abort_at("3 changelog")
            dying._failed = lambda error: None
            with pytest.raises(Abort):
                await town.call(3)
            await dying.close()
            assert await town.wire.end(USAGE, 0) == blocks

            town.meters[0] = await town.meter(0)
            await worker.until(lambda: _spends(town, 7))

            assert await _is(town, "block")

    run(scene)


class _Stumbling(AIOKafkaProducer):  # type: ignore[misc]  # aiokafka has no types
    """A real producer whose acknowledgement of signals is once lost on the way; what was sent is there."""

    lost = 0

    async def send_batch(self, batch: Any, topic: str, *, partition: int) -> Any:
        sent = await super().send_batch(batch, topic, partition=partition)
        if topic.endswith(".signals") and self.lost:
            self.lost -= 1
            await sent
            raise KafkaTimeoutError
        return sent


def test_what_may_not_have_been_published_is_published_again_before_anything_else_is_said(
    kafka_url: str, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with Town.of(kafka_url, tmp_path) as town:
            producer = _Stumbling(**client_options(town.settings), enable_idempotence=True, acks="all")
            async with producer, Worker.on(town, producer=producer) as worker:
                await town.call(3)
                await worker.until(lambda: _spends(town, 3))
                await town.call(2)
                producer.lost = 1
                with pytest.raises(LogUnavailable, match="KafkaTimeoutError"):
                    await worker.until(lambda: _is(town, "never"))
                await town.call(2)
                await worker.until(lambda: _spends(town, 7))

            told = await town.told()
            assert [signal.spend for signal in told if signal.state == "block"][:2] == [5, 5]
            assert told[-1].spend == 7
            assert [after for _, _, after in await town.alerts()].count("block") == 1

    run(scene)


def test_the_last_word_on_its_scopes_is_the_workers_own(kafka_url: str, tmp_path: Path) -> None:
    async def scene() -> None:
        async with Town.of(kafka_url, tmp_path) as town, Worker.on(town) as worker, _producer(town) as producer:
            await town.call(5)
            await worker.until(lambda: _is(town, "block"))
            blocked = (await town.words())[signal_key("hourly", (HARBOR,))]
            signals = KafkaAddress.parse(kafka_url).topic(SIGNALS)

            # A worker that was frozen wakes, and says what it had to say.
            await producer.send_and_wait(signals, key=signal_key("hourly", (HARBOR,)), value=None)
            await producer.send_and_wait(signals, key=POLICIES_KEY, value=PolicySet().model_dump_json().encode())
            await worker.until(lambda: _is(town, "block"))
            await worker.until(lambda: _enforces(town, ["hourly"]))

            again = (await town.words())[signal_key("hourly", (HARBOR,))]
            assert decode_signal(again).sequence > decode_signal(blocked).sequence
            assert [after for _, _, after in await town.alerts()].count("block") == 1

    run(scene)


async def _enforces(town: Town, names: list[str]) -> bool:
    value = (await town.words()).get(POLICIES_KEY)
    return value is not None and [policy.name for policy in PolicySet.model_validate_json(value).policies] == names


@pytest.mark.parametrize("seed", range(4))
def test_however_workers_and_meters_die_and_come_back_the_last_word_is_a_plain_sum(
    kafka_url: str, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    tenants = [f"tenant-{number}" for number in range(5)]
    spent: Counter[str] = Counter()
    steps = ["1 judged", "2 alerted", "3 signalled"]

    async def scene() -> None:
        async with Town.of(kafka_url, tmp_path, calls=2, usage=1 + seed % 2) as town:
            committed = [0] * town.usage_partitions
            for life in range(9):
                dying = life < 8 and chance.random() < 0.7
                at = abort_at(chance.choice(steps), chance.randrange(4)) if dying else lambda _step: None
                async with contextlib.AsyncExitStack() as stack:
                    workers = [
                        await stack.enter_async_context(Worker.on(town, number, start, at=at))
                        for number, start in enumerate(committed)
                    ]
                    with contextlib.suppress(Abort):
                        for _ in range(chance.randint(1, 4)):
                            await some_calls(town, chance, tenants, spent)
                            if chance.random() < 0.2:
                                partition = chance.randrange(2)
                                await town.meters[partition].close()
                                town.meters[partition] = await town.meter(partition)
                            for worker in chance.sample(workers, chance.randint(1, len(workers))):
                                await worker.turn()
                        if life == 8:
                            for tenant, calls in spent.items():
                                await both_until(workers, partial(_spends, town, calls, tenant))
                    # What Faust has committed may be behind what was judged, and never beyond.
                    committed = [
                        chance.randint(before, worker.committed) for before, worker in zip(committed, workers, strict=True)
                    ]

            alerts = Counter((key, after) for key, _, after in await town.alerts())
            for tenant, calls in spent.items():
                told = await town.told(tenant)
                assert told[-1].state == ("block" if calls >= 5 else "warn" if calls == 4 else "ok")
                # Nothing but calls was counted, and more of them each time.
                assert [signal.spend for signal in told] == sorted(signal.spend for signal in told)
                assert [signal.sequence for signal in told] == sorted({signal.sequence for signal in told})
                assert (alerts[f"policy|hourly|tenant={tenant}", "block"] >= 1) == (calls >= 5)

    run(scene)


async def some_calls(town: Town, chance: random.Random, tenants: list[str], spent: Counter[str]) -> None:
    for _ in range(chance.randint(0, 2)):
        tenant, count = chance.choice(tenants), chance.randint(1, 3)
        await town.call(count, tenant, chance.randrange(2))
        spent[tenant] += count


# Policies that come and go


def test_a_new_policy_is_announced_and_comes_in_force_when_every_meter_has_counted_its_past(
    kafka_url: str, tmp_path: Path
) -> None:
    async def scene() -> None:
        still = [0.0]
        async with (
            Town.of(kafka_url, tmp_path, calls=2) as town,
            Worker.on(town, patience=lambda: still[0]) as worker,
            _producer(town) as producer,
        ):
            await town.call(1)
            await town.call(1, partition=1)
            await worker.until(lambda: _spends(town, 2))
            new = town.write(HOURLY + DAILY)
            still[0] += 2  # twice the time between two looks at the file

            await worker.until(lambda: _has(town, COMING_KEY))
            coming = PolicySet.model_validate_json((await town.words())[COMING_KEY])
            series = series_of(coming.policies)
            for meter in town.meters:
                meter.watch(series)
            await town.call(1)
            await town.call(1, partition=1)
            await worker.until(lambda: _spends(town, 4))
            assert coming.version == new.version
            assert await _enforces(town, ["hourly"])
            assert await town.signal(policy="daily") is None

            usage = KafkaAddress.parse(kafka_url).topic(USAGE)
            for partition, offset in ((0, 1), (1, 1)):
                assert await _enforces(town, ["hourly"])
                headers = [(name, value.encode()) for name, value in block_headers(partition, offset).items()]
                block = encode_block([(WATCHED, orjson.dumps(sorted(series)))])
                await producer.send_and_wait(usage, block, partition=0, headers=headers)
                for _ in range(3):
                    await worker.turn()
            await worker.until(lambda: _enforces(town, ["hourly", "daily"]))
            await worker.until(lambda: _spends(town, 2 * 3_500_000, policy="daily"))

            assert not await _has(town, COMING_KEY)
            assert await _spends(town, 4)

    run(scene)


async def _has(town: Town, key: bytes) -> bool:
    return key in await town.words()


def test_a_policy_whose_past_nobody_can_count_is_in_force_after_ten_seconds_all_the_same(
    kafka_url: str, tmp_path: Path
) -> None:
    async def scene() -> None:
        still = [0.0]
        async with Town.of(kafka_url, tmp_path) as town, Worker.on(town, patience=lambda: still[0]) as worker:
            await town.call(1)
            await worker.until(lambda: _spends(town, 1))
            town.write(HOURLY + DAILY)
            still[0] += 2
            await worker.until(lambda: _has(town, COMING_KEY))

            still[0] += 9.9
            for _ in range(3):
                await worker.turn()
            before = await _enforces(town, ["hourly"])
            still[0] += 0.2
            await worker.until(lambda: _enforces(town, ["hourly", "daily"]))

            assert before

    run(scene)


def test_an_edit_while_no_worker_was_there_is_taken_up_as_an_edit(kafka_url: str, tmp_path: Path) -> None:
    async def scene() -> None:
        async with Town.of(kafka_url, tmp_path) as town:
            async with Worker.on(town) as worker:
                await town.call(5)
                await worker.until(lambda: _is(town, "block"))
            town.write(WIDER)

            async with Worker.on(town) as worker:
                await worker.until(lambda: _is(town, "ok"))

            said = await town.signal()
            assert said is not None
            assert (said.spend, said.limit) == (5, 50)
            assert (await town.alerts())[-1][1:] == ("block", "ok")

    run(scene)


def test_a_bad_policy_file_at_the_start_keeps_what_was_in_force_and_somebody_is_told(kafka_url: str, tmp_path: Path) -> None:
    async def scene() -> None:
        async with Town.of(kafka_url, tmp_path) as town:
            good = town.policy_file.read_text()
            town.policy_file.write_text("policies: [{name: half}]")
            with pytest.raises(UsageError, match="measure"):
                await PoliciesPartition(town.settings, 0, 1).load()
            town.policy_file.write_text(good)
            async with Worker.on(town) as worker:
                await town.call(5)
                await worker.until(lambda: _is(town, "block"))

            town.policy_file.write_text("policies: [{name: half}]")
            async with Worker.on(town) as worker:
                await town.call(1)
                await worker.until(lambda: _spends(town, 6))

            assert await _enforces(town, ["hourly"])
            assert await _is(town, "block")
            assert await _told_of_the_file(town, 1)
            town.policy_file.write_text(good)
            async with Worker.on(town) as worker:
                await worker.until(lambda: _told_of_the_file(town, 2))

    run(scene)


async def _told_of_the_file(town: Town, times: int) -> bool:
    return [key for key, _, _ in await town.alerts()].count("policy_file") == times


def test_a_worker_without_a_policy_file_goes_on_with_what_is_in_force(kafka_url: str, tmp_path: Path) -> None:
    async def scene() -> None:
        async with Town.of(kafka_url, tmp_path) as town:
            async with Worker.on(town) as worker:
                await worker.until(lambda: _enforces(town, ["hourly"]))

            town.settings = Settings(url=kafka_url)
            async with Worker.on(town) as worker:
                await town.call(5)
                await worker.until(lambda: _is(town, "block"))

            assert await _enforces(town, ["hourly"])

    run(scene)


def test_a_worker_that_is_closed_as_soon_as_it_is_loaded_leaves_nothing_open(kafka_url: str, tmp_path: Path) -> None:
    async def scene() -> None:
        async with Town.of(kafka_url, tmp_path) as town:
            policies = PoliciesPartition(town.settings, 0, 1)
            for _ in range(2):
                await policies.load()
                await policies.close()

            await policies.load()
            await policies.run_once()
            await policies.close()
            await policies.close()

            assert await _enforces(town, ["hourly"])

    run(scene)


def test_without_topics_the_error_says_how_to_make_them(kafka_url: str) -> None:
    async def scene() -> None:
        with pytest.raises(UsageError, match="tidegate topics create"):
            await PoliciesPartition(Settings(url=kafka_url), 0, 1).load()

    run(scene)


# Two workers


def tenants_of(policies: str, folder: Path, partition: int, count: int) -> list[str]:
    """Tenants of whose scopes a partition of two hears."""
    (folder / "asked.yaml").write_text("policies:\n" + policies)
    (series,) = series_of(read_policies(folder / "asked.yaml").policies)
    names = (f"tenant-{number}" for number in range(1_000))
    found = [name for name in names if partition_of_scope(usage_key((series, (name,))), 2) == partition]
    return found[:count]


@asynccontextmanager
async def two(town: Town, **options: Any) -> AsyncIterator[tuple[Worker, Worker]]:
    async with Worker.on(town, 0, **options) as first, Worker.on(town, 1, **options) as second:
        yield first, second


async def both_until(workers: Iterable[Worker], said: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not await said():
        assert time.monotonic() < deadline
        for worker in workers:
            await worker.turn()


def test_a_gate_counts_in_what_two_workers_both_have_heard_and_is_stale_when_one_is_silent(
    kafka_url: str, tmp_path: Path
) -> None:
    closed = HOURLY.replace("action: block", "action: block, stale: closed, stale_after: 5s")

    async def scene() -> None:
        async with Town.of(kafka_url, tmp_path, closed, usage=2) as town:
            (zero,), (one,) = tenants_of(closed, tmp_path, 0, 1), tenants_of(closed, tmp_path, 1, 1)
            now = [100.0]
            gate = Gate(MemorySignals(), gate_id="gate-1", follow=False, monotonic=lambda: now[0])
            heard = [0]

            async def hear() -> None:
                records = [record async for record in town.wire.follow(SIGNALS, 0, heard[0])]
                if records:
                    heard[0] = records[-1].offset + 1
                    gate.hear([(record.key, record.value or b"") for record in records])

            async with two(town) as workers:
                await both_until(workers, lambda: _has(town, heartbeat_key(1)))
                await hear()
                held = gate.reserve({"tenant": "nobody-else"}, Estimate(1, 0))
                held.settle(Estimate(1, 0), rides=True)
                offset = await town.call(1, zero)
                await town.call(1, one)
                held.placed(Position(0, offset))
                first, second = workers
                started = time.monotonic()
                while time.monotonic() < started + 2.5:
                    await first.turn()
                await hear()
                only_one = gate.stats()["outstanding_calls"]
                await both_until(workers, lambda: _spends(town, 1, one))
                started = time.monotonic()
                while time.monotonic() < started + 2.5:
                    await first.turn()
                    await second.turn()
                await hear()
                assert (only_one, gate.stats()["outstanding_calls"]) == (1, 0)
                assert await _spends(town, 1, zero)
                assert gate.check({"tenant": zero}).allowed

                for _ in range(6):
                    now[0] += 1
                    await first.until(partial(_said_since, town, heard[0], GATES_KEY))
                    await hear()
                assert not gate.check({"tenant": zero}).allowed
                await second.until(partial(_said_since, town, heard[0], heartbeat_key(1)))
                await hear()
                assert gate.check({"tenant": zero}).allowed

    run(scene)


async def _said_since(town: Town, offset: int, key: bytes) -> bool:
    return any([record.key == key async for record in town.wire.follow(SIGNALS, 0, offset)])


def test_a_scope_that_an_edit_gives_to_another_worker_keeps_its_word_and_has_one_speaker(
    kafka_url: str, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with Town.of(kafka_url, tmp_path, HOURLY, usage=2) as town:
            moving = sorted(set(tenants_of(HOURLY, tmp_path, 0, 40)) & set(tenants_of(LONGER, tmp_path, 1, 40)))[0]
            staying = sorted(set(tenants_of(HOURLY, tmp_path, 0, 40)) & set(tenants_of(LONGER, tmp_path, 0, 40)))[0]
            # Nobody counts the past of a series here, and ten seconds are long.
            async with two(town, patience=lambda: 10 * time.monotonic()) as workers:
                await town.call(5, moving)
                await town.call(5, staying)
                await both_until(workers, lambda: _is(town, "block", moving))
                await both_until(workers, lambda: _is(town, "block", staying))
                town.write(LONGER)
                await both_until(workers, lambda: _has(town, COMING_KEY))
                coming = series_of(PolicySet.model_validate_json((await town.words())[COMING_KEY]).policies)
                town.meters[0].watch(coming)
                await town.call(6, moving)
                await town.call(6, staying)
                await both_until(workers, lambda: _spends(town, 6, moving))
                await both_until(workers, lambda: _spends(town, 6, staying))
                end = await town.wire.end(SIGNALS, 0)
                await town.call(1, moving)
                await both_until(workers, lambda: _spends(town, 7, moving))

            speakers = {dict(r.headers)["by"] async for r in town.wire.follow(SIGNALS, 0, end) if b"hourly" in (r.key or b"")}
            assert {speaker.partition(b"-")[0] for speaker in speakers} == {b"1"}
            assert await _is(town, "block", moving)
            assert await _is(town, "block", staying)

    run(scene)
