"""What the sink knows of one partition: what it has promised, which source records it has had, and what waits.

    records ──take──► waiting ──promise──► promised ──(the store has them)──► keep

No socket and no clock: the caller says what came and what time it is.

An offset is committed with a note, and the two say everything that the next owner of the partition must know:

    offset first,    {"marks": …, "promise": [first, last, appended_ms]}    these records go in, under this token
    offset last + 1, {"marks": …}                                           they are in

The marks say up to which offset each source partition has been seen. Those in force at the batch's start are kept beside
the promise, so that whoever keeps it leaves out the very same records.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Final, Protocol

import msgspec

from ...schemas.errors import UsageError
from ...schemas.topics import Topic
from ...sinks.batching import Batch, cut

# The broker's own bound, `offset.metadata.max.bytes`. A partition has one source, or a few: this is a hundred of them.
MOST_NOTE_BYTES: Final = 4096

Marks = Mapping[str, int]


class KafkaRecord(Protocol):
    """What the sink needs to know of a record."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


@dataclass(frozen=True, slots=True)
class Rows:
    """One record of a derived topic: `count` NDJSON rows. `source` is (source partition, source offset); None: always
    taken."""

    offset: int
    appended_ms: int
    value: bytes
    count: int
    source: tuple[str, int] | None = None

    @classmethod
    def of(cls, record: KafkaRecord) -> Rows:
        value = record.value or b""
        # Counted, not believed: the header may be anybody's.
        count = value.count(b"\n") + 1 if value else 0
        return cls(record.offset, record.timestamp, value, count, _source(dict(record.headers)))


def _source(headers: Mapping[str, bytes]) -> tuple[str, int] | None:
    try:
        partition, offset = headers["source_partition"].decode(), int(headers["source_offset"])
    except (KeyError, ValueError):
        # An alert has none. Nor has what somebody else put here, whose rows the store will refuse.
        return None
    return (partition, offset) if offset >= 0 else None


@dataclass(frozen=True, slots=True)
class Promise:
    """Records `first` to `last`, both included, go into the store under one token, whatever happens.

    `appended_ms` is when the first one came into the log. It is part of the token: topics that are made anew count from 0
    again, and the store, which forgets nothing, would drop their rows as known.
    """

    first: int
    last: int
    appended_ms: int

    def token(self, topic: str, partition: int) -> str:
        """`topic` as Kafka has it: two namespaces may share a database."""
        return f"{Batch(topic, partition, self.first, self.last).token}/{self.appended_ms}"


@dataclass(frozen=True, slots=True)
class Note:
    """What is committed beside an offset."""

    marks: Marks = field(default_factory=dict)
    promise: Promise | None = None

    def dump(self) -> str:
        """Raises `UsageError` when it is more than a broker takes."""
        said: dict[str, Any] = {"marks": self.marks}
        if self.promise is not None:
            said["promise"] = (self.promise.first, self.promise.last, self.promise.appended_ms)
        text = msgspec.json.encode(said)
        if len(text) > MOST_NOTE_BYTES:
            raise UsageError(
                f"a partition of the sink has rows of {len(self.marks)} sources, more than Kafka keeps beside an offset"
                f" ({MOST_NOTE_BYTES} bytes): see the header source_partition for who writes there besides the meter"
            )
        return text.decode()

    @classmethod
    def load(cls, text: str | None) -> Note:
        """Raises `UsageError` when somebody else wrote it. Without a note (a group that was reset) nothing is known."""
        if not text:
            return cls()
        try:
            said = msgspec.json.decode(text, type=_Said)
        except msgspec.MsgspecError:
            raise UsageError(
                "the sink's place in Kafka carries a note that is not the sink's; reset the group's offsets with"
                " kafka-consumer-groups --reset-offsets once you know from where to go on"
            ) from None
        return cls(said.marks, Promise(*said.promise) if said.promise else None)


