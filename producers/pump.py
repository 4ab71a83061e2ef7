"""The emitter's thread: sees what callers have left in the queue into the log, or onto disk.

    queue ─ take ─ validate ─ number ─► Shipper ─ append ─► log      settle: tell who waits, end once closed
                   └ invalid: rejected      └──── shelve ─► spool    while the log is away

One thread drains at a time: the emitter's own, or a closer where none could be had. `take_over` is for a closer whose
thread is stuck in an append: it saves what there is, and the stuck one finds the end when it comes back.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from datetime import datetime
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol

import orjson

from ..schemas.envelope import SCHEMA
from ..schemas.errors import EnvelopeRefused, InvalidEvent, LogUnavailable, TidegateError
from ..schemas.hot import decode_event
from ..schemas.residency import CrossRegion
from ..schemas.settings import Settings
from .ports import Log, Settled
from .shipper import Shipper
from .stats import Tally

_logger: Final = logging.getLogger("tidegate")

# Drops are told in the log at most this often: enough to be found, not enough to fill a disk.
_TELL_DROPS_EVERY_S: Final = 60.0
# The state lock is held for a write to the spool at most; a closer that waits longer has been locked out by itself.
_STATE_WAIT_S: Final = 1.0


class Wish:
    """Somebody waits until all before it in the queue is settled. A bare lock: nothing shared with other waits."""

    __slots__ = ("close", "done", "met", "seq")

    def __init__(self, close: bool) -> None:
        self.close = close
        self.seq = 0
        self.met = False
        self.done = threading.Lock()
        self.done.acquire()


class Sized(Protocol):
    """What the queue is for: encoded events, or texts still to be sealed. Its length is what it takes in memory."""

    def __len__(self) -> int: ...


class Awaited:
    """An event of which somebody waits to hear where it went."""

    __slots__ = ("line", "settled")

    def __init__(self, line: bytes, settled: Settled) -> None:
        self.line = line
        self.settled = settled


class Pump:
    """From the queue to the log, until closed: set `close_at`, put a `Wish(close=True)`, and `run` ends once all is safe
    or the time is up.

    Callers count what they put into `queue` in `put_bytes`, and read the public attributes without a lock. Who finds
    `ended` set after putting something calls `sweep`. `refused` tells what callers were refused, by reason, because
    envelopes and warnings tell all drops; `errors` counts our own mistakes.
    """

    # Events validated in one go between two looks at the log: 30 ms of work at most.
    take = 10_000
    # The thread offers the interpreter lock this often (about every 0.2 ms of work), where Python itself would hold it 5 ms.
    yield_every = 64
    # Before each warning: of what it tells.
    voice = ""

    def __init__(
        self,
        log: Log,
        producer: str,
        first_seq: int,
        *,
        settings: Settings,
        refused: Callable[[], Counter[str]],
        errors: Tally,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        schema: str = SCHEMA,
    ) -> None:
        self.queue: SimpleQueue[Sized | Awaited | Wish] = SimpleQueue()
        self.nudges: SimpleQueue[None] = SimpleQueue()  # cut a linger short
        self.nudged = False
        # `+=` on one attribute has no switch point in CPython's evaluation loop; should a tracer or a build without the
        # interpreter lock lose an update, the bound shifts by that event and no counter does.
        self.put_bytes = 0
        self.taken_bytes = 0
        self.room: deque[threading.Lock] = deque()  # each is released when there is room
        self.close_at: float | None = None  # when to give up, once closed
        self.ended = False  # nothing is sent any more
        self.late = Tally()  # accepted in the instant of closing, then dropped
        self.invalid = 0
        self.shipper = Shipper(
            producer,
            first_seq,
            spool_dir=settings.spool_dir if settings.spool_max_bytes else None,
            spool_max_bytes=settings.spool_max_bytes,
            warn=self._warn,
            schema=schema,
        )
        self._log = log
        self._linger_s = settings.linger_s
        self._max_events = settings.buffer_events
        self._max_bytes = settings.buffer_bytes
        self._refused = refused
        self._errors = errors
        self._now = now
        self._monotonic = monotonic
        self._draining = threading.Lock()  # held by whoever drains the queue, for as long as it does
        self._state = threading.Lock()  # guards the shipper; never held during an append
        self._wishes: list[Wish] = []
        self._told_drops = 0
        self._told_drops_at = float("-inf")
        self._warned: set[str] = set()
        self._silent = False

    # --- what callers ask --------------------------------------------------------------------------------------------

    def has_room(self) -> bool:
        """Half of the buffer is free."""
        shipper = self.shipper
        return (
            self.queue.qsize() + shipper.memory_events <= self._max_events // 2
            and self.put_bytes - self.taken_bytes + shipper.memory_bytes <= self._max_bytes // 2
        )

    def dropped_after(self) -> Counter[str]:
        """What was accepted and is lost, by reason."""
        shipper = self.shipper
        counts = {
            "refused": shipper.refused_events,
            "unsent": shipper.unsent_events,
            "spool_lost": shipper.spool_lost_events,
            "closed": self.late.value(),
        }
        return Counter({reason: count for reason, count in counts.items() if count})

    def hush(self) -> None:
        """Log nothing from here on."""
        self._silent = True

    # --- the thread's work -------------------------------------------------------------------------------------------

    def run(self, last: Wish | None = None) -> bool:
        """Take, ship, and tell who waits, until closed; False, at once, when somebody else does. `last` is put in the
        queue by whoever does."""
        if not self._draining.acquire(blocking=False):
            return False
        if last is not None:
            self.queue.put(last)
        with self._state:
            self.shipper.adopt()
        while not self.ended:
            try:
                self._collect()
                self._ship()
            except Exception as error:  # noqa: BLE001 — the emitter's door: an unknown error must not end the thread
                self._errors.bump()
                self._warn("emitter_failed error=%s", error if isinstance(error, TidegateError) else type(error).__name__)
                self._postpone(None)
            self._settle()
        try:
            self._log.close()
        except Exception as error:  # noqa: BLE001 — the emitter's door
            self._warn("log_close_failed error=%s", type(error).__name__)
        self._let_go()
        return True

    def _collect(self) -> None:
        """Wait for events, a wish, or the time of the next try; then take what is there."""
        now = self._monotonic()
        wait_s = self.shipper.wait_s(now)
        if self.close_at is not None:
            wait_s = max(0.0, min(self.close_at - now, wait_s if wait_s is not None else self.close_at - now))
        try:
            first = self.queue.get(block=wait_s != 0.0, timeout=wait_s or None)
        except Empty:
            return
        linger_s = self._linger_s if wait_s is None else min(self._linger_s, wait_s)
        if linger_s > 0 and not isinstance(first, Wish):
            with contextlib.suppress(Empty):
                self.nudges.get(timeout=linger_s)
        self._prepare()
        with self._state:
            self.nudged = False
            self._admit(first)
            for taken in range(self.take):
                try:
                    item = self.queue.get_nowait()
                except Empty:
                    break
                self._admit(item)
                if taken % self.yield_every == 0:
                    time.sleep(0)

    def _prepare(self) -> None:
        """What may take its time, before the state lock is taken."""

    def _admit(self, item: Sized | Awaited | Wish) -> None:
        shipper = self.shipper
        settled = None
        if isinstance(item, Wish):
            item.seq = shipper.next_seq
            self._wishes.append(item)
            shipper.hurry()
            with contextlib.suppress(Empty):
                self.nudges.get_nowait()
            return
        if isinstance(item, Awaited):
            settled = item.settled
            item = item.line
        self.taken_bytes += len(item)
        if self.ended:  # another thread has closed this emitter over our head
            self.late.bump()
            return
        self._take_in(item, settled)

    def _take_in(self, item: Any, settled: Settled | None) -> None:
        """Number one line, if it is an event; what is put in its place, if it is none."""
        try:
            decode_event(item)
        except InvalidEvent as error:
            self.invalid += 1
            item = rejected(item, error.reason, "emitter", None, self._now())
            if settled is not None:  # nobody will count what it said
                settled.placed(None)
                settled = None
        self.shipper.add(item, settled)

    def _ship(self) -> None:
        """Try the oldest batch once; put what cannot go on disk."""
        shipper = self.shipper
        with self._state:
            now = self._monotonic()
            wait_s = shipper.wait_s(now)
            if self.ended or wait_s is None:
                return
            crowded = shipper.on_disk and (
                shipper.memory_events > self._max_events // 4 or shipper.memory_bytes > self._max_bytes // 4
            )
            dropped = self._dropped().total()
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
                lost = 0 if self.ended else shipper.refused()
            if lost:
                self._warn("envelope_refused events=%d error=%s", lost, error)
        else:
            with self._state:
                if not self.ended:
                    back = shipper.away
                    shipper.appended(positions)
                    if back:
                        self._warned.discard("log_unavailable error=%s")

    def _postpone(self, retry_after_s: float | None) -> None:
        with self._state:
            if not self.ended:
                now = self._monotonic()
                self.shipper.unavailable(now, retry_after_s)
                self.shipper.shelve(now, self._dropped().total())

    def _settle(self) -> None:
        """Tell those whose events are in the log; end when closed and nothing more can be done."""
        shipper = self.shipper
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
        while self.room and self.has_room():
            self.room.popleft().release()
        self._tell_drops()
        # With all of it on disk and the log away there is nothing to wait for: the next process sends it.
        if closing and self.close_at is not None:
            safe = shipper.idle or (shipper.away and not shipper.memory_events)
            if safe or self._monotonic() >= self.close_at:
                with self._state:
                    self._end()

    # --- the end -----------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """Spool what is left; from here on nothing is sent. The state lock is held."""
        if self.ended:
            return
        shipper = self.shipper
        if shipper.memory_events:
            shipper.shelve(self._monotonic(), self._dropped().total())
        shipper.give_up()
        self.ended = True

    def _let_go(self) -> None:
        """After the end: nobody waits any longer."""
        self.sweep()
        with contextlib.suppress(IndexError):
            while True:
                wish = self._wishes.pop()
                wish.met = wish.close or self.shipper.settled_seq >= wish.seq
                wish.done.release()
        with contextlib.suppress(IndexError):
            while True:
                self.room.popleft().release()

    def sweep(self) -> int:
        """After the end: drop and count what still reached the queue, one for one."""
        swept = 0
        with contextlib.suppress(Empty):
            while True:
                item = self.queue.get_nowait()
                if isinstance(item, Wish):
                    item.met = item.close
                    item.done.release()
                else:
                    self.late.bump()
                    swept += 1
        return swept

    def take_over(self) -> None:
        """The thread is stuck in an append and time is up: save what it holds. Should that append still succeed, the
        numbers are the same and the meter counts them once. The thread ends, and closes the log, when it comes back."""
        if not self._state.acquire(timeout=_STATE_WAIT_S):
            return
        try:
            with contextlib.suppress(Empty):
                while not self.ended:
                    self._admit(self.queue.get_nowait())
            self._end()
        finally:
            self._state.release()
        self._let_go()

    # --- what it tells -----------------------------------------------------------------------------------------------

    def _dropped(self) -> Counter[str]:
        """All drops, by reason: refused at the door, or lost afterwards."""
        return self._refused() + self.dropped_after()

    def _tell_drops(self) -> None:
        now = self._monotonic()
        if now - self._told_drops_at < _TELL_DROPS_EVERY_S:
            return
        dropped = self._dropped()
        if dropped.total() > self._told_drops and not self._silent:
            self._told_drops, self._told_drops_at = dropped.total(), now
            reasons = " ".join(f"{reason}={count}" for reason, count in sorted(dropped.items()))
            _logger.warning("%sevents_dropped total=%d %s", self.voice, dropped.total(), reasons)

    def _warn(self, message: str, *values: object) -> None:
        """Once for each kind and outage: a library that repeats itself is a library that is switched off."""
        if message not in self._warned and not self._silent:
            self._warned.add(message)
            _logger.warning(self.voice + message, *values)


def rejected(
    line: bytes, reason: str, source: str, line_no: int | None, at: datetime, crossed: CrossRegion | None = None
) -> bytes:
    """The event that says a line was no event: its fingerprint and size, never what it says. `crossed`: or that it may not
    rest where it would."""
    event: dict[str, Any] = {
        "event": "rejected",
        "rejected_at": at,
        "source": _printable(source, 128),
        "size_bytes": len(line),
        "sha256": hashlib.sha256(line).hexdigest(),
        "reason": _printable(reason, 256),
    }
    if line_no is not None:
        event["line"] = line_no
    if crossed is not None:
        event |= {name: _printable(value, 128) for name, value in crossed._asdict().items() if value is not None}
    return orjson.dumps(event)


def _printable(text: str, most: int) -> str:
    return re.sub(r"[\x00-\x1f\x7f]", " ", text)[:most] or "unknown"
