"""Builders of events, envelopes and log records for tests; imported as `support` (see `pythonpath` in pyproject.toml)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from tidegate.schemas.envelope import Envelope

# Monday 2026-11-02 08:00:00 UTC: what tests take for now.
NOW_S = 1_793_606_400
NOW_MS = NOW_S * 1_000


def response(call_id: str = "call-1", **fields: Any) -> dict[str, Any]:
    """A valid response event; `fields` add to it, replace, or (None) take away."""
    event = {
        "event": "response",
        "call_id": call_id,
        "started_at": "2026-11-02T08:00:00Z",
        "tenant": "harbor-health",
        "request_model": "gpt-4o",
        "provider_name": "openai",
        "input_tokens": 1_000,
        "output_tokens": 100,
        "latency_s": 0.8,
    } | fields
    return {name: value for name, value in event.items() if value is not None}


def request(call_id: str = "call-1", **fields: Any) -> dict[str, Any]:
    """A valid request event."""
    event = {"event": "request", "call_id": call_id, "started_at": "2026-11-02T08:00:00Z", "request_model": "gpt-4o"} | fields
    return {name: value for name, value in event.items() if value is not None}


def rejected(**fields: Any) -> dict[str, Any]:
    """A valid rejected event: an edge refused a line."""
    return {
        "event": "rejected",
        "rejected_at": "2026-11-02T08:00:00Z",
        "source": "calls.jsonl",
        "line": 3,
        "size_bytes": 12,
        "sha256": "ab" * 32,
        "reason": "not valid JSON",
    } | fields


def scored(call_id: str = "call-1", **fields: Any) -> dict[str, Any]:
    """A valid scored event: a verdict that found nothing; `fields` add to it, replace, or (None) take away."""
    event = {
        "event": "scored",
        "call_id": call_id,
        "started_at": "2026-11-02T08:00:00Z",
        "tenant": "harbor-health",
        "request_model": "gpt-4o",
        "scored_at": "2026-11-02T08:00:03Z",
        "outcome": "scored",
        "detectors": {"phi": "1", "toxicity": "1"},
    } | fields
    return {name: value for name, value in event.items() if value is not None}


def finding(**fields: Any) -> dict[str, Any]:
    """A valid entry of a scored event's `findings`."""
    return {"detector": "phi", "type": "US_SSN", "where": "response", "start": 3, "end": 14, "score": 0.95} | fields


def line(event: Mapping[str, Any] | bytes) -> bytes:
    return event if isinstance(event, bytes) else orjson.dumps(event)


def ndjson(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as the store takes them, a line each."""
    return b"\n".join(line(row) for row in rows)


def envelope(producer: str, seq: int, events: Sequence[Mapping[str, Any] | bytes], dropped: int = 0) -> Envelope:
    return Envelope.of(producer, seq, [line(event) for event in events], dropped)


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A record as the meter sees it, whichever log it is from."""

    offset: int
    value: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    appended_ms: int = NOW_MS

    @classmethod
    def of(cls, offset: int, envelope: Envelope, appended_ms: int = NOW_MS) -> LogRecord:
        return cls(offset, envelope.value, envelope.headers(), appended_ms)
