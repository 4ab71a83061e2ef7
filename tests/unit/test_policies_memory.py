"""What a policies worker knows: the last word of each source partition, from the changelog and from blocks, in any order."""

from __future__ import annotations

import gc
import tracemalloc

import msgspec
import orjson
import pytest
from policing import Call, feed, policy, policy_set
from support import NOW_S
from tidegate.processors.distributed.blocks import PRICES, WATCHED, Entry, block_headers, encode_block
from tidegate.processors.distributed.changelog import OFFSET
from tidegate.processors.distributed.policies_memory import PoliciesMemory, share_of
from tidegate.processors.enforcement import Enforcement
from tidegate.processors.series import SeriesState, series_of, usage_key
from tidegate.processors.watch import Watch
from tidegate.schemas.signal import decode_signal
from tidegate.schemas.unit_prices import PRICES_KEY, UnitPrices

POLICIES = policy_set(policy(limit=10))
SERIES = series_of(POLICIES.policies)
(ID,) = SERIES
KEY = usage_key((ID, ("harbor-health",)))


def usage(calls: int, tenant: str = "harbor-health") -> bytes:
    """What a meter says of a scope after so many calls."""
    state = SeriesState(SERIES)
    for number in range(calls):
        feed(state, Call(NOW_S, f"call-{number}", fields={"tenant": tenant}))
    ((_, value),) = state.records()
    return value


def memory(partitions: int = 1, number: int = 0, of: int = 1, covered: int = 0) -> PoliciesMemory:
    made = PoliciesMemory(partitions, share_of(number, of), covered)
    made.series = SERIES
    return made


def take(memory: PoliciesMemory, *entries: Entry, source: int = 0, upto: int = 0, offset: int = 0, more: bool = False) -> int:
    """How many scopes were news."""
    headers = block_headers(source, upto) | ({"more": "1"} if more else {})
    return len(memory.take(headers, encode_block(entries), offset))


def stored(offset: int, value: bytes) -> bytes:
    return OFFSET.pack(offset) + value


def test_each_source_partition_has_its_own_word_and_the_last_one_counts() -> None:
    made = memory(2)

    take(made, (KEY, usage(1)), upto=1)
    take(made, (KEY, usage(5)), source=1, upto=9)
    take(made, (KEY, usage(2)), upto=2, offset=1)

    assert (made.usage(0, KEY), made.usage(1, KEY)) == (usage(2), usage(5))
    assert made.marks == [2, 9]
    assert sorted(made.usage_of(b'["' + ID.encode())) == [(0, KEY, usage(2)), (1, KEY, usage(5))]


def test_a_block_below_its_partitions_mark_is_of_a_meter_that_was_given_up() -> None:
    made = memory()
    take(made, (KEY, usage(5)), upto=5)

    news = take(made, (KEY, usage(4)), upto=4, offset=1)

    assert (news, made.usage(0, KEY), made.marks) == (0, usage(5), [5])


def test_blocks_that_the_changelog_covers_change_nothing_but_what_it_does_not_hold() -> None:
    made = memory(covered=10)
    made.remember(0, [(b"s" + KEY, stored(7, usage(5))), (b"@", orjson.dumps({"next_offset": 8}))], {})

    news = take(made, (KEY, usage(4)), (PRICES, b'{"gpt-4o": [1, 2]}'), upto=7, offset=9)

    assert (news, made.usage(0, KEY), made.marks) == (0, usage(5), [7])
    assert made.prices() == {"gpt-4o": (1, 2)}
    assert take(made, (KEY, usage(6)), upto=8, offset=10) == 1


def test_of_a_flush_in_several_blocks_only_the_last_one_has_told_all() -> None:
    made = memory()

    take(made, (KEY, usage(1)), upto=7, more=True)
    partly = list(made.marks)
    take(made, upto=7, offset=1)

    assert (partly, made.marks) == ([6], [7])


def test_of_two_meters_that_wrote_at_once_the_one_that_had_come_further_is_right() -> None:
    made, applied = memory(), {}

    made.remember(0, [(b"s" + KEY, stored(9, usage(5))), (b"s" + KEY, stored(8, usage(4)))], applied)

    assert (made.usage(0, KEY), applied) == (usage(5), {KEY: 9})


def test_a_scope_that_is_taken_back_is_forgotten() -> None:
    made, applied = memory(), {}
    made.remember(0, [(b"s" + KEY, stored(9, usage(5))), (b"s" + KEY, None)], applied)
    take(made, (KEY, usage(1)), upto=10)

    take(made, (KEY, b""), upto=11)

    assert (made.scopes, applied) == ({}, {})


def test_a_share_keeps_its_own_scopes() -> None:
    tenants = [f"tenant-{number}" for number in range(40)]
    keys = {usage_key((ID, (tenant,))): usage(1, tenant) for tenant in tenants}
    shares = [memory(1, number, 2) for number in (0, 1)]

    for made in shares:
        half = list(keys.items())[:20]
        made.remember(0, [(b"s" + key, stored(0, value)) for key, value in half], {})
        take(made, *keys.items(), upto=1)

    first, second = (set(made.scopes) for made in shares)
    assert first | second == set(keys)
    assert not first & second
    assert first
    assert second


