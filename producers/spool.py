"""Where envelopes wait on disk while the log is away.

    <spool>/<producer>-<pid>-<hex>/      0700, one process's
        owner.lock                       flock held as long as that process lives
        00000001.seg, 00000002.seg …     0600, append-only: magic, then frames

    frame   length (4) · crc32 of the payload (4) · payload = headers as JSON, newline, the envelope's lines

Survives `kill -9` from the moment `append` returns, since the kernel has it; a power cut may cost what was appended
since the last `sync` (the emitter syncs about once a second, and when it closes). A torn tail is left out: those
events were never promised. A new process takes over the folders of dead ones and sends them first, with their
original numbers; a segment is deleted once all of it is in the log, so a crash before that sends some again, which
changes nothing.

Only lines that their schema has accepted come here: metering, and texts that are sealed already. Nothing to be read.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import orjson

from ..schemas.envelope import KNOWN_SCHEMAS, MAX_ENVELOPE_BYTES, Envelope
from ..schemas.errors import InvalidEvent

_MAGIC: Final = b"tidegate-spool/1\n"
_FRAME: Final = struct.Struct(">II")
# Small enough that what has been sent is soon deleted, large enough that files stay few (32 at the default bound).
_SEGMENT_BYTES: Final = 8 * 1024 * 1024
# An envelope and its headers, with room; a longer length is a torn or foreign frame.
_LONGEST_FRAME: Final = MAX_ENVELOPE_BYTES + 65_536


class Spool:
    """A queue of envelopes on disk, of one owner at a time. Every method may raise `OSError`."""

    def __init__(self, folder: Path, lock_fd: int, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.lost_bytes = 0  # torn tails, and frames that this version cannot read
        self._lock_fd = lock_fd
        self._segments = sorted(path.name for path in folder.iterdir() if path.suffix == ".seg")
        self._sizes = {name: (folder / name).stat().st_size for name in self._segments}
        self._last = int(self._segments[-1][:-4]) if self._segments else 0
        self._write_fd = -1
        self._read_fd = -1
        self._read_at = 0
        self._peeked: list[tuple[Envelope, int]] = []  # read and not yet acknowledged, with the offset behind each
        self._dirty = False

    @classmethod
    def create(cls, root: Path, producer: str, max_bytes: int) -> Self:
        """A new, empty spool under `root`, owned by this process."""
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = f"{re.sub(r'[^A-Za-z0-9_.-]', '_', producer)[:100].lstrip('.')}-{os.getpid()}-{secrets.token_hex(4)}"
        # Renamed into place once it is locked, so that nobody takes it for a dead process's in between.
        fresh = root / f".new-{name}"
        fresh.mkdir(mode=0o700)
        lock_fd = os.open(fresh / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder = fresh.rename(root / name)
            _sync_folder(root)
            return cls(folder, lock_fd, max_bytes)
        except BaseException:
            os.close(lock_fd)
            raise

    @property
    def size_bytes(self) -> int:
        """What it takes on disk."""
        return sum(self._sizes.values())

    @property
    def empty(self) -> bool:
        """Nothing is left to send. Exact only after `peek` has seen the end."""
        return not self._segments

    def append(self, envelopes: Sequence[Envelope]) -> int:
        """Put envelopes at the end, whole ones, until the bound is reached. Returns how many there was room for."""
        taken = 0
        for envelope in envelopes:
            if self.size_bytes + len(envelope.value) > self.max_bytes:
                break
            payload = orjson.dumps(envelope.headers()) + b"\n" + envelope.value
            frame = _FRAME.pack(len(payload), zlib.crc32(payload)) + payload
            if self.size_bytes + len(frame) + len(_MAGIC) > self.max_bytes:
                break
            self._write(frame)
            taken += 1
        return taken

    def _write(self, frame: bytes) -> None:
        if self._write_fd >= 0 and self._sizes[self._segments[-1]] >= _SEGMENT_BYTES:
            self._finish_segment()
        if self._write_fd < 0:
            self._last += 1
            name = f"{self._last:08d}.seg"
            self._write_fd = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._segments.append(name)
            self._sizes[name] = 0
            frame = _MAGIC + frame
        name = self._segments[-1]
        before = self._sizes[name]
        rest = memoryview(frame)
        self._dirty = True
        try:
            while rest:
                rest = rest[os.write(self._write_fd, rest) :]
        except OSError:
            # Half a frame would hide every later one of this segment: cut it off, and begin another segment next time.
            with contextlib.suppress(OSError):
                os.ftruncate(self._write_fd, before)
            with contextlib.suppress(OSError):
                self._finish_segment()
            raise
        self._sizes[name] = before + len(frame)

    def _finish_segment(self) -> None:
        fd, self._write_fd = self._write_fd, -1
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def peek(self, most: int) -> list[Envelope]:
        """The oldest envelopes, at most `most`; the same ones again until `ack`. Empty means that all is sent."""
        while len(self._peeked) < most and self._segments:
            if (found := self._read_frame()) is None:
                if self._peeked:  # what is behind this segment's end comes once this part is acknowledged
                    break
                self._drop_segment()
            else:
                self._peeked.append(found)
        return [envelope for envelope, _ in self._peeked[:most]]

    def _read_frame(self) -> tuple[Envelope, int] | None:
        if self._read_fd < 0:
            self._read_fd = os.open(self.folder / self._segments[0], os.O_RDONLY | os.O_CLOEXEC)
            self._read_at = len(_MAGIC) if os.pread(self._read_fd, len(_MAGIC), 0) == _MAGIC else 0
        at = self._peeked[-1][1] if self._peeked else self._read_at
        while at:
            head = os.pread(self._read_fd, _FRAME.size, at)
            length, crc = _FRAME.unpack(head) if len(head) == _FRAME.size else (_LONGEST_FRAME + 1, 0)
            payload = os.pread(self._read_fd, length, at + _FRAME.size) if length <= _LONGEST_FRAME else b""
            if len(payload) != length or zlib.crc32(payload) != crc:
                break
            at += _FRAME.size + length
            headers, _, value = payload.partition(b"\n")
            with contextlib.suppress(InvalidEvent, ValueError):
                return Envelope.from_record(orjson.loads(headers), value, KNOWN_SCHEMAS), at
        return None

    def _drop_segment(self) -> None:
        """The oldest segment holds nothing more."""
        if len(self._segments) == 1 and self._write_fd >= 0:
            os.close(self._write_fd)
            self._write_fd, self._dirty = -1, False
        self.lost_bytes += os.fstat(self._read_fd).st_size - self._read_at
        os.close(self._read_fd)
        self._read_fd, self._read_at = -1, 0
        name = self._segments.pop(0)
        del self._sizes[name]
        (self.folder / name).unlink()

    def ack(self, count: int) -> None:
        """The oldest `count` envelopes of `peek` are in the log."""
        if count:
            self._read_at = self._peeked[count - 1][1]
            del self._peeked[:count]
            self.peek(1)  # deletes the segment if that was the last of it

    def sync(self) -> None:
        """Make everything appended survive a power cut."""
        if self._dirty and self._write_fd >= 0:
            os.fsync(self._write_fd)
            _sync_folder(self.folder)
        self._dirty = False

    def close(self) -> None:
        """Leave what is unsent to the next process; leave no trace when there is nothing."""
        try:
            self.sync()
            if not self._segments:
                shutil.rmtree(self.folder)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the files and nothing else: what a forked child does with its parent's spool. Never unlocks: the lock
        belongs to the open file, which the parent shares."""
        for fd in (self._write_fd, self._read_fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self._write_fd = self._read_fd = self._lock_fd = -1


def adopt(root: Path, max_bytes: int) -> list[Spool]:
    """The spools under `root` whose owners are dead, now owned by this process. Folders of other users are left alone:
    in a shared place anybody could plant one."""
    found: list[Spool] = []
    if not root.is_dir():
        return found
    for folder in sorted(root.iterdir(), key=lambda path: path.name):
        if folder.name.startswith(".") or folder.is_symlink() or not folder.is_dir():
            continue
        try:
            if folder.stat().st_uid != os.geteuid():
                continue
            lock_fd = os.open(folder / "owner.lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            spool = Spool(folder, lock_fd, max_bytes)
        except OSError:  # its owner lives, or another process has just taken or removed it
            os.close(lock_fd)
            continue
        if spool.empty:
            spool.close()
        else:
            found.append(spool)
    return found


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
