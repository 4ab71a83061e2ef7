"""The guardrails on Kafka: cut off after every step, handed over, and sent things twice, they count each verdict once."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import kafka_ledger as ledger
import orjson
import pytest
from aiokafka import TopicPartition
from kafka_broker import needs_broker
from kafka_fleet import eventually
from tidegate.processors.distributed.call_record import CallRecord
from tidegate.processors.distributed.guardrails_hearing import Hearing
from tidegate.processors.distributed.guardrails_worker import KafkaGuardrails
from tidegate.processors.distributed.topics import create_topics
from tidegate.processors.distributed.wire import Wire
from tidegate.processors.guardrails.sampling import Name, Sampling, Sighting
from tidegate.producers.kafka_log import KafkaLog
from tidegate.producers.key_source import GivenKeys
from tidegate.producers.sealing import seal
from tidegate.schemas.content import Texts
from tidegate.schemas.envelope import CONTENT_SCHEMA, Envelope
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import ALERTS, CALLS, QUARANTINE, TRANSCRIPTS

KEY = "MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA="
RING = {
    "version": 1,
    "fingerprint": KEY,
    "keys": [{"id": "k-1", "tenant": None, "key": KEY, "created_at": datetime(2026, 1, 1, tzinfo=UTC), "retired": False}],
}
KEYS = GivenKeys(orjson.dumps(RING).decode())


def content(call_id: str, prompt: str, **fields: Any) -> bytes:
    event = {
        "event": "content",
        "call_id": call_id,
        "started_at": datetime.now(UTC),
        "tenant": "harbor-health",
        "request_model": "gpt-4o",
        "mode": "sealed",
        "key_id": "k-1",
        "sealed": seal(Texts(prompt=prompt), call_id, KEYS.opening("k-1")),
    } | fields
    return orjson.dumps(event)


def settings_for(url: str, **other: Any) -> Settings:
    return Settings(**{"url": url, "guard_detectors": ("phi", "toxicity"), "guard_batch": 1, "worker_session_s": 2} | other)


def send(url: str, producer: str, seq: int, *lines: bytes) -> None:
    with closing(KafkaLog(settings_for(url))) as log:
        log.append([Envelope.of(producer, seq, lines, schema=CONTENT_SCHEMA)])


class CutOff(Exception):
    """The worker ends here, as after kill -9: nothing more is sent or committed."""


async def guard(
    url: str,
    until: Callable[[KafkaGuardrails], bool],
    at: Callable[[str], None] = lambda _step: None,
    **other: Any,
) -> None:
    """One worker, until it has done enough, or fails."""
    wire = Wire(settings_for(url))
    await wire.start()
    one = KafkaGuardrails(settings_for(url, **other), wire, KEYS, at=at, loader="guard_suites:names")
    running: asyncio.Task[None] | None = None
    try:
        await one.start()
        running = asyncio.create_task(one.run())
        deadline = time.monotonic() + 90
        while not (until(one) or running.done()):
            assert time.monotonic() < deadline, one.said
            await asyncio.sleep(0.05)
    finally:
        if running is not None:
            running.cancel()
            await asyncio.wait({running})
        await one.close()
        await wire.stop()
    if one.failure is not None:
        raise one.failure


def is_idle(one: KafkaGuardrails) -> bool:
    """Both partitions are ours, and everything in them has a committed verdict."""
    lags = one.lags()
    return len(lags) == 2 and not any(lags.values())


def verdicts(url: str) -> dict[tuple[str, int], dict[str, Any]]:
    """Every verdict by producer and number, as the meter tells them apart; the same number must say the same call."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for record in ledger.records(url, CALLS):
        headers = ledger.headers_of(record)
        for seq, line in enumerate(record.value.split(b"\n"), int(headers["seq"])):
            event = orjson.loads(line)
            known = found.setdefault((headers["producer"], seq), event)
            assert known["call_id"] == event["call_id"]
    return found


@pytest.fixture
def url(kafka_url: str) -> str:
    asyncio.run(create_topics(Settings(url=kafka_url), partitions=2, policy_partitions=1))
    return kafka_url


@pytest.mark.slow
@needs_broker
def test_each_verdict_is_there_once_in_effect_wherever_a_worker_is_cut_off(url: str) -> None:
    producers = ("svc-a", "svc-b")
    for producer in producers:
        for seq in range(6):
            send(url, producer, seq, content(f"{producer}-{seq}", f"text {seq} Zqann"))

    for fatal in ("1 judged", "2 acknowledged", "3 committed"):

        def at(step: str, fatal: str = fatal) -> None:
            if step == fatal:
                raise CutOff

        with pytest.raises(CutOff):
            asyncio.run(guard(url, lambda _: False, at))
    asyncio.run(guard(url, is_idle))

    found = verdicts(url)
    assert sorted(found) == sorted((f"guardrails:{producer}", seq) for producer in producers for seq in range(6))
    assert {event["outcome"] for event in found.values()} == {"scored"}
    transcripts = list(ledger.rows(url, TRANSCRIPTS))
    assert sorted(row["call_id"] for row in transcripts) == sorted(event["call_id"] for event in found.values())
    assert {row["redacted_prompt"][:5] for row in transcripts} == {"text "}
    assert all("Zqann" not in row["redacted_prompt"] for row in transcripts)


