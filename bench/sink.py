"""Rows into the embedded store: `Store.insert` of NDJSON against clickhouse-connect's insert of columns.

Both into the same DDL in one chDB, each into a database of its own. clickhouse-connect keeps its own settings and gets
Python columns made beforehand: its best case, for somebody must first have parsed the lines.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import clickhouse_connect
import orjson
from clickhouse_connect.driver.client import Client
from tidegate.processors.aggregate import ScopeSets, UsageState
from tidegate.processors.meter import MeterState, meter
from tidegate.processors.pricing import PriceBook
from tidegate.producers.sqlite_log import Record
from tidegate.schemas.settings import DEFAULT_SCOPE_SETS
from tidegate.sinks.clickhouse import Store

from .apart import apart
from .columns import COLUMNS, python_row
from .report import Result, Table
from .rounds import Side, Spread, Tick, take_turns
from .traffic import START, calls, envelopes, lines

LIBRARIES: Final = ("chdb", "clickhouse-connect")
_VIEWS: Final = ("calls_to_1m", "calls_to_1h", "calls_to_1d")


@dataclass(frozen=True, slots=True)
class Case:
    """Both sides in one setting: rows a second, and seconds of processor time a batch (all of chDB's threads)."""

    size: int
    with_views: bool
    mine: Spread
    its: Spread
    mine_cpu: Spread
    its_cpu: Spread


def run(quick: bool, tick: Tick) -> Result:
    """The tables of this bench."""
    sizes, rounds = ((1_000, 5_000), 2) if quick else ((5_000, 50_000), 7)
    tick("inserting, in a process of its own")
    found = apart(measure, sizes, rounds)
    table = Table(
        "Rows a second into `calls`.",
        ("", "`Store.insert`, NDJSON", "`client.insert`, columns", "ratio", "ratio by processor time", "target"),
        tuple(
            (
                f"{case.size:,} rows a batch, {'with' if case.with_views else 'without'} rollups",
                f"{case.mine:,.0f}",
                f"{case.its:,.0f}",
                f"{case.mine.per(case.its):.2f}",
                # Rows a second of processor time: other tenants of the machine do not show in it.
                f"{case.its_cpu.per(case.mine_cpu):.2f}",
                "≥ 0.8",
            )
            for case in found
        ),
    )
    return Result(
        (table,),
        f"{rounds} rounds after a warm-up, each one batch a side, both in one chDB process",
        (
            "`client.insert(…, column_oriented=True)` is given lists of Python values, datetimes included; making them of"
            " the lines is not counted. A deduplication token for each batch on both sides; otherwise its default settings.",
        ),
        LIBRARIES,
    )


def metered_rows(encoded: Sequence[bytes], now: datetime = START) -> bytes:
    """The priced rows that the meter makes of encoded calls, as they stand in the log."""
    state = MeterState(0, UsageState(ScopeSets(DEFAULT_SCOPE_SETS)))
    now_ms = int(now.timestamp() * 1_000)
    records = [Record(n, now_ms, one.value, one.headers()) for n, one in enumerate(envelopes(list(encoded), 100))]
    _, outputs = meter(state, records, PriceBook.load(None), max_future_s=86_400)
    return b"\n".join(value for _, value in outputs.metered)


def measure(sizes: Sequence[int], rounds: int) -> list[Case]:
    """Every size with and without rollups. In a process of its own."""
    encoded = metered_rows(lines(calls(max(sizes))))
    rows = encoded.split(b"\n")
    columns = [list(column) for column in zip(*(python_row(orjson.loads(row)) for row in rows), strict=True)]
    found = []
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as scratch:
        for size in sizes:
            for with_views in (True, False):
                kind = f"{size}_{'rollups' if with_views else 'plain'}"
                mine = open_calls(Path(scratch), f"mine_{kind}", with_views)
                its = open_calls(Path(scratch), f"its_{kind}", with_views)
                client = plain_client(Path(scratch), its.database)
                mine_cpu: list[float] = []
                its_cpu: list[float] = []
                sides: dict[str, Side] = {
                    "mine": lines_side(mine, b"\n".join(rows[:size]), size, mine_cpu),
                    "its": columns_side(client, [column[:size] for column in columns], its_cpu),
                }
                spreads = take_turns(sides, rounds, lambda _: None)
                _check(mine, its, size * (rounds + 1), with_views)
                cpu = (Spread(tuple(of_warm_up_too[1:])) for of_warm_up_too in (mine_cpu, its_cpu))
                found.append(Case(size, with_views, spreads["mine"], spreads["its"], *cpu))
                for store in (mine, its):
                    client.command(f"DROP DATABASE `{store.database}` SYNC")
                    store.close()
                client.close()
    return found


def open_calls(folder: Path, database: str, with_views: bool = True) -> Store:
    """The project's own schema, on request without the views that feed the rollups."""
    store = Store.open(path=folder, database=database)
    store.migrate()
    if not with_views:
        client = plain_client(folder, database)
        for view in _VIEWS:
            client.command(f"DROP VIEW `{view}` SYNC")
        client.close()
    return store


def plain_client(folder: Path, database: str) -> Client:
    """clickhouse-connect as it comes."""
    client = clickhouse_connect.get_client(interface="chdb", path=str(folder), tz_mode="aware")
    client.database = database
    return client


def _check(mine: Store, its: Store, rows: int, with_views: bool) -> None:
    """Both hold the same; otherwise the figures mean nothing."""
    question = "SELECT count(), sum(cost_nano_usd), sum(input_tokens), sum(length(retrieval)), max(started_at) FROM calls"
    rolled = "SELECT sum(requests), sum(cost_nano_usd) FROM v_calls_1h"
    answer = mine.query(question).rows
    if answer != its.query(question).rows or answer[0][0] != rows:
        raise RuntimeError("the two sides did not insert the same rows")
    if with_views and (mine.query(rolled).rows != its.query(rolled).rows or mine.query(rolled).rows[0][0] != rows):
        raise RuntimeError("the two sides did not roll up the same rows")


def lines_side(store: Store, batch: bytes, rows: int, cpu_s: list[float], name: str = "bench:0") -> Side:
    """Rows a second of the sink's way; `name` and a number are each batch's token."""
    tokens = itertools.count()

    def once() -> float:
        begun, cpu = time.perf_counter(), time.process_time()
        store.insert("calls", batch, f"{name}:{next(tokens)}")
        took_s = time.perf_counter() - begun
        cpu_s.append(time.process_time() - cpu)
        return rows / took_s

    return once


def columns_side(
    client: Client, columns: list[list[Any]], cpu_s: list[float], name: str = "bench:0", table: str = "calls"
) -> Side:
    """Rows a second of clickhouse-connect's insert of columns, in the order of `COLUMNS`."""
    tokens = itertools.count()

    def once() -> float:
        begun, cpu = time.perf_counter(), time.process_time()
        client.insert(
            table,
            columns,
            column_names=list(COLUMNS),
            column_oriented=True,
            settings={"insert_deduplication_token": f"{name}:{next(tokens)}"},
        )
        took_s = time.perf_counter() - begun
        cpu_s.append(time.process_time() - cpu)
        return len(columns[0]) / took_s

    return once
