"""Throttle policies of the example file, followed by many waiters of several gates, in simulated time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import virtual_time
from signalling import MemorySignals, Stage, policy, policy_record, signal_record
from support import NOW_S
from tidegate.processors.policy_file import read_policies
from tidegate.producers.decision import Estimate
from tidegate.producers.gate import Gate
from tidegate.producers.ports import Position
from tidegate.producers.reservation import Reservation
from tidegate.schemas.errors import GateClosed
from tidegate.schemas.policy import Action, Policy, PolicySet
from tidegate.schemas.signal import GATES_KEY, Gates

EXAMPLE = {one.name: one for one in read_policies(Path(__file__).parents[2] / "docs" / "examples" / "policies.yaml").policies}
RPM = EXAMPLE["openai-requests-per-minute"]
TPM = EXAMPLE["openai-tokens-per-minute"]
# Throttled from the first calls on, so that the limit holds from the first minute on.
PACED = RPM
# The same, throttled only when the limit is near.
LATE = RPM.model_copy(update={"actions": (Action(at=0.9, do="throttle", per_minute=4_500),)})
LATE_TPM = TPM.model_copy(update={"actions": (Action(at=0.95, do="throttle", per_minute=500),)})
CALL = {"provider_name": "openai", "model": "gpt-4o"}
# What a signal takes from the node to a gate.
DELAY_S = 0.1


def most_in(times: list[float], window_s: float) -> int:
    """The most calls in any such stretch of time."""
    times = sorted(times)
    most = first = 0
    for last, at in enumerate(times):
        while times[first] <= at - window_s:
            first += 1
        most = max(most, last - first + 1)
    return most


@dataclass
class Node:
    """A node's word on a throttle policy, four times a second: what has ended in the last minute counts."""

    policy: Policy
    gates: list[Gate]
    per_call: int
    counted: Counter[int] = field(default_factory=Counter)
    offset: int = -1
    state: str = "ok"
    per_minute: float | None = None
    ticks: int = 0

    def begin(self, now: float) -> None:
        for gate in self.gates:
            gate.hear([policy_record(PolicySet(policies=(self.policy,))), self.beat(now)])

    def beat(self, now: float) -> tuple[bytes, bytes]:
        ids = [gate.id for gate in self.gates]
        return GATES_KEY, msgspec.json.encode(Gates(ids, NOW_S + now, [self.offset]))

    def ended(self, began_at: float, reservation: Reservation) -> None:
        self.counted[int(began_at)] += self.per_call
        self.offset += 1
        reservation.settle(used(self.per_call), rides=True)
        reservation.placed(Position(0, self.offset))

    def news(self, now: float) -> list[tuple[bytes, bytes]]:
        self.ticks += 1
        spend = sum(count for second, count in self.counted.items() if second >= int(now) - 60)
        limit = float(self.policy.limit or 0)
        ease = 1.0 if self.state == "ok" else 1.0 - self.policy.hysteresis
        reached = [action for action in self.policy.actions if spend >= action.at * limit * ease]
        self.state = "throttle" if reached else "ok"
        signal = signal_record(
            self.policy.name,
            spend,
            state=self.state,
            measure=self.policy.measure,
            limit=limit,
            lease_share=self.policy.lease_share,
            per_minute=reached[-1].per_minute if reached else None,
            sequence=self.ticks,
            at=NOW_S + now,
            gates=len(self.gates),
            applied=[self.offset],
        )
        return [signal, self.beat(now)] if self.ticks % 2 else [signal]


@dataclass
class Outcome:
    """When calls went, and how long each waiter waited for each of them."""

    went: list[float] = field(default_factory=list)
    waits: dict[int, list[float]] = field(default_factory=dict)
    refused: int = 0

    def note(self, waiter: int, asked_at: float, now: float) -> None:
        self.went.append(now)
        self.waits.setdefault(waiter, []).append(now - asked_at)


def used(tokens: int) -> Estimate:
    return Estimate(tokens, 0)


