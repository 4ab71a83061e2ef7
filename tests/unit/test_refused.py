"""Finding the rows that the store refuses, and what is written down instead of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate.processors.refused import dead_letter, refused_lines

NOON = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)


class PickyStore:
    """Takes lines all or none, and none that say "bad"; a token it knows changes nothing."""

    def __init__(self) -> None:
        self.taken: dict[str, list[bytes]] = {}

    def takes(self, lines: Sequence[bytes], token: str) -> bool:
        if any(line.startswith(b"bad") for line in lines):
            return False
        self.taken.setdefault(token, list(lines))
        return True

    @property
    def rows(self) -> list[bytes]:
        return sorted(line for lines in self.taken.values() for line in lines)


@given(st.lists(st.booleans(), min_size=1, max_size=40).filter(any))
def test_exactly_the_bad_rows_are_found_and_all_others_go_in_once(bad: list[bool]) -> None:
    lines = [b"%b %d" % (b"bad" if is_bad else b"good", number) for number, is_bad in enumerate(bad)]
    store = PickyStore()

    found = refused_lines(store.takes, lines, "t")
    again = refused_lines(store.takes, lines, "t")

    assert found == again == [number for number, is_bad in enumerate(bad) if is_bad]
    assert store.rows == sorted(line for line in lines if line.startswith(b"good"))


def test_no_half_goes_under_the_name_of_the_whole() -> None:
    store = PickyStore()

    refused_lines(store.takes, [b"good 1", b"good 2", b"bad"], "t:0:1-3")

    assert sorted(store.taken) == ["t:0:1-3.a", "t:0:1-3.b.a"]


def test_a_dead_letter_names_the_source_and_none_of_the_content() -> None:
    line = orjson.dumps(
        {"tenant": "Rosa Martinez", "producer": "p", "seq": 7, "source_partition": 3, "source_offset": 2**60, "nonsense": 1}
    )

    row = orjson.loads(dead_letter(line, "tidegate.metered", 3, 11, NOON))

    assert (row["producer"], row["seq"], row["source_partition"], row["source_offset"]) == ("p", 7, 3, 2**60)
    assert (row["stage"], row["source"], row["size_bytes"]) == ("sink", "tidegate.metered", len(line))
    assert row["sha256"] == sha256(line).hexdigest()
    assert "source offset" in row["reason"]
    assert b"Rosa" not in orjson.dumps(row)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"Rosa Martinez",
        b'["a", "list"]',
        b'{"key": "an alert", "kind": "policy"}',
        b'{"producer": 5, "seq": "7", "source_partition": 70000, "source_offset": -1}',
        b'{"producer": null, "seq": 1.5, "source_partition": true, "source_offset": 18446744073709551616}',
    ],
)
def test_a_row_that_does_not_know_its_source_is_named_by_its_own_place(line: bytes) -> None:
    row = orjson.loads(dead_letter(line, "tidegate.alerts", 2, 40, NOON))

    assert (row["source"], row["source_partition"], row["source_offset"]) == ("tidegate.alerts", 2, 40)
    assert (row["producer"], row["seq"]) == ("", None)
    assert "does not say where it is from" in row["reason"]
