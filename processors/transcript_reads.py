"""Who reads transcripts: each statement that can get at them is written into the audit log before it is answered.

What is kept of a statement is a fingerprint, which is the same for statements that differ in their literals alone; which of
the columns with texts it names; and of the calls it names, itself or by its parameters, those that there are. A literal is
never kept: it may be a name.

Better one statement too many than one too few: some functions find tables by a pattern or by a text that is put together, and
whatever uses one counts as a read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol

from ..producers.audit_log import AuditLog

# Statements come in ClickHouse's own spelling: no comments, no escapes in names that need none.
_STRING: Final = re.compile(r"'(?:[^'\\]|\\.)*'", re.DOTALL)
_NUMBER: Final = re.compile(r"\b\d[\w.]*")
_READS: Final = re.compile(
    r"\btranscripts\b|:\s*Identifier\}"
    r"|\b(?:eval|fuzzQuery|merge|mergeTree\w+|loop|cluster\w*|remote\w*|dictionary|view\w*)`?\("
)
_NO_TEXT: Final = re.compile(r"(?:SHOW|EXISTS)\b")
_TEXTS: Final = re.compile(r"\bredacted_(?:prompt|response|context)\b|\*|\bCOLUMNS\(")
_CALL_IDS: Final = re.compile(r"\bcall_id (?:=|IN) \(?((?:'(?:[^'\\]|\\.)*'(?:, )?)+)")
_CALL_ID: Final = re.compile(r"'([A-Za-z0-9_.:/-]{1,128})'")
_BOUND_ID: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
_KNOWN_CALLS: Final = "SELECT DISTINCT call_id FROM transcripts WHERE call_id IN {ids:Array(String)} ORDER BY call_id"
_MOST_CALLS: Final = 100
# Bytes of ids in one look-up: bound values travel in the URL, where each may grow threefold.
_LOOK_UP_BYTES: Final = 32 << 10


Hears = Callable[[str, Mapping[str, Any]], None]


class Store(Protocol):
    """What is needed of the store."""

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Any: ...


class TranscriptReads:
    """Hears the statements that people ask of one store."""

    def __init__(self, audit: AuditLog, store: Store) -> None:
        self._audit = audit
        self._store = store

    def by(self, actor: str, door: str, client: str | None = None) -> Hears:
        """What is told the statements of one who asks, and their parameters. It raises `UsageError` where the read cannot be
        written down."""

        def heard(statement: str, parameters: Mapping[str, Any]) -> None:
            if reads_transcripts(statement):
                told: dict[str, Any] = {"door": door, "client": client, "statement": fingerprint(statement)}
                told["texts"] = sorted({"*" if "_" not in name else name for name in _TEXTS.findall(blanked(statement))})
                found = self._calls(statement, parameters)
                told |= {"call_ids": found[:_MOST_CALLS], "more_calls": len(found) > _MOST_CALLS}
                self._audit.append("transcripts.read", details=told, actor=actor)

        return heard

    def _calls(self, statement: str, parameters: Mapping[str, Any]) -> list[str]:
        """The named calls that there are; of more than `_MOST_CALLS` not all, but more than that."""
        named = [call_id for among in _CALL_IDS.findall(statement) for call_id in _CALL_ID.findall(among)]
        # What a parameter is for, a statement does not say as plainly: each is looked for among the calls.
        for value in parameters.values():
            named += [call_id for text in _texts(value) for call_id in _BOUND_ID.findall(text)]
        found: list[str] = []
        # Cut is what is found, never what is named: ids that nobody has would hide those that are read.
        for ids in _batches(dict.fromkeys(named)):
            found += [row["call_id"] for row in self._store.query(_KNOWN_CALLS, {"ids": ids}).dicts()]
            if len(found) > _MOST_CALLS:
                break
        return sorted(found)


def _batches(call_ids: Iterable[str]) -> Iterator[list[str]]:
    """The ids in lists that a look-up can hold."""
    batch: list[str] = []
    room = _LOOK_UP_BYTES
    for call_id in call_ids:
        taken = len(call_id) + len("'',")
        if taken > room:
            yield batch
            batch, room = [], _LOOK_UP_BYTES
        batch.append(call_id)
        room -= taken
    if batch:
        yield batch


def _texts(value: Any) -> list[str]:
    """A parameter's value as text, each of several for itself; one that came over HTTP is an array's text as it is."""
    return [str(one) for one in value] if isinstance(value, list | tuple) else [str(value)]


def reads_transcripts(statement: str) -> bool:
    """Whether a statement may get at transcripts."""
    bare = blanked(statement)
    return bool(_READS.search(bare)) and not _NO_TEXT.match(bare)


def fingerprint(statement: str) -> str:
    """The same for statements that differ in their literals alone."""
    return hashlib.sha256(blanked(statement).encode()).hexdigest()[:16]


def blanked(statement: str) -> str:
    """A statement without its literals."""
    return _NUMBER.sub("0", _STRING.sub("''", statement))
