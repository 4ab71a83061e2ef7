"""The audit log's copy in the store: brought up to date from the file by whoever has the folder.

    audit.jsonl ─► AuditCopy.run_once ─► table audit          (the node, every second; commands that have the folder)

What the table has stays as it is: `audit_check` compares it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Final, Protocol

import structlog

from ..producers.audit_log import AuditLog
from ..schemas.audit import Entry
from ..schemas.errors import StoreUnavailable, TidegateError

log = structlog.get_logger("tidegate.audit")

# Of one insert.
_BATCH: Final = 10_000
_EVERY_S: Final = 1.0


class Store(Protocol):
    """What is needed of the store."""

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Any: ...
    def insert(self, table: str, lines: bytes, token: str) -> None: ...


class AuditCopy:
    """Carries what is new into the store. Only the process that has the folder does; used from one thread."""

    def __init__(self, audit: AuditLog, store: Store) -> None:
        self._audit = audit
        self._store = store
        self._seen: tuple[int, int] | None = None
        self._begin()

    def _begin(self) -> None:
        """Look at the whole file, and at what the table has of it, the next time."""
        self._read, self._file = 0, -1
        self._known: dict[str, int] | None = None

    def run_once(self) -> int:
        """Insert the entries that the table does not have yet; how many. Reads on from where it has been, unless the file is
        another one, or shorter, since. Raises `TidegateError`."""
        try:
            found = self._audit.path.stat()
        except FileNotFoundError:
            return 0
        if self._seen == (found.st_size, found.st_mtime_ns):
            return 0
        if found.st_ino != self._file or found.st_size < self._read:
            self._begin()
        try:
            done = self._copy(self._known if self._known is not None else self._in_table())
        except BaseException:
            # How much of it the table has is not known.
            self._begin()
            raise
        self._seen, self._file = (found.st_size, found.st_mtime_ns), found.st_ino
        return done

    def _in_table(self) -> dict[str, int]:
        last = self._store.query("SELECT log, max(seq) AS last FROM audit GROUP BY log").dicts()
        return {row["log"]: row["last"] for row in last}

    def _copy(self, known: dict[str, int]) -> int:
        done, batch = 0, list[Entry]()
        for line, end in self._audit.added(self._read):
            self._read = end
            entry = Entry.parse(line)
            if entry is not None and entry.seq > known.get(entry.log, 0):
                batch.append(entry)
                known[entry.log] = entry.seq
            if len(batch) == _BATCH:
                done += self._insert(batch)
                batch = []
        done += self._insert(batch)
        self._known = known
        return done

    def _insert(self, batch: list[Entry]) -> int:
        if batch:
            first, last = batch[0], batch[-1]
            token = f"audit:{first.log}:{first.seq}-{last.seq}:{last.hash}"
            self._store.insert("audit", b"\n".join(entry.line() for entry in batch), token)
        return len(batch)


class AuditCopying:
    """`AuditCopy` in a thread of its own, from `start` to `stop`, which copies the rest."""

    def __init__(self, audit: AuditLog, store: Store) -> None:
        self._copy = AuditCopy(audit, store)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tidegate-audit")
        self._trouble = ""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._try()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._try()
            self._stopping.wait(_EVERY_S)

    def _try(self) -> None:
        # What is in the file is safe: the copy can wait for the store, and for somebody to mend it.
        try:
            self._copy.run_once()
            self._trouble = ""
        except (TidegateError, OSError, ValueError) as error:  # the last: an entry that somebody has written by hand
            if self._trouble != str(error):
                self._trouble = str(error)
                log.warning("audit_not_copied", error=self._trouble, waits=isinstance(error, StoreUnavailable))
