"""`tidegate forget` on a folder that a real node has filled: texts, transcripts, budgets, refused lines and all.

The search is the test's own: every byte of every file, and every column of every table as text."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from node_process import NodeProcess, environment, eventually, tidegate
from tidegate.producers.connect import connect
from tidegate.producers.emitter import Emitter
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.topics import CALLS, CONTENT, QUARANTINE, REFUSED, SIGNALS, TRANSCRIPTS, USAGE
from tidegate.sinks.clickhouse import Store

pytestmark = pytest.mark.slow

ALICE, BOB, TENANT = "alice-4711-k", "bob-4712-k", "harbor"
POLICIES = """
policies:
  - {name: of-each, scope: [tenant, user], measure: requests, window: {rolling: 1h}, limit: 2, action: block}
  - {name: of-all, scope: [tenant], measure: requests, window: {rolling: 1h}, limit: 4, action: block}
"""
SETTINGS: Final = {
    "TIDEGATE_GUARD_DETECTORS": '["phi"]',
    "TIDEGATE_SCOPE_SETS": '[["model"], ["tenant"], ["tenant", "user"]]',
}
SUMS: Final = {
    "calls": "SELECT tenant, model, count() AS n, sum(cost_nano_usd) AS nano, sum(input_tokens) AS tokens FROM calls"
    " GROUP BY ALL ORDER BY ALL",
    "hours": "SELECT tenant, model, sum(requests) AS n, sum(cost_nano_usd) AS nano, sum(input_tokens) AS tokens FROM calls_1h"
    " GROUP BY ALL ORDER BY ALL",
    "verdicts": "SELECT tenant, sum(judged) AS n, sum(findings) AS found FROM v_scored_1h GROUP BY ALL ORDER BY ALL",
    "bob": f"SELECT * FROM calls WHERE user = '{BOB}' ORDER BY seq",
    "bob's texts": f"SELECT * FROM transcripts WHERE user = '{BOB}' ORDER BY seq",
}  # fmt: skip


def speak(tide: Emitter, user: str, count: int, tenant: str = TENANT) -> None:
    for number in range(count):
        scope = {"tenant": tenant, "user": user, "labels": {"for": user}, "conversation_id": f"chat-{user}"}
        with tide.call(model="gpt-4o", provider="openai", prompt="triage@2.1", **scope) as call:
            call.ask(f"I am {user}, patient {number}", context=[f"the chart of {user}"])
            call.answer(
                {"choices": [{"message": {"content": f"Hello {user} {number}"}}], "usage": {"prompt_tokens": 90 + number}}
            )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calls of two people; a line of each that the meter refuses; texts that are judged; budgets that are spent."""
    data = tmp_path_factory.mktemp("filled") / "data"
    policies = data.parent / "policies.yaml"
    policies.write_text(POLICIES)
    names = ("guardrails_lag_records", "meter_lag_records", "sink_lag_records")
    tide = connect(str(data), producer_id="service", gate=False)
    with NodeProcess(data, TIDEGATE_POLICY_FILE=str(policies), **SETTINGS) as node:
        for user in (ALICE, BOB):
            speak(tide, user, 4)
            refused = {"event": "response", "call_id": f"{user}-x", "started_at": "2001-01-01T00:00:00Z", "request_model": "m"}
            node.post([refused | {"tenant": TENANT, "user": user}])
        assert tide.flush(30)
        tide.close()
        eventually(node.status, lambda found: not any(found[name] for name in names), 120)
        eventually(lambda: node.rows("SELECT count() AS n FROM transcripts"), lambda found: int(found[0]["n"]) == 8, 60)
        eventually(lambda: node.rows("SELECT count() AS n FROM alerts WHERE kind = 'policy'"), lambda n: int(n[0]["n"]) >= 3)
    return data


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    """A copy of the folder, whose node has stopped."""
    shutil.copy(made.parent / "policies.yaml", tmp_path)
    return Path(shutil.copytree(made, tmp_path / "data", symlinks=True))


def asked(data: Path, *questions: str) -> list[list[dict[str, Any]]]:
    with Store.open(path=data / "store") as store:
        return [store.query(sql).dicts() for sql in questions]


def sums(data: Path) -> dict[str, list[dict[str, Any]]]:
    return dict(zip(SUMS, asked(data, *SUMS.values()), strict=True))


def with_alice(data: Path, user: str = ALICE) -> list[str]:
    """Every file that has the id in it, read plainly."""
    return [str(path) for path in data.rglob("*") if path.is_file() and user.encode() in path.read_bytes()]


def in_tables(data: Path, user: str = ALICE) -> list[str]:
    names = "SELECT name FROM system.tables WHERE database = 'tidegate' AND engine LIKE '%MergeTree'"
    with Store.open(path=data / "store") as store:
        tables = [name for (name,) in store.query(names).rows]
        return [name for name in tables if user.encode() in store.query_bytes(f"SELECT * FROM {name}", "CSV")]


def forget(data: Path, *more: str | Path) -> subprocess.CompletedProcess[bytes]:
    command = ("forget", "--data", data, "--user", ALICE, "--tenant", TENANT, *more)
    return tidegate(*command, timeout_s=300, **SETTINGS, TIDEGATE_POLICY_FILE=str(data.parent / "policies.yaml"))


