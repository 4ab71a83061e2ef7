"""Worker processes of the distributed engine, to be killed, stopped and joined by others in tests."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def eventually(condition: Callable[[], Any], within_s: float = 60.0, what: str = "") -> Any:
    """What the condition says, once it says anything."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what or condition}"
        time.sleep(0.05)
    return found


@dataclass
class Worker:
    """One process, and what it said."""

    role: str
    process: subprocess.Popen[bytes]
    said: Path

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def text(self) -> str:
        return self.said.read_text(errors="replace")

    def wait_until_it_works(self) -> None:
        eventually(lambda: " works; metrics at" in self.text() or not self.running, what=f"{self.role} works")
        assert self.running, self.text()

    @property
    def doors(self) -> str:
        return self.text().partition("metrics at ")[2].split("/metrics")[0]


class Fleet:
    """All workers of one test; none outlives the `with` block."""

    def __init__(self, folder: Path, url: str, **environment: str) -> None:
        self.folder = folder
        self._environment: Mapping[str, str] = {
            **os.environ,
            "TIDEGATE_URL": url,
            "TIDEGATE_WORKER_PORT": "0",
            "TIDEGATE_WORKER_SESSION_S": "2",
            "TIDEGATE_DATA_DIR": str(folder / "data"),
            **environment,
        }
        self.workers: list[Worker] = []
        self._started = 0

    def start(self, role: str, **environment: str) -> Worker:
        self._started += 1
        said = self.folder / f"{role}-{self._started}.log"
        with said.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "tidegate", "worker", "--role", role],
                env={**self._environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        worker = Worker(role, process, said)
        self.workers.append(worker)
        return worker

    def running(self, role: str) -> list[Worker]:
        return [worker for worker in self.workers if worker.role == role and worker.running]

    def kill(self, worker: Worker) -> None:
        """kill -9."""
        worker.process.kill()
        worker.process.wait()

    def stop(self, worker: Worker) -> None:
        """In order; it must end well."""
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(60) == 0, worker.text()

    def any(self, role: str, moments: random.Random) -> Worker | None:
        running = self.running(role)
        return moments.choice(running) if running else None

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            if worker.running:
                worker.process.kill()
            worker.process.wait()
