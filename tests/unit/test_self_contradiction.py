"""An answer that contradicts itself is told so; one that lists, compares, or tells of a change is not."""

from __future__ import annotations

import pytest
from tidegate.processors.guardrails.grounding.detector import FaithfulnessDetector
from tidegate.processors.guardrails.ports import Batch, Sample

CONTRARY = [
    ("He has diabetes.", "He does not have diabetes."),
    ("The drug is safe.", "The drug is not safe."),
    ("The drug is safe.", "The drug is unsafe."),
    ("The patient is 45 years old.", "The patient is 54 years old."),
    ("The dose is 5 mg.", "The dose is 50 mg."),
    ("The test is positive.", "The test is negative."),
    ("The tumor is benign.", "The tumor is malignant."),
    ("The wound is infected.", "The wound is not infected."),
    ("She smokes.", "She doesn't smoke."),
    ("Patient denies chest pain.", "Patient reports chest pain."),
    ("She is allergic to penicillin.", "She isn't allergic to penicillin."),
    ("The surgery was on March 3, 2021.", "The surgery was on March 13, 2021."),
    ("She takes metformin 500 mg twice daily.", "She takes metformin 500 mg once daily."),
    ("He takes lisinopril 10 mg daily.", "He takes lisinopril 20 mg daily."),
    ("You should take it with food.", "You should not take it with food."),
    ("The medicine lowers blood pressure.", "The medicine does not lower blood pressure."),
    ("The ticket costs 12 dollars.", "The ticket costs 20 dollars."),
    ("The drug increases appetite.", "The drug decreases appetite."),
    ("He walks with a cane.", "He walks without a cane."),
    ("The museum is open on Mondays.", "The museum is closed on Mondays."),
]
AGREEING = [
    ("5 mg in the morning.", "10 mg at night."),
    ("Her father is 70 years old.", "Her mother is 68 years old."),
    ("Left knee is swollen.", "Right knee is not swollen."),
    ("The test was negative in March.", "It is positive now."),
    ("The test was negative.", "The test is positive."),
    ("It may be pneumonia.", "It may not be pneumonia."),
    ("The pain could be cardiac.", "The pain could be muscular."),
    ("The first dose is 5 mg.", "The second dose is 10 mg."),
    ("On day 1 the dose is 5 mg.", "On day 2 the dose is 10 mg."),
    ("The 5 mg tablet is white.", "The 10 mg tablet is white."),
    ("Type 1 diabetes is common.", "Type 2 diabetes is common."),
    ("Some tests are positive.", "Some tests are negative."),
    ("She was seen on March 3.", "She was seen on March 5."),
    ("Malignant tumors are removed.", "Benign tumors are removed."),
    ("The drug is not safe.", "The drug is unsafe."),
    ("The dose is 500 mg.", "The dose is 0.5 g."),
    ("The dose is not 5 mg.", "The dose is not 50 mg."),
    ("His heart rate was 80 bpm.", "His heart rate was 95 bpm."),
    ("Give 5 mg.", "Give 10 mg."),
    ("He does not smoke.", "His brother does smoke."),
    ("He is no longer on insulin.", "He is on metformin."),
    ("Fever is present.", "Cough is not present."),
    ("A patient is 45 years old.", "A patient is 54 years old."),
    ("If the test is positive, call us.", "If the test is negative, wait."),
    ("Aspirin thins the blood. It is safe.", "Heroin is a drug. It is not safe."),
    ("In children the dose is 5 mg.", "In adults the dose is 50 mg."),
    ("The systolic pressure is 120 mmHg.", "The diastolic pressure is 80 mmHg."),
    ("Her left eye is normal.", "Her right eye is abnormal."),
    ("She has two sons.", "She has three daughters."),
    ("Take one tablet in the morning.", "Take two tablets at night."),
    ("His sister is well. She is 40 years old.", "His mother is well. She is 70 years old."),
]


def told(response: str) -> list[str]:
    (verdict,) = FaithfulnessDetector.load().assess(Batch([Sample("one", None, response)]))
    return [response[one.start : one.end] for one in verdict.findings if one.type == "SELF_CONTRADICTION"]


@pytest.mark.parametrize(("one", "other"), CONTRARY, ids=range(len(CONTRARY)))
def test_two_sentences_that_cannot_both_be_so_are_told_in_either_order(one: str, other: str) -> None:
    forth, back = told(f"{one} {other}"), told(f"{other} {one}")

    assert (forth, back) == ([other], [one])


@pytest.mark.parametrize(("one", "other"), AGREEING, ids=range(len(AGREEING)))
def test_two_sentences_that_may_both_be_so_are_not_told(one: str, other: str) -> None:
    forth, back = told(f"{one} {other}"), told(f"{other} {one}")

    assert (forth, back) == ([], [])
