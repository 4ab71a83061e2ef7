"""The node's doors over HTTP, knocked at from outside: a real node in a process of its own."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import urllib3
from node_process import NodeProcess, eventually, tidegate
from prometheus_client.parser import text_string_to_metric_families
from support import envelope, response
from tidegate.producers.local_log import LocalLog

BODY_LIMIT = 200_000


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    folder = tmp_path_factory.mktemp("node") / "data"
    with NodeProcess(folder, TIDEGATE_MAX_BODY_BYTES=str(BODY_LIMIT)) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    folder = tmp_path_factory.mktemp("guarded") / "data"
    with NodeProcess(folder, TIDEGATE_TOKEN="open-sesame") as running:
        yield running


def calls_of(node: NodeProcess, tenant: str) -> list[str]:
    """The ids of a tenant's calls once everything is in the store."""
    node.settled()
    return [row["call_id"] for row in node.rows(f"SELECT call_id FROM calls WHERE tenant = '{tenant}' ORDER BY call_id")]


def events(tenant: str, count: int, start: int = 0) -> list[dict[str, Any]]:
    return [response(f"{number:04}", tenant=tenant) for number in range(start, start + count)]


def told(answer: urllib3.BaseHTTPResponse) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer.data)
    return found


# ---- what comes in


def test_accepted_and_rejected_lines_are_counted_and_each_bad_line_is_named(node: NodeProcess) -> None:
    body = b"\n".join([json.dumps(event).encode() for event in events("counted", 2)] + [b"", b"junk", b"{}"]) + b"\n"

    answer = node.post(body, {"Content-Type": "application/x-ndjson"})

    assert answer.status == 202
    assert (told(answer)["accepted"], told(answer)["rejected"]) == (2, 2)
    assert [error["line"] for error in told(answer)["errors"]] == [4, 5]
    assert calls_of(node, "counted") == ["0000", "0001"]
    dead = node.rows(f"SELECT line, stage, source FROM dead_letters WHERE sha256 = '{hashlib.sha256(b'junk').hexdigest()}'")
    assert dead == [{"line": 4, "stage": "edge", "source": "http"}]


def test_json_and_gzip_in_members_are_taken_whole(node: NodeProcess) -> None:
    three = events("forms", 6)
    packed = b"".join(gzip.compress(json.dumps(event).encode() + b"\n") for event in three[3:])

    answers = [
        node.post(json.dumps(three[0], indent=2).encode(), {"Content-Type": "application/json"}),
        node.post(json.dumps(three[1:3], indent=2).encode(), {"Content-Type": "application/json; charset=utf-8"}),
        node.post(packed, {"Content-Encoding": "gzip"}),
    ]

    assert [(answer.status, told(answer)["accepted"]) for answer in answers] == [(202, 1), (202, 2), (202, 3)]
    assert len(calls_of(node, "forms")) == 6


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (400, b"{torn", {"Content-Type": "application/json"}),
        (400, b"not gzip", {"Content-Encoding": "gzip"}),
        (400, gzip.compress(b"{}" * 1000, mtime=0)[:-9], {"Content-Encoding": "gzip"}),
        (400, b"no-number", {"X-Tidegate-Producer": "p", "X-Tidegate-Seq": "-1"}),
        (400, b"a\nb", {"X-Tidegate-Producer": "p", "X-Tidegate-Seq": "0", "X-Tidegate-Count": "3"}),
        (400, b"x", {"X-Tidegate-Producer": "no spaces", "X-Tidegate-Seq": "0"}),
        (400, b"empty-key", {"Idempotency-Key": " "}),
        (400, b"verdicts", {"X-Tidegate-Producer": "guardrails:svc", "X-Tidegate-Seq": str(2**61)}),
        (400, b"keyed-verdicts", {"X-Tidegate-Producer": "idempotency-key:guardrails:svc", "X-Tidegate-Seq": "0"}),
        (413, b"y" * (BODY_LIMIT + 1), {}),
        (413, gzip.compress(b"\n" * (BODY_LIMIT * 4 + 1), mtime=0), {"Content-Encoding": "gzip"}),
        (413, b"\n" * 150_000, {}),
        (415, b"<xml/>", {"Content-Type": "text/xml"}),
        (415, b"brotli", {"Content-Encoding": "br"}),
        (415, b'"utf-7"', {"Content-Type": "application/json; charset=utf-7"}),
    ],
)
def test_a_body_refused_as_a_whole_leaves_a_dead_letter_with_its_fingerprint(
    node: NodeProcess, status: int, body: bytes, headers: dict[str, str]
) -> None:
    answer = node.post(body, headers)

    assert answer.status == status, answer.data
    node.settled()
    dead = node.rows(f"SELECT size_bytes, reason FROM dead_letters WHERE sha256 = '{hashlib.sha256(body).hexdigest()}'")
    assert dead == [{"size_bytes": len(body), "reason": told(answer)["error"]}]


