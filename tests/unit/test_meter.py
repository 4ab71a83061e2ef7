"""The meter: every line in comes out once, a replay changes nothing, and nothing a sender wrote ends in a dead letter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import NOW_MS, NOW_S, LogRecord, envelope, finding, line, rejected, request, response, scored
from tidegate.processors.aggregate import ScopeSets, UsageKey, UsageState
from tidegate.processors.meter import MeterOutputs, MeterState, meter
from tidegate.processors.pricing import PriceBook
from tidegate.schemas.envelope import Envelope
from tidegate.schemas.settings import DEFAULT_SCOPE_SETS
from tidegate.schemas.usage import COUNTERS

MAX_FUTURE_S = 86_400.0
BOOK = PriceBook.load()
CANARY = "Qzxcanary4711"


def new_state(partition: int = 0) -> MeterState:
    return MeterState(partition, UsageState(ScopeSets(DEFAULT_SCOPE_SETS)))


def run(state: MeterState, records: Sequence[LogRecord]) -> MeterOutputs:
    after, outputs = meter(state, records, BOOK, MAX_FUTURE_S)
    assert after is state
    return outputs


def rows(out: list[tuple[dict[str, str], bytes]]) -> list[dict[str, Any]]:
    """The rows of output records. Strict JSON, no key twice, and as many as the header says."""
    found: list[dict[str, Any]] = []
    for headers, value in out:
        lines = [json.loads(row, object_pairs_hook=_no_key_twice) for row in value.split(b"\n")]
        assert headers["count"] == str(len(lines))
        assert {(str(row["source_partition"]), str(row["source_offset"])) for row in lines} == {
            (headers["source_partition"], headers["source_offset"])
        }
        found += lines
    return found


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({key for key, _ in pairs}) == len(pairs)
    return dict(pairs)


def one(event: dict[str, Any] | bytes, **record: Any) -> tuple[MeterState, MeterOutputs]:
    state = new_state()
    return state, run(state, [LogRecord.of(0, envelope("triage-1", 0, [event]), **record)])


def dump(state: MeterState) -> Any:
    """Everything a state holds, comparable."""
    usage = {key.dump(): bucket.dump() for key, bucket in state.usage.live.items()}
    producers = {name: (seen.next_seq, seen.seen_ms, seen.dropped) for name, seen in state.producers.items()}
    return state.next_offset, producers, dict(state.totals), usage, state.usage.watermark_s, state.usage.too_old


def is_accounted_for(totals: dict[str, int]) -> bool:
    outcomes = ("responses", "requests", "scored", "rejected", "dead_letters", "duplicates")
    return totals.get("events", 0) == sum(totals.get(name, 0) for name in outcomes)


def test_a_response_becomes_a_priced_row_that_names_its_source() -> None:
    state = new_state(partition=3)

    outputs = run(state, [LogRecord.of(17, envelope("triage-1", 5, [response(team="pharmacy")]))])

    (row,) = rows(outputs.metered)
    # gpt-4o: 2.50 USD a million in, 10 USD a million out
    assert row["cost_nano_usd"] == 1_000 * 2_500 + 100 * 10_000
    assert (row["price_status"], row["price_book"]) == ("priced", BOOK.version)
    assert (row["producer"], row["seq"], row["source_partition"], row["source_offset"]) == ("triage-1", 5, 3, 17)
    assert row["ingested_at"] == "2026-11-02T08:00:00.000+00:00"
    assert {name: row[name] for name in response(team="pharmacy")} == response(team="pharmacy")
    assert state.next_offset == 18
    assert outputs.requests == outputs.dead_letters == []


def test_the_row_tells_what_the_cache_saved_where_that_is_known() -> None:
    calls = [response(cache_read_tokens=400), response(cache_read_tokens=0), response(), response(request_model="unheard-of")]

    outputs = run(new_state(), [LogRecord.of(0, envelope("p", 0, [*calls, response(cache_read_tokens=9, cache_hit=True)]))])

    # gpt-4o: 2.50 USD a million in, 1.25 from the cache
    told = [row.get("cache_savings_nano_usd") for row in rows(outputs.metered)]
    assert told == [400 * 1_250, 0, None, None, 0]


def test_usage_of_every_scope_set_gets_the_call() -> None:
    state, _ = one(response(team="pharmacy"))

    minute = {key.fields: usage.counts for key, usage in state.usage.live.items() if key.bucket == "minute"}
    assert minute.keys() == set(DEFAULT_SCOPE_SETS)
    assert {counts[COUNTERS.index("cost_nano_usd")] for counts in minute.values()} == {3_500_000}
    assert UsageKey(("tenant", "team"), ("harbor-health", "pharmacy"), "day", NOW_S // 86_400 * 86_400) in state.usage.live


def test_a_request_becomes_a_row_of_its_own_and_no_usage() -> None:
    state, outputs = one(request(estimated_input_tokens=900))

    (row,) = rows(outputs.requests)
    assert (row["call_id"], row["estimated_input_tokens"], row["seq"]) == ("call-1", 900, 0)
    assert outputs.metered == []
    assert state.usage.live == {}


def test_a_verdict_becomes_a_row_of_findings_that_names_its_source_and_costs_nothing() -> None:
    found = [finding(), finding(type="PERSON", leak=True)]
    state = new_state(partition=3)

    outputs = run(state, [LogRecord.of(17, envelope("guardrails:triage-1", 41, [scored(team="pharmacy", findings=found)]))])

    (row,) = rows(outputs.findings)
    assert (row["producer"], row["seq"], row["source_partition"], row["source_offset"]) == ("guardrails:triage-1", 41, 3, 17)
    assert {name: row[name] for name in scored(team="pharmacy", findings=found)} == scored(team="pharmacy", findings=found)
    assert outputs.metered == outputs.requests == outputs.dead_letters == []
    day = state.usage.live[UsageKey(("tenant", "team"), ("harbor-health", "pharmacy"), "day", NOW_S // 86_400 * 86_400)]
    counts = dict(zip(COUNTERS, day.counts, strict=True))
    assert {name: count for name, count in counts.items() if count} == {"scored": 1, "findings": 2}
    assert state.totals == {"envelopes": 1, "events": 1, "scored": 1}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"outcome": "scored"}, (1, 0)),
        ({"outcome": "partial", "findings": [finding()], "more_findings": 4}, (1, 5)),
        ({"outcome": "sampled_out"}, None),
        ({"outcome": "quarantined"}, None),
        ({"outcome": "hashed", "request_model": None}, None),
        ({"outcome": "scored", "request_model": None}, (1, 0)),
    ],
)
def test_a_call_that_nobody_judged_counts_nowhere_as_clean(fields: dict[str, Any], expected: tuple[int, int] | None) -> None:
    state, outputs = one(scored(**fields))

    assert len(rows(outputs.findings)) == state.totals["scored"] == 1
    usage = state.usage.live.get(UsageKey((), (), "minute", NOW_S))
    found = usage and tuple(usage.counts[COUNTERS.index(name)] for name in ("scored", "findings"))
    assert found == expected


@pytest.mark.parametrize("started_at", ["2026-11-03T08:00:01Z", "2014-12-31T23:59:59Z"])
def test_a_verdict_on_a_call_with_a_mad_clock_is_a_dead_letter(started_at: str) -> None:
    state, outputs = one(scored(started_at=started_at, findings=[finding()]))

    (row,) = rows(outputs.dead_letters)
    assert "check the producer's clock" in row["reason"]
    assert outputs.findings == []
    assert state.usage.live == {}


def test_a_line_that_an_edge_refused_becomes_a_dead_letter_with_the_edges_reason() -> None:
    state, outputs = one(rejected())

    (row,) = rows(outputs.dead_letters)
    assert (row["stage"], row["source"], row["line"], row["reason"]) == ("edge", "calls.jsonl", 3, "not valid JSON")
    assert state.totals["rejected"] == 1


def test_an_unknown_model_is_unpriced_and_never_free() -> None:
    state, outputs = one(response(request_model="no-such-model-9"))

    (row,) = rows(outputs.metered)
    assert (row["cost_nano_usd"], row["price_status"]) == (None, "unpriced")
    total = state.usage.live[UsageKey((), (), "minute", NOW_S)].counts
    assert (total[COUNTERS.index("unpriced")], total[COUNTERS.index("cost_nano_usd")]) == (1, 0)


@pytest.mark.parametrize(
    ("provider", "usage", "expected"),
    [
        (
            "anthropic",
            {"input_tokens": 10, "cache_read_input_tokens": 90, "cache_creation_input_tokens": 5, "output_tokens": 7},
            {"input_tokens": 105, "cache_read_tokens": 90, "cache_write_5m_tokens": 5, "output_tokens": 7},
        ),
        (
            "openai",
            {"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 60}},
            {"input_tokens": 100, "cache_read_tokens": 60, "output_tokens": 7},
        ),
        ("openai", {}, {}),
    ],
)
def test_a_providers_raw_usage_is_normalised(provider: str, usage: dict[str, Any], expected: dict[str, int]) -> None:
    event = response(provider_name=provider, input_tokens=None, output_tokens=None, usage=usage)

    _, outputs = one(event)

    (row,) = rows(outputs.metered)
    assert {name: count for name, count in row.items() if name.endswith("_tokens")} == expected
    assert "usage" not in row


def test_a_raw_usage_that_makes_no_sense_is_a_dead_letter() -> None:
    state, outputs = one(response(input_tokens=None, output_tokens=None, usage={"prompt_tokens": -5}))

    (row,) = rows(outputs.dead_letters)
    assert "$.usage" in row["reason"]
    assert state.totals["dead_letters"] == 1
    assert state.usage.live == {}


def test_a_key_given_twice_reaches_the_row_once_as_it_was_judged() -> None:
    text = line(response())[:-1] + b',"output_tokens":7,"tenant":"lakeside","usage":null}'

    state, outputs = one(text)

    (row,) = rows(outputs.metered)
    assert (row["output_tokens"], row["tenant"]) == (7, "lakeside")
    assert UsageKey(("tenant",), ("lakeside",), "minute", NOW_S) in state.usage.live


def test_a_field_of_the_meters_own_cannot_be_smuggled_in() -> None:
    state, outputs = one(line(response())[:-1] + b',"cost_nano_usd":0}')

    assert outputs.metered == []
    assert state.totals["dead_letters"] == 1


@pytest.mark.parametrize(
    ("started_at", "accepted"),
    [
        ("2014-12-31T23:59:59.999Z", False),
        ("2015-01-01T00:00:00Z", True),
        ("2026-11-03T08:00:00Z", True),
        ("2026-11-03T08:00:00.001Z", False),
        ("2026-11-03T09:00:00+01:00", True),
        ("0001-01-01T00:00:00+23:59", False),
        ("9999-12-31T23:59:59.999999-23:59", False),
        ("1970-01-01T00:00:00Z", False),
    ],
)
@pytest.mark.parametrize("event", [response, request])
def test_an_absurd_clock_is_judged_by_the_logs_clock(event: Any, started_at: str, accepted: bool) -> None:
    state, outputs = one(event(started_at=started_at))

    assert bool(outputs.metered or outputs.requests) == accepted
    assert bool(outputs.dead_letters) != accepted
    if not accepted:
        assert "check the producer's clock" in rows(outputs.dead_letters)[0]["reason"]
        assert state.usage.watermark_s == 0


def test_the_same_line_is_judged_the_same_whenever_it_is_replayed() -> None:
    ahead = response(started_at="2026-11-04T00:00:00Z")

    _, then = one(ahead, appended_ms=NOW_MS)
    _, later = one(ahead, appended_ms=NOW_MS + 7 * 86_400_000)

    assert (len(then.dead_letters), len(later.metered)) == (1, 1)


def test_a_retried_envelope_counts_once() -> None:
    state, sent = new_state(), envelope("triage-1", 0, [response("a"), response("b")])

    first = run(state, [LogRecord.of(0, sent)])
    usage = dump(state)[3]
    again = run(state, [LogRecord.of(1, sent)])

    assert len(rows(first.metered)) == 2
    assert again == MeterOutputs()
    assert dump(state)[3] == usage
    assert state.totals == {"envelopes": 2, "events": 4, "responses": 2, "duplicates": 2}


def test_of_an_envelope_that_partly_overlaps_only_the_new_part_counts() -> None:
    state = new_state()
    events = [response(f"call-{number}") for number in range(6)]

    run(state, [LogRecord.of(0, envelope("triage-1", 0, events[:4]))])
    outputs = run(state, [LogRecord.of(1, envelope("triage-1", 2, events[2:]))])

    assert [(row["call_id"], row["seq"]) for row in rows(outputs.metered)] == [("call-4", 4), ("call-5", 5)]
    assert (state.totals["duplicates"], state.totals["responses"]) == (2, 6)
    assert "lost" not in state.totals


def test_producers_are_told_apart() -> None:
    state = new_state()

    run(state, [LogRecord.of(offset, envelope(name, 0, [response()])) for offset, name in enumerate("ab")])

    assert state.totals["responses"] == 2
    assert "duplicates" not in state.totals


def test_a_gap_in_a_producers_numbers_is_counted_as_lost_once() -> None:
    state = new_state()
    sent = [envelope("triage-1", seq, [response()]) for seq in (0, 5, 6, 5)]

    run(state, [LogRecord.of(offset, each) for offset, each in enumerate(sent)])

    assert state.totals["lost"] == 4
    assert state.totals["duplicates"] == 1


@pytest.mark.parametrize("producer", ["guardrails:triage-1", "idempotency-key:guardrails:0a1b"])
def test_content_that_went_missing_is_no_call_that_was_lost(producer: str) -> None:
    state = new_state()
    sent = [envelope(producer, seq, [scored()], dropped) for seq, dropped in ((0, 0), (5, 2))]

    run(state, [LogRecord.of(offset, each) for offset, each in enumerate(sent)])

    assert state.totals == {"envelopes": 2, "events": 2, "scored": 2, "content_lost": 4, "content_dropped": 2}


def test_a_producer_first_heard_of_in_the_middle_has_lost_nothing_that_is_known() -> None:
    state = new_state()

    run(state, [LogRecord.of(0, envelope("triage-1", 1_000, [response()]))])

    assert "lost" not in state.totals
    assert state.producers["triage-1"].next_seq == 1_001


def test_what_a_producer_says_it_dropped_is_counted_once() -> None:
    state = new_state()
    sent = [envelope("triage-1", seq, [response()], dropped) for seq, dropped in ((0, 0), (1, 3), (1, 3), (2, 5))]

    run(state, [LogRecord.of(offset, each) for offset, each in enumerate(sent)])

    assert state.totals["dropped"] == 5


BAD_HEADERS: list[dict[str, str]] = [
    {},
    {"schema": "calls/9", "producer": "p", "seq": "0", "count": "1"},
    {"schema": "calls/1", "producer": "", "seq": "0", "count": "1"},
    {"schema": "calls/1", "producer": "p", "seq": "-1", "count": "1"},
    {"schema": "calls/1", "producer": "p", "seq": "0", "count": "0"},
    {"schema": f"calls/{CANARY}", "producer": f"{CANARY} x", "seq": CANARY, "count": CANARY},
]


@pytest.mark.parametrize("headers", BAD_HEADERS)
def test_a_bad_envelope_is_one_dead_letter_and_the_rest_goes_on(headers: dict[str, str]) -> None:
    state, value = new_state(), f"My name is {CANARY}".encode()

    outputs = run(state, [LogRecord(0, value, headers), LogRecord.of(1, envelope("triage-1", 0, [response()]))])

    (dead,) = rows(outputs.dead_letters)
    assert (dead["size_bytes"], dead["producer"], dead["seq"], dead["source_offset"]) == (len(value), "", None, 0)
    assert CANARY.encode() not in outputs.dead_letters[0][1]
    assert (state.totals["bad_envelopes"], state.totals["responses"]) == (1, 1)
    assert is_accounted_for(state.totals)


def test_an_envelope_with_another_number_of_lines_uses_up_its_numbers() -> None:
    state = new_state()
    torn = Envelope("triage-1", 0, 3, line(response()))

    first = run(state, [LogRecord.of(0, torn)])
    again = run(state, [LogRecord.of(1, torn)])
    run(state, [LogRecord.of(2, envelope("triage-1", 3, [response()]))])

    (dead,) = rows(first.dead_letters)
    assert "says 3 events and holds 1 lines" in dead["reason"]
    assert again == MeterOutputs()
    assert (state.totals["bad_envelopes"], state.totals["responses"]) == (1, 1)
    assert "lost" not in state.totals


SECRETS = [
    f"Patient {CANARY} said".encode(),
    line(response(prompt=CANARY)),
    line(response(**{CANARY: 1})),
    line(response(**{f"x - at `$.{CANARY}": 1})),
    line(response(event=CANARY)),
    line(response(started_at=CANARY)),
    line(response(error_type=CANARY)),
    line(response(labels={CANARY + " ": "x"})),
    line(response(tenant=CANARY + "\n")),
    line(response(input_tokens=None, output_tokens=None, usage={"prompt_tokens": CANARY})),
    line(response(input_tokens=None, output_tokens=None, usage={CANARY: 5})),
    line(response(input_tokens=None, output_tokens=None, usage={f"x-amzn-bedrock-{CANARY}-token-count": "many"})),
    line(response(tenant=CANARY, started_at="1999-01-01T00:00:00Z")),
    line(rejected(reason=CANARY * 50)),
    CANARY.encode() + b"\xff\x00",
]


@pytest.mark.parametrize("text", SECRETS, ids=range(len(SECRETS)))
def test_a_dead_letter_says_why_and_never_what(text: bytes) -> None:
    state, outputs = one(text)

    (dead,) = rows(outputs.dead_letters)
    assert (dead["stage"], dead["producer"], dead["seq"], dead["size_bytes"]) == ("meter", "triage-1", 0, len(text))
    assert dead["reason"].isprintable()
    assert len(dead["reason"]) <= 256
    assert b"Qzx" not in outputs.dead_letters[0][1]
    assert state.totals["dead_letters"] == 1
    assert outputs.metered == outputs.requests == []


# --- any stream of envelopes

LINES: list[bytes] = [
    line(response()),
    line(response(team="pharmacy", response_model="gpt-4o-2024-08-06", error_type="timeout")),
    line(response(input_tokens=None, output_tokens=None, usage={"prompt_tokens": 3, "completion_tokens": 1})),
    line(response(input_tokens=None, output_tokens=None, usage={"prompt_tokens": 1.5})),
    line(response(request_model="no-such-model-9", started_at="2026-11-01T00:00:00Z")),
    line(response(started_at="2031-01-01T00:00:00Z")),
    line(request()),
    line(scored(findings=[finding(), finding(leak=True)])),
    line(scored(outcome="sampled_out", request_model=None)),
    line(scored(started_at="2031-01-01T00:00:00Z")),
    line(scored(findings=[finding(text="free text")])),
    line(rejected()),
    b"{",
    b"",
    line(response(prompt="free text")),
]


@st.composite
def streams(draw: st.DrawFn) -> list[LogRecord]:
    """Two producers' envelopes with retries, overlaps, gaps and damage, as they lie in one partition."""
    numbered = {name: draw(st.lists(st.sampled_from(LINES), min_size=1, max_size=12)) for name in ("a", "b")}
    records: list[LogRecord] = []
    for offset in range(draw(st.integers(1, 8))):
        name = draw(st.sampled_from(["a", "b"]))
        first = draw(st.integers(0, len(numbered[name]) - 1))
        last = draw(st.integers(first + 1, len(numbered[name])))
        sent = envelope(name, first, numbered[name][first:last], dropped=draw(st.integers(0, 2)))
        damage = draw(st.sampled_from(["", "", "", "", "header", "count"]))
        headers = sent.headers()
        if damage:
            headers |= {"schema": "calls/0"} if damage == "header" else {"count": str(sent.count + 1)}
        records.append(LogRecord(offset, sent.value, headers, NOW_MS + offset))
    return records


