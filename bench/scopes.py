"""Many scopes: what a live one costs in memory, and whether those at rest cost time.

    calls of 1,000 users ─► series (the meter's side) ─► usage records ─► policies step ─► signals

One budget for each user of each tenant, rolling, on one source partition. The usage topic is a real log on disk; what is
measured is the memory of the two steps, by `tracemalloc`, and the processor time of a flush, from counting the calls to
encoding the signals, without the log's own writing. Nothing here waits.
"""

from __future__ import annotations

import gc
import tempfile
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
from tidegate.processors.policies import HEARTBEAT_S, PoliciesOutputs, PoliciesState, policies
from tidegate.processors.policies import IDLE_S as POLICIES_IDLE_S
from tidegate.processors.series import IDLE_S, SeriesState, series_of
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.hot import decode_event
from tidegate.schemas.policy import Policy, PolicySet
from tidegate.schemas.signal import Signal, decode_signal, signal_key
from tidegate.schemas.topics import SIGNALS, USAGE

from .report import Result, Table
from .rounds import Side, Tick, take_turns
from .traffic import START

LIBRARIES: Final = ("msgspec", "orjson")
TOUCHED: Final = 1_000
_TARGET_B: Final = 2_048
_WINDOW_S: Final = 86_400
# A window's sixtieth; calls one apart fill every bucket.
_BUCKET_S: Final = _WINDOW_S // 60
_POLICIES: Final = PolicySet(
    policies=(
        Policy.model_validate(
            {
                "name": "budget",
                "scope": ["tenant", "user"],
                "measure": "cost_usd",
                "window": {"rolling": _WINDOW_S},
                "limit": 25,
                "action": "block",
            }
        ),
    ),
    version="bench",
)


