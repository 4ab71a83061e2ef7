"""One suite for every source of signals: first the last word on every key, then the news, in order, for each gate."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.errors import KafkaError, PolicyViolationError
from kafka_broker import needs_broker
from kafka_side import KafkaSide
from signalling import MemorySignals
from tidegate.producers.http_signals import HttpSignals
from tidegate.producers.kafka_signals import KafkaSignals
from tidegate.producers.local_signals import LocalSignals
from tidegate.producers.signals import START, SignalRecord, SignalSource
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.errors import LogUnavailable, TidegateError, UsageError
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import GATES, SIGNALS

# A long poll that should end by news ends long before this.
LONG_S = 20.0


@dataclass
class World:
    """A source, and the node's side of it."""

    make: Callable[[], SignalSource]
    publish: Callable[[Sequence[SignalRecord]], None]
    announced: Callable[[], dict[str, bytes]]

    def __post_init__(self) -> None:
        self.source = self.make()


class Folder:
    """The node's side of a data folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = SqliteLog(path, fsync="normal")

    def publish(self, records: Sequence[SignalRecord]) -> None:
        with self.log.transaction():
            self.log.append(SIGNALS.name, 0, [(key, {}, value) for key, value in records])

    def announced(self) -> dict[str, bytes]:
        return {(record.key or b"").decode(): record.value for record in self.log.read(GATES.name, 0, 0)}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path / "data")
    yield made
    made.log.close()


class Door:
    """The node's door for signals, served in a thread."""

    def __init__(self, folder: Folder, token: str | None = None) -> None:
        uvicorn = pytest.importorskip("uvicorn", reason="the node's dependencies are not installed")
        from starlette.applications import Starlette
        from starlette.requests import Request
        from starlette.responses import Response
        from starlette.routing import Route
        from tidegate.processors.embedded.folder_backend import FolderFeed
        from tidegate.processors.embedded.signals_door import SignalsDoor

        self.asked: list[str] = []
        self.feed = FolderFeed(folder.path)
        self.door = SignalsDoor(self.feed)

        async def serve(request: Request) -> Response:
            self.asked.append(str(request.url.query))
            if token is not None and request.headers.get("authorization") != f"Bearer {token}":
                return Response("no", 401)
            return await self.door.serve(request)

        app = Starlette(routes=[Route("/v1/signals", serve)])
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1))
        self.thread = threading.Thread(target=asyncio.run, args=(self.server.serve(),))
        self.thread.start()
        eventually(lambda: self.server.started)
        self.url = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"

    def close(self) -> None:
        self.door.closing = True
        self.server.should_exit = True
        self.thread.join()
        self.door.close()
        self.feed.close()


