"""The policies step: the last word on every scope is what a plain sum says, however the news came; and what is said on the
way there is said once, at the right moment, and no oftener than promised."""

from __future__ import annotations

import random
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policing import Call, House, Truth, policy, policy_set, scope_of, truth
from support import NOW_S, finding
from tidegate.processors.policies import HEARTBEAT_S, IDLE_S, PoliciesState, policies
from tidegate.processors.windows import forecast
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
    policy("leaks", measure="findings", finding_type="phi_leak", limit=3, actions=[{"do": "block"}]),
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
            if chance.random() < 0.2:
                found[partition].append(
                    Call(now, call_id, "scored", now + chance.choice([0.0, -5.0, -4_000.0]), fields=verdict(fields, chance))
                )
                continue
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


def verdict(fields: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """The fields of a verdict on such a call."""
    found = [finding(leak=chance.random() < 0.5) for _ in range(chance.randint(0, 3))]
    return {name: value for name, value in fields.items() if name != "labels"} | {
        "request_model": chance.choice(["gpt-4o", None]),
        "findings": found,
    }


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
    assert (signal.limit, signal.remaining) == (
        expected.limit,
        None if signal.measure in ("errors", "findings") else expected.remaining,
    )
    told = {f"{name}={value}": one.spend for one in signal.contributors for name, value in one.scope.items()}
    assert told == (expected.contributors if expected.spend else {})


def assert_in_order(told: list[Signal]) -> None:
    """Sequence and time of each scope's signals strictly grow."""
    last: dict[bytes, Signal] = {}
    for signal in told:
        before = last.get(signal.key())
        assert before is None or (signal.sequence > before.sequence and signal.at > before.at)
        last[signal.key()] = signal


# Steps


def test_each_step_is_entered_at_its_share_and_told_once() -> None:
    house = House(policy_set(POLICIES[4]))
    ward = {"labels": {"ward": "north"}}

    states = []
    for number in range(9):
        house.run([Call(NOW_S + number, f"call-{number}", fields=ward)])
        states.append(house.state("north", policy="ladder"))

    assert states == ["ok", "warn", "warn", "throttle", "throttle", "downgrade", "downgrade", "block", "block"]
    assert [(alert.previous_state, alert.state, alert.severity) for alert in house.alerts] == [
        ("ok", "warn", "warning"),
        ("warn", "throttle", "warning"),
        ("throttle", "downgrade", "critical"),
        ("downgrade", "block", "critical"),
    ]
    assert {signal.state: (signal.per_minute, signal.model) for signal in house.told} == {
        **{"ok": (None, None), "warn": (None, None), "throttle": (6, None), "downgrade": (None, "small"), "block": (None, None)}
    }


def test_an_alert_at_the_limit_fires_although_the_state_is_a_warning_already() -> None:
    house = House(policy_set(policy(limit=10, warn_at=[0.5, 0.8], actions=[{"do": "alert"}])))

    for at in range(1, 13):
        house.run(calls(1, NOW_S + at))

    assert [(alert.spend, alert.previous_state, alert.state) for alert in house.alerts] == [
        (5, "ok", "warn"),
        (8, "warn", "warn"),
        (10, "warn", "warn"),
    ]


def test_two_steps_of_one_state_go_out_at_once_each() -> None:
    steps = [{"do": "throttle", "at": 0.5, "per_minute": 60}, {"do": "throttle", "at": 0.8, "per_minute": 6}]
    house = House(policy_set(policy(limit=10, warn_at=[], actions=steps)))

    house.run(calls(5))
    house.run(calls(3, NOW_S + 0.01))

    assert [(signal.spend, signal.state, signal.per_minute) for signal in house.told] == [
        (5, "throttle", 60),
        (8, "throttle", 6),
    ]


def test_a_state_is_left_only_below_its_share_by_the_hysteresis() -> None:
    house = House(policy_set(policy(limit=10, hysteresis=0.25, warn_at=[])))
    for number, count in enumerate([2, 1, 7]):
        house.run(calls(count, NOW_S + 120 * number))

    changes = house.pass_time(NOW_S + 2 * 3_600)

    # after an hour 8 are left, which is above 10 × 0.75; two minutes later 7
    assert [(at, state) for at, _, state in changes] == [(NOW_S + 3_600 + 60 + 120, "ok")]


def test_a_step_left_leads_to_the_next_lower_one_that_still_holds() -> None:
    steps = [{"do": "throttle", "at": 0.5, "per_minute": 60}, {"do": "block"}]
    house = House(policy_set(policy(limit=10, hysteresis=0.1, warn_at=[], actions=steps)))
    for number, count in enumerate([2, 4, 4]):
        house.run(calls(count, NOW_S + 120 * number))

    changes = house.pass_time(NOW_S + 2 * 3_600)

    first = NOW_S + 3_600 + 60
    assert [(at, state) for at, _, state in changes] == [(first, "throttle"), (first + 120, "ok")]


@pytest.mark.parametrize("restart", [False, True])
def test_a_state_lasts_as_long_as_its_hold_at_least_also_across_a_restart(restart: bool) -> None:
    house = House(policy_set(policy(limit=2, hold="2h", warn_at=[])))
    house.run(calls(2))
    house.run(now=NOW_S + 1_800)
    house.run(calls(1, NOW_S + 1_900))

    if restart:
        house.restart_policies(NOW_S + 2_000)
    house.judge(NOW_S + 2_000)
    changes = house.pass_time(NOW_S + 86_400)

    assert [(at, state) for at, _, state in changes] == [(NOW_S + 7_200, "ok")]


def test_a_hold_does_not_keep_a_worse_state_away() -> None:
    house = House(policy_set(policy(limit=10, hold="1d")))

    house.run(calls(8))
    house.run(calls(2, NOW_S + 1))

    assert [signal.state for signal in house.told] == ["warn", "block"]


# Limits


def test_a_limit_of_zero_blocks_at_the_first_word() -> None:
    house = House(policy_set(policy(limit=0, warn_at=[])))

    house.run(calls(1))

    signal = house.signal("harbor-health")
    assert (signal.state, signal.limit, signal.remaining) == ("block", 0, 0)
    assert house.pass_time(NOW_S + 86_400) == []


def test_limits_are_looked_up_by_scope_and_null_means_unlimited() -> None:
    table = [
        {"scope": {"tenant": "small"}, "limit": 2},
        {"scope": {"tenant": "free"}, "limit": None},
        {"scope": {"tenant": "none"}, "limit": 0},
    ]
    house = House(policy_set(policy(limit=4, limits=table, warn_at=[])))

    house.run([call for tenant in ("small", "free", "none", "other") for call in calls(3, tenant=tenant)])

    told = {tenant: (house.signal(tenant).state, house.signal(tenant).limit) for tenant in ("small", "free", "none")}
    assert told == {"small": ("block", 2), "free": ("ok", None), "none": ("block", 0)}
    assert (house.signal("other").state, house.signal("other").remaining) == ("ok", 1)
    assert house.signal("free").remaining is None


def test_where_only_the_table_has_limits_the_others_are_unlimited() -> None:
    house = House(policy_set(policy(limit=None, limits=[{"scope": {"tenant": "small"}, "limit": 2}])))

    house.run(calls(50))

    assert (house.signal("harbor-health").state, house.signal("harbor-health").limit) == ("ok", None)


def test_a_scope_without_a_value_has_a_counter_of_its_own() -> None:
    house = House(policy_set(policy(scope=("user", "label.ward"), limit=2)))

    house.run([*calls(2), *calls(1, NOW_S + 1, user="ana"), *calls(1, NOW_S + 1, labels={"ward": "north"})])

    assert {(key.scope["user"], key.scope["label.ward"]): key.state for key in house.told} == {
        **{(None, None): "block", ("ana", None): "ok", (None, "north"): "ok"}
    }


# Rates and quantiles


def failing(count: int, of: int, at: float) -> list[Call]:
    return [
        Call(at, f"call-{at}-{number}", fields={"error_type": "timeout" if number < count else None}) for number in range(of)
    ]


def test_an_error_rate_is_judged_from_so_many_calls_on() -> None:
    house = House(policy_set(policy(measure="error_rate", limit="0.5", minimum_requests=10, warn_at=[])))

    house.run(failing(9, 9, NOW_S))
    few = house.signal("harbor-health")
    house.run(failing(0, 1, NOW_S + 1))
    enough = house.signal("harbor-health")

    assert (few.state, few.spend, few.remaining, few.burn_per_s) == ("ok", 0, None, None)
    assert few.reason == "budget: fewer than 10 calls in the last 1 h, too few to judge"
    assert (enough.state, enough.spend) == ("block", 0.9)
    assert enough.reason == "budget: 90.0% errors in the last 1 h, limit 50.0% errors, 180% of it"


def test_a_breaker_closes_by_itself_once_the_failures_are_past() -> None:
    house = House(policy_set(policy(measure="error_rate", limit="0.5", minimum_requests=10, window={"rolling": "5m"})))
    house.run(failing(10, 10, NOW_S))

    changes = house.pass_time(NOW_S + 3_600)

    assert changes == [(NOW_S + 305, "budget", "ok")]


def test_a_latency_is_the_quantile_over_all_source_partitions() -> None:
    slow = policy(measure="latency_p95_s", limit=2, minimum_requests=20, warn_at=[], actions=[{"do": "alert"}])
    house = House(policy_set(slow), partitions=2)

    house.run([Call(NOW_S, f"a-{n}", fields={"latency_s": 0.5}) for n in range(19)])
    house.run([Call(NOW_S + 1, f"b-{n}", fields={"latency_s": 8.0}) for n in range(2)], partition=1)
    house.run([Call(NOW_S + 1, "c", fields={"latency_s": None})], now=NOW_S + 2)

    signal = house.signal("harbor-health")
    assert signal.state == "warn"
    assert signal.spend == pytest.approx(8.0, rel=0.01)
    assert signal.reason.startswith("budget: latency p95 7.92 s in the last 1 h, limit latency p95 2.00 s")


# Windows


@pytest.mark.parametrize(
    ("day", "next_day"),
    [("2026-11-01", "2026-11-02"), ("2026-03-08", "2026-03-09"), ("2026-07-01", "2026-07-02")],
    ids=["25 hours", "23 hours", "24 hours"],
)
def test_a_day_ends_at_the_zones_midnight_without_any_traffic(day: str, next_day: str) -> None:
    zone = ZoneInfo("America/New_York")
    noon = datetime.fromisoformat(f"{day}T00:30").replace(tzinfo=zone).timestamp()
    midnight = datetime.fromisoformat(f"{next_day}T00:00").replace(tzinfo=zone).timestamp()
    house = House(policy_set(policy(limit=2, window={"calendar": "day", "time_zone": "America/New_York"})), now=noon)
    house.run(calls(2, noon))
    blocked = house.signal("harbor-health")

    just_before = house.pass_time(midnight - 0.001)
    changes = house.pass_time(midnight)

    assert (blocked.state, blocked.resets_at, blocked.window_end) == ("block", midnight, midnight)
    assert (just_before, changes) == ([], [(midnight, "budget", "ok")])
    assert (house.signal("harbor-health").spend, house.signal("harbor-health").remaining) == (0, 2)


def test_a_rolling_block_opens_by_itself_as_soon_as_enough_has_fallen_out() -> None:
    house = House(policy_set(policy(limit=10, warn_at=[])))
    for number in range(10):
        house.run(calls(1, NOW_S + 60 * number))
    assert house.state("harbor-health") == "block"

    changes = house.pass_time(NOW_S + 7_200)

    assert changes == [(NOW_S + 3_600 + 60, "budget", "ok")]


def test_a_scope_that_has_used_half_is_told_when_there_is_more_again() -> None:
    house = House(policy_set(policy(limit=10, warn_at=[])))
    house.run(calls(6))

    house.pass_time(NOW_S + 7_200)

    assert [(signal.at, signal.remaining) for signal in house.told] == [(NOW_S, 4), (NOW_S + 3_660, 10)]


def test_a_clock_that_is_ahead_puts_nothing_off_till_tomorrow() -> None:
    eve = datetime(2026, 11, 2, 23, 59, 50, tzinfo=ZoneInfo("UTC")).timestamp()
    house = House(policy_set(policy(limit=2, window={"calendar": "day"})), now=eve)

    house.run([Call(eve, "a", started_s=eve + 60), Call(eve, "b", started_s=eve + 7_200)])

    assert house.state("harbor-health") == "block"


def test_usage_of_a_meter_whose_clock_is_ahead_counts_when_this_clock_gets_there() -> None:
    house = House(policy_set(policy(limit=2, warn_at=[])))

    house.run(calls(2, NOW_S + 90), now=NOW_S)
    assert house.state("harbor-health") == "ok"
    changes = house.pass_time(NOW_S + 90)

    assert changes == [(NOW_S + 60, "budget", "block")]


@pytest.mark.parametrize("left", [1e9, 1e13, 1e300])
def test_a_forecast_beyond_ten_years_is_none(left: float) -> None:
    """A first call of a thousandth of a cent against a budget of a thousand dollars ends in a year that no calendar has."""
    assert forecast(0.0, 1.0, left, NOW_S) is None
    assert forecast(0.0, 1.0, 86_400.0, NOW_S) == NOW_S + 86_400


def test_a_forecast_says_when_the_limit_is_reached_at_this_rate() -> None:
    house = House(policy_set(policy(limit=100, warn_at=[])))
    for number in range(5):
        house.run(calls(6, NOW_S + 60 * number))

    house.run(now=NOW_S + 300)
    house.run(calls(0), now=NOW_S + 300)

    signal = house.signal("harbor-health")
    # thirty calls over the four minutes and no seconds since the first bucket of the rate began
    assert signal.burn_per_s == pytest.approx(30 / 240)
    assert signal.exhausted_at == pytest.approx(NOW_S + 240 + 70 * 8)


def test_a_rolling_limit_that_this_rate_cannot_fill_has_no_forecast() -> None:
    house = House(policy_set(policy(limit=500, warn_at=[])))

    for number in range(90):
        house.run(calls(6, NOW_S + 60 * number))

    # Six a minute are 366 in the hour and its odd bucket: the window forgets as fast as it counts. Without that, the rest would
    # be spent in 18 minutes.
    signal = house.signal("harbor-health")
    assert (signal.spend, signal.exhausted_at) == (366, None)


@given(st.dictionaries(st.integers(0, 59), st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 2_000))
def test_a_rolling_forecast_is_when_what_comes_and_what_leaves_first_reach_the_limit(spent: dict[int, int], limit: int) -> None:
    now = NOW_S + 3_590
    house = House(policy_set(policy(limit=limit, warn_at=[])), partitions=2, now=NOW_S)
    for minute, amount in sorted(spent.items()):
        house.apply(minute % 2, calls(amount, NOW_S + 60 * minute))
    house.run(now=now)
    signal = house.signal("harbor-health")

    # A bucket of a minute is let go an hour after its end; the rate is that of the newest five.
    rate = sum(amount for minute, amount in spent.items() if minute >= 55) / (now - NOW_S - 55 * 60)

    def counted(at: float) -> float:
        return rate * (at - now) + sum(amount for minute, amount in spent.items() if at < NOW_S + 60 * minute + 3_660)

    moments = [now + 5 * step for step in range(3_670 // 5)]
    expected = next((at for at in moments if counted(at) >= limit), None)
    if expected is None:
        assert signal.exhausted_at is None or signal.exhausted_at > moments[-1] - 5
    else:
        assert signal.exhausted_at is not None
        assert expected - 5 < signal.exhausted_at <= expected + 1e-3


def test_nobody_is_told_of_a_limit_that_is_reached_after_its_period() -> None:
    eve = datetime(2026, 11, 2, 23, 50, tzinfo=ZoneInfo("UTC")).timestamp()
    house = House(policy_set(policy(limit=100, window={"calendar": "day"}, warn_at=[0.5])), now=eve)

    house.run(calls(60, eve))

    signal, alert = house.signal("harbor-health"), house.alerts[-1]
    assert signal.exhausted_at is not None
    assert signal.resets_at is not None
    assert signal.exhausted_at > signal.resets_at
    assert (alert.state, alert.exhausted_at) == ("warn", None)


# Usage that comes twice, late, or from elsewhere


def test_the_same_usage_heard_twice_counts_once() -> None:
    house = House(policy_set(policy(limit=10)))
    house.run(calls(6))

    house.heard[0] = 0
    house.hear(0, NOW_S + 1)
    house.judge(NOW_S + 1)

    assert (house.state("harbor-health"), house.signal("harbor-health").spend, house.alerts) == ("ok", 6, [])


def test_the_source_partitions_of_a_scope_add_up() -> None:
    house = House(policy_set(policy(limit=10)), partitions=3)

    for partition in range(3):
        house.run(calls(4, NOW_S + partition), partition=partition)

    assert (house.state("harbor-health"), house.signal("harbor-health").spend) == ("block", 12)


# Requests in flight


def ask(at: float, call_id: str, cost: int | None = 40, **fields: Any) -> Call:
    return Call(at, call_id, "request", cost=cost, fields={"tenant": "harbor-health"} | fields)


SPEND = policy(measure="cost_usd", limit="0.0000001", warn_at=[])


def test_an_announced_call_is_held_until_it_is_settled() -> None:
    house = House(policy_set(SPEND))

    house.run([ask(NOW_S, "a"), ask(NOW_S, "b")])
    held = house.signal("harbor-health")
    house.run([Call(NOW_S + 1, "a", cost=25)])
    settled = house.signal("harbor-health")

    assert (held.spend, held.reserved, held.remaining) == (0, 80, 20)
    assert (settled.spend, settled.reserved, settled.remaining) == (25, 40, 35)


def test_what_is_held_counts_against_the_limit() -> None:
    house = House(policy_set(SPEND))

    house.run([ask(NOW_S, "a"), ask(NOW_S, "b"), ask(NOW_S, "c")])
    blocked = house.state("harbor-health")
    house.run([Call(NOW_S + 1, "c", cost=1)])

    assert (blocked, house.state("harbor-health")) == ("block", "ok")


@pytest.mark.parametrize("restart", [False, True])
def test_a_call_that_never_ends_is_given_up_on_after_ten_minutes(restart: bool) -> None:
    house = House(policy_set(SPEND))
    house.run([ask(NOW_S, "a"), ask(NOW_S + 1, "b")])
    if restart:
        house.restart_meter(0)
        house.restart_policies(NOW_S + 2)

    house.run(now=NOW_S + 599.9)
    before = house.signal("harbor-health").reserved
    house.run(now=NOW_S + 600)
    after = house.signal("harbor-health").reserved
    house.run(now=NOW_S + 601)

    assert (before, after, house.signal("harbor-health").reserved) == (80, 40, 0)
    assert house.meters[0].in_flight == {}


def test_a_request_that_comes_after_its_response_holds_nothing() -> None:
    house = House(policy_set(SPEND))

    house.run([Call(NOW_S, "a", cost=25), ask(NOW_S, "a")])

    assert (house.signal("harbor-health").spend, house.signal("harbor-health").reserved) == (25, 0)


def test_a_repeated_request_holds_once_and_a_retry_holds_again() -> None:
    house = House(policy_set(SPEND))

    house.run([ask(NOW_S, "a"), ask(NOW_S, "a")])
    once = house.signal("harbor-health").reserved
    house.run([Call(NOW_S + 1, "a", cost=5), ask(NOW_S + 1, "a")])

    assert (once, house.signal("harbor-health").reserved) == (40, 40)


def test_a_request_without_an_estimate_holds_nothing_but_is_a_call() -> None:
    house = House(policy_set(SPEND, policy("calls", limit=10)))

    house.run([ask(NOW_S, "a", cost=None)])

    assert (house.state("harbor-health"), house.signal("harbor-health", policy="calls").reserved) == ("ok", 1)
    assert {signal.policy for signal in house.told} == {"calls"}


# What is told, and how often


def test_worse_news_goes_out_at_once_and_all_other_news_four_times_a_second() -> None:
    house = House(policy_set(policy(limit=1_000, warn_at=[0.5])))

    for tick in range(1_000):
        house.run(calls(1, NOW_S + tick / 100))

    per_second = [sum(second <= signal.at - NOW_S < second + 1 for signal in house.told) for second in range(10)]
    assert max(per_second) <= 1 / HEARTBEAT_S + 1
    assert next(signal.spend for signal in house.told if signal.state == "warn") == 500


def test_the_last_value_always_goes_out() -> None:
    house = House(policy_set(policy()))
    house.run(calls(1))
    house.run(calls(2, NOW_S + 0.1))
    assert house.signal("harbor-health").spend == 1

    assert house.policies.next_due() == NOW_S + HEARTBEAT_S
    house.pass_time(NOW_S + HEARTBEAT_S)

    assert house.signal("harbor-health").spend == 3


def test_what_is_settled_has_been_told() -> None:
    house = House(policy_set(policy()))

    seen = []
    for tick in range(8):
        house.policies.applied = [tick]
        house.run(calls(1, NOW_S + tick / 10))
        seen.append((house.policies.settled[0], house.signal("harbor-health").spend))

    assert [(settled, spend) for settled, spend in seen if settled + 1 > spend] == []
    assert seen[-1] == (6, 7)


def test_nothing_is_said_again_while_nothing_changes() -> None:
    house = House(policy_set(policy(limit=2)))
    house.run(calls(3))

    for tick in range(40):
        house.run(now=NOW_S + tick)

    assert len(house.told) == 1


def test_a_clock_set_back_neither_silences_nor_disorders() -> None:
    house = House(policy_set(policy(limit=3)))
    house.run(calls(1, NOW_S + 50))
    house.run(calls(1, NOW_S + 10))
    house.restart_policies(NOW_S + 11)

    house.run(calls(1, NOW_S + 12))

    assert [signal.spend for signal in house.told] == [1, 2, 3]
    assert house.state("harbor-health") == "block"
    assert_in_order(house.told)


def test_a_log_clock_set_back_does_not_stop_the_counting() -> None:
    house = House(policy_set(policy(limit=3, window={"rolling": "1m"})))
    house.run(calls(5, NOW_S + 86_400))

    house.run(calls(3))

    assert house.state("harbor-health") == "block"
    ring = house.meters[0].counters[next(iter(house.meters[0].counters))].live[("harbor-health",)].ring
    assert len(ring.dump()) < 50


def test_idle_scopes_leave_memory_and_come_back_as_they_were() -> None:
    house = House(policy_set(policy(limit=10, window={"rolling": "1d"})))
    for number in range(20):
        house.run(calls(3, NOW_S + number / 100, tenant=f"tenant-{number}"))
    house.run(calls(12, NOW_S + 1, tenant="blocked"))

    house.pass_time(NOW_S + 2 * IDLE_S)
    left = {values for _, values, _ in house.policies.words()}
    house.run(calls(4, NOW_S + 2 * IDLE_S + 1, tenant="tenant-7"))

    assert left == {("blocked",)}
    assert house.signal("tenant-7").spend == 7
    assert_in_order(house.told)


# Edits


def test_a_raised_limit_opens_at_once_also_for_scopes_under_a_hold() -> None:
    house = House(policy_set(policy(limit=10, hold="1d", hysteresis=0.5)))
    house.run(calls(12))

    house.edit(policy_set(policy(limit=15, hold="1d", hysteresis=0.5), version="2"), NOW_S + 10)
    house.judge(NOW_S + 10)

    signal = house.signal("harbor-health")
    assert (signal.state, signal.limit, signal.policy_version) == ("warn", 15, "2")
    assert house.alerts[-1].previous_state == "block"


def test_a_lowered_limit_is_judged_for_scopes_at_rest() -> None:
    house = House(policy_set(policy(limit=100, window={"rolling": "1d"})))
    house.run(calls(12))
    house.pass_time(NOW_S + 2 * IDLE_S)
    assert list(house.policies.words()) == []

    house.edit(policy_set(policy(limit=10, window={"rolling": "1d"}), version="2"), NOW_S + 1_000)
    house.judge(NOW_S + 1_000)

    assert (house.state("harbor-health"), house.signal("harbor-health").limit) == ("block", 10)


def test_an_edit_of_what_a_signal_carries_besides_is_told() -> None:
    house = House(policy_set(policy(owner="ana")))
    house.run(calls(12))
    house.pass_time(NOW_S + 2 * IDLE_S)

    house.edit(policy_set(policy(owner="ben", lease_share=0.25), version="2"), NOW_S + 1_000)
    house.judge(NOW_S + 1_000)

    assert (house.signal("harbor-health").owner, house.signal("harbor-health").lease_share) == ("ben", 0.25)


def test_an_edit_of_another_policy_says_nothing_again() -> None:
    house = House(policy_set(policy(limit=10), policy("other", scope=("team",), limit=10)))
    house.run(calls(12))
    before = len(house.told)

    house.edit(policy_set(policy(limit=10), policy("other", scope=("team",), limit=20), version="2"), NOW_S + 10)
    house.judge(NOW_S + 10)

    assert [(signal.policy, signal.state) for signal in house.told[before:]] == [("other", "ok")]
    assert house.alerts[-1].policy == "other"


def test_what_a_removed_policy_said_is_taken_back_and_its_incident_is_over() -> None:
    house = House(policy_set(policy(limit=10), policy("keeps", limit=20)))
    house.run(calls(12))

    house.edit(policy_set(policy("keeps", limit=20), version="2"), NOW_S + 10)
    house.judge(NOW_S + 10)

    assert {signal.policy for signal in house.signals.values()} == {"keeps"}
    last = house.alerts[-1]
    assert (last.policy, last.previous_state, last.state, last.severity) == ("budget", "block", "ok", "info")
    assert last.key == house.alerts[0].key


def test_a_renamed_policy_takes_the_old_word_back_and_judges_at_once() -> None:
    house = House(policy_set(policy("old", limit=10)))
    house.run(calls(12))

    house.edit(policy_set(policy("new", limit=10), version="2"), NOW_S + 10)
    house.judge(NOW_S + 10)

    assert [(signal.policy, signal.state) for signal in house.signals.values()] == [("new", "block")]


def test_a_policy_that_counts_by_another_window_goes_on_from_what_it_said() -> None:
    house = House(policy_set(policy(limit=10)))
    house.run([*calls(12), *calls(3, tenant="lakeside")])

    house.edit(policy_set(policy(limit=10, window={"rolling": "2h"}), version="2"), NOW_S + 10)
    assert [signal.scope["tenant"] for signal in house.signals.values()] == ["harbor-health"]
    house.judge(NOW_S + 10)
    house.run(calls(1, NOW_S + 11))

    assert [alert.state for alert in house.alerts] == ["block", "ok"]
    assert house.signal("harbor-health").spend == 1
    assert_in_order(house.told)


def test_a_new_policy_on_a_known_series_judges_what_is_known() -> None:
    house = House(policy_set(policy(limit=100)))
    house.run(calls(12))

    house.edit(policy_set(policy(limit=100), policy("tight", limit=5), version="2"), NOW_S + 10)
    house.judge(NOW_S + 10)

    assert house.state("harbor-health", policy="tight") == "block"


# Reasons


def test_a_reason_holds_the_policys_name_words_of_ours_and_numbers_only() -> None:
    canary = "Qzxcanary4711"
    fields = {"tenant": canary, "user": canary, "team": canary, "labels": {"ward": canary}, "request_model": canary}
    kinds = [
        policy(limit=2, scope=("tenant", "user", "label.ward", "model")),
        policy("budget-2", limit="0.00000002", measure="cost_usd", scope=("team",), window={"calendar": "month"}),
        policy("budget-3", limit=None, limits=[{"scope": {"tenant": "x"}, "limit": 1}]),
        policy("budget-4", measure="error_rate", limit="0.1", scope=("tenant",)),
    ]
    house = House(policy_set(*kinds))

    house.run([Call(NOW_S, f"call-{n}", cost=1_000, fields=fields) for n in range(3)])

    reasons = {signal.policy: signal.reason for signal in house.told}
    assert reasons == {
        "budget": "budget: 3 requests in the last 1 h, limit 2 requests, 150% of it",
        "budget-2": "budget-2: $0.0000 in this month (UTC), limit $0.0000, 15000% of it",
        "budget-3": "budget-3: no limit for this scope",
        "budget-4": "budget-4: fewer than 20 calls in the last 1 h, too few to judge",
    }


def test_policies_without_anything_to_say_cost_a_step_nothing() -> None:
    state = PoliciesState(partitions=1)

    _, outputs = policies(state, NOW_S)

    assert (outputs.signals, outputs.alerts, outputs.removed, state.next_due()) == ([], [], [], None)
