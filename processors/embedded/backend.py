"""What the doors ask of whatever is behind them: one data folder's pipeline, or Kafka and a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ...producers.ports import Log
from ...producers.signals import SignalRecord
from ...sinks.clickhouse import Store
from ..call_account import CallAccount
from ..incident_desk import Desk
from ..letters import Keeper


class Feed(Protocol):
    """The compacted topic of signals, for many gates at once."""

    def news(self, after: int) -> tuple[Sequence[SignalRecord], int]:
        """Some of the records behind position `after` (-1: of all), oldest first, and the position to go on from. Waits for
        nothing: no records, no news. Used from one thread. Raises `LogUnavailable`."""
        ...

    def word(self, key: bytes) -> bytes | None:
        """The last word on a key; None or nothing: there is none. Used from the thread of `news`. Raises `LogUnavailable`."""
        ...

    def announce(self, gate_id: str) -> None:
        """Write down that a gate is there; may wait. Used from one thread, another one. Raises `LogUnavailable`."""
        ...

    def close(self) -> None: ...


class Backend(Protocol):
    """A log, a store and the work between them, from `start` to `close`."""

    @property
    def log(self) -> Log:
        """Where events go; used from one thread at a time."""
        ...

    @property
    def content_log(self) -> Log:
        """Where sealed texts go: another connection, which shares nothing that could be in the way of events."""
        ...

    @property
    def store(self) -> Store: ...

    @property
    def feed(self) -> Feed: ...

    def desk(self) -> Desk:
        """The incidents; another one each time, for whoever closes it, to be used from one thread. Raises `LogUnavailable`."""
        ...

    @property
    def keeper(self) -> Keeper:
        """Seals what the doors refuse."""
        ...

    @property
    def behind(self) -> bool:
        """So much waits that more should not be taken."""
        ...

    @property
    def content_behind(self) -> bool:
        """So much content waits that no more of it should be taken."""
        ...

    @property
    def unready(self) -> str | None:
        """Why a load balancer should ask somebody else, in two words; None: ready."""
        ...

    @property
    def failure(self) -> BaseException | None:
        """What has ended the work, if anything has."""
        ...

    def status(self) -> dict[str, Any]:
        """The account of every event, the lags, the policies' standing and the newest day's usage by model."""
        ...

    def accounts(self) -> Mapping[int, CallAccount]:
        """What is counted of calls for Prometheus, by source partition; nothing where other processes tell it."""
        ...

    def start(self) -> None: ...

    def close(self) -> None:
        """Bring what was accepted into the store, as far as that is its work, and let go. Called when the doors are shut."""
        ...
