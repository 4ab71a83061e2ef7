"""`tidegate reprice`: what was metered stays, and a version at other prices stands beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from node_process import NodeProcess, tidegate
from support import response
from tidegate.processors.repricing import spans

DEAR = """
[[models]]
model = "in-house-7b"
input = "1"
output = "2"
[[models]]
provider = "openai"
model = "gpt-4o"
input = "5"
output = "20"
"""


def rows(data: Path, sql: str) -> list[dict[str, Any]]:
    answer = tidegate("query", sql, "-f", "json", "--data", data)
    assert answer.returncode == 0, answer.stderr
    return [json.loads(line) for line in answer.stdout.splitlines()]


def changed(*command: str | Path) -> Sequence[str]:
    """The last line of the table: all calls, how many changed, what they cost then and now."""
    told = tidegate("reprice", *command)
    assert told.returncode == 0, told.stderr
    return next(line for line in told.stdout.decode().splitlines() if line.startswith("│ all")).replace("│", " ").split()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten hours with a call of gpt-4o (0.0035 $) and one of a model without a price; one of them is another tenant's."""
    base = tmp_path_factory.mktemp("filled")
    calls = []
    for hour in range(10):
        tenant = "hill" if hour == 9 else "harbor"
        calls.append(response(f"a{hour}", tenant=tenant, started_at=f"2026-11-02T{hour:02d}:30:00Z"))
        calls.append(
            response(f"b{hour}", tenant=tenant, started_at=f"2026-11-02T{hour:02d}:59:59Z", request_model="in-house-7b")
        )
    log = base / "calls.jsonl"
    log.write_bytes(b"".join(json.dumps(call).encode() + b"\n" for call in calls))
    (base / "dear.toml").write_text(DEAR)
    assert tidegate("replay", log, "--data", base / "data").returncode == 0
    return base / "data"


def test_at_the_same_prices_nothing_changes(filled: Path) -> None:
    assert changed("--since", "2026-11-01", "--dry-run", "--data", filled)[1:] == [
        "20",
        "0",
        "0.0350",
        "0.0350",
        "0.0000",
        "0",
        "0",
    ]


def test_a_version_at_other_prices_stands_beside_what_was_metered(filled: Path) -> None:
    before = rows(filled, "SELECT call_id, cost_nano_usd, price_book FROM calls ORDER BY call_id")

    told = changed("--since", "2026-11-01", "--prices", filled.parent / "dear.toml", "--as", "dear", "--data", filled)

    # 1,000 tokens in and 100 out: ten calls at 0.0070 $ and ten at 0.0012 $.
    assert told[1:] == ["20", "20", "0.0350", "0.0820", "0.0350", "10", "0"]
    assert rows(filled, "SELECT call_id, cost_nano_usd, price_book FROM calls ORDER BY call_id") == before
    summed = "SELECT tenant, model, count() AS calls, sum(cost_usd) AS usd, sum(difference_usd) AS more FROM repriced_calls"
    assert rows(filled, f"{summed} WHERE version = 'dear' GROUP BY ALL ORDER BY ALL") == [
        {"tenant": "harbor", "model": "gpt-4o", "calls": 9, "usd": 0.063, "more": 0.0315},
        {"tenant": "harbor", "model": "in-house-7b", "calls": 9, "usd": 0.0108, "more": None},
        {"tenant": "hill", "model": "gpt-4o", "calls": 1, "usd": 0.007, "more": 0.0035},
        {"tenant": "hill", "model": "in-house-7b", "calls": 1, "usd": 0.0012, "more": None},
    ]
    joined = "SELECT count() AS n FROM repriced_calls AS r JOIN calls AS c USING (producer, seq) WHERE r.version = 'dear'"
    assert rows(filled, joined) == [{"n": 20}]
    [version] = rows(filled, "SELECT * EXCEPT (made_at, price_book, until) FROM repricings WHERE version = 'dear'")
    assert version == {"version": "dear", "since": "2026-11-01 00:00:00.000000", "tenant": "*", "calls": 20}

    audit = [json.loads(line) for line in (filled / "audit.jsonl").read_bytes().splitlines()]
    [told_of] = [entry for entry in audit if entry["action"] == "calls.repriced"]
    assert (told_of["actor"], told_of["subject"]) == (audit[0]["actor"], "")
    assert told_of["details"].keys() == {"version", "price_book", "since", "until", "calls"}
    assert (told_of["details"]["version"], told_of["details"]["calls"]) == ("dear", 20)

    again = tidegate("reprice", "--since", "2026-11-01", "--as", "dear", "--data", filled)

    assert again.returncode == 2
    assert b"stands already" in again.stderr


def test_a_range_and_a_tenant_are_priced_alone(filled: Path) -> None:
    until = ("--until", "2026-11-02T09:30:00Z")

    assert changed("--since", "2026-11-02T00:30:00.000001Z", *until, "--dry-run", "--data", filled)[1] == "17"
    assert changed("--since", "2026-11-02", *until, "--tenant", "hill", "--dry-run", "--data", filled)[1] == "0"
    assert changed("--since", "2026-11-02", "--tenant", "hill", "--dry-run", "--data", filled)[1] == "2"


def test_what_makes_no_sense_is_refused(filled: Path) -> None:
    def refused(*command: str | Path) -> bytes:
        told = tidegate("reprice", *command, "--data", filled)
        assert told.returncode == 2
        return told.stderr

    assert b"is no time" in refused("--since", "yesterday")
    assert b"must be before" in refused("--since", "2026-11-03", "--until", "2026-11-02")
    assert b"give another with --as" in refused("--since", "2026-11-01", "--as", "a b")
    assert b"cannot be read" in refused("--since", "2026-11-01", "--prices", filled / "none.toml")
    with NodeProcess(filled):
        assert b"stop it first" in refused("--since", "2026-11-01")


@given(st.lists(st.tuples(st.integers(0, 10**4), st.integers(1, 500)), unique_by=lambda pair: pair[0]), st.integers(1, 1_000))
def test_spans_hold_every_hour_once_in_order(hours: list[tuple[int, int]], most: int) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    told = [(start + timedelta(hours=hour), count) for hour, count in sorted(hours)]

    found = list(spans(told, most))

    assert sum(calls for _, _, calls in found) == sum(count for _, count in hours)
    assert all(sum(since <= hour < until for since, until, _ in found) == 1 for hour, _ in told)
    assert all(calls <= most or until - since == timedelta(hours=1) for since, until, calls in found)
