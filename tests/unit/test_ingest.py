"""What an HTTP body becomes: every non-blank line an event or a rejection in its place, and nothing it said kept of it."""

from __future__ import annotations

import gzip
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import finding, line, request, response, scored
from tidegate.processors.embedded import ingest
from tidegate.processors.embedded.ingest import BadBody, envelopes, gunzip, judge, rejection, split, unpack
from tidegate.schemas.envelope import MAX_ENVELOPE_BYTES, MAX_ENVELOPE_EVENTS, MAX_EVENT_BYTES
from tidegate.schemas.hot import HotRejected, decode_event

NOW = datetime(2026, 11, 2, 8, tzinfo=UTC)
NDJSON = "application/x-ndjson"
CANARY = "Rosa-Martinez-MRN-4711"


def refusal(body: bytes, content_type: str = NDJSON) -> BadBody:
    with pytest.raises(BadBody) as caught:
        split(body, content_type)
    return caught.value


# ---- lines


@pytest.mark.parametrize(
    "content_type", [NDJSON, "", "text/plain; charset=UTF-8", "Application/JSONL", "application/octet-stream"]
)
def test_lines_end_in_any_newline_and_blank_ones_count_for_their_place_only(content_type: str) -> None:
    body = b"\xef\xbb\xbf" + line(response("a")) + b"\r\n\n  \r\n" + line(response("b")) + b"\n" + line(response("c"))

    lines = split(body, content_type)
    judged = judge(lines, "http", NOW)

    assert [number for number, _ in lines] == [1, 4, 5]
    assert (judged.accepted, judged.rejected, judged.errors) == (3, 0, [])
    assert [decode_event(event).call_id for event in judged.lines] == ["a", "b", "c"]


def test_an_error_names_the_line_of_the_body_it_stands_in() -> None:
    body = b"\n" + line(response()) + b"\n\nnot json\n"

    judged = judge(split(body, NDJSON), "http", NOW)

    assert [error["line"] for error in judged.errors] == [4]
    assert orjson.loads(judged.lines[1])["line"] == 4


@pytest.mark.parametrize("body", [b"", b"\n\n", b" \r\n", b"\xef\xbb\xbf"])
def test_a_body_without_a_line_holds_nothing(body: bytes) -> None:
    assert split(body, NDJSON) == []


def test_a_body_of_too_many_lines_is_refused_before_it_is_taken_apart() -> None:
    error = refusal(b"x\n" * (ingest.MAX_BODY_LINES + 1))

    assert error.status == 413
    assert "send it in parts" in error.reason


def test_nobody_who_sends_calls_says_what_was_found_in_them() -> None:
    judged = judge(split(line(response()) + b"\n" + line(scored(findings=[finding()])), NDJSON), "http", NOW)

    assert (judged.accepted, judged.rejected) == (1, 1)
    assert judged.errors == [{"line": 2, "error": "what is found in texts is for the guardrails to say - at `$.event`"}]


def test_a_line_of_ten_megabytes_is_rejected_by_its_fingerprint() -> None:
    long = line(response(tenant="x" * 10_000_000))

    judged = judge(split(line(response()) + b"\n" + long, NDJSON), "http", NOW)

    rejected = orjson.loads(judged.lines[1])
    assert (judged.accepted, judged.rejected) == (1, 1)
    assert (rejected["sha256"], rejected["size_bytes"]) == (hashlib.sha256(long).hexdigest(), len(long))
    assert str(MAX_EVENT_BYTES) in rejected["reason"]
    assert len(judged.lines[1]) < 1_000


def test_only_the_first_hundred_errors_are_told_and_all_are_counted() -> None:
    judged = judge(split(b"x\n" * 250, NDJSON), "http", NOW)

    assert (judged.rejected, len(judged.errors), len(judged.lines)) == (250, 100, 250)


# ---- JSON


@pytest.mark.parametrize("indent", [None, 2])
def test_json_is_one_event_or_an_array_of_them_however_it_is_printed(indent: int | None) -> None:
    one, two = response("a", labels={"note": "a [b], {c}"}), request("b")

    single = split(json.dumps(one, indent=indent).encode(), "application/json")
    array = split(json.dumps([one, two], indent=indent).encode() + b"\n", "application/json; charset=utf-8")

    assert [(place, orjson.loads(event)) for place, event in single] == [(1, one)]
    assert [(place, orjson.loads(event)) for place, event in array] == [(1, one), (2, two)]
    assert all(b"\n" not in event for _, event in array)
    assert judge(array, "http", NOW).accepted == 2


def test_an_array_with_one_bad_event_gives_the_others() -> None:
    body = b'[%b, 7, {"event":\n 1e400}, "text", %b]' % (line(response("a")), line(response("b")))

    judged = judge(split(body, "application/json"), "http", NOW)

    assert (judged.accepted, [error["line"] for error in judged.errors]) == (2, [2, 3, 4])


