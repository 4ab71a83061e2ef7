"""The port between the Emitter and a durable log. One contract suite runs against every implementation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..schemas.envelope import Envelope


class Log(Protocol):
    """A durable log that takes envelopes. Used from one thread at a time."""

    def append(self, envelopes: Sequence[Envelope]) -> None:
        """Make all of them durable, in order, before returning; on an error none, some or all may be there, and
        appending the same envelopes again is harmless.

        Raises `LogUnavailable` when trying again may help, `EnvelopeRefused` when it cannot.
        """
        ...

    def close(self) -> None:
        """Let go of connections. Idempotent; a later `append` opens them again."""
        ...