def gates_of(count: int, **clocks: Any) -> list[Gate]:
    return [Gate(MemorySignals(), gate_id=f"gate-{number}", follow=False, **clocks) for number in range(count)]


def run_tasks(policy: Policy, *, gates: int, tasks: int, for_s: float, call_s: float, per_call: int = 1) -> Outcome:
    """Tasks of several gates that ask without pause, on a loop in simulated time."""
    outcome = Outcome()

    async def main(loop: asyncio.AbstractEventLoop) -> None:
        node = Node(policy, gates_of(gates, monotonic=loop.time, clock=lambda: NOW_S + loop.time()), per_call)
        node.begin(loop.time())

        async def tell() -> None:
            while loop.time() < for_s:
                news = node.news(loop.time())
                for gate in node.gates:
                    loop.call_later(DELAY_S, gate.hear, news)
                await asyncio.sleep(0.25)

        async def ask(waiter: int, gate: Gate) -> None:
            while (asked_at := loop.time()) < for_s:
                reservation = await gate.aacquire(CALL, used(per_call), max_wait_s=60)
                outcome.note(waiter, asked_at, began_at := loop.time())
                await asyncio.sleep(call_s)
                node.ended(began_at, reservation)

        waiters = enumerate(gate for gate in node.gates for _ in range(tasks))
        await asyncio.gather(tell(), *(ask(waiter, gate) for waiter, gate in waiters))

    virtual_time.run(main)
    return outcome


def run_threads(policy: Policy, *, gates: int, threads: int, for_s: float, call_s: float) -> Outcome:
    """The same with threads, which take turns."""
    outcome, turns = Outcome(), virtual_time.Turns()
    clocks: dict[str, Callable[..., Any]] = {
        "monotonic": lambda: turns.now,
        "clock": lambda: NOW_S + turns.now,
        "sleep": turns.sleep,
    }
    node = Node(policy, gates_of(gates, **clocks), 1)
    node.begin(0.0)

    def tell() -> None:
        while turns.now < for_s:
            news = node.news(turns.now)
            turns.sleep(DELAY_S)
            for gate in node.gates:
                gate.hear(news)
            turns.sleep(0.25 - DELAY_S)

    def asker(waiter: int, gate: Gate) -> Callable[[], None]:
        def ask() -> None:
            while (asked_at := turns.now) < for_s:
                reservation = gate.acquire(CALL, used(1), max_wait_s=60)
                outcome.note(waiter, asked_at, began_at := turns.now)
                turns.sleep(call_s)
                node.ended(began_at, reservation)

        return ask

    waiters = enumerate(gate for gate in node.gates for _ in range(threads))
    turns.run([tell, *(asker(waiter, gate) for waiter, gate in waiters)])
    return outcome


@pytest.fixture(scope="module")
def paced() -> Outcome:
    return run_tasks(PACED, gates=4, tasks=12, for_s=125, call_s=0.05)


def test_a_throttle_from_the_first_calls_on_holds_the_limit_in_any_minute(paced: Outcome) -> None:
    assert RPM.limit is not None

    assert most_in(paced.went, 60) <= RPM.limit
    # Before it is heard of, the first 5 % of the limit; in any minute a second's calls more than a minute's.
    assert most_in(paced.went, 60) <= 0.05 * float(RPM.limit) + 4_500 + 75


def test_a_throttle_lets_as_many_calls_go_as_it_says(paced: Outcome) -> None:
    later = [at for at in paced.went if 60 <= at < 120]

    assert 0.97 * 4_500 <= len(later) <= 4_500 + 75


def test_nobody_starves(paced: Outcome) -> None:
    """Twelve tasks of a gate share 18.75 calls a second: 0.64 s from one to the next on average."""
    calls = [len(waits) for waits in paced.waits.values()]

    assert len(calls) == 48
    assert min(calls) > 0.6 * max(calls)
    assert max(max(waits) for waits in paced.waits.values()) < 15


