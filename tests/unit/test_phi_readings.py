"""Identifiers as word processors, PDFs, web pages and those who hide something write them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate.processors.guardrails.phi.detector import PhiDetector
from tidegate.processors.guardrails.phi.ner import Span
from tidegate.processors.guardrails.phi.readings import plain, unveiled
from tidegate.processors.guardrails.ports import Batch, Sample
from tidegate.processors.guardrails.redaction import redact

HYPHENS = "\u2010\u2011\u2012\u2212\u00ad\ufe63\uff0d"
BLANKS = "\u00a0\u202f\u2000\u2002\u2007\u2009\u200a\u205f\u3000"
DIGITS = [0xFF10, 0x0660, 0x06F0, 0x0966, 0x1D7CE, 0x1D7EC]
SAID = "Her SSN 536-22-8817, MRN: A-8461-9273, DOB 03-12-1984, phone (617) 555-0182 or 617 555 0182, mail r-l@mercy.org."


class Nobody:
    """Finds no name."""

    version = "nobody-1"

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        return [[] for _ in texts]


def found(text: str) -> list[Span]:
    return PhiDetector(Nobody()).find([text])[0]


def redacted(text: str) -> str:
    sample = Sample("call-1", prompt=text)
    (verdict,) = PhiDetector(Nobody()).assess(Batch([sample]))
    return redact(sample, verdict.findings, "tag", key=b"of the ring").prompt or ""


@pytest.mark.parametrize("hyphen", HYPHENS, ids=ascii)
def test_another_hyphen_is_a_hyphen(hyphen: str) -> None:
    written = SAID.replace("-", hyphen)

    spans = found(written)

    if hyphen == "\u00ad":  # beside a letter it is dropped
        spans, expected = [s for s in spans if s.type == "US_SSN"], [s for s in found(SAID) if s.type == "US_SSN"]
    else:
        expected = found(SAID)
    assert spans == expected
    assert expected


@pytest.mark.parametrize("blank", BLANKS, ids=ascii)
def test_another_blank_is_a_blank(blank: str) -> None:
    written = SAID.replace(" ", blank)

    spans = found(written)

    assert spans == found(SAID)
    assert len(spans) == 6


@pytest.mark.parametrize("zero", DIGITS, ids=hex)
def test_a_digit_is_a_digit_in_any_script(zero: int) -> None:
    written = SAID.translate({ord("0") + value: zero + value for value in range(10)})

    spans = found(written)

    assert spans == found(SAID)


@pytest.mark.parametrize("dash", "\u2013\u2014\u2015", ids=ascii)
def test_a_dash_within_a_number_is_a_hyphen_and_between_clauses_a_dash(dash: str) -> None:
    within = f"MRN A{dash}8461{dash}9273, SSN 536{dash}22{dash}8817, card 4111{dash}1111{dash}1111{dash}1111"
    between = f"the SSN{dash}536-22-8817{dash}and nothing else"

    left = redacted(within), redacted(between)

    assert left == (
        "MRN <MEDICAL_RECORD_NUMBER>, SSN <US_SSN>, card <CREDIT_CARD>",
        f"the SSN{dash}<US_SSN>{dash}and nothing else",
    )


@pytest.mark.parametrize(
    "written",
    [
        "SSN 536\u200b-22-\u200b8817",
        "SSN 5\u20603\u20606\u2060-22-8817",
        "SSN 536-22\u00ad-8817",
        "SSN 536-22-\u202e8817",
        "SSN 536-22-\n8817",
        "SSN 536-22- \r\n  8817",
        "SSN 536&#45;22&#x2d;8817",
        "SSN 536&#8209;22&shy;-&ZeroWidthSpace;8817",
        "SSN 536%2D22%2d881%37",
        "SSN 5\u0332" + "\u0332".join("36-22-8817") + "\u0332",
        "SSN " + "".join(c if c == "-" else c + "\ufe0f\u20e3" for c in "536-22-8817"),
        "SSN " + "".join(chr(0xE0000 + ord(c)) for c in "536-22-8817"),
    ],
    ids=ascii,
)
def test_what_hides_in_a_number_goes_with_the_whole_of_it(written: str) -> None:
    text = f"{written}\nis on file"

    left = redacted(text)

    assert left == "SSN <US_SSN>\nis on file"


@pytest.mark.parametrize("sign", ["\u200b", "\u2060", "\ufeff", "&nbsp;", "%20", "\u00ad"], ids=ascii)
def test_what_parts_two_words_veils_neither(sign: str) -> None:
    text = f"mail rosa@mercy.org{sign}or SSN 536-22-8817{sign}or call 617-555-0182"

    left = redacted(text)

    assert not any(trace in left for trace in ("rosa", "mercy", "536", "8817", "617", "0182"))


def test_an_address_with_escapes_is_found_to_its_end() -> None:
    text = "see https://portal.mercy.org/p?name=rosa%20lee&mail=a%40b.org for more"

    left = redacted(text)

    assert left == "see <URL> for more"


@pytest.mark.parametrize(
    "text", ["5 tablets", "10\u201320 mg", "caf\u00e9 \u2764\ufe0f!", "Fran\u00e7ois said \u201cno\u201d"], ids=ascii
)
def test_a_text_without_veils_is_read_once(text: str) -> None:
    second = unveiled(plain(text))

    assert second is None


def test_a_value_is_no_leak_however_its_signs_are_set() -> None:
    sample = Sample("call-1", prompt="call 617-555-0199", response="I call \uff16\uff11\uff17\u2011555\u20110\u200b199")

    (verdict,) = PhiDetector(Nobody()).assess(Batch([sample]))

    assert [finding.leak for finding in verdict.findings if finding.where == "response"] == [False]


pieces = st.sampled_from(
    ["SSN ", "536-22-8817", "\u200b", "\u00ad", "&#45;", "&amp;", "&x;", "%2D", "-\n", "\u2011", "\u2014", "7", "é", "5\u0332"]
)


@given(text=st.lists(pieces, max_size=12).map("".join))
def test_every_place_of_a_second_reading_leads_into_the_first(text: str) -> None:
    first = plain(text)
    second = unveiled(first)

    spans = found(text)

    assert len(first) == len(text)
    assert all(0 <= span.start < span.end <= len(text) for span in spans)
    assert all(one.end <= other.start for one, other in pairwise(spans))
    if second is not None:
        assert len(second.places) == len(second.text) + 1
        assert second.places == sorted(second.places)
        assert second.places[-1] == len(text)
