"""The audit log of a data folder: who did what with keys, sealed texts, policies, schema, transcripts and the node itself.

audit.jsonl       0600; a line an entry, each chained to the one before by its hash; only ever appended to
audit.head.json   the newest entry and its signature (`audit_head`), written first
audit.lock        flock held while somebody appends: the node, commands and services each do

An entry is on disk before the act it tells of: no act goes without one, and a crash in between leaves an entry of an act that
did not come to be. Appending mends what a crash has left, and nothing else: where the file was tampered with, the next entry
is chained to the head all the same, so that the gap stays to be seen. `audit_chain` looks for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ..schemas.audit import LOG_BYTES, MAX_LINE_BYTES, RESUMED, SIGNED, Entry, checked
from ..schemas.errors import UsageError
from .audit_chain import Chain
from .audit_head import Head, Signature
from .keyring import KeyRing

FILE: Final = "audit.jsonl"
HEAD: Final = "audit.head.json"
_LOCK: Final = "audit.lock"


class AuditLog:
    """The log of one folder. Holds nothing open, and may be used from any thread and process."""

    def __init__(
        self,
        data_dir: Path,
        ring: Callable[[], KeyRing | None] = lambda: None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        at: Callable[[str], None] = lambda _step: None,
    ) -> None:
        """`ring` gives what signs, or None; it must not append itself. `at` hears of each step, for tests of crashes."""
        self._folder = data_dir
        self.path = data_dir / FILE
        self.head_path = data_dir / HEAD
        self.ring = ring
        self._now = now
        self._at = at

    def append(
        self,
        action: str,
        subject: str = "",
        details: Mapping[str, Any] | None = None,
        *,
        actor: str | None = None,
        ring: KeyRing | None = None,
    ) -> Entry:
        """Write one entry, and have it on disk. `actor`: by default the user this process runs as. `ring`: signs, in the place
        of the usual one. Raises `UsageError` when it cannot be written."""
        try:
            ring = ring or self.ring()
            with self._turn():
                return self._write(ring, actor or operator(), action, subject, details)
        except OSError as error:
            raise UsageError(f"the audit log {self.path} cannot be written ({error.strerror}), so nothing was done") from None

    def lines(self) -> tuple[Iterator[bytes], Head | None]:
        """All whole lines, and the head that belongs to them. Raises `UsageError`."""
        try:
            if not self.path.exists() and not self.head_path.exists():
                return iter(()), None
            with self._turn():
                head = Head.read(self.head_path)
                end = self.path.stat().st_size if self.path.exists() else 0
            return _lines(self.path, end), head
        except OSError as error:
            raise UsageError(f"the audit log {self.path} cannot be read ({error.strerror})") from None

    def added(self, start: int) -> Iterator[tuple[bytes, int]]:
        """The whole lines from a byte on that begins one, and where each ends. Raises `UsageError`."""
        try:
            with self._turn():
                end = self._size()
            for line in _lines(self.path, end, start):
                start += len(line) + 1
                if start <= end:
                    yield line, start
        except OSError as error:
            raise UsageError(f"the audit log {self.path} cannot be read ({error.strerror})") from None

    @contextmanager
    def _turn(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _write(self, ring: KeyRing | None, actor: str, action: str, subject: str, details: Mapping[str, Any] | None) -> Entry:
        head = Head.read(self.head_path)
        self._mend(head)
        last, log, signature = (head.entry, head.entry.log, head.signature) if head is not None else (None, "", None)
        before: tuple[str, dict[str, str]] | None = None
        if head is None:
            last = self._last_readable()
            log = last.log if last is not None else secrets.token_hex(LOG_BYTES)
            if self._size():
                before = RESUMED, {"why": "there was no head"}
        elif signature is not None and ring is not None and (holds := signature.holds(log, ring)) is not True:
            if holds is False:
                before = RESUMED, {"why": "the signature was not its key's"}
            elif (head.entry.action, head.entry.details) == ("key.made", f'{{"key":"{signature.key}"}}'):
                before = RESUMED, {"why": "the ring that signed was never kept"}  # killed while it was made
            else:
                ring = None  # another ring: who cannot check a signature does not put theirs over it
        elif signature is not None and ring is not None and not self._has_signed(signature, head, ring):
            before = RESUMED, {"why": "what was signed is not in the chain any more"}
        elif signature is None and ring is not None and ring.own(None) is not None:
            before = SIGNED, {}
        for what, of, told in (
            ((before[0], "", before[1]), (action, subject, details)) if before else ((action, subject, details),)
        ):
            last = checked(Entry.after(log, last, self._now(), actor, what, of, told))
            signature = _signed(last, ring, signature)
            Head(last, signature).write(self.head_path)
            self._at("1 head")
            self._add(last.line() + b"\n")
            self._at("2 line")
        assert last is not None  # noqa: S101  # the loop above runs at least once
        return last

    def _has_signed(self, signature: Signature, head: Head, ring: KeyRing) -> bool:
        """Whether what was signed leads to this head."""
        if signature.seq == head.entry.seq:
            return signature.hash == head.entry.hash
        # Somebody without the ring has written since: only the chain tells whether what was signed is still in it.
        chain = Chain()
        for line in _lines(self.path, self._size()):
            chain.see(line)
        chain.end(head, ring)
        return all(problem.seq < signature.seq for problem in chain.problems)

    def _mend(self, head: Head | None) -> None:
        """Write the line that a crash has left in the head alone, and put an end to half a line."""
        if head is None:
            return
        whole, _, torn = self._tail().rpartition(b"\n")
        newest = head.entry.line()
        if torn and newest.startswith(torn):
            os.truncate(self.path, self._size() - len(torn))
        elif torn:
            self._add(b"\n")
            return
        before = Entry.parse(whole.rpartition(b"\n")[2])
        follows = not whole and head.entry.seq == 1 and not self._size()
        if follows or (before is not None and (before.seq + 1, before.hash) == (head.entry.seq, head.entry.prev_hash)):
            self._add(newest + b"\n")

    def _add(self, content: bytes) -> None:
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def _size(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return self.path.stat().st_size
        return 0

    def _tail(self) -> bytes:
        """The last bytes: two entries at least, where there are two."""
        if not self._size():
            return b""
        with self.path.open("rb") as file:
            file.seek(max(0, self._size() - 2 * (MAX_LINE_BYTES + 1)))
            return file.read()

    def _last_readable(self) -> Entry | None:
        last = None
        for line in _lines(self.path, self._size()) if self._size() else ():
            last = Entry.parse(line) or last
        return last


def operator() -> str:
    """The user this process runs as."""
    try:
        return f"user:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:  # in a container, users need no name
        return f"user:{os.getuid()}"


def _signed(entry: Entry, ring: KeyRing | None, before: Signature | None) -> Signature | None:
    key = ring.own(None) if ring is not None else None
    return Signature.of(entry, key) if key is not None else before


def _lines(path: Path, end: int, start: int = 0) -> Iterator[bytes]:
    """The lines from a byte up to another. What follows the last line's end is half a line, and given as one."""
    if start >= end:
        return
    with path.open("rb") as file:
        file.seek(start)
        while (at := file.tell()) < end and (line := file.readline(end - at)):
            yield line.removesuffix(b"\n")
