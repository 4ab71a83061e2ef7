"""How long a table keeps its rows, as its TTL says it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate.schemas.errors import UsageError
from tidegate.sinks import keeping
from tidegate.sinks.keeping import Kept

TAIL = " SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, index_granularity = 8192"


def test_a_table_without_a_ttl_keeps_for_ever() -> None:
    assert Kept.read(f"MergeTree PARTITION BY toYYYYMM(at) ORDER BY at{TAIL}") == Kept()


def test_a_ttl_of_another_form_is_not_ours_to_read() -> None:
    assert Kept.read(f"MergeTree ORDER BY at TTL toDateTime(at) + toIntervalDay(3), at + toIntervalWeek(1){TAIL}") is None
    assert Kept.read(f"MergeTree ORDER BY at TTL toDateTime(at) + toIntervalDay(3) TO DISK 'cold'{TAIL}") is None


def test_a_tenants_rule_comes_and_goes_beside_everybodys() -> None:
    kept = Kept(30).changed(7, "harbor").changed(60, None).changed(9, "hill").changed(None, "harbor")

    assert kept == Kept(60, {"hill": 9})


@pytest.mark.parametrize("days", [0, -1, 36_501])
def test_a_number_of_days_that_makes_no_sense_is_refused(days: int) -> None:
    with pytest.raises(UsageError, match="for ever"):
        Kept().changed(days, None)


def test_only_what_is_kept_by_time_and_tenant_can_be_set_so() -> None:
    with pytest.raises(UsageError, match="cannot be set"):
        keeping.statements("calls_1h", Kept(3))
    with pytest.raises(UsageError, match="does not know tenants"):
        keeping.statements("dead_letters", Kept(3, {"harbor": 1}))


@given(st.none() | st.integers(1, 36_500), st.dictionaries(st.text(min_size=1), st.integers(1, 36_500), max_size=3))
def test_what_is_written_is_read_again(days: int | None, tenants: dict[str, int]) -> None:
    kept = Kept(days, tenants)
    *_, altered = keeping.statements("calls", kept)
    _, _, items = altered.partition(" MODIFY TTL ")

    # As the engine spells it.
    spelt = items.replace(" DELETE WHERE ", " WHERE ")
    for number in {days, *tenants.values()} - {None}:
        spelt = spelt.replace(f"INTERVAL {number} DAY", f"toIntervalDay({number})")
    assert Kept.read("MergeTree ORDER BY at" + (f" TTL {spelt}" if items else "") + TAIL) == kept
