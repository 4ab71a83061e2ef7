"""A store's answer as a page takes it: names and rows, times in ISO with a Z, numbers as numbers, NULL as null. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson

# The format to ask the store for.
FORMAT: Final = "JSONCompact"
_WRAPPED: Final = re.compile(r"(?:Nullable|LowCardinality)\((.*)\)\Z")


@dataclass(frozen=True, slots=True)
class Rows:
    columns: list[str]
    rows: list[list[Any]]

    def dicts(self) -> list[dict[str, Any]]:
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def rows_of(answer: bytes) -> Rows:
    """Reads JSONCompact."""
    found = orjson.loads(answer)
    rows: list[list[Any]] = found["data"]
    for place, column in enumerate(found["meta"]):
        if (made := _maker(column["type"])) is not None:
            for row in rows:
                if row[place] is not None:
                    row[place] = made(row[place])
    return Rows([column["name"] for column in found["meta"]], rows)


def _maker(kind: str) -> Callable[[Any], Any] | None:
    while wrapped := _WRAPPED.match(kind):
        kind = wrapped[1]
    if kind.startswith("DateTime"):
        return _time
    if kind.startswith(("Int", "UInt")):
        return int  # 64 bits come as text from some servers
    return float if kind.startswith(("Decimal", "Float")) else None


def _time(text: str) -> str:
    return text.replace(" ", "T").removesuffix(".000000").removesuffix(".000") + "Z"