def joined(outputs: Sequence[MeterOutputs]) -> Any:
    return [
        [out for output in outputs for out in getattr(output, topic)]
        for topic in ("metered", "requests", "findings", "dead_letters")
    ] + [sum(output.events for output in outputs)]


@given(streams())
def test_every_line_is_accounted_for(records: list[LogRecord]) -> None:
    state = new_state()

    outputs = run(state, records)

    assert is_accounted_for(state.totals)
    totals = {
        name: state.totals.get(name, 0)
        for name in ("responses", "requests", "scored", "rejected", "dead_letters", "bad_envelopes")
    }
    assert len(rows(outputs.metered)) == totals["responses"]
    assert len(rows(outputs.requests)) == totals["requests"]
    assert len(rows(outputs.findings)) == totals["scored"]
    assert len(rows(outputs.dead_letters)) == totals["rejected"] + totals["dead_letters"] + totals["bad_envelopes"]
    counted = [usage.counts[0] for key, usage in state.usage.live.items() if key.fields == () and key.bucket == "day"]
    assert sum(counted) == totals["responses"]
    assert state.next_offset == len(records)


@given(streams(), st.data())
def test_however_records_are_batched_the_outcome_is_the_same(records: list[LogRecord], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(records)), max_size=4)))
    whole, pieces = new_state(), new_state()

    at_once = [run(whole, records)]
    in_pieces = [run(pieces, records[start:end]) for start, end in zip([0, *cuts], [*cuts, len(records)], strict=True)]

    assert joined(in_pieces) == joined(at_once)
    assert dump(pieces) == dump(whole)


