"""The meter's own sums as rows for the store, by hour: what its priced rows must add up to.

    usage that a flush changed ─► due ─(every 15 s, or as it leaves memory)─► rows of usage_ledger

Rows are absolute, one for each (source partition, scope, hour), and the one that counts the most offsets is the one that
counts. So one may be written twice, late, or not at all when a newer one follows; whoever begins anew writes all that is live.

Sums are by the scope sets that name no user: the ledger may be kept for ever, and shall remember nobody.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from ..schemas.usage import BUCKET_S, COUNTERS, Usage
from .aggregate import LIVE_S, UsageKey
from .meter import MeterState, Out

# A busy hour's sums change with every flush. Each row costs some 5 µs, so ten thousand scopes take a third of a percent.
EVERY_MS: Final = 15_000
# Some 0.5 MB a record.
_ROWS: Final = 1_000
_LEAVES_S: Final = BUCKET_S["hour"] + LIVE_S["hour"]


class Ledger:
    """What of one source partition the store may not know yet. `beside`: late events are counted beside the bucket that has
    left memory (in a changelog), as (key, number, sums, the last offset counted); else such a bucket is whole again."""

    def __init__(self, state: MeterState, beside: Iterable[tuple[UsageKey, int, Usage, int]] | None = None) -> None:
        self._state = state
        self._beside = beside is not None
        self._due = {key for key in state.usage.live if _is_kept(key)}
        self._rows = [
            _row(state.partition, key, usage, offset, number) for key, number, usage, offset in beside or () if _is_kept(key)
        ]
        self._taken_ms: int | None = None
        self._watermark_s = 0

    def is_due(self, now_ms: int, *, everything: bool = False) -> bool:
        """Whether there is something to take, and it is time."""
        if not (self._due or self._rows):
            return False
        return everything or self._taken_ms is None or not self._taken_ms <= now_ms < self._taken_ms + EVERY_MS

    def take(self, now_ms: int, *, everything: bool = False) -> list[Out]:
        """The records to write now. Once for each flush, before the state is told that it is `flushed`."""
        state, usage = self._state, self._state.usage
        self._due.update(key for key in usage.changed if _is_kept(key))
        rows, self._rows = self._rows, []
        if self.is_due(now_ms, everything=everything):
            taken, self._due = self._due, set()
            self._taken_ms = now_ms
        elif usage.late or usage.watermark_s != self._watermark_s:
            # What leaves memory with this flush is not at hand later.
            taken = {key for key in self._due if key.start < usage.watermark_s - _LEAVES_S}
            self._due -= taken
        else:
            taken = set()
        self._watermark_s = usage.watermark_s
        late = set(usage.late) if self._beside else ()
        offset = state.next_offset - 1
        for key in taken:
            rows.append(_row(state.partition, key, usage.live[key], offset, state.next_offset if key in late else 0))
        at = datetime.fromtimestamp(now_ms / 1_000, UTC)
        return [_record(rows[start : start + _ROWS], at) for start in range(0, len(rows), _ROWS)]


def _is_kept(key: UsageKey) -> bool:
    return key[2] == "hour" and "user" not in key[0]


def _record(rows: list[dict[str, Any]], at: datetime) -> Out:
    value = b"\n".join(orjson.dumps(row | {"at": at}) for row in rows)
    return {"schema": "rows/1", "count": str(len(rows))}, value


def _row(partition: int, key: UsageKey, usage: Usage, offset: int, beside: int) -> dict[str, Any]:
    scope = dict(zip(key.fields, key.values, strict=True))
    return {
        "hour": datetime.fromtimestamp(key.start, UTC),
        "scope_set": ",".join(key.fields),
        "scope_key": orjson.dumps(key.values).decode(),
        "tenant": scope.get("tenant"),
        "scope": {name: value or "" for name, value in scope.items()},
        **dict(zip(COUNTERS, usage.counts, strict=True)),
        "errors_by_type": usage.errors,
        "source_partition": partition,
        "source_offset": offset,
        "beside": beside,
    }
