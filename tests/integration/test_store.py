"""The store on the real engine: rows, rollups, sending twice, refusals, questions, migrations.

chDB holds one folder per process, so every test opens its own and closes it; nothing here forks.
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from support import ndjson
from tidegate.schemas.call import TOKEN_FIELDS, CallEvent, RequestEvent, ResponseEvent
from tidegate.schemas.errors import StoreUnavailable, UsageError
from tidegate.sinks import migrations
from tidegate.sinks.clickhouse import QueryRefused, RowsRefused, Store

Row = dict[str, Any]

ADDITIVE = ("requests", "errors", *TOKEN_FIELDS, "requests_without_tokens", "requests_without_price", "cost_nano_usd")
MINUTE_DIMENSIONS = ("tenant", "team", "service", "environment", "provider_name", "model")
HOUR_DIMENSIONS = (*MINUTE_DIMENSIONS, "user", "region", "task_type", "prompt_name", "prompt_version")
NOON = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)

# Every field that the meter writes, with a value that a wrong type would spoil.
GOLDEN: Row = {
    "event": "response",
    "call_id": "call-Ω;'`\\\"--/*{x:UInt8}",
    "started_at": "2026-11-02T08:00:09.778123+02:00",
    "tenant": "harbor-health",
    "team": "pharmacy",
    "user": "u-17",
    "service": "triage",
    "environment": "prod",
    "region": "eu-west-1",
    "task_type": "summary",
    "provider_name": "anthropic",
    "request_model": "claude-sonnet-4-5",
    "operation_name": "chat",
    "prompt_name": "triage",
    "prompt_version": "2.1",
    "temperature": 0.1,
    "top_p": 0.9,
    "top_k": 40.0,
    "frequency_penalty": -0.5,
    "presence_penalty": 0.25,
    "max_tokens": 1_000_000_000,
    "seed": -(2**63),
    "choice_count": 10_000,
    "stream": True,
    "service_tier": "priority",
    "attempt": 1_000,
    "fallback_from": "gpt-4o",
    "experiment": "e1",
    "variant": "b",
    "conversation_id": "conv-1",
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "span_id": "00f067aa0ba902b7",
    "labels": {"plan": "gold", "note": "naïve; FORMAT JSON\\u0000"},
    "response_model": "claude-sonnet-4-5-20250929",
    "response_id": "msg_01",
    "finish_reason": "stop",
    "input_tokens": 1_000,
    "output_tokens": 200,
    "cache_read_tokens": 300,
    "cache_write_5m_tokens": 40,
    "cache_write_1h_tokens": 50,
    "reasoning_tokens": 60,
    "input_audio_tokens": 7,
    "output_audio_tokens": 8,
    "cache_audio_read_tokens": 9,
    "latency_s": 1.234567,
    "time_to_first_token_s": 0.1,
    "error_type": "content_filter",
    "error_code": "E:42",
    "cache_hit": False,
    "retrieval": [{"chunk_id": "c1", "score": 0.5, "source": "kb"}, {"chunk_id": "c2", "score": None, "source": "kb"}],
    "quality": {"faithfulness": 0.75},
    "cost_nano_usd": 123_456_789,
    "cache_savings_nano_usd": -7_000,
    "price_status": "priced",
    "price_book": "genai-prices",
    "producer": "triage-1",
    "seq": 2**62,
    "ingested_at": "2026-11-02T06:00:11.500Z",
    "source_partition": 255,
    "source_offset": 2**53,
}


def a_call(number: int, **fields: Any) -> Row:
    return {
        "event": "response",
        "call_id": f"c{number}",
        "started_at": (NOON + timedelta(seconds=number)).isoformat(),
        "request_model": "gpt-4o",
        "producer": "p",
        "seq": number,
        "ingested_at": NOON.isoformat(),
        "source_partition": 0,
        "source_offset": number,
        "price_status": "priced",
        "price_book": "b",
        "cost_nano_usd": 1,
        **fields,
    }


def many_calls(count: int, seed: int, hours: float = 5.0) -> list[Row]:
    """Calls with every kind of gap: unknown tokens, prices, latencies, dimensions, and errors."""
    pick = random.Random(seed)

    def sometimes(value: Any, share: float = 0.8) -> Any:
        return value if pick.random() < share else None

    rows = []
    for number in range(count):
        known = pick.random() < 0.9
        rows.append(
            a_call(
                number,
                started_at=(NOON + timedelta(seconds=pick.random() * hours * 3600)).isoformat(),
                tenant=sometimes(f"t{pick.randrange(4)}"),
                team=sometimes(f"team{pick.randrange(3)}"),
                user=sometimes(f"u{pick.randrange(20)}"),
                service=sometimes("svc"),
                region=sometimes(pick.choice(["eu", "us"])),
                provider_name=sometimes("openai"),
                request_model=pick.choice(["gpt-4o", "gpt-4o-mini"]),
                response_model=sometimes("gpt-4o-2024-08-06", 0.5),
                prompt_name=sometimes(f"prompt{pick.randrange(5)}"),
                prompt_version=sometimes("2.1"),
                error_type=sometimes(pick.choice(["timeout", "rate_limit"]), 0.1),
                latency_s=sometimes(pick.lognormvariate(0, 1)),
                time_to_first_token_s=sometimes(pick.lognormvariate(-1, 1)),
                cost_nano_usd=sometimes(pick.randrange(10**12)),
                **{name: pick.randrange(10**6) if known else sometimes(pick.randrange(10**9), 0.3) for name in TOKEN_FIELDS},
            )
        )
    return rows


def everything(store: Store) -> dict[str, Any]:
    """What the table and the rollups say, for comparing before and after."""
    sums = ", ".join(f"sum({name}) AS {name}" for name in ADDITIVE)
    said: dict[str, Any] = {"calls": store.query("SELECT count(), sum(cityHash64(call_id, seq)) FROM calls").rows}
    # As text: quantiles of nothing are NaN, which equals nothing.
    totals = "sumMap(errors_by_type), toString(quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(latency_s_state))"
    said["calls_1d_totals"] = store.query(f"SELECT {sums}, {totals} FROM calls_1d_totals").rows
    for view in ("v_calls_1m", "v_calls_1h", "v_calls_1d"):
        said[view] = store.query(f"SELECT {sums}, sumMap(errors_by_type), count() FROM {view}").rows
        said[f"{view} quantiles"] = sorted(
            store.query(f"SELECT tenant, team, latency_p50_s, latency_p99_s, latency_max_s FROM {view}").rows, key=repr
        )
    return said


def _truth(rows: list[Row], dimensions: tuple[str, ...], seconds: int) -> dict[tuple[Any, ...], Counter[str]]:
    """The rollup as a plain Python sum."""
    truth: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    for row in rows:
        started = datetime.fromisoformat(row["started_at"])
        bucket = datetime.fromtimestamp(int(started.timestamp()) // seconds * seconds, UTC)
        named = {**row, "model": row.get("response_model") or row["request_model"]}
        sums = truth[(bucket, *(named.get(name) or "" for name in dimensions))]
        sums["requests"] += 1
        sums["cost_nano_usd"] += row["cost_nano_usd"] or 0
        sums["requests_without_price"] += row["cost_nano_usd"] is None
        sums["requests_without_tokens"] += row.get("input_tokens") is None or row.get("output_tokens") is None
        for name in TOKEN_FIELDS:
            sums[name] += row.get(name) or 0
        if row.get("error_type"):
            sums["errors"] += 1
            sums[row["error_type"]] += 1
    return truth


# ---- rows ----


def test_every_field_of_a_response_comes_back_as_it_was_written(store: Store) -> None:
    assert set(GOLDEN) >= set(ResponseEvent.model_fields) - {"usage"}

    store.insert("calls", ndjson([GOLDEN]), "t:0:1-1")

    [row] = store.query("SELECT * FROM calls").dicts()
    expected = {name: value for name, value in GOLDEN.items() if name != "event"}
    expected["started_at"] = datetime.fromisoformat(GOLDEN["started_at"])
    expected["ingested_at"] = datetime.fromisoformat(GOLDEN["ingested_at"])
    assert row == expected
    assert row["started_at"].tzinfo is not None


def test_what_is_said_beside_the_fields_follows_from_them(store: Store) -> None:
    store.insert("calls", ndjson([GOLDEN, a_call(2, tenant="plain")]), "t:0:1-2")

    sql = "SELECT model, status, cost_usd, ended_at, total_tokens FROM calls ORDER BY tenant"
    golden, plain = store.query(sql).rows

    ended_at = datetime.fromisoformat(GOLDEN["started_at"]) + timedelta(microseconds=1_234_567)
    assert golden == ("claude-sonnet-4-5-20250929", "error", Decimal("0.123456789"), ended_at, 1_200)
    assert plain == ("gpt-4o", "ok", Decimal("0.000000001"), None, None)


def test_what_is_absent_or_null_is_null_for_numbers_and_empty_for_words(store: Store) -> None:
    absent = a_call(1)
    null = {**dict.fromkeys(GOLDEN), **a_call(2)}

    store.insert("calls", ndjson([absent, null]), "t:0:1-2")

    first, second = store.query("SELECT * FROM calls ORDER BY seq").dicts()
    for name in GOLDEN.keys() - absent.keys():
        value = GOLDEN[name]
        nothing: Any = (
            "" if isinstance(value, str) else {} if isinstance(value, dict) else [] if isinstance(value, list) else None
        )
        assert (name, first[name], second[name]) == (name, nothing, nothing)


def test_a_request_comes_back_as_it_was_written(store: Store) -> None:
    metering = {"producer", "seq", "ingested_at", "source_partition", "source_offset"}
    row = {name: GOLDEN[name] for name in {*CallEvent.model_fields, *metering}}
    row |= {"event": "request", "estimated_input_tokens": 900, "estimated_output_tokens": None}
    assert set(row) >= set(RequestEvent.model_fields)

    store.insert("call_requests", ndjson([row]), "t:0:1-1")

    [stored] = store.query("SELECT * FROM call_requests").dicts()
    assert set(stored) == set(row) - {"event"}
    assert stored["seq"] == 2**62
    assert (stored["estimated_input_tokens"], stored["estimated_output_tokens"]) == (900, None)


def test_a_dead_letter_comes_back_as_it_was_written(store: Store) -> None:
    row = {
        "at": "2026-11-02T08:00:00.125Z",
        "stage": "edge",
        "source": "http",
        "line": None,
        "size_bytes": 17,
        "sha256": "ab" * 32,
        "reason": "not JSON",
        "producer": "p",
        "seq": None,
        "source_partition": 1,
        "source_offset": 2,
    }

    store.insert("dead_letters", ndjson([row]), "t:0:1-1")

    [stored] = store.query("SELECT * FROM dead_letters").dicts()
    assert stored == {**row, "at": datetime.fromisoformat(row["at"])}


def test_two_calls_with_one_id_stay_two(store: Store) -> None:
    store.insert("calls", ndjson([a_call(1, call_id="same"), a_call(2, call_id="same")]), "t:0:1-2")

    assert store.query("SELECT count() FROM calls WHERE call_id = 'same'").rows == [(2,)]


def test_a_backfill_over_more_months_than_clickhouse_allows_by_default_goes_in(store: Store) -> None:
    rows = [a_call(n, started_at=f"{2010 + n // 12}-{n % 12 + 1:02}-15T00:00:00Z") for n in range(130)]

    for _ in range(2):
        store.insert("calls", ndjson(rows), "t:0:1-130")

    assert store.query("SELECT count(), uniqExact(toYYYYMM(started_at)) FROM calls").rows == [(130, 130)]
    assert store.query("SELECT sum(requests) FROM v_calls_1h").rows == [(130,)]


def test_a_call_from_an_absurd_year_is_kept_and_counted_once(store: Store) -> None:
    years = (
        "0001-01-01T00:00:00Z",
        "1900-01-01T00:00:00Z",
        "2105-06-01T00:00:00Z",
        "2299-12-31T00:00:00Z",
        "9999-12-31T00:00:00Z",
    )
    rows = [a_call(n, started_at=year) for n, year in enumerate(years)]

    store.insert("calls", ndjson(rows), "t:0:1-5")

    assert store.query("SELECT count() FROM calls").rows == [(5,)]
    assert store.query("SELECT sum(requests) FROM v_calls_1m").rows == [(5,)]
    assert store.query("SELECT sum(requests) FROM v_calls_1h WHERE hour > '1970-01-02' AND hour < '2105-01-01'").rows == [(0,)]


# ---- what is refused ----


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"prompt":"patient Rosa Martinez"}', "unknown field prompt"),
        (b'{"input_tokens":"Rosa"}', "field input_tokens"),
        (b'{"input_tokens":-1}', "field input_tokens"),
        (b'{"input_tokens":1.5}', "row 2"),
        (b'{"started_at":"Rosa"}', "field started_at"),
        (b'{"retrieval":[{"chunk_id":"c","text":"Rosa"}]}', "field retrieval"),
        (b'{"labels":"Rosa"}', "field labels"),
        (b'{"tenant":"Rosa"', "row 2"),
        (b"Rosa", "row 2"),
    ],
)
def test_a_row_that_cannot_be_taken_refuses_the_batch_and_is_not_quoted(store: Store, line: bytes, said: str) -> None:
    with pytest.raises(RowsRefused) as refused:
        store.insert("calls", ndjson([a_call(1)]) + b"\n" + line, "t:0:1-2")

    assert said in refused.value.reason or said == "row 2"
    assert "Rosa" not in str(refused.value)
    assert refused.value.__suppress_context__
    assert store.query("SELECT count() FROM calls").rows == [(0,)]
    assert store.query("SELECT count() FROM calls_1m").rows == [(0,)]


def test_a_refused_batch_goes_in_under_its_token_once_it_is_mended(store: Store) -> None:
    with pytest.raises(RowsRefused):
        store.insert("calls", ndjson([a_call(1), a_call(2, seq="x")]), "t:0:1-2")

    store.insert("calls", ndjson([a_call(1), a_call(2)]), "t:0:1-2")

    assert store.query("SELECT sum(requests) FROM v_calls_1m").rows == [(2,)]


def test_no_lines_are_no_batch(store: Store) -> None:
    store.insert("calls", b"", "t:0:1-1")

    assert store.query("SELECT count() FROM calls").rows == [(0,)]


def test_an_unknown_table_says_to_migrate(tmp_path: Path) -> None:
    with Store.open(path=tmp_path / "new") as store, pytest.raises(UsageError, match="run its migrations"):
        store.insert("calls", ndjson([a_call(1)]), "t:0:1-1")


@pytest.mark.parametrize(("table", "token"), [("calls; DROP TABLE calls", "t"), ("calls", "t' , x='"), ("calls", "")])
def test_names_that_could_break_out_of_a_statement_are_refused(store: Store, table: str, token: str) -> None:
    with pytest.raises(ValueError, match="plain name"):
        store.insert(table, ndjson([a_call(1)]), token)


# ---- rollups ----


@pytest.mark.parametrize(
    ("view", "bucket", "seconds", "dimensions"),
    [
        ("v_calls_1m", "minute", 60, MINUTE_DIMENSIONS),
        ("v_calls_1h", "hour", 3600, HOUR_DIMENSIONS),
        ("v_calls_1d", "day", 86_400, HOUR_DIMENSIONS),
    ],
)
def test_rollups_equal_the_calls_and_a_plain_sum(
    store: Store, view: str, bucket: str, seconds: int, dimensions: tuple[str, ...]
) -> None:
    rows = many_calls(3_000, seed=7, hours=60)
    for start in range(0, len(rows), 1_000):
        store.insert("calls", ndjson(rows[start : start + 1_000]), f"t:0:{start}")
    keys = ", ".join((bucket, *dimensions))
    rolled_keys = ", ".join((f"toDateTime({bucket}, 'UTC')", *dimensions))
    by_hand = ", ".join(
        {
            "requests": "count() AS requests",
            "errors": "countIf(error_type != '') AS errors",
            "requests_without_tokens": "countIf(input_tokens IS NULL OR output_tokens IS NULL) AS requests_without_tokens",
            "requests_without_price": "countIf(cost_nano_usd IS NULL) AS requests_without_price",
        }.get(name, f"ifNull(sum(calls.{name}), 0)")
        for name in ADDITIVE
    )

    rolled = store.query(f"SELECT {rolled_keys}, {', '.join(ADDITIVE)} FROM {view} ORDER BY ALL").rows
    plain = store.query(
        f"SELECT toStartOfInterval(started_at, INTERVAL {seconds} SECOND) AS {bucket}, {', '.join(dimensions)}, {by_hand}"
        f" FROM calls GROUP BY {keys} ORDER BY ALL"
    ).rows
    errors = store.query(f"SELECT {rolled_keys}, errors_by_type FROM {view}").rows

    assert rolled == plain
    truth = _truth(rows, dimensions, seconds)
    width = 1 + len(dimensions)
    assert {row[:width]: row[width:] for row in rolled} == {
        key: tuple(t[name] for name in ADDITIVE) for key, t in truth.items()
    }
    assert {row[:width]: row[width] for row in errors} == {
        key: {kind: t[kind] for kind in ("timeout", "rate_limit") if t[kind]} for key, t in truth.items()
    }


def test_cost_in_dollars_is_exact(store: Store) -> None:
    costs = [10**15 + 1, 1, 10**12 - 7]
    store.insert("calls", ndjson([a_call(n, cost_nano_usd=cost) for n, cost in enumerate(costs)]), "t:0:1-3")

    assert store.query("SELECT sum(cost_usd) FROM v_calls_1h").rows == [(Decimal(sum(costs)) / 10**9,)]
    assert store.query("SELECT sum(cost_usd) FROM calls").rows == [(Decimal(sum(costs)) / 10**9,)]


def test_latency_quantiles_are_within_one_percent_and_merge_across_batches(store: Store) -> None:
    pick = random.Random(3)
    latencies = sorted(pick.lognormvariate(0, 1) for _ in range(2_000))
    shuffled = pick.sample(latencies, len(latencies))
    for start in range(0, 2_000, 500):
        rows = [a_call(0, seq=n, latency_s=shuffled[n]) for n in range(start, start + 500)]
        store.insert("calls", ndjson(rows), f"t:0:{start}")

    [answer] = store.query("SELECT latency_p50_s, latency_p95_s, latency_p99_s, latency_max_s FROM v_calls_1m").rows

    exact = [latencies[round(share * 1_999)] for share in (0.5, 0.95, 0.99)]
    assert list(answer[:3]) == pytest.approx(exact, rel=0.02)
    assert answer[3] == latencies[-1]


def test_a_latency_nobody_knows_is_null_in_the_views(store: Store) -> None:
    store.insert("calls", ndjson([a_call(1)]), "t:0:1-1")

    assert store.query("SELECT latency_p99_s, latency_max_s, time_to_first_token_p50_s FROM v_calls_1m").rows == [
        (None, None, None)
    ]


# ---- the same batch again ----


def test_a_batch_sent_again_changes_nothing(store: Store) -> None:
    lines = ndjson(many_calls(2_000, seed=1))
    store.insert("calls", lines, "t:0:1-2000")
    before = everything(store)

    for _ in range(3):
        store.insert("calls", lines, "t:0:1-2000")

    assert everything(store) == before


def test_a_batch_sent_again_after_a_restart_changes_nothing(tmp_path: Path) -> None:
    lines = ndjson(many_calls(500, seed=2))
    with Store.open(path=tmp_path / "store") as store:
        store.migrate()
        store.insert("calls", lines, "t:0:1-500")
        before = everything(store)

    with Store.open(path=tmp_path / "store") as store:
        assert store.migrate() == []
        store.insert("calls", lines, "t:0:1-500")

        assert everything(store) == before


def test_the_same_rows_under_another_token_are_other_calls(store: Store) -> None:
    for token in ("t:0:1-1", "t:1:1-1"):
        store.insert("calls", ndjson([a_call(1)]), token)

    assert store.query("SELECT sum(requests) FROM v_calls_1m").rows == [(2,)]


def test_a_batch_becomes_one_part_in_the_table_and_in_each_rollup(store: Store) -> None:
    # More groups than an aggregation keeps in one block of its own (65,409 rows), so that a rollup could be cut too.
    rows = b"\n".join(
        b'{"started_at":"2026-11-02T08:00:00Z","request_model":"m","user":"u%d","tenant":"t%d","seq":%d}' % (n, n, n)
        for n in range(15_000)
    )

    store.insert("calls", rows, "t:0:1-120000")

    parts = "SELECT table, count(), sum(rows) FROM system.parts WHERE database = 'tidegate' AND min_block_number = 1"
    assert store.query(f"{parts} AND max_block_number = 1 AND table LIKE 'calls%' GROUP BY table ORDER BY table").rows == [
        ("calls", 1, 15_000),
        ("calls_1d", 1, 15_000),
        ("calls_1d_totals", 1, 15_000),
        ("calls_1h", 1, 15_000),
        ("calls_1m", 1, 15_000),
    ]


@pytest.mark.parametrize("missing", ["calls_to_1m", "calls_to_1h", "calls_to_1d", "calls_to_1d_totals"])
def test_a_batch_that_missed_one_rollup_is_healed_by_sending_it_again(store: Store, missing: str) -> None:
    lines = ndjson(many_calls(500, seed=3))
    store.insert("calls", ndjson([a_call(1)]), "t:0:0-0")
    [(definition,)] = store._writer.query(f"SHOW CREATE TABLE {missing}").result_rows
    store._writer.command(f"DROP VIEW {missing} SYNC")
    store.insert("calls", lines, "t:0:1-500")
    store._writer.command(definition)
    torn = everything(store)

    store.insert("calls", lines, "t:0:1-500")

    healed = everything(store)
    assert torn != healed
    assert healed["calls"] == torn["calls"]
    for view in ("v_calls_1m", "v_calls_1h", "v_calls_1d", "calls_1d_totals"):
        assert store.query(f"SELECT sum(requests) FROM {view}").rows == [(501,)]


def test_a_batch_that_failed_between_its_rollups_is_healed_by_sending_it_again(store: Store) -> None:
    lines = ndjson(many_calls(500, seed=4))
    store._writer.command("CREATE TABLE broken (requests UInt64) ENGINE = MergeTree ORDER BY requests")
    store._writer.command("CREATE MATERIALIZED VIEW calls_to_broken TO broken AS SELECT throwIf(1) AS requests FROM calls")
    with pytest.raises(Exception, match="throwIf"):
        store.insert("calls", lines, "t:0:1-500")
    torn = _counts(store)
    store._writer.command("DROP VIEW calls_to_broken SYNC")

    store.insert("calls", lines, "t:0:1-500")

    assert len(set(torn)) > 1
    assert _counts(store) == [500] * 5


def _counts(store: Store) -> list[int]:
    asked = ("count() FROM calls", *(f"sum(requests) FROM calls_{rollup}" for rollup in ("1m", "1h", "1d", "1d_totals")))
    return [store.query(f"SELECT {what}").rows[0][0] for what in asked]


INSERT_AND_TELL = """
import sys
from pathlib import Path
from tidegate.sinks.clickhouse import Store
with Store.open(path=Path(sys.argv[1])) as store:
    store.migrate()
    lines = Path(sys.argv[2]).read_bytes()
    print("ready", flush=True)
    store.insert("calls", lines, "t:0:1-5000")
    print("done", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("table", ["calls", "calls_1d", "calls_1d_totals", "calls_1h", "calls_1m"])
def test_a_batch_cut_off_by_a_kill_is_healed_by_sending_it_again(tmp_path: Path, table: str) -> None:
    rows = many_calls(5_000, seed=5)
    (tmp_path / "lines").write_bytes(ndjson(rows))
    folder = tmp_path / "store"
    with Store.open(path=folder) as store:
        store.migrate()
        [(where,)] = store.query(
            "SELECT data_paths[1] FROM system.tables WHERE database = 'tidegate' AND name = {t:String}", {"t": table}
        ).rows
    # Killed as soon as anything of this table's part shows on disk; how far the others are is up to the machine.
    with subprocess.Popen(
        [sys.executable, "-c", INSERT_AND_TELL, folder, tmp_path / "lines"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + 60
        while not any("_1_1_" in name for name in os.listdir(folder / where)) and process.poll() is None:
            assert time.monotonic() < deadline
        process.kill()

    with Store.open(path=folder) as store:
        for _ in range(2):
            store.insert("calls", (tmp_path / "lines").read_bytes(), "t:0:1-5000")

        assert store.query("SELECT count(), uniqExact(seq) FROM calls").rows == [(5_000, 5_000)]
        cost = sum(row["cost_nano_usd"] or 0 for row in rows)
        for view in ("v_calls_1m", "v_calls_1h", "v_calls_1d", "calls_1d_totals"):
            assert store.query(f"SELECT sum(requests), sum(cost_nano_usd) FROM {view}").rows == [(5_000, cost)]


def test_inserting_leaves_no_file_outside_the_store(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    monkeypatch.setattr("tempfile.NamedTemporaryFile", lambda *args, **kwargs: opened.append((args, kwargs)))

    store.insert("calls", ndjson([a_call(1)]), "t:0:1-1")

    assert opened == []


def test_without_files_in_memory_lines_pass_through_the_stores_own_folder(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("os.memfd_create", raising=False)

    store.insert("calls", ndjson([a_call(1)]), "t:0:1-1")

    assert store.query("SELECT count() FROM calls").rows == [(1,)]
    assert not list((tmp_path / "store").glob("insert-*"))


# ---- questions ----


def test_a_question_takes_parameters_and_gives_names_types_and_rows(store: Store) -> None:
    answer = store.query("SELECT {n:UInt8} AS n, {s:String} AS s, 50 % 7 AS m", {"n": 3, "s": "it's 100%"})

    assert (answer.columns, answer.types, answer.rows) == (["n", "s", "m"], ["UInt8", "String", "UInt8"], [(3, "it's 100%", 1)])
    assert answer.dicts() == [{"n": 3, "s": "it's 100%", "m": 1}]


def test_an_empty_answer_still_has_columns(store: Store) -> None:
    for where in ("tenant = {t:String}", "tenant = {t:String} LIMIT 0"):
        answer = store.query(f"SELECT call_id, seq + 1 AS next FROM calls WHERE {where}", {"t": "nobody"})

        assert (answer.columns, answer.types, answer.rows) == (["call_id", "next"], ["String", "UInt64"], [])


@pytest.mark.parametrize(
    "sql", ["SHOW TABLES", "DESCRIBE calls", "EXPLAIN SELECT 1", "EXISTS TABLE calls", "FROM calls SELECT 1 -- x", "SELECT 1;"]
)
def test_ways_to_ask(store: Store, sql: str) -> None:
    assert store.query(sql).columns


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO calls (call_id) VALUES ('x')",
        "INSERT INTO dead_letters SELECT * FROM dead_letters",
        "ALTER TABLE calls DELETE WHERE 1",
        "TRUNCATE TABLE calls",
        "DROP TABLE calls",
        "CREATE TABLE t (a Int8) ENGINE = Memory",
        "CREATE TEMPORARY TABLE t (a Int8)",
        "OPTIMIZE TABLE calls",
        "SYSTEM FLUSH LOGS",
        "KILL QUERY WHERE 1",
        "SET readonly = 0",
        "USE system",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1; DROP TABLE calls",
        "SELECT 1 FORMAT CSV",
        "SELECT 1 INTO OUTFILE '{folder}/out'",
        "SELECT 1 into/**/outfile '{folder}/out'",
        "EXPLAIN AST SELECT 1 INTO OUTFILE '{folder}/out'",
        "SHOW TABLES INTO OUTFILE '{folder}/out'",
        "SELECT file('{folder}/secret')",
        "SELECT `file`('{folder}/secret')",
        "SELECT 1 AS `it's`, \"file\"('{folder}/secret') AS `b'`",
        "SELECT arrayMap(p -> file(p), ['{folder}/secret'])",
        "WITH file('{folder}/secret') AS secret SELECT secret",
        "EXPLAIN SELECT file('{folder}/secret')",
        "SELECT * FROM file('{folder}/secret', 'LineAsString')",
        "DESCRIBE file('{folder}/secret', 'LineAsString')",
        "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
        "SELECT * FROM remote('127.0.0.1:1', 'system.one')",
        "SELECT * FROM executable('x', 'TSV', 'a String')",
        "SELECT * FROM Python(GOLDEN)",
        "SELECT * FROM s3('http://127.0.0.1:1/bucket/key', 'LineAsString')",
        "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
        "SELECT * FROM sqlite('{folder}/db', 't')",
        "SELECT nothing FROM calls",
        "SELECT",
        "",
    ],
)
def test_what_is_no_read_only_question_is_refused(store: Store, tmp_path: Path, sql: str) -> None:
    (tmp_path / "secret").write_text("hunter2")
    store.insert("calls", ndjson([a_call(1)]), "t:0:1-1")

    for ask in (store.query, lambda sql: store.query_bytes(sql, "CSV")):
        with pytest.raises(QueryRefused) as refused:
            ask(sql.replace("{folder}", str(tmp_path)))
        assert "hunter2" not in str(refused.value)

    assert not (tmp_path / "out").exists()
    assert store.query("SELECT count() FROM calls").rows == [(1,)]


def test_words_in_quotes_are_only_words(store: Store) -> None:
    answer = store.query("SELECT 'INTO OUTFILE', 'file(', map('file(', 1), `file` FROM (SELECT 2 AS file)")

    assert answer.rows == [("INTO OUTFILE", "file(", {"file(": 1}, 2)]


def test_an_answer_too_large_is_refused_not_cut(store: Store) -> None:
    assert len(store.query("SELECT number FROM numbers(10)", max_rows=10).rows) == 10
    with pytest.raises(QueryRefused, match="Limit for result exceeded"):
        store.query("SELECT number FROM numbers(11)", max_rows=10)


def test_a_question_that_takes_too_long_is_refused(store: Store) -> None:
    with pytest.raises(QueryRefused, match="Timeout exceeded"):
        store.query("SELECT count() FROM numbers(1e13) WHERE NOT ignore(sipHash64(number))", timeout_s=0.1)


def test_a_guest_gets_less_of_the_machine_and_hears_nothing_of_what_was_read(store: Store) -> None:
    names = ("max_threads", "max_memory_usage", "max_result_bytes", "readonly")
    sql = f"SELECT {', '.join(f'getSetting({name!r})' for name in names)}"

    told = json.loads(store.answer(sql, "JSONCompact", guest=True).data)
    others = json.loads(store.answer(sql, "JSONCompact").data)

    assert told["data"] == [[1, 1 << 30, 64 << 20, 1]]
    assert "statistics" not in told
    assert others["data"][0][1:3] == [4 << 30, 512 << 20]


def test_answers_come_as_csv_json_lines_and_parquet(store: Store) -> None:
    store.insert("calls", ndjson([a_call(n, tenant="a,b", cost_nano_usd=n) for n in (1, 2)]), "t:0:1-2")
    sql = "SELECT call_id, tenant, cost_usd FROM calls ORDER BY seq"

    as_csv = list(csv.reader(io.StringIO(store.query_bytes(sql, "CSVWithNames").decode())))
    as_json = [json.loads(line) for line in store.query_bytes(sql, "JSONEachRow").splitlines()]
    as_parquet = store.query_bytes(sql, "Parquet")

    assert as_csv == [["call_id", "tenant", "cost_usd"], ["c1", "a,b", "0.000000001"], ["c2", "a,b", "0.000000002"]]
    assert [(row["call_id"], row["tenant"]) for row in as_json] == [("c1", "a,b"), ("c2", "a,b")]
    assert (as_parquet[:4], as_parquet[-4:]) == (b"PAR1", b"PAR1")


@pytest.mark.parametrize("name", ["CSV; DROP TABLE calls", "", "CSV INTO OUTFILE", "Nonsense"])
def test_a_format_that_is_none_is_refused(store: Store, name: str) -> None:
    with pytest.raises(QueryRefused):
        store.query_bytes("SELECT 1", name)


def test_threads_may_insert_and_ask_at_once(store: Store) -> None:
    def insert(number: int) -> None:
        store.insert("calls", ndjson([a_call(number, cost_nano_usd=1)]), f"t:0:{number}")

    def ask(number: int) -> None:
        assert store.query("SELECT {n:UInt32}, sum(number) FROM numbers(100000)", {"n": number}).rows == [(number, 4999950000)]

    with ThreadPoolExecutor(16) as pool:
        jobs = [pool.submit(insert if n % 2 else ask, n) for n in range(60)]
        for job in jobs:
            job.result(timeout=60)

    assert store.query("SELECT count() FROM calls").rows == [(30,)]
    assert store.query("SELECT sum(requests), sum(cost_nano_usd) FROM v_calls_1m").rows == [(30, 30)]


def test_a_slow_question_holds_up_nobody(store: Store) -> None:
    slow = "SELECT count() FROM numbers(1e13) WHERE NOT ignore(sipHash64(number))"
    started = threading.Event()

    def ask() -> None:
        started.set()
        with pytest.raises(QueryRefused, match="Timeout"):
            store.query(slow, timeout_s=5)

    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(ask)
        started.wait(10)
        store.insert("calls", ndjson([a_call(1)]), "t:0:1-1")
        answer = store.query("SELECT count() FROM calls").rows
        still_asking = not job.done()
        job.result(timeout=60)

    assert answer == [(1,)]
    assert still_asking


# ---- migrations ----


def _migration(folder: Path, name: str, sql: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(sql)


def test_migrations_apply_once_and_in_order(tmp_path: Path) -> None:
    with Store.open(path=tmp_path / "store") as store:
        first = store.migrate()
        second = store.migrate()

    assert first == [migration.number for migration in migrations.read()] == sorted(first)
    assert second == []


def test_two_that_started_at_once_and_both_brought_the_schema_up_to_date_leave_a_store_that_opens(store: Store) -> None:
    columns = "number, name, sha256"
    store._writer.command(f"INSERT INTO schema_migrations ({columns}) SELECT {columns} FROM schema_migrations")

    assert store.migrate() == []


def test_a_new_migration_is_applied_to_an_old_store(tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    _migration(folder, "0001_a.sql", "CREATE TABLE IF NOT EXISTS a (n UInt8) ENGINE = MergeTree ORDER BY n;\n")
    with Store.open(path=tmp_path / "store") as store:
        store.migrate(folder)
        _migration(folder, "0002_b.sql", "-- more; of it\nALTER TABLE a ADD COLUMN IF NOT EXISTS m UInt8;\n")

        assert store.migrate(folder) == [2]

        store.insert("a", b'{"n":1,"m":2}', "t")
        assert store.query("SELECT n, m FROM a").rows == [(1, 2)]


def test_a_changed_migration_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    _migration(folder, "0001_a.sql", "CREATE TABLE IF NOT EXISTS a (n UInt8) ENGINE = Memory;\n")
    with Store.open(path=tmp_path / "store") as store:
        store.migrate(folder)
        _migration(folder, "0001_a.sql", "CREATE TABLE IF NOT EXISTS a (n UInt16) ENGINE = Memory;\n")

        with pytest.raises(UsageError, match="0001_a was changed after it was applied"):
            store.migrate(folder)


def test_a_store_ahead_of_this_version_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    _migration(folder, "0999_later.sql", "CREATE TABLE IF NOT EXISTS a (n UInt8) ENGINE = Memory;\n")
    with Store.open(path=tmp_path / "store") as store:
        store.migrate(folder)

        with pytest.raises(UsageError, match="0999_later, which this version does not know"):
            store.migrate()


def test_a_migration_cut_off_half_way_runs_again(tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    _migration(
        folder,
        "0001_a.sql",
        "CREATE TABLE IF NOT EXISTS a (n UInt8) ENGINE = MergeTree ORDER BY n;\n"
        "CREATE TABLE IF NOT EXISTS b (n Nonsense) ENGINE = Memory;\n",
    )
    with Store.open(path=tmp_path / "store") as store:
        with pytest.raises(Exception, match="Nonsense"):
            store.migrate(folder)
        store.insert("a", b'{"n":1}', "t")
        _migration(folder, "0001_a.sql", (folder / "0001_a.sql").read_text().replace("Nonsense", "UInt8"))

        assert store.migrate(folder) == [1]

        assert store.query("SELECT n FROM a").rows == [(1,)]


def test_every_shipped_statement_can_run_twice(store: Store) -> None:
    store.insert("calls", ndjson([a_call(1)]), "t:0:1-1")
    before = everything(store)

    for migration in migrations.read():
        for statement in migration.statements:
            store._writer.command(statement)

    assert everything(store) == before


@pytest.mark.parametrize("names", [["first.sql"], ["0001_a.sql", "0001_b.sql"]])
def test_a_migration_without_a_number_of_its_own_is_told(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        _migration(tmp_path / "migrations", name, "SELECT 1;\n")

    with pytest.raises(UsageError, match="with a number of its own"):
        migrations.read(tmp_path / "migrations")


def test_every_table_remembers_its_batches_and_outlives_a_power_cut(store: Store) -> None:
    engines = "SELECT name, create_table_query FROM system.tables WHERE database = 'tidegate' AND engine LIKE '%MergeTree'"

    # What migrations themselves write takes no batches.
    tables = dict(store.query(f"{engines} AND name NOT IN ('schema_migrations', 'hours_before_ledger')").rows)

    assert {
        "calls",
        "call_requests",
        "dead_letters",
        "calls_1m",
        "calls_1h",
        "calls_1d",
        "calls_1d_totals",
        "retrieval_1h",
    } <= tables.keys()
    assert {"scored_calls", "scored_1h", "findings_1h", "transcripts"} <= tables.keys()
    for setting in ("non_replicated_deduplication_window = 10000", "fsync_after_insert = 1", "fsync_part_directory = 1"):
        assert all(setting in made for made in tables.values())


# ---- opening ----


def test_stores_in_one_folder_may_have_databases_of_their_own(tmp_path: Path) -> None:
    with Store.open(path=tmp_path / "s") as one, Store.open(path=tmp_path / "s", database="other") as other:
        one.migrate()
        other.migrate()
        one.insert("calls", ndjson([a_call(1)]), "t:0:1-1")

        assert one.query("SELECT sum(requests) FROM v_calls_1m").rows == [(1,)]
        assert other.query("SELECT count() FROM calls").rows == [(0,)]


def test_a_second_folder_in_one_process_is_told(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="close it first"):
        Store.open(path=tmp_path / "elsewhere")


def test_a_folder_that_another_process_has_open_is_told(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from tidegate.sinks.clickhouse import Store\n"
    code += "s = Store.open(path=Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, tmp_path / "s"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"

        with pytest.raises(StoreUnavailable, match="another process"):
            Store.open(path=tmp_path / "s")

        assert other.stdin is not None
        other.stdin.close()
        assert other.wait(30) == 0

    Store.open(path=tmp_path / "s").close()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(UsageError, match="cannot be made"):
        Store.open(path=tmp_path / "file" / "store")


def test_a_closed_store_answers_nothing(tmp_path: Path) -> None:
    store = Store.open(path=tmp_path / "s")
    store.close()
    store.close()

    with pytest.raises(UsageError, match="closed"):
        store.query("SELECT 1")


@pytest.mark.parametrize("places", [{}, {"path": Path("x"), "dsn": "clickhouse://h"}])
def test_a_store_is_in_one_place(places: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="either"):
        Store.open(**places)


@pytest.mark.parametrize(
    "dsn",
    [
        "me:hunter2@h:8123",
        "clickhouse:///db",
        "postgres://me:hunter2@h/db",
        "clickhouse://me:hunter2@h:port/db",
        "clickhouse://me:hunter2@[/db",
    ],
)
def test_a_dsn_that_is_none_is_told_without_being_quoted(dsn: str) -> None:
    with pytest.raises(UsageError, match="must look like") as told:
        Store.open(dsn=dsn)

    assert "hunter2" not in str(told.value)


def test_a_database_that_is_no_plain_name_is_told(tmp_path: Path) -> None:
    for places in ({"dsn": "clickhouse://h/a`b"}, {"path": tmp_path / "s", "database": "a b"}):
        with pytest.raises(UsageError, match="plain name"):
            Store.open(**places)  # type: ignore[arg-type]  # one of two shapes


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.parametrize("scheme", ["clickhouse", "clickhouses", "http"])
def test_a_server_that_does_not_answer_is_unavailable_and_its_password_unsaid(closed_port: int, scheme: str) -> None:
    with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{closed_port} cannot be reached") as told:
        Store.open(dsn=f"{scheme}://me:hunter2@127.0.0.1:{closed_port}/tidegate")

    assert "hunter2" not in str(told.value)
