"""What a patient said is nowhere: not in the log, the store, a dead letter, an answer, a metric or a line of output.

Canaries are planted wherever text can come in, and then every byte is searched: of the data folder and the spool while
the node runs and after it has stopped, of what the processes wrote, of what the doors answered, and of every column of
the store, whose files are compressed.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from node_process import NodeProcess, rows, tidegate
from support import line, response

STEM = "Zxqvarda"
# As it is, as ClickHouse or a log might fold it, and as base64 would hide it, wherever in three bytes it begins.
_TRACES = [
    STEM.encode(),
    STEM.encode("utf-16-le"),
    "".join(f"\\u{ord(char):04x}" for char in STEM).encode(),
    *(base64.b64encode(b"." * shift + STEM.encode())[4:10] for shift in (1, 2, 3)),
]


def canary(place: str) -> str:
    return f"{STEM} Martinez, MRN 4711, said at the {place}"


def logged(**fields: Any) -> dict[str, Any]:
    """A call as a service logs it, its texts full of canaries."""
    return {
        "id": "r-1",
        "provider": "openai",
        "request": {
            "model": "gpt-4o",
            "messages": [
                {"role": "system", "content": canary("system prompt")},
                {"role": "user", "content": [{"type": "text", "text": canary("prompt")}]},
            ],
            "tools": [{"type": "function", "function": {"name": "look_up", "description": canary("tool")}}],
            "stop": [canary("stop sequence")],
        },
        "response": {
            "id": "chatcmpl-1",
            "created": 1_793_606_409,
            "model": "gpt-4o-2024-08-06",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": canary("answer"), "refusal": canary("refusal")},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 29, "completion_tokens": 180},
        },
        "started_at": "2026-11-02T08:00:09.778Z",
        "retrieved_context": [
            canary("context"),
            {"id": canary("chunk id"), "text": canary("chunk"), "source": canary("source")},
        ],
        "tags": {"tenant": "harbor-health", "note": canary("note"), "long": canary("tag") * 4, canary("tag name"): "x"},
        canary("field name"): canary("unknown field"),
    } | fields


LINES = [
    line(logged()),
    line(logged(response=None, error={"type": "server_error", "message": canary("error message"), "param": canary("param")})),
    line(logged(response=None, error=canary("error"))),
    line(logged(started_at=canary("time"))),
    line(logged(provider=canary("provider") * 10)),
    line(logged(request={"model": canary("model") * 10})),
    line(logged(request={"model": "gpt-4o", "temperature": canary("temperature"), "max_tokens": canary("max")})),
    line(logged(tags=canary("tags"))),
    line(logged(usage={"input_tokens": canary("usage")}, response={"usage": {"prompt_tokens": canary("usage")}})),
    line(response(patient=canary("unknown native field"))),
    line(response(**{canary("native field name"): 1})),
    line(response(labels={"note": canary("label") * 10})),
    line(response(labels={canary("label name"): "x"})),
    line(response(request_model=canary("native model") * 10)),
    line(response(event=canary("event"))),
    line(response(started_at=canary("native time"))),
    line(response(error_type=canary("error type"))),
    line(response(finish_reason=canary("finish reason"))),
    line(response(input_tokens=None, output_tokens=None, usage={"input_tokens": 1, "note": canary("raw usage")})),
    line(response(retrieval=[{"chunk_id": "c", "text": canary("retrieved text")}])),
    line(response(latency_s=canary("latency"))),
    b'{"event": "response", "prompt": "%b' % canary("torn line").encode(),
    canary("no JSON at all").encode(),
    json.dumps(canary("a string")).encode(),
    json.dumps([canary("a list")]).encode(),
    canary("ISO 8859-1, für M").encode("latin-1"),
    canary("UTF-16").encode("utf-16-le").replace(b"\n", b""),
    b'{"' + canary("depth").encode() + b'":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    line(response(tenant=canary("long line") * 4_000)),
    b'{"x": "' + canary("oversize line").encode() + b"y" * 9_000_000 + b'"}',
]


def traces(content: bytes) -> list[bytes]:
    return [trace for trace in _TRACES if trace in content]


def found_on_disk(*folders: Path) -> Iterator[tuple[Path, list[bytes]]]:
    for folder in folders:
        for path in folder.rglob("*"):
            # The store moves its parts while it is looked at.
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and (found := traces(path.name.encode() + path.read_bytes())):
                    yield path, found


def raw_answer(node: NodeProcess, request: bytes) -> bytes:
    where = urlsplit(node.url)
    with socket.create_connection((where.hostname, where.port), timeout=20) as connection:
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65_536):
            answer += chunk
    return answer


def posted(node: NodeProcess) -> Iterator[bytes]:
    """Everything that the doors answer to canaries in bodies, headers and addresses."""
    body = b"\n".join(one for one in LINES if len(one) < 1_000_000)
    array = b"[%b]" % b",".join(one for one in LINES[:4])
    attempts: list[tuple[bytes, dict[str, str]]] = [
        (body, {}),
        (gzip.compress(body), {"Content-Encoding": "gzip"}),
        (array, {"Content-Type": "application/json"}),
        (canary("JSON body").encode(), {"Content-Type": "application/json"}),
        (canary("gzip body").encode(), {"Content-Encoding": "gzip"}),
        (gzip.compress(canary("cut short").encode() * 100)[:-10], {"Content-Encoding": "gzip"}),
        (canary("huge body").encode() * 20_000, {}),
        (b"{}", {"Content-Type": f"text/{canary('content type')}"}),
        (b"{}", {"Content-Type": f"application/json; charset={canary('charset')}"}),
        (b"{}", {"Content-Encoding": canary("encoding")}),
        (b"{}", {"X-Tidegate-Producer": canary("producer"), "X-Tidegate-Seq": "0"}),
        (b"{}", {"X-Tidegate-Producer": "p", "X-Tidegate-Seq": canary("seq")}),
        (b"{}", {"X-Tidegate-Producer": "p", "X-Tidegate-Seq": "0", "X-Tidegate-Schema": canary("schema")}),
        (b"{}", {"Idempotency-Key": canary("key")}),
        (b"{}", {"User-Agent": canary("agent"), "Cookie": canary("cookie"), "Authorization": canary("authorization")}),
    ]
    for content, headers in attempts:
        answer = node.post(content, headers)
        yield answer.data + str(answer.headers).encode()
    for path in ("/v1/events", "/v1/status", "/metrics", "/readyz", "/", "/nowhere"):
        yield node.get(f"{path}?patient={STEM}").data
        yield node.get(f"{path}/{STEM}").data
    yield raw_answer(node, f"{STEM} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    yield raw_answer(node, f"POST /v1/events HTTP/1.1\r\nContent-Length: {STEM}\r\n\r\n".encode())
    yield raw_answer(node, f"POST /v1/query HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n{STEM}".encode())


def asked(node: NodeProcess) -> Iterator[bytes]:
    """Answers to questions with canaries in them; those that are refused are told, in their own words, to the asker only."""
    for sql, told in (
        ("SELECT count() AS n FROM calls WHERE tenant = '{}'", True),
        ("SELECT '{}' FROM", False),
        ("SELECT throwIf(1, '{}')", False),
        ("SELECT toInt32('{}')", False),
        ("SELECT `{}` FROM calls", False),
        ("SELECT * FROM '{}'", False),
        ("INSERT INTO calls (tenant) VALUES ('{}')", False),
    ):
        answer = node.query(sql.format(canary("statement")))
        assert (answer.status == 200) is told, answer.data
        yield answer.data if told else b""
    assert node.query("SELECT 1", form=STEM).status == 400


def every_column(data_dir: Path) -> bytes:
    """All of the store, table by table, as text."""
    return b"".join(
        tidegate("query", "--data", data_dir, "--format", "csv", f"SELECT * FROM {row['name']}").stdout
        for row in rows(data_dir, "SELECT name FROM system.tables WHERE database = 'tidegate' AND engine LIKE '%MergeTree'")
    )


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "calls.jsonl"
    path.write_bytes(b"\n".join(LINES) + b"\n" + canary("unfinished last line").encode())
    return path


def test_nothing_that_was_said_is_left_anywhere(tmp_path: Path, log: Path) -> None:
    data, state = tmp_path / "data", tmp_path / "state"
    said: list[bytes] = []

    with NodeProcess(data, XDG_STATE_HOME=str(state), TIDEGATE_MAX_BODY_BYTES="500000") as node:
        for arguments in (("--data", data), ("--to", node.url), ("--data", data, "--producer", "again", "--final")):
            replayed = tidegate("replay", log, *arguments, XDG_STATE_HOME=str(state), timeout_s=120)
            assert f"{len(LINES) + ('--final' in arguments)} lines read" in replayed.stdout.decode(), replayed
            said += [replayed.stdout, replayed.stderr]
        said += posted(node)
        said += asked(node)
        said += [json.dumps(node.settled()).encode(), node.get("/metrics").data, node.get("/").data]
        running = list(found_on_disk(data, state))
        totals = node.status()["totals"]

    assert totals["responses"] == 6, "hardly anything was taken: the test tests nothing"
    assert totals["rejected"] > 100, "hardly anything was refused: the test tests nothing"
    assert not running
    assert not list(found_on_disk(data, state))
    assert not traces(node.output.read_bytes()), node.output.read_text()
    assert not [answer for answer in said if traces(answer)]
    stored = every_column(data)
    assert b"harbor-health" in stored
    assert not traces(stored)


def test_nothing_that_was_said_is_left_by_a_replay_without_a_node(tmp_path: Path, log: Path) -> None:
    data = tmp_path / "data"

    replayed = tidegate("replay", log, "--data", data)

    assert replayed.returncode == 0
    assert not traces(replayed.stdout + replayed.stderr)
    assert not list(found_on_disk(data))
    assert not traces(every_column(data))


def test_the_search_finds_what_there_is(tmp_path: Path) -> None:
    for number, hidden in enumerate(
        [
            canary("plain").encode(),
            canary("wide").encode("utf-16-le"),
            base64.b64encode(b"ab" + canary("base64").encode()),
            "".join(f"\\u{ord(char):04x}" for char in canary("escaped")).encode(),
        ]
    ):
        (tmp_path / str(number)).write_bytes(b"\x00" * number + hidden)

    assert {path.name for path, _ in found_on_disk(tmp_path)} == {"0", "1", "2", "3"}
