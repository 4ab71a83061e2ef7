"""The calls that every bench works on: the same for the same seed, shaped like a clinic network's day.

Eight tenants of four teams and forty users a team, six models of three providers, twelve prompts in three versions;
a third retrieves, one in fifty fails, half reads from the prompt cache. About 850 bytes of JSON a call.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
from tidegate.schemas.envelope import Envelope

START: Final = datetime(2026, 11, 2, 8, 0, tzinfo=UTC)
# Fifty calls a second: a minute holds 3,000 of them.
_EVERY: Final = timedelta(milliseconds=20)
_MODELS: Final = (
    ("anthropic", "claude-sonnet-4-5-20250929"),
    ("anthropic", "claude-haiku-4-5-20251001"),
    ("openai", "gpt-4o-2024-08-06"),
    ("openai", "gpt-4o-mini-2024-07-18"),
    ("openai", "gpt-4.1-mini-2025-04-14"),
    ("gcp.gemini", "gemini-2.5-flash"),
)
_TASKS: Final = ("triage", "summary", "coding", "letter", "refill", "intake")


def calls(count: int, seed: int = 7) -> list[dict[str, Any]]:
    """`count` response events in the order of their start."""
    rng = random.Random(seed)
    return [_call(rng, number) for number in range(count)]


def _call(rng: random.Random, number: int) -> dict[str, Any]:
    tenant, team = rng.randrange(8), rng.randrange(4)
    provider, model = rng.choice(_MODELS)
    prompt = rng.randrange(12)
    call: dict[str, Any] = {
        "event": "response",
        "call_id": f"{rng.getrandbits(128):032x}",
        "started_at": (START + number * _EVERY).isoformat(timespec="microseconds"),
        "tenant": f"clinic-{tenant}",
        "team": f"team-{team}",
        "user": f"user-{tenant}-{team}-{int(rng.betavariate(1, 4) * 40)}",
        "service": f"{_TASKS[prompt % 6]}-api",
        "environment": "production",
        "region": "us-east-1",
        "task_type": _TASKS[prompt % 6],
        "provider_name": provider,
        "request_model": model,
        "operation_name": "chat",
        "prompt_name": f"prompt-{prompt}",
        "prompt_version": f"2.{rng.randrange(3)}",
        "temperature": 0.2,
        "max_tokens": 1024,
        "stream": True,
        "trace_id": f"{rng.getrandbits(128):032x}",
        "span_id": f"{rng.getrandbits(64):016x}",
        "labels": {"release": "2026.11.1", "channel": "web"},
    }
    latency_s = round(rng.lognormvariate(0.5, 0.6), 3)
    call["latency_s"] = latency_s
    if rng.random() < 0.02:
        return call | {"error_type": rng.choice(("rate_limit", "timeout", "overloaded")), "error_code": "429"}
    tokens = int(rng.lognormvariate(7, 0.8))
    call |= {
        "response_model": model,
        "response_id": f"msg_{rng.getrandbits(96):024x}",
        "finish_reason": "stop",
        "input_tokens": tokens,
        "output_tokens": int(rng.lognormvariate(5, 0.7)),
        "time_to_first_token_s": round(latency_s * rng.uniform(0.1, 0.4), 3),
    }
    if rng.random() < 0.5:
        call["cache_read_tokens"] = int(tokens * rng.random())
    if rng.random() < 0.33:
        call["retrieval"] = [
            {"chunk_id": f"doc-{rng.randrange(5_000)}#{part}", "score": round(rng.random(), 4), "source": "guidelines"}
            for part in range(3)
        ]
    return call


def lines(count: int, seed: int = 7) -> list[bytes]:
    """The same calls as a producer encodes them."""
    return [orjson.dumps(call) for call in calls(count, seed)]


def envelopes(encoded: list[bytes], size: int, producer: str = "bench") -> list[Envelope]:
    """Envelopes of `size` events (the last may hold fewer), numbered from 0."""
    return [Envelope.of(producer, first, encoded[first : first + size]) for first in range(0, len(encoded), size)]