def test_printing_json_prettily_changes_no_number_and_hides_no_second_key() -> None:
    body = b'{\n"seed": 123456789012345678901234567890, "seed": 1.50e3}'

    assert split(body, "application/json") == [(1, b'{"seed":123456789012345678901234567890,"seed":1.50e3}')]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"hello " + CANARY.encode(),
        b"[",
        b"[1,]",
        line(response()) + b"\n" + line(response()),
        b'{"a": "' + CANARY.encode() + b'\n"}',
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'[{"a": NaN}]',
        '[{"a": 1}]'.encode("utf-16-le"),
    ],
)
def test_what_is_not_json_is_refused_as_a_whole_without_repeating_it(body: bytes) -> None:
    error = refusal(body, "application/json")

    assert error.status == 400
    assert CANARY not in error.reason


def test_an_empty_array_holds_nothing() -> None:
    assert split(b" [ ]\n", "application/json") == []


def test_an_array_of_millions_of_numbers_is_refused_before_it_is_taken_apart() -> None:
    assert refusal(b"[" + b"1," * 7_000_000 + b"1]", "application/json").status == 413
    assert refusal(b"[" + b"1," * ingest.MAX_BODY_LINES + b"1]", "application/json").status == 413


# ---- encodings


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{}", f"application/{CANARY}"),
        (b"{}", "multipart/form-data; boundary=x"),
        (b"{}", "application/json; charset=utf-16"),
        (b"{}", 'application/x-ndjson; charset="ISO-8859-1"'),
        ("﻿{}".encode("utf-16-le"), NDJSON),
        ("﻿{}".encode("utf-16-be"), "application/json"),
    ],
)
def test_what_is_not_json_in_utf8_by_its_own_word_is_refused_without_repeating_it(body: bytes, content_type: str) -> None:
    error = refusal(body, content_type)

    assert error.status == 415
    assert CANARY not in error.reason


def test_a_line_that_is_not_utf8_is_rejected_and_the_others_are_taken() -> None:
    latin = '{"event": "response", "tenant": "Münster"}'.encode("latin-1")

    judged = judge(split(latin + b"\n" + line(response()), NDJSON), "http", NOW)

    assert (judged.accepted, judged.rejected) == (1, 1)
    assert judged.errors[0]["line"] == 1


# ---- compression


def test_gzip_may_have_several_members_and_zeros_after_the_last() -> None:
    body = gzip.compress(b"one\n") + gzip.compress(b"") + gzip.compress(b"two\n") + b"\0" * 100

    assert gunzip(body, 100) == b"one\ntwo\n"
    assert unpack(body, " GZip ", 100) == b"one\ntwo\n"


@pytest.mark.parametrize("encoding", ["", "identity", "Identity"])
def test_a_body_without_an_encoding_stands_as_it_is(encoding: str) -> None:
    assert unpack(b"\x1f\x8b", encoding, 1) == b"\x1f\x8b"


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", f"x-{CANARY}"])
def test_an_encoding_that_is_not_known_is_refused_without_repeating_it(encoding: str) -> None:
    with pytest.raises(BadBody) as caught:
        unpack(b"", encoding, 100)

    assert caught.value.status == 415
    assert CANARY not in caught.value.reason


@pytest.mark.parametrize("size", [0, 1, 2_000, 100_000])
def test_gzip_unpacks_up_to_its_bound_and_not_a_byte_beyond(size: int) -> None:
    packed = gzip.compress(b"x" * size)

    assert gunzip(packed, size) == b"x" * size
    if size:
        with pytest.raises(BadBody, match="unpacks to more than") as caught:
            gunzip(packed, size - 1)
        assert caught.value.status == 413


def test_a_bomb_is_not_unpacked_even_when_it_comes_in_members() -> None:
    member = gzip.compress(b"\0" * 10_000_000)

    for bomb in (gzip.compress(b"\0" * 200_000_000), member * 50):
        with pytest.raises(BadBody) as caught:
            gunzip(bomb, 1_000_000)
        assert caught.value.status == 413


def test_gzip_cut_short_anywhere_or_followed_by_something_else_is_refused() -> None:
    packed = gzip.compress(line(response(CANARY)) * 10)

    for body in [packed[:cut] for cut in range(len(packed))] + [packed + b"junk", packed + packed[:-4], b"not gzip", b"\0\0"]:
        with pytest.raises(BadBody) as caught:
            gunzip(body, 1_000_000)
        assert caught.value.status == 400
        assert CANARY not in caught.value.reason


