"""Sealed texts over HTTP: a service with a key, a node without one, and nothing to be read in between."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import urllib3
from node_process import NodeProcess, eventually, tidegate
from tidegate.producers.connect import connect
from tidegate.producers.key_source import FileKeys, FolderKeys
from tidegate.producers.keyring import KeyRing
from tidegate.producers.sealing import seal, unseal
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.content import ContentEvent, Texts, decode_content
from tidegate.schemas.envelope import CONTENT_SCHEMA, Envelope
from tidegate.schemas.topics import CALLS, CONTENT

CANARY = "Rosa-Martinez-MRN-4711"
RING = KeyRing.made()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    folder = tmp_path_factory.mktemp("content") / "data"
    with NodeProcess(folder, TIDEGATE_GUARD="false", TIDEGATE_TOKEN="open-sesame", TIDEGATE_MAX_BODY_BYTES="200000") as running:
        yield running


def content(call_id: str, **fields: Any) -> dict[str, Any]:
    (key,) = RING.keys
    sealed = {"mode": "sealed", "key_id": key.key_id, "sealed": seal(Texts(prompt=CANARY), call_id, key)}
    return {"event": "content", "call_id": call_id, "started_at": datetime.now(UTC).isoformat(), **sealed, **fields}


def sent(node: NodeProcess, body: Any, **headers: str) -> urllib3.BaseHTTPResponse:
    return node.post(body, {"Authorization": "Bearer open-sesame", **headers}, "/v1/content")


def envelopes(folder: Path) -> list[Envelope]:
    with SqliteLog(folder) as log:
        records = log.read(CONTENT.name, 0, 0)
        return [Envelope.from_record(record.headers, record.value, frozenset({CONTENT_SCHEMA})) for record in records]


def events(folder: Path, producer: str) -> list[ContentEvent]:
    return [decode_content(line) for found in envelopes(folder) if found.producer == producer for line in found.lines()]


def seen_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]


def test_a_service_with_a_key_sends_sealed_texts_to_a_node_without_one(node: NodeProcess, tmp_path: Path) -> None:
    ring = tmp_path / "ring.json"
    made = tidegate("keys", "make", "st-anne", "--file", ring)

    with connect(node.url, token="open-sesame", key_file=ring, spool_dir=tmp_path / "spool", gate=False) as tide:
        with tide.call(model="gpt-4o", tenant="st-anne", call_id="c1") as call:
            call.ask(CANARY, context=[f"{CANARY} is known"])
            call.answer({"choices": [{"message": {"content": f"Yes, {CANARY}."}}], "usage": {"total_tokens": 3}})
        flushed = tide.flush(20)

    assert made.returncode == 0, made.stderr
    assert flushed
    (found,) = events(node.data_dir, f"{tide.producer}-content")
    assert found.tenant == "st-anne"
    assert unseal(found, FileKeys(ring)) == Texts(prompt=CANARY, response=f"Yes, {CANARY}.", context=[f"{CANARY} is known"])
    assert not (node.data_dir / "keys.json").exists(), "the node has no key, and makes none"
    assert seen_in(node.data_dir) + seen_in(tmp_path) == []
    assert CANARY not in node.output.read_text()


def test_a_body_is_numbered_by_its_sender_by_its_key_or_by_the_node(node: NodeProcess) -> None:
    one, two, three = (json.dumps(content(call_id)).encode() for call_id in ("a", "b", "c"))

    numbered = {"X-Tidegate-Producer": "own-content", "X-Tidegate-Seq": "4", "X-Tidegate-Count": "2"}
    answers = [
        sent(node, gzip.compress(one + b"\n" + two), **numbered, **{"Content-Encoding": "gzip"}),
        sent(node, three, **{"Idempotency-Key": "k1", "Content-Type": "application/json"}),
        sent(node, one),
        sent(node, one),
    ]

    assert [(answer.status, json.loads(answer.data)["accepted"]) for answer in answers] == [
        (202, 2),
        (202, 1),
        (202, 1),
        (202, 1),
    ]
    own, keyed, first, second = envelopes(node.data_dir)[-4:]
    assert (own.producer, own.seq, own.count, own.lines()) == ("own-content", 4, 2, [one, two])
    assert keyed.seq == 0
    assert keyed.producer not in (own.producer, first.producer)
    assert (first.producer, first.seq + 1) == (second.producer, second.seq)


@pytest.mark.parametrize(
    "line",
    [
        content("x") | {"prompt": CANARY},
        content("x") | {"sealed": f"{CANARY} in the clear"},
        content("x") | {"sealed": "Um9zYQ=="},
        content("x") | {"mode": CANARY},
        content("x") | {"key_id": None},
        {"event": "response", "call_id": CANARY, "started_at": "2026-11-02T08:00:00Z", "request_model": "m"},
        [CANARY],
        CANARY,
    ],
    ids=range(8),
)
def test_what_is_not_sealed_is_refused_and_nothing_of_it_is_kept_or_repeated(node: NodeProcess, line: Any) -> None:
    before = len(envelopes(node.data_dir))

    answer = sent(node, b"\n".join([json.dumps(content("good")).encode(), json.dumps(line).encode()]))

    assert answer.status == 422
    (problem,) = json.loads(answer.data)["errors"]
    assert problem["line"] == 2
    assert CANARY.encode() not in answer.data
    assert len(envelopes(node.data_dir)) == before
    with SqliteLog(node.data_dir) as log:
        assert all(CANARY.encode() not in record.value for record in log.read(CALLS.name, 0, 0))


def test_bodies_that_cannot_be_read_leave_no_trace(node: NodeProcess) -> None:
    before = len(envelopes(node.data_dir))
    large = json.dumps(content("x", sealed="A" * 300_000)).encode()

    answers = [
        sent(node, large),
        sent(node, b"\x1f\x8bnot gzip", **{"Content-Encoding": "gzip"}),
        sent(node, CANARY.encode(), **{"Content-Type": "image/png"}),
        sent(node, b"{}", **{"X-Tidegate-Producer": "p", "X-Tidegate-Seq": "0", "X-Tidegate-Schema": "calls/1"}),
        node.post([content("x")], path="/v1/content"),
    ]

    assert [answer.status for answer in answers] == [413, 400, 415, 400, 401]
    assert len(envelopes(node.data_dir)) == before


def test_content_at_the_door_for_calls_is_refused_there(node: NodeProcess) -> None:
    answer = node.post([content("x")], {"Authorization": "Bearer open-sesame"})

    assert (answer.status, json.loads(answer.data)["rejected"]) == (202, 1)


def test_content_that_nobody_has_judged_closes_its_own_door_and_no_other(tmp_path: Path) -> None:
    call = {"event": "response", "call_id": "c", "started_at": "2026-11-02T08:00:00Z", "request_model": "m"}

    with NodeProcess(tmp_path / "data", TIDEGATE_GUARD="false", TIDEGATE_MAX_BACKLOG_BYTES="1000") as node:
        answer = eventually(lambda: node.post([content("c")] * 5, path="/v1/content"), lambda answer: answer.status == 503)
        calls = node.post([call])

    assert (answer.status, calls.status) == (503, 202)
    assert int(answer.headers["Retry-After"]) >= 1


def test_a_node_of_its_own_folder_opens_what_services_there_have_sealed(tmp_path: Path) -> None:
    folder = tmp_path / "data"

    with (
        NodeProcess(folder, TIDEGATE_GUARD="false"),
        connect(str(folder), gate=False) as tide,
        tide.call(model="gpt-4o") as call,
    ):
        call.ask(CANARY)

    (found,) = events(folder, f"{tide.producer}-content")
    assert unseal(found, FolderKeys(folder)) == Texts(prompt=CANARY)
    assert seen_in(folder) == []
