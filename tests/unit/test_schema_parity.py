"""The public schema and the hot decoder are one schema: same verdict on the same bytes, same values, no leaking reasons."""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from support import finding, line, response, scored
from tidegate.schemas.call import TOKEN_FIELDS, RejectedEvent, RequestEvent, ResponseEvent
from tidegate.schemas.errors import InvalidEvent
from tidegate.schemas.event import EVENT_ADAPTER
from tidegate.schemas.finding import MAX_EVIDENCE, MAX_FINDINGS, EvidenceEntry, FindingEntry, Outcome, ScoredEvent
from tidegate.schemas.hot import decode_event

MODELS = {"request": RequestEvent, "response": ResponseEvent, "rejected": RejectedEvent, "scored": ScoredEvent}

TEXT = ["gpt-4o", "x", "é", "😀", "a b", "\u2028", "\x85", "\ufeff", "ß" * 128, "😀" * 128]
SLUGS = ["stop", "a", "A_z.9:/-", "s" * 64]


def _json(*values: Any) -> st.SearchStrategy[bytes]:
    """Raw JSON of one of the values, with and without escapes."""
    return st.builds(
        lambda value, ascii_only: json.dumps(value, ensure_ascii=ascii_only).encode(), st.sampled_from(values), st.booleans()
    )


def _raw(*values: bytes) -> st.SearchStrategy[bytes]:
    return st.sampled_from(values)


identifier, slug = _json(*TEXT), _json(*SLUGS)
short_text = _json(*TEXT, "t" * 256)
tokens = _raw(b"0", b"-0", b"1", b"1000", b"999999999", b"1000000000")
seconds = _raw(b"0", b"-0.0", b"0.8", b"1e-3", b"5E-324", b"604800", b"604800.0", b"1e-400")
number = _raw(b"0.5", b"-1", b"1e308", b"-1.7976931348623157e308", b"18446744073709551617", b"9" * 308, b"0.1", b"2e-308")
timestamp = _raw(
    *(
        b'"%b"' % text
        for text in (
            *(b"2026-11-02T08:00:00Z", b"2026-11-02t08:00:00z", b"2026-11-02 08:00:00Z", b"2026-11-02T08:00:00.778+05:30"),
            *(
                b"2026-11-02T08:00:00-00:00",
                b"2026-11-02T08:00:00+23:59",
                b"2026-11-02T08:00:00-23:59",
                b"9999-12-31T23:59:59Z",
            ),
            *(
                b"0001-01-01T00:00:00+01:00",
                b"2028-02-29T23:59:59.9999999Z",
                b"2026-11-02T08:00:00+0100",
                b"0001-01-01T00:00:00Z",
            ),
            *(b"2026-11-02T08:00:00.%bZ" % (b"123456789012"[:digits]) for digits in range(1, 13)),
        )
    )
)
usage = st.recursive(
    tokens | slug | _raw(b"null", b"true", b"1.5"),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: b"[" + b",".join(items) + b"]")
        | st.lists(st.tuples(slug, inner), max_size=4).map(
            lambda pairs: b"{" + b", ".join(key + b": " + value for key, value in pairs) + b"}"
        )
    ),
    max_leaves=12,
)
usage_object = st.lists(st.tuples(slug, usage), max_size=5).map(
    lambda pairs: b"{" + b",".join(key + b":" + value for key, value in pairs) + b"}"
)
quality = st.lists(st.tuples(slug, number), max_size=33).map(
    lambda pairs: b"{" + b",".join(key + b":" + value for key, value in pairs) + b"}"
)
labels = st.lists(st.tuples(slug, short_text), max_size=33).map(
    lambda pairs: b"{" + b",".join(key + b":" + value for key, value in pairs) + b"}"
)
chunk = st.builds(
    lambda chunk_id, rest: b'{"chunk_id":' + chunk_id + rest + b"}",
    identifier,
    _raw(b"", b',"score":1', b',"score":-0.5,"source":"formulary"', b',"source":null', b',"score":null'),
)
retrieval = st.lists(chunk, max_size=3).map(lambda chunks: b"[" + b",".join(chunks) + b"]")
flag = _raw(b"true", b"false")
score = _raw(b"0", b"-0.0", b"0.5", b"1", b"1.0", b"1e-400", b"0.9999999999999999")
place = _raw(b"0", b"-0", b"7", b"2147483647")
where = _raw(b'"prompt"', b'"response"', b'"context"')
fingerprint = _raw(b'"' + b"0a" * 16 + b'"')
ENTRY: dict[str, st.SearchStrategy[bytes]] = {
    **dict.fromkeys(("detector", "type", "rule"), slug),
    **dict.fromkeys(("where", "source"), where),
    **dict.fromkeys(("chunk", "start", "end", "source_start", "source_end"), place),
    "score": score,
    "leak": flag,
    "fingerprint": fingerprint,
}


