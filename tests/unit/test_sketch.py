"""The latency sketch: quantiles within 1 % of the exact ones, whatever the distribution; merging is adding."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from ddsketch import DDSketch
from ddsketch.mapping import LogarithmicMapping
from hypothesis import example, given
from hypothesis import strategies as st
from tidegate.processors.sketch import RELATIVE_ACCURACY, ZERO_BIN, bin_of, quantile, value_of

WEEK_S = 604_800.0
QUANTILES = (0.0, 0.01, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)

latency = st.one_of(
    st.floats(0, WEEK_S),
    st.floats(0, 1e-5),
    st.floats(-14, math.log(WEEK_S)).map(math.exp),
    st.integers(0, 20).map(lambda power: 1.02**power),  # about a bin apart
    st.sampled_from([0.0, -0.0, 5e-324, 1e-7, 1e-6, math.nextafter(1e-6, 0), 1.0, math.nextafter(1, 0), WEEK_S]),
)
latencies = st.one_of(
    st.lists(latency, min_size=1, max_size=200),
    # nearly all the same, and one far away: what an average hides
    st.tuples(latency, st.integers(1, 150), latency).map(lambda parts: [parts[0]] * parts[1] + [parts[2]]),
)


def sketch_of(values: list[float]) -> Counter[int]:
    return Counter(map(bin_of, values))


def exact(values: list[float], q: float) -> float:
    """The lower quantile: the largest value of the data with no more than a share `q` of the rest below it."""
    return sorted(values)[math.floor(q * (len(values) - 1))]


def within(estimate: float | None, truth: float, accuracy: float = RELATIVE_ACCURACY) -> bool:
    # Below a microsecond all is one bin. The last digits belong to floating point.
    return estimate is not None and abs(estimate - truth) <= accuracy * truth * (1 + 1e-9) + (1e-6 if truth < 1e-6 else 0)


@given(latencies)
@example([0.0])
@example([WEEK_S])
@example([0.0] * 99 + [WEEK_S])
@example([1e-6, 1e-6, WEEK_S, WEEK_S])
def test_every_quantile_is_within_one_percent_of_the_exact_one(values: list[float]) -> None:
    bins = sketch_of(values)

    wrong = [(q, quantile(bins, q), exact(values, q)) for q in QUANTILES if not within(quantile(bins, q), exact(values, q))]

    assert wrong == []


@given(latencies, latencies)
def test_merging_two_sketches_is_adding_them(one: list[float], other: list[float]) -> None:
    merged = sketch_of(one) + sketch_of(other)

    assert merged == sketch_of(one + other)
    assert all(quantile(merged, q) == quantile(sketch_of(other + one), q) for q in QUANTILES)


@given(latency)
def test_a_bin_is_represented_within_one_percent_by_its_value(value: float) -> None:
    assert within(value_of(bin_of(value)), value)


@given(latency, latency)
def test_a_larger_value_is_never_in_a_lower_bin(one: float, other: float) -> None:
    low, high = sorted((one, other))

    assert bin_of(low) <= bin_of(high)


def test_zero_and_what_no_clock_can_measure_share_a_bin_below_all_others() -> None:
    assert {bin_of(0.0), bin_of(-0.0), bin_of(1e-9)} == {ZERO_BIN}
    assert value_of(ZERO_BIN) == 0.0
    assert bin_of(1e-6) > ZERO_BIN


def test_a_week_of_every_millisecond_needs_few_bins() -> None:
    bins = {bin_of(1e-6), bin_of(WEEK_S)}

    assert max(bins) - min(bins) < 1_500


def test_nothing_counted_has_no_quantile() -> None:
    assert quantile({}, 0.5) is None
    assert quantile({3: 0}, 0.5) is None


def test_bins_are_the_same_for_ever() -> None:
    """Stored sketches are read by later versions; a changed mapping would bend every old latency."""
    expected = {1e-6: -690, 0.001: -345, 0.5: -34, 0.8: -11, 1.0: 0, 2.0: 35, 60.0: 205, 604_800.0: 666}

    assert {value: bin_of(value) for value in expected} == expected


PUBLIC = LogarithmicMapping(RELATIVE_ACCURACY)
# Where one bin ends and the next begins, to the last bit; and every float there is, below and above what is measured.
boundary = st.builds(
    lambda index, towards: math.nextafter(PUBLIC.gamma**index, towards),
    st.integers(-691, 700),
    st.sampled_from([0.0, math.inf]),
)
any_float = st.floats(0, exclude_min=False, allow_infinity=False, allow_nan=False, allow_subnormal=True)


@given(st.one_of(latency, boundary, any_float))
@example(5e-324)
@example(math.nextafter(1e-6, 0))
@example(1e-6)
@example(2.2250738585072014e-308)
@example(1.7976931348623157e308)
def test_a_bin_is_the_public_mappings_own_for_every_float(value: float) -> None:
    assert bin_of(value) == (PUBLIC.key(value) if value >= 1e-6 else ZERO_BIN)


@given(st.lists(st.floats(1e-6, WEEK_S), min_size=1, max_size=200))
def test_the_public_ddsketch_agrees_within_both_bounds(values: list[float]) -> None:
    public = DDSketch(RELATIVE_ACCURACY)
    for value in values:
        public.add(value)
    bins = sketch_of(values)

    differences = [
        (q, mine, theirs)
        for q in QUANTILES
        if (mine := quantile(bins, q)) is not None
        and (theirs := public.get_quantile_value(q)) is not None
        and mine != pytest.approx(theirs, rel=1e-9)
    ]

    assert differences == []
