"""One LLM call as metering sees it: ids, scope, tokens, timings, outcome. No prompt, no answer, no free text.

A call is a `request` event (optional; carries the estimate) and a `response` event (carries the truth), joined by
`call_id`. A `rejected` event stands for a line that an edge refused, so that every line in is accounted for.

Names follow the OpenTelemetry GenAI conventions without the `gen_ai.` prefix. `input_tokens` always includes cached
tokens. A field that is not known is absent or null, never 0 and never "".

These pydantic models are the public schema. The hot path's decoder is derived from them (`schemas/hot.py`), and both
accept and reject the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator

# A printable one-line identifier. Control characters are refused: they are never part of a name, and they break logs.
PRINTABLE: Final = r"^[^\x00-\x1f\x7f]+\Z"
Identifier = Annotated[str, Field(min_length=1, max_length=128, pattern=PRINTABLE)]
ShortText = Annotated[str, Field(min_length=1, max_length=256, pattern=PRINTABLE)]
Slug = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:/-]+\Z")]

# Above any context window by three orders of magnitude; below what could overflow a sum of billions of calls.
MAX_TOKENS: Final = 1_000_000_000
Tokens = Annotated[int, Field(ge=0, le=MAX_TOKENS)]
# The largest event, sealed, with room to spare.
MAX_SEALED_LINE_CHARS: Final = 96 * 1024
# A week: longer than any provider's batch window.
Seconds = Annotated[float, Field(ge=0, le=604_800)]

TOKEN_FIELDS: Final = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
    "cache_audio_read_tokens",
)

# What calls may be counted by: fields of a call, and `model`, the one that answered or else the one that was asked.
SCOPE_FIELDS: Final = (
    "tenant",
    "team",
    "user",
    "service",
    "environment",
    "region",
    "task_type",
    "provider_name",
    "model",
    "prompt_name",
    "prompt_version",
)

ErrorType = Literal[
    "rate_limit",
    "timeout",
    "overloaded",
    "server_error",
    "connection",
    "authentication",
    "permission",
    "invalid_request",
    "context_length",
    "content_filter",
    "not_found",
    "cancelled",
    "failure",
]


class _AwareTime(msgspec.Struct):
    at: Annotated[datetime, msgspec.Meta(tz=True)]


def parse_timestamp(value: Any) -> datetime:
    """An aware datetime from RFC 3339 text or a datetime; one parser for both decoders. Raises `ValueError`."""
    if not isinstance(value, str | datetime):
        raise ValueError("must be RFC 3339 text with a time zone, such as 2026-11-02T08:00:09.778Z")
    try:
        return msgspec.convert({"at": value}, _AwareTime).at
    except msgspec.ValidationError as error:
        raise ValueError("must be RFC 3339 with a time zone, such as 2026-11-02T08:00:09.778Z") from error


Timestamp = Annotated[datetime, PlainValidator(parse_timestamp), WithJsonSchema({"type": "string", "format": "date-time"})]


class _Model(BaseModel):
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, regex_engine="python-re", ser_json_inf_nan="constants"
    )


class RetrievedChunk(_Model):
    """One retrieved chunk: which, from where, how well it scored. Never its text."""

    chunk_id: Identifier
    score: float | None = None
    source: Identifier | None = None


class ScopedCall(_Model):
    """Which call it is, and the scopes that it counts in: what every event of a call says, of either plane."""

    call_id: Identifier
    started_at: Timestamp
    tenant: Identifier | None = None
    team: Identifier | None = None
    user: Identifier | None = None
    service: Identifier | None = None
    environment: Identifier | None = None
    region: Identifier | None = None
    task_type: Identifier | None = None
    provider_name: Identifier | None = None


class CallEvent(ScopedCall):
    """What a request and its response have in common."""

    # what was asked
    request_model: Identifier
    operation_name: Identifier | None = None
    prompt_name: Identifier | None = None
    prompt_version: Identifier | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[float, Field(ge=0, le=1_000_000)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-100, le=100)] | None = None
    presence_penalty: Annotated[float, Field(ge=-100, le=100)] | None = None
    max_tokens: Tokens | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    choice_count: Annotated[int, Field(ge=1, le=10_000)] | None = None
    stream: bool | None = None
    service_tier: Slug | None = None

    # how it was tried
    attempt: Annotated[int, Field(ge=1, le=1_000)] | None = None
    fallback_from: Identifier | None = None
    experiment: Identifier | None = None
    variant: Identifier | None = None
    conversation_id: Identifier | None = None
    trace_id: Slug | None = None
    span_id: Slug | None = None
    labels: Annotated[dict[Slug, ShortText], Field(max_length=32)] | None = None


class RequestEvent(CallEvent):
    """A call is about to be made. Its estimate is held as spent until the response settles it."""

    event: Literal["request"]
    estimated_input_tokens: Tokens | None = None
    estimated_output_tokens: Tokens | None = None


class ResponseEvent(CallEvent):
    """A call has ended, well or badly. Tokens come normalised, or as the provider's raw `usage` object, not both."""

    event: Literal["response"]
    response_model: Identifier | None = None
    response_id: Identifier | None = None
    finish_reason: Slug | None = None

    input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    cache_read_tokens: Tokens | None = None
    cache_write_5m_tokens: Tokens | None = None
    cache_write_1h_tokens: Tokens | None = None
    reasoning_tokens: Tokens | None = None
    input_audio_tokens: Tokens | None = None
    output_audio_tokens: Tokens | None = None
    cache_audio_read_tokens: Tokens | None = None
    usage: dict[str, Any] | None = None

    latency_s: Seconds | None = None
    time_to_first_token_s: Seconds | None = None
    error_type: ErrorType | None = None
    error_code: Slug | None = None
    cache_hit: bool | None = None
    retrieval: Annotated[list[RetrievedChunk], Field(max_length=256)] | None = None
    quality: Annotated[dict[Slug, float], Field(max_length=32)] | None = None

    @model_validator(mode="after")
    def _check(self) -> ResponseEvent:
        check_response(self)
        return self


