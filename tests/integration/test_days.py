"""The rollups by day over a store that has a past: each call is carried over once, however often a migration is cut off."""

from __future__ import annotations

import random
import re
import shutil
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partialmethod
from pathlib import Path
from typing import Any, Final

import pytest
from node_process import tidegate
from support import ndjson, response
from tidegate.processors.embedded.pipeline import Pipeline
from tidegate.producers.local_log import LocalLog
from tidegate.schemas.envelope import Envelope
from tidegate.schemas.settings import Settings
from tidegate.sinks import migrations
from tidegate.sinks.clickhouse import Store

START: Final = datetime(2026, 10, 30, 22, 30, tzinfo=UTC)
DAYS, TOTALS = (next(one for one in migrations.read() if one.name == name) for name in ("0011_days", "0016_totals"))


def a_past(count: int, seed: int) -> list[dict[str, Any]]:
    """Calls of ten days, in two months; one in five has no price."""
    pick = random.Random(seed)
    return [
        {
            "event": "response",
            "call_id": f"c{number}",
            "started_at": (START + timedelta(minutes=pick.randrange(14_400))).isoformat(),
            "tenant": f"t{pick.randrange(2)}",
            "user": f"u{pick.randrange(5)}",
            "request_model": "gpt-4o",
            "latency_s": pick.random(),
            "retrieval": [{"chunk_id": "k", "score": pick.choice((None, 0.25, 0.5)), "source": "kb"}][: number % 3],
            "cost_nano_usd": pick.choice((None, *range(4))),
            "price_status": "priced",
            "price_book": "b",
            "producer": "p",
            "seq": number,
            "ingested_at": START.isoformat(),
            "source_partition": 0,
            "source_offset": number,
        }
        for number in range(count)
    ]


