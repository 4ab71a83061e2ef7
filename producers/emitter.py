"""The emitter: what a service calls. It must not block, raise or slow a call; so the caller encodes and leaves.

    caller's thread                       one daemon thread
    emit ─ encode ─ SimpleQueue.put ──►  take ─ validate ─ number ─► Shipper ─► log, or spool while the log is away

`emit` takes no lock. `SimpleQueue.put` is one C call and reentrant, so a signal handler may interrupt `emit` anywhere
and itself emit, flush or close. Locks handed to waiters are fresh ones, made for that wait alone.

What was accepted and is not yet in the log or the spool lives in memory: `kill -9` loses at most that.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
import orjson
from pydantic import BaseModel

from ..schemas.call import RejectedEvent, RequestEvent, ResponseEvent
from ..schemas.envelope import MAX_ENVELOPE_BYTES, MAX_EVENT_BYTES
from ..schemas.errors import EnvelopeRefused, InvalidEvent, LogUnavailable, TidegateError
from ..schemas.hot import decode_event
from ..schemas.settings import Settings
from . import lifecycle
from .observe import Observer
from .ports import Log, Settled
from .shipper import Shipper
from .signals import SignalSource
from .stats import EmitterStats, Tally

if TYPE_CHECKING:
    from .gate import Gate

_logger: Final = logging.getLogger("tidegate")

# Events validated in one go between two looks at the log: 30 ms of work at most.
_TAKE: Final = 10_000
# The thread offers the interpreter lock this often (about every 0.2 ms of work), where Python itself would hold it 5 ms.
_YIELD_EVERY: Final = 64
# Drops are told in the log at most this often: enough to be found, not enough to fill a disk.
_TELL_DROPS_EVERY_S: Final = 60.0
# The state lock is held for a write to the spool at most; a closer that waits longer has been locked out by itself.
_STATE_WAIT_S: Final = 1.0

_REFUSALS: Final = ("buffer_full", "spool_full", "event_too_large", "unencodable", "closed")

# A parent's connections as a forked child has them: closing one could end it for the parent, so they are kept open.
_inherited: Final[list[Log]] = []

Encodable = Mapping[str, Any] | RequestEvent | ResponseEvent | RejectedEvent | msgspec.Struct


class _Wish:
    """Somebody waits until all before it in the queue is settled. A bare lock: nothing shared with other waits."""

    __slots__ = ("close", "done", "met", "seq")

    def __init__(self, close: bool) -> None:
        self.close = close
        self.seq = 0
        self.met = False
        self.done = threading.Lock()
        self.done.acquire()


class _Awaited:
    """An event of which somebody waits to hear where it went."""

    __slots__ = ("line", "settled")

    def __init__(self, line: bytes, settled: Settled) -> None:
        self.line = line
        self.settled = settled


class Emitter(Observer):
    """Takes events from a service to a durable log. Thread-safe; `emit` and `reject` never block and never raise.

    Closing, leaving a `with` block, the end of the interpreter and SIGTERM send what is left, within
    `settings.flush_timeout_s`; what cannot be sent by then goes to the spool, if there is one.

    `producer_id` with `first_seq` is for replays, which give the same event the same number every time. A producer id
    from the settings is a name that each run makes its own: with the bare name, a restarted service would begin at 0
    again, and the meter would take all it sends for repetitions. `reopen` makes the log of a forked child, `signals` what
    the gate follows.
    """

    def __init__(
        self,
        log: Log,
        *,
        settings: Settings | None = None,
        producer_id: str | None = None,
        first_seq: int = 0,
        reopen: Callable[[], Log] | None = None,
        signals: Callable[[], SignalSource] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings if settings is not None else Settings.read()
        super().__init__(self.settings, now, monotonic)
        self._log = log
        self._reopen = reopen
        self._signals = signals
        self._gate: Gate | None = None
        self._max_events = self.settings.buffer_events
        self._max_bytes = self.settings.buffer_bytes
        self._wake_events = max(1, self._max_events // 4)
        self._wake_bytes = min(self._max_bytes // 4, MAX_ENVELOPE_BYTES)
        self._begin(producer_id or self._new_producer_id(), first_seq)
        lifecycle.watch(self)

    def _begin(self, producer: str, first_seq: int) -> None:
        """All that changes while running, as it is at the start; a forked child begins again with it."""
        self._queue: SimpleQueue[bytes | _Awaited | _Wish] = SimpleQueue()
        self._nudges: SimpleQueue[None] = SimpleQueue()  # cut a linger short
        self._nudged = False
        self._closed = False  # nothing is accepted any more
        self._ended = False  # nothing is sent any more
        self._closing: float | None = None  # when to give up, once closed
        self._started = False
        self._starting = threading.Lock()
        self._gating = threading.RLock()
        self._pump = threading.Lock()  # held by whoever drains the queue, for as long as it does
        self._state = threading.Lock()  # guards the shipper; never held during an append
        self._shipper = Shipper(
            producer,
            first_seq,
            spool_dir=self.settings.spool_dir if self.settings.spool_max_bytes else None,
            spool_max_bytes=self.settings.spool_max_bytes,
            warn=self._warn,
        )
        self._wishes: list[_Wish] = []
        self._room: deque[threading.Lock] = deque()
        # Bytes put and taken. `+=` on one attribute has no switch point in CPython's evaluation loop; should a tracer
        # or a build without the interpreter lock lose an update, the bound shifts by that event and no counter does.
        self._bytes_put = 0
        self._bytes_taken = 0
        self._emitted = Tally()
        self.unread_answers = Tally()
        self.internal_errors = Tally()
        self._late = Tally()  # accepted in the instant of closing, then dropped
        self._invalid = 0
        self._refusals = {reason: Tally() for reason in _REFUSALS}
        self._told_drops = 0
        self._told_drops_at = float("-inf")
        self._warned: set[str] = set()
        self._silent = False

    @property
    def producer(self) -> str:
        """The identity its events are numbered under."""
        return self._shipper.producer

    @property
    def gate(self) -> Gate | None:
        """Answers whether calls may go; made when first asked for. None without a source of signals."""
        if self._gate is None and self._signals is not None:
            with self._gating:
                if self._gate is None:
                    from .gate import Gate  # who only emits does not need it in memory

                    self._gate = Gate(self._signals(), monotonic=self.monotonic)
        return self._gate

    # --- the caller's side -------------------------------------------------------------------------------------------

    def emit(self, event: Encodable, settled: Settled | None = None) -> bool:
        """Accept one event. False when it was dropped: `stats().dropped` says why.

        `settled` (a gate's reservation) hears where the event went: its place in the log, or None when it was dropped.
        """
        try:
            if type(event) is dict:
                line = orjson.dumps(event)
            elif isinstance(event, msgspec.Struct):
                line = msgspec.json.encode(event)
            elif isinstance(event, BaseModel):
                # Not model_dump_json: pydantic warns at its own text for a field with a PlainValidator (`started_at`).
                line = orjson.dumps(event.model_dump(exclude_none=True))
            else:
                line = orjson.dumps(dict(event))
            if settled is None:
                return self._put(line)
            accepted = self._put(line, settled)
            if not accepted:
                settled.placed(None)
            return accepted
        except Exception:  # noqa: BLE001 — the emitter's door: whatever a caller hands in, its call goes on
            if settled is not None:
                settled.placed(None)
            return self._refuse("unencodable")

    def reject(self, line: bytes, reason: str, source: str, line_no: int | None = None) -> bool:
        """Accept the news that an edge could not make an event of `line`; only its fingerprint and size are kept."""
        try:
            return self._put(self._rejected(line, reason, source, line_no))
        except Exception:  # noqa: BLE001 — the emitter's door
            return self._refuse("unencodable")

    def _put(self, line: bytes, settled: Settled | None = None) -> bool:
        size = len(line)
        if size > MAX_EVENT_BYTES:
            return self._refuse("event_too_large")
        if self._closed:
            return self._refuse("closed")
        shipper = self._shipper
        events = self._queue.qsize()
        queued = self._bytes_put - self._bytes_taken
        if events + shipper.memory_events >= self._max_events or queued + shipper.memory_bytes + size > self._max_bytes:
            return self._refuse("spool_full" if shipper.spool_full else "buffer_full")
        self._bytes_put += size
        self._emitted.bump()
        self._queue.put(line if settled is None else _Awaited(line, settled))
        if not self._nudged and (events >= self._wake_events or queued >= self._wake_bytes):
            self._nudged = True
            self._nudges.put(None)
        if not self._started:
            self._start()
        return not self._ended or not self._sweep()

    def _refuse(self, reason: str) -> bool:
        self._refusals[reason].bump()
        return False

    def _rejected(self, line: bytes, reason: str, source: str, line_no: int | None) -> bytes:
        event: dict[str, Any] = {
            "event": "rejected",
            "rejected_at": self.now(),
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
        if self._starting.acquire(blocking=False):
            try:
                lifecycle.watch_child()
                self._started = True
                threading.Thread(target=self._run, name="tidegate-emitter", daemon=True).start()
            except RuntimeError:  # no thread to be had, or the interpreter is ending: `close` does the work itself
                self._started = False
            finally:
                self._starting.release()

    # --- waiting -----------------------------------------------------------------------------------------------------

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until all emitted before is in the log; False when `timeout_s` (default: flush_timeout_s) is over first."""
        if self._ended:
            return not (self._shipper.spooled_events or self._shipper.unsent_events)
        return self._wish(False, self._bound(timeout_s))

    def close(self, timeout_s: float | None = None) -> bool:
        """Send what is left, spool what cannot be sent, let go of the log. True when nothing was lost. Idempotent."""
        self._closed = True
        if self._gate is not None:
            self._gate.close()
        bound = self._bound(timeout_s)
        if not self._ended:
            self._closing = self.monotonic() + bound
            if self._pump.acquire(blocking=False):  # no thread is draining: do it here
                self._queue.put(_Wish(True))
                self._drain()
            elif not self._wish(True, bound):
                self._take_over()
        return self._shipper.unsent_events == 0

    def _bound(self, timeout_s: float | None) -> float:
        return self.settings.flush_timeout_s if timeout_s is None else timeout_s

    def _wish(self, close: bool, timeout_s: float) -> bool:
        wish = _Wish(close)
        self._queue.put(wish)
        self._nudges.put(None)
        if not self._started:
            self._start()
        if self._ended:
            self._sweep()
        wish.done.acquire(timeout=min(max(timeout_s, 0.0), threading.TIMEOUT_MAX))
        return wish.met

    async def aflush(self, timeout_s: float | None = None) -> bool:
        """`flush` without holding up the event loop."""
        return await asyncio.to_thread(self.flush, timeout_s)

    async def aclose(self, timeout_s: float | None = None) -> bool:
        """`close` without holding up the event loop."""
        return await asyncio.to_thread(self.close, timeout_s)

    def wait_for_room(self, timeout_s: float | None = None) -> bool:
        """Block until half of the buffer is free: for batch tools, which would rather wait than drop."""
        deadline = None if timeout_s is None else self.monotonic() + timeout_s
        while not (self._has_room() or self._ended):
            ticket = threading.Lock()
            ticket.acquire()
            self._room.append(ticket)
            if self._has_room() or self._ended:
                break
            if not ticket.acquire(timeout=-1 if deadline is None else max(0.0, deadline - self.monotonic())):
                return False
        return True

    def _has_room(self) -> bool:
        shipper = self._shipper
        return (
            self._queue.qsize() + shipper.memory_events <= self._max_events // 2
            and self._bytes_put - self._bytes_taken + shipper.memory_bytes <= self._max_bytes // 2
        )

    def stats(self) -> EmitterStats:
        """The counts so far."""
        shipper = self._shipper
        settled = shipper.appended_events + shipper.spooled_events
        after = self._dropped_after()
        dropped = Counter({reason: count for reason, tally in self._refusals.items() if (count := tally.value())})
        dropped.update(after)
        emitted = self._emitted.value()
        return EmitterStats(
            emitted=emitted,
            appended=shipper.appended_events,
            spooled=shipper.spooled_events,
            pending=max(0, emitted - settled - after.total()),
            invalid=self._invalid,
            dropped=dropped,
            adopted=shipper.adopted_events,
            unread_answers=self.unread_answers.value(),
            internal_errors=self.internal_errors.value(),
        )

    def _dropped_after(self) -> Counter[str]:
        shipper = self._shipper
        counts = {
            "refused": shipper.refused_events,
            "unsent": shipper.unsent_events,
            "spool_lost": shipper.spool_lost_events,
            "closed": self._late.value(),
        }
        return Counter({reason: count for reason, count in counts.items() if count})

    def _dropped(self) -> int:
        return sum(tally.value() for tally in self._refusals.values()) + self._dropped_after().total()

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

    # --- the end of the process (see lifecycle) ----------------------------------------------------------------------

    def exit_bound_s(self) -> float:
        """How long the end of the process may wait for this emitter."""
        return self.settings.flush_timeout_s

    def last_words(self) -> None:
        """A signal handler runs: the code it interrupted may hold a logging lock, so log nothing from here on."""
        self._silent = True

    def forked(self) -> None:
        """Begin again in the child of a fork; everything so far is the parent's."""
        self._shipper.abandon()
        closed = self._closed
        if self._reopen is not None:
            _inherited.append(self._log)
            self._log = self._reopen()
        self._begin(self._new_producer_id(), 0)
        self._closed = self._ended = closed

    def _new_producer_id(self) -> str:
        return new_producer_id(self.settings.producer_id, self.settings.service)

    # --- the thread's side -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        if self._pump.acquire(blocking=False):
            self._drain()

    def _drain(self) -> None:
        """Take, ship, and tell who waits, until closed."""
        with self._state:
            self._shipper.adopt()
        while not self._ended:
            try:
                self._collect()
                self._ship()
            except Exception as error:  # noqa: BLE001 — the emitter's door: an unknown error must not end the thread
                self.internal_errors.bump()
                self._warn("emitter_failed error=%s", error if isinstance(error, TidegateError) else type(error).__name__)
                self._postpone(None)
            self._settle()
        try:
            self._log.close()
        except Exception as error:  # noqa: BLE001 — the emitter's door
            self._warn("log_close_failed error=%s", type(error).__name__)
        self._let_go()

    def _collect(self) -> None:
        """Wait for events, a wish, or the time of the next try; then take what is there."""
        now = self.monotonic()
        wait_s = self._shipper.wait_s(now)
        if self._closing is not None:
            wait_s = max(0.0, min(self._closing - now, wait_s if wait_s is not None else self._closing - now))
        try:
            first = self._queue.get(block=wait_s != 0.0, timeout=wait_s or None)
        except Empty:
            return
        linger_s = self.settings.linger_s if wait_s is None else min(self.settings.linger_s, wait_s)
        if linger_s > 0 and not isinstance(first, _Wish):
            with contextlib.suppress(Empty):
                self._nudges.get(timeout=linger_s)
        with self._state:
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

    def _admit(self, item: bytes | _Awaited | _Wish) -> None:
        shipper = self._shipper
        settled = None
        if isinstance(item, _Wish):
            item.seq = shipper.next_seq
            self._wishes.append(item)
            shipper.hurry()
            with contextlib.suppress(Empty):
                self._nudges.get_nowait()
            return
        if isinstance(item, _Awaited):
            settled = item.settled
            item = item.line
        self._bytes_taken += len(item)
        if self._ended:  # another thread has closed this emitter over our head
            self._late.bump()
            return
        try:
            decode_event(item)
        except InvalidEvent as error:
            self._invalid += 1
            item = self._rejected(item, error.reason, "emitter", None)
            if settled is not None:  # nobody will count what it said
                settled.placed(None)
                settled = None
        shipper.add(item, settled)

    def _ship(self) -> None:
        """Try the oldest batch once; put what cannot go on disk."""
        shipper = self._shipper
        with self._state:
            now = self.monotonic()
            wait_s = shipper.wait_s(now)
            if self._ended or wait_s is None:
                return
            crowded = shipper.on_disk and (
                shipper.memory_events > self._max_events // 4 or shipper.memory_bytes > self._max_bytes // 4
            )
            dropped = self._dropped()
            if wait_s > 0 or crowded:
                shipper.shelve(now, dropped)
            if wait_s > 0:
                return
            batch = shipper.batch(dropped)
        if not batch:
            return
        try:
            # A log of somebody's own may say nothing.
            positions = self._log.append(batch) or ()
        except LogUnavailable as error:
            self._warn("log_unavailable error=%s", error)
            self._postpone(error.retry_after_s)
        except EnvelopeRefused as error:
            with self._state:
                lost = 0 if self._ended else shipper.refused()
            if lost:
                self._warn("envelope_refused events=%d error=%s", lost, error)
        else:
            with self._state:
                if not self._ended:
                    back = shipper.away
                    shipper.appended(positions)
                    if back:
                        self._warned.discard("log_unavailable error=%s")

    def _postpone(self, retry_after_s: float | None) -> None:
        with self._state:
            if not self._ended:
                now = self.monotonic()
                self._shipper.unavailable(now, retry_after_s)
                self._shipper.shelve(now, self._dropped())

    def _settle(self) -> None:
        """Tell those whose events are in the log; end when closed and nothing more can be done."""
        shipper = self._shipper
        left = []
        closing = False
        for wish in self._wishes:
            if wish.close or shipper.settled_seq < wish.seq:
                closing = closing or wish.close
                left.append(wish)
            else:
                wish.met = True
                wish.done.release()
        self._wishes = left
        while self._room and self._has_room():
            self._room.popleft().release()
        self._tell_drops()
        # With all of it on disk and the log away there is nothing to wait for: the next process sends it.
        if closing and self._closing is not None:
            safe = shipper.idle or (shipper.away and not shipper.memory_events)
            if safe or self.monotonic() >= self._closing:
                with self._state:
                    self._end()

    def _end(self) -> None:
        """Spool what is left; from here on nothing is sent. The state lock is held."""
        if self._ended:
            return
        shipper = self._shipper
        if shipper.memory_events:
            shipper.shelve(self.monotonic(), self._dropped())
        shipper.give_up()
        self._ended = True

    def _let_go(self) -> None:
        """After the end: nobody waits any longer."""
        self._sweep()
        with contextlib.suppress(IndexError):
            while True:
                wish = self._wishes.pop()
                wish.met = wish.close or self._shipper.settled_seq >= wish.seq
                wish.done.release()
        with contextlib.suppress(IndexError):
            while True:
                self._room.popleft().release()

    def _sweep(self) -> int:
        """After the end: drop and count what still reached the queue, one for one."""
        swept = 0
        with contextlib.suppress(Empty):
            while True:
                item = self._queue.get_nowait()
                if isinstance(item, _Wish):
                    item.met = item.close
                    item.done.release()
                else:
                    self._late.bump()
                    swept += 1
        return swept

    def _take_over(self) -> None:
        """The thread is stuck in an append and time is up: save what it holds. Should that append still succeed, the
        numbers are the same and the meter counts them once. The thread ends, and closes the log, when it comes back."""
        if not self._state.acquire(timeout=_STATE_WAIT_S):
            return
        try:
            with contextlib.suppress(Empty):
                while not self._ended:
                    self._admit(self._queue.get_nowait())
            self._end()
        finally:
            self._state.release()
        self._let_go()

    def _tell_drops(self) -> None:
        now = self.monotonic()
        if now - self._told_drops_at < _TELL_DROPS_EVERY_S:
            return
        dropped = self._dropped()
        if dropped > self._told_drops and not self._silent:
            self._told_drops, self._told_drops_at = dropped, now
            reasons = " ".join(f"{reason}={count}" for reason, count in sorted(self.stats().dropped.items()))
            _logger.warning("events_dropped total=%d %s", dropped, reasons)

    def _warn(self, message: str, *values: object) -> None:
        """Once for each kind and outage: a library that repeats itself is a library that is switched off."""
        if message not in self._warned and not self._silent:
            self._warned.add(message)
            _logger.warning(message, *values)


def new_producer_id(name: str | None, service: str | None) -> str:
    """`<service>-<host>-<pid>-<12 random hex>`, or `<name>-<12 random hex>`; visible ASCII, at most 200 characters."""
    name = name[:187] if name else f"{(service or 'py')[:80]}-{socket.gethostname()[:80]}-{os.getpid()}"
    return f"{re.sub(r'[^!-~]', '_', name)}-{secrets.token_hex(6)}"


def _printable(text: str, most: int) -> str:
    return re.sub(r"[\x00-\x1f\x7f]", " ", text)[:most] or "unknown"
