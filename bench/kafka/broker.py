"""A one-node KRaft Kafka of one's own: fetched once, started on free loopback ports, gone at the end of the block.

    with Broker(folder) as broker:
        AIOKafkaProducer(bootstrap_servers=broker.bootstrap)

    pom.xml ──mvn, once──► cached jars ──java StorageTool format──► folder/data ──java kafka.Kafka──► ready

Jars are kept in TIDEGATE_KAFKA_CACHE, else $XDG_CACHE_HOME/tidegate/kafka, else ~/.cache/tidegate/kafka. The folder
outlives the broker: starting again on it finds what was acknowledged.

    python -m bench.kafka.broker [folder]      one in the foreground; Ctrl-C stops it
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Final, Self

POM: Final = Path(__file__).with_name("pom.xml")
JAVA_AT_LEAST: Final = 17

# Ten seconds on an idle machine, fourteen after a kill; a busy machine with few cores takes several times that.
_START_TIMEOUT_S: Final = 90.0
# 44 MB, some 20 s on a good line.
_FETCH_TIMEOUT_S: Final = 600.0
_FORMAT_TIMEOUT_S: Final = 60.0
# An orderly stop writes the clean-shutdown mark; it takes a second or two.
_STOP_TIMEOUT_S: Final = 20.0
_HEAP: Final = "768m"
_READY: Final = "Kafka Server started"

_LOG4J: Final = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
logger.ready.name = kafka.server.KafkaRaftServer
logger.ready.level = info
# A client that closes its socket is no news.
logger.selector.name = org.apache.kafka.common.network
logger.selector.level = error
"""


class BrokerUnavailable(Exception):
    """No broker can be had here; the message says what is missing, or what the broker said last."""


def cache_dir() -> Path:
    """Where the jars are kept between runs."""
    if own := os.environ.get("TIDEGATE_KAFKA_CACHE"):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "tidegate" / "kafka"


def fetch_jars(cache: Path | None = None) -> Path:
    """The folder with the broker's jars, fetched with Maven when it is not there yet. Raises `BrokerUnavailable`.

    The folder is named for the pom, and appears whole: a fetch that was cut off leaves nothing that looks complete.
    """
    root = cache if cache is not None else cache_dir()
    jars = root / f"jars-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"
    if jars.is_dir():
        return jars
    mvn = _program("mvn", "Apache Maven", "it fetches the broker's jars the first time")
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix="fetching-") as draft:
        shutil.copy(POM, Path(draft) / "pom.xml")
        fetched = Path(draft) / "libs"
        _run(
            [mvn, "-q", "-B", "-f", f"{draft}/pom.xml", "dependency:copy-dependencies", f"-DoutputDirectory={fetched}"],
            "mvn could not fetch the broker's jars",
            _FETCH_TIMEOUT_S,
        )
        if not any(fetched.glob("kafka_*.jar")):
            raise BrokerUnavailable("mvn ended well but fetched no broker; look at bench/kafka/pom.xml")
        try:
            fetched.rename(jars)
        except OSError:
            if not jars.is_dir():  # otherwise another process was faster, with the same jars
                raise
    return jars


