"""Usage of every configured scope, per minute, hour and day, as absolute counters.

Events are first added up at the finest key that any scope set asks for; `roll_up` then spreads those few sums over the
scope sets and buckets. A thousand calls of one busy minute thus cost a thousand small adds, not eighteen thousand.

Memory holds the buckets near the event-time watermark; older ones are fetched through `load` when a late event needs
them, and forgotten after the flush. An event older than a unit's retention is not counted in that unit's buckets any
more (it is still in the ledger); `too_old` says how often that was so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter
from typing import Any, Final, NamedTuple

import orjson

from ..schemas.usage import BUCKET_S, COUNTERS, ERROR_PLACES, LATENCY_BINS, TTFT_BINS, BucketUnit, Usage
from .call_account import FIELDS, CallAccount, judgements
from .findings import JUDGED
from .sketch import bin_of


class UsageKey(NamedTuple):
    """One scope in one bucket; `start` is seconds since 1970, UTC."""

    fields: tuple[str, ...]
    values: tuple[str | None, ...]
    bucket: BucketUnit
    start: int

    def dump(self) -> bytes:
        """The key as stored, and as the usage topic's record key."""
        return orjson.dumps([self.bucket, self.start, self.fields, self.values])

    @classmethod
    def load(cls, key: bytes) -> UsageKey:
        bucket, start, fields, values = orjson.loads(key)
        return cls(tuple(fields), tuple(values), bucket, start)


# How far behind the watermark a bucket stays in memory: an hour of stragglers costs no look-up.
LIVE_S: Final[dict[BucketUnit, int]] = {"minute": 3_600, "hour": 2 * 3_600, "day": 86_400}
# How far behind the watermark a bucket is kept at all. A policy's window of 31 days needs hours for that long.
RETENTION_S: Final[dict[BucketUnit, int]] = {"minute": 3 * 86_400, "hour": 40 * 86_400, "day": 800 * 86_400}

_REQUESTS, _ERRORS, _CACHE_HITS, _COST, _UNPRICED, _UNKNOWN, _INPUT, _OUTPUT, _CACHE_READ = range(9)
_CACHE_WRITE_5M, _CACHE_WRITE_1H, _REASONING, _INPUT_AUDIO, _OUTPUT_AUDIO, _CACHE_AUDIO_READ, _SCORED, _FINDINGS = range(
    9, len(COUNTERS)
)

_new: Final = tuple.__new__

# (number of the bucket since 1970, values of the scope's fields) to what was counted there
Sums = dict[tuple[int, tuple[Any, ...]], Usage]
Pick = Callable[[tuple[Any, ...]], tuple[Any, ...]]


class ScopeSets:
    """The scope sets in force, and the shortest way to add each up.

    A set is summed from the smallest set that has all its fields, or from the finest keys where there is none: tenants
    from teams, and all from tenants. The account's set is one of them, though it has no buckets.
    """

    def __init__(self, sets: Sequence[tuple[str, ...]]) -> None:
        plain = tuple(dict.fromkeys(name for fields in (*sets, FIELDS) for name in fields if name != "model"))
        self.fields = ("model", *plain)
        self.read: Callable[[Any], tuple[Any, ...]] = _tuple_getter(attrgetter, plain)
        self.counted = frozenset(sets)
        # (fields, the set it is summed from or None for the finest keys, how to pick its values from that one's)
        self.plan: list[tuple[tuple[str, ...], tuple[str, ...] | None, Pick]] = []
        for fields in sorted(dict.fromkeys((*sets, FIELDS)), key=len, reverse=True):
            wider = [done for done, _, _ in self.plan if set(fields) < set(done)]
            source = min(wider, key=len, default=None)
            names = self.fields if source is None else source
            self.plan.append((fields, source, _tuple_getter(itemgetter, [names.index(name) for name in fields])))


def _tuple_getter(kind: Any, names: Iterable[Any]) -> Callable[[Any], tuple[Any, ...]]:
    names = tuple(names)
    if len(names) > 1:
        return kind(*names)  # type: ignore[no-any-return]
    if not names:
        return lambda _: ()
    one = kind(names[0])
    return lambda source: (one(source),)


