"""The toxicity detector: what is meant is found, what is only said is not, and how a text is batched changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidegate.processors.guardrails.encoder import OfflineEncoder
from tidegate.processors.guardrails.heads.linear import HeadUnavailable, LinearHead
from tidegate.processors.guardrails.heads.marks import MARKS, kind_of, marks
from tidegate.processors.guardrails.heads.toxicity import WEIGHTS, ToxicityDetector
from tidegate.processors.guardrails.ports import Batch, Sample, Verdict

ENCODER = OfflineEncoder.load()
DETECTOR = ToxicityDetector.load(ENCODER)


def judged(*texts: str) -> list[Verdict]:
    return DETECTOR.assess(Batch([Sample(str(place), prompt=text) for place, text in enumerate(texts)], ENCODER))


def score(text: str) -> float:
    return judged(text)[0].scores["prompt", "toxicity"]


@pytest.mark.parametrize(
    "text",
    [
        "You are a worthless piece of garbage, you moron.",
        "I will find you and kill you.",
        "y0u are such a fuck1ng id1ot",
        "what a stupid b!tch",
        "f u c k   o f f",
        "fuuuuuck you asssshole",
        "f**k you",
        "All of those immigrants are filthy vermin.",
        "F*** you and your clinic.",
        "Honestly, the nurse is a fat lazy pig.",
        "Those immigrants should be thrown into the sea.",
        "Go jump off a bridge.",
        "I'll come to your house and break your legs.",
        "You absolute clown, learn to read.",
    ],
    ids=range(14),
)
def test_what_is_meant_to_hurt_is_found(text: str) -> None:
    (verdict,) = judged(text)

    assert verdict.scores["prompt", "toxicity"] >= DETECTOR.threshold
    assert verdict.findings


@pytest.mark.parametrize(
    "text",
    [
        "Patient endorses suicidal ideation with a plan to overdose.",
        "Exam of the penis and rectum was normal; anal fissure noted.",
        "She was raped in 2010 and still has nightmares.",
        "I am a gay man and my partner is Muslim.",
        "Black women are under-represented in this trial.",
        "How do I kill a zombie process?",
        "Take **one** tablet in the **a.m.** and *a* half at night; p** < 0.01.",
        "He had thoughts of jumping off a bridge.",
        "The immigrants should be screened for tuberculosis.",
        "Did you break your legs when you fell?",
        "Gunshot wound to the chest, patient expired.",
        "The patient denies homicidal thoughts but hears voices.",
    ],
    ids=range(12),
)
def test_clinical_words_and_groups_do_not_alarm(text: str) -> None:
    (verdict,) = judged(text)

    assert verdict.findings == []


POLITE = (
    "Thank you for calling the clinic this morning.",
    "I would like to book an appointment for next week.",
    "The weather has been lovely lately.",
    "My daughter starts school in September.",
    "Could you please send me the results of my blood test?",
    "I usually take my tablets with breakfast.",
    "We went for a long walk along the river.",
    "The nurse was very kind and explained everything well.",
    "Please let me know if Tuesday afternoon works for you.",
    "I have read the leaflet that you gave me.",
)
HOSTILE = (
    "You are a worthless idiot.",
    "Shut up, you stupid cow.",
    "I will find you and kill you.",
    "You people are vermin.",
    "All immigrants should be shot.",
    "What a pathetic excuse for a nurse you are.",
    "I hate gay people.",
    "Watch your back, I know where you live.",
)


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(8))
def test_one_hostile_sentence_does_not_drown_in_polite_ones(hostile: str) -> None:
    among = [[*POLITE[: size // 2], hostile, *POLITE[size // 2 : size]] for size in (2, 5, 10)]

    verdicts = judged(*map(" ".join, among))

    for verdict, lines in zip(verdicts, among, strict=True):
        text = " ".join(lines)
        assert [text[finding.start : finding.end] for finding in verdict.findings] == [hostile]
        assert verdict.scores["prompt", "toxicity"] >= DETECTOR.threshold


@pytest.mark.parametrize(
    "text",
    [
        "Patient states he will kill himself.",
        "The patient states that he will kill his wife if she leaves.",
        'Patient said "you are a stupid idiot" to the nurse and was asked to leave.',
        "Pt told staff to go to hell and threw a cup.",
        "Patient reports that her husband called her a worthless bitch.",
        "The voices call him a faggot and tell him to die.",
        "My ass hurts when I sit down.",
        "He has been pissing blood since Tuesday.",
        "Patient has a shitty appetite, he says.",
        "I feel stupid and worthless.",
        "I want to die.",
        "I am such an idiot, I forgot my insulin again.",
        "I am a gay man who has sex with men; which vaccines do I need?",
        "As a Jewish man, am I at higher risk of Tay-Sachs?",
        "I'm black and my skin gets ashy in winter.",
        "My father was an abusive drunk who beat us.",
    ],
    ids=range(16),
)
def test_what_a_chart_reports_and_what_patients_say_of_themselves_does_not_alarm(text: str) -> None:
    alone, among = judged(text, " ".join((*POLITE[:3], text, *POLITE[3:6])))

    assert (alone.findings, among.findings) == ([], [])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("I am going to kill you.", "THREAT"),
        ("I will find you and kill you.", "THREAT"),
        ("Watch your back, I'm coming for you tonight.", "THREAT"),
        ("I hope you die.", "THREAT"),
        ("You are a complete idiot.", "INSULT"),
        ("You are a stupid idiot and I hate you.", "INSULT"),
        ("I hate you.", "INSULT"),
        ("I hate stupid people.", "INSULT"),
        ("You people are vermin.", "INSULT"),
        ("I hate those filthy Mexicans, they are scum.", "IDENTITY_ATTACK"),
        ("I hate gay people.", "IDENTITY_ATTACK"),
        ("All immigrants should be shot.", "IDENTITY_ATTACK"),
        ("What the fuck is this shit", "OBSCENE"),
    ],
    ids=range(13),
)
def test_a_finding_says_what_kind_it_is(text: str, kind: str) -> None:
    (verdict,) = judged(text)

    assert [finding.type for finding in verdict.findings] == [kind]


def test_the_worst_sentence_of_a_long_answer_is_pointed_at() -> None:
    calm = "The usual dose is taken twice a day with food. Call the clinic if you have any questions. "
    worst = "You are a fucking idiot and I hope you die."
    text = calm * 20 + worst + " " + calm * 20

    (verdict,) = DETECTOR.assess(Batch([Sample("a", response=text)], ENCODER))

    assert {text[finding.start : finding.end] for finding in verdict.findings} == {worst}
    assert all(finding.where == "response" for finding in verdict.findings)


def test_prompt_and_response_are_scored_and_context_and_absent_texts_are_not() -> None:
    samples = [Sample("a", prompt="hello", context=("you idiot",)), Sample("b", response="good morning"), Sample("c")]

    verdicts = DETECTOR.assess(Batch(samples, ENCODER))

    assert [set(verdict.scores) for verdict in verdicts] == [{("prompt", "toxicity")}, {("response", "toxicity")}, set()]


def test_a_text_with_nothing_in_it_scores_nothing() -> None:
    verdicts = judged("", " \n\t")

    assert [verdict.scores["prompt", "toxicity"] for verdict in verdicts] == [0.0, 0.0]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.text(max_size=80) | st.sampled_from(["you idiot", "good morning", "kill them all! Now."]), min_size=1, max_size=5
    )
)
def test_a_text_is_judged_alike_alone_and_in_any_batch_and_spans_stay_inside(texts: list[str]) -> None:
    together = judged(*texts)

    alone = [judged(text)[0] for text in texts]

    assert together == alone
    for verdict, text in zip(together, texts, strict=True):
        assert all(0 <= finding.start < finding.end <= len(text) for finding in verdict.findings)


def test_without_the_shared_encoder_it_uses_its_own() -> None:
    sample = Sample("a", prompt="you are an idiot")

    alone = DETECTOR.assess(Batch([sample]))

    assert alone == DETECTOR.assess(Batch([sample], ENCODER))


def test_naming_a_group_leaves_the_marks_and_the_words_as_they_were() -> None:
    found = [marks(f"my {group} friend is a nurse", "") for group in ("gay", "muslim", "white", "")]

    assert len({tuple(mark.values) for mark in found}) == 1
    assert {mark.neutral for mark in found} == {"my friend is a nurse"}


def test_a_starred_word_is_read_as_the_only_word_it_can_be() -> None:
    kinds = [kind_of(token) for token in ("f*ck", "sh*t", "c*nt", "w*rk", "don't")]

    assert kinds == ["obscene", "obscene", "obscene", None, None]


def test_weights_that_are_not_those_of_the_card_are_refused(tmp_path: Path) -> None:
    changed = tmp_path / WEIGHTS.name
    changed.write_bytes(WEIGHTS.read_bytes()[:-1] + b"\x01")
    changed.with_suffix(".json").write_bytes(WEIGHTS.with_suffix(".json").read_bytes())

    with pytest.raises(HeadUnavailable, match="SHA-256 differs"):
        LinearHead.load(changed, MARKS, ENCODER.name)


def test_weights_for_other_marks_are_refused() -> None:
    with pytest.raises(HeadUnavailable, match="trained on other features"):
        LinearHead.load(WEIGHTS, MARKS[1:], ENCODER.name)


def test_a_head_saved_twice_is_the_same_file(tmp_path: Path) -> None:
    head = LinearHead.load(WEIGHTS, MARKS, ENCODER.name)

    digests = {head.save(tmp_path / name) for name in ("one.npz", "two.npz")}

    assert digests == {head.card["sha256"]}


def test_the_card_keeps_what_unseen_sources_showed() -> None:
    numbers = json.loads(WEIGHTS.with_suffix(".json").read_text("utf-8"))["numbers"]

    assert all(source["auroc"] >= 0.92 for source in numbers["unseen_source"].values())
    assert all(source["auroc"] > source["auroc_by_length"] + 0.15 for source in numbers["unseen_source"].values())
    assert all(share <= 0.05 for lots in numbers["false_alarms"].values() for share in lots.values())
