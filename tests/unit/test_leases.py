"""The arithmetic of leases, and the bound on overspending held against a simulated fleet."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from signalling import Clock, MemorySignals, policy, policy_record, signal_record
from tidegate.producers.decision import Estimate
from tidegate.producers.gate import Gate
from tidegate.producers.leases import UNKNOWN, Hold, Lease, overshoot_bound
from tidegate.producers.ports import Position
from tidegate.producers.reservation import Reservation
from tidegate.producers.signals import SignalRecord
from tidegate.schemas.errors import GateClosed
from tidegate.schemas.policy import PolicySet
from tidegate.schemas.signal import GATES_KEY, Gates


def lease(ceiling: float | None = 1_000, share: float = 0.5, gates: int = 1) -> Lease:
    made = Lease(ceiling, share)
    made.alone, made.gates = False, gates
    made.update()
    return made


def test_a_lease_is_a_gate_s_part_of_the_share_of_what_remains() -> None:
    held = lease(gates=5)

    held.hear(200, 0, 0.5, [])

    assert held.room == held.margin == 80
    assert held.admits(80)
    held.take(80)
    assert not held.admits(1)


def test_with_nothing_outstanding_one_call_may_go_beyond_the_lease_but_not_beyond_what_remains() -> None:
    held = lease(ceiling=10)

    assert not held.margin >= 9
    assert held.admits(9)
    assert not held.admits(11)
    held.take(9)
    assert not held.admits(1)


def test_what_others_have_reserved_is_not_there_for_the_one_call() -> None:
    held = lease(ceiling=10)
    held.hear(2, 4, 0.5, [])

    assert held.admits(4)
    assert not held.admits(5)


def test_a_call_of_unknown_amount_goes_alone() -> None:
    held = lease()

    assert held.admits(UNKNOWN)
    held.take(UNKNOWN)
    assert not held.admits(1)
    assert not held.admits(UNKNOWN)
    held.change(UNKNOWN, 30)
    assert held.outstanding == 30
    assert held.admits(1)


def test_a_gate_that_is_not_counted_sends_one_call_at_a_time() -> None:
    held = lease()
    held.alone = True
    held.update()

    assert held.admits(1_000)
    held.take(1)
    assert not held.admits(1)


def test_an_exhausted_limit_admits_nothing_not_even_a_call_that_uses_nothing() -> None:
    held = lease()
    held.hear(1_000, 0, 0.5, [])

    assert not held.admits(0)
    assert held.margin < 0


def test_settled_spend_is_outstanding_until_its_offset_is_counted_in() -> None:
    held = lease()
    for amount, offset in ((10, 7), (20, 8), (30, 9)):
        held.take(amount)
        held.place(amount, 0, offset)

    held.hear(30, 0, 0.5, [8])

    assert (held.outstanding, held.calls) == (30, 1)
    held.hear(60, 0, 0.5, [9])
    assert (held.outstanding, held.calls) == (0, 0)


def test_a_place_that_is_counted_already_is_never_outstanding() -> None:
    held = lease()
    held.hear(10, 0, 0.5, [3, -1])
    held.take(10)

    held.place(10, 0, 3)

    assert held.outstanding == 0


def test_partitions_are_counted_each_for_itself() -> None:
    held = lease()
    for partition in (0, 1, 2):
        held.take(5)
        held.place(5, partition, 4)

    held.count_in([4, 3])

    assert held.outstanding == 10


def test_what_was_given_back_makes_room_again() -> None:
    held = lease()
    held.take(500)
    assert held.margin == 0

    held.drop(500)

    assert held.margin == 500


def test_a_judging_policy_leaves_amounts_free() -> None:
    held = lease(ceiling=None)

    held.take(0)

    assert held.margin == float("inf")
    assert held.admits(0)


def test_the_bound_of_gates_that_have_all_heard_the_newest_is_no_more_than_one_call_each() -> None:
    heard = [Hold(remaining=100, share=0.5, gates=4)] * 4

    assert overshoot_bound(heard) == 0
    assert overshoot_bound([Hold(100, 0.5, 4, largest_call=40)] * 4) == 60
    assert overshoot_bound(heard, excess=7) == 7


def test_a_deaf_gate_adds_its_old_lease_and_no_more() -> None:
    deaf, others = Hold(remaining=1_000, share=0.5, gates=4), [Hold(remaining=1, share=0.5, gates=4)] * 3

    assert overshoot_bound([deaf, *others]) == pytest.approx(125 + 0.375 - 1)


def test_nobody_who_spends_nothing_overshoots() -> None:
    assert overshoot_bound([]) == 0


# --- a fleet in simulated time ------------------------------------------------------------------------------------------

LIMIT = 1_000
HEARTBEAT_S = 0.25
PARTITIONS = 2


@dataclass
class Call:
    """A call that a gate let go. An `estimate` of None is unknown."""

    reservation: Reservation
    estimate: int | None
    actual: int
    seen: bool  # its request event has been heard of

    @property
    def excess(self) -> int:
        return max(0, self.actual - (self.estimate or 0))


@dataclass
class Member:
    """A gate with its calls, and how much of the signals it has heard."""

    gate: Gate
    partition: int
    heard: int = 0
    in_flight: list[Call] = field(default_factory=list)
    settled: list[Call] = field(default_factory=list)  # in the emitter, in order
    hold: Hold | None = None
    excess: int = 0


class Fleet:
    """Gates, the calls topic and a policies step, with every message as late as the test likes.

    The step holds news of a scope back for a heartbeat, and tells what is counted at any time, as the real one does.
    """

    def __init__(self, gates: int, share: float) -> None:
        self.clock = Clock()
        self.wall = 2_000_000.0
        self.topic: list[list[int]] = [[] for _ in range(PARTITIONS)]
        self.counted = [0] * PARTITIONS
        self.signals: list[SignalRecord] = [
            policy_record(PolicySet(policies=(policy(lease_share=share, limit=LIMIT, stale_after="1d"),)))
        ]
        self.share = share
        self.sequence = 0
        self.sent_at = float("-inf")
        self.news = True
        self.spent = 0  # by calls that went and were not cancelled, by what they really use
        self.live: list[str] = []
        self.members = [
            Member(Gate(MemorySignals(), gate_id=f"g{index}", clock=lambda: self.wall, monotonic=self.clock, follow=False),
                   index % PARTITIONS)
            for index in range(gates)
        ]  # fmt: skip

    # the node

    def spend(self) -> int:
        return sum(sum(topic[:counted]) for topic, counted in zip(self.topic, self.counted, strict=True))

    def reserved(self) -> int:
        return sum(call.estimate or 0 for member in self.members for call in member.in_flight if call.seen)

    def applied(self) -> list[int]:
        return [counted - 1 for counted in self.counted]

    def count(self, partition: int, most: int) -> None:
        end = min(len(self.topic[partition]), self.counted[partition] + most)
        self.news = self.news or end > self.counted[partition]
        self.counted[partition] = end
        self.publish()

    def publish(self) -> None:
        if not self.news or self.wall - self.sent_at < HEARTBEAT_S:
            return
        spend, reserved = self.spend(), self.reserved()
        self.sequence = max(self.sequence + 1, int(self.wall * 1_000))
        state = "block" if spend + reserved >= LIMIT else "ok"
        self.signals.append(
            signal_record(
                "budget", spend, reserved=reserved, state=state, limit=float(LIMIT), lease_share=self.share, at=self.wall,
                sequence=self.sequence, applied=self.applied(), gates=max(1, len(self.live)),
            )
        )  # fmt: skip
        self.sent_at, self.news = self.wall, False

    def beat(self) -> None:
        self.signals.append((GATES_KEY, msgspec.json.encode(Gates(list(self.live), self.wall, self.applied()))))

    def pass_s(self, seconds: float) -> None:
        self.clock.now += seconds
        self.wall += seconds
        self.publish()

    def restart(self) -> None:
        """The policies step has forgotten its numbers and says everything again."""
        self.sequence, self.news, self.sent_at = 0, True, float("-inf")
        self.pass_s(0.001)

    # the services

    def call(self, member: Member, estimate: int | None, actual: int, seen: bool) -> None:
        given = None if estimate is None else Estimate(estimate, 0)
        try:
            reservation = member.gate.reserve({"tenant": "a"}, given)
        except GateClosed as closed:
            self.justify(member, estimate, closed)
            return
        member.in_flight.append(Call(reservation, estimate, actual, seen))
        self.news = self.news or seen
        self.spent += actual
        (standing,) = member.gate._known.standings.values()
        member.hold = Hold(standing.left, standing.share, standing.gates, estimate or 0)
        member.excess = sum(call.excess for call in member.in_flight)

    def justify(self, member: Member, estimate: int | None, closed: GateClosed) -> None:
        """No call is refused but for one of these reasons."""
        (standing,) = member.gate._known.standings.values()
        if standing.state == "block":
            assert standing.spend + standing.reserved >= LIMIT
        elif closed.retry_after_s is None:
            assert not standing.calls
            assert estimate is not None
            assert estimate > standing.left - standing.reserved
        else:
            assert standing.calls
            assert standing.alone or standing.unknown or estimate is None or standing.outstanding + estimate > standing.room

    def settle(self, member: Member, which: int) -> None:
        if member.in_flight:
            call = member.in_flight.pop(which % len(member.in_flight))
            call.reservation.settle(Estimate(call.actual, 0), rides=True)
            member.settled.append(call)
            self.news = self.news or call.seen

    def cancel(self, member: Member, which: int) -> None:
        if member.in_flight:
            call = member.in_flight.pop(which % len(member.in_flight))
            call.reservation.release()
            self.spent -= call.actual
            self.news = self.news or call.seen

    def append(self, member: Member) -> None:
        if member.settled:
            call = member.settled.pop(0)
            topic = self.topic[member.partition]
            topic.append(call.actual)
            call.reservation.placed(Position(member.partition, len(topic) - 1))

    def lose(self, member: Member) -> None:
        if member.settled:
            member.settled.pop(0).reservation.placed(None)

    def deliver(self, member: Member, most: int) -> None:
        records = self.signals[member.heard : member.heard + most]
        member.heard += len(records)
        member.gate.hear(records)

    def repeat(self, member: Member, back: int) -> None:
        if member.heard:
            member.gate.hear([self.signals[max(0, member.heard - 1 - back)]])

    def within_the_bound(self) -> None:
        holds = [member.hold for member in self.members if member.hold is not None]
        assert self.spent <= LIMIT + overshoot_bound(holds, sum(member.excess for member in self.members))

    def come_to_rest(self) -> None:
        """Everything settles, is counted, and is heard of by everybody."""
        self.live = [member.gate.id for member in self.members]
        for member in self.members:
            while member.in_flight:
                self.settle(member, 0)
            while member.settled:
                self.append(member)
        for _ in range(3):
            for partition in range(PARTITIONS):
                self.count(partition, len(self.topic[partition]))
            self.pass_s(1.1)
            self.beat()
        for member in self.members:
            self.deliver(member, len(self.signals))


# How often what happens; in some runs a gate is deaf, the meter is slow, or every gate is greedy.
RATES = {
    "call": 30,
    "settle": 20,
    "cancel": 2,
    "append": 20,
    "lose": 1,
    "deliver": 20,
    "repeat": 2,
    "count": 10,
    "beat": 5,
    "live": 1,
    "time": 10,
    "restart": 1,
}


def play(fleet: Fleet, random: Random, rates: dict[str, float]) -> None:
    kind = random.choices(list(rates), list(rates.values()))[0]
    member = random.choice(fleet.members)
    match kind:
        case "call":
            estimate = None if random.random() < 0.05 else random.choice((5, 20, 60, 400))
            actual = random.choice((0, 5, 20, 80)) if estimate is None or random.random() < 0.2 else estimate
            fleet.call(member, estimate, actual, random.random() < 0.7)
        case "settle" | "cancel":
            getattr(fleet, kind)(member, random.randrange(8))
        case "append" | "lose":
            getattr(fleet, kind)(member)
        case "deliver":
            fleet.deliver(member, random.randint(1, 8))
        case "repeat":
            fleet.repeat(member, random.randint(0, 8))
        case "count":
            fleet.count(random.randrange(PARTITIONS), random.randint(1, 10))
        case "live":
            fleet.live = [each.gate.id for each in fleet.members if random.random() < 0.8]
        case "time":
            fleet.pass_s(random.choice((0.05, 0.3, 1.2)))
        case _:
            getattr(fleet, kind)()


def fleet_of(random: Random) -> tuple[Fleet, dict[str, float]]:
    """A fleet that has heard of its policy and its members, and how it will fare."""
    fleet = Fleet(random.randint(1, 4), random.choice((0.1, 0.5, 0.9, 1.0)))
    rates = {kind: rate * random.choice((0.1, 1, 1, 3)) for kind, rate in RATES.items()}
    fleet.live = [member.gate.id for member in fleet.members]
    fleet.beat()
    for member in fleet.members:
        fleet.deliver(member, 2)
    return fleet, rates


@given(seed=st.integers(0, 2**32))
def test_a_fleet_never_spends_more_than_the_limit_and_the_bound(seed: int) -> None:
    random = Random(seed)
    fleet, rates = fleet_of(random)

    for _ in range(400):
        play(fleet, random, rates)
        fleet.within_the_bound()


@given(seed=st.integers(0, 2**32))
def test_a_fleet_at_rest_lets_go_what_the_limit_still_holds(seed: int) -> None:
    random = Random(seed)
    fleet, rates = fleet_of(random)
    for _ in range(random.randint(0, 200)):
        play(fleet, random, rates | {"lose": 0})

    fleet.come_to_rest()

    remaining = LIMIT - fleet.spend()
    for member in fleet.members:
        decision = member.gate.check({"tenant": "a"}, estimate=Estimate(max(remaining, 0), 0))
        assert decision.allowed == (remaining > 0), decision
        assert member.gate.stats()["outstanding_calls"] == 0
