"""What a provider's usage object counts, in one vocabulary.

    raw usage ──► which shape? ──► counts, made inclusive ──► the token fields of a response event

`input_tokens` comes out including cached reads and writes, `output_tokens` including reasoning, whatever the provider's
own habit. A count that the provider does not state is absent, never 0.

    shape                       told by                         habit
    OpenAI chat, embeddings     prompt_tokens                   inclusive; xAI and Perplexity put reasoning outside
    OpenAI Responses, realtime  input_tokens + *_details        inclusive
    Anthropic                   input_tokens                    cached reads and writes outside
    Gemini                      promptTokenCount                cached inside, thoughts and tool-use prompts outside
    Bedrock Converse, headers   inputTokens, x-amzn-bedrock-*   cached reads and writes outside
    Cohere                      billed_units                    what is charged; `tokens` adds a preamble that is not
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Final

# Spellings met in the wild, to the well-known values of OpenTelemetry's `gen_ai.provider.name`.
_SPELLINGS: Final = {
    "amazon": "aws.bedrock",
    "amazon_bedrock": "aws.bedrock",
    "aws": "aws.bedrock",
    "aws_bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "azure_openai": "azure.ai.openai",
    "az.ai.openai": "azure.ai.openai",
    "az.ai.inference": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "claude": "anthropic",
    "gemini": "gcp.gemini",
    "google": "gcp.gen_ai",
    "google_genai": "gcp.gen_ai",
    "google_vertexai": "gcp.vertex_ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "vertex": "gcp.vertex_ai",
    "vertex_ai": "gcp.vertex_ai",
    "vertexai": "gcp.vertex_ai",
    "x.ai": "x_ai",
    "xai": "x_ai",
}


def canonical_provider(name: str) -> str:
    """OpenTelemetry's name of a provider (`aws.bedrock`, `gcp.vertex_ai`, …); one it does not know comes back lower-case."""
    name = name.strip().lower()
    spelling = name.replace("-", "_").replace(" ", "_")
    return _SPELLINGS.get(spelling, spelling if spelling in _WELL_KNOWN else name)


_WELL_KNOWN: Final = frozenset(_SPELLINGS.values())
_OPENAI_FAMILY: Final = frozenset({"openai", "azure.ai.openai"})


def normalise_usage(usage: Mapping[str, object], provider_name: str | None = None) -> dict[str, int]:
    """The token fields that `usage` states, inclusive as the schema wants them; an empty object states nothing.

    The shape is told from the keys; `provider_name` only breaks ties. Raises `ValueError`, safe to store, when the shape
    is not known, a count is not a whole number ≥ 0, or a part is larger than its whole.
    """
    if all(value is None for value in usage.values()):
        return {}
    return token_counts(usage, None if provider_name is None else canonical_provider(provider_name))


def token_counts(usage: object, provider: str | None) -> dict[str, int]:
    """As `normalise_usage`, of a mapping or an SDK's object; `provider` is canonical, and to state nothing is an error."""
    read = _shape_of(usage, provider)
    if read is None:
        raise ValueError("usage has no known shape: send the provider's usage object unchanged, or token fields instead")
    tokens = {name: count for name, count in read(usage, provider).items() if count is not None}
    _check_parts(tokens)
    return tokens


_Counts = dict[str, int | None]


def _shape_of(usage: object, provider: str | None) -> Callable[[object, str | None], _Counts] | None:
    if isinstance(usage, Mapping) and any(str(key).lower().startswith(_HEADER) for key in usage):
        return _bedrock_headers
    if get_part(usage, "generation_token_count") is not None:
        return _bedrock_llama
    if get_part(usage, "promptTokenCount", "prompt_token_count", "totalTokenCount", "total_token_count") is not None:
        return _gemini
    if get_part(usage, "billed_units", "tokens") is not None:
        return _cohere
    if get_part(usage, "prompt_tokens", "completion_tokens") is not None:
        return _openai_chat
    if get_part(usage, "input_tokens", "output_tokens") is not None:
        return _input_output
    if get_part(usage, "inputTokens", "outputTokens", "inputTokenCount", "outputTokenCount") is not None:
        return _bedrock
    if provider is not None and provider.startswith("voyage") and get_part(usage, "total_tokens") is not None:
        return _only_input
    return None


