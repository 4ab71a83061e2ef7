"""What the topics say, read by plain aiokafka: the ledger that tests compare with an oracle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from tidegate.processors.aggregate import UsageKey
from tidegate.schemas.kafka_url import KafkaAddress
from tidegate.schemas.topics import METER_CHANGELOG, Topic
from tidegate.schemas.usage import Usage


async def _records(url: str, topic: Topic) -> AsyncIterator[Any]:
    address = KafkaAddress.parse(url)
    name = address.topic(topic)
    consumer = AIOKafkaConsumer(bootstrap_servers=address.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    try:
        await consumer._client._wait_on_metadata(name)
        tps = [TopicPartition(name, number) for number in consumer.partitions_for_topic(name)]
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        ends = await consumer.end_offsets(tps)
        left = {tp for tp in tps if ends[tp] > await consumer.position(tp)}
        while left:
            for tp, found in (await consumer.getmany(timeout_ms=1_000)).items():
                for record in found:
                    if record.offset < ends[tp]:
                        yield record
            left = {tp for tp in left if await consumer.position(tp) < ends[tp]}
    finally:
        await consumer.stop()


def follow(url: str, topic: Topic, starts: Mapping[int, int]) -> Iterator[Any]:
    """The records of some partitions from the offset given for each to where it ends now, each partition in order; read as
    they are asked for, so that a topic may be larger than memory."""
    address = KafkaAddress.parse(url)
    starts = {TopicPartition(address.topic(topic), partition): offset for partition, offset in starts.items()}
    with asyncio.Runner() as runner:
        consumer = runner.run(_assigned(address.bootstrap, starts))
        try:
            ends = runner.run(consumer.end_offsets(list(starts)))
            while any(runner.run(consumer.position(tp)) < end for tp, end in ends.items()):
                for found in runner.run(consumer.getmany(timeout_ms=1_000)).values():
                    yield from found
        finally:
            runner.run(consumer.stop())


async def _assigned(bootstrap: str, starts: Mapping[TopicPartition, int]) -> Any:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="none", enable_auto_commit=False)
    await consumer.start()
    consumer.assign(list(starts))
    for tp, offset in starts.items():
        consumer.seek(tp, offset)
    return consumer


def records(url: str, topic: Topic) -> list[Any]:
    """Every record of a topic, each partition in order."""

    async def read() -> list[Any]:
        return [record async for record in _records(url, topic)]

    return asyncio.run(read())


def headers_of(record: Any) -> dict[str, str]:
    return {name: value.decode() for name, value in record.headers}


def rows(url: str, topic: Topic) -> Iterator[dict[str, Any]]:
    """Every row of a topic of rows, once: records whose source was seen before are left out, as every reader does."""
    marks: dict[tuple[int, str], int] = {}
    for record in records(url, topic):
        headers = headers_of(record)
        source = record.partition, headers["source_partition"]
        offset = int(headers["source_offset"])
        if offset <= marks.get(source, -1):
            continue
        marks[source] = offset
        for line in record.value.split(b"\n"):
            yield orjson.loads(line)


def usage(url: str) -> dict[UsageKey, Usage]:
    """Every bucket that any meter ever wrote to its changelog, summed over source partitions. (Nothing has been compacted
    yet, so what was taken back is still to be seen.)"""
    newest: dict[tuple[int, bytes], bytes] = {}
    for record in records(url, METER_CHANGELOG):
        if record.key[:1] == b"u" and record.value:
            newest[record.partition, record.key] = record.value
    found: dict[UsageKey, Usage] = {}
    for (_, key), value in newest.items():
        name, _, fragment = key[1:].rpartition(b"#")
        bucket = UsageKey.load(name if name and fragment.isdigit() else key[1:])
        found.setdefault(bucket, Usage()).merge(Usage.load(value[8:]))
    return found


def totals(url: str) -> dict[str, int]:
    """The meters' account of every line, over all partitions."""
    states = {record.partition: record.value for record in records(url, METER_CHANGELOG) if record.key == b"@"}
    found: dict[str, int] = {}
    for value in states.values():
        for name, count in orjson.loads(value)["totals"].items():
            found[name] = found.get(name, 0) + count
    return found


def next_offsets(url: str) -> dict[int, int]:
    """How far each partition of `calls` is applied."""
    states = {record.partition: record.value for record in records(url, METER_CHANGELOG) if record.key == b"@"}
    return {partition: orjson.loads(value)["next_offset"] for partition, value in states.items()}
