from __future__ import annotations

import gzip
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import tidegate
from tidegate.producers.connect import connect, default_spool_dir
from tidegate.producers.http_log import HttpLog, retry_after_s
from tidegate.schemas.envelope import CONTENT_SCHEMA, Envelope
from tidegate.schemas.errors import EnvelopeRefused, LogUnavailable, UsageError

SMALL = Envelope.of("py-1", 5, [b'{"a":1}', b'{"a":2}'])
LARGE = Envelope.of("py-1", 7, [b'{"a":"' + b"x" * 2_000 + b'"}'], dropped=9)


@dataclass
class Node:
    """A node's ingest as far as a producer can tell: it keeps what it is sent and answers what it is told."""

    answers: list[tuple[int, Mapping[str, str]]] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    connections: set[Any] = field(default_factory=set)
    silent: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def handler(self) -> type[BaseHTTPRequestHandler]:
        node = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                node.connections.add(self.client_address)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                node.requests.append((self.path, dict(self.headers), body))
                if node.silent.is_set():
                    self.close_connection = True
                    return
                status, headers = node.answers.pop(0) if node.answers else (202, {})
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *args: Any) -> None:
                pass

        return Handler


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    with ThreadingHTTPServer(("127.0.0.1", 0), node.handler()) as server:
        node.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield node
        server.shutdown()
        thread.join()


@pytest.fixture
def log(node: Node) -> Iterator[HttpLog]:
    log = HttpLog(node.url + "/", "s3cret")
    yield log
    log.close()


def test_an_envelope_is_one_request_with_its_numbers_in_the_headers(node: Node, log: HttpLog) -> None:
    log.append([SMALL, LARGE])

    (path, headers, body), (_, large_headers, large_body) = node.requests
    assert path == "/v1/events"
    assert body == SMALL.value
    assert headers["Content-Type"] == "application/x-ndjson"
    assert headers["Authorization"] == "Bearer s3cret"
    assert (headers["X-Tidegate-Producer"], headers["X-Tidegate-Seq"], headers["X-Tidegate-Count"]) == ("py-1", "5", "2")
    assert "Content-Encoding" not in headers
    assert "X-Tidegate-Dropped" not in headers
    assert large_headers["Content-Encoding"] == "gzip"
    assert large_headers["X-Tidegate-Dropped"] == "9"
    assert gzip.decompress(large_body) == LARGE.value
    assert len(node.connections) == 1, "the connection is kept"


def test_content_has_its_own_door(node: Node, log: HttpLog) -> None:
    log.append([Envelope.of("py-1-content", 0, [b"sealed"], schema=CONTENT_SCHEMA)])

    ((path, headers, body),) = node.requests
    assert (path, body) == ("/v1/content", b"sealed")
    assert headers["X-Tidegate-Producer"] == "py-1-content"


def test_a_node_that_knows_no_content_yet_gets_it_later(node: Node, log: HttpLog) -> None:
    node.answers.append((404, {}))

    with pytest.raises(LogUnavailable, match="/v1/content answered 404"):
        log.append([Envelope.of("py-1-content", 0, [b"sealed"], schema=CONTENT_SCHEMA)])


def test_it_opens_again_after_closing(node: Node, log: HttpLog) -> None:
    log.append([SMALL])
    log.close()
    log.close()
    log.append([SMALL])

    assert len(node.requests) == 2
    assert len(node.connections) == 2


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 301, 307, 401, 403, 404])
def test_what_may_pass_is_tried_again(node: Node, log: HttpLog, status: int) -> None:
    node.answers.append((status, {"Location": "http://127.0.0.1:1/"}))

    with pytest.raises(LogUnavailable, match=str(status)):
        log.append([SMALL])

    assert len(node.requests) == 1, "no redirect is followed, no retry hidden"
    log.append([SMALL])


@pytest.mark.parametrize("status", [400, 409, 413, 415, 422])
def test_what_the_node_will_never_take_is_refused_with_advice(node: Node, log: HttpLog, status: int) -> None:
    node.answers.append((status, {}))

    with pytest.raises(EnvelopeRefused, match=rf"answered {status}: \w+"):
        log.append([SMALL])


def test_a_wrong_token_is_named_but_not_shown_and_costs_no_events(node: Node, log: HttpLog) -> None:
    node.answers.append((401, {}))

    with pytest.raises(LogUnavailable, match="TIDEGATE_TOKEN") as caught:
        log.append([SMALL])

    assert "s3cret" not in str(caught.value)
    assert caught.value.retry_after_s == 30.0