def test_gzip_with_a_wrong_checksum_is_refused() -> None:
    packed = bytearray(gzip.compress(line(response())))
    packed[-6] ^= 0xFF

    with pytest.raises(BadBody, match="not valid gzip"):
        gunzip(bytes(packed), 1_000_000)


# ---- envelopes


@pytest.mark.parametrize(
    ("sizes", "counts"),
    [
        ([], []),
        ([100], [1]),
        ([10] * MAX_ENVELOPE_EVENTS, [MAX_ENVELOPE_EVENTS]),
        ([10] * (MAX_ENVELOPE_EVENTS + 1), [MAX_ENVELOPE_EVENTS, 1]),
        ([MAX_EVENT_BYTES] * 30, [13, 13, 4]),
    ],
)
def test_envelopes_are_cut_at_their_bounds_and_numbered_through(sizes: list[int], counts: list[int]) -> None:
    lines = [b"x" * size for size in sizes]

    found = envelopes("p", 7, lines, dropped=3)

    assert [envelope.count for envelope in found] == counts
    assert [envelope.seq for envelope in found] == [7 + sum(counts[:place]) for place in range(len(counts))]
    assert all(len(envelope.value) <= MAX_ENVELOPE_BYTES and envelope.dropped == 3 for envelope in found)
    assert [line for envelope in found for line in envelope.lines()] == lines


@given(st.lists(st.integers(0, MAX_EVENT_BYTES), max_size=60), st.integers(0, 2**40))
def test_envelopes_lose_nothing_whatever_the_sizes(sizes: list[int], seq: int) -> None:
    lines = [b"%d" % place + b"x" * size for place, size in enumerate(sizes)]

    found = envelopes("p", seq, lines)

    assert [line for envelope in found for line in envelope.lines()] == lines
    assert all(len(envelope.value) <= MAX_ENVELOPE_BYTES for envelope in found)
    assert [envelope.seq for envelope in found] == [seq + sum(e.count for e in found[:place]) for place in range(len(found))]


# ---- any body at all

_EVENTS = st.builds(
    lambda base, extra: orjson.dumps(base | extra),
    st.sampled_from([response(), request(), {}]),
    st.dictionaries(
        st.sampled_from(["tenant", "input_tokens", "latency_s", "labels", "usage", "started_at", "event", CANARY]),
        st.none() | st.integers(-5, 2**40) | st.floats(allow_nan=False) | st.text(max_size=20) | st.just({CANARY: CANARY}),
        max_size=3,
    ),
)
_LINES = st.lists(_EVENTS | st.binary(max_size=40) | st.sampled_from([b"", b" ", b"\r", b"[]", b'"x"', b"1", b"{", b"\x0c"]))


def check(lines: list[tuple[int, bytes]]) -> None:
    judged = judge(lines, "http", NOW)
    assert judged.accepted + judged.rejected == len(lines) == len(judged.lines)
    for (number, sent), kept in zip(lines, judged.lines, strict=True):
        event: Any = decode_event(kept)
        if kept != sent:
            assert isinstance(event, HotRejected)
            assert (event.line, event.size_bytes, event.sha256) == (number, len(sent), hashlib.sha256(sent).hexdigest())
            assert CANARY.encode() not in kept
    assert CANARY not in json.dumps(judged.errors)


@given(_LINES, st.sampled_from([b"\n", b"\r\n"]), st.booleans())
def test_every_line_that_is_not_blank_is_taken_or_rejected_and_stands_as_a_valid_event(
    lines: list[bytes], end: bytes, final: bool
) -> None:
    body = end.join(lines) + (end if final else b"")

    found = split(body.removeprefix(b"\xff\xfe").removeprefix(b"\xfe\xff"), NDJSON)

    plain = body.removeprefix(b"\xff\xfe").removeprefix(b"\xfe\xff").removeprefix(b"\xef\xbb\xbf")
    assert [line for _, line in found] == [line for line in plain.split(b"\n") if line.strip()]
    check(found)


@given(st.lists(_EVENTS), st.booleans())
def test_every_event_of_an_array_is_taken_or_rejected_and_stands_as_a_valid_event(events: list[bytes], pretty: bool) -> None:
    body = b"[" + b",".join(events) + b"]"
    if pretty:
        body = orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2)

    found = split(body, "application/json")

    assert len(found) == len(events)
    check(found)


@given(st.text(min_size=1, max_size=400), st.binary(max_size=100), st.none() | st.integers(1, 10**6))
def test_a_rejection_is_a_valid_event_whatever_the_reason(reason: str, sent: bytes, number: int | None) -> None:
    event: Any = decode_event(rejection(sent, reason, "http", number, NOW))

    assert isinstance(event, HotRejected)
    assert (event.size_bytes, event.line) == (len(sent), number)
