"""Somebody at a node's console, over real HTTP: with cookies of their own, and an ear for what is streamed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import urllib3
from node_process import NodeProcess, tidegate


@dataclass
class Visitor:
    """Somebody at the console, with cookies of their own."""

    node: NodeProcess
    cookie: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> urllib3.BaseHTTPResponse:
        sent = self.headers | headers | ({"Cookie": self.cookie} if self.cookie else {})
        content = json.dumps(body).encode() if body is not None else None
        answer = self.node.http.request(method, self.node.url + path, body=content, headers=sent, redirect=False)
        if "Set-Cookie" in answer.headers:
            self.cookie = answer.headers["Set-Cookie"].partition(";")[0]
        return answer

    def get(self, path: str, **query: str) -> Any:
        answer = self.ask("GET", f"{path}?{urlencode(query)}" if query else path)
        assert answer.status == 200, answer.data
        return json.loads(answer.data)

    def signed_in(self, token: str) -> Visitor:
        answer = self.ask("POST", "/console/session", {"token": token})
        assert answer.status == 200, answer.data
        return self

    @contextmanager
    def stream(self, **query: str) -> Iterator[Stream]:
        headers = {"Cookie": self.cookie} if self.cookie else {}
        url = f"{self.node.url}/console/live?{urlencode(query)}"
        answer = self.node.http.request("GET", url, headers=headers, preload_content=False, timeout=60)
        assert answer.status == 200, answer.read()
        try:
            yield Stream(answer)
        finally:
            answer.drain_conn() if answer.closed else answer.close()


class Stream:
    """Server-sent events, one after the other."""

    def __init__(self, answer: urllib3.BaseHTTPResponse) -> None:
        self._lines = self._read(answer)

    @staticmethod
    def _read(answer: urllib3.BaseHTTPResponse) -> Iterator[str]:
        rest = b""
        for chunk in answer.stream(65_536):
            *whole, rest = (rest + chunk).split(b"\r\n")
            yield from (line.decode() for line in whole)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        name, data = "", ""
        for line in self._lines:
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                data = line.removeprefix("data: ")
            elif not line and data:
                yield name, json.loads(data)
                name, data = "", ""

    def until(self, is_it: Callable[[str, Any], bool], within_s: float = 60) -> Any:
        deadline = time.monotonic() + within_s
        for name, data in self:
            if is_it(name, data):
                return data
            assert time.monotonic() < deadline, f"not told; last was {name}"
        raise AssertionError("the stream ended")


def granted(node: NodeProcess, *options: str) -> str:
    done = tidegate("access", "grant", "--data", node.data_dir, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()
