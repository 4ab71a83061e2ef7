"""Findings keep their places when what they stand beside is replaced: checked against the redaction itself."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate.dashboards.marks import marks
from tidegate.processors.guardrails.ports import Finding, Sample
from tidegate.processors.guardrails.redaction import redact

PLAIN = "abcdefghijklmnopqrstuvwxyz é漢"
spans = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 9), st.sampled_from(("PERSON", "US_SSN", "DATE_TIME"))), max_size=6
)


def finding(detector: str, kind: str, start: int, end: int) -> Finding:
    return Finding(detector=detector, type=kind, where="prompt", start=start, end=end, score=0.5)


def plain(one: Finding) -> dict[str, Any]:
    return {"detector": one.detector, "type": one.type, "start": one.start, "end": one.end, "score": one.score}


@given(
    text=st.text(PLAIN, min_size=70, max_size=90),
    phi=spans,
    word=st.tuples(st.integers(0, 60), st.integers(1, 9)),
    style=st.sampled_from(("tag", "hash")),
)
def test_a_finding_beside_what_was_replaced_marks_the_same_words(
    text: str, phi: list[tuple[int, int, str]], word: tuple[int, int], style: Literal["tag", "hash"]
) -> None:
    findings = [finding("phi", kind, start, start + length) for start, length, kind in phi]
    other = finding("injection", "JAILBREAK", word[0], word[0] + word[1])
    redacted = redact(Sample(id="call", prompt=text), findings, style, key=b"k" * 32).prompt or ""

    found = marks(redacted, style, [plain(one) for one in [*findings, other]])

    beside = all(other.end <= one.start or one.end <= other.start for one in findings)
    [mark] = [one for one in found if one["detector"] == "injection"]
    if beside:
        assert redacted[mark["start"] : mark["end"]] == text[other.start : other.end]
    for one in (one for one in found if one["detector"] == "phi"):
        stands = redacted[one["start"] : one["end"]]
        assert stands[0] == "<" if style == "tag" else stands.rpartition("_")[0] in ("PERSON", "US_SSN", "DATE_TIME")
    assert len(found) == len(findings) + 1


def test_of_surrogates_no_place_is_told_and_of_an_untouched_text_all() -> None:
    person, order = finding("phi", "PERSON", 0, 3), finding("injection", "JAILBREAK", 9, 15)

    assert marks("Thea Larkin says ignore it", "surrogate", [plain(person), plain(order)]) == []
    [mark] = marks("they all ignore it", "surrogate", [plain(order)])
    assert (mark["start"], mark["end"]) == (9, 15)


@pytest.mark.parametrize("style", ["tag", "hash"])
def test_behind_a_place_that_is_not_as_it_should_be_nothing_is_told(style: str) -> None:
    known, missing = finding("bias", "TONE", 0, 4), finding("injection", "JAILBREAK", 20, 26)
    person = finding("phi", "PERSON", 5, 8)

    found = marks("they and <US_SSN> say to ignore it", style, [plain(known), plain(person), plain(missing)])

    assert [one["type"] for one in found] == ["TONE"]
