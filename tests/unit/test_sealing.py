"""Sealing: what is sealed opens with its own key, for its own call, as it was written; and nothing else does."""

from __future__ import annotations

import base64
import itertools
import zlib
from datetime import UTC, datetime

import orjson
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st
from tidegate.producers.keyring import Key, KeyRing
from tidegate.producers.sealing import (
    MAX_TEXTS_BYTES,
    TextsTooLarge,
    fingerprint,
    fingerprint_id,
    fingerprints,
    opened,
    seal,
    unseal,
)
from tidegate.schemas.content import MAX_SEALED_CHARS, ContentEvent, Texts
from tidegate.schemas.errors import KeyGone, Unreadable

AT = datetime(2026, 11, 2, 8, tzinfo=UTC)
KEY = Key("k-1", None, bytes(range(32)), AT)
OTHER = Key("k-2", "st-anne", bytes(range(1, 33)), AT)
RING = KeyRing([KEY, OTHER], b"f" * 32)

# Halves of surrogate pairs are no text; the emitter has replaced them before.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
some_texts = st.builds(Texts, prompt=st.none() | texts, response=st.none() | texts, context=st.lists(texts, max_size=5))


def event(sealed: str, key_id: str = "k-1", call_id: str = "c-1") -> ContentEvent:
    return ContentEvent(event="content", call_id=call_id, started_at=AT, mode="sealed", key_id=key_id, sealed=sealed)


def reason_of(sealed: str, key: Key = KEY, call_id: str = "c-1") -> str:
    with pytest.raises(Unreadable) as caught:
        opened(sealed, call_id, key)
    return caught.value.reason


def sealed_by_hand(plain: bytes) -> str:
    """As whoever has the key could, who is not us."""
    nonce = b"n" * 12
    return base64.b64encode(nonce + AESGCM(KEY.secret).encrypt(nonce, plain, b"c-1")).decode()


@given(found=some_texts, call_id=texts.filter(bool))
def test_what_was_sealed_opens_as_it_was(found: Texts, call_id: str) -> None:
    sealed = seal(found, call_id, KEY)

    assert opened(sealed, call_id, KEY) == found


def test_a_record_opens_with_the_ring_that_has_its_key() -> None:
    found = Texts(prompt="What now?", context=["a guide"])

    ours, theirs = unseal(event(seal(found, "c-1", KEY)), RING), unseal(event(seal(found, "c-1", OTHER), "k-2"), RING)

    assert ours == theirs == found


def test_nothing_of_the_text_is_in_what_is_sealed_and_no_two_are_alike() -> None:
    found = Texts(prompt="canary-4711 " * 50)

    first, second = seal(found, "c-1", KEY), seal(found, "c-1", KEY)

    assert first != second
    assert b"canary" not in base64.b64decode(first)


@settings(max_examples=300)
@given(data=st.data())
def test_any_changed_byte_is_refused(data: st.DataObject) -> None:
    packed = bytearray(base64.b64decode(seal(Texts(prompt="p" * 50, response="r"), "c-1", KEY)))
    place = data.draw(st.integers(0, len(packed) - 1))

    packed[place] ^= data.draw(st.integers(1, 255))

    assert reason_of(base64.b64encode(packed).decode()) == "tampered"


# Sealed once: each sealing differs, and what is drawn below must depend on nothing but what was drawn before.
SHORT = [seal(Texts(prompt="p" * length), "c-1", KEY) for length in range(1, 5)]


@settings(max_examples=300)
@given(data=st.data())
def test_any_changed_character_is_refused(data: st.DataObject) -> None:
    """Also one whose bits base64 throws away."""
    sealed = data.draw(st.sampled_from(SHORT))
    place = data.draw(st.integers(0, len(sealed) - 1))
    character = data.draw(st.sampled_from("ABCDEFGHabcdefgh0123+/=").filter(lambda found: found != sealed[place]))

    changed = sealed[:place] + character + sealed[place + 1 :]

    assert reason_of(changed) in ("tampered", "malformed")


def test_a_record_belongs_to_its_call_and_its_key() -> None:
    sealed = seal(Texts(prompt="p"), "c-1", KEY)

    assert reason_of(sealed, call_id="c-2") == "tampered"
    assert reason_of(sealed, key=OTHER) == "tampered"