class _Said(msgspec.Struct):
    marks: dict[str, int]
    promise: tuple[int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """What a promise comes to: the records that are to be sent, how many are not, and the marks after all of them."""

    records: list[Rows]
    repeated: int
    marks: Marks


def unseen(records: Iterable[Rows], marks: Marks) -> Held:
    """Of records in order, those above the mark of their source partition. The others were sent again by a meter that died
    and came back."""
    after = dict(marks)
    found, repeated = [], 0
    for record in records:
        if record.source is not None:
            partition, offset = record.source
            if offset <= after.get(partition, -1):
                repeated += 1
                continue
            after[partition] = offset
        found.append(record)
    return Held(found, repeated, after)


class Partition:
    """One partition of one topic, from `position` on. `note` is what was committed with it; `end` is where the log ends.

    Every promise that stands is kept before anything else is promised.
    """

    def __init__(self, topic: Topic, name: str, number: int, position: int, note: Note, end: int) -> None:
        self.topic = topic
        self.name = name
        self.number = number
        self.position = position
        self.committed = position
        self.marks = note.marks
        self.promise = note.promise
        # What retention, or a broker that lost power, has left of the promised records is what can be sent.
        self._through = max(min(note.promise.last, end - 1), position - 1) if note.promise else -1
        self.end = end
        self.waiting_since: float | None = None
        self.rows = 0
        self.size_bytes = 0
        self._waiting: deque[Rows] = deque()

    @property
    def lag(self) -> int:
        """Records that are in the log and not in the store, as far as is known."""
        return max(self.end, self.position) - self.committed

    def take(self, records: Sequence[Rows], now: float) -> int:
        """Take what comes next in the log. Returns how many records before it are gone; retention has eaten them.

        Raises `ValueError` when the log has gone back: `begun_again` goes on from there.
        """
        gone = 0
        for record in records:
            if record.offset < self.position:
                raise ValueError(f"offset {record.offset} comes after {self.position - 1}")
            gone += record.offset - self.position
            self.position = record.offset + 1
            self._waiting.append(record)
            self.rows += record.count
            self.size_bytes += len(record.value)
        if self.waiting_since is None and records:
            self.waiting_since = now
        return gone

    def begun_again(self, position: int) -> Partition:
        """The same partition from another place: what waited is forgotten, and the marks tell what comes again."""
        return Partition(self.topic, self.name, self.number, position, Note(self.marks), self.end)

    def is_full(self, most_bytes: int) -> bool:
        """Whether no more should be read for now. What is promised is read to its end, however large it is."""
        return self.size_bytes >= most_bytes and self._has_promised

    @property
    def _has_promised(self) -> bool:
        return self.promise is None or self.position > self._through

    def due_at(self, linger_s: float, most_rows: int, most_bytes: int) -> float | None:
        """When a batch is due; 0: now, None: not before more comes."""
        if self.promise is not None:
            return 0.0 if self._has_promised else None
        if self.waiting_since is None:
            return None
        full = self.rows >= most_rows or self.size_bytes >= most_bytes
        return 0.0 if full else self.waiting_since + linger_s

    def make_promise(self, most_rows: int, most_bytes: int) -> Promise:
        """The next batch. Only when no promise stands and something waits."""
        found = cut(
            self.name,
            self.number,
            ((record.offset, record.count, len(record.value)) for record in self._waiting),
            max_rows=most_rows,
            max_bytes=most_bytes,
        )
        if found is None or self.promise is not None:
            raise ValueError("nothing waits, or an earlier promise stands")
        self.promise = Promise(found.batch.first, found.batch.last, self._waiting[0].appended_ms)
        self._through = found.batch.last
        return self.promise

    def promised(self) -> Held:
        """What the promise that stands comes to."""
        return unseen(takewhile(lambda record: record.offset <= self._through, self._waiting), self.marks)

    def keep(self, marks: Marks, now: float) -> None:
        """The promise is kept: the store has it, and the broker knows."""
        if self.promise is None:
            raise ValueError("no promise stands")
        while self._waiting and self._waiting[0].offset <= self._through:
            record = self._waiting.popleft()
            self.rows -= record.count
            self.size_bytes -= len(record.value)
        self.committed = self.next_offset
        self.marks = marks
        self.promise = None
        self.waiting_since = now if self._waiting else None

    @property
    def next_offset(self) -> int:
        """Where the log goes on behind the promise that stands."""
        return self._through + 1
