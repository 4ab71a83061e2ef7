"""The Kafka log without a broker: what is said when there is none, and what only a kafka:// address brings in."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("aiokafka", reason="the log's client")

from aiokafka import errors
from tidegate.producers import kafka_log, kafka_loop
from tidegate.producers.connect import connect, default_spool_dir
from tidegate.producers.kafka_log import KafkaLog
from tidegate.producers.kafka_trouble import translated
from tidegate.schemas.envelope import Envelope
from tidegate.schemas.errors import EnvelopeRefused, LogUnavailable, UsageError
from tidegate.schemas.settings import Settings

ENVELOPE = Envelope.of("py-1", 0, [b"{}"])
# What should end at once ends long before this.
LONG_S = 20.0


@pytest.fixture
def listen() -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """Serves each connection as told, in a thread; gives the address to connect to."""
    servers: list[socket.socket] = []
    accepted: list[socket.socket] = []

    def listen(serve: Callable[[socket.socket], None]) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                accepted.append(connection)
                serve(connection)

        threading.Thread(target=accept, daemon=True).start()
        return f"kafka://127.0.0.1:{server.getsockname()[1]}"

    yield listen
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
    for each in (*servers, *accepted):
        each.close()


def test_brokers_that_are_away_are_unavailable_at_once_and_the_reason_is_said() -> None:
    log = KafkaLog(Settings(url="kafka://127.0.0.1:9"))

    for _ in range(2):
        with pytest.raises(LogUnavailable, match=r"Kafka at 127.0.0.1:9 cannot be reached \(ConnectionRefusedError\): check"):
            log.append([ENVELOPE])

    assert not any("kafka" in thread.name for thread in threading.enumerate())


def test_a_broker_that_says_nothing_is_waited_for_within_the_bound(
    listen: Callable[[Callable[[socket.socket], None]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_log, "_APPEND_TIMEOUT_S", 0.2)
    log = KafkaLog(Settings(url=listen(lambda connection: None)))
    began = time.monotonic()

    with pytest.raises(LogUnavailable, match="does not answer in time"):
        log.append([ENVELOPE])

    assert time.monotonic() - began < LONG_S / 2
    assert not any("kafka" in thread.name for thread in threading.enumerate())


def test_of_several_brokers_one_that_says_nothing_is_given_up_for_the_next(
    listen: Callable[[Callable[[socket.socket], None]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_log, "REQUEST_TIMEOUT_S", 0.1)
    asked = threading.Event()
    deaf = listen(lambda connection: None)
    second = listen(lambda connection: (asked.set(), connection.close())[1])
    log = KafkaLog(Settings(url=f"{deaf},{second.removeprefix('kafka://')}"))

    with pytest.raises(LogUnavailable):
        log.append([ENVELOPE])

    assert asked.is_set()


def test_something_else_that_hangs_up_is_said_to_be_no_broker(
    listen: Callable[[Callable[[socket.socket], None]], str],
) -> None:
    log = KafkaLog(Settings(url=listen(lambda connection: connection.close())))

    with pytest.raises(
        LogUnavailable, match=r"cannot be reached .*: check that it runs .* TIDEGATE_URL, TIDEGATE_KAFKA_SECURITY"
    ):
        log.append([ENVELOPE])


def test_a_name_that_nobody_knows_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*args: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(kafka_loop.socket, "getaddrinfo", nobody)
    log = KafkaLog(Settings(url="kafka://brooker:9092"))

    with pytest.raises(LogUnavailable, match="cannot be found by that name: check TIDEGATE_URL"):
        log.append([ENVELOPE])


@pytest.mark.parametrize(
    ("error", "said", "retry_after_s"),
    [
        (errors.UnknownTopicOrPartitionError(), "run `tidegate topics create`", None),
        (errors.TopicAuthorizationFailedError("t"), "`tidegate topics acls` prints what it needs", 30),
        (errors.ClusterAuthorizationFailedError(), "`tidegate topics acls` prints what it needs", 30),
        (errors.SaslAuthenticationFailed("no"), "TIDEGATE_KAFKA_USERNAME and TIDEGATE_KAFKA_PASSWORD", 30),
        (errors.UnsupportedSaslMechanismError("no"), "TIDEGATE_KAFKA_SASL_MECHANISM", 30),
        (ssl.SSLCertVerificationError("no"), "TIDEGATE_KAFKA_CA_FILE", 30),
        (errors.UnsupportedCodecError("zstd"), "pip install", 30),
        (errors.NotEnoughReplicasError(), "min.insync.replicas", None),
        (errors.NotLeaderForPartitionError(), "choosing a leader", None),
        (errors.RequestTimedOutError(), "does not answer in time", None),
        (TimeoutError(), "does not answer in time", None),
        (ConnectionResetError(), r"cannot be reached \(ConnectionResetError\)", None),
        (errors.OutOfOrderSequenceNumber(), "said OutOfOrderSequenceNumber", None),
    ],
)
def test_every_error_says_what_to_do(error: Exception, said: str, retry_after_s: float | None) -> None:
    found = translated(error, "broker:9092", "tidegate.calls")

    assert isinstance(found, LogUnavailable)
    assert found.retry_after_s == retry_after_s
    with pytest.raises(LogUnavailable, match=said):
        raise found


@pytest.mark.parametrize("error", [errors.MessageSizeTooLargeError(), errors.RecordListTooLargeError()])
def test_what_is_too_large_will_never_be_taken(error: Exception) -> None:
    assert isinstance(translated(error, "broker:9092", "tidegate.calls"), EnvelopeRefused)


def test_connecting_to_kafka_opens_nothing_and_spools_under_the_user_s_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    threads = threading.active_count()

    with connect("kafka://broker:9092,other:9092/space") as tide:
        assert tide.settings.spool_dir == default_spool_dir() == tmp_path / "tidegate" / "spool"
        assert threading.active_count() == threads

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "settings", "said"),
    [
        ("kafka://", {}, "must look like kafka://broker:9092"),
        ("kafka://user:secret@broker", {}, "TIDEGATE_KAFKA_USERNAME"),
        ("kafka://broker/a b", {}, "namespace"),
        ("kafka://broker", {"kafka_security": "SASL_SSL"}, "TIDEGATE_KAFKA_USERNAME and TIDEGATE_KAFKA_PASSWORD"),
        ("kafka://broker", {"kafka_security": "SSL", "kafka_ca_file": "/nowhere"}, "TIDEGATE_KAFKA_CA_FILE"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_sent(url: str, settings: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        connect(url, **settings)


def test_without_aiokafka_the_command_that_brings_it_is_said(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        sys.modules["aiokafka"] = None
        try:
            connect("kafka://broker:9092")
        except UsageError as error:
            print(error)
    """,
    )

    assert "pip install 'tidegate[kafka]'" in done


def test_aiokafka_is_loaded_for_kafka_only(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        f"""
        tide = connect({str(tmp_path / "data")!r})
        print("aiokafka" in sys.modules)
        tide = connect("http://node:8400")
        print("aiokafka" in sys.modules)
        tide = connect("kafka://broker:9092")
        print("aiokafka" in sys.modules)
    """,
    )

    assert done.split() == ["False", "False", "True"]


def run(state: Path, program: str) -> str:
    """What a program prints; its spools are its own."""
    prelude = "if True:\n        import sys\n        from tidegate import UsageError, connect\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", prelude + program],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=os.environ | {"XDG_STATE_HOME": str(state)},
    )
    assert done.stderr == ""
    return done.stdout
