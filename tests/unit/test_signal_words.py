"""What a node on Kafka remembers of the signals topic, and says to gates and people."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from tidegate.processors.distributed.signal_feed import Words
from tidegate.schemas.topics import SIGNALS

ALL = 1 << 30


def signal(policy: str, tenant: str, state: str) -> tuple[bytes, bytes]:
    key = f'signal|{policy}|["{tenant}"]'.encode()
    return key, json.dumps({"policy": policy, "scope": {"tenant": tenant}, "state": state, "spend": 1}).encode()


def in_force(*names: str) -> tuple[bytes, bytes]:
    return b"policies", json.dumps({"version": "abc", "policies": [{"name": name} for name in names]}).encode()


def heard(records: Sequence[tuple[bytes, bytes]], first: int = 0) -> Words:
    words = Words()
    for offset, (key, value) in enumerate(records, first):
        words.hear(offset, key, value)
    return words


def test_who_starts_hears_the_last_word_on_every_key_and_then_only_news() -> None:
    words = heard([(b"a", b"1"), (b"b", b"1"), (b"a", b"2")])

    all_of_it, position = words.behind(-1, ALL)
    words.hear(3, b"b", b"2")
    news, after = words.behind(position, ALL)

    assert all_of_it == [(b"b", b"1"), (b"a", b"2")]
    assert (news, after) == ([(b"b", b"2")], 3)
    assert words.behind(after, ALL) == ([], 3)


@given(
    records=st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b"d"]), st.sampled_from([b"", b"1", b"22"])), max_size=30),
    asks=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 6)), max_size=10),
)
def test_however_often_and_in_what_parts_a_gate_asks_it_knows_the_same(
    records: list[tuple[bytes, bytes]], asks: list[tuple[int, int]]
) -> None:
    words, known, position, spoken = Words(), dict[bytes, bytes](), -1, 0

    def ask(max_bytes: int) -> None:
        nonlocal position
        told, position = words.behind(position, max_bytes)
        known.update(told)

    for at, max_bytes in [*sorted(asks), (len(records), ALL)]:
        for offset in range(spoken, min(at, len(records))):
            words.hear(offset, *records[offset])
        spoken = max(spoken, min(at, len(records)))
        ask(max_bytes)

    assert known == dict(records)
    assert position == len(records) - 1


def test_an_answer_has_a_bound_and_the_next_one_goes_on_from_there() -> None:
    words = heard([(b"%d" % number, b"x" * 10) for number in range(5)])

    first, position = words.behind(-1, 20)
    rest, _ = words.behind(position, ALL)

    assert [key for key, _ in first] == [b"0", b"1"]
    assert [key for key, _ in rest] == [b"2", b"3", b"4"]


def test_a_position_of_another_topic_starts_over() -> None:
    words = heard([(b"a", b"1")])

    assert words.behind(1_000, ALL) == ([(b"a", b"1")], 0)


def test_what_was_taken_back_is_told_for_a_day_and_then_forgotten() -> None:
    now = 0.0
    words = Words(lambda: now)
    words.hear(0, b"gone", b"1")
    words.hear(1, b"gone", b"")
    words.hear(2, b"back", b"")
    words.hear(3, b"back", b"again")

    for_a_day = words.behind(-1, ALL)[0]
    now = SIGNALS.tombstone_s + 1.0
    words.hear(4, b"other", b"1")
    afterwards = words.behind(-1, ALL)[0]

    assert for_a_day == [(b"gone", b""), (b"back", b"again")]
    assert afterwards == [(b"back", b"again"), (b"other", b"1")]


def test_people_see_the_harshest_first_and_only_policies_in_force() -> None:
    words = heard(
        [
            in_force("daily", "hourly"),
            signal("daily", "lakeside", "warn"),
            signal("hourly", "st-anne", "block"),
            signal("daily", "harbor", "block"),
            signal("daily", "harbor", "ok"),
            signal("gone", "harbor", "block"),
            (signal("hourly", "riverside", "block")[0], b""),
            (b'signal|hourly|["odd"]', b"not json"),
        ]
    )

    standing = words.standing()

    assert (standing["version"], standing["in_force"], standing["not_fine"]) == ("abc", 2, 2)
    assert [(entry["policy"], entry["state"]) for entry in standing["worst"]] == [("hourly", "block"), ("daily", "warn")]


def test_a_topic_made_anew_is_forgotten_with_all_it_said() -> None:
    words = heard([in_force("daily"), signal("daily", "lakeside", "block")])

    words.forget()

    assert words.behind(-1, ALL) == ([], -1)
    assert (words.standing()["in_force"], words.standing()["not_fine"]) == (0, 0)
