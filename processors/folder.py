"""Who owns a data folder: chDB allows one process, so a node takes a lock and leaves word of how to reach it.

node.lock   held (flock) by the process that has the folder open
node.json   {"pid", "url", "token"} of a running node, readable by its owner only
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import orjson

from ..schemas.errors import UsageError


@dataclass(frozen=True, slots=True)
class RunningNode:
    """How to reach the node that has a data folder open."""

    pid: int
    url: str
    token: str


class FolderLock:
    """The exclusive right to a data folder; freed when the process ends, however it ends."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        try:
            data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._handle: int | None = os.open(data_dir / "node.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise UsageError(f"{data_dir} cannot be used as a data folder: {error.strerror}; give --data DIR") from None

    def try_acquire(self) -> bool:
        if self._handle is None:
            raise ValueError("this lock was released")
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise UsageError(
                f"{self._data_dir} is on a file system without locks ({error.strerror}); use a local disk"
            ) from None
        return True

    def announce(self, url: str, token: str) -> None:
        """Leave word for other processes; the file appears whole."""
        path = self._data_dir / "node.json"
        draft = path.with_suffix(".tmp")
        draft.unlink(missing_ok=True)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(orjson.dumps({"pid": os.getpid(), "url": url, "token": token}))
        draft.replace(path)

    def withdraw(self) -> None:
        """Take back the word left for others, and keep the folder."""
        if self._handle is not None:
            (self._data_dir / "node.json").unlink(missing_ok=True)

    def release(self) -> None:
        """Give the folder up, and take back the word left for others."""
        self.withdraw()
        self.close()

    def close(self) -> None:
        """Let go of the lock file without touching the owner's word."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def running_node(data_dir: Path) -> RunningNode | None:
    """The node that has left word in the folder, or None. It may be gone: only the lock tells."""
    try:
        word = orjson.loads((data_dir / "node.json").read_bytes())
        return RunningNode(word["pid"], word["url"], word["token"])
    except (FileNotFoundError, orjson.JSONDecodeError, KeyError, TypeError):
        return None
    except PermissionError:
        raise UsageError(f"{data_dir} belongs to a node of another user; ask as that user") from None


def own_or_find(
    data_dir: Path, *, wait_s: float = 30.0, sleep: Callable[[float], None] = time.sleep
) -> FolderLock | RunningNode:
    """The folder's lock when nobody has it, otherwise the node that does.

    Waits for a node that is just starting or stopping, or for a command that has the folder: half a minute, which is
    longer than a query and a start together. Raises `UsageError`.
    """
    lock = FolderLock(data_dir)
    deadline = time.monotonic() + wait_s
    while True:
        if lock.try_acquire():
            # a word left by a node that was killed
            (data_dir / "node.json").unlink(missing_ok=True)
            return lock
        node = running_node(data_dir)
        if node is not None:
            lock.close()
            return node
        if time.monotonic() >= deadline:
            lock.close()
            raise UsageError(
                f"{data_dir} is in use by another process that does not answer for it; wait for it to end, or stop it"
            )
        sleep(0.05)
