"""Accounts of calls as metrics, a source partition each: whichever worker has a partition tells its whole account.

Partitions are a label because they change hands. Were they added up by worker, one that loses a partition would seem to have
been reset. With exemplars: ids of calls, to look up in ClickHouse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.samples import Exemplar

from ..schemas import metrics as defined
from ..schemas.call import TOKEN_FIELDS
from ..schemas.metrics import CALL_SECONDS, OK, Definition
from ..schemas.usage import COUNTERS, ERROR_PLACES, Usage
from . import call_account as account
from .call_account import CallAccount, Example

_PLACE: Final = {name: place for place, name in enumerate(COUNTERS)}
_TYPES: Final = {name.removesuffix("_tokens"): _PLACE[name] for name in TOKEN_FIELDS}
_LES: Final = (*map(str, CALL_SECONDS), "+Inf")
# What OpenMetrics lets an exemplar's labels have, name and value together.
_MOST_CHARS: Final = 128 - len("call_id")


def call_metrics(accounts: Mapping[int, CallAccount]) -> Iterator[Metric]:
    """All metrics of calls, by source partition."""
    rows = [
        (one, labels, str(partition), usage)
        for partition, one in sorted(accounts.items())
        for labels, usage in list(one.told.items())
    ]
    counters = {one: CounterMetricFamily(one.name, one.meaning, labels=one.labels) for one in _COUNTERS}
    histograms = {
        one: (first, HistogramMetricFamily(one.name, one.meaning, labels=one.labels)) for one, first in _HISTOGRAMS.items()
    }
    for of, labels, partition, usage in rows:
        for definition, more, value, place in _counts(usage):
            exemplar = _exemplar(of.examples.get((labels, place)), 1.0) if place and value else None
            counters[definition].add_metric((*labels, *more, partition), value, exemplar=exemplar)
        for first, family in histograms.values():
            each = [usage.get(first + bucket, 0) for bucket in range(len(_LES))]
            if not any(each):
                continue
            examples = [of.examples.get((labels, first + bucket)) for bucket in range(len(_LES))]
            family.add_metric(
                (*labels, partition),
                [
                    (le, count, shown) if (shown := _exemplar(example)) is not None and mine else (le, count)
                    for le, count, mine, example in zip(_LES, accumulate(each), each, examples, strict=True)
                ],
                usage.get(first + account.SUM, 0) / 1e6,
            )
    yield from counters.values()
    yield from (family for _, family in histograms.values())


_COUNTERS: Final = (
    *(defined.REQUESTS, defined.TOKENS, defined.COST, defined.UNPRICED, defined.CACHE_HITS),
    *(defined.JUDGED, defined.FLAGGED, defined.CLAIMS, defined.UNSUPPORTED_CLAIMS),
)
_HISTOGRAMS: Final = {defined.LATENCY: account.LATENCY, defined.TTFT: account.TTFT}


def _counts(usage: Usage) -> Iterator[tuple[Definition, tuple[str, ...], float, int]]:
    """(metric, further labels, value, the place of its examples or 0). All outcomes from 0 on: nobody would see the first
    error of a series that begins with it."""
    get = usage.get
    requests, errors = get(_PLACE["requests"], 0), get(_PLACE["errors"], 0)
    if requests:
        yield defined.REQUESTS, (OK,), requests - errors, 0
        for name, place in ERROR_PLACES.items():
            yield defined.REQUESTS, (name,), get(place, 0), place
        for name, place in _TYPES.items():
            if (count := get(place, 0)) or name in ("input", "output"):
                yield defined.TOKENS, (name,), count, 0
        yield defined.COST, (), get(_PLACE["cost_nano_usd"], 0) / 1e9, 0
        yield defined.UNPRICED, (), get(_PLACE["unpriced"], 0), 0
        yield defined.CACHE_HITS, (), get(_PLACE["cache_hits"], 0), 0
    for name, place in account.JUDGED_BY.items():
        if count := get(place, 0):
            yield defined.JUDGED, (name,), count, 0
            yield defined.FLAGGED, (name,), get(account.FLAGGED_BY[name], 0), 0
    if claims := get(account.CLAIMS, 0):
        yield defined.CLAIMS, (), claims, 0
        yield defined.UNSUPPORTED_CLAIMS, (), get(account.UNSUPPORTED, 0), 0


def _exemplar(example: Example | None, value: float | None = None) -> Exemplar | None:
    if example is None or len(example.call_id) > _MOST_CHARS:
        return None
    return Exemplar({"call_id": example.call_id}, example.value if value is None else value, example.at_s)
