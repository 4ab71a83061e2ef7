"""Lines that were refused, kept sealed for a person: what an edge would not take, and what the meter could not count.

    refused ─► kept as long as there is a key ring; else only the fingerprint stays, in `dead_letters`
            ─► fixed: another version of it in its place, sealed again
            ─► replayed: metered, as the one thing that a producer of its own has sent, so that twice counts once
            ─► dropped

A line that cannot be read may hold anything, so it is never kept here in the clear, and is shown only to whoever asks for it
and has the key. What an edge refuses gets no further than that. What only the meter refuses came through the log, and lies in
`calls` as its service sent it until that topic's retention is over: three days.

What may not rest in this region, or does not say where it is from while the residency map refuses such lines, is not kept.

A letter is sealed with the key of the tenant that it names, where the ring has one, and else with everybody's. None is made for
it, as a data folder does for content: a refused line may name anything for its tenant, and a key's name is written down.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, Self

import orjson
import structlog

from ..producers.key_source import KeySource, key_source
from ..producers.sealing import Opens, open_bytes, seal_bytes
from ..schemas.call import MAX_SEALED_LINE_CHARS
from ..schemas.envelope import MAX_EVENT_BYTES, Envelope
from ..schemas.errors import Unreadable, UsageError
from ..schemas.residency import Residency
from ..schemas.residency_file import residency_of
from ..schemas.settings import Settings

log = structlog.get_logger("tidegate.letters")

# The name that a letter is replayed under; nobody else may use it.
REPLAYED: Final = "dead-letter:"
# Letters stay for thirty days; what nobody can replay any more need not be known.
REPLAYED_RETENTION_MS: Final = 31 * 86_400_000

_SCHEMA: Final = "refused/1"

Record = tuple[bytes, dict[str, str], bytes]


class LetterId(NamedTuple):
    """Where a line was when it was refused, as a person writes it: `partition:offset:seq`; no `seq` for a whole envelope."""

    partition: int
    offset: int
    seq: int | None

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}" if self.seq is None else f"{self.partition}:{self.offset}:{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises `UsageError`."""
        parts = text.split(":")
        if len(parts) not in (2, 3) or not all(part.isascii() and part.isdecimal() and len(part) < 20 for part in parts):
            raise UsageError("a dead letter is PARTITION:OFFSET:SEQ, as `tidegate dlq list` shows it: 0:17:4")
        return cls(int(parts[0]), int(parts[1]), int(parts[2]) if len(parts) == 3 else None)


class Sealed(NamedTuple):
    """Bytes that only the key of that name opens."""

    key_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Refused:
    """One line as the meter leaves it: in the clear in `line`, or as an edge has `sealed` it."""

    letter_id: LetterId
    stage: str
    reason: str
    producer: str
    size_bytes: int
    sha256: str
    line: bytes = field(default=b"", repr=False)
    sealed: Sealed | None = field(default=None, repr=False)


class Keeper:
    """Seals what is refused. From any thread. Never raises: a ring that is not there costs the line, not the work."""

    def __init__(self, keys: KeySource | None, residency: Residency | None = None) -> None:
        self._keys = keys
        self._residency = residency
        self._problem = ""

    @classmethod
    def of(cls, settings: Settings, data_dir: Path | None = None) -> Self:
        """With the ring that the settings name, or else that of the data folder."""
        try:
            return cls(key_source(settings, data_dir), residency_of(settings))
        except UsageError as error:
            log.warning("dead_letters_not_kept", error=str(error))
            return cls(None)

    def seal(self, line: bytes) -> Sealed | None:
        """The line for whoever has the key; None where only its fingerprint can be kept."""
        if self._keys is None or not line or len(line) > MAX_EVENT_BYTES:
            return None
        tenant, region = _named(line)
        if self._residency is not None and self._residency.refusal(tenant, region) is not None:
            return None
        try:
            key = self._keys.ring().sealing(tenant)
        except UsageError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                log.warning("dead_letters_not_kept", error=self._problem)
            return None
        if key is None:
            return None
        text = seal_bytes(line, hashlib.sha256(line).hexdigest(), key)
        return Sealed(key.key_id, text) if len(text) <= MAX_SEALED_LINE_CHARS else None

    def records(self, refused: Iterable[Refused]) -> list[Record]:
        """What of it can be kept, as keyed records."""
        return [Letter.of(one, sealed).record() for one in refused if (sealed := one.sealed or self.seal(one.line)) is not None]


