"""Follows the on-call file: a good edit counts within seconds, a bad one keeps the file before it in force."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ..schemas.errors import UsageError
from .on_call_file import OnCall, read_on_call

_LOOK_EVERY_S: Final = 2.0


class OnCallWatch:
    """`current` is in force; `problem` says what is wrong with the file, for as long as that is so. Raises `UsageError` when it
    is bad at the start: nobody would be told."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.current: OnCall = read_on_call(path)
        self.problem: str | None = None
        self._stamp = self._look()
        self._looked_at = float("-inf")

    def poll(self, now: float) -> OnCall:
        """What is in force at `now`, seconds."""
        if self._path is None or 0 <= now - self._looked_at < _LOOK_EVERY_S:
            return self.current
        self._looked_at = now
        stamp = self._look()
        if stamp != self._stamp or self.problem:
            self._stamp = stamp
            try:
                self.current, self.problem = read_on_call(self._path), None
            except UsageError as error:
                self.problem = str(error)
        return self.current

    def _look(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat() if self._path else None
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_size) if found else None
