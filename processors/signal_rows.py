"""Words of policies as rows for the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from ..schemas.signal import Signal

_COPIED: Final = (
    *("policy", "policy_version", "state", "measure", "spend", "reserved", "limit", "remaining"),
    *("model", "per_minute", "probe_every_s", "burn_per_s", "reason", "sequence", "gates", "owner", "runbook"),
)
_TIMES: Final = ("at", "since", "window_start", "window_end", "resets_at", "exhausted_at")
# Some 0.5 MB.
_ROWS: Final = 500


@dataclass(frozen=True, slots=True)
class Kept:
    """A word that the store keeps. `withdrawn`: it is that the policy says nothing of the scope any more."""

    signal: Signal
    withdrawn: bool = False


def signal_records(words: Sequence[Kept]) -> list[tuple[None, dict[str, str], bytes]]:
    """Words as records of rows, each (key, headers, value). The same word has the same row, however often it is written."""
    return [_record(words[start : start + _ROWS]) for start in range(0, len(words), _ROWS)]


def _record(words: Sequence[Kept]) -> tuple[None, dict[str, str], bytes]:
    return None, {"schema": "rows/1", "count": str(len(words))}, b"\n".join(orjson.dumps(_row(word)) for word in words)


def _row(word: Kept) -> dict[str, Any]:
    signal = word.signal
    row: dict[str, Any] = {name: getattr(signal, name) for name in _COPIED}
    row["withdrawn"] = word.withdrawn
    row["scope"] = {name: value or "" for name, value in signal.scope.items()}
    row["scope_key"] = orjson.dumps(list(signal.scope.values())).decode()
    row["contributors"] = {"=".join(map(str, next(iter(c.scope.items())))): c.spend for c in signal.contributors}
    for name in _TIMES:
        at = getattr(signal, name)
        row[name] = None if at is None else datetime.fromtimestamp(at, UTC)
    return row
