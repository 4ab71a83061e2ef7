"""Every style of log line → its metering event; nothing of its text; and a safe reason for everything else."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidegate.producers.log_lines import MAX_CHUNKS, MAX_LINE_BYTES, read_line
from tidegate.schemas.errors import InvalidEvent
from tidegate.schemas.hot import decode_event

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden/log_lines"
REAL = Path(os.environ.get("TIDEGATE_REAL_CALLS") or ROOT / "../shared/data/real_calls.jsonl")
CANARY = "CANARY"

WRAPPED: dict[str, Any] = {
    "id": "log-1",
    "provider": "openai",
    "request": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "CANARY"}]},
    "response": {
        "id": "chatcmpl-1",
        "model": "gpt-4o-mini",
        "choices": [{"message": {"content": "CANARY"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 29, "completion_tokens": 18},
    },
    "started_at": "2026-11-02T08:00:00Z",
    "ended_at": "2026-11-02T08:00:01Z",
}


def line_with(**changes: Any) -> bytes:
    return orjson.dumps({**WRAPPED, **changes})


def golden_lines() -> list[Any]:
    return [pytest.param(path, id=path.stem) for path in sorted(GOLDEN.glob("*.jsonl"))]


@pytest.mark.parametrize("path", golden_lines())
def test_every_style_of_line_reads_as_its_golden_event(path: Path) -> None:
    line = path.read_bytes().rstrip(b"\n")

    event = read_line(line)

    assert event == json.loads(path.with_suffix(".event.json").read_text())
    assert CANARY.encode() not in orjson.dumps(event)
    decode_event(orjson.dumps(event))


def test_times_are_exact_to_the_microsecond_across_time_zones() -> None:
    line = line_with(
        started_at="2026-11-02T08:00:09.778001+00:00",
        first_token_at="2026-11-02T08:00:10.002003+00:00",
        ended_at="2026-11-02T09:00:12.147002+01:00",
    )

    event = read_line(line)

    assert (event["time_to_first_token_s"], event["latency_s"]) == (0.224002, 2.369001)


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        ({"type": "insufficient_quota", "code": "insufficient_quota"}, 429, "rate_limit"),
        ({"type": "ThrottlingException"}, None, "rate_limit"),
        ({"code": 429, "status": "RESOURCE_EXHAUSTED"}, None, "rate_limit"),
        ({"type": "invalid_request_error", "code": "context_length_exceeded"}, 400, "context_length"),
        ({"type": "invalid_request_error", "code": "content_policy_violation"}, 400, "content_filter"),
        ({"type": "invalid_request_error", "code": None}, 400, "invalid_request"),
        ({"type": "api_error"}, 500, "server_error"),
        ({"type": "APIConnectionError"}, None, "connection"),
        ({"type": "ModelTimeoutException"}, None, "timeout"),
        ({"type": "authentication_error"}, None, "authentication"),
        ({"type": "AccessDeniedException"}, None, "permission"),
        ({"type": "not_found_error"}, None, "not_found"),
        ({"type": "CancelledError"}, None, "cancelled"),
        ({"type": "something_new"}, 502, "server_error"),
        ({"type": "something_new"}, None, "failure"),
        ({"message": "CANARY"}, None, "failure"),
    ],
)
def test_a_providers_error_finds_its_type(error: dict[str, Any], status: int | None, expected: str) -> None:
    line = line_with(response=None, error=error, status_code=status)

    event = read_line(line)

    assert event["error_type"] == expected
    assert "input_tokens" not in event


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "not valid JSON"),
        (b"CANARY", "not valid JSON"),
        (b'{"id": "CANARY", ', "not valid JSON"),
        (b"[1, 2]", "not a JSON object"),
        (b"{}", "not a native, OpenAI-style or Anthropic-style line; write either `event`"),
        (b'{"CANARY": 1}', "not a native"),
        (b'{"a": "\xe9CANARY"}', "not UTF-8 text"),
        ('{"a": "CANARY"}'.encode("utf-16"), "not UTF-8 text (NUL bytes"),
        (b'{"event": "CANARY"}', "not one of the allowed values"),
        (b'{"event": "response", "prompt": "CANARY"}', "unknown field"),
        (b'{"event": "response", "call_id": "c"}', "missing required field"),
        (b"[" * 100_000, "not valid JSON"),
        (line_with(started_at=None), "no time"),
        (line_with(started_at="2026-11-02T08:00:00"), "`started_at` must be RFC 3339 with a time zone"),
        (line_with(started_at="CANARY"), "`started_at` must be RFC 3339"),
        (line_with(started_at=[1]), "`started_at` must be RFC 3339"),
        (line_with(started_at=1e300), "`started_at` is out of range"),
        (line_with(ended_at="2026-11-02T07:59:59Z"), "`ended_at` is before `started_at`"),
        (line_with(first_token_at="2026-11-02T08:00:02Z"), "`first_token_at` is after `ended_at`"),
        (line_with(request=None, response={"choices": [], "usage": {}}), "no model"),
        (line_with(request=["CANARY"]), "`request` must be an object"),
        (line_with(response=None), "`response` is empty and there is no `error`"),
        (line_with(response={"CANARY": 1}), "not a response of a known provider"),
        (line_with(response={"usage": {"prompt_tokens": -1, "completion_tokens": 2}}), "must not be negative"),
        (line_with(response={"usage": {"prompt_tokens": "CANARY"}}), "must be a whole number"),
        (line_with(response={"usage": {"prompt_tokens": 2_000_000_000}}), "<= 1000000000 - at `$.input_tokens`"),
        (line_with(response={"usage": {"CANARY": 1}}), "no known shape"),
        (line_with(response={"usage": "CANARY"}), "usage must be an object"),
        (line_with(tags="CANARY"), "`tags` must be an object"),
        (line_with(tags={"team": ["CANARY"]}), "`team` must be text"),
        (line_with(tags={"user": "CANARY" * 50}), "length <= 128 - at `$.user`"),
        (line_with(tags={"user": "CANARY\nCANARY"}), "at `$.user`"),
        (line_with(request={"model": "m", "temperature": "CANARY"}), "at `$.temperature`"),
        (line_with(id={"CANARY": 1}), "`id` must be text"),
        (b'"' + b"x" * MAX_LINE_BYTES + b'"', "line is longer than 8388608 bytes"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_reason_that_repeats_nothing(line: bytes, reason: str) -> None:
    with pytest.raises(InvalidEvent) as refused:
        read_line(line)

    assert reason in refused.value.reason
    assert CANARY not in refused.value.reason
    assert len(refused.value.reason) <= 256
    assert refused.value.reason.isprintable()


def test_a_call_whose_usage_the_provider_left_out_counts_without_tokens() -> None:
    line = line_with(response={"id": "r", "model": "gpt-4o", "choices": [{"finish_reason": "stop"}]})

    event = read_line(line)

    assert event["finish_reason"] == "stop"
    assert not [name for name in event if name.endswith("_tokens")]


def test_the_request_stands_in_for_what_the_response_does_not_say() -> None:
    line = line_with(id=None, response={"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})

    event = read_line(line)

    assert event["request_model"] == "gpt-4o-mini"
    assert event["call_id"].startswith("line-")
    assert event["call_id"] == read_line(line)["call_id"]


def test_a_derived_call_id_does_not_depend_on_the_text() -> None:
    response = {"choices": [{"message": {"content": "yes"}}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    other = {**response, "choices": [{"message": {"content": "no"}}]}

    event, same = read_line(line_with(id=None, response=response)), read_line(line_with(id=None, response=other))

    assert event["call_id"] == same["call_id"]


def test_a_structured_loggers_own_event_key_does_not_make_a_line_native() -> None:
    line = line_with(event="llm_call", level="info")

    event = read_line(line)

    assert (event["event"], event["input_tokens"]) == ("response", 29)


def test_a_byte_order_mark_is_not_part_of_the_line() -> None:
    native = GOLDEN.joinpath("native.jsonl").read_bytes()

    assert read_line(b"\xef\xbb\xbf" + native) == read_line(native)
    assert read_line(b"\xef\xbb\xbf" + line_with()) == read_line(line_with() + b"\r")


def test_text_chunks_are_counted_by_place_and_named_by_fingerprint_only_under_a_key() -> None:
    line = line_with(retrieved_context=["CANARY", "other", "CANARY"])

    by_place = [chunk["chunk_id"] for chunk in read_line(line)["retrieval"]]
    keyed = [chunk["chunk_id"] for chunk in read_line(line, chunk_key=b"k" * 32)["retrieval"]]
    other_key = [chunk["chunk_id"] for chunk in read_line(line, chunk_key=b"o" * 32)["retrieval"]]

    assert by_place == ["text-1", "text-2", "text-3"]
    assert keyed[0] == keyed[2] != keyed[1]
    assert set(keyed).isdisjoint(other_key)


def test_more_chunks_than_the_schema_takes_leave_their_true_count_as_a_label() -> None:
    tags = {f"tag{number}": "x" for number in range(40)}
    line = line_with(retrieved_context=["CANARY"] * 300, tags=tags)

    event = read_line(line)

    assert len(event["retrieval"]) == MAX_CHUNKS
    assert event["labels"]["retrieved_chunks"] == "300"
    assert len(event["labels"]) == 32


def test_tags_as_a_list_become_scope_and_labels() -> None:
    line = line_with(tags=["team:triage", "pilot", 7])

    event = read_line(line)

    assert (event["team"], event["labels"]) == ("triage", {"pilot": "true"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(CANARY),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12) | st.just(CANARY), inner, max_size=4),
    max_leaves=12,
)
OTHER_KEYS = ["event", "error", "status", "tags", "retrieved_context", "first_token_at", "usage", "choices", "user", "labels"]
MORE_KEYS = [
    "created",
    "latency_s",
    "latency_ms",
    "metadata",
    "attempt",
    "call_id",
    "request_model",
    "cache_hit",
    "body",
    "meta",
]
known_keys = st.sampled_from([*WRAPPED, *OTHER_KEYS, *MORE_KEYS])


@st.composite
def damaged_lines(draw: st.DrawFn) -> bytes:
    """A sound line with some fields replaced by anything, at the top or one level down, and perhaps bytes cut or put in."""
    native = {"event": "response", "call_id": "c", "started_at": "2026-11-02T08:00:00Z", "request_model": "m"}
    record: dict[str, Any] = json.loads(json.dumps(draw(st.sampled_from([WRAPPED, native]))))
    for _ in range(draw(st.integers(0, 4))):
        record[draw(known_keys)] = draw(json_values)
    for part in ("request", "response", "tags", "error"):
        if isinstance(record.get(part), dict) and draw(st.booleans()):
            keys = st.text(max_size=8) | known_keys | st.sampled_from(["model", "usage", "id", "temperature", "object"])
            record[part][draw(keys)] = draw(json_values)
    line = json.dumps(record, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    if draw(st.booleans()):
        at, cut = draw(st.integers(0, len(line))), draw(st.integers(0, 3))
        line = line[:at] + draw(st.binary(max_size=4)) + line[at + cut :]
    return line


def outcome(line: bytes) -> tuple[dict[str, Any] | None, str]:
    try:
        return read_line(line), ""
    except InvalidEvent as refused:
        return None, refused.reason


def reads_or_refuses_safely(line: bytes) -> None:
    event, reason = outcome(line)

    if event is not None:
        decode_event(orjson.dumps(event))
    else:
        assert CANARY not in reason
        assert 0 < len(reason) <= 256
        assert reason.isprintable()


@settings(deadline=None)
@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_junk_is_refused_and_nothing_else_happens(line: bytes) -> None:
    reads_or_refuses_safely(line)


@settings(max_examples=400, deadline=None)  # a busy machine is no failure
@given(damaged_lines())
def test_a_damaged_line_is_an_event_the_meter_accepts_or_a_safe_refusal(line: bytes) -> None:
    reads_or_refuses_safely(line)


def test_every_real_call_reads_and_its_tokens_and_times_add_up() -> None:
    if not REAL.is_file():
        pytest.skip("the real calls are not here; set TIDEGATE_REAL_CALLS to their file")
    lines = REAL.read_bytes().splitlines()
    records = [json.loads(line) for line in lines]

    events = [read_line(line) for line in lines]

    assert len(events) == len(records)
    usages = [record["response"]["usage"] for record in records]
    assert sum(event["input_tokens"] for event in events) == sum(usage["prompt_tokens"] for usage in usages)
    assert sum(event["output_tokens"] for event in events) == sum(usage["completion_tokens"] for usage in usages)
    assert sum(event["cache_read_tokens"] for event in events) == sum(
        usage["prompt_tokens_details"]["cached_tokens"] for usage in usages
    )
    for event, record in zip(events, records, strict=True):
        started, first, ended = (datetime.fromisoformat(record[name]) for name in ("started_at", "first_token_at", "ended_at"))
        assert event["latency_s"] == (ended - started).total_seconds()
        assert event["time_to_first_token_s"] == (first - started).total_seconds()
        assert len(event.get("retrieval") or []) == len(record["retrieved_context"] or [])
        assert {name: event[name] for name in record["tags"]} == record["tags"]
