"""Abort the meter and the policies engine after each of their steps, resume, and compare with plain sums.

Every scope's last signal must be the truth, and every change of state must have been alerted exactly once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from policing import Call, policy, policy_set, scope_of, truth
from support import NOW_S, envelope, request, response
from tidegate.processors.embedded.engine import MeterEngine
from tidegate.processors.embedded.policies_engine import PoliciesEngine
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.policy import PolicySet
from tidegate.schemas.settings import Settings
from tidegate.schemas.signal import GATES_KEY, Signal, decode_gates, decode_signal
from tidegate.schemas.topics import ALERTS, CALLS, SIGNAL_ROWS, SIGNALS

STEPS = ("1 read", "2 step", "3 append", "4 store", "5 commit", "1 judged", "2 signalled", "3 committed")
# A thousand tokens in and a hundred out of gpt-4o.
COST = 3_500_000
POLICIES = policy_set(
    policy("rate", window={"rolling": "1m"}, limit=6),
    policy("spend", scope=(), measure="cost_usd", limit="0.2", window={"rolling": "10m"}, warn_at=[0.25]),
    policy("daily", scope=("tenant", "user"), measure="output_tokens", limit=700, window={"calendar": "day"}),
)
PARTITIONS = 2


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


@dataclass
class Clock:
    now: float = float(NOW_S)

    def __call__(self) -> float:
        return self.now

    def ms(self) -> int:
        return int(self.now * 1_000)


def rounds() -> list[tuple[float, int, list[Call]]]:
    """Calls as they come: when, to which partition; the middle of it is busy, then there is silence and a little more."""
    found = []
    for number in range(16):
        at = NOW_S + 15.0 * number + (900.0 if number > 12 else 0.0)
        calls = []
        for place in range(1 + (number * 5 % 4 if number < 12 else 0)):
            fields = {"tenant": f"tenant-{(number + place) % 2}", "user": [None, "ana"][place % 2]}
            name = f"call-{number}-{place}"
            if place == 2:
                estimate = {"estimated_input_tokens": 1_000, "estimated_output_tokens": 100}
                calls.append(Call(at, name, "request", cost=COST, fields={**fields, **estimate}))
            calls.append(Call(at, name, cost=COST, fields=fields))
        if number == 3:
            calls.append(Call(at, "never-ends", "request", cost=COST, fields={"tenant": "tenant-0"}))
        found.append((at, number % PARTITIONS, calls))
    return found


def append(log: SqliteLog, clock: Clock, at: float, partition: int, seq: int, calls: list[Call]) -> int:
    """Append a round twice, as a producer does that was not answered. Returns the next number."""
    clock.now = at
    started_at = datetime.fromtimestamp(at, UTC).isoformat()
    events: list[Any] = []
    for call in calls:
        make = response if call.kind == "response" else request
        events.append(make(call.call_id, **{"provider_name": "openai", "started_at": started_at} | call.fields))
    sent = envelope(f"producer-{partition}", seq, events)
    with log.transaction():
        log.append(CALLS.name, partition, [(None, sent.headers(), sent.value)] * 2)
    return seq + len(events)


def live(folder: Path, clock: Clock, at: Callable[[str], None], policies: PolicySet = POLICIES) -> bool:
    """One life of the node: carry what is in the log through both engines. Whether it lived to the end."""
    try:
        meter = MeterEngine(folder, Settings(fsync="normal"), policies=policies, at=at, clock_ms=clock.ms)
    except Abort:
        return False
    try:
        engine = PoliciesEngine(meter.log, policies, meter.counted, clock=clock, at=at)
        while meter.run_once():
            pass
        engine.run_once()
        clock.now += 0.25
        engine.run_once()
    except Abort:
        return False
    finally:
        meter.close()
    return True


def in_force(folder: Path) -> dict[bytes, Signal]:
    with SqliteLog(folder, fsync="normal") as log:
        return {r.key or b"": decode_signal(r.value) for r in log.keyed(SIGNALS.name, 0, b"signal|") if r.value}


def alerted(folder: Path) -> Counter[tuple[str, str, str, str]]:
    with SqliteLog(folder, fsync="normal") as log:
        rows = [orjson.loads(row) for record in log.read(ALERTS.name, 0, 0) for row in record.value.split(b"\n")]
    return Counter((row["policy"], str(row["scope"]), row["previous_state"], row["state"]) for row in rows)


def kept(folder: Path) -> Counter[tuple[str, str, str, str]]:
    """The changes of state among the words that go to the store."""
    with SqliteLog(folder, fsync="normal") as log:
        rows = [orjson.loads(row) for record in log.read(SIGNAL_ROWS.name, 0, 0) for row in record.value.split(b"\n")]
    found: Counter[tuple[str, str, str, str]] = Counter()
    last: dict[tuple[str, str], str] = {}
    for row in rows:
        key = row["policy"], str(row["scope"])
        before = last.get(key, "ok")
        if row["state"] != before:
            found[*key, before, row["state"]] += 1
        last[key] = row["state"]
    return found


def expected_alerts() -> Counter[tuple[str, str, str, str]]:
    """Every change of the plain sums' verdict, as seen at each round and a quarter of a second after it."""
    everything = [call for _, _, calls in rounds() for call in calls]
    found: Counter[tuple[str, str, str, str]] = Counter()
    for each in POLICIES.policies:
        for values in {values for call in everything if (values := scope_of(each, call)) is not None}:
            scope = str({name: value or "" for name, value in zip(each.scope, values, strict=True)})
            state = "ok"
            for at in [moment for came, _, _ in rounds() for moment in (came, came + 0.25)]:
                now = truth(each, everything, values, at).state
                if now != state:
                    found[each.name, scope, state, now] += 1
                    state = now
    return found


