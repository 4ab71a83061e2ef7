"""A person in lines of JSON, in events that come late, and in bytes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from support import LogRecord, envelope, finding, line, request, response, scored
from tidegate.processors.aggregate import ScopeSets, UsageState
from tidegate.processors.forgetting import Eraser, Forgotten, Person, Traces, fingerprint_of, salt_of
from tidegate.processors.meter import MeterState, meter
from tidegate.processors.pricing import PriceBook
from tidegate.schemas.content import decode_content
from tidegate.schemas.hot import decode_event

ALICE = Person("harbor-health", "alice-4711")
KEY = b"k" * 32
# As `started_at` of the support's events is 2026-11-02.
AFTER_MS, BEFORE_MS = 1_793_700_000_000, 1_793_600_000_000
WHO = {
    "user": ALICE.user,
    "conversation_id": "chat",
    "trace_id": "trace",
    "span_id": "span",
    "labels": {"ward": "north"},
}


def eraser(*call_ids: str) -> Eraser:
    return Eraser(ALICE, salt_of(ALICE, KEY), call_ids)


def erased(event: dict[str, Any], *call_ids: str) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(eraser(*call_ids).line(line(event)) or b"null")
    return found


def test_an_event_without_the_person_is_an_event_and_costs_what_it_did() -> None:
    retrieval = [{"chunk_id": "chart-of-alice", "score": 0.5, "source": "ward"}]
    event = response(**WHO, response_id="r-1", retrieval=retrieval)

    found = erased(event)

    assert found.keys() == event.keys() - WHO.keys() - {"response_id"}
    assert found["call_id"] != event["call_id"]
    assert found["retrieval"] == [{"chunk_id": "-", "score": 0.5, "source": "-"}]
    same = ("started_at", "tenant", "input_tokens", "output_tokens", "latency_s", "request_model")
    assert {name: found[name] for name in same} == {name: event[name] for name in same}
    assert decode_event(line(found)).user is None


def test_a_call_has_the_same_new_id_wherever_it_is_told_of() -> None:
    told = [erased(one("call-7", **WHO | {"tenant": ALICE.tenant}))["call_id"] for one in (response, request)]
    told.append(erased(scored("call-7", user=ALICE.user))["call_id"])

    assert len(set(told)) == 1
    assert told != [erased(response("call-8", **WHO))["call_id"]]


@pytest.mark.parametrize(
    "event",
    [
        response(),
        response(user="alice-47110"),
        response(user=ALICE.user, tenant="st-anne"),
        response(user=ALICE.user, tenant=None),
        response("hers", user="bob"),
    ],
)
def test_a_line_of_somebody_else_is_the_very_same(event: dict[str, Any]) -> None:
    raw = line(event)

    assert eraser("hers").line(raw) is raw


def test_a_line_of_a_call_of_theirs_need_not_name_them() -> None:
    assert erased(response("hers", trace_id="t"), "hers").keys() == response("hers").keys()


def test_nothing_is_left_of_texts() -> None:
    sealed = {"event": "content", "call_id": "c", "started_at": "2026-11-02T08:00:00Z", "tenant": ALICE.tenant}
    sealed |= {"user": ALICE.user, "mode": "sealed", "key_id": "k-1", "sealed": "QUJD" * 20}
    redacted = {"tenant": ALICE.tenant, "user": ALICE.user, "redacted_prompt": "p", "redacted_response": None}

    content = eraser().line(line(sealed)) or b""
    transcript = erased(redacted | {"redacted_context": ["c"]})

    assert b"QUJD" not in content
    assert decode_content(content).mode == "hashed"
    assert (transcript["redacted_prompt"], transcript["redacted_response"], transcript["redacted_context"]) == (None, None, [])


def test_findings_keep_their_place_and_lose_their_fingerprint() -> None:
    event = scored(user=ALICE.user, findings=[finding(fingerprint="ab" * 16)])

    assert erased(event)["findings"] == [finding()]


def test_an_alert_goes_with_its_scope_and_forgets_a_spender() -> None:
    spenders = {"user=alice-4711": 5.0, "user=bob": 3.0}

    def told(scope: dict[str, str]) -> Any:
        return orjson.loads(eraser().line(line({"scope": scope, "contributors": spenders})) or b"null")

    assert told({"tenant": ALICE.tenant, "user": ALICE.user}) is None
    assert told({"user": ALICE.user}) is None
    assert told({"tenant": ALICE.tenant})["contributors"] == {"user=bob": 3.0}
    assert told({"tenant": "st-anne"})["contributors"] == spenders
    assert told({"tenant": "st-anne", "user": ALICE.user})["contributors"] == spenders


def test_what_cannot_be_read_goes_where_it_says_the_id() -> None:
    other = b'{"user": "alice-47110"'

    assert eraser().line(b'{"user": "alice-4711", broken') == b"{}"
    assert eraser().line(other) is other


def test_late_events_count_under_nobody_and_new_ones_under_their_name() -> None:
    state = MeterState(0, UsageState(ScopeSets((("tenant", "user"),))))
    state.forgotten = Forgotten({fingerprint_of(ALICE, KEY): AFTER_MS}, KEY)
    late = response("late", **WHO)
    later = response("later", **WHO | {"started_at": "2026-11-04T08:00:00Z"})
    record = LogRecord.of(0, envelope("p", 0, [late, later, response("bobs", user="bob")]), 1_793_900_000_000)

    _, outputs = meter(state, [record], PriceBook.load(None), 60)

    [(_, value)] = outputs.metered
    rows = [orjson.loads(row) for row in value.split(b"\n")]
    assert [row.get("user") for row in rows] == [None, ALICE.user, "bob"]
    assert b'"late"' not in value.split(b"\n")[0]
    assert [row["cost_nano_usd"] for row in rows] == [rows[2]["cost_nano_usd"]] * 3
    assert {key.values[1] for key in state.usage.live} == {None, ALICE.user, "bob"}


def test_whoever_was_forgotten_is_known_by_the_key_alone() -> None:
    event = decode_event(line(response(**WHO)))
    forgotten = {fingerprint_of(ALICE, KEY): AFTER_MS}

    assert Forgotten(forgotten, KEY).has(event)
    assert not Forgotten(forgotten, b"x" * 32).has(event)
    assert not Forgotten({fingerprint_of(ALICE, KEY): BEFORE_MS}, KEY).has(event)
    assert not Forgotten(forgotten, KEY).has(decode_event(line(response(user="bob"))))
    assert not Forgotten(forgotten, KEY).has(decode_event(line(response())))


@pytest.mark.parametrize(
    ("user", "found", "not_found"),
    [
        ("alice-4711", ["x alice-4711 y", "user=alice-4711", '"alice-4711"'], ["alice-47110", "malice-4711"]),
        ("7", ['{"user":"7"}', '{"user": "7", "x": 1}', "user=7, tenant"], ['{"seq":"7"}', "7", "user=77"]),
        ("jürgen-9", ["jürgen-9", '"j\\u00fcrgen-9"'], ["jurgen-9"]),
    ],
)
def test_an_id_is_found_in_bytes_as_far_as_it_can_be_told_there(user: str, found: list[str], not_found: list[str]) -> None:
    traces = Traces.of(user)

    assert [text for text in found if not traces.are_in(text.encode())] == []
    assert [text for text in not_found if traces.are_in(text.encode())] == []


def test_a_long_id_is_found_in_wide_characters_too() -> None:
    assert Traces.of("alice-4711").are_in("x alice-4711".encode("utf-16-le"))
