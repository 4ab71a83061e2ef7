"""A gate's ear over HTTP: a node's long poll. Asking is also how the gate says that it is there.

GET /v1/signals?after=<position>&wait=<seconds>&gate=<id>  →  {"position": n, "records": [{"key", "value"}, …]}
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Final

import msgspec
import urllib3
from urllib3.exceptions import HTTPError

from ..schemas.errors import LogUnavailable
from .http_log import CONNECT_TIMEOUT_S, node_address, retry_after_s
from .signals import START, SignalRecord

# From one answer with news to the next question, so that a busy node answers with many records and not with each.
_GATHER_S: Final = 0.02
# On top of the wait that was asked for: the node's answer may be behind a commit.
_READ_TIMEOUT_S: Final = 5.0

_inherited: Final[list[urllib3.PoolManager | None]] = []


class _Told(msgspec.Struct):
    key: str
    value: msgspec.Raw


class _Answer(msgspec.Struct):
    position: int
    records: list[_Told]


_answer: Final = msgspec.json.Decoder(_Answer)


class HttpSignals:
    """`SignalSource` over a node's `GET /v1/signals`. Certificates are verified against the system's authorities."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.address = f"{node_address(url, token)}/v1/signals"
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._gate: str | None = None
        self._heard_at = float("-inf")
        self._pool: urllib3.PoolManager | None = None
        self._closed = threading.Event()

    def poll(self, after: int, timeout_s: float) -> tuple[Sequence[SignalRecord], int]:
        self._closed.clear()
        rest_s = self._heard_at + _GATHER_S - time.monotonic()
        if rest_s > 0:
            self._closed.wait(rest_s)
        pool = self._pool
        if pool is None:
            pool = self._pool = urllib3.PoolManager(num_pools=1, maxsize=1, cert_reqs="CERT_REQUIRED", retries=False)
        asked = {"after": str(after), "wait": f"{timeout_s:g}"}
        if self._gate is not None:
            asked["gate"] = self._gate
        timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=timeout_s + _READ_TIMEOUT_S)
        try:
            # A redirect is not followed: it would carry the token to somebody else.
            response = pool.request("GET", self.address, fields=asked, headers=self._headers, timeout=timeout, redirect=False)
        except (HTTPError, OSError, UnicodeError) as error:
            raise LogUnavailable(f"{self.address} cannot be reached ({type(error).__name__})") from error
        if response.status != 200:
            told = retry_after_s(response.headers.get("Retry-After"), time.time())
            raise LogUnavailable(f"{self.address} answered {response.status}", told)
        try:
            answer = _answer.decode(response.data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise LogUnavailable(f"{self.address} answered with something else; is it a Tidegate node?") from error
        if answer.records and after != START:
            self._heard_at = time.monotonic()
        return [(told.key.encode(), _value(told.value)) for told in answer.records], answer.position

    def announce(self, gate_id: str) -> None:
        self._gate = gate_id

    def close(self) -> None:
        self._closed.set()
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.clear()

    def abandon(self) -> None:
        _inherited.append(self._pool)
        self._pool = None
        self._closed = threading.Event()


def _value(raw: msgspec.Raw) -> bytes:
    value = bytes(raw)
    return b"" if value == b"null" else value
