"""Verdicts and transcripts in the store, on the real engine: rows as they were written, rollups that equal a plain sum, and
nothing that comes in twice."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, get_args

import orjson
import pytest
from support import LogRecord, envelope, finding, ndjson, scored
from tidegate.processors.aggregate import ScopeSets, UsageState
from tidegate.processors.findings import Wanted
from tidegate.processors.meter import MeterState, meter
from tidegate.processors.pricing import PriceBook
from tidegate.schemas.content import OfCall
from tidegate.schemas.finding import EvidenceEntry, FindingEntry, Outcome, ScoredEvent
from tidegate.schemas.hot import decode_event
from tidegate.sinks.clickhouse import RowsRefused, Store

Row = dict[str, Any]

NOON: Final = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
DIMENSIONS: Final = ("tenant", "team", "service", "environment", "provider_name", "model", "prompt_name", "prompt_version")

# Every field that the meter writes, with a value that a wrong type would spoil.
GOLDEN: Final[Row] = {
    "event": "scored",
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
    "response_model": "claude-sonnet-4-5-20250929",
    "prompt_name": "triage",
    "prompt_version": "2.1",
    "scored_at": "2026-11-02T06:00:12.000500Z",
    "outcome": "partial",
    "findings": [
        {
            "detector": "phi",
            "type": "US_SSN",
            "where": "context",
            "chunk": 2**31 - 1,
            "start": 0,
            "end": 2**31 - 1,
            "score": 0.1,
            "leak": True,
            "fingerprint": "0a" * 16,
            "rule": "dose-metformin",
        }
    ],
    "more_findings": 2**31 - 1,
    "evidence": [{"start": 1, "end": 41, "score": 1.0, "source": "prompt", "source_start": 12, "source_end": 60, "chunk": 7}],
    "scores": {"prompt.toxicity": 0.1, "response.faithfulness": 1.0},
    "detectors": {"phi": "3", "injection": "a1.b/2"},
    "failed": {"toxicity": "TimeoutError"},
    "cached": True,
    "scoring_s": 0.1,
    "producer": "guardrails-0",
    "seq": 2**62,
    "ingested_at": "2026-11-02T06:00:13.500Z",
    "source_partition": 255,
    "source_offset": 2**53,
}


def a_verdict(number: int, **fields: Any) -> Row:
    return (
        scored(f"c{number}", started_at=(NOON + timedelta(seconds=number)).isoformat())
        | {"producer": "guardrails-0", "seq": number, "ingested_at": NOON.isoformat()}
        | {"source_partition": 0, "source_offset": number}
        | fields
    )


def many_verdicts(count: int, seed: int) -> list[Row]:
    """Verdicts with every kind of gap, over five hours."""
    pick = random.Random(seed)
    kinds = [("phi", "US_SSN"), ("phi", "PERSON"), ("toxicity", "insult"), ("phi", "phi"), ("injection", "PERSON")]
    rows = []
    for number in range(count):
        found = [pick.choice(kinds) for _ in range(pick.choice((0, 0, 1, 2, 5)))]
        row = a_verdict(
            number,
            started_at=(NOON + timedelta(seconds=pick.random() * 5 * 3600)).isoformat(),
            tenant=f"t{pick.randrange(3)}",
            team=pick.choice((None, "a")),
            request_model=pick.choice((None, "gpt-4o")),
            response_model=pick.choice((None, "gpt-4o-2024-08-06")),
            prompt_name=pick.choice((None, "triage")),
            outcome=pick.choice(get_args(Outcome)),
            findings=[finding(detector=detector, type=kind, leak=pick.random() < 0.4) for detector, kind in found],
            more_findings=pick.choice((0, 0, 0, 3)),
            detectors=pick.choice((None, {"phi": "1"}, {"phi": "1", "toxicity": "1"})),
            failed=pick.choice((None, None, {"toxicity": "TimeoutError"}, {"phi": "ValueError", "bias": "KeyError"})),
            # Halves add up exactly.
            scores=pick.choice(
                (
                    None,
                    {"prompt.toxicity": 0.5, "response.bias_women": 0.25},
                    {"prompt.toxicity": 0.25, "response.faithfulness": 1.0},
                )
            ),
            cached=pick.random() < 0.3,
        )
        rows.append({name: value for name, value in row.items() if value is not None})
    return rows


def key_of(row: Row) -> tuple[Any, ...]:
    started = datetime.fromisoformat(row["started_at"])
    named = {**row, "model": row.get("response_model") or row.get("request_model")}
    return started.replace(minute=0, second=0, microsecond=0), *(named.get(name) or "" for name in DIMENSIONS)


# ---- rows


def test_every_field_of_a_verdict_comes_back_as_it_was_written(store: Store) -> None:
    assert set(ScoredEvent.model_fields) <= set(GOLDEN)
    assert set(FindingEntry.model_fields) == set(GOLDEN["findings"][0])
    assert set(EvidenceEntry.model_fields) == set(GOLDEN["evidence"][0])

    store.insert("scored_calls", ndjson([GOLDEN]), "t:0:1-1")

    [row] = store.query("SELECT * FROM scored_calls").dicts()
    for name in ("started_at", "scored_at", "ingested_at"):
        row[name] = row[name].isoformat()
    expected = GOLDEN | {
        name: datetime.fromisoformat(GOLDEN[name]).astimezone(UTC).isoformat() for name in row if "_at" in name
    }
    assert row == {name: value for name, value in expected.items() if name != "event"}
    assert store.query("SELECT model FROM scored_calls").rows == [("claude-sonnet-4-5-20250929",)]


def test_what_the_meter_makes_of_a_verdict_goes_in(store: Store) -> None:
    event = {name: value for name, value in GOLDEN.items() if name in ScoredEvent.model_fields}
    bare = scored(outcome="unreadable", request_model=None, detectors=None, tenant=None)
    state = MeterState(3, UsageState(ScopeSets(((),))))

    _, outputs = meter(state, [LogRecord.of(9, envelope("guardrails-3", 4, [event, bare]))], PriceBook.load(), 1e9)
    for _, lines in outputs.findings:
        store.insert("scored_calls", lines, "t:3:9-9")

    rows = store.query(
        "SELECT seq, outcome, length(findings), detectors, scoring_s, cached FROM scored_calls ORDER BY seq"
    ).rows
    assert rows == [(4, "partial", 1, GOLDEN["detectors"], 0.1, True), (5, "unreadable", 0, {}, None, False)]


def test_a_finding_is_one_row_of_the_view(store: Store) -> None:
    found = [finding(), finding(detector="injection", type="indirect", where="context", chunk=2, score=1)]
    store.insert("scored_calls", ndjson([a_verdict(1, findings=found, more_findings=9), a_verdict(2)]), "t:0:1-2")

    rows = store.query(
        "SELECT call_id, detector, type, found_in, chunk, start, end, score, leak FROM findings ORDER BY chunk"
    ).rows

    assert rows == [
        ("c1", "phi", "US_SSN", "response", 0, 3, 14, 0.95, False),
        ("c1", "injection", "indirect", "context", 2, 3, 14, 1.0, False),
    ]


def test_a_transcript_comes_back_as_it_was_written(store: Store) -> None:
    of_call = {name: GOLDEN[name] for name in OfCall.model_fields}
    told = {name: GOLDEN[name] for name in ("producer", "seq", "ingested_at", "source_partition", "source_offset")}
    texts = {
        "redacted_prompt": None,
        "redacted_response": "[PERSON] is\nwell, “said” 😀 \\ \u0000",
        "redacted_context": ["a", ""],
    }
    row = of_call | texts | told | {"redaction": "tag"}

    store.insert("transcripts", ndjson([row]), "t:0:1-1")

    [found] = store.query("SELECT * FROM transcripts").dicts()
    assert {name: found[name] for name in texts} == texts
    assert {name: found[name] for name in ("call_id", "user", "redaction", "producer", "seq", "source_offset")} == {
        name: row[name] for name in ("call_id", "user", "redaction", "producer", "seq", "source_offset")
    }
    assert found.keys() == row.keys()


@pytest.mark.parametrize(
    ("table", "fields", "said"),
    [
        ("scored_calls", {"findings": [finding(text="Rosa Martinez")]}, "NOT_FOUND_COLUMN_IN_BLOCK|field findings"),
        ("scored_calls", {"prompt": "Rosa Martinez"}, "unknown field prompt"),
        ("scored_calls", {"scores": {"prompt.toxicity": "Rosa Martinez"}}, "field scores"),
        ("transcripts", {"prompt": "Rosa Martinez"}, "unknown field"),
        ("transcripts", {"redacted_context": "Rosa Martinez"}, "field redacted_context"),
    ],
)
def test_a_text_where_none_may_be_is_refused_and_not_quoted(store: Store, table: str, fields: Row, said: str) -> None:
    row = a_verdict(1)
    if table == "transcripts":
        row = {name: row[name] for name in ("call_id", "started_at", "producer", "seq", "ingested_at")}

    with pytest.raises(RowsRefused, match=said) as caught:
        store.insert(table, ndjson([row | fields]), "t:0:1-1")

    assert "Rosa" not in str(caught.value)
    assert store.query(f"SELECT count() FROM {table}").rows == [(0,)]


def test_redacted_texts_go_after_thirty_days_and_verdicts_after_four_hundred(store: Store) -> None:
    def made(table: str) -> str:
        [(query,)] = store.query("SELECT create_table_query FROM system.tables WHERE name = {t:String}", {"t": table}).rows
        return str(query)

    assert "TTL toDateTime(ingested_at) + toIntervalDay(30)" in made("transcripts")
    assert "TTL toDateTime(ingested_at) + toIntervalDay(400)" in made("scored_calls")


def test_a_transcript_past_its_time_is_gone_whatever_its_call_says_of_the_time(store: Store) -> None:
    now = datetime.now(UTC)
    old, new = (now - timedelta(days=32)).isoformat(), now.isoformat()
    rows = [
        {"call_id": call_id, "started_at": started, "redacted_response": "[PERSON]", "ingested_at": ingested, "seq": number}
        for number, (call_id, started, ingested) in enumerate([("old", new, old), ("new", old, new)])
    ]
    store.insert("transcripts", ndjson(rows), "t:0:1-2")

    store._writer.command("OPTIMIZE TABLE transcripts FINAL")

    assert store.query("SELECT call_id FROM transcripts").rows == [("new",)]


# ---- rollups


def test_the_rollup_of_verdicts_equals_a_plain_sum(store: Store) -> None:
    rows = many_verdicts(2_000, seed=1)
    for start in range(0, len(rows), 500):
        store.insert("scored_calls", ndjson(rows[start : start + 500]), f"t:0:{start}")

    truth: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    for row in rows:
        sums, found = truth[key_of(row)], row["findings"]
        sums["verdicts"] += 1
        sums["judged"] += row["outcome"] in ("scored", "partial")
        sums["findings"] += len(found) + row["more_findings"]
        sums["with_findings"] += len(found) + row["more_findings"] > 0
        sums["with_leaks"] += any(one["leak"] for one in found)
        sums["cached"] += row["cached"]
        sums["outcome " + row["outcome"]] += 1
        for name in row.get("failed", {}):
            sums["failed " + name] += 1
        for name, score in row.get("scores", {}).items():
            sums["scored " + name] += 1
            sums["sum " + name] += score
    told: dict[tuple[Any, ...], Counter[str]] = {}
    for row in store.query("SELECT * FROM v_scored_1h").dicts():
        names = ("verdicts", "judged", "findings", "with_findings", "with_leaks", "cached")
        sums = Counter({name: row[name] for name in names})
        maps = ("outcome", "verdicts_by_outcome"), ("failed", "failures_by_detector"), ("scored", "scored_by_score")
        for word, column in (*maps, ("sum", "sum_by_score")):
            sums.update({f"{word} {name}": amount for name, amount in row[column].items()})
        told[row["hour"], *(row[name] for name in DIMENSIONS)] = sums
    assert told == truth


def test_the_rollup_of_findings_equals_a_plain_sum(store: Store) -> None:
    rows = many_verdicts(2_000, seed=2)
    for start in range(0, len(rows), 500):
        store.insert("scored_calls", ndjson(rows[start : start + 500]), f"t:0:{start}")

    truth: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    for row in rows:
        kinds: dict[tuple[str, str], list[bool]] = defaultdict(list)
        for one in row["findings"]:
            kinds[one["detector"], one["type"]].append(one["leak"])
        for kind, leaks in kinds.items():
            sums = truth[*key_of(row), *kind]
            sums.update(findings=len(leaks), leaks=sum(leaks), calls=1, calls_with_leaks=any(leaks))
    told = {
        (row["hour"], *(row[name] for name in DIMENSIONS), row["detector"], row["type"]): Counter(
            {name: row[name] for name in ("findings", "leaks", "calls", "calls_with_leaks")}
        )
        for row in store.query("SELECT * FROM v_findings_1h").dicts()
    }
    assert told == truth


def everything(store: Store) -> dict[str, Any]:
    asked = {
        "scored_calls": "SELECT count(), sum(cityHash64(call_id, seq)) FROM scored_calls",
        "scored_1h": "SELECT sum(verdicts), sum(findings), sumMap(sum_by_score), sumMap(failures_by_detector) FROM v_scored_1h",
        "findings_1h": "SELECT sum(findings), sum(leaks), sum(calls), sum(calls_with_leaks) FROM v_findings_1h",
    }
    return {table: store.query(sql).rows for table, sql in asked.items()}


def test_a_batch_sent_again_changes_nothing_also_after_a_restart(tmp_path: Path) -> None:
    lines = ndjson(many_verdicts(500, seed=3))
    with Store.open(path=tmp_path / "store") as store:
        store.migrate()
        store.insert("scored_calls", lines, "t:0:1-500")
        store.insert("scored_calls", lines, "t:0:1-500")
        before = everything(store)

    with Store.open(path=tmp_path / "store") as store:
        store.insert("scored_calls", lines, "t:0:1-500")

        assert everything(store) == before
        assert before["scored_calls"][0][0] == 500


@pytest.mark.parametrize("missing", ["scored_calls_to_1h", "findings_to_1h"])
def test_a_batch_that_missed_one_rollup_is_healed_by_sending_it_again(store: Store, missing: str) -> None:
    lines = ndjson(many_verdicts(500, seed=3))
    [(definition,)] = store._writer.query(f"SHOW CREATE TABLE {missing}").result_rows
    store._writer.command(f"DROP VIEW {missing} SYNC")
    store.insert("scored_calls", lines, "t:0:1-500")
    store._writer.command(definition)
    torn = everything(store)

    store.insert("scored_calls", lines, "t:0:1-500")
    healed = everything(store)
    store.insert("scored_calls", lines, "t:0:1-500")

    assert everything(store) == healed != torn
    assert healed["scored_calls"] == torn["scored_calls"]
    found = store.query("SELECT sum(length(findings)) FROM scored_calls").rows[0][0]
    assert store.query("SELECT sum(findings) FROM v_findings_1h").rows == [(found,)]
    assert store.query("SELECT sum(verdicts) FROM v_scored_1h").rows == [(500,)]


def test_batches_without_a_finding_leave_the_rollup_of_findings_as_it_is(store: Store) -> None:
    clean = ndjson([a_verdict(number) for number in range(10)])
    for _ in range(2):
        store.insert("scored_calls", clean, "t:0:0-9")

    store.insert("scored_calls", ndjson([a_verdict(10, findings=[finding()])]), "t:0:10-10")

    assert store.query("SELECT sum(verdicts) FROM v_scored_1h").rows == [(11,)]
    assert store.query("SELECT sum(findings), sum(calls) FROM v_findings_1h").rows == [(1, 1)]


# ---- the words of a policy


@pytest.mark.parametrize("finding_type", [None, "PERSON", "person", "phi", "phi_leak", "toxicity", "faithfulness", "bias"])
def test_a_row_counts_for_a_policy_as_its_event_did(store: Store, finding_type: str | None) -> None:
    rows = many_verdicts(400, seed=4)
    store.insert("scored_calls", ndjson(rows), "t:0:0-399")
    wanted = Wanted.of(finding_type)

    told = store.query(
        f"SELECT toInt64({wanted.count_sql}), {wanted.can_tell_sql} != 0 FROM scored_calls ORDER BY seq", wanted.parameters
    ).rows

    events: list[Any] = [
        decode_event(orjson.dumps({name: value for name, value in row.items() if name in ScoredEvent.model_fields}))
        for row in rows
    ]
    assert [(count, bool(tells)) for count, tells in told] == [(wanted.count(one), wanted.can_tell(one)) for one in events]
