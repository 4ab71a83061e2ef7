"""What each of the two engines is to a parity test: a log to append to, something to wait for, and what came of it.

Kafka's `calls` and `content` take the time that they are given (`CreateTime`), because rows carry it: both logs have the same
clock. What the guardrails append themselves has the time at which they do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import kafka_ledger as ledger
import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from kafka_fleet import Fleet
from tidegate.processors.distributed.call_record import decode_headers
from tidegate.processors.distributed.guardrails_worker import KafkaGuardrails
from tidegate.processors.distributed.topic_plan import plan
from tidegate.processors.distributed.topics import create_topics
from tidegate.processors.distributed.wire import Wire
from tidegate.processors.embedded.engine import MeterEngine
from tidegate.processors.embedded.guardrails_engine import GuardrailsEngine
from tidegate.processors.embedded.policies_engine import PoliciesEngine
from tidegate.processors.series import CALL
from tidegate.processors.topology import POLICIES
from tidegate.producers.key_source import KeySource
from tidegate.producers.sqlite_log import Record, SqliteLog
from tidegate.schemas.envelope import Envelope, partition_of
from tidegate.schemas.kafka_url import KafkaAddress
from tidegate.schemas.policy import PolicySet
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import BY_SCHEMA, CALLS, CONTENT, METER_CHANGELOG, SIGNALS, USAGE, Topic
from tidegate.schemas.usage import Usage

Row = tuple[dict[str, str], bytes]

_DAY_MS: Final = str(86_400_000)
# How topics of the test differ from the plan: rows carry the time of `calls` and `content`; and buckets that the meter has let
# go of are to be seen by the test, which comes minutes later.
_OWN: Final = {
    CALLS: {"message.timestamp.type": "CreateTime"},
    CONTENT: {"message.timestamp.type": "CreateTime"},
    METER_CHANGELOG: {"min.compaction.lag.ms": _DAY_MS, "max.compaction.lag.ms": _DAY_MS},
}


@dataclass(frozen=True, slots=True)
class Appended:
    """One record, as both logs get it. `at_ms` is the log's clock."""

    partition: int
    at_ms: int
    headers: Mapping[str, bytes]
    value: bytes
    key: bytes | None = None
    topic: Topic = CALLS

    @classmethod
    def of(cls, envelope: Envelope, at_ms: int, partitions: int) -> Appended:
        """As a producer's log appends it."""
        headers = {name: text.encode() for name, text in envelope.headers().items()}
        key = envelope.producer.encode()
        topic = BY_SCHEMA[envelope.schema]
        return cls(partition_of(envelope.producer, partitions), at_ms, headers, envelope.value, key, topic)


@dataclass(frozen=True, slots=True)
class Judging:
    """With what the guardrails of both engines judge, and at what time."""

    settings: Settings
    keys: KeySource
    loader: str
    at: float

    def clock(self) -> float:
        return self.at


