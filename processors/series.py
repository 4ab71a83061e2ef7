"""What policies watch, counted by the meter: one ring of buckets for each scope of each series.

    policy ─► Series (what counts, for whom, in which window)     several policies may share one
    event ─► every series it matches ─► ring of its scope          absolute amounts, so a replay changes nothing
    request event ─► reserved, until its response comes or it is given up

The rings that changed go to the usage topic whole. The topic is compacted by scope, so it is also where a scope that
was forgotten, or lost in a crash, comes back from.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

import msgspec
import orjson

from ..schemas.policy import CalendarWindow, Policy
from .sketch import bin_of
from .windows import Buckets, RatioRing, Ring, SketchRing, buckets_of

# A request that has had no response for so long never will; providers' own timeouts end at ten minutes.
ORPHAN_AFTER_MS: Final = 600_000
# How many of the biggest spenders below a scope are kept by name.
TOP: Final = 8
# A scope without an event for so long (by event time) leaves memory; its next event brings it back.
IDLE_S: Final = 600

AnyRing = Ring | RatioRing | SketchRing
_RINGS: Final[dict[str, type[AnyRing]]] = {"error_rate": RatioRing, "finding_rate": RatioRing, "latency": SketchRing}

SeriesKey = tuple[str, tuple[str | None, ...]]


@dataclass(frozen=True, slots=True)
class Series:
    """What is counted, for whom and over which window; policies that agree on that share it."""

    id: str
    match: tuple[tuple[str, frozenset[str]], ...]
    fields: tuple[str, ...]
    measure: str
    finding_type: str | None
    stretch_s: int | None
    buckets: Buckets = field(compare=False)

    @classmethod
    def of(cls, policy: Policy) -> Series:
        measure = "latency" if policy.measure.startswith("latency_") else policy.measure
        match = tuple(sorted((name, frozenset(values)) for name, values in policy.match.items()))
        spelled = [
            [[name, sorted(values)] for name, values in match],
            policy.scope,
            measure,
            policy.finding_type,
            policy.window.model_dump(),
        ]
        name = sha256(orjson.dumps(spelled)).hexdigest()[:16]
        stretch_s = None if isinstance(policy.window, CalendarWindow) else policy.window.rolling
        return cls(name, match, policy.scope, measure, policy.finding_type, stretch_s, buckets_of(policy.window))

    def new_ring(self) -> AnyRing:
        return _RINGS.get(self.measure, Ring)(self.buckets)

    def stretch(self, at_s: float) -> int:
        """A number for the stretch of time over which the biggest spenders are told: the period, or a window's length."""
        return int(self.buckets.bounds(at_s)[0]) if self.stretch_s is None else int(at_s // self.stretch_s)

    def scope_of(self, event: Any) -> tuple[str | None, ...] | None:
        """The scope that an event belongs to, or None when the series does not count it."""
        for name, values in self.match:
            if _field(event, name) not in values:
                return None
        return tuple(_field(event, name) for name in self.fields)


def series_of(policies: Iterable[Policy]) -> dict[str, Series]:
    """The series that these policies need, each once."""
    found = (Series.of(policy) for policy in policies)
    return {series.id: series for series in found}


def _field(event: Any, name: str) -> str | None:
    if name == "model":
        # A request has not been answered yet; its model is the one that was asked.
        return getattr(event, "response_model", None) or event.request_model  # type: ignore[no-any-return]
    if name.startswith("label."):
        return (event.labels or {}).get(name[6:])
    return getattr(event, name)  # type: ignore[no-any-return]


@dataclass(slots=True)
class ScopeUsage:
    """What one scope of one series has used, as one source partition knows it."""

    ring: AnyRing
    reserved: int = 0
    # The biggest spenders below the scope in the window's current stretch, by `field=value`; at most TOP.
    top: dict[str, int] = field(default_factory=dict)
    top_since: int = 0
    seen_s: float = 0.0

    def dump(self) -> bytes:
        return msgspec.json.encode((self.ring.dump(), self.reserved, self.top, self.top_since, self.seen_s))

    @classmethod
    def load(cls, series: Series, value: bytes) -> ScopeUsage:
        """What `dump` wrote, for the same series."""
        ring, reserved, top, top_since, seen_s = _scope_usage.decode(value)
        return cls(_RINGS.get(series.measure, Ring).load(series.buckets, ring), reserved, top, top_since, seen_s)


@dataclass(slots=True)
class InFlight:
    """A call that was announced: what it holds in reserve, until when."""

    until_ms: int
    held: list[tuple[str, tuple[str | None, ...], int]]


_scope_usage: Final = msgspec.json.Decoder(tuple[bytes, int, dict[str, int], int, float])
_in_flight: Final = msgspec.json.Decoder(tuple[int, list[tuple[str, tuple[str | None, ...], int]]])
CALL: Final = b"call|"
# Measures of which the biggest spenders are told.
_TOLD: Final = frozenset({"cost_usd", "input_tokens", "output_tokens", "total_tokens", "requests", "errors", "unpriced"})


def usage_key(key: SeriesKey) -> bytes:
    """A scope's key in the usage topic."""
    return orjson.dumps(key)


def parse_usage_key(key: bytes) -> SeriesKey | None:
    """The scope that a record of the usage topic speaks of; None for records that are not about a scope."""
    if not key.startswith(b"["):
        return None
    series, values = orjson.loads(key)
    return series, tuple(values)


@dataclass(slots=True)
class SeriesState:
    """Everything the policies' series have counted in one source partition.

    `load(key)` fetches what the usage topic last said of a key, or None.
    """

    series: dict[str, Series]
    load: Callable[[bytes], bytes | None] = lambda _: None
    live: dict[SeriesKey, ScopeUsage] = field(default_factory=dict)
    in_flight: dict[str, InFlight] = field(default_factory=dict)
    changed: set[SeriesKey] = field(default_factory=set)
    changed_calls: set[str] = field(default_factory=set)
    now_s: float = 0.0
    _expiries: list[tuple[int, str]] = field(default_factory=list)
    _evict_at: float = 0.0

    def watch(self, series: dict[str, Series]) -> None:
        """Count these series from now on, and forget the others."""
        self.series = series
        for key in [key for key in self.live if key[0] not in series]:
            del self.live[key]
            self.changed.discard(key)

    def response(self, event: Any, at_s: float, cost_nano_usd: int | None, unpriced: bool, now_s: float) -> None:
        """Count one response and let go of what its request held. `now_s` is the log's time of it: what was too long ago
        then is of no policy's window any more, and a producer's wrong clock cannot push the windows forward."""
        if not self.series:
            return
        self.now_s = max(self.now_s, now_s)
        if event.call_id in self.in_flight:
            self._release(event.call_id)
        for series in self.series.values():
            values = series.scope_of(event)
            if values is None:
                continue
            amount = _amount(series.measure, event, cost_nano_usd, unpriced)
            if amount is None:
                continue
            key = (series.id, values)
            scope = self._scope(series, key)
            if scope.ring.add(at_s, amount, self.now_s) != "kept":
                continue  # of no policy's window; the ledger has it all the same
            scope.seen_s = self.now_s
            self.changed.add(key)
            if series.measure in _TOLD:
                self._add_top(scope, series, event, at_s, amount)

    def request(self, event: Any, now_ms: int, cost_nano_usd: int | None) -> None:
        """Hold what an announced call is expected to use, until its response or `ORPHAN_AFTER_MS`."""
        if not self.series or event.call_id in self.in_flight:
            return
        held = []
        for series in self.series.values():
            values = series.scope_of(event)
            amount = None if values is None else _estimate(series.measure, event, cost_nano_usd)
            if values is None or not amount:
                continue
            key = (series.id, values)
            self._scope(series, key).reserved += amount
            self.changed.add(key)
            held.append((series.id, values, amount))
        if held:
            self._hold(event.call_id, InFlight(now_ms + ORPHAN_AFTER_MS, held))
            self.changed_calls.add(event.call_id)

    def _hold(self, call_id: str, in_flight: InFlight) -> None:
        self.in_flight[call_id] = in_flight
        heapq.heappush(self._expiries, (in_flight.until_ms, call_id))

    def due(self, now_ms: int) -> bool:
        """Whether a request is waiting to be given up on."""
        return bool(self._expiries) and self._expiries[0][0] <= now_ms

    def expire(self, now_ms: int) -> None:
        """Give up on requests that have had no response for too long."""
        while self._expiries and self._expiries[0][0] <= now_ms:
            until_ms, call_id = heapq.heappop(self._expiries)
            held = self.in_flight.get(call_id)
            if held is not None and held.until_ms == until_ms:
                self._release(call_id)

    def _release(self, call_id: str) -> None:
        for name, values, amount in self.in_flight.pop(call_id).held:
            series = self.series.get(name)
            if series is not None:
                key = (name, values)
                scope = self._scope(series, key)
                scope.reserved = max(scope.reserved - amount, 0)
                self.changed.add(key)
        self.changed_calls.add(call_id)

    def _scope(self, series: Series, key: SeriesKey) -> ScopeUsage:
        scope = self.live.get(key)
        if scope is None:
            stored = self.load(usage_key(key))
            scope = ScopeUsage.load(series, stored) if stored else ScopeUsage(series.new_ring())
            self.live[key] = scope
        return scope

    def _add_top(self, scope: ScopeUsage, series: Series, event: Any, at_s: float, amount: int) -> None:
        since = series.stretch(at_s)
        if since > scope.top_since:
            scope.top, scope.top_since = {}, since
        elif since < scope.top_since:
            return
        name = _contributor(series, event)
        top = scope.top
        if name in top:
            top[name] += amount
        elif len(top) < TOP:
            top[name] = amount
        else:
            # Space-saving: the newcomer takes the place, and the count, of the smallest; big spenders always stay.
            least = min(top, key=top.__getitem__)
            top[name] = top.pop(least) + amount

    def records(self) -> list[tuple[bytes, bytes]]:
        """What changed since the last flush, as (key, value) for the usage topic; an empty value takes a key back."""
        found = [(usage_key(key), self.live[key].dump()) for key in self.changed]
        for call_id in self.changed_calls:
            held = self.in_flight.get(call_id)
            value = msgspec.json.encode((held.until_ms, held.held)) if held else b""
            found.append((CALL + call_id.encode(), value))
        return found

    def flushed(self) -> None:
        """What changed is stored; let idle scopes go from memory."""
        self.changed.clear()
        self.changed_calls.clear()
        if self.now_s >= self._evict_at:
            self._evict_at = self.now_s + IDLE_S / 10
            self._evict()

    def _evict(self) -> None:
        horizon = self.now_s - IDLE_S
        for key in [key for key, scope in self.live.items() if scope.seen_s < horizon and not scope.reserved]:
            del self.live[key]

    def restore(self, calls: Iterable[tuple[bytes, bytes]]) -> None:
        """Take up the calls in flight, the records of the usage topic whose keys begin with `CALL`. Scopes come back when
        they are asked for."""
        for key, value in calls:
            if value:
                until_ms, held = _in_flight.decode(value)
                self._hold(key[len(CALL) :].decode(), InFlight(until_ms, held))


def _amount(measure: str, event: Any, cost_nano_usd: int | None, unpriced: bool) -> Any:
    """What a response adds to a ring of the measure: a number, (part, whole), or a sketch bin; None adds nothing."""
    match measure:
        case "cost_usd":
            return cost_nano_usd or None
        case "requests":
            return 1
        case "input_tokens":
            return event.input_tokens or None
        case "output_tokens":
            return event.output_tokens or None
        case "total_tokens":
            return (event.input_tokens or 0) + (event.output_tokens or 0) or None
        case "errors":
            return 1 if event.error_type else None
        case "error_rate":
            return (1 if event.error_type else 0, 1)
        case "latency":
            return None if event.latency_s is None else bin_of(event.latency_s)
        case "unpriced":
            return 1 if unpriced else None
        case "finding_rate":
            return (0, 1)
    return None  # findings come from the guardrails


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


def _contributor(series: Series, event: Any) -> str:
    """Who, below the scope, it was: the first of user, team, service that the scope leaves open, else the model."""
    for name in ("user", "team", "service"):
        if name not in series.fields and (value := _field(event, name)) is not None:
            return f"{name}={value}"
    return f"model={_field(event, 'model')}"