def run(quick: bool, tick: Tick) -> Result:
    """The tables of this bench."""
    many, few_buckets, rounds = (2_000, 3, 2) if quick else (100_000, 6, 7)
    full = min(many, 5_000)
    rows = []
    for scopes, buckets in ((many, 1), (many, few_buckets), (full, 61)):
        tick(f"memory of {scopes:,} scopes with {buckets} buckets in use")
        found = measure_memory(scopes, buckets)
        both = found.meter_b + found.policies_b
        rows.append(
            (
                f"{scopes:,} scopes, {buckets} of 61 buckets in use",
                f"{found.meter_b:,.0f}",
                f"{found.policies_b:,.0f}",
                f"{both:,.0f}",
                f"≤ {_TARGET_B:,}",
                f"{found.idle_b:,.0f}",
            )
        )
    memory = Table(
        "Memory, bytes a live scope.",
        ("", "the meter's series", "the policies step", "both", "target", "both, once idle"),
        tuple(rows),
    )
    with _world() as small, _world() as large:
        tick(f"{many:,} scopes")
        small.touch(range(TOUCHED))
        for first in range(0, many, TOUCHED):
            large.touch(range(first, first + TOUCHED))
        sides: dict[str, Side] = {
            "small": lambda: small.touch(range(TOUCHED)),
            "large": lambda: large.touch(range(TOUCHED)),
        }
        flush = take_turns(sides, rounds, tick)
        live = large.live()
        large.idle()
        small.idle()
        back = take_turns({"back": lambda: large.come_back(range(TOUCHED))}, rounds, tick)["back"]
    times = Table(
        f"A flush that touches {TOUCHED:,} scopes: microseconds a touched scope, processor time.",
        ("", "µs a touched scope", "÷ no others"),
        (
            ("no others live", f"{flush['small']:.1f}", "1.00"),
            (f"{live[0] - TOUCHED:,} others live", f"{flush['large']:.1f}", f"{flush['large'].per(flush['small']):.2f}"),
            ("all touched ones come back from the log", f"{back:.1f}", ""),
        ),
    )
    return Result(
        (memory, times),
        f"{rounds} rounds after a warm-up; memory once",
        (
            "Every flush tells every touched scope's signal: one flush a heartbeat of 250 ms. The log's writing is not in it.",
            f"Idle: {IDLE_S / 60:.0f} minutes without a call for the meter, {POLICIES_IDLE_S / 60:.0f} for the policies step.",
        ),
        LIBRARIES,
    )


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes a scope, on either side, and of both once all of them have been idle."""

    meter_b: float
    policies_b: float
    idle_b: float


def measure_memory(scopes: int, buckets: int) -> Memory:
    """Fill so many buckets of so many scopes, each by one call."""
    with _world() as world:
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for bucket in range(buckets):
                for first in range(0, scopes, TOUCHED):
                    world.count(range(first, min(first + TOUCHED, scopes)))
                    if bucket < buckets - 1:
                        world.store()
                if bucket < buckets - 1:
                    world.now += _BUCKET_S
            records = world.series.records()
            world.write(records)
            records = []
            world.series.flushed()
            counted = _traced()
            for record in world.log.keyed(USAGE.name, 0, b"["):
                world.policies.hear(0, record.key or b"", record.value, world.now)
            del record
            world.judge()
            judged = _traced()
            if world.live() != (scopes, scopes):
                raise RuntimeError("not every scope is live")
            world.idle()
            left = _traced()
        finally:
            tracemalloc.stop()
    return Memory((counted - before) / scopes, (judged - counted) / scopes, (left - before) / scopes)


def _traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


class World:
    """Both steps on a log of their own. `now` goes on by itself with every flush."""

    def __init__(self, folder: Path) -> None:
        self.log = SqliteLog(folder, fsync="normal")
        self.now = START.timestamp()
        self.series = SeriesState(series_of(_POLICIES.policies), self._usage)
        self.policies = PoliciesState(1, lambda _partition, key: self._usage(key), self._signal)
        self.policies.enforce(_POLICIES, self.now, PoliciesOutputs())
        self._calls = 0

    def _usage(self, key: bytes) -> bytes | None:
        record = self.log.last(USAGE.name, 0, key)
        return record.value if record else None

    def _signal(self, policy: str, values: tuple[str | None, ...]) -> Signal | None:
        record = self.log.last(SIGNALS.name, 0, signal_key(policy, values))
        return decode_signal(record.value) if record else None

    def event(self, number: int) -> Any:
        self._calls += 1
        line = {
            "event": "response", "call_id": f"call-{self._calls}", "started_at": START, "request_model": "gpt-4o",
            "tenant": f"tenant-{number % 100:03}", "user": f"user-{number:06}", "team": f"team-{number % 7}",
        }  # fmt: skip
        return decode_event(orjson.dumps(line))

    def count(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self.series.response(self.event(number), self.now, 1_234_567, False, self.now)

    def write(self, records: list[tuple[bytes, bytes]]) -> None:
        with self.log.transaction():
            self.log.append(USAGE.name, 0, [(key, {}, value) for key, value in records])

    def store(self) -> None:
        self.write(self.series.records())
        self.series.flushed()

    def judge(self) -> list[tuple[bytes, bytes]]:
        _, outputs = policies(self.policies, self.now)
        told = [(signal.key(), msgspec.json.encode(signal)) for signal in outputs.signals]
        with self.log.transaction():
            self.log.append(SIGNALS.name, 0, [(key, {}, value) for key, value in told])
        return told

    def touch(self, numbers: Sequence[int]) -> float:
        """One call of each, one flush of both steps. Microseconds of processor time a scope."""
        self.now += 2 * HEARTBEAT_S
        events = [self.event(number) for number in numbers]
        begun = time.thread_time()
        for event in events:
            self.series.response(event, self.now, 1_234_567, False, self.now)
        records = self.series.records()
        for key, value in records:
            self.policies.hear(0, key, value, self.now)
        _, outputs = policies(self.policies, self.now)
        told = [(signal.key(), msgspec.json.encode(signal)) for signal in outputs.signals]
        took = time.thread_time() - begun
        self.write(records)
        with self.log.transaction():
            self.log.append(SIGNALS.name, 0, [(key, {}, value) for key, value in told])
        self.series.flushed()
        if len(told) != len(numbers):
            raise RuntimeError("not every touched scope was told of")
        return took / len(numbers) * 1e6

    def idle(self) -> None:
        """Nobody calls for as long as it takes until both steps let go of every scope."""
        self.now += IDLE_S + POLICIES_IDLE_S
        self.series.now_s = self.now
        self.series.flushed()
        policies(self.policies, self.now)
        if self.live() != (0, 0):
            raise RuntimeError("idle scopes stay in memory")

    def come_back(self, numbers: Sequence[int]) -> float:
        took = self.touch(numbers)
        self.idle()
        return took

    def live(self) -> tuple[int, int]:
        """How many scopes the meter's side has in memory, and the policies step."""
        return (
            sum(len(counter.live) for counter in self.series.counters.values()),
            sum(len(each.scopes) for each in self.policies.watched.values()),
        )


@contextmanager
def _world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as scratch:
        world = World(Path(scratch))
        try:
            yield world
        finally:
            world.log.close()
