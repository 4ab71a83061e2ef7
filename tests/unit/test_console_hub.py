"""What many viewers look at is asked once, never twice at a time, and not at all when nobody looks."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Any

import orjson
import pytest
from tidegate.processors.embedded.console_hub import Event, Hub, Mailbox, Said, Source, Unwanted, Wanted
from tidegate.schemas.errors import StoreUnavailable

NEVER_AGAIN_S = 3_600.0


class Asking:
    """A source that says what it is told to, and counts."""

    def __init__(self, *answers: Any, pace_s: float = 0.0) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.at_once = 0
        self.most_at_once = 0
        self.pace_s = pace_s

    async def ask(self, _wanted: Wanted) -> Said:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if isinstance(answer, BaseException):
            raise answer
        return Said("panel", {"key": "cost", "rows": answer}, {"as_of": self.asked})

    def source(self) -> Source:
        return Source("cost", "cost", self.ask, self.pace_s)


async def heard(mailbox: Mailbox, count: int) -> list[Event]:
    events: list[Event] = []
    async with asyncio.timeout(20):
        while len(events) < count:
            events += await mailbox.news(1.0)
    return events


def test_a_question_of_many_viewers_is_asked_once_and_everybody_hears_the_answer() -> None:
    async def run() -> None:
        hub, asking = Hub(), Asking([1], pace_s=NEVER_AGAIN_S)
        with ExitStack() as viewers:
            mailboxes = [viewers.enter_context(hub.viewing([asking.source()])) for _ in range(20)]
            answers = [await heard(mailbox, 1) for mailbox in mailboxes]
            late = viewers.enter_context(hub.viewing([asking.source()]))
            answers.append(await heard(late, 1))

        assert asking.asked == 1
        assert {event.data for [event] in answers} == {orjson.dumps({"key": "cost", "rows": [1], "as_of": 1})}

    asyncio.run(run())


def test_an_answer_that_has_not_changed_is_not_told_again() -> None:
    async def run() -> None:
        asking = Asking([1], [1], [1], [2])
        with Hub().viewing([asking.source()]) as mailbox:
            events = await heard(mailbox, 2)

        told = [orjson.loads(event.data) for event in events]
        assert [one["rows"] for one in told] == [[1], [2]]
        assert told[1]["as_of"] >= 4

    asyncio.run(run())


def test_what_cannot_be_answered_is_a_problem_until_it_can() -> None:
    async def run() -> None:
        away = StoreUnavailable("the store is away")
        asking = Asking([1], away, away, [1])
        with Hub().viewing([asking.source()]) as mailbox:
            events = await heard(mailbox, 3)

        assert [event.name for event in events] == ["panel", "problem", "panel"]
        assert orjson.loads(events[1].data) == {"key": "cost", "error": "the store is away"}

    asyncio.run(run())


def test_a_source_is_asked_by_one_at_a_time_and_by_nobody_when_nobody_looks() -> None:
    async def run() -> None:
        hub, asking = Hub(), Asking(*([n] for n in range(1_000_000)))
        for _ in range(50):
            with hub.viewing([asking.source()]) as mailbox:
                await heard(mailbox, 1)
        for _ in range(100):
            await asyncio.sleep(0)
        asked = asking.asked
        for _ in range(100):
            await asyncio.sleep(0)

        assert asking.most_at_once == 1
        assert asking.asked == asked
        assert hub.looked_at == 0

    asyncio.run(run())


def test_a_question_that_waits_for_its_turn_is_not_asked_once_the_last_viewer_has_left() -> None:
    async def run() -> None:
        hub, turn, asked = Hub(), asyncio.Event(), []

        async def ask(wanted: Wanted) -> Said:
            await turn.wait()
            if not wanted():
                raise Unwanted
            asked.append(1)
            return Said("panel", {})

        source = Source("cost", "cost", ask, NEVER_AGAIN_S)
        with hub.viewing([source]):
            await asyncio.sleep(0)
        turn.set()
        for _ in range(10):
            await asyncio.sleep(0)
        assert asked == []
        with hub.viewing([source]) as mailbox:
            await heard(mailbox, 1)
        assert asked == [1]

    asyncio.run(run())


def test_a_slow_viewer_gets_the_newest_and_never_more_than_one_of_a_source() -> None:
    async def run() -> None:
        asking = Asking(*([n] for n in range(1_000)))
        with Hub().viewing([asking.source()]) as mailbox:
            while asking.asked < 100:
                await asyncio.sleep(0)
            events = await mailbox.news(1.0)

        assert len(events) == 1
        assert orjson.loads(events[0].data)["rows"][0] >= 98

    asyncio.run(run())


def test_what_nobody_foresaw_ends_the_streams_and_whoever_comes_again_asks_anew() -> None:
    async def run() -> None:
        hub, asking = Hub(), Asking(ZeroDivisionError("a fault"), [1])
        with hub.viewing([asking.source()]) as mailbox, pytest.raises(ZeroDivisionError):
            await heard(mailbox, 1)
        with hub.viewing([asking.source()]) as mailbox:
            [event] = await heard(mailbox, 1)

        assert event.name == "panel"

    asyncio.run(run())


def test_what_took_long_is_asked_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def run() -> None:
        slept = asyncio.sleep

        async def sleep(pause_s: float) -> None:
            pauses.append(pause_s)
            await slept(0)

        monkeypatch.setattr("tidegate.processors.embedded.console_hub.asyncio.sleep", sleep)
        costs = iter((0.001, 0.5))

        async def ask(_wanted: Wanted) -> Said:
            return Said("panel", {"n": len(pauses)}, cost_s=next(costs, 0.0))

        with Hub().viewing([Source("cost", "cost", ask, 2.0)]) as mailbox:
            await heard(mailbox, 1)
            while len(pauses) < 3:
                await slept(0)

    asyncio.run(run())

    assert pauses[:3] == [2.0, 9.5, 2.0]