@dataclass(slots=True)
class UsageState:
    """All live buckets of one source partition. `load(key)` fetches a stored bucket, or None."""

    scope_sets: ScopeSets
    load: Callable[[UsageKey], Usage | None] = lambda _: None
    live: dict[UsageKey, Usage] = field(default_factory=dict)
    changed: set[UsageKey] = field(default_factory=set)
    watermark_s: int = 0
    too_old: int = 0
    account: CallAccount = field(default_factory=CallAccount)
    _fine: dict[tuple[int, str | None, tuple[Any, ...]], Usage] = field(default_factory=dict)
    # Buckets that had left memory, and are there again until the flush is stored.
    late: list[UsageKey] = field(default_factory=list)
    _tidied_s: int = 0

    def add(self, response: Any, started_s: float, cost_nano_usd: int | None) -> None:
        """Count one response event. `cost_nano_usd` None means that its price is unknown."""
        key = (int(started_s) // 60, response.response_model or response.request_model, self.scope_sets.read(response))
        usage = self._fine.get(key)
        if usage is None:
            usage = self._fine[key] = Usage()
        get = usage.get
        usage[_REQUESTS] = get(_REQUESTS, 0) + 1
        if cost_nano_usd is None:
            usage[_UNPRICED] = get(_UNPRICED, 0) + 1
        elif cost_nano_usd:
            usage[_COST] = get(_COST, 0) + cost_nano_usd
        # Field by field, as most are None, and asking an attribute for that costs less than a turn of a loop.
        if count := response.input_tokens:
            usage[_INPUT] = get(_INPUT, 0) + count
        elif count is None and response.output_tokens is None:
            usage[_UNKNOWN] = get(_UNKNOWN, 0) + 1
        if count := response.output_tokens:
            usage[_OUTPUT] = get(_OUTPUT, 0) + count
        if count := response.cache_read_tokens:
            usage[_CACHE_READ] = get(_CACHE_READ, 0) + count
        if count := response.cache_write_5m_tokens:
            usage[_CACHE_WRITE_5M] = get(_CACHE_WRITE_5M, 0) + count
        if count := response.cache_write_1h_tokens:
            usage[_CACHE_WRITE_1H] = get(_CACHE_WRITE_1H, 0) + count
        if count := response.reasoning_tokens:
            usage[_REASONING] = get(_REASONING, 0) + count
        if count := response.input_audio_tokens:
            usage[_INPUT_AUDIO] = get(_INPUT_AUDIO, 0) + count
        if count := response.output_audio_tokens:
            usage[_OUTPUT_AUDIO] = get(_OUTPUT_AUDIO, 0) + count
        if count := response.cache_audio_read_tokens:
            usage[_CACHE_AUDIO_READ] = get(_CACHE_AUDIO_READ, 0) + count
        if response.error_type is not None:
            place = ERROR_PLACES[response.error_type]
            usage[_ERRORS] = get(_ERRORS, 0) + 1
            usage[place] = get(place, 0) + 1
        if response.cache_hit:
            usage[_CACHE_HITS] = get(_CACHE_HITS, 0) + 1
        if response.latency_s is not None:
            place = LATENCY_BINS + bin_of(response.latency_s)
            usage[place] = get(place, 0) + 1
        if response.time_to_first_token_s is not None:
            place = TTFT_BINS + bin_of(response.time_to_first_token_s)
            usage[place] = get(place, 0) + 1

    def add_scored(self, scored: Any, started_s: float) -> None:
        """Count one verdict on a call that began then: that the call was judged, and what was found."""
        judged = scored.outcome in JUDGED
        found = len(scored.findings) + scored.more_findings
        if not judged and not found:
            return  # nothing is known, and that is counted nowhere
        key = (int(started_s) // 60, scored.response_model or scored.request_model, self.scope_sets.read(scored))
        usage = self._fine.setdefault(key, Usage())
        usage.merge({_SCORED: int(judged), _FINDINGS: found} | judgements(scored))

    def roll_up(self) -> None:
        """Spread what was added since the last call over scopes and buckets."""
        fine, self._fine = self._fine, {}
        if not fine:
            return
        self.watermark_s = max(self.watermark_s, max(minute for minute, _, _ in fine) * 60)
        minutes: dict[tuple[str, ...] | None, Sums] = {
            None: {(minute, (model, *values)): usage for (minute, model, values), usage in fine.items()}
        }
        for fields, source, pick in self.scope_sets.plan:
            by_minute: Sums = {}
            for (minute, values), usage in minutes[source].items():
                key = (minute, pick(values))
                total = by_minute.get(key)
                if total is None:
                    by_minute[key] = Usage(usage)
                else:
                    total.merge(usage)
            minutes[fields] = by_minute
            if fields not in self.scope_sets.counted:
                continue
            for (minute, values), usage in by_minute.items():
                self._apply(fields, values, minute * 60, usage)
        self.account.count((values, usage) for (_, values), usage in minutes[FIELDS].items())

    def _apply(self, fields: tuple[str, ...], values: tuple[Any, ...], minute_s: int, delta: Usage) -> None:
        for bucket, length_s in BUCKET_S.items():
            # `UsageKey(…)` without its Python-level constructor: where scopes are many, this is done thrice an event.
            key = _new(UsageKey, (fields, values, bucket, minute_s - minute_s % length_s))
            usage = self.live.get(key)
            if usage is not None:
                usage.merge(delta)
                self.changed.add(key)
            else:
                self._open(key, delta)

    def _open(self, key: UsageKey, delta: Usage) -> None:
        """Count in a bucket that is not in memory: a new one, or an old one that is fetched until the flush."""
        age_s = self.watermark_s - key.start - BUCKET_S[key.bucket]
        if age_s > RETENTION_S[key.bucket]:
            self.too_old += delta.get(_REQUESTS, 0)
            return
        bucket: Usage | None = None
        if age_s > LIVE_S[key.bucket]:
            bucket = self.load(key)
            self.late.append(key)
        if bucket is None:
            self.live[key] = Usage(delta)
        else:
            bucket.merge(delta)
            self.live[key] = bucket
        self.changed.add(key)

    def flushed(self) -> list[UsageKey]:
        """The changed buckets are stored: forget which they were, and let old ones go from memory. Returns those."""
        self.changed.clear()
        self.account.changed.clear()
        gone, self.late = self.late, []
        if self.watermark_s != self._tidied_s:
            self._tidied_s = self.watermark_s
            horizon = {bucket: self.watermark_s - BUCKET_S[bucket] - LIVE_S[bucket] for bucket in BUCKET_S}
            gone = [*gone, *(key for key in self.live if key.start < horizon[key.bucket])]
        for key in gone:
            self.live.pop(key, None)
        return gone