@st.composite
def entries(draw: st.DrawFn, model: type[BaseModel]) -> bytes:
    """A list of findings, or of evidence: valid, but for a fault now and then."""
    found = []
    for _ in range(draw(st.integers(0, 3))):
        items = {name: draw(ENTRY[name]) for name in model.model_fields if model.model_fields[name].is_required()}
        optional = sorted(model.model_fields.keys() - items.keys())
        items |= {name: draw(ENTRY[name]) for name in draw(st.lists(st.sampled_from(optional), unique=True))}
        if draw(st.integers(0, 5)) == 0:
            items[draw(st.sampled_from([*items, "text"]))] = draw(st.sampled_from(WRONG))
        found.append(b"{" + b",".join(b'"%b":%b' % (name.encode(), value) for name, value in items.items()) + b"}")
    return b"[" + b",".join(found) + b"]"


def _object(keys: st.SearchStrategy[bytes], values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(st.tuples(keys, values), max_size=33).map(
        lambda pairs: b"{" + b",".join(key + b":" + value for key, value in pairs) + b"}"
    )


FIELDS: dict[str, st.SearchStrategy[bytes]] = {
    **dict.fromkeys(("call_id", "tenant", "team", "user", "service", "environment", "region", "task_type"), identifier),
    **dict.fromkeys(("provider_name", "request_model", "operation_name", "prompt_name", "prompt_version"), identifier),
    **dict.fromkeys(("refused_in", "fallback_from", "experiment", "variant", "conversation_id", "response_model"), identifier),
    **dict.fromkeys(("response_id", "source"), identifier),
    **dict.fromkeys(("service_tier", "trace_id", "span_id", "finish_reason", "error_code", "key_id"), slug),
    "sealed": _raw(b'"QUJD"', b'"QUI="', b'"+/=="', b'"A"', b'"' + b"A" * 98_304 + b'"'),
    **dict.fromkeys(("started_at", "rejected_at", "scored_at"), timestamp),
    **dict.fromkeys((*TOKEN_FIELDS, "max_tokens", "estimated_input_tokens", "estimated_output_tokens"), tokens),
    **dict.fromkeys(("latency_s", "time_to_first_token_s"), seconds),
    **dict.fromkeys(("stream", "cache_hit", "cached"), flag),
    "temperature": _raw(b"0", b"-0.0", b"0.7", b"100", b"1e2"),
    "top_p": _raw(b"0", b"1", b"0.999"),
    "top_k": _raw(b"40", b"1000000", b"0.5"),
    "frequency_penalty": _raw(b"-100", b"100.0", b"0"),
    "presence_penalty": _raw(b"-100", b"100.0", b"0"),
    "seed": _raw(b"0", b"-9223372036854775808", b"9223372036854775807"),
    "choice_count": _raw(b"1", b"10000"),
    "attempt": _raw(b"1", b"1000"),
    "line": _raw(b"1", b"9007199254740992"),
    "size_bytes": _raw(b"0", b"9007199254740992"),
    "sha256": _raw(b'"' + b"0a" * 32 + b'"'),
    "error_type": _raw(b'"rate_limit"', b'"failure"', b'"cancelled"'),
    "labels": labels,
    "usage": usage_object,
    "retrieval": retrieval,
    "quality": quality,
    "reason": short_text,
    "outcome": _raw(*(b'"%b"' % outcome.encode() for outcome in get_args(Outcome))),
    "findings": entries(FindingEntry),
    "more_findings": place,
    "evidence": entries(EvidenceEntry),
    "scores": _object(slug, score),
    **dict.fromkeys(("detectors", "failed"), _object(slug, slug)),
    "scoring_s": _raw(b"0", b"-0.0", b"86400", b"0.25"),
}
KNOWN = sorted(FIELDS)

# Whatever may stand where a value should. The last few are not JSON.
WRONG = [
    *(b"null", b"true", b"false", b"0", b"1", b"-1", b"1.0", b"100.0", b"1e2", b"1E+2", b"0.5", b"-0", b"-0.0", b"1e400"),
    *(b"-1e400", b"1e-400", b"1000000001", b"1000000000.0", b"604800.0000001", b"604801", b"100.0000001", b"-100.0000001"),
    *(
        b"1.0000000000000002",
        b"10001",
        b"1001",
        b"1000001",
        b"9007199254740993",
        b"9223372036854775807",
        b"9223372036854775808",
    ),
    *(b"-9223372036854775809", b"18446744073709551616", b"9" * 310, b"9" * 4_300, b"9" * 4_301, b"1." + b"9" * 400),
    *(
        b'""',
        b'" "',
        b'"1"',
        b'"null"',
        b'"a b"',
        b'"x\\n"',
        b'"x\\u0000y"',
        b'"\\u007f"',
        b'"\x7f"',
        b'"\\u001f"',
        b'"\\u0085"',
    ),
    *(b'"' + b"s" * length + b'"' for length in (63, 64, 65, 127, 128, 129, 255, 256, 257)),
    *('"{}"'.format("😀" * length).encode() for length in (128, 129, 256, 257)),
    *(b'"\\ud83d\\ude00"', b'"' + b"\\ud83d\\ude00" * 128 + b'"', b'"' + b"\\ud83d\\ude00" * 129 + b'"', b'"\\/"', b'"a\\\\b"'),
    *(b'"\\ud800"', b'"\\udc00x"', b'"\\ud800\\ud800"', b'"\\udc00\\ud83d"', b'"\\uD83D\\u0041"', b'"\\u12"', b'"\\x41"'),
    *(
        b'"a\x00"',
        b'"a\x1fb"',
        b'"a\nb"',
        b'"a\tb"',
        b'"\xff"',
        b'"\xc3"',
        b'"\xed\xa0\x80"',
        b'"\xc0\x80"',
        b'"\xf4\x90\x80\x80"',
    ),
    *(b"[]", b"{}", b"[1]", b'["a"]', b'[["a","b"]]', b'{"a":"b"}', b'{"a":1}', b'{"a":null}', b'{"":"x"}', b'{"a b":"x"}'),
    *(b'{"a\\n":"x"}', b'{"a":"x\\n"}', b'{"a":""}', b'{"a":"","a":"x"}', b'{"a":"x","a":""}', b'{"a":NaN,"a":1}', b'{"a":{}}'),
    b"{" + b",".join(b'"k%d":"v"' % i for i in range(33)) + b"}",
    b"{" + b",".join(b'"k%d":1' % i for i in range(64)) + b"}",
    b"{" + b",".join(b'"k%d":1' % i for i in range(65)) + b"}",
    *(b'{"a":[%b]}' % b",".join([b"1"] * length) for length in (64, 65)),
    *(b'{"a":' * depth + b"1" + b"}" * depth for depth in (3, 4, 5, 6, 7)),
    *(b'{"a":' + b"[" * depth + b"]" * depth + b"}" for depth in (3, 4, 5, 6, 199, 200, 3_000, 40_000)),
    *(
        b'{"a":18446744073709551616}',
        b'{"a":1e400}',
        b'{"a":-0.0}',
        b'{"a":1e30}',
        b'{"a":9223372036854775808}',
        b'{"a":"a b"}',
    ),
    *(b'{"' + b"k" * length + b'":"x"}' for length in (64, 65)),
    *(b'[{"chunk_id":"a","text":"x"}]', b'[{"chunk_id":""}]', b'[{"score":1}]', b'[{"chunk_id":"a","score":NaN}]', b"[null]"),
    *(b'[{"chunk_id":"a","score":1e309}]', b'[{"chunk_id":"a","chunk_id":1}]', b'[{"chunk_id":1,"chunk_id":"a"}]'),
    *(b"[" + b",".join([b'{"chunk_id":"a"}'] * length) + b"]" for length in (256, 257)),
    *(b'"2026-11-02T08:00Z"', b'"2026-11-02T08:00:60Z"', b'"2026-12-31T23:59:60Z"', b'"2026-11-02T08:00:00+24:00"'),
    *(b'"0000-01-01T00:00:00Z"', b'"9999-12-31T23:59:59.9999999Z"', b'"10000-01-01T00:00:00Z"', b'"2026-11-02T08:00:00"'),
    *(b'"2026-11-02"', b'"1793606400"', b"1793606400", b"1793606400.5", b'"2026-02-30T00:00:00Z"', b'"2026-11-02T24:00:00Z"'),
    *(b'"2026-11-02T08:00:00+01"', b'"2026-11-02T08:00:00,5Z"', b'"2026-11-02T08:00:00.Z"', b'" 2026-11-02T08:00:00Z"'),
    *(b'"2026-11-02T08:00:00Z "', b'"2026-11-02T08:00:00\\u005a"', b'"2026-11-02T08:00:00+23:60"', b'"2026-11-02T08:00:00 Z"'),
    *(b'"request"', b'"response"', b'"rejected"', b'"Response"', b'"re\\u0073ponse"', b'"' + b"AB" * 32 + b'"', b'"a"'),
    *(
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"nan",
        b"01",
        b"+1",
        b"1.",
        b".5",
        b"0x10",
        b"1_000",
        b"'a'",
        b"",
        b"undefined",
        b"\x00",
    ),
]
EDGES = [
    b"",
    b" ",
    b"\n",
    b"\r\n",
    b"\t",
    b"\xef\xbb\xbf",
    b"\x00",
    b"\x0b",
    b"\xa0",
    b"x",
    b",",
    b"{}",
    b"//",
    b"\xe2\x80\x8b",
]


@st.composite
def pairs(draw: st.DrawFn) -> list[tuple[bytes, bytes]]:
    """The keys and values of a valid, or almost valid, event (rules across fields may be broken)."""
    tag = draw(st.sampled_from([*MODELS, "response", "response"]))
    fields = MODELS[tag].model_fields
    required = [name for name in fields if name != "event" and fields[name].is_required()]
    optional = [name for name in fields if not fields[name].is_required()]
    if tag == "response" and draw(st.booleans()):
        optional = [name for name in optional if name not in TOKEN_FIELDS]  # so that `usage` has a chance
    names = required + draw(st.lists(st.sampled_from(optional), unique=True, max_size=12))
    return [(b'"event"', b'"%b"' % tag.encode()), *((b'"%b"' % name.encode(), draw(FIELDS[name])) for name in names)]


def assemble(draw: st.DrawFn, items: list[tuple[bytes, bytes]]) -> bytes:
    space = draw(st.sampled_from([b"", b"", b" ", b"\n\t"]))
    return b"{" + (b"," + space).join(key + space + b":" + space + value for key, value in items) + space + b"}"


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """Lines near the schema: valid ones, and ones with a fault or two."""
    items = draw(pairs())
    for fault in draw(
        st.lists(st.sampled_from(["value", "value", "value", "key", "twice", "twice", "add", "drop", "shuffle"]), max_size=2)
    ):
        at = draw(st.integers(0, len(items) - 1))
        if fault == "value":
            items[at] = (items[at][0], draw(st.sampled_from(WRONG)))
        elif fault == "key":
            key = draw(
                st.sampled_from([b'"text"', b'""', b'"Tenant"', b'"ten\\u0061nt"', b'"tenant\\n"', b'"\\ud800"', b"tenant"])
            )
            items[at] = (key, items[at][1])
        elif fault == "twice":
            name = draw(st.sampled_from([items[at][0].decode().strip('"'), draw(st.sampled_from(KNOWN)), "usage", "event"]))
            value = draw(st.sampled_from(WRONG) | FIELDS.get(name, st.just(b'"response"')))
            items.insert(draw(st.integers(0, len(items))), (b'"%b"' % name.encode("utf-8", "replace"), value))
        elif fault == "add":
            name = draw(st.sampled_from(KNOWN))
            items.append((b'"%b"' % name.encode(), draw(FIELDS[name] | st.sampled_from(WRONG))))
        elif fault == "drop" and len(items) > 1:
            del items[at]
        elif fault == "shuffle":
            items = draw(st.permutations(items))
    text = assemble(draw, items)
    if draw(st.integers(0, 9)) == 0:
        text = draw(st.sampled_from(EDGES)) + text + draw(st.sampled_from(EDGES))
    return text


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid line after a byte was changed, removed or added somewhere."""
    text = assemble(draw, draw(pairs()))
    at, byte = draw(st.integers(0, len(text) - 1)), draw(st.binary(max_size=1))
    return text[:at] + byte + text[at + draw(st.integers(0, 1)) :]


def read_hot(text: bytes) -> tuple[Any, str]:
    """The hot decoder's event, or None and why not."""
    try:
        return decode_event(text), ""
    except InvalidEvent as error:
        return None, error.reason


def read_public(text: bytes) -> Any:
    try:
        return EVENT_ADAPTER.validate_json(text)
    except ValidationError:
        return None


def check(text: bytes) -> None:
    hot, reason = read_hot(text)
    public = read_public(text)

    assert (hot is None) == (public is None)
    assert (hot is None) == bool(reason)
    assert len(reason) <= 256
    assert reason.isprintable()
    if hot is None or public is None:
        return
    fields = type(public).model_fields.keys() - {"event"}
    assert fields == set(hot.__struct_fields__)
    # repr tells -0.0 from 0.0, 1 from 1.0 from True, and a time zone from another.
    assert {name: plain(getattr(hot, name)) for name in fields} == {name: plain(getattr(public, name)) for name in fields}
    assert repr(EVENT_ADAPTER.validate_json(msgspec.json.encode(hot))) == repr(public)


def plain(value: Any) -> str:
    if isinstance(value, list):
        value = [{name: getattr(item, name) for name in _names(item)} for item in value]
    return repr(value)


def _names(item: Any) -> list[str]:
    """The fields of a chunk, a finding or a piece of evidence, in one order."""
    return sorted(type(item).model_fields if isinstance(item, BaseModel) else item.__struct_fields__)


def test_every_field_of_the_schema_is_generated() -> None:
    in_schema = {name for model in MODELS.values() for name in model.model_fields}

    assert in_schema - {"event"} == FIELDS.keys()


@given(lines())
@example(b'{"event":"request","event":"response"}')
def test_both_decoders_judge_and_read_lines_near_the_schema_alike(text: bytes) -> None:
    check(text)


@given(damaged() | st.binary(max_size=40) | st.text(max_size=40).map(lambda text: json.dumps(text).encode()))
def test_both_decoders_judge_damaged_lines_and_junk_alike(text: bytes) -> None:
    check(text)


@pytest.mark.parametrize("value", WRONG, ids=range(len(WRONG)))
def test_both_decoders_judge_every_odd_value_in_every_field_alike(value: bytes) -> None:
    for tag, model in MODELS.items():
        base = {name: _PLAIN[name] for name in model.model_fields if model.model_fields[name].is_required()}
        base["event"] = b'"%b"' % tag.encode()
        for name in model.model_fields:
            items = base | {name: value}
            check(b"{" + b",".join(b'"%b":%b' % (key.encode(), raw) for key, raw in items.items()) + b"}")
            if name == "usage":  # an earlier one that does not count must not count
                check(b"{" + b",".join(b'"%b":%b' % (key.encode(), raw) for key, raw in items.items()) + b',"usage":{}}')


EVIDENCE = {"start": 0, "end": 9, "score": 1, "source": "context", "source_start": 4, "source_end": 8}


@pytest.mark.parametrize(
    ("fields", "taken"),
    [
        ({"findings": [finding()] * MAX_FINDINGS, "evidence": [EVIDENCE] * MAX_EVIDENCE}, True),
        ({"findings": [finding()] * (MAX_FINDINGS + 1)}, False),
        ({"evidence": [EVIDENCE] * (MAX_EVIDENCE + 1)}, False),
        ({"findings": [finding(score=1.1)]}, False),
        ({"findings": [finding(start=-1)]}, False),
        ({"findings": [finding(text="Qzx")]}, False),
        ({"scores": {f"response.s{number}": 0.5 for number in range(33)}}, False),
    ],
    ids=range(7),
)
def test_a_verdict_is_bounded_and_holds_no_text(fields: dict[str, Any], taken: bool) -> None:
    text = line(scored(**fields))

    hot, _ = read_hot(text)

    assert (hot is not None) is taken
    check(text)


def test_of_a_finding_that_says_a_thing_twice_the_last_counts() -> None:
    text = line(scored(findings=[finding()])).replace(b'"score":', b'"score":"high","score":')

    event: Any = decode_event(text)

    assert event.findings[0].score == 0.95
    check(text)


_PLAIN = {
    **dict.fromkeys(("call_id", "request_model", "source", "reason"), b'"x"'),
    **dict.fromkeys(("started_at", "rejected_at", "scored_at"), b'"2026-11-02T08:00:00Z"'),
    **{"outcome": b'"scored"', "event": b'""', "size_bytes": b"1", "sha256": b'"' + b"0a" * 32 + b'"'},
}


@pytest.mark.parametrize("pieces", [(b" ", b"\r\n"), (b"\t", b""), (b"", b"")])
def test_json_whitespace_around_an_event_is_nothing(pieces: tuple[bytes, bytes]) -> None:
    before, after = pieces

    event = decode_event(before + line(response()) + after)

    assert event.call_id == "call-1"


def test_of_a_key_given_twice_the_last_counts() -> None:
    text = line(response())[:-1] + b',"output_tokens":"seven","output_tokens":7,"event":"request","event":"response"}'

    event = decode_event(text)

    assert event.output_tokens == 7


def test_a_number_that_is_whole_but_written_as_a_float_is_refused_for_a_count() -> None:
    with pytest.raises(InvalidEvent, match=r"input_tokens"):
        decode_event(line(response(input_tokens=100.0)))


CANARY = "Qzx canary 4711"
BARE = "Qzxcanary4711"
PLANTS = [
    line(response(**{"error_type": CANARY})),
    line(response(**{"finish_reason": CANARY})),
    line(response(**{"input_tokens": CANARY})),
    line(response(**{"input_tokens": {BARE: 1}})),
    line(response(**{"started_at": CANARY})),
    line(response(**{"stream": CANARY})),
    line(response(**{"event": CANARY})),
    line(response(**{"tenant": CANARY + "\n"})),
    line(response(**{"tenant": CANARY * 20})),
    line(response(**{BARE: 1})),
    line(response(**{CANARY: CANARY})),
    line(response(**{f"x - at `{BARE}": 1})),
    line(response(**{f"x` - at `$.{BARE}": 1})),
    line(response(**{f"x - at `$.team[{BARE}]": 1})),
    line(response(**{f"Invalid {BARE} - at `$.{BARE}": 1})),
    line(response(labels={CANARY: "x"})),
    line(response(labels={BARE + "\n": "x"})),
    line(response(labels={BARE: "x\n"})),
    line(response(labels={BARE: CANARY * 50})),
    line(response(labels={BARE: 1})),
    line(response(quality={CANARY: 1.0})),
    line(response(quality={BARE: CANARY})),
    line(response(retrieval=[{"chunk_id": "a", BARE: CANARY}])),
    line(response(retrieval=[{"chunk_id": "a", f"x - at `$.{BARE}": CANARY}])),
    line(response(retrieval=[{"chunk_id": CANARY + "\x7f"}])),
    line(response(input_tokens=None, output_tokens=None, usage={CANARY: 1})),
    line(response(input_tokens=None, output_tokens=None, usage={BARE: CANARY})),
    line(response(input_tokens=None, output_tokens=None, usage={BARE: {BARE: {BARE: {BARE: {BARE: 1}}}}})),
    line(response(usage={BARE: 1})),
    line(scored(outcome=CANARY)),
    line(scored(findings=[finding(type=CANARY)])),
    line(scored(findings=[finding(where=BARE)])),
    line(scored(findings=[finding(start=BARE)])),
    line(scored(findings=[finding(fingerprint=BARE)])),
    line(scored(findings=[finding(**{BARE: CANARY})])),
    line(scored(findings=[finding(**{f"x - at `$.{BARE}": CANARY})])),
    line(scored(evidence=[{BARE: CANARY}])),
    line(scored(scores={CANARY: 0.5})),
    line(scored(scores={BARE: CANARY})),
    line(scored(failed={BARE: CANARY})),
    line(scored(detectors={CANARY + "\n": "1"})),
    line(scored(prompt=CANARY)),
    CANARY.encode(),
    b'"' + CANARY.encode() + b'"',
    line(response()) + CANARY.encode(),
    line(response())[:-1] + b',"team":"' + CANARY.encode(),
    line(response())[:-1] + b',"team":"' + CANARY.encode() + b'\xff"}',
    line(response())[:-1] + b',"team":"' + CANARY.encode() + b'\\ud800"}',
    line(response())[:-1] + b',"event":"' + CANARY.encode() + b'\\n"}',
    line(response())[:-1] + b',"' + BARE.encode() + b'\\n":1}',
]


@pytest.mark.parametrize("text", PLANTS, ids=range(len(PLANTS)))
def test_a_reason_never_repeats_what_the_sender_wrote(text: bytes) -> None:
    with pytest.raises(InvalidEvent) as caught:
        decode_event(text)

    reason = caught.value.reason
    assert all(part not in reason for part in ("Qzx", "canary", "4711"))
    assert 0 < len(reason) <= 256
    assert reason.isprintable()
    assert str(caught.value) == reason
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@given(lines(), st.sampled_from([CANARY, BARE, f"x - at `$.{BARE}", BARE + "\n", f"Invalid {BARE}"]), st.data())
def test_a_canary_anywhere_in_a_line_is_never_in_the_reason(text: bytes, canary: str, data: st.DataObject) -> None:
    quotes = [at for at, byte in enumerate(text) if byte == ord('"')] or [0]
    at = data.draw(st.sampled_from(quotes)) + 1
    escaped = json.dumps(canary)[1:-1].encode()

    _, reason = read_hot(text[:at] + escaped + text[at:])

    assert "Qzx" not in reason
    assert "4711" not in reason
    assert reason.isprintable()
    assert len(reason) <= 256


def test_the_public_schema_exports_as_json_schema() -> None:
    schema = EVENT_ADAPTER.json_schema()

    assert schema["discriminator"]["propertyName"] == "event"
    assert {"RequestEvent", "ResponseEvent", "RejectedEvent", "ScoredEvent", "RetrievedChunk", "FindingEntry"} <= schema[
        "$defs"
    ].keys()
    assert all(schema["$defs"][model.__name__]["properties"].keys() == model.model_fields.keys() for model in MODELS.values())
    assert all(schema["$defs"][model.__name__]["additionalProperties"] is False for model in MODELS.values())
    json.dumps(schema, allow_nan=False)
