"""The emitter: what a service calls. It must not block, raise or slow a call; so the caller encodes and leaves.

    caller's thread                       one daemon thread
    emit ─ encode ─ SimpleQueue.put ──►  take ─ validate ─ number ─► Shipper ─► log, or spool while the log is away

`emit` takes no lock. `SimpleQueue.put` is one C call and reentrant, so a signal handler may interrupt `emit` anywhere
and itself emit, flush or close. Locks handed to waiters are fresh ones, made for that wait alone.

What was accepted and is not yet in the log or the spool lives in memory: `kill -9` loses at most that.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Final, Self

import msgspec
import orjson
from pydantic import BaseModel

from ..schemas.call import RejectedEvent, RequestEvent, ResponseEvent
from ..schemas.envelope import MAX_ENVELOPE_BYTES, MAX_EVENT_BYTES
from ..schemas.errors import EnvelopeRefused, InvalidEvent, LogUnavailable
from ..schemas.hot import decode_event
from ..schemas.settings import Settings
from .ports import Log
from .shipper import Shipper

log_of_tidegate: Final = logging.getLogger("tidegate")

# Events validated in one go between two looks at the log: 30 ms of work at most.
_TAKE: Final = 10_000
# The thread offers the interpreter lock this often (about every 0.2 ms of work), where Python itself would hold it 5 ms.
_YIELD_EVERY: Final = 64

Encodable = Mapping[str, Any] | RequestEvent | ResponseEvent | RejectedEvent | msgspec.Struct


class Tally:
    """A count that any thread or signal handler may bump without a lock: one C call, nothing to interrupt."""

    __slots__ = ("_count", "bump")

    def __init__(self) -> None:
        self._count = itertools.count()
        self.bump = self._count.__next__

    def value(self) -> int:
        return int(repr(self._count)[6:-1])  # "count(7)": the one way to look without counting


@dataclass(frozen=True, slots=True)
class EmitterStats:
    """`emitted` events were accepted; each is in `appended`, `spooled` or `pending`, or was dropped afterwards.

    `invalid` of them were replaced by `rejected` events. `dropped` counts by reason; an absent reason reads 0.
    """

    emitted: int
    appended: int
    spooled: int
    pending: int
    invalid: int
    dropped: Counter[str]


class _Wish:
    """Somebody waits until all before it in the queue is settled. A bare lock: nothing shared with other waits."""

    __slots__ = ("close", "done", "seq")

    def __init__(self, close: bool) -> None:
        self.close = close
        self.seq = 0
        self.done = threading.Lock()
        self.done.acquire()


class Emitter:
    """Takes events from a service to a durable log. Thread-safe; `emit` and `reject` never block and never raise.

    Closing, leaving a `with` block, the end of the interpreter and SIGTERM send what is left, within
    `settings.flush_timeout_s`.
    """

    def __init__(
        self,
        log: Log,
        *,
        settings: Settings | None = None,
        producer_id: str | None = None,
        first_seq: int = 0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings if settings is not None else Settings.read()
        self._log = log
        self._now = now
        self._monotonic = monotonic
        self._max_events = self.settings.buffer_events
        self._max_bytes = self.settings.buffer_bytes
        self._wake_events = max(1, self._max_events // 4)
        self._wake_bytes = min(self._max_bytes // 4, MAX_ENVELOPE_BYTES)
        self._begin(producer_id or self.settings.producer_id or new_producer_id(self.settings.service), first_seq)

    def _begin(self, producer: str, first_seq: int) -> None:
        """All that changes while running, as it is at the start; a forked child begins again with it."""
        self._queue: SimpleQueue[bytes | _Wish] = SimpleQueue()
        self._nudges: SimpleQueue[None] = SimpleQueue()
        self._nudged = False
        self._closed = False
        self._ended = False
        self._abandoned = False
        self._started = False
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._pump = threading.Lock()  # held by whoever drains the queue, for as long as it does
        self._state = threading.Lock()  # guards the shipper; never held during an append
        self._shipper = Shipper(producer, first_seq)
        self._wishes: list[_Wish] = []
        self._closing: float | None = None
        self._room: deque[threading.Lock] = deque()
        # Bytes put and taken. `+=` on one attribute has no switch point in CPython's evaluation loop; should a tracer
        # or a build without the interpreter lock lose an update, the bound shifts by that event and no counter does.
        self._bytes_put = 0
        self._bytes_taken = 0
        self._emitted = Tally()
        self._invalid = 0
        self._drops = {reason: Tally() for reason in ("buffer_full", "event_too_large", "unencodable", "closed")}
        self._warned: set[str] = set()

    @property
    def producer(self) -> str:
        return self._shipper.producer

    # --- the caller's side -------------------------------------------------------------------------------------------

    def emit(self, event: Encodable) -> bool:
        """Accept one event. False when it was dropped: `stats().dropped` says why."""
        try:
            if type(event) is dict:
                line = orjson.dumps(event)
            elif isinstance(event, msgspec.Struct):
                line = msgspec.json.encode(event)
            elif isinstance(event, BaseModel):
                line = event.model_dump_json(exclude_none=True).encode()
            else:
                line = orjson.dumps(dict(event))
        except Exception:  # noqa: BLE001 — the emitter's door: whatever a caller hands in, its call goes on
            return self._drop("unencodable")
        return self._put(line)

    def reject(self, line: bytes, reason: str, source: str, line_no: int | None = None) -> bool:
        """Accept the news that an edge could not make an event of `line`; only its fingerprint and size are kept."""
        try:
            return self._put(self._rejected(line, reason, source, line_no))
        except Exception:  # noqa: BLE001 — the emitter's door
            return self._drop("unencodable")

    def _put(self, line: bytes) -> bool:
        size = len(line)
        if size > MAX_EVENT_BYTES:
            return self._drop("event_too_large")
        if self._closed:
            return self._drop("closed")
        shipper = self._shipper
        events = self._queue.qsize()
        queued = self._bytes_put - self._bytes_taken
        if events + shipper.memory_events >= self._max_events or queued + shipper.memory_bytes + size > self._max_bytes:
            return self._drop("buffer_full")
        self._bytes_put += size
        self._emitted.bump()
        self._queue.put(line)
        if not self._nudged and (events >= self._wake_events or queued >= self._wake_bytes):
            self._nudged = True
            self._nudges.put(None)
        if not self._started:
            self._start()
        if self._ended:  # closed between the look and the put: nobody will take it any more
            self._sweep()
        return True

    def _drop(self, reason: str) -> bool:
        self._drops[reason].bump()
        return False

    def _rejected(self, line: bytes, reason: str, source: str, line_no: int | None) -> bytes:
        event: dict[str, Any] = {
            "event": "rejected",
            "rejected_at": self._now(),
            "source": _printable(source, 128),
            "size_bytes": len(line),
            "sha256": hashlib.sha256(line).hexdigest(),
            "reason": _printable(reason, 256),
        }
        if line_no is not None:
            event["line"] = line_no
        return orjson.dumps(event)

    def _start(self) -> None:
        # Not blocking: of many first emits, and a signal handler interrupting one, exactly one starts the thread.
        if not self._starting.acquire(blocking=False):
            return
        try:
            thread = threading.Thread(target=self._run, name="tidegate-emitter", daemon=True)
            self._started = True
            thread.start()
            self._thread = thread
        except RuntimeError:  # no thread to be had, or the interpreter is ending: `close` does the work itself
            self._started = False
        finally:
            self._starting.release()

    # --- waiting -----------------------------------------------------------------------------------------------------

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until all emitted before is in the log; False when `timeout_s` (default: flush_timeout_s) is over first."""
        if self._ended:
            return self._shipper.idle
        return self._wish(False, self._bound(timeout_s))

    def close(self, timeout_s: float | None = None) -> bool:
        """Send what is left, then let go of the log. True when nothing was lost. Idempotent."""
        self._closed = True
        bound = self._bound(timeout_s)
        if not self._ended:
            self._closing = self._monotonic() + bound
            if self._pump.acquire(blocking=False):  # no thread is draining: do it here
                self._queue.put(_Wish(True))
                self._drain()
            elif not self._wish(True, bound):
                self._take_over()
        if not self._abandoned:
            self._log.close()
        return self._shipper.unsent_events == 0

    def _bound(self, timeout_s: float | None) -> float:
        return self.settings.flush_timeout_s if timeout_s is None else timeout_s

    def _wish(self, close: bool, timeout_s: float) -> bool:
        wish = _Wish(close)
        self._queue.put(wish)
        self._nudges.put(None)
        if not self._started:
            self._start()
        return wish.done.acquire(timeout=timeout_s)

    async def aflush(self, timeout_s: float | None = None) -> bool:
        """`flush` without holding up the event loop."""
        return await asyncio.to_thread(self.flush, timeout_s)

    async def aclose(self, timeout_s: float | None = None) -> bool:
        """`close` without holding up the event loop."""
        return await asyncio.to_thread(self.close, timeout_s)

    def wait_for_room(self, timeout_s: float | None = None) -> bool:
        """Block until half of the buffer is free: for batch tools, which would rather wait than drop."""
        deadline = None if timeout_s is None else self._monotonic() + timeout_s
        while not self._has_room() and not self._ended:
            ticket = threading.Lock()
            ticket.acquire()
            self._room.append(ticket)
            if self._has_room():
                break
            if not ticket.acquire(timeout=-1 if deadline is None else max(0.0, deadline - self._monotonic())):
                return False
        return True

    def _has_room(self) -> bool:
        shipper = self._shipper
        events = self._queue.qsize() + shipper.memory_events
        return (
            events <= self._max_events // 2
            and self._bytes_put - self._bytes_taken + shipper.memory_bytes <= self._max_bytes // 2
        )

    def stats(self) -> EmitterStats:
        """The counts so far."""
        shipper = self._shipper
        appended, refused, unsent = shipper.appended_events, shipper.refused_events, shipper.unsent_events
        dropped = Counter({reason: count for reason, tally in self._drops.items() if (count := tally.value())})
        dropped.update({reason: n for reason, n in (("refused", refused), ("unsent", unsent)) if n})
        emitted = self._emitted.value()
        pending = max(0, emitted - appended - refused - unsent)
        return EmitterStats(emitted, appended, 0, pending, self._invalid, dropped)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # --- the thread's side -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        if self._pump.acquire(blocking=False):
            self._drain()

    def _drain(self) -> None:
        """Take, ship, and tell who waits, until closed."""
        while not self._ended:
            try:
                self._collect()
                self._ship()
            except Exception as error:  # noqa: BLE001 — the emitter's door: an unknown error must not end the thread
                self._warn("emitter_failed error=%s", type(error).__name__)
                with self._state:
                    self._shipper.unavailable(self._monotonic(), None)
            self._settle()

    def _collect(self) -> None:
        """Wait for events, a wish, or the time of the next try; then take what is there."""
        now = self._monotonic()
        wait_s = self._shipper.wait_s(now)
        if self._closing is not None:
            wait_s = min(wait_s or 0.0, max(0.0, self._closing - now))
        try:
            first = self._queue.get(timeout=wait_s) if wait_s != 0.0 else self._queue.get_nowait()
        except Empty:
            return
        if wait_s is None and self.settings.linger_s and not isinstance(first, _Wish):
            try:
                self._nudges.get(timeout=self.settings.linger_s)
            except Empty:
                pass
        with self._state:
            if self._abandoned:
                return
            self._nudged = False
            self._admit(first)
            for taken in range(_TAKE):
                try:
                    item = self._queue.get_nowait()
                except Empty:
                    break
                self._admit(item)
                if taken % _YIELD_EVERY == 0:
                    time.sleep(0)

    def _admit(self, item: bytes | _Wish) -> None:
        shipper = self._shipper
        if isinstance(item, _Wish):
            item.seq = shipper.next_seq
            self._wishes.append(item)
            shipper.retry_at = 0.0
            return
        self._bytes_taken += len(item)
        try:
            decode_event(item)
        except InvalidEvent as error:
            self._invalid += 1
            item = self._rejected(item, error.reason, "emitter", None)
        shipper.add(item)

    def _ship(self) -> None:
        """Try the oldest batch once."""
        shipper = self._shipper
        with self._state:
            if self._abandoned or shipper.wait_s(self._monotonic()) != 0.0:
                return
            batch = shipper.batch(self.stats().dropped.total())
        try:
            self._log.append(batch)
        except LogUnavailable as error:
            self._warn("log_unavailable error=%s", error)
            with self._state:
                shipper.unavailable(self._monotonic(), error.retry_after_s)
        except EnvelopeRefused as error:
            with self._state:
                lost = shipper.refused()
            if lost:
                self._warn("envelope_refused events=%d error=%s", lost, error)
        else:
            with self._state:
                shipper.appended()

    def _settle(self) -> None:
        """Tell those whose events are in the log; end when closed and nothing is left to try."""
        shipper = self._shipper
        left = []
        for wish in self._wishes:
            if shipper.settled_seq >= wish.seq and not wish.close:
                wish.done.release()
            else:
                left.append(wish)
        self._wishes = left
        while self._room and self._has_room():
            self._room.popleft().release()
        if self._closing is not None and any(wish.close for wish in left):
            over = self._monotonic() >= self._closing
            if shipper.idle or over:
                with self._state:
                    shipper.give_up()
                self._end()

    def _end(self) -> None:
        self._ended = True
        self._sweep()
        for wish in self._wishes:
            wish.done.release()
        while self._room:
            self._room.popleft().release()

    def _sweep(self) -> None:
        """After the end, what still reached the queue is dropped and counted, one for one."""

    def _take_over(self) -> None:
        self._ended = True

    def _warn(self, message: str, *values: object) -> None:
        """Once for each kind; a library that repeats itself is a library that is switched off."""
        if message not in self._warned:
            self._warned.add(message)
            log_of_tidegate.warning(message, *values)


def new_producer_id(service: str | None) -> str:
    """`<service>-<host>-<pid>-<12 random hex>`, visible ASCII only, at most 200 characters."""
    name = f"{(service or 'py')[:80]}-{socket.gethostname()[:80]}-{os.getpid()}"
    return f"{re.sub(r'[^!-~]', '_', name)}-{secrets.token_hex(6)}"


def _printable(text: str, most: int) -> str:
    return re.sub(r"[\x00-\x1f\x7f]", " ", text)[:most] or "unknown"