@pytest.mark.slow
@needs_broker
def test_an_envelope_sent_again_to_the_next_worker_is_known_by_its_number(url: str) -> None:
    send(url, "svc", 0, content("a", "one"), content("b", "KILL"))
    asyncio.run(guard(url, lambda one: sum(one.said.get("outcomes", {}).values()) == 2))

    send(url, "svc", 0, content("a", "one"), content("b", "KILL"))
    send(url, "svc", 2, content("c", "three"))
    asyncio.run(guard(url, is_idle))

    found = verdicts(url)
    assert [(seq, event["call_id"], event["outcome"]) for (_, seq), event in sorted(found.items())] == [
        (0, "a", "scored"),
        (1, "b", "quarantined"),
        (2, "c", "scored"),
    ]
    assert [row["call_id"] for row in ledger.rows(url, TRANSCRIPTS)] == ["a", "c"]
    [quarantined] = ledger.records(url, QUARANTINE)
    assert orjson.loads(quarantined.value)["call_id"] == "b"
    assert ledger.headers_of(quarantined)["reason"] == "crash"
    assert [orjson.loads(record.value)["kind"] for record in ledger.records(url, ALERTS)] == ["guardrails_quarantine"]


@pytest.mark.slow
@needs_broker
def test_two_workers_share_the_partitions_and_one_takes_all_when_the_other_leaves(url: str) -> None:
    for producer in ("svc-a", "svc-b"):
        send(url, producer, 0, *(content(f"{producer}-{seq}", f"text {seq}") for seq in range(20)))

    async def both() -> None:
        shared = asyncio.Event()

        def has_half(one: KafkaGuardrails) -> bool:
            if len(one.lags()) == 1:
                shared.set()
            return shared.is_set()

        first = guard(url, lambda one: has_half(one) and len(one.lags()) == 1)
        second = guard(url, lambda one: has_half(one) and is_idle(one))
        await asyncio.gather(first, second)

    for producer in ("svc-a", "svc-b"):
        send(url, producer, 20, content(f"{producer}-20", "last"))
    asyncio.run(both())

    found = verdicts(url)
    assert len(found) == 42
    assert {event["outcome"] for event in found.values()} == {"scored"}


@pytest.mark.slow
@needs_broker
def test_whoever_takes_over_knows_which_models_are_new_and_which_are_not(url: str) -> None:
    new_h = 1 / 3_600  # a second
    send(url, "svc-a", 0, content("a-0", "text", request_model="usual"))
    asyncio.run(guard(url, is_idle, guard_sample=0.0, guard_new_h=new_h))
    met = asyncio.run(first_sightings(url))

    time_is = eventually(lambda: (now := time.time()) > met["model", "usual"].first_ms / 1_000 + 1 and now)
    send(url, "svc-a", 1, content("a-1", "text", request_model="usual"))
    send(url, "svc-b", 0, content("b-0", "text", request_model="new"))
    asyncio.run(guard(url, is_idle, guard_sample=0.0, guard_new_h=new_h))

    outcomes = {event["call_id"]: event["outcome"] for event in verdicts(url).values()}
    assert outcomes == {"a-0": "scored", "a-1": "sampled_out", "b-0": "scored"}
    again = asyncio.run(first_sightings(url))
    assert again["model", "usual"] == met["model", "usual"]
    assert again["model", "new"].first_ms >= (time_is - 1) * 1_000


async def first_sightings(url: str) -> dict[Name, Sighting]:
    """What a worker that joins now knows."""
    sampling, wire = Sampling(), Wire(settings_for(url))
    await wire.start()

    async def apply(change: Callable[[Sampling], None]) -> None:
        change(sampling)

    try:
        await Hearing(settings_for(url), apply).recall(wire)
    finally:
        await wire.stop()
    return dict(sampling.seen)


class Room:
    """A runtime with room for a few records, that notes what it takes."""

    busy = False

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken: list[tuple[int, int]] = []

    @property
    def has_room(self) -> bool:
        return len(self.taken) < self.room

    def take(self, number: int, record: CallRecord, _now: float) -> None:
        self.taken.append((number, record.offset))

    def work(self, _wait_s: float) -> None: ...

    def finished(self, _now: float) -> list[Any]:
        return []


class Reading:
    """A consumer that notes what it is told to read."""

    def __init__(self) -> None:
        self.reads: dict[int, bool] = {}

    def pause(self, tp: TopicPartition) -> None:
        self.reads[tp.partition] = False

    def resume(self, tp: TopicPartition) -> None:
        self.reads[tp.partition] = True


def test_no_partition_waits_for_a_busier_one() -> None:
    one = KafkaGuardrails(settings_for("kafka://nowhere:9092"), Wire(settings_for("kafka://nowhere:9092")), KEYS)
    one._runtime, one._consumer = Room(4), Reading()  # type: ignore[assignment]
    busy = [CallRecord(offset, 1_000 + offset, b"", {}, lambda: None) for offset in range(9)]
    one._held = {0: deque(busy), 1: deque([CallRecord(0, 1_001, b"", {}, lambda: None)]), 2: deque()}

    one._work()
    one._steer()

    assert one._runtime.taken == [(0, 0), (0, 1), (1, 0), (0, 2)]
    assert one._consumer.reads == {0: False, 1: True, 2: True}


def test_nothing_but_content_is_waited_for_where_nothing_is_under_way() -> None:
    one = KafkaGuardrails(settings_for("kafka://nowhere:9092"), Wire(settings_for("kafka://nowhere:9092")), KEYS)
    one._runtime = Room(1)  # type: ignore[assignment]

    idle = one._patience_ms()
    one._held = {0: deque([CallRecord(0, 1_000, b"", {}, lambda: None)])}
    busy = one._patience_ms()
    one.trouble = "no ring"

    assert busy == 0 < one._patience_ms() < idle