@pytest.mark.parametrize("sealed", ["", "AAAA", "not base64 at all", "é" * 40, "A" * 39, "A" * 36])
def test_what_is_no_sealed_record_is_malformed(sealed: str) -> None:
    assert reason_of(sealed) == "malformed"


def test_a_key_that_is_gone_opens_nothing() -> None:
    record = event(seal(Texts(prompt="p"), "c-1", OTHER), "k-2")

    with pytest.raises(KeyGone) as caught:
        unseal(record, RING.without("k-2"))

    assert caught.value.reason == "key_gone"


def test_a_hashed_record_has_nothing_to_open() -> None:
    hashed = ContentEvent(event="content", call_id="c", started_at=AT, mode="hashed", fingerprints={"prompt": ["0" * 32]})

    with pytest.raises(Unreadable, match="malformed"):
        unseal(hashed, RING)


def test_a_bomb_is_unpacked_no_further_than_to_the_bound() -> None:
    bomb = sealed_by_hand(zlib.compress(b'{"prompt": "' + b"0" * (64 * MAX_TEXTS_BYTES) + b'"}', 9))

    assert len(bomb) < MAX_SEALED_CHARS
    assert reason_of(bomb) == "too_large"


@pytest.mark.parametrize(
    "plain",
    [
        b"not deflated",
        zlib.compress(b"not json"),
        zlib.compress(b"[]"),
        zlib.compress(orjson.dumps({"prompt": "canary-4711", "answer": "x"})),
        zlib.compress(orjson.dumps({"prompt": 3})),
        zlib.compress(orjson.dumps({"context": ["x"] * 257})),
        zlib.compress(orjson.dumps({"prompt": "x"}))[:-1],
        zlib.compress(orjson.dumps({"prompt": "x"})) + b"more",
    ],
    ids=itertools.count(),
)
def test_what_opens_to_something_else_is_malformed_and_not_quoted(plain: bytes) -> None:
    with pytest.raises(Unreadable) as caught:
        opened(sealed_by_hand(plain), "c-1", KEY)

    assert caught.value.reason == "malformed"
    assert caught.value.__cause__ is None
    assert "canary" not in str(caught.value)


def test_texts_that_fit_into_no_record_are_not_sealed() -> None:
    incompressible = "".join(chr(0x4E00 + (number * 7919) % 20_000) for number in range(400_000))

    with pytest.raises(TextsTooLarge, match="sealed"):
        seal(Texts(prompt=incompressible), "c-1", KEY)
    with pytest.raises(TextsTooLarge, match="bytes"):
        seal(Texts(prompt="x" * MAX_TEXTS_BYTES), "c-1", KEY)


def test_two_megabytes_of_prose_fit_in() -> None:
    words = [f"word{number % 997}" for number in range(250_000)]
    prose = Texts(prompt=" ".join(words))

    sealed = seal(prose, "c-1", KEY)

    assert prose.prompt is not None
    assert len(prose.prompt) > 1_800_000
    assert opened(sealed, "c-1", KEY) == prose


def test_a_fingerprint_says_which_key_has_made_it_and_nothing_of_the_key() -> None:
    old, new = b"f" * 32, b"g" * 32

    prints = [fingerprint(key, text) for key in (old, new) for text in ("same", "other")]

    assert [one[:8] for one in prints] == [fingerprint_id(key)[2:] for key in (old, old, new, new)]
    assert fingerprint_id(old) != fingerprint_id(new)
    assert len({one[8:] for one in prints}) == 4
    assert all(len(one) == 32 for one in prints)
    assert old.hex()[:8] not in "".join(prints)


def test_fingerprints_are_equal_for_equal_texts_under_one_key_only() -> None:
    found = Texts(prompt="same", response="same", context=["same", "other"])

    prints = fingerprints(b"f" * 32, found)

    assert prints["prompt"] == prints["response"] == prints["context"][:1] == [fingerprint(b"f" * 32, "same")]
    assert prints["context"][1] != prints["context"][0] != fingerprint(b"g" * 32, "same")
    assert fingerprints(b"f" * 32, Texts()) == {}


def test_no_repr_shows_a_text_or_a_key() -> None:
    found = Texts(prompt="canary-4711", response="canary-4711", context=["canary-4711"])

    shown = repr(found) + repr(KEY) + repr(RING)

    assert "canary" not in shown
    assert repr(KEY.secret)[2:-1] not in shown
