"""A canary in an answer becomes a finding: in the pipeline, by setting and scope, and in `tidegate score`. Nothing tells it."""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path

import orjson
import pytest
from node_process import tidegate
from pydantic import SecretStr
from tidegate.processors.embedded.guardrails_engine import GuardrailsEngine
from tidegate.producers.key_source import FolderKeys
from tidegate.producers.local_log import LocalLog
from tidegate.producers.sealing import seal
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.content import Texts
from tidegate.schemas.envelope import CONTENT_SCHEMA, Envelope
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import CALLS

pytest.importorskip("tokenizers", reason="the extra `guardrails` is not installed")

BIRD = "heron-7731-blue"
OTHER = "plover-0042-grey"


def content(keys: FolderKeys, call_id: str, response: str, **scope: str) -> bytes:
    key = keys.sealing(scope.get("tenant"))
    event = {
        "event": "content",
        "call_id": call_id,
        "started_at": "2026-11-02T08:00:00Z",
        "mode": "sealed",
        "key_id": key.key_id,
        "sealed": seal(Texts(prompt="Where is it kept?", response=response), call_id, key),
    } | scope
    return orjson.dumps(event)


def test_an_answer_with_a_canary_of_its_scope_is_a_leak_in_the_pipeline(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with SqliteLog(data, partitions=1, fsync="normal"):
        keys = FolderKeys(data)
    lines = [
        content(keys, "a", f"The word is {BIRD}.", tenant="harbor"),
        content(keys, "b", f"The word is {OTHER}.", tenant="harbor", service="triage"),
        content(keys, "c", f"The word is {OTHER}.", tenant="harbor", service="billing"),
    ]
    with closing(LocalLog(data, partitions=1, fsync="normal")) as log:
        log.append([Envelope.of("svc", 0, lines, schema=CONTENT_SCHEMA)])
    canaries = SecretStr(json.dumps({"*": [BIRD], "service=triage": [OTHER]}))
    settings = Settings(guard_detectors=("injection",), guard_canaries=canaries)

    with closing(GuardrailsEngine(data, settings, keys)) as one:
        deadline = time.monotonic() + 60
        while one.waits() and time.monotonic() < deadline:
            one.run_once(0.1)

    with SqliteLog(data) as log:
        events = [orjson.loads(line) for record in log.read(CALLS.name, 0, 0) for line in record.value.split(b"\n")]
    assert {event["call_id"]: [(one["type"], one["start"], one["end"]) for one in event["findings"]] for event in events} == {
        "a": [("CANARY_LEAK", 12, 12 + len(BIRD))],
        "b": [("CANARY_LEAK", 12, 12 + len(OTHER))],
        "c": [],
    }
    kept = b"".join(file.read_bytes() for file in data.rglob("*") if file.is_file())
    assert BIRD.encode() not in kept
    assert OTHER.encode() not in kept


def test_a_file_of_canaries_counts_for_every_line_that_is_scored(tmp_path: Path) -> None:
    calls = tmp_path / "calls.jsonl"
    calls.write_text(f'{{"id": "a", "response": "It is {BIRD}."}}\n{{"id": "b", "response": "I cannot say."}}\n')
    canaries = tmp_path / "canaries"
    canaries.write_text(f"{BIRD}\n")

    done = tidegate("score", calls, "--detectors", "injection", "--canary-file", canaries, timeout_s=180)

    found = [[one["type"] for one in json.loads(line)["findings"]] for line in done.stdout.splitlines()]
    assert (done.returncode, found) == (0, [["CANARY_LEAK"], []])
    assert BIRD.encode() not in done.stdout + done.stderr


def test_a_file_of_canaries_with_a_mistake_is_refused_and_not_quoted(tmp_path: Path) -> None:
    calls = tmp_path / "calls.jsonl"
    calls.write_text('{"id": "a", "response": "I cannot say."}\n')
    canaries = tmp_path / "canaries"
    canaries.write_text(f"{BIRD}\nbird\n")

    done = tidegate("score", calls, "--detectors", "injection", "--canary-file", canaries, timeout_s=180)

    assert done.returncode == 2
    assert b"canary 2" in done.stderr
    assert b"heron" not in done.stderr