@dataclass(frozen=True, slots=True)
class Letter:
    """One line that is kept. `sha256` is of its bytes as they are now."""

    letter_id: LetterId
    stage: str
    reason: str
    producer: str
    size_bytes: int
    sha256: str
    sealed: Sealed = field(repr=False)
    appended_ms: int = 0

    @classmethod
    def of(cls, refused: Refused, sealed: Sealed) -> Self:
        return cls(
            refused.letter_id, refused.stage, refused.reason, refused.producer, refused.size_bytes, refused.sha256, sealed
        )

    @classmethod
    def read(cls, key: bytes, headers: Mapping[str, str], value: bytes, appended_ms: int) -> Self | None:
        """The letter in a record; None where it was taken back, or is of another version."""
        if not value or headers.get("schema") != _SCHEMA:
            return None
        return cls(
            LetterId.parse(key.decode()),
            headers["stage"],
            headers["reason"],
            headers["producer"],
            int(headers["size_bytes"]),
            headers["sha256"],
            Sealed(headers["key_id"], value.decode()),
            appended_ms,
        )

    def record(self) -> Record:
        """As it rests in the log: (key, headers, value)."""
        headers = {
            "schema": _SCHEMA,
            "stage": self.stage,
            "reason": self.reason,
            "producer": self.producer,
            "size_bytes": str(self.size_bytes),
            "sha256": self.sha256,
            "key_id": self.sealed.key_id,
        }
        return str(self.letter_id).encode(), headers, self.sealed.text.encode()

    @property
    def at(self) -> datetime:
        """When it was put there, by the log's clock."""
        return datetime.fromtimestamp(self.appended_ms / 1_000, UTC)

    def opened(self, keys: Opens) -> bytes:
        """The line itself. Raises `Unreadable`."""
        line = open_bytes(self.sealed.text, self.sha256, keys.opening(self.sealed.key_id))
        if hashlib.sha256(line).hexdigest() != self.sha256:
            raise Unreadable("tampered")
        return line

    def envelope(self, lines: list[bytes]) -> Envelope:
        """Its lines as what a producer of its own sends. The meter knows that one for as long as the letter may be kept."""
        return Envelope.of(f"{REPLAYED}{self.letter_id}", 0, lines)

    def became(self, what: str, at: datetime) -> dict[str, Any]:
        """The row of `dead_letters` that says what a person has done with it."""
        return {
            "at": at,
            "stage": "person",
            "source": "dlq",
            "line": None,
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
            "reason": what,
            "producer": self.producer,
            "seq": self.letter_id.seq,
            "source_partition": self.letter_id.partition,
            "source_offset": self.letter_id.offset,
        }


class Letters(Protocol):
    """The dead letters of one log. Used from one thread. Raises `LogUnavailable`."""

    where: str

    def kept(self) -> Iterator[Letter]:
        """All of them, of each partition oldest first."""
        ...

    def find(self, letter_id: LetterId) -> Letter | None:
        """The one of that id, if it is there."""
        ...

    def fix(self, letter: Letter) -> bool:
        """Put this version in the place of the one that is there. Whether one was."""
        ...

    def replay(self, letter: Letter, lines: list[bytes]) -> bool:
        """Have the lines metered, and let the letter go; whatever happens in between, it counts once. Whether it was there,
        and as it is."""
        ...

    def drop(self, letter: Letter) -> bool:
        """Let go of it. Whether it was there, and as it is."""
        ...

    def resume(self) -> int:
        """Let a meter that has stopped go on over all that waits now. Returns how many records that is."""
        ...

    def close(self) -> None: ...


def outcome(letter: Letter, what: str) -> tuple[None, dict[str, str], bytes]:
    """What became of a letter, as a record for the store. It has no source: a person's word is told as often as it is said."""
    return None, {"schema": "rows/1", "count": "1"}, orjson.dumps(letter.became(what, datetime.now(UTC)))


def _named(line: bytes) -> tuple[str | None, str | None]:
    """(tenant, region) of it, where they can be told. The tenant's key seals it: who shreds a tenant shreds this, too."""
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None, None
    tenant, region = (event.get(name) for name in ("tenant", "region")) if isinstance(event, dict) else (None, None)
    return tenant if isinstance(tenant, str) else None, region if isinstance(region, str) else None
