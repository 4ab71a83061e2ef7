"""Quantile sketches with 1 % relative error, as sparse counts that merge by adding.

The mapping between values and bins is DDSketch's logarithmic one; a sketch is a dict of bin index to count, so merging
two is adding two dicts, storing one is writing its few bins, and an event costs one lookup of its bin.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log, log1p, log2
from typing import Final

from ddsketch.mapping import LogarithmicMapping

RELATIVE_ACCURACY: Final = 0.01
# Below a microsecond a latency says only that the clock did not move; such values share the bin of zero.
SMALLEST_S: Final = 1e-6
# Below every other bin: the smallest, of a microsecond, is -691.
ZERO_BIN: Final = -2_000

_mapping: Final = LogarithmicMapping(RELATIVE_ACCURACY)
# For the store, which finds the bin of x as ⌈log2(x) × this⌉.
BINS_PER_DOUBLING: Final = 1 / log2(_mapping.gamma)


# What the mapping's `key` multiplies with, worked out as there: `bin_of` is called twice an event, and a cache would miss,
# as hardly two latencies are equal to the microsecond.
_LOG_2: Final = log(2)
_BINS_PER_LOG2: Final = 1 / log1p(2 * RELATIVE_ACCURACY / (1 - RELATIVE_ACCURACY)) * _LOG_2


def bin_of(value: float) -> int:
    """The bin of a value ≥ 0: that of `_mapping.key(value)`, by the very same operations without the calls between them."""
    return ZERO_BIN if value < SMALLEST_S else ceil(log(value) / _LOG_2 * _BINS_PER_LOG2)


def value_of(index: int) -> float:
    """The value that stands for a bin; within 1 % of everything in it."""
    return 0.0 if index == ZERO_BIN else float(_mapping.value(index))


def quantile(bins: Mapping[int, int], q: float) -> float | None:
    """The `q` quantile, 0 ≤ q ≤ 1, within 1 % relative error of the exact lower quantile; None when nothing was counted."""
    total = sum(bins.values())
    if not total:
        return None
    rank = q * (total - 1)
    seen = 0
    for index in sorted(bins):
        seen += bins[index]
        if seen > rank:
            return value_of(index)
    return value_of(max(bins))
