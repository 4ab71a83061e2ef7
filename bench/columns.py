"""Rows of `calls` as Python values: what somebody without Tidegate would hand to clickhouse-connect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

_TIMES: Final = ("started_at", "ingested_at")
_MAPS: Final = ("labels", "quality")
_NUMBERS: Final = (
    *("temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "max_tokens", "seed", "choice_count"),
    *("stream", "attempt", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_5m_tokens"),
    *("cache_write_1h_tokens", "reasoning_tokens", "input_audio_tokens", "output_audio_tokens", "cache_audio_read_tokens"),
    *(
        "latency_s",
        "time_to_first_token_s",
        "cache_hit",
        "cost_nano_usd",
        "cache_savings_nano_usd",
        "seq",
        "source_partition",
        "source_offset",
    ),
)
_WORDS: Final = (
    *("call_id", "tenant", "team", "user", "service", "environment", "region", "task_type", "provider_name"),
    *("request_model", "response_model", "operation_name", "prompt_name", "prompt_version", "service_tier"),
    *("fallback_from", "experiment", "variant", "conversation_id", "trace_id", "span_id", "response_id"),
    *("finish_reason", "error_type", "error_code", "price_status", "price_book", "producer"),
)

COLUMNS: Final = (*_TIMES, *_WORDS, *_NUMBERS, *_MAPS, "retrieval")


def python_row(call: Mapping[str, Any]) -> tuple[Any, ...]:
    """One row in the order of `COLUMNS`."""
    get: Callable[..., Any] = call.get
    return (
        *[datetime.fromisoformat(call[name]) for name in _TIMES],
        *[get(name, "") for name in _WORDS],
        *[get(name) for name in _NUMBERS],
        *[get(name, {}) for name in _MAPS],
        [(chunk["chunk_id"], chunk.get("score"), chunk.get("source", "")) for chunk in get("retrieval", ())],
    )
