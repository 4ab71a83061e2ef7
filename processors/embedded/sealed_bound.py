"""Keeps what waits sealed for a person within its bytes: the oldest goes first, is counted, and somebody is told.

A person takes things away, and so does time: a small one is counted anew each time, a large one as it grows, and anew now and
then and before anything is pushed out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog

from ...producers.sqlite_log import SqliteLog
from ...schemas.topics import ALERTS, QUARANTINE, REFUSED, Topic
from ..alert_rows import alert_record
from ..guardrails.alerting import Alerting

log = structlog.get_logger("tidegate.trimming")

# What goes in one transaction: some milliseconds for whoever waits to append.
_PART_BYTES: Final = 4 << 20
# Of several partitions the oldest goes first, give or take a minute: not record by record.
_ABOUT_MS: Final = 60_000
_FOREVER_MS: Final = 2**62
_END: Final = 2**62
# It is pushed out by a tenth at once, or it would be counted anew for each record that comes.
_DOWN_TO: Final = 0.9
# Counting looks at each record: this much takes some milliseconds, a gigabyte some seconds.
_SMALL_BYTES: Final = 16 << 20
_ANEW_EVERY_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Bounded:
    """What is bounded, and how it is told."""

    topic: Topic
    who: str
    name: str
    kind: str
    title: str


TEXTS: Final = Bounded(
    QUARANTINE,
    "guardrails",
    "quarantine_full",
    "guardrails_quarantine_full",
    "the quarantine is full ({:,} bytes): its oldest go unseen; see `tidegate quarantine list`",
)
LETTERS: Final = Bounded(
    REFUSED,
    "meter",
    "dead_letters_full",
    "dead_letters_full",
    "there are more dead letters than room ({:,} bytes): the oldest go unseen; see `tidegate dlq list`",
)


class SealedBound:
    """At most `most_bytes` of it, in all partitions of a data folder together. Used from one thread."""

    def __init__(self, trimmed: SqliteLog, bounded: Bounded, most_bytes: int) -> None:
        self._log = trimmed
        self._bounded = bounded
        self._topic = bounded.topic.name
        self._most_bytes = most_bytes
        self._counted: dict[int, int] = {}
        self._counted_anew_at = float("-inf")
        self._pushing = False
        self._untold = 0
        self._alerting = Alerting(bounded.who)
        self.size_bytes = 0
        self.pushed_out = 0

    def keep(self, now: float) -> int:
        """Push out a small part of what is too much. Returns how many records that was; to be asked again until it is none."""
        if self.size_bytes <= _SMALL_BYTES or now - self._counted_anew_at >= _ANEW_EVERY_S:
            self._count_anew(now)
        self._count()
        if not self._pushing and self.size_bytes > self._most_bytes:
            self._count_anew(now)
            self._pushing = self.size_bytes > self._most_bytes
        if not self._pushing:
            return 0
        gone = self._push_out()
        self.pushed_out += gone
        self._untold += gone
        self._pushing = gone > 0 and self.size_bytes > self._most_bytes * _DOWN_TO
        if not self._pushing:
            self._tell(now)
        return gone

    def _count_anew(self, now: float) -> None:
        self._counted, self.size_bytes, self._counted_anew_at = {}, 0, now
        self._count()

    def _count(self) -> None:
        """What has come since."""
        for partition in range(self._log.partitions):
            end = self._log.end_offset(self._topic, partition)
            if (start := self._counted.get(partition, 0)) < end:
                self.size_bytes += self._log.size_bytes(self._topic, partition, start)
                self._counted[partition] = end

    def _push_out(self) -> int:
        heads = {
            partition: records[0].appended_ms
            for partition in range(self._log.partitions)
            if (records := self._log.read(self._topic, partition, 0, max_bytes=1))
        }
        if not heads:
            return 0
        partition = min(heads, key=lambda partition: heads[partition])
        until_ms = min((ms for other, ms in heads.items() if other != partition), default=_FOREVER_MS) + _ABOUT_MS
        over = self.size_bytes - int(self._most_bytes * _DOWN_TO)
        found = self._log.oldest(self._topic, partition, _END, until_ms, max_bytes=min(over, _PART_BYTES))
        gone = self._log.trim(self._topic, partition, found.end, until_ms)
        self.size_bytes -= found.size_bytes
        return gone

    def _tell(self, now: float) -> None:
        log.warning(self._bounded.name, pushed_out=self._untold, most_bytes=self._most_bytes)
        self._untold = 0
        title = self._bounded.title.format(self._most_bytes)
        if alerts := self._alerting.tell(self._bounded.name, self._bounded.kind, title, now):
            with self._log.transaction():
                self._log.append(ALERTS.name, 0, [alert_record(alerts)])
