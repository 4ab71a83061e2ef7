"""Rows that the store will not take: which ones of a batch they are, and what is written down instead of them.

One bad row refuses its whole batch. The batch is halved until the bad row stands alone; all others go in. Every half has
a token of its own, and the same batch has the same halves on every try, so a search that was cut off doubles nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

import orjson

STAGE: Final = "sink"

_NAMED: Final = "the store refuses this row; it is kept in the log under its source offset"
_NAMELESS: Final = "the store refuses this row, which does not say where it is from; the offset is its own in the topic named"
# What `seq`, `source_partition` and `source_offset` may be in the store, exclusively.
_OFFSETS: Final = 2**64
_PARTITIONS: Final = 2**16


def refused_lines(takes: Callable[[Sequence[bytes], str], bool], lines: Sequence[bytes], token: str) -> list[int]:
    """Which of `lines`, refused together under `token`, are refused on their own; ascending. All others are in the store.

    `takes(lines, token)` inserts, and says whether the store took them.
    """
    return _refused(takes, lines, 0, token)


def _refused(takes: Callable[[Sequence[bytes], str], bool], lines: Sequence[bytes], first: int, token: str) -> list[int]:
    if len(lines) == 1:
        return [first]
    middle = len(lines) // 2
    found: list[int] = []
    for side, start, half in (("a", 0, lines[:middle]), ("b", middle, lines[middle:])):
        if not takes(half, f"{token}.{side}"):
            found += _refused(takes, half, first + start, f"{token}.{side}")
    return found


def dead_letter(line: bytes, topic: str, partition: int, offset: int, at: datetime) -> bytes:
    """The row of `dead_letters` for a row of `topic` that was refused; `offset` is that of its record.

    It says where the row came from in `calls`, or where it is itself when it does not know (an alert, or what is no row
    at all). It holds nothing of the row but its size and its fingerprint.
    """
    row = _parsed(line)
    source = (_number(row, "source_partition", _PARTITIONS), _number(row, "source_offset", _OFFSETS))
    producer = row.get("producer")
    named = None not in source
    return orjson.dumps(
        {
            "at": at,
            "stage": STAGE,
            "source": topic,
            "line": None,
            "size_bytes": len(line),
            "sha256": sha256(line).hexdigest(),
            "reason": _NAMED if named else _NAMELESS,
            "producer": producer if isinstance(producer, str) else "",
            "seq": _number(row, "seq", _OFFSETS),
            "source_partition": source[0] if named else partition,
            "source_offset": source[1] if named else offset,
        }
    )


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return row if isinstance(row, dict) else {}


def _number(row: dict[str, Any], name: str, below: int) -> int | None:
    """A field the store will take: a dead letter must not be refused in its turn."""
    value = row.get(name)
    return value if type(value) is int and 0 <= value < below else None
