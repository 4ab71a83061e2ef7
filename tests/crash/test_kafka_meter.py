"""A flush of the meter on Kafka, cut off after each of its steps: whoever goes on ends with the same rows, usage and
account as a meter that was never cut off."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import kafka_ledger as ledger
import orjson
import pytest
from aiokafka import AIOKafkaProducer
from kafka_broker import needs_broker
from support import finding, scored
from tidegate.processors.aggregate import ScopeSets, UsageState
from tidegate.processors.distributed import meter_partition
from tidegate.processors.distributed.blocks import WATCHED, decode_block, source_of
from tidegate.processors.distributed.call_record import CallRecord, call_record
from tidegate.processors.distributed.meter_partition import Interloper, MeterPartition
from tidegate.processors.distributed.topics import create_topics
from tidegate.processors.distributed.wire import Wire
from tidegate.processors.distributed.worker_doors import WorkerMetrics
from tidegate.processors.meter import MeterState, meter
from tidegate.processors.pricing import PriceBook
from tidegate.processors.series import Series, SeriesState, series_of
from tidegate.schemas.envelope import Envelope
from tidegate.schemas.kafka_url import KafkaAddress
from tidegate.schemas.policy import PolicySet
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import CALLS, FINDINGS, METERED, PRICE_ROWS, USAGE, USAGE_LEDGER, Topic
from tidegate.schemas.usage import COUNTERS

pytestmark = [pytest.mark.slow, needs_broker]

STEPS = ("1 step", "2 rows", "3 changelog", "4 usage", "5 passed")
ENVELOPES, SIZE = 40, 5
BOOK = PriceBook.load(None)
POLICIES = PolicySet.model_validate(
    {
        "policies": [
            {
                "name": "day",
                "scope": ["tenant"],
                "measure": "cost_usd",
                "window": {"rolling": "24h"},
                "limit": "100",
                "action": "block",
            },
            {
                "name": "leaks",
                "scope": ["tenant"],
                "measure": "findings",
                "finding_type": "phi_leak",
                "window": {"rolling": "24h"},
                "limit": "100",
                "action": "block",
            },
        ]
    }
)
SERIES = series_of(POLICIES.policies)


class Cut(Exception):
    """The process ended here."""


def cut_at(step: str, times: int) -> Callable[[str], None]:
    """Ends everything when a step is reached for the so-manyeth time; nothing goes on after that."""
    reached = {step: 0}

    def at(name: str) -> None:
        if reached[step] >= times:
            raise Cut
        if name == step:
            reached[step] += 1
            if reached[step] == times:
                raise Cut

    return at


def events(number: int) -> list[bytes]:
    """One envelope's lines: some late by days, one unreadable, and in every other envelope a verdict."""
    now = datetime.now(UTC)
    found = []
    for place in range(SIZE):
        serial = number * SIZE + place
        at = now - timedelta(days=3 if serial % 11 == 0 else 0, seconds=serial % 60)
        found.append(
            {
                "event": "response",
                "call_id": f"call-{serial}",
                "started_at": at.isoformat(),
                "tenant": f"tenant-{serial % 3}",
                "provider_name": "openai",
                "request_model": "gpt-4o-mini-2024-07-18",
                "input_tokens": serial,
                "output_tokens": 1,
            }
        )
    if number % 2:
        said = {name: found[1][name] for name in ("call_id", "started_at", "tenant")}
        found[1] = scored(**said) | {"findings": [finding(leak=True)] * (number % 3)}
    lines = [orjson.dumps(one) for one in found]
    lines[-1] = b"{broken" if number % 10 == 3 else lines[-1]
    return lines


async def publish(settings: Settings) -> None:
    address = KafkaAddress.parse(settings.url)
    producer = AIOKafkaProducer(bootstrap_servers=address.bootstrap)
    await producer.start()
    try:
        for number in range(ENVELOPES):
            # Every seventh comes twice, as a retry of a client does.
            for _ in range(2 if number % 7 == 0 else 1):
                envelope = Envelope.of("service", number * SIZE, events(number))
                headers = [(name, text.encode()) for name, text in envelope.headers().items()]
                await producer.send_and_wait(address.topic(CALLS), envelope.value, partition=0, headers=headers)
    finally:
        await producer.stop()


