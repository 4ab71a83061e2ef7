"""What an emitter has done, in numbers that are exact."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field


class Tally:
    """A count that any thread or signal handler may bump without a lock: one C call, nothing to interrupt."""

    __slots__ = ("_count", "bump")

    def __init__(self) -> None:
        self._count = itertools.count()
        self.bump = self._count.__next__

    def value(self) -> int:
        return int(repr(self._count)[6:-1])  # "count(7)": the one way to look without counting


@dataclass(frozen=True, slots=True)
class ContentStats:
    """Counts of texts sent, of one call each, in the words of `EmitterStats`; and their own reasons to be dropped: `no_key`
    (no ring, or none for the tenant), `too_large` (above what a record holds), `residency`, `invalid`.

    `passed_over` counts calls by provider and by what their texts leave out: `unknown` (a shape that is not known, of which
    only prose is read), `media`, `reasoning`, `choices` (all but the first).
    """

    emitted: int = 0
    appended: int = 0
    spooled: int = 0
    pending: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    adopted: int = 0
    passed_over: Counter[tuple[str, str]] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class EmitterStats:
    """Counts of events since the emitter began (a forked child begins anew).

    Each of the `emitted` (accepted) events is in `appended` (in the log), `spooled` (on disk), `pending` (in memory), or
    was dropped afterwards (`refused`, `unsent`, `spool_lost`, and `closed` for one that raced with `close`).
    `invalid` of them went on as `rejected` events. An event that was not accepted is only in `dropped`, under
    `buffer_full`, `spool_full` (memory is full and so is the disk), `event_too_large`, `unencodable`, `closed` or `residency`
    (it may not rest in the log's region; a `rejected` event that says so is emitted in its place).
    A reason that is absent reads 0.
    """

    emitted: int
    appended: int
    spooled: int
    pending: int
    invalid: int
    dropped: Counter[str]
    adopted: int  # events of dead processes, found in the spool and brought to the log
    unread_answers: int  # calls recorded without tokens, because the provider's response was not understood
    internal_errors: int  # our own mistakes, kept from the caller
    content: ContentStats = field(default_factory=ContentStats)
