"""Services that send to Kafka: nothing is lost or out of order, through brokers that go and processes that die or fork."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from kafka_broker import needs_broker
from kafka_side import KafkaSide, envelope_of
from signalling import policy, policy_record, signal_record
from support import envelope, response
from tidegate.bench.kafka.broker import Broker
from tidegate.producers import kafka_log, kafka_signals
from tidegate.producers.connect import connect
from tidegate.producers.kafka_log import KafkaLog
from tidegate.producers.kafka_signals import KafkaSignals
from tidegate.producers.ports import Position
from tidegate.producers.signals import START
from tidegate.schemas.envelope import Envelope
from tidegate.schemas.errors import EnvelopeRefused, LogUnavailable
from tidegate.schemas.policy import PolicySet
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import CALLS, GATES, SIGNALS

pytestmark = [pytest.mark.slow, needs_broker]

# A broker comes back in fifteen seconds, and a producer tries again within as many; a busy machine takes its time.
DEADLINE_S = 90.0


def until(condition: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def counted(envelopes: list[Envelope]) -> dict[str, list[str]]:
    """The call ids of each producer as a meter counts them: what it has seen it skips. Fails on a gap."""
    found: dict[str, list[str]] = {}
    for each in envelopes:
        events = found.setdefault(each.producer, [])
        assert each.seq <= len(events), f"a gap before number {each.seq}"
        events.extend(orjson.loads(line)["call_id"] for line in each.lines()[len(events) - each.seq :])
    return found


def names(count: int) -> list[str]:
    return [str(number) for number in range(count)]


@pytest.fixture
def side(kafka_url: str) -> KafkaSide:
    made = KafkaSide(kafka_url, partitions=3)
    made.make_topics()
    return made


# --- what a record is


def test_what_a_service_emits_is_on_kafka_as_envelopes_of_its_producer(side: KafkaSide, tmp_path: Path) -> None:
    placed: list[Position | None] = []

    class Waiting:
        def placed(self, position: Position | None) -> None:
            placed.append(position)

    with connect(side.url, producer_id="triage-1", spool_dir=tmp_path) as tide:
        tide.emit(response("first"), Waiting())
        assert tide.flush()
        for number in range(2_000):
            tide.emit(response(str(number)))
        assert tide.flush()
        stats = tide.stats()

    records = side.read(CALLS)
    assert counted([envelope_of(record) for record in records]) == {"triage-1": ["first", *names(2_000)]}
    assert {record.key for record in records} == {b"triage-1"}
    assert [dict(record.headers) for record in records[:1]] == [
        {"schema": b"calls/1", "producer": b"triage-1", "seq": b"0", "count": b"1"}
    ]
    assert placed == [Position(records[0].partition, 0)]
    assert (stats.appended, stats.dropped.total(), list(tmp_path.iterdir())) == (2_001, 0, [])


def test_a_producer_stays_in_its_partition_when_some_are_added(side: KafkaSide) -> None:
    log = KafkaLog(Settings(url=side.url))
    before = log.append([envelope(f"triage-{number}", 0, [response()]) for number in range(10)])

    side.add_partitions(11)
    log.close()
    after = log.append([envelope(f"triage-{number}", 1, [response()]) for number in range(10)])
    log.close()
    # Another process begins with all of them.
    log = KafkaLog(Settings(url=side.url))
    others = log.append([envelope(f"intake-{number}", 0, [response()]) for number in range(40)])
    log.close()

    assert [told and told.partition for told in after] == [told and told.partition for told in before]
    assert any(told is not None and told.partition >= 3 for told in others)


def test_what_is_too_large_for_the_topic_is_refused_and_nothing_overtakes_it(side: KafkaSide) -> None:
    side.configure(CALLS, {"max.message.bytes": "20000"})
    log = KafkaLog(Settings(url=side.url))
    noise = random.Random(5).randbytes(150_000).hex().encode()
    # A batch of its own each: the first is too large though packed, the second is not.
    sent = [Envelope.of("triage-1", 0, [noise]), Envelope.of("triage-1", 1, [b"x" * 900_000])]
    until(lambda: refuses(log, [Envelope.of("probe", 0, [noise])]))  # the setting takes a moment

    together = refuses(log, sent)
    between = [each for each in side.envelopes() if each.producer == "triage-1"]
    log.append(sent[1:])
    log.close()

    assert "`tidegate topics check` says what its limit should be" in together
    assert between == []
    assert [each for each in side.envelopes() if each.producer == "triage-1"] == sent[1:]


def refuses(log: KafkaLog, envelopes: list[Envelope]) -> str:
    try:
        log.append(envelopes)
    except EnvelopeRefused as error:
        return str(error)
    return ""


# --- gates


def test_a_gate_follows_policies_over_kafka_and_says_that_it_is_there(side: KafkaSide, tmp_path: Path) -> None:
    budget = policy_record(PolicySet(policies=(policy("budget"),)))
    side.write(SIGNALS, [budget, signal_record("budget", 10, sequence=1, at=time.time())])

    with connect(side.url, spool_dir=tmp_path) as tide:
        gate = tide.gate
        assert gate is not None
        gate.follow()
        until(lambda: gate.stats()["heard"])
        open_at_first = gate.check({"model": "gpt-4o"}).allowed
        side.write(SIGNALS, [signal_record("budget", 2_000, sequence=2, at=time.time(), state="block")])
        until(lambda: not gate.check({"model": "gpt-4o"}).allowed)
        until(lambda: gate.id.encode() in {record.key for record in side.read(GATES)})

    last = side.read(GATES)[-1]
    assert open_at_first
    assert (last.key, last.value) == (gate.id.encode(), None)


# --- brokers that go and come back


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that tests stop, on a port that it has again afterwards: no client takes one of those by itself."""
    with Broker(tmp_path_factory.mktemp("own-kafka"), port=_fixed_port()) as broker:
        yield broker


