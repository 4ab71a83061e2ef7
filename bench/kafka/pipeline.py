"""The whole pipeline on Kafka, on this machine, in one command: `make up-kafka`.

    simulated traffic ─► Kafka (one broker) ─► meter ─► policies          each a process, begun again when it ends
                                         ├──────► guardrails              where their extra is installed
                                         └──────► node: sink, chDB, console at http://127.0.0.1:8400

    python -m bench.kafka.pipeline [folder] [--rate CALLS_A_SECOND] [--port PORT] [--partitions N]

Everything is kept in the folder, ./tidegate-kafka unless told otherwise, and the next start carries on with it: `broker/` is
Kafka's, `node/` the store, `keys.json` the ring that texts are sealed with, unless TIDEGATE_KEY_* names another, and what each
process says is in `*.log`. Ctrl-C stops all of it in order.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import structlog
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text
from tidegate.bench.kafka.broker import Broker, BrokerUnavailable, fetch_jars
from tidegate.bench.kafka.parts import Part, Watched, Worker
from tidegate.cli import open_node
from tidegate.dashboards.terminal import plain, summary
from tidegate.processors.distributed.topics import create_topics
from tidegate.processors.embedded.node import Node
from tidegate.processors.guardrails.runtime import require_extra
from tidegate.producers.connect import connect
from tidegate.producers.key_source import key_source
from tidegate.producers.ring_file import change_ring
from tidegate.producers.simulate import simulate
from tidegate.running import Stopping
from tidegate.schemas.errors import TidegateError, UsageError
from tidegate.schemas.settings import Settings

POLICIES: Final = Path(__file__).parents[2] / "docs" / "examples" / "policies.yaml"
# Kafka's own port, or the next ones: below the range that clients get theirs from, so that a broker that was killed finds
# its port free when it comes back.
_PORTS: Final = range(9092, 9192)
# Three interpreters start at once, each with a second's worth of imports; a busy machine takes several times that.
_WORKS_WITHIN_S: Final = 90.0
_LOOK_S: Final = 0.5
_TOLD: Final = 5

out = Console()


def main() -> None:
    """Run it until Ctrl-C; what a person can mend is one message and exit code 2."""
    asked = argparse.ArgumentParser(prog="python -m bench.kafka.pipeline", description="The whole pipeline on Kafka, here.")
    asked.add_argument("folder", nargs="?", type=Path, default=Path("tidegate-kafka"))
    asked.add_argument("--rate", type=float, default=20.0, help="simulated calls a second; 0: none")
    asked.add_argument("--port", type=int, help="of the console; default: TIDEGATE_PORT or 8400")
    asked.add_argument("--partitions", type=int, default=4, help="of new topics: how many meters could share the work")
    told = asked.parse_args()
    stopping = Stopping.on_signals()
    try:
        Pipeline(told.folder.absolute(), told.rate, told.port, told.partitions, stopping).run()
    except (BrokerUnavailable, TidegateError) as error:
        sys.exit(f"make up-kafka: {plain(str(error))}")


class Pipeline:
    """From the broker up, and down again in the opposite order."""

    def __init__(self, folder: Path, rate: float, port: int | None, partitions: int, stopping: Stopping) -> None:
        self._folder = folder
        self._rate = rate
        self._port = port
        self._partitions = partitions
        self._stopping = stopping
        self._watched: list[Watched] = []
        self._told: deque[str] = deque(maxlen=_TOLD)

    def run(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as running:
            running.enter_context(_Alone(self._folder))
            settings = self._start_broker(running)
            self._step("topics", lambda: asyncio.run(create_topics(settings, self._partitions)))
            # Stopped after the workers, so that what they have done is in the store.
            node = open_node(settings)
            running.callback(self._stop, "node", node.stop)
            workers = self._start_workers(settings, running)
            self._step("node", node.start, lambda: f"console at {node.url}")
            which = ", ".join(f"{worker.role} (pid {worker.pid})" for worker in workers)
            self._step("workers", lambda: self._until_they_work(workers), lambda: which)
            if self._rate and not self._stopping.is_set():
                traffic = threading.Thread(target=self._traffic, args=(settings.url,), name="tidegate-traffic")
                traffic.start()
                running.callback(self._stop, "traffic", traffic.join)
            try:
                self._watch(node, settings)
            finally:
                self._stopping.set()
        if node.failure is not None:
            raise node.failure
        out.print(f"Stopped. Everything is kept in {self._folder}; the next start carries on.", highlight=False, soft_wrap=True)

    # ---- up

    def _start_broker(self, running: ExitStack) -> Settings:
        self._step("broker's jars", fetch_jars, doing="fetching the broker's jars: 44 MB, the first time only")
        broker = Broker(self._folder / "broker", port=_free_port())
        self._step("broker", broker.start, lambda: f"{broker.bootstrap} (pid {broker.pid})")
        self._keep("broker", broker, running)
        # For ourselves and for every process that is started from here.
        os.environ["TIDEGATE_URL"] = f"kafka://{broker.bootstrap}"
        os.environ["TIDEGATE_KAFKA_SECURITY"] = "PLAINTEXT"
        if key_source(Settings.read()) is None:
            ring = self._folder / "keys.json"
            change_ring(ring, lambda found: found, make=True)
            os.environ["TIDEGATE_KEY_FILE"] = str(ring)
        _log_to(self._folder / "node.log")
        return Settings.read(data_dir=self._folder / "node", port=self._port)

    def _start_workers(self, settings: Settings, running: ExitStack) -> list[Worker]:
        environment = {
            "TIDEGATE_WORKER_PORT": "0",
            "TIDEGATE_POLICY_FILE": str(settings.policy_file or POLICIES),
            "TIDEGATE_DATA_DIR": str(settings.data_dir),
        }
        # Where the store is a server, the node leaves the writing to a worker, too.
        roles = ("policies", "meter", *(("guardrails",) if _guards(settings) else ()), *(("sink",) if settings.store else ()))
        workers = []
        for role in roles:
            worker = Worker(role, self._folder / f"{role}.log", environment)
            worker.start()
            self._keep(role, worker, running)
            workers.append(worker)
        return workers

    def _keep(self, name: str, part: Part, running: ExitStack) -> None:
        """Start it again from here on when it ends, and stop it in its turn."""
        watched = Watched(name, part)
        self._watched.append(watched)
        running.callback(self._stop, name, watched.stop)

    def _until_they_work(self, workers: list[Worker]) -> None:
        deadline = time.monotonic() + _WORKS_WITHIN_S
        while not all(worker.works for worker in workers) and not self._stopping.wait(0.1):
            for worker in workers:
                if not worker.running or time.monotonic() > deadline:
                    said = worker.said.read_text(errors="replace").splitlines()[-20:]
                    raise UsageError("\n".join((f"the {worker.role} worker does not work; {worker.said} ends:", *said)))

    def _step(
        self, name: str, start: Callable[[], object], told: Callable[[], str] = lambda: "", doing: str | None = None
    ) -> None:
        """One line when it is done; a spinner until then."""
        if self._stopping.is_set():
            raise UsageError("stopped while starting")
        began = time.monotonic()
        with out.status(f"{doing or f'starting: {name}'} …"):
            start()
        took = f"{time.monotonic() - began:.1f} s"
        out.print(Text.assemble(("✓ ", "green"), f"{name:<14}", told() or "ready", "  ", (took, "dim")), soft_wrap=True)

    def _traffic(self, url: str) -> None:
        with connect(url, service="simulated-clinic") as emitter:
            simulate(emitter, rate_per_s=self._rate, seed=secrets.randbelow(2**31), stop=self._stopping.is_set, content=True)

    # ---- running

    def _watch(self, node: Node, settings: Settings) -> None:
        folder = _shown(settings.data_dir)
        out.print(
            Text.assemble(
                ("\nAnother terminal may ask it, or add a meter:\n", "dim"),
                f'  tidegate query --data {folder} "SELECT model, sum(cost_usd) FROM calls GROUP BY model"\n'
                f"  TIDEGATE_URL={settings.url} TIDEGATE_WORKER_PORT=0 tidegate worker --role meter\n",
            ),
            soft_wrap=True,
        )
        before, at = node.status()["totals"].get("events", 0), time.monotonic()
        with Live(console=out, auto_refresh=False, transient=True) as live:
            while not self._stopping.wait(_LOOK_S) and node.failure is None:
                for watched in self._watched:
                    if news := watched.look():
                        self._tell(news)
                if out.is_terminal:
                    status = node.status()
                    events, now = status["totals"].get("events", 0), time.monotonic()
                    live.update(self._panel(summary(status, max(events - before, 0) / (now - at))), refresh=True)
                    before, at = events, now

    def _tell(self, news: str) -> None:
        self._told.append(f"{time.strftime('%H:%M:%S')} {plain(news)}")
        if not out.is_terminal:
            out.print(self._told[-1], highlight=False, markup=False, soft_wrap=True)

    def _panel(self, shown: RenderableType) -> RenderableType:
        parts = " · ".join(f"{watched.name} {'down' if watched.down else watched.part.pid}" for watched in self._watched)
        lines = [Text(f" pids: {parts}", style="dim"), *(Text(f" {line}", style="yellow") for line in self._told)]
        return Group(shown, *lines)

    # ---- down

    def _stop(self, name: str, stop: Callable[[], object]) -> None:
        """What is next to stop, says so."""
        began = time.monotonic()
        pid = next((watched.part.pid for watched in self._watched if watched.name == name), None)
        with out.status(f"stopping: {name} …"):
            stop()
        which = f" (pid {pid})" if pid is not None else ""
        out.print(f"{name}{which} stopped  [dim]{time.monotonic() - began:.1f} s[/]", highlight=False)


class _Alone:
    """The right to a folder: two brokers on one would spoil nothing, but say so in words of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        self._handle = os.open(self._folder / "pipeline.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._handle)
            raise UsageError(f"a pipeline runs in {self._folder} already; stop it, or name another folder") from None

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)


def _guards(settings: Settings) -> bool:
    """Whether texts are scored; says so where something is missing for it."""
    try:
        require_extra()
    except UsageError as error:
        out.print(Text(f"no guardrails: {plain(str(error))}", style="yellow"), soft_wrap=True)
        return False
    return settings.guard


def _free_port() -> int:
    for port in _PORTS:
        with socket.socket() as probe:
            # As the broker does: the last one's connections may not have faded away.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise UsageError(f"no port from {_PORTS[0]} to {_PORTS[-1]} is free for the broker")


def _log_to(file: Path) -> None:
    """The panel has the terminal."""
    handle = file.open("a")
    logging.basicConfig(stream=handle, level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.dev.ConsoleRenderer(colors=False),
        ],
        logger_factory=structlog.PrintLoggerFactory(handle),
    )


def _shown(folder: Path) -> Path:
    """As a person here would write it."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


if __name__ == "__main__":
    main()