def test_a_request_repeated_under_its_idempotency_key_counts_once(node: NodeProcess) -> None:
    sent = [node.post(events("keyed", 3), {"Idempotency-Key": "key-1"}) for _ in range(3)]
    other = node.post(events("keyed", 2, start=3), {"Idempotency-Key": "key-2"})

    assert [answer.status for answer in [*sent, other]] == [202] * 4
    assert calls_of(node, "keyed") == ["0000", "0001", "0002", "0003", "0004"]


def test_a_producers_retries_and_overlaps_count_once_and_its_gaps_are_told(node: NodeProcess) -> None:
    before = node.settled()["totals"]
    every = events("numbered", 12)

    for first, end in ((0, 4), (0, 4), (2, 6), (3, 5), (0, 8), (10, 12)):
        headers = {"X-Tidegate-Producer": "service-1", "X-Tidegate-Seq": str(first), "X-Tidegate-Dropped": "1"}
        assert node.post(every[first:end], headers).status == 202

    assert calls_of(node, "numbered") == [f"{number:04}" for number in (*range(8), 10, 11)]
    after = node.status()["totals"]
    grown = {name: after.get(name, 0) - before.get(name, 0) for name in ("duplicates", "lost", "dropped", "responses")}
    assert grown == {"duplicates": 14, "lost": 2, "dropped": 1, "responses": 10}


def test_posts_and_queries_from_many_threads_disturb_no_count(node: NodeProcess) -> None:
    def post(worker: int) -> int:
        return sum(
            told(node.post(events("crowd", 20, start=1_000 * worker + 20 * turn), {"Idempotency-Key": f"c-{worker}-{turn}"}))[
                "accepted"
            ]
            for turn in range(10)
        )

    def ask(_: int) -> int:
        return max(int(node.rows("SELECT count() AS n FROM calls WHERE tenant = 'crowd'")[0]["n"]) for _ in range(8))

    with ThreadPoolExecutor(8) as pool:
        posted = list(pool.map(post, range(4)))
        seen = list(pool.map(ask, range(4)))

    assert sum(posted) == 800
    assert max(seen) <= 800
    assert len(set(calls_of(node, "crowd"))) == 800


def test_a_node_that_has_keys_leaves_no_core(node: NodeProcess) -> None:
    most = resource.prlimit(node.process.pid, resource.RLIMIT_CORE)

    assert most == (0, 0)


def raw(node: NodeProcess) -> socket.socket:
    where = urlsplit(node.url)
    return socket.create_connection((where.hostname, where.port), timeout=20)


