"""The bench of ten million calls: a small season is what plain Python says of it, and every view that is told of is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from tidegate.bench import analysts
from tidegate.bench.season import FIRST, Season, Sum, day_rows, expected, fill
from tidegate.bench.sink import plain_client
from tidegate.sinks.clickhouse import Store

SEASON: Final = Season(days=5, a_day=400)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, list[bytes]]]:
    folder, rows = tmp_path_factory.mktemp("season") / "store", day_rows(SEASON.a_day)
    with Store.open(path=folder) as store:
        store.migrate()
        client = plain_client(folder, store.database)
        list(fill(store, client, SEASON, rows))
        client.close()
        yield store, rows


def test_a_season_holds_each_days_calls_under_ids_of_their_own_and_within_its_days(filled: tuple[Store, list[bytes]]) -> None:
    store, _ = filled

    [(calls, ids, traces, numbers, first, last)] = store.query(
        "SELECT count(), uniqExact(call_id), uniqExact(trace_id), uniqExact(producer, seq), min(started_at), max(started_at)"
        " FROM calls"
    ).rows

    assert (calls, ids, traces, numbers) == (SEASON.calls, SEASON.calls, SEASON.calls, SEASON.calls)
    assert FIRST <= first < last < FIRST + timedelta(days=SEASON.days, minutes=10)


def test_what_is_said_of_each_tenant_is_what_the_calls_themselves_add_up_to(filled: tuple[Store, list[bytes]]) -> None:
    store, rows = filled
    given: Counter[str] = Counter()
    for line in rows:
        row: dict[str, Any] = orjson.loads(line)
        given[row["tenant"]] += SEASON.days * (row["cost_nano_usd"] or 0)

    sums = expected(SEASON, rows)
    held = store.query(
        "SELECT tenant, count(), sum(cost_nano_usd), countIf(cost_nano_usd IS NULL) FROM calls GROUP BY tenant"
    ).rows

    assert {tenant: Sum(*measures) for tenant, *measures in held} == sums
    assert sum(one.requests for one in sums.values()) == SEASON.calls
    assert {site.rpartition("-")[0] for site in sums} == set(given)
    for clinic, nano in given.items():
        assert sum(one.cost_nano_usd for site, one in sums.items() if site.rpartition("-")[0] == clinic) == nano


def test_a_store_that_lacks_a_call_or_a_cent_is_noticed(filled: tuple[Store, list[bytes]]) -> None:
    store, rows = filled
    sums = expected(SEASON, rows)

    analysts.check(store, sums)
    with pytest.raises(RuntimeError, match="calls_1m does not hold"):
        analysts.check(store, sums | {"harbor-health-1": Sum(1, 2, 3)})


def test_every_fifth_call_has_a_verdict_of_its_own_scope(filled: tuple[Store, list[bytes]]) -> None:
    store, _ = filled
    numbers = [number for number in range(SEASON.calls) if number % 5 == 0]

    [(verdicts, judged, leaking, strangers)] = store.query(
        "SELECT count(), countIf(outcome = 'scored'), countIf(has(findings.leak, true)),"
        " countIf((call_id, tenant, user, started_at) NOT IN (SELECT call_id, tenant, user, started_at FROM calls))"
        " FROM scored_calls"
    ).rows

    assert verdicts == len(numbers)
    assert judged == sum(number % 55 != 0 for number in numbers)
    assert leaking == sum(number % 1000 == 5 and number % 55 != 0 for number in numbers)
    assert strangers == 0


def test_a_days_rows_are_the_same_every_time_and_begin_within_the_day() -> None:
    rows = day_rows(50)

    assert rows == day_rows(50)
    assert all(FIRST <= datetime.fromisoformat(orjson.loads(row)["started_at"]) < FIRST + timedelta(days=1) for row in rows)


def test_the_bench_asks_every_view_that_the_page_tells_of_and_fills_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("TIDEGATE_BENCH_SEASON", raising=False)

    result = analysts.run(quick=True, tick=lambda _: None)

    loads, sizes, latencies, by = result.tables
    assert all(len(row) == len(table.columns) for table in result.tables for row in table.rows)
    assert len(loads.rows) == 1
    assert {"`calls`", "`calls_1m`", "`calls_1h`", "`scored_calls`", "all of it"} <= {row[0] for row in sizes.rows}
    assert [row[0] for row in latencies.rows] == [f"`{view}`" for view in analysts.views()]
    assert [row[0] for row in by.rows] == list(analysts.BY)
    assert all(
        row[-3] != "0" for row in latencies.rows if row[0] in ("`cost_by`", "`blocks`", "`findings_by`", "`retrieval_by`")
    )
