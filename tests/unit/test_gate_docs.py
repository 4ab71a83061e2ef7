"""Every block of docs/gate.md runs, in order, against a data folder, and prints what stands below it."""

from __future__ import annotations

import contextlib
import io
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import tidegate
from node_process import eventually
from signalling import policy_record, price_record, signal_record
from tidegate.processors.policy_file import parse_policies, read_policies
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.policy import Policy, PolicySet
from tidegate.schemas.signal import GATES_KEY, Contributor, Gates
from tidegate.schemas.topics import GATES, SIGNALS

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "gate.md").read_text()
# Python, and the output that follows it, if there is one.
BLOCK: Final = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)

MODELS: Final = ("claude-sonnet-4-5", "claude-haiku-4-5", "mistral-large", "gpt-4o", "gpt-4o-mini")
THROTTLE: Final = Policy(
    name="batch-pace",
    match={"label.channel": ("batch",)},
    measure="requests",
    window={"rolling": "1m"},
    limit=100,
    actions=[{"do": "throttle", "per_minute": 90}],
)


class Overloaded(Exception):
    status_code = 529


def ask(provider: str, model: str) -> dict[str, Any]:
    """A client of every provider, one of which is down."""
    if provider == "mistral_ai":
        print("1 mistral_ai: overloaded")
        raise Overloaded
    return {"model": model, "usage": {"input_tokens": 400, "output_tokens": 90}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data folder in which a node has spoken."""
    example = read_policies(ROOT / "docs" / "examples" / "policies.yaml")
    policies = [one for one in example.policies if one.name in ("tenant-daily-cost", "provider-breaker")]
    budget = {"measure": "cost_usd", "limit": 25e9, "resets_at": time.time() + 3_600, "sequence": 1, "at": time.time()}
    reason = "tenant-daily-cost: $25.0400 in this day (America/New_York), limit $25.0000, 100% of it"
    spenders = [Contributor({"team": "radiology"}, 21e9), Contributor({"team": "er"}, 4.04e9)]
    # The example's budget is for production; here for every environment.
    policies = [one.model_copy(update={"match": {}}) for one in policies]
    records = [
        policy_record(PolicySet(policies=(*policies, THROTTLE))),
        price_record(**dict.fromkeys(MODELS, (0.0, 0.0))),
        signal_record("tenant-daily-cost", 20.1e9, state="warn", scope={"tenant": "harbor-health"}, **budget),
        signal_record(
            "tenant-daily-cost",
            25.04e9,
            state="block",
            scope={"tenant": "st-anne"},
            contributors=spenders,
            **budget | {"reason": reason},
        ),
        signal_record(
            "batch-pace", 100, state="throttle", measure="requests", limit=100.0, per_minute=90.0, sequence=1, at=time.time()
        ),
    ]
    log = SqliteLog(tmp_path, fsync="normal")
    with log.transaction():
        log.append(SIGNALS.name, 0, [(key, {}, value) for key, value in records])
    monkeypatch.setenv("TIDEGATE_URL", str(tmp_path))
    stopping = threading.Event()
    node = threading.Thread(target=answer_gates, args=(log, stopping))
    node.start()
    yield tmp_path
    stopping.set()
    node.join()


def answer_gates(log: SqliteLog, stopping: threading.Event) -> None:
    """What a node does for a gate: count it among the live ones as soon as it is there."""
    counted: set[str] = set()
    while not stopping.wait(0.02):
        gates = {(record.key or b"").decode() for record in log.read(GATES.name, 0, 0)}
        if gates - counted:
            counted = gates
            with log.transaction():
                log.append(SIGNALS.name, 0, [(GATES_KEY, {}, msgspec.json.encode(Gates(sorted(gates), time.time())))])
    log.close()


def test_every_block_runs_and_prints_what_stands_below_it(folder: Path) -> None:
    blocks = BLOCK.findall(PAGE)
    names: dict[str, Any] = {"ask": ask}

    told = []
    try:
        for code, _ in blocks:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(code, "docs/gate.md", "exec"), names)
            told.append(printed.getvalue())
            # As between lines that a person types: the gate has been counted among the live ones.
            assert eventually(lambda: names["tide"].gate.stats()["member"], bool)
    finally:
        if "tide" in names:
            names["tide"].close(20)

    assert told == [output for _, output in blocks]
    assert len(blocks) == PAGE.count("```python") == 7
    assert names["tide"].stats().internal_errors == 0


def test_the_policies_on_the_page_are_policies() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)

    found = [parse_policies(Path("page.yaml"), block.encode()) for block in blocks]

    assert [[policy.name for policy in one.policies] for one in found] == [["openai-requests-per-minute"]]


def test_the_table_of_a_decision_names_all_its_fields() -> None:
    table = PAGE[PAGE.index("| field | what it says |") : PAGE.index("## Fallback")]

    named = set(re.findall(r"`(\w+)`", " ".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))))

    assert named == {field.name for field in msgspec.structs.fields(tidegate.producers.decision.Decision)}
