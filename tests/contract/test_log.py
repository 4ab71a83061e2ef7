"""One suite for every log that the emitter writes to, and that tells where things are: in order, durable, repeatable."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kafka_broker import needs_broker
from kafka_side import KafkaSide, envelope_of
from support import envelope, response
from tidegate.producers.kafka_log import KafkaLog
from tidegate.producers.local_log import LocalLog
from tidegate.producers.ports import Log, Position
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.envelope import CONTENT_SCHEMA, KNOWN_SCHEMAS, MAX_ENVELOPE_BYTES, Envelope, partition_of
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import CALLS, CONTENT, Topic

PARTITIONS = 3


@dataclass
class World:
    """A log, and what is durable in a topic of it."""

    log: Log
    look: Callable[[Topic], dict[Position, Envelope]]

    def placed(self, topic: Topic = CALLS) -> dict[Position, Envelope]:
        return self.look(topic)

    def stored(self, topic: Topic = CALLS) -> list[Envelope]:
        """By partition and offset."""
        return [envelope for _, envelope in sorted(self.placed(topic).items(), key=lambda item: item[0])]


@pytest.fixture(params=["local", pytest.param("kafka", marks=[pytest.mark.slow, needs_broker])])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    if request.param == "local":
        made = World(LocalLog(tmp_path, fsync="normal", partitions=PARTITIONS), lambda topic: _in_folder(tmp_path, topic))
    else:
        side = KafkaSide(request.getfixturevalue("kafka_url"), PARTITIONS)
        side.make_topics()
        made = World(KafkaLog(Settings(url=side.url)), lambda topic: _on_kafka(side, topic))
    yield made
    made.log.close()


def _in_folder(folder: Path, topic: Topic) -> dict[Position, Envelope]:
    with SqliteLog(folder) as log:
        return {
            Position(partition, record.offset): Envelope.from_record(record.headers, record.value, KNOWN_SCHEMAS)
            for partition in range(PARTITIONS)
            for record in log.read(topic.name, partition, 0)
        }


def _on_kafka(side: KafkaSide, topic: Topic) -> dict[Position, Envelope]:
    return {Position(record.partition, record.offset): envelope_of(record) for record in side.read(topic)}


def test_what_append_returned_from_is_durable_and_in_order(world: World) -> None:
    sent = [envelope("triage-1", seq, [response(), response()], dropped=seq) for seq in (0, 2, 4)]

    world.log.append(sent[:2])
    world.log.append(sent[2:])
    world.log.append([])

    assert world.stored() == sent


def test_append_tells_where_each_envelope_is(world: World) -> None:
    sent = [envelope(f"triage-{number}", 0, [response()]) for number in range(10)]

    told = [*world.log.append(sent[:1]), *world.log.append(sent[1:7]), *world.log.append(sent[7:])]

    assert dict(zip(told, sent, strict=True)) == world.placed()


def test_appending_the_same_again_is_possible_and_marked_by_its_number(world: World) -> None:
    sent = envelope("triage-1", 0, [response()])

    world.log.append([sent])
    world.log.append([sent])

    assert world.stored() == [sent, sent]


def test_a_log_closed_twice_opens_again_on_the_next_append(world: World) -> None:
    first, second = (envelope("triage-1", seq, [response()]) for seq in (0, 1))

    world.log.close()
    world.log.append([first])
    world.log.close()
    world.log.close()
    world.log.append([second])

    assert world.stored() == [first, second]


def test_envelopes_as_large_as_allowed_are_taken(world: World) -> None:
    sent = [Envelope.of("triage-1", seq, [bytes(range(11, 256)) * (MAX_ENVELOPE_BYTES // 245)]) for seq in range(4)]

    world.log.append(sent)

    assert world.stored() == sent


def test_a_producers_envelopes_go_to_its_partition(world: World) -> None:
    names = [f"triage-{number}" for number in range(20)]

    world.log.append([envelope(name, 0, [response()]) for name in names])

    found: dict[int, set[str]] = defaultdict(set)
    for position, stored in world.placed().items():
        found[position.partition].add(stored.producer)
    for partition in range(PARTITIONS):
        assert found[partition] == {name for name in names if partition_of(name, PARTITIONS) == partition}


def test_content_goes_to_its_own_topic_and_calls_to_theirs(world: World) -> None:
    calls = [envelope(f"triage-{number}", 0, [response()]) for number in range(4)]
    content = [Envelope.of(f"triage-{number}-content", 0, [b"sealed"], schema=CONTENT_SCHEMA) for number in range(4)]

    told = world.log.append([calls[0], *content, *calls[1:]])

    assert dict(zip((told[0], *told[5:]), calls, strict=True)) == world.placed(CALLS)
    assert dict(zip(told[1:5], content, strict=True)) == world.placed(CONTENT)


def test_a_producers_content_goes_to_its_partition_in_order(world: World) -> None:
    sent = [Envelope.of("triage-1-content", seq, [b"sealed"], schema=CONTENT_SCHEMA) for seq in range(5)]

    told = [position for envelope in sent for position in world.log.append([envelope])]

    assert {position.partition for position in told if position} == {partition_of("triage-1-content", PARTITIONS)}
    assert world.stored(CONTENT) == sent
