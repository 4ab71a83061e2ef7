"""What an analyst waits for on ten million calls in the embedded store, how fast they went in, and what they take on disk.

Views are those of docs/analysts.md, each asked as it is told there, over ranges that begin and end between two hours.

Filling a store takes minutes: TIDEGATE_BENCH_SEASON names one that `python -m bench.season FOLDER` has filled, and that
stays as it is.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final

import orjson
from clickhouse_connect.driver.client import Client
from tidegate.sinks.clickhouse import Store

from .apart import apart
from .columns import python_row
from .report import Result, Table
from .rounds import Side, Spread, Tick, take_turns
from .season import FIRST, Season, Sum, day_rows, expected, fill
from .sink import columns_side, lines_side, plain_client

LIBRARIES: Final = ("chdb", "clickhouse-connect")
PAGE: Final = Path(__file__).parent.parent / "docs" / "analysts.md"
TARGET_S: Final = 1.0
BY: Final = (
    *("tenant", "team", "user", "service", "environment", "region", "task_type", "provider_name", "model", "prompt_name"),
    "prompt",
)
# Verdicts know no user, region and task type.
_OF_VERDICTS: Final = frozenset({"findings_by", "retrieval_by"})
_NOT_OF_VERDICTS: Final = frozenset({"user", "region", "task_type"})
_ONE: Final = "harbor-health-1"
_RANGES: Final = {"last hour": timedelta(hours=1), "last day": timedelta(days=1), "last 30 days": timedelta(days=30)}
_ALL: Final = "all"
# Merges go on for a while after the last insert; they would be in every figure.
_MERGED_WITHIN_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Took:
    """One answer: seconds, of those of processors (all of chDB's threads), and rows."""

    seconds: float
    cpu_s: float
    rows: int


@dataclass(frozen=True, slots=True)
class Case:
    """A view in its slowest `by` ("" where it has none): seconds by range, and over all of it cold and for one tenant."""

    view: str
    by: str
    seconds: Mapping[str, float]
    cold_s: float
    one_tenant_s: float
    cpu_s: float
    rows: int

    @property
    def slowest_s(self) -> float:
        return max(*self.seconds.values(), self.one_tenant_s)


@dataclass(frozen=True, slots=True)
class Kept:
    """What a table takes on disk."""

    table: str
    rows: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Found:
    """All figures of a run."""

    sizes: tuple[int, ...]
    loads: Mapping[int, Mapping[str, Spread]]
    kept: Sequence[Kept]
    line_bytes: float
    cases: Sequence[Case]
    by: Mapping[str, Mapping[str, Took]]
    load_average: float


def run(quick: bool, tick: Tick) -> Result:
    """The tables of this bench."""
    season = Season(days=40, a_day=250) if quick else Season()
    sizes, rounds, times = ((100,), 1, 1) if quick else ((5_000, 50_000), 3, 3)
    tick(f"{season.calls:,} calls, in a process of its own")
    found = apart(measure, season, sizes, rounds, times)
    return Result(
        (_loads(found), _sizes(found, season), _latencies(found, season), _by(found)),
        f"{season.calls:,} calls of {season.days} days; loads: {rounds} rounds after a warm-up, each one batch a side;"
        f" latencies: medians of {times}, in the last table one answer",
        (
            "`Store.insert` and the first `client.insert` take turns at the very tables that hold the calls. The client gets"
            " lists of Python values made beforehand, as in the bench of the sink.",
            "Bytes are those of the active parts, compressed, once merges had come to rest.",
            "Each view in its slowest `by` over all days, everybody's unless a tenant is named. Cold: the engine's marks"
            " dropped, and every file of the store given back by the system's page cache.",
            f"The machine's load average was {found.load_average:.0f} at the end. Processor time, of all threads, does not"
            " count who else was at work: it is what a view needs of one core, and a second core shares.",
            f"Beyond {TARGET_S:.0f} s of processor time over all days: "
            + (
                ", ".join(
                    f"`{view}` by {', '.join(f'`{by}`' for by in each) or 'nothing'}" for view, each in heavy(found).items()
                )
                or "none"
            )
            + ".",
        ),
        LIBRARIES,
    )


def heavy(found: Found) -> dict[str, list[str]]:
    """The views that need more of a processor than the target, with the values of `by` of which it is so."""
    by = {view: [value for value, took in each.items() if took.cpu_s > TARGET_S] for view, each in found.by.items()}
    alone: dict[str, list[str]] = {case.view: [] for case in found.cases if case.view not in found.by and case.cpu_s > TARGET_S}
    return {view: values for view, values in by.items() if values} | alone


def _loads(found: Found) -> Table:
    rows = []
    for size, spreads in found.loads.items():
        mine, its, plain = (spreads[name] for name in ("mine", "its", "plain"))
        rows.append(
            (
                f"{size:,} rows a batch",
                *(f"{each:,.0f}" for each in (mine, its, plain)),
                f"{mine.per(its):.2f}",
                f"{spreads['its_cpu'].per(spreads['mine_cpu']):.2f}",
                "≥ 0.8",
                f"{mine.per(plain):.2f}",
            )
        )
    return Table(
        "Rows a second into the store that holds them all.",
        (
            *("", "`Store.insert`, NDJSON, with rollups", "`client.insert`, with rollups", "`client.insert`, one plain table"),
            *("ratio, same tables", "by processor time", "target", "ratio to the plain table"),
        ),
        tuple(rows),
    )


def _sizes(found: Found, season: Season) -> Table:
    whole = sum(kept.size_bytes for kept in found.kept)
    rows = [(f"`{kept.table}`", f"{kept.rows:,}", kept.size_bytes) for kept in found.kept]
    rows.append(("all of it", "", whole))
    rows.append(("the same calls as NDJSON", f"{season.calls:,}", round(found.line_bytes * season.calls)))
    return Table(
        "Bytes on disk.",
        ("", "rows", "MB", "bytes a call"),
        tuple((what, count, f"{size / 1e6:,.1f}", f"{size / season.calls:,.1f}") for what, count, size in rows),
    )


def _latencies(found: Found, season: Season) -> Table:
    return Table(
        "Seconds until a view's whole answer.",
        (
            *("", "`by`", *_RANGES, f"all {season.days} days", "of these cold", "of these one tenant"),
            *("rows", f"≤ {TARGET_S:.0f} s", "all days, processor time"),
        ),
        tuple(
            (
                f"`{case.view}`",
                case.by,
                *(f"{case.seconds[name]:.2f}" for name in (*_RANGES, _ALL)),
                f"{case.cold_s:.2f}",
                f"{case.one_tenant_s:.2f}",
                f"{case.rows:,}",
                "yes" if case.slowest_s <= TARGET_S else "no",
                f"{case.cpu_s:.2f}",
            )
            for case in found.cases
        ),
    )


def _by(found: Found) -> Table:
    return Table(
        "Seconds of processor time over all days, by each `by`.",
        ("`by`", *(f"`{view}`" for view in found.by)),
        tuple((by, *(f"{each[by].cpu_s:.2f}" if by in each else "" for each in found.by.values())) for by in BY),
    )


def measure(season: Season, sizes: tuple[int, ...], rounds: int, times: int) -> Found:
    """Fill a store, and see. In a process of its own."""
    rows = day_rows(season.a_day)
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as scratch:
        folder = Path(scratch) / "store"
        filled = os.environ.get("TIDEGATE_BENCH_SEASON", "")
        if filled:
            shutil.copytree(filled, folder, symlinks=True)
        with Store.open(path=folder) as store:
            store.migrate()
            client = plain_client(folder, store.database)
            if not filled:
                for _ in fill(store, client, season, rows):
                    pass
            check(store, expected(season, rows))
            _come_to_rest(client)
            kept = _on_disk(client)
            cases, by = latencies(store, client, folder, times)
            loads = {size: _load(store, client, rows[:size], rounds) for size in sizes}
            client.close()
    return Found(sizes, loads, kept, sum(map(len, rows)) / len(rows), cases, by, os.getloadavg()[1])


def check(store: Store, sums: Mapping[str, Sum]) -> None:
    """The rollups, and the calls, are what plain Python counted; otherwise the figures mean nothing."""
    question = "SELECT tenant, {} FROM {} GROUP BY tenant"
    rolled = "sum(requests), sum(cost_nano_usd), sum(requests_without_price)"
    asked = (
        *((rolled, table) for table in ("calls_1m", "calls_1h", "calls_1d", "calls_1d_totals")),
        ("count(), sum(cost_nano_usd), countIf(cost_nano_usd IS NULL)", "calls"),
    )
    for measures, table in asked:
        counted = {tenant: Sum(*rest) for tenant, *rest in store.query(question.format(measures, table)).rows}
        if counted != sums:
            raise RuntimeError(f"{table} does not hold the calls that were made")


def _come_to_rest(client: Client) -> None:
    # As it is a day later: long ranges read it, and each late part of a month is another row of the same day.
    for table in ("calls_1d", "calls_1d_totals", "retrieval_1h"):
        client.command(f"OPTIMIZE TABLE {table} FINAL")
    deadline = time.monotonic() + _MERGED_WITHIN_S
    quiet = 0
    while quiet < 4 and time.monotonic() < deadline:
        [(merging,)] = client.query("SELECT count() FROM system.merges").result_rows
        quiet = 0 if merging else quiet + 1
        time.sleep(0.5)


def _on_disk(client: Client) -> list[Kept]:
    found = client.query(
        "SELECT table, sum(rows), sum(bytes_on_disk) AS size FROM system.parts"
        " WHERE active AND database = currentDatabase() AND table != 'schema_migrations' GROUP BY table ORDER BY size DESC"
    )
    return [Kept(*row) for row in found.result_rows]


# ---- loads


def _load(store: Store, client: Client, rows: Sequence[bytes], rounds: int) -> dict[str, Spread]:
    """Rows a second: the sink's way, a plain client into the same tables, and into one table without rollups."""
    columns = [list(column) for column in zip(*(python_row(orjson.loads(row)) for row in rows), strict=True)]
    client.command("CREATE TABLE plain AS calls")
    counted = "SELECT count(), sum(cost_nano_usd) FROM calls"
    before = store.query(counted).rows[0]
    mine_cpu: list[float] = []
    its_cpu: list[float] = []
    sides: dict[str, Side] = {
        "mine": lines_side(store, b"\n".join(rows), len(rows), mine_cpu, f"mine:{len(rows)}"),
        "its": columns_side(client, columns, its_cpu, f"its:{len(rows)}"),
        "plain": columns_side(client, columns, [], f"its:{len(rows)}", table="plain"),
    }
    spreads = take_turns(sides, rounds, lambda _: None)
    after = store.query(counted).rows[0]
    batch = store.query("SELECT count(), sum(cost_nano_usd) FROM plain").rows[0]
    rolled = store.query("SELECT sum(requests), sum(cost_nano_usd) FROM calls_1h").rows[0]
    if after != rolled or any(had + 2 * more != has for had, more, has in zip(before, batch, after, strict=True)):
        raise RuntimeError("the sides did not insert the same rows")
    client.command("DROP TABLE plain SYNC")
    cpu = {"mine_cpu": Spread(tuple(mine_cpu[1:])), "its_cpu": Spread(tuple(its_cpu[1:]))}  # the warm-up does not count
    return spreads | cpu


# ---- latencies


def views() -> dict[str, tuple[str, ...]]:
    """The views that analysts are told of, with the names of their parameters."""
    told = re.findall(r"^### (\w+)\(([^)]*)\)$", PAGE.read_text(), re.MULTILINE)
    return {view: tuple(names.split(", ")) for view, names in told}


def latencies(store: Store, client: Client, folder: Path, times: int) -> tuple[list[Case], dict[str, dict[str, Took]]]:
    """Each view in its slowest `by`, and those with a `by` in each of them over all days."""
    [(last,)] = client.query("SELECT max(started_at) FROM calls").result_rows
    until = last + timedelta(microseconds=1)
    starts = {**{name: until - length for name, length in _RANGES.items()}, _ALL: FIRST}
    cases, every = [], {}
    for view, names in views().items():
        dimensions = [by for by in BY if view not in _OF_VERDICTS or by not in _NOT_OF_VERDICTS] if "by" in names else [""]
        by_each = {by: _ask(store, _question(view, names, by, "*", FIRST, until)) for by in dimensions}
        by = max(by_each, key=lambda each: by_each[each].cpu_s)
        if "by" in names:
            every[view] = by_each
        _forget(client, folder)
        cold = _ask(store, _question(view, names, by, "*", FIRST, until))
        warm = {
            name: [_ask(store, _question(view, names, by, "*", start, until)) for _ in range(times)]
            for name, start in starts.items()
        }
        one_tenant = [_ask(store, _question(view, names, by, _ONE, FIRST, until)) for _ in range(times)]
        cases.append(
            Case(
                view,
                by,
                {name: median(took.seconds for took in each) for name, each in warm.items()},
                cold.seconds,
                median(took.seconds for took in one_tenant),
                median(took.cpu_s for took in warm[_ALL]),
                cold.rows,
            )
        )
    return cases, every


def _question(view: str, names: Sequence[str], by: str, tenant: str, since: datetime, until: datetime) -> str:
    known: dict[str, Any] = {
        **{"by": by, "tenant": tenant, "since": since.isoformat(), "until": until.isoformat()},
        **{"prompt": "triage", "rows": 20},
    }
    return f"SELECT * FROM {view}({', '.join(f'{name} = {known[name]!r}' for name in names)})"


_ROWS: Final = re.compile(rb'"rows": (\d+)')


def _ask(store: Store, question: str) -> Took:
    """As the node answers it over HTTP, whole: a long answer is part of what it takes."""
    begun, cpu = time.perf_counter(), time.process_time()
    answer = store.query_bytes(question, "JSONCompact")
    took_s, took_cpu_s = time.perf_counter() - begun, time.process_time() - cpu
    found = _ROWS.search(answer, len(answer) - 300 if len(answer) > 300 else 0)
    return Took(took_s, took_cpu_s, int(found[1]) if found else 0)


def _forget(client: Client, folder: Path) -> None:
    """Nothing that was read before is in memory, neither the engine's nor the system's."""
    for cache in ("MARK CACHE", "UNCOMPRESSED CACHE", "QUERY CONDITION CACHE"):
        client.command(f"SYSTEM DROP {cache}")
    for path in folder.rglob("*.*"):
        try:
            file = os.open(path, os.O_RDONLY)
        except OSError:
            continue  # a merge has just dropped it
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)