def is_gemini(usage: object) -> bool:
    """Whether this has Gemini's shape, which is one provider's own."""
    return _shape_of(usage, None) is _gemini


def _openai_chat(usage: object, provider: str | None) -> _Counts:
    details = get_part(usage, "prompt_tokens_details")
    answer = get_part(usage, "completion_tokens_details")
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    read = _first(
        _count(details, "cached_tokens"),
        _count(usage, "cache_read_input_tokens", "cached_tokens", "prompt_cache_hit_tokens", "cached_prompt_text_tokens"),
    )
    written = _first(
        _count(details, "cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens"),
        _count(usage, "cache_creation_input_tokens"),
    )
    split = first_part(get_part(details, "cache_creation_token_details"), get_part(usage, "cache_creation"))
    write_5m, write_1h = _writes(written, split)
    # A gateway's prompt_tokens that is too small to hold the cached tokens cannot include them: LiteLLM has left out the
    # writes alone, and older releases of it the reads as well.
    if prompt is not None and (read or 0) + (write_5m or 0) + (write_1h or 0) > prompt:
        prompt += (write_5m or 0) + (write_1h or 0) + ((read or 0) if (read or 0) > prompt else 0)
    reasoning = _first(_count(answer, "reasoning_tokens"), _count(usage, "reasoning_tokens"))
    citations = _count(usage, "citation_tokens")
    if completion is not None and (reasoning or citations):
        outside = _reasoning_outside(usage, provider, completion, reasoning or 0, citations)
        completion += (citations or 0) + ((reasoning or 0) if outside else 0)
    return {
        "input_tokens": prompt,
        "output_tokens": completion,
        "cache_read_tokens": read,
        "cache_write_5m_tokens": write_5m,
        "cache_write_1h_tokens": write_1h,
        "reasoning_tokens": reasoning,
        "input_audio_tokens": _count(details, "audio_tokens"),
        "output_audio_tokens": _count(answer, "audio_tokens"),
    }


def _reasoning_outside(usage: object, provider: str | None, completion: int, reasoning: int, citations: int | None) -> bool:
    """Whether `completion_tokens` leaves reasoning out. Perplexity's does and its total does not tell; xAI's total tells."""
    if provider == "perplexity" or citations is not None or reasoning > completion:
        return True
    prompt, total = _count(usage, "prompt_tokens"), _count(usage, "total_tokens")
    if prompt is not None and total in (prompt + completion, prompt + completion + reasoning):
        return total == prompt + completion + reasoning
    return provider == "x_ai"


def _input_output(usage: object, provider: str | None) -> _Counts:
    """OpenAI Responses, realtime and LangChain (inclusive) share their two main keys with Anthropic (cached tokens outside)."""
    details = get_part(usage, "input_tokens_details", "input_token_details")
    answer = get_part(usage, "output_tokens_details", "output_token_details")
    read = _first(
        _count(details, "cached_tokens", "cache_read", "cache_read_input_tokens"), _count(usage, "cache_read_input_tokens")
    )
    written = _first(_count(details, "cache_write_tokens", "cache_creation"), _count(usage, "cache_creation_input_tokens"))
    write_5m, write_1h = _writes(written, first_part(get_part(usage, "cache_creation"), details))
    inclusive = details is not None or provider in _OPENAI_FAMILY
    whole = _count(usage, "input_tokens")
    return {
        "input_tokens": whole if inclusive else _plus(whole, read, write_5m, write_1h),
        "output_tokens": _count(usage, "output_tokens"),
        "cache_read_tokens": read,
        "cache_write_5m_tokens": write_5m,
        "cache_write_1h_tokens": write_1h,
        "reasoning_tokens": _count(answer, "reasoning_tokens", "thinking_tokens", "reasoning"),
        "input_audio_tokens": _count(details, "audio_tokens", "audio"),
        "output_audio_tokens": _count(answer, "audio_tokens", "audio"),
        "cache_audio_read_tokens": _count(get_part(details, "cached_tokens_details"), "audio_tokens"),
    }


