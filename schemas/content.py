"""Content: the texts of a call on their way to the guardrails. They leave the producer sealed, hashed, or not at all.

One `content` event a call that has text, as one line of JSON in an envelope of schema `content/1`. What is clear is what
metering knows anyway: ids and scope. The texts themselves are in `sealed`:

    texts   JSON of `Texts`: {"prompt": str|null, "response": str|null, "context": [str, …]}
    sealed  base64 of nonce (12 bytes) + AES-256-GCM(key, zlib(texts), associated data = call_id) with its tag

`key_id` says which key of the ring opens it. Keys belong to a tenant: a deleted key shreds what it sealed.
In mode `hashed` nothing can be read back: `fingerprints` are keyed (8 hex digits of their key, then 24 of HMAC-SHA256), and
tell only whether two texts under the same fingerprint key are the same; `key_id` names that key.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from .call import Identifier, ScopedCall, Slug, _Model
from .errors import InvalidEvent

ContentMode = Literal["off", "sealed", "hashed"]
Where = Literal["prompt", "response", "context"]
WHERES: Final[tuple[Where, ...]] = ("prompt", "response", "context")

# Base64 of what is sealed. With its envelope it fits a Kafka record of 1 MB; some 2 MB of prose compress into it.
MAX_SEALED_CHARS: Final = 800_000
MAX_CHUNKS: Final = 256
# Nonce and tag around nothing.
_MIN_SEALED_CHARS: Final = 40

# What a content event says of its call in the clear, so that findings can be counted by scope. Names as in a call.
CALL_FIELDS: Final = (
    "tenant",
    "team",
    "user",
    "service",
    "environment",
    "region",
    "task_type",
    "provider_name",
    "request_model",
    "response_model",
    "prompt_name",
    "prompt_version",
)

Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{32}\Z")]


class OfCall(ScopedCall):
    """Which call it is of, which may be one that nobody meters."""

    request_model: Identifier | None = None
    response_model: Identifier | None = None
    prompt_name: Identifier | None = None
    prompt_version: Identifier | None = None


class Texts(_Model):
    """The texts of one call; what was not there is None, or an empty list. Its repr shows none of them."""

    prompt: str | None = Field(default=None, repr=False)
    response: str | None = Field(default=None, repr=False)
    context: list[str] = Field(default_factory=list, max_length=MAX_CHUNKS, repr=False)


class ContentEvent(OfCall):
    """One call's texts, sealed or hashed."""

    event: Literal["content"]
    mode: Literal["sealed", "hashed"]
    key_id: Slug | None = None
    sealed: Annotated[str, Field(max_length=MAX_SEALED_CHARS, pattern=r"^[A-Za-z0-9+/]+={0,2}\Z")] | None = None
    # Of each text that was there, in the order of `Where`, then of the context: hashed mode only.
    fingerprints: Annotated[dict[Where, list[Fingerprint]], Field(max_length=len(WHERES))] | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.mode == "sealed" and (self.sealed is None or self.key_id is None or self.fingerprints is not None):
            raise ValueError("a sealed record has `sealed` and `key_id`, and no fingerprints")
        if self.sealed is not None and (len(self.sealed) < _MIN_SEALED_CHARS or len(self.sealed) % 4):
            raise ValueError("`sealed` is base64 of nonce, sealed texts and tag; seal with the producer's library")
        if self.mode == "hashed" and (self.sealed is not None or self.fingerprints is None):
            raise ValueError("a hashed record has `fingerprints`, and nothing sealed")
        return self


CONTENT_ADAPTER: Final = TypeAdapter(ContentEvent)
TEXTS_ADAPTER: Final = TypeAdapter(Texts)


def decode_content(line: bytes) -> ContentEvent:
    """One validated event from one line of JSON. Raises `InvalidEvent`, with the field and the bound and never the value."""
    try:
        return CONTENT_ADAPTER.validate_json(line)
    except ValidationError as error:
        raise InvalidEvent(content_problem(error)) from None


def content_problem(error: ValidationError) -> str:
    """The first thing wrong with a content event, in our own words: fields of ours, and pydantic's message on them."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    field = next((part for part in first["loc"] if part in ContentEvent.model_fields), None)
    if first["type"] == "extra_forbidden":
        return "unknown field; a content event takes the schema's fields only, and its texts never in the clear"
    if first["type"] in ("literal_error", "string_pattern_mismatch"):
        return f"not one of the allowed values{f' - at `$.{field}`' if field else ''}"
    return f"{first['msg']}{f' - at `$.{field}`' if field else ''}"[:256]
