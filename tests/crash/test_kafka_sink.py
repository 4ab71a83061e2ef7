"""Abort the sink on Kafka after each of its steps, let others go on, and compare with an oracle that only adds.

The records are sent as by a meter that dies now and then and comes back some records earlier. Batches are small, and
single rows of them are spoilt, so that most are searched for what the store refuses.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kafka_broker import needs_broker
from kafka_rows import Meter, Sent, carry_all, ledger, make_topics, oracle, produce, sent_again, sink_settings, spoilt
from tidegate.schemas.topics import METERED
from tidegate.sinks.clickhouse import Store

pytestmark = [pytest.mark.slow, needs_broker]

STEPS = ("1 cut", "2 promise", "3 insert", "3 dead letters", "4 commit")


class Abort(BaseException):
    """The power goes out. Not an Exception: nothing may catch it on the way."""


@dataclass
class Outage:
    """Aborts at the n-th time that a step is reached."""

    step: str
    times: int

    def __call__(self, step: str) -> None:
        if step == self.step:
            self.times -= 1
            if self.times == 0:
                raise Abort(step)


def records() -> list[Sent]:
    """Some envelopes; in every fourth record, one row is spoilt."""
    sent = []
    for number, record in enumerate(Meter(seed=5).envelopes(14)):
        bad = record.topic == METERED and number % 4 == 0
        sent.append(spoilt(record, len(record.rows) // 2) if bad else record)
    return sent


def truth(sent: list[Sent]) -> dict[str, Any]:
    """What must be there when spoilt rows become dead letters, one each."""
    without: list[Sent] = []
    spoilt_rows = 0
    for record in sent:
        good = tuple(row for row in record.rows if isinstance(row, dict) and not isinstance(row.get("input_tokens"), str))
        spoilt_rows += len(record.rows) - len(good)
        without.append(Sent(record.topic, record.partition, good, record.source))
    expected = oracle(without)
    assert spoilt_rows > 2
    return expected | {"dead_letters": expected["dead_letters"] + spoilt_rows}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(path=tmp_path / "store") as store:
        store.migrate()
        yield store


async def one_life(url: str, store: Store, at: Callable[[str], None], batch_rows: int) -> bool:
    """Whether the sink lived until all was in the store."""
    try:
        await carry_all(sink_settings(url, sink_batch_rows=batch_rows), store, at)
    except Abort:
        return False
    return True


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("step", STEPS)
def test_an_outage_after_any_step_neither_loses_nor_doubles_a_row(kafka_url: str, store: Store, step: str, times: int) -> None:
    sent = records()
    survived = second = finished = False

    async def scene() -> None:
        nonlocal survived, second, finished
        await make_topics(kafka_url)
        await produce(kafka_url, sent_again(sent, random.Random(times)))
        # Each life would cut other batches: what was promised must hold all the same.
        survived = await one_life(kafka_url, store, Outage(step, times), 8)
        second = await one_life(kafka_url, store, Outage(step, 1), 5)
        finished = await one_life(kafka_url, store, lambda _step: None, 13)

    asyncio.run(scene())

    assert not survived, f"step {step!r} was not reached {times} times: the test tests nothing"
    assert not second, f"step {step!r} was not reached again"
    assert finished
    assert ledger(store) == truth(sent)
