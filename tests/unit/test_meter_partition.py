"""The meter of one partition on Kafka, on a wire that answers at once."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
from support import envelope, response
from tidegate.processors.brake import Brake
from tidegate.processors.distributed import meter_partition
from tidegate.processors.distributed.blocks import source_of
from tidegate.processors.distributed.call_record import CallRecord
from tidegate.processors.distributed.meter_partition import MeterPartition
from tidegate.processors.distributed.wire import Wire
from tidegate.processors.distributed.worker_doors import WorkerMetrics
from tidegate.processors.pricing import PriceBook
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import ALERTS, CALLS, METER_CHANGELOG, PRICE_ROWS, USAGE, Topic


class PromptWire:
    """Everything is acknowledged by the time it is sent; nothing was ever said before. `usage`: offsets told to policies."""

    def __init__(self) -> None:
        self.usage: list[tuple[int, int]] = []

    async def follow(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        for nothing in ():
            yield nothing

    async def end(self, *_: Any, **__: Any) -> int:
        return 0

    async def committed(self, *_: Any, **__: Any) -> int:
        return 0

    async def send_rows(self, topic: Topic, partition: int, records: Sequence[Any], *_: Any) -> list[asyncio.Future[Any]]:
        if topic is USAGE:
            self.usage += [(partition, source_of(headers)[1]) for headers, _ in records]
        return [_done(None)]

    async def send_flush(self, *_: Any) -> asyncio.Future[Any]:
        return _done(_Sent())


class _Sent:
    offset = -1  # as a broker says that has forgotten where it put it


def _done(result: Any) -> asyncio.Future[Any]:
    found = asyncio.get_running_loop().create_future()
    found.set_result(result)
    return found


def partition_on(wire: PromptWire, usage_partitions: int = 1, **more: Any) -> MeterPartition:
    def failed(error: BaseException) -> None:
        raise AssertionError from error

    settings = Settings(worker_flush_bytes=1, **more)
    metrics = WorkerMetrics("meter")
    return MeterPartition(0, cast(Wire, wire), settings, PriceBook.load(None), usage_partitions, metrics, failed=failed)


def record(offset: int, line: Any) -> CallRecord:
    sent = envelope("service", offset, [line])
    return CallRecord(offset, 1_793_606_400_000, sent.value, sent.headers(), lambda: None)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Ends what would never give the event loop a turn again."""

    def over(*_: Any) -> None:
        raise TimeoutError(f"not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_flushes_that_are_acknowledged_at_once_do_not_keep_the_worker_busy_for_ever() -> None:
    async def scene() -> int:
        partition = partition_on(PromptWire())
        await partition.load({})
        for offset in range(50):
            await partition.take(record(offset, response(f"call-{offset}")))
        await partition.drain()
        await partition.close()
        return partition.told

    with within(30):
        told = asyncio.run(scene())

    assert told == 49


def test_what_waited_behind_the_brake_is_applied_a_bite_at_a_time_and_all_of_it() -> None:
    async def scene() -> tuple[int, int]:
        partition = partition_on(PromptWire())
        await partition.load({})
        partition.state.brake.stopped = True
        for offset in range(50):
            await partition.take(record(offset, response(f"call-{offset}")))

        partition.state.brake.allow(50)
        await partition.flush()
        after_one = partition.state.next_offset
        await partition.drain()
        await partition.close()
        return after_one, partition.told

    with within(30):
        after_one, told = asyncio.run(scene())

    assert 0 < after_one < 10
    assert told == 49


class Log(PromptWire):
    """A partition of calls that can be read again; how often its records were."""

    def __init__(self, records: Sequence[CallRecord]) -> None:
        super().__init__()
        self.records = records
        self.read = 0

    async def follow(
        self, topic: Topic, partition: int, start: int | None = None, end: int | None = None
    ) -> AsyncIterator[Any]:
        for one in self.records[start:end] if topic is CALLS else ():
            self.read += 1
            headers = [(name, value.encode()) for name, value in one.headers.items()]
            yield SimpleNamespace(offset=one.offset, timestamp=one.appended_ms, value=one.value, headers=headers)


@pytest.mark.parametrize("bound", ["_MOST_EVENTS", "_MOST_BYTES"])
def test_behind_the_brake_no_more_waits_in_memory_than_is_bearable_and_the_rest_is_read_again(
    monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    passed: list[int] = []
    records = [
        replace(record(offset, response(f"call-{10 + offset}")), passed=partial(passed.append, offset)) for offset in range(60)
    ]
    ten = {"_MOST_EVENTS": 10, "_MOST_BYTES": sum(len(one.value) for one in records[:10])}
    monkeypatch.setattr(meter_partition, bound, ten[bound])

    async def scene() -> tuple[int, int, dict[str, int]]:
        wire = Log(records)
        partition = partition_on(wire)
        await partition.load({})
        brake = partition.state.brake
        brake.stopped = True
        # Of forty nobody brought us any, as when the partition changes hands; the last twenty come.
        for one in records[40:]:
            await partition.take(one)
        held, read = len(partition._waiting), wire.read
        brake.allow(60)
        deadline = time.monotonic() + 20
        while partition.told < 59 and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        await partition.drain()
        await partition.close()
        return held, read, partition.state.totals

    with within(30):
        held, read, totals = asyncio.run(scene())

    assert (held, read) == (10, 11)
    assert (totals["responses"], totals.get("missing_records", 0), totals.get("duplicates", 0)) == (60, 0, 0)
    assert passed == list(range(40, 60))


def test_what_comes_again_behind_the_brake_is_not_passed_before_it_is_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter_partition, "_MOST_EVENTS", 10)
    passed: list[int] = []
    records = [
        replace(record(offset, response(f"call-{offset}")), passed=partial(passed.append, offset)) for offset in range(10)
    ]

    async def scene() -> tuple[list[int], list[int]]:
        partition = partition_on(Log(records))
        await partition.load({})
        running = partition._running
        assert running is not None
        running.cancel()
        await asyncio.wait({running})
        brake = partition.state.brake
        brake.stopped, brake.since_ms = True, time.time_ns() // 1_000_000
        # They fill what may wait, and come once more after a rebalance that left the partition ours.
        for one in records * 2:
            await partition.take(one)
        brake.allow(10)
        # As in the loop: a part of them is applied before the next look at what was left.
        await partition.flush()
        await partition._catch_up()
        early = [offset for offset in passed if offset > partition.told]
        await partition.drain()
        await partition._catch_up()
        await partition.close()
        return early, sorted(passed)

    with within(30):
        early, after = asyncio.run(scene())

    assert early == []
    assert after == sorted([*range(10)] * 2)


def test_a_stop_is_an_alert_once_and_a_worker_that_begins_knows_since_when_and_why_and_when_it_is_over() -> None:
    bad = [envelope(name, 0, [{"event": "nonsense"}] * 150) for name in ("one", "other")]
    records = [CallRecord(offset, 1_793_606_400_000, one.value, one.headers(), lambda: None) for offset, one in enumerate(bad)]

    class Kept(PromptWire):
        """Its changelog and its alerts stay."""

        def __init__(self) -> None:
            super().__init__()
            self.changelog: list[tuple[bytes, bytes | None]] = []
            self.alerts: list[dict[str, Any]] = []

        async def follow(self, topic: Topic, *_: Any, **__: Any) -> AsyncIterator[Any]:
            for key, value in self.changelog if topic is METER_CHANGELOG else ():
                yield SimpleNamespace(key=key, value=value)

        async def send_rows(
            self, topic: Topic, partition: int, records: Sequence[Any], *more: Any
        ) -> list[asyncio.Future[Any]]:
            if topic is ALERTS:
                self.alerts += [orjson.loads(line) for _, value in records for line in value.splitlines()]
            return await super().send_rows(topic, partition, records)

        async def send_flush(self, topic: Topic, partition: int, changes: Any) -> asyncio.Future[Any]:
            self.changelog += changes
            return await super().send_flush()

    async def scene() -> tuple[Kept, Brake, Brake, Brake]:
        wire = Kept()
        first = partition_on(wire, brake_hold_s=10**9)
        await first.load({})
        for one in records:
            await first.take(one)
        await first.drain()
        await first.close()
        again, other = partition_on(wire, brake_hold_s=10**9), partition_on(wire, max_future_s=1.0)
        await again.load({})
        await again.drain()
        await again.close()
        stops = len(wire.alerts)
        await other.load({})
        await other.drain()
        await other.close()
        assert stops == 1
        return wire, first.state.brake, again.state.brake, other.state.brake

    with within(30):
        wire, first, again, other = asyncio.run(scene())

    alert, over = wire.alerts
    assert (alert["kind"], alert["severity"]) == ("meter_stopped", "critical")
    assert "tidegate dlq resume" in alert["title"]
    assert first.stopped
    assert first.since_ms is not None
    assert (again.stopped, again.since_ms, again.lines, again.refused) == (True, first.since_ms, first.lines, first.refused)
    # Lines are judged by other settings now: they are judged anew, and the incident is over.
    assert not other.stopped
    assert (over["key"], over["severity"]) == (alert["key"], "info")


def test_policies_hear_how_far_the_meter_is_though_nothing_of_theirs_came_last() -> None:
    async def scene() -> None:
        wire = PromptWire()
        partition = partition_on(wire, usage_partitions=2)
        await partition.load({})

        await partition.take(record(0, response()))
        await partition.take(record(1, b"junk"))  # at once after it, and of no scope
        async with asyncio.timeout(20):
            while {(0, 1), (1, 1)} - set(wire.usage):
                await asyncio.sleep(0.01)
        told = len(wire.usage)
        await partition.drain()
        await partition.close()

        assert len(wire.usage) == told, "it is told once"

    asyncio.run(scene())


def test_prices_that_were_not_acknowledged_are_told_by_the_next_who_meters() -> None:
    class Failing(PromptWire):
        def __init__(self, error: Exception | None) -> None:
            super().__init__()
            self.error = error
            self.prices: list[dict[str, Any]] = []

        async def send_rows(
            self, topic: Topic, partition: int, records: Sequence[Any], *more: Any
        ) -> list[asyncio.Future[Any]]:
            if topic is PRICE_ROWS and self.error is not None:
                lost = asyncio.get_running_loop().create_future()
                lost.set_exception(self.error)
                return [lost]
            if topic is PRICE_ROWS:
                self.prices += [orjson.loads(line) for _, value in records for line in value.splitlines()]
            return await super().send_rows(topic, partition, records, *more)

    async def meter(wire: Failing, book: PriceBook) -> list[BaseException]:
        failures: list[BaseException] = []
        settings, metrics = Settings(worker_flush_bytes=1), WorkerMetrics("meter")
        partition = MeterPartition(0, cast(Wire, wire), settings, book, 1, metrics, failed=failures.append)
        await partition.load({})
        await partition.take(record(0, response()))
        with suppress(ConnectionError):
            await partition.drain()
        await partition.close()
        return failures

    book, wire = PriceBook.load(None), Failing(None)
    lost = ConnectionError("the broker is away")

    failures = asyncio.run(meter(Failing(lost), book))
    untold = [(quote.provider_name, quote.model) for quote in book.quotes]
    asyncio.run(meter(wire, book))

    assert failures == [lost]
    assert untold
    assert [(row["provider_name"], row["model"]) for row in wire.prices if not row["above_input_tokens"]] == untold
    assert not book.quotes


class SlowChangelog(PromptWire):
    """A broker that acknowledges a changelog's batches only when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.may = asyncio.Event()

    async def send_flush(self, *_: Any) -> asyncio.Future[Any]:
        async def acknowledged() -> Any:
            await self.may.wait()
            return _Sent()

        return asyncio.ensure_future(acknowledged())


def test_prometheus_is_told_of_calls_once_the_changelog_has_them() -> None:
    """Were it told before, a worker that ends then would seem to have been reset, and all of its account counted anew."""

    async def scene() -> list[int]:
        wire = SlowChangelog()
        partition = partition_on(wire)
        await partition.load({})
        await partition.take(record(0, response("call-0")))
        await partition.flush()
        account = partition.state.usage.account
        before = sum(usage.counts[0] for usage in account.told.values())
        counted = sum(usage.counts[0] for usage in account.sets.values())
        wire.may.set()
        await partition.drain()
        after = sum(usage.counts[0] for usage in account.told.values())
        await partition.close()
        return [counted, before, after]

    with within(30):
        found = asyncio.run(scene())

    assert found == [1, 0, 1]
