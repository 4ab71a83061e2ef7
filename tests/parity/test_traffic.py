"""Parity on traffic: a million calls of simulated clinics; and the same engines while workers join and leave."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pytest
from kafka_broker import needs_broker
from parity_engines import Engines
from parity_sides import Appended
from support import finding, scored
from tidegate.producers.simulate import generate
from tidegate.schemas.content import OfCall
from tidegate.schemas.envelope import Envelope

pytestmark = [pytest.mark.slow, needs_broker]

EVENTS = int(os.environ.get("TIDEGATE_TEST_PARITY_EVENTS", "1000000"))
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


def test_a_million_calls_come_to_the_same_on_both_engines(tmp_path: Path, kafka_url: str) -> None:
    with Engines(tmp_path / "engines", kafka_url, partitions=3, flush_bytes=1 << 20) as engines:
        records = traffic(EVENTS, engines.partitions, seed=20261122)
        while some := list(islice(records, 500)):
            engines.append(some)
        engines.settle(300)

        assert not engines.differences(60)
        assert engines.totals()["responses"] == EVENTS
        assert engines.totals()["duplicates"] > 0
    shutil.rmtree(tmp_path / "engines")  # two gigabytes


def test_workers_that_join_leave_and_are_killed_change_nothing(tmp_path: Path, kafka_url: str) -> None:
    with Engines(tmp_path, kafka_url, partitions=4, flush_bytes=100_000) as engines:
        fleet = engines.distributed.fleet
        records = list(traffic(60_000, engines.partitions, seed=5, announced=0.3, judged=0.3))
        parts = in_order(records, 8)

        engines.append(parts[0])
        fleet.start("meter").wait_until_it_works()
        engines.append(parts[1])
        fleet.start("policies")
        engines.append(parts[2])
        fleet.stop(fleet.running("meter")[0])
        engines.append(parts[3])
        fleet.start("meter").wait_until_it_works()
        engines.append(parts[4])
        fleet.kill(fleet.running("meter")[0])
        engines.append(parts[5])
        fleet.kill(fleet.running("policies")[0])
        for part in parts[6:]:
            engines.append(part)
        engines.settle()

        assert not engines.differences()
        assert engines.totals()["responses"] == 60_000
        assert engines.totals()["requests"] > 10_000
        assert engines.totals()["scored"] > 10_000


def in_order(records: list[Appended], parts: int) -> list[list[Appended]]:
    size = -(-len(records) // parts)
    return [records[start : start + size] for start in range(0, len(records), size)]