def _gemini(usage: object, provider: str | None) -> _Counts:
    prompt = _count(usage, "promptTokenCount", "prompt_token_count")
    tool = _count(usage, "toolUsePromptTokenCount", "tool_use_prompt_token_count")
    thoughts = _count(usage, "thoughtsTokenCount", "thoughts_token_count")
    answer = _count(usage, "candidatesTokenCount", "candidates_token_count", "responseTokenCount", "response_token_count")
    total = _count(usage, "totalTokenCount", "total_token_count")
    if answer is None and prompt is not None and total is not None:
        # A count of zero is left out of the JSON; the total tells zero from unknown.
        rest = total - prompt - (tool or 0) - (thoughts or 0)
        answer = rest if rest >= 0 else None
    prompt_audio = _audio(usage, "promptTokensDetails", "prompt_tokens_details")
    tool_audio = _audio(usage, "toolUsePromptTokensDetails", "tool_use_prompt_tokens_details")
    return {
        "input_tokens": _plus(prompt, tool),
        "output_tokens": _plus(answer, thoughts),
        "cache_read_tokens": _count(usage, "cachedContentTokenCount", "cached_content_token_count"),
        "reasoning_tokens": thoughts if answer is not None else None,
        "input_audio_tokens": tool_audio if prompt_audio is None else _plus(prompt_audio, tool_audio),
        "output_audio_tokens": _audio(
            usage, "candidatesTokensDetails", "candidates_tokens_details", "responseTokensDetails", "response_tokens_details"
        ),
        "cache_audio_read_tokens": _audio(usage, "cacheTokensDetails", "cache_tokens_details"),
    }


