"""The project's own Kafka launcher: it starts, keeps what it acknowledged through a kill, and says what is missing."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from tidegate.bench.kafka import broker as launcher
from tidegate.bench.kafka.broker import Broker, BrokerUnavailable

TOPIC = "round-trip"

missing = [name for name in ("java", "mvn") if shutil.which(name) is None]
needs_broker = pytest.mark.skipif(
    bool(missing) and not os.environ.get("CI"), reason=f"a Kafka broker needs {' and '.join(missing)}"
)


async def send(bootstrap: str, values: list[bytes]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(TOPIC, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
    await producer.start()
    try:
        for value in values:
            await producer.send(TOPIC, value, headers=[("schema", b"calls/1")])
    finally:
        await producer.stop()  # waits for the acknowledgements


async def receive(bootstrap: str, count: int) -> list[tuple[bytes | None, int]]:
    consumer = AIOKafkaConsumer(TOPIC, bootstrap_servers=bootstrap, auto_offset_reset="earliest", group_id=None)
    await consumer.start()
    try:
        async with asyncio.timeout(30):  # a new topic's leader is known within a second
            return [(record.value, record.offset) for record in [await consumer.getone() for _ in range(count)]]
    finally:
        await consumer.stop()


@pytest.mark.slow
@needs_broker
def test_a_broker_keeps_what_it_acknowledged_through_kill_9(tmp_path: Path) -> None:
    values = [b'{"n":%d}' % number for number in range(100)]
    broker = Broker(tmp_path / "kafka")

    with broker:
        asyncio.run(send(broker.bootstrap, values))
        before = asyncio.run(receive(broker.bootstrap, len(values)))
        broker.kill()
        assert not broker.running
        broker.start()
        after = asyncio.run(receive(broker.bootstrap, len(values)))

    assert before == [(value, offset) for offset, value in enumerate(values)]
    assert after == before
    assert not broker.running


@pytest.mark.parametrize("name", ["java", "mvn"])
def test_without_java_or_maven_the_error_names_what_is_missing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_KAFKA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(shutil, "which", lambda program: None if program == name else f"/bin/{program}")

    with pytest.raises(BrokerUnavailable, match=f"^{name} is not on PATH: install"):
        Broker(tmp_path / "kafka").start()


def test_a_broker_that_ends_at_once_is_reported_with_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho the disk is full\nexit 3\n")
    java.chmod(0o700)
    monkeypatch.setattr(launcher, "_java", lambda: str(java))
    monkeypatch.setattr(launcher, "fetch_jars", lambda: tmp_path)
    monkeypatch.setattr(launcher, "_run", lambda *_: None)

    with pytest.raises(BrokerUnavailable, match=r"ended with status 3; its log ends:\nthe disk is full"):
        Broker(tmp_path / "kafka").start()
