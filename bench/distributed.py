"""The meter on Kafka: envelopes through Faust to priced rows, usage and changelog, all acknowledged.

    the same events:  one a record ──► raw getmany (the yardstick) · a Faust agent that only parses · Quix Streams
                      in envelopes ──► the meter's worker, as `tidegate worker --role meter` runs it

Every side runs in a process of its own, on one core, and takes turns with the others; the broker has the other core. A
side's rate is of the time between its first records and the last; of the meter, between two acknowledgements.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import time
import venv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from tidegate.processors.distributed.call_record import CallRecord
from tidegate.processors.distributed.faust_engine import FaustEngine
from tidegate.processors.distributed.meter_worker import MeterWorker
from tidegate.processors.distributed.wire import Wire
from tidegate.processors.distributed.worker_doors import WorkerMetrics
from tidegate.schemas.envelope import partition_of
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import CALLS, Topic

from .apart import apart
from .kafka.broker import Broker, cache_dir
from .kafka.engine import Workers, make_topics
from .kafka.loading import load_envelopes, load_plain
from .report import Result, Table
from .rounds import Spread, Tick, take_turns
from .traffic import dense, envelopes, lines

LIBRARIES: Final = ("aiokafka", "faust-streaming", "msgspec", "cramjam")
_QUIX: Final = "quixstreams==3.28.1"
_SIZES: Final = (100, 10, 1)
# In a namespace of its own, where the agent that only parses finds it.
_PLAIN: Final = Topic("tidegate.plain", None)
_PLAIN_NAME: Final = "plain.plain"
# Some 25,000 events a fetch, so that the first one, which is not counted, is a small part.
_FETCH_BYTES: Final = 2 << 20
_LONGEST_S: Final = 300.0
# The last flush has nothing behind it to be late for; up to here all are alike.
_MEASURED: Final = 0.95


def run(quick: bool, tick: Tick) -> Result:
    """The tables of this bench. Raises `BrokerUnavailable` without java or mvn."""
    rounds, count, few = (1, 20_000, 3_000) if quick else (5, 200_000, 30_000)
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as scratch, Broker(Path(scratch) / "kafka") as broker:
        tick("loading the events")
        encoded = lines(dense(count))
        load_plain(broker.bootstrap, _PLAIN_NAME, encoded)
        # A turn of the meter needs its input and its changelog as they were: a namespace for each.
        runs: dict[int, list[str]] = {size: [] for size in _SIZES}
        for size in _SIZES:
            for number in range(rounds + 1):
                url = f"kafka://{broker.bootstrap}/e{size}-{number}"
                make_topics(url)
                load_envelopes(url, ((0, one) for one in envelopes(encoded[: count if size > 1 else few], size)))
                runs[size].append(url)
        sides: dict[str, Callable[[], float]] = {"raw": lambda: apart(_raw, broker.bootstrap, count)}
        for size in _SIZES:
            sides[f"meter {size}"] = partial(_metered, runs[size], count if size > 1 else few, size)
        sides["parse"] = lambda: apart(_parse, broker.bootstrap, few)
        tick("a Python of its own for Quix Streams")
        quix = _quix_python()
        if quix is not None:
            sides["quix"] = lambda: _quix_streams(quix, broker.bootstrap, few, Path(scratch))
        found = take_turns(sides, rounds, tick)
        scaled = None if quick else _scaling(broker, encoded, Path(scratch), tick)
    return _result(found, scaled, rounds, count, few, quix is not None)


def _on_one_core() -> None:
    """This process on the last core it may use."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def _raw(bootstrap: str, count: int) -> float:
    _on_one_core()

    async def read() -> float:
        consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, max_partition_fetch_bytes=_FETCH_BYTES)
        await consumer.start()
        try:
            tp = TopicPartition(_PLAIN_NAME, 0)
            consumer.assign([tp])
            consumer.seek(tp, 0)
            seen, first, begun = 0, 0, 0.0
            while seen < count:
                for records in (await consumer.getmany(tp, timeout_ms=1_000)).values():
                    seen += len(records)
                if not begun and seen:
                    first, begun = seen, time.monotonic()
            return (seen - first) / (time.monotonic() - begun)
        finally:
            await consumer.stop()

    return asyncio.run(read())


