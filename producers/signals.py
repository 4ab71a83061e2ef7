"""The port between a gate and what policies say. One contract suite runs against every implementation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

# The position before the first record.
START: Final = -1

# (key, value); an empty value takes the key back.
SignalRecord = tuple[bytes, bytes]


class SignalSource(Protocol):
    """A compacted topic: first the last word on every key, then what is new. Polled from one thread at a time."""

    def poll(self, after: int, timeout_s: float) -> tuple[Sequence[SignalRecord], int]:
        """Records behind position `after` (`START`: all), waiting up to `timeout_s` for one, and the position to go on
        from. Raises `LogUnavailable` when nothing can be heard."""
        ...

    def announce(self, gate_id: str) -> None:
        """Say that this gate is there; repeated about every second. Raises `LogUnavailable`."""
        ...

    def close(self) -> None:
        """End a waiting poll soon, let go of connections, and say that the gate is gone where that can be said. From any
        thread, without waiting for the poll. Idempotent; a later poll opens again."""
        ...

    def abandon(self) -> None:
        """In the child of a fork: forget the parent's connections without closing them, which could end them for it."""
        ...
