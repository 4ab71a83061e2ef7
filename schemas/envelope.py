"""Envelope: one log record, up to `count` events of one producer as NDJSON, numbered so that a retry changes nothing.

    headers  schema=calls/1  producer=<id>  seq=<number of the first event>  count=<N>  [dropped=<so far, in all>]
    value    N lines of JSON, each one event, joined by "\\n"

Event `i` of the envelope has the number `seq + i`. A producer numbers its events 0, 1, 2 … without gaps and appends
them in order to one partition, so the meter need only remember the last number of each producer (DESIGN rule 4).
Old schema versions decode for ever; golden files hold that.

Content (`content/1`) travels in envelopes of its own, from a producer of its own, and to a topic of its own.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from .errors import InvalidEvent

SCHEMA: Final = "calls/1"
CONTENT_SCHEMA: Final = "content/1"
# What each topic may hold.
CALL_SCHEMAS: Final = frozenset({SCHEMA})
CONTENT_SCHEMAS: Final = frozenset({CONTENT_SCHEMA})
KNOWN_SCHEMAS: Final = CALL_SCHEMAS | CONTENT_SCHEMAS

# A Kafka broker refuses records above 1 MB by default; stay well below with headers and all.
MAX_ENVELOPE_BYTES: Final = 900_000
MAX_ENVELOPE_EVENTS: Final = 10_000
MAX_EVENT_BYTES: Final = 65_536

_PRODUCER: Final = re.compile(r"[\x21-\x7e]{1,200}\Z")


@dataclass(frozen=True, slots=True)
class Envelope:
    """`count` events from number `seq` of `producer`; `dropped` is how many it has ever dropped for want of room."""

    producer: str
    seq: int
    count: int
    value: bytes
    dropped: int = 0
    schema: str = SCHEMA

    @classmethod
    def of(cls, producer: str, seq: int, lines: Sequence[bytes], dropped: int = 0, schema: str = SCHEMA) -> Envelope:
        """An envelope around encoded events. Lines must hold no newline."""
        return cls(producer, seq, len(lines), b"\n".join(lines), dropped, schema)

    def lines(self) -> list[bytes]:
        """The events, one a line. Raises `InvalidEvent` when there are not `count` of them."""
        lines = self.value.split(b"\n")
        if len(lines) != self.count:
            raise InvalidEvent(f"envelope says {self.count} events and holds {len(lines)} lines")
        return lines

    def headers(self) -> dict[str, str]:
        headers = {"schema": self.schema, "producer": self.producer, "seq": str(self.seq), "count": str(self.count)}
        if self.dropped:
            headers["dropped"] = str(self.dropped)
        return headers

    @classmethod
    def from_record(cls, headers: Mapping[str, str], value: bytes, schemas: frozenset[str] = CALL_SCHEMAS) -> Envelope:
        """The envelope of a log record, of a schema that belongs there. Raises `InvalidEvent` saying which header is missing
        or wrong."""
        schema = headers.get("schema", "")
        if schema not in schemas:
            raise InvalidEvent("envelope header `schema` is missing or unknown to this version; upgrade the node first")
        producer = headers.get("producer", "")
        if not _PRODUCER.match(producer):
            raise InvalidEvent("envelope header `producer` must be 1 to 200 visible ASCII characters")
        seq = _number(headers, "seq", 0, 2**62)
        count = _number(headers, "count", 1, MAX_ENVELOPE_EVENTS)
        dropped = _number(headers, "dropped", 0, 2**62) if "dropped" in headers else 0
        return cls(producer, seq, count, value, dropped, schema)


def _number(headers: Mapping[str, str], name: str, least: int, most: int) -> int:
    text = headers.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and least <= int(text) <= most):
        raise InvalidEvent(f"envelope header `{name}` must be an integer from {least} to {most}")
    return int(text)


def partition_of(producer: str, partitions: int) -> int:
    """The one partition that takes all events of a producer; stable across processes, machines and versions."""
    return zlib.crc32(producer.encode()) % partitions