class Broker:
    """One broker on one folder, between `start` and `stop` (or in a `with` block). Not thread-safe.

    `bootstrap` is its address once started. Every topic must be created; nothing is replicated.
    """

    def __init__(self, folder: Path, *, port: int = 0, start_timeout_s: float = _START_TIMEOUT_S) -> None:
        self.folder = folder
        self.bootstrap = ""
        self.pid: int | None = None
        self._port = port
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def log_path(self) -> Path:
        return self.folder / "broker.log"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it and wait until it takes connections. Raises `BrokerUnavailable` with the log's end when it does not."""
        if self._process is not None:
            raise ValueError("this broker is running")
        java = _java()
        jars = fetch_jars()
        self.folder.mkdir(parents=True, exist_ok=True)
        log4j = self.folder / "log4j2.properties"
        log4j.write_text(_LOG4J)
        options = [f"-Dlog4j2.configurationFile={log4j}", "-cp", f"{jars}/*"]
        broker_port, controller_port = _free_ports(2)
        broker_port = self._port or broker_port
        config = self.folder / "server.properties"
        config.write_text(_properties(self.folder / "data", broker_port, controller_port))
        _run(
            [
                *(java, *options, "kafka.tools.StorageTool", "format", "--cluster-id", _cluster_id(self.folder)),
                *("--config", str(config), "--ignore-formatted"),
            ],
            "the broker's data folder could not be formatted",
            _FORMAT_TIMEOUT_S,
        )
        self._log = self.log_path.open("wb")
        # A session of its own: Ctrl-C reaches us, and we stop it in order.
        self._process = subprocess.Popen(
            [java, f"-Xmx{_HEAP}", *options, "kafka.Kafka", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.pid = self._process.pid
        try:
            self._wait_until_ready(broker_port)
        except BaseException:
            self.stop()
            raise
        self.bootstrap = f"127.0.0.1:{broker_port}"
        return self

    def _wait_until_ready(self, port: int) -> None:
        process = self._process
        deadline = time.monotonic() + self._start_timeout_s
        while process is not None:
            if process.poll() is not None:
                raise BrokerUnavailable(f"the broker ended with status {process.returncode}{self._tail()}")
            if _READY in self.log_path.read_text(errors="replace") and _answers(port):
                return
            if time.monotonic() >= deadline:
                raise BrokerUnavailable(f"the broker was not ready after {self._start_timeout_s:g} s{self._tail()}")
            time.sleep(0.1)

    def _tail(self) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines()[-20:]
        return "; its log ends:\n" + "\n".join(lines) if lines else "; its log is empty"

    def stop(self) -> None:
        """End it by its process id: SIGTERM, and SIGKILL when it does not listen. Idempotent."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """`kill -9`, for tests of what survives. `start` brings it back on another port."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process, self._process, self.pid = self._process, None, None
        if process is not None:
            process.send_signal(how)  # does nothing when it has already ended
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._log is not None:
            self._log.close()
            self._log = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _program(name: str, product: str, why: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise BrokerUnavailable(f"{name} is not on PATH: install {product}; {why}")
    return found


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    if home and (Path(home) / "bin" / "java").is_file():
        return str(Path(home) / "bin" / "java")
    return _program("java", f"a Java {JAVA_AT_LEAST} runtime (or set JAVA_HOME)", "the broker runs on it")


def _run(command: list[str], problem: str, timeout_s: float) -> None:
    try:
        subprocess.run(
            command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_s
        )
    except subprocess.CalledProcessError as error:
        said = "\n".join(error.output.decode(errors="replace").splitlines()[-20:])
        raise BrokerUnavailable(f"{problem} (status {error.returncode}):\n{said}") from None
    except subprocess.TimeoutExpired:
        raise BrokerUnavailable(f"{problem}: not done after {timeout_s:g} s") from None


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago; all held until the last is found, so that no two are the same."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _answers(port: int) -> bool:
    try:
        # A second is an age on loopback.
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False


def _cluster_id(folder: Path) -> str:
    """Stays with the folder: a formatted one refuses any other."""
    file = folder / "cluster-id"
    if not file.exists():
        new = "-"
        while new.startswith("-"):  # the tool would take it for an option
            new = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        file.write_text(new)
    return file.read_text()


def _properties(data: Path, port: int, controller_port: int) -> str:
    return "\n".join(
        (
            "process.roles=broker,controller",
            "node.id=1",
            f"controller.quorum.voters=1@127.0.0.1:{controller_port}",
            f"listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{port}",
            "controller.listener.names=CONTROLLER",
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            f"log.dirs={data}",
            "auto.create.topics.enable=false",
            "group.initial.rebalance.delay.ms=0",
            # The default of six seconds is a long time for a test that kills a worker thirty times.
            "group.min.session.timeout.ms=1000",
            # As `tidegate topics check` wants it: no reader forgets its place for as long as any topic keeps its records.
            "offsets.retention.minutes=44640",
            # One node: every internal topic has one replica, and few partitions to start quickly.
            "offsets.topic.replication.factor=1",
            "offsets.topic.num.partitions=4",
            "transaction.state.log.replication.factor=1",
            "transaction.state.log.min.isr=1",
            "transaction.state.log.num.partitions=4",
            "share.coordinator.state.topic.replication.factor=1",
            "share.coordinator.state.topic.min.isr=1",
            "share.coordinator.state.topic.num.partitions=4",
            # The default of 128 MB is for a machine that does nothing else.
            "log.cleaner.dedupe.buffer.size=16777216",
            "",
        )
    )


def main(folder: Path | None = None) -> None:
    """Run one in the foreground until Ctrl-C or SIGTERM; prints the bootstrap address on standard output."""
    stopped: list[int] = []  # no Event: its lock may be held by the very wait that the signal interrupts
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: stopped.append(number))
    with tempfile.TemporaryDirectory(prefix="tidegate-kafka-") as scratch:
        try:
            with Broker(folder or Path(scratch)) as broker:
                print(broker.bootstrap, flush=True)
                while not stopped:
                    time.sleep(0.2)
                    if not broker.running:
                        raise BrokerUnavailable(f"the broker has ended by itself; see {broker.log_path}")
        except BrokerUnavailable as error:
            sys.exit(f"no broker: {error}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
