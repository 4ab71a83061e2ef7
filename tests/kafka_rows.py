"""Derived records as the meter and the policies write them to Kafka, what they must come to, and a sink to carry them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer
from support import finding
from tidegate.processors.distributed.sink import KafkaSink
from tidegate.processors.distributed.topics import create_topics
from tidegate.producers.kafka_client import client_options
from tidegate.schemas.kafka_url import KafkaAddress
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import ALERTS, DEAD_LETTERS, FINDINGS, METERED, REQUESTS, TRANSCRIPTS, Topic
from tidegate.sinks.clickhouse import Store

# Just before an hour, a day and a month end, so that batches and rollups cross all three.
START = datetime(2026, 11, 30, 23, 58, tzinfo=UTC)
PARTITIONS = 2


@dataclass(frozen=True, slots=True)
class Sent:
    """One record of a derived topic. `source` is (source partition, source offset); an alert has none."""

    topic: Topic
    partition: int
    rows: tuple[dict[str, Any] | bytes, ...]
    source: tuple[int, int] | None

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        headers = {"schema": "rows/1", "count": str(len(self.rows))}
        if self.source is not None:
            headers |= {"source_partition": str(self.source[0]), "source_offset": str(self.source[1])}
        return [(name, text.encode()) for name, text in headers.items()]

    @property
    def value(self) -> bytes:
        return b"\n".join(row if isinstance(row, bytes) else orjson.dumps(row) for row in self.rows)


@dataclass
class Meter:
    """What a meter yields, envelope after envelope. The same seed gives the same records."""

    seed: int = 1
    partitions: int = PARTITIONS
    offsets: Counter[int] = field(default_factory=Counter)
    calls: int = 0

    def envelopes(self, count: int) -> list[Sent]:
        return [record for _ in range(count) for record in self._envelope()]

    def _envelope(self) -> Iterator[Sent]:
        pick = random.Random(f"{self.seed}:{self.calls}")
        partition = pick.randrange(self.partitions)
        source = (partition, self.offsets[partition])
        self.offsets[partition] += pick.choice((1, 1, 1, 4))  # an envelope of requests only yields no metered record
        yield Sent(METERED, partition, tuple(self._call(source, pick) for _ in range(pick.randint(1, 7))), source)
        if pick.random() < 0.3:
            yield Sent(REQUESTS, partition, (self._request(source),), source)
        # Dice of their own: the other records are what they were before there were verdicts.
        yield from self._of_guardrails(partition, source, random.Random(f"{self.seed}:{self.calls}:verdicts"))
        if pick.random() < 0.2:
            yield Sent(DEAD_LETTERS, partition, (a_dead_letter(source),), source)
        if pick.random() < 0.1:
            yield Sent(ALERTS, 0, ({"at": START.isoformat(), "key": f"alert-{self.calls}", "kind": "policy"},), None)

    def _call(self, source: tuple[int, int], pick: random.Random) -> dict[str, Any]:
        return self._request(source) | {
            "event": "response",
            "input_tokens": pick.randrange(10_000),
            "latency_s": pick.random(),
            "error_type": pick.choice((None, None, "timeout")),
            "cost_nano_usd": pick.choice((None, pick.randrange(10**12))),
            "price_status": "priced",
            "price_book": "test",
        }

    def _of_guardrails(self, partition: int, source: tuple[int, int], pick: random.Random) -> Iterator[Sent]:
        """Verdicts, and a transcript, of which the source is another topic's: its numbers only have to grow."""
        if pick.random() < 0.4:
            verdicts = tuple(self._row(source) | a_verdict(pick) for _ in range(pick.randint(1, 4)))
            yield Sent(FINDINGS, partition, verdicts, source)
            texts = {"redaction": "tag", "redacted_response": "[PERSON] is well", "redacted_context": []}
            row = {name: value for name, value in self._row(source).items() if name != "event"}
            yield Sent(TRANSCRIPTS, partition, (row | texts,), source)

    def _request(self, source: tuple[int, int]) -> dict[str, Any]:
        self.calls += 1
        return self._row(source)

    def _row(self, source: tuple[int, int]) -> dict[str, Any]:
        return {
            "event": "request",
            "call_id": f"call-{self.calls % 100}",  # ids repeat: they are not the identity
            "started_at": (START + timedelta(seconds=self.calls * 0.7)).isoformat(),
            "tenant": f"tenant-{self.calls % 3}",
            "request_model": "gpt-4o",
            "producer": f"meter-{self.seed}",
            "seq": self.calls,
            "ingested_at": START.isoformat(),
            "source_partition": source[0],
            "source_offset": source[1],
        }


def a_verdict(pick: random.Random) -> dict[str, Any]:
    found = [finding(type=pick.choice(("PERSON", "US_SSN")), leak=pick.random() < 0.5) for _ in range(pick.randrange(3))]
    return {"event": "scored", "scored_at": START.isoformat(), "outcome": "scored", "findings": found}


def a_dead_letter(source: tuple[int, int]) -> dict[str, Any]:
    return {
        "at": START.isoformat(),
        "stage": "meter",
        "source": "log",
        "line": None,
        "size_bytes": 7,
        "sha256": "ab" * 32,
        "reason": "not valid JSON",
        "producer": "p",
        "seq": None,
        "source_partition": source[0],
        "source_offset": source[1],
    }


def sent_again(records: Sequence[Sent], pick: random.Random) -> list[Sent]:
    """The same records as from a meter that dies now and then, and comes back some records earlier."""
    found: list[Sent] = []
    for number, record in enumerate(records, 1):
        found.append(record)
        if pick.random() < 0.1:
            again = records[max(0, number - pick.randint(1, 12)) : number]
            found += [old for old in again if old.source is not None]
    return found


