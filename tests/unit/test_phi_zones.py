"""Looking for numbers only about digits finds what looking everywhere finds."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidegate.processors.guardrails.phi import ages, contacts, coordinates, dates, numbers, phones, places, shapes, zones

# Those that need a digit, by name, so that no text is in a test's id.
PATTERNS = {
    f"{module.__name__.rsplit('.', 1)[-1]}{name}": getattr(module, name)
    for module, names in (
        (numbers, ("_LAST_FOUR",)),
        (shapes, ("_SSN", "_CARD", "_IBAN", "_MBI", "_UDI", "_UUID", "_CRYPTO")),
        (contacts, ("_IPV4", "_MAC")),
        (phones, ("_PHONE", "_AMERICAN", "_APART")),
        (dates, ("_NUMERIC", "_OF_YEAR", "_COMPACT", "_YEAR_BEHIND", "_BORN_LONG_AGO", "_WEEK", "_NTH")),
        (coordinates, ("_PAIR", "_CALLED")),
        (ages, ("_FIGURES",)),
        (places, ("_LABELLED", "_BEHIND_STATE", "_NINE", "_UK", "_CANADA", "_LIVES_IN")),
    )
    for name in names
}
words = st.sampled_from(
    [
        "on ",
        "born in ",
        "zip code ",
        "call ",
        "last four of ssn is ",
        "x" * 60,
        " " * 30,
        "\n",
        "the patient was seen ",
        "SW1A 1AA ",
        "é",
    ]
)
values = st.sampled_from(
    ["3/14", "1931", "02139", "219-09-9999", "617-555-0199", "2021-03-14", "1234", "DE89370400440532013000", "1EG4TE5MK73", "."]
)


@pytest.mark.parametrize("name", PATTERNS)
@settings(max_examples=40)
@given(parts=st.lists(st.one_of(words, values, st.text("0123456789-/. ABx", max_size=8)), max_size=10))
def test_a_pattern_finds_about_digits_what_it_finds_anywhere(name: str, parts: list[str]) -> None:
    pattern: re.Pattern[str] = PATTERNS[name]
    text = "".join(parts)

    within = [match.span() for match in zones.matches(pattern, text, zones.of(text))]

    assert within == [match.span() for match in pattern.finditer(text)]


@given(text=st.text("ab1 ", max_size=400))
def test_zones_hold_every_digit_and_keep_apart(text: str) -> None:
    found = zones.of(text)

    assert all(any(start <= place < end for start, end in found) for place, letter in enumerate(text) if letter == "1")
    assert all(one[1] <= other[0] for one, other in pairwise(found))
