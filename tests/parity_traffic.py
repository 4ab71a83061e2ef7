"""Traffic of simulated clinics as records of both logs: calls, and what was said of them or in them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import orjson
from parity_sides import Appended
from support import finding, scored
from tidegate.producers.simulate import generate
from tidegate.schemas.content import OfCall
from tidegate.schemas.envelope import Envelope

RATE_PER_S = 100.0
PRODUCERS = 7
# Envelopes: alone, as in quiet hours, and full.
SIZES = (1, 5, 20, 100, 100, 400)


def traffic(count: int, partitions: int, *, seed: int, announced: float = 0.0, judged: float = 0.0) -> Iterator[Appended]:
    """`count` calls that end by now, by several producers, in envelopes of many sizes; one in a hundred comes twice.

    A share of `announced` has a request event before its response, one of `judged` a verdict after it. The log's clock is
    the end of the call that filled an envelope.
    """
    chance = random.Random(seed)
    ended = datetime.now(UTC) - timedelta(seconds=60)
    begun = ended - timedelta(seconds=1.1 * count / RATE_PER_S)
    waiting: list[list[bytes]] = [[] for _ in range(PRODUCERS)]
    sizes, numbers = [1] * PRODUCERS, [0] * PRODUCERS

    def sent(producer: int, at_ms: int) -> Iterator[Appended]:
        lines = waiting[producer]
        envelope = Envelope.of(f"service-{producer}", numbers[producer], lines)
        waiting[producer], numbers[producer] = [], numbers[producer] + len(lines)
        record = Appended.of(envelope, at_ms, partitions)
        yield record
        if chance.random() < 0.01:
            yield record
        found = (verdict_on(orjson.loads(line), judged, chance) for line in lines) if judged else ()
        if verdicts := [orjson.dumps(verdict) for verdict in found if verdict]:
            guardrails = f"guardrails-{record.partition}"
            yield Appended.of(Envelope.of(guardrails, told_before[guardrails], verdicts), at_ms, partitions)
            told_before[guardrails] += len(verdicts)

    told_before = Counter[str]()
    at_ms = int(begun.timestamp() * 1_000)
    for event in islice(generate(seed, begun, rate_per_s=RATE_PER_S, diurnal=False), count):
        producer = int(chance.random() * PRODUCERS)
        if announced and chance.random() < announced:
            waiting[producer].append(orjson.dumps(request_of(event)))
        waiting[producer].append(orjson.dumps(event))
        if len(waiting[producer]) >= sizes[producer]:
            sizes[producer] = chance.choice(SIZES)
            at_ms = int((datetime.fromisoformat(event["started_at"]).timestamp() + event["latency_s"]) * 1_000)
            yield from sent(producer, at_ms)
    for producer in range(PRODUCERS):
        if waiting[producer]:
            yield from sent(producer, at_ms)


def request_of(event: dict[str, Any]) -> dict[str, Any]:
    """What a service announces of a call that it makes."""
    said = {name: event[name] for name in ("call_id", "started_at", "tenant", "team", "user", "provider_name", "request_model")}
    return said | {"event": "request", "estimated_input_tokens": 1_000, "estimated_output_tokens": 300}


def verdict_on(event: dict[str, Any], judged: float, chance: random.Random) -> dict[str, Any] | None:
    """What is found in a share of the calls that have ended: mostly nothing."""
    if event["event"] != "response" or chance.random() >= judged:
        return None
    said = {name: event[name] for name in OfCall.model_fields if name in event}
    found = [finding(leak=chance.random() < 0.5)] * (chance.random() < 0.1)
    return scored(**said | {"findings": found, "outcome": chance.choice(("scored", "scored", "partial", "sampled_out"))})


def in_order(records: list[Appended], parts: int) -> list[list[Appended]]:
    size = -(-len(records) // parts)
    return [records[start : start + size] for start in range(0, len(records), size)]