class Life:
    """One life of a partition's meter, fed from the start of `calls` each time, as a group without commits would."""

    def __init__(self, settings: Settings, series: dict[str, Series] = SERIES) -> None:
        self.settings, self.series = settings, series
        self.passed: list[int] = []
        self.wrong: list[BaseException] = []

    async def __aenter__(self) -> Life:
        self.wire = Wire(self.settings)
        await self.wire.start()
        return self

    async def open(self, at: Callable[[str], None] = lambda _step: None) -> MeterPartition:
        self.partition = MeterPartition(
            0, self.wire, self.settings, PriceBook.load(), 1, WorkerMetrics("meter"), failed=self.wrong.append, at=at
        )
        await self.partition.load(self.series)
        return self.partition

    async def by_hand(self) -> None:
        """Flush no more of itself, but when it is told to."""
        running = self.partition._running
        assert running is not None
        running.cancel()
        await asyncio.wait({running})

    async def feed(self, at_once: int = 4) -> None:
        """All records, flushed a few at a time, until all is acknowledged or something ends it."""
        try:
            count = 0
            async for record in self.wire.follow(CALLS, 0):
                if self.wrong:
                    return
                await self.partition.take(self._record(record))
                count += 1
                if count % at_once == 0:
                    await self.partition.flush()
            await self.partition.drain()
        except Cut:
            self.wrong.append(Cut())

    def _record(self, record: Any) -> CallRecord:
        return call_record(record, lambda: self.passed.append(record.offset))

    async def __aexit__(self, *_: object) -> None:
        await self.partition.close()
        await self.wire.stop()


async def life(settings: Settings, at: Callable[[str], None] = lambda _step: None, at_once: int = 4) -> Life:
    async with Life(settings) as one:
        await one.open(at)
        await one.feed(at_once)
    return one


def rows(url: str) -> dict[str, list[dict[str, Any]]]:
    """What stands in the topics of rows."""
    return {topic.name: list(ledger.rows(url, topic)) for topic in (METERED, FINDINGS)}


def plain_meter(url: str) -> tuple[MeterState, dict[str, list[dict[str, Any]]]]:
    """What one meter that nothing happens to makes of the same records: its state, and the rows."""
    state = MeterState(0, UsageState(ScopeSets(Settings(url=url).scope_sets)), SeriesState(SERIES))
    found: dict[str, list[dict[str, Any]]] = {METERED.name: [], FINDINGS.name: []}
    for record in ledger.records(url, CALLS):
        _, outputs = meter(state, [call_record(record, lambda: None)], BOOK, Settings(url=url).max_future_s)
        for topic, out in ((METERED, outputs.metered), (FINDINGS, outputs.findings)):
            found[topic.name] += [orjson.loads(line) for _, value in out for line in value.split(b"\n")]
    return state, found


def told(url: str) -> dict[bytes, bytes]:
    """What a policies worker knows that has heard all blocks, in order."""
    found: dict[bytes, bytes] = {}
    mark = -1
    for record in ledger.records(url, USAGE):
        _, offset = source_of(ledger.headers_of(record))
        assert offset >= mark, "the meter's word never goes back"
        mark = offset
        found.update(entry for entry in decode_block(record.value) if entry[0].startswith(b"["))
    return found


Sums = dict[tuple[str, str, str], list[int]]


def all_rows(url: str, topic: Topic) -> list[dict[str, Any]]:
    """With what was sent again."""
    return [orjson.loads(line) for record in ledger.records(url, topic) for line in record.value.split(b"\n")]


def store_ledger(url: str) -> Sums:
    """What the store makes of the ledger's rows: of each bucket the newest, summed over what stands beside."""
    newest: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in all_rows(url, USAGE_LEDGER):
        key = (row["hour"], row["scope_set"], row["scope_key"], row["source_partition"], row["beside"])
        if key not in newest or newest[key]["source_offset"] <= row["source_offset"]:
            newest[key] = row
    found: Sums = {}
    for key, row in newest.items():
        before = found.get(key[:3], [0] * len(COUNTERS))
        found[key[:3]] = [count + row[name] for name, count in zip(COUNTERS, before, strict=True)]
    return found


def plain_ledger(state: MeterState) -> Sums:
    hours = {key: usage for key, usage in state.usage.live.items() if key.bucket == "hour" and "user" not in key.fields}
    return {
        (
            datetime.fromtimestamp(key.start, UTC).isoformat(),
            ",".join(key.fields),
            orjson.dumps(key.values).decode(),
        ): usage.counts
        for key, usage in hours.items()
    }


