"""Content records: what was ever sealed opens for ever, what is wrong is named by field, and nothing sent is repeated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate.producers.keyring import KeyRing
from tidegate.producers.sealing import unseal
from tidegate.schemas.content import MAX_SEALED_CHARS, decode_content
from tidegate.schemas.envelope import CALL_SCHEMAS, CONTENT_SCHEMAS, Envelope
from tidegate.schemas.errors import InvalidEvent

GOLDEN = sorted((Path(__file__).parents[1] / "golden" / "content").glob("v*.json"))
CANARY = "Rosa-Martinez-MRN-4711"
SEALED: dict[str, Any] = {
    "event": "content",
    "call_id": "c-1",
    "started_at": "2026-11-02T08:00:00Z",
    "mode": "sealed",
    "key_id": "k-1",
    "sealed": "A" * 40,
}
HASHED: dict[str, Any] = {
    "event": "content",
    "call_id": "c-1",
    "started_at": "2026-11-02T08:00:00Z",
    "mode": "hashed",
    "fingerprints": {"prompt": ["0" * 32]},
}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_record_of_any_version_opens_for_ever(path: Path) -> None:
    """The files are history: add new ones, never edit one."""
    golden = json.loads(path.read_text())
    ring = KeyRing.parse(json.dumps(golden["ring"]).encode(), "golden")

    decoded = Envelope.from_record(golden["headers"], golden["value"].encode(), CONTENT_SCHEMAS)
    events = [decode_content(line) for line in decoded.lines()]

    found = {name: getattr(decoded, name) for name in ("producer", "seq", "count", "dropped", "schema")}
    texts = [unseal(event, ring).model_dump() if event.mode == "sealed" else None for event in events]
    prints = [event.fingerprints for event in events]
    call_ids = [event.call_id for event in events]
    assert found | {"call_ids": call_ids, "texts": texts, "fingerprints": prints} == golden["expected"]


def test_there_is_a_golden_record_of_the_version_in_use() -> None:
    assert {json.loads(path.read_text())["headers"]["schema"] for path in GOLDEN} == CONTENT_SCHEMAS


def test_content_among_calls_and_calls_among_content_are_refused() -> None:
    headers = {"producer": "p", "seq": "0", "count": "1"}

    for schemas, foreign in ((CALL_SCHEMAS, "content/1"), (CONTENT_SCHEMAS, "calls/1")):
        with pytest.raises(InvalidEvent, match="schema"):
            Envelope.from_record({**headers, "schema": foreign}, b"{}", schemas)


def test_sealed_and_hashed_records_are_taken() -> None:
    longest = SEALED | {"sealed": "A" * MAX_SEALED_CHARS}

    modes = [decode_content(json.dumps(event).encode()).mode for event in (SEALED, HASHED, longest)]

    assert modes == ["sealed", "hashed", "sealed"]


@pytest.mark.parametrize(
    ("event", "named"),
    [
        (SEALED | {"prompt": CANARY}, "never in the clear"),
        (SEALED | {CANARY: "x"}, "never in the clear"),
        (SEALED | {"sealed": CANARY}, "sealed"),
        (SEALED | {"sealed": f"{CANARY} and more of it, in words"}, "`$.sealed`"),
        (SEALED | {"sealed": "A" * 41}, "sealed"),
        (SEALED | {"sealed": "A" * (MAX_SEALED_CHARS + 4)}, "`$.sealed`"),
        (SEALED | {"mode": CANARY}, "`$.mode`"),
        (SEALED | {"mode": "off"}, "`$.mode`"),
        (SEALED | {"key_id": f"{CANARY} of {CANARY}"}, "`$.key_id`"),
        (SEALED | {"key_id": None}, "key_id"),
        (SEALED | {"fingerprints": {"prompt": ["0" * 32]}}, "no fingerprints"),
        (SEALED | {"call_id": f"{CANARY}\n"}, "`$.call_id`"),
        (SEALED | {"tenant": CANARY * 10}, "`$.tenant`"),
        (SEALED | {"started_at": CANARY}, "`$.started_at`"),
        (HASHED | {"fingerprints": {"prompt": [CANARY]}}, "`$.fingerprints`"),
        (HASHED | {"fingerprints": {CANARY: ["0" * 32]}}, "`$.fingerprints`"),
        (HASHED | {"fingerprints": None}, "fingerprints"),
        (HASHED | {"sealed": "A" * 40}, "nothing sealed"),
        (SEALED | {"event": "response"}, "`$.event`"),
        ([CANARY], ""),
        (CANARY, ""),
    ],
    ids=range(21),
)
def test_what_is_wrong_is_named_and_what_was_sent_is_not_repeated(event: Any, named: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        decode_content(json.dumps(event).encode())

    assert named in caught.value.reason
    assert CANARY not in caught.value.reason
    assert caught.value.__cause__ is None


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text(max_size=20), st.lists, max_leaves=5).map(lambda x: json.dumps(x).encode())
)
def test_anything_is_refused_in_our_own_words(line: bytes) -> None:
    with pytest.raises(InvalidEvent) as caught:
        decode_content(line)

    assert len(caught.value.reason) <= 300
