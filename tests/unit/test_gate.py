"""What a gate answers, and what becomes of what it lets go."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from memory_log import MemoryLog
from signalling import MemorySignals, Stage, policy, policy_record, price_record
from support import NOW_S
from tidegate.producers.decision import Estimate
from tidegate.producers.emitter import Emitter
from tidegate.producers.gate import Gate, GateSettings
from tidegate.producers.local_signals import LocalSignals
from tidegate.producers.node_clock import NodeClock
from tidegate.producers.ports import Position
from tidegate.producers.reservation import Reservation
from tidegate.schemas.errors import GateClosed
from tidegate.schemas.policy import PolicySet, RequestLimit
from tidegate.schemas.settings import Settings
from tidegate.schemas.signal import Contributor

CALL = {"tenant": "harbor-health", "request_model": "gpt-4o"}


@pytest.fixture
def stage() -> Stage:
    return Stage()


def tokens(count: int) -> Estimate:
    return Estimate(count, 0)


def eventually(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# --- what policies say


def test_without_policies_every_call_goes(stage: Stage) -> None:
    unheard = stage.gate.check(CALL)
    stage.enforce()

    heard = stage.gate.check(CALL)

    assert (unheard.allowed, unheard.stale) == (True, True)
    assert (heard.allowed, heard.stale, heard.state) == (True, False, "ok")


def test_a_gate_may_be_told_to_hold_calls_back_until_it_has_heard() -> None:
    stage = Stage(settings=GateSettings(unheard="closed"))

    assert not stage.gate.check(CALL).allowed
    stage.enforce()
    assert stage.gate.check(CALL).allowed


def test_a_scope_that_nobody_has_spoken_of_has_all_of_its_limit_left(stage: Stage) -> None:
    stage.enforce(policy())

    stage.gate.reserve(CALL, tokens(500))

    with pytest.raises(GateClosed, match="not counted yet"):
        stage.gate.reserve(CALL, tokens(1))


def test_a_block_closes_the_gate_and_explains_itself(stage: Stage) -> None:
    stage.enforce(policy(owner="platform", runbook="https://runbooks.example/budget"))
    top = [Contributor({"user": "ana"}, 700)]
    resets_at = stage.wall + 3_600
    stage.tell(stage.signal("budget", 1_003, state="block", resets_at=resets_at, contributors=top))

    with pytest.raises(GateClosed) as caught:
        stage.gate.reserve(CALL)

    decision, closed = stage.gate.check(CALL), caught.value
    assert (decision.allowed, decision.state, decision.remaining) == (False, "block", 0)
    assert (decision.contributors, decision.owner) == (top, "platform")
    assert (closed.policy, closed.spend, closed.limit, closed.resets_at) == ("budget", 1_003, 1_000, resets_at)
    assert closed.window == "this month (UTC)"
    assert closed.reason == "budget: 1003 tokens this month, limit 1,000"
    assert closed.retry_after_s is None


def test_a_newer_signal_opens_it_again(stage: Stage) -> None:
    stage.enforce(policy())
    stage.tell(stage.signal("budget", 1_000, state="block"))
    assert not stage.gate.check(CALL).allowed

    stage.tell(stage.signal("budget", 400))

    assert stage.gate.check(CALL).allowed


def test_an_exhausted_limit_closes_it_even_before_the_policy_says_block(stage: Stage) -> None:
    stage.enforce(policy())

    stage.tell(stage.signal("budget", 1_000, state="warn"))

    assert not stage.gate.check(CALL, estimate=tokens(0)).allowed


def test_the_lease_is_of_the_blocking_action_s_part_of_the_limit(stage: Stage) -> None:
    stage.enforce(policy(actions=[{"do": "throttle", "at": 0.5, "per_minute": 60}, {"do": "block", "at": 1.2}]))

    stage.tell(stage.signal("budget", 1_100, state="warn"))

    assert stage.gate.check(CALL, estimate=tokens(50)).allowed
    stage.gate.reserve(CALL, tokens(50))
    assert not stage.gate.check(CALL, estimate=tokens(50)).allowed


def test_a_limit_of_zero_rejects_everything_without_a_signal(stage: Stage) -> None:
    limits = [{"scope": {"tenant": "harbor-health"}, "limit": 0}, {"scope": {"tenant": "lakeside"}, "limit": 50}]
    stage.enforce(policy(scope=["tenant"], limit=None, limits=limits))

    decision = stage.gate.check(CALL)

    assert (decision.allowed, decision.reason) == (False, "budget: its limit is zero")
    assert stage.gate.check({"tenant": "lakeside"}).allowed
    assert stage.gate.check({"tenant": "elsewhere"}).allowed


def test_an_absent_limit_is_unlimited_even_when_a_signal_speaks(stage: Stage) -> None:
    limits = [{"scope": {"tenant": "lakeside"}, "limit": 5}]
    stage.enforce(policy(scope=["tenant"], limit=None, limits=limits))

    stage.tell(stage.signal("budget", 9_999, scope={"tenant": "harbor-health"}, limit=None))

    stage.gate.reserve(CALL, tokens(10**9))
    stage.gate.reserve(CALL, tokens(10**9))


def test_policies_concern_the_calls_they_match_and_count_by_their_scope(stage: Stage) -> None:
    stage.enforce(policy("by-team", match={"tenant": ["harbor-health"], "label.channel": ["phone"]}, scope=["tenant", "team"]))
    phone = CALL | {"team": "pharmacy", "labels": {"channel": "phone"}}
    scope = {"tenant": "harbor-health", "team": "pharmacy"}

    stage.tell(stage.signal("by-team", 1_000, scope=scope, state="block"))

    assert not stage.gate.check(phone).allowed
    assert not stage.gate.check(stage.gate.scope(**scope, **{"label.channel": "phone"})).allowed
    assert stage.gate.check(phone | {"team": "triage"}).allowed
    assert stage.gate.check(phone | {"labels": {"channel": "web"}}).allowed


def test_a_call_without_a_field_counts_in_the_scope_without_it(stage: Stage) -> None:
    stage.enforce(policy(scope=["tenant", "team"]))

    stage.tell(stage.signal("budget", 1_000, scope={"tenant": "harbor-health", "team": None}, state="block"))

    assert not stage.gate.check(CALL).allowed


def test_of_several_policies_the_harshest_gives_its_name(stage: Stage) -> None:
    stage.enforce(policy("warns"), policy("blocks", measure="error_rate", limit="0.5"), policy("fine", measure="requests"))
    stage.tell(stage.signal("warns", 900, state="warn"), stage.signal("blocks", 0.7, state="block", measure="error_rate"))

    assert stage.gate.check(CALL).policy == "blocks"

    stage.tell(stage.signal("blocks", 0.2, measure="error_rate"))
    decision = stage.gate.check(CALL, estimate=tokens(1))
    assert (decision.allowed, decision.state, decision.policy) == (True, "warn", "warns")


def test_a_policy_that_only_alerts_holds_nobody_back_and_is_explained(stage: Stage) -> None:
    stage.enforce(policy(action="alert", limit=0))

    assert stage.gate.check(CALL).allowed
    (told,) = stage.gate.explain(CALL)
    assert (told["policy"], told["state"]) == ("budget", "ok")


def test_a_call_beyond_the_bounds_of_a_single_call_is_refused(stage: Stage) -> None:
    stage.enforce(RequestLimit(name="size", match={"tenant": ["harbor-health"]}, max_input_tokens=100, max_output_tokens=50))

    long = stage.gate.check(CALL, estimate=Estimate(101, 5))
    wide = stage.gate.check(CALL, estimate=Estimate(max_tokens=51))

    assert (long.allowed, long.policy) == (False, "size")
    assert "101 input tokens expected, at most 100" in long.reason
    assert "51 output tokens expected, at most 50" in wide.reason
    assert stage.gate.check(CALL, estimate=Estimate(100, 50)).allowed
    assert stage.gate.check(CALL).allowed
    assert stage.gate.check({"tenant": "lakeside"}, estimate=Estimate(101, 51)).allowed


# --- downgrade


def downgrading(name: str, model: str, **fields: Any) -> Any:
    return policy(name, actions=[{"do": "downgrade", "model": model}], **fields)


def test_a_downgrade_gives_the_model_to_use(stage: Stage) -> None:
    stage.enforce(downgrading("budget", "gpt-4o-mini"))
    stage.tell(stage.signal("budget", 1_000, state="downgrade", model="gpt-4o-mini"))

    decision = stage.gate.check(CALL)

    assert (decision.allowed, decision.state, decision.model) == (True, "downgrade", "gpt-4o-mini")
    assert stage.gate.reserve(CALL).model == "gpt-4o-mini"
    assert stage.gate.check(CALL, model="gpt-4o-mini").model == "gpt-4o-mini"


def test_the_model_of_a_downgrade_has_policies_of_its_own(stage: Stage) -> None:
    stage.enforce(
        downgrading("budget", "small"),
        downgrading("small-budget", "tiny", match={"model": ["small"]}),
        policy("tiny-block", match={"model": ["tiny"]}),
    )
    stage.tell(
        stage.signal("budget", 1_000, state="downgrade", model="small"),
        stage.signal("small-budget", 1_000, state="downgrade", model="tiny"),
    )
    assert stage.gate.check(CALL).model == "tiny"

    stage.tell(stage.signal("tiny-block", 1_000, state="block"))

    assert (stage.gate.check(CALL).allowed, stage.gate.check(CALL).policy) == (False, "tiny-block")


def test_two_policies_that_downgrade_to_each_other_come_to_an_end(stage: Stage) -> None:
    stage.enforce(
        downgrading("a", "small", match={"model": ["gpt-4o", "tiny"]}), downgrading("b", "tiny", match={"model": ["small"]})
    )
    stage.tell(
        stage.signal("a", 1_000, state="downgrade", model="small"), stage.signal("b", 1_000, state="downgrade", model="tiny")
    )

    assert stage.gate.check(CALL).model == "tiny"


def test_a_policy_that_downgrades_at_most_downgrades_when_its_lease_is_used_up(stage: Stage) -> None:
    stage.enforce(downgrading("budget", "small"))
    stage.gate.reserve(CALL, tokens(500))

    decision = stage.gate.check(CALL, estimate=tokens(100))

    assert (decision.allowed, decision.model) == (True, "small")


# --- throttle and probe


def test_a_throttle_lets_a_gate_s_part_of_the_calls_go(stage: Stage) -> None:
    stage.enforce(policy("rate", actions=[{"do": "throttle", "per_minute": 60}]))
    stage.tell(stage.beat("gate-1", "gate-2"), stage.signal("rate", 1_000, state="throttle", per_minute=60.0, gates=2))

    stage.gate.reserve(CALL)
    with pytest.raises(GateClosed) as caught:
        stage.gate.reserve(CALL)

    assert caught.value.retry_after_s == pytest.approx(2)
    assert stage.gate.check(CALL).state == "throttle"
    stage.pass_s(2)
    assert stage.gate.check(CALL).allowed
    assert stage.gate.check(CALL).allowed, "looking takes nothing"
    stage.gate.reserve(CALL)
    assert not stage.gate.check(CALL).allowed


def test_over_an_hour_a_throttle_lets_its_number_go(stage: Stage) -> None:
    stage.enforce(policy("rate", actions=[{"do": "throttle", "per_minute": 90}], stale_after="1d"))
    stage.tell(stage.signal("rate", 1_000, state="throttle", per_minute=90.0))

    gone = 0
    for _ in range(3_600 * 10):
        stage.pass_s(0.1)
        try:
            stage.gate.reserve(CALL).release()
            gone += 1
        except GateClosed:
            pass

    assert gone == pytest.approx(90 * 60, abs=3)


def test_a_breaker_lets_one_call_through_now_and_then(stage: Stage) -> None:
    stage.enforce(policy("breaker", measure="error_rate", limit="0.5", actions=[{"do": "block", "probe_every": 10}]))
    block = {"state": "block", "measure": "error_rate", "probe_every_s": 10.0}
    stage.tell(stage.signal("breaker", 0.9, **block))

    assert stage.gate.check(CALL).retry_after_s == 10
    stage.pass_s(10)
    stage.gate.reserve(CALL)
    with pytest.raises(GateClosed):
        stage.gate.reserve(CALL)
    stage.tell(stage.signal("breaker", 0.8, **block))
    assert not stage.gate.check(CALL).allowed, "news of the same block is no reason for another"
    stage.pass_s(10)
    stage.gate.reserve(CALL)


# --- time


def test_a_gate_that_hears_nothing_for_too_long_does_what_its_policy_says(stage: Stage) -> None:
    stage.enforce(policy("open", stale_after=10), policy("closed", stale="closed", stale_after=20))
    stage.tell(stage.signal("open", 1_000, state="block"))
    assert not stage.gate.check(CALL).allowed

    stage.pass_s(10.1)
    opened = stage.gate.check(CALL)
    stage.pass_s(10)
    closed = stage.gate.check(CALL)

    assert (opened.allowed, opened.stale, opened.policy) == (True, True, "open")
    assert (closed.allowed, closed.stale, closed.policy) == (False, True, "closed")
    assert "nothing was heard for 20 s" in closed.reason
    stage.tell(stage.beat(), stage.signal("open", 1))
    assert not stage.gate.check(CALL).stale


def test_a_block_with_a_known_end_outlasts_silence(stage: Stage) -> None:
    stage.enforce(policy(stale_after=10))
    stage.tell(stage.signal("budget", 1_000, state="block", resets_at=stage.wall + 100))

    stage.pass_s(60)

    assert not stage.gate.check(CALL).allowed


def test_a_block_that_is_over_by_the_clock_lets_one_call_at_a_time_go_until_the_policy_agrees(stage: Stage) -> None:
    stage.enforce(policy(stale_after="1h"))
    stage.tell(stage.signal("budget", 1_000, state="block", resets_at=stage.wall + 100))
    stage.pass_s(99)
    assert not stage.gate.check(CALL).allowed

    stage.pass_s(2)

    stage.gate.reserve(CALL, tokens(10))
    with pytest.raises(GateClosed):
        stage.gate.reserve(CALL, tokens(10))
    stage.tell(stage.signal("budget", 0))
    stage.gate.reserve(CALL, tokens(10))


def test_a_new_window_begins_with_nothing_spent(stage: Stage) -> None:
    stage.enforce(policy(stale_after="1h"))
    stage.tell(stage.signal("budget", 990, state="warn", resets_at=stage.wall + 100))
    stage.pass_s(101)

    stage.gate.hear([])

    stage.gate.reserve(CALL, tokens(400))
    stage.gate.reserve(CALL, tokens(100))


def test_setting_the_clock_of_the_service_changes_nothing(stage: Stage) -> None:
    stage.enforce(policy(stale_after="1h"))
    stage.tell(stage.beat())
    stage.tell(stage.signal("budget", 1_000, state="block", resets_at=stage.wall + 100))

    stage.gate._known._clock.heard(stage.wall, stage.clock.now)
    stage.clock.now += 50  # only time itself counts; the wall clock is not asked again
    assert not stage.gate.check(CALL).allowed
    stage.clock.now += 51
    assert stage.gate.check(CALL).allowed


def test_the_node_s_clock_is_known_by_what_is_least_late() -> None:
    clock = NodeClock(wall=5_000, now=100)
    assert clock.mono_of(5_010) == 110

    for late, now in ((3, 200), (1, 210), (7, 220)):
        clock.heard(9_000 + now - late, now)

    assert clock.mono_of(9_300) == 301


def test_a_node_s_clock_that_is_set_back_is_followed() -> None:
    clock = NodeClock(wall=0, now=0)
    clock.heard(1_000, 1)

    for now in (150, 300, 450):
        clock.heard(now, now)

    assert clock.mono_of(500) == 500


def test_signals_that_come_late_or_twice_change_nothing(stage: Stage) -> None:
    stage.enforce(policy())
    assert stage.gate.check(CALL).allowed
    old = stage.signal("budget", 10)
    stage.pass_s(1)
    stage.tell(stage.signal("budget", 1_000, state="block"), old, old)

    assert not stage.gate.check(CALL).allowed


def test_a_policies_step_that_counts_from_one_again_is_heard(stage: Stage) -> None:
    stage.enforce(policy())
    stage.tell(stage.signal("budget", 1_000, state="block", sequence=500))
    stage.pass_s(1)

    stage.tell(stage.signal("budget", 10, sequence=1))

    assert stage.gate.check(CALL).allowed


def test_a_node_whose_clock_was_set_back_is_heard(stage: Stage) -> None:
    stage.enforce(policy())
    stage.tell(stage.signal("budget", 1_000, state="block"))
    stage.wall -= 3_600

    stage.tell(stage.signal("budget", 10))

    assert stage.gate.check(CALL).allowed


# --- what becomes of policies


def test_a_signal_heard_before_anybody_asked_counts(stage: Stage) -> None:
    stage.enforce(policy(scope=["tenant"]))

    stage.tell(*(stage.signal("budget", 1_000, scope={"tenant": f"t{n}"}, state="block") for n in range(5)))

    assert not stage.gate.check({"tenant": "t3"}).allowed
    assert stage.gate.check({"tenant": "t9"}).allowed


def test_a_signal_that_is_taken_back_is_forgotten(stage: Stage) -> None:
    stage.enforce(policy())
    key, value = stage.signal("budget", 1_000, state="block")
    stage.tell((key, value))
    assert not stage.gate.check(CALL).allowed

    stage.tell((key, b""))

    assert stage.gate.check(CALL).allowed


def test_a_policy_that_goes_or_changes_is_obeyed_at_once(stage: Stage) -> None:
    stage.enforce(policy(scope=["tenant"]))
    stage.gate.reserve(CALL, tokens(500))
    assert not stage.gate.check(CALL, estimate=tokens(100)).allowed

    stage.enforce(policy(scope=["tenant"], limit=2_000))
    assert stage.gate.check(CALL, estimate=tokens(100)).allowed
    assert not stage.gate.check(CALL, estimate=tokens(600)).allowed, "what is outstanding still is"

    stage.enforce()
    assert stage.gate.check(CALL, estimate=tokens(10**6)).allowed


def test_what_a_gate_cannot_read_does_not_deafen_it(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.enforce(policy())
    stage.gate.check(CALL)
    key, _ = stage.signal("budget", 1)

    stage.tell((key, b"{torn"), (b"policies", b'{"policies": [{"name": "of tomorrow"}]}'), (b"of tomorrow", b"{}"))
    stage.tell(stage.signal("budget", 1_000, state="block"))

    assert not stage.gate.check(CALL).allowed
    assert caplog.text.count("signal_not_understood") == 1


def test_policies_by_model_count_the_model_that_answers(stage: Stage) -> None:
    stage.enforce(policy(match={"provider_name": ["openai"]}, scope=["model"]))
    stage.tell(stage.signal("budget", 1_000, scope={"model": "gpt-4o-2024-08-06"}, state="block"))
    assert stage.gate.check(CALL).allowed

    stage.gate.answered("gpt-4o", "gpt-4o-2024-08-06", "openai")

    assert not stage.gate.check(CALL).allowed


def test_a_gate_asked_about_countless_scopes_forgets_the_idle_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.producers.knowledge._MOST_SCOPES", 100)
    stage = Stage()
    stage.enforce(policy(scope=["user"]))
    stage.tell(stage.signal("budget", 999, scope={"user": "u0"}))
    held = stage.gate.reserve({"user": "held"}, tokens(500))

    for number in range(1_000):
        stage.gate.check({"user": f"u{number}"})

    assert stage.gate.stats()["scopes"] <= 101
    assert not stage.gate.check({"user": "u0"}, estimate=tokens(2)).allowed
    assert not stage.gate.check({"user": "held"}, estimate=tokens(500)).allowed
    held.release()


# --- gates among gates


def test_gates_share_the_lease(stage: Stage) -> None:
    stage.enforce(policy())
    assert stage.gate.check(CALL, estimate=tokens(250)).allowed
    stage.gate.reserve(CALL, tokens(1))

    stage.tell(stage.beat("gate-1", "gate-2", "gate-3", "gate-4", "gate-5"))

    assert stage.gate.check(CALL, estimate=tokens(99)).allowed
    assert not stage.gate.check(CALL, estimate=tokens(100)).allowed


def test_a_gate_that_is_not_counted_yet_sends_one_call_at_a_time(stage: Stage) -> None:
    stage.tell(policy_record(PolicySet(policies=(policy(),))), stage.beat("another"))

    stage.gate.reserve(CALL, tokens(5))

    assert not stage.gate.check(CALL, estimate=tokens(5)).allowed
    stage.tell(stage.beat("another", "gate-1"))
    assert stage.gate.check(CALL, estimate=tokens(5)).allowed


# --- what calls hold


def test_spend_is_held_until_a_signal_counts_its_envelope(stage: Stage) -> None:
    stage.enforce(policy())
    held = stage.gate.reserve(CALL, tokens(400))
    held.settle(tokens(450), rides=True)
    assert not stage.gate.check(CALL, estimate=tokens(60)).allowed

    held.placed(Position(0, 7))
    stage.tell(stage.signal("budget", 0, applied=[6]))
    assert not stage.gate.check(CALL, estimate=tokens(60)).allowed

    stage.tell(stage.signal("budget", 450, applied=[7]))
    assert stage.gate.check(CALL, estimate=tokens(275)).allowed
    assert stage.gate.stats()["outstanding_calls"] == 0


def test_spend_that_was_placed_before_it_was_settled_is_counted_in_all_the_same(stage: Stage) -> None:
    stage.enforce(policy())
    held = stage.gate.reserve(CALL, tokens(400))
    held.placed(Position(0, 7))
    assert not stage.gate.check(CALL, estimate=tokens(200)).allowed

    held.settle(tokens(450), rides=True)
    stage.tell(stage.signal("budget", 450, applied=[7]))

    assert stage.gate.check(CALL, estimate=tokens(275)).allowed
    assert stage.gate.stats()["outstanding_calls"] == 0


def test_a_heartbeat_settles_what_no_signal_speaks_of_but_only_when_signals_cannot_lag_behind_it(stage: Stage) -> None:
    stage.enforce(policy())
    held = stage.gate.reserve(CALL, tokens(500))
    held.settle(tokens(500), rides=True)
    held.placed(Position(0, 7))
    stage.pass_s(0.5)

    stage.tell(stage.beat(applied=[7]))
    assert not stage.gate.check(CALL, estimate=tokens(1)).allowed
    stage.pass_s(1)
    stage.tell(stage.beat(applied=[9]))

    assert stage.gate.check(CALL, estimate=tokens(1)).allowed


def test_a_call_that_was_not_made_gives_back_what_it_held(stage: Stage) -> None:
    stage.enforce(policy())

    with pytest.raises(ZeroDivisionError), stage.gate.reserve(CALL, tokens(500)):
        raise ZeroDivisionError

    with stage.gate.reserve(CALL, tokens(500)):
        pass  # left without a word: taken to have used its estimate
    assert not stage.gate.check(CALL, estimate=tokens(1)).allowed


def test_settling_and_releasing_count_once(stage: Stage) -> None:
    stage.enforce(policy())
    held = stage.gate.reserve(CALL, tokens(100))

    held.settle(tokens(50))
    held.settle(tokens(500))
    held.release()
    held.placed(Position(0, 1))
    held.placed(Position(0, 2))
    stage.tell(stage.signal("budget", 50, applied=[1]))

    (told,) = stage.gate.explain(CALL)
    assert (told["outstanding"], told["outstanding_calls"]) == (0, 0)


def test_spend_that_nobody_can_place_is_held_for_ten_minutes(stage: Stage) -> None:
    stage.enforce(policy(stale_after="1d"))
    lost = stage.gate.reserve(CALL, tokens(300))
    lost.settle(tokens(300), rides=True)
    lost.placed(None)
    stage.gate.reserve(CALL, tokens(200)).settle()

    stage.pass_s(599)
    stage.gate.hear([])
    assert not stage.gate.check(CALL, estimate=tokens(1)).allowed
    stage.pass_s(2)
    stage.gate.hear([])

    assert stage.gate.check(CALL, estimate=tokens(500)).allowed


def test_spend_on_its_way_is_held_for_as_long_as_that_takes(stage: Stage) -> None:
    stage.enforce(policy(stale_after="1d"))
    held = stage.gate.reserve(CALL, tokens(500))
    held.settle(rides=True)

    stage.pass_s(3_600)
    stage.gate.hear([])

    assert not stage.gate.check(CALL, estimate=tokens(1)).allowed


def test_a_reservation_that_is_lost_is_kept_like_one_whose_event_was_dropped(stage: Stage) -> None:
    stage.enforce(policy(stale_after="1d"))
    stage.gate.reserve(CALL, tokens(500))
    gc.collect()

    assert not stage.gate.check(CALL, estimate=tokens(1)).allowed
    stage.gate.hear([])
    assert stage.gate.stats()["kept_calls"] == 1
    stage.pass_s(601)
    stage.gate.hear([])
    assert stage.gate.check(CALL, estimate=tokens(1)).allowed


def test_a_gate_that_nobody_wants_any_more_is_freed_with_what_it_held() -> None:
    stage = Stage()
    stage.enforce(policy())
    stage.gate.reserve(CALL, tokens(5)).settle()
    stage.gate.reserve(CALL, tokens(5))
    gone = weakref.ref(stage.gate)

    del stage
    for _ in range(3):
        gc.collect()

    assert gone() is None
    assert not [each for each in gc.get_objects() if isinstance(each, Reservation)]


# --- estimates


def test_a_call_without_an_estimate_is_taken_to_use_what_others_of_its_model_did(stage: Stage) -> None:
    stage.enforce(policy())
    first = stage.gate.reserve(CALL)
    with pytest.raises(GateClosed, match="not counted"):
        stage.gate.reserve(CALL)
    first.release()

    stage.gate.learn("gpt-4o", Estimate(90, 10))

    held = [stage.gate.reserve(CALL) for _ in range(5)]
    assert not stage.gate.check(CALL).allowed
    assert len(held) == 5


def test_a_budget_in_money_is_held_by_the_prices_that_the_node_tells(stage: Stage) -> None:
    stage.enforce(policy(measure="cost_usd", limit="0.01"))
    stage.gate.reserve(CALL, Estimate(1_000, 100)).release()
    held = stage.gate.reserve(CALL, Estimate(1_000, 100))
    assert not stage.gate.check(CALL, estimate=Estimate(1, 1)).allowed, "of unknown cost: alone"
    held.release()

    stage.tell(price_record(**{"gpt-4o": (2_500, 10_000), "in-house": (0, 0)}))

    stage.gate.reserve(CALL, Estimate(1_000, 100))  # $0.0035 of a lease of $0.005
    assert stage.gate.check(CALL, estimate=Estimate(100, 100)).allowed
    assert not stage.gate.check(CALL, estimate=Estimate(1_000, 100)).allowed
    assert stage.gate.check(CALL, model="in-house").allowed
    assert "$0.0035 of this gate's calls" in stage.gate.check(CALL, estimate=Estimate(1_000, 100)).reason


def test_a_caller_may_tell_the_cost_itself(stage: Stage) -> None:
    stage.enforce(policy(measure="cost_usd", limit="0.01"))

    stage.gate.reserve(CALL, Estimate(cost_usd=0.003))

    assert stage.gate.check(CALL, estimate=Estimate(cost_usd=0.002)).allowed
    assert not stage.gate.check(CALL, estimate=Estimate(cost_usd=0.0021)).allowed


# --- waiting


def test_acquire_waits_for_news_of_its_lease(stage: Stage) -> None:
    stage.enforce(policy())
    held = stage.gate.reserve(CALL, tokens(500))
    held.settle(rides=True)
    held.placed(Position(0, 3))
    stage.source.records.append(stage.signal("budget", 500, applied=[3]))

    began = stage.clock.now
    stage.gate.acquire(CALL, tokens(100))

    assert 0 < stage.clock.now - began < 0.5


def test_acquire_gives_up_after_its_wait(stage: Stage) -> None:
    stage.enforce(policy())
    held = stage.gate.reserve(CALL, tokens(500))

    began = stage.clock.now
    with pytest.raises(GateClosed):
        stage.gate.acquire(CALL, tokens(100), max_wait_s=2)

    assert stage.clock.now - began == pytest.approx(2, abs=0.02)
    assert stage.gate.stats()["refused"] == {"budget": 1}
    held.release()


def test_acquire_does_not_wait_for_what_waiting_cannot_mend(stage: Stage) -> None:
    stage.enforce(policy())
    stage.tell(stage.signal("budget", 1_000, state="block"))
    began = stage.clock.now

    with pytest.raises(GateClosed):
        stage.gate.acquire(CALL)

    assert stage.clock.now == began


def test_acquire_takes_its_turn_at_a_throttle(stage: Stage) -> None:
    stage.enforce(policy("rate", actions=[{"do": "throttle", "per_minute": 120}]))
    stage.tell(stage.signal("rate", 1_000, state="throttle", per_minute=120.0))
    began = stage.clock.now

    for _ in range(4):
        stage.gate.acquire(CALL)

    assert 0.95 <= stage.clock.now - began < 1.6, "two at once: a second's worth"


def test_tasks_wait_without_holding_up_the_loop(stage: Stage) -> None:
    stage.enforce(policy())
    gate = Gate(stage.source, gate_id="gate-1", follow=False)
    gate.hear(stage.source.records)
    held = gate.reserve(CALL, tokens(500))

    async def run() -> float:
        waiting = asyncio.create_task(gate.aacquire(CALL, tokens(100), max_wait_s=20))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        held.release()
        async with await waiting:
            return 1.0

    assert asyncio.run(run()) == 1.0


def test_a_task_cancelled_while_waiting_or_calling_leaves_nothing_behind(stage: Stage) -> None:
    stage.enforce(policy())
    gate = Gate(stage.source, gate_id="gate-1", follow=False)
    gate.hear(stage.source.records)

    async def call() -> None:
        async with await gate.aacquire(CALL, tokens(500), max_wait_s=20):
            await asyncio.sleep(20)

    async def run() -> None:
        tasks = [asyncio.create_task(call()) for _ in range(3)]
        await asyncio.sleep(0.02)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())

    assert gate.check(CALL, estimate=tokens(500)).allowed
    assert gate.stats()["outstanding_calls"] == 0


# --- threads, processes, the follower


def test_the_first_acquire_does_not_wait_for_a_source_that_has_nothing_to_say(tmp_path: Path) -> None:
    gate = Gate(LocalSignals(tmp_path), settings=GateSettings(first_answer_s=20, max_wait_s=20, announce_s=20))
    began = time.monotonic()

    gate.acquire(CALL).release()

    assert time.monotonic() - began < 10
    gate.close()


def test_threads_share_a_lease_exactly() -> None:
    stage = Stage()
    stage.enforce(policy(limit=10_000, stale_after="1d"))
    went = []

    def work(number: int) -> None:
        for _ in range(200):
            try:
                held = stage.gate.reserve(CALL, tokens(10))
            except GateClosed:
                continue
            if number % 3 == 0:
                held.release()
            else:
                held.settle(rides=True)
                went.append(held)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))

    (told,) = stage.gate.explain(CALL)
    assert told["outstanding"] == 10 * len(went) == 5_000
    for offset, held in enumerate(went):
        held.placed(Position(0, offset))
    stage.tell(stage.signal("budget", 5_000, limit=10_000.0, applied=[len(went) - 1]))
    assert stage.gate.stats()["outstanding_calls"] == 0


@pytest.fixture
def followed() -> Iterator[tuple[Gate, MemorySignals]]:
    source = MemorySignals([policy_record(PolicySet())])
    source.poll = paced(source)  # type: ignore[method-assign]
    gate = Gate(source, gate_id="gate-1", settings=GateSettings(announce_s=0.01))
    yield gate, source
    gate.close()


def paced(source: MemorySignals) -> Callable[..., Any]:
    """A poll that waits a moment, as real ones do."""
    poll = type(source).poll

    def waiting(after: int, timeout_s: float) -> Any:
        time.sleep(0.001)
        return poll(source, after, timeout_s)

    return waiting


def test_the_first_question_starts_the_follower_and_nothing_earlier(followed: tuple[Gate, MemorySignals]) -> None:
    gate, source = followed
    assert (source.polls, source.announced) == (0, [])

    gate.check(CALL)

    eventually(lambda: source.announced[:2] == ["gate-1", "gate-1"])
    eventually(lambda: not gate.check(CALL).stale)


def test_the_first_acquire_waits_for_the_first_answer(followed: tuple[Gate, MemorySignals]) -> None:
    gate, source = followed
    stage = Stage()
    source.records.append(policy_record(PolicySet(policies=(policy(),))))
    source.records.append(stage.signal("budget", 1_000, state="block"))

    with pytest.raises(GateClosed):
        gate.acquire(CALL)


def test_a_source_that_is_away_is_told_once_and_tried_again(
    followed: tuple[Gate, MemorySignals], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.producers.gate._FIRST_RETRY_S", 0.001)
    monkeypatch.setattr("tidegate.producers.gate._SLOWEST_RETRY_S", 0.005)
    gate, source = followed
    source.away = True

    gate.acquire(CALL)
    eventually(lambda: source.polls > 5)
    source.away = False

    eventually(lambda: not gate.check(CALL).stale)
    assert caplog.text.count("signals_unavailable") == 1


def test_a_closed_gate_lets_go_of_its_source_and_still_answers(followed: tuple[Gate, MemorySignals]) -> None:
    gate, source = followed
    gate.acquire(CALL)

    gate.close()

    eventually(lambda: "tidegate-gate" not in {thread.name for thread in threading.enumerate()})
    polls = source.polls
    assert gate.check(CALL).allowed
    assert source.polls == polls
    assert source.closed >= 1


def test_the_child_of_a_fork_is_another_gate_that_knows_the_same_and_owes_nothing(
    followed: tuple[Gate, MemorySignals],
) -> None:
    gate, source = followed
    stage = Stage()
    source.records.extend([policy_record(PolicySet(policies=(policy(),))), stage.beat("gate-1")])
    source.records.append(stage.signal("budget", 200))
    held = gate.acquire(CALL, tokens(300))
    eventually(lambda: gate.stats()["member"])

    def child() -> list[bool]:
        held.settle(tokens(999), rides=True)
        held.placed(Position(0, 0))
        known = gate.explain(CALL)[0]
        first, second = gate.reserve(CALL, tokens(10)), gate.check(CALL, estimate=tokens(10))
        eventually(lambda: len(set(source.announced)) == 2)
        first.release()
        return [
            gate.id != "gate-1",
            not gate.stats()["member"],
            known["spend"] == 200,
            known["outstanding"] == 0,
            not second.allowed,
            source.abandoned == 1,
        ]

    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.write(write, bytes(child()))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    told = os.read(read, 100)
    os.close(read)

    assert list(told) == [1] * 6
    assert gate.explain(CALL)[0]["outstanding"] == 300
    held.release()


# --- with an emitter


class GuardedTide:
    """An emitter whose calls are guarded by a gate that hears what the stage says."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.stage = Stage()
        self.emitter = Emitter(self.log, settings=Settings(linger_s=0), signals=MemorySignals)
        self.emitter._gate = self.stage.gate

    def events(self) -> list[dict[str, Any]]:
        assert self.emitter.flush(20)
        return [event for events in self.log.counted().values() for _, event in events]


