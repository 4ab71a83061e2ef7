"""The guardrails' thread in a node. Nothing that happens to it ends the node: it is begun again, later and later.

off ─ why        not wanted, or something is missing that a person must add; content waits, up to its retention
waiting          no content has come yet: no process, no memory
working          the processes judge, or are loaded
trouble ─ why    it tries again
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog

from ...producers.key_source import KeySource, key_source
from ...schemas.errors import LogUnavailable, UsageError
from ...schemas.settings import Settings
from ..guardrails.pool import LOADER
from ..guardrails.runtime import Tally, require_extra
from ..guardrails.telling import told
from .guardrails_engine import GuardrailsEngine

log = structlog.get_logger("tidegate.guardrails")

_IDLE_S: Final = 0.1
_WORK_S: Final = 0.05
# An engine that is begun anew loads its processes anew: seconds of a core.
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0
# A log that is busy, or a disk that is full, costs no process: it is asked again soon.
_LOG_PAUSE_S: Final = 0.1
_LONGEST_LOG_PAUSE_S: Final = 10.0
# What has worked for so many times the next pause was well; what fails right after it has judged a little is not.
_WELL_FACTOR: Final = 10.0
# The meter's thread goes first wherever the two want the processor at once.
_NICE: Final = 10


class Pauses:
    """How long to wait after a failure: twice as long as the last time, unless all was well for long since. `clock` is
    monotonic seconds."""

    def __init__(
        self,
        first_s: float = _FIRST_PAUSE_S,
        longest_s: float = _LONGEST_PAUSE_S,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._clock = clock
        self._pause_s = first_s
        self._until = clock()

    def next_s(self) -> float:
        """The pause that begins now."""
        now = self._clock()
        well_s, pause_s = now - self._until, self._pause_s
        if well_s > _WELL_FACTOR * pause_s:
            pause_s = self._first_s
        self._pause_s = min(2 * pause_s, self._longest_s)
        self._until = now + pause_s
        return pause_s


class GuardrailsThread:
    """`start`, `stop`, and `status` from any thread."""

    def __init__(
        self, data_dir: Path, settings: Settings, *, at: Callable[[str], None] = lambda _step: None, loader: str = LOADER
    ) -> None:
        self._data_dir = data_dir
        self._settings = settings
        self._at = at
        self._loader = loader
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._state, self._why = "off", ""
        self._tally = Tally()

    def start(self) -> None:
        """Begin, where it is wanted and all that it needs is there; otherwise say once what is missing."""
        if not self._settings.guard:
            self._why = "TIDEGATE_GUARD is off"
            return
        try:
            if self._loader == LOADER:
                require_extra()
            keys = key_source(self._settings, self._data_dir)
            if keys is None:
                raise UsageError("no key ring: set TIDEGATE_KEY_FILE")
        except UsageError as error:
            self._why = str(error)
            log.warning("guardrails_off", reason=self._why)
            return
        self._state = "waiting"
        self._thread = threading.Thread(target=self._run, args=(keys,), name="tidegate-guardrails")
        self._thread.start()

    def stop(self) -> None:
        """Put out what is judged, and end; what is not is judged by the next node."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def status(self) -> dict[str, Any]:
        return {"state": self._state, "why": self._why} | told(self._tally)

    def _run(self, keys: KeySource) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        pauses = Pauses()
        while not self._stopping.is_set():
            try:
                engine = GuardrailsEngine(self._data_dir, self._settings, keys, at=self._at, loader=self._loader)
                with contextlib.closing(engine):
                    self._work(engine)
            except Exception as error:  # noqa: BLE001 — the guardrails' own door: the node and its meter go on
                pause_s = pauses.next_s()
                self._state, self._why = "trouble", type(error).__name__
                log.error("guardrails_failed", error_type=self._why, retry_in_s=pause_s)
                self._stopping.wait(pause_s)

    def _work(self, engine: GuardrailsEngine) -> None:
        """Judge until told to stop. While the log cannot be had, the processes and what they have judged stay."""
        pauses = Pauses(_LOG_PAUSE_S, _LONGEST_LOG_PAUSE_S)
        while not self._stopping.is_set():
            try:
                passed = engine.run_once(_WORK_S)
                self._note(engine)
            except LogUnavailable as error:
                pause_s = pauses.next_s()
                self._state, self._why = "trouble", "the log cannot be had"
                log.warning("guardrails_wait", reason=str(error), retry_in_s=pause_s)
                self._stopping.wait(pause_s)
                continue
            if not passed and not engine.runtime.busy:
                self._stopping.wait(_IDLE_S)

    def _note(self, engine: GuardrailsEngine) -> None:
        self._tally = tally = engine.look()
        self._why = tally.trouble or ""
        busy = engine.runtime.busy or tally.processes
        self._state = "trouble" if self._why else "working" if busy else "waiting"
