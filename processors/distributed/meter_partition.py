"""The meter on one partition of `calls`: records wait, a flush applies them together, and only then are they passed.

One flush, numbered as the crash test aborts it:

    1  step        the pure step over what has waited; only memory changes
    2  rows        metered, requests, findings and dead letters are acknowledged
    3  changelog   what changed, and the offset, in one batch, acknowledged
    4  usage       the policies' part of it, and the ledger's, acknowledged
    5  passed      the records may be committed

Steps 2 to 5 of one flush go on while the next one is filled and stepped; each waits for the same step of the one before.
A crash before 3 leaves the old state: the records come again, and give the same rows under the same source offsets. After 3
they are skipped, and what policies may not have heard is told again. If anything fails, memory is ahead of the topic: what
changed in the flush that failed would be missing in the next one. So nothing more is written; the partition must be loaded
again.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog

from ...schemas.errors import TidegateError, UsageError
from ...schemas.residency import CrossRegion, Residency
from ...schemas.settings import Settings
from ...schemas.signal import Alert
from ...schemas.topics import (
    ALERTS,
    CALLS,
    DEAD_LETTERS,
    FINDINGS,
    METER_CHANGELOG,
    METERED,
    PRICE_ROWS,
    REFUSED,
    REQUESTS,
    USAGE,
    USAGE_LEDGER,
)
from ...schemas.usage import Usage
from ..aggregate import ScopeSets
from ..alert_rows import alert_record
from ..brake import Brake, judged_by
from ..call_account import Labels
from ..ledger import Ledger
from ..letters import Keeper
from ..meter import MeterOutputs, Out, meter, retention_ms
from ..price_rows import price_record
from ..pricing import PriceBook, Quote
from ..residency_alerts import Refusals
from ..series import History, ScopeUsage, Series, Values, parse_usage_key
from ..watch import Watch
from . import changelog
from .call_record import CallRecord, call_record
from .meter_brake import Hold, MeterBrake
from .telling import TELL_EVERY_S, Telling, Told
from .waiting import Waiting
from .wire import Wire
from .worker_doors import WorkerMetrics

log = structlog.get_logger("tidegate.meter")

# Flushes on their way at once: enough to hide an acknowledgement's round trip, few enough to bound memory.
_UNDER_WAY: Final = 4
# The first record after a rest waits this long for company.
_GATHER_S: Final = 0.005
# Calls in flight are given up on after minutes; a second more does not matter.
_LOOK_EVERY_S: Final = 1.0
# A scope that nothing counts of takes some 300 bytes; a million of them are looked through in a few hours, 10 ms at a time.
_TIDY_EVERY_S: Final = 30.0
_TIDY_SCOPES: Final = 2_000
# Whatever each event changes, a flush of so many fits in the one batch that it must fit in (`wire.py`).
_MOST_EVENTS: Final = 20_000
# So many ordinary events are 16 MB; of long ones no more than twice that wait behind the brake, in each partition.
_MOST_BYTES: Final = 32 << 20
# A meter that is behind takes so many times as much at once, and as much longer: 16 MB, half a second.
_BEHIND_BITE: Final = 4


Step = Callable[[str], None]


class MeterPartition:
    """One partition's meter. Used from one event loop. `failed` hears of what went wrong, `end_of` knows where a partition of
    `calls` ends, as far as anybody knows, and `hold` keeps records from coming while the brake holds."""

    def __init__(
        self,
        partition: int,
        wire: Wire,
        settings: Settings,
        book: PriceBook,
        usage_partitions: int,
        metrics: WorkerMetrics,
        *,
        failed: Callable[[BaseException], None],
        end_of: Callable[[int], int | None] = lambda _partition: None,
        keeper: Keeper | None = None,
        residency: Residency | None = None,
        refusals: Refusals | None = None,
        hold: Hold = lambda _partition, _held: None,
        at: Step = lambda _step: None,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.partition = partition
        self._metrics = metrics
        self._wire = wire
        self._settings = settings
        self._book = book
        self._failed = failed
        self._end_of = end_of
        self._at = at
        self._clock_ms = clock_ms
        self._telling = Telling(usage_partitions, book)
        self._keeper = keeper if keeper is not None else Keeper(None)
        self._residency = residency
        self._refusals = refusals if refusals is not None else Refusals(residency)
        self._judge = judged_by(settings, residency)
        self._brake = MeterBrake(partition, wire, settings, hold)
        self._series: dict[str, Series] = {}
        self._waiting = Waiting()
        # How many bytes make a flush now.
        self._bite = settings.worker_flush_bytes
        self._arrived = asyncio.Event()
        self._flushed_at = float("-inf")
        self._tidied_at = time.monotonic()
        self._to_look_at: list[bytes] = []
        # Of records that were left in the log behind the brake, what is called once nobody needs them.
        self._left: dict[int, Callable[[], Any]] = {}
        self._taking = asyncio.Lock()
        self._stepping = asyncio.Lock()
        self._under_way: deque[asyncio.Task[None]] = deque()
        self._running: asyncio.Task[None] | None = None
        self._resting = False
        # Closed, or something failed: nothing is written from then on.
        self._ended = False

    @property
    def told(self) -> int:
        """The last offset of which everything is acknowledged; -1 before the first."""
        return self._memory.told

    @property
    def _upto(self) -> int:
        """The last offset that is applied."""
        return self.state.next_offset - 1

    async def load(self, series: dict[str, Series]) -> None:
        """Take up what the changelog says, and start to flush what waits. Raises `UsageError` when it cannot be read."""
        self.changelog_end = await self._wire.end(METER_CHANGELOG, self.partition)
        read = self._wire.follow(METER_CHANGELOG, self.partition, end=self.changelog_end)
        records = [(record.key, record.value) async for record in read]
        try:
            self.state, self._memory = changelog.restore(self.partition, records, ScopeSets(self._settings.scope_sets))
        except (msgspec.MsgspecError, ValueError, LookupError, TypeError, struct.error) as error:
            raise UsageError(
                f"the meter's changelog of partition {self.partition} cannot be read ({type(error).__name__}): it is of another"
                " version of Tidegate, or not ours; run the newest version that has ever run on this namespace"
            ) from error
        self.state.usage.account.most = self._settings.metrics_label_sets
        self._ledger = Ledger(self.state, self._memory.beside)
        self._memory.beside = []
        self.state.brake = Brake(self._settings.brake_ratio, self._settings.brake_lines)
        self.state.brake.remember(self._memory.stop, self._judge)
        self.expected = self.state.next_offset
        self._series = {name: one for name, one in series.items() if name in self._memory.watches}
        self.state.series.watch(self._series)
        self.watch(series)
        self._running = asyncio.create_task(self._run(), name=f"meter-{self.partition}")

    def watch(self, series: dict[str, Series]) -> None:
        """Count these series from the next flush on, and forget the rest."""
        self._wanted = series
        self._arrived.set()

    async def take(self, record: CallRecord) -> None:
        """Take in one record; waits while more is under way than memory should hold."""
        if record.offset <= self.told:
            record.passed()
            return
        async with self._taking:
            if self._is_full() or (record.offset > self.expected and not await self._fetch(self.expected, record.offset)):
                # It is in the log, and read again once the brake lets go.
                self._left[record.offset] = record.passed
                return
            await self._put(record)

    def _is_full(self) -> bool:
        """Behind the brake so much waits that the rest is better left in the log."""
        waiting = self._waiting
        return self.state.brake.stopped and (waiting.events >= _MOST_EVENTS or waiting.size_bytes >= _MOST_BYTES)

    async def _catch_up(self) -> None:
        """Read what was left in the log, for as long as the brake lets it come."""
        async with self._taking:
            if not self._left or self._is_full():
                return
            upto = max(max(self._left) + 1, self.expected)
            # What is expected no more, and did not come, waits in memory already: it is passed once that is acknowledged.
            known = {offset for offset in self._left if offset < self.expected}
            if self.expected < upto and not await self._fetch(self.expected, upto):
                return
            for offset in list(self._left):
                # What the log had not any more, nobody needs.
                if offset <= self.told or offset not in known:
                    self._left.pop(offset)()

    async def _put(self, record: CallRecord) -> None:
        # One that came before and is not acknowledged yet waits with the others: it is skipped, and passed in its turn.
        self._waiting.put(record)
        self.expected = max(self.expected, record.offset + 1)
        self._arrived.set()
        if self.state.brake.stopped:
            return
        if self._waiting.events >= _MOST_EVENTS:
            await self.flush()
        elif self._waiting.size_bytes >= self._bite:
            most = self._settings.worker_flush_bytes
            if self._bite < most * _BEHIND_BITE and self._is_behind():
                self._bite += most
            else:
                await self.flush()

    def _is_behind(self) -> bool:
        """More than a whole flush is left in the log. What is late anyway goes faster in larger bites: of many events of one
        minute each scope is written once."""
        end = self._end_of(self.partition)
        if end is None or not self._waiting:
            return False
        return (end - self.expected) * self._waiting.size_bytes / len(self._waiting) >= self._settings.worker_flush_bytes

    async def _fetch(self, start: int, end: int) -> bool:
        """Records that were not handed over, as happens when a partition changes hands; or that are no more. Whether all of
        them came: not where the brake holds the partition, and enough of it waits."""
        found = 0
        async for record in self._wire.follow(CALLS, self.partition, start, end):
            if self._ended or self._is_full():
                return False
            found += 1
            await self._put(call_record(record, self._left.pop(record.offset, _nothing)))
        if found < end - start:
            # Retention was faster than we: nothing can be done, but it must not pass unseen.
            totals, missing = self.state.totals, end - start - found
            totals["missing_records"] = totals.get("missing_records", 0) + missing
            self._metrics.events.labels("missing_records").inc(missing)
            log.error("calls_missing", partition=self.partition, first=start, last=end - 1, found=found)
        self.expected = max(self.expected, end)
        return True

    async def _run(self) -> None:
        try:
            while not self._ended:
                await self._wait()
                if time.monotonic() - self._tidied_at >= _TIDY_EVERY_S:
                    self._tidied_at = time.monotonic()
                    self.tidy(self._clock_ms())
                await self._brake.look(self.state, self._clock_ms())
                if self._left and not self._resting:
                    await self._catch_up()
                await self.flush()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 — a task's death must be seen by the worker, which then ends
            self._end(error)

    async def _wait(self) -> None:
        """Until something has come and has gathered a little company, or a call in flight may be due."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TELL_EVERY_S if self._telling.owed(self._upto) else _LOOK_EVERY_S):
                await self._arrived.wait()
                gathered_at = max(self._flushed_at + self._settings.flush_s, time.monotonic() + _GATHER_S)
                await asyncio.sleep(gathered_at - time.monotonic())
                if self._is_behind():
                    await asyncio.sleep(self._settings.flush_s * (_BEHIND_BITE - 1))

    async def flush(self, *, everything: bool = False) -> None:
        """Apply what has waited, and see it on its way; `everything`: all of the ledger, too."""
        try:
            await self._flush(everything)
        except BaseException as error:
            self._end(error)
            raise

    def _end(self, error: BaseException) -> None:
        """Write nothing from here on, and say why."""
        if not self._ended:
            self._ended = True
            self._failed(error)

    async def _flush(self, everything: bool = False) -> None:
        async with self._stepping:
            while len(self._under_way) >= _UNDER_WAY:
                await self._under_way[0]
                # One that is done is taken off in the loop's next turn, and to wait for it gives the loop none.
                await asyncio.sleep(0)
            self._arrived.clear()
            if self._ended or self._resting:
                return
            if self._wanted is not self._series:
                await self._settle(self._wanted)
            most = self._settings.worker_flush_bytes
            records = [] if self.state.brake.stopped else self._waiting.take(most * _BEHIND_BITE, _MOST_EVENTS)
            if records and self._waiting:
                # Behind a brake more has come than one flush should hold.
                self._arrived.set()
            self._bite = most
            now_ms = self._clock_ms()
            if (
                not records
                and not self.state.series.due(now_ms)
                and not self._memory.changed
                and not self.state.changed_producers
                and not self._telling.owed(self._upto, TELL_EVERY_S)
                and self.state.brake.stopped == (self._memory.stop is not None)
                and self.state.brake.word(self.partition, now_ms) is None
                and not self._ledger.is_due(now_ms, everything=everything)
            ):
                return
            self._flushed_at = time.monotonic()
            before_totals = dict(self.state.totals)
            _, outputs = meter(self.state, records, self._book, self._settings.max_future_s, self._residency)
            if self.state.brake.stopped:
                # What it has left waits on.
                self._waiting.put_back([record for record in records if record.offset > self._upto])
                records = [record for record in records if record.offset <= self._upto]
            self.state.series.expire(now_ms)
            for outcome, count in self.state.totals.items():
                if more := count - before_totals.get(outcome, 0):
                    self._metrics.events.labels(outcome).inc(more)
            self._at("1 step")
            alerts = self._refusals.tell(outputs.crossed, now_ms)
            brake = self.state.brake
            if (word := brake.word(self.partition, now_ms)) is not None:
                brake.heard(now_ms)
                alerts = [*alerts, word]
            self._memory.stop = brake.memory(self._judge)
            ledger = self._ledger.take(now_ms, everything=everything)
            written, heard = changelog.changes(self.state, self._memory)
            account = self.state.usage.account.copies()
            changelog.flushed(self.state, self._memory)
            flush = _Flush(
                self._flushed_at,
                records,
                written,
                self._telling.blocks(self.state, self._memory, heard),
                self._upto,
                await self._send_rows(outputs, alerts, now_ms),
                ledger,
                outputs.crossed,
                account,
            )
            before = self._under_way[-1] if self._under_way else None
            task = asyncio.create_task(self._see_off(flush, before), name=f"flush-{self.partition}")
            task.add_done_callback(self._seen_off)
            self._under_way.append(task)

    async def _send_rows(self, outputs: MeterOutputs, alerts: Sequence[Alert], now_ms: int) -> list[asyncio.Future[Any]]:
        acknowledged: list[asyncio.Future[Any]] = []
        if alerts:
            _, headers, rows = alert_record(alerts)
            acknowledged += await self._wire.send_rows(ALERTS, 0, [(headers, rows)])
        for topic, out in (
            (METERED, outputs.metered),
            (REQUESTS, outputs.requests),
            (FINDINGS, outputs.findings),
            (DEAD_LETTERS, outputs.dead_letters),
        ):
            if out:
                acknowledged += await self._wire.send_rows(topic, self.partition, out)
        if quotes := list(self._book.quotes):
            self._book.quotes.clear()
            if found := price_record(self._book.version, quotes, now_ms):
                acknowledged.append(asyncio.create_task(self._send_prices(quotes, found)))
        # A second of work where a service sends nothing but nonsense; heartbeats go on meanwhile.
        if outputs.refused and (letters := await asyncio.to_thread(self._keeper.records, outputs.refused)):
            named = [(headers | {"letter": key.decode()}, value) for key, headers, value in letters]
            acknowledged += await self._wire.send_rows(REFUSED, self.partition, named, lambda one: one["letter"].encode())
        return acknowledged

    async def _send_prices(self, quotes: Sequence[Quote], found: Out) -> None:
        """Send what prices were found. The book tells each of them once: it gets back what is not acknowledged."""
        try:
            for acknowledged in await self._wire.send_rows(PRICE_ROWS, self.partition, [found]):
                await acknowledged
        except BaseException:
            self._book.quotes.extendleft(reversed(quotes))
            raise

    async def _see_off(self, flush: _Flush, before: asyncio.Task[None] | None) -> None:
        for acknowledged in flush.rows:
            await acknowledged
        self._at("2 rows")
        if before is not None:
            await before
        sent = await (await self._wire.send_flush(METER_CHANGELOG, self.partition, flush.written))
        if sent.offset >= 0 and sent.offset != self.changelog_end:
            raise Interloper(f"another worker writes for partition {self.partition}; loading it again")
        self.changelog_end += len(flush.written)
        self._refusals.wrote(flush.crossed)
        self.state.usage.account.tell(flush.account)
        self._at("3 changelog")
        for partition, blocks in flush.blocks:
            for acknowledged in await self._wire.send_rows(USAGE, partition, blocks):
                await acknowledged
        # Not before the changelog: what is counted beside a bucket must not come again under another number.
        for acknowledged in await self._wire.send_rows(USAGE_LEDGER, self.partition, flush.ledger):
            await acknowledged
        self._memory.told = flush.offset
        self._metrics.flush_seconds.observe(time.monotonic() - flush.begun)
        self._at("4 usage")
        for record in flush.records:
            record.passed()
        self._at("5 passed")

    def _seen_off(self, task: asyncio.Task[None]) -> None:
        with contextlib.suppress(ValueError):
            self._under_way.remove(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._end(error)

    async def _settle(self, series: dict[str, Series]) -> None:
        """Watch these series from here on, and forget all others."""
        memory = self._memory
        for gone in memory.watches.keys() - series.keys():
            memory.forget(gone)
        new = [name for name in series if name not in memory.watches]
        if new:
            # All rows below our offset are in the topic once what is under way is.
            await self._let_go()
            metered, findings = [await self._wire.end(topic, self.partition) for topic in (METERED, FINDINGS)]
            for name in new:
                memory.note(name, Watch(self.state.next_offset, metered, findings=findings))
        self._series = series
        self.state.series.watch(series)

    def unseeded(self) -> list[tuple[Series, Watch]]:
        """The series of which the past is not counted yet."""
        watches = self._memory.watches
        return [(one, watches[name]) for name, one in self._series.items() if not watches[name].complete]

    def seed(
        self,
        series_id: str,
        asked: Watch,
        counted: Watch,
        history: list[History],
        top: list[tuple[Values, str, int]],
        now_s: float,
    ) -> None:
        """Count a part of a series' past, and note that it is `counted`; both are in the next flush, which is one batch.
        Nothing happens when the series is not watched any more as it was when its past was `asked` for."""
        counter = self.state.series.counters.get(series_id)
        if counter is not None and self._memory.watches.get(series_id) == asked:
            counter.seed(history, top, now_s)
            self._memory.note(series_id, counted)
            self._arrived.set()

    def tidy(self, now_ms: int) -> None:
        """Forget producers that are gone, and scopes of which nothing counts any more; some at a time."""
        for name, seen in list(self.state.producers.items()):
            if seen.seen_ms < now_ms - retention_ms(name):
                del self.state.producers[name]
                self.state.changed_producers.add(name)
        if not self._to_look_at:
            self._to_look_at = list(self._memory.scopes)
        some, self._to_look_at = self._to_look_at[:_TIDY_SCOPES], self._to_look_at[_TIDY_SCOPES:]
        for key in some:
            value, parsed = self._memory.scopes.get(key), parse_usage_key(key)
            if value is None or parsed is None or parsed[0] not in self._series:
                continue
            if parsed[1] in self.state.series.counters[parsed[0]].live:
                continue
            scope = ScopeUsage.load(self._series[parsed[0]], value)
            if not scope.reserved and scope.ring.is_idle(now_ms / 1_000):
                self._memory.lapse(key)

    async def _let_go(self) -> None:
        """Wait for every flush that is under way."""
        while self._under_way:
            await self._under_way[0]
            await asyncio.sleep(0)

    async def _flush_all(self) -> None:
        """Apply all that waits, but what the brake holds."""
        await self.flush()
        left = 0
        while len(self._waiting) not in (0, left):
            left = len(self._waiting)
            await self.flush()
        await self.flush(everything=True)

    async def drain(self) -> None:
        """Flush what waits, and wait until all of it is acknowledged."""
        await self._flush_all()
        await self._let_go()

    async def rest(self) -> None:
        """The same, and write nothing until `go_on`: between two generations of a group a partition is nobody's."""
        await self._flush_all()
        async with self._stepping:
            await self._let_go()
            self._resting = True

    def go_on(self) -> None:
        self._resting = False
        self._arrived.set()

    async def close(self) -> None:
        """Stop at once, without flushing."""
        self._ended = True
        tasks = [task for task in (self._running, *self._under_way) if task is not None]
        self._running = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Interloper(TidegateError):
    """Somebody else has written to a changelog that is ours: one of us was frozen, and does not know."""


@dataclass(frozen=True, slots=True)
class _Flush:
    begun: float
    records: list[CallRecord]
    written: list[changelog.Change]
    blocks: Told
    offset: int
    rows: list[asyncio.Future[Any]]
    ledger: list[Out]
    crossed: list[CrossRegion]
    account: dict[Labels, Usage]


def _nothing() -> None:
    return None
