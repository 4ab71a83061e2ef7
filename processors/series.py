"""What policies watch, counted by the meter: one ring of buckets for each scope of each series.

    policy ─► Series (what counts, for whom, in which window)     several policies may share one
    event ─► every series it matches ─► ring of its scope          absolute amounts, so a replay changes nothing
             (of responses; of verdicts, for series of findings)
    request event ─► reserved, until its response comes or it is given up

The rings that changed go to the usage topic whole. The topic is compacted by scope, so it is also where a scope that
was forgotten, or lost in a crash, comes back from.

An event counts when its call started, by its producer's clock, but never later than it stood in the log: a clock that is
ahead puts nothing off till tomorrow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from operator import attrgetter
from sys import intern
from typing import Any, Final

import msgspec
import orjson

from ..schemas.policy import OF_VERDICTS, CalendarWindow, Policy
from .findings import Wanted
from .sketch import bin_of
from .windows import Buckets, RatioRing, Ring, SketchRing, buckets_of

# A request that has had no response for so long never will; providers' own timeouts end at ten minutes.
ORPHAN_AFTER_MS: Final = 600_000
# How many of the biggest spenders below a scope are kept by name.
TOP: Final = 8
# A scope without an event for so long (by the log's time) leaves memory; its next event brings it back.
IDLE_S: Final = 600
# Responses whose request may be on its way still. It overtakes by moments, if at all; a request that comes later than
# this many responses holds its estimate until it is given up on.
_EARLY: Final = 2_048

AnyRing = Ring | RatioRing | SketchRing
_RINGS: Final[dict[str, type[AnyRing]]] = {"error_rate": RatioRing, "finding_rate": RatioRing, "latency": SketchRing}

Values = tuple[str | None, ...]
SeriesKey = tuple[str, Values]


@dataclass(frozen=True, slots=True)
class Series:
    """What is counted, for whom and over which window; policies that agree on that share it."""

    id: str
    match: tuple[tuple[str, frozenset[str]], ...]
    fields: tuple[str, ...]
    measure: str
    # In lower case: findings go by their names without it.
    finding_type: str | None
    stretch_s: int | None
    buckets: Buckets = field(compare=False)
    # Reads the values of the scope's fields off an event.
    values_of: Callable[[Any], Values] = field(compare=False)

    @classmethod
    def of(cls, policy: Policy) -> Series:
        measure = "latency" if policy.measure.startswith("latency_") else policy.measure
        match = tuple(sorted((name, frozenset(values)) for name, values in policy.match.items()))
        finding_type = None if policy.finding_type is None else policy.finding_type.lower()
        spelled = [
            [[name, sorted(values)] for name, values in match],
            policy.scope,
            measure,
            finding_type,
            policy.window.model_dump(),
        ]
        return cls(
            id=sha256(orjson.dumps(spelled)).hexdigest()[:16],
            match=match,
            fields=policy.scope,
            measure=measure,
            finding_type=finding_type,
            stretch_s=None if isinstance(policy.window, CalendarWindow) else policy.window.rolling,
            buckets=buckets_of(policy.window),
            values_of=_values_getter(policy.scope),
        )

    @property
    def of_verdicts(self) -> bool:
        """Whether it counts what the guardrails say of calls, and not the calls themselves."""
        return self.measure in OF_VERDICTS

    def new_ring(self) -> AnyRing:
        return _RINGS.get(self.measure, Ring)(self.buckets)

    def stretch(self, at_s: float) -> int:
        """A number for the stretch of time over which the biggest spenders are told: the period, or a window's length."""
        return int(self.buckets.bounds(at_s)[0]) if self.stretch_s is None else int(at_s // self.stretch_s)

    def oldest_stretch(self, now_s: float) -> int:
        """The oldest stretch that has a part in the window now."""
        return self.stretch(now_s) - (self.stretch_s is not None)

    def scope_of(self, event: Any) -> Values | None:
        """The scope that an event belongs to, or None when the series does not count it."""
        for name, values in self.match:
            if _getter(name)(event) not in values:
                return None
        return self.values_of(event)


def series_of(policies: Iterable[Policy]) -> dict[str, Series]:
    """The series that these policies need, each once."""
    found = (Series.of(policy) for policy in policies)
    return {series.id: series for series in found}


Getter = Callable[[Any], str | None]


def _model_of(event: Any) -> str | None:
    # A request has not been answered yet; its model is the one that was asked.
    return getattr(event, "response_model", None) or event.request_model  # type: ignore[no-any-return]


def _getter(name: str) -> Getter:
    """Reads a field of a policy off an event."""
    if name == "model":
        return _model_of
    if name.startswith("label."):
        label = name[6:]
        return lambda event: event.labels.get(label) if event.labels else None
    return attrgetter(name)


def _values_getter(names: tuple[str, ...]) -> Callable[[Any], Values]:
    getters = tuple(_getter(name) for name in names)
    if not getters:
        return lambda _: ()
    if len(getters) > 1 and all(isinstance(getter, attrgetter) for getter in getters):
        return attrgetter(*names)
    if len(getters) == 1:
        (only,) = getters
        return lambda event: (only(event),)
    return lambda event: tuple([getter(event) for getter in getters])


@dataclass(slots=True)
class ScopeUsage:
    """What one scope of one series has used, as one source partition knows it."""

    ring: AnyRing
    reserved: int = 0
    # The biggest spenders below the scope in the newest stretch, by `field=value`; at most TOP.
    top: dict[str, int] = field(default_factory=dict)
    top_since: int = 0
    seen_s: float = 0.0

    def dump(self) -> bytes:
        return _encoder.encode((self.ring.dump(), self.reserved, self.top, self.top_since))

    @classmethod
    def load(cls, series: Series, value: bytes) -> ScopeUsage:
        """What `dump` wrote, for the same series."""
        ring, reserved, top, top_since = _scope_usage.decode(value)
        return cls(_RINGS.get(series.measure, Ring).load(series.buckets, ring), reserved, top, top_since)

    def add_top(self, name: str, since: int, amount: int) -> None:
        """Count a spender of a stretch; of older ones nothing is told any more."""
        if since != self.top_since:
            if since < self.top_since:
                return
            self.top, self.top_since = {}, since
        top = self.top
        known = top.get(name)
        if known is not None:
            top[name] = known + amount
        elif len(top) < TOP:
            top[intern(name)] = amount
        else:
            # Space-saving: the newcomer takes the place, and the count, of the smallest; big spenders always stay.
            least = min(top, key=lambda known: (top[known], known))
            top[intern(name)] = top.pop(least) + amount


@dataclass(slots=True)
class InFlight:
    """A call that was announced: what it holds in reserve, until when."""

    until_ms: int
    held: list[tuple[str, Values, int]]


@dataclass(frozen=True, slots=True)
class History:
    """What one bucket of a scope held before its series was watched. `counted` is an amount; (part, whole); or how many
    of each sketch bin."""

    values: Values
    at_s: float
    counted: int | tuple[int, int] | Mapping[int, int]


def without_spender(value: bytes, name: str) -> bytes:
    """What `ScopeUsage.dump` wrote, and `name` is not among those that are told; the same object where it was not."""
    ring, reserved, top, top_since = _scope_usage.decode(value)
    if name not in top:
        return value
    del top[name]
    return _encoder.encode((ring, reserved, top, top_since))


def without_scopes(value: bytes, is_theirs: Callable[[str, Values], bool]) -> bytes:
    """What a call in flight holds, but of these scopes; the same object where it holds nothing of theirs."""
    until_ms, held = _in_flight.decode(value)
    kept = [one for one in held if not is_theirs(one[0], one[1])]
    return value if len(kept) == len(held) else msgspec.json.encode((until_ms, kept))


_encoder: Final = msgspec.msgpack.Encoder()
_scope_usage: Final = msgspec.msgpack.Decoder(tuple[bytes, int, dict[str, int], int])
_in_flight: Final = msgspec.json.Decoder(tuple[int, list[tuple[str, Values, int]]])
CALL: Final = b"call|"
# Measures of which the biggest spenders are told.
TOLD: Final = frozenset(
    {"cost_usd", "input_tokens", "output_tokens", "total_tokens", "requests", "errors", "unpriced", "findings"}
)
# A verdict need not say which model it was.
UNKNOWN_MODEL: Final = "unknown"


def usage_key(key: SeriesKey) -> bytes:
    """A scope's key in the usage topic."""
    # A copy: keys are kept, and orjson leaves them in the 4 KB that it wrote them to.
    return bytes(memoryview(orjson.dumps(key)))


def usage_prefix(series_id: str) -> bytes:
    """What the usage topic's keys of all scopes of a series begin with."""
    return b'["' + series_id.encode() + b'"'


def parse_usage_key(key: bytes) -> SeriesKey | None:
    """The scope that a record of the usage topic speaks of; None for records that are not about a scope."""
    if not key.startswith(b"["):
        return None
    series, values = orjson.loads(key)
    return series, tuple(values)


class Counter:
    """One series being counted in one source partition: its live scopes, and which of them have changed."""

    __slots__ = (
        "_amount",
        "_base",
        "_first",
        "_from",
        "_furthest",
        "_length_s",
        "_load",
        "_match",
        "_now_s",
        "_open",
        "_period",
        "_start",
        "_stretch_s",
        "_until",
        "_values_of",
        "changed",
        "live",
        "series",
    )

    def __init__(self, series: Series, load: Callable[[bytes], bytes | None]) -> None:
        self.series = series
        self.live: dict[Values, ScopeUsage] = {}
        self.changed: dict[Values, None] = {}
        self._load = load
        self._match = tuple((_getter(name), values) for name, values in series.match)
        self._amount = _amount_of(series)
        self._values_of = series.values_of
        self._stretch_s = series.stretch_s
        # Who, below the scope, is told as a spender; None where nobody is.
        self._open = (
            tuple((f"{name}=", attrgetter(name)) for name in ("user", "team", "service") if name not in series.fields)
            if series.measure in TOLD
            else None
        )
        self._now_s = float("nan")

    def count(self, event: Any, at_s: float, cost_nano_usd: int | None, unpriced: bool, now_s: float) -> None:
        """Count a response, or a verdict. For each event and series: what can be is worked out once for each `now_s`."""
        for getter, wanted in self._match:
            if getter(event) not in wanted:
                return
        amount = self._amount(event, cost_nano_usd, unpriced)
        if amount is None:
            return
        if now_s != self._now_s:
            self._turn_to(now_s)
        if self._from <= at_s < self._until:
            number = self._base + int((at_s - self._start) // self._length_s)
        else:
            number = self.series.buckets.number(at_s)
        if not self._first <= number <= self._furthest:
            return  # of no policy's window; the ledger has it all the same
        values = self._values_of(event)
        scope = self.live.get(values)
        if scope is None:
            scope = self.scope(values)
        scope.ring.put(number, amount, self._first, self._furthest)
        scope.seen_s = now_s
        self.changed[values] = None
        if self._open is not None:
            since = self._period if self._stretch_s is None else int(at_s // self._stretch_s)
            # The first field that says who it was, else the model.
            for prefix, getter in self._open:
                value = getter(event)
                if value is not None:
                    name = f"{prefix}{value}"
                    break
            else:
                name = f"model={_model_of(event) or UNKNOWN_MODEL}"
            if since == scope.top_since and name in scope.top:
                scope.top[name] += amount
            else:
                scope.add_top(name, since, amount)

    def _turn_to(self, now_s: float) -> None:
        buckets = self.series.buckets
        self._now_s = now_s
        self._first, _, self._furthest = buckets.reach(now_s)
        self._from, self._until, self._start, self._base, self._length_s = buckets.numbering(now_s)
        # Of a calendar window, all that counts is of the period of now.
        self._period = self.series.stretch(now_s) if self._stretch_s is None else 0

    def request(self, event: Any, cost_nano_usd: int | None) -> tuple[str, Values, int] | None:
        """Hold what an announced call is expected to use. Returns what to give to `release`."""
        for getter, wanted in self._match:
            if getter(event) not in wanted:
                return None
        amount = _estimate(self.series.measure, event, cost_nano_usd)
        if not amount:
            return None
        values = self.series.values_of(event)
        self.scope(values).reserved += amount
        self.changed[values] = None
        return self.series.id, values, amount

    def release(self, values: Values, amount: int) -> None:
        scope = self.scope(values)
        scope.reserved = max(scope.reserved - amount, 0)
        self.changed[values] = None

    def seed(self, history: Iterable[History], top: Iterable[tuple[Values, str, int]], now_s: float) -> None:
        """Count what was before the series was watched, and the spenders of the stretch of now."""
        self._turn_to(now_s)
        first, furthest = self._first, self._furthest
        for past in history:
            number = self.series.buckets.number(past.at_s)
            if first <= number <= furthest:
                ring: Any = self.scope(past.values).ring
                if isinstance(ring, SketchRing) and isinstance(past.counted, Mapping):
                    for index, times in past.counted.items():
                        ring.put(number, index, first, furthest, times)
                else:
                    ring.put(number, past.counted, first, furthest)
                self.changed[past.values] = None
        since = self.series.stretch(now_s)
        for values, name, amount in top:
            self.scope(values).add_top(name, since, amount)
            self.changed[values] = None

    def scope(self, values: Values) -> ScopeUsage:
        """A scope from memory, or as the usage topic last knew it."""
        scope = self.live.get(values)
        if scope is None:
            stored = self._load(usage_key((self.series.id, values)))
            scope = ScopeUsage.load(self.series, stored) if stored else ScopeUsage(self.series.new_ring())
            self.live[values] = scope
        return scope

    def evict(self, horizon_s: float) -> None:
        """Let go of scopes that have been silent since then."""
        for values in [values for values, scope in self.live.items() if scope.seen_s < horizon_s and not scope.reserved]:
            del self.live[values]


@dataclass(slots=True)
class SeriesState:
    """Everything the policies' series have counted in one source partition.

    `load(key)` fetches what the usage topic last said of a key, or None.
    """

    series: dict[str, Series]
    load: Callable[[bytes], bytes | None] = lambda _: None
    # In the order in which they were announced, which is the order in which they are given up on.
    in_flight: dict[str, InFlight] = field(default_factory=dict)
    now_s: float = 0.0
    counters: dict[str, Counter] = field(default_factory=dict)
    _of_responses: list[Counter] = field(default_factory=list)
    _of_verdicts: list[Counter] = field(default_factory=list)
    # Calls announced or settled since the last flush; True: nothing is stored of it yet.
    _changed_calls: dict[str, bool] = field(default_factory=dict)
    # Responses of calls that were not announced: the newer and the older half.
    _early: set[str] = field(default_factory=set)
    _earlier: set[str] = field(default_factory=set)
    _evict_at: float = 0.0

    def __post_init__(self) -> None:
        self.watch(self.series)

    def watch(self, series: dict[str, Series]) -> None:
        """Count these series from now on, and forget the others."""
        self.series = series
        self.counters = {name: self.counters.get(name) or Counter(one, self.load) for name, one in series.items()}
        self._of_responses = [counter for counter in self.counters.values() if not counter.series.of_verdicts]
        self._of_verdicts = [counter for counter in self.counters.values() if counter.series.of_verdicts]

    def response(self, event: Any, at_s: float, cost_nano_usd: int | None, unpriced: bool, now_s: float) -> None:
        """Count one response and let go of what its request held. `now_s` is the log's time of it: what was too long ago
        then is of no policy's window any more, and a producer's wrong clock cannot push the windows forward."""
        if not self.counters:
            return
        self.now_s = now_s
        call_id = event.call_id
        if call_id in self.in_flight:
            self._release(call_id)
        else:
            self._early.add(call_id)
            if len(self._early) >= _EARLY:
                self._early, self._earlier = set(), self._early
        if at_s > now_s:
            at_s = now_s
        for counter in self._of_responses:
            counter.count(event, at_s, cost_nano_usd, unpriced, now_s)

    def scored(self, event: Any, at_s: float, now_s: float) -> None:
        """Count one verdict, in the time of the call that it is of."""
        if not self._of_verdicts:
            return
        self.now_s = now_s
        if at_s > now_s:
            at_s = now_s
        for counter in self._of_verdicts:
            counter.count(event, at_s, None, False, now_s)

    def request(self, event: Any, now_ms: int, cost_nano_usd: int | None) -> None:
        """Hold what an announced call is expected to use, until its response or `ORPHAN_AFTER_MS`."""
        if not self.counters or event.call_id in self.in_flight:
            return
        if event.call_id in self._early or event.call_id in self._earlier:
            self._early.discard(event.call_id)
            self._earlier.discard(event.call_id)
            return
        found = (counter.request(event, cost_nano_usd) for counter in self.counters.values())
        held = [one for one in found if one is not None]
        if held:
            self.in_flight[event.call_id] = InFlight(now_ms + ORPHAN_AFTER_MS, held)
            self._changed_calls.setdefault(event.call_id, True)

    def due(self, now_ms: int) -> bool:
        """Whether a request is waiting to be given up on."""
        return bool(self.in_flight) and next(iter(self.in_flight.values())).until_ms <= now_ms

    def expire(self, now_ms: int) -> None:
        """Give up on requests that have had no response for too long."""
        while self.due(now_ms):
            self._release(next(iter(self.in_flight)))

    def _release(self, call_id: str) -> None:
        for name, values, amount in self.in_flight.pop(call_id).held:
            if name in self.counters:
                self.counters[name].release(values, amount)
        if self._changed_calls.get(call_id):
            del self._changed_calls[call_id]
        else:
            self._changed_calls[call_id] = False

    def changed(self) -> Iterator[tuple[SeriesKey, ScopeUsage]]:
        """The scopes that have changed since the last flush."""
        for name, counter in self.counters.items():
            for values in counter.changed:
                yield (name, values), counter.live[values]

    def records(self) -> list[tuple[bytes, bytes]]:
        """What changed since the last flush, as (key, value) for the usage topic; an empty value takes a key back."""
        found = [(usage_key(key), scope.dump()) for key, scope in self.changed()]
        for call_id in self._changed_calls:
            held = self.in_flight.get(call_id)
            value = msgspec.json.encode((held.until_ms, held.held)) if held else b""
            found.append((CALL + call_id.encode(), value))
        return found

    def flushed(self) -> None:
        """What changed is stored; let idle scopes go from memory."""
        for counter in self.counters.values():
            counter.changed.clear()
        self._changed_calls.clear()
        # A log's clock that was set back is followed.
        if not self._evict_at - IDLE_S / 10 <= self.now_s < self._evict_at:
            self._evict_at = self.now_s + IDLE_S / 10
            for counter in self.counters.values():
                counter.evict(self.now_s - IDLE_S)

    def restore(self, calls: Iterable[tuple[bytes, bytes]]) -> None:
        """Take up the calls in flight, the records of the usage topic whose keys begin with `CALL`, oldest first. Scopes
        come back when they are asked for."""
        for key, value in calls:
            if value:
                until_ms, held = _in_flight.decode(value)
                self.in_flight[key[len(CALL) :].decode()] = InFlight(until_ms, held)


# What an event adds to a ring of a measure: a number, (part, whole), or a sketch bin; None adds nothing.
Amount = Callable[[Any, int | None, bool], Any]


def _total_tokens(event: Any) -> int:
    return (event.input_tokens or 0) + (event.output_tokens or 0)


_AMOUNTS: Final[dict[str, Amount]] = {
    "cost_usd": lambda event, cost, unpriced: cost or None,
    "requests": lambda event, cost, unpriced: 1,
    "input_tokens": lambda event, cost, unpriced: event.input_tokens or None,
    "output_tokens": lambda event, cost, unpriced: event.output_tokens or None,
    "total_tokens": lambda event, cost, unpriced: _total_tokens(event) or None,
    "errors": lambda event, cost, unpriced: 1 if event.error_type else None,
    "error_rate": lambda event, cost, unpriced: (1 if event.error_type else 0, 1),
    "latency": lambda event, cost, unpriced: None if event.latency_s is None else bin_of(event.latency_s),
    "unpriced": lambda event, cost, unpriced: 1 if unpriced else None,
}


def _amount_of(series: Series) -> Amount:
    if not series.of_verdicts:
        return _AMOUNTS[series.measure]
    wanted = Wanted.of(series.finding_type)
    if series.measure == "findings":
        return lambda event, cost, unpriced: wanted.count(event) or None
    return lambda event, cost, unpriced: (int(wanted.count(event) > 0), 1) if wanted.can_tell(event) else None


def _estimate(measure: str, event: Any, cost_nano_usd: int | None) -> int | None:
    """What a request is expected to add; None where nothing was said."""
    match measure:
        case "cost_usd":
            return cost_nano_usd
        case "requests":
            return 1
        case "input_tokens":
            return event.estimated_input_tokens  # type: ignore[no-any-return]
        case "output_tokens":
            return event.estimated_output_tokens  # type: ignore[no-any-return]
        case "total_tokens":
            return (event.estimated_input_tokens or 0) + (event.estimated_output_tokens or 0)
    return None
