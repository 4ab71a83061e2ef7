"""Abort the sink on Kafka after each of its steps, let others go on, and compare with an oracle that only adds.

The records are sent as by a meter that dies now and then and comes back some records earlier. Batches are small, and
single rows of them are spoilt, so that most are searched for what the store refuses.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from kafka_broker import needs_broker
from kafka_rows import (
    START,
    Meter,
    Sent,
    carry_all,
    ledger,
    make_topics,
    oracle,
    produce,
    sent_again,
    sink_settings,
    spoilt,
)
from tidegate.schemas.topics import ALERTS, METERED
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
    """Some envelopes; in every third record of priced rows, one row is spoilt."""
    sent = []
    numbers = count()
    for record in Meter(seed=5).envelopes(14):
        bad = record.topic == METERED and next(numbers) % 3 == 0
        sent.append(spoilt(record, len(record.rows) // 2) if bad else record)
    # Alerts have no source to be known by: only the promise keeps them from going in twice.
    return sent + [Sent(ALERTS, 0, ({"at": START.isoformat(), "key": f"alert {number}"},), None) for number in range(30)]


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


KILLS = 3  # each waits ten seconds for the broker to believe it
# One sink in a process of its own, with the store's folder; it says when it has begun to write, and lives until killed.
SINK = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from kafka_rows import running, sink_settings
from tidegate.sinks.clickhouse import Store

async def main():
    with Store.open(path=Path(sys.argv[3])) as store:
        async with running(sink_settings(sys.argv[2], sink_batch_rows=int(sys.argv[4])), store) as run:
            await run.until(lambda: run.sink.batches > 0, within_s=100)
            print("writing", flush=True)
            await run.task

asyncio.run(main())
"""


def test_kill_9_at_random_moments_neither_loses_nor_doubles_a_row(kafka_url: str, tmp_path: Path) -> None:
    moments = random.Random(20261122)
    meter = Meter(seed=9)
    sent: list[Sent] = []
    folder = tmp_path / "store"
    with Store.open(path=folder) as store:
        store.migrate()
    asyncio.run(make_topics(kafka_url))

    for batch_rows in (7, 5, 9)[:KILLS]:
        part = meter.envelopes(150)
        sent += part
        asyncio.run(produce(kafka_url, sent_again(part, moments)))
        command = [sys.executable, "-c", SINK, str(Path(__file__).parents[1]), kafka_url, str(folder), str(batch_rows)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            assert process.stdout is not None
            said = b""
            while said != b"writing\n":  # its log comes there too
                said = process.stdout.readline()
                assert said, "the sink ended by itself"
            time.sleep(moments.uniform(0.0, 1.5))  # a random moment is what is tested
            assert process.poll() is None
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()

    with Store.open(path=folder) as store:
        written = store.query("SELECT count() FROM calls").rows[0][0]
        assert 0 < written < oracle(sent)["distinct"], "all was written before the last kill: the test tests little"
        asyncio.run(carry_all(sink_settings(kafka_url, sink_batch_rows=500), store))
        assert ledger(store) == oracle(sent)
