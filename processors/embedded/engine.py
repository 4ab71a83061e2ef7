"""Runs the meter on the embedded log: offsets, state and outputs commit in one transaction.

One flush, numbered as the crash test aborts it:

    1  read      records after the state's own offset
    2  step      the pure step; only memory changes
    3  append    outputs, inside the transaction
    4  store     changed usage, producers, totals, offset, inside the transaction
    5  commit    all of it at once

A crash before 5 leaves nothing; after 5 everything. If the transaction fails, memory is ahead of the disk, so the
state is read from the disk again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import orjson
import structlog

from ...producers.sqlite_log import SqliteLog
from ...schemas.policy import PolicySet
from ...schemas.residency_file import residency_of
from ...schemas.settings import Settings
from ...schemas.topics import (
    ALERTS,
    CALLS,
    DEAD_LETTERS,
    FINDINGS,
    METERED,
    PRICE_ROWS,
    REFUSED,
    REQUESTS,
    USAGE,
    USAGE_LEDGER,
    Topic,
)
from ...schemas.usage import BUCKET_S, Usage
from ..aggregate import LIVE_S, RETENTION_S, ScopeSets, UsageKey, UsageState
from ..alert_rows import alert_record
from ..asked_prices import AskedPrices, UnitPrices
from ..brake import GROUP, Brake, judged_by
from ..call_account import CallAccount
from ..ledger import Ledger
from ..letters import Keeper
from ..meter import MeterState, Seen, meter, retention_ms
from ..price_rows import price_record
from ..pricing import PriceBook
from ..residency_alerts import Refusals
from ..series import CALL, History, Series, SeriesState, Values, series_of
from ..topology import METER, SINK
from ..watch import Watch
from .forgetting import fingerprint_key, forgotten_in
from .watching import HEADERS, record, settle, watches

log = structlog.get_logger("tidegate.meter")

_SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS meter_state (
        partition INTEGER PRIMARY KEY, next_offset INTEGER NOT NULL, watermark_s INTEGER NOT NULL, too_old INTEGER NOT NULL,
        totals TEXT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS producers (
        partition INTEGER, producer TEXT, next_seq INTEGER NOT NULL, seen_ms INTEGER NOT NULL, dropped INTEGER NOT NULL,
        PRIMARY KEY (partition, producer)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS usage (
        partition INTEGER, key BLOB, bucket TEXT NOT NULL, start INTEGER NOT NULL, value BLOB NOT NULL,
        PRIMARY KEY (partition, key)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS call_account (
        partition INTEGER, labels TEXT, value BLOB NOT NULL, PRIMARY KEY (partition, labels)) WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS meter_brake (partition INTEGER PRIMARY KEY, stop TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS usage_by_start ON usage (partition, bucket, start)",
)


def _nothing(_step: str) -> None:
    return None


class MeterEngine:
    """The meter over every partition of one data folder's log. Used from one thread.

    `at` is called with the name of each step; a crash test aborts there.
    """

    def __init__(
        self,
        data_dir: Path,
        settings: Settings,
        *,
        policies: PolicySet | None = None,
        at: Callable[[str], None] = _nothing,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._settings = settings
        self._at = at
        self._clock_ms = clock_ms
        self._series = series_of(policies.policies) if policies else {}
        self.book = PriceBook.load(settings.price_file)
        # Only when it was set: an existing folder knows its own number, and says so when another one is asked for.
        partitions = settings.partitions if "partitions" in settings.model_fields_set else None
        self.log = SqliteLog(data_dir, partitions=partitions, fsync=settings.fsync)
        with self.log.transaction():
            for statement in _SCHEMA:
                self.log.db.execute(statement)
        self._scope_sets = ScopeSets(settings.scope_sets)
        self._prices = AskedPrices(self.book)
        self._keeper = Keeper.of(settings, data_dir)
        self._residency = residency_of(settings)
        self.refusals = Refusals(self._residency)
        self._judge = judged_by(settings, self._residency)
        self._watches: dict[int, dict[str, Watch]] = {}
        self._ledgers: dict[int, Ledger] = {}
        # Read once: nobody is forgotten while a node has the folder.
        self._forgotten = forgotten_in(self.log, lambda: fingerprint_key(settings, data_dir))
        with self.log.transaction():
            for partition in range(self.log.partitions):
                self._settle(partition)
        self.states = {partition: self._load(partition) for partition in range(self.log.partitions)}

    def run_once(self) -> int:
        """One flush of every partition that has something to read. Returns how many log records were applied."""
        return sum(self._flush(partition) for partition in self.states)

    def settle(self) -> None:
        """Write all of the ledger now, between two flushes: nobody may come back soon."""
        for partition in self.states:
            self._flush(partition, settling=True)

    def _flush(self, partition: int, *, settling: bool = False) -> int:
        state = self.states[partition]
        now_ms = self._clock_ms()
        records = []
        if not (settling or self._is_stopped(state, now_ms)):
            records = self.log.read(CALLS.name, partition, state.next_offset, max_bytes=self._settings.flush_bytes)
        self._at("1 read")
        due = state.series.due(now_ms) or self._ledgers[partition].is_due(now_ms, everything=settling)
        due = due or state.brake.word(partition, now_ms) is not None
        if not (records or due):
            return 0
        try:
            _, outputs = meter(state, records, self.book, self._settings.max_future_s, self._residency)
            alerts = self.refusals.tell(outputs.crossed, now_ms)
            state.series.expire(now_ms)
            letters = self._keeper.records(outputs.refused)
            ledger = self._ledgers[partition].take(now_ms, everything=settling)
            quotes = list(self.book.quotes)
            prices = price_record(self.book.version, quotes, now_ms)
            self._at("2 step")
            with self.log.transaction():
                for topic, out in (
                    (METERED, outputs.metered),
                    (REQUESTS, outputs.requests),
                    (FINDINGS, outputs.findings),
                    (DEAD_LETTERS, outputs.dead_letters),
                    (USAGE_LEDGER, ledger),
                    (PRICE_ROWS, [prices] if prices else []),
                ):
                    self.log.append(topic.name, partition, ((None, headers, value) for headers, value in out))
                self.log.append(REFUSED.name, partition, letters)
                if alerts:
                    self.log.append(ALERTS.name, 0, [alert_record(alerts)])
                self._tell(state, now_ms)
                self._at("3 append")
                self._store(state)
                self._at("4 store")
            self.refusals.wrote(outputs.crossed)
            state.usage.account.tell(state.usage.account.copies())
            self._at("5 commit")
        except BaseException:
            self.refusals.forget()
            self.states[partition] = self._load(partition)
            raise
        state.flushed()
        for _ in quotes:
            self.book.quotes.popleft()
        return sum(record.offset < state.next_offset for record in records)

    def _is_stopped(self, state: MeterState, now_ms: int) -> bool:
        """Whether the brake holds this partition; lets go of it when a person says so, or after a while."""
        brake, partition = state.brake, state.partition
        if not brake.stopped:
            return False
        allowed = self.log.committed(GROUP, CALLS.name, partition)
        if allowed < state.next_offset:
            if now_ms - (brake.since_ms or 0) < self._settings.brake_hold_s * 1_000:
                return True
            allowed = self.log.end_offset(CALLS.name, partition)
        brake.allow(allowed)
        log.info("meter_goes_on", partition=partition, allowed_below=allowed)
        return False

    def _tell(self, state: MeterState, now_ms: int) -> None:
        brake = state.brake
        if (word := brake.word(state.partition, now_ms)) is None:
            return
        if brake.stopped and brake.since_ms is None:
            log.error("meter_stopped", partition=state.partition, refused=brake.refused, lines=brake.lines)
        brake.heard(now_ms)
        self.log.append(ALERTS.name, 0, [alert_record([word])])

    def stopped(self) -> list[int]:
        """The partitions that the brake holds. From any thread."""
        return [partition for partition, state in list(self.states.items()) if state.brake.stopped]

    def _store(self, state: MeterState) -> None:
        db, partition = self.log.db, state.partition
        changed = [(key, key.dump(), state.usage.live[key].dump()) for key in state.usage.changed]
        db.executemany(
            "INSERT INTO usage VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
            [(partition, stored_key, key.bucket, key.start, value) for key, stored_key, value in changed],
        )
        account = state.usage.account
        db.executemany(
            "INSERT INTO call_account VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
            [(partition, orjson.dumps(labels).decode(), account.sets[labels].dump()) for labels in account.changed],
        )
        headers = {"schema": "usage/1", "source_partition": str(partition), "source_offset": str(state.next_offset - 1)}
        self.log.append(USAGE.name, partition, [(key, headers, value) for key, value in state.series.records()])
        db.executemany(
            "INSERT INTO producers VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET next_seq = excluded.next_seq,"
            " seen_ms = excluded.seen_ms, dropped = excluded.dropped",
            [
                (partition, name, seen.next_seq, seen.seen_ms, seen.dropped)
                for name in state.changed_producers
                if (seen := state.producers[name])
            ],
        )
        db.execute(
            "INSERT INTO meter_state VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset,"
            " watermark_s = excluded.watermark_s, too_old = excluded.too_old, totals = excluded.totals",
            (partition, state.next_offset, state.usage.watermark_s, state.usage.too_old, orjson.dumps(state.totals).decode()),
        )
        if stop := state.brake.memory(self._judge):
            db.execute("INSERT OR REPLACE INTO meter_brake VALUES (?, ?)", (partition, orjson.dumps(stop).decode()))
        else:
            db.execute("DELETE FROM meter_brake WHERE partition = ?", (partition,))
        self.log.commit_offset(METER.name, CALLS.name, partition, state.next_offset)

    def _load(self, partition: int) -> MeterState:
        db = self.log.db

        def load_bucket(key: UsageKey) -> Usage | None:
            row = db.execute("SELECT value FROM usage WHERE partition = ? AND key = ?", (partition, key.dump())).fetchone()
            return Usage.load(row[0]) if row else None

        def load_scope(key: bytes) -> bytes | None:
            record = self.log.last(USAGE.name, partition, key)
            return record.value if record else None

        usage = UsageState(self._scope_sets, load_bucket)
        usage.account.most = self._settings.metrics_label_sets
        usage.account.restore(
            (tuple(orjson.loads(labels)), Usage.load(value))
            for labels, value in db.execute("SELECT labels, value FROM call_account WHERE partition = ?", (partition,))
        )
        series = SeriesState(self._series, load_scope)
        series.restore((record.key or b"", record.value) for record in self.log.keyed(USAGE.name, partition, CALL))
        brake = Brake(self._settings.brake_ratio, self._settings.brake_lines, self.log.committed(GROUP, CALLS.name, partition))
        stop = db.execute("SELECT stop FROM meter_brake WHERE partition = ?", (partition,)).fetchone()
        brake.remember(orjson.loads(stop[0]) if stop else None, self._judge)
        state = MeterState(partition, usage, series, brake=brake, forgotten=self._forgotten)
        row = db.execute(
            "SELECT next_offset, watermark_s, too_old, totals FROM meter_state WHERE partition = ?", (partition,)
        ).fetchone()
        if row is None:
            self._ledgers[partition] = Ledger(state)
            return state
        state.next_offset, usage.watermark_s, usage.too_old = row[:3]
        state.totals = orjson.loads(row[3])
        for name, next_seq, seen_ms, dropped in db.execute(
            "SELECT producer, next_seq, seen_ms, dropped FROM producers WHERE partition = ?", (partition,)
        ):
            state.producers[name] = Seen(next_seq, seen_ms, dropped)
        for bucket, length_s in BUCKET_S.items():
            for key, value in db.execute(
                "SELECT key, value FROM usage WHERE partition = ? AND bucket = ? AND start >= ?",
                (partition, bucket, usage.watermark_s - length_s - LIVE_S[bucket]),
            ):
                usage.live[UsageKey.load(key)] = Usage.load(value)
        self._ledgers[partition] = Ledger(state)
        return state

    def watch(self, *policy_sets: PolicySet) -> None:
        """Count what these policies watch from now on, between two flushes, and forget the rest. What is new counts from
        here; `unseeded` tells what was before."""
        series = series_of(policy for policies in policy_sets for policy in policies.policies)
        before, self._series = self._series, series
        try:
            with self.log.transaction():
                for partition in self.states:
                    self._settle(partition)
        except BaseException:
            self._series = before
            raise
        for state in self.states.values():
            state.series.watch(series)

    def _settle(self, partition: int) -> None:
        row = self.log.db.execute("SELECT next_offset FROM meter_state WHERE partition = ?", (partition,)).fetchone()
        settle(self.log, partition, self._series, row[0] if row else 0)
        self._watches[partition] = watches(self.log, partition)

    def unseeded(self) -> list[tuple[Series, int, Watch]]:
        """The series of which the past is not counted yet, with the partition."""
        return [
            (self._series[name], partition, watch)
            for partition in self.states
            for name, watch in self._watches[partition].items()
            if not watch.complete
        ]

    def stored(self, topic: Topic, partition: int) -> int:
        """Below which offset all of a topic of rows is in the store."""
        return self.log.committed(SINK.name, topic.name, partition)

    def seed(
        self,
        partition: int,
        series_id: str,
        asked: Watch,
        counted: Watch,
        history: list[History],
        top: list[tuple[Values, str, int]],
        now_s: float,
        at: Callable[[str], None] = _nothing,
    ) -> None:
        """Count a part of a series' past, and note that it is `counted`, in one transaction; between two flushes. Nothing
        happens when the series is not watched any more as it was when its past was `asked` for."""
        state = self.states[partition]
        counter = state.series.counters.get(series_id)
        if counter is None or self._watches[partition].get(series_id) != asked:
            return
        try:
            counter.seed(history, top, now_s)
            with self.log.transaction():
                self.log.append(USAGE.name, partition, [(key, HEADERS, value) for key, value in state.series.records()])
                self.log.append(USAGE.name, partition, [record(series_id, counted)])
                at("2 seeded")
            self._watches[partition][series_id] = counted
            at("3 kept")
        except BaseException:
            self.states[partition] = self._load(partition)
            raise
        state.series.flushed()

    def tidy(self, now_ms: int) -> None:
        """Forget what is past its retention; a little at a time, so that nobody waits for it."""
        for partition, state in self.states.items():
            with self.log.transaction():
                for bucket, length_s in BUCKET_S.items():
                    self.log.db.execute(
                        "DELETE FROM usage WHERE partition = ? AND bucket = ? AND start < ?",
                        (partition, bucket, state.usage.watermark_s - length_s - RETENTION_S[bucket]),
                    )
                gone = [name for name, seen in state.producers.items() if seen.seen_ms < now_ms - retention_ms(name)]
                self.log.db.executemany(
                    "DELETE FROM producers WHERE partition = ? AND producer = ?", [(partition, name) for name in gone]
                )
            for name in gone:
                del state.producers[name]

    def usage_of(self, bucket: str, since_s: int) -> Iterator[tuple[UsageKey, Usage]]:
        """Stored usage of one bucket unit from a time on; a source partition each, to be summed by the caller."""
        for key, value in self.log.db.execute(
            "SELECT key, value FROM usage WHERE bucket = ? AND start >= ?", (bucket, since_s)
        ):
            yield UsageKey.load(key), Usage.load(value)

    def unit_prices(self) -> UnitPrices:
        """What a token of each model that was asked costs at most, nano-dollars: (input, output); for gates."""
        return self._prices.of(self.states.values(), datetime.now(UTC))

    def counted(self) -> list[int]:
        """The last offset of each partition that is counted in; -1 where there is none."""
        return [self.states[partition].next_offset - 1 for partition in range(self.log.partitions)]

    def totals(self) -> dict[str, int]:
        """The account of every line that ever came in, over all partitions."""
        sums: dict[str, int] = {}
        for state in self.states.values():
            for name, count in dict(state.totals).items():
                sums[name] = sums.get(name, 0) + count
        return sums

    def accounts(self) -> dict[int, CallAccount]:
        """What is counted of calls, by partition. From any thread, as far as it is told."""
        return {partition: state.usage.account for partition, state in list(self.states.items())}

    def lag(self) -> int:
        """Log records not yet applied."""
        return self.log.lag(METER.name, [CALLS.name])

    def close(self) -> None:
        self.log.close()