def eventually(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


class Topics:
    """The policies' side of Kafka."""

    def __init__(self, url: str) -> None:
        self.side = KafkaSide(url)
        self.side.make_topics()

    def publish(self, records: Sequence[SignalRecord]) -> None:
        self.side.write(SIGNALS, [(key, value or None) for key, value in records])

    def announced(self) -> dict[str, bytes]:
        return {record.key.decode(): record.value or b"" for record in self.side.read(GATES)}

    def made_again(self) -> bool:
        """Whether the topics are there again; a topic that has just been deleted is in the way for a moment."""
        try:
            self.side.make_topics()
            return self.side.read(SIGNALS) == []
        except (TidegateError, KafkaError):
            return False


@pytest.fixture
def topics(kafka_url: str) -> Topics:
    return Topics(kafka_url)


on_kafka = [pytest.mark.slow, needs_broker]


@pytest.fixture(params=["local", "http", "memory", pytest.param("kafka", marks=on_kafka)])
def world(request: pytest.FixtureRequest, folder: Folder) -> Iterator[World]:
    if request.param == "kafka":
        topics: Topics = request.getfixturevalue("topics")
        made = World(lambda: KafkaSignals(Settings(url=topics.side.url)), topics.publish, topics.announced)
        yield made
        made.source.close()
    elif request.param == "memory":
        source = Announced()
        yield World(lambda: source, source.records.extend, lambda: dict.fromkeys(source.announced, b"{}"))
    elif request.param == "local":
        made = World(lambda: LocalSignals(folder.path), folder.publish, folder.announced)
        yield made
        made.source.close()
    else:
        door = Door(folder)
        made = World(lambda: HttpSignals(door.url), folder.publish, folder.announced)
        yield made
        made.source.close()
        door.close()


class Announced(MemorySignals):
    """The source that other tests use, which waits as a real one does."""

    def poll(self, after: int, timeout_s: float) -> tuple[Sequence[SignalRecord], int]:
        deadline = time.monotonic() + timeout_s
        closed = self.closed
        while True:
            found, position = super().poll(after, timeout_s)
            if found or time.monotonic() > deadline or self.closed > closed:
                return found, position
            time.sleep(0.002)


def complaint(work: Callable[[], None]) -> str:
    try:
        work()
    except LogUnavailable as error:
        return str(error)
    return ""


def hear(source: SignalSource, after: int, count: int, patiently: bool = False) -> tuple[list[SignalRecord], int]:
    """Poll until so many records have come; `patiently` as a gate does, which asks again when nothing can be heard."""
    found: list[SignalRecord] = []
    deadline = time.monotonic() + LONG_S
    while len(found) < count:
        assert time.monotonic() < deadline
        try:
            records, after = source.poll(after, 1.0)
        except LogUnavailable:
            if not patiently:
                raise
        else:
            found += records
    return found, after


def test_a_source_without_news_waits_and_comes_back_with_nothing(world: World) -> None:
    began = time.monotonic()

    records, position = world.source.poll(START, 0.2)

    assert (list(records), position) == ([], START)
    assert time.monotonic() - began >= 0.19


def test_a_late_gate_hears_the_last_word_on_every_key_and_then_the_news(world: World) -> None:
    world.publish([(b"a", b"1"), (b"b", b"1"), (b"a", b"2")])
    world.publish([(b"c", b"1")])
    world.publish([(b"b", b'{"n": 2}')])

    found, position = hear(world.source, START, 3)
    world.publish([(b"a", b"3")])
    news, _ = hear(world.source, position, 1)

    assert dict(found) == {b"a": b"2", b"b": b'{"n": 2}', b"c": b"1"}
    assert news == [(b"a", b"3")]


def test_an_empty_value_takes_a_key_back(world: World) -> None:
    world.publish([(b"a", b"1")])
    _, position = hear(world.source, START, 1)

    world.publish([(b"a", b"")])

    assert hear(world.source, position, 1)[0] == [(b"a", b"")]


def test_a_waiting_poll_ends_with_the_news(world: World) -> None:
    world.publish([(b"a", b"1")])
    _, position = hear(world.source, START, 1)
    began = time.monotonic()
    later = threading.Timer(0.1, world.publish, ([(b"a", b"2")],))

    later.start()
    found, _ = world.source.poll(position, LONG_S)
    later.join()

    assert list(found) == [(b"a", b"2")]
    assert time.monotonic() - began < LONG_S / 2


def test_many_records_come_in_order(world: World) -> None:
    expected = [(f"signal|budget|{number}".encode(), f'"é{number}"'.encode()) for number in range(5_000)]
    world.publish(expected)

    found, _ = hear(world.source, START, len(expected))

    assert found == expected


def test_an_announcement_reaches_the_node(world: World) -> None:
    world.publish([(b"a", b"1")])

    world.source.announce("gate-1")
    world.source.poll(START, 1.0)

    eventually(lambda: world.announced().get("gate-1") == b"{}")


def test_closing_ends_a_waiting_poll_and_a_later_one_opens_again(world: World, request: pytest.FixtureRequest) -> None:
    if "http" in request.node.name:
        pytest.skip("a request on its way cannot be called back; the thread that waits for it is a daemon")
    world.publish([(b"a", b"1")])
    _, position = hear(world.source, START, 1)
    waiting = threading.Thread(target=world.source.poll, args=(position, LONG_S))
    waiting.start()
    time.sleep(0.05)
    began = time.monotonic()

    world.source.close()
    world.source.close()
    waiting.join()

    assert time.monotonic() - began < LONG_S / 2
    assert hear(world.source, START, 1)[0] == [(b"a", b"1")]


def test_the_child_of_a_fork_hears_for_itself_and_leaves_its_parent_s_ear_alone(world: World) -> None:
    world.publish([(b"a", b"1")])
    _, position = hear(world.source, START, 1)

    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            world.source.abandon()
            found, _ = hear(world.source, START, 1)
            os.write(write, b"%d" % len(found))
            world.source.close()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    told = os.read(read, 10)
    os.close(read)
    world.publish([(b"a", b"2")])

    assert told == b"1"
    assert hear(world.source, position, 1)[0] == [(b"a", b"2")]


# --- a data folder


def test_a_folder_without_a_log_has_nothing_to_say_and_none_is_made(tmp_path: Path) -> None:
    source = LocalSignals(tmp_path / "data")

    source.announce("gate-1")
    records, position = source.poll(START, 0.0)
    source.close()

    assert (list(records), position) == ([], START)
    assert not (tmp_path / "data").exists()


def test_a_folder_that_is_made_anew_is_heard_from_its_start(tmp_path: Path) -> None:
    first = Folder(tmp_path / "first")
    first.publish([(b"a", b"%d" % number) for number in range(9)])
    source = LocalSignals(first.path)
    _, position = hear(source, START, 1)
    source.close()
    first.log.close()
    second = Folder(tmp_path / "second")
    second.publish([(b"b", b"1")])
    source = LocalSignals(second.path)

    found, position = hear(source, position, 1)

    assert found == [(b"b", b"1")]
    assert position == 0
    source.close()
    second.log.close()


def test_a_gate_that_closes_takes_its_announcement_back(folder: Folder) -> None:
    source = LocalSignals(folder.path)
    source.announce("gate-1")

    source.close()

    assert folder.announced() == {"gate-1": b""}


# --- http


def test_a_node_that_is_away_cannot_be_heard() -> None:
    source = HttpSignals("http://127.0.0.1:9")

    with pytest.raises(LogUnavailable, match="cannot be reached"):
        source.poll(START, 0.1)


def test_the_token_is_shown_and_asked_for(folder: Folder) -> None:
    folder.publish([(b"a", b"1")])
    door = Door(folder, token="sesame")
    try:
        assert hear(HttpSignals(door.url, "sesame"), START, 1)[0] == [(b"a", b"1")]
        with pytest.raises(LogUnavailable, match="answered 401"):
            HttpSignals(door.url, "wrong").poll(START, 0.1)
        with pytest.raises(LogUnavailable, match="answered 404"):
            HttpSignals(f"{door.url}/elsewhere", "sesame").poll(START, 0.1)
    finally:
        door.close()


@pytest.mark.parametrize("url", ["ftp://node", "http://", "http://user:secret@node", "http://node?x=1"])
def test_an_address_that_cannot_be_a_node_s_is_refused_at_once(url: str) -> None:
    with pytest.raises(UsageError):
        HttpSignals(url)


# --- kafka


@pytest.fixture
def ear(topics: Topics) -> Iterator[KafkaSignals]:
    source = KafkaSignals(Settings(url=topics.side.url))
    yield source
    source.close()


@needs_broker
@pytest.mark.slow
def test_the_first_answer_of_a_topic_is_the_last_word_on_every_key_however_many_there_were(
    topics: Topics, ear: KafkaSignals
) -> None:
    topics.publish([(b"k%d" % (number % 50), b"%d" % number) for number in range(3_000)])
    topics.publish([(b"k7", b"")])

    found, position = ear.poll(START, 0.0)

    expected = {b"k%d" % (number % 50): b"%d" % number for number in range(3_000)} | {b"k7": b""}
    assert len(found) == 50
    assert dict(found) == expected
    assert position == 3_000


@needs_broker
@pytest.mark.slow
def test_a_topic_whose_beginning_was_deleted_is_heard_from_what_is_left(topics: Topics, ear: KafkaSignals) -> None:
    name = topics.side.address.topic(SIGNALS)
    topics.side.configure(SIGNALS, {"cleanup.policy": "delete"})  # of others nothing can be deleted by hand
    topics.publish([(b"a", b"1"), (b"b", b"1")])

    def deleted() -> bool:
        beginning = {TopicPartition(name, 0): RecordsToDelete(before_offset=2)}
        try:
            topics.side.administer(lambda admin: admin.delete_records(beginning))
        except PolicyViolationError:
            return False  # the partition has not heard of its new configuration yet
        return True

    eventually(deleted)

    nothing = ear.poll(START, 0.1)
    topics.publish([(b"c", b"1")])
    found, position = hear(ear, nothing[1], 1)

    assert nothing == ([], START)
    assert (found, position) == ([(b"c", b"1")], 2)


@needs_broker
@pytest.mark.slow
def test_a_topic_that_is_made_anew_is_heard_from_its_start(topics: Topics, ear: KafkaSignals) -> None:
    topics.publish([(b"a", b"%d" % number) for number in range(9)])
    _, position = hear(ear, START, 1)
    topics.side.administer(lambda admin: admin.delete_topics([topics.side.address.topic(SIGNALS)]))
    eventually(lambda: topics.made_again())
    topics.publish([(b"b", b"1")])

    found, position = hear(ear, position, 1, patiently=True)

    assert found == [(b"b", b"1")]
    assert position == 0


@needs_broker
@pytest.mark.slow
def test_a_gate_that_closes_takes_its_announcement_back_with_a_tombstone(topics: Topics, ear: KafkaSignals) -> None:
    ear.announce("gate-1")
    ear.poll(START, 0.1)
    eventually(lambda: topics.announced() == {"gate-1": b"{}"})

    ear.close()

    assert [(record.key, record.value) for record in topics.side.read(GATES)] == [(b"gate-1", b"{}"), (b"gate-1", None)]


@needs_broker
@pytest.mark.slow
def test_missing_topics_are_told_with_the_command_that_makes_them(kafka_url: str) -> None:
    source = KafkaSignals(Settings(url=kafka_url))

    with pytest.raises(LogUnavailable, match=r"has no topic test-.*signals: run `tidegate topics create`"):
        source.poll(START, 0.1)
    eventually(lambda: "tidegate topics create" in complaint(lambda: source.announce("gate-1")))
    source.close()


def test_brokers_that_are_away_cannot_be_heard() -> None:
    source = KafkaSignals(Settings(url="kafka://127.0.0.1:9"))

    with pytest.raises(LogUnavailable, match=r"cannot be reached \(ConnectionRefusedError\)"):
        source.poll(START, 0.1)
    source.close()