def test_a_client_that_goes_away_amid_its_body_loses_only_what_it_was_not_told_of(node: NodeProcess) -> None:
    assert node.post(events("gone", 2)).status == 202
    whole = b"\n".join(json.dumps(event).encode() for event in events("gone", 5, start=2))

    with raw(node) as connection:
        connection.sendall(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(whole) + whole[:-20])
    with raw(node) as connection:
        connection.sendall(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{")
    assert node.post(events("gone", 1, start=9)).status == 202

    assert calls_of(node, "gone") == ["0000", "0001", "0009"]


def test_slow_and_huge_bodies_keep_nobody_waiting(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "data") as node, contextlib.ExitStack() as open_connections:
        for _ in range(30):  # each sends its head, and then nothing
            slow = open_connections.enter_context(raw(node))
            slow.sendall(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        huge = b"x\n" * 90_000  # costs the judge most a byte
        done = threading.Event()

        def post_huge() -> int:
            status = node.post(gzip.compress(huge), {"Content-Encoding": "gzip"}).status
            done.set()
            return status

        with ThreadPoolExecutor(1) as pool:
            posting = pool.submit(post_huge)
            waits = []
            while not done.is_set():
                started = time.monotonic()
                assert node.get("/healthz").status == 200
                assert node.post(events("quick", 1)).status == 202
                waits.append(time.monotonic() - started)
            assert posting.result() == 202

        # Not a benchmark: what is told apart is "beside" from "behind".
        assert len(waits) >= 3
        assert node.settled()["totals"]["rejected"] == 90_000


# ---- who may


def test_with_a_token_nothing_is_taken_or_told_without_it(guarded: NodeProcess) -> None:
    big = events("guarded", 20_000)
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic open-sesame"}, {"Authorization": "Bearer"}):
        assert guarded.post(events("guarded", 1), headers).status == 401
        assert guarded.post(b'{"sql": "SELECT 1"}', headers, "/v1/query").status == 401
        for path in ("/v1/status", "/v1/signals", "/metrics"):
            assert guarded.http.request("GET", guarded.url + path, headers=headers).status == 401
    # the answer is heard even where the body is large
    assert guarded.post(big, {"Authorization": "Bearer wrong"}).status == 401

    for token in ("open-sesame", guarded.token):
        headers = {"Authorization": f"bearer {token}"}
        assert guarded.post(events("guarded", 1), headers).status == 202
        assert guarded.post(b'{"sql": "SELECT 1"}', headers, "/v1/query").status == 200
        for path in ("/v1/status", "/v1/signals", "/metrics"):
            assert guarded.get(path, token=token).status == 200
    assert guarded.get("/healthz").status == guarded.get("/readyz").status == 200
    assert len(calls_of(guarded, "guarded")) == 2


def test_without_a_token_events_are_taken_and_answers_still_need_the_nodes_own(node: NodeProcess) -> None:
    assert node.post(events("open", 1)).status == 202
    for token in ("", "wrong", node.token + "x", "ü"):
        assert node.query("SELECT 1", token=token.encode().decode("latin-1")).status == 401
    assert node.get("/v1/status").status == 401
    assert node.query("SELECT 1").status == 200


@pytest.mark.parametrize(
    "strange",
    [
        pytest.param({"Host": "rebound.example"}, id="a page whose name means this machine"),
        pytest.param({"X-Forwarded-For": "203.0.113.7"}, id="a proxy"),
        pytest.param({"Forwarded": "for=203.0.113.7"}, id="a proxy of the standard"),
        pytest.param({"Host": "["}, id="no name at all"),
    ],
)
def test_without_a_token_nobody_enters_from_elsewhere(node: NodeProcess, strange: dict[str, str]) -> None:
    for path in ("/v1/events", "/v1/content"):
        assert node.post(events("rebound", 1), strange, path).status == 401
    for path in ("/v1/signals", "/metrics"):
        answer = node.http.request("GET", node.url + path, headers=strange)
        assert (answer.status, b"TIDEGATE_TOKEN" in answer.data) == (401, True)
    assert node.http.request("GET", node.url + "/console/definitions", headers=strange).status == 401
    owner = strange | {"Authorization": f"Bearer {node.token}"}
    assert node.http.request("GET", node.url + "/metrics", headers=owner).status == 200
    assert calls_of(node, "rebound") == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_without_a_token_the_machine_itself_enters_by_any_of_its_names(node: NodeProcess, host: str) -> None:
    port = node.url.rpartition(":")[2]

    for path in ("/metrics", "/v1/signals"):
        assert node.http.request("GET", node.url + path, headers={"Host": f"{host}:{port}"}).status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "localhost.example"])
def test_a_node_does_not_listen_beyond_this_machine_without_a_token(tmp_path: Path, host: str) -> None:
    refused = tidegate("up", "--data", tmp_path / "data", "--host", host, "--port", "0")

    assert refused.returncode == 2
    assert b"TIDEGATE_TOKEN" in refused.stderr
    assert b"Traceback" not in refused.stderr
    assert not (tmp_path / "data").exists()


# ---- what may be asked


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO calls (call_id) VALUES ('x')",
        "CREATE TABLE t (a Int8) ENGINE = Memory",
        "DROP TABLE calls",
        "ALTER TABLE calls DELETE WHERE 1",
        "TRUNCATE TABLE calls",
        "OPTIMIZE TABLE calls FINAL",
        "SET readonly = 0",
        "SELECT 1 SETTINGS readonly = 0",
        "SYSTEM FLUSH LOGS",
        "SELECT * FROM file('{folder}/node.json', 'LineAsString')",
        "SELECT file('{folder}/node.json')",
        "SELECT * FROM '{folder}/node.json'",
        "DESCRIBE file('{folder}/node.json', 'LineAsString')",
        "SELECT * FROM url('{url}/metrics', 'LineAsString')",
        "SELECT * FROM remote('127.0.0.1', 'system.one')",
        "SELECT * FROM sqlite('{folder}/log.sqlite', 'producers')",
        "SELECT * FROM executable('id', 'LineAsString', 'a String')",
        "SELECT 1 INTO OUTFILE '{folder}/out.txt'",
        "SELECT 1; SELECT 2",
        "SELECT 1 FORMAT JSON",
        "SELECT * FROM numbers(3000000)",
        "SELEC 1",
        "SELECT nobody FROM calls",
        "",
    ],
)
def test_a_statement_that_writes_reads_elsewhere_or_is_wrong_is_refused_in_one_line(node: NodeProcess, sql: str) -> None:
    answer = node.query(sql.format(folder=node.data_dir.resolve(), url=node.url))

    assert answer.status == 400, answer.data
    error = told(answer)["error"]
    assert error
    assert "\n" not in error
    assert node.token not in error
    assert not (node.data_dir / "out.txt").exists()


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"null", b'"SELECT 1"', b'{"sql": 1}', b'{"sql": "SELECT 1", "format": 5}', b"\xff", b"[" * 9_999],
)
def test_a_question_that_is_none_is_told_its_form(node: NodeProcess, body: bytes) -> None:
    answer = node.post(body, {"Authorization": f"Bearer {node.token}"}, "/v1/query")

    assert answer.status == 400
    assert "SELECT" in told(answer)["error"]


