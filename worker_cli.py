"""`tidegate worker`: one role of the distributed engine, or all of them under one roof."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Annotated, Final

import typer
from rich.console import Console
from tidegate.running import Stopping, log_to_stderr
from tidegate.schemas.errors import UsageError
from tidegate.schemas.kafka_url import KafkaAddress
from tidegate.schemas.settings import Settings

out = Console()
err = Console(stderr=True)

# A worker that dies at once will die again: each time it is waited twice as long. One that ran for a minute was fine.
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_WAS_FINE_S: Final = 60.0
# A worker hands over in a second or two; the sink may be in the middle of an insert.
_STOP_WITHIN_S: Final = 45.0
_LOOK_S: Final = 0.1
GUARDRAILS: Final = "guardrails"


def worker(
    role: Annotated[
        str,
        typer.Option(help="meter, policies, sink, guardrails or notifier; or all: a process each, started again when it ends"),
    ] = "all",
) -> None:
    """Run a worker of the distributed engine on the Kafka that TIDEGATE_URL names (kafka://broker:9092). Ctrl-C stops it.

    Start as many workers of a role as you like, up to the number of partitions: they share them out. `tidegate topics
    create` makes the topics first. The sink writes to the ClickHouse server of TIDEGATE_STORE.
    """
    settings = Settings.read()
    # Before anything is started: of `all`, each would only fail again and again.
    KafkaAddress.parse(settings.url)
    for package in ("aiokafka", "faust"):
        if find_spec(package) is None:
            raise UsageError(f"a worker needs {package}, which is not installed here: pip install 'tidegate[kafka]'")
    from tidegate.processors.distributed.roles import BY_NAME
    from tidegate.processors.distributed.worker import run_worker
    from tidegate.processors.undumped import leave_no_core

    if settings.guard:
        # The key ring is in here.
        leave_no_core()
    stopping = Stopping.on_signals()
    if role == "all":
        roles = [name for name in BY_NAME if name != GUARDRAILS or _guards(settings)]
        # With one port for all only the first could have it.
        port = settings.worker_port
        _supervise([_Child(name, port + number if port else 0) for number, name in enumerate(roles)], stopping)
        return
    log_to_stderr()

    def told(url: str) -> None:
        out.print(f"{role} works; metrics at [bold]{url}/metrics[/]", highlight=False, soft_wrap=True)

    asyncio.run(run_worker(settings, role, stopping.is_set, told))


def _guards(settings: Settings) -> bool:
    """Whether guardrails belong to `all`; says what is missing where they were not turned off."""
    from tidegate.processors.distributed.roles import ring_of
    from tidegate.processors.guardrails.runtime import require_extra

    try:
        require_extra()
        ring_of(settings)
    except UsageError as error:
        if settings.guard:
            err.print(f"no guardrails: {error}", style="yellow", highlight=False, soft_wrap=True)
        return False
    return settings.guard


@dataclass(slots=True)
class _Child:
    """One role's process, and when to start it again."""

    role: str
    port: int
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    pause_s: float = field(default=_FIRST_PAUSE_S)
    start_at: float = 0.0

    def look(self, now: float) -> None:
        """Start it when its time has come; notice that it has ended."""
        if self.process is None:
            if now >= self.start_at:
                command = [sys.executable, "-m", "tidegate", "worker", "--role", self.role]
                # A session of its own: Ctrl-C reaches us, and we stop it in order.
                self.process = subprocess.Popen(  # noqa: S603  # ourselves
                    command, env={**os.environ, "TIDEGATE_WORKER_PORT": str(self.port)}, start_new_session=True
                )
                self.started_at = now
        elif (status := self.process.poll()) is not None:
            self.pause_s = _FIRST_PAUSE_S if now - self.started_at >= _WAS_FINE_S else self.pause_s
            err.print(f"{self.role} ended with status {status}; starts again in {self.pause_s:g} s", style="yellow")
            self.process, self.start_at = None, now + self.pause_s
            self.pause_s = min(self.pause_s * 2, _LONGEST_PAUSE_S)


def _supervise(children: list[_Child], stopping: Stopping) -> None:
    try:
        while not stopping.wait(_LOOK_S):
            for child in children:
                child.look(time.monotonic())
    finally:
        running = [child.process for child in children if child.process is not None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_WITHIN_S
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
