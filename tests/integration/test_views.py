"""What an analyst asks first: every view, over many ranges, against a plain Python computation of the same rows."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import pytest
from support import finding, scored
from tidegate.sinks.clickhouse import QueryRefused, Store

Row = dict[str, Any]

START: Final = datetime(2026, 10, 28, 21, 17, 3, 250_000, tzinfo=UTC)
DAYS: Final = 12
BY: Final = (
    *("tenant", "team", "user", "service", "environment", "region", "task_type", "provider_name", "model", "prompt_name"),
    "prompt",
)
JUDGED_BY: Final = ("tenant", "team", "service", "environment", "provider_name", "model", "prompt_name", "prompt")
TOKENS: Final = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens")


def _calls(count: int, pick: random.Random) -> list[Row]:
    """Calls with every kind of gap, some on the hour to the microsecond, in the minutes before and after it."""

    def sometimes(value: Any, share: float = 0.8) -> Any:
        return value if pick.random() < share else None

    rows = []
    for number in range(count):
        started = START + timedelta(seconds=pick.random() * DAYS * 86400)
        if pick.random() < 0.1:
            started = started.replace(minute=0, second=0, microsecond=pick.choice((0, 0, 1, 999_999)))
            started = started.replace(hour=pick.choice((0, started.hour)))
        rows.append(
            {
                "event": "response",
                "call_id": f"c{number}",
                "started_at": started.isoformat(),
                "tenant": sometimes(f"t{pick.randrange(3)}"),
                "team": sometimes(f"team{pick.randrange(3)}"),
                "user": sometimes(f"u{pick.randrange(12)}"),
                "service": sometimes("svc"),
                "environment": sometimes("prod"),
                "region": sometimes(pick.choice(["eu", "us"])),
                "task_type": sometimes("summary"),
                "provider_name": sometimes("openai"),
                "request_model": pick.choice(["gpt-4o", "gpt-4o-mini", "ours"]),
                "response_model": sometimes("gpt-4o-2024-08-06", 0.3),
                "prompt_name": sometimes(f"prompt{pick.randrange(3)}"),
                "prompt_version": sometimes(pick.choice(["1", "2"])),
                "error_type": sometimes(pick.choice(["timeout", "rate_limit"]), 0.1),
                "latency_s": sometimes(round(pick.lognormvariate(0, 1), 6)),
                "time_to_first_token_s": sometimes(round(pick.lognormvariate(-1, 1), 6)),
                "cost_nano_usd": sometimes(pick.randrange(10**9)),
                "cache_savings_nano_usd": sometimes(pick.randrange(-(10**6), 10**9), 0.3),
                "price_status": "priced",
                "price_book": "b",
                "retrieval": [
                    {"chunk_id": f"k{chunk}", "score": sometimes(pick.randrange(64) / 64), "source": "kb"}
                    for chunk in range(pick.choice((0, 0, 1, 3)))
                ],
                **{name: sometimes(pick.randrange(10**6)) for name in (*TOKENS, "reasoning_tokens")},
                "producer": "p",
                "seq": number,
                "ingested_at": START.isoformat(),
                "source_partition": 0,
                "source_offset": number,
            }
        )
    return rows


def _verdicts(calls: list[Row], pick: random.Random) -> list[Row]:
    kinds = [("phi", "US_SSN"), ("phi", "PERSON"), ("toxicity", "insult")]
    scope = ("call_id", "started_at", "tenant", "team", "service", "environment", "provider_name", "request_model")
    rows = []
    for number, call in enumerate(call for call in calls if pick.random() < 0.5):
        judged = pick.random() < 0.8
        found = [pick.choice(kinds) for _ in range(pick.choice((0, 0, 1, 2)))] if judged else []
        verdict = (
            scored(call["call_id"])
            | {name: call[name] for name in (*scope, "response_model", "prompt_name", "prompt_version")}
            | {
                "outcome": "scored" if judged else "sampled_out",
                "findings": [finding(detector=name, type=kind, leak=pick.random() < 0.4) for name, kind in found],
                # Halves add up exactly.
                "scores": pick.choice(({}, {"response.faithfulness": 0.5, "context.relevance": 0.25})) if judged else {},
                "producer": "g",
                "seq": number,
                "ingested_at": START.isoformat(),
                "source_partition": 0,
                "source_offset": number,
            }
        )
        rows.append({name: value for name, value in verdict.items() if value is not None})
    return rows


def _alerts() -> list[Row]:
    told = [
        ("budget", "t0", 0, "warn", 80.0),
        ("budget", "t1", 1, "block", 101.0),
        ("budget", "t0", 2, "block", 100.0),
        ("budget", "t0", 5, "ok", 0.0),
        ("breaker", "t0", 6, "throttle", 0.3),
    ]
    return [
        {
            "at": (START + timedelta(hours=hours)).isoformat(timespec="milliseconds"),
            "key": f"{policy}|{tenant}",
            "kind": "policy",
            "severity": "critical",
            "title": "a budget",
            "policy": policy,
            "scope": {"tenant": tenant},
            "state": state,
            "spend": spend,
            "limit": 100.0,
        }
        for policy, tenant, hours, state, spend in told
    ] + [
        {"at": START.isoformat(timespec="milliseconds"), "key": "f", "kind": "policy_file", "severity": "info", "title": "new"}
    ]


class Seeded:
    """A store, and the rows that went into it."""

    def __init__(self, store: Store) -> None:
        pick = random.Random(20_261_122)
        self.store = store
        self.calls = _calls(4_000, pick)
        self.verdicts = _verdicts(self.calls, pick)
        self.alerts = _alerts()
        for table, rows in (("calls", self.calls), ("scored_calls", self.verdicts), ("alerts", self.alerts)):
            store.insert(table, b"\n".join(json.dumps(row).encode() for row in rows), f"{table}:0:0-{len(rows)}")

    def ask(self, view: str, **parameters: str | int) -> list[Row]:
        given = ", ".join(f"{name} = {value!r}" for name, value in parameters.items())
        return self.store.query(f"SELECT * FROM {view}({given})").dicts()


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    with Store.open(path=tmp_path_factory.mktemp("views") / "store") as store:
        store.migrate()
        yield Seeded(store)


def _ranges() -> list[tuple[str, datetime, datetime]]:
    hour = START.replace(minute=0, second=0, microsecond=0) + timedelta(hours=30)
    midnight = hour.replace(hour=0)
    pick = random.Random(7)
    ragged = [sorted(START + timedelta(seconds=pick.random() * DAYS * 86400) for _ in range(2)) for _ in range(4)]
    # Whole hours of many days, and just beside midnight: where one table ends and the next begins.
    edges = (0, 1, -1, 60_000_000, 3_600_000_000, -3_600_000_000)
    days = [
        sorted(midnight + timedelta(days=pick.randrange(DAYS), microseconds=pick.choice(edges)) for _ in range(2))
        for _ in range(12)
    ]
    return [
        ("*", START - timedelta(days=1), START + timedelta(days=DAYS + 1)),
        ("*", hour, hour + timedelta(hours=50)),
        ("t1", hour, hour + timedelta(hours=1)),
        ("*", hour + timedelta(minutes=10), hour + timedelta(minutes=40)),
        ("*", hour - timedelta(minutes=10), hour + timedelta(minutes=10)),
        ("*", hour + timedelta(microseconds=1), hour + timedelta(hours=3, microseconds=1)),
        ("t2", START + timedelta(days=200), START + timedelta(days=201)),
        *((tenant, first, last) for tenant, (first, last) in zip(("*", "*", "t0", "t2"), ragged, strict=True)),
        ("*", midnight, midnight + timedelta(days=1)),
        ("t0", midnight, midnight + timedelta(days=5)),
        ("*", midnight + timedelta(hours=20), midnight + timedelta(hours=28)),
        ("*", midnight - timedelta(hours=23), midnight + timedelta(hours=23)),
        *(("*", first, last) for first, last in days),
    ]


RANGES: Final = _ranges()
ranges: Final = pytest.mark.parametrize(("tenant", "since", "until"), RANGES, ids=range(len(RANGES)))


def _each(dimensions: tuple[str, ...]) -> list[tuple[str, str, datetime, datetime]]:
    """Every dimension and every range at least once, and every dimension over all there is."""
    everything = [(by, *RANGES[0]) for by in dimensions]
    return everything + [(dimensions[at % len(dimensions)], *asked) for at, asked in enumerate(RANGES)]


def _in(rows: list[Row], tenant: str, since: datetime, until: datetime) -> list[Row]:
    return [
        row for row in rows if tenant in ("*", row.get("tenant")) and since <= datetime.fromisoformat(row["started_at"]) < until
    ]


def _value(row: Row, by: str) -> str | None:
    if by == "model":
        return row.get("response_model") or row.get("request_model")
    if by == "prompt":
        name, version = row.get("prompt_name") or "", row.get("prompt_version")
        return f"{name}@{version}" if version else name or None
    return row.get(by)


def _grouped(rows: list[Row], by: str) -> dict[str | None, list[Row]]:
    groups: dict[str | None, list[Row]] = defaultdict(list)
    for row in rows:
        groups[_value(row, by)].append(row)
    return groups


def _sum(rows: list[Row], name: str) -> int:
    return sum(row.get(name) or 0 for row in rows)


def _missing(rows: list[Row], *names: str) -> int:
    return sum(any(row.get(name) is None for name in names) for row in rows)


def _usd(nano: int) -> Decimal:
    return Decimal(nano).scaleb(-9)


def _about(value: float | None, known: list[float], level: float) -> bool:
    """Within 1 % of one of the values around the rank, where the sketch may round to either; 2 % beside one second."""
    if not known or value is None:
        return not known and value is None
    known = sorted(known)
    at = level * (len(known) - 1)
    near = known[max(int(at) - 1, 0)], known[min(int(at) + 2, len(known) - 1)]
    least, most = (1 - _spread(near[0]), 1 + _spread(near[1]))
    return near[0] * least <= value <= near[1] * most


def _spread(known: float) -> float:
    return 0.0203 if 0.98 < known < 1.0203 else 0.010001


# ---- money and tokens


@pytest.mark.parametrize(("by", "tenant", "since", "until"), _each(BY))
def test_cost_by_anything_over_any_range_is_the_plain_sum(
    seeded: Seeded, by: str, tenant: str, since: datetime, until: datetime
) -> None:
    rows = _in(seeded.calls, tenant, since, until)

    said = seeded.ask("cost_by", by=by, tenant=tenant, since=since.isoformat(), until=until.isoformat())

    total = _sum(rows, "cost_nano_usd")
    assert {row.pop("value"): row for row in said} == {
        value: {
            "requests": len(calls),
            "requests_without_price": _missing(calls, "cost_nano_usd"),
            "cost_usd": _usd(_sum(calls, "cost_nano_usd")),
            "cost_share": pytest.approx(_sum(calls, "cost_nano_usd") / total) if total else None,
            "cost_usd_per_request": _per(_sum(calls, "cost_nano_usd") / 1e9, len(calls) - _missing(calls, "cost_nano_usd")),
            "input_tokens": _sum(calls, "input_tokens"),
            "output_tokens": _sum(calls, "output_tokens"),
            "requests_without_tokens": _missing(calls, "input_tokens", "output_tokens"),
        }
        for value, calls in _grouped(rows, by).items()
    }
    assert [row["cost_usd"] for row in said] == sorted((row["cost_usd"] for row in said), reverse=True)


def _per(total: float, count: int) -> Any:
    return pytest.approx(total / count) if count else None


@ranges
def test_the_mix_of_tokens_is_the_plain_sum(seeded: Seeded, tenant: str, since: datetime, until: datetime) -> None:
    rows = _in(seeded.calls, tenant, since, until)

    said = seeded.ask("tokens_by", by="model", tenant=tenant, since=since.isoformat(), until=until.isoformat())

    assert {row.pop("value"): row for row in said} == {
        value: {
            "requests": len(calls),
            "requests_without_tokens": _missing(calls, "input_tokens", "output_tokens"),
            "input_tokens": _sum(calls, "input_tokens"),
            "cache_read_tokens": _sum(calls, "cache_read_tokens"),
            "cache_write_tokens": _sum(calls, "cache_write_5m_tokens") + _sum(calls, "cache_write_1h_tokens"),
            "output_tokens": _sum(calls, "output_tokens"),
            "reasoning_tokens": _sum(calls, "reasoning_tokens"),
            "input_audio_tokens": 0,
            "output_audio_tokens": 0,
            "cache_read_share": _per(_sum(calls, "cache_read_tokens"), _sum(calls, "input_tokens")),
            "reasoning_share": _per(_sum(calls, "reasoning_tokens"), _sum(calls, "output_tokens")),
            "cache_savings_usd": _usd(_sum(calls, "cache_savings_nano_usd")) if unknown < len(calls) else None,
            "requests_without_cache_savings": unknown,
        }
        for value, calls in _grouped(rows, "model").items()
        for unknown in (_missing(calls, "cache_savings_nano_usd"),)
    }


@pytest.mark.parametrize("midnight", [False, True])
def test_a_day_stands_beside_the_day_and_the_week_before(seeded: Seeded, midnight: bool) -> None:
    since = START.replace(hour=0, minute=0, second=0, microsecond=0) if midnight else START
    until = START + timedelta(days=DAYS)
    spent: dict[tuple[date, str | None], Counter[str]] = defaultdict(Counter)
    for row in _in(seeded.calls, "*", since, until):
        day = spent[datetime.fromisoformat(row["started_at"]).date(), _value(row, "team")]
        day.update(requests=1, errors=bool(row["error_type"]), nano=row["cost_nano_usd"] or 0)
        day.update(tokens=(row["input_tokens"] or 0) + (row["output_tokens"] or 0))
        day.update(without_price=row["cost_nano_usd"] is None, without_tokens=_missing([row], "input_tokens", "output_tokens"))

    said = seeded.ask("days_by", by="team", tenant="*", since=since.isoformat(), until=until.isoformat())

    first = since.date() if midnight else since.date() + timedelta(days=1)

    def before(day: date, team: str | None, days: int, name: str) -> int | None:
        return spent[day - timedelta(days=days), team][name] if day - timedelta(days=days) >= first else None

    def usd(nano: int | None) -> Decimal | None:
        return None if nano is None else _usd(nano)

    expected = {
        (day, team): {
            "requests": sums["requests"],
            "errors": sums["errors"],
            "tokens": sums["tokens"],
            "cost_usd": _usd(sums["nano"]),
            "cost_usd_day_before": usd(before(day, team, 1, "nano")),
            "cost_usd_week_before": usd(before(day, team, 7, "nano")),
            "requests_day_before": before(day, team, 1, "requests"),
            "requests_week_before": before(day, team, 7, "requests"),
            "requests_without_price": sums["without_price"],
            "requests_without_tokens": sums["without_tokens"],
        }
        for (day, team), sums in list(spent.items())
    }
    assert {(row.pop("day"), row.pop("value")): row for row in said} == expected


@ranges
def test_expensive_users_come_first_with_the_model_that_cost_most(
    seeded: Seeded, tenant: str, since: datetime, until: datetime
) -> None:
    rows = _in(seeded.calls, tenant, since, until)
    groups: dict[tuple[str | None, str | None], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["tenant"], row["user"]].append(row)

    said = seeded.ask("expensive_users", tenant=tenant, since=since.isoformat(), until=until.isoformat())

    def dearest(calls: list[Row]) -> str | None:
        by_model = _grouped(calls, "model")
        return max(by_model, key=lambda model: (_sum(by_model[model], "cost_nano_usd"), model or ""))

    total = _sum(rows, "cost_nano_usd")
    assert {(row.pop("tenant"), row.pop("user")): row for row in said} == {
        who: {
            "requests": len(calls),
            "requests_without_price": _missing(calls, "cost_nano_usd"),
            "cost_usd": _usd(_sum(calls, "cost_nano_usd")),
            "cost_share": _per(_sum(calls, "cost_nano_usd"), total),
            "dearest_model": dearest(calls),
        }
        for who, calls in groups.items()
    }
    assert [row["cost_usd"] for row in said] == sorted((row["cost_usd"] for row in said), reverse=True)


@ranges
def test_models_without_a_price_are_named(seeded: Seeded, tenant: str, since: datetime, until: datetime) -> None:
    groups: dict[tuple[str | None, str | None], list[Row]] = defaultdict(list)
    for row in _in(seeded.calls, tenant, since, until):
        groups[row["provider_name"], _value(row, "model")].append(row)

    said = seeded.ask("unpriced_models", tenant=tenant, since=since.isoformat(), until=until.isoformat())

    def hours(calls: list[Row]) -> list[datetime]:
        unpriced = [datetime.fromisoformat(row["started_at"]) for row in calls if row["cost_nano_usd"] is None]
        return sorted(at.replace(minute=0, second=0, microsecond=0) for at in unpriced)

    assert {(row.pop("provider_name"), row.pop("model")): row for row in said} == {
        who: {
            "requests_without_price": len(hours(calls)),
            "requests": len(calls),
            "first_hour": hours(calls)[0],
            "last_hour": hours(calls)[-1],
        }
        for who, calls in groups.items()
        if hours(calls)
    }


# ---- speed and errors


@ranges
def test_latencies_are_within_a_hundredth_of_the_exact_quantiles(
    seeded: Seeded, tenant: str, since: datetime, until: datetime
) -> None:
    groups = _grouped(_in(seeded.calls, tenant, since, until), "model")

    said = seeded.ask("latency_by", by="model", tenant=tenant, since=since.isoformat(), until=until.isoformat())

    assert {row["value"]: row["requests"] for row in said} == {value: len(calls) for value, calls in groups.items()}
    for row in said:
        for column, field in (("latency", "latency_s"), ("time_to_first_token", "time_to_first_token_s")):
            known = [call[field] for call in groups[row["value"]] if call[field] is not None]
            assert row[f"{column}_max_s"] == max(known, default=None)
            for name, level in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
                assert _about(row[f"{column}_{name}_s"], known, level)


@ranges
def test_errors_are_counted_by_what_they_are(seeded: Seeded, tenant: str, since: datetime, until: datetime) -> None:
    groups = _grouped(_in(seeded.calls, tenant, since, until), "user")

    said = seeded.ask("errors_by", by="user", tenant=tenant, since=since.isoformat(), until=until.isoformat())

    assert {(row["value"], row["error_type"]): (row["requests"], row["errors"], row["error_rate"]) for row in said} == {
        (value, kind): (len(calls), count, count / len(calls))
        for value, calls in groups.items()
        for kind, count in Counter(call["error_type"] for call in calls if call["error_type"]).items()
    }


def test_the_slowest_calls_are_the_slowest_of_the_range(seeded: Seeded) -> None:
    tenant, since, until = RANGES[-1]
    known = [call for call in _in(seeded.calls, tenant, since, until) if call["latency_s"] is not None]

    said = seeded.ask("slowest_calls", tenant=tenant, since=since.isoformat(), until=until.isoformat(), rows=7)

    slowest = sorted(known, key=lambda call: -call["latency_s"])[:7]
    assert [(row["call_id"], row["latency_s"]) for row in said] == [(call["call_id"], call["latency_s"]) for call in slowest]


# ---- guardrails


@pytest.mark.parametrize(("by", "tenant", "since", "until"), _each(JUDGED_BY))
def test_finding_rates_are_of_the_calls_that_were_judged(
    seeded: Seeded, by: str, tenant: str, since: datetime, until: datetime
) -> None:
    groups = _grouped(_in(seeded.verdicts, tenant, since, until), by)

    said = seeded.ask("findings_by", by=by, tenant=tenant, since=since.isoformat(), until=until.isoformat())

    expected: dict[tuple[Any, ...], Row] = {}
    for value, verdicts in groups.items():
        judged = sum(verdict["outcome"] == "scored" for verdict in verdicts)
        for kind in {(one["detector"], one["type"]) for verdict in verdicts for one in verdict["findings"]}:
            found = [
                [one["leak"] for one in verdict["findings"] if (one["detector"], one["type"]) == kind] for verdict in verdicts
            ]
            expected[value, *kind] = {
                "verdicts": len(verdicts),
                "judged": judged,
                "calls": sum(map(bool, found)),
                "finding_rate": pytest.approx(sum(map(bool, found)) / judged),
                "findings": sum(map(len, found)),
                "calls_with_leaks": sum(map(any, found)),
                "leaks": sum(map(sum, found)),
            }
    assert {(row.pop("value"), row.pop("detector"), row.pop("type")): row for row in said} == expected


@ranges
def test_every_leak_is_told_where_it_stands(seeded: Seeded, tenant: str, since: datetime, until: datetime) -> None:
    said = seeded.ask("phi_leaks", tenant=tenant, since=since.isoformat(), until=until.isoformat())

    assert sorted((row["call_id"], row["tenant"], row["model"], row["type"]) for row in said) == sorted(
        (verdict["call_id"], verdict.get("tenant"), _value(verdict, "model"), one["type"])
        for verdict in _in(seeded.verdicts, tenant, since, until)
        for one in verdict["findings"]
        if one["leak"]
    )


@ranges
def test_the_versions_of_a_prompt_stand_beside_one_another(
    seeded: Seeded, tenant: str, since: datetime, until: datetime
) -> None:
    called, judged = (
        _grouped([row for row in _in(rows, tenant, since, until) if row.get("prompt_name") == "prompt1"], "prompt_version")
        for rows in (seeded.calls, seeded.verdicts)
    )

    said = seeded.ask("prompt_versions", prompt="prompt1", tenant=tenant, since=since.isoformat(), until=until.isoformat())

    assert {row["prompt_version"] for row in said} == set(called)
    for row in said:
        calls, verdicts = called[row["prompt_version"]], judged[row["prompt_version"]]
        scored_calls = [verdict for verdict in verdicts if verdict["outcome"] == "scored"]
        told = [verdict["scores"]["response.faithfulness"] for verdict in verdicts if verdict["scores"]]
        known = [call["latency_s"] for call in calls if call["latency_s"] is not None]
        unpriced = _missing(calls, "cost_nano_usd")
        assert (row["requests"], row["requests_without_price"]) == (len(calls), unpriced)
        hours = sorted(datetime.fromisoformat(call["started_at"]).replace(minute=0, second=0, microsecond=0) for call in calls)
        assert (row["first_hour"], row["last_hour"]) == (hours[0], hours[-1])
        assert row["error_rate"] == sum(bool(call["error_type"]) for call in calls) / len(calls)
        assert row["cost_usd"] == _usd(_sum(calls, "cost_nano_usd"))
        assert row["cost_usd_per_request"] == _per(_sum(calls, "cost_nano_usd") / 1e9, len(calls) - unpriced)
        assert (row["input_tokens"], row["output_tokens"]) == (_sum(calls, "input_tokens"), _sum(calls, "output_tokens"))
        assert _about(row["latency_p50_s"], known, 0.5)
        assert _about(row["latency_p95_s"], known, 0.95)
        assert row["judged"] == len(scored_calls)
        assert row["finding_rate"] == _per(sum(bool(one["findings"]) for one in scored_calls), len(scored_calls))
        leaks = sum(any(one["leak"] for one in verdict["findings"]) for verdict in scored_calls)
        assert row["leak_rate"] == _per(leaks, len(scored_calls))
        assert row["faithfulness"] == _per(sum(told), len(told))
        assert row["toxicity"] is None


@ranges
def test_retrieval_is_judged_by_the_calls_that_retrieved(seeded: Seeded, tenant: str, since: datetime, until: datetime) -> None:
    rows = [call for call in _in(seeded.calls, tenant, since, until) if call["retrieval"]]
    judged = _grouped(_in(seeded.verdicts, tenant, since, until), "team")

    said = seeded.ask("retrieval_by", by="team", tenant=tenant, since=since.isoformat(), until=until.isoformat())

    def mean(values: list[float]) -> Any:
        return pytest.approx(sum(values) / len(values), rel=1e-6) if values else None

    expected = {}
    for value, calls in _grouped(rows, "team").items():
        known = [[chunk["score"] for chunk in call["retrieval"] if chunk["score"] is not None] for call in calls]
        known = [scores for scores in known if scores]
        told = [verdict["scores"] for verdict in judged[value] if verdict["scores"]]
        expected[value] = {
            "calls_with_retrieval": len(calls),
            "chunks": sum(len(call["retrieval"]) for call in calls),
            "chunks_per_call": _per(sum(len(call["retrieval"]) for call in calls), len(calls)),
            "calls_with_scores": len(known),
            "best_score": mean([max(scores) for scores in known]),
            "mean_score": mean([sum(scores) / len(scores) for scores in known]),
            "context_relevance": mean([scores["context.relevance"] for scores in told]),
            "faithfulness": mean([scores["response.faithfulness"] for scores in told]),
        }
    assert {row.pop("value"): row for row in said} == expected


# ---- policies


def test_a_state_lasts_until_the_next_word_on_its_scope(seeded: Seeded) -> None:
    since, until = START - timedelta(hours=1), START + timedelta(hours=4)

    said = seeded.ask("policy_states", tenant="*", since=since.isoformat(), until=until.isoformat())

    # The block's end is told although it lies behind the range; the other tenant's block has not ended.
    assert [(row["policy"], row["scope"]["tenant"], row["state"], row["lasted_s"], row["limit_share"]) for row in said] == [
        ("budget", "t0", "warn", 2 * 3600, 0.8),
        ("budget", "t1", "block", None, 1.01),
        ("budget", "t0", "block", 3 * 3600, 1.0),
    ]


def test_blocks_are_what_kept_calls_from_going(seeded: Seeded) -> None:
    since, until = START, START + timedelta(days=1)

    said = seeded.ask("blocks", tenant="t0", since=since.isoformat(), until=until.isoformat())

    assert [(row["policy"], row["state"], row["ended_at"]) for row in said] == [
        ("budget", "block", START + timedelta(hours=5)),
        ("breaker", "throttle", None),
    ]


# ---- asking wrongly


def test_a_dimension_that_is_none_is_refused_with_those_there_are(seeded: Seeded) -> None:
    asked = "SELECT * FROM cost_by(by = 'modell', tenant = '*', since = '2026-11-01', until = '2026-12-01')"

    with pytest.raises(QueryRefused, match="by is tenant, team, user, service"):
        seeded.store.query(asked)


def test_a_range_may_be_told_from_the_clock(seeded: Seeded) -> None:
    since, until = "toString(now() - INTERVAL 100 YEAR)", "toString(now() + INTERVAL 50 YEAR)"

    said = seeded.store.query(
        f"SELECT sum(requests) FROM cost_by(by = 'model', tenant = '*', since = {since}, until = {until})"
    )

    assert said.rows == [(len(seeded.calls),)]