def oracle(records: Iterable[Sent]) -> dict[str, Any]:
    """What the store must say: plain sums over each record once."""
    told = list({(r.topic.name, r.partition, r.source or r.value): r for r in records}.values())

    def rows(topic: Topic) -> list[dict[str, Any]]:
        return [row for r in told if r.topic == topic for row in r.rows if isinstance(row, dict)]

    calls, cost, errors = Counter[str](), Counter[str](), Counter[str]()
    for row in rows(METERED):
        calls[row["tenant"]] += 1
        cost[row["tenant"]] += row["cost_nano_usd"] or 0
        errors[row["tenant"]] += row["error_type"] is not None
    return {
        "calls": {tenant: (calls[tenant], cost[tenant], errors[tenant]) for tenant in calls},
        "distinct": len({(row["producer"], row["seq"]) for row in rows(METERED)}),
        "requests": len(rows(REQUESTS)),
        "verdicts": len(rows(FINDINGS)),
        "findings": Counter(one["type"] for row in rows(FINDINGS) for one in row["findings"]),
        "transcripts": len(rows(TRANSCRIPTS)),
        "dead_letters": len(rows(DEAD_LETTERS)),
        "alerts": len(rows(ALERTS)),
    }


def ledger(store: Store) -> dict[str, Any]:
    """What the store says. Raises `AssertionError` when a rollup says anything else than the rows."""

    def sums(sql: str) -> dict[str, tuple[int, int, int]]:
        return {row[0]: (row[1], row[2], row[3]) for row in store.query(f"{sql} GROUP BY tenant").rows}

    def count(table: str) -> int:
        return int(store.query(f"SELECT count() FROM {table}").rows[0][0])

    said = sums("SELECT tenant, count(), coalesce(sum(cost_nano_usd), 0), countIf(error_type != '') FROM calls")
    for view in ("v_calls_1m", "v_calls_1h", "v_calls_1d", "calls_1d_totals"):
        assert sums(f"SELECT tenant, sum(requests), sum(cost_nano_usd), sum(errors) FROM {view}") == said, view
    found = Counter(dict(store.query("SELECT type, count() FROM findings GROUP BY type").rows))
    assert dict(store.query("SELECT type, sum(findings) FROM v_findings_1h GROUP BY type").rows) == found
    assert store.query("SELECT sum(verdicts) FROM v_scored_1h").rows == [(count("scored_calls"),)]
    return {
        "calls": said,
        "distinct": int(store.query("SELECT uniqExact(producer, seq) FROM calls").rows[0][0]),
        "requests": count("call_requests"),
        "verdicts": count("scored_calls"),
        "findings": found,
        "transcripts": count("transcripts"),
        "dead_letters": count("dead_letters"),
        "alerts": count("alerts"),
    }


def sink_settings(url: str, **changes: Any) -> Settings:
    """Small batches at once."""
    return Settings.read(**{"url": url, "sink_batch_rows": 8, "sink_linger_s": 0.0} | changes)


async def make_topics(url: str, partitions: int = PARTITIONS) -> None:
    await create_topics(Settings.read(url=url), partitions=partitions, replication=1)


async def produce(url: str, records: Iterable[Sent]) -> None:
    """All of them acknowledged, in their order."""
    settings = Settings.read(url=url)
    address = KafkaAddress.parse(url)
    producer = AIOKafkaProducer(**client_options(settings), enable_idempotence=True, max_request_size=16 << 20)
    await producer.start()
    try:
        acknowledged = [
            await producer.send(address.topic(r.topic), r.value, partition=r.partition, headers=r.headers) for r in records
        ]
        await asyncio.gather(*acknowledged)
    finally:
        await producer.stop()


async def until(condition: Callable[[], bool], run: asyncio.Task[None] | None = None, within_s: float = 60.0) -> None:
    """Poll until so; fails after `within_s`, and when what should bring it about has ended."""
    async with asyncio.timeout(within_s):
        while not condition():
            if run is not None and run.done():
                run.result()
                raise AssertionError("the sink has ended by itself")
            await asyncio.sleep(0.02)


@dataclass
class Running:
    """A sink at work."""

    sink: KafkaSink
    stopping: asyncio.Event
    task: asyncio.Task[None]

    @property
    def is_through(self) -> bool:
        """Whether all that is in its partitions is in the store."""
        lag = self.sink.lag()
        return bool(lag) and not any(lag.values())

    async def until(self, condition: Callable[[], bool], within_s: float = 60.0) -> None:
        await until(condition, self.task, within_s)

    async def stop(self) -> None:
        self.stopping.set()
        await self.task


@asynccontextmanager
async def running(settings: Settings, store: Store, at: Callable[[str], None] | None = None) -> AsyncIterator[Running]:
    """A sink that runs until the end of the block."""
    sink = KafkaSink(settings, store, at=at) if at else KafkaSink(settings, store)
    stopping = asyncio.Event()
    task = asyncio.create_task(sink.run(stopping))
    try:
        yield Running(sink, stopping, task)
    except BaseException:
        task.cancel()
        await asyncio.wait({task})
        raise
    stopping.set()
    await task


async def carry_all(settings: Settings, store: Store, at: Callable[[str], None] | None = None) -> KafkaSink:
    """One life of a sink, until all that is in the log is in the store."""
    async with running(settings, store, at) as run:
        await run.until(lambda: run.is_through)
        return run.sink


def spoilt(record: Sent, row: int) -> Sent:
    """The record with a row that no store takes."""
    rows = list(record.rows)
    found = rows[row]
    assert isinstance(found, dict)
    rows[row] = found | {"input_tokens": "Rosa Martinez"}
    return replace(record, rows=tuple(rows))
