"""How long after a call is reported a gate in another process is closed, when that call was the one too many.

    publisher process:  emit ─► log            each round a fresh tenant, whose only call is beyond its limit
    node, or workers on Kafka:  meter ─► policies ─► signals
    this process:                                      gate.check … until it says block

Idle, and beside simulated traffic at half of what the node meters at most. Where the time goes, stage by stage: the
emitter tells when the event was in the log, the signal when it was judged, the source when it was heard. All on one machine,
so monotonic time is the same for everybody.
"""

from __future__ import annotations

import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Final

import orjson
from tidegate.producers.connect import connect
from tidegate.producers.decision import Estimate
from tidegate.producers.gate import Gate
from tidegate.producers.http_signals import HttpSignals
from tidegate.producers.kafka_signals import KafkaSignals
from tidegate.producers.local_signals import LocalSignals
from tidegate.producers.ports import Position
from tidegate.producers.signals import SignalRecord, SignalSource
from tidegate.producers.simulate import generate
from tidegate.schemas.settings import Settings
from tidegate.schemas.signal import decode_signal, signal_key

from .kafka.broker import Broker, BrokerUnavailable
from .kafka.engine import Workers, make_topics
from .overspend import Node
from .report import Result, Table
from .rounds import Tick
from .traffic import SEED

LIBRARIES: Final = ("orjson", "msgspec", "urllib3", "uvicorn", "chdb", "aiokafka", "faust-streaming")
_POLICY: Final = "bench"
_MODEL: Final = "gpt-4o-mini-2024-07-18"
# A million tokens of it cost fifteen cents, the limit is one.
_LIMIT: Final = "0.01"
_TOKENS: Final = 1_000_000
_BLOCKS: Final = {
    "name": _POLICY,
    "scope": ["tenant"],
    "measure": "cost_usd",
    "window": {"rolling": "24h"},
    "limit": _LIMIT,
    "action": "block",
}
_SMALL: Final = Estimate(1, 1, 0.000001)
# How exact a closing is seen; shorter would take the interpreter from the gate's own thread.
_LOOK_S: Final = 0.0005
# Between rounds, so that none comes at the same place of the pipeline's own beat.
_BETWEEN_S: Final = (0.05, 0.3)
_LONGEST_S: Final = 20.0
# Events go out in small bunches, as those of many services do. Unpaced, their own times run as if traffic were this dense.
_PACE_S: Final = 0.002
_UNPACED_PER_S: Final = 20_000.0
_STAGES: Final = ("in the log", "judged", "heard by the gate", "closed")


@dataclass(frozen=True, slots=True)
class Closing:
    """One round: monotonic seconds from `emit` until each stage was over."""

    stages: tuple[float, ...]

    @property
    def took_s(self) -> float:
        return self.stages[-1]


class Timed:
    """A `SignalSource` that notes of each scope when it was first judged (by the node's clock), and heard here."""

    def __init__(self, inner: SignalSource) -> None:
        self._inner = inner
        self.heard: dict[bytes, tuple[float, float]] = {}

    def poll(self, after: int, timeout_s: float) -> tuple[Sequence[SignalRecord], int]:
        records, position = self._inner.poll(after, timeout_s)
        now = time.monotonic()
        for key, value in records:
            if value and key.startswith(b"signal|") and key not in self.heard:
                self.heard[key] = decode_signal(value).at, now
        return records, position

    def announce(self, gate_id: str) -> None:
        self._inner.announce(gate_id)

    def close(self) -> None:
        self._inner.close()

    def abandon(self) -> None:
        self._inner.abandon()


class _Place:
    """Hears when an event is in the log."""

    def __init__(self) -> None:
        self.at: float | None = None

    def placed(self, _position: Position | None) -> None:
        self.at = time.monotonic()


def publish(urls: dict[str, str], told: Connection) -> None:
    """The publisher process: for each (kind, tenant) one call beyond the limit; tells when it was emitted and in the log."""
    emitters = {kind: connect(url, gate=False, spool_dir=None) for kind, url in urls.items()}
    while (wish := told.recv()) is not None:
        kind, tenant = wish
        place, event = _Place(), _response(tenant)
        begun = time.monotonic()
        emitters[kind].emit(event, place)
        while place.at is None:
            time.sleep(_LOOK_S)
        told.send((begun, place.at))
    for emitter in emitters.values():
        emitter.close()


