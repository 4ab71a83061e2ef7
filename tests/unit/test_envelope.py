"""Envelopes: what was ever written decodes for ever, a bad header is named, and a producer keeps its partition."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import envelope, line, response
from tidegate.schemas.envelope import MAX_ENVELOPE_EVENTS, SCHEMA, Envelope, partition_of
from tidegate.schemas.errors import InvalidEvent
from tidegate.schemas.event import EVENT_ADAPTER
from tidegate.schemas.hot import decode_event

GOLDEN = sorted((Path(__file__).parents[1] / "golden" / "envelopes").glob("v*.json"))
HEADERS = {"schema": "calls/1", "producer": "triage-1", "seq": "7", "count": "1"}


def read(path: Path) -> tuple[dict[str, str], bytes, dict[str, Any]]:
    """Headers, value and what they must decode to. The files are history: add new ones, never edit one."""
    golden = json.loads(path.read_text())
    value = base64.b64decode(golden["value_base64"]) if "value_base64" in golden else golden["value"].encode()
    return golden["headers"], value, golden["expected"]


def test_there_are_golden_envelopes_of_the_version_in_use() -> None:
    schemas = {read(path)[0]["schema"] for path in GOLDEN}

    assert SCHEMA in schemas


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_an_envelope_of_any_version_decodes_for_ever(path: Path) -> None:
    headers, value, expected = read(path)

    decoded = Envelope.from_record(headers, value)
    events = [msgspec.to_builtins(decode_event(event)) for event in decoded.lines()]

    found = {name: getattr(decoded, name) for name in ("producer", "seq", "count", "dropped", "schema")}
    assert found | {"events": events} == expected
    assert [EVENT_ADAPTER.validate_json(event).call_id for event in decoded.lines() if b"rejected_at" not in event] == [
        event["call_id"] for event in expected["events"] if "call_id" in event
    ]


@given(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=200),
    st.integers(0, 2**62),
    st.lists(st.binary(max_size=20).map(lambda text: text.replace(b"\n", b"")), min_size=1, max_size=5),
    st.integers(0, 2**62),
)
def test_an_envelope_comes_back_from_its_headers_and_value(producer: str, seq: int, events: list[bytes], dropped: int) -> None:
    sent = Envelope.of(producer, seq, events, dropped)

    received = Envelope.from_record(sent.headers(), sent.value)

    assert received == sent
    assert received.lines() == events


@pytest.mark.parametrize("name", ["schema", "producer", "seq", "count"])
def test_a_missing_header_is_named(name: str) -> None:
    headers = {key: value for key, value in HEADERS.items() if key != name}

    with pytest.raises(InvalidEvent, match=f"header `{name}`"):
        Envelope.from_record(headers, b"{}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("schema", value) for value in ("", "calls", "calls/2", "CALLS/1", "calls/1 ")),
        *(("producer", value) for value in ("", "a b", "a\n", "a\n\n", "é", "x" * 201, "a\x7f", "\x00")),
        *(("seq", value) for value in ("", "-1", "+1", "1.0", " 1", "1 ", "1_0", "٣", "0x1", "1e3", str(2**62 + 1), "9" * 30)),
        *(("count", value) for value in ("", "0", "-1", str(MAX_ENVELOPE_EVENTS + 1), "two", "²")),
        *(("dropped", value) for value in ("", "-1", "x", str(2**62 + 1))),
    ],
)
def test_a_wrong_header_is_named_and_its_value_is_not_repeated(name: str, value: str) -> None:
    with pytest.raises(InvalidEvent, match=f"header `{name}`") as caught:
        Envelope.from_record({**HEADERS, name: value}, b"{}")

    assert len(value) < 5 or value not in caught.value.reason
    assert caught.value.reason.isprintable()


def test_the_largest_numbers_are_accepted() -> None:
    headers = HEADERS | {"seq": str(2**62), "count": str(MAX_ENVELOPE_EVENTS), "dropped": str(2**62), "producer": "x" * 200}

    decoded = Envelope.from_record(headers, b"")

    assert (decoded.seq, decoded.count, decoded.dropped) == (2**62, MAX_ENVELOPE_EVENTS, 2**62)


def test_headers_of_others_do_not_matter() -> None:
    decoded = Envelope.from_record(HEADERS | {"traceparent": "00-1-1-00"}, b"{}")

    assert decoded == Envelope("triage-1", 7, 1, b"{}")


@pytest.mark.parametrize(("count", "value"), [(1, b"{}\n{}"), (2, b"{}"), (2, b"{}\n{}\n"), (3, b"{}\n{}")])
def test_an_envelope_that_holds_another_number_of_lines_is_refused(count: int, value: bytes) -> None:
    decoded = Envelope.from_record(HEADERS | {"count": str(count)}, value)

    with pytest.raises(InvalidEvent, match=f"says {count} events"):
        decoded.lines()


def test_nothing_dropped_sends_no_header() -> None:
    sent = envelope("triage-1", 0, [response()])

    assert "dropped" not in sent.headers()
    assert sent.lines() == [line(response())]


# Computed once; a change here would split a producer's events over two partitions, and count retries twice.
@pytest.mark.parametrize(
    ("producer", "partitions"),
    [
        ("triage-7f3a", {1: 0, 2: 1, 3: 0, 8: 1, 12: 9, 256: 161}),
        ("gateway", {1: 0, 2: 1, 3: 1, 8: 7, 12: 7, 256: 127}),
        ("a", {1: 0, 2: 1, 3: 0, 8: 3, 12: 3, 256: 67}),
        ("tidegate/1", {1: 0, 2: 0, 3: 0, 8: 0, 12: 0, 256: 32}),
        ("~!#", {1: 0, 2: 1, 3: 0, 8: 1, 12: 9, 256: 217}),
    ],
)
def test_a_producer_keeps_its_partition_for_ever(producer: str, partitions: dict[int, int]) -> None:
    assert {count: partition_of(producer, count) for count in partitions} == partitions


def test_producers_spread_over_partitions() -> None:
    counts = [0] * 8
    for number in range(8_000):
        counts[partition_of(f"service-{number:x}", 8)] += 1

    assert min(counts) > 800
