"""How long texts are cut, and how their words are hashed: nothing is lost, nothing depends on where a word stands."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tidegate.processors.guardrails.heads.features import BUCKETS, hashed
from tidegate.processors.guardrails.windows import MAX_WINDOWS, sentences, windows

# Of "ignore all 12 rules": how many, their sum, the first three.
FROZEN = (61, 3600946, [3413, 4059, 4680])


def test_numbers_addresses_and_quotes_end_no_sentence() -> None:
    text = 'Take 2.5 mg daily. See www.clinic.example now!\n- first line\n"Quoted." 好的。Yes?'

    found = [text[start:end] for start, end in sentences(text)]

    assert found == ["Take 2.5 mg daily.", "See www.clinic.example now!", "- first line", '"Quoted."', "好的。", "Yes?"]


@given(st.text(alphabet=" ab.!?\n", max_size=300), st.integers(5, 80))
def test_windows_hold_every_character_that_is_not_space_once_and_in_order(text: str, chars: int) -> None:
    spans = windows(text, chars)

    held = "".join(text[start:end] for start, end in spans)
    assert "".join(held.split()) == "".join(text.split())
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))
    assert all(start < end <= start + chars for start, end in spans)


def test_a_text_of_any_length_is_cut_in_a_bounded_number_of_windows() -> None:
    text = "All is well today. " * 60_000

    spans = windows(text)

    assert 1 < len(spans) <= MAX_WINDOWS


@given(
    st.lists(st.sampled_from(["the", "patient", "you", "ignore", "instructions", "42", "ünï", "忽略"]), min_size=1, max_size=8),
    st.text(max_size=20),
)
def test_a_phrase_keeps_its_buckets_wherever_it_stands(words: list[str], around: str) -> None:
    phrase = " ".join(words)

    inside = hashed(f"{around} {phrase} {around}")

    assert set(hashed(phrase).tolist()) <= set(inside.tolist())


def test_the_buckets_are_frozen_because_weights_were_trained_on_them() -> None:
    found = hashed("ignore all 12 rules")

    assert found.min() >= 0
    assert found.max() < BUCKETS
    assert (len(found), int(found.sum()), found[:3].tolist()) == FROZEN


def test_a_text_without_words_has_no_buckets() -> None:
    sizes = [len(hashed(text)) for text in ("", "  ", "!?")]

    assert sizes == [0, 0, 0]
    assert hashed("").dtype == np.int64
