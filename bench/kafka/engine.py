"""The distributed engine for a bench: a broker, topics, and workers in processes of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, Self

import urllib3
from tidegate.processors.distributed.topics import create_topics
from tidegate.schemas.settings import Settings

# A worker imports, joins its group and reads its changelog in some five seconds on a busy machine.
_START_S: Final = 60.0
_STOP_S: Final = 60.0


class Workers:
    """Workers of these roles on a Kafka address; started in order, each waited for."""

    def __init__(self, url: str, roles: tuple[str, ...], folder: Path, **environment: str) -> None:
        self.url = url
        self._roles = roles
        self._folder = folder
        self._environment = {**os.environ, "TIDEGATE_URL": url, "TIDEGATE_WORKER_PORT": "0", **environment}
        self._processes: list[subprocess.Popen[bytes]] = []
        self._doors: dict[str, list[str]] = {}

    def __enter__(self) -> Self:
        try:
            for number, role in enumerate(self._roles):
                self._start(number, role)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self, number: int, role: str) -> None:
        said = self._folder / f"{role}-{number}.log"
        with said.open("wb") as out:
            command = [sys.executable, "-m", "tidegate", "worker", "--role", role]
            process = subprocess.Popen(command, env=self._environment, stdout=out, stderr=subprocess.STDOUT)
        self._processes.append(process)
        deadline = time.monotonic() + _START_S
        while "metrics at " not in (text := said.read_text(errors="replace")):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the {role} worker did not start:\n{text}")
            time.sleep(0.05)
        self._doors.setdefault(role, []).append(text.partition("metrics at ")[2].split("/metrics")[0])

    def count(self, role: str, metric: str) -> float:
        """A metric summed over the workers of a role, its labels included in the name where it has some."""
        total = 0.0
        for doors in self._doors.get(role, ()):
            text = urllib3.PoolManager().request("GET", f"{doors}/metrics").data.decode()
            total += sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(metric + " "))
        return total

    def total(self, role: str, metric: str) -> float:
        """A metric summed over the workers of a role and over its labels."""
        found = 0.0
        for doors in self._doors.get(role, ()):
            text = urllib3.PoolManager().request("GET", f"{doors}/metrics").data.decode()
            told = (line for line in text.splitlines() if line.startswith((metric + " ", metric + "{")))
            found += sum(float(line.rsplit(" ", 1)[1]) for line in told)
        return found

    def pid(self, role: str) -> int:
        """The process of the first worker of a role."""
        return self._processes[self._roles.index(role)].pid

    def said(self, role: str) -> str:
        """What the first worker of a role has said."""
        return (self._folder / f"{role}-{self._roles.index(role)}.log").read_text(errors="replace")

    def metered(self) -> int:
        """Events that the meters have taken in so far."""
        return int(self.count("meter", 'tidegate_worker_events_total{outcome="events"}'))

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def make_topics(url: str, partitions: int = 1) -> None:
    """The topics of a namespace."""
    asyncio.run(create_topics(Settings(url=url), partitions=partitions, policy_partitions=1))
