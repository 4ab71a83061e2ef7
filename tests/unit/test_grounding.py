"""Faithfulness: what each kind of mistake in an answer is called, where, and what must not be called one."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidegate.processors.guardrails.encoder import OfflineEncoder
from tidegate.processors.guardrails.grounding.detector import FaithfulnessDetector
from tidegate.processors.guardrails.grounding.facts import facts
from tidegate.processors.guardrails.grounding.judge import Judgement
from tidegate.processors.guardrails.grounding.polarity import polarity
from tidegate.processors.guardrails.grounding.reading import sentences, words
from tidegate.processors.guardrails.grounding.source import Source
from tidegate.processors.guardrails.ports import Batch, Encoder, Sample, Verdict

VISIT = (
    "Doctor: How old are you now?\nPatient: I'm fifty two years old.\n"
    "Doctor: Any chest pain or shortness of breath?\nPatient: No.\n"
    "Doctor: Do you smoke?\nPatient: Yeah, I smoke half a pack a day. I started in nineteen ninety eight.\n"
    "Doctor: What brings you in?\nPatient: My left knee has been swollen for three weeks.\n"
    "Doctor: Are you on any medication?\nPatient: Metformin, five hundred milligrams twice a day.\n"
    "Doctor: Family history?\nPatient: My mother had breast cancer. Doctor: All right, come back in two weeks."
)
# Wrong, the type of the finding, and the words that it covers.
MISTAKES = [
    ("The patient is a 57-year-old man.", "CONTRADICTED_AGE", "57"),
    ("She takes metformin 850 mg twice daily.", "CONTRADICTED_DOSE", "850 mg"),
    ("She takes metformin 500 mcg twice daily.", "CONTRADICTED_UNIT", "500 mcg"),
    ("She takes metformin 500 mg three times a day.", "CONTRADICTED_FREQUENCY", "three times a day"),
    ("She reports chest pain.", "CONTRADICTED_NEGATION", "chest pain"),
    ("She denies smoking.", "CONTRADICTED_NEGATION", "smoking"),
    ("Her right knee has been swollen for 3 weeks.", "CONTRADICTED_LATERALITY", "right"),
    ("Her left knee has been swollen for 8 weeks.", "CONTRADICTED_DURATION", "8 weeks"),
    ("She takes lisinopril.", "UNSUPPORTED_ENTITY", "lisinopril"),
    ("She underwent cholecystectomy at Mercy Hospital.", "UNSUPPORTED_ENTITY", "cholecystectomy"),
]
RIGHT = [
    "The patient is a 52-year-old.",
    "She denies chest pain and dyspnea.",
    "She smokes 0.5 packs per day.",
    "Her left knee has been swollen for three weeks.",
    "She takes metformin 500 mg b.i.d.",
    "She takes metformin 0.5 g twice daily.",
    "Her mother had breast cancer.",
    "Follow up in 14 days.",
    "No shortness of breath.",
]


@pytest.fixture(scope="module")
def encoder() -> OfflineEncoder:
    return OfflineEncoder.load()


@pytest.fixture(scope="module")
def detector() -> FaithfulnessDetector:
    return FaithfulnessDetector.load()


def judge(
    detector: FaithfulnessDetector, encoder: Encoder | None, response: str, *context: str, prompt: str | None = None
) -> Verdict:
    return detector.assess(Batch([Sample("one", prompt, response, context)], encoder))[0]


def score(verdict: Verdict) -> float:
    return verdict.scores[("response", "faithfulness")]


@pytest.mark.parametrize("place", range(len(MISTAKES)), ids=[kind for _, kind, _ in MISTAKES])
@pytest.mark.parametrize("with_encoder", [True, False], ids=["encoder", "no encoder"])
def test_a_mistake_is_named_and_placed(
    detector: FaithfulnessDetector, encoder: OfflineEncoder, place: int, with_encoder: bool
) -> None:
    response, kind, covered = MISTAKES[place]

    verdict = judge(detector, encoder if with_encoder else None, response, VISIT)

    found = [(one.type, response[one.start : one.end]) for one in verdict.findings]
    assert [text for type_, text in found if type_ == kind and covered in text], [type_ for type_, _ in found]


@pytest.mark.parametrize("place", range(len(RIGHT)))
def test_what_the_context_says_in_other_words_is_no_mistake(
    detector: FaithfulnessDetector, encoder: OfflineEncoder, place: int
) -> None:
    verdict = judge(detector, encoder, RIGHT[place], VISIT)

    assert verdict.findings == []
    assert score(verdict) >= 0.6


@pytest.mark.parametrize("place", range(len(MISTAKES)), ids=[kind for _, kind, _ in MISTAKES])
def test_every_mistake_scores_below_everything_right(
    detector: FaithfulnessDetector, encoder: OfflineEncoder, place: int
) -> None:
    right = [score(judge(detector, encoder, response, VISIT)) for response in RIGHT]

    wrong = score(judge(detector, encoder, MISTAKES[place][0], VISIT))

    assert wrong < min(right)


def test_a_relative_is_not_another_relative(detector: FaithfulnessDetector, encoder: OfflineEncoder) -> None:
    mother = score(judge(detector, encoder, "Her mother had breast cancer.", VISIT))

    father = judge(detector, encoder, "Her father had breast cancer.", VISIT)

    assert score(father) < mother / 2
    assert {one.type for one in father.findings} & {"UNSUPPORTED_ENTITY", "CONTRADICTED_RELATIVE"}


def test_a_denial_inside_a_word_is_a_denial(detector: FaithfulnessDetector, encoder: OfflineEncoder) -> None:
    verdict = judge(detector, encoder, "She is a nonsmoker.", "Doctor: Do you smoke?\nPatient: Yes, I smoke.")

    assert [one.type for one in verdict.findings] == ["CONTRADICTED_NEGATION"]


@pytest.mark.parametrize(
    "response",
    ["She smokes.", "We will see her again in one week.", "Her ROM is full."],
    ids=["smokes", "an amount without a number", "an abbreviation"],
)
def test_what_is_meant_is_borne_out_without_being_spelled_out(
    detector: FaithfulnessDetector, encoder: OfflineEncoder, response: str
) -> None:
    source = "Doctor: Do you smoke?\nPatient: Yes.\nDoctor: Your range of motion is full. We will see you again next week."

    verdict = judge(detector, encoder, response, source)

    assert verdict.findings == []


def test_a_thing_put_where_the_source_has_another_is_worse_than_a_thing_the_source_lacks(
    detector: FaithfulnessDetector,
) -> None:
    replaced, added = "Patient: My chest hurts when I climb stairs.", "Patient: It hurts when I climb stairs."

    scores = [score(judge(detector, None, "Her ankle hurts when she climbs stairs.", text)) for text in (replaced, added)]

    assert scores[0] < scores[1]


def test_what_a_text_does_not_say_weighs_more_than_what_a_conversation_does_not(detector: FaithfulnessDetector) -> None:
    said = "The house in Ashby was built in nineteen ten and has two floors."
    told = f"Guide: {said}\nVisitor: Thank you.\nGuide: The garden is behind it."
    written = f"{said}\nThank you.\nThe garden is behind it."

    scores = [score(judge(detector, None, "The Ashby house was designed by Marlowe.", text)) for text in (told, written)]

    assert scores[1] < scores[0]


def test_headings_make_no_conversation_of_a_text() -> None:
    labels = ["Title: Warfarin\nDose: 5 mg daily.", "Title: Aspirin\nDose: 81 mg daily."]
    talks = ["Doctor: Any pain?\nPatient: No."], ["Ann: Is it far?\nBo: No.\nAnn: Good."]

    spoken = [Source.read("context", texts).spoken for texts in (labels, *talks)]

    assert spoken == [False, True, True]


def test_each_sentence_keeps_the_place_that_bears_it_out(detector: FaithfulnessDetector, encoder: OfflineEncoder) -> None:
    response = "Her left knee is swollen. She takes metformin 500 mg twice a day."
    chunks = ("The weather was fine that week.", "Takes metformin 500 mg twice a day.", "The left knee has been swollen.")

    verdict = judge(detector, encoder, response, *chunks)

    borne = [(response[one.start : one.end], chunks[one.chunk][one.source_start : one.source_end]) for one in verdict.evidence]
    assert borne == [
        ("Her left knee is swollen.", "The left knee has been swollen."),
        ("She takes metformin 500 mg twice a day.", "Takes metformin 500 mg twice a day."),
    ]


def test_one_wrong_sentence_is_not_hidden_by_many_right_ones(detector: FaithfulnessDetector, encoder: OfflineEncoder) -> None:
    right = "She denies chest pain. Her left knee has been swollen for three weeks. She smokes. Her mother had breast cancer."

    verdict = judge(detector, encoder, right + " She takes lisinopril.", VISIT)

    assert score(verdict) < 0.6 * score(judge(detector, encoder, right, VISIT))


def test_without_context_specifics_are_unverifiable_and_not_scored(detector: FaithfulnessDetector) -> None:
    response = "I believe the usual dose is 40 mg daily. A study published in 2019 found a 35% reduction (see https://journal.example/a1)."

    verdict = judge(detector, None, response, prompt="What is the dose?")

    assert verdict.scores == {}
    covered = {response[one.start : one.end] for one in verdict.findings if one.type == "UNVERIFIABLE"}
    assert {"40 mg", "daily", "35%"} <= covered
    assert any("https://journal.example/a1" in text for text in covered)
    assert [response[one.start : one.end] for one in verdict.findings if one.type == "HEDGED"] == ["I believe"]


def test_a_number_too_long_for_a_float_is_judged_like_any_other(detector: FaithfulnessDetector) -> None:
    (verdict,) = detector.assess(Batch([Sample("s", response=f"The counter stands at {'7' * 400} now.")]))

    assert "UNVERIFIABLE" in {finding.type for finding in verdict.findings}


def test_without_context_what_the_prompt_gave_is_not_unverifiable(detector: FaithfulnessDetector) -> None:
    verdict = judge(detector, None, "40 mg daily is within the range.", prompt="Is 40 mg daily all right?")

    assert [one.type for one in verdict.findings] == []


@pytest.mark.parametrize(
    ("response", "covered"),
    [
        ("Call 617-555-0188 for help.", ["617-555-0188"]),
        ("Call +1 (617) 555-0188.", ["+1 (617) 555-0188"]),
        ("Call 617.555.0188 for help.", ["617.555.0188"]),
        ("The server is at 192.168.10.254 now.", ["192.168.10.254"]),
        ("The company made it in 1990-1995.", ["1990-1995"]),
        ("See version 1.2.3 of it.", ["1.2.3"]),
        ("Use 200-400 mg of it.", ["200-400 mg", "400 mg"]),
        ("It opened on 2021-03-04.", ["2021-03-04"]),
    ],
)
def test_numbers_that_are_joined_are_one_thing_to_verify(
    detector: FaithfulnessDetector, response: str, covered: list[str]
) -> None:
    alone, asked = judge(detector, None, response), judge(detector, None, response, prompt=response)

    assert [response[one.start : one.end] for one in alone.findings if one.type == "UNVERIFIABLE"] == covered
    assert asked.findings == []


@pytest.mark.parametrize(
    ("response", "covered"),
    [
        (
            "The drug causes liver damage. It is cheap. The drug does not cause liver damage.",
            "The drug does not cause liver damage.",
        ),
        ("The half-life is 6 hours. Food has no effect. The half-life is 14 hours.", "The half-life is 14 hours."),
    ],
    ids=["denied", "amount"],
)
def test_a_response_that_contradicts_itself_is_told(detector: FaithfulnessDetector, response: str, covered: str) -> None:
    verdict = judge(detector, None, response)

    assert [response[one.start : one.end] for one in verdict.findings if one.type == "SELF_CONTRADICTION"] == [covered]


def test_a_prompt_that_holds_its_source_is_the_source(detector: FaithfulnessDetector, encoder: OfflineEncoder) -> None:
    prompt = "Summarise the following encounter for the chart.\n\n" + VISIT

    verdict = judge(detector, encoder, "Her right knee has been swollen for three weeks.", prompt=prompt)

    assert score(verdict) < 0.6
    assert [one.type for one in verdict.findings] == ["CONTRADICTED_LATERALITY"]
    assert {one.source for one in verdict.evidence} == {"prompt"}


def test_a_response_that_asserts_nothing_has_no_fault(detector: FaithfulnessDetector) -> None:
    verdict = judge(detector, None, "Noncontributory.", VISIT)

    assert verdict.findings == []
    assert score(verdict) > 0.6


def test_a_judge_moves_the_score_and_its_contradiction_is_a_finding(detector: FaithfulnessDetector) -> None:
    class Contrary:
        name, version = "contrary", "1"

        def score(self, pairs: Sequence[tuple[str, str]]) -> list[Judgement]:
            return [Judgement(0.05, 0.05, 0.9) for _ in pairs]

        def describe(self) -> dict[str, str]:
            return {"backend": "test"}

    response = "Her left knee has been swollen for three weeks."
    judged = FaithfulnessDetector.load(judge=Contrary())

    verdict = judge(judged, None, response, VISIT)

    assert score(verdict) < score(judge(detector, None, response, VISIT)) - 0.3
    assert [one.type for one in verdict.findings] == ["CONTRADICTION"]
    assert judged.version != detector.version


LINES = [line for line in VISIT.splitlines() if len(line.split()) > 4 and not line.endswith("?")]
PIECES = [
    *[response for response, _, _ in MISTAKES],
    *RIGHT,
    "Dr. Lee saw her.",
    "Übelkeit? 発熱はない。",
    "1. Rest.\n2) 5 mg q6h",
    "\x00 ½ ٣ ² 1e9",
]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(LINES), min_size=1, max_size=4, unique=True), st.randoms(use_true_random=False))
def test_a_copy_of_the_context_is_faithful_in_any_order_of_chunks(lines: list[str], rng: random.Random) -> None:
    detector = FaithfulnessDetector.load()
    chunks = VISIT.splitlines()
    shuffled = rng.sample(chunks, len(chunks))

    verdicts = [judge(detector, None, "\n".join(lines), *order) for order in (chunks, shuffled)]

    assert score(verdicts[0]) >= 0.9
    assert verdicts[0].findings == verdicts[1].findings == []
    assert score(verdicts[0]) == pytest.approx(score(verdicts[1]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=40)), max_size=5), st.text(max_size=60))
def test_places_lie_inside_the_texts_and_scores_inside_their_range(pieces: list[str], other: str) -> None:
    detector = FaithfulnessDetector.load()
    response, chunks = " ".join(pieces), (VISIT, other)

    verdicts = [judge(detector, None, response, *chunks), judge(detector, None, response, prompt=other)]

    for verdict in verdicts:
        assert all(0 <= one.start < one.end <= len(response) and 0 <= one.score <= 1 for one in verdict.findings)
        assert all(0 <= value <= 1 for value in verdict.scores.values())
        for one in verdict.evidence:
            assert 0 <= one.start < one.end <= len(response)
            assert 0 <= one.source_start <= one.source_end <= len(chunks[one.chunk])


def test_a_batch_says_what_its_samples_say_alone(detector: FaithfulnessDetector, encoder: OfflineEncoder) -> None:
    samples = [Sample(str(place), None, text, (VISIT,)) for place, text in enumerate([*PIECES, *RIGHT])]

    together = detector.assess(Batch(samples, encoder))

    for sample, verdict in zip(samples, together, strict=True):
        alone = detector.assess(Batch([sample], encoder))[0]
        assert (verdict.findings, verdict.evidence) == (alone.findings, alone.evidence)
        assert verdict.scores == pytest.approx(alone.scores)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Dr. Lee saw her. She left.", ["Dr. Lee saw her.", "She left."]),
        ("Give 2.5 mg b.i.d. with food. Then stop.", ["Give 2.5 mg b.i.d. with food.", "Then stop."]),
        ("No. She has no pain.", ["No.", "She has no pain."]),
        ("See No. 5 below. J. Smith wrote it.", ["See No. 5 below.", "J. Smith wrote it."]),
        ("1. Rest.\n2. Drink\nplenty.", ["1. Rest.", "2. Drink\nplenty."]),
    ],
    ids=["title", "dosing", "answer", "number", "list"],
)
def test_sentences_end_where_a_reader_would_end_them(text: str, parts: list[str]) -> None:
    found = sentences(text)

    assert [text[span.start : span.end] for span in found] == parts


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("twenty six years old", "26-year-old"),
        ("January tenth two thousand nine", "01/10/2009"),
        ("August of two thousand eight", "August 2008"),
        ("five hundred milligrams", "0.5 g"),
        ("three times a day", "t.i.d."),
        ("every six hours", "q6h"),
        ("nineteen sixty one", "1961"),
        ("one twenty over eighty", "120/80"),
        ("two and a half weeks", "2.5 weeks"),
        ("point zero zero four", "0.004"),
        ("two weeks", "14 days"),
    ],
)
def test_a_number_is_the_same_in_words_and_in_digits(one: str, other: str) -> None:
    read = [facts(text, words(text)) for text in (one, other)]

    assert [round(fact.amount, 6) for fact in read[0]] == [round(fact.amount, 6) for fact in read[1]]
    assert [fact.date for fact in read[0]] == [fact.date for fact in read[1]]
    assert read[0]


@pytest.mark.parametrize(
    ("text", "denied"),
    [
        ("She denies fever, chills, but has a cough.", {"fever", "chills"}),
        ("No nausea or vomiting.", {"nausea", "or", "vomiting"}),
        ("Colectomy with no recurrence, appendectomy.", {"recurrence"}),
        ("He can't walk without a cane.", {"walk"}),
        ("Pneumonia was ruled out.", {"pneumonia", "was"}),
        ("No medications other than aspirin.", {"medications"}),
    ],
)
def test_a_denial_reaches_as_far_as_a_reader_takes_it(text: str, denied: set[str]) -> None:
    read = words(text)

    signs = polarity(read)

    assert {word.low for word, sign in zip(read, signs, strict=True) if sign < 0 and word.key} - {"without"} == denied
