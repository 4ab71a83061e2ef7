"""A key ring in a file: read only where nobody else can, changed by one process at a time, never seen half written.

keys.json        0600
keys.json.lock   flock held while somebody changes it
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..schemas.errors import UsageError
from .keyring import MAX_RING_BYTES, KeyRing


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
            # Shredded under our eyes, perhaps: then there is a new file in its place.
            with contextlib.suppress(OSError):
                if path.stat().st_ino != found.st_ino:
                    continue
            raise


def change_ring(path: Path, change: Callable[[KeyRing], KeyRing], *, make: bool = False) -> KeyRing:
    """Put `change(ring)` in the place of the ring; the file appears whole, and others wait for their turn.

    `make` begins with a new ring where there is no file. A file with keys that are gone is written over before its blocks
    are let go: the best that can be done from here, since disks and backups keep copies of their own. Raises `UsageError`.
    """
    try:
        path = path.resolve()
        with _turn(path):
            before = KeyRing.made() if make and not path.exists() else read_ring(path)
            after = change(before)
            if after is not before or not path.exists():
                gone = {key.key_id for key in before.keys} - {key.key_id for key in after.keys}
                content = after.dump()
                try:
                    KeyRing.parse(content, "what it would become")
                except UsageError:
                    raise UsageError(
                        f"the key ring {path} was left as it was: a tenant's name has 1 to 128 printable characters"
                    ) from None
                _replace(path, content, shred=bool(gone))
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


def _replace(path: Path, content: bytes, *, shred: bool) -> None:
    draft = path.with_name(f".{path.name}-{secrets.token_hex(6)}")
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
            draft.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
        # With another name it is somebody's copy, with keys that nobody wants gone.
        if shred and old_fd >= 0 and (old := os.fstat(old_fd)).st_nlink == 0:
            os.pwrite(old_fd, bytes(old.st_size), 0)
            os.fsync(old_fd)
    finally:
        if old_fd >= 0:
            os.close(old_fd)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
