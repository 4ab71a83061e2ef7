"""What was removed of a person, how that was looked into, and what is left where nobody here can reach it. Names no person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any, Final

import orjson

_WAYS: Final = {
    "deleted": "deleted",
    "moved": "summed up under nobody",
    "emptied": "kept under nobody",
}


@dataclass(slots=True)
class ErasureReport:
    """Counts are of rows, and of records of the log; times are ISO 8601, UTC."""

    tenant: str
    # Keyed: who has the ring can tell whether it is of a certain person.
    fingerprint: str
    began_at: str
    ended_at: str = ""
    # Of each table: how many rows, and what became of them.
    store: dict[str, tuple[int, str]] = field(default_factory=dict)
    log: dict[str, int] = field(default_factory=dict)
    # Of each thing that was looked at afterwards: how many traces there were.
    checked: dict[str, int] = field(default_factory=dict)
    # What they were found in, and what could not be looked at.
    traces: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    # What, and until when.
    remains: list[tuple[str, str]] = field(default_factory=list)

    @property
    def proven(self) -> bool:
        """Everything that was looked at is without a trace, and there is nothing here that could not be looked at."""
        return bool(self.checked) and not any(self.checked.values()) and not self.traces and not self.unchecked

    def json(self) -> bytes:
        told = {"version": version("tidegate"), "proven": self.proven, **asdict(self)}
        return orjson.dumps(told, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    def markdown(self, *, dry: bool = False) -> bytes:
        if dry:
            return "\n".join(["# What there is of a person", "", *self._removed("In")]).encode()
        lines = [
            "# A person was forgotten",
            "",
            f"Tenant {self.tenant}, person {self.fingerprint} (a keyed fingerprint), from {self.began_at} to {self.ended_at}.",
            "",
            "**Nothing is left of them in what was looked at.**"
            if self.proven
            else "**Not proven: see what was found, or could not be looked at.**",
            "",
            *self._removed("Removed from"),
            *_table("Looked at afterwards", ("what", "traces"), [(what, f"{count:,}") for what, count in self.checked.items()]),
            *_list("Found", self.traces),
            *_list("Not looked at", self.unchecked),
            *_table("Out of reach", ("what", "until"), self.remains),
        ]
        return "\n".join(lines).encode()

    def _removed(self, where: str) -> list[str]:
        return [
            *_table(f"{where} the store", ("table", "rows", "what becomes of them"), _stored(self.store)),
            *_table(f"{where} the log", ("topic", "records"), [(name, f"{count:,}") for name, count in self.log.items()]),
        ]


def _stored(store: Mapping[str, tuple[int, str]]) -> list[tuple[str, ...]]:
    return [(table, f"{count:,}", _WAYS.get(way, way)) for table, (count, way) in store.items()]


def _table(title: str, header: tuple[str, ...], rows: list[Any]) -> list[str]:
    if not rows:
        return [f"## {title}", "", "Nothing.", ""]
    cells = [header, tuple("---" for _ in header), *rows]
    return [f"## {title}", "", *(f"| {' | '.join(row)} |" for row in cells), ""]


def _list(title: str, items: list[str]) -> list[str]:
    return [f"## {title}", "", *(f"- {item}" for item in items), ""] if items else []
