"""Lets go of what retention no longer asks for, in a thread and on a connection of its own: the meter never does it, and it
is done where nobody judges content, too.

    each topic ─► the oldest that every consumer has passed and whose time is over ─► gone, some 4 MB or 500 records at a time

Between two transactions it rests, so that who waits to append goes first. What is appended goes as fast as it comes: up to
some ten thousand records a second of each partition.
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

from ...producers.sqlite_log import SqliteLog
from ...schemas.errors import LogUnavailable
from ...schemas.settings import Settings
from ...schemas.topics import CONTENT, TOPICS, Topic
from ..topology import readers
from .sealed_bound import LETTERS, TEXTS, SealedBound

log = structlog.get_logger("tidegate.trimming")

_NICE: Final = 10
# Nobody waits for it when there is nothing to do.
_EVERY_S: Final = 5.0
# A transaction of 4 MB takes some milliseconds; as much again and more is everybody else's.
_REST_S: Final = 0.02


class Trimming:
    """`run_once` or `run` in one thread; `status` from any."""

    def __init__(self, data_dir: Path, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        # What a power cut brings back is deleted again.
        self._log = SqliteLog(data_dir, fsync="normal")
        self._texts = SealedBound(self._log, TEXTS, settings.quarantine_max_bytes)
        self._letters = SealedBound(self._log, LETTERS, settings.dead_letters_max_bytes)

    def run(self, stopping: threading.Event) -> None:
        """Trim until told to stop; whoever is in the way, it waits and goes on."""
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while not stopping.is_set():
            try:
                gone = self.run_once(lambda: stopping.wait(_REST_S))
            except LogUnavailable as error:
                log.warning("trimming_waits", error=str(error), retry_in_s=_EVERY_S)
                gone = 0
            if not gone:
                stopping.wait(_EVERY_S)

    def run_once(self, rest: Callable[[], object] = lambda: None) -> int:
        """One bounded transaction for each partition that has something to let go, and a `rest` behind each. Returns how many
        records went."""
        now = self._clock()
        gone = 0
        for topic in TOPICS.values():
            for partition in range(self._log.partitions):
                for went in self._trim(topic, partition, int(now * 1_000)):
                    gone += went
                    if went:
                        rest()
        for bound in (self._texts, self._letters):
            if went := bound.keep(now):
                gone += went
                rest()
        return gone

    def _trim(self, topic: Topic, partition: int, now_ms: int) -> tuple[int, ...]:
        trimmed = self._log
        end = trimmed.end_offset(topic.name, partition)
        passed = [trimmed.committed(step.name, topic.name, partition) for step in readers(topic)]
        # Texts, though sealed, do not lie about until somebody may judge them: their time is all they have.
        below = end if topic is CONTENT else min(passed, default=end)
        old = tombstones = 0
        if topic.retention_s is not None:
            old = trimmed.trim(topic.name, partition, below, now_ms - topic.retention_s * 1_000)
        if topic.compacted:
            tombstones = trimmed.trim_tombstones(topic.name, partition, below, now_ms - topic.tombstone_s * 1_000)
        return old, tombstones

    def status(self) -> dict[str, Any]:
        """Of the quarantine and the dead letters, which are bounded in bytes as well as in time."""
        return {
            name: {"bytes": bound.size_bytes, "pushed_out": bound.pushed_out}
            for name, bound in (("quarantine", self._texts), ("dead_letters", self._letters))
        }

    def close(self) -> None:
        self._log.close()
