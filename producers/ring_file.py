"""A key ring in a file: read only where nobody else can, changed by one process at a time, never seen half written.

keys.json        0600
keys.json.lock   flock held while somebody changes it
.keys.json-…     what it becomes, until it is whole
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ..schemas.errors import UsageError
from .keyring import MAX_RING_BYTES, KeyRing

_DRAFT_BYTES: Final = 6


def read_ring(path: Path) -> KeyRing:
    """The ring in a file that only its owner may read. Raises `UsageError`."""
    while True:
        try:
            with path.open("rb") as file:
                found = os.fstat(file.fileno())
                mode = found.st_mode & 0o777
                content = b"" if mode & 0o077 else file.read(MAX_RING_BYTES + 1)
        except OSError as error:
            raise UsageError(
                f"the key ring {path} cannot be read ({error.strerror}); make one: tidegate keys make --file {path}"
            ) from None
        if mode & 0o077:
            raise UsageError(f"the key ring {path} can be read by others (mode {mode:04o}); chmod 600 {path}")
        try:
            return KeyRing.parse(content, f"the key ring {path}")
        except UsageError:
            # Replaced, and written over, under our eyes, perhaps: then there is a new file in its place.
            with contextlib.suppress(OSError):
                now = path.stat()
                if (now.st_ino, now.st_mtime_ns) != (found.st_ino, found.st_mtime_ns):
                    continue
            raise


def _untold(_before: KeyRing | None, _after: KeyRing) -> None:
    return None


def change_ring(
    path: Path,
    change: Callable[[KeyRing], KeyRing],
    *,
    make: bool = False,
    tell: Callable[[KeyRing | None, KeyRing], None] = _untold,
) -> KeyRing:
    """Put `change(ring)` in the place of the ring; the file appears whole, and others wait for their turn.

    `make` begins with a new ring where there is no file. `tell` hears what was and what will be, right before it is; it may
    refuse. The file that was replaced is written over before its blocks are let go, and so is what a killed process has left:
    the best that can be done from here, since file systems that copy on write, flash disks, snapshots and backups keep copies
    of their own. Raises `UsageError`.
    """
    try:
        path = path.resolve()
        with _turn(path):
            _wipe_drafts(path)
            there = not make or path.exists()
            before = read_ring(path) if there else KeyRing.made()
            after = change(before)
            if after is not before or not there:
                content = after.dump()
                try:
                    KeyRing.parse(content, "what it would become")
                except UsageError:
                    raise UsageError(
                        f"the key ring {path} was left as it was: a tenant's name has 1 to 128 printable characters"
                    ) from None
                tell(before if there else None, after)
                _replace(path, content)
            return after
    except OSError as error:
        raise UsageError(f"the key ring {path} cannot be written ({error.strerror})") from None


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock_fd = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock_fd)


def _replace(path: Path, content: bytes) -> None:
    """The new ring in the place of the old one, whose bytes are then written over: a key that is shredded later would
    else be in every copy that was ever replaced."""
    draft = path.with_name(f".{path.name}-{secrets.token_hex(_DRAFT_BYTES)}")
    old_fd = -1
    with contextlib.suppress(FileNotFoundError):
        old_fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except BaseException:
            _wipe(draft)
            raise
        _sync_folder(path.parent)
        if old_fd >= 0:
            _overwrite(old_fd)
    finally:
        if old_fd >= 0:
            os.close(old_fd)


def _wipe_drafts(path: Path) -> None:
    """What processes that were killed in the middle of a change have left. In turn only: nobody else's is under way."""
    is_draft = re.compile(rf"\.{re.escape(path.name)}-[0-9a-f]{{{2 * _DRAFT_BYTES}}}")
    for found in path.parent.iterdir():
        if is_draft.fullmatch(found.name):
            _wipe(found)


def _wipe(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            path.unlink()
            _overwrite(fd)
        finally:
            os.close(fd)


def _overwrite(fd: int) -> None:
    found = os.fstat(fd)
    # With another name it is somebody's copy, with keys that nobody wants gone.
    if found.st_nlink:
        return
    done = 0
    while done < found.st_size:
        done += os.pwrite(fd, bytes(found.st_size - done), done)
    os.fsync(fd)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
