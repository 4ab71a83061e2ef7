"""The store is killed under load, stays away for half an hour and comes back: nothing may be lost, nobody else may notice.

    load process:  emitters ──► node on a data folder, or Kafka and workers ──► a store over HTTP, killed with -9
                      └─► every call that was emitted, a line each                └─► every insert it took, a line each
    meanwhile:     a call beyond a tenant's budget now and then: how soon its gate is shut; lags, memory, what is said
    afterwards:    rows, money, tokens and rollups of the store  ==  plain sums over the lines, and in order

The store is `chdb_server`: ClickHouse's engine behind its HTTP interface. Both ways stand side by side in the same half hour.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import median
from typing import Any, Final, Protocol

import orjson
from tidegate.producers.connect import connect
from tidegate.producers.decision import Estimate
from tidegate.producers.emitter import Emitter
from tidegate.sinks.clickhouse import Store

from .chdb_server import ChdbServer, Inserted
from .kafka.broker import Broker, BrokerUnavailable
from .kafka.engine import Workers, make_topics
from .overspend import Node
from .report import Result, Table
from .rounds import Tick

LIBRARIES: Final = ("chdb", "clickhouse-connect", "aiokafka", "faust-streaming", "uvicorn")
MINUTES: Final = 30.0
_PARTITIONS: Final = 2
_EMITTERS: Final = 4
# What a token costs, in nano-dollars, by the providers' lists: of input, of cached input, of output.
_MODELS: Final = {
    ("openai", "gpt-4o"): (2_500, 1_250, 10_000),
    ("openai", "gpt-4o-mini"): (150, 75, 600),
    ("anthropic", "claude-sonnet-4-5"): (3_000, 300, 15_000),
}
_TENANTS: Final = ("harbor-health", "st-anne", "lakeside", "mercy-west")
# More than all the load of a tenant; the calls that shall shut a gate cost two and a half times that.
_LIMIT_USD: Final = 1_000
_DEAR_TOKENS: Final = 1_000_000_000
_POLICY: Final = {
    "name": "tenant-budget",
    "scope": ["tenant"],
    "measure": "cost_usd",
    "window": {"rolling": "24h"},
    "limit": _LIMIT_USD,
    "action": "block",
}
_SMALL: Final = Estimate(1, 1, 0.000001)
_PACE_S: Final = 0.01
_LOOK_S: Final = 0.001
_SHUT_WITHIN_S: Final = 30.0
# Back-off ends within half a minute of the store's return; the rest is catching up, at some tens of thousands of rows a second.
_BACK_WITHIN_S: Final = 600.0
_TOKEN: Final = re.compile(r"(?P<log>tidegate\.metered:\d+):(?P<first>\d+)-(?P<last>\d+)(?:/\d+)?\Z")


@dataclass(frozen=True, slots=True)
class Plan:
    """One outage: seconds before, without the store and between two probes of the gate, and calls a second."""

    before_s: float
    away_s: float
    probe_s: float
    calls_per_s: float


@dataclass(frozen=True, slots=True)
class Seen:
    """One look: records that wait for meters and for sinks, whether it is told that the store is away, bytes of memory of
    whoever writes the rows, and lines of log."""

    at: float
    meter_lag: int
    sink_lag: int
    away: bool
    memory_bytes: int
    said: int


@dataclass(slots=True)
class Found:
    """What came of one outage. Times are seconds; `shut_s` those from a call until its gate was shut, before, during, after."""

    calls: int = 0
    cost_nano_usd: int = 0
    away_s: float = 0.0
    told_after_s: float = 0.0
    caught_up_s: float = 0.0
    inserts: int = 0
    repeated: int = 0
    shut_s: tuple[list[float], list[float], list[float]] = field(default_factory=lambda: ([], [], []))
    meter_lag: tuple[int, int] = (0, 0)
    sink_lag: tuple[int, int] = (0, 0)
    memory_bytes: tuple[int, int, int] = (0, 0, 0)
    said: int = 0


class Engine(Protocol):
    """A pipeline: where events go, and what it tells of itself."""

    url: str

    def look(self) -> Seen: ...


# --- what is emitted, and what it must come to ---------------------------------------------------------------------------


def _call(rng: random.Random, tenant: str | None = None) -> dict[str, Any]:
    """One ended call; of a `tenant` of its own, one that spends more than it may."""
    provider, model = ("openai", "gpt-4o") if tenant else rng.choice(list(_MODELS))
    read = rng.randrange(300, 3_000)
    return {
        "event": "response",
        "call_id": str(uuid.UUID(int=rng.getrandbits(128))),
        "started_at": datetime.now(UTC),
        "tenant": tenant or rng.choice(_TENANTS),
        "provider_name": provider,
        "request_model": model,
        "input_tokens": _DEAR_TOKENS if tenant else read,
        "cache_read_tokens": 0 if tenant else rng.randrange(0, read, 64),
        "output_tokens": 0 if tenant else rng.randrange(10, 400),
        "latency_s": rng.randrange(100, 4_000) / 1_000,
    }


def _cost_nano(call: dict[str, Any]) -> int:
    fresh, cached, made = _MODELS[call["provider_name"], call["request_model"]]
    read, hit = call["input_tokens"], call["cache_read_tokens"]
    return int((read - hit) * fresh + hit * cached + call["output_tokens"] * made)


class _Noting:
    """Emits calls, and writes each down first."""

    def __init__(self, url: str, folder: Path, name: str, seed: int, emitters: int = 1) -> None:
        self._file = (folder / f"{name}.ndjson").open("ab")
        self.emitters = [
            connect(url, service=f"{name}-{number}", spool_dir=folder / "spool" / f"{name}-{number}")
            for number in range(emitters)
        ]
        self._rng = random.Random(seed)

    def emit(self, tenant: str | None = None) -> None:
        call = _call(self._rng, tenant)
        self._file.write(orjson.dumps(call | {"cost": _cost_nano(call)}) + b"\n")
        if not self._rng.choice(self.emitters).emit(call):
            raise RuntimeError("an emitter took a call no more: its buffer is full")

    def close(self) -> None:
        """Raises `RuntimeError` when the log does not have every call."""
        self._file.close()
        for emitter in self.emitters:
            _empty(emitter)


def _empty(emitter: Emitter) -> None:
    emitter.flush(60)
    stats = emitter.stats()
    emitter.close()
    if stats.pending or stats.invalid or stats.dropped or stats.appended != stats.emitted:
        raise RuntimeError(f"the log does not have every call: {stats}")


def load(url: str, folder: Path, per_s: float, stop: Event, told: Connection) -> None:
    """The load process: so many calls a second until told to stop; tells how many, or what went wrong."""
    noting = _Noting(url, folder, "load", 7, _EMITTERS)
    number, begun = 0, time.monotonic()
    try:
        while not stop.is_set():
            if (early_s := begun + number / per_s - time.monotonic()) > _PACE_S:
                time.sleep(early_s)
            noting.emit()
            number += 1
        noting.close()
    except Exception as error:  # noqa: BLE001 — whatever ended the load must be heard by who waits for it
        told.send(repr(error))
    else:
        told.send(number)


@dataclass(frozen=True, slots=True)
class Ledger:
    """Calls in one hand: their ids, and by (tenant, model) and by hour requests, nano-dollars, input and output tokens."""

    ids: frozenset[str]
    by_model: dict[tuple[str, str], tuple[int, ...]]
    by_hour: dict[str, tuple[int, ...]]
    by_minute: dict[str, tuple[int, ...]]

    @property
    def cost_nano_usd(self) -> int:
        return sum(sums[1] for sums in self.by_model.values())


def emitted(folder: Path) -> Ledger:
    """What was emitted, added up plainly."""
    ids: Counter[str] = Counter()
    sums: tuple[dict[Any, tuple[int, ...]], ...] = ({}, {}, {})
    for file in sorted(folder.glob("*.ndjson")):
        for line in file.read_bytes().splitlines():
            call = orjson.loads(line)
            ids[call["call_id"]] += 1
            amounts = (1, call["cost"], call["input_tokens"], call["output_tokens"])
            minute = call["started_at"][:16].replace("T", " ")
            for known, key in zip(sums, ((call["tenant"], call["request_model"]), minute[:13], minute), strict=True):
                before = known.get(key, (0, 0, 0, 0))
                known[key] = tuple(a + b for a, b in zip(before, amounts, strict=True))
    if len(ids) != ids.total():
        raise RuntimeError("two calls have one id: the load is wrong")
    return Ledger(frozenset(ids), *sums)


def stored(store: Store) -> Ledger:
    """What the store has. Raises `RuntimeError` when a call is in it twice, or one of its rollups differs from its rows."""
    sums = "count(), sum(cost_nano_usd), sum(input_tokens), sum(output_tokens)"
    rolled = "sum(requests), sum(cost_nano_usd), sum(input_tokens), sum(output_tokens)"
    hour, minute = (
        "formatDateTime(toStartOfHour({0}), '%Y-%m-%d %H')",
        "formatDateTime(toStartOfMinute({0}), '%Y-%m-%d %H:%i')",
    )

    def ask(key: str, amounts: str, table: str) -> dict[Any, tuple[int, ...]]:
        rows = store.query(f"SELECT {key} AS key, {amounts} FROM {table} GROUP BY key").rows
        return {found: tuple(map(int, amount)) for found, *amount in rows}

    lines = store.query_bytes("SELECT call_id FROM calls", "TabSeparated", max_rows=100_000_000).decode().split()
    ids = frozenset(lines)
    if len(ids) != len(lines):
        raise RuntimeError(f"{len(lines) - len(ids)} calls are in the store twice")
    ledger = Ledger(
        ids,
        ask("(tenant, model)", sums, "calls"),
        ask(hour.format("started_at"), sums, "calls"),
        ask(minute.format("started_at"), sums, "calls"),
    )
    rollups = {
        "v_calls_1h by model": (ask("(tenant, model)", rolled, "v_calls_1h"), ledger.by_model),
        "v_calls_1d": (ask("formatDateTime(day, '%Y-%m-%d')", rolled, "v_calls_1d"), by_day(ledger.by_hour)),
        "calls_1d_totals": (ask("formatDateTime(day, '%Y-%m-%d')", rolled, "calls_1d_totals"), by_day(ledger.by_hour)),
        "v_calls_1h": (ask(hour.format("hour"), rolled, "v_calls_1h"), ledger.by_hour),
        "v_calls_1m": (ask(minute.format("minute"), rolled, "v_calls_1m"), ledger.by_minute),
    }
    if wrong := [name for name, (rollup, raw) in rollups.items() if rollup != raw]:
        raise RuntimeError(f"rollups differ from the rows: {', '.join(wrong)}")
    return ledger


def by_day(by_hour: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Hours added up to the days that they begin with."""
    days: dict[str, tuple[int, ...]] = {}
    for hour, sums in by_hour.items():
        before = days.get(hour[:10], (0,) * len(sums))
        days[hour[:10]] = tuple(a + b for a, b in zip(before, sums, strict=True))
    return days


