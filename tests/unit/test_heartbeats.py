"""Heartbeats of several policies workers: a gate trusts them as far as the worst of them, and one alone as it always did."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from signalling import Stage, policy, policy_record
from tidegate.producers.decision import Estimate
from tidegate.producers.heartbeats import Heartbeats
from tidegate.producers.ports import Position
from tidegate.producers.signals import SignalRecord
from tidegate.schemas.policy import PolicySet
from tidegate.schemas.signal import GATES_KEY, Gates, heartbeat_key, heartbeat_number

CALL = {"tenant": "harbor-health", "model": "gpt-4o"}


def beat(at: float, applied: Sequence[int] = (), *ids: str, of: int = 2) -> Gates:
    return Gates(list(ids or ("gate-1",)), at, list(applied), of)


def record(stage: Stage, number: int, applied: Sequence[int] = (), *ids: str, of: int = 2, ago: float = 0.0) -> SignalRecord:
    return heartbeat_key(number), msgspec.json.encode(beat(stage.wall - ago, applied, *ids, of=of))


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.mark.parametrize("number", [0, 1, 17])
def test_a_heartbeats_key_tells_whose_it_is(number: int) -> None:
    key = heartbeat_key(number)

    assert heartbeat_number(key) == number
    assert heartbeat_key(0) == GATES_KEY


@pytest.mark.parametrize("key", [b"policies", b"gatesx", b"gates|", b"gates|one", b"signal|gates|[]", b""])
def test_other_keys_are_no_heartbeats(key: bytes) -> None:
    assert heartbeat_number(key) is None


def test_what_is_settled_is_the_least_that_all_say() -> None:
    beats = Heartbeats()
    for at, zero, one in ((0.0, [5, 9], [7, 3]), (1.0, [6, 9], [8, 8])):
        settled = beats.hear(0, beat(at, zero), at)
        settled = beats.hear(1, beat(at, one), at) or settled

    assert settled == [5, 3]


def test_nothing_is_settled_until_each_has_said_something_that_is() -> None:
    beats = Heartbeats()

    found = [beats.hear(0, beat(at / 2, [at]), at / 2) for at in range(10)]
    found.append(beats.hear(1, beat(0.0, [3]), 5.0))
    last = beats.hear(1, beat(1.0, [9]), 6.0)

    assert set(found) == {None}
    assert last == [3]


def test_a_gate_settles_only_what_both_workers_have_counted(stage: Stage) -> None:
    stage.enforce(policy())
    held = stage.gate.reserve(CALL, Estimate(500, 0))
    held.settle(Estimate(500, 0), rides=True)
    held.placed(Position(0, 7))

    def say(zero: int, one: int) -> bool:
        stage.tell(record(stage, 0, [zero]), record(stage, 1, [one]))
        stage.pass_s(1.5)
        return stage.gate.check(CALL, estimate=Estimate(1, 0)).allowed

    assert not say(7, 6)
    assert not say(8, 7)
    assert say(9, 7)


def test_a_gate_is_stale_when_one_of_two_workers_is_silent(stage: Stage) -> None:
    stage.enforce(policy(stale="closed", stale_after="10s"))
    stage.tell(record(stage, 0), record(stage, 1))

    for _ in range(11):
        stage.pass_s(1)
        stage.tell(record(stage, 0), stage.signal("budget", 1))
    silent = stage.gate.check(CALL)
    stage.tell(record(stage, 1))

    assert not silent.allowed
    assert silent.stale
    assert stage.gate.check(CALL).allowed


def test_one_worker_that_was_never_heard_makes_a_gate_stale_in_time(stage: Stage) -> None:
    stage.enforce(policy(stale="closed", stale_after="10s"))

    answers = []
    for _ in range(12):
        stage.tell(record(stage, 0))
        answers.append(stage.gate.check(CALL).allowed)
        stage.pass_s(1)

    assert answers == [True] * 11 + [False]


def test_a_gate_that_starts_hears_which_worker_fell_silent_long_ago(stage: Stage) -> None:
    policies = policy_record(PolicySet(policies=(policy(stale="closed", stale_after="10s"),)))
    stage.tell(policies, record(stage, 1, ago=60.0), record(stage, 0))
    before = stage.gate.check(CALL)

    stage.tell(record(stage, 1))

    assert not before.allowed
    assert before.stale
    assert stage.gate.check(CALL).allowed


@pytest.mark.parametrize("taken_back", [False, True])
def test_a_heartbeat_that_fewer_workers_leave_behind_is_forgotten(stage: Stage, taken_back: bool) -> None:
    stage.enforce(policy(stale="closed", stale_after="10s"))
    stage.tell(record(stage, 0), record(stage, 1))

    stage.tell(*([(heartbeat_key(1), b"")] if taken_back else []), record(stage, 0, of=1))
    for _ in range(30):
        stage.pass_s(1)
        stage.tell(record(stage, 0, of=1))

    assert stage.gate.check(CALL).allowed


def test_a_gate_is_a_member_when_every_worker_counts_it_and_shares_with_the_most_that_any_counts(stage: Stage) -> None:
    stage.enforce(policy())

    stage.tell(record(stage, 0, [], "gate-1", "gate-2"), record(stage, 1, [], "gate-2"))
    before = stage.gate.stats()
    stage.tell(record(stage, 1, [], "gate-1", "gate-2", "gate-3"))
    after = stage.gate.stats()

    assert (before["gates"], before["member"]) == (2, False)
    assert (after["gates"], after["member"]) == (3, True)


def test_a_single_worker_is_heard_by_whatever_it_says(stage: Stage) -> None:
    stage.enforce(policy(stale="closed", stale_after="10s"))

    for _ in range(30):
        stage.pass_s(1)
        stage.tell(stage.signal("budget", 1))

    assert stage.gate.check(CALL).allowed
