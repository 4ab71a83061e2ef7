"""Series: what the meter counts for policies is a plain sum, through any batches, restarts and evictions; what announced
calls hold is let go of again, once."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policing import Call, counted_kind, counts, feed, findings_of, policy, scope_of
from support import NOW_MS, NOW_S, finding
from tidegate.processors.series import (
    CALL,
    IDLE_S,
    TOP,
    History,
    Series,
    SeriesState,
    parse_usage_key,
    series_of,
    usage_key,
    usage_prefix,
)
from tidegate.processors.sketch import bin_of
from tidegate.processors.windows import RatioRing, Ring, SketchRing
from tidegate.schemas.policy import Policy

MEASURES = (
    policy("requests", window={"rolling": "1m"}),
    policy("cost", measure="cost_usd", limit=1, scope=("tenant", "user")),
    policy("input", measure="input_tokens", limit=1, window={"calendar": "hour"}, scope=()),
    policy("output", measure="output_tokens", limit=1, match={"team": "triage"}),
    policy("total", measure="total_tokens", limit=1, scope=("model", "label.ward")),
    policy("errors", measure="errors", limit=1, window={"calendar": "week", "time_zone": "Asia/Kolkata"}),
    policy("unpriced", measure="unpriced", limit=1, scope=("label.ward",)),
    policy("rate", measure="error_rate", limit="0.5", match={"label.ward": ["north"]}),
    policy("latency", measure="latency_p95_s", limit=1, actions=[{"do": "alert"}], window={"rolling": "5m"}),
    policy("findings", measure="findings", limit=1),
    policy("leaks", measure="findings", finding_type="phi_leak", limit=1, scope=("team", "model"), window={"rolling": "1m"}),
    policy("people", measure="findings", finding_type="PERSON", limit=1, scope=(), match={"user": ["ana"]}),
    policy("share", measure="finding_rate", limit="0.5", window={"calendar": "hour"}),
    policy("phi", measure="finding_rate", finding_type="phi", limit="0.5", scope=("user",)),
)


class Meter:
    """A SeriesState on a usage topic in memory."""

    def __init__(self, *policies: Policy) -> None:
        self.policies = policies
        self.topic: dict[bytes, bytes] = {}
        self.reads = 0
        self.state = self.start()

    def start(self) -> SeriesState:
        def load(key: bytes) -> bytes | None:
            self.reads += 1
            return self.topic.get(key)

        self.state = SeriesState(series_of(self.policies), load)
        self.state.restore((key, value) for key, value in self.topic.items() if key.startswith(CALL))
        return self.state

    def feed(self, *calls: Call) -> None:
        for call in calls:
            feed(self.state, call)

    def flush(self) -> dict[bytes, bytes]:
        records = dict(self.state.records())
        for key, value in records.items():
            self.topic.pop(key, None)
            self.topic[key] = value
        self.state.flushed()
        return records

    def usage(self, policy: Policy, *values: str | None) -> Any:
        return self.state.counters[Series.of(policy).id].scope(values)

    def live(self) -> int:
        return sum(len(counter.live) for counter in self.state.counters.values())


def some_calls(size: int, chance: random.Random) -> list[Call]:
    now = float(NOW_S)
    found = []
    for number in range(size):
        now += chance.choice([0.0, 0.25, 2.0, 59.0, 300.0, 4_000.0])
        fields = {
            "tenant": chance.choice([None, "harbor", "lakeside"]),
            "user": chance.choice([None, "ana", "ben"]),
            "team": chance.choice([None, "triage"]),
            "labels": chance.choice([None, {"ward": "north"}, {"ward": "south", "other": "x"}]),
            "response_model": chance.choice([None, "gpt-4o-2024"]),
            "error_type": chance.choice([None, "timeout"]),
            "latency_s": chance.choice([None, 0.1, 2.5, 30.0]),
            "input_tokens": chance.choice([None, 0, 10, 4_000]),
            "output_tokens": chance.choice([None, 7]),
        }
        started = now + chance.choice([0.0, -1.0, -50.0, -3_700.0, 20.0, 50_000.0])
        if chance.random() < 0.4:
            of_call = {name: fields[name] for name in ("tenant", "user", "team", "response_model")}
            found.append(Call(now, f"call-{number}", "scored", started, fields=of_call | verdict(chance)))
            continue
        found.append(Call(now, f"call-{number}", started_s=started, cost=chance.choice([None, 0, 5, 10**9]), fields=fields))
    return found


def verdict(chance: random.Random) -> dict[str, Any]:
    return {
        "request_model": chance.choice([None, "gpt-4o"]),
        "outcome": chance.choice(["scored", "scored", "partial", "sampled_out", "quarantined"]),
        "detectors": chance.choice([None, {"phi": "1"}, {"toxicity": "1"}]),
        "failed": chance.choice([None, None, {"phi": "timeout"}]),
        "findings": [
            finding(type=chance.choice(["PERSON", "US_SSN"]), leak=chance.random() < 0.4)
            for _ in range(chance.choice([0, 0, 1, 3]))
        ]
        + [finding(detector="toxicity", type="insult")] * chance.randint(0, 1),
        "more_findings": chance.choice([0, 0, 9]),
    }


def can_tell(policy: Policy, call: Call) -> bool:
    if call.fields["outcome"] not in ("scored", "partial"):
        return False
    if policy.finding_type is None:
        return True
    return "phi" not in (call.fields["failed"] or {}) and "phi" in (call.fields["detectors"] or {"phi": "1"})


def expected(policy: Policy, calls: list[Call], values: Any, now: float) -> Any:
    """By plain sums: an amount, (part, whole), or how many calls there are of each sketch bin."""
    mine = [call for call in calls if scope_of(policy, call) == values and counts(policy, call.at_s, now)]
    mine = [call for call in mine if call.kind == counted_kind(policy)]
    if policy.measure == "findings":
        return sum(findings_of(policy, call) for call in mine)
    if policy.measure == "finding_rate":
        told = [call for call in mine if can_tell(policy, call)]
        return sum(findings_of(policy, call) > 0 for call in told), len(told)
    errors = sum(call.fields.get("error_type") is not None for call in mine)
    tokens = {name: sum(call.fields.get(f"{name}_tokens") or 0 for call in mine) for name in ("input", "output")}
    return {
        "requests": len(mine),
        "cost_usd": sum(call.cost or 0 for call in mine),
        "input_tokens": tokens["input"],
        "output_tokens": tokens["output"],
        "total_tokens": tokens["input"] + tokens["output"],
        "errors": errors,
        "unpriced": sum(call.cost is None for call in mine),
        "error_rate": (errors, len(mine)),
        "latency_p95_s": Counter(bin_of(call.fields["latency_s"]) for call in mine if call.fields["latency_s"] is not None),
    }[policy.measure]


def counted(ring: Ring | RatioRing | SketchRing, now: float) -> Any:
    if isinstance(ring, Ring):
        return ring.sum(now)
    return ring.counts(now) if isinstance(ring, RatioRing) else ring.bins(now)


@given(st.integers(0, 40), st.integers(0, 2**32).map(random.Random))
def test_every_measure_is_a_plain_sum_through_batches_restarts_and_evictions(size: int, chance: random.Random) -> None:
    meter, calls = Meter(*MEASURES), some_calls(size, chance)

    flushed = 0
    while flushed < size:
        batch = calls[flushed : flushed + chance.randint(1, 6)]
        meter.feed(*batch)
        if chance.random() < 0.2:
            meter.start()  # what was not flushed is lost and comes again
            continue
        meter.flush()
        flushed += len(batch)
        if chance.random() < 0.3:
            for counter in meter.state.counters.values():
                counter.evict(float("inf"))

    now = calls[-1].appended_s if calls else NOW_S
    for each in MEASURES:
        for values in {values for call in calls if (values := scope_of(each, call)) is not None}:
            assert counted(meter.usage(each, *values).ring, now) == expected(each, calls, values, now), each.name


def test_policies_that_count_the_same_share_a_series() -> None:
    base = policy(match={"team": ["b", "a"]}, measure="latency_p95_s", limit=1, actions=[{"do": "alert"}])
    same = policy("p99", match={"team": ["a", "b"]}, measure="latency_p99_s", limit=5, actions=[{"do": "alert"}])
    others = [
        policy(measure="requests"),
        policy(scope=("user",)),
        policy(window={"rolling": "2h"}),
        policy(window={"calendar": "hour"}),
        policy(match={"team": "a"}),
    ]

    assert Series.of(base).id == Series.of(same).id
    assert len({Series.of(each).id for each in (base, *others)}) == 6


def test_a_usage_key_tells_scopes_apart_and_begins_with_its_series() -> None:
    values = ('a","b', None, "é|")

    key = usage_key(("0123456789abcdef", values))

    assert parse_usage_key(key) == ("0123456789abcdef", values)
    assert key.startswith(usage_prefix("0123456789abcdef"))
    assert parse_usage_key(b"call|x") is None


def test_what_was_flushed_comes_back_byte_for_byte() -> None:
    meter, calls = Meter(*MEASURES), some_calls(60, random.Random(7))
    meter.feed(*calls)
    before = {key: value for key, value in meter.flush().items() if parse_usage_key(key)}

    meter.start()
    after = {}
    for key in before:
        parsed = parse_usage_key(key)
        assert parsed is not None
        after[key] = meter.state.counters[parsed[0]].scope(parsed[1]).dump()

    assert after == before


def test_a_flush_writes_only_what_has_changed_in_the_order_of_the_log() -> None:
    each = policy()
    meter = Meter(each)
    meter.feed(*(Call(NOW_S, f"call-{n}", fields={"tenant": f"tenant-{n % 3}"}) for n in range(9)))

    first = list(meter.flush())
    meter.feed(Call(NOW_S + 1, "late", fields={"tenant": "tenant-1"}))
    second = list(meter.flush())

    key = [usage_key((Series.of(each).id, (f"tenant-{n}",))) for n in range(3)]
    assert (first, second, list(meter.flush())) == (key, [key[1]], [])


def test_idle_scopes_leave_memory_and_their_next_event_brings_them_back() -> None:
    each = policy(window={"rolling": "1d"})
    meter = Meter(each)
    meter.feed(*(Call(NOW_S, f"call-{n}", fields={"tenant": f"tenant-{n}"}) for n in range(100)))
    meter.flush()

    meter.feed(Call(NOW_S + IDLE_S + 1, "other", fields={"tenant": "other"}))
    meter.flush()
    left = meter.live()
    meter.feed(Call(NOW_S + IDLE_S + 2, "again", fields={"tenant": "tenant-7"}))

    assert left == 1
    assert meter.usage(each, "tenant-7").ring.sum(NOW_S + IDLE_S + 2) == 2


def test_a_scope_that_holds_something_stays() -> None:
    meter = Meter(policy())
    meter.feed(Call(NOW_S, "a", "request", fields={"tenant": "holds"}), Call(NOW_S + 2 * IDLE_S, "b"))
    meter.flush()

    assert meter.live() == 2


def test_the_biggest_spenders_stay_among_many() -> None:
    each = policy(scope=("tenant",))
    meter = Meter(each)
    names = [f"user-{n}" for n in range(50)] + ["big"] * 60 + ["bigger"] * 90
    random.Random(1).shuffle(names)

    meter.feed(*(Call(NOW_S, f"call-{n}", fields={"user": name}) for n, name in enumerate(names)))

    top = meter.usage(each, "harbor-health").top
    largest = sorted(top, key=top.__getitem__, reverse=True)
    assert len(top) == TOP
    assert largest[:2] == ["user=bigger", "user=big"]
    # the promise of space-saving: never under, and over by the smallest at most
    assert 0 <= top["user=big"] - 60 <= min(top.values())


def test_spenders_are_told_of_the_newest_stretch_only() -> None:
    each = policy()
    meter = Meter(each)
    stretch = NOW_S // 3_600 * 3_600

    meter.feed(
        Call(stretch + 1, "a", fields={"user": "ana"}),
        Call(stretch + 3_601, "b", fields={"team": "triage"}),
        Call(stretch + 3_602, "c", started_s=stretch + 5, fields={"user": "late"}),
        Call(stretch + 3_603, "d", fields={"service": "chat"}),
        Call(stretch + 3_604, "e"),
    )

    assert meter.usage(each, "harbor-health").top == {"team=triage": 1, "service=chat": 1, "model=gpt-4o": 1}


# Announced calls


def test_a_call_that_ends_within_its_flush_leaves_no_record() -> None:
    meter = Meter(policy())
    meter.feed(Call(NOW_S, "a", "request", fields={"tenant": "t"}), Call(NOW_S, "a", fields={"tenant": "t"}))

    assert [key for key in meter.flush() if key.startswith(CALL)] == []


def test_a_call_in_flight_is_stored_and_its_end_takes_the_record_back() -> None:
    meter = Meter(policy())
    meter.feed(Call(NOW_S, "a", "request", fields={"tenant": "t"}))
    stored = meter.flush()
    # over and announced anew, and over again, within one flush
    meter.feed(*(Call(NOW_S, "a", kind, fields={"tenant": "t"}) for kind in ("response", "request", "response")))

    assert stored[CALL + b"a"]
    assert meter.flush()[CALL + b"a"] == b""


def test_calls_are_given_up_on_in_the_order_in_which_they_were_announced_also_after_a_restart() -> None:
    each = policy()
    meter = Meter(each)
    for number in range(4):
        meter.feed(Call(NOW_S + number, f"call-{number}", "request", fields={"tenant": "t"}))
        meter.flush()
    meter.start()

    left = []
    for number in range(5):
        meter.state.expire(NOW_MS + 600_000 + 1_000 * number - 1)
        left.append((list(meter.state.in_flight), meter.usage(each, "t").reserved))

    names = [f"call-{number}" for number in range(4)]
    assert left == [(names[number:], 4 - number) for number in range(5)]


def test_nothing_is_due_before_its_time() -> None:
    meter = Meter(policy())
    meter.feed(Call(NOW_S, "a", "request", fields={"tenant": "t"}))

    assert (meter.state.due(NOW_MS + 599_999), meter.state.due(NOW_MS + 600_000)) == (False, True)


def test_early_responses_are_remembered_in_bounded_memory() -> None:
    meter = Meter(policy())

    meter.feed(*(Call(NOW_S, f"call-{n}") for n in range(6_000)))

    assert len(meter.state._early) + len(meter.state._earlier) <= 4_096


def test_of_a_series_that_is_watched_no_more_nothing_is_held_or_written() -> None:
    keeps, goes = policy("keeps"), policy("goes", window={"rolling": "2h"})
    meter = Meter(keeps, goes)
    meter.feed(Call(NOW_S, "a", "request", fields={"tenant": "t"}), Call(NOW_S, "b", fields={"tenant": "t"}))

    meter.state.watch(series_of([keeps]))
    meter.feed(Call(NOW_S + 1, "a", fields={"tenant": "t"}))

    assert {parse_usage_key(key) for key in meter.flush()} == {(Series.of(keeps).id, ("t",))}
    assert (meter.usage(keeps, "t").reserved, meter.usage(keeps, "t").ring.sum(NOW_S + 1)) == (0, 2)


# What was before


@pytest.mark.parametrize("each", MEASURES, ids=lambda each: each.name)
def test_a_history_counts_as_if_it_had_been_watched(each: Policy) -> None:
    now, scope = NOW_S + 30.0, tuple("x" for _ in each.scope)
    before: dict[str, Any] = {"error_rate": (2, 5), "finding_rate": (2, 5), "latency_p95_s": {bin_of(0.1): 3, bin_of(2.5): 1}}
    amount = before.get(each.measure, 5)
    meter = Meter(each)
    counter = meter.state.counters[Series.of(each).id]

    counter.seed([History(scope, now - 1, amount), History(scope, now - 86_400 * 40, amount)], [(scope, "user=ana", 5)], now)
    counter.seed([History(scope, now - 1, amount)], [(scope, "user=ben", 2)], now)

    usage = counter.scope(scope)
    twice = {"error_rate": (4, 10), "finding_rate": (4, 10), "latency_p95_s": {bin_of(0.1): 6, bin_of(2.5): 2}}.get(
        each.measure, 10
    )
    assert counted(usage.ring, now) == twice
    assert usage.top == {"user=ana": 5, "user=ben": 2}
    assert len(meter.flush()) == 1
