"""Topics on a real broker: made as planned, found as planned, and every remedy that is printed mends what it was told for."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.structs import TopicPartition
from kafka_broker import needs_broker
from kafka_commands import run_kafka_command
from tidegate.processors.distributed.topic_plan import LIKE_CALLS, plan
from tidegate.processors.distributed.topics import check_topics, create_topics
from tidegate.schemas.errors import LogUnavailable, UsageError
from tidegate.schemas.kafka_url import KafkaAddress
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import ALERTS, CALLS, GATES, METER_CHANGELOG, METERED, SIGNALS, USAGE, Topic
from tidegate.topics_cli import topics_app
from typer.testing import CliRunner

pytestmark = [pytest.mark.slow, needs_broker]

TOPIC_COUNT = len(plan())


@pytest.fixture(autouse=True)
def _empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TIDEGATE_") and name != "TIDEGATE_KAFKA_CACHE"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def settings(kafka_url: str) -> Settings:
    return Settings(url=kafka_url)


def name_of(settings: Settings, topic: Topic) -> str:
    return KafkaAddress.parse(settings.url).topic(topic)


async def partitions(settings: Settings) -> dict[str, int]:
    """Partitions of the namespace's topics, by name without the namespace."""
    address = KafkaAddress.parse(settings.url)
    admin = AIOKafkaAdminClient(bootstrap_servers=address.bootstrap)
    await admin.start()
    try:
        found = await admin.describe_topics()
    finally:
        await admin.close()
    prefix = f"{address.namespace}."
    return {
        topic["topic"].removeprefix(prefix): len(topic["partitions"]) for topic in found if topic["topic"].startswith(prefix)
    }


