"""What a worker tells the audit log, on a broker that may lose an answer, have no topic, or take its time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from aiokafka.errors import KafkaTimeoutError
from structlog.testing import capture_logs
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
        # Of the entries that are sent next: whether they arrive, and whether that is answered.
        self.next: list[tuple[bool, bool]] = []
        # Whether any is answered yet, and whether one was sent that is not.
        self.answering, self.asked = asyncio.Event(), asyncio.Event()
        self.answering.set()

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
        if not self.broker.answering.is_set():
            self.broker.asked.set()
            await self.broker.answering.wait()
        arrives, is_answered = self.broker.next.pop(0) if self.broker.next else (True, True)
        if arrives:
            self.broker.lines.append(line)
        if not is_answered:
            raise KafkaTimeoutError


class Clock:
    """A second later each time."""

    def __init__(self) -> None:
        self.at = datetime(2026, 11, 23, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.at += timedelta(seconds=1)
        return self.at


def entries(broker: Broker) -> list[tuple[str, int, str, Any]]:
    """Chain, number, time and the version of which each entry tells."""
    lines = [orjson.loads(line) for line in broker.lines]
    return [(one["log"], one["seq"], one["at"][17:19], one["details"].get("version")) for one in lines]


def test_what_may_not_have_arrived_is_written_first_next_time_in_a_new_chain_at_its_own_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = Broker()
    monkeypatch.setattr(worker_audit, "AIOKafkaProducer", broker)

    async def scene() -> None:
        audit = WorkerAudit(SETTINGS, now=Clock())
        await audit.append("worker.started", {})
        broker.next = [(False, False), (True, False)]
        for version in "123":
            await audit.tell("policies.in_force", {"version": version})
        await audit.append("worker.stopped", {})
        await audit.stop()

    asyncio.run(scene())

    written = entries(broker)
    assert [(at, version) for _, _, at, version in written] == [
        ("01", None),
        ("02", "1"),  # of this nobody knew that it had arrived
        ("02", "1"),
        ("03", "2"),
        ("04", "3"),
        ("05", None),
    ]
    assert [seq for _, seq, _, _ in written] == [1, 1, 1, 2, 3, 4]
    assert len({chain for chain, *_ in written}) == 3


def test_in_a_long_outage_no_more_is_kept_than_is_bearable_and_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker()
    monkeypatch.setattr(worker_audit, "AIOKafkaProducer", broker)
    monkeypatch.setattr(worker_audit, "_KEPT_MOST", 3)

    async def scene() -> None:
        audit = WorkerAudit(SETTINGS, now=Clock())
        broker.next = [(False, False)] * 6
        for version in "123456":
            await audit.tell("policies.in_force", {"version": version})
        await audit.tell("policies.in_force", {"version": "7"})
        await audit.stop()

    asyncio.run(scene())

    assert [version for *_, version in entries(broker)] == ["5", "6", "7"]


def test_what_is_being_written_while_too_much_is_kept_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker()
    monkeypatch.setattr(worker_audit, "AIOKafkaProducer", broker)
    monkeypatch.setattr(worker_audit, "_KEPT_MOST", 2)

    async def scene() -> None:
        audit = WorkerAudit(SETTINGS, now=Clock())
        broker.next = [(False, False)] * 2
        for version in "12":
            await audit.tell("policies.in_force", {"version": version})
        broker.answering.clear()
        writing = asyncio.create_task(audit.tell("policies.in_force", {"version": "3"}))
        await broker.asked.wait()
        others = [asyncio.create_task(audit.tell("policies.in_force", {"version": version})) for version in "45"]
        await asyncio.sleep(0)  # both are told, and wait for their turn
        broker.answering.set()
        await asyncio.gather(writing, *others)
        await audit.stop()

    with capture_logs() as logs:
        asyncio.run(scene())

    lost = [line for line in logs if line["event"] == "audit_entry_lost"]
    assert [version for *_, version in entries(broker)] == ["2", "4", "5"]
    assert len(lost) == 2


def test_an_entry_that_is_too_long_holds_up_none_that_are_told_later(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker()
    monkeypatch.setattr(worker_audit, "AIOKafkaProducer", broker)

    async def scene() -> None:
        audit = WorkerAudit(SETTINGS, now=Clock())
        await audit.tell("policies.in_force", {"version": "1" * 100_000})
        await audit.tell("policies.in_force", {"version": "2"})
        await audit.append("worker.stopped", {})
        await audit.stop()

    with capture_logs() as logs:
        asyncio.run(scene())

    assert [(at, version) for _, _, at, version in entries(broker)] == [("02", "2"), ("03", None)]
    assert [line["action"] for line in logs if line["event"] == "audit_entry_lost"] == ["policies.in_force"]


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
