"""`tidegate forget` where the log is Kafka: the store is cleared, keys are taken back, nothing is claimed of the rest."""

from __future__ import annotations

import asyncio
import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import kafka_ledger as ledger
import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from kafka_broker import needs_broker
from node_process import tidegate
from support import ndjson, response
from tidegate.processors.distributed.topics import create_topics
from tidegate.processors.folder_mark import keep_to_kafka
from tidegate.processors.letters import Keeper, LetterId, Refused
from tidegate.producers.kafka_client import client_options
from tidegate.schemas.kafka_url import KafkaAddress
from tidegate.schemas.settings import Settings
from tidegate.schemas.signal import signal_key
from tidegate.schemas.topics import REFUSED, SIGNALS
from tidegate.sinks.clickhouse import Store

pytestmark = [pytest.mark.slow, needs_broker]

ALICE, BOB, TENANT = "alice-4711-k", "bob-4712-k", "harbor"


def word(user: str) -> tuple[bytes, bytes]:
    scope = {"tenant": TENANT, "user": user}
    said = {"policy": "of-each", "policy_version": "1", "scope": scope, "state": "block", "measure": "requests", "spend": 3}
    said |= {"window_start": 0, "window_end": 1, "reason": "spent", "sequence": 1, "at": 1}
    return signal_key("of-each", (TENANT, user)), orjson.dumps(said)


async def fill(settings: Settings) -> None:
    address, keeper = KafkaAddress.parse(settings.url), Keeper.of(settings)
    producer = AIOKafkaProducer(**client_options(settings))
    await producer.start()
    try:
        for offset, user in enumerate((ALICE, BOB)):
            await producer.send_and_wait(address.topic(SIGNALS), word(user)[1], key=word(user)[0], partition=0)
            line = orjson.dumps(response(tenant=TENANT, user=user, note="unknown"))
            [(key, headers, value)] = keeper.records(
                [
                    Refused(
                        LetterId(0, offset, 0), "meter", "unknown field", "service", len(line), sha256(line).hexdigest(), line
                    )
                ]
            )
            told = [(name, text.encode()) for name, text in headers.items()]
            await producer.send_and_wait(address.topic(REFUSED), value, key=key, partition=0, headers=told)
    finally:
        await producer.stop()


def last_words(url: str, topic: Any) -> dict[bytes, bool]:
    """Of each key whether it still has a value."""
    return {record.key: bool(record.value) for record in ledger.records(url, topic)}


def test_what_can_be_taken_back_is_and_no_proof_is_claimed(kafka_url: str, tmp_path: Path) -> None:
    data, ring, report = tmp_path / "data", tmp_path / "ring.json", tmp_path / "report.json"
    assert tidegate("keys", "make", "--file", ring).returncode == 0
    settings = Settings(url=kafka_url, key_file=ring)
    asyncio.run(create_topics(settings, partitions=1, policy_partitions=1))
    asyncio.run(fill(settings))
    data.mkdir()
    keep_to_kafka(data, kafka_url, "cluster", KafkaAddress.parse(kafka_url).namespace)
    with Store.open(path=data / "store") as store:
        store.migrate()
        events = [response(f"c-{user}", tenant=TENANT, user=user, producer="service") for user in (ALICE, BOB)]
        store.insert("calls", ndjson(events), "calls:0:0-1")
    more = {"TIDEGATE_URL": kafka_url, "TIDEGATE_KEY_FILE": str(ring), "TIDEGATE_DATA_DIR": str(data)}
    command = ("forget", "--user", ALICE, "--tenant", TENANT, "--yes", "--out", report)

    done = tidegate(*command, timeout_s=240, **more)

    assert done.returncode == 1, done.stderr
    assert report.exists(), done.stderr
    found = json.loads(report.read_bytes())
    assert found["proven"] is False
    assert found["store"]["calls"] == [1, "emptied"]
    assert not any(found["checked"].values())
    assert found["log"] == {"tidegate.refused": 1, "tidegate.signals": 1}
    until = dict(found["remains"])
    assert until["tidegate.calls"] > until["tidegate.content"] > found["ended_at"][:10]
    assert last_words(kafka_url, SIGNALS) == {word(ALICE)[0]: False, word(BOB)[0]: True}
    assert last_words(kafka_url, REFUSED) == {b"0:0:0": False, b"0:1:0": True}
    with Store.open(path=data / "store") as store:
        assert store.query("SELECT user FROM calls ORDER BY user").rows == [("",), (BOB,)]


def test_sinks_that_are_at_work_are_in_the_way(kafka_url: str, tmp_path: Path) -> None:
    ring = tmp_path / "ring.json"
    assert tidegate("keys", "make", "--file", ring).returncode == 0
    settings = Settings(url=kafka_url, key_file=ring)
    asyncio.run(create_topics(settings, partitions=1, policy_partitions=1))
    (tmp_path / "data").mkdir()
    keep_to_kafka(tmp_path / "data", kafka_url, "cluster", KafkaAddress.parse(kafka_url).namespace)
    more = {"TIDEGATE_URL": kafka_url, "TIDEGATE_KEY_FILE": str(ring), "TIDEGATE_DATA_DIR": str(tmp_path / "data")}

    async def asked() -> bytes:
        address = KafkaAddress.parse(kafka_url)
        sink = AIOKafkaConsumer(address.topic(SIGNALS), **client_options(settings), group_id=address.group("sink"))
        await sink.start()
        try:
            command = ("forget", "--user", ALICE, "--tenant", TENANT, "--yes")
            return (await asyncio.to_thread(tidegate, *command, timeout_s=120, **more)).stderr
        finally:
            await sink.stop()

    assert b"stop them" in asyncio.run(asked())
    assert os.path.exists(tmp_path / "data" / "audit.jsonl")
