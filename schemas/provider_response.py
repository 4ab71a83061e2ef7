"""What a provider's response says about itself, in one vocabulary: tokens, model, id, finish reason, tier. Never text.

response ──► body, out of its stream event or SDK object ──► named fields ──► ResponseFacts
                                                  usage ──► token_counts ───────┘
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from .provider_usage import canonical_provider, first_part, get_part, is_gemini, items_of, short_code, token_counts


@dataclass(frozen=True, slots=True)
class ResponseFacts:
    """What a response says about itself; None or absent where it says nothing. `tokens` as from `normalise_usage`."""

    provider_name: str | None = None
    response_model: str | None = None
    response_id: str | None = None
    finish_reason: str | None = None
    service_tier: str | None = None
    tokens: dict[str, int] = field(default_factory=dict)


_LANDMARKS: Final = (
    *("usage", "usageMetadata", "usage_metadata", "choices", "candidates", "stop_reason", "stopReason", "finish_reason"),
    *("object", "meta", "generation_token_count", "embeddings", "ResponseMetadata"),
)


def read_response(response: object, provider_name: str | None = None) -> ResponseFacts:
    """The facts of a response: decoded JSON, an SDK's object, or the stream event that carries the usage.

    Looks at named fields only and never at content. What is missing or malformed stays None or absent; raises
    `ValueError` only when nothing marks it as a response. The provider is taken from `provider_name`, else from a shape
    that is one provider's own; OpenAI's shape is spoken by many, so it names none.
    """
    body = _body(response)
    usage = get_part(body, "usage", "usageMetadata", "usage_metadata", "meta")
    headers = get_part(get_part(body, "ResponseMetadata"), "HTTPHeaders")
    if usage is None:
        usage = body if headers is None else headers
    named = None if provider_name is None else canonical_provider(provider_name)
    try:
        tokens = token_counts(usage, named)
    except ValueError:
        tokens = {}
    return ResponseFacts(
        provider_name=named or _provider_of(body),
        response_model=_name(get_part(body, "model", "modelVersion", "model_version")),
        response_id=_name(
            first_part(
                get_part(body, "id", "responseId", "response_id", "generation_id"),
                get_part(get_part(body, "ResponseMetadata"), "RequestId"),
            )
        ),
        finish_reason=_finish_reason(body),
        service_tier=_service_tier(body, usage),
        tokens=tokens,
    )


def _body(response: object, depth: int = 0) -> object:
    for wrapper in ("response", "message"):  # stream events: response.completed, message_start
        inner = get_part(response, wrapper)
        if get_part(inner, "usage") is not None and get_part(response, "usage") is None:
            return inner
    if not isinstance(response, str | bytes | int | float) and any(get_part(response, name) is not None for name in _LANDMARKS):
        return response
    for dump in ("model_dump", "to_dict"):
        method = getattr(response, dump, None)
        if depth == 0 and callable(method):
            return _body(method(), depth + 1)
    raise ValueError("not a response of a known provider: pass the decoded JSON body, or the SDK's response object")


def _provider_of(body: object) -> str | None:
    if is_gemini(get_part(body, "usageMetadata", "usage_metadata")):
        return "gcp.gemini"
    if get_part(body, "stopReason", "ResponseMetadata") is not None:
        return "aws.bedrock"
    if get_part(body, "type") == "message" and get_part(body, "choices") is None:
        return "anthropic"
    if get_part(get_part(body, "usage", "meta"), "billed_units") is not None:
        return "cohere"
    return None


def _finish_reason(body: object) -> str | None:
    for choices in ("choices", "candidates"):
        for choice in items_of(get_part(body, choices))[:1]:
            return short_code(get_part(choice, "finish_reason", "finishReason"))
    stated = get_part(body, "stop_reason", "stopReason", "finish_reason")
    if stated is None:
        stated = get_part(get_part(body, "delta"), "stop_reason")
    if stated is None and get_part(body, "object") == "response":
        stated = first_part(get_part(get_part(body, "incomplete_details"), "reason"), get_part(body, "status"))
    return short_code(stated)


def _service_tier(body: object, usage: object) -> str | None:
    if short_code(get_part(usage, "speed")) == "fast":  # Anthropic's fast mode is priced like a tier of its own
        return "fast"
    stated = first_part(
        get_part(body, "service_tier", "serviceTier"), get_part(usage, "service_tier", "trafficType", "traffic_type")
    )
    return short_code(stated) or short_code(get_part(stated, "type"))


def _name(value: object) -> str | None:
    return value if isinstance(value, str) and re.fullmatch(r"[^\s\x00-\x1f\x7f]{1,128}", value) else None
