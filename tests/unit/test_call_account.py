"""What Prometheus is told of calls is a plain sum by tenant, provider and model, bounded, and only what is durable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain_text
from support import NOW_S, LogRecord, envelope, finding, response, scored
from tidegate.processors import exposition
from tidegate.processors.aggregate import ScopeSets, UsageState
from tidegate.processors.call_account import MOST_PROVIDERS, CallAccount
from tidegate.processors.call_metrics import call_metrics
from tidegate.processors.distributed import changelog
from tidegate.processors.distributed.changelog import Memory
from tidegate.processors.meter import MeterState, meter
from tidegate.processors.pricing import PriceBook
from tidegate.schemas.metrics import CALL_SECONDS
from tidegate.schemas.settings import DEFAULT_SCOPE_SETS

BOOK = PriceBook.load()
# gpt-4o costs 2.50 US dollars a million tokens in and 10 out; of the other no price is known.
USD_A_TOKEN = {"gpt-4o": (2.5e-6, 10e-6)}
EDGES = (
    "0.1",
    "0.25",
    "0.5",
    "1.0",
    "1.5",
    "2.0",
    "3.0",
    "5.0",
    "8.0",
    "13.0",
    "20.0",
    "30.0",
    "60.0",
    "120.0",
    "300.0",
    "+Inf",
)


def new_state(sets: Any = DEFAULT_SCOPE_SETS, most: int = 200) -> MeterState:
    usage = UsageState(ScopeSets(sets))
    usage.account.most = most
    return MeterState(0, usage)


def count(state: MeterState, events: Sequence[dict[str, Any]], flushes: Sequence[int] = ()) -> None:
    """Through the meter, an envelope each, flushed after these; and at the end."""
    for number, event in enumerate(events):
        record = LogRecord.of(state.next_offset, envelope("triage-1", state.next_offset, [event]))
        meter(state, [record], BOOK, 86_400.0)
        if number in flushes:
            durable(state)
    durable(state)


def durable(state: MeterState) -> None:
    account = state.usage.account
    account.tell(account.copies())
    state.flushed()


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(*states: MeterState) -> Samples:
    """Everything a page shows of calls: (name, labels) to value."""
    text = page(dict(enumerate(state.usage.account for state in states)))
    found = [one for family in plain_text(text) for one in family.samples]
    assert len({(one.name, frozenset(one.labels.items())) for one in found}) == len(found)
    return {(one.name, frozenset(one.labels.items())): one.value for one in found}


def page(accounts: dict[int, CallAccount], accept: str | None = None) -> str:
    registry = CollectorRegistry()
    registry.register(_Collector(accounts))
    return exposition.page(registry, accept)[0].decode()


class _Collector:
    def __init__(self, accounts: dict[int, CallAccount]) -> None:
        self._accounts = accounts

    def collect(self) -> Any:
        return call_metrics(self._accounts)


def of(name: str, found: Samples, **labels: str) -> dict[tuple[str, ...], float]:
    """One metric by the labels that are not given."""
    return {
        tuple(value for key, value in sorted(have) if key not in labels): count
        for (sample, have), count in found.items()
        if sample == name and labels.items() <= dict(have).items()
    }


# sums


calls = st.builds(
    lambda tenant, provider, model, latency, first, tokens, error, hit: response(
        tenant=tenant,
        provider_name=provider,
        request_model=model,
        latency_s=latency,
        time_to_first_token_s=first if latency is not None and first <= latency else None,
        input_tokens=tokens,
        output_tokens=None if error else 20,
        error_type=error,
        cache_hit=hit,
    ),
    st.sampled_from(["harbor-health", "st-anne", None]),
    st.sampled_from(["openai", "anthropic", None]),
    st.sampled_from(["gpt-4o", "nobody-knows-it"]),
    # Not within 2 % of an edge, where a bin may be on either side.
    st.sampled_from([None, 0.0, 0.07, 0.3, 0.8, 4.0, 100.0, 1_000.0]),
    st.sampled_from([0.07, 0.3]),
    st.sampled_from([None, 0, 1_000]),
    st.sampled_from([None, None, "timeout", "overloaded"]),
    st.sampled_from([None, True]),
)


@given(st.lists(calls, max_size=20), st.sets(st.integers(0, 19)))
def test_what_is_told_is_a_plain_sum_however_it_is_batched(events: list[dict[str, Any]], flushes: set[int]) -> None:
    state = new_state()

    count(state, events, sorted(flushes))

    found, expected = samples(state), Counter[Any]()
    sums = Counter[Any]()
    for event in events:
        tenant, provider = event.get("tenant", "unknown"), event.get("provider_name", "unknown")
        model, error = event["request_model"], event.get("error_type")
        labels = {"tenant": tenant, "provider": provider, "model": model, "partition": "0"}
        expected["llm_requests_total", key(labels, outcome=error or "ok")] += 1
        expected["llm_tokens_total", key(labels, type="input")] += event.get("input_tokens", 0)
        expected["llm_tokens_total", key(labels, type="output")] += event.get("output_tokens", 0)
        expected["llm_cache_hits_total", key(labels)] += event.get("cache_hit", False)
        for name, field in (("llm_latency_seconds", "latency_s"), ("llm_time_to_first_token_seconds", "time_to_first_token_s")):
            if (took_s := event.get(field)) is not None:
                sums[f"{name}_sum", key(labels)] += took_s
                for edge in EDGES:
                    expected[f"{name}_bucket", key(labels, le=edge)] += took_s <= float(edge)
    for what, value in expected.items():
        assert found[what] == value, what
    for what, value in sums.items():
        assert found[what] == pytest.approx(value, rel=0.01, abs=2e-6), what
    assert sum(of("llm_requests_total", found).values()) == len(events)


def key(labels: dict[str, str], **more: str) -> frozenset[tuple[str, str]]:
    return frozenset((labels | more).items())


def test_cost_is_in_dollars_and_what_has_no_price_is_counted_apart() -> None:
    state = new_state()

    count(
        state,
        [response(), response(request_model="nobody-knows-it"), response(cache_hit=True, input_tokens=0, output_tokens=0)],
    )

    found = samples(state)
    inn, out = USD_A_TOKEN["gpt-4o"]
    assert of("llm_cost_total", found, model="gpt-4o") == {
        ("0", "openai", "harbor-health"): pytest.approx(1_000 * inn + 100 * out)
    }
    assert list(of("llm_unpriced_requests_total", found, model="nobody-knows-it").values()) == [1]
    assert list(of("llm_unpriced_requests_total", found, model="gpt-4o").values()) == [0]


def test_edges_of_buckets_are_those_that_are_defined() -> None:
    state = new_state()

    count(state, [response()])

    told = [dict(labels)["le"] for name, labels in samples(state) if name == "llm_latency_seconds_bucket"]
    assert told == list(EDGES)
    assert [float(edge) for edge in EDGES[:-1]] == list(CALL_SECONDS)


def test_partitions_are_told_apart_so_that_one_may_change_hands() -> None:
    one, other = new_state(), new_state()
    count(one, [response()] * 2)
    count(other, [response()] * 3)

    found = samples(one, other)

    assert of("llm_requests_total", found, outcome="ok", tenant="harbor-health", provider="openai", model="gpt-4o") == {
        ("0",): 2,
        ("1",): 3,
    }


# verdicts


def evidence(start: int, end: int) -> dict[str, Any]:
    return {"start": start, "end": end, "score": 0.5, "source": "context", "source_start": 0, "source_end": 9}


def test_a_verdict_counts_who_judged_who_found_something_and_the_claims_that_nothing_bears_out() -> None:
    state = new_state()
    made_up = finding(detector="faithfulness", type="number", start=12, end=14)
    verdict = scored(
        provider_name="openai",
        detectors={"phi": "1", "faithfulness": "2", "toxicity": "1", "somebody-elses": "1"},
        failed={"toxicity": "TimeoutError"},
        findings=[made_up, made_up | {"start": 15, "end": 16}, finding(detector="phi", where="prompt", start=12, end=14)],
        evidence=[evidence(0, 10), evidence(10, 20), evidence(20, 30)],
    )

    count(state, [verdict, scored(provider_name="openai", outcome="sampled_out", detectors=None)])

    found = samples(state)
    where = {"tenant": "harbor-health", "provider": "openai", "model": "gpt-4o", "partition": "0"}
    assert of("llm_judged_total", found, **where) == {("phi",): 1, ("faithfulness",): 1}
    assert of("llm_flagged_total", found, **where) == {("phi",): 1, ("faithfulness",): 1}
    assert of("llm_claims_total", found, **where) == {(): 3}
    assert of("llm_unsupported_claims_total", found, **where) == {(): 1}
    # No call of it was metered here.
    assert of("llm_requests_total", found) == {}


# bounds


def test_what_comes_after_there_is_no_room_is_counted_under_its_provider_and_in_the_end_as_other() -> None:
    state = new_state(most=2)
    providers = [f"provider-{number:02}" for number in range(MOST_PROVIDERS + 5)]
    events = [response(tenant="a"), response(tenant="b")]
    events += [response(tenant=f"t{number}", provider_name=name) for number, name in enumerate(providers)]

    count(state, [*events, response(tenant="a"), response(tenant="c", provider_name=providers[0])])

    found = of("llm_requests_total", samples(state), outcome="ok", partition="0")
    # (model, provider, tenant)
    assert found == {
        ("gpt-4o", "openai", "a"): 2,
        ("gpt-4o", "openai", "b"): 1,
        ("other", providers[0], "other"): 2,
        **{("other", name, "other"): 1 for name in providers[1:MOST_PROVIDERS]},
        ("other", "other", "other"): 5,
    }


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["x", "y", "z"])), max_size=25), st.sets(st.integers(0, 24))
)
def test_who_has_series_of_their_own_does_not_depend_on_batches(whose: list[tuple[str, str]], flushes: set[int]) -> None:
    events = [response(tenant=tenant, provider_name=provider) for tenant, provider in whose]
    one_by_one, batched = new_state(most=3), new_state(most=3)

    count(one_by_one, events, range(len(events)))
    records = [LogRecord.of(number, envelope("triage-1", number, [event])) for number, event in enumerate(events)]
    meter(batched, records, BOOK, 86_400.0)
    durable(batched)

    assert samples(batched) == samples(one_by_one)


def test_other_scope_sets_and_users_change_nothing() -> None:
    plain, narrow = new_state(), new_state(sets=((), ("user",)))
    events = [response(user=user, team=team) for user in ("u1", "u2") for team in ("pharmacy", None)]

    count(plain, events)
    count(narrow, events)

    assert samples(narrow) == samples(plain)
    assert "u1" not in page({0: narrow.usage.account})


# what is durable


def test_nothing_is_told_before_it_is_durable() -> None:
    state = new_state()
    count(state, [response()])
    before = samples(state)

    meter(state, [LogRecord.of(1, envelope("triage-1", 1, [response()]))], BOOK, 86_400.0)

    assert samples(state) == before
    durable(state)
    assert samples(state) != before


def test_a_changelog_brings_it_back_whoever_wrote_last() -> None:
    state, memory, topic = new_state(), Memory(), list[Any]()
    for number in range(3):
        event = response(tenant=f"t{number % 2}")
        meter(state, [LogRecord.of(number, envelope("triage-1", number, [event]))], BOOK, 86_400.0)
        topic.append(changelog.changes(state, memory)[0])
        state.usage.account.tell(state.usage.account.copies())
        changelog.flushed(state, memory)

    # A worker that was frozen wakes and says once more what it said first.
    written = [change for flush in (*topic, topic[0]) for change in flush]
    restored, _ = changelog.restore(0, written, ScopeSets(DEFAULT_SCOPE_SETS))

    assert samples(restored) == samples(state)
    assert of("llm_requests_total", samples(restored), outcome="ok", tenant="t0") == {("gpt-4o", "0", "openai"): 2}


# examples


OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def test_the_slowest_call_and_the_last_error_of_an_envelope_are_told_as_exemplars() -> None:
    state = new_state()
    events = [response("quick", latency_s=0.07), response("slow", latency_s=4.0), response("late", latency_s=None)]
    events[2] |= {"error_type": "timeout"}
    meter(state, [LogRecord.of(0, envelope("triage-1", 0, events))], BOOK, 86_400.0)
    durable(state)

    text = page({0: state.usage.account}, OPENMETRICS)

    shown = {
        (one.name, one.labels.get("le") or one.labels["outcome"]): (
            one.exemplar.labels,
            one.exemplar.value,
            float(one.exemplar.timestamp or 0),
        )
        for family in openmetrics(text)
        for one in family.samples
        if one.exemplar is not None
    }
    assert shown == {
        ("llm_latency_seconds_bucket", "5.0"): ({"call_id": "slow"}, 4.0, NOW_S),
        ("llm_requests_total", "timeout"): ({"call_id": "late"}, 1.0, NOW_S),
    }
    assert "call_id" not in page({0: state.usage.account})


def test_a_call_id_that_is_too_long_for_an_exemplar_is_left_out() -> None:
    state = new_state()
    count(state, [response("x" * 122, latency_s=4.0)])

    assert "call_id" not in page({0: state.usage.account}, OPENMETRICS)