def test_the_node_s_wish_to_be_left_alone_is_passed_on(node: Node, log: HttpLog) -> None:
    node.answers.append((503, {"Retry-After": "7"}))

    with pytest.raises(LogUnavailable) as caught:
        log.append([SMALL])

    assert caught.value.retry_after_s == 7.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("Mon, 02 Nov 2026 08:00:30 GMT", 30.0),
        ("Mon, 02 Nov 2020 08:00:30 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("9" * 400, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, now=1_793_606_400.0) == seconds


def test_a_node_that_hangs_up_is_away(node: Node, log: HttpLog) -> None:
    node.silent.set()

    with pytest.raises(LogUnavailable, match="cannot be reached"):
        log.append([SMALL])


def test_a_node_that_does_not_answer_in_time_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        log = HttpLog(f"http://127.0.0.1:{server.getsockname()[1]}", read_timeout_s=0.05)

        with pytest.raises(LogUnavailable, match="ReadTimeout"):
            log.append([SMALL])
        log.close()


def test_a_port_that_nobody_listens_on_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    log = HttpLog(f"http://127.0.0.1:{port}")

    with pytest.raises(LogUnavailable, match="cannot be reached"):
        log.append([SMALL])
    log.close()


def test_a_certificate_that_nobody_vouches_for_is_not_trusted(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("makes its certificate with the openssl command, which is not here")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "2"]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, pytest.raises((ssl.SSLError, OSError)):
                context.wrap_socket(connection, server_side=True)

        thread = threading.Thread(target=serve)
        thread.start()
        log = HttpLog(f"https://127.0.0.1:{server.getsockname()[1]}")

        with pytest.raises(LogUnavailable, match="SSLError"):
            log.append([SMALL])
        log.close()
        thread.join()


@pytest.mark.parametrize(
    "url", ["http://", "ftp://node", "node:8400", "http://user:pw@node", "http://node?x=1", "http://no de"]
)
def test_a_wrong_address_is_told_before_anything_is_sent(url: str) -> None:
    with pytest.raises(UsageError, match="TIDEGATE_URL"):
        HttpLog(url)


@pytest.mark.parametrize("token", ["", "two words", "line\nend", "umläut"])
def test_a_token_that_cannot_be_a_header_is_told_at_once(token: str) -> None:
    with pytest.raises(UsageError, match="TIDEGATE_TOKEN"):
        HttpLog("http://node", token)


# --- connect


def test_connecting_to_a_node_spools_under_the_user_s_state_folder(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    node.answers.extend([(503, {"Retry-After": "0"})] * 2)

    with tidegate.connect(node.url, service="triage") as tide:
        with tide.call(model="m", tenant="t") as call:
            call.usage(input_tokens=1)
        assert tide.flush(20)

    assert default_spool_dir() == tmp_path / "tidegate" / "spool"
    assert tide.settings.spool_dir == default_spool_dir()
    _, headers, body = node.requests[-1]
    assert headers["X-Tidegate-Producer"].startswith("triage-")
    assert b'"tenant":"t"' in body
    assert len({request[1]["X-Tidegate-Seq"] for request in node.requests}) == 1


@pytest.mark.parametrize(("unheard", "goes"), [("open", True), ("closed", False)])
def test_a_gate_that_has_heard_of_no_policy_does_as_the_setting_says(tmp_path: Path, unheard: str, goes: bool) -> None:
    with connect(str(tmp_path / "nobody-serves-this"), gate_unheard=unheard) as emitter:
        assert emitter.gate is not None
        assert emitter.gate.check({"tenant": "lakeside", "model": "gpt-4o"}).allowed is goes
        emitter.gate.close()


def test_connecting_to_a_folder_writes_the_local_log(tmp_path: Path) -> None:
    from tidegate.producers.sqlite_log import SqliteLog

    with connect(str(tmp_path / "data"), producer_id="replay-1", first_seq=3) as tide:
        tide.emit({"event": "response", "call_id": "c", "started_at": "2026-11-02T08:00:00Z", "request_model": "m"})
        assert tide.settings.spool_dir is None

    log = SqliteLog(tmp_path / "data")
    (record,) = log.read("tidegate.calls", 0, 0)
    log.close()
    assert Envelope.from_record(record.headers, record.value).seq == 3


@pytest.mark.parametrize("url", ["amqp://broker:5672", "redis://x"])
def test_an_address_that_cannot_be_used_says_what_can(url: str) -> None:
    with pytest.raises(UsageError, match="http"):
        connect(url)


def test_a_file_is_no_data_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UsageError, match="not a folder"):
        connect(str(tmp_path / "file"))
