"""The meter of one partition on Kafka, on a wire that answers at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from support import envelope, response
from tidegate.processors.distributed.blocks import source_of
from tidegate.processors.distributed.call_record import CallRecord
from tidegate.processors.distributed.meter_partition import MeterPartition
from tidegate.processors.distributed.wire import Wire
from tidegate.processors.distributed.worker_doors import WorkerMetrics
from tidegate.processors.pricing import PriceBook
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import USAGE, Topic


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

    async def send_rows(self, topic: Topic, partition: int, records: Sequence[Any]) -> list[asyncio.Future[Any]]:
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


def partition_on(wire: PromptWire, usage_partitions: int = 1) -> MeterPartition:
    def failed(error: BaseException) -> None:
        raise AssertionError from error

    settings = Settings(worker_flush_bytes=1)
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
