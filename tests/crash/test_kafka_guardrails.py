"""The broker goes away while a guardrails worker judges, and comes back: no text is lost, and none is judged again."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import kafka_ledger as ledger
import orjson
import pytest
from kafka_broker import needs_broker
from tidegate.bench.kafka.broker import Broker
from tidegate.processors.distributed.guardrails_worker import KafkaGuardrails
from tidegate.processors.distributed.topics import create_topics
from tidegate.processors.distributed.wire import Wire
from tidegate.producers.kafka_log import KafkaLog
from tidegate.producers.key_source import GivenKeys
from tidegate.producers.keyring import KeyRing
from tidegate.producers.sealing import seal
from tidegate.schemas.content import Texts
from tidegate.schemas.envelope import CONTENT_SCHEMA, Envelope
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import CALLS, TRANSCRIPTS

KEYS = GivenKeys(KeyRing.made().dump().decode())
ENVELOPES, LINES = 40, 5


def content(call_id: str) -> bytes:
    key = KEYS.ring().sealing(None)
    event = {"event": "content", "call_id": call_id, "started_at": datetime.now(UTC), "mode": "sealed", "key_id": key.key_id}
    return orjson.dumps(event | {"sealed": seal(Texts(prompt=f"text of {call_id}"), call_id, key)})


def port_for_a_broker() -> int:
    """Below what the system hands out to clients: while the broker is away, nobody else may take it."""
    while True:
        port = random.randint(15_000, 30_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "kafka", port=port_for_a_broker()) as running:
        yield running


@pytest.mark.slow
@needs_broker
@pytest.mark.parametrize("step", ["1 judged", "2 acknowledged"], ids=["before it is sent", "before it is committed"])
def test_an_outage_of_the_broker_costs_no_verdict_and_no_second_judgement(broker: Broker, step: str) -> None:
    settings = Settings(
        url=f"kafka://{broker.bootstrap}", guard_detectors=("phi", "toxicity"), guard_batch=4, worker_session_s=30
    )
    asyncio.run(create_topics(settings, partitions=2, policy_partitions=1))
    with closing(KafkaLog(settings)) as log:
        for number in range(ENVELOPES):
            producer, seq = f"svc-{number % 4}", number // 4 * LINES
            lines = [content(f"{producer}-{seq + place}") for place in range(LINES)]
            log.append([Envelope.of(producer, seq, lines, schema=CONTENT_SCHEMA)])

    judged, restarts = asyncio.run(judged_with_an_outage(settings, broker, step))

    assert (judged, restarts) == (ENVELOPES * LINES, {})
    found: list[tuple[str, int]] = []
    for record in ledger.records(settings.url, CALLS):
        headers = ledger.headers_of(record)
        assert all(orjson.loads(line)["outcome"] == "scored" for line in record.value.split(b"\n"))
        found += [(headers["producer"], int(headers["seq"]) + place) for place in range(int(headers["count"]))]
    assert sorted(found) == sorted(
        (f"guardrails:svc-{name}", seq) for name in range(4) for seq in range(ENVELOPES // 4 * LINES)
    )
    assert sum(1 for _ in ledger.rows(settings.url, TRANSCRIPTS)) == ENVELOPES * LINES


async def judged_with_an_outage(settings: Settings, broker: Broker, step: str) -> tuple[int, dict[str, int]]:
    """How many calls the processes judged, and which of these had to be replaced. The broker goes at the third such step."""
    passed, away = 0, asyncio.Event()

    def at(name: str) -> None:
        nonlocal passed
        passed += name == step
        if passed == 3 and not away.is_set():
            # Here and now, before anything else can be sent.
            broker.stop()
            away.set()

    wire = Wire(settings)
    await wire.start()
    one = KafkaGuardrails(settings, wire, KEYS, at=at, loader="guard_suites:names")
    await one.start()
    running = asyncio.create_task(one.run())
    try:
        await away.wait()
        await asyncio.to_thread(broker.start)
        deadline = time.monotonic() + 90
        while any((lags := one.lags()).values()) or len(lags) < 2:
            assert not running.done(), one.failure
            assert time.monotonic() < deadline, one.said
            await asyncio.sleep(0.05)
        return one.runtime.pool.account.judged, dict(one.runtime.pool.account.restarts)
    finally:
        running.cancel()
        await asyncio.wait({running})
        await one.close()
        await wire.stop()