def traffic(url: str, per_s: float | None, count: int | None, stop: Event) -> None:
    """A process of simulated traffic: so many events a second, or `count` of them as fast as the log takes them."""
    with connect(url, gate=False) as emitter:
        events = islice(generate(SEED, datetime.now(UTC), rate_per_s=per_s or _UNPACED_PER_S, diurnal=False), count)
        begun = time.monotonic()
        for number, event in enumerate(events):
            if stop.is_set():
                break
            if per_s is None:
                emitter.wait_for_room()
            elif (early_s := begun + number / per_s - time.monotonic()) > _PACE_S:
                time.sleep(early_s)
            emitter.emit(event)


def _response(tenant: str) -> dict[str, Any]:
    return {
        "event": "response",
        "call_id": f"call-{tenant}",
        "started_at": datetime.now(UTC),
        "tenant": tenant,
        "provider_name": "openai",
        "request_model": _MODEL,
        "input_tokens": _TOKENS,
        "output_tokens": 0,
        "latency_s": 0.5,
    }


@dataclass(frozen=True, slots=True)
class Way:
    """One way from a service to a gate and back: where the service sends, and what the gate listens to."""

    url: str
    source: Callable[[], SignalSource]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Something that meters: the ways to it, where traffic goes, and how many events it has metered so far."""

    ways: dict[str, Way]
    url: str
    metered: Callable[[], int]


def run(quick: bool, tick: Tick) -> Result:
    """The tables of this bench."""
    rounds, burst = (10, 5_000) if quick else (120, 60_000)
    found: dict[tuple[str, str], list[Closing]] = {}
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as scratch, Node(Path(scratch), [_BLOCKS]) as node:

        def metered() -> int:
            return int(node.status()["totals"].get("events", 0))

        folder, http = node.data_dir, node.url
        ways = {
            "local": Way(str(folder), lambda: LocalSignals(folder)),
            "HTTP": Way(http, lambda: HttpSignals(http)),
        }
        most = _rounds(Pipeline(ways, str(folder), metered), rounds, burst, found, tick)
    notes = [
        f"Half load: {most / 2:,.0f} simulated events a second, half of the {most:,.0f} that this node metered of"
        f" {burst:,} at once, with its sink at work; the process that makes them shares the cores.",
        "Settings as they come: the emitter lingers 20 ms, an idle meter looks every 50 ms, a busy one flushes at"
        " least every 100 ms, a local gate looks every 25 ms, the node's door every 20 ms.",
    ]
    try:
        most = _on_kafka(rounds, burst, found, tick)
        notes.append(
            f"On Kafka: one meter worker and one policies worker beside a broker, all on the same cores; half load is"
            f" {most / 2:,.0f} of the {most:,.0f} events a second that they metered at most. The row has to be"
            " acknowledged by Kafka four times until the gate hears: calls, changelog, usage, signals."
        )
    except BrokerUnavailable as error:
        notes.append(f"Kafka is missing: {error}")
    return Result((_table(found), _stages(found)), f"{rounds} rounds of each kind, by turns", tuple(notes), LIBRARIES)


def _on_kafka(rounds: int, burst: int, found: dict[tuple[str, str], list[Closing]], tick: Tick) -> float:
    """The same through a broker and workers. Returns how many events a second they metered at most."""
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as scratch:
        tick("starting a broker")
        folder = Path(scratch)
        with Broker(folder / "kafka") as broker:
            url = f"kafka://{broker.bootstrap}"
            make_topics(url)
            policies = folder / "policies.yaml"
            policies.write_bytes(orjson.dumps({"policies": [_BLOCKS]}))
            with Workers(url, ("policies", "meter"), folder, TIDEGATE_POLICY_FILE=str(policies)) as workers:
                settings = Settings(url=url)
                ways = {"Kafka": Way(url, lambda: KafkaSignals(settings))}
                return _rounds(Pipeline(ways, url, workers.metered), rounds, burst, found, tick)


def _rounds(pipeline: Pipeline, rounds: int, burst: int, found: dict[tuple[str, str], list[Closing]], tick: Tick) -> float:
    """Every way, idle and at half load. Returns how many events a second are metered at most."""
    tick("how much is metered at most")
    most = throughput(pipeline, burst)
    for load, rate in (("idle", None), ("half load", most / 2)):
        with _traffic(pipeline.url, rate, None):
            if rate:
                time.sleep(2)
            for kind, closings in _closings(pipeline.ways, load, rounds, tick).items():
                found[kind, load] = closings
    return most


def throughput(pipeline: Pipeline, burst: int) -> float:
    """Events a second that are metered when more wait than can be done."""
    metered = pipeline.metered
    before = metered()
    with _traffic(pipeline.url, None, burst):
        while metered() - before < burst * 0.1:
            time.sleep(0.01)
        first, begun = metered(), time.monotonic()
        while (now := metered()) - before < burst:
            time.sleep(0.02)
        return (now - first) / (time.monotonic() - begun)


@contextmanager
def _traffic(url: str, rate: float | None, count: int | None) -> Iterator[None]:
    if rate is None and count is None:
        yield
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    maker = context.Process(target=traffic, args=(url, rate, count, stop), daemon=True)
    maker.start()
    try:
        yield
    finally:
        stop.set()
        maker.join(30)
        if maker.is_alive():
            maker.kill()


def _closings(ways: dict[str, Way], load: str, rounds: int, tick: Tick) -> dict[str, list[Closing]]:
    """Every way by turns."""
    context = multiprocessing.get_context("spawn")
    told, theirs = context.Pipe()
    publisher = context.Process(target=publish, args=({kind: way.url for kind, way in ways.items()}, theirs), daemon=True)
    publisher.start()
    sources = {kind: Timed(way.source()) for kind, way in ways.items()}
    gates = {kind: Gate(source) for kind, source in sources.items()}
    wall = time.time() - time.monotonic()
    found: dict[str, list[Closing]] = {kind: [] for kind in ways}
    rng = random.Random(rounds)
    try:
        for kind, gate in gates.items():
            gate.acquire({"tenant": "nobody", "model": _MODEL}, _SMALL).release()
            _close(gate, told, kind, f"warm-up-{load}-{kind}".replace(" ", "-"))
        for number in range(rounds):
            tick(f"{load}: round {number + 1} of {rounds}")
            for kind, gate in gates.items():
                time.sleep(rng.uniform(*_BETWEEN_S))
                tenant = f"{load}-{kind}-{number}".replace(" ", "-")
                begun, placed, closed = _close(gate, told, kind, tenant)
                judged, heard = sources[kind].heard[signal_key(_POLICY, (tenant,))]
                found[kind].append(Closing(tuple(at - begun for at in (placed, judged - wall, heard, closed))))
        told.send(None)
        publisher.join(10)
    finally:
        for gate in gates.values():
            gate.close()
        if publisher.is_alive():
            publisher.kill()
    return found


def _close(gate: Gate, told: Connection, kind: str, tenant: str) -> tuple[float, float, float]:
    """One round: when the call was emitted, in the log, and the gate closed."""
    scope = gate.scope(tenant=tenant, model=_MODEL)
    if not gate.check(scope, estimate=_SMALL).allowed:
        raise RuntimeError(f"the gate was closed before {tenant} spent anything")
    told.send((kind, tenant))
    deadline = time.monotonic() + _LONGEST_S
    while gate.check(scope, estimate=_SMALL).allowed:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the gate was not closed in {_LONGEST_S:g} s")
        time.sleep(_LOOK_S)
    closed = time.monotonic()
    begun, placed = told.recv()
    return begun, placed, closed


def _share(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def _table(found: dict[tuple[str, str], list[Closing]]) -> Table:
    rows = []
    for (kind, load), closings in found.items():
        took_ms = [closing.took_s * 1e3 for closing in closings]
        figures = (_share(took_ms, 0.5), _share(took_ms, 0.99), min(took_ms), max(took_ms))
        rows.append((f"{kind}, {load}", *(f"{figure:.0f}" for figure in figures), "≤ 250"))
    return Table(
        "From `emit` to a closed gate, milliseconds.",
        ("", "median", "99th percentile", "least", "most", "target, 99th"),
        tuple(rows),
    )


def _stages(found: dict[tuple[str, str], list[Closing]]) -> Table:
    """What each stage adds to the one before."""

    def row(kind: str, load: str, closings: Sequence[Closing]) -> tuple[str, ...]:
        cells = []
        for stage in range(len(_STAGES)):
            added = [(closing.stages[stage] - (closing.stages[stage - 1] if stage else 0.0)) * 1e3 for closing in closings]
            cells.append(f"{_share(added, 0.5):.0f} / {_share(added, 0.99):.0f}")
        return f"{kind}, {load}", *cells

    return Table(
        "Where the time goes: milliseconds that each stage takes, median / 99th percentile.",
        ("", *(f"until {stage}" for stage in _STAGES)),
        tuple(row(kind, load, closings) for (kind, load), closings in found.items()),
    )
