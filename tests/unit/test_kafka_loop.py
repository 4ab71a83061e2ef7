"""The loop that Kafka's clients live in: what goes in comes out, nothing outlives it, and nobody waits for it in vain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("aiokafka", reason="the clients are aiokafka's")

from tidegate.producers.kafka_loop import KafkaLoop, LoopEnded, started

# What should end at once ends long before this.
LONG_S = 20.0


class Clients:
    """What a loop opens: counts, and fails as it is told."""

    def __init__(self) -> None:
        self.opened = 0
        self.closed = 0
        self.fails: Exception | None = None
        self.hangs = False
        self.done: list[str] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Clients]:
        async with started(self):
            yield self

    async def start(self) -> None:
        if self.fails is not None:
            raise self.fails
        if self.hangs:
            await asyncio.sleep(LONG_S)
        self.opened += 1

    async def stop(self) -> None:
        self.closed += 1

    async def work(self, name: str, takes_s: float = 0.0) -> str:
        await asyncio.sleep(takes_s)
        self.done.append(name)
        return name


@pytest.fixture
def clients() -> Clients:
    return Clients()


@pytest.fixture
def make(clients: Clients) -> Iterator[Callable[[], KafkaLoop[Clients]]]:
    loops: list[KafkaLoop[Clients]] = []

    def make() -> KafkaLoop[Clients]:
        loops.append(KafkaLoop(clients.open, "tidegate-test"))
        return loops[-1]

    yield make
    for loop in loops:
        loop.close()


Make = Callable[[], KafkaLoop[Clients]]


def test_work_is_done_with_clients_that_are_opened_once(clients: Clients, make: Make) -> None:
    loop = make()

    told = [loop.call(lambda clients, name=name: clients.work(name), LONG_S) for name in ("a", "b")]  # type: ignore[misc]

    assert told == ["a", "b"]
    assert (clients.opened, clients.closed) == (1, 0)


def test_what_work_raises_comes_out_and_the_clients_stay(clients: Clients, make: Make) -> None:
    loop = make()

    async def fail(clients: Clients) -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        loop.call(fail, LONG_S)

    assert loop.call(lambda clients: clients.work("after"), LONG_S) == "after"


def test_clients_that_cannot_be_opened_are_stopped_and_everybody_hears_why(clients: Clients, make: Make) -> None:
    clients.fails = OSError("nobody there")
    loop = make()

    for _ in range(3):
        with pytest.raises(OSError, match="nobody there"):
            loop.call(lambda clients: clients.work("never"), LONG_S)
        eventually(lambda: loop.ended)

    assert (clients.opened, clients.closed, clients.done) == (0, 1, [])


def test_waiting_ends_with_the_bound_while_clients_are_still_being_opened(clients: Clients, make: Make) -> None:
    clients.hangs = True
    loop = make()
    began = time.monotonic()

    with pytest.raises(TimeoutError):
        loop.call(lambda clients: clients.work("never"), 0.05)
    loop.close()

    assert loop.ended
    assert clients.done == []
    assert time.monotonic() - began < LONG_S / 2


def test_what_is_not_done_at_the_close_is_never_done(clients: Clients, make: Make) -> None:
    loop = make()
    loop.call(lambda clients: clients.work("before"), LONG_S)
    late = loop.cast(lambda clients: clients.work("late", 0.1))

    loop.close()
    loop.close()

    assert isinstance(late.exception(LONG_S), LoopEnded)
    assert isinstance(loop.cast(lambda clients: clients.work("after")).exception(LONG_S), LoopEnded)
    assert not any(thread.name == "tidegate-test" for thread in threading.enumerate())
    assert (clients.done, clients.closed) == (["before"], 1)


def test_what_is_cast_in_the_last_turn_of_the_loop_is_told_and_leaves_nothing_behind(clients: Clients, make: Make) -> None:
    loop = make()
    loop.call(lambda clients: clients.work("before"), LONG_S)
    cast: list[Future[str]] = []
    leave = loop._loop.shutdown_asyncgens  # the last thing that the loop does

    async def cast_and_leave() -> None:
        await leave()
        cast.append(loop.cast(lambda clients: clients.work("too late")))

    loop._loop.shutdown_asyncgens = cast_and_leave  # type: ignore[method-assign]
    loop.close()

    assert isinstance(cast[0].exception(LONG_S), LoopEnded)
    assert loop._jobs == set()  # a task that nobody steps is a coroutine never awaited


def test_last_words_are_said_when_everything_else_has_ended(clients: Clients, make: Make) -> None:
    loop = make()
    waiting = loop.cast(lambda clients: clients.work("waiting", LONG_S))
    loop.call(lambda clients: clients.work("before"), LONG_S)

    async def goodbye(clients: Clients) -> None:
        await clients.work("goodbye")

    loop.close(goodbye, LONG_S)

    assert isinstance(waiting.exception(LONG_S), LoopEnded)
    assert clients.done == ["before", "goodbye"]


@pytest.mark.parametrize("how", ["hang", "fail"])
def test_last_words_that_nobody_takes_hold_nobody_up(clients: Clients, make: Make, how: str) -> None:
    loop = make()
    loop.call(lambda clients: clients.work("before"), LONG_S)
    began = time.monotonic()

    async def goodbye(clients: Clients) -> None:
        if how == "fail":
            raise OSError
        await asyncio.sleep(LONG_S)

    loop.close(goodbye, 0.05)

    assert loop.ended
    assert clients.closed == 1
    assert time.monotonic() - began < LONG_S / 2


# --- what aiokafka logs


def test_what_aiokafka_says_in_our_thread_is_kept_as_the_reason_and_out_of_the_log(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    loop = make()
    theirs = logging.getLogger("aiokafka")

    async def complain(clients: Clients) -> None:
        theirs.error("Unable connect to %s: %s", "broker", ConnectionRefusedError("refused"))
        raise TimeoutError

    with caplog.at_level(logging.INFO):
        with contextlib.suppress(TimeoutError):
            loop.call(complain, LONG_S)
        theirs.error("of the service's own client")

    assert isinstance(loop.trouble, ConnectionRefusedError)
    assert caplog.messages == ["of the service's own client"]


def test_at_debug_all_of_it_is_shown(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    loop = make()

    async def complain(clients: Clients) -> None:
        logging.getLogger("aiokafka").error("Unable to do it")

    with caplog.at_level(logging.DEBUG):
        loop.call(complain, LONG_S)

    assert "Unable to do it" in caplog.messages


# --- names


def test_a_name_is_looked_up_in_a_thread_that_nobody_waits_for() -> None:
    # A resolver that hangs, as they do for half a minute when the network is away.
    program = """if True:
        import socket, threading
        from tidegate.producers import kafka_log
        from tidegate.schemas.envelope import Envelope
        from tidegate.schemas.errors import LogUnavailable
        from tidegate.schemas.settings import Settings
        kafka_log._APPEND_TIMEOUT_S = 0.2
        asked = threading.Event()
        def resolver(*args):
            asked.set()
            threading.Event().wait()
        socket.getaddrinfo = resolver
        log = kafka_log.KafkaLog(Settings(url="kafka://broker.example:9092"))
        try:
            log.append([Envelope.of("p", 0, [b"{}"])])
        except LogUnavailable as error:
            assert asked.is_set()
            print(error)
    """

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.strip() == "Kafka at broker.example:9092 does not answer in time"
    assert done.stderr == ""


def test_names_are_resolved_as_the_system_does(make: Make) -> None:
    loop = make()

    async def look_up(clients: Clients) -> Any:
        return await asyncio.get_running_loop().getaddrinfo("localhost", 9092, type=socket.SOCK_STREAM)

    assert loop.call(look_up, LONG_S) == socket.getaddrinfo("localhost", 9092, type=socket.SOCK_STREAM)


# --- fork


def test_the_child_of_a_fork_leaves_the_parents_loop_running(clients: Clients, make: Make) -> None:
    loop = make()
    loop.call(lambda clients: clients.work("before"), LONG_S)

    if (pid := os.fork()) == 0:
        del loop
        os._exit(0)
    os.waitpid(pid, 0)

    assert loop.call(lambda clients: clients.work("after"), LONG_S) == "after"


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)