class RejectedEvent(_Model):
    """A line that an edge refused: its fingerprint, size and the reason; its bytes never but sealed.

    What was refused because it may not rest in the region `refused_in` says whose it was and from where, and is not sealed.
    """

    event: Literal["rejected"]
    rejected_at: Timestamp
    source: Identifier
    line: Annotated[int, Field(ge=1, le=2**53)] | None = None
    size_bytes: Annotated[int, Field(ge=0, le=2**53)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}\Z")]
    reason: ShortText
    key_id: Slug | None = None
    sealed: Annotated[str, Field(min_length=1, max_length=MAX_SEALED_LINE_CHARS, pattern=r"^[A-Za-z0-9+/]+={0,2}\Z")] | None = (
        None
    )
    tenant: Identifier | None = None
    region: Identifier | None = None
    refused_in: Identifier | None = None


def check_response(event: Any) -> None:
    """The rules across fields of a response; raises `ValueError` saying which. Works on both decoders' types."""
    total = event.input_tokens
    if total is not None and (
        (event.cache_read_tokens or 0) + (event.cache_write_5m_tokens or 0) + (event.cache_write_1h_tokens or 0) > total
    ):
        raise ValueError("input_tokens must include cached tokens: cache_read + cache_write exceed it")
    if event.reasoning_tokens is not None and event.output_tokens is not None and event.reasoning_tokens > event.output_tokens:
        raise ValueError("output_tokens must include reasoning tokens: reasoning_tokens exceed it")
    if event.usage is not None:
        if any(getattr(event, name) is not None for name in TOKEN_FIELDS):
            raise ValueError("give either token fields or the provider's raw usage object, not both")
        _check_usage(event.usage, 0)


_CODE: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}\Z")


def _check_usage(value: Any, depth: int) -> None:
    """A usage object holds numbers and short codes: nothing a sentence of a prompt could hide in."""
    if depth > 4:
        raise ValueError("usage is nested too deeply (at most 4 levels)")
    if isinstance(value, Mapping):
        if len(value) > 64:
            raise ValueError("usage has too many keys (at most 64 a level)")
        for key, inner in value.items():
            if not _CODE.match(key):
                raise ValueError("usage has a key that is not a short code")
            _check_usage(inner, depth + 1)
    elif isinstance(value, list):
        if len(value) > 64:
            raise ValueError("usage has too long a list (at most 64)")
        for inner in value:
            _check_usage(inner, depth + 1)
    elif isinstance(value, str):
        if not _CODE.match(value):
            raise ValueError("usage may hold numbers and short codes only, no text")
    elif isinstance(value, int | float) and not -(2**63) <= value < 2**63:  # NaN is not in between either
        raise ValueError("usage holds a number out of range")
