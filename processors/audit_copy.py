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

    def run_once(self) -> int:
        """Insert the entries that the table does not have yet; how many. Raises `TidegateError`."""
        try:
            found = self._audit.path.stat()
        except FileNotFoundError:
            return 0
        if self._seen == (found.st_size, found.st_mtime_ns):
            return 0
        known: dict[str, int] = {
            row["log"]: row["last"] for row in self._store.query("SELECT log, max(seq) AS last FROM audit GROUP BY log").dicts()
        }
        done, batch = 0, list[Entry]()
        lines, _ = self._audit.lines()
        for entry in filter(None, map(Entry.parse, lines)):
            if entry.seq > known.get(entry.log, 0):
                batch.append(entry)
                known[entry.log] = entry.seq
            if len(batch) == _BATCH:
                done += self._insert(batch)
                batch = []
        done += self._insert(batch)
        self._seen = (found.st_size, found.st_mtime_ns)
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
