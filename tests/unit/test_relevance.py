"""Relevance: answers to their questions, chunks to theirs, and few answers called off topic."""

from __future__ import annotations

import pytest
from tidegate.processors.guardrails.encoder import OfflineEncoder
from tidegate.processors.guardrails.ports import Batch, Encoder, Sample, Verdict
from tidegate.processors.guardrails.relevance import DECLINED, SPOKEN_FOR, RelevanceDetector

QUESTION = "What are the common side effects of metformin in adults?"
ANSWER = "Metformin most often causes nausea, diarrhea and stomach upset, which usually pass after some weeks."
ASTRAY = "The Eiffel Tower was built between 1887 and 1889 for a fair, and it is visited by millions of people."


@pytest.fixture(scope="module")
def encoder() -> OfflineEncoder:
    return OfflineEncoder.load()


def judge(encoder: Encoder | None, prompt: str | None, response: str | None, *context: str) -> Verdict:
    return RelevanceDetector.load().assess(Batch([Sample("one", prompt, response, context)], encoder))[0]


@pytest.mark.parametrize("with_encoder", [True, False], ids=["encoder", "no encoder"])
def test_an_answer_scores_above_what_is_no_answer(encoder: OfflineEncoder, with_encoder: bool) -> None:
    by = encoder if with_encoder else None

    scores = [judge(by, QUESTION, text).scores[("response", "relevance")] for text in (ANSWER, ASTRAY)]

    assert scores[0] > scores[1] + 0.2


def test_an_answer_to_nothing_that_was_asked_is_off_topic(encoder: OfflineEncoder) -> None:
    verdict = judge(encoder, QUESTION, ASTRAY)

    assert [(one.type, one.where, one.start, one.end) for one in verdict.findings] == [
        ("OFF_TOPIC", "response", 0, len(ASTRAY))
    ]


@pytest.mark.parametrize(
    ("prompt", "response"),
    [
        (QUESTION, ANSWER),
        (QUESTION, "I'm sorry, but I can't help with that. Please talk to a pharmacist about it."),
        (QUESTION, "Could you clarify which patient group and which formulation you mean?"),
        (QUESTION, "Nausea."),
        ("Why?", ASTRAY),
        ("Write a short poem about nothing at all, please.", ASTRAY),
        (QUESTION, "二甲双胍的常见副作用包括恶心和腹泻。" * 3),
    ],
    ids=["answer", "refusal", "question back", "one word", "short question", "task", "another script"],
)
def test_few_things_are_off_topic(encoder: OfflineEncoder, prompt: str, response: str) -> None:
    verdict = judge(encoder, prompt, response)

    assert verdict.findings == []


NOTE = "The patient is a 45 year old man with diabetes who came in for chest pain. He takes metformin."


@pytest.mark.parametrize("with_encoder", [True, False], ids=["encoder", "no encoder"])
@pytest.mark.parametrize(
    ("prompt", "response"),
    [
        ("Summarize this note.", NOTE),
        ("Summarise the visit of last Monday.", NOTE),
        ("Go on.", NOTE),
        ("Why?", NOTE),
        ("What is the dose of metformin?", "500 mg twice daily."),
        (QUESTION, "Nausea."),
        ("Write a limerick about cats.", "There once was a lady named Lou, who chased every bird that she knew."),
    ],
    ids=["note", "visit", "go on", "short question", "short answer", "one word", "task"],
)
def test_an_answer_that_need_share_no_word_has_a_fair_score_or_none(
    encoder: OfflineEncoder, with_encoder: bool, prompt: str, response: str
) -> None:
    verdict = judge(encoder if with_encoder else None, prompt, response)

    assert verdict.scores.get(("response", "relevance"), 1.0) >= SPOKEN_FOR


@pytest.mark.parametrize(
    ("prompt", "response"),
    [
        ("What is the dose of metformin?", "The usual dose of metformin is 500 mg twice daily."),
        ("Is it safe?", "Yes, it is safe."),
        ("Write a limerick about cats.", "A limerick: two cats of Kilkenny thought there was one cat too many."),
    ],
    ids=["question", "short question", "task"],
)
def test_shared_words_speak_for_an_answer_whatever_was_asked(encoder: OfflineEncoder, prompt: str, response: str) -> None:
    scores = [judge(by, prompt, response).scores[("response", "relevance")] for by in (encoder, None)]

    assert min(scores) >= 0.5


def test_a_refusal_is_not_irrelevant(encoder: OfflineEncoder) -> None:
    verdict = judge(encoder, QUESTION, "I cannot give medical advice.")

    assert verdict.scores[("response", "relevance")] >= DECLINED


def test_the_best_chunk_decides_and_their_order_does_not(encoder: OfflineEncoder) -> None:
    good, bad = "Side effects of metformin in adults include nausea and diarrhea.", ASTRAY

    scores = [judge(encoder, QUESTION, None, *chunks).scores for chunks in ((good, bad), (bad, good), (good,), (bad,))]

    values = [each[("context", "relevance")] for each in scores]
    assert values[0] == pytest.approx(values[1]) == pytest.approx(values[2])
    assert values[3] < values[2] - 0.3


def test_without_a_question_nothing_is_scored(encoder: OfflineEncoder) -> None:
    verdict = judge(encoder, None, ANSWER, "A chunk.")

    assert verdict.scores == {}
    assert verdict.findings == []


def test_an_answer_drawn_from_a_long_prompt_is_relevant(encoder: OfflineEncoder) -> None:
    prompt = "Summarise this note. " + ANSWER * 8

    verdict = judge(encoder, prompt, "Causes nausea, diarrhea and stomach upset.")

    assert verdict.scores[("response", "relevance")] > 0.5
    assert verdict.findings == []
