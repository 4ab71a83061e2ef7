"""The embedded pipeline end to end: from calls in the SQLite log to priced rows and rollups in chDB; and into the log.

    drain    Pipeline.drain: meter, then sink        against  json.loads a line, tuples, client.insert, same DDL and views
    append   Emitter.emit → LocalLog, until durable  against  json.dumps, sqlite3 INSERT, a commit every 100

Each drain is a spawned process on a fresh folder. The plain side is given rows that are already priced, and does none
of: validation, pricing, usage of scopes, exactly-once.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tidegate.processors.embedded.pipeline import Pipeline
from tidegate.producers.emitter import Emitter
from tidegate.producers.local_log import LocalLog
from tidegate.schemas.settings import Settings

from .apart import apart
from .columns import COLUMNS, python_row
from .report import Result, Table
from .rounds import Side, Spread, Tick, take_turns
from .sink import metered_rows, open_calls, plain_client
from .traffic import calls, envelopes, lines

LIBRARIES: Final = ("chdb", "clickhouse-connect", "orjson", "msgspec")
_ENVELOPE_EVENTS: Final = 100
_COMMIT_EVENTS: Final = 100


def run(quick: bool, tick: Tick) -> Result:
    """The tables of this bench."""
    events, rounds = (2_000, 2) if quick else (30_000, 5)
    encoded = lines(calls(events))
    rows = metered_rows(encoded)
    meter_s: list[float] = []
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as scratch:
        fresh = _folders(Path(scratch))

        def drain_side() -> float:
            folder = fresh()
            log = LocalLog(folder, partitions=1)
            for envelope in envelopes(encoded, _ENVELOPE_EVENTS):
                log.append([envelope])
            log.close()
            metered_s, whole_s = apart(drain, folder, events)
            meter_s.append(metered_s)
            return events / whole_s

        def plain_side() -> float:
            folder = fresh()
            folder.mkdir()
            source = folder / "rows.ndjson"
            source.write_bytes(rows)
            return events / apart(insert_plainly, folder, source, events)

        drains: dict[str, Side] = {"drain": drain_side, "plain": plain_side}
        ended = take_turns(drains, rounds, tick)
        appends: dict[str, Side] = {
            "emit": lambda: events / append_by_emitter(fresh(), events),
            "sqlite": lambda: events / append_plainly(fresh(), events),
        }
        appended = take_turns(appends, rounds, tick)
    tables = (_drained(ended, Spread(tuple(events / took for took in meter_s[1:]))), _appended(appended))
    return Result(
        tables,
        f"{rounds} rounds after a warm-up, each {events:,} events a side",
        (
            f"Envelopes of {_ENVELOPE_EVENTS}; one partition; the log with fsync=full. Opening the store is not counted.",
            "The plain side inserts rows that are priced already, up to 50,000 a batch: it neither validates, prices, keeps"
            " usage by scope, nor could be repeated without counting twice.",
            "Appending: `emit` of dicts until all is durable; plain `sqlite3` in WAL mode, synchronous=FULL, a row an event and"
            f" a commit every {_COMMIT_EVENTS} events.",
        ),
        LIBRARIES,
    )


def _folders(parent: Path) -> Callable[[], Path]:
    numbers = iter(range(1_000_000))
    return lambda: parent / f"data-{next(numbers)}"


def drain(folder: Path, events: int) -> tuple[float, float]:
    """Seconds that the meter, and that the whole drain took. In a process of its own."""
    pipeline = Pipeline(folder, Settings(data_dir=folder))
    metered_at: list[float] = []

    def progress(meter_lag: int, _sink_lag: int) -> None:
        if not meter_lag and not metered_at:
            metered_at.append(time.perf_counter())

    begun = time.perf_counter()
    pipeline.drain(progress)
    ended = time.perf_counter()
    if pipeline.store.query("SELECT count() FROM calls").rows != [(events,)]:
        raise RuntimeError("the store does not hold every event once")
    pipeline.close()
    return metered_at[0] - begun, ended - begun


def insert_plainly(folder: Path, source: Path, events: int) -> float:
    """Seconds from lines in a file to rows in the store, as one would write it without Tidegate. In a process of its own."""
    store = open_calls(folder / "store", "plain")
    client = plain_client(folder / "store", "plain")
    begun = time.perf_counter()
    with source.open("rb") as file:
        batch = []
        for line in file:
            batch.append(python_row(json.loads(line)))
            if len(batch) == 50_000:
                client.insert("calls", batch, column_names=list(COLUMNS))
                batch = []
        if batch:
            client.insert("calls", batch, column_names=list(COLUMNS))
    ended = time.perf_counter()
    if store.query("SELECT count() FROM calls").rows != [(events,)]:
        raise RuntimeError("the store does not hold every event once")
    client.close()
    store.close()
    return ended - begun


def append_by_emitter(folder: Path, events: int) -> float:
    """Seconds until `events` calls, emitted as fast as there is room, are durable in the log."""
    made = calls(events)
    emitter = Emitter(LocalLog(folder), settings=Settings())
    begun = time.perf_counter()
    for number, call in enumerate(made):
        if number % 1_000 == 0:
            emitter.wait_for_room()
        emitter.emit(call)
    flushed = emitter.flush(120)
    took_s = time.perf_counter() - begun
    stats = emitter.stats()
    emitter.close()
    if not flushed or stats.appended != events or stats.invalid:
        raise RuntimeError(f"the log does not hold every event once: {stats}")
    return took_s


def append_plainly(folder: Path, events: int) -> float:
    """Seconds until the same calls are durable in a table of one's own."""
    made = calls(events)
    folder.mkdir()
    db = sqlite3.connect(folder / "calls.sqlite", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE calls (number INTEGER PRIMARY KEY, line TEXT NOT NULL)")
    begun = time.perf_counter()
    for first in range(0, events, _COMMIT_EVENTS):
        db.execute("BEGIN IMMEDIATE")
        for call in made[first : first + _COMMIT_EVENTS]:
            db.execute("INSERT INTO calls (line) VALUES (?)", (json.dumps(call),))
        db.execute("COMMIT")
    took_s = time.perf_counter() - begun
    db.close()
    return took_s


def _drained(found: dict[str, Spread], meter: Spread) -> Table:
    drained, plain = found["drain"], found["plain"]
    return Table(
        "From the log into the store, events a second.",
        ("", "Tidegate", "plain clickhouse-connect", "ratio"),
        (
            ("whole (`Pipeline.drain`)", f"{drained:,.0f}", f"{plain:,.0f}", f"{drained.per(plain):.2f}"),
            ("its meter alone, log to log", f"{meter:,.0f}", f"{plain:,.0f}", f"{meter.per(plain):.2f}"),
        ),
    )


def _appended(found: dict[str, Spread]) -> Table:
    emitted, plain = found["emit"], found["sqlite"]
    return Table(
        "Into the log, events a second.",
        ("", "Tidegate", "plain sqlite3", "ratio"),
        (("`Emitter.emit` until durable", f"{emitted:,.0f}", f"{plain:,.0f}", f"{emitted.per(plain):.2f}"),),
    )