@pytest.fixture
def tide() -> Iterator[GuardedTide]:
    made = GuardedTide()
    yield made
    made.emitter.close()


ANSWER = {"object": "chat.completion", "model": "gpt-4o-2024-08-06", "usage": {"prompt_tokens": 90, "completion_tokens": 10}}


def test_a_guarded_call_raises_before_the_provider_is_called(tide: GuardedTide) -> None:
    tide.stage.enforce(policy(scope=["tenant"]))
    tide.stage.tell(tide.stage.signal("budget", 1_000, scope={"tenant": "a"}, state="block"))
    called = []

    with pytest.raises(GateClosed), tide.emitter.call(model="gpt-4o", tenant="a"):
        called.append(1)
    with tide.emitter.call(model="gpt-4o", tenant="b"):
        called.append(2)
    with tide.emitter.call(model="gpt-4o", tenant="a", guard=False):
        called.append(3)

    assert called == [2, 3]
    assert [event["tenant"] for event in tide.events() if event["event"] == "response"] == ["b", "a"]


def test_a_guarded_call_uses_the_model_it_is_told(tide: GuardedTide) -> None:
    tide.stage.enforce(downgrading("budget", "gpt-4o-mini"))
    tide.stage.tell(tide.stage.signal("budget", 1_000, state="downgrade", model="gpt-4o-mini"))

    with tide.emitter.call(model="gpt-4o") as call:
        assert call.model == "gpt-4o-mini"

    (event,) = tide.events()
    assert (event["request_model"], event["fallback_from"]) == ("gpt-4o-mini", "gpt-4o")


