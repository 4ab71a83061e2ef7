"""Log → meter → sink → store on one data folder: the embedded pipeline without its doors.

`Pipeline` is driven either by its own threads (`start`, the node) or by the caller (`drain`, a command line). Only the node
judges content; for a command line it waits.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from ...producers.folder_audit import audit_of
from ...producers.sqlite_log import SqliteLog
from ...schemas.errors import LogUnavailable, StoreUnavailable
from ...schemas.policy import PolicySet
from ...schemas.residency_file import residency_of
from ...schemas.settings import Settings
from ...schemas.topics import CALLS, CONTENT
from ...sinks.clickhouse import Store
from ..audit_events import tell_migrated, tell_policies
from ..backfill import Backfill
from ..brake import what_to_do
from ..policy_file import PolicyWatch
from ..topology import GUARDRAILS, METER, SINK
from .engine import MeterEngine
from .guardrails_thread import GuardrailsThread
from .notifier import NotifierThread
from .policies_engine import PoliciesEngine
from .sink import Sink
from .trimming import Trimming

log = structlog.get_logger("tidegate.pipeline")

# Housekeeping is cheap and nobody waits for it; twice a minute keeps the memory from growing unseen.
_TIDY_EVERY_S: Final = 30.0
# Between looks at an empty log: short enough that a dashboard feels live, long enough to cost nothing.
_IDLE_S: Final = 0.05
_REST_S: Final = 0.01
_SINK_NICE: Final = 10
_BACKOFF_MAX_S: Final = 10.0
# The store answers for a day of calls in less than a second. When it is away, a policy that does not know its past yet is
# better than none.
_PAST_WITHIN_S: Final = 10.0


class Pipeline:
    """The meter and the sink of one data folder. The caller holds the folder's lock."""

    def __init__(self, data_dir: Path, settings: Settings, *, at: Callable[[str], None] = lambda _step: None) -> None:
        self.data_dir = data_dir
        self.settings = settings
        residency_of(settings)  # what may not be written to is not opened
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        server = settings.store is not None
        self.store = Store.open(
            path=None if server else data_dir / "store", dsn=settings.store, cluster=settings.store_cluster, lazily=server
        )
        self.audit = audit_of(data_dir, settings)
        # Made here, so that the folder's number of partitions is settled before anyone appends.
        self.watch = PolicyWatch(settings.policy_file)
        self.meter = MeterEngine(data_dir, settings, policies=self.watch.current, at=at)
        self.policies = PoliciesEngine(
            self.meter.log, self.watch.current, self.meter.counted, unit_prices=self.meter.unit_prices, at=at
        )
        self.sink = Sink(data_dir, settings, self.store, at=at)
        self.store_away = self._migrated = False
        try:
            self._migrate()
        except StoreUnavailable as error:
            # A folder that is another's is a mistake. A server that is away keeps rows waiting, and no meter.
            if not server:
                raise
            self.store_away = True
            log.warning("store_away", error=str(error))
        self.backfill = Backfill(self.meter, self.store, at=at)
        self.guardrails = GuardrailsThread(data_dir, settings, at=at)
        self.trimming = Trimming(data_dir, settings)
        self.notifier: NotifierThread | None = None
        self._at = at
        # The policies that wait for their past to be counted, and until when they do; at the start, all.
        self._coming: PolicySet | None = self.watch.current
        self._coming_until: float | None = None
        self._in_force = False
        # For questions from other threads; the meter's and the sink's own connections may be amid a transaction.
        self._reader = SqliteLog(data_dir, fsync=settings.fsync)
        self._reading = threading.Lock()
        self.backlog_bytes = self.content_backlog_bytes = 0
        self.failure: BaseException | None = None
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def _migrate(self) -> None:
        if not self._migrated:
            if self.store.is_behind():
                self.sink.keep_promises()
            tell_migrated(self.audit, self.store.migrate())
            self._migrated = True

    def drain(self, progress: Callable[[int, int], None] = lambda _meter, _sink: None) -> None:
        """Carry everything that is in the log now into the store, in this thread. `progress(meter lag, sink lag)`.

        What services append meanwhile is left for the next time: under steady traffic this would never end.
        """
        self._migrate()
        ends = {partition: self.meter.log.end_offset(CALLS.name, partition) for partition in self.meter.states}
        while any(self.meter.states[partition].next_offset < end for partition, end in ends.items()):
            if not self.meter.run_once():
                break
            progress(self.meter.lag(), self.sink.lag())
        self.meter.settle()
        while self.sink.run_once(drain=True) or self.sink.lag():
            progress(0, self.sink.lag())

    def start(self) -> None:
        """Run meter, sink, trimming, notifier and guardrails in threads of their own until `stop`. Raises `UsageError` when the
        on-call file is bad: nobody would be told."""
        notifier = self.notifier = NotifierThread(self.data_dir, self.settings, at=self._at)
        for partition in self.meter.stopped():
            log.error("meter_stopped", partition=partition, what=what_to_do(partition, self.meter.states[partition].brake))
        runs = {
            "meter": self._run_meter,
            "sink": self._run_sink,
            "trimming": lambda: self.trimming.run(self._stopping),
            "notifier": lambda: notifier.run(self._stopping),
        }
        for name, run in runs.items():
            thread = threading.Thread(target=self._guarded, args=(run,), name=f"tidegate-{name}")
            self._threads.append(thread)
            thread.start()
        self.guardrails.start()

    def stop(self) -> None:
        """Let the threads finish what they are at, bring what the meter has done into the store, and end them."""
        # First: the meter still counts what they have judged.
        self.guardrails.stop()
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        if self.notifier is not None:
            self.notifier.close()
            self.notifier = None

    def close(self) -> None:
        self.stop()
        self.backfill.close()
        self.sink.close()
        self.trimming.close()
        self.meter.close()
        self._reader.close()
        self.store.close()

    def lags(self) -> tuple[int, int, int]:
        """Records that the meter, the guardrails and the sink have not passed. From any thread."""
        with self._reading:
            return (
                self._reader.lag(METER.name, [CALLS.name]),
                self._reader.lag(GUARDRAILS.name, [CONTENT.name]),
                self._reader.lag(SINK.name, [topic.name for topic in SINK.reads]),
            )

    @property
    def healthy(self) -> bool:
        """Meter and sink run and have met nothing unknown. Guardrails that fail are begun again, and hold nobody up."""
        return self.failure is None and all(thread.is_alive() for thread in self._threads)

    def _guarded(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 — a thread's death must be seen by the node, which then ends
            self.failure = error
            self._stopping.set()
            log.error("pipeline_failed", error_type=type(error).__name__)

    def _run_meter(self) -> None:
        tidied = looked = time.monotonic()
        backoff_s = _IDLE_S
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                self._reload_policies(started)
                applied = self.meter.run_once()
                self._put_in_force(started)
                if self._in_force:
                    self.policies.run_once()
                if started - looked >= 1:
                    looked = started
                    self.backlog_bytes = self.meter.log.waiting_bytes(METER.name, CALLS.name)
                    self.content_backlog_bytes = self.meter.log.waiting_bytes_guessed(GUARDRAILS.name, CONTENT.name)
                if started - tidied >= _TIDY_EVERY_S:
                    tidied = started
                    self.meter.tidy(time.time_ns() // 1_000_000)
            except LogUnavailable as error:
                log.warning("log_unavailable", error=str(error), retry_in_s=backoff_s)
                self._stopping.wait(backoff_s)
                backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)
                continue
            backoff_s = _IDLE_S
            if applied and self.meter.lag():
                continue  # behind: no rest
            # A burst is one transaction and not a hundred, yet nobody waits much longer than a flush takes.
            took_s = time.monotonic() - started
            pause_s = min(self.settings.flush_s - took_s, max(2 * took_s, _REST_S)) if applied else _IDLE_S
            self._stopping.wait(max(pause_s, 0.001))
        with contextlib.suppress(LogUnavailable):  # the next start writes it
            self.meter.settle()

    def _reload_policies(self, now: float) -> None:
        """Put an edited policy file in force; what is wrong with it is told once. A bad edit keeps the old policies."""
        problem = self.watch.problem
        changed = self.watch.poll(now)
        if changed is not None:
            self._coming, self._coming_until = changed, None
        if self.watch.problem and self.watch.problem != problem:
            log.warning("policy_file_refused", error=self.watch.problem)
        self.policies.stands("policy_file", f"policy file: {self.watch.problem}" if self.watch.problem else None)

    def _put_in_force(self, now: float) -> None:
        """Put the policies that come in force, once the past of what they count is counted or that has taken too long."""
        if self._coming is not None and self._coming_until is None:
            if self._in_force:
                # What is in force goes on being counted until the new ones know their past.
                self.meter.watch(self.policies.policy_set, self._coming)
            self._coming_until = now + _PAST_WITHIN_S
        past_is_counted = self.backfill.run_once()
        if self._coming is None or self._coming_until is None:
            return
        if not past_is_counted and now < self._coming_until:
            return
        if self._in_force:
            self.policies.enforce(self._coming)
            self.meter.watch(self._coming)
            log.info("policies_in_force", version=self._coming.version, policies=len(self._coming.policies))
        if self._coming.policies or self._in_force:
            tell_policies(self.audit, self._coming, self.settings.policy_file)
        self._in_force = True
        self._coming = None

    def _run_sink(self) -> None:
        # A row may be in the store a little later; a block must not wait for an insert on a busy machine.
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _SINK_NICE)
        backoff_s = _IDLE_S
        while True:
            stopping = self._stopping.is_set() and not self._meter_alive()
            try:
                self._migrate()
                rows = self.sink.run_once(drain=stopping)
            except (StoreUnavailable, LogUnavailable) as error:
                if stopping:
                    return  # what is left stays in the log, and the next start carries on
                self.store_away = True
                log.warning("sink_waits", error=str(error), retry_in_s=backoff_s)
                self._stopping.wait(backoff_s)
                backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)
                continue
            self.store_away = False
            backoff_s = _IDLE_S
            if stopping and not rows:
                return
            if not rows:
                time.sleep(_IDLE_S)

    def _meter_alive(self) -> bool:
        return bool(self._threads) and self._threads[0].is_alive()
