"""Abort the embedded engine after each of its steps, resume, and compare with an oracle that never heard of Tidegate.

The oracle reads the same events as plain JSON, prices them with genai-prices one by one, and adds them up.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import genai_prices
import pytest
from support import finding, scored
from tidegate.processors.embedded.pipeline import Pipeline
from tidegate.producers.local_log import LocalLog
from tidegate.schemas.envelope import Envelope
from tidegate.schemas.settings import Settings
from tidegate.schemas.usage import COUNTERS

STEPS = ("1 read", "2 step", "3 append", "4 store", "5 commit", "1 cut", "2 promise", "3 insert", "4 commit")
MODELS = ("gpt-4o-2024-08-06", "gpt-4o-mini-2024-07-18", "nobody-knows-this-model")
START = datetime(2026, 11, 2, 23, 58, tzinfo=UTC)


class Abort(BaseException):
    """The power goes out. Not an Exception: nothing may catch it on the way."""


@dataclass
class Outage:
    """Aborts at the n-th time that a step is reached."""

    step: str
    times: int

    def __call__(self, step: str) -> None:
        if step == self.step:
            self.times -= 1
            if self.times == 0:
                raise Abort(step)


def events() -> list[dict[str, Any]]:
    """Ninety calls over three days' edges, of several tenants and models, some failed, some with unknown tokens."""
    found = []
    for number in range(90):
        event: dict[str, Any] = {
            "event": "response",
            "call_id": f"call-{number % 80}",  # ids repeat: they are not the identity
            "started_at": (START + timedelta(seconds=37 * number)).isoformat(),
            "tenant": f"tenant-{number % 3}",
            "team": "triage" if number % 2 else None,
            "provider_name": "openai",
            "request_model": MODELS[number // 3 % len(MODELS)],
            "latency_s": 0.25 * (number % 7),
        }
        if number % 11:
            event |= {"input_tokens": 100 + number, "output_tokens": 7 * number, "cache_read_tokens": number % 40}
        else:
            event |= {"error_type": "timeout"}
        found.append(event)
    return found


def verdicts() -> list[dict[str, Any]]:
    """On every other call; something is found in most, and of some nobody knows."""
    return [
        scored(**{name: event[name] for name in ("call_id", "started_at", "tenant", "team", "request_model")})
        | {"findings": [finding(leak=number % 4 == 0)] * (number % 3), "outcome": "scored" if number % 5 else "sampled_out"}
        for number, event in enumerate(events()[::2])
    ]


def append_all(data_dir: Path) -> None:
    """Three producers, and what is found in their calls; envelopes of several sizes; retries that overlap what was sent; one
    junk line."""
    log = LocalLog(data_dir, fsync="normal", partitions=2)
    lines = [json.dumps(event).encode() for event in events()]
    for producer in range(3):
        own = lines[producer::3]
        if producer == 0:
            own.append(b'{"event": "response", "patient": "Rosa Martinez"}')
        sent = 0
        for size in (1, 4, 9, 2, 30):
            envelope = Envelope.of(f"producer-{producer}{producer}", sent, own[sent : sent + size])
            log.append([envelope, envelope])  # the first acknowledgement was lost, so it was sent again
            overlap = max(0, sent - 2)
            log.append([Envelope.of(f"producer-{producer}{producer}", overlap, own[overlap : sent + size])])
            sent += size
    found = [json.dumps(verdict).encode() for verdict in verdicts()]
    for first in range(0, len(found), 7):
        log.append([Envelope.of("guardrails:all", first, found[first : first + 7])] * 2)
    log.close()


def oracle() -> dict[str, Any]:
    """What the ledger must say: plain JSON, plain sums."""
    rows: Counter[tuple[str, str]] = Counter()
    cost: Counter[str] = Counter()
    tokens = 0
    for event in events():
        rows[event["tenant"], event["request_model"]] += 1
        tokens += event.get("input_tokens", 0) + event.get("output_tokens", 0)
        if "input_tokens" in event and event["request_model"] != MODELS[2]:
            usage = genai_prices.Usage(
                input_tokens=event["input_tokens"],
                output_tokens=event["output_tokens"],
                cache_read_tokens=event["cache_read_tokens"],
            )
            at = datetime.fromisoformat(event["started_at"])
            price = genai_prices.calc_price(usage, event["request_model"], provider_id="openai", genai_request_timestamp=at)
            cost[event["tenant"]] += int((price.total_price * 10**9).quantize(Decimal(1), ROUND_HALF_EVEN))
    return {"rows": dict(rows), "cost": dict(cost), "tokens": tokens, "dead_letters": 1, "verdicts": len(verdicts())}


def found() -> Counter[str]:
    """Findings by tenant."""
    sums: Counter[str] = Counter()
    for verdict in verdicts():
        sums[verdict["tenant"]] += len(verdict["findings"])
    return sums


def ledger(pipeline: Pipeline) -> dict[str, Any]:
    """What the store says, from the rows themselves."""
    ask = pipeline.store.query
    return {
        "rows": {(t, m): n for t, m, n in ask("SELECT tenant, request_model, count() FROM calls GROUP BY 1, 2").rows},
        "cost": dict(ask("SELECT tenant, sum(cost_nano_usd) FROM calls GROUP BY 1").rows),
        "tokens": ask("SELECT sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)) FROM calls").rows[0][0],
        "dead_letters": ask("SELECT count() FROM dead_letters").rows[0][0],
        "verdicts": ask("SELECT count() FROM scored_calls").rows[0][0],
    }


def rollups(pipeline: Pipeline) -> dict[str, Any]:
    """The same from the rollups, and from the meter's own usage."""
    ask = pipeline.store.query
    usage: Counter[str | None] = Counter()
    findings: Counter[str | None] = Counter()
    for key, bucket in pipeline.meter.usage_of("day", 0):
        if key.fields == ("tenant",):
            usage[key.values[0]] += bucket.counts[COUNTERS.index("cost_nano_usd")]
            findings[key.values[0]] += bucket.counts[COUNTERS.index("findings")]
    # What Prometheus is told: sums by label set, of both partitions.
    told: Counter[str] = Counter()
    for account in pipeline.meter.accounts().values():
        for (tenant, _, _), counted in account.told.items():
            told[tenant] += counted.counts[COUNTERS.index("cost_nano_usd")]
    return {
        "told": dict(told),
        "minute": dict(ask("SELECT tenant, sum(cost_nano_usd) FROM v_calls_1m GROUP BY 1").rows),
        "hour": dict(ask("SELECT tenant, sum(cost_nano_usd) FROM v_calls_1h GROUP BY 1").rows),
        "usage": dict(usage),
        "findings": findings,
        "findings by verdict": Counter(dict(ask("SELECT tenant, sum(findings) FROM v_scored_1h GROUP BY 1").rows)),
        "findings by type": Counter(dict(ask("SELECT tenant, sum(findings) FROM v_findings_1h GROUP BY 1").rows)),
    }


def settings() -> Settings:
    return Settings.read(fsync="normal", flush_bytes=3_000, sink_batch_rows=8, sink_linger_s=0.0)


def run(data_dir: Path, at: Callable[[str], None]) -> bool:
    """One life of the pipeline; whether it lived to the end."""
    pipeline = Pipeline(data_dir, settings(), at=at)
    try:
        pipeline.drain()
    except Abort:
        return False
    finally:
        pipeline.close()
    return True


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("step", STEPS)
def test_an_outage_after_any_step_changes_nothing_in_the_ledger(tmp_path: Path, step: str, times: int) -> None:
    append_all(tmp_path)

    survived = run(tmp_path, Outage(step, times))
    second = run(tmp_path, Outage(step, 1))
    finished = run(tmp_path, lambda _step: None)

    pipeline = Pipeline(tmp_path, settings())
    try:
        assert not survived, f"step {step!r} was not reached {times} times: the test tests nothing"
        assert finished
        assert second in (True, False)
        expected = oracle()
        assert ledger(pipeline) == expected
        assert rollups(pipeline) == {
            **dict.fromkeys(("told", "minute", "hour", "usage"), expected["cost"]),
            **dict.fromkeys(("findings", "findings by verdict", "findings by type"), found()),
        }
        totals = pipeline.meter.totals()
        assert totals["events"] == sum(totals[name] for name in ("responses", "scored", "dead_letters", "duplicates"))
    finally:
        pipeline.close()
