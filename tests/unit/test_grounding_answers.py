"""What a conversation says of a thing: questions and their answers, and what a note may make of them."""

from __future__ import annotations

import pytest
from tidegate.processors.guardrails.encoder import OfflineEncoder
from tidegate.processors.guardrails.grounding.detector import FaithfulnessDetector
from tidegate.processors.guardrails.grounding.reading import key_of
from tidegate.processors.guardrails.grounding.source import Source
from tidegate.processors.guardrails.ports import Batch, Sample


@pytest.fixture(scope="module")
def detector() -> FaithfulnessDetector:
    return FaithfulnessDetector.load()


def score(detector: FaithfulnessDetector, response: str, context: str) -> float:
    verdict = detector.assess(Batch([Sample("one", None, response, (context,))], None))[0]
    return verdict.scores[("response", "faithfulness")]


ANSWERS = [
    ("Do you drink?", "Of course not.", "drink", {-1}),
    ("Do you drink?", "Absolutely not.", "drink", {-1}),
    ("Do you drink?", "Occasionally.", "drink", {1}),
    ("Do you drink?", "Every now and then.", "drink", {1}),
    ("Do you have fevers?", "I don't think so.", "fevers", {-1}),
    ("No swelling?", "That's right.", "swelling", {-1}),
    ("Any other trouble besides the asthma?", "No.", "asthma", {1}),
    ("Did the rash go away?", "No.", "rash", {0}),
    ("Are you taking anything for the pain?", "No.", "pain", {0}),
    ("Does it hurt when you walk?", "No.", "walk", {0}),
    ("Does it hurt when you walk?", "No.", "hurt", {-1}),
    ("When can I drive?", "In two weeks.", "drive", {0}),
    ("How is your appetite?", "Not good.", "appetite", {1}),
    ("Which allergies do you have?", "None.", "allergies", {-1}),
    ("Any fever, or chills?", "No fever, but there were chills.", "chills", {0, 1}),
]


@pytest.mark.parametrize("place", range(len(ANSWERS)))
def test_an_answer_settles_what_was_asked_and_not_what_was_taken_for_granted(place: int) -> None:
    question, reply, word, signs = ANSWERS[place]

    source = Source.read("context", [f"Doctor: {question}\nPatient: {reply}\nDoctor: Fine."])

    assert source.said[key_of(word)] == signs


# What the source says, what follows from it, and what does not.
NOTES = [
    ("Did they find a fever?\nPatient: No, no fever.", "He was afebrile.", "He was febrile."),
    ("Any thoughts of hurting yourself?\nPatient: No.", "She denies hurting herself.", "She reports hurting herself."),
    ("You take it at bedtime?\nPatient: Yes, the Lipitor.", "Lipitor is taken daily.", "Lipitor is taken four times a day."),
    ("What now?\nPatient: Up to a thousand units, a nurse said.", "Up to 1000 units.", "Up to 1700 units."),
    ("Is it there for long?\nPatient: All day, the cramp.", "The cramp lasts 24 hours.", "The cramp lasts 9 hours."),
    ("Are you married?\nPatient: Yes, married.", "The patient is married.", "The patient is single."),
    ("Which lung?\nPatient: The left side, pneumonia.", "Left-sided pneumonia.", "Right-sided pneumonia."),
    ("Any thyroid trouble?\nPatient: My sister has it.", "Sister with thyroid disease.", "Sister with kidney disease."),
    ("When was it?\nPatient: In two thousand four, the biopsy.", "Biopsy in 2004.", "Biopsy in 1997."),
    ("When did she die?\nPatient: In her sixties.", "She died in her 60s.", "She died in her 30s."),
    ("Any pus?\nPatient: None.\nDoctor: The murmur is there.", "A murmur was present.", "A murmur was not present."),
    ("Anything bad?\nPatient: There is a little cough.", "Mild cough.", "Severe cough."),
    ("Feeds?\nPatient: Four ounces a bottle. I have one girl.", "A bottle is 4 ounces.", "A bottle is 1 ounce."),
    ("The scan?\nPatient: It showed no stones.", "Scan was negative for stones.", "Scan was not negative for stones."),
    ("When?\nPatient: Half an hour later, the rash.", "Rash 30 minutes later.", "Rash 50 minutes later."),
    ("And you smoked?\nPatient: A pack a day, ten years.", "A 10-pack-year history.", "A 35-pack-year history."),
]


@pytest.mark.parametrize("place", range(len(NOTES)))
def test_what_a_note_makes_of_an_answer_is_told_from_what_it_makes_up(detector: FaithfulnessDetector, place: int) -> None:
    context, true, false = f"Doctor: {NOTES[place][0]}\nDoctor: Fine.", NOTES[place][1], NOTES[place][2]

    scores = score(detector, true, context), score(detector, false, context)

    assert scores[0] > 0.5
    assert scores[1] < 0.8 * scores[0]


def test_a_condition_ends_where_its_advice_begins(detector: FaithfulnessDetector) -> None:
    context = "Doctor: If you are not better, see the surgeon.\nPatient: I will see the surgeon."

    advised = score(detector, "If there is no improvement, see the surgeon.", context)

    assert advised > score(detector, "Do not see the surgeon.", context)


def test_a_word_of_two_meanings_is_borne_out_by_either(detector: FaithfulnessDetector) -> None:
    contexts = "Patient: I was told I am diabetic.", "Patient: My glucose is high."

    scores = [score(detector, "Her sugar is high.", context) for context in contexts]

    assert min(scores) > 0.5


def test_a_name_is_borne_out_in_part_by_words_that_are_near_to_one_of_its_names(detector: FaithfulnessDetector) -> None:
    batch = Batch(
        [
            Sample("near", None, "She had nausea.", ("Patient: At dinner she felt like she would throw it all up.",)),
            Sample("far", None, "She had nausea.", ("Patient: At dinner she felt like she would call a friend.",)),
        ],
        OfflineEncoder.load(),
    )

    near, far = (verdict.scores[("response", "faithfulness")] for verdict in detector.assess(batch))

    assert near > 1.5 * far
