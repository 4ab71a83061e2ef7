"""A worker's partition that the brake holds goes on when a person says so, or after a while, whatever Kafka answers."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from aiokafka.errors import GroupAuthorizationFailedError, KafkaError
from tidegate.processors.aggregate import ScopeSets, UsageState
from tidegate.processors.brake import Brake
from tidegate.processors.distributed.meter_brake import MeterBrake
from tidegate.processors.distributed.wire import Wire
from tidegate.processors.meter import MeterState
from tidegate.schemas.settings import Settings


class Answers:
    """A wire that knows how far a person has let a meter go, or fails to; its partition ends at 40."""

    def __init__(self, allowed: int | KafkaError) -> None:
        self.allowed = allowed

    async def committed(self, *_: Any) -> int:
        if isinstance(self.allowed, KafkaError):
            raise self.allowed
        return self.allowed

    async def end(self, *_: Any) -> int:
        return 40


def stopped_at(next_offset: int) -> MeterState:
    return MeterState(0, UsageState(ScopeSets(((),))), next_offset=next_offset, brake=Brake(stopped=True, since_ms=0))


def held(state: MeterState, wire: Answers, at_s: list[float]) -> list[bool]:
    """What is said about holding the partition, of looks at these times. It goes on by itself after 600 s."""
    said: list[bool] = []
    times = iter(at_s)
    settings = Settings(brake_hold_s=600)
    brake = MeterBrake(0, cast(Wire, wire), settings, lambda _partition, on: said.append(on), lambda: next(times))

    async def scene() -> None:
        for at in at_s:
            await brake.look(state, int(at * 1_000))

    asyncio.run(scene())
    return said


def test_a_meter_that_stopped_at_the_last_record_goes_on_by_command() -> None:
    state = stopped_at(40)

    said = held(state, Answers(40), [0.0])

    assert said == [True, False]
    assert not state.brake.stopped


def test_a_meter_that_stopped_behind_what_was_allowed_stands_still() -> None:
    state = stopped_at(30)

    said = held(state, Answers(29), [0.0, 599.0])

    assert said == [True, True]
    assert state.brake.stopped


def test_a_worker_that_may_not_ask_what_a_person_said_still_goes_on_after_a_while() -> None:
    state = stopped_at(30)

    said = held(state, Answers(GroupAuthorizationFailedError()), [0.0, 599.0, 605.0])

    assert said == [True, True, True, False]
    assert state.brake.allowed == 40