def test_threads_keep_to_the_rate_like_tasks() -> None:
    found = run_threads(PACED, gates=2, threads=4, for_s=75, call_s=0.02)

    assert most_in(found.went, 60) <= 0.05 * 5_000 + 4_500 + 75
    assert most_in([at for at in found.went if at >= 10], 60) >= 0.97 * 4_500
    assert min(len(waits) for waits in found.waits.values()) > 0.6 * max(len(waits) for waits in found.waits.values())


def test_a_throttle_that_is_reached_holds_its_rate() -> None:
    found = run_tasks(LATE, gates=4, tasks=6, for_s=125, call_s=0.05)
    # The burst that reached it has left the window after a minute.
    throttled = [at for at in found.went if at >= 62]

    assert 0.9 * 4_500 <= most_in(throttled, 60) <= 4_500 + 75


@pytest.mark.parametrize(
    ("policy", "tokens", "per_minute"), [(LATE, 1, 4_500), (LATE_TPM, 2_000, 500)], ids=["requests", "tokens"]
)
def test_what_goes_before_a_throttle_is_reached_comes_on_top_of_its_rate(policy: Policy, tokens: int, per_minute: int) -> None:
    """So a throttle near its limit does not hold it: `at` says how far a burst from rest goes beyond `per_minute`."""
    limit, hardest = float(policy.limit or 0) / tokens, policy.actions[-1]

    found = run_tasks(policy, gates=4, tasks=12, for_s=61, call_s=0.05, per_call=tokens)

    assert limit < most_in(found.went, 60) <= hardest.at * limit + per_minute * (1 + 1 / 60) + 4


@pytest.fixture
def crowded() -> Stage:
    """A gate whose next call may go in two seconds."""
    stage = Stage()
    stage.enforce(policy("slow", actions=[{"do": "throttle", "per_minute": 30}]))
    stage.tell(stage.signal("slow", 1_000, state="throttle", per_minute=30.0))
    with stage.gate.reserve({}):
        pass
    return stage


def test_waiters_come_back_at_times_of_their_own(crowded: Stage) -> None:
    waits: list[float] = []

    def interrupt(wait_s: float) -> None:
        waits.append(wait_s)
        raise KeyboardInterrupt

    crowded.gate._sleep = interrupt
    for _ in range(50):
        with pytest.raises(KeyboardInterrupt):
            crowded.gate.acquire({}, max_wait_s=60)

    assert len(set(waits)) == 50
    assert 0.18 < min(waits) < 0.23
    assert 0.32 < max(waits) < 0.38


def test_waiting_that_cannot_help_in_time_is_refused_at_once_and_says_when(crowded: Stage) -> None:
    began_at = crowded.clock.now

    with pytest.raises(GateClosed, match="30 calls a minute go") as caught:
        crowded.gate.acquire({}, max_wait_s=1.5)

    assert caught.value.retry_after_s == pytest.approx(2.0)
    assert crowded.clock.now == began_at


def test_waiting_can_be_cancelled_and_leaves_nothing_behind(crowded: Stage) -> None:
    before = crowded.gate.stats()["outstanding_calls"]

    async def cancel() -> None:
        task = asyncio.create_task(crowded.gate.aacquire({}, max_wait_s=60))
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())
    crowded.pass_s(2.0)

    assert crowded.gate.stats()["outstanding_calls"] == before
    assert crowded.gate.reserve({}).decision.state == "throttle"


def test_an_interrupted_thread_leaves_nothing_behind(crowded: Stage) -> None:
    before = crowded.gate.stats()["outstanding_calls"]

    def interrupt(_wait_s: float) -> None:
        raise KeyboardInterrupt

    crowded.gate._sleep = interrupt
    with pytest.raises(KeyboardInterrupt):
        crowded.gate.acquire({}, max_wait_s=60)
    crowded.pass_s(2.0)

    assert crowded.gate.stats()["outstanding_calls"] == before
    assert crowded.gate.reserve({}).decision.state == "throttle"