def test_a_guarded_call_is_outstanding_until_its_response_is_counted(tide: GuardedTide) -> None:
    tide.stage.enforce(policy())
    gate = tide.stage.gate

    with tide.emitter.call(model="gpt-4o", estimate=(80, 400)) as call:
        assert gate.explain(CALL)[0]["outstanding"] == 480
        call.answer(ANSWER)
    request, response = tide.events()

    assert (request["event"], request["estimated_input_tokens"], request["estimated_output_tokens"]) == ("request", 80, 400)
    assert response["input_tokens"] == 90
    assert gate.explain(CALL)[0]["outstanding"] == 100
    tide.stage.tell(tide.stage.signal("budget", 100, applied=[len(tide.log.envelopes) - 1]))
    assert gate.explain(CALL)[0]["outstanding"] == 0


def test_a_guarded_call_learns_what_its_model_uses(tide: GuardedTide) -> None:
    tide.stage.enforce(policy())
    with tide.emitter.call(model="gpt-4o") as call:
        call.answer(ANSWER)

    with tide.emitter.call(model="gpt-4o"):
        assert tide.stage.gate.explain(CALL)[0]["outstanding"] == 200

    kinds = [event["event"] for event in tide.events()]
    assert kinds == ["response", "request", "response"]


def test_a_guarded_call_that_fails_holds_what_the_ledger_will_say_it_used(tide: GuardedTide) -> None:
    tide.stage.enforce(policy(), policy("rate", measure="requests"))

    with pytest.raises(TimeoutError), tide.emitter.call(model="gpt-4o", estimate=(80, 400)):
        raise TimeoutError

    used, calls = tide.stage.gate.explain(CALL)
    assert (used["outstanding"], used["outstanding_calls"]) == (0, 1)
    assert (calls["outstanding"], calls["outstanding_calls"]) == (1, 1)


