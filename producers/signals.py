"""Where a gate hears of policies: the port, and its two implementations. One contract suite runs against each.

LocalSignals   the data folder's log, looked at some forty times a second
HttpSignals    a node's long poll; asking is also announcing
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec
import urllib3
from urllib3.exceptions import HTTPError

from ..schemas.errors import LogUnavailable
from ..schemas.topics import GATES, SIGNALS
from .http_log import CONNECT_TIMEOUT_S, node_address, retry_after_s
from .sqlite_log import SqliteLog

# Before the first record.
START: Final = -1
# A look at an idle log takes some 20 µs, so forty a second cost a thousandth of a core; a block closes a gate that soon.
_LOOK_S: Final = 0.025
# Over HTTP news is gathered for this long, so that a busy node answers with many records and not with one each.
_GATHER_S: Final = 0.02
# On top of the long poll's own wait: the node's answer may be behind a commit.
_READ_TIMEOUT_S: Final = 5.0

Record = tuple[bytes, bytes]


class SignalSource(Protocol):
    """A compacted topic of (key, value): first the last word on every key, then what is new. An empty value takes a key
    back. Polled from one thread; `close` may come from another and ends a waiting poll soon."""

    def poll(self, after: int, timeout_s: float) -> tuple[Sequence[Record], int]:
        """Records behind position `after` (`START`: all), waiting up to `timeout_s` for one, and the position to go on
        from. Raises `LogUnavailable` when nothing can be heard."""
        ...

    def announce(self, gate_id: str) -> None:
        """Say that this gate is there; to be repeated every second. Raises `LogUnavailable`."""
        ...

    def close(self) -> None:
        """Let go of connections, and say that the gate is gone where that can be said. Idempotent; a later poll opens again."""
        ...

    def abandon(self) -> None:
        """In the child of a fork: forget the parent's connections without closing them, and open own ones when polled."""
        ...


# A parent's connections as a forked child has them: closing one could end it for the parent, so they are kept open.
_inherited: Final[list[object]] = []


class LocalSignals:
    """`SignalSource` on a data folder. A folder without a log has nothing to say yet, and none is made in it."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._begin()

    def _begin(self) -> None:
        self._log: SqliteLog | None = None
        self._using = threading.Lock()
        self._closed = threading.Event()
        self._announced: str | None = None

    def poll(self, after: int, timeout_s: float) -> tuple[Sequence[Record], int]:
        deadline = time.monotonic() + timeout_s
        while True:
            with self._using:
                if (log := self._open()) is not None:
                    if found := log.read(SIGNALS.name, 0, after + 1):
                        return [(record.key or b"", record.value) for record in found], found[-1].offset
                    if after > START and log.end_offset(SIGNALS.name, 0) <= after:
                        after = START  # another log is in this folder now
                        continue
            rest_s = deadline - time.monotonic()
            if rest_s <= 0 or self._closed.wait(min(_LOOK_S, rest_s)):
                return [], after

    def announce(self, gate_id: str) -> None:
        with self._using:
            if (log := self._open()) is not None:
                self._write(log, gate_id, b"{}")
                self._announced = gate_id

    def close(self) -> None:
        self._closed.set()
        with self._using:
            log, self._log = self._log, None
            if log is None:
                return
            try:
                if self._announced is not None:
                    self._write(log, self._announced, b"")
                    self._announced = None
            except LogUnavailable:
                pass  # the node notices by the silence
            finally:
                log.close()

    def abandon(self) -> None:
        _inherited.append(self._log)
        self._begin()

    def _open(self) -> SqliteLog | None:
        if self._log is None and SqliteLog.exists(self._data_dir):
            # An announcement lost in a power cut comes again in a second.
            self._log = SqliteLog(self._data_dir, fsync="normal")
            self._closed.clear()
        return self._log

    def _write(self, log: SqliteLog, gate_id: str, value: bytes) -> None:
        with log.transaction():
            log.append(GATES.name, 0, [(gate_id.encode(), {}, value)])


class _Told(msgspec.Struct):
    key: str
    value: msgspec.Raw


class _Answer(msgspec.Struct):
    position: int
    records: list[_Told]


_answer: Final = msgspec.json.Decoder(_Answer)


class HttpSignals:
    """`SignalSource` over a node's `GET /v1/signals`."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.address = f"{node_address(url, token)}/v1/signals"
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._gate: str | None = None
        self._pool: urllib3.PoolManager | None = None
        self._closed = threading.Event()

    def poll(self, after: int, timeout_s: float) -> tuple[Sequence[Record], int]:
        pool = self._pool
        if pool is None:
            pool = self._pool = urllib3.PoolManager(num_pools=1, maxsize=1, cert_reqs="CERT_REQUIRED", retries=False)
            self._closed.clear()
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
        except msgspec.DecodeError as error:
            raise LogUnavailable(f"{self.address} answered something else than signals; is it a Tidegate node?") from error
        if answer.records and after != START:
            self._closed.wait(_GATHER_S)
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
