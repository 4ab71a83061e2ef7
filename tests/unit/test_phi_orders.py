"""Names beside a verb, a degree or what somebody owns: the name is gone from the redaction, and nothing else."""

from __future__ import annotations

import pytest
from tidegate.processors.guardrails.phi import clinical
from tidegate.processors.guardrails.phi.detector import PhiDetector
from tidegate.processors.guardrails.phi.ner import Span
from tidegate.processors.guardrails.phi.ner_words import read_lists
from tidegate.processors.guardrails.phi.orders import bare

VERBS = """Discharge Discontinue Obtain Administer Wean Taper Titrate Recheck Continue Increase Decrease Hold Resume Review
    Order Call Move Forget Examine Admit Page Book Find Email Consult""".split()  # noqa: SIM905
NAMES = ["Rosa Delgado", "Emily Chen", "John Smith", "Priya Raman", "Thea Larkin", "ROSA DELGADO", "Tyrone Washington"]
LINES = [
    "{verb} {name}, MRN 83926104, to hospice.",
    "{verb} {name}'s lisinopril.",
    "Rounds are done. {verb} {name} in the morning.",
]
# What stands in the text, and what is left of it.
REDACTED = [
    ("Call Rosa Delgado at (617) 555-0139.", "Call <PERSON> at <PHONE_NUMBER>."),
    ("Please page Rosa Delgado now.", "Please page <PERSON> now."),
    ("Show me John Smith's labs.", "Show me <PERSON>'s labs."),
    (
        "Discontinue Rosa Delgado's lisinopril and recheck Emily Chen.",
        "Discontinue <PERSON>'s lisinopril and recheck <PERSON>.",
    ),
    ("JOHN SMITH, RN", "<PERSON>, RN"),
    ("delgado, rosa m. 45 y/o", "<PERSON> 45 y/o"),
    ("Seen by Emily Call and Rosa Page.", "Seen by <PERSON> and <PERSON>."),
    ("Mr. Page is here.", "Mr. <PERSON> is here."),
    ("Discharge Summary Anna Foley", "Discharge Summary <PERSON>"),
    ("Anna Foley is here. Dr. Foley called.", "<PERSON> is here. Dr. <PERSON> called."),
    ("Spoke with Foley, who agrees.", "Spoke with <PERSON>, who agrees."),
    ("Discharge Okafor today. Remind Larkin's wife.", "Discharge <PERSON> today. Remind <PERSON>'s wife."),
    ("Page Turner, MD. Page Turner is here.", "<PERSON>, MD. <PERSON> is here."),
    ("DISCHARGE CHIDI OKAFOR HOME", "DISCHARGE <PERSON> HOME"),
]
NOBODYS = [
    "Increase Lasix to 40 mg. Order Ativan prn. Check Mg in the morning.",
    "Discharge Instructions: rest.",
    "Discharge Planning for tomorrow. Notify Anesthesia. Discharge Orders, Discharge Labs.",
    "Continue Augmentin for 7 days; Continue Plan Of Care.",
    "Transfer Center notified. Order Set opened. Text Message sent.",
    "Lines: PIV, Foley, NG tube",
    "Foley, PICC, ETT in place. Place Foley, send UA. Continue Foley. Remove Foley.",
    "Resume Ringer's Lactate; Give Maalox; Stop Zosyn; Start Bactrim DS.",
]


@pytest.fixture(scope="module")
def detector() -> PhiDetector:
    return PhiDetector.load()


def test_a_name_behind_what_is_owned_stays_in_the_span() -> None:
    text = "Rosa's daughter Emily"

    kept = bare(text, Span(0, len(text), "PERSON", 0.9), read_lists())

    assert kept == Span(0, len(text), "PERSON", 0.9)


def redacted(detector: PhiDetector, text: str) -> str:
    [spans] = detector.find([text])
    for span in reversed(spans):
        text = f"{text[: span.start]}<{span.type}>{text[span.end :]}"
    return text


@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
@pytest.mark.parametrize("verb", VERBS)
def test_the_name_behind_a_verb_is_gone_and_the_verb_stays(detector: PhiDetector, verb: str, line: str) -> None:
    left = [(name, redacted(detector, line.format(verb=verb, name=name))) for name in NAMES]

    assert all(verb in text for _, text in left)
    assert not [name for name, text in left if any(word in text for word in name.split())]


@pytest.mark.parametrize(("text", "expected"), REDACTED, ids=range(len(REDACTED)))
def test_a_span_holds_the_name_alone(detector: PhiDetector, text: str, expected: str) -> None:
    assert redacted(detector, text) == expected


@pytest.mark.parametrize("text", NOBODYS, ids=range(len(NOBODYS)))
def test_an_order_without_a_name_is_nobodys(detector: PhiDetector, text: str) -> None:
    assert redacted(detector, text) == text


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Discharge Rosa Delgado", "Rosa Delgado"),
        ("Rosa Delgado Lisinopril", "Rosa Delgado"),
        ("Lisinopril Zxqvarda Kowalczyk Metoprolol", "Zxqvarda Kowalczyk"),
        ("Rosa Hospice Delgado", "Rosa Hospice Delgado"),
        ("Discharge Summary", None),
        ("Lisinopril", None),
    ],
)
def test_words_of_medicine_are_trimmed_from_a_name_and_the_name_is_kept(text: str, name: str | None) -> None:
    left = clinical.without(text, Span(0, len(text), "PERSON", 0.9))

    assert (text[left.start : left.end] if left is not None else None) == name
