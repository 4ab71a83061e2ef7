"""What a worker tells the audit log, on a broker that may lose an answer, have no topic, or take its time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from tidegate.processors.distributed import roles, wire, worker_audit
from tidegate.processors.distributed.worker_audit import WorkerAudit
from tidegate.processors.distributed.worker_doors import WorkerMetrics
from tidegate.schemas.errors import UsageError
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import AUDIT, Topic
from tidegate.sinks import clickhouse

SETTINGS = Settings(url="kafka://broker:9092/town", store="http://store:8123")


class Broker:
    """What its producers have sent, in order."""

    def __init__(self, topics: Sequence[str] = ("town.audit",)) -> None:
        self.topics = set(topics)
        self.lines: list[bytes] = []

    def __call__(self, **_: Any) -> Producer:
        return Producer(self)


class Producer:
    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.client = self

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def fetch_all_metadata(self) -> Producer:
        return self

    def topics(self) -> set[str]:
        return self.broker.topics

    async def send_and_wait(self, _topic: str, line: bytes, **_: Any) -> None:
        self.broker.lines.append(line)


def test_a_store_is_not_migrated_where_nobody_could_be_told_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    migrated: list[int] = []

    class Store:
        @classmethod
        def open(cls, **_: Any) -> Store:
            return cls()

        def migrate(self) -> list[int]:
            migrated.append(1)
            return [1]

        def close(self) -> None: ...

    async def start() -> None:
        async with roles.BY_NAME["sink"](SETTINGS, WorkerMetrics("sink"), WorkerAudit(SETTINGS)):
            raise AssertionError("it works without an audit log")

    monkeypatch.setattr(clickhouse, "Store", Store)
    monkeypatch.setattr(worker_audit, "AIOKafkaProducer", Broker(topics=["town.calls"]))
    with pytest.raises(UsageError, match="audit"):
        asyncio.run(start())

    assert migrated == []


def test_a_notifier_does_not_start_without_a_topic_for_its_audit_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wire:
        def __init__(self, _settings: Settings) -> None: ...

        async def start(self) -> None: ...

        async def stop(self) -> None: ...

        async def require(self, topics: Sequence[Topic]) -> None:
            if AUDIT in topics:
                raise UsageError("no audit")

    async def start() -> None:
        async with roles.BY_NAME["notifier"](SETTINGS, WorkerMetrics("notifier"), WorkerAudit(SETTINGS)):
            raise AssertionError("it works without an audit log")

    monkeypatch.setattr(wire, "Wire", Wire)
    with pytest.raises(UsageError, match="no audit"):
        asyncio.run(start())
