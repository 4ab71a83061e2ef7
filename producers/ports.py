"""The port between the Emitter and a durable log. One contract suite runs against every implementation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ..schemas.envelope import Envelope


class Position(NamedTuple):
    """Where an envelope is in its topic."""

    partition: int
    offset: int


class Settled(Protocol):
    """Something that waits to hear where its event went: a gate's reservation."""

    def placed(self, position: Position | None) -> None:
        """The event is in the log there; None: it is not, or nobody knows. From any thread, takes no lock."""
        ...


class Log(Protocol):
    """A durable log that takes envelopes: calls and content, each into its own topic. Used from one thread at a time."""

    def append(self, envelopes: Sequence[Envelope]) -> Sequence[Position | None]:
        """Make all of them durable, in order, before returning; on an error none, some or all may be there, and
        appending the same envelopes again is harmless. Returns where each is; None where the log does not say.

        Raises `LogUnavailable` when trying again may help, `EnvelopeRefused` when it cannot.
        """
        ...

    def close(self) -> None:
        """Let go of connections. Idempotent; a later `append` opens them again."""
        ...