class Embedded:
    """The engine of one machine, in this process."""

    def __init__(self, folder: Path, partitions: int, policies: PolicySet, flush_bytes: int) -> None:
        settings = Settings(partitions=partitions, fsync="normal", flush_bytes=flush_bytes)
        self._at_ms = 0
        self._policies = policies
        self._calls = SqliteLog(folder, partitions=partitions, fsync="normal", clock_ms=lambda: self._at_ms)
        self._folder = folder
        self.meter = MeterEngine(folder, settings, policies=policies)
        self._log = self.meter.log
        self._read: dict[tuple[str, int], int] = {}

    def append(self, records: Iterable[Appended]) -> list[int]:
        """The offset of each."""
        offsets = []
        with self._calls.transaction():
            for record in records:
                self._at_ms = record.at_ms
                headers = decode_headers(record.headers.items())
                offsets.append(
                    self._calls.append(record.topic.name, record.partition, [(record.key, headers, record.value)])[0]
                )
        return offsets

    def judge(self, how: Judging, within_s: float) -> None:
        """Until all content has its verdict."""
        guardrails = GuardrailsEngine(self._folder, how.settings, how.keys, loader=how.loader, clock=how.clock)
        deadline = time.monotonic() + within_s
        try:
            while guardrails.waits():
                assert time.monotonic() < deadline, guardrails.look()
                guardrails.run_once()
        finally:
            guardrails.close()

    def end(self, partition: int) -> int:
        """Where a partition of `calls` ends."""
        return self._calls.end_offset(CALLS.name, partition)

    def run(self) -> None:
        while self.meter.run_once():
            pass
        self.meter.run_once()  # nothing to read any more, but a call may be due to be given up

    def rows(self, topic: Topic, partition: int) -> Iterator[Row]:
        """Those that were not read before."""
        place = topic.name, partition
        while records := self._log.read(topic.name, partition, self._read.get(place, 0)):
            self._read[place] = records[-1].offset + 1
            yield from ((dict(record.headers), record.value) for record in records)

    def records(self, topic: Topic, partition: int) -> list[Record]:
        """All of them, whether or not they were read before."""
        return self._log.read(topic.name, partition, 0)

    def state(self, partition: int) -> dict[str, Any]:
        (row,) = self._log.db.execute(
            "SELECT next_offset, watermark_s, too_old, totals FROM meter_state WHERE partition = ?", (partition,)
        ).fetchall() or [(0, 0, 0, "{}")]
        return {"next_offset": row[0], "watermark_s": row[1], "too_old": row[2], "totals": orjson.loads(row[3])}

    def buckets(self, partition: int) -> Iterator[tuple[bytes, Usage]]:
        for key, value in self._log.db.execute("SELECT key, value FROM usage WHERE partition = ?", (partition,)):
            yield key, Usage.load(value)

    def scopes(self, partition: int) -> dict[bytes, bytes]:
        return self._keyed(partition, b"[")

    def calls_in_flight(self, partition: int) -> dict[bytes, bytes]:
        return {key.removeprefix(CALL): value for key, value in self._keyed(partition, CALL).items()}

    def _keyed(self, partition: int, prefix: bytes) -> dict[bytes, bytes]:
        found = self._log.keyed(USAGE.name, partition, prefix)
        return {record.key or b"": record.value for record in found if record.value}

    def producers(self, partition: int) -> dict[str, tuple[int, int, int]]:
        found = self._log.db.execute(
            "SELECT producer, next_seq, seen_ms, dropped FROM producers WHERE partition = ?", (partition,)
        )
        return {name: (next_seq, seen_ms, dropped) for name, next_seq, seen_ms, dropped in found}

    def words(self, now: float) -> dict[bytes, bytes]:
        """What policies that hear all of this for the first time say at `now`: every key of the signals topic."""
        log = self._log
        with log.transaction():
            log.forget(SIGNALS.name, 0, b"")
            for partition in range(log.partitions):
                log.commit_offset(POLICIES.name, USAGE.name, partition, 0)
        engine = PoliciesEngine(log, self._policies, self.meter.counted, unit_prices=self.meter.unit_prices, clock=lambda: now)
        engine.run_once()
        return {record.key or b"": record.value for record in log.keyed(SIGNALS.name, 0, b"") if record.value}

    def close(self) -> None:
        self.meter.close()
        self._calls.close()


