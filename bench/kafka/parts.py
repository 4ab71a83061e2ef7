"""The processes of a pipeline: begun, looked at, begun again when they end by themselves, and stopped in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Final, Protocol

# What dies at once will die again: each time it is waited twice as long. What ran for a minute was fine.
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_WAS_FINE_S: Final = 60.0
# A worker hands over in a second or two; a flush waits for a broker that is away for longer.
_STOP_WITHIN_S: Final = 20.0


class Part(Protocol):
    """One process of the pipeline."""

    pid: int | None

    @property
    def running(self) -> bool: ...

    def start(self) -> object: ...

    def stop(self) -> None:
        """End it by its process id; harmless when it has ended."""
        ...


class Worker:
    """`tidegate worker --role …`; what it says goes to a file, for the panel has the terminal."""

    def __init__(self, role: str, said: Path, environment: Mapping[str, str]) -> None:
        self.role = role
        self.said = said
        self.pid: int | None = None
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def works(self) -> bool:
        """Whether it has said so since its last start."""
        return self.running and b" works; metrics at" in self.said.read_bytes()

    def start(self) -> None:
        with self.said.open("wb") as out:
            # A session of its own: Ctrl-C reaches us, and we stop it in order.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tidegate", "worker", "--role", self.role],
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def stop(self) -> None:
        process, self._process, self.pid = self._process, None, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Watched:
    """A part that was started, and is started again whenever it ends by itself. `look` never waits.

    Starts go on in a thread, for a broker takes its time. `clock` is monotonic seconds.
    """

    def __init__(self, name: str, part: Part, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.part = part
        self._clock = clock
        self._started_at = clock()
        self._start_at: float | None = None
        self._pause_s = _FIRST_PAUSE_S
        self._starting: Future[object] | None = None

    @property
    def down(self) -> bool:
        return self._start_at is not None

    def look(self) -> str | None:
        """What there is to tell, if anything."""
        if self._start_at is None:
            return None if self.part.running else self._ended()
        if self._starting is None:
            if self._clock() >= self._start_at:
                self._starting = _in_a_thread(self.part.start)
            return None
        return self._started(self._starting) if self._starting.done() else None

    def _ended(self) -> str:
        pid = self.part.pid
        self.part.stop()
        if self._clock() - self._started_at >= _WAS_FINE_S:
            self._pause_s = _FIRST_PAUSE_S
        return self._later(f"{self.name} (pid {pid}) ended by itself")

    def _started(self, starting: Future[object]) -> str:
        self._starting = None
        if (error := starting.exception()) is not None:
            return self._later(f"{self.name} does not start: {str(error).partition(chr(10))[0]}")
        self._start_at, self._started_at = None, self._clock()
        return f"{self.name} started again (pid {self.part.pid})"

    def _later(self, what: str) -> str:
        pause_s, self._start_at = self._pause_s, self._clock() + self._pause_s
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
        return f"{what}; starts again in {pause_s:g} s"

    def stop(self) -> None:
        """End it, once a start that is under way is over: what was not yet started cannot be stopped."""
        if self._starting is not None:
            self._starting.exception()
        self.part.stop()


def _in_a_thread(start: Callable[[], object]) -> Future[object]:
    future: Future[object] = Future()

    def run() -> None:
        try:
            future.set_result(start())
        except Exception as error:  # noqa: BLE001 — whatever keeps it from starting is told, and tried again
            future.set_exception(error)

    threading.Thread(target=run, name="tidegate-start").start()
    return future