def test_a_person_is_gone_from_every_byte_and_all_else_is_as_it_was(data: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    before, had = sums(data), with_alice(data)
    with SqliteLog(data) as log:
        counted = {topic.name: len(log.read(topic.name, 0, 0, max_bytes=1 << 40)) for topic in (CALLS, CONTENT, TRANSCRIPTS)}

    told = forget(data, "--dry-run")
    after_dry_run = with_alice(data)
    done = forget(data, "--yes", "--out", report)

    assert b"calls" in told.stdout
    assert set(had) <= set(after_dry_run)
    assert any(path.endswith("log.sqlite") for path in had), "the test planted nothing"
    assert done.returncode == 0, (done.stderr, report.read_text())
    found = json.loads(report.read_bytes())
    assert found["proven"] is True
    assert {name: found["store"][name][0] for name in ("calls", "scored_calls", "transcripts")} == {
        "calls": 4,
        "scored_calls": 4,
        "transcripts": 4,
    }
    assert with_alice(data) == []
    assert in_tables(data) == []
    assert sums(data) == before
    assert before["calls"][0]["n"] == 8
    assert before["bob's texts"]
    with SqliteLog(data) as log:
        for name, count in counted.items():
            assert len(log.read(name, 0, 0, max_bytes=1 << 40)) == count
        signals = [record.key for record in log.read(SIGNALS.name, 0, 0) if (record.key or b"").startswith(b"signal|")]
        assert sorted(signals) == [b'signal|of-all|["harbor"]', b'signal|of-each|["harbor","%b"]' % BOB.encode()]
        assert len(log.read(REFUSED.name, 0, 0)) == 1
        assert not log.read(QUARANTINE.name, 0, 0)
        assert any(BOB.encode() in (record.key or b"") for record in log.read(USAGE.name, 0, 0))
    # The audit log holds the report's hash, and is whole.
    entries = [json.loads(line) for line in (data / "audit.jsonl").read_bytes().splitlines()]
    [proof] = [entry["details"] for entry in entries if entry["action"] == "person.forgotten"]
    assert proof["report_sha256"] == hashlib.sha256(report.read_bytes()).hexdigest()
    assert proof["person"] == found["fingerprint"]
    assert tidegate("audit", "verify", "--data", data).returncode == 0

    # What was under way meanwhile is counted, under nobody; whoever comes back is somebody again.
    with NodeProcess(data, TIDEGATE_POLICY_FILE=str(tmp_path / "policies.yaml"), **SETTINGS) as node:
        late = {"event": "response", "call_id": "late", "started_at": "2026-11-01T00:00:00Z", "request_model": "gpt-4o"}
        back = late | {"call_id": "back", "started_at": datetime.now(UTC).isoformat()}
        assert node.post([one | {"tenant": TENANT, "user": ALICE} for one in (late, back)]).status == 202
        node.settled()
    [named, counted_all] = asked(
        data, f"SELECT call_id, user FROM calls WHERE user NOT IN ('', '{BOB}')", "SELECT count() AS n FROM calls"
    )
    assert named == [{"call_id": "back", "user": ALICE}]
    assert counted_all == [{"n": 10}]


CUT = """
import os, signal, sys
from pathlib import Path
from tidegate.processors.embedded.forgetting_folder import forget_in_folder
from tidegate.processors.folder import own_or_find
from tidegate.processors.forgetting import Person
from tidegate.producers.folder_audit import audit_of
from tidegate.producers.key_source import FolderKeys
from tidegate.schemas.settings import Settings

data, at_step = Path(sys.argv[1]), sys.argv[2]

def at(step):
    if step == at_step:
        os.kill(os.getpid(), signal.SIGKILL)

settings = Settings.read(data_dir=data)
with own_or_find(data):
    forget_in_folder(settings, Person(sys.argv[3], sys.argv[4]), FolderKeys(data).ring(), audit_of(data, settings), at=at)
"""


def test_a_run_that_is_killed_anywhere_is_done_again_to_the_same_end(data: Path, tmp_path: Path) -> None:
    before = sums(data)
    more = environment(**SETTINGS, TIDEGATE_POLICY_FILE=str(tmp_path / "policies.yaml"))

    for step in (
        "remembered",
        "rewritten tidegate.calls",
        "log",
        "attributed",
        "moved calls_1h",
        "erased scored_calls",
        "store",
    ):
        killed = subprocess.run(
            [sys.executable, "-c", CUT, data, step, TENANT, ALICE], env=more, capture_output=True, timeout=120
        )
        assert killed.returncode == -signal.SIGKILL, (step, killed.stderr)
    done = forget(data, "--yes")

    assert done.returncode == 0, (done.stdout, done.stderr)
    assert with_alice(data) == []
    assert in_tables(data) == []
    assert sums(data) == before


def test_a_node_that_runs_is_not_robbed_of_its_folder(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with NodeProcess(data):
        refused = tidegate("forget", "--data", data, "--user", ALICE, "--tenant", TENANT, "--yes")

    assert refused.returncode == 2
    assert b"stop it" in refused.stderr


def test_nothing_is_removed_unasked(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with NodeProcess(data):
        pass

    assert b"--yes" in tidegate("forget", "--data", data, "--user", ALICE, "--tenant", TENANT).stderr
    assert b"nobody's" in tidegate("forget", "--data", data, "--user", "", "--tenant", TENANT, "--yes").stderr
    assert b"ends in .md" in tidegate("forget", "-d", data, "--user", ALICE, "-t", TENANT, "--out", tmp_path / "x.txt").stderr
