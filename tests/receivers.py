"""Places that are told: a webhook, an Alertmanager's API and a mail server, on free ports of this machine."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller


@dataclass(slots=True)
class Posted:
    path: str
    key: str | None
    body: Any


@dataclass(slots=True)
class Webhook:
    """What was posted, in order; answers 500 while `away`, and to some what `refusals` says."""

    port: int = 0
    away: bool = False
    # A part of a body → the status that answers it.
    refusals: dict[str, int] = field(default_factory=dict)
    # Answers under these paths are held back until their event is set.
    slow: dict[str, threading.Event] = field(default_factory=dict)
    posted: list[Posted] = field(default_factory=list)
    refused: int = 0

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.port}/hook"

    @property
    def alertmanager(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def webhook() -> Iterator[Webhook]:
    hook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if (held := hook.slow.get(self.path)) is not None:
                held.wait()
            refused = [status for part, status in hook.refusals.items() if part.encode() in body]
            status = refused[0] if refused else 500 if hook.away else 200
            if status != 200:
                hook.refused += 1
                self.send_response(status)
            else:
                hook.posted.append(Posted(self.path, self.headers.get("Idempotency-Key"), json.loads(body)))
                self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hook.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def mail_server() -> Iterator[tuple[int, list[bytes]]]:
    """Its port, and the messages that came, in order."""
    messages: list[bytes] = []

    class Inbox:
        async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:  # noqa: N802 — aiosmtpd's name
            messages.append(envelope.content)
            return "250 OK"

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    controller = Controller(Inbox(), hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield port, messages
    finally:
        controller.stop()
