"""The policies step: the last word on every scope is what a plain sum says, however the news came; and what is said on the
way there is said once, at the right moment, and no oftener than promised."""

from __future__ import annotations

import random
import re
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policing import Call, House, Truth, policy, policy_set, scope_of, truth
from support import NOW_S
from tidegate.processors.policies import HEARTBEAT_S, IDLE_S, PoliciesState, policies
from tidegate.schemas.policy import SEVERITY, Policy
from tidegate.schemas.signal import Signal


def calls(count: int, at: float = NOW_S, **fields: Any) -> list[Call]:
    """So many calls of one tenant, all at one moment."""
    return [Call(at, f"call-{at}-{number}", fields=fields) for number in range(count)]


# The last word is the truth

POLICIES = (
    policy("spend", measure="cost_usd", limit="0.0000001", actions=[{"do": "block"}]),
    policy("daily", measure="total_tokens", limit=4_000, window={"calendar": "day", "time_zone": "America/New_York"}),
    policy("rate", window={"rolling": "1m"}, limit=4, scope=("tenant", "user"), warn_at=[0.5], actions=[{"do": "alert"}]),
    policy("all", scope=(), measure="errors", limit=3, match={"team": ["triage", "billing"]}),
    policy(
        "ladder",
        scope=("label.ward",),
        limit=8,
        warn_at=[0.25],
        actions=[
            {"do": "throttle", "at": 0.5, "per_minute": 6},
            {"do": "downgrade", "at": 0.75, "model": "small"},
            {"do": "block"},
        ],
    ),
)
# Ten seconds before midnight in New York on the day before the clocks go back there.
EVE = datetime(2026, 10, 31, 23, 59, 50, tzinfo=ZoneInfo("America/New_York")).timestamp()


def logs(size: int, chance: random.Random) -> list[list[Call]]:
    """The lines of two partitions, each in the order of its log: calls, announced or not, some late, some of a fast clock."""
    found: list[list[Call]] = [[], []]
    now = EVE
    announced: list[tuple[int, str, dict[str, Any]]] = []
    for number in range(size):
        now += chance.choice([0.0, 0.25, 1.0, 7.0, 61.0, 400.0, 5_000.0])
        if announced and chance.random() < 0.5:
            partition, call_id, fields = announced.pop(0)
        else:
            partition, call_id = chance.randrange(2), f"call-{number}"
            fields = {
                "tenant": chance.choice(["harbor", "lakeside"]),
                "user": chance.choice([None, "ana", "ben"]),
                "team": chance.choice([None, "triage", "billing"]),
                "labels": chance.choice([None, {"ward": "north"}]),
            }
            if chance.random() < 0.25:
                held = {**fields, "estimated_input_tokens": 300, "estimated_output_tokens": 50}
                found[partition].append(Call(now, call_id, "request", now, 20 + number, held))
                announced.append((partition, call_id, fields))
                continue
        # Every amount is another, so that no two sums are alike by chance.
        counted = {
            **fields,
            "input_tokens": 1_000 + (1 << number % 9),
            "error_type": chance.choice([None, "timeout"]),
        }
        started = now + chance.choice([0.0, 0.0, -3.0, -90.0, -4_000.0, 30.0])
        found[partition].append(Call(now, call_id, "response", started, 10 + (1 << number % 9), counted))
    return found


@given(st.integers(1, 30), st.integers(0, 2**32).map(random.Random))
def test_however_the_news_comes_the_last_word_on_every_scope_is_what_a_plain_sum_says(size: int, chance: random.Random) -> None:
    lines = logs(size, chance)
    house = House(policy_set(*POLICIES), partitions=2, now=EVE)
    now = EVE

    while any(house.flushed[p] < len(lines[p]) for p in (0, 1)):
        partition = chance.choice([p for p in (0, 1) if house.flushed[p] < len(lines[p])])
        start = house.applied[partition]
        batch = lines[partition][start : start + chance.randint(1, 5)]
        house.apply(partition, batch)
        now = max([now, *(call.appended_s for call in batch)])
        what = chance.randrange(8)
        if what == 0:
            house.restart_meter(partition)
            continue
        house.flush(partition, now)
        if what == 1:
            house.evict()
        if what == 2:
            house.restart_policies(now)
        if what == 3:
            house.heard[partition] = chance.randint(0, house.heard[partition])
        if what != 4:
            house.hear(partition, now, chance.choice([None, house.heard[partition] + 1]))
        if what != 5:
            house.pass_time(now)
    end = now + chance.choice([0.0, 1.0, 45.0, 700.0, 3_000.0, 90_000.0])
    house.pass_time(end)
    house.run(now=end)
    end += 2 * HEARTBEAT_S
    house.pass_time(end)
    house.run(now=end)

    everything = [call for part in lines for call in part]
    for each in POLICIES:
        for values in {values for call in everything if (values := scope_of(each, call)) is not None}:
            expected = truth(each, everything, values, end)
            assert house.state(*values, policy=each.name) == expected.state
            if expected.state != "ok":
                assert_true(house.signal(*values, policy=each.name), expected)
            house.policies.scope(house.policies.rules[each.name].series.id, values, end)
    end += 2 * HEARTBEAT_S
    house.run(now=end)
    for each in POLICIES:
        for values in {values for call in everything if (values := scope_of(each, call)) is not None}:
            assert_true(house.signal(*values, policy=each.name), truth(each, everything, values, end))
    assert_in_order(house.told)


def assert_true(signal: Signal, expected: Truth) -> None:
    assert (signal.state, signal.spend, signal.reserved) == (expected.state, expected.spend, expected.reserved)
    assert (signal.limit, signal.remaining) == (expected.limit, None if signal.measure == "errors" else expected.remaining)
    told = {f"{name}={value}": one.spend for one in signal.contributors for name, value in one.scope.items()}
    assert told == (expected.contributors if expected.spend else {})


def assert_in_order(told: list[Signal]) -> None:
    """Sequence and time of each scope's signals strictly grow."""
    last: dict[bytes, Signal] = {}
    for signal in told:
        before = last.get(signal.key())
        assert before is None or (signal.sequence > before.sequence and signal.at > before.at)
        last[signal.key()] = signal
