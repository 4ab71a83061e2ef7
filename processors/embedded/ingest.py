"""What an HTTP client sent, as numbered envelopes: every line becomes an event or a `rejected` event in its place.

Bodies are NDJSON (one event a line), or JSON (one event, or an array of them); gzip or not. Nothing a client wrote is
kept when it is refused: only its fingerprint, size and the reason.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import msgspec
import orjson

from ...schemas.envelope import MAX_ENVELOPE_BYTES, MAX_ENVELOPE_EVENTS, MAX_EVENT_BYTES, Envelope
from ...schemas.errors import InvalidEvent
from ...schemas.hot import decode_event

# Enough to see what is wrong; a body of a million bad lines need not come back as long as it went in.
MAX_ERRORS_TOLD: Final = 100


class BadBody(InvalidEvent):
    """The body as a whole cannot be read; `status` is the HTTP status to answer with."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(slots=True)
class Judged:
    """The lines of one body as they go into the log, and what to tell the client about them."""

    lines: list[bytes] = field(default_factory=list)
    accepted: int = 0
    rejected: int = 0
    errors: list[dict[str, object]] = field(default_factory=list)


def gunzip(body: bytes, max_bytes: int) -> bytes:
    """The unpacked body. Raises `BadBody` when it is not gzip, or unpacks to more than `max_bytes`."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise BadBody("Content-Encoding says gzip, but the body is not valid gzip") from error
    if len(plain) > max_bytes:
        raise BadBody(f"the body unpacks to more than {max_bytes} bytes; send it in parts", 413)
    if not unpacker.eof:
        raise BadBody("the gzip body ends in the middle; send it again")
    return plain


def split(body: bytes, content_type: str) -> list[bytes]:
    """The events of a body, one a line, blank lines left out. Raises `BadBody`."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in (
        "application/x-ndjson",
        "application/jsonl",
        "application/ndjson",
        "text/plain",
        "application/octet-stream",
        "",
    ):
        return [line for line in body.split(b"\n") if line.strip()]
    if kind != "application/json":
        raise BadBody(f"Content-Type {kind[:60]!r} is not known here; send application/x-ndjson or application/json", 415)
    try:
        raw = msgspec.json.decode(body, type=msgspec.Raw | list[msgspec.Raw]) if body.lstrip()[:1] == b"[" else [body]
        events = [bytes(item) for item in raw]
        # Pretty-printed JSON is folded onto one line. Only the line form is looked at from here on.
        return [orjson.dumps(orjson.loads(event)) if b"\n" in event.strip() else event.strip() for event in events]
    except (msgspec.DecodeError, orjson.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadBody("the body is not valid JSON; send one event, an array of events, or NDJSON") from error


def judge(lines: Sequence[bytes], source: str, now: datetime) -> Judged:
    """Validate every line; a bad one is replaced by its `rejected` event and told to the client."""
    judged = Judged()
    for number, line in enumerate(lines, 1):
        try:
            if len(line) > MAX_EVENT_BYTES:
                raise InvalidEvent(f"an event may be at most {MAX_EVENT_BYTES} bytes; text never belongs in it")
            decode_event(line)
        except InvalidEvent as error:
            judged.rejected += 1
            judged.lines.append(rejection(line, error.reason, source, number, now))
            if len(judged.errors) < MAX_ERRORS_TOLD:
                judged.errors.append({"line": number, "error": error.reason})
        else:
            judged.accepted += 1
            judged.lines.append(line)
    return judged


def rejection(line: bytes, reason: str, source: str, number: int | None, now: datetime) -> bytes:
    """The `rejected` event that stands in the log for a line that was refused."""
    return orjson.dumps(
        {
            "event": "rejected",
            "rejected_at": now.astimezone(UTC),
            "source": source,
            "line": number,
            "size_bytes": len(line),
            "sha256": hashlib.sha256(line).hexdigest(),
            "reason": "".join(char if char.isprintable() else " " for char in reason)[:256],
        }
    )


def envelopes(producer: str, seq: int, lines: Sequence[bytes], dropped: int = 0) -> list[Envelope]:
    """The lines as envelopes of bounded size, numbered from `seq`."""
    found: list[Envelope] = []
    start = size = 0
    for index, line in enumerate(lines):
        if index > start and (size + len(line) >= MAX_ENVELOPE_BYTES or index - start >= MAX_ENVELOPE_EVENTS):
            found.append(Envelope.of(producer, seq + start, lines[start:index], dropped))
            start, size = index, 0
        size += len(line) + 1
    if len(lines) > start:
        found.append(Envelope.of(producer, seq + start, lines[start:], dropped))
    return found