def _metered(urls: list[str], count: int, size: int) -> float:
    return apart(_meter, urls.pop(), count, size)


def _meter(url: str, count: int, size: int) -> float:
    _on_one_core()

    async def meter() -> float:
        settings = Settings(url=url)
        wrong: list[BaseException] = []
        wire = Wire(settings)
        await wire.start()
        worker = MeterWorker(settings, wire, wrong.append, WorkerMetrics("meter"))
        faust = FaustEngine(settings, CALLS, "meter", worker)
        worker.ends = faust.ends
        await faust.start()
        try:
            last = int((count + size - 1) // size * _MEASURED) - 1
            while not (at_work := worker.partitions()) or at_work[0].told < 0:
                await _look(wrong)
            (partition,) = at_work
            first, begun = partition.told + 1, time.monotonic()
            while partition.told < last:
                await _look(wrong)
            return (partition.told + 1 - first) * size / (time.monotonic() - begun)
        finally:
            await worker.close()
            await faust.stop()
            await wire.stop()

    return asyncio.run(meter())


async def _look(wrong: list[BaseException]) -> None:
    if wrong:
        raise wrong[0]
    await asyncio.sleep(0.002)


class _Parsing:
    """`Hands` that parse and do no more."""

    def __init__(self) -> None:
        self.seen = 0

    async def take(self, _partition: int, record: CallRecord) -> None:
        orjson.loads(record.value)
        record.passed()
        self.seen += 1

    async def assigned(self, partitions: set[int]) -> None:
        pass

    async def revoked(self) -> None:
        pass


def _parse(bootstrap: str, count: int) -> float:
    _on_one_core()

    async def parse() -> float:
        hands = _Parsing()
        faust = FaustEngine(Settings(url=f"kafka://{bootstrap}/plain"), _PLAIN, f"parse-{time.time_ns()}", hands)
        await faust.start()
        try:
            while not hands.seen:
                await asyncio.sleep(0.002)
            first, begun = hands.seen, time.monotonic()
            while hands.seen < count:
                await asyncio.sleep(0.002)
            return (hands.seen - first) / (time.monotonic() - begun)
        finally:
            await faust.stop()

    return asyncio.run(parse())


def _quix_python() -> Path | None:
    """A Python that has Quix Streams beside Tidegate; it wants an older pydantic than we pin. None without an index."""
    folder = cache_dir().parent / f"bench-{_QUIX.replace('==', '-')}"
    python = folder / "bin" / "python"
    if not python.exists():
        root = Path(__file__).parent.parent
        venv.create(folder, with_pip=True)
        wanted = [_QUIX, "msgspec", "genai-prices==0.2.3", "ddsketch", "pydantic-settings", "urllib3", "structlog", "pyyaml"]
        done = subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=False)
        if done.returncode:
            python.unlink()
            return None
        # Tidegate itself as it stands here, by the same name.
        (folder / "tidegate").symlink_to(root)
    return python


def _quix_streams(python: Path, bootstrap: str, count: int, scratch: Path) -> float:
    script = Path(__file__).parent / "kafka" / "quix_side.py"
    command: list[Any] = [python, script, bootstrap, _PLAIN_NAME, count, scratch / f"quix-{time.time_ns()}"]
    environment = {**os.environ, "PYTHONPATH": str(python.parent.parent)}
    done = subprocess.run(
        list(map(str, command)),
        check=True,
        capture_output=True,
        env=environment,
        timeout=_LONGEST_S,
        preexec_fn=_on_one_core,
    )
    return float(done.stdout.split()[-1])


