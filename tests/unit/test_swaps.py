"""The alterations that faithfulness is trained and measured on: reproducible, and wrong only where they say."""

from __future__ import annotations

import json
from pathlib import Path

from tidegate.bench.training.swaps import CHANGES, cases, read_summaries

DIALOGUE = "Doctor: What hurts?\nPatient: My left knee, since March 2019. I take lisinopril, 10 mg a day. I never smoked."
NOTE = (
    "The patient has pain of the left knee since March 2019. She takes lisinopril 10 mg for hypertension. She denies smoking. "
    "Her mother had acute headaches for 3 weeks."
)
NOTES = [
    (0, DIALOGUE, NOTE),
    (1, "Doctor: Hello.", "This gentleman works outdoors as a gardener. He has considerable difficulty swallowing."),
]


def test_the_same_notes_give_the_same_cases() -> None:
    first = cases(NOTES)

    second = cases(NOTES)

    assert first == second
    assert {case.kind for case in first if case.group == 0 and not case.faithful} == set(CHANGES)


def test_an_altered_note_differs_only_where_it_says() -> None:
    altered = [case for case in cases(NOTES) if case.group == 0 and not case.faithful]

    for case in altered:
        start, end = case.changed
        assert case.response != NOTE
        assert NOTE.startswith(case.response[:start].rstrip()) or case.kind == "sentence"
        assert NOTE.endswith(case.response[end:].lstrip())


def test_a_faithful_case_says_nothing_that_the_note_does_not() -> None:
    faithful = [case for case in cases(NOTES) if case.faithful and case.group == 0 and case.kind != "introduced"]

    known = set(NOTE.split())
    assert all(set(case.response.split()) <= known | {"ten", "three"} for case in faithful)
    assert {case.changed for case in faithful} == {(0, 0)}


def test_a_foreign_sentence_that_the_dialogue_says_itself_makes_no_unfaithful_note() -> None:
    notes = [(0, DIALOGUE, NOTE), (1, "Doctor: Hello.", "She never smoked and has hurts of a knee since March.")]

    kinds = {case.kind for case in cases(notes) if case.group == 0}

    assert "sentence" not in kinds
    assert "negation" in kinds


def test_summaries_are_told_apart_by_the_dialogue_they_are_of(tmp_path: Path) -> None:
    calls = [(DIALOGUE, "One."), ("Doctor: Hello.", "Two."), (DIALOGUE.replace("\n", " "), "Three.  Four."), (None, "Five.")]
    lines = [
        {"retrieved_context": context and [context], "response": {"choices": [{"message": {"content": text}}]}}
        for context, text in calls
    ]
    (tmp_path / "calls.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")

    rounds = read_summaries(tmp_path / "calls.jsonl", NOTES)

    assert [[(number, text) for number, _, text in each] for each in rounds] == [
        [(0, "One."), (1, "Two.")],
        [(0, "Three. Four.")],
    ]
