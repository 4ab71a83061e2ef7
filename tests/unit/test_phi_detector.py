"""The PHI detector as a whole: one reading of a text, leaks, and the contract of its port."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate.processors.guardrails.phi import clinical
from tidegate.processors.guardrails.phi.detector import PhiDetector
from tidegate.processors.guardrails.phi.foreign import Foreign
from tidegate.processors.guardrails.phi.merge import settle
from tidegate.processors.guardrails.phi.ner import Span
from tidegate.processors.guardrails.ports import Batch, Finding, Sample
from tidegate.processors.guardrails.redaction import Style, redact


class Names:
    """Finds the names that it was told of."""

    version = "told-1"

    def __init__(self, *names: str) -> None:
        self._names = names

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        return [
            [Span(text.index(name), text.index(name) + len(name), "PERSON", 0.8) for name in self._names if name in text]
            for text in texts
        ]


def judged(sample: Sample, *names: str) -> list[Finding]:
    return PhiDetector(Names(*names)).assess(Batch([sample]))[0].findings


def leaks(prompt: str | None, response: str, *names: str, context: tuple[str, ...] = ()) -> list[bool]:
    sample = Sample("call-1", prompt=prompt, response=response, context=context)
    return [finding.leak for finding in judged(sample, *names) if finding.where == "response"]


def test_findings_say_in_which_text_and_where() -> None:
    sample = Sample("call-1", prompt="I am Rosa", response="MRN 00482913", context=("x", "on 03/14/2021"))

    findings = judged(sample, "Rosa")

    assert [(f.type, f.where, f.chunk, f.start, f.end) for f in findings] == [
        ("PERSON", "prompt", 0, 5, 9),
        ("MEDICAL_RECORD_NUMBER", "response", 0, 4, 12),
        ("DATE_TIME", "context", 1, 3, 13),
    ]


@pytest.mark.parametrize(
    ("prompt", "response"),
    [
        ("SSN 219-09-9999", "Your SSN 219 09 9999 is on file"),
        ("born 03/14/1965", "born March 14, 1965"),
        ("MRN: 0048-2913", "record number 00482913"),
        ("mail Jane.Doe@clinic.example", "mailed jane.doe@clinic.example"),
        ("call (617) 555-0199", "call 617-555-0199"),
        ("card 4111 1111 1111 1111", "card ending in 1111"),
        ("cell six one seven, triple five, oh one four two", "call 617-555-0142"),
        ("mail j dot doe at clinic dot org", "mailed j.doe@clinic.org"),
        ("DOB 19650314", "born March 14, 1965"),
    ],
    ids=["ssn", "date", "mrn", "mail", "phone", "last four", "spoken", "spelled", "compact"],
)
def test_what_was_given_is_no_leak_however_it_is_written(prompt: str, response: str) -> None:
    leaked = leaks(prompt, response)

    assert leaked == [False]


def test_a_name_is_given_when_its_parts_are() -> None:
    given = leaks(None, "Dr. Okafor agrees", "Okafor", context=("seen by Adaeze Okafor",))
    other = leaks("about Rosa Martinez", "Rosa Delgado agrees", "Rosa Delgado")

    assert (given, other) == ([False], [True])


@pytest.mark.parametrize(
    ("prompt", "response"),
    [
        ("SSN 219-09-9999", "SSN 219-09-9998"),
        ("born 03/14/1965", "born 03/15/1965"),
        ("the 2 lab values 12.5 and 44", "call 617-555-0199"),
        (None, "MRN 00482913"),
        ("", "mail jane@clinic.example"),
    ],
    ids=["ssn", "date", "phone", "no prompt", "empty prompt"],
)
def test_what_was_not_given_leaks(prompt: str | None, response: str) -> None:
    leaked = leaks(prompt, response)

    assert leaked == [True]


def test_an_identifier_inside_a_name_is_cut_out_of_it_and_nothing_is_let_through() -> None:
    text = "Rosa Martinez 219-09-9999 Boston"

    spans = settle(text, [Span(14, 25, "US_SSN", 0.9)], [Span(0, 32, "LOCATION", 0.9)])

    assert [(span.type, text[span.start : span.end]) for span in spans] == [
        ("LOCATION", "Rosa Martinez"),
        ("US_SSN", "219-09-9999"),
        ("LOCATION", "Boston"),
    ]


spans = st.builds(
    lambda start, length, kind, score: Span(start, min(40, start + length), kind, score),
    st.integers(0, 39),
    st.integers(1, 20),
    st.sampled_from(["PERSON", "US_SSN", "LOCATION", "DATE_TIME"]),
    st.sampled_from([0.4, 0.6, 0.85]),
)


@given(structured=st.lists(spans, max_size=6), names=st.lists(spans, max_size=6))
def test_no_two_spans_overlap_and_the_best_stay_whole(structured: list[Span], names: list[Span]) -> None:
    text = "abcde fghij klmno pqrst uvwxy zabcd efgh"

    settled = settle(text, structured, names)

    assert all(one.end <= other.start for one, other in pairwise(settled))
    best = max(structured, key=lambda span: (span.score >= 0.7, span.end - span.start, span.score, -span.start), default=None)
    assert best is None or any(span.start <= best.start and best.end <= span.end for span in settled)


@given(texts=st.lists(st.text(st.sampled_from("MRN: SSN 0123456789-/()@.+abcdotx\n "), max_size=60), max_size=4))
def test_a_batch_says_of_each_text_what_it_would_say_of_it_alone(texts: list[str]) -> None:
    detector = PhiDetector(Names())

    together = detector.find(texts)

    assert together == [detector.find([text])[0] for text in texts]
    for text, found in zip(texts, together, strict=True):
        assert all(0 <= span.start < span.end <= len(text) for span in found)


@pytest.mark.parametrize(
    "text",
    [
        "Parkinson's disease",
        "Crohn disease",
        "Murphy sign",
        "Wells score 5",
        "Apgar scores",
        "Tylenol",
        "EKG",
        "Foley catheter",
    ],
)
def test_eponyms_drugs_and_tests_are_nobody(text: str) -> None:
    written = text.split("'")[0] if "'" in text else text.split(" ")[0]

    known = clinical.is_medicine(text, Span(0, len(written), "PERSON", 0.9))

    assert known


@pytest.mark.parametrize("text", ["Dr. Parkinson", "Murphy called", "Ed is back", "Mrs. Wells"])
def test_somebody_with_the_name_of_a_disease_is_somebody(text: str) -> None:
    start = text.index(" ") + 1 if "." in text else 0
    end = len(text) if start else text.index(" ")

    known = clinical.is_medicine(text, Span(start, end, "PERSON", 0.9))

    assert not known


@pytest.mark.parametrize("text", ["GCS 15, NIHSS 4", "LVEDP 12 mmHg", "T3N2M0", "Norco 10/325 q", "thiamine 500 mg IV"])
def test_a_reading_is_no_address(text: str) -> None:
    known = clinical.is_medicine(text, Span(0, len(text), "LOCATION", 0.9))

    assert known


@pytest.mark.parametrize("text", ["Maple Street unit 4", "12 Oak St, Boise, ID 83702", "Unit 4", "Springfield", "PO Box 12"])
def test_an_address_is_no_reading(text: str) -> None:
    known = clinical.is_medicine(text, Span(0, len(text), "LOCATION", 0.9))

    assert not known


def test_what_redaction_wrote_is_no_finding() -> None:
    sample = Sample("call-1", prompt="<PERSON> was seen on <DATE_TIME>, PERSON_3fa9c1d2 and MEDICAL_RECORD_NUMBER_00482913")

    findings = judged(sample, "PERSON")

    assert findings == []


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("write PERSON_0123abcd.whitcombe@mailbox.org", "write <EMAIL_ADDRESS>"),
        ("https://portal.example.org/PERSON_0123abcd/zx?ssn=536-22-8817", "<URL>"),
        ("MRN PERSON_0123abcd/84619273, US_SSN_0123abcd", "MRN <MEDICAL_RECORD_NUMBER>, US_SSN_0123abcd"),
    ],
    ids=["mail", "address", "number"],
)
def test_what_stands_about_a_hash_is_not_taken_for_it(text: str, left: str) -> None:
    sample = Sample("call-1", prompt=text)

    result = redact(sample, judged(sample), "tag", key=b"of the ring")

    assert result.prompt == left


def test_a_name_that_is_redacted_already_in_part_is_redacted() -> None:
    detector = PhiDetector(Names("<PERSON> Whitcombe", "PERSON_0123abcd / <DATE_TIME>"))

    (spans,) = detector.find(["Patient: <PERSON> Whitcombe and PERSON_0123abcd / <DATE_TIME>"])

    assert [(span.start, span.end) for span in spans] == [(9, 27)]


@pytest.mark.parametrize("style", ["tag", "hash"])
def test_a_redacted_text_has_nothing_more_to_take_out(style: Style) -> None:
    sample = Sample("call-1", prompt="MRN 00482913, DOB 03/14/1965, call (617) 555-0199 or mail rosa@clinic.example")
    findings = judged(sample)

    result = redact(sample, findings, style, key=b"of the ring")

    assert len(findings) == 4
    assert judged(Sample("call-1", prompt=result.prompt)) == []


def test_an_unknown_finder_is_named() -> None:
    with pytest.raises(ValueError, match="transformers:FOLDER"):
        PhiDetector.load(ner="other")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("UK_NHS", "NHS number 943 476 5919", "943 476 5919"),
        ("UK_NINO", "her NINO is AB 12 34 56 C", "AB 12 34 56 C"),
        ("IT_FISCAL_CODE", "codice fiscale RSSMRA85T10A562S", "RSSMRA85T10A562S"),
        ("IN_AADHAAR", "Aadhaar 2345 6789 0124", "2345 6789 0124"),
        ("ES_NIF", "DNI 12345678Z", "12345678Z"),
    ],
)
def test_identifiers_of_other_countries_are_presidios_to_find(kind: str, text: str, value: str) -> None:
    detector = PhiDetector(Names(), Foreign.load())

    (spans,) = detector.find([text])

    assert [(span.type, text[span.start : span.end]) for span in spans] == [(kind, value)]


def test_presidio_is_not_asked_where_no_word_names_a_country() -> None:
    text = "943 476 5919 and 12345678Z were the lots"

    spans = list(Foreign.load().find(text))

    assert spans == []
