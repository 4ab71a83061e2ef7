"""A gate's ear on one machine: the data folder's log, looked at forty times a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ..schemas.errors import LogUnavailable
from ..schemas.topics import GATES, SIGNALS
from .signals import START, SignalRecord
from .sqlite_log import SqliteLog

# A look at a log without news takes some 20 µs, so this costs a thousandth of a core; a block closes a gate that soon.
_LOOK_S: Final = 0.025

_inherited: Final[list[SqliteLog | None]] = []


class LocalSignals:
    """`SignalSource` on a data folder. A folder without a log has nothing to say yet, and none is made in it."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._begin()

    def _begin(self) -> None:
        self._log: SqliteLog | None = None
        self._using = threading.Lock()
        self._closed = threading.Event()
        self._announced: str | None = None

    def poll(self, after: int, timeout_s: float) -> tuple[Sequence[SignalRecord], int]:
        deadline = time.monotonic() + timeout_s
        self._closed.clear()
        try:
            with self._using:
                while True:
                    if found := self._look(after):
                        return found
                    rest_s = deadline - time.monotonic()
                    if rest_s <= 0 or self._closed.wait(min(_LOOK_S, rest_s)):
                        return [], after
        finally:
            self._close_if_asked()

    def _look(self, after: int) -> tuple[Sequence[SignalRecord], int] | None:
        log = self._open()
        if log is None:
            return None
        records = log.read(SIGNALS.name, 0, after + 1)
        if not records and after > START and log.end_offset(SIGNALS.name, 0) <= after:
            records = log.read(SIGNALS.name, 0, 0)  # another log is in this folder now
            if not records:
                return [], START
        return ([(record.key or b"", record.value) for record in records], records[-1].offset) if records else None

    def announce(self, gate_id: str) -> None:
        with self._using:
            if (log := self._open()) is not None:
                self._write(log, gate_id, b"{}")
                self._announced = gate_id

    def close(self) -> None:
        self._closed.set()
        self._close_if_asked()

    def _close_if_asked(self) -> None:
        # Whoever asks while a poll is going on finds the lock taken; then that poll comes by here when it ends.
        if not self._closed.is_set() or not self._using.acquire(blocking=False):
            return
        try:
            (log, self._log), (gate, self._announced) = (self._log, None), (self._announced, None)
            if log is not None:
                try:
                    if gate is not None:
                        self._write(log, gate, b"")
                except LogUnavailable:
                    pass  # the node notices by the silence
                finally:
                    log.close()
        finally:
            self._using.release()

    def abandon(self) -> None:
        _inherited.append(self._log)
        self._begin()

    def _open(self) -> SqliteLog | None:
        if self._log is None and SqliteLog.exists(self._data_dir):
            # An announcement lost in a power cut comes again in a second.
            self._log = SqliteLog(self._data_dir, fsync="normal")
        return self._log

    def _write(self, log: SqliteLog, gate_id: str, value: bytes) -> None:
        with log.transaction():
            log.append(GATES.name, 0, [(gate_id.encode(), {}, value)])