class Distributed:
    """The engine on Kafka: worker processes, started by the test, and what their topics say."""

    def __init__(self, folder: Path, url: str, partitions: int, policy_file: Path) -> None:
        self.url = url
        self.partitions = partitions
        self.fleet = Fleet(folder, url, TIDEGATE_POLICY_FILE=str(policy_file))
        self.changelog = Changelog(url, partitions)
        self._address = KafkaAddress.parse(url)
        self._read: dict[tuple[str, int], int] = {}
        self._marks: dict[tuple[str, int, str], tuple[int, int]] = {}
        self._runner = asyncio.Runner()
        self._producer: AIOKafkaProducer | None = None

    def open(self) -> None:
        self._runner.run(self._open())

    async def _open(self) -> None:
        settings = Settings(url=self.url)
        own = {planned.topic: planned.config | _OWN[planned.topic] for planned in plan() if planned.topic in _OWN}
        address = KafkaAddress.parse(self.url)
        admin = AIOKafkaAdminClient(bootstrap_servers=address.bootstrap)
        await admin.start()
        try:
            await admin.create_topics(
                [
                    NewTopic(address.topic(topic), self.partitions, 1, topic_configs=config | {"min.insync.replicas": "1"})
                    for topic, config in own.items()
                ]
            )
        finally:
            await admin.close()
        # Two policies workers' worth of partitions: what is said of a scope must not depend on who says it.
        await create_topics(settings, policy_partitions=2)
        self._producer = AIOKafkaProducer(
            bootstrap_servers=address.bootstrap,
            enable_idempotence=True,
            acks="all",
            compression_type="zstd",
            max_batch_size=1 << 20,
            max_request_size=2 << 20,
        )
        await self._producer.start()

    def append(self, records: Iterable[Appended]) -> list[int]:
        """The offset of each."""
        return self._runner.run(self._append(records))

    async def _append(self, records: Iterable[Appended]) -> list[int]:
        producer = self._producer
        assert producer is not None
        sent = [
            await producer.send(
                self._address.topic(record.topic),
                record.value,
                key=record.key,
                partition=record.partition,
                timestamp_ms=record.at_ms,
                headers=list(record.headers.items()),
            )
            for record in records
        ]
        return [told.offset for told in await asyncio.gather(*sent)]

    def judge(self, how: Judging, within_s: float) -> None:
        """Until all content has its verdict."""
        self._runner.run(self._judge(how, within_s))

    async def _judge(self, how: Judging, within_s: float) -> None:
        settings = how.settings.model_copy(update={"url": self.url})
        wire = Wire(settings)
        await wire.start()
        guardrails = KafkaGuardrails(settings, wire, how.keys, loader=how.loader, clock=how.clock)
        try:
            await guardrails.start()
            running = asyncio.create_task(guardrails.run())
            deadline = time.monotonic() + within_s
            while not (len(lags := guardrails.lags()) == self.partitions and not any(lags.values())):
                assert not running.done(), guardrails.failure
                assert time.monotonic() < deadline, guardrails.said
                await asyncio.sleep(0.05)
            running.cancel()
            await asyncio.wait({running})
        finally:
            await guardrails.close()
            await wire.stop()

    def rows(self, topic: Topic, partition: int) -> Iterator[Row]:
        """Those that were not read before, each source once, as every reader takes them."""
        place = topic.name, partition
        for record in ledger.follow(self.url, topic, {partition: self._read.get(place, 0)}):
            self._read[place] = record.offset + 1
            headers = ledger.headers_of(record)
            source = (*place, headers["source_partition"])
            # In quarantine each line of a record has one of its own.
            number = int(headers["source_offset"]), int(headers.get("seq", 0))
            if number > self._marks.get(source, (-1, -1)):
                self._marks[source] = number
                yield headers, record.value

    def words(self) -> dict[bytes, bytes]:
        """The last word on every key of the signals topic."""
        newest = {record.key: record.value for record in ledger.records(self.url, SIGNALS)}
        return {key: value for key, value in newest.items() if value}

    def close(self) -> None:
        if self._producer is not None:
            self._runner.run(self._producer.stop())
        self._runner.close()


class Changelog:
    """The meters' memory as it was written, followed as far as it goes. Buckets that were taken back are kept: the meter
    lets go of what is old, and the test does not."""

    def __init__(self, url: str, partitions: int) -> None:
        self._url = url
        self._next = dict.fromkeys(range(partitions), 0)
        self.newest: dict[int, dict[bytes, bytes]] = {partition: {} for partition in range(partitions)}

    def follow(self) -> Changelog:
        for record in ledger.follow(self._url, METER_CHANGELOG, self._next):
            self._next[record.partition] = record.offset + 1
            if record.value is not None:
                self.newest[record.partition][record.key] = record.value
            elif not record.key.startswith(b"u"):
                self.newest[record.partition].pop(record.key, None)
        return self

    def kind(self, partition: int, kind: bytes) -> dict[bytes, bytes]:
        """Name to value of everything of a kind (see `changelog.py`)."""
        return {key[1:]: value for key, value in self.newest[partition].items() if key[:1] == kind}

    def state(self, partition: int) -> dict[str, Any]:
        found = orjson.loads(self.newest[partition].get(b"@", b'{"next_offset":0,"watermark_s":0,"too_old":0,"totals":{}}'))
        return {name: found[name] for name in ("next_offset", "watermark_s", "too_old", "totals")}

    def buckets(self, partition: int) -> tuple[dict[bytes, bytes], dict[bytes, Usage]]:
        """Buckets as stored, and what came so late that it stands beside."""
        whole: dict[bytes, bytes] = {}
        late: dict[bytes, Usage] = {}
        for name, value in self.kind(partition, b"u").items():
            bucket, _, fragment = name.rpartition(b"#")
            if bucket and fragment.isdigit():
                late.setdefault(bucket, Usage()).merge(Usage.load(value[8:]))
            else:
                whole[name] = value[8:]
        return whole, late

    def watches_all(self, series: Iterable[str]) -> bool:
        """Whether every partition counts these series from the first record on."""
        return all(
            name.encode() in (known := self.kind(partition, b"w")) and orjson.loads(known[name.encode()])["from_offset"] == 0
            for partition in self.newest
            for name in series
        )