def test_the_past_is_counted_when_the_changelog_or_a_block_says_so() -> None:
    made = memory(2)

    made.remember(0, [(b"wnew", msgspec.json.encode(Watch(5, 0))), (b"wold", msgspec.json.encode(Watch(0, 0)))], {})
    before = list(made.watched)
    made.remember(0, [(b"wnew", msgspec.json.encode(Watch(5, 0, 2, 2)))], {})
    take(made, (WATCHED, b'["new"]'), source=1)

    assert before == [{"old"}, set()]
    assert made.watched == [{"old", "new"}, {"new"}]


def test_a_series_that_is_watched_no_more_leaves_nothing_behind() -> None:
    made = memory(2)
    take(made, (KEY, usage(1)), (WATCHED, orjson.dumps([ID])), upto=1)
    take(made, (KEY, usage(1)), (WATCHED, orjson.dumps([ID])), source=1, upto=1)

    take(made, (WATCHED, b"[]"), upto=2, offset=1)

    assert (made.usage(0, KEY), made.usage(1, KEY)) == (None, usage(1))


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ({}, encode_block([])),
        ({"schema": "usage-block/2", "source_partition": "0", "source_offset": "1"}, encode_block([])),
        (block_headers(0, 1), b"\xc1not msgpack"),
        (block_headers(5, 1), encode_block([])),
        (block_headers(-1, 1), encode_block([])),
        (block_headers(0, 1) | {"source_offset": "soon"}, encode_block([])),
    ],
)
def test_a_block_that_cannot_be_read_is_counted_and_tells_no_progress(headers: dict[str, str], value: bytes) -> None:
    made = memory()

    assert made.take(headers, value, 0) == []

    assert (made.refused, made.marks) == (1, [-1])


@pytest.mark.parametrize(
    "entry",
    [(KEY, b"no usage"), (b'["half', usage(1)), (b"[5, 5]", usage(1)), (PRICES, b"[]"), (WATCHED, b"{}")],
    ids=["value", "key", "key of other things", "prices", "watched"],
)
def test_an_entry_that_cannot_be_read_leaves_the_others_as_they_are(entry: Entry) -> None:
    made = memory()
    other = usage_key((ID, ("lakeside",)))

    news = take(made, entry, (other, usage(2, "lakeside")), upto=3)

    assert (news, made.refused, made.marks, set(made.scopes)) == (1, 1, [3], {other})


def test_prices_are_the_dearest_of_all_meters_and_get_cheaper_only_once_all_have_spoken() -> None:
    made = memory(2)
    made.said([(PRICES_KEY, msgspec.json.encode(UnitPrices({"gpt-4o": (9.0, 9.0), "old": (1.0, 1.0)})))])

    take(made, (PRICES, b'{"gpt-4o": [1, 20], "new": [2, 2]}'))
    one = made.prices()
    take(made, (PRICES, b'{"gpt-4o": [5, 5]}'), source=1)

    assert one == {"gpt-4o": (9, 20), "old": (1, 1), "new": (2, 2)}
    assert made.prices() == {"gpt-4o": (5, 20), "new": (2, 2)}


def test_words_are_kept_without_what_only_gates_want_of_them_and_say_the_same_to_who_begins_again() -> None:
    made = memory()
    first = Enforcement(made, 1, NOW_S)
    first.enforce(POLICIES, NOW_S)
    for heard in made.take(block_headers(0, 0), encode_block([(KEY, usage(10))]), 0):
        first.hear(*heard, NOW_S)
    said = first.judge([0], NOW_S)
    assert said is not None
    made.said(said.records)

    again = Enforcement(made, 1, NOW_S + 1)
    again.enforce(POLICIES, NOW_S + 1)
    repeated = again.judge([0], NOW_S + 1)

    (key, value) = next((key, value) for key, value in said.records if key.startswith(b"signal|"))
    assert len(made.words[key]) < len(value)
    assert decode_signal(made.words[key]).state == "block"
    assert repeated is not None
    assert (repeated.signals, repeated.alerts) == (0, [])


def test_a_live_scope_of_four_source_partitions_takes_two_kilobytes_at_most() -> None:
    scopes, partitions, now = 2_000, 4, float(NOW_S)
    state = SeriesState(SERIES)
    for bucket in range(6):
        now = NOW_S + 60.0 * bucket
        for number in range(scopes):
            feed(state, Call(now, f"call-{number}-{bucket}", fields={"tenant": f"tenant-{number}", "user": "ana"}))
    block = encode_block(state.records())

    gc.collect()
    tracemalloc.start()
    try:
        made = memory(partitions)
        enforcement = Enforcement(made, partitions, now)
        enforcement.enforce(POLICIES, now)
        for source in range(partitions):
            for heard in made.take(block_headers(source, 1), block, source):
                enforcement.hear(*heard, now)
        said = enforcement.judge([1] * partitions, now)
        assert said is not None
        told = said.signals
        made.said(said.records)
        enforcement.published(said)
        del said, heard
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert told == scopes
    assert taken / scopes <= 2_048
