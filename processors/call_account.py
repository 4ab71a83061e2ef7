"""The account of all calls of one source partition that Prometheus is shown: by tenant, provider and model, never by user.

    sums of a flush ─► of which label set? ─► its counters ─(durable with the flush)─► told ─► call_metrics

Counters are absolute and kept with the rest of the meter's state, so that they survive restarts and count nothing twice.
What is `told` is what is durable: a scrape must never see a counter that a crash takes back, which Prometheus would read as a
reset and add once more.

Names of tenants and models are anybody's, so label sets are bounded: the first `most` in the order of the log have their own,
for good. All that come later are counted under their provider alone, of which there may be some twenty more, or else as
`other` in everything. The same log gives the same sets, however it is batched.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, NamedTuple

from ..schemas.metrics import CALL_SECONDS, OTHER, UNKNOWN
from ..schemas.settings import DETECTORS
from ..schemas.usage import HALF, LATENCY_BINS, TTFT_BINS, Usage
from .findings import JUDGED
from .sketch import bin_of, value_of

FIELDS: Final = ("tenant", "provider_name", "model")
# Values of `FIELDS`, as labels.
Labels = tuple[str, str, str]

# A set is some sixty series, and each source partition has its own.
MOST: Final = 200
MOST_PROVIDERS: Final = 20

# Places of counters, beside those of `Usage`, whose bins are too fine for Prometheus.
JUDGED_BY: Final = {name: 200 + number for number, name in enumerate(DETECTORS)}
FLAGGED_BY: Final = {name: 300 + number for number, name in enumerate(DETECTORS)}
CLAIMS: Final = 400
UNSUPPORTED: Final = 401
LATENCY: Final = 1_000
TTFT: Final = 2_000
# Microseconds, at this many places behind the first bucket.
SUM: Final = 500

_EDGES: Final = [bin_of(edge_s) for edge_s in CALL_SECONDS]
_FAITHFULNESS: Final = "faithfulness"


class Example(NamedTuple):
    """A call that stands for others in a counter: its id, its latency where that is the counter's, when it was logged."""

    call_id: str
    value: float
    at_s: float


@dataclass(slots=True)
class CallAccount:
    """Counters by label set. `changed`: since the last flush. `told`: as they are durable; read from other threads.

    `examples`: calls, by label set and place; they are of this process, and only for looking at.
    """

    most: int = MOST
    sets: dict[Labels, Usage] = field(default_factory=dict)
    changed: set[Labels] = field(default_factory=set)
    told: dict[Labels, Usage] = field(default_factory=dict)
    examples: dict[tuple[Labels, int], Example] = field(default_factory=dict)

    def count(self, sums: Iterable[tuple[tuple[Any, ...], Usage]]) -> None:
        """Add what a flush has counted, by values of `FIELDS`, in the order of the log."""
        found: dict[tuple[Any, ...], Usage] = {}
        for values, usage in sums:
            known = found.get(values)
            if known is None:
                found[values] = Usage(usage)
            else:
                known.merge(usage)
        for values, usage in found.items():
            labels = self.set_of(values)
            self.sets.setdefault(labels, Usage()).merge(_coarse(usage))
            self.changed.add(labels)

    def set_of(self, values: tuple[Any, ...]) -> Labels:
        """Under which labels such calls are counted."""
        tenant, provider, model = (value or UNKNOWN for value in values)
        own: Labels = (tenant, provider, model)
        if own in self.sets or len(self.sets) < self.most:
            return own
        others: Labels = (OTHER, provider, OTHER)
        if others in self.sets or len(self.sets) < self.most + MOST_PROVIDERS:
            return others
        return OTHER, OTHER, OTHER

    def show(self, values: tuple[Any, ...], place: int, example: Example) -> None:
        """Remember a call that is counted at this place."""
        self.examples[self.set_of(values), place] = example

    def restore(self, kept: Iterable[tuple[Labels, Usage]]) -> None:
        """Begin with what was kept."""
        self.sets = dict(kept)
        self.tell(self.copies(self.sets))

    def copies(self, labels: Iterable[Labels] | None = None) -> dict[Labels, Usage]:
        """What has changed, as it is now."""
        return {one: Usage(self.sets[one]) for one in (self.changed if labels is None else labels)}

    def tell(self, kept: dict[Labels, Usage]) -> None:
        """These are durable."""
        self.told.update(kept)


def judgements(scored: Any) -> dict[int, int]:
    """What a verdict adds to an account: which detectors have judged the call, which found something, and its claims.

    Each claim that was held against a source left a piece of evidence; one that a finding lies on is not borne out.
    """
    if scored.outcome not in JUDGED:
        return {}
    failed, findings = scored.failed or (), scored.findings
    flagged = {one.detector for one in findings}
    found = dict.fromkeys((FLAGGED_BY[name] for name in flagged if name in FLAGGED_BY and name not in failed), 1)
    for name in scored.detectors or ():
        if name in JUDGED_BY and name not in failed:
            found[JUDGED_BY[name]] = 1
    if scored.evidence:
        doubted = [(one.start, one.end) for one in findings if one.detector == _FAITHFULNESS and one.where == "response"]
        found[CLAIMS] = len(scored.evidence)
        found[UNSUPPORTED] = sum(
            any(start < claim.end and claim.start < end for start, end in doubted) for claim in scored.evidence
        )
    return found


def bucket_of(seconds: float) -> int:
    """Which bucket of `CALL_SECONDS` counts a duration; one more for what is above them all."""
    return bisect_left(_EDGES, bin_of(seconds))


def _coarse(usage: Usage) -> Usage:
    """The counters with the bins of sketches as buckets, and their sums, within the 1 % of a bin."""
    found = Usage()
    get = found.get
    for place, count in usage.items():
        if place < _FIRST_BIN:
            found[place] = count
            continue
        bucket, total, micros = _bucket(place)
        found[bucket] = get(bucket, 0) + count
        found[total] = get(total, 0) + micros * count
    return found


_FIRST_BIN: Final = LATENCY_BINS - HALF


@cache
def _bucket(place: int) -> tuple[int, int, int]:
    """Of a bin of either sketch: the place of its bucket, of the sum, and the microseconds that stand for it."""
    bins, first = (LATENCY_BINS, LATENCY) if place < TTFT_BINS - HALF else (TTFT_BINS, TTFT)
    index = place - bins
    return first + bisect_left(_EDGES, index), first + SUM, round(value_of(index) * 1e6)