def in_order(inserts: Sequence[Inserted]) -> tuple[int, int]:
    """How many batches of metered calls there were, and how many were sent again. Raises `RuntimeError` when a partition's
    batches, or the source offsets of its rows, are not in the log's order, or a record is missing between two."""
    ends: dict[str, int] = {}
    sources: dict[str, int] = {}
    known: set[str] = set()
    repeated = 0
    for insert in inserts:
        if (batch := _TOKEN.match(insert.token)) is None:
            continue
        if insert.token in known:
            repeated += 1
            continue
        known.add(insert.token)
        if int(batch["first"]) != ends.get(batch["log"], 0):
            raise RuntimeError(f"{insert.token} does not follow upon {ends.get(batch['log'], 0)}")
        ends[batch["log"]] = int(batch["last"]) + 1
        for partition, (first, last, ascending) in insert.sources.items():
            if not ascending or first <= sources.get(partition, -1):
                raise RuntimeError(f"rows of source partition {partition} are out of order in {insert.token}")
            sources[partition] = last
    return len(known), repeated


# --- the two engines -----------------------------------------------------------------------------------------------------


def _memory(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class _OnNode:
    """`tidegate up` on a data folder, its store a server."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.url = node.url

    def look(self) -> Seen:
        status = self._node.status()
        return Seen(
            time.monotonic(),
            status["meter_lag_records"],
            status["sink_lag_records"],
            status["store_away"],
            _memory(self._node.pid),
            self._node.said().count("\n"),
        )


class _OnKafka:
    """A meter, a policies worker and a sink on a broker."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self.url = workers.url

    def look(self) -> Seen:
        workers = self._workers
        return Seen(
            time.monotonic(),
            int(workers.total("meter", "tidegate_worker_lag_records")),
            int(workers.total("sink", "tidegate_worker_lag_records")),
            workers.total("sink", "tidegate_store_away") > 0,
            _memory(workers.pid("sink")),
            workers.said("sink").count("\n"),
        )


@contextmanager
def _node(folder: Path, dsn: str) -> Iterator[Engine]:
    environment = {"TIDEGATE_STORE": dsn, "TIDEGATE_PARTITIONS": str(_PARTITIONS), "TIDEGATE_GUARD": "false"}
    with Node(folder, [_POLICY], **environment) as node:
        yield _OnNode(node)


@contextmanager
def _kafka(folder: Path, dsn: str) -> Iterator[Engine]:
    policies = folder / "policies.yaml"
    policies.write_bytes(orjson.dumps({"policies": [_POLICY]}))
    with Broker(folder / "kafka") as broker:
        url = f"kafka://{broker.bootstrap}"
        make_topics(url, _PARTITIONS)
        environment = {"TIDEGATE_STORE": dsn, "TIDEGATE_POLICY_FILE": str(policies), "TIDEGATE_DATA_DIR": str(folder / "data")}
        with Workers(url, ("sink", "policies", "meter"), folder, **environment) as workers:
            yield _OnKafka(workers)


ENGINES: Final = {"node": _node, "kafka": _kafka}


# --- the outage ----------------------------------------------------------------------------------------------------------


class _Probe(threading.Thread):
    """Shuts a gate now and then, each time of a tenant of its own, and notes how long that took."""

    def __init__(self, url: str, folder: Path, every_s: float) -> None:
        super().__init__(name="probe", daemon=True)
        self._noting = _Noting(url, folder, "dear", 11)
        self._every_s = every_s
        self._told = threading.Event()
        self.into: list[float] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            number = 0
            while not self._told.wait(self._every_s):
                into, took = self.into, self._shut(f"spender-{number}")
                into.append(took)
                number += 1
        except BaseException as error:  # noqa: BLE001 — told by `close`
            self.error = error

    def _shut(self, tenant: str) -> float:
        gate = self._noting.emitters[0].gate
        assert gate is not None
        scope = gate.scope(tenant=tenant, model="gpt-4o")
        if not gate.check(scope, estimate=_SMALL).allowed:
            raise RuntimeError(f"the gate of {tenant} was shut before it spent anything")
        begun = time.monotonic()
        self._noting.emit(tenant)
        while gate.check(scope, estimate=_SMALL).allowed:
            if time.monotonic() - begun > _SHUT_WITHIN_S:
                raise RuntimeError(f"the gate of {tenant} was not shut in {_SHUT_WITHIN_S:g} s")
            time.sleep(_LOOK_S)
        return time.monotonic() - begun

    def close(self) -> None:
        self._told.set()
        self.join()
        self._noting.close()
        if self.error is not None:
            raise self.error


@contextmanager
def _loaded(url: str, folder: Path, per_s: float) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    stop, (told, theirs) = context.Event(), context.Pipe(duplex=False)
    maker = context.Process(target=load, args=(url, folder, per_s, stop, theirs), daemon=True)
    maker.start()
    try:
        yield
        stop.set()
        if not told.poll(120) or isinstance(ended := told.recv(), str):
            raise RuntimeError(f"the load has failed: {ended if told else ''}")
        maker.join()
    finally:
        if maker.is_alive():
            maker.kill()


def endure(name: str, plan: Plan, scratch: Path) -> Found:
    """One outage through one engine, `node` or `kafka`. Raises `RuntimeError` when a call is lost, doubled or out of order."""
    found, looks = Found(), list[Seen]()
    calls, at_work = scratch / "calls", scratch / "engine"
    for folder in (calls, at_work):
        folder.mkdir(parents=True)
    with ChdbServer(scratch / "store") as server, ENGINES[name](at_work, server.dsn) as engine:

        def look() -> Seen:
            looks.append(engine.look())
            return looks[-1]

        def look_for(seconds: float) -> list[Seen]:
            began, until = len(looks), time.monotonic() + seconds
            while look().at < until:
                time.sleep(min(1.0, seconds / 10))
            return looks[began:]

        probe = _Probe(engine.url, calls, plan.probe_s)
        with _loaded(engine.url, calls, plan.calls_per_s):
            probe.into = found.shut_s[0]
            probe.start()
            before = look_for(plan.before_s)
            # A look is a moment, and there were few of them: a second's calls more are no difference.
            usual = max(seen.sink_lag for seen in before) + int(plan.calls_per_s)

            probe.into = found.shut_s[1]
            server.kill()
            killed = time.monotonic()
            during = look_for(plan.away_s)
            found.away_s = time.monotonic() - killed
            server.start()
            back = time.monotonic()

            probe.into = found.shut_s[2]
            while (now := look()).away or now.sink_lag > usual:
                if now.at - back > _BACK_WITHIN_S:
                    raise RuntimeError(f"{now.sink_lag} records still wait {_BACK_WITHIN_S:g} s after the store is back")
                time.sleep(0.1)
            found.caught_up_s = now.at - back
            after = look_for(plan.before_s)
            probe.close()
        _settle(look)
        told = [seen.at for seen in during if seen.away]
        if not told:
            raise RuntimeError("nobody was told that the store was away")
        found.told_after_s = told[0] - killed
        found.meter_lag = (max(seen.meter_lag for seen in before), max(seen.meter_lag for seen in during))
        found.sink_lag = (max(seen.sink_lag for seen in before), max(seen.sink_lag for seen in looks))
        found.memory_bytes = (before[-1].memory_bytes, max(seen.memory_bytes for seen in looks), after[-1].memory_bytes)
        found.said = during[-1].said - during[0].said
        _judge(found, emitted(calls), server)
    return found


def _settle(look: Any) -> None:
    """Wait until nothing waits: zero, and not nearly."""
    deadline = time.monotonic() + 120
    while (now := look()).meter_lag or now.sink_lag:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the lag does not come back to zero: {now}")
        time.sleep(0.1)


def _judge(found: Found, expected: Ledger, server: ChdbServer) -> None:
    with Store.open(dsn=server.dsn) as store:
        ledger = stored(store)
    if ledger.ids != expected.ids:
        lost, strange = len(expected.ids - ledger.ids), len(ledger.ids - expected.ids)
        raise RuntimeError(f"{lost} of {len(expected.ids)} calls are not in the store, {strange} are that nobody emitted")
    if ledger != expected:
        raise RuntimeError(f"the sums differ: emitted {expected.by_model}, stored {ledger.by_model}")
    found.calls, found.cost_nano_usd = len(ledger.ids), ledger.cost_nano_usd
    found.inserts, found.repeated = in_order(server.inserts())


# --- the page ------------------------------------------------------------------------------------------------------------


def run(quick: bool, tick: Tick, minutes: float = MINUTES) -> Result:
    """The table of this bench."""
    plan = Plan(5, 20, 1, 100) if quick else Plan(60, minutes * 60, 10, 150)
    notes = [
        f"{_EMITTERS} emitters make {plan.calls_per_s:g} calls a second for each engine, the whole time; {_PARTITIONS}"
        " partitions. Both engines, their stores and the load stood side by side, beside whatever else the machine did.",
        "Compared with plain sums of what was emitted: the ids, requests, nano-dollars and tokens by tenant and model, by hour"
        " and by minute, of rows and of both rollups. In order: each partition's batches follow upon one another without a gap,"
        " and the source offsets of their rows ascend, as the store took them in.",
        "The store is chDB behind ClickHouse's HTTP interface (`bench/chdb_server.py`), for no server is to be had here; it was"
        " ended with `kill -9`.",
    ]
    columns: dict[str, Found] = {}
    tick(f"no store for {plan.away_s / 60:.3g} minutes, since {datetime.now(UTC):%H:%M} UTC")
    with (
        tempfile.TemporaryDirectory(prefix="tidegate-bench-") as scratch,
        ProcessPoolExecutor(len(ENGINES), mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        under_way = {name: pool.submit(endure, name, plan, Path(scratch) / name) for name in ENGINES}
        for name, one in under_way.items():
            try:
                columns[name] = one.result()
            except BrokerUnavailable as error:
                notes.append(f"Kafka is missing: {error}")
    return Result((_table(columns),), "once", tuple(notes), LIBRARIES)


def _table(columns: dict[str, Found]) -> Table:
    titles = {"node": "node on a data folder", "kafka": "workers on Kafka"}

    def row(what: str, show: Any) -> tuple[str, ...]:
        return (what, *(show(found) for found in columns.values()))

    def shut(which: int) -> Any:
        return lambda found: (
            f"{median(found.shut_s[which]) * 1e3:,.0f} ms ({max(found.shut_s[which]) * 1e3:,.0f}), {len(found.shut_s[which])}"
            if found.shut_s[which]
            else "–"
        )

    return Table(
        "ClickHouse killed under load, and started again.",
        ("", *(titles[name] for name in columns)),
        (
            row("minutes away", lambda found: f"{found.away_s / 60:.1f}"),
            row("calls emitted; each in the store once, in order", lambda found: f"{found.calls:,}"),
            row("their cost, the same to the nano-dollar, in $", lambda found: f"{found.cost_nano_usd / 1e9:,.9f}"),
            row("batches of them; sent again", lambda found: f"{found.inserts:,}; {found.repeated}"),
            row("`tidegate_store_away` is 1 after, s", lambda found: f"{found.told_after_s:.1f}"),
            row("records waiting for the store, before; at most", lambda found: "{:,}; {:,}".format(*found.sink_lag)),
            row("back at what waited before, with the load on, after, s", lambda found: f"{found.caught_up_s:.1f}"),
            row("records waiting for a meter at most, before; meanwhile", lambda found: "{:,}; {:,}".format(*found.meter_lag)),
            row("a gate shut after its call, median (most), of how many: before", shut(0)),
            row("– without the store", shut(1)),
            row("– while catching up and after", shut(2)),
            row(
                "memory of who writes the rows, MB: before; at most; after",
                lambda found: "; ".join(f"{size / 2**20:,.0f}" for size in found.memory_bytes),
            ),
            row("lines it logged meanwhile", lambda found: f"{found.said:,}"),
        ),
    )
