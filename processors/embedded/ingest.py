"""What an HTTP client sent, as numbered envelopes: every line becomes an event or a `rejected` event in its place.

Bodies are NDJSON (one event a line), or JSON (one event, or an array of them); gzip or not. Nothing a client wrote is
kept in the clear when it is refused: only its fingerprint, size and the reason, and sealed its bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import msgspec
import orjson

from ...producers.ports import Position
from ...schemas.envelope import MAX_ENVELOPE_BYTES, MAX_ENVELOPE_EVENTS, MAX_EVENT_BYTES, SCHEMA, Envelope
from ...schemas.errors import InvalidEvent
from ...schemas.hot import HotRejected, HotScored, decode_event
from ...schemas.residency import CrossRegion, Residency
from ..letters import Sealed

# Enough to see what is wrong; a body of a million bad lines need not come back as long as it went in.
MAX_ERRORS_TOLD: Final = 100
# A refused line of one byte becomes 300 in the log, so it is lines that must be bounded, not only bytes.
MAX_BODY_LINES: Final = 100_000
# No event has so few bytes a comma; an array of bare numbers would take forty times its size in memory.
_MAX_COMMAS: Final = 64 * MAX_BODY_LINES

_LINES: Final = frozenset(
    {"application/x-ndjson", "application/ndjson", "application/jsonl", "text/plain", "application/octet-stream", ""}
)
_UTF8: Final = frozenset({"", "utf-8", "utf8", "us-ascii", "ascii"})

# A body of which more is refused is for its sender to mend, and not line by line; what each costs to seal is bounded.
MAX_KEPT: Final = 1_000

# An event as it was sent, and its place: the line of an NDJSON body or the place in an array, from 1.
Line = tuple[int, bytes]


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
    position: Position | None = None


def unpack(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The body without its Content-Encoding. Raises `BadBody`."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding in ("gzip", "x-gzip"):
        return gunzip(body, max_bytes)
    raise BadBody("Content-Encoding must be gzip or identity", 415)


def gunzip(body: bytes, max_bytes: int) -> bytes:
    """The unpacked body, all of its members. Raises `BadBody` when it is not gzip, or unpacks to more than `max_bytes`."""
    try:
        if not body:
            raise EOFError
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as members:
            plain = members.read(max_bytes + 1)
    except EOFError as error:
        raise BadBody("the gzip body ends in the middle; send it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise BadBody("Content-Encoding says gzip, but the body is not valid gzip from its first byte to its last") from error
    if len(plain) > max_bytes:
        raise BadBody(f"the body unpacks to more than {max_bytes} bytes; send it in parts", 413)
    return plain


def split(body: bytes, content_type: str) -> list[Line]:
    """The events of a body with their places, each on one line, blank lines left out. Raises `BadBody`."""
    kind, _, parameters = content_type.partition(";")
    kind = kind.strip().lower()
    if kind not in _LINES and kind != "application/json":
        # Not repeated in the answer: a header is the sender's text.
        raise BadBody("this Content-Type is not known here; send application/x-ndjson or application/json", 415)
    if _charset(parameters) not in _UTF8 or body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise BadBody("JSON travels as UTF-8; send the body in that encoding", 415)
    body = body.removeprefix(b"\xef\xbb\xbf")
    if kind == "application/json":
        return _split_json(body)
    if body.count(b"\n") > MAX_BODY_LINES:
        raise _too_many()
    return [(number, line) for number, line in enumerate(body.split(b"\n"), 1) if line.strip()]


def _charset(parameters: str) -> str:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"').lower()
    return ""


def _split_json(body: bytes) -> list[Line]:
    try:
        if body.lstrip()[:1] != b"[":
            return [(1, _on_one_line(body))]
        if body.count(b",") > _MAX_COMMAS:
            raise _too_many()
        items = msgspec.json.decode(body, type=list[msgspec.Raw])
        if len(items) > MAX_BODY_LINES:
            raise _too_many()
        return [(place, _on_one_line(bytes(item))) for place, item in enumerate(items, 1)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadBody("the body is not valid JSON; send one event, an array of events, or NDJSON") from error


def _on_one_line(event: bytes) -> bytes:
    # Only the white space goes: a number of thirty digits or a key given twice is for `judge` to see.
    return msgspec.json.format(event, indent=-1)


def _too_many() -> BadBody:
    return BadBody(f"the body holds more than {MAX_BODY_LINES} lines; send it in parts", 413)


Keep = Callable[[bytes], Sealed | None]


def judge(
    lines: Sequence[Line], source: str, now: datetime, keep: Keep = lambda _line: None, residency: Residency | None = None
) -> Judged:
    """Validate every line; a bad one is replaced by its `rejected` event and told to the client. `keep` seals it, but not one
    that may not rest here."""
    judged = Judged()
    for number, line in lines:
        crossed = None
        try:
            if len(line) > MAX_EVENT_BYTES:
                raise InvalidEvent(f"an event may be at most {MAX_EVENT_BYTES} bytes; text never belongs in it")
            event = decode_event(line)
            if isinstance(event, HotScored):
                raise InvalidEvent("what is found in texts is for the guardrails to say - at `$.event`")
            if residency is not None and not isinstance(event, HotRejected):
                crossed = residency.refusal(event.tenant, event.region)
                if crossed is not None:
                    raise InvalidEvent(residency.reason(crossed))
        except InvalidEvent as error:
            judged.rejected += 1
            sealed = keep(line) if judged.rejected <= MAX_KEPT and crossed is None else None
            judged.lines.append(rejection(line, error.reason, source, number, now, sealed, crossed))
            if len(judged.errors) < MAX_ERRORS_TOLD:
                judged.errors.append({"line": number, "error": error.reason})
        else:
            judged.accepted += 1
            judged.lines.append(line)
    return judged


def rejection(
    line: bytes, reason: str, source: str, number: int | None, now: datetime, sealed: Sealed | None = None,
    crossed: CrossRegion | None = None,
) -> bytes:  # fmt: skip
    """The `rejected` event that stands in the log for a line that was refused."""
    return refusal(hashlib.sha256(line).hexdigest(), len(line), reason, source, number, now, sealed, crossed)


def refusal(
    sha256: str, size_bytes: int, reason: str, source: str, number: int | None, now: datetime, sealed: Sealed | None = None,
    crossed: CrossRegion | None = None,
) -> bytes:  # fmt: skip
    """The same for what was too large to be held."""
    return orjson.dumps(
        {
            "event": "rejected",
            "rejected_at": now.astimezone(UTC),
            "source": source,
            "line": number,
            "size_bytes": size_bytes,
            "sha256": sha256,
            "reason": "".join(char if char.isprintable() else " " for char in reason)[:256],
            **({} if sealed is None else {"key_id": sealed.key_id, "sealed": sealed.text}),
            **({} if crossed is None else crossed._asdict()),
        }
    )


def envelopes(producer: str, seq: int, lines: Sequence[bytes], dropped: int = 0, schema: str = SCHEMA) -> list[Envelope]:
    """The lines as envelopes of bounded size, numbered from `seq`."""
    found: list[Envelope] = []
    start = size = 0
    for index, line in enumerate(lines):
        if index > start and (size + len(line) >= MAX_ENVELOPE_BYTES or index - start >= MAX_ENVELOPE_EVENTS):
            found.append(Envelope.of(producer, seq + start, lines[start:index], dropped, schema))
            start, size = index, 0
        size += len(line) + 1
    if len(lines) > start:
        found.append(Envelope.of(producer, seq + start, lines[start:], dropped, schema))
    return found