@pytest.fixture
def settings(kafka_url: str) -> Settings:
    made = Settings(url=kafka_url)
    asyncio.run(create_topics(made, partitions=1, policy_partitions=1))
    asyncio.run(publish(made))
    return made


@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.parametrize("step", STEPS)
def test_a_flush_cut_off_after_any_step_is_healed_by_whoever_goes_on(settings: Settings, step: str, times: int) -> None:
    first = asyncio.run(life(settings, cut_at(step, times)))
    # Other flushes than the first life made, so that nothing depends on where they end.
    second = asyncio.run(life(settings, at_once=7))

    assert first.wrong
    assert second.wrong == []
    state, expected = plain_meter(settings.url)
    assert rows(settings.url) == expected
    assert all(expected.values())
    assert ledger.totals(settings.url) == state.totals
    assert ledger.usage(settings.url) == state.usage.live
    assert store_ledger(settings.url) == plain_ledger(state)
    [price] = {row["input_nano_usd_per_million"] for row in all_rows(settings.url, PRICE_ROWS)}
    assert price == 150_000_000
    assert told(settings.url) == {key: value for key, value in state.series.records() if key.startswith(b"[")}


@pytest.mark.parametrize("step", STEPS[:3])
def test_after_a_flush_that_failed_nothing_more_is_written(settings: Settings, step: str) -> None:
    def fail_once(name: str) -> None:
        nonlocal failed
        if name == step and not failed:
            failed = True
            raise Cut

    async def going_on() -> Life:
        async with Life(settings) as one:
            partition = await one.open(fail_once)
            await one.by_hand()
            last = await one.wire.end(CALLS, 0) - 1
            async for record in one.wire.follow(CALLS, 0, end=last):
                await partition.take(one._record(record))
            with contextlib.suppress(Cut):
                await partition.drain()
            # What waits while the worker has not ended yet, and what a rebalance would see off.
            async for record in one.wire.follow(CALLS, 0, start=last):
                await partition.take(one._record(record))
            with contextlib.suppress(Cut):
                await partition.rest()
            return one

    failed = False
    first = asyncio.run(going_on())
    second = asyncio.run(life(settings))

    assert [type(error) for error in first.wrong] == [Cut]
    assert second.wrong == []
    state, expected = plain_meter(settings.url)
    assert rows(settings.url) == expected
    assert ledger.usage(settings.url) == state.usage.live
    assert told(settings.url) == {key: value for key, value in state.series.records() if key.startswith(b"[")}


def test_what_comes_again_before_it_is_acknowledged_is_not_passed_before(settings: Settings) -> None:
    async def handed_over_twice() -> tuple[list[int], list[int]]:
        async with Life(settings) as one:
            partition = await one.open()
            await one.by_hand()
            for _ in range(2):
                async for record in one.wire.follow(CALLS, 0, end=4):
                    await partition.take(one._record(record))
            before = list(one.passed)
            await partition.drain()
            return before, one.passed

    before, after = asyncio.run(handed_over_twice())

    assert before == []
    assert after == [0, 1, 2, 3] * 2


def test_what_is_not_acknowledged_is_not_passed(settings: Settings) -> None:
    for step in STEPS[:4]:
        one = asyncio.run(life(settings, cut_at(step, 1)))

        applied = ledger.next_offsets(settings.url).get(0, 0)
        assert all(offset < applied for offset in one.passed)


def test_a_worker_that_woke_too_late_is_told_so_and_what_it_wrote_counts_for_nothing(settings: Settings) -> None:
    async def two_at_once() -> tuple[Life, Life]:
        async with Life(settings) as frozen, Life(settings) as owner:
            await frozen.open()
            await frozen.by_hand()
            async for record in frozen.wire.follow(CALLS, 0, end=8):
                await frozen.partition.take(frozen._record(record))
            await frozen.partition.drain()
            # It still has something to write when the other has taken over and gone on.
            async for record in frozen.wire.follow(CALLS, 0, start=8, end=12):
                await frozen.partition.take(frozen._record(record))
            await owner.open()
            await owner.feed()
            await frozen.partition.flush()
            while not frozen.wrong:
                await asyncio.sleep(0.01)
            return frozen, owner

    frozen, owner = asyncio.run(two_at_once())
    third = asyncio.run(life(settings))

    assert isinstance(frozen.wrong[0], Interloper)
    assert frozen.passed[-1:] == [7]
    assert (owner.wrong, third.wrong) == ([], [])
    state, _ = plain_meter(settings.url)
    assert ledger.totals(settings.url) == state.totals
    scopes = {key: value for key, value in state.series.records() if key.startswith(b"[")}
    assert {key: value for key, value in told(settings.url).items() if key in scopes} == scopes


