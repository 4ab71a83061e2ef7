"""A policy that is new on Kafka knows what was before it: the store is asked, and the meter counts it once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import kafka_ledger as ledger
import orjson
import pytest
from aiokafka import AIOKafkaProducer
from kafka_broker import needs_broker
from tidegate.processors.distributed.blocks import WATCHED, decode_block
from tidegate.processors.distributed.call_record import call_record
from tidegate.processors.distributed.meter_partition import MeterPartition
from tidegate.processors.distributed.past import Past
from tidegate.processors.distributed.sink import KafkaSink
from tidegate.processors.distributed.topics import create_topics
from tidegate.processors.distributed.wire import Wire
from tidegate.processors.distributed.worker_doors import WorkerMetrics
from tidegate.processors.pricing import PriceBook
from tidegate.processors.series import ScopeUsage, Series, parse_usage_key, series_of
from tidegate.schemas.envelope import Envelope
from tidegate.schemas.kafka_url import KafkaAddress
from tidegate.schemas.policy import PolicySet
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import CALLS, USAGE
from tidegate.sinks.clickhouse import Store

pytestmark = [pytest.mark.slow, needs_broker]

CALLS_EACH = 60
SERIES = series_of(
    PolicySet.model_validate(
        {
            "policies": [
                {
                    "name": "tokens",
                    "scope": ["tenant"],
                    "measure": "input_tokens",
                    "window": {"rolling": "24h"},
                    "limit": "1000000",
                    "action": "block",
                }
            ]
        }
    ).policies
)


def call(number: int) -> bytes:
    at = datetime.now(UTC) - timedelta(minutes=number % 50)
    return orjson.dumps(
        {
            "event": "response",
            "call_id": f"call-{number}",
            "started_at": at.isoformat(),
            "tenant": f"tenant-{number % 3}",
            "request_model": "gpt-4o-mini-2024-07-18",
            "input_tokens": number,
        }
    )


async def publish(settings: Settings, first: int, count: int) -> None:
    address = KafkaAddress.parse(settings.url)
    producer = AIOKafkaProducer(bootstrap_servers=address.bootstrap)
    await producer.start()
    try:
        envelope = Envelope.of("service", first, [call(number) for number in range(first, first + count)])
        headers = [(name, text.encode()) for name, text in envelope.headers().items()]
        await producer.send_and_wait(address.topic(CALLS), envelope.value, partition=0, headers=headers)
    finally:
        await producer.stop()


async def meter_all(wire: Wire, partition: MeterPartition) -> None:
    async for record in wire.follow(CALLS, 0, start=partition.expected):
        await partition.take(call_record(record, lambda: None))
    await partition.drain()


async def sunk(settings: Settings, store: Store, rows: int) -> None:
    """Carry what is there into the store."""
    stopping = asyncio.Event()
    sink = KafkaSink(settings, store)
    running = asyncio.create_task(sink.run(stopping))
    async with asyncio.timeout(60):
        while sink.rows < rows:
            await asyncio.sleep(0.02)
    stopping.set()
    await running


def known(url: str, series: Series) -> dict[str | None, int]:
    """What the policies have heard of each scope."""
    found = {}
    for record in ledger.records(url, USAGE):
        for key, value in decode_block(record.value):
            if (parsed := parse_usage_key(key)) is not None and parsed[0] == series.id:
                ring = ScopeUsage.load(series, value).ring
                found[parsed[1][0]] = ring.sum(datetime.now(UTC).timestamp())
    return found


def test_a_new_policy_counts_what_was_before_it_once(tmp_path: Path, kafka_url: str) -> None:
    settings = Settings(url=kafka_url, sink_linger_s=0)
    (series,) = SERIES.values()

    async def scenario(store: Store) -> None:
        await create_topics(settings, partitions=1, policy_partitions=1)
        await publish(settings, 0, CALLS_EACH)
        wire = Wire(settings)
        await wire.start()
        wrong: list[BaseException] = []
        partition = MeterPartition(0, wire, settings, PriceBook.load(None), 1, WorkerMetrics("meter"), failed=wrong.append)
        try:
            await partition.load({})
            await meter_all(wire, partition)
            partition.watch(SERIES)
            await publish(settings, CALLS_EACH, CALLS_EACH)
            await meter_all(wire, partition)
            async with Past(settings, store, lambda: [partition]) as past:
                # Nothing is asked before the store has what was before.
                await asyncio.sleep(0.6)
                assert partition.unseeded()
                await sunk(settings, store, CALLS_EACH * 2)
                async with asyncio.timeout(60):
                    while partition.unseeded():
                        assert past.failure is None
                        await asyncio.sleep(0.02)
            await partition.drain()
            assert wrong == []
        finally:
            await partition.close()
            await wire.stop()

    with Store.open(path=tmp_path / "store") as store:
        store.migrate()
        asyncio.run(scenario(store))

    numbers = range(CALLS_EACH * 2)
    assert known(kafka_url, series) == {
        f"tenant-{tenant}": sum(number for number in numbers if number % 3 == tenant) for tenant in range(3)
    }
    told = [entry for record in ledger.records(kafka_url, USAGE) for entry in decode_block(record.value)]
    assert [orjson.loads(value) for key, value in told if key == WATCHED] == [[], [series.id]]
