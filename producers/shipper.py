"""What becomes of an emitter's lines: numbered, frozen into envelopes, appended; shelved on disk while the log is away.

    lines ──freeze──► held ──append──► log
      └───────┴───shelve───► spool ──append──► log

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
from typing import Final

from ..schemas.envelope import MAX_ENVELOPE_BYTES, MAX_ENVELOPE_EVENTS, Envelope

# One append carries a few envelopes: enough to share a commit, few enough that a retry repeats little (3.6 MB).
_BATCH: Final = 4
# First retry soon, since most outages are restarts; never slower than a person would wait while watching a repair.
_FIRST_RETRY_S: Final = 0.1
_SLOWEST_RETRY_S: Final = 15.0
# A server may ask for patience, not for silence.
_LONGEST_HINT_S: Final = 60.0


class Shipper:
    """Single-threaded; the emitter guards it with one lock. Counts are events, own ones unless they say otherwise."""

    def __init__(self, producer: str, first_seq: int, *, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self.producer = producer
        self.next_seq = first_seq
        self.settled_seq = first_seq  # every own number below is in the log, or refused by it for good
        self.memory_events = 0
        self.memory_bytes = 0
        self.appended_events = 0
        self.refused_events = 0
        self.unsent_events = 0
        self.away = False
        self.retry_at = 0.0
        self._failures = 0
        self._uniform = uniform
        self._lines: deque[bytes] = deque()
        self._held: list[Envelope] = []
        self._trying: list[Envelope] = []
        self._singly = 0  # envelopes still to be sent one by one, to find the refused one among them

    def add(self, line: bytes) -> None:
        """Number one valid line."""
        self._lines.append(line)
        self.next_seq += 1
        self.memory_events += 1
        self.memory_bytes += len(line)

    @property
    def idle(self) -> bool:
        """Nothing waits for the log."""
        return not (self._lines or self._held)

    def wait_s(self, now: float) -> float | None:
        """Seconds until `batch` has something to try; None while there is nothing."""
        if self.idle:
            return None
        return max(0.0, self.retry_at - now) if self.away else 0.0

    def batch(self, dropped: int) -> Sequence[Envelope]:
        """The oldest envelopes, to be appended now; empty when there are none. `dropped` goes into new headers."""
        self._freeze(dropped, _BATCH)
        self._trying = self._held[: 1 if self._singly else _BATCH]
        return self._trying

    def appended(self) -> None:
        """The batch is durable."""
        self.away, self._failures = False, 0
        count = sum(envelope.count for envelope in self._trying)
        self.appended_events += count
        self._settle()

    def refused(self) -> int:
        """The log will never take the batch, or one of it. Returns how many events that lost: 0 means try singly."""
        if len(self._trying) > 1:
            self._singly = len(self._trying)
            return 0
        count = sum(envelope.count for envelope in self._trying)
        self.refused_events += count
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
        self.retry_at = now + delay

    def give_up(self) -> int:
        """Let go of everything in memory. Returns how many events that lost."""
        lost = self.memory_events
        self.unsent_events += lost
        self._lines.clear()
        self._held = []
        self.memory_events = self.memory_bytes = 0
        return lost

    def _settle(self) -> None:
        for envelope in self._trying:
            self.settled_seq = envelope.seq + envelope.count
            self.memory_events -= envelope.count
            self.memory_bytes -= len(envelope.value) - envelope.count + 1
        del self._held[: len(self._trying)]
        self._singly = max(0, self._singly - len(self._trying))
        self._trying = []

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
            self._held.append(Envelope.of(self.producer, seq, lines, dropped))
