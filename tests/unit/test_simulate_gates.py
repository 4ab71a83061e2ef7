"""Simulated services that ask a gate obey it: they go, go with another model, or are kept back; others go on as ever."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from signalling import Stage, policy
from tidegate.producers.ports import Position
from tidegate.producers.simulate import SimulationReport, become, generate, simulate
from tidegate.producers.simulate_gates import ASKING
from tidegate.schemas.hot import decode_event

NOW = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)


class Recorder:
    """Takes everything, and tells reservations where it went."""

    def __init__(self) -> None:
        self.events: list[Mapping[str, Any]] = []
        self.held = 0

    def emit(self, event: Mapping[str, Any], settled: Any = None, /) -> bool:
        self.events.append(event)
        if settled is not None:
            self.held += 1
            settled.placed(Position(0, len(self.events)))
        return True

    def emit_content(self, call: Mapping[str, Any], texts: Mapping[str, Any], /) -> bool:
        return True

    def wait_for_room(self) -> None:
        pass


def stage(tenant: str, state: str, **fields: Any) -> Stage:
    """A gate that has heard this of a tenant, and of the others nothing."""
    made = Stage()
    made.enforce(policy(scope=("tenant",), measure="requests", limit=10**9, actions=[{"do": "block"}]))
    spend = 10**9 if state == "block" else 1
    made.tell(made.signal("budget", spend, scope={"tenant": tenant}, state=state, measure="requests", limit=1e9, **fields))
    return made


def run(gate: Any, most: int = 1_500) -> tuple[Recorder, SimulationReport]:
    out = Recorder()
    report = simulate(out, rate_per_s=None, seed=7, now=NOW, clock=lambda: 0.0, stop=lambda: len(out.events) >= most, gate=gate)
    return out, report


def plain(count: int) -> list[dict[str, Any]]:
    """The traffic that nobody keeps back."""
    return list(itertools.islice(generate(7, NOW, rate_per_s=50_000.0, diurnal=False), count))


def asks(event: Mapping[str, Any]) -> bool:
    return (event["tenant"], event["team"]) in ASKING


def test_a_block_keeps_back_the_calls_of_who_asks_and_of_nobody_else() -> None:
    out, report = run(stage("retail-care", "block").gate)

    kept = report.kept_back["budget"]
    there = plain(len(out.events) + kept)
    assert kept == sum(event["tenant"] == "retail-care" and asks(event) for event in there) > 50
    assert out.events == [event for event in there if not (event["tenant"] == "retail-care" and asks(event))]
    assert any(event["tenant"] == "retail-care" for event in out.events), "search asks no gate, and goes on"
    assert out.held == sum(map(asks, out.events))


def test_a_downgrade_is_made_with_the_model_that_the_policy_names() -> None:
    out, report = run(stage("st-anne", "downgrade", model="gpt-4o-mini").gate)

    assert report.kept_back == {}
    for event, before in zip(out.events, plain(len(out.events)), strict=True):
        if before["team"] == "emergency" and before["request_model"] != "gpt-4o-mini":
            assert (event["request_model"], event["fallback_from"]) == ("gpt-4o-mini", before["request_model"])
            assert (event["provider_name"], "cache_read_tokens" in event) == ("openai", False)
            decode_event(orjson.dumps(event))
        else:
            assert event == before
    assert sum(event["team"] == "emergency" for event in out.events) > 50


def test_a_gate_learns_what_calls_of_a_model_use_and_keeps_none_back_that_fits() -> None:
    made = Stage()
    made.enforce(policy(scope=("tenant",), measure="total_tokens", limit=10**9, actions=[{"do": "block"}]))
    for tenant, _ in ASKING:
        made.tell(made.signal("budget", 1, scope={"tenant": tenant}, measure="total_tokens", limit=1e9))

    out, report = run(made.gate)

    models = {event["request_model"] for event in out.events if asks(event)}
    assert sum(report.kept_back.values()) <= len(models), "the first call of a model is of unknown size, and goes alone"
    assert sum(map(asks, out.events)) > 500


def test_the_same_gate_lets_the_same_traffic_go() -> None:
    first, second = (run(stage("retail-care", "block").gate)[0] for _ in range(2))

    assert first.events == second.events


def test_without_a_gate_nobody_asks() -> None:
    out, report = run(None)

    assert out.events == plain(len(out.events))
    assert (out.held, report.kept_back) == (0, {})


def test_some_of_the_clinics_ask_and_some_do_not() -> None:
    teams = {(event["tenant"], event["team"]) for event in plain(5_000)}

    assert teams > ASKING
    assert ("harbor-health", "triage") not in ASKING, "its leaks are to be seen"


def test_a_call_that_failed_stays_one_with_another_model() -> None:
    failed = next(event for event in plain(2_000) if "error_type" in event and event["request_model"] == "gpt-4o")

    other = become(failed, "gpt-4o-mini")

    assert other["error_type"] == failed["error_type"]
    assert "response_model" not in other
    decode_event(orjson.dumps(other))