def of_days(rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """The rollup as a plain computation: requests, those without a price, cost, the largest latency, and the hours' ends."""
    requests, without, cost = Counter[Any](), Counter[Any](), Counter[Any]()
    largest: dict[Any, float] = {}
    hours: dict[Any, list[datetime]] = {}
    for row in rows:
        hour = datetime.fromisoformat(row["started_at"]).replace(minute=0)
        key = (hour.date(), row["tenant"], row["user"])
        requests[key] += 1
        without[key] += row["cost_nano_usd"] is None
        cost[key] += row["cost_nano_usd"] or 0
        largest[key] = max(largest.get(key, 0.0), row["latency_s"])
        hours.setdefault(key, []).append(hour)
    return {key: (requests[key], without[key], cost[key], largest[key], min(hours[key]), max(hours[key])) for key in requests}


def said(store: Store) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    found = store.query(
        "SELECT day, tenant, user, sum(requests), sum(requests_without_price), sum(cost_nano_usd), max(latency_s_max),"
        " min(first_hour), max(last_hour) FROM calls_1d GROUP BY day, tenant, user"
    ).rows
    return {row[:3]: row[3:] for row in found}


@pytest.fixture
def before(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The migrations of the version before there were days; or of another."""
    folder = tmp_path / "before"
    folder.mkdir()
    for file in migrations.FOLDER.glob("*.sql"):
        if file.name < getattr(request, "param", "0011"):
            shutil.copy(file, folder)
    return folder


before_each: Final = pytest.mark.parametrize("before", ["0011", "0016"], indirect=True)


def test_what_the_store_has_is_carried_over_once_wherever_the_migration_was_cut_off(tmp_path: Path, before: Path) -> None:
    past, more = a_past(600, seed=1), a_past(300, seed=2)
    with Store.open(path=tmp_path / "store") as store:
        store.migrate(before)
        store.insert("calls", ndjson(past), "t:0:1-600")
        for done in range(len(DAYS.statements) + 1):
            for statement in DAYS.statements[:done]:
                store._writer.command(statement)

        store.migrate()

        carried = said(store)
        store.insert("calls", ndjson(more), "t:0:601-900")
        store.insert("calls", ndjson(more), "t:0:601-900")
        after = said(store)
        quantile = "SELECT latency_p50_s FROM latency_by(by = 'model', tenant = '*', since = '2026-10-31', until = '2026-11-8')"
        [(median,)] = store.query(quantile).rows

    assert carried == of_days(past)
    assert after == of_days(past + more)
    whole = [row for row in past + more if "2026-10-31" <= row["started_at"] < "2026-11-08"]
    latencies = sorted(row["latency_s"] for row in whole)
    assert median == pytest.approx(latencies[len(latencies) // 2], rel=0.02)


def totals_of(rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """The same without users."""
    kept = of_days([row | {"user": None} for row in rows])
    return {(day, tenant): sums for (day, tenant, _), sums in kept.items()}


def said_of_totals(store: Store) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    found = store.query(
        "SELECT day, tenant, sum(requests), sum(requests_without_price), sum(cost_nano_usd), max(latency_s_max),"
        " min(first_hour), max(last_hour) FROM calls_1d_totals GROUP BY day, tenant"
    ).rows
    return {row[:2]: row[2:] for row in found}


def retrieved_of(rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Calls that retrieved, their chunks, those with a score, and the sum of the best."""
    sums: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        if row["retrieval"]:
            hour = datetime.fromisoformat(row["started_at"]).replace(minute=0)
            one = sums.setdefault((hour, row["tenant"]), [0, 0, 0, 0.0])
            scores = [chunk["score"] for chunk in row["retrieval"] if chunk["score"] is not None]
            for place, more in enumerate((1, len(row["retrieval"]), bool(scores), max(scores, default=0.0))):
                one[place] += more
    return {key: tuple(one) for key, one in sums.items()}


def said_of_retrieval(store: Store) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    found = store.query(
        "SELECT hour, tenant, sum(calls_with_retrieval), sum(chunks), sum(calls_with_scores), sum(best_score_sum)"
        " FROM retrieval_1h GROUP BY hour, tenant"
    ).rows
    return {row[:2]: row[2:] for row in found}


@pytest.mark.parametrize("before", ["0016"], indirect=True)
def test_totals_and_retrieval_are_carried_over_once_wherever_the_migration_was_cut_off(tmp_path: Path, before: Path) -> None:
    past, more = a_past(600, seed=6), a_past(300, seed=7)
    with Store.open(path=tmp_path / "store") as store:
        store.migrate(before)
        store.insert("calls", ndjson(past), "t:0:1-600")
        for done in range(len(TOTALS.statements) + 1):
            for statement in TOTALS.statements[:done]:
                store._writer.command(statement)

        store.migrate()

        carried = said_of_totals(store), said_of_retrieval(store)
        store.insert("calls", ndjson(more), "t:0:601-900")
        store.insert("calls", ndjson(more), "t:0:601-900")
        after = said_of_totals(store), said_of_retrieval(store)
        quantiles = [
            store.query(f"SELECT quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(latency_s_state) FROM {table}").rows
            for table in ("calls_1h", "calls_1d_totals")
        ]

    assert carried == (totals_of(past), retrieved_of(past))
    assert after == (totals_of(past + more), retrieved_of(past + more))
    assert quantiles[0] == quantiles[1]


def test_the_hours_without_a_price_are_carried_over(tmp_path: Path, before: Path) -> None:
    past = a_past(200, seed=3)
    asked = "SELECT first_hour, last_hour FROM unpriced_models(tenant = '*', since = '2026-10-30', until = '2026-11-20')"
    with Store.open(path=tmp_path / "store") as store:
        store.migrate(before)
        store.insert("calls", ndjson(past), "t:0:1-200")

        store.migrate()

        answer = store.query(asked).rows

    hours = [datetime.fromisoformat(row["started_at"]).replace(minute=0) for row in past if row["cost_nano_usd"] is None]
    assert answer == [(min(hours), max(hours))]


PAGE: Final = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
# Each rollup, and what is wrong along with it.
EVERYTHING: Final = {
    "calls_1h": ("calls_1h", "calls_1d", "calls_1d_totals"),
    "calls_1d": ("calls_1d", "calls_1d_totals"),
    "calls_1d_totals": ("calls_1d_totals",),
    "retrieval_1h": ("retrieval_1h",),
}


def everything(store: Store, table: str) -> list[tuple[Any, ...]]:
    """All columns of a rollup, added up; of its sketches, what they say."""
    kinds = store.query(
        "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = {table:String} ORDER BY position",
        {"table": table},
    ).rows
    columns = [
        f"{kind.partition('(')[2].partition(',')[0]}({table}.{name})"
        if kind.startswith("Simple")
        else f"toString(quantilesDDMerge(0.01, 0.5, 0.95, 0.99)({name}))"  # no nan is another
        if kind.startswith("Aggregate")
        else name
        for name, kind in kinds
    ]
    return store.query(f"SELECT {', '.join(columns)} FROM {table} GROUP BY ALL ORDER BY ALL").rows


@pytest.mark.parametrize("torn", list(EVERYTHING))
def test_a_month_is_made_anew_as_the_page_says(tmp_path: Path, torn: str) -> None:
    section = PAGE.partition("**A month of rollups made anew.**")[2]
    [of_calls, of_hours, of_days_, of_chunks] = re.findall(r"```sql\n(.*?)```", section, re.DOTALL)[:4]
    # Each block makes its table and what follows of it.
    mending = {
        "calls_1h": of_calls + of_days_,
        "calls_1d": of_hours + of_days_,
        "calls_1d_totals": of_days_,
        "retrieval_1h": of_chunks,
    }[torn]
    rows = a_past(300, seed=4)
    with Store.open(path=tmp_path / "store") as store:
        store.migrate()
        store.insert("calls", ndjson(rows), "t:0:1-300")
        sound = {table: everything(store, table) for table in EVERYTHING}
        for table in EVERYTHING[torn]:
            store._writer.command(f"ALTER TABLE {table} DELETE WHERE tenant = 't1' SETTINGS mutations_sync = 2")
        broken = {table: everything(store, table) for table in EVERYTHING}

        for month in ("202610", "202611"):
            for statement in mending.replace("202611", month).split(";\n")[:-1]:
                store._writer.command(statement)

        assert broken[torn] != sound[torn]
        assert {table: everything(store, table) for table in EVERYTHING} == sound
        assert said(store) == of_days(rows)
        assert said_of_retrieval(store) == retrieved_of(rows)


def test_what_the_cache_saved_in_calls_of_before_is_unknown_and_not_0(tmp_path: Path, before: Path) -> None:
    past = a_past(50, seed=5)
    known = [row | {"seq": 100 + row["seq"], "cache_savings_nano_usd": row["seq"] - 20} for row in past[:30]]
    asked = "cache_savings_usd, requests_without_cache_savings"
    views = (
        "tokens_by(by = 'model', tenant = '*', since = '2026-10-01', until = '2026-12-01')",
        "tokens_by(by = 'model', tenant = '*', since = '2026-10-31T05:30:00Z', until = '2026-12-01')",
    )
    with Store.open(path=tmp_path / "store") as store:
        store.migrate(before)
        store.insert("calls", ndjson(past), "t:0:1-50")

        store.migrate()

        unknown = [store.query(f"SELECT {asked} FROM {view}").rows for view in views]
        store.insert("calls", ndjson(known), "t:0:51-80")
        told = [store.query(f"SELECT {asked} FROM {view}").rows for view in views]
        rolled = [
            store.query(f"SELECT sum(cache_savings_nano_usd), sum(requests_without_cache_savings) FROM {view}").rows
            for view in ("v_calls_1h", "v_calls_1d")
        ]
        of_rows = store.query("SELECT sum(cache_savings_usd), countIf(cache_savings_usd IS NULL) FROM calls").rows

    late = [row for row in known if row["started_at"] >= "2026-10-31T05:30:00"]
    late_past = [row for row in past if row["started_at"] >= "2026-10-31T05:30:00"]
    sums = [sum(row["cache_savings_nano_usd"] for row in rows) for rows in (known, late)]
    assert unknown == [[(None, 50)], [(None, len(late_past))]]
    assert told == [[(Decimal(sums[0]).scaleb(-9), 50)], [(Decimal(sums[1]).scaleb(-9), len(late_past))]]
    assert rolled == [[(sums[0], 50)]] * 2
    assert of_rows == [(Decimal(sums[0]).scaleb(-9), 50)]


def test_a_day_without_calls_is_0_and_one_before_the_first_call_is_not_known(tmp_path: Path) -> None:
    asked = {"by": "user", "tenant": "*", "since": "2026-10-01", "until": "2026-11-01"}
    told = [("a", "2026-10-05"), ("a", "2026-10-12"), ("b", "2026-10-13")]
    row = {"event": "response", "cost_nano_usd": 10**9, "price_status": "priced", "producer": "p", "source_partition": 0}
    rows = [
        row | {"user": user, "started_at": f"{day}T08:00:00Z", "seq": seq, "source_offset": seq}
        for seq, (user, day) in enumerate(told)
    ]
    with Store.open(path=tmp_path / "store") as store:
        store.migrate()
        store.insert("calls", ndjson(rows), "calls:0:0-2")

        given = ", ".join(f"{name} = {value!r}" for name, value in asked.items())
        before = "cost_usd_day_before, cost_usd_week_before, requests_day_before, requests_week_before"
        said = store.query(f"SELECT day, value, {before} FROM days_by({given})").rows

    assert said == [
        (date(2026, 10, 5), "a", None, None, None, None),
        (date(2026, 10, 12), "a", 0, 1, 0, 1),
        (date(2026, 10, 13), "b", 0, 0, 0, 0),
    ]


class Abort(BaseException):
    """The power goes out."""


def killed(folder: Path, before: Path, monkeypatch: pytest.MonkeyPatch, at: str = "3 insert") -> Settings:
    """A node of the version before lost its power when a promise stood, its batch in the store or not yet: 80 calls in all."""
    log = LocalLog(folder, fsync="normal", partitions=2)
    lines = ndjson([response(f"c{number}") for number in range(20)]).split(b"\n")
    log.append([Envelope.of(f"p{producer}", 0, lines) for producer in range(4)])
    log.close()

    def outage(step: str) -> None:
        if step == at:
            raise Abort

    settings = Settings.read(data_dir=folder, fsync="normal", sink_linger_s=0.0)
    with monkeypatch.context() as old_version:
        old_version.setattr(Store, "migrate", partialmethod(Store.migrate, before))
        pipeline = Pipeline(folder, settings, at=outage)
        with pytest.raises(Abort):
            pipeline.drain()
        assert (pipeline.store.query("SELECT count() FROM calls").rows != [(0,)]) == (at == "3 insert")
        pipeline.close()
    return settings


def drained(folder: Path, settings: Settings) -> list[tuple[int, ...]]:
    pipeline = Pipeline(folder, settings)
    pipeline.drain()
    sums = ", ".join(
        f"(SELECT sum(requests) FROM {rollup})" for rollup in ("calls_1m", "calls_1h", "calls_1d", "calls_1d_totals")
    )
    counted = pipeline.store.query(f"SELECT (SELECT count() FROM calls), {sums}").rows
    pipeline.close()
    return counted


@before_each
def test_a_batch_that_was_promised_to_the_version_before_counts_once(
    tmp_path: Path, before: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = killed(tmp_path / "data", before, monkeypatch)

    assert drained(tmp_path / "data", settings) == [(80, 80, 80, 80, 80)]


@before_each
@pytest.mark.parametrize("command", [("db", "migrate"), ("db", "keep", "calls", "3000")])
def test_a_command_that_migrates_counts_a_promised_batch_once(
    tmp_path: Path, before: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    settings = killed(tmp_path / "data", before, monkeypatch)

    done = tidegate(*command, "--data", tmp_path / "data")

    assert done.returncode == 0, done.stderr
    assert drained(tmp_path / "data", settings) == [(80, 80, 80, 80, 80)]


@pytest.mark.parametrize("at", ["2 promise", "3 insert"])
def test_a_batch_that_stands_promised_while_the_view_of_the_hours_is_missing_counts_once(
    tmp_path: Path, before: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    shutil.copy(migrations.FOLDER / "0011_days.sql", before)
    settings = killed(tmp_path / "data", before, monkeypatch, at)
    cache = next(migration for migration in migrations.read() if migration.name == "0012_cache_savings")
    cut = next(place for place, statement in enumerate(cache.statements) if "DROP VIEW" in statement) + 1
    with Store.open(path=tmp_path / "data" / "store") as store:
        for statement in cache.statements[:cut]:
            store._writer.command(statement)

    done = tidegate("db", "migrate", "--data", tmp_path / "data")

    assert done.returncode == 0, done.stderr
    assert drained(tmp_path / "data", settings) == [(80, 80, 80, 80, 80)]
