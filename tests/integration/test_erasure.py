"""A person in the store: gone from every table, whatever the tables are, and every sum is what it was."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from time import monotonic, sleep
from typing import Any, Final

import pytest
from support import finding, ndjson
from tidegate.sinks.clickhouse import Store, StoreUnavailable
from tidegate.sinks.erasure import Held, StoreErasure, tables

ALICE, BOB, SALT = "alice-4711-k", "bob-4712-k", "5a17ed"
TENANT: Final = "harbor"
NOW: Final = datetime.now(UTC).replace(minute=10, second=0, microsecond=0)
# Whatever may say who it was; a table with one of them is held to be somebody's.
TELLING: Final = {"user", "scope", "conversation_id", "trace_id", "response_id", "contributors", "labels"}


class Abort(BaseException):
    """The power goes out."""


def call(number: int, user: str, tenant: str = TENANT, **more: Any) -> dict[str, Any]:
    return {
        "call_id": f"{user}-call-{number}",
        # Two months, and three hours of a day.
        "started_at": NOW - timedelta(days=40 * (number % 2), hours=number % 3),
        "tenant": tenant,
        "user": user,
        "request_model": "gpt-4o",
        "provider_name": "openai",
        "conversation_id": f"chat of {user}",
        "trace_id": f"trace-{user}",
        "response_id": f"response-{user}",
        "labels": {"who": user, "ward": "north"},
        "retrieval": [{"chunk_id": f"chart-{user}", "score": 0.5, "source": user}],
        "input_tokens": 100 + number,
        "output_tokens": 7,
        "cost_nano_usd": 1_000 + number,
        "latency_s": 0.5 + number,
        "error_type": "rate_limit" if number % 4 == 1 else "",
        "producer": "service",
        "seq": number,
        "ingested_at": NOW,
    } | more


def verdict(number: int, user: str) -> dict[str, Any]:
    one = call(number, user)
    kept = ("call_id", "started_at", "tenant", "user", "request_model", "producer", "seq", "ingested_at")
    found = finding(fingerprint="ab" * 16, leak=True)
    return {name: one[name] for name in kept} | {"outcome": "scored", "scored_at": NOW, "findings": [found]}


def transcript(number: int, user: str) -> dict[str, Any]:
    one = call(number, user)
    kept = ("call_id", "started_at", "tenant", "user", "request_model", "producer", "seq", "ingested_at")
    return {name: one[name] for name in kept} | {"redaction": "tag", "redacted_prompt": f"<PERSON> asks {user}"}


def alert(scope: dict[str, str], **more: Any) -> dict[str, Any]:
    told = ", ".join(f"{name}={value}" for name, value in scope.items())
    return {"at": NOW, "key": f"policy|budget|{told}", "kind": "policy", "title": f"{told} block", "scope": scope} | more


def fill(store: Store) -> None:
    people = [(ALICE, TENANT), (BOB, TENANT), (ALICE, "hill")]
    calls = [call(number, user, tenant) for user, tenant in people for number in range(12)]
    store.insert("calls", ndjson([*calls, call(20, "", call_id=f"{ALICE}-call-3")]), "calls:0:0-1")
    requests = [call(number, user, tenant) for user, tenant in people for number in range(2)]
    dropped = ("retrieval", "response_id", "input_tokens", "output_tokens", "cost_nano_usd", "latency_s", "error_type")
    requests = [{name: value for name, value in row.items() if name not in dropped} for row in requests]
    store.insert("call_requests", ndjson(requests), "requests:0:0-1")
    store.insert("scored_calls", ndjson([verdict(1, ALICE), verdict(2, BOB), verdict(3, ALICE) | {"user": ""}]), "scored:0:0-1")
    store.insert(
        "transcripts",
        ndjson([transcript(1, ALICE), transcript(1, BOB), transcript(3, ALICE) | {"user": ""}]),
        "transcripts:0:0-1",
    )
    spenders = {f"user={ALICE}": 5.0, f"user={BOB}": 3.0}
    alerts = [
        alert({"tenant": TENANT, "user": ALICE}),
        alert({"tenant": TENANT, "user": BOB}),
        alert({"tenant": TENANT}, contributors=spenders),
        alert({"tenant": "hill"}, contributors={f"user={ALICE}": 5.0}),
    ]
    store.insert("alerts", ndjson(alerts), "alerts:0:0-1")


def sums(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """What must not change: of all rollups and of the calls themselves, by everything but the person."""
    found = {}
    measures = "sum(requests), sum(errors), sumMap(errors_by_type), sum(input_tokens), sum(output_tokens), sum(cost_nano_usd)"
    hours = f"{measures}, max(latency_s_max), quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(latency_s_state)"
    for table, time in {"calls_1m": "minute", "calls_1h": "hour", "calls_1d": "day", "calls_1d_totals": "day"}.items():
        if store.query(
            "SELECT 1 FROM system.tables WHERE database = currentDatabase() AND name = {t:String}", {"t": table}
        ).rows:
            sql = f"SELECT {time}, tenant, model, {hours} FROM {table} GROUP BY ALL ORDER BY ALL"
            found[table] = store.query(sql).rows
    raw = (
        "SELECT toStartOfHour(started_at), tenant, model, count(), countIf(error_type != ''), sum(input_tokens),"
        " sum(output_tokens), sum(cost_nano_usd) FROM calls GROUP BY ALL ORDER BY ALL"
    )
    found["calls"] = store.query(raw).rows
    found["of bob"] = store.query(f"SELECT * FROM v_calls_1h WHERE user = '{BOB}' ORDER BY ALL").rows
    found["bob's calls"] = store.query(f"SELECT * FROM calls WHERE user = '{BOB}' ORDER BY seq").rows
    found["retrieval"] = store.query("SELECT * FROM retrieval_1h FINAL ORDER BY ALL").rows
    found["findings"] = store.query("SELECT * FROM v_findings_1h ORDER BY ALL").rows
    found["verdicts"] = store.query("SELECT detector, type, start, end, score, leak FROM findings ORDER BY ALL").rows
    return found


def erasure(store: Store, **more: Any) -> StoreErasure:
    return StoreErasure(store, TENANT, ALICE, SALT, **more)


def test_a_person_is_in_no_table_afterwards_and_every_sum_is_what_it_was(store: Store) -> None:
    fill(store)
    before = sums(store)
    found = erasure(store).found()

    done = erasure(store).erase()

    assert {name: found[name] for name in ("calls", "call_requests", "scored_calls", "transcripts", "alerts")} == {
        "calls": 12,
        "call_requests": 2,
        "scored_calls": 1,
        "transcripts": 1,
        "alerts": 2,
    }
    assert done["transcripts"] == "deleted"
    assert done["calls_1h"] == "moved"
    assert done["calls"] == "emptied"
    assert erasure(store).found() == {}
    assert erasure(store).said(ALICE) == {"alerts": 1}, "that of the other tenant, who is called the same"
    assert sums(store) == before
    assert store.query("SELECT call_id, redacted_prompt FROM transcripts").rows == [
        (f"{BOB}-call-1", f"<PERSON> asks {BOB}"),
    ]
    assert store.query("SELECT scope, contributors FROM alerts ORDER BY scope['tenant'] DESC, scope['user']").rows == [
        ({"tenant": "hill"}, {f"user={ALICE}": 5.0}),
        ({"tenant": TENANT}, {f"user={BOB}": 3.0}),
        ({"tenant": TENANT, "user": BOB}, {}),
    ]
    assert store.query(f"SELECT count() FROM calls WHERE user = '{ALICE}' AND tenant = 'hill'").rows == [(12,)]
    # A call is still one call, wherever it is told of; which one, nobody can tell.
    new = hashlib.sha256(f"{SALT}{ALICE}-call-1".encode()).hexdigest()[:32]
    [row] = store.query(f"SELECT * FROM calls WHERE call_id = '{new}'").dicts()
    cleared = ("user", "conversation_id", "trace_id", "span_id", "response_id", "labels")
    assert {name: row[name] for name in cleared} == dict.fromkeys(cleared[:-1], "") | {"labels": {}}
    assert row["retrieval"] == [{"chunk_id": "-", "score": 0.5, "source": "-"}]
    assert store.query(f"SELECT count(), any(findings.fingerprint) FROM scored_calls WHERE call_id = '{new}'").rows == [
        (1, [""])
    ]


def test_whoever_comes_back_spends_the_same_and_goes_again_is_counted_both_times(store: Store) -> None:
    fill(store)
    erasure(store).erase()
    store.insert("calls", ndjson([call(number, ALICE) for number in range(12)]), "calls:0:2-3")
    before = sums(store)

    erasure(store).erase()

    assert erasure(store).found() == {}
    assert sums(store) == before
    [(requests,)] = store.query(f"SELECT sum(requests) FROM calls_1h WHERE tenant = '{TENANT}' AND user = ''").rows
    assert requests == 25


def test_wherever_it_is_cut_off_it_is_done_again_to_the_same_end(store: Store) -> None:
    fill(store)
    before = sums(store)
    reached: list[str] = []

    def at(step: str) -> None:
        if step not in reached:
            reached.append(step)
            raise Abort

    def additive(found: dict[str, list[tuple[Any, ...]]]) -> dict[str, list[tuple[Any, ...]]]:
        return {
            name: [row[:9] for row in rows]
            for name, rows in found.items()
            if name in ("calls", "calls_1m", "calls_1h", "calls_1d", "calls_1d_totals")
        }

    for _ in range(40):
        try:
            erasure(store, at=at).erase()
            break
        except Abort:
            assert additive(sums(store)) == additive(before), reached[-1]

    assert {"attributed", "moved calls_1h", "erased transcripts", "erased calls"} <= set(reached)
    assert erasure(store).found() == {}
    assert sums(store) == before


def test_a_move_that_is_cut_off_counts_nothing_twice(store: Store) -> None:
    fill(store)
    before = sums(store)

    def at(step: str) -> None:
        if step == "moved calls_1h":
            raise Abort

    with pytest.raises(Abort):
        erasure(store, at=at).erase()
    midway = sums(store)
    [(left,)] = store.query(f"SELECT sum(requests) FROM calls_1h WHERE user = '{ALICE}' AND tenant = '{TENANT}'").rows

    for table in ("calls_1h", "calls_1m", "calls_1d", "calls_1d_totals"):
        assert [row[:-2] for row in midway[table]] == [row[:-2] for row in before[table]]
    assert left == 0


def test_a_statement_that_a_run_left_behind_does_not_take_the_next_person_for_its_own(store: Store) -> None:
    fill(store)
    before = sums(store)
    store.command("SYSTEM STOP MERGES calls_1h")
    # What a run leaves that is cut off while the engine does it.
    store.command("CREATE TABLE forgetting (tenant String, user String, salt String) ENGINE = Memory")
    held = next(held for held in tables(store) if held.table == "calls_1h")
    store.command(
        f"ALTER TABLE calls_1h DELETE WHERE {held.theirs()} SETTINGS mutations_sync = 0, allow_nondeterministic_mutations = 1"
    )

    def at(_step: str) -> None:
        """The engine goes on with it, if somebody is named by now."""
        store.command("SYSTEM START MERGES calls_1h")
        deadline = monotonic() + 60
        while store.query("SELECT 1 FROM system.mutations WHERE database = currentDatabase() AND NOT is_done").rows:
            assert monotonic() < deadline
            sleep(0.05)

    with pytest.raises(StoreUnavailable, match="cut off have not ended"):
        erasure(store, at=at, statements_within_s=0.5).erase()
    refused = sums(store)
    store.command("SYSTEM START MERGES calls_1h")
    erasure(store).erase()

    assert refused == before
    assert erasure(store).found() == {}
    assert sums(store) == before


def test_no_statement_that_the_engine_keeps_names_the_person(store: Store) -> None:
    fill(store)
    erasure(store).erase()

    kept = store.query("SELECT command FROM system.mutations WHERE database = currentDatabase()").rows

    assert len(kept) > 5
    assert not [command for (command,) in kept if ALICE in command or SALT in command]


def test_no_table_that_may_tell_who_it_was_is_left_out(store: Store) -> None:
    handled = {held.table: held for held in tables(store)}
    everything = {held.table: held for held in tables(store, all_of_them=True)}

    left_out = {name: TELLING & held.columns.keys() for name, held in everything.items() if name not in handled}
    kept = {
        name: sorted(TELLING & held.columns.keys() - {"scope"} - cleared(held))
        for name, held in handled.items()
        if held.way == "emptied"
    }

    assert {name: columns for name, columns in left_out.items() if columns} == {}
    assert {name: columns for name, columns in kept.items() if columns} == {}
    assert {"calls", "call_requests", "calls_1h", "scored_calls", "transcripts", "alerts"} <= handled.keys()


def cleared(held: Held) -> set[str]:
    names = {part.partition("`")[2].partition("`")[0] for part in held.emptying().split(" = ")}
    return names | ({"contributors"} if held.has_spenders else set())
