"""Batches are cut the same way every time: the token that names one must always name the same rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate.sinks.batching import Batch, Cut, cut

Records = list[tuple[int, int, int]]


@st.composite
def _records(draw: st.DrawFn) -> Records:
    steps = draw(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 50), st.integers(0, 500)), max_size=40))
    records, offset = [], draw(st.integers(0, 1000))
    for step, rows, size in steps:
        records.append((offset, rows, size))
        offset += step
    return records


def _cut(records: Records, max_rows: int = 100, max_bytes: int = 1_000) -> Cut | None:
    return cut("calls", 3, records, max_rows=max_rows, max_bytes=max_bytes)


def test_a_token_names_topic_partition_and_range() -> None:
    assert Batch("tidegate.metered", 3, 10, 14).token == "tidegate.metered:3:10-14"


def test_no_records_make_no_batch() -> None:
    assert _cut([]) is None


def test_records_that_fit_make_one_batch_that_waits_for_more() -> None:
    assert _cut([(5, 10, 100), (6, 10, 100)]) == Cut(Batch("calls", 3, 5, 6), 20, 200, full=False)


def test_a_batch_ends_before_the_record_that_would_break_the_row_bound() -> None:
    assert _cut([(5, 60, 1), (6, 60, 1), (7, 1, 1)]) == Cut(Batch("calls", 3, 5, 5), 60, 1, full=True)


def test_a_batch_ends_before_the_record_that_would_break_the_byte_bound() -> None:
    assert _cut([(5, 1, 600), (6, 1, 600)]) == Cut(Batch("calls", 3, 5, 5), 1, 600, full=True)


def test_a_batch_that_meets_a_bound_exactly_is_full() -> None:
    assert _cut([(5, 50, 1), (6, 50, 1), (7, 1, 1)]) == Cut(Batch("calls", 3, 5, 6), 100, 2, full=True)


def test_a_record_larger_than_a_bound_goes_alone() -> None:
    assert _cut([(5, 500, 9_000), (6, 1, 1)]) == Cut(Batch("calls", 3, 5, 5), 500, 9_000, full=True)


def test_gaps_in_the_offsets_stay_inside_the_range() -> None:
    taken = _cut([(5, 1, 1), (9, 1, 1)])

    assert taken is not None
    assert taken.batch == Batch("calls", 3, 5, 9)


def test_offsets_that_do_not_ascend_are_refused() -> None:
    with pytest.raises(ValueError, match="does not come after"):
        _cut([(5, 1, 1), (5, 1, 1)])


@pytest.mark.parametrize(("rows", "size"), [(0, 1), (1, 0)])
def test_a_bound_that_lets_nothing_in_is_refused(rows: int, size: int) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        _cut([(1, 1, 1)], max_rows=rows, max_bytes=size)


def _all(records: Records, max_rows: int, max_bytes: int) -> list[Cut]:
    cuts = []
    while (taken := _cut(records, max_rows, max_bytes)) is not None:
        cuts.append(taken)
        records = [record for record in records if record[0] > taken.batch.last]
    return cuts


@given(_records(), st.integers(1, 100), st.integers(1, 1000))
def test_batches_hold_every_record_once_in_order_and_within_bounds(records: Records, max_rows: int, max_bytes: int) -> None:
    cuts = _all(records, max_rows, max_bytes)

    held = [[r for r in records if taken.batch.first <= r[0] <= taken.batch.last] for taken in cuts]
    assert [record for batch in held for record in batch] == records
    for taken, batch in zip(cuts, held, strict=True):
        assert (taken.rows, taken.size_bytes) == (sum(r[1] for r in batch), sum(r[2] for r in batch))
        assert len(batch) == 1 or (taken.rows <= max_rows and taken.size_bytes <= max_bytes)


@given(_records(), st.data())
def test_a_full_batch_does_not_change_when_more_records_arrive(records: Records, data: st.DataObject) -> None:
    seen = records[: data.draw(st.integers(0, len(records)))]
    before = _cut(seen)

    after = _cut(records)

    if before is not None and before.full:
        assert after == before