@given(streams(), st.data())
def test_replaying_any_stretch_changes_nothing(records: list[LogRecord], data: st.DataObject) -> None:
    state = new_state()
    done = data.draw(st.integers(0, len(records)))
    run(state, records[:done])
    before = dump(state)
    start = data.draw(st.integers(0, done))

    again = run(state, records[start:done])
    after = dump(state)
    rest = run(state, records[start:])

    assert again == MeterOutputs()
    assert after == before
    fresh = new_state()
    run(fresh, records[:done])
    assert joined([rest]) == joined([run(fresh, records[done:])])
    assert dump(state) == dump(fresh)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.data())
def test_a_client_that_retries_as_it_likes_is_counted_once(sizes: list[int], data: st.DataObject) -> None:
    """What an Emitter does after lost acknowledgements: any envelope again, or its events anew in larger ones."""
    events = [response(f"call-{number}") for number in range(sum(sizes))]
    sent: list[tuple[int, int]] = []
    end = 0
    for size in sizes:
        end += size
        if sent:
            sent += data.draw(st.lists(st.sampled_from(sent), max_size=2))
        sent.append((data.draw(st.integers(0, end - size)), end))
    state = new_state()

    outputs = run(
        state, [LogRecord.of(offset, envelope("p", start, events[start:end])) for offset, (start, end) in enumerate(sent)]
    )

    assert [row["call_id"] for row in rows(outputs.metered)] == [event["call_id"] for event in events]
    assert is_accounted_for(state.totals)
    assert "lost" not in state.totals