def _scaling(broker: Broker, encoded: list[bytes], scratch: Path, tick: Tick) -> tuple[float, float]:
    """Events a second of one worker with both partitions, and of two workers with one each; no core is set aside."""
    found = []
    for workers in (1, 2):
        tick(f"{workers} worker(s) on two partitions")
        url = f"kafka://{broker.bootstrap}/scale-{workers}"
        make_topics(url, partitions=2)
        producers = [next(name for name in map(str, range(99)) if partition_of(name, 2) == number) for number in (0, 1)]
        half = len(encoded) // 2
        with Workers(url, ("meter",) * workers, scratch) as running:
            load = [
                (number, one)
                for pair in zip(*(envelopes(encoded[:half], 100, name) for name in producers), strict=True)
                for number, one in enumerate(pair)
            ]
            load_envelopes(url, load)
            found.append(_rate(running, half * 2))
    return found[0], found[1]


def _rate(running: Workers, count: int) -> float:
    """Events a second between a tenth and all of them."""
    deadline = time.monotonic() + _LONGEST_S
    while running.metered() < count // 10:
        time.sleep(0.01)
    first, begun = running.metered(), time.monotonic()
    while (now := running.metered()) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"only {now} of {count} events were metered in {_LONGEST_S:g} s")
        time.sleep(0.02)
    return (now - first) / (time.monotonic() - begun)


def _result(
    found: dict[str, Spread], scaled: tuple[float, float] | None, rounds: int, count: int, few: int, with_quix: bool
) -> Result:
    raw, parse = found["raw"], found["parse"]
    quix = found.get("quix")

    def row(what: str, name: str, target: str = "") -> tuple[str, ...]:
        side = found[name]
        return (
            what,
            f"{side:,.0f}",
            f"{side.per(raw):.3f}",
            f"{side.per(parse):.2f}",
            f"{side.per(quix):.2f}" if quix else "–",
            target,
        )

    rows = [
        row("raw `getmany`, one event a record, nothing done", "raw"),
        row("**meter**, envelopes of 100", "meter 100", "≥ 0.15 × raw, reaching for 0.25; ≥ 3 × parsing; ahead of Quix"),
        row("**meter**, envelopes of 10", "meter 10"),
        row("**meter**, one event an envelope", "meter 1"),
        row("a Faust agent a record that only parses", "parse"),
    ]
    if quix:
        rows.append(row("Quix Streams: parse, validate, price, aggregate", "quix"))
    tables = [
        Table(
            "Events a second on one core, the same events, and each as a multiple of three others.",
            ("", "events/s", "× raw getmany", "× parsing agent", "× Quix Streams", "target"),
            tuple(rows),
        )
    ]
    notes = [
        "The meter's figure holds everything: fetch through Faust, decode, validate, price, six scope sets by minute, hour"
        " and day with two latency sketches, priced rows, changelog and progress, all acknowledged (acks=all, zstd).",
        f"One event an envelope, the parsing agent and Quix Streams had {few:,} of the {count:,} events.",
        "The events are those of 20,000 calls a second: a flush is of one minute, as it is when there is as much to do.",
        "Quix Streams calls the same decoder and price book and keeps counters by minute only, without sketches.",
    ]
    if not with_quix:
        notes[-1] = "Quix Streams could not be installed here, and is missing."
    if scaled is not None:
        one, two = scaled
        tables.append(
            Table(
                "Two partitions: one worker has both, or two workers have one each.",
                ("", "events/s", "ratio", "target"),
                (
                    ("one worker", f"{one:,.0f}", "1.00", ""),
                    ("two workers", f"{two:,.0f}", f"{two / one:.2f}", "≥ 1.7 where two cores are free"),
                ),
            )
        )
        notes.append(
            f"The workers, the broker and the loader share {len(os.sched_getaffinity(0))} cores: two are not free here, so the"
            " second table is a lower bound."
        )
    return Result(
        tuple(tables), f"{rounds} rounds after a warm-up, {count:,} events of some 760 bytes", tuple(notes), LIBRARIES
    )
