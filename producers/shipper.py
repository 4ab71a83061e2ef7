"""What becomes of an emitter's lines: numbered, frozen into envelopes, appended; shelved on disk while the log is away.

    lines ──freeze──► held ──append──► log
      └───────┴───shelve───► spool ──append──► log
                 dead processes' spools ──append──► log   (before anything else, under their own numbers)

Everything in the spool is older than everything held, and that is older than every line, so numbers reach the log in
order. An envelope that was once tried is frozen: a retry sends the same events under the same numbers, and the meter
skips what it has seen.

A state machine: no thread, clock or network of its own. The emitter calls `batch`, appends it, and reports back
with `appended`, `unavailable` or `refused`.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Final

from ..schemas.envelope import MAX_ENVELOPE_BYTES, MAX_ENVELOPE_EVENTS, SCHEMA, Envelope
from .ports import Position, Settled
from .spool import Spool, adopt

# One append carries a few envelopes: enough to share a commit, few enough that a retry repeats little (3.6 MB).
_BATCH: Final = 4
# First retry soon, since most outages are restarts; never slower than a person would wait while watching a repair.
_FIRST_RETRY_S: Final = 0.1
_SLOWEST_RETRY_S: Final = 15.0
# A server may ask for patience, not for silence.
_LONGEST_HINT_S: Final = 60.0
# Events of which somebody waits to hear where they went; a day's outage must not fill the memory with them.
_MOST_WAITING: Final = 100_000
# How much of the spool a power cut may cost; `kill -9` costs nothing of it.
_SYNC_EVERY_S: Final = 1.0


class Shipper:
    """Not thread-safe: the emitter guards it with one lock. Counts are of events, and own ones unless they say otherwise.

    `warn(message, *values)` hears of trouble with the disk; the shipper then goes on without it.
    """

    def __init__(
        self,
        producer: str,
        first_seq: int,
        *,
        spool_dir: Path | None = None,
        spool_max_bytes: int = 0,
        warn: Callable[..., None] = lambda message, *values: None,
        uniform: Callable[[float, float], float] = random.uniform,
        schema: str = SCHEMA,
    ) -> None:
        self.producer = producer
        self._schema = schema
        self.next_seq = first_seq
        self.settled_seq = first_seq  # every own number below is in the log, or lost to it for good
        self.memory_events = 0
        self.memory_bytes = 0
        self.appended_events = 0
        self.refused_events = 0
        self.unsent_events = 0
        self.spooled_events = 0  # now on disk
        self.adopted_events = 0  # of dead processes, brought to the log
        self.spool_lost_events = 0  # unreadable when their turn came
        self.spool_full = False
        self.away = False
        self._retry_at = 0.0
        self._failures = 0
        self._warn = warn
        self._uniform = uniform
        self._lines: deque[bytes] = deque()
        self._waiting: deque[tuple[int, Settled]] = deque()
        self._held: list[Envelope] = []
        self._trying: list[Envelope] = []
        self._trying_from: Spool | None = None  # None: memory
        self._singly = 0  # envelopes still to be sent one by one, to find the refused one among them
        self._spool_dir = spool_dir
        self._spool_max_bytes = spool_max_bytes
        self._spool: Spool | None = None
        self._adopted: deque[Spool] = deque()
        self._synced_at = 0.0

    def add(self, line: bytes, settled: Settled | None = None) -> None:
        """Number one valid line; `settled` hears where it goes."""
        if settled is not None:
            self._waiting.append((self.next_seq, settled))
            if len(self._waiting) > _MOST_WAITING:
                self._waiting.popleft()[1].placed(None)
        self._lines.append(line)
        self.next_seq += 1
        self.memory_events += 1
        self.memory_bytes += len(line)

    def adopt(self) -> None:
        """Take over what dead processes have left behind."""
        if self._spool_dir is not None:
            try:
                self._adopted.extend(adopt(self._spool_dir, self._spool_max_bytes))
            except OSError as error:
                self._warn("spool_unusable errno=%s", error.errno)

    @property
    def on_disk(self) -> bool:
        """Something older than what memory holds waits in a spool."""
        return bool(self._adopted) or (self._spool is not None and not self._spool.empty)

    @property
    def idle(self) -> bool:
        """Nothing waits for the log."""
        return not (self.memory_events or self.on_disk)

    def wait_s(self, now: float) -> float | None:
        """Seconds until `batch` has something to try; None while there is nothing."""
        if self.idle:
            return None
        return max(0.0, self._retry_at - now) if self.away else 0.0

    def hurry(self) -> None:
        """Somebody waits: try again now."""
        self._retry_at = 0.0

    def batch(self, dropped: int) -> list[Envelope]:
        """The oldest envelopes, to be appended now; empty when there are none. `dropped` goes into new headers."""
        most = 1 if self._singly else _BATCH
        while self._adopted:
            if found := self._peek(self._adopted[0], most):
                return found
            self._leave(self._adopted.popleft())
        if self._spool is not None:
            if found := self._peek(self._spool, most):
                return found
            self.spool_lost_events += self.spooled_events
            self.spooled_events, self.spool_full = 0, False
            if not self._spool.empty:  # it cannot be read now; perhaps a later process can
                self._leave(self._spool)
                self._spool = None
        self._freeze(dropped, most)
        self._trying, self._trying_from = self._held[:most], None
        return self._trying

    def appended(self, positions: Sequence[Position | None] = ()) -> None:
        """The batch is durable, there."""
        if self._trying_from is None or self._trying_from is self._spool:
            for envelope, position in zip_longest(self._trying, positions[: len(self._trying)]):
                self._tell(envelope, position)
        count = sum(envelope.count for envelope in self._trying)
        if self._trying_from is not None and self._trying_from is not self._spool:
            self.adopted_events += count
        else:
            self.appended_events += count
        self._settle()
        self._failures = 0
        if self.away:
            self.away = False
            self.adopt()  # an outage is when processes die

    def refused(self) -> int:
        """The log will never take the batch, or one of it. Returns how many events that lost: 0 means try singly."""
        if len(self._trying) > 1:
            self._singly = len(self._trying)
            return 0
        count = sum(envelope.count for envelope in self._trying)
        self.refused_events += count
        if self._trying_from is None or self._trying_from is self._spool:
            for envelope in self._trying:
                self._tell(envelope, None)
        self._settle()
        return count

    def unavailable(self, now: float, retry_after_s: float | None) -> None:
        """The log is away: try again after a delay that doubles, with jitter so that a fleet does not return as one."""
        self.away = True
        ceiling = min(_SLOWEST_RETRY_S, _FIRST_RETRY_S * 2.0 ** min(self._failures, 30))
        self._failures += 1
        delay = self._uniform(ceiling / 2, ceiling)
        if retry_after_s is not None:
            delay = max(delay, min(retry_after_s, _LONGEST_HINT_S))
        self._retry_at = now + delay

    def shelve(self, now: float, dropped: int) -> None:
        """Move what memory holds to disk, oldest first, as far as there is room."""
        if self._spool_dir is None:
            return
        try:
            if self._spool is None and self.memory_events:
                self._spool = Spool.create(self._spool_dir, self.producer, self._spool_max_bytes)
            if self._spool is not None:
                self._shelve(self._spool, dropped)
                if now - self._synced_at >= _SYNC_EVERY_S:
                    self._synced_at = now
                    self._spool.sync()
        except OSError as error:  # a full disk, most likely; memory has room until it has not
            self.spool_full = True
            self._warn("spool_unusable errno=%s", error.errno)

    def _shelve(self, spool: Spool, dropped: int) -> None:
        self._freeze(dropped, 1)
        while self._held:
            envelope = self._held[0]
            if not spool.append([envelope]):
                self.spool_full = True
                return
            self.spooled_events += envelope.count
            self._forget(envelope)
            self._freeze(dropped, 1)
        self.spool_full = False

    def give_up(self) -> int:
        """Let go of everything in memory, and leave the disk to the next process. Returns how many events that lost."""
        lost = self.memory_events
        self.unsent_events += lost
        self._lines.clear()
        self._held.clear()
        while self._waiting:
            self._waiting.popleft()[1].placed(None)
        self.memory_events = self.memory_bytes = 0
        for spool in (*self._adopted, self._spool):
            if spool is not None:
                self._leave(spool)
        self._adopted.clear()
        self._spool = None
        return lost

    def abandon(self) -> None:
        """In a forked child: the parent keeps all; only file descriptors are closed here."""
        for spool in (*self._adopted, self._spool):
            if spool is not None:
                spool.abandon()

    def _tell(self, envelope: Envelope, position: Position | None) -> None:
        """Tell those who wait for events up to the end of this own envelope; of what came before it nobody knows."""
        while self._waiting and self._waiting[0][0] < envelope.seq + envelope.count:
            seq, settled = self._waiting.popleft()
            settled.placed(position if seq >= envelope.seq else None)

    def _peek(self, spool: Spool, most: int) -> list[Envelope]:
        try:
            found = spool.peek(most)
        except OSError as error:
            self._warn("spool_unusable errno=%s", error.errno)
            found = []
        self._trying, self._trying_from = found, spool
        return found

    def _leave(self, spool: Spool) -> None:
        if spool.lost_bytes:
            self._warn("spool_torn bytes=%d", spool.lost_bytes)
        try:
            spool.close()
        except OSError as error:
            self._warn("spool_unusable errno=%s", error.errno)

    def _settle(self) -> None:
        """The batch is done with, one way or the other."""
        spool = self._trying_from
        for envelope in self._trying:
            if spool is None:
                self._forget(envelope)
            elif spool is self._spool:
                self.spooled_events -= envelope.count
            if spool is None or spool is self._spool:
                self.settled_seq = envelope.seq + envelope.count
        self._singly = max(0, self._singly - len(self._trying))
        if spool is not None:
            try:
                spool.ack(len(self._trying))
            except OSError as error:
                self._warn("spool_unusable errno=%s", error.errno)
            self.spool_full = False
        self._trying, self._trying_from = [], None

    def _forget(self, envelope: Envelope) -> None:
        """The oldest held envelope is no longer memory's."""
        del self._held[0]
        self.memory_events -= envelope.count
        self.memory_bytes -= len(envelope.value) - envelope.count + 1

    def _freeze(self, dropped: int, most: int) -> None:
        """Make lines into envelopes until `most` are held."""
        while self._lines and len(self._held) < most:
            seq = self.next_seq - len(self._lines)
            lines: list[bytes] = []
            size = 0
            while self._lines and len(lines) < MAX_ENVELOPE_EVENTS and size + len(self._lines[0]) < MAX_ENVELOPE_BYTES:
                line = self._lines.popleft()
                size += len(line) + 1
                lines.append(line)
            self._held.append(Envelope.of(self.producer, seq, lines, dropped, self._schema))
