"""Names, places and organisations in running text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidegate.processors.guardrails.backends.transformer_ner import BesideOwn
from tidegate.processors.guardrails.phi import ner_words
from tidegate.processors.guardrails.phi.ner import WEIGHTS, NameFinder, Span, TaggerUnavailable
from tidegate.processors.guardrails.phi.ner_rules import again

NAMED = [
    ("PERSON", "Please ask Maria Lopez to call back.", "Maria Lopez"),
    ("PERSON", "MARTINEZ, ROSA was seen today.", "MARTINEZ, ROSA"),
    ("PERSON", "Patient: Kowalski, Jan M.\nMRN 448812", "Kowalski, Jan M."),
    ("PERSON", "my name is sarah connor and i need help", "sarah connor"),
    ("PERSON", "her daughter emily takes care of the pills", "emily"),
    ("PERSON", "Dr. Okonkwo recommended rest.", "Okonkwo"),
    ("PERSON", "Mrs. O'Brien-Walsh is a 62-year-old woman.", "O'Brien-Walsh"),
    ("PERSON", "Signed by J. R. Hartley on Monday", "J. R. Hartley"),
    ("PERSON", "PATIENT JOHN SMITH ARRIVED BY AMBULANCE", "JOHN SMITH"),
    ("PERSON", "Dear Nguyen Thi Hoa,\nthank you for your letter.", "Nguyen Thi Hoa"),
    ("PERSON", "Delgado, Rosa was seen", "Delgado, Rosa"),
    ("PERSON", "In Boston, Rosa was seen.", "Rosa"),
    ("LOCATION", "She moved here from Guadalajara last year.", "Guadalajara"),
    ("LOCATION", "I live at 1420 N. Elm Street, Apt 4B.", "1420 N. Elm Street, Apt 4B"),
    ("LOCATION", "Mail it to PO Box 5521 by Monday.", "PO Box 5521"),
    ("LOCATION", "Deliver to 12 rue Lefebvre, 75011 Paris, France", "12 rue Lefebvre, 75011 Paris, France"),
    ("LOCATION", "i live at 77 maple street in denver", "77 maple street"),
    ("LOCATION", "lives at 12 Kestrel Way, Flint, MI 48502", "12 Kestrel Way, Flint, MI 48502"),
    ("ORGANIZATION", "He works at Harborview Medical Center as a nurse.", "Harborview Medical Center"),
    ("ORGANIZATION", "She sued Wagner & Sons Ltd over the bill.", "Wagner & Sons Ltd"),
    ("NRP", "The patient is Norwegian and speaks no English.", "Norwegian"),
]

NOBODY = [
    "Parkinson's disease was diagnosed; Babinski sign negative.",
    "History of Crohn's disease and Hodgkin lymphoma.",
    "MEDICATIONS: Lisinopril, Metformin, Zoloft and Synthroid.",
    "Doctor: Any chest pain? \nPatient: No.",
    "REVIEW OF SYSTEMS: Negative for fever and chills.",
    "Follow up with Dr. X as needed.",
    "A Foley catheter was placed. Glasgow Coma Scale 15.",
    "African American male in no acute distress.",
    "How do I reset my password?",
    "Grace and hope may mark the will of the people.",
    "BMP: Na 140, K 4.1, Cl 103, CO2 26, BUN 14",
    "CPT 96372, ICD Z79.4",
    "Billed 99213, G0439.",
    "CPT 93000, DX I10",
    "Coded E11.65, 99214.",
    "Recent: CAD, DM2, PE 2018",
    "Takes fish oil, St. John's wort, melatonin.",
    "Answer in JSON.",
    "Prescriber's DEA, AB1234563.",
]


@pytest.fixture(scope="module")
def finder() -> NameFinder:
    return NameFinder.load()


def found(finder: NameFinder, text: str) -> list[tuple[str, str]]:
    return [(span.type, text[span.start : span.end]) for span in finder.find([text])[0]]


@pytest.mark.parametrize(("kind", "text", "name"), NAMED, ids=[f"{number}-{kind}" for number, (kind, _, _) in enumerate(NAMED)])
def test_a_name_is_found_whole_and_by_its_type(finder: NameFinder, kind: str, text: str, name: str) -> None:
    expected = (kind, name)

    spans = found(finder, text)

    assert expected in spans


@pytest.mark.parametrize("text", NOBODY, ids=range(len(NOBODY)))
def test_nobody_is_found_where_nobody_is_named(finder: NameFinder, text: str) -> None:
    spans = found(finder, text)

    assert spans == []


def test_a_name_met_once_is_found_wherever_it_stands(finder: NameFinder) -> None:
    text = "Patient: Ingrid Vasquez-Thorne\nPlan: Thorne to return. Give Ingrid the leaflet."

    names = [name for kind, name in found(finder, text) if kind == "PERSON"]

    assert names.count("Ingrid") == 1
    assert "Thorne" in names


WORDS = st.sampled_from(
    [
        "Maria",
        "Lopez",
        "O'Brien",
        "LI",
        "Wei,",
        "Dr.",
        "1420",
        "Elm",
        "Street",
        "Boston",
        "MA",
        "02139",
        "the",
        "patient",
        "(mother)",
        "-",
        "\n",
        "\t",
        "é",
        "李",
        "\x00",
        "…",
        "Parkinson's",
        "Inc.",
        "_",
        "<b>",
        "my name is",
        "rosa",
    ]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(WORDS, max_size=25).map(" ".join), max_size=6))
def test_spans_lie_in_their_text_in_order_and_apart(texts: list[str]) -> None:
    finder = _shared()

    spans = finder.find(texts)

    assert len(spans) == len(texts)
    for text, each in zip(texts, spans, strict=True):
        assert all(0 <= span.start < span.end <= len(text) and 0 < span.score <= 1 for span in each)
        assert all(left.end <= right.start for left, right in pairwise(each))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(WORDS, max_size=25).map(" ".join), max_size=6))
def test_a_text_is_judged_alike_alone_and_in_a_batch(texts: list[str]) -> None:
    finder = _shared()

    together = finder.find(texts)
    alone = [finder.find([text])[0] for text in texts]

    assert [list(map(_rounded, each)) for each in together] == [list(map(_rounded, each)) for each in alone]


@given(st.text(max_size=200))
def test_the_pieces_of_a_text_are_the_text(text: str) -> None:
    parts = ner_words.pieces(text)

    assert "".join(parts) == text


def test_a_full_table_of_pieces_is_begun_anew_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"Maria Lopez{letter} lives in Boston with Peter{letter}." for letter in "abcdefgh"]
    expected = NameFinder.load().find(texts)
    monkeypatch.setattr("tidegate.processors.guardrails.phi.ner_tagger._MOST_ROWS", 16)

    spans = NameFinder.load().find(texts)

    assert spans == expected


class Counted(str):
    """A text that counts how often it is searched."""

    searches = 0

    def find(self, *asked: object) -> int:  # type: ignore[override]
        self.searches += 1
        return super().find(*asked)  # type: ignore[arg-type]


def test_a_name_said_a_thousand_times_is_looked_for_once() -> None:
    text = Counted("Anna " * 1000)
    met = [Span(at, at + 4, "PERSON", 0.9) for at in range(0, len(text), 5)]

    spans = list(again(text, met))

    assert spans == met
    assert text.searches == len(met) + 1


def test_beside_a_transformer_a_name_reaches_as_far_as_either_says(finder: NameFinder) -> None:
    text = "Seen today: MARTINEZ, ROSA ELENA for follow-up by Dr. Zxqvarda"

    class Short:
        version = "short-1"

        def find(self, texts: Sequence[str]) -> list[list[Span]]:
            return [[Span(at := each.index("ROSA"), at + 4, "LOCATION", 0.99)] for each in texts]

    (spans,) = BesideOwn(Short(), finder).find([text])  # type: ignore[arg-type]

    assert [(span.type, text[span.start : span.end]) for span in spans] == [
        ("PERSON", "MARTINEZ, ROSA ELENA"),
        ("PERSON", "Zxqvarda"),
    ]


def test_a_name_met_again_as_that_of_a_disease_is_let_stand(finder: NameFinder) -> None:
    text = "Hodgkin's lymphoma was first described by Thomas Hodgkin."

    spans = found(finder, text)

    assert spans == [("PERSON", "Thomas Hodgkin")]


def test_no_text_and_empty_texts_hold_no_names(finder: NameFinder) -> None:
    assert finder.find([]) == []
    assert finder.find(["", " \n"]) == [[], []]


_LOADED: list[NameFinder] = []


def _shared() -> NameFinder:
    """Loaded once: a property is tried many times."""
    if not _LOADED:
        _LOADED.append(NameFinder.load())
    return _LOADED[0]


def _rounded(span: Span) -> tuple[int, int, str]:
    """Without the score, whose last digit depends on how the batch was cut."""
    return span.start, span.end, span.type


def test_weights_that_are_not_what_their_card_says_are_refused(tmp_path: Path) -> None:
    copy = tmp_path / WEIGHTS.name
    copy.with_suffix(".json").write_bytes(WEIGHTS.with_suffix(".json").read_bytes())
    held = bytearray(WEIGHTS.read_bytes())
    copy.write_bytes(held)
    NameFinder.load(copy)

    held[len(held) // 2] ^= 1
    copy.write_bytes(held)

    with pytest.raises(TaggerUnavailable, match="SHA-256 differs"):
        NameFinder.load(copy)
    with pytest.raises(TaggerUnavailable, match="cannot be read"):
        NameFinder.load(tmp_path / "none.npz")
