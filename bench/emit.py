"""What emitting costs the caller, against aiokafka's own `send` to a real broker.

    a service's event loop:  calls ─ pause ─ calls …    one side's turn, then the next one's
        emit(dict), folder   encode, queue; a thread writes to the data folder's log
        emit(dict), Kafka    encode, queue; a thread makes envelopes, another sends them to the broker
        await send(bytes)    batch, in this loop; sockets to the broker, in this loop

aiokafka is given the bytes, already encoded: its best case. The pause lets all of them do their work, as the pauses of a
service do; what they do in it shows in the processor time, which is of the whole process.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.codec import has_zstd
from tidegate.producers.emitter import Emitter
from tidegate.producers.kafka_log import KafkaLog
from tidegate.producers.local_log import LocalLog
from tidegate.schemas.kafka_url import KafkaAddress
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import CALLS

from .kafka.broker import Broker
from .report import Result, Table
from .rounds import WARM_UP, Spread, Tick
from .traffic import calls, lines

LIBRARIES: Final = ("aiokafka", "orjson", "msgspec")
_TOPIC: Final = "bench.emit"
# In the order of the columns.
_FOLDER, _KAFKA, _SEND = SIDES = ("`emit(dict)`, folder", "`emit(dict)`, Kafka", "`await send(bytes)`")


@dataclass(frozen=True, slots=True)
class Pattern:
    """How calls come: `burst` of them, then a pause, again and again."""

    name: str
    burst: int
    pause_s: float
    quick_events: int
    events: int


# Both far below what either side can carry: this is about what a call feels, not about throughput.
_PATTERNS: Final = (
    Pattern("in bursts of 50 with 10 ms between", 50, 0.01, 1_000, 10_000),
    Pattern("one at a time with 1 ms between", 1, 0.001, 200, 1_500),
)
# Large enough that no burst waits for a full batch: aiokafka's best case.
_KAFKA_BATCH_BYTES: Final = 262_144


@dataclass(frozen=True, slots=True)
class Cost:
    """One side in one round, microseconds an event."""

    median_us: float
    mean_us: float
    p99_us: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Costs:
    """One side in all rounds."""

    median: Spread
    mean: Spread
    p99: Spread
    cpu: Spread

    @classmethod
    def of(cls, costs: list[Cost]) -> Costs:
        return cls(
            Spread(tuple(cost.median_us for cost in costs)),
            Spread(tuple(cost.mean_us for cost in costs)),
            Spread(tuple(cost.p99_us for cost in costs)),
            Spread(tuple(cost.cpu_us for cost in costs)),
        )


def run(quick: bool, tick: Tick) -> Result:
    """The tables of this bench. Raises `BrokerUnavailable` without java or mvn."""
    rounds = 2 if quick else 7
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as scratch:
        tick("starting a broker")
        with Broker(Path(scratch) / "kafka") as broker:
            found = asyncio.run(_measure(broker.bootstrap, Path(scratch) / "data", quick, rounds, tick))
    return _result(found, quick, rounds)


# One run of one side.
Run = Callable[[list[bytes], Pattern], Awaitable[Cost]]


async def _measure(bootstrap: str, data_dir: Path, quick: bool, rounds: int, tick: Tick) -> dict[str, dict[str, Costs]]:
    """For each pattern what each side costs."""
    settings = Settings(url=f"kafka://{bootstrap}")
    log = KafkaLog(settings)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    ours = KafkaAddress.parse(settings.url).topic(CALLS)
    await admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1) for name in (_TOPIC, ours)])
    await admin.close()
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        enable_idempotence=True,
        acks="all",
        linger_ms=5,
        compression_type="zstd" if has_zstd() else None,
        max_batch_size=_KAFKA_BATCH_BYTES,
    )
    await producer.start()
    to_folder, to_kafka = Emitter(LocalLog(data_dir), settings=settings), Emitter(log, settings=settings)
    sides: dict[str, Run] = {
        _FOLDER: lambda encoded, pattern: _emitting(to_folder, encoded, pattern),
        _KAFKA: lambda encoded, pattern: _emitting(to_kafka, encoded, pattern),
        _SEND: lambda encoded, pattern: _sending(producer, encoded, pattern),
    }
    try:
        return {pattern.name: await _compare(sides, pattern, quick, rounds, tick) for pattern in _PATTERNS}
    finally:
        await producer.stop()
        await to_folder.aclose()
        await to_kafka.aclose()


async def _compare(sides: dict[str, Run], pattern: Pattern, quick: bool, rounds: int, tick: Tick) -> dict[str, Costs]:
    encoded = lines(calls(pattern.quick_events if quick else pattern.events))
    found: dict[str, list[Cost]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in reversed(list(sides)) if number % 2 else sides:
            tick(f"{pattern.name}: {f'round {number} of {rounds}' if number else WARM_UP}: {name}")
            cost = await sides[name](encoded, pattern)
            if number:
                found[name].append(cost)
    return {name: Costs.of(costs) for name, costs in found.items()}


async def _emitting(emitter: Emitter, encoded: list[bytes], pattern: Pattern) -> Cost:
    emit, clock = emitter.emit, time.perf_counter_ns

    async def burst(dicts: list[dict[str, Any]], _made: list[bytes], took: list[int]) -> None:
        for event in dicts:
            begun = clock()
            accepted = emit(event)
            took.append(clock() - begun)
            if not accepted:
                raise RuntimeError(f"the emitter dropped an event: {emitter.stats().dropped}")

    async def settle() -> None:
        if not await emitter.aflush(60):
            raise RuntimeError("the log has not taken everything after a minute")

    return await _round(encoded, pattern, burst, settle)


async def _sending(producer: AIOKafkaProducer, encoded: list[bytes], pattern: Pattern) -> Cost:
    send, clock = producer.send, time.perf_counter_ns

    async def burst(_dicts: list[dict[str, Any]], made: list[bytes], took: list[int]) -> None:
        for line in made:
            begun = clock()
            await send(_TOPIC, line)
            took.append(clock() - begun)

    async def settle() -> None:
        await producer.flush()

    return await _round(encoded, pattern, burst, settle)


Burst = Callable[[list[dict[str, Any]], list[bytes], list[int]], Awaitable[None]]


async def _round(encoded: list[bytes], pattern: Pattern, burst: Burst, settle: Callable[[], Awaitable[None]]) -> Cost:
    took: list[int] = []
    making = 0.0
    cpu = time.process_time()
    for first in range(0, len(encoded), pattern.burst):
        # Made just before, as a service has just made its event: what is in the processor's cache is then as in life.
        begun = time.thread_time()
        made = [bytes(bytearray(line)) for line in encoded[first : first + pattern.burst]]
        dicts = [orjson.loads(line) for line in made]
        making += time.thread_time() - begun
        await burst(dicts, made, took)
        await asyncio.sleep(pattern.pause_s)
    await settle()
    cpu = time.process_time() - cpu - making
    took.sort()
    return Cost(
        median_us=took[len(took) // 2] / 1e3,
        mean_us=sum(took) / len(took) / 1e3,
        p99_us=took[int(len(took) * 0.99)] / 1e3,
        cpu_us=cpu / len(encoded) * 1e6,
    )


def _result(found: dict[str, dict[str, Costs]], quick: bool, rounds: int) -> Result:
    def row(what: str, costs: dict[str, Costs], figure: Callable[[Costs], Spread], target: str = "") -> tuple[str, ...]:
        folder, kafka, send = (figure(costs[side]) for side in SIDES)
        ratios = f"{folder.per(send):.2f}", f"{kafka.per(send):.2f}"
        return what, f"{folder:.2f}", f"{kafka:.2f}", f"{send:.2f}", *ratios, target

    tables = tuple(
        Table(
            f"Calls {name}: microseconds an event.",
            ("", *SIDES, "folder ÷ `send`", "Kafka ÷ `send`", "target"),
            (
                row("the caller waits, median", costs, lambda cost: cost.median, "≤ 0.5"),
                row("the caller waits, mean", costs, lambda cost: cost.mean),
                row("the caller waits, 99th percentile", costs, lambda cost: cost.p99),
                row("processor time of the process, until all is durable", costs, lambda cost: cost.cpu),
            ),
        )
        for name, costs in found.items()
    )
    compression = "zstd" if has_zstd() else "no compression (aiokafka's codecs are not installed)"
    events = " and ".join(f"{pattern.quick_events if quick else pattern.events:,}" for pattern in _PATTERNS)
    return Result(
        tables,
        f"{rounds} rounds after a warm-up, each {events} events a side",
        (
            f"`send` is aiokafka's best case: bytes already encoded, batches of {_KAFKA_BATCH_BYTES // 1024} KiB, linger 5 ms,"
            f" idempotent, acks=all, {compression}, a broker on loopback. `emit` encodes the dict; to Kafka it does so with the"
            f" same settings, and lingers {Settings.model_fields['linger_s'].default * 1e3:g} ms.",
            "Processor time: `emit` includes validation. Into a folder it includes writing the SQLite log (fsync=full), which"
            " is all there is; on Kafka the broker writes, whose time is not counted.",
        ),
        LIBRARIES,
    )
