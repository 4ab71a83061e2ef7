"""Which series are watched in each partition, and how far the past of each has been counted; kept in the usage topic.

    series|<id>  ──  Watch(from_offset, metered, parts, done, findings)

A series that is new is watched from the meter's next offset on. Everything below is in the store or on its way there, as
far as `metered` of the metered topic, or `findings` of the findings topic, and is counted once by `backfill.py`, in parts. A
series that is watched no more is forgotten with all its scopes: should it come back, it is new, and what it has missed is
counted from the store.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from ...producers.sqlite_log import SqliteLog
from ...schemas.topics import FINDINGS, METERED, USAGE
from ..series import usage_prefix
from ..watch import Watch

_PREFIX: Final = b"series|"
HEADERS: Final = {"schema": "usage/1"}


_decoder: Final = msgspec.json.Decoder(Watch)


def watches(log: SqliteLog, partition: int) -> dict[str, Watch]:
    """The series that are watched in a partition, by id."""
    found = log.keyed(USAGE.name, partition, _PREFIX)
    return {(record.key or b"")[len(_PREFIX) :].decode(): _decoder.decode(record.value) for record in found if record.value}


def record(series_id: str, watch: Watch) -> tuple[bytes, dict[str, str], bytes]:
    """What the usage topic says of a watch."""
    return _PREFIX + series_id.encode(), HEADERS, msgspec.json.encode(watch)


def settle(log: SqliteLog, partition: int, series: Iterable[str], next_offset: int) -> None:
    """Watch these series from now on, `next_offset` being the first that the meter has not applied, and forget all others;
    inside a `transaction`."""
    series, known = set(series), watches(log, partition)
    for gone in sorted(known.keys() - series):
        log.forget(USAGE.name, partition, usage_prefix(gone))
        log.forget(USAGE.name, partition, _PREFIX + gone.encode())
    new = sorted(series - known.keys())
    for name in new:
        log.forget(USAGE.name, partition, usage_prefix(name))
    ends = {topic: log.end_offset(topic.name, partition) for topic in (METERED, FINDINGS)}
    watch = Watch(next_offset, ends[METERED], findings=ends[FINDINGS])
    log.append(USAGE.name, partition, [record(name, watch) for name in new])