def test_a_question_of_megabytes_is_refused(node: NodeProcess) -> None:
    assert node.query("SELECT " + "1," * 2_000_000 + "1").status == 413


def test_percent_signs_semicolons_and_comments_are_part_of_a_question(node: NodeProcess) -> None:
    answer = node.rows("SELECT '100%' AS share, 'a_b' LIKE 'a%' AS alike -- why not\n;")

    assert answer == [{"share": "100%", "alike": 1}]


# ---- what is seen


def samples(text: bytes) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("outcome", "")): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_metrics_parse_and_say_what_the_status_says(node: NodeProcess) -> None:
    node.post(b"junk\n" + json.dumps(response()).encode())
    totals = node.settled()["totals"]

    found = samples(node.get("/metrics").data)

    assert totals["responses"] >= 1
    for outcome in ("responses", "requests", "rejected", "dead_letters", "duplicates", "lost", "dropped", "bad_envelopes"):
        assert found["tidegate_events_total", outcome] == totals.get(outcome, 0)
    assert found["tidegate_http_events_total", "accepted"] >= 1
    assert found["tidegate_meter_lag_records", ""] == 0
    assert found["tidegate_store_away", ""] == found["tidegate_quarantine_pushed_out_records_total", ""] == 0


def test_a_refused_body_is_seen_in_the_metrics(node: NodeProcess) -> None:
    name = 'tidegate_http_refused_total{status="415"}'
    node.post(b"x", {"Content-Type": "text/css"})

    assert name in node.get("/metrics").data.decode()


def test_a_running_node_is_alive_and_ready(node: NodeProcess) -> None:
    assert (node.get("/healthz").status, node.get("/healthz").data) == (200, b"ok\n")
    assert (node.get("/readyz").status, node.get("/readyz").data) == (200, b"ready\n")
    assert node.get("/nowhere").status == 404
    assert node.get("/v1/events").status == 405


# ---- when it is too much


def test_a_node_that_is_behind_says_when_to_come_again_and_takes_events_when_it_has_caught_up(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    log = LocalLog(folder, fsync="normal")
    log.append([envelope("early", number, [response(f"{number:05}", tenant="early")]) for number in range(12_000)])
    log.close()

    # One record a flush: it takes some seconds to work that off.
    with NodeProcess(folder, TIDEGATE_MAX_BACKLOG_BYTES="1000", TIDEGATE_FLUSH_BYTES="1") as node:
        behind = eventually(lambda: node.post(events("late", 1)), lambda answer: answer.status == 503)
        ready = node.get("/readyz")
        refused = node.post(events("late", 20_000))
        assert (behind.status, refused.status) == (503, 503)
        assert int(behind.headers["Retry-After"]) >= 1
        assert (ready.status, ready.data) == (503, b"behind\n")

        taken = eventually(lambda: node.post(events("late", 1)), lambda answer: answer.status == 202, within_s=60)

        assert taken.status == 202
        assert eventually(lambda: node.get("/readyz").status, lambda status: status == 200) == 200
        assert len(calls_of(node, "early")) == 12_000


def test_a_node_that_is_told_to_stop_while_bodies_are_under_way_keeps_all_it_said_202_to(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    accepted: list[str] = []
    with NodeProcess(folder) as node:

        def post(worker: int) -> None:
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                for turn in range(10_000):
                    tag = f"{worker}-{turn}"
                    if node.post([response(tag, tenant="stopped")]).status == 202:
                        accepted.append(tag)

        with ThreadPoolExecutor(4) as pool:
            working = [pool.submit(post, worker) for worker in range(4)]
            eventually(lambda: len(accepted), lambda count: count > 100)
            assert node.stop(signal.SIGTERM) == 0
            for work in working:
                work.result()

    found = tidegate("query", "--data", folder, "--format", "csv", "SELECT call_id FROM calls WHERE tenant = 'stopped'")
    stored = {line.strip('"') for line in found.stdout.decode().splitlines()[1:]}
    assert len(accepted) > 100
    assert set(accepted) <= stored
