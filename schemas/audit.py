"""One entry of an audit log: who did what, and when; chained to the entry before it by its hash.

    {"log", "seq", "at", "actor", "action", "subject", "details", "prev_hash", "hash"}      one line, or record

`hash` is SHA-256 over the line without it. An entry holds ids, counts, names of tenants and of the operating user; never a
text of a call, a key, or a literal of a statement.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self

import orjson

from .errors import UsageError

# What the first entry is chained to.
GENESIS: Final = "0" * 64
# One entry is a short line; who needs more has put something else in it.
MAX_LINE_BYTES: Final = 64 * 1024
# Of the random name of a chain.
LOG_BYTES: Final = 8

# Whose a key is that no tenant has for itself.
EVERYBODY: Final = "everybody"

# The log itself: written where its head was lost or is not ours, and where signing began.
RESUMED: Final = "audit.resumed"
SIGNED: Final = "audit.signed"

_FIELDS: Final = ("log", "seq", "at", "actor", "action", "subject", "details", "prev_hash", "hash")


@dataclass(frozen=True, slots=True)
class Entry:
    """`log` names the chain, `at` is UTC with milliseconds as text, `details` is canonical JSON."""

    log: str
    seq: int
    at: str
    actor: str
    action: str
    subject: str
    details: str
    prev_hash: str
    hash: str

    @classmethod
    def after(
        cls,
        log: str,
        last: Entry | None,
        at: datetime,
        actor: str,
        action: str,
        subject: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> Self:
        """The next entry of a chain; the first, where there is no last one."""
        seq, prev_hash = (last.seq + 1, last.hash) if last is not None else (1, GENESIS)
        told = orjson.dumps(dict(details or {}), option=orjson.OPT_SORT_KEYS).decode()
        when = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        unhashed = cls(log, seq, when, actor, action, subject, told, prev_hash, "")
        return cls(log, seq, when, actor, action, subject, told, prev_hash, unhashed.computed_hash())

    def computed_hash(self) -> str:
        """What `hash` is where nobody has changed anything."""
        return hashlib.sha256(self._json(_FIELDS[:-1])).hexdigest()

    def line(self) -> bytes:
        """The entry as it stands in the file, without the line's end."""
        return self._json(_FIELDS)

    def _json(self, fields: tuple[str, ...]) -> bytes:
        told = {name: getattr(self, name) for name in fields}
        told["details"] = orjson.Fragment(self.details)
        return orjson.dumps(told)

    @classmethod
    def parse(cls, line: bytes) -> Entry | None:
        """The entry of a line; None where it is not one, to the byte."""
        try:
            told = orjson.loads(line)
            details = orjson.dumps(told["details"], option=orjson.OPT_SORT_KEYS).decode()
            entry = cls(**{**told, "details": details})
            well_formed = isinstance(entry.seq, int) and entry.seq > 0 and entry.line() == line
        except (orjson.JSONDecodeError, orjson.JSONEncodeError, KeyError, TypeError):
            return None
        return entry if well_formed else None


def checked(entry: Entry) -> Entry:
    """The entry, if it is one to be kept. Raises `UsageError` where it is too long."""
    if len(entry.line()) > MAX_LINE_BYTES:
        raise UsageError(f"an audit entry has at most {MAX_LINE_BYTES} bytes; name fewer things in one command")
    return entry