def test_records_that_were_not_handed_over_are_fetched(settings: Settings) -> None:
    async def skipping() -> Life:
        async with Life(settings) as one:
            await one.open()
            async for record in one.wire.follow(CALLS, 0):
                if record.offset % 5 == 0:
                    await one.partition.take(one._record(record))
            last = await one.wire.end(CALLS, 0) - 1
            async for record in one.wire.follow(CALLS, 0, start=last):
                await one.partition.take(one._record(record))
            await one.partition.drain()
            return one

    asyncio.run(skipping())

    assert ledger.totals(settings.url) == plain_meter(settings.url)[0].totals


def test_a_long_way_to_catch_up_is_gone_in_flushes_of_their_usual_size(settings: Settings) -> None:
    flushes = 0

    def count(step: str) -> None:
        nonlocal flushes
        flushes += step == "1 step"

    async def skipping() -> None:
        async with Life(settings.model_copy(update={"worker_flush_bytes": 4_096})) as one:
            await one.open(count)
            await one.by_hand()
            last = await one.wire.end(CALLS, 0) - 1
            async for record in one.wire.follow(CALLS, 0, start=last):
                await one.partition.take(one._record(record))
            await one.partition.drain()

    asyncio.run(skipping())

    size = sum(len(record.value) for record in ledger.records(settings.url, CALLS))
    assert flushes >= size // (2 * 4_096)
    assert ledger.totals(settings.url) == plain_meter(settings.url)[0].totals


def test_a_partition_at_rest_writes_nothing_until_it_goes_on(settings: Settings) -> None:
    async def between_two_generations() -> tuple[int, int, int]:
        async with Life(settings, {}) as one:
            partition = await one.open()
            async for record in one.wire.follow(CALLS, 0, end=10):
                await partition.take(one._record(record))
            await partition.rest()
            before = partition.changelog_end
            # There is something to write: a series is new, and a record is in the agent's hands.
            partition.watch(SERIES)
            async for record in one.wire.follow(CALLS, 0, start=10, end=11):
                await partition.take(one._record(record))
            await partition.drain()
            at_rest = await one.wire.end(meter_partition.METER_CHANGELOG, 0)
            partition.go_on()
            await partition.drain()
            return before, at_rest, await one.wire.end(meter_partition.METER_CHANGELOG, 0)

    before, at_rest, after = asyncio.run(between_two_generations())

    assert before == at_rest < after


def test_a_series_that_is_new_is_watched_from_where_the_meter_is_and_one_that_is_gone_leaves_nothing(
    settings: Settings,
) -> None:
    async def change_of_mind() -> None:
        async with Life(settings, {}) as one:
            await one.open()
            async for record in one.wire.follow(CALLS, 0, end=10):
                await one.partition.take(one._record(record))
            await one.partition.drain()
            one.partition.watch(SERIES)
            async for record in one.wire.follow(CALLS, 0, start=10, end=20):
                await one.partition.take(one._record(record))
            await one.partition.drain()
            one.partition.watch({})
            async for record in one.wire.follow(CALLS, 0, start=20):
                await one.partition.take(one._record(record))
            await one.partition.drain()

    asyncio.run(change_of_mind())

    newest = {record.key: record.value for record in ledger.records(settings.url, meter_partition.METER_CHANGELOG)}
    assert {key for key, value in newest.items() if value and key[:1] in (b"s", b"w")} == set()
    assert any(key[:1] == b"s" for key in newest)
    blocks = [entry for record in ledger.records(settings.url, USAGE) for entry in decode_block(record.value)]
    # From offset 10 on it counted by itself; what was before is not counted, so its past is never said to be known.
    assert [orjson.loads(value) for key, value in blocks if key == WATCHED] == [[]]
