"""Who waits for an event hears where it went: once, and never a place it is not at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import tidegate
from memory_log import MemoryLog
from support import envelope, response
from tidegate.producers.emitter import Emitter
from tidegate.producers.http_log import HttpLog
from tidegate.producers.local_log import LocalLog
from tidegate.producers.ports import Position
from tidegate.producers.shipper import Shipper
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.envelope import partition_of
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import CALLS


class Waiting:
    """Hears where its event went."""

    def __init__(self) -> None:
        self.told: list[Position | None] = []

    def placed(self, position: Position | None) -> None:
        self.told.append(position)


def emitter(log: MemoryLog, **settings: Any) -> Emitter:
    return Emitter(log, settings=Settings(linger_s=0, flush_timeout_s=0.2, **settings))


def test_a_data_folder_says_where_each_envelope_is(tmp_path: Path) -> None:
    log = LocalLog(tmp_path, partitions=3)
    producers = ["a", "b", "a", "c"]

    positions = log.append([envelope(name, seq, [response()]) for seq, name in enumerate(producers)])
    log.close()

    assert [place and place.partition for place in positions] == [partition_of(name, 3) for name in producers]
    with SqliteLog(tmp_path) as opened:
        for place, name in zip(positions, producers, strict=True):
            assert place is not None
            (record, *_) = opened.read(CALLS.name, place.partition, place.offset)
            assert record.key == name.encode()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-Tidegate-Partition": "2", "X-Tidegate-Offset": "17"}, Position(2, 17)),
        ({"X-Tidegate-Partition": "2"}, None),
        ({"X-Tidegate-Partition": "2", "X-Tidegate-Offset": "-1"}, None),
        ({}, None),
    ],
)
def test_a_node_may_say_where_an_envelope_is(
    headers: Mapping[str, str], expected: Position | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Answer:
        status = 202

    class Pool:
        def request(self, *_args: object, **_kwargs: object) -> Any:
            answer = Answer()
            answer.headers = headers  # type: ignore[attr-defined]
            return answer

    log = HttpLog("http://node:8400")
    monkeypatch.setattr(log, "_pool", Pool())

    assert log.append([envelope("p", 0, [response()])]) == [expected]


def test_everybody_hears_of_their_own_event() -> None:
    log = MemoryLog()
    waiting = [Waiting() for _ in range(500)]
    with emitter(log) as tide:
        for number, each in enumerate(waiting):
            tide.emit(response(f"call-{number}"), each)
            tide.emit(response(f"other-{number}"))
        assert tide.flush(20)

    for number, each in enumerate(waiting):
        (place,) = each.told
        assert place is not None
        assert f'"call-{number}"'.encode() in log.envelopes[place.offset].value


def test_an_event_that_is_sent_again_is_told_of_once() -> None:
    log = MemoryLog(["away", "lost", "torn"])
    waiting = Waiting()
    with emitter(log) as tide:
        tide.emit(response(), waiting)
        assert tide.flush(20)

    assert waiting.told == [Position(0, len(log.envelopes) - 1)]


@pytest.fixture
def away(tmp_path: Path) -> Iterator[tuple[Emitter, MemoryLog]]:
    log = MemoryLog(then="away")
    tide = emitter(log, spool_dir=tmp_path)
    yield tide, log
    tide.close()


def test_an_event_that_waits_in_the_spool_is_told_of_when_it_is_in_the_log(away: tuple[Emitter, MemoryLog]) -> None:
    tide, log = away
    waiting = Waiting()
    tide.emit(response("call-1"), waiting)
    tide.flush()
    assert tide.stats().spooled == 1
    assert waiting.told == []

    log.then = "ok"
    assert tide.flush(20)

    assert waiting.told == [Position(0, 0)]


def test_an_event_that_is_left_to_the_next_process_is_nowhere_that_this_one_knows(away: tuple[Emitter, MemoryLog]) -> None:
    tide, _ = away
    waiting = Waiting()
    tide.emit(response(), waiting)

    tide.close()

    assert waiting.told == [None]


@pytest.mark.parametrize("event", [{"event": "response"}, {"event": object()}, response(request_model="x" * 70_000)])
def test_an_event_that_nobody_will_count_has_no_place(event: dict[str, Any]) -> None:
    waiting = Waiting()
    with emitter(MemoryLog()) as tide:
        tide.emit(event, waiting)

    assert waiting.told == [None]


def test_a_refused_event_has_no_place() -> None:
    log = MemoryLog(then="refused")
    waiting = Waiting()
    with emitter(log) as tide:
        tide.emit(response(), waiting)
        tide.flush(5)

    assert waiting.told == [None]


def test_an_event_emitted_after_the_end_has_no_place() -> None:
    tide = emitter(MemoryLog())
    tide.close()
    waiting = Waiting()

    assert not tide.emit(response(), waiting)

    assert waiting.told == [None]


def test_a_log_that_says_nothing_is_fine() -> None:
    class Silent(MemoryLog):
        def append(self, envelopes: Any) -> Any:
            super().append(envelopes)

    waiting = Waiting()
    with emitter(Silent()) as tide:
        tide.emit(response(), waiting)
        assert tide.flush(20)

    assert waiting.told == [None]


def test_too_many_who_wait_are_told_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.producers.shipper._MOST_WAITING", 3)
    shipper = Shipper("p", 0)
    waiting = [Waiting() for _ in range(5)]

    for each in waiting:
        shipper.add(b"{}", each)
    shipper.batch(0)
    shipper.appended([Position(0, 9)])

    assert [each.told for each in waiting] == [[None], [None], *[[Position(0, 9)]] * 3]


def test_a_gate_is_made_when_it_is_first_asked_for_and_ends_with_its_emitter(tmp_path: Path) -> None:
    with tidegate.connect(str(tmp_path / "data")) as tide:
        gate = tide.gate

        assert gate is not None
        assert gate is tide.gate
        assert gate.check({"tenant": "a"}).allowed
        assert not (tmp_path / "data").exists()

    with tidegate.connect(str(tmp_path / "data"), gate=False) as tide:
        assert tide.gate is None
