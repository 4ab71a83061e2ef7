"""The meter's changelog on Kafka: what is read back is what was written, compacted or not, whoever wrote last."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate.processors.aggregate import ScopeSets, UsageState
from tidegate.processors.distributed import changelog
from tidegate.processors.distributed.call_record import CallRecord
from tidegate.processors.distributed.changelog import Change, Memory
from tidegate.processors.meter import MeterState, meter
from tidegate.processors.pricing import PriceBook
from tidegate.processors.series import SeriesState, series_of
from tidegate.processors.watch import Watch
from tidegate.schemas.envelope import Envelope
from tidegate.schemas.policy import PolicySet
from tidegate.schemas.usage import Usage

SETS = ScopeSets((("tenant",), ()))
BOOK = PriceBook.load(None)
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SERIES = series_of(
    PolicySet.model_validate(
        {
            "policies": [
                {
                    "name": "day",
                    "scope": ["tenant"],
                    "measure": "requests",
                    "window": {"rolling": "24h"},
                    "limit": "100",
                    "action": "block",
                }
            ]
        }
    ).policies
)


class Meter:
    """A partition's meter whose flushes are kept in a list, as the topic would."""

    def __init__(self) -> None:
        self.state = MeterState(0, UsageState(SETS), SeriesState(SERIES))
        self.memory = Memory()
        self.state.series = SeriesState(SERIES, self.memory.scopes.get)
        for name in SERIES:
            self.memory.note(name, Watch(0, 0))
        self.topic: list[Change] = []
        self.heard: list[tuple[bytes, bytes]] = []
        self.seq = 0

    def flush(self, *ages_s: int, request: bool = False) -> list[Change]:
        """Calls of so long ago, in one envelope and one flush."""
        lines = [self._event(age_s, request) for age_s in ages_s]
        records = []
        if lines:
            envelope = Envelope.of("service", self.seq, lines)
            self.seq += len(lines)
            at_ms = int(NOW.timestamp() * 1_000)
            records = [CallRecord(self.state.next_offset, at_ms, envelope.value, envelope.headers(), lambda: None)]
        meter(self.state, records, BOOK, 86_400)
        written, self.heard = changelog.changes(self.state, self.memory)
        changelog.flushed(self.state, self.memory)
        self.topic += written
        return written

    def _event(self, age_s: int, request: bool) -> bytes:
        event = {
            "event": "request" if request else "response",
            "call_id": f"call-{age_s}",
            "started_at": (NOW - timedelta(seconds=age_s)).isoformat(),
            "tenant": f"tenant-{age_s % 2}",
            "request_model": "gpt-4o-mini-2024-07-18",
        }
        return orjson.dumps(event | ({} if request else {"input_tokens": 1}))


def restored(topic: list[Change]) -> tuple[MeterState, Memory]:
    return changelog.restore(0, topic, SETS)


def compacted(topic: list[Change]) -> list[Change]:
    """What a broker keeps: the last record of each key, in their order; what was taken back is gone in the end."""
    last = {key: place for place, (key, _) in enumerate(topic)}
    return [(key, value) for place, (key, value) in enumerate(topic) if last[key] == place and value is not None]


def facts(state: MeterState, memory: Memory) -> dict[str, object]:
    return {
        "next_offset": state.next_offset,
        "usage": state.usage.live,
        "watermark": state.usage.watermark_s,
        "totals": state.totals,
        "producers": {name: (seen.next_seq, seen.seen_ms) for name, seen in state.producers.items()},
        "in flight": {name: (one.until_ms, one.held) for name, one in state.series.in_flight.items()},
        "scopes": memory.scopes,
        "watches": memory.watches,
    }


@given(st.lists(st.lists(st.integers(0, 40 * 3_600), max_size=6), max_size=8))
def test_what_is_read_back_is_what_was_written_compacted_or_not(flushes: list[list[int]]) -> None:
    one = Meter()
    for ages_s in flushes:
        one.flush(*ages_s)

    for topic in (one.topic, compacted(one.topic)):
        if topic:
            # A bucket that is no longer live may be read back until the flush that takes it back.
            state, memory = restored(topic)
            left = {changelog.USAGE + key.dump() for key in state.usage.live.keys() - one.state.usage.live.keys()}
            assert left <= set(one.memory.departed)
            state.usage.live = {key: bucket for key, bucket in state.usage.live.items() if key in one.state.usage.live}
            assert facts(state, memory) == facts(one.state, one.memory)


def test_a_call_in_flight_comes_back_and_is_gone_once_it_is_answered() -> None:
    one = Meter()
    one.flush(7, request=True)

    assert list(restored(one.topic)[0].series.in_flight) == ["call-7"]

    one.flush(7)

    assert restored(one.topic)[0].series.in_flight == {}
    assert (changelog.CALLS + b"call-7", None) in one.topic