def _fixed_port() -> int:
    for port in random.Random(os.getpid()).sample(range(20_000, 30_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


@pytest.fixture
def own_side(own_broker: Broker) -> KafkaSide:
    if not own_broker.running:
        own_broker.start()
    made = KafkaSide(f"kafka://{own_broker.bootstrap}/test-{random.randbytes(6).hex()}", partitions=3)
    made.make_topics()
    return made


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_broker_that_goes_and_comes_back_under_load_costs_nothing(
    own_broker: Broker, own_side: KafkaSide, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    done = threading.Event()
    emitted: dict[str, int] = {}
    with (
        connect(own_side.url, producer_id="triage-1", spool_dir=tmp_path / "spool", gate=False) as one,
        connect(own_side.url, producer_id="intake-1", spool_dir=tmp_path / "spool", gate=False) as other,
    ):

        def load(tide: Any) -> None:
            number = 0
            while not done.is_set():
                assert tide.emit(response(str(number)))
                number += 1
                time.sleep(0.001)
            emitted[tide.producer] = number

        threads = [threading.Thread(target=load, args=(tide,)) for tide in (one, other)]
        for thread in threads:
            thread.start()
        until(lambda: one.stats().appended > 100 and other.stats().appended > 100)
        getattr(own_broker, how)()
        until(lambda: one.stats().spooled > 100 and other.stats().spooled > 100)
        own_broker.start()
        until(lambda: one.flush(1) and other.flush(1))
        done.set()
        for thread in threads:
            thread.join()
        assert one.flush(DEADLINE_S)
        assert other.flush(DEADLINE_S)
        dropped = one.stats().dropped + other.stats().dropped

    assert dropped.total() == 0
    assert counted(own_side.envelopes()) == {producer: names(count) for producer, count in emitted.items()}
    assert [record.name for record in caplog.records] == ["tidegate", "tidegate"]
    assert all("log_unavailable error=Kafka at 127.0.0.1" in message for message in caplog.messages)


def test_a_gate_hears_again_when_the_broker_is_back(own_broker: Broker, own_side: KafkaSide, tmp_path: Path) -> None:
    own_side.write(SIGNALS, [policy_record(PolicySet(policies=(policy("budget"),)))])
    with connect(own_side.url, spool_dir=tmp_path) as tide:
        gate = tide.gate
        assert gate is not None
        gate.follow()
        until(lambda: gate.stats()["heard"])

        own_broker.stop()
        own_broker.start()
        own_side.write(SIGNALS, [signal_record("budget", 2_000, sequence=1, at=time.time(), state="block")])

        until(lambda: not gate.check({"model": "gpt-4o"}).allowed)


def test_a_broker_that_freezes_is_left_within_the_bound_and_what_it_had_taken_in_disturbs_nothing(
    own_broker: Broker, own_side: KafkaSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = KafkaLog(Settings(url=own_side.url))
    # Batches of two each.
    sent = [Envelope.of("triage-1", seq, [orjson.dumps(response(str(seq), note="x" * 450_000))]) for seq in range(6)]
    log.append(sent[:1])

    with frozen(own_broker), monkeypatch.context() as patience:
        patience.setattr(kafka_log, "_APPEND_TIMEOUT_S", 1.0)
        for _ in range(2):
            with pytest.raises(LogUnavailable, match="does not answer in time"):
                log.append(sent[1:5])
    until(lambda: takes(log, sent[1:5]))
    assert takes(log, sent[5:])
    log.close()

    assert counted(own_side.envelopes()) == {"triage-1": names(6)}


def test_signals_of_a_broker_that_freezes_are_said_to_be_out_of_reach_and_heard_again_later(
    own_broker: Broker, own_side: KafkaSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_signals, "_SILENCE_S", 1.0)
    own_side.write(SIGNALS, [(b"a", b"1")])
    ear = KafkaSignals(Settings(url=own_side.url))
    heard = ear.poll(START, 0.0)

    with frozen(own_broker), pytest.raises(LogUnavailable, match="does not answer in time"):
        ear.poll(heard[1], DEADLINE_S)
    own_side.write(SIGNALS, [(b"a", b"2")])
    news: list[Any] = []
    until(lambda: news.extend(polled(ear, heard[1])) or news)
    ear.close()

    assert heard == ([(b"a", b"1")], 0)
    assert news == [(b"a", b"2")]


@contextmanager
def frozen(broker: Broker) -> Iterator[None]:
    """The system takes its connections and bytes as ever; it does nothing."""
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(broker.pid, signal.SIGCONT)


def takes(log: KafkaLog, envelopes: list[Envelope]) -> bool:
    try:
        log.append(envelopes)
    except LogUnavailable:
        return False
    return True


def polled(ear: KafkaSignals, after: int) -> list[Any]:
    try:
        return list(ear.poll(after, 1.0)[0])
    except LogUnavailable:
        return []


# --- processes that end

PRELUDE = """
import os, sys, threading, time
from pathlib import Path
import tidegate

def event(name):
    return {"event": "response", "call_id": str(name), "started_at": "2026-11-02T08:00:00Z", "request_model": "m"}

def make(**settings):
    return tidegate.connect(sys.argv[1], spool_dir=Path(sys.argv[2]), **settings)

def say(word):
    print(word, flush=True)
"""


class Services:
    """Programs of a service, with a spool for all of them."""

    def __init__(self, spool: Path) -> None:
        self.spool = spool
        self.running: list[subprocess.Popen[str]] = []

    def start(self, url: str, program: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(program), url, str(self.spool)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(process)
        return process

    def run(self, url: str, program: str) -> str:
        """To its end, which must be a good one; what it printed."""
        process = self.start(url, program)
        out, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, err
        assert "Traceback" not in err, err
        assert "Warning" not in err, err
        return out

    def heard(self, process: subprocess.Popen[str], word: str) -> None:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        assert line == word, line + (process.communicate()[1] if process.poll() is not None else "")


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = Services(tmp_path / "spool")
    yield made
    for process in made.running:
        process.kill()
        process.communicate()


def test_the_end_of_the_program_sends_what_is_left_and_says_goodbye(side: KafkaSide, services: Services) -> None:
    services.run(
        side.url,
        """
        tide = make(linger_s=5)
        tide.gate.follow()
        while not tide.gate._answered.is_set():
            time.sleep(0.005)
        for n in range(3_000):
            tide.emit(event(n))
        """,
    )

    assert list(counted(side.envelopes()).values()) == [names(3_000)]
    assert [record.value for record in side.read(GATES)][-1] is None


def test_sigterm_sends_what_is_left_says_goodbye_and_keeps_the_status(side: KafkaSide, services: Services) -> None:
    process = services.start(
        side.url,
        """
        tide = make(linger_s=5)
        tide.gate.follow()
        while not tide.gate._answered.is_set():
            time.sleep(0.005)
        for n in range(2_000):
            tide.emit(event(n))
        say("ready")
        time.sleep(600)
        """,
    )
    services.heard(process, "ready")

    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=DEADLINE_S)

    assert process.returncode == -signal.SIGTERM
    assert list(counted(side.envelopes()).values()) == [names(2_000)]
    assert [record.value for record in side.read(GATES)][-1] is None


def test_the_end_of_the_program_does_not_wait_for_brokers_that_say_nothing(services: Services) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=50) as deaf:
        began = time.monotonic()

        services.run(
            f"kafka://127.0.0.1:{deaf.getsockname()[1]}",
            """
            tide = make(flush_timeout_s=0.2)
            tide.gate.follow()
            tide.emit(event(0))
            time.sleep(0.5)  # both are connecting
            """,
        )

    assert time.monotonic() - began < DEADLINE_S / 2
    assert len(list(services.spool.iterdir())) == 1


def test_a_process_killed_while_the_broker_was_away_is_heard_through_the_next(
    own_broker: Broker, own_side: KafkaSide, services: Services
) -> None:
    own_broker.stop()
    casualty = services.start(
        own_side.url,
        """
        tide = make(linger_s=0)
        for n in range(5_000):
            tide.wait_for_room()
            tide.emit(event(n))
        while tide.stats().spooled < 5_000:
            time.sleep(0.005)
        say("spooled")
        time.sleep(600)
        """,
    )
    services.heard(casualty, "spooled")
    casualty.kill()
    casualty.communicate()
    own_broker.start()

    services.run(own_side.url, "tide = make(); tide.emit(event('heir')); assert tide.flush(60)")

    assert casualty.returncode == -signal.SIGKILL
    assert sorted(counted(own_side.envelopes()).values()) == [names(5_000), ["heir"]]
    assert list(services.spool.iterdir()) == []


def test_killing_a_process_in_the_middle_of_sending_leaves_no_gap(side: KafkaSide, services: Services) -> None:
    for _ in range(3):
        process = services.start(
            side.url,
            """
            tide = make(linger_s=0)
            n = 0
            while True:
                tide.wait_for_room()
                tide.emit(event(n))
                n += 1
                if n == 3_000:
                    say("busy")
            """,
        )
        services.heard(process, "busy")
        process.kill()
        process.communicate()

    found = counted(side.envelopes())

    assert all(events == names(len(events)) for events in found.values())


def test_children_of_a_fork_send_for_themselves_and_leave_their_parents_connections_alone(
    side: KafkaSide, services: Services
) -> None:
    services.run(
        side.url,
        """
        tide = make()
        tide.gate.follow()
        tide.emit(event("parent-0"))
        assert tide.flush(30)
        loop, ear = tide._log._loop, tide.gate._source._loop
        for n in range(3):
            pid = os.fork()
            if pid == 0:
                tide.emit(event(f"child-{n}"))
                assert tide.gate.check({"model": "m"}).allowed
                sys.exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            tide.emit(event(f"parent-{n + 1}"))
            assert tide.flush(30)
        assert tide._log._loop is loop and not loop.ended
        assert tide.gate._source._loop is ear and not ear.ended
        """,
    )

    assert sorted(counted(side.envelopes()).values()) == [
        *([f"child-{number}"] for number in range(3)),
        [f"parent-{number}" for number in range(4)],
    ]