NAMES = [
    *("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "prompt_tokens_details"),
    *("completion_tokens_details", "input_tokens_details", "output_tokens_details", "cached_tokens", "reasoning_tokens"),
    *("cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation", "ephemeral_1h_input_tokens", "audio_tokens"),
    *("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "totalTokenCount", "promptTokensDetails", "modality"),
    *("tokenCount", "inputTokens", "outputTokens", "cacheReadInputTokens", "cacheDetails", "ttl", "billed_units", "tokens"),
    *("x-amzn-bedrock-input-token-count", "generation_token_count", "citation_tokens", "service_tier", "keys", "items"),
]
odd = st.one_of(
    st.integers(-2, 2_000),
    st.sampled_from([None, True, False, 1.0, 1.5, -0.0, 1e300, 2**62, 1_000_000_001, "5m", "audio", "12", "AUDIO"]),
)
odd_part = st.dictionaries(st.sampled_from(NAMES), odd, max_size=3)
odd_usage = st.dictionaries(
    st.sampled_from(NAMES),
    odd
    | st.dictionaries(st.sampled_from(NAMES), odd, max_size=3)
    | st.lists(st.dictionaries(st.sampled_from(NAMES), odd), max_size=2),
    max_size=5,
)


@given(
    odd_usage,
    st.sampled_from([None, "openai", "anthropic", "gcp.gemini", "aws.bedrock", "cohere", "perplexity", "x_ai", "voyageai"]),
    st.sampled_from(["gpt-4o", "claude-sonnet-4-5", "gemini-2.5-pro", "o3-mini", "x"]) | st.text(min_size=1, max_size=20),
    st.sampled_from([None, "batch", "priority", "auto", "x/y"]),
)
def test_no_usage_object_stops_the_meter(usage: Any, provider: str | None, model: str, tier: str | None) -> None:
    event = response(
        input_tokens=None, output_tokens=None, usage=usage, provider_name=provider, request_model=model, service_tier=tier
    )

    state, outputs = one(event)

    assert len(outputs.metered) + len(outputs.dead_letters) == 1
    assert is_accounted_for(state.totals)
    for row in rows(outputs.metered):
        assert (row["cost_nano_usd"] is None) == (row["price_status"] not in ("priced", "cache_hit"))
        assert row["cost_nano_usd"] is None or 0 <= row["cost_nano_usd"] < 2**63
        assert "usage" not in row


@given(st.binary(max_size=60).map(lambda text: text.replace(b"\n", b"")))
def test_junk_is_a_dead_letter_with_its_size_and_fingerprint(text: bytes) -> None:
    state, outputs = one(text)

    (dead,) = rows(outputs.dead_letters)
    assert dead["size_bytes"] == len(text)
    assert state.totals["dead_letters"] == 1