async def make(settings: Settings, topic: Topic, count: int, config: dict[str, str] | None = None) -> None:
    """A topic as somebody else would have made it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=KafkaAddress.parse(settings.url).bootstrap)
    await admin.start()
    try:
        answer = await admin.create_topics([NewTopic(name_of(settings, topic), count, 1, topic_configs=config or {})])
    finally:
        await admin.close()
    assert [error[1] for error in answer.topic_errors] == [0]


async def sent(settings: Settings, topic: Topic, value: bytes, **options: Any) -> Any:
    """A record as it comes back from the broker."""
    bootstrap = KafkaAddress.parse(settings.url).bootstrap
    place = TopicPartition(name_of(settings, topic), 0)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, max_request_size=128 << 20)
    await producer.start()
    try:
        await producer.send_and_wait(place.topic, value, key=b"key", partition=0, **options)
    finally:
        await producer.stop()
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", group_id=None)
    await consumer.start()
    try:
        consumer.assign([place])
        async with asyncio.timeout(60):  # what is there comes at once; the largest takes a second
            return await consumer.getone()
    finally:
        await consumer.stop()


# create


async def made_and_checked(settings: Settings) -> tuple[list[str], list[str], list[Any]]:
    first = await create_topics(settings, partitions=3, policy_partitions=2)
    again = await create_topics(settings, partitions=5)
    return [topic.topic.name for topic in first], [topic.topic.name for topic in again], await check_topics(settings)


def test_topics_are_made_once_as_planned_and_found_as_planned(settings: Settings) -> None:
    first, again, problems = asyncio.run(made_and_checked(settings))

    assert len(first) == TOPIC_COUNT
    assert again == []
    assert problems == []
    assert asyncio.run(partitions(settings)) == {
        **dict.fromkeys(
            (
                "calls",
                "content",
                "metered",
                "requests",
                "findings",
                "transcripts",
                "usage_ledger",
                "price_rows",
                "dead_letters",
                "refused",
                "quarantine",
                "meter.changelog",
            ),
            3,
        ),
        "usage": 2,
        **dict.fromkeys(("signals", "gates", "signal_rows", "alerts", "incidents", "audit", "guardrails.names"), 1),
    }


def test_what_is_made_later_follows_the_calls_that_are_there(settings: Settings) -> None:
    asyncio.run(make(settings, CALLS, 4))

    made = asyncio.run(create_topics(settings, partitions=2))

    assert CALLS not in [topic.topic for topic in made]
    found = asyncio.run(partitions(settings))
    assert {name: found[name] for name in ("calls", "metered", "meter.changelog")} == {
        "calls": 4,
        "metered": 4,
        "meter.changelog": 4,
    }


def test_several_that_make_them_at_once_with_other_numbers_agree_on_one(settings: Settings) -> None:
    async def several() -> list[Any]:
        return await asyncio.gather(*(create_topics(settings, partitions=count) for count in (2, 3, 4, 5)))

    made = [topic.topic for topics in asyncio.run(several()) for topic in topics]

    assert len(made) == TOPIC_COUNT
    assert asyncio.run(check_topics(settings)) == []


def test_more_copies_than_brokers_is_an_error_that_names_the_number(settings: Settings) -> None:
    with pytest.raises(UsageError, match="there are 1 brokers to keep copies on; give --replication 1 or less"):
        asyncio.run(create_topics(settings, replication=3))


@pytest.mark.parametrize("name", ["partitions", "policy_partitions", "replication"])
def test_none_of_something_is_an_error(settings: Settings, name: str) -> None:
    with pytest.raises(UsageError, match="give 1 or more"):
        asyncio.run(create_topics(settings, **{name: 0}))


def test_an_address_where_nobody_listens_is_an_error_with_its_reason() -> None:
    with pytest.raises(LogUnavailable, match=r"no broker at 127\.0\.0\.1:1 lets us in over PLAINTEXT \(.*Connect call failed"):
        asyncio.run(check_topics(Settings(url="kafka://127.0.0.1:1")))


# what the settings do


def test_the_clock_of_a_record_is_the_logs_and_not_the_senders(settings: Settings) -> None:
    asyncio.run(create_topics(settings, partitions=1))

    record = asyncio.run(sent(settings, CALLS, b"{}", timestamp_ms=1_000_000_000_000))

    assert record.timestamp_type == 1
    assert abs(record.timestamp / 1000 - time.time()) < 3600


@pytest.mark.parametrize(("topic", "mib"), [(METERED, 15), (USAGE, 15), (METER_CHANGELOG, 60)], ids=lambda value: str(value))
def test_what_is_as_large_as_planned_is_taken(settings: Settings, topic: Topic, mib: int) -> None:
    asyncio.run(create_topics(settings, partitions=1))
    value = os.urandom(1 << 20) * mib

    record = asyncio.run(sent(settings, topic, value))

    assert record.value == value


# check


def test_topics_that_are_missing_are_all_told(settings: Settings) -> None:
    asyncio.run(make(settings, CALLS, 1, planned_config(CALLS)))

    problems = asyncio.run(check_topics(settings))

    assert len(problems) == TOPIC_COUNT - 1
    assert {problem.remedy for problem in problems} == {"tidegate topics create"}


def planned_config(topic: Topic) -> dict[str, str]:
    return next(planned.config for planned in plan(replication=1) if planned.topic == topic)


def test_every_printed_command_mends_what_it_was_told_for(settings: Settings) -> None:
    asyncio.run(make(settings, CALLS, 3, {"retention.ms": "3600000", "message.timestamp.type": "CreateTime"}))
    for topic in LIKE_CALLS:
        asyncio.run(make(settings, topic, 2, planned_config(topic)))
    asyncio.run(make(settings, GATES, 1, planned_config(GATES) | {"cleanup.policy": "delete", "segment.ms": "604800000"}))
    asyncio.run(make(settings, SIGNALS, 1, planned_config(SIGNALS) | {"min.insync.replicas": "2"}))
    asyncio.run(create_topics(settings))

    problems = asyncio.run(check_topics(settings))
    for problem in problems:
        run_kafka_command(problem.remedy)

    told = {(problem.topic.partition(".")[2], problem.what.partition(" ")[0]) for problem in problems}
    assert told >= {
        ("calls", "retention.ms"),
        ("calls", "message.timestamp.type"),
        ("calls", "max.message.bytes"),
        ("metered", "has"),
        ("meter.changelog", "has"),
        ("gates", "cleanup.policy"),
        ("gates", "segment.ms"),
        ("signals", "min.insync.replicas"),
    }
    assert asyncio.run(check_topics(settings)) == []


def test_a_single_topic_with_several_partitions_is_told(settings: Settings) -> None:
    asyncio.run(make(settings, ALERTS, 3, planned_config(ALERTS)))
    asyncio.run(create_topics(settings, partitions=1))

    (problem,) = asyncio.run(check_topics(settings))

    assert problem.topic == name_of(settings, ALERTS)
    assert "has 3 partitions and must have one" in problem.what


# the command line


def run(settings: Settings, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(topics_app, list(arguments), env={"TIDEGATE_URL": settings.url})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, " ".join(result.output.split())


def test_check_ends_with_1_until_create_has_been_there(settings: Settings) -> None:
    before = run(settings, "check")
    made = run(settings, "create", "--partitions", "2")
    after = run(settings, "check")
    again = run(settings, "create", "--partitions", "6")

    assert before[0] == 1
    assert f"{TOPIC_COUNT} things to look at." in before[1]
    assert made[0] == 0
    assert f"made {name_of(settings, CALLS)} 2 partitions" in made[1]
    assert (after[0], "as planned" in after[1]) == (0, True)
    assert "exists already; none was changed" in again[1]
    assert "A topic that exists keeps its partitions" in again[1]
