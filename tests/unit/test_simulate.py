"""Simulated traffic is valid, repeatable, plausible, and shows what a dashboard should show."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import orjson
import pytest
from tidegate.producers.simulate import NEW_VERSION_AFTER_CALLS, generate, simulate
from tidegate.schemas.hot import decode_event

NOW = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
UNPRICED = "northside-coder-7b"


@cache
def day_part() -> tuple[dict[str, Any], ...]:
    return tuple(itertools.islice(generate(7, NOW), 20_000))


def succeeded() -> list[dict[str, Any]]:
    return [event for event in day_part() if "error_type" not in event]


def ended_at(event: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(event["started_at"]) + timedelta(seconds=event["latency_s"])


def test_every_event_is_accepted_by_the_meters_decoder() -> None:
    for event in day_part():
        decode_event(orjson.dumps(event))


def test_the_same_seed_and_time_give_the_same_events_and_another_seed_others() -> None:
    same = tuple(itertools.islice(generate(7, NOW), 5_000))
    other = tuple(itertools.islice(generate(8, NOW), 100))

    assert same == day_part()[:5_000]
    assert other != same[:100]


def test_every_call_has_an_id_of_its_own() -> None:
    assert len({event["call_id"] for event in day_part()}) == len(day_part())


def test_events_come_in_the_order_in_which_their_calls_end_at_the_rate_asked_for() -> None:
    events = list(itertools.islice(generate(7, NOW, rate_per_s=50.0, diurnal=False), 20_000))

    ends = [ended_at(event) for event in events]

    # Start and latency are rounded to the microsecond, each by itself.
    assert all(later - earlier > timedelta(microseconds=-3) for earlier, later in itertools.pairwise(ends))
    assert 20_000 / 50.0 * 0.9 < (ends[-1] - NOW).total_seconds() < 20_000 / 50.0 * 1.05


def test_nights_are_quieter_than_days() -> None:
    def calls_in_a_quarter(hour: int) -> int:
        start = NOW.replace(hour=hour)
        return sum(
            1 for _ in itertools.takewhile(lambda event: ended_at(event) < start + timedelta(minutes=15), generate(3, start))
        )

    assert calls_in_a_quarter(2) * 2 < calls_in_a_quarter(13)


def test_tenants_providers_and_errors_have_plausible_shares() -> None:
    total = len(day_part())
    tenants = Counter(event["tenant"] for event in day_part())
    providers = Counter(event["provider_name"] for event in day_part())
    errors = Counter(event["error_type"] for event in day_part() if "error_type" in event)

    assert len(tenants) == 6
    assert all(share > 0.03 * total for share in tenants.values())
    assert {"openai", "anthropic", "gcp.gemini", "aws.bedrock", "mistral_ai", "self_hosted"} == set(providers)
    assert 0.01 < errors.total() / total < 0.08
    assert errors["rate_limit"] > errors["context_length"] > 0
    assert {"timeout", "overloaded", "server_error", "invalid_request", "content_filter"} <= set(errors)


def test_tokens_times_and_cache_fit_together() -> None:
    for event in succeeded():
        assert event["input_tokens"] >= event.get("cache_read_tokens", 0) + event.get("cache_write_5m_tokens", 0)
        assert event.get("time_to_first_token_s", 0) <= event["latency_s"] < 120
        assert ("time_to_first_token_s" in event) == bool(event.get("stream"))
        assert ("output_tokens" in event) == (event["operation_name"] == "chat")
    read = sum(event.get("cache_read_tokens", 0) for event in succeeded() if event["provider_name"] == "anthropic")
    written = sum(event.get("cache_write_5m_tokens", 0) for event in succeeded() if event["provider_name"] == "anthropic")
    assert 0 < written < read


def test_a_failed_call_is_retried_under_its_trace_and_falls_back_to_another_model() -> None:
    traces: dict[str, list[dict[str, Any]]] = {}
    for event in day_part():
        traces.setdefault(event["trace_id"], []).append(event)
    retried = [attempts for attempts in traces.values() if len(attempts) > 1]

    assert len(retried) > 50
    for attempts in retried:
        assert [event["attempt"] for event in attempts] == list(range(1, len(attempts) + 1))
        assert all("error_type" in event for event in attempts[:-1])
        assert len({(event["tenant"], event["user"]) for event in attempts}) == 1
        for last in attempts[2:]:
            assert last["fallback_from"] == attempts[0]["request_model"] != last["request_model"]
    assert any(len(attempts) == 3 for attempts in retried)


def test_the_first_outage_hits_one_provider_and_ends() -> None:
    def error_share(provider: str, begin_s: float, end_s: float) -> float:
        seen = [
            "error_type" in event
            for event in day_part()
            if event["provider_name"] == provider and begin_s < (ended_at(event) - NOW).total_seconds() < end_s
        ]
        return sum(seen) / len(seen)

    assert error_share("anthropic", 95, 125) > 0.5
    assert error_share("anthropic", 0, 85) < 0.1
    assert error_share("openai", 95, 125) < 0.1


def test_a_new_prompt_version_appears_midway_and_is_worse() -> None:
    before, after = day_part()[:NEW_VERSION_AFTER_CALLS], day_part()[NEW_VERSION_AFTER_CALLS + 100 :]
    triage = [event for event in after if event["prompt_name"] == "triage" and "retrieval" in event]

    def mean_score(version: str) -> float:
        scores = [c["score"] for event in triage if event["prompt_version"] == version for c in event["retrieval"]]
        return sum(scores) / len(scores)

    assert {event["prompt_version"] for event in before if event["prompt_name"] == "triage"} == {"2.1"}
    assert {event["prompt_version"] for event in triage} == {"2.1", "2.2"}
    assert mean_score("2.2") < mean_score("2.1") - 0.05


def test_a_user_stays_in_one_variant_of_an_experiment() -> None:
    variants: dict[str, set[str]] = {}
    for event in day_part():
        if "experiment" in event:
            variants.setdefault(event["user"], set()).add(event["variant"])

    assert {variant for seen in variants.values() for variant in seen} == {"control", "concise"}
    assert all(len(seen) == 1 for seen in variants.values())


def test_all_models_but_the_clinics_own_have_a_price() -> None:
    prices = pytest.importorskip("genai_prices", reason="the price book comes with the node extra")
    known = {"gcp.gemini": "google", "aws.bedrock": "aws", "mistral_ai": "mistral"}
    models = {(event["provider_name"], event["request_model"]) for event in day_part()}

    for provider, model in models:
        usage = prices.Usage(input_tokens=1_000, output_tokens=100)
        if model == UNPRICED:
            with pytest.raises(LookupError):
                prices.calc_price(usage, model, provider_id=known.get(provider, provider))
        else:
            assert prices.calc_price(usage, model, provider_id=known.get(provider, provider)).total_price > 0


class Recorder:
    def __init__(self, room_for: int = 10**9) -> None:
        self.events: list[Mapping[str, Any]] = []
        self.room_for = room_for
        self.waits = 0

    def emit(self, event: Mapping[str, Any], /) -> bool:
        if len(self.events) >= self.room_for:
            return False
        self.events.append(event)
        return True

    def wait_for_room(self) -> None:
        self.waits += 1


class FakeTime:
    def __init__(self) -> None:
        self.now = 50.0
        self.longest = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.longest = max(self.longest, seconds)
        self.now += seconds


def test_a_paced_simulation_emits_each_event_when_its_call_ends() -> None:
    fake, emitter = FakeTime(), Recorder()

    report = simulate(emitter, rate_per_s=10.0, duration_s=60.0, seed=7, now=NOW, clock=fake.clock, sleep=fake.sleep)

    expected = itertools.takewhile(
        lambda event: ended_at(event) < NOW + timedelta(seconds=60), generate(7, NOW, rate_per_s=10.0, diurnal=False)
    )
    assert json.dumps(emitter.events) == json.dumps(list(expected))
    assert (report.emitted, report.dropped) == (len(emitter.events), 0)
    assert 60.0 <= report.elapsed_s < 60.2
    assert fake.longest <= 0.2
    assert emitter.waits == 0


def test_a_paced_simulation_drops_and_counts_what_finds_no_room() -> None:
    fake, emitter = FakeTime(), Recorder(room_for=5)

    report = simulate(emitter, rate_per_s=10.0, duration_s=10.0, now=NOW, clock=fake.clock, sleep=fake.sleep)

    assert report.emitted == 5
    assert report.dropped > 50


def test_an_unpaced_simulation_waits_for_room_and_never_sleeps() -> None:
    emitter = Recorder()

    report = simulate(
        emitter,
        rate_per_s=None,
        now=NOW,
        clock=lambda: 0.0,
        sleep=lambda seconds: pytest.fail("unpaced means unpaced"),
        stop=lambda: len(emitter.events) >= 1_000,
    )

    assert report.emitted == emitter.waits == 1_000


def test_a_stop_is_heard_while_waiting() -> None:
    fake, emitter = FakeTime(), Recorder()

    simulate(emitter, rate_per_s=0.001, now=NOW, clock=fake.clock, sleep=fake.sleep, stop=lambda: fake.now > 51.0)

    assert fake.now < 52.0
    assert emitter.events == []


@pytest.mark.parametrize("rate", [0.0, -5.0, float("nan")])
def test_a_rate_that_is_not_positive_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        simulate(Recorder(), rate_per_s=rate)