def test_a_late_event_is_counted_in_a_bucket_of_its_own_beside_the_one_that_has_left_memory() -> None:
    one = Meter()
    one.flush(30 * 3_600)
    one.flush(0)
    one.flush(30 * 3_600)
    one.flush(30 * 3_600, 0)

    found: dict[bytes, Usage] = {}
    newest: dict[bytes, bytes] = {key: value for key, value in one.topic if value is not None}
    for key, value in newest.items():
        if key.startswith(changelog.USAGE + b'["minute"'):
            name = key.split(b"#")[0]
            found.setdefault(name, Usage()).merge(Usage.load(value[changelog.OFFSET.size :]))
    late = [bucket.counts[0] for name, bucket in found.items() if b'["tenant"],["tenant-0"]' in name]
    assert sorted(late) == [2, 3]
    # What is late is taken back with the next flush: it is not part of the live state.
    one.flush()
    assert not any(b"#" in key for key, _ in compacted(one.topic))


def test_the_one_who_was_frozen_writes_last_and_the_newer_value_stands() -> None:
    one = Meter()
    one.flush(0, 1)
    frozen = list(one.topic)
    for age_s in (2, 3, 4):
        one.flush(age_s)

    state, memory = restored([*one.topic, *frozen])

    expected = facts(one.state, one.memory)
    assert facts(state, memory) == expected
    # … and is written anew, so that it is the last one, too.
    written, _ = changelog.changes(state, memory)
    state, memory = restored(compacted([*one.topic, *frozen, *written]))
    assert facts(state, memory) == expected


def test_what_the_policies_may_not_have_heard_is_told_again() -> None:
    one = Meter()
    one.flush(0)
    one.memory.told = one.state.next_offset - 1
    one.flush(2)
    one.flush(1)

    state, memory = restored(one.topic)
    _, heard = changelog.changes(state, memory)

    assert dict(heard) == memory.scopes
    assert [key for key, _ in changelog.changes(state, memory)[1]] == []


def test_a_scope_that_lapses_is_taken_back_and_told_and_one_that_came_back_is_not() -> None:
    one = Meter()
    one.flush(0, 1)
    gone, back = sorted(one.memory.scopes)
    one.memory.lapse(gone)
    one.memory.lapse(back)

    written = one.flush(1)

    assert (changelog.SCOPE + gone, None) in written
    assert (gone, b"") in one.heard
    assert set(restored(one.topic)[1].scopes) == {back}


def test_a_series_that_is_forgotten_leaves_nothing() -> None:
    one = Meter()
    one.flush(0, 1)
    (name,) = SERIES

    one.memory.forget(name)
    one.state.series.watch({})
    one.flush()

    _, memory = restored(one.topic)
    assert (memory.scopes, memory.watches) == ({}, {})


def test_a_series_with_very_many_scopes_is_forgotten_in_parts_by_whoever_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changelog, "_MOST_DEPARTED", 1)
    one = Meter()
    one.flush(0, 1)
    (name,) = SERIES
    scopes = [changelog.SCOPE + key for key in one.memory.scopes]

    one.memory.forget(name)
    one.state.series.watch({})
    parts = [one.flush()]
    state, memory = restored(one.topic)
    while memory.changed:
        parts.append(changelog.changes(state, memory)[0])

    gone = [[key for key, value in part if key in scopes and value is None] for part in parts]
    assert [len(part) for part in gone] == [1] * len(scopes)
    assert sorted(key for part in gone for key in part) == sorted(scopes)
    assert len(scopes) == 2


def test_a_scope_that_comes_back_before_its_turn_to_go_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Meter()
    one.flush(0, 1)
    (name,) = SERIES
    monkeypatch.setattr(changelog, "_MOST_DEPARTED", 0)
    one.memory.forget(name)
    one.state.series.watch({})
    one.flush()
    one.memory.note(name, Watch(1, 0))
    one.state.series.watch(SERIES)
    one.flush(0)
    monkeypatch.undo()
    one.flush(2)

    _, memory = restored(one.topic)
    assert memory.scopes == one.memory.scopes
    assert len(memory.scopes) == 1


def test_a_flush_says_up_to_where_it_has_applied_in_every_counter() -> None:
    one = Meter()
    one.flush(0)
    written = one.flush(1)

    offsets = {
        changelog.OFFSET.unpack_from(value)[0]
        for key, value in written
        if value is not None and key[:1] in (changelog.USAGE, changelog.SCOPE)
    }
    assert offsets == {one.state.next_offset - 1}


@pytest.mark.parametrize("cut", range(1, 4))
def test_restoring_part_of_the_flushes_gives_the_state_as_it_was_then(cut: int) -> None:
    one = Meter()
    topics, states = [], []
    for age_s in range(4):
        one.flush(age_s)
        topics.append(list(one.topic))
        states.append(one.state.next_offset)

    state, _ = restored(topics[cut])

    assert state.next_offset == states[cut]
    assert state.totals["responses"] == cut + 1
