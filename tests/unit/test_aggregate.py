"""Usage is a plain sum per scope and bucket, however the responses are batched, ordered, split, evicted or reloaded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import NOW_S, finding, line, response, scored
from tidegate.processors.aggregate import LIVE_S, RETENTION_S, ScopeSets, UsageKey, UsageState
from tidegate.processors.sketch import bin_of
from tidegate.schemas.call import TOKEN_FIELDS
from tidegate.schemas.finding import Outcome
from tidegate.schemas.hot import decode_event
from tidegate.schemas.settings import DEFAULT_SCOPE_SETS
from tidegate.schemas.usage import BUCKET_S, COUNTERS, ERROR_PLACES, LATENCY_BINS, BucketUnit, Usage

SETS = (*DEFAULT_SCOPE_SETS, ("prompt_name",))
HOUR_S, DAY_S = 3_600, 86_400
# Behind the newest possible event, so that every bucket unit has live, evicted and never-seen buckets.
AGES_S = st.one_of(
    st.integers(0, 300),
    st.integers(0, 4 * HOUR_S),
    st.integers(0, RETENTION_S["minute"] - DAY_S),
    st.sampled_from([LIVE_S["minute"] + around for around in (-61, -60, -59, 0, 59, 60, 61)]),
    st.sampled_from([LIVE_S["hour"] + HOUR_S + around for around in (-1, 0, 1)]),
    st.sampled_from([LIVE_S["day"] + DAY_S + around for around in (-1, 0, 1)]),
)


@dataclass(frozen=True, slots=True)
class Counted:
    """A response event, when it began, and what it cost; or a verdict on a call that began then."""

    event: Any
    started_s: float
    cost_nano_usd: int | None

    @property
    def is_verdict(self) -> bool:
        return hasattr(self.event, "outcome")

    def add_to(self, state: UsageState) -> None:
        if self.is_verdict:
            state.add_scored(self.event, self.started_s)
        else:
            state.add(self.event, self.started_s, self.cost_nano_usd)


@st.composite
def counted(draw: st.DrawFn) -> Counted:
    maybe = st.booleans()
    fields: dict[str, Any] = {
        "tenant": draw(st.sampled_from(["harbor-health", "lakeside", None])),
        "team": draw(st.sampled_from(["pharmacy", None])),
        "user": draw(st.sampled_from(["u1", "u2", None])),
        "prompt_name": draw(st.sampled_from(["triage", None])),
        "prompt_version": draw(st.sampled_from(["2.1", None])),
        "provider_name": draw(st.sampled_from(["openai", None])),
        "response_model": draw(st.sampled_from(["gpt-4o-2024-08-06", None])),
    }
    started_s = NOW_S + DAY_S // 2 - draw(AGES_S) + draw(st.sampled_from([0.0, 0.25, 0.999]))
    if draw(st.integers(0, 3)) == 0:
        fields |= {
            "request_model": draw(st.sampled_from(["gpt-4o", None])),
            "outcome": draw(st.sampled_from(get_args(Outcome))),
            "findings": [finding()] * draw(st.integers(0, 3)),
            "more_findings": draw(st.sampled_from([0, 0, 7])),
        }
        return Counted(decode_event(line(scored(**fields))), started_s, None)
    fields |= {
        "input_tokens": draw(st.sampled_from([None, 0, 1_000, 1_000_000_000])),
        "output_tokens": draw(st.sampled_from([None, 0, 7])),
        "latency_s": draw(st.sampled_from([None, 0.0, 0.8, 604_800.0])),
        "time_to_first_token_s": draw(st.sampled_from([None, 0.2])),
        "error_type": draw(st.sampled_from([None, None, "rate_limit", "timeout"])),
        "cache_hit": draw(st.sampled_from([None, True, False])),
    }
    if draw(maybe):
        fields["input_audio_tokens"] = 3
    cost = draw(st.sampled_from([None, 0, 1, 2_500_000, 2**53 + 1]))
    return Counted(decode_event(line(response(**fields))), started_s, cost)


def brute_force(calls: list[Counted]) -> dict[UsageKey, Any]:
    """One call after another, one scope set after another, one bucket after another."""
    sums: dict[UsageKey, tuple[Counter[str], Counter[str], Counter[int], Counter[int]]] = {}
    for call in calls:
        event = call.event
        found = len(event.findings) + event.more_findings if call.is_verdict else 0
        judged = call.is_verdict and event.outcome in ("scored", "partial")
        if call.is_verdict and not judged and not found:
            continue
        for fields in SETS:
            values = tuple(
                (event.response_model or event.request_model) if name == "model" else getattr(event, name) for name in fields
            )
            for bucket, length_s in BUCKET_S.items():
                start = int(call.started_s // length_s) * length_s
                key = UsageKey(fields, values, bucket, start)
                counts, errors, latency, ttft = sums.setdefault(key, (Counter(), Counter(), Counter(), Counter()))
                counts["scored"] += judged
                counts["findings"] += found
                if call.is_verdict:
                    continue
                counts["requests"] += 1
                counts["errors"] += event.error_type is not None
                counts["cache_hits"] += event.cache_hit is True
                counts["cost_nano_usd"] += call.cost_nano_usd or 0
                counts["unpriced"] += call.cost_nano_usd is None
                counts["unknown_tokens"] += event.input_tokens is None and event.output_tokens is None
                for name in TOKEN_FIELDS:
                    counts[name] += getattr(event, name) or 0
                if event.error_type is not None:
                    errors[event.error_type] += 1
                if event.latency_s is not None:
                    latency[bin_of(event.latency_s)] += 1
                if event.time_to_first_token_s is not None:
                    ttft[bin_of(event.time_to_first_token_s)] += 1
    return {key: ([counts[name] for name in COUNTERS], *map(dict, rest)) for key, (counts, *rest) in sums.items()}


@dataclass(slots=True)
class Stored:
    """What an engine keeps: buckets by key as bytes, and the watermark. `loads` are the keys that were asked for."""

    buckets: dict[bytes, bytes] = field(default_factory=dict)
    watermark_s: int = 0
    too_old: int = 0
    loads: list[UsageKey] = field(default_factory=list)

    def open(self) -> UsageState:
        """The state after a restart: the live buckets from the store, the others only when asked for."""
        state = UsageState(ScopeSets(SETS), self._load)
        state.watermark_s, state.too_old = self.watermark_s, self.too_old
        for stored_key, value in self.buckets.items():
            key = UsageKey.load(stored_key)
            if key.start >= self.watermark_s - BUCKET_S[key.bucket] - LIVE_S[key.bucket]:
                state.live[key] = Usage.load(value)
        return state

    def _load(self, key: UsageKey) -> Usage | None:
        self.loads.append(key)
        value = self.buckets.get(key.dump())
        return None if value is None else Usage.load(value)

    def flush(self, state: UsageState) -> None:
        for key in state.changed:
            self.buckets[key.dump()] = state.live[key].dump()
        self.watermark_s, self.too_old = state.watermark_s, state.too_old
        state.flushed()

    def read(self) -> dict[UsageKey, Any]:
        usages = {UsageKey.load(key): Usage.load(value) for key, value in self.buckets.items()}
        return {key: (usage.counts, usage.errors, usage.latency, usage.ttft) for key, usage in usages.items()}


# After a call: nothing, roll up, flush as well, or flush and start again.
pauses = st.sampled_from(["", "", "", "roll_up", "flush", "flush", "restart"])


def run(calls: list[Counted], after: list[str]) -> Stored:
    stored = Stored()
    state = stored.open()
    for call, pause in zip(calls, after, strict=True):
        call.add_to(state)
        if pause:
            state.roll_up()
        if pause in ("flush", "restart"):
            stored.flush(state)
        if pause == "restart":
            state = stored.open()
    state.roll_up()
    stored.flush(state)
    return stored


@given(st.lists(st.tuples(counted(), pauses), max_size=25))
def test_any_batching_order_eviction_and_restart_gives_the_plain_sum(steps: list[tuple[Counted, str]]) -> None:
    calls = [call for call, _ in steps]

    stored = run(calls, [pause for _, pause in steps])

    assert stored.read() == brute_force(calls)
    assert stored.too_old == 0


@given(st.lists(counted(), min_size=2, max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_responses_changes_nothing(calls: list[Counted], random: Any) -> None:
    shuffled = random.sample(calls, len(calls))

    assert run(calls, ["flush"] * len(calls)).read() == run(shuffled, ["restart"] * len(calls)).read()


@given(st.lists(counted(), min_size=1, max_size=12), st.data())
def test_partitions_add_up_and_absolute_counters_may_come_twice(calls: list[Counted], data: st.DataObject) -> None:
    split = data.draw(st.lists(st.integers(0, 2), min_size=len(calls), max_size=len(calls)))
    received: list[tuple[bytes, int, int, bytes]] = []
    for partition in range(3):
        stored, mine = Stored(), [call for call, at in zip(calls, split, strict=True) if at == partition]
        state = stored.open()
        for offset, call in enumerate(mine):
            call.add_to(state)
            state.roll_up()
            received += [(key.dump(), partition, offset, state.live[key].dump()) for key in state.changed]
            stored.flush(state)
    doubled = received + data.draw(st.permutations(received))

    latest: dict[tuple[bytes, int], tuple[int, bytes]] = {}
    for key, partition, offset, value in doubled:
        if (key, partition) not in latest or offset >= latest[key, partition][0]:
            latest[key, partition] = (offset, value)

    requests, cost = Counter[Any](), Counter[Any]()
    for (key, _), (_, value) in latest.items():
        counts = Usage.load(value).counts
        requests[UsageKey.load(key)] += counts[COUNTERS.index("requests")]
        cost[UsageKey.load(key)] += counts[COUNTERS.index("cost_nano_usd")]
    truth = {key: counts for key, (counts, *_) in brute_force(calls).items()}
    assert requests == {key: counts[COUNTERS.index("requests")] for key, counts in truth.items()}
    assert cost == Counter({key: counts[COUNTERS.index("cost_nano_usd")] for key, counts in truth.items()})


def call_at(started_s: float) -> Counted:
    return Counted(decode_event(line(response())), started_s, 5)


def test_memory_holds_what_is_near_the_watermark_and_fetches_the_rest() -> None:
    stored = Stored()
    state = stored.open()
    old, new = NOW_S, NOW_S + 3 * HOUR_S
    for started_s in (old, new):
        state.add(call_at(started_s).event, started_s, 5)
        state.roll_up()
        stored.flush(state)
    in_memory = {(key.bucket, key.start) for key in state.live}

    state.add(call_at(old).event, old, 5)
    state.roll_up()
    fetched = {(key.bucket, key.start) for key in stored.loads}
    stored.flush(state)

    assert ("minute", old) not in in_memory
    assert ("day", old // DAY_S * DAY_S) in in_memory
    assert fetched == {("minute", old)}
    assert stored.read()[UsageKey((), (), "minute", old)][0][0] == 2
    assert ("minute", old) not in {(key.bucket, key.start) for key in state.live}


def test_a_stragglers_bucket_within_the_live_span_costs_no_look_up() -> None:
    calls = [call_at(NOW_S), call_at(NOW_S - LIVE_S["minute"] - 59), call_at(NOW_S - 60)]

    stored = run(calls, ["flush"] * len(calls))

    assert stored.loads == []


@pytest.mark.parametrize("bucket", ["minute", "hour", "day"])
def test_an_event_past_a_units_retention_is_counted_as_too_old_there_and_nowhere_else(bucket: BucketUnit) -> None:
    stored = Stored()
    state = stored.open()
    newest = NOW_S // DAY_S * DAY_S + 10 * DAY_S
    start = newest - RETENTION_S[bucket] - BUCKET_S[bucket]  # the oldest bucket that is still kept
    state.add(call_at(newest).event, newest, 5)
    state.roll_up()
    stored.flush(state)

    for started_s in (start, start - 1, start - 1):
        state.add(call_at(started_s).event, started_s, 5)
    state.roll_up()
    stored.flush(state)

    found = stored.read()
    assert found[UsageKey((), (), bucket, start // BUCKET_S[bucket] * BUCKET_S[bucket])][0][0] == 1
    assert UsageKey((), (), bucket, (start - 1) // BUCKET_S[bucket] * BUCKET_S[bucket]) not in found
    # Each of the two events is missing from this unit's bucket in every scope set, and from those of shorter-lived units.
    shorter = [name for name in BUCKET_S if RETENTION_S[name] < RETENTION_S[bucket]]
    assert stored.too_old == len(SETS) * (2 + 3 * len(shorter))
    longer = [name for name in BUCKET_S if RETENTION_S[name] > RETENTION_S[bucket]]
    for name in longer:
        assert sum(counts[0] for key, (counts, *_) in found.items() if key.fields == () and key.bucket == name) == 4


def test_too_old_survives_a_restart() -> None:
    calls = [call_at(NOW_S), call_at(NOW_S - RETENTION_S["minute"] - HOUR_S)]

    stored = run(calls, ["restart", "restart"])

    assert stored.too_old == stored.open().too_old == len(SETS)


def test_a_key_comes_back_from_its_bytes() -> None:
    key = UsageKey(("tenant", "team"), ("harbor-health", None), "hour", NOW_S)

    assert UsageKey.load(key.dump()) == key


def test_a_stored_bucket_of_before_a_counter_was_added_reads_as_zero_there() -> None:
    old = msgspec.msgpack.encode({0: 3, 1: 1, ERROR_PLACES["timeout"]: 1, LATENCY_BINS - 11: 3})

    usage = Usage.load(old)

    assert usage.counts == [3, 1] + [0] * (len(COUNTERS) - 2)
    assert (usage.errors, usage.latency, usage.ttft) == ({"timeout": 1}, {-11: 3}, {})


def test_each_token_field_is_added_up_in_its_own_place() -> None:
    state = UsageState(ScopeSets(((),)))
    counts = {name: 10**place for place, name in enumerate(reversed(TOKEN_FIELDS))}
    event = decode_event(line(response(**counts)))

    for _ in range(2):
        state.add(event, NOW_S, 5)
    state.roll_up()

    total = state.live[UsageKey((), (), "minute", NOW_S)].counts
    assert dict(zip(COUNTERS, total, strict=True)).items() >= {name: 2 * count for name, count in counts.items()}.items()


def test_a_verdict_too_old_for_its_bucket_is_no_request_that_was_left_out() -> None:
    state = UsageState(ScopeSets(((),)))
    state.add(call_at(NOW_S).event, NOW_S, 5)
    state.roll_up()

    state.add_scored(decode_event(line(scored())), NOW_S - RETENTION_S["day"] - 2 * DAY_S)
    state.roll_up()

    assert state.too_old == 0


def test_scope_sets_need_not_name_the_model() -> None:
    state = UsageState(ScopeSets((("tenant",),)))

    state.add(call_at(NOW_S).event, NOW_S, 5)
    state.roll_up()

    assert {key.values for key in state.live} == {("harbor-health",)}