def test_a_dropped_response_is_kept_as_spent(tide: GuardedTide) -> None:
    tide.stage.enforce(policy())
    tide.log.refuses = lambda envelope: b'"response"' in envelope.value

    with tide.emitter.call(model="gpt-4o", estimate=(400, 100)):
        pass
    tide.events()
    tide.stage.gate.hear([])

    assert tide.stage.gate.stats()["kept_calls"] == 1
    assert not tide.stage.gate.check(CALL, estimate=tokens(1)).allowed


def test_a_mistake_of_ours_in_the_gate_never_reaches_the_caller(tide: GuardedTide, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("chest pain")

    monkeypatch.setattr(tide.stage.gate, "acquire", broken)

    with tide.emitter.call(model="gpt-4o", estimate=7, labels=7) as call:  # type: ignore[arg-type]
        call.answer(ANSWER)

    assert tide.emitter.stats().internal_errors >= 1


def test_async_calls_are_guarded(tide: GuardedTide) -> None:
    tide.stage.enforce(policy())
    tide.stage.tell(tide.stage.signal("budget", 1_000, state="block"))

    async def run() -> None:
        async with tide.emitter.call(model="gpt-4o"):
            raise AssertionError("the provider was called")

    with pytest.raises(GateClosed):
        asyncio.run(run())


def test_an_emitter_without_a_source_of_signals_has_no_gate() -> None:
    with Emitter(MemoryLog(), settings=Settings(linger_s=0)) as emitter:
        assert emitter.gate is None
        with emitter.call(model="gpt-4o"):
            pass


def test_now_is_what_these_tests_take_it_for() -> None:
    assert Stage().wall == NOW_S
