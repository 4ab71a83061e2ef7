"""Kafka and a store behind the node's doors: the node as ingest, console and, with a store of its own, as sink.

    POST /v1/events ─► calls          signals ─► GET /v1/signals          gates ◄─ who asks
    metered, requests, dead letters, alerts ─► the sink ─► chDB           (with TIDEGATE_STORE: workers do that)
    /v1/status, /metrics, / ◄─ the log's view, the signals, the store

The meter and the policies are workers. Any number of nodes may stand side by side where the store is a server; with a store
in its folder a node is the only sink there is.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import structlog

from ...producers.folder_audit import audit_of
from ...producers.kafka_log import KafkaLog
from ...producers.ports import Log, Position
from ...schemas.envelope import Envelope
from ...schemas.errors import LogUnavailable, StoreUnavailable
from ...schemas.kafka_url import KafkaAddress
from ...schemas.settings import Settings
from ...sinks.clickhouse import Store
from ..audit_events import tell_migrated
from ..call_account import CallAccount
from ..folder_mark import keep_to_kafka
from ..letters import Keeper
from ..topology import GUARDRAILS, METER, POLICIES, SINK
from .incident_desk import KafkaDesk
from .log_view import LogView, Progress
from .signal_feed import SignalFeed
from .sink_thread import SinkThread
from .today import Today

log = structlog.get_logger("tidegate.node")

# How soon a load balancer hears that Kafka is away, and whoever watches that the store is.
_WATCH_S: Final = 1.0
# After the log did not answer, everybody who waits is told so at once instead of trying for seconds, one after the other.
_REST_S: Final = 1.0


class KafkaBackend:
    """`Backend` on Kafka. Raises `UsageError` when topics are missing or the folder holds something else, `LogUnavailable`
    when Kafka is away at the start, `StoreUnavailable` when another process has the folder's store."""

    def __init__(self, data_dir: Path, settings: Settings) -> None:
        self._address = KafkaAddress.parse(settings.url)
        self._url = settings.url
        self._settings = settings
        self.keeper = Keeper.of(settings)
        with contextlib.ExitStack() as opened:
            self._view = LogView(settings)
            opened.callback(self._view.close)
            keep_to_kafka(data_dir, settings.url, self._view.cluster(), self._address.namespace)
            server = settings.store is not None
            path = None if server else data_dir / "store"
            self.store = Store.open(path=path, dsn=settings.store, cluster=settings.store_cluster, lazily=server)
            opened.callback(self.store.close)
            try:
                tell_migrated(audit_of(data_dir, settings), self.store.migrate())
            except StoreUnavailable as error:
                # A server that is away keeps nobody from the doors; the sinks bring its schema up to date as well.
                if not server:
                    raise
                log.warning("store_away", error=str(error))
            kafka_log = KafkaLog(settings)
            opened.callback(kafka_log.close)
            self.log: Log = RestingLog(kafka_log)
            content_log = KafkaLog(settings)
            opened.callback(content_log.close)
            self.content_log: Log = RestingLog(content_log)
            self.feed = SignalFeed(settings)
            opened.callback(self.feed.close)
            self._today = Today(self.store)
            self._sink = None if settings.store else SinkThread(settings, self.store, lambda: self._view.members(SINK))
            if self._sink is not None:
                opened.callback(self._sink.stop)
            self._progress = self._view.look()
            self._opened = opened.pop_all()
        self._log_away = False
        self._rests_until = float("-inf")
        self._looking = threading.Lock()
        self._watch_failure: BaseException | None = None
        self._stopping = threading.Event()
        self._watch = threading.Thread(target=self._look_now_and_then, name="tidegate-watch")

    # What is accepted is in Kafka's log, which has room for days; how far behind the meter is, /metrics and alerts say.
    behind = content_behind = False

    @property
    def store_away(self) -> bool:
        return self._today.away or (self._sink is not None and self._sink.store_away)

    @property
    def unready(self) -> str | None:
        if self.failure is not None:
            return "node failed"
        # Without the store a node takes events and answers gates as ever.
        return "kafka away" if self._log_away else None

    @property
    def failure(self) -> BaseException | None:
        return self._watch_failure or self.feed.failure or (self._sink.failure if self._sink is not None else None)

    def desk(self) -> KafkaDesk:
        return KafkaDesk(self._settings)

    def status(self) -> dict[str, Any]:
        """As of now; while Kafka or the store is away, what was known last, and that it is."""
        progress = self._looked()
        return {
            "kafka": self._url,
            "totals": dict(progress.totals),
            "meter_lag_records": progress.lag(METER),
            "policies_lag_records": progress.lag(POLICIES),
            "guardrails_lag_records": progress.lag(GUARDRAILS),
            "sink_lag_records": progress.lag(SINK),
            "today": self._today.usage(),
            "store_away": self.store_away,
            "log_away": self._log_away,
            "healthy": self.failure is None,
            "policies": self.feed.words.standing(),
            "meters_stopped": list(progress.stopped),
            "progress": progress.steps,
        }

    def _looked(self) -> Progress:
        """How things stand now; what was known last, while Kafka does not answer and everybody would wait for that."""
        with self._looking:
            if time.monotonic() >= self._rests_until:
                try:
                    self._progress = self._view.look()
                    self._log_away = False
                except LogUnavailable as error:
                    if not self._log_away:
                        log.warning("kafka_away", error=str(error))
                    self._log_away, self._rests_until = True, time.monotonic() + _REST_S
            return self._progress

    def _look_now_and_then(self) -> None:
        try:
            while not self._stopping.wait(_WATCH_S):
                self._looked()
                self._today.usage()
        except BaseException as error:  # noqa: BLE001 — a thread's death must be seen by the node, which then ends
            self._watch_failure = error
            log.error("watch_failed", error_type=type(error).__name__)

    def accounts(self) -> Mapping[int, CallAccount]:
        return {}  # the meters tell theirs

    def start(self) -> None:
        self.feed.start()
        if self._sink is not None:
            self._sink.start()
        self._watch.start()

    def close(self) -> None:
        self._stopping.set()
        if self._watch.is_alive():
            self._watch.join()
        self._opened.close()


class RestingLog:
    """A log that, having failed, says so at once for a moment. `clock` is monotonic seconds."""

    def __init__(self, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._rests_until = float("-inf")
        self._why = ""

    def append(self, envelopes: Sequence[Envelope]) -> Sequence[Position | None]:
        if self._clock() < self._rests_until:
            raise LogUnavailable(self._why, _REST_S)
        try:
            return self._log.append(envelopes)
        except LogUnavailable as error:
            self._why = str(error)
            self._rests_until = self._clock() + _REST_S
            raise

    def close(self) -> None:
        self._log.close()