def _bedrock(usage: object, provider: str | None) -> _Counts:
    read = _count(usage, "cacheReadInputTokens", "cacheReadInputTokenCount")
    written = _count(usage, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
    by_ttl = {
        short_code(get_part(item, "ttl")): _count(item, "inputTokens") for item in items_of(get_part(usage, "cacheDetails"))
    }
    split = {"ephemeral_5m_input_tokens": by_ttl.get("5m"), "ephemeral_1h_input_tokens": by_ttl.get("1h")}
    write_5m, write_1h = _writes(written, split)
    return {
        "input_tokens": _plus(_count(usage, "inputTokens", "inputTokenCount"), read, write_5m, write_1h),
        "output_tokens": _count(usage, "outputTokens", "outputTokenCount"),
        "cache_read_tokens": read,
        "cache_write_5m_tokens": write_5m,
        "cache_write_1h_tokens": write_1h,
    }


_HEADER: Final = "x-amzn-bedrock-"


def _bedrock_headers(usage: object, provider: str | None) -> _Counts:
    """InvokeModel states its counts in response headers, as text."""
    counts: dict[str, int] = {}
    for key, value in usage.items() if isinstance(usage, Mapping) else ():
        name = str(key).lower().removeprefix(_HEADER)
        if name.endswith("-token-count") and name != str(key).lower():
            if not (isinstance(value, int) or (isinstance(value, str) and re.fullmatch(r"[0-9]{1,12}", value))):
                raise ValueError(f"usage {_HEADER}*-token-count headers must be whole numbers: send them unchanged")
            counts[name.removesuffix("-token-count")] = int(value)
    as_converse = {
        "inputTokens": counts.get("input"),
        "outputTokens": counts.get("output"),
        "cacheReadInputTokens": counts.get("cache-read-input"),
        "cacheWriteInputTokens": counts.get("cache-write-input"),
    }
    return _bedrock(as_converse, provider)


def _bedrock_llama(usage: object, provider: str | None) -> _Counts:
    return {
        "input_tokens": _count(usage, "prompt_token_count"),
        "output_tokens": _count(usage, "generation_token_count"),
    }


def _cohere(usage: object, provider: str | None) -> _Counts:
    """Billed units, because they are what is charged; cached tokens are a part of `tokens`, not of what is billed."""
    billed, counted = get_part(usage, "billed_units"), get_part(usage, "tokens")
    part = counted if billed is None else billed
    return {
        "input_tokens": _count(part, "input_tokens"),
        "output_tokens": _count(part, "output_tokens"),
        "cache_read_tokens": _count(usage, "cached_tokens") if billed is None else None,
    }


def _only_input(usage: object, provider: str | None) -> _Counts:
    return {"input_tokens": _count(usage, "total_tokens")}


def _writes(total: int | None, split: object) -> tuple[int | None, int | None]:
    """Cache writes by lifetime: what the split does not explain lives five minutes, which is the default everywhere."""
    five, hour = _count(split, "ephemeral_5m_input_tokens"), _count(split, "ephemeral_1h_input_tokens")
    if five is None and hour is None:
        return total, None
    return (five or 0) + max((total or 0) - (five or 0) - (hour or 0), 0), hour


def _check_parts(tokens: dict[str, int]) -> None:
    def of(*names: str) -> int:
        return sum(tokens.get(name, 0) for name in names)

    if "input_tokens" in tokens:
        if of("cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens") > tokens["input_tokens"]:
            raise ValueError("usage counts more cached tokens than input tokens: send the provider's usage object unchanged")
        if of("input_audio_tokens") > tokens["input_tokens"]:
            raise ValueError("usage counts more audio than input tokens: send the provider's usage object unchanged")
    if "output_tokens" in tokens and max(of("reasoning_tokens"), of("output_audio_tokens")) > tokens["output_tokens"]:
        raise ValueError("usage counts more reasoning or audio than output tokens: send the provider's usage object unchanged")


def get_part(part: object, *names: str) -> object:
    """The first of these that `part`, a mapping or an object, holds and that is not None."""
    if type(part) is dict or isinstance(part, Mapping):  # decoded JSON is spared the question, which costs the most here
        for name in names:
            if (value := part.get(name)) is not None:
                return value
    else:
        for name in names:
            if (value := getattr(part, name, None)) is not None:
                return value
    return None


def _count(part: object, *names: str) -> int | None:
    value = get_part(part, *names)
    if isinstance(value, float) and value.is_integer():  # Cohere's SDK types its counts as floats
        value = int(value)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"usage {names[0]} must be a whole number: send the provider's usage object unchanged")
    if value < 0:
        raise ValueError(f"usage {names[0]} must not be negative: send the provider's usage object unchanged")
    return int(value)


def _audio(usage: object, *names: str) -> int | None:
    counts = [
        _count(item, "tokenCount", "token_count")
        for item in items_of(get_part(usage, *names))
        if short_code(get_part(item, "modality")) == "audio"
    ]
    return _plus(*counts) if counts else None


def items_of(value: object) -> Sequence[object]:
    """The items of a list, or of what iterates once; nothing of anything else."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return value
    return tuple(value) if isinstance(value, Iterator) else ()


def _plus(whole: int | None, *parts: int | None) -> int | None:
    return None if whole is None else whole + sum(part or 0 for part in parts)


def _first(*counts: int | None) -> int | None:
    return next((count for count in counts if count is not None), None)


def first_part(*parts: object) -> object:
    """The first that is not None."""
    return next((part for part in parts if part is not None), None)


def short_code(value: object) -> str | None:
    """A short lower-case code, from text or an enum; anything that could hold a sentence is nothing."""
    if isinstance(value, Enum):
        value = value.value if isinstance(value.value, str) else value.name
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.:/-]{1,64}", value):
        return value.lower()
    return None