@pytest.mark.parametrize("times", [1, 4, 9])
@pytest.mark.parametrize("step", STEPS)
def test_an_outage_after_any_step_changes_no_last_word_and_no_alert(tmp_path: Path, step: str, times: int) -> None:
    log = SqliteLog(tmp_path, partitions=PARTITIONS, fsync="normal", clock_ms=(clock := Clock()).ms)
    outage, lives, seqs = Outage(step, times), [], [0] * PARTITIONS
    for at, partition, calls in rounds():
        seqs[partition] = append(log, clock, at, partition, seqs[partition], calls)
        lives.append(live(tmp_path, clock, outage))
        if not lives[-1]:
            clock.now = at
            lives.append(live(tmp_path, clock, lambda _step: None))
    log.close()

    assert lives.count(False) == 1, f"step {step!r} was not reached {times} times: the test tests nothing"
    everything = [call for _, _, calls in rounds() for call in calls]
    signals = in_force(tmp_path)
    for each in POLICIES.policies:
        for values in {values for call in everything if (values := scope_of(each, call)) is not None}:
            signal = next(s for s in signals.values() if s.policy == each.name and tuple(s.scope.values()) == values)
            assert signal.state == truth(each, everything, values, clock.now).state
            then = truth(each, everything, values, signal.at)
            assert (signal.state, signal.spend, signal.reserved) == (then.state, then.spend, then.reserved)
    assert alerted(tmp_path) == expected_alerts()
    assert kept(tmp_path) == expected_alerts()
    assert len(alerted(tmp_path)) > 6
    with SqliteLog(tmp_path, fsync="normal") as opened:
        beat = opened.last(SIGNALS.name, 0, GATES_KEY)
        assert beat is not None
        assert decode_gates(beat.value).applied == [opened.end_offset(CALLS.name, p) - 1 for p in range(PARTITIONS)]


def test_an_edit_while_the_node_was_down_is_taken_up_as_an_edit(tmp_path: Path) -> None:
    clock, (at, partition, _) = Clock(), rounds()[0]
    calls = [Call(at, f"call-{n}", fields={"tenant": "tenant-0"}) for n in range(7)]
    with SqliteLog(tmp_path, fsync="normal", clock_ms=clock.ms) as log:
        append(log, clock, at, partition, 0, calls)
    live(tmp_path, clock, lambda _step: None)
    before = in_force(tmp_path)

    edited = policy_set(policy("rate", window={"rolling": "1m"}, limit=70), policy("new", limit=5), version="2")
    live(tmp_path, clock, lambda _step: None, edited)

    assert {signal.policy: signal.state for signal in before.values()}["rate"] == "block"
    after = {signal.policy: (signal.state, signal.limit) for signal in in_force(tmp_path).values()}
    assert after["rate"] == ("ok", 70)
    assert set(after) <= {"rate", "new"}
    assert [change for change in alerted(tmp_path) if change[0] == "rate"][-1][2:] == ("block", "ok")


def test_trouble_that_was_told_outlives_a_publish_that_failed(tmp_path: Path) -> None:
    clock = Clock()
    meter = MeterEngine(tmp_path, Settings(fsync="normal"), policies=POLICIES, clock_ms=clock.ms)
    engine = PoliciesEngine(meter.log, POLICIES, meter.counted, clock=clock, at=Outage("2 signalled", 1))

    engine.stands("policy_file", "the policy file was not taken")
    with pytest.raises(Abort):
        engine.run_once()
    engine.run_once()
    engine.run_once()
    meter.close()

    assert list(alerted(tmp_path).values()) == [1]


def test_trouble_that_was_told_is_over_once_for_those_who_begin_again(tmp_path: Path) -> None:
    clock = Clock()
    meter = MeterEngine(tmp_path, Settings(fsync="normal"), policies=POLICIES, clock_ms=clock.ms)

    for problem in ("the policy file was not taken", None, None):
        engine = PoliciesEngine(meter.log, POLICIES, meter.counted, clock=clock)
        engine.stands("policy_file", problem)
        engine.run_once()
    rows = [orjson.loads(row) for record in meter.log.read(ALERTS.name, 0, 0) for row in record.value.split(b"\n")]
    meter.close()

    assert [(row["key"], row["severity"]) for row in rows] == [("policy_file", "warning"), ("policy_file", "info")]
