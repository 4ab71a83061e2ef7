"""What lies in quarantine: sealed content that nobody could judge, one record a text, and why.

    held ─► looked at, its text only by whoever has the key
         ─► released: it is content again, under a producer's name that was never used, so that its verdict counts
         ─► dropped

A released text has two verdicts: the one that says why it was quarantined, and the new one. Such records are kept in data
folders and on Kafka; both are a `Quarantine`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple, Protocol, Self

from ..schemas.content import ContentEvent, decode_content
from ..schemas.envelope import CONTENT_SCHEMA, Envelope
from ..schemas.errors import InvalidEvent, UsageError


class Place(NamedTuple):
    """Where a record lies, as a person writes it: `partition:offset`."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises `UsageError`."""
        partition, _, offset = text.partition(":")
        if not (partition.isascii() and partition.isdecimal() and offset.isascii() and offset.isdecimal()):
            raise UsageError("a place in quarantine is PARTITION:OFFSET, as `tidegate quarantine list` shows it: 0:17")
        return cls(int(partition), int(offset))


@dataclass(frozen=True, slots=True)
class Held:
    """One record in quarantine. `value` is the content event as it came, still sealed."""

    place: Place
    appended_ms: int
    headers: Mapping[str, str]
    value: bytes = field(repr=False)

    @property
    def at(self) -> datetime:
        """When it was put there, by the log's clock."""
        return datetime.fromtimestamp(self.appended_ms / 1_000, UTC)

    @property
    def event(self) -> ContentEvent | None:
        """None where this version does not read it."""
        try:
            return decode_content(self.value)
        except InvalidEvent:
            return None


class Quarantine(Protocol):
    """The quarantine of one log. Used from one thread. Raises `LogUnavailable`."""

    where: str
    # Whether what is released or dropped is gone from here; else it lies on until its time is over.
    lets_go: bool

    def held(self) -> Iterator[Held]:
        """All of them, of each partition oldest first."""
        ...

    def find(self, place: Place) -> Held | None:
        """The record of that place, if it is there."""
        ...

    def release(self, places: Iterable[Place]) -> int:
        """Have these judged again. Returns how many of them were there."""
        ...

    def drop(self, places: Iterable[Place]) -> int:
        """Let go of these. Returns how many of them were there. Raises `UsageError` where that cannot be done."""
        ...

    def close(self) -> None: ...


class Releasing:
    """Gives what is released its numbers: in each partition those of a producer that nobody has heard of."""

    def __init__(self) -> None:
        self._name = f"released-{secrets.token_hex(8)}"
        self._next: dict[int, int] = {}

    def envelope(self, held: Held) -> Envelope:
        """The record as content to be judged."""
        partition = held.place.partition
        seq = self._next.get(partition, 0)
        self._next[partition] = seq + 1
        return Envelope.of(f"{self._name}-{partition}", seq, [held.value], schema=held.headers.get("schema", CONTENT_SCHEMA))
