"""The brake stops a meter that refuses most of what it hears, and nobody's calls wait behind one bad producer for ever."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from support import NOW_MS, LogRecord, envelope, response, scored
from tidegate.processors.aggregate import ScopeSets, UsageState
from tidegate.processors.brake import Brake
from tidegate.processors.embedded.engine import MeterEngine
from tidegate.processors.embedded.letters import FolderLetters
from tidegate.processors.meter import KEYED, MeterOutputs, MeterState, meter
from tidegate.processors.pricing import PriceBook
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.envelope import Envelope
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import ALERTS, CALLS, DEAD_LETTERS, METERED

BOOK = PriceBook.load()
BAD = b'{"event": "response", "what": "a field of the next version"}'
LEAST = 20


def new_state(ratio: float = 0.5) -> MeterState:
    return MeterState(0, UsageState(ScopeSets(((),))), brake=Brake(ratio, LEAST))


def run(state: MeterState, envelopes: Sequence[Envelope], every_ms: int = 100) -> MeterOutputs:
    records = [LogRecord.of(offset, one, NOW_MS + offset * every_ms) for offset, one in enumerate(envelopes)]
    return meter(state, records, BOOK, 86_400.0)[1]


def traffic(bad: Sequence[str], good: Sequence[str], rounds: int) -> list[Envelope]:
    """Five lines of each producer in turn."""
    return [
        envelope(name, number * 5, [BAD if name in bad else response(f"{name}-{number}-{line}") for line in range(5)])
        for number in range(rounds)
        for name in (*bad, *good)
    ]


def test_a_meter_that_refuses_most_lines_of_most_producers_stops_behind_the_record_that_was_one_too_many() -> None:
    state, sent = new_state(), traffic(bad=["a", "b"], good=["c"], rounds=50)

    outputs = run(state, sent)

    assert state.brake.stopped
    # Four bad envelopes of five lines, and one good one.
    assert state.next_offset == 5
    assert (state.totals["dead_letters"], state.totals["responses"]) == (20, 5)
    assert len(outputs.refused) == 20


def test_what_waited_behind_a_stopped_meter_is_applied_once_it_goes_on_and_all_counts_once() -> None:
    state, sent = new_state(), traffic(bad=["a", "b"], good=["c"], rounds=10)
    records = [LogRecord.of(offset, one) for offset, one in enumerate(sent)]

    meter(state, records, BOOK, 86_400.0)
    again = meter(state, records, BOOK, 86_400.0)[1]
    state.brake.allow(len(records))
    meter(state, records, BOOK, 86_400.0)

    assert again.events == 0
    assert state.next_offset == len(records)
    assert (state.totals["dead_letters"], state.totals["responses"], state.totals.get("duplicates", 0)) == (100, 50, 0)


def test_one_producer_of_nonsense_however_loud_holds_up_nobody() -> None:
    state = new_state()

    run(state, traffic(bad=[], good=["quiet"], rounds=1) + traffic(bad=["loud"], good=[], rounds=60))

    assert state.totals["dead_letters"] == 300
    assert not state.brake.stopped


def test_verdicts_on_the_content_of_bad_producers_make_them_no_better() -> None:
    state, sent = new_state(), traffic(bad=["a", "b"], good=[], rounds=20)
    verdicts = [
        envelope(f"{prefix}guardrails:{name}", number * 5, [scored(f"{name}-{number}-{line}") for line in range(5)])
        for number in range(20)
        for name in ("a", "b")
        for prefix in ("", KEYED)
    ]

    run(state, [one for three in zip(sent, verdicts[::2], verdicts[1::2], strict=True) for one in three])

    assert state.brake.stopped
    assert state.totals["dead_letters"] == LEAST


def test_requests_under_keys_of_their_own_are_one_producer() -> None:
    state = new_state()

    keyed = traffic(bad=[f"{KEYED}{number}" for number in range(30)], good=[], rounds=1)
    run(state, traffic(bad=[], good=["quiet"], rounds=1) + keyed)

    assert state.totals["dead_letters"] == 150
    assert not state.brake.stopped


def test_a_few_bad_lines_stop_nothing_and_neither_do_many_over_a_long_time() -> None:
    few, slow = new_state(), new_state()

    run(few, traffic(bad=["a"], good=[], rounds=3))
    run(slow, traffic(bad=["a"], good=[], rounds=30), every_ms=20_000)

    assert few.totals["dead_letters"] == 15
    assert slow.totals["dead_letters"] == 150
    assert not few.brake.stopped
    assert not slow.brake.stopped


def test_what_a_producer_sends_in_a_second_is_remembered_as_one_sum() -> None:
    brake = Brake(0.5, LEAST)

    for number in range(100_000):
        brake.count(number, NOW_MS + number, f"service-{number % 3}", 1, 0)

    assert sum(len(of) for _, of in brake._heard) <= 3 * 61
    assert brake.lines <= 60_000
    assert sum(lines for lines, _ in brake._of.values()) == brake.lines


def test_a_ratio_of_one_lets_everything_become_dead_letters() -> None:
    state = new_state(ratio=1.0)

    run(state, traffic(bad=["a"], good=[], rounds=100))

    assert state.totals["dead_letters"] == 500
    assert not state.brake.stopped


def test_lines_that_an_edge_has_refused_are_its_senders_affair() -> None:
    said = {"event": "rejected", "rejected_at": "2026-11-02T08:00:00Z", "source": "http", "line": 1, "size_bytes": 3}
    line = orjson.dumps(said | {"sha256": "ab" * 32, "reason": "not valid JSON"})
    state = new_state()

    run(state, [envelope("node-1", number * 10, [line] * 10) for number in range(20)])

    assert state.totals["rejected"] == 200
    assert not state.brake.stopped


class Clock:
    def __init__(self) -> None:
        self.ms = NOW_MS

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


def send(data: Path, envelopes: Sequence[Envelope], clock: Clock) -> None:
    with SqliteLog(data, fsync="normal", clock_ms=clock) as log, log.transaction():
        log.append(CALLS.name, 0, [(one.producer.encode(), one.headers(), one.value) for one in envelopes])


def rows(log: SqliteLog, topic: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for record in log.read(topic, 0, 0) for line in record.value.split(b"\n")]


def quick(**more: Any) -> Settings:
    return Settings(fsync="normal", brake_lines=LEAST, **more)


def resumed(data: Path) -> int:
    """Lets the meters go on. Returns how many records waited."""
    letters = FolderLetters(data)
    try:
        return letters.resume()
    finally:
        letters.close()


def drained(engine: MeterEngine) -> int:
    rounds = 0
    while engine.run_once():
        rounds += 1
    return rounds


def test_a_stopped_node_tells_a_person_once_keeps_what_waits_and_goes_on_when_told_to(tmp_path: Path, clock: Clock) -> None:
    engine = MeterEngine(tmp_path, quick(), clock_ms=clock)
    send(tmp_path, traffic(bad=["a", "b"], good=["c"], rounds=10), clock)

    drained(engine)
    stopped, lag, alerts = engine.stopped(), engine.lag(), rows(engine.log, ALERTS.name)
    engine.run_once()
    waiting = resumed(tmp_path)
    drained(engine)

    assert (stopped, engine.stopped()) == ([0], [])
    assert (lag, waiting, engine.lag()) == (25, 25, 0)
    told = [(alert["key"], alert["severity"]) for alert in rows(engine.log, ALERTS.name)]
    assert told == [("meter|brake|0", "critical"), ("meter|brake|0", "info")]
    assert "tidegate dlq resume" in alerts[0]["title"]
    assert (len(rows(engine.log, METERED.name)), len(rows(engine.log, DEAD_LETTERS.name))) == (50, 100)
    engine.close()


def test_a_node_that_was_rolled_back_takes_what_waited_and_has_lost_no_line(tmp_path: Path, clock: Clock) -> None:
    broken = MeterEngine(tmp_path, quick(max_future_s=0.0), clock_ms=clock)
    ahead = [
        envelope(name, 0, [response(f"{name}-{n}", started_at="2026-11-02T08:30:00Z") for n in range(15)]) for name in "ab"
    ]
    later = [envelope(name, 0, [response(f"{name}-{n}") for n in range(15)]) for name in "cd"]
    send(tmp_path, [*ahead, *later], clock)

    drained(broken)
    waited = broken.lag()
    broken.close()
    mended = MeterEngine(tmp_path, quick(), clock_ms=clock)
    drained(mended)

    assert waited == 2
    assert mended.lag() == 0
    assert mended.totals()["responses"] == 30
    assert mended.totals()["dead_letters"] == 30
    mended.close()


def test_a_residency_map_that_was_mended_in_its_place_judges_what_waited_anew(tmp_path: Path, clock: Clock) -> None:
    file, data = tmp_path / "residency.toml", tmp_path / "data"
    settings = quick(region="us", residency_file=file)
    of_eu = [envelope(name, 0, [response(f"{name}-{n}", region="eu") for n in range(15)]) for name in "ab"]
    later = [envelope(name, 0, [response(f"{name}-{n}", region="us") for n in range(15)]) for name in "cd"]
    file.write_text('regions = ["us", "eu"]')
    broken = MeterEngine(data, settings, clock_ms=clock)
    send(data, [*of_eu, *later], clock)

    drained(broken)
    broken.close()
    same = MeterEngine(data, settings, clock_ms=clock)
    drained(same)
    waited = same.lag()
    same.close()
    file.write_text('regions = ["us", "eu"]\ndefault = ["us", "eu"]')
    mended = MeterEngine(data, settings, clock_ms=clock)
    drained(mended)

    assert waited == 2
    assert mended.lag() == 0
    assert mended.totals()["responses"] == 30
    mended.close()


def test_a_restart_knows_since_when_the_meter_stands_and_why_and_tells_nobody_twice(tmp_path: Path, clock: Clock) -> None:
    first = MeterEngine(tmp_path, quick(brake_hold_s=600), clock_ms=clock)
    send(tmp_path, traffic(bad=["a", "b"], good=[], rounds=10), clock)
    drained(first)
    before = (first.states[0].brake.lines, first.states[0].brake.refused)
    first.close()

    clock.ms += 400_000
    again = MeterEngine(tmp_path, quick(brake_hold_s=600), clock_ms=clock)
    stopped, applied = again.stopped(), again.run_once()
    known = (again.states[0].brake.lines, again.states[0].brake.refused)
    alerts = rows(again.log, ALERTS.name)
    # The ten minutes are counted from when it stopped, however often it is started.
    clock.ms += 200_000
    drained(again)
    again.close()
    after = MeterEngine(tmp_path, quick(brake_hold_s=600), clock_ms=clock)

    assert (stopped, applied, len(alerts)) == ([0], 0, 1)
    assert known == before == (LEAST, LEAST)
    assert after.lag() == 0
    assert after.stopped() == []
    after.close()


def test_while_the_meter_stands_it_is_told_each_hour_also_over_a_restart_and_once_that_it_goes_on(
    tmp_path: Path, clock: Clock
) -> None:
    settings = quick(brake_hold_s=4 * 3_600)
    engine = MeterEngine(tmp_path, settings, clock_ms=clock)
    send(tmp_path, traffic(bad=["a", "b"], good=[], rounds=10), clock)
    begun = clock.ms

    for quarter in range(20):
        clock.ms = begun + quarter * 900_000
        drained(engine)
        if quarter == 6:
            engine.close()
            engine = MeterEngine(tmp_path, settings, clock_ms=clock)

    told = [(alert["severity"], alert["at"]) for alert in rows(engine.log, ALERTS.name)]
    assert [severity for severity, _ in told] == ["critical"] * 4 + ["info"]
    hours = [(datetime.fromisoformat(at).timestamp() * 1_000 - begun) / 3_600_000 for _, at in told]
    assert hours == pytest.approx([0, 1, 2, 3, 4])
    engine.close()


def test_a_person_lets_a_node_go_on_that_is_not_running(tmp_path: Path, clock: Clock) -> None:
    first = MeterEngine(tmp_path, quick(), clock_ms=clock)
    send(tmp_path, traffic(bad=["a", "b"], good=["c"], rounds=10), clock)
    drained(first)
    first.close()

    resumed(tmp_path)
    again = MeterEngine(tmp_path, quick(), clock_ms=clock)
    drained(again)

    assert (again.stopped(), again.lag()) == ([], 0)
    assert again.totals()["responses"] == 50
    again.close()


def test_a_node_that_nobody_looks_after_goes_on_by_itself(tmp_path: Path, clock: Clock) -> None:
    engine = MeterEngine(tmp_path, quick(brake_hold_s=600), clock_ms=clock)
    send(tmp_path, traffic(bad=["a", "b"], good=[], rounds=10), clock)

    drained(engine)
    engine.run_once()
    clock.ms += 599_000
    still = engine.run_once()
    clock.ms += 1_000
    drained(engine)

    assert still == 0
    assert engine.lag() == 0
    engine.close()


def test_a_meter_that_stopped_at_the_last_record_goes_on_by_command_too(tmp_path: Path, clock: Clock) -> None:
    engine = MeterEngine(tmp_path, quick(), clock_ms=clock)
    send(tmp_path, traffic(bad=["a", "b"], good=[], rounds=2), clock)

    drained(engine)
    lag = engine.lag()
    resumed(tmp_path)
    engine.run_once()
    send(tmp_path, traffic(bad=[], good=["c"], rounds=1), clock)
    drained(engine)

    assert lag == 0
    assert engine.stopped() == []
    assert engine.totals()["responses"] == 5
    engine.close()


def test_a_second_stop_in_the_flush_that_went_on_is_told_and_held_as_the_first(tmp_path: Path, clock: Clock) -> None:
    engine = MeterEngine(tmp_path, quick(brake_hold_s=600), clock_ms=clock)
    send(tmp_path, traffic(bad=["a", "b"], good=[], rounds=5), clock)

    drained(engine)
    engine.run_once()
    clock.ms += 500_000
    resumed(tmp_path)
    send(tmp_path, traffic(bad=["c", "d"], good=[], rounds=5), clock)
    drained(engine)
    clock.ms += 200_000
    engine.run_once()

    assert engine.stopped() == [0]
    assert [alert["kind"] for alert in rows(engine.log, ALERTS.name)] == ["meter_stopped", "meter_stopped"]
    engine.close()
