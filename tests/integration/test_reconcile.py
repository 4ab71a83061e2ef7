"""`tidegate reconcile` as an analyst uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from node_process import tidegate
from support import response


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two calls of gpt-4o at 0.0035 $ each, one of a model without a price, and one of another provider."""
    base = tmp_path_factory.mktemp("filled")
    calls = [
        response("c1", response_model="gpt-4o-2024-08-06"),
        response("c2", started_at="2026-11-02T23:59:59Z"),
        response("c3", request_model="in-house-7b", provider_name="own"),
        response("c4", provider_name="azure", started_at="2026-11-03T00:00:00Z"),
    ]
    log = base / "calls.jsonl"
    log.write_bytes(b"".join(json.dumps(call).encode() + b"\n" for call in calls))
    assert tidegate("replay", log, "--data", base / "data").returncode == 0
    return base / "data"


def test_a_bill_that_agrees_is_a_success(filled: Path, tmp_path: Path) -> None:
    bill = tmp_path / "bill.csv"
    bill.write_text(
        'start_time_iso,amount_value,line_item\n2026-11-02,0.005,"gpt-4o, input"\n2026-11-02,0.002,"gpt-4o, output"\n'
    )

    agreed = tidegate("reconcile", bill, "--provider", "openai", "--data", filled)

    assert agreed.returncode == 0, agreed.stderr
    assert b"billed 0.0070 $, metered 0.0070 $: 0.0000 $" in agreed.stdout


def test_what_differs_is_told_and_ends_with_one(filled: Path, tmp_path: Path) -> None:
    bill = tmp_path / "bill.csv"
    bill.write_text("day,model,cost,input_tokens\n2026-11-02,gpt-4o,0.0080,2500\n2026-11-03,tts-1,1,\n")

    told = tidegate("reconcile", bill, "--json", "--data", filled)
    lenient = tidegate("reconcile", bill, "--provider", "openai", "--tolerance", "20", "--data", filled)

    lines = [json.loads(line) for line in told.stdout.splitlines()]
    assert (told.returncode, lenient.returncode) == (1, 1)
    assert [(line["day"], line["model"], line["differs"]) for line in lines] == [
        ("2026-11-03", "tts-1", True),
        ("2026-11-03", "gpt-4o", True),
        ("2026-11-02", "gpt-4o", True),
        ("2026-11-02", "in-house-7b", True),
    ]
    assert lines[2]["metered"] == {
        "cost_usd": "0.007",
        "requests": 2,
        "input_tokens": 2_000,
        "output_tokens": 200,
        "requests_without_price": 0,
    }
    assert lines[3]["metered"]["cost_usd"] is None
    assert b"1 of 2 differ" in lenient.stderr


def test_a_bill_comes_through_a_pipe_and_bad_ones_are_refused(filled: Path, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.csv"
    nothing.write_text("day,model,cost\n")
    binary = tmp_path / "bill.xlsx"
    binary.write_bytes(b"PK\x03\x04\xff\xfe")

    for file, reason in ((nothing, b"no lines"), (binary, b"export it as CSV"), (tmp_path / "none.csv", b"cannot be read")):
        refused = tidegate("reconcile", file, "--data", filled)
        assert refused.returncode == 2
        assert reason in refused.stderr
