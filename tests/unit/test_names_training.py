"""What the name tagger learns from, and that it learns."""

from __future__ import annotations

import random

import numpy as np
import pytest
from tidegate.bench.training import names_corpus, train_names
from tidegate.bench.training.names_silver import Labelled, unsure
from tidegate.processors.guardrails.phi.ner_tagger import CLASSES, Tagger
from tidegate.processors.guardrails.phi.ner_words import pieces, read_lists


@pytest.fixture(scope="module")
def maker() -> names_corpus.Maker:
    return names_corpus.Maker(read_lists(), seed=1)


def test_every_sentence_of_the_corpus_can_be_filled(maker: names_corpus.Maker) -> None:
    parts = names_corpus.read_parts()

    filled = [
        maker.fill(line) for line in (*parts["sentence"], *parts["plain"], *parts["organization"], *parts["foreign street"])
    ]

    assert all(made.text for made in filled)
    assert not any(maker.fill(line).spans for line in parts["plain"])


def test_a_made_sentence_says_where_its_names_stand(maker: names_corpus.Maker) -> None:
    made = maker.fill("{person} of {org} moved to {city}.")

    (_, first, _), (second, third, _), (fourth, last, _) = made.spans

    assert [kind for _, _, kind in made.spans] == ["PERSON", "ORGANIZATION", "LOCATION"]
    assert made.text[first:second] == " of "
    assert made.text[third:fourth] == " moved to "
    assert made.text[last:] == "."


def test_samples_keep_their_spans_in_whatever_case_they_are_written(maker: names_corpus.Maker) -> None:
    samples = [maker.sample() for _ in range(500)]

    for made in samples:
        assert all(0 <= start < end <= len(made.text) for start, end, _ in made.spans)
        assert all(not made.text[start].isspace() and not made.text[end - 1].isspace() for start, end, _ in made.spans)


def test_the_same_seed_makes_the_same_sentences() -> None:
    first, second = (names_corpus.Maker(read_lists(), seed=7) for _ in range(2))

    sentences = [[maker.sample() for _ in range(50)] for maker in (first, second)]

    assert sentences[0] == sentences[1]


def test_a_real_sentence_keeps_its_words_around_another_name(maker: names_corpus.Maker) -> None:
    real = Labelled("I met Anna Schmidt in Oslo.", [(6, 18, "PERSON"), (22, 26, "LOCATION")])

    swapped = [names_corpus.swapped(real, maker, random.Random(seed)) for seed in range(20)]

    assert all(made.text.startswith("I met ") and made.text.endswith(".") for made in swapped)
    assert len({made.text for made in swapped}) > 5


def test_a_piece_is_the_beginning_or_the_going_on_of_a_name_or_unknown() -> None:
    text = "Maria Lopez saw Dr. Who in\nOslo"
    spans = [(0, 11, "PERSON"), (20, 23, "MASK"), (27, 31, "LOCATION")]

    found = dict(zip(pieces(text), train_names.classes(pieces(text), spans), strict=True))

    assert (found["Maria"], found[" Lopez"], found[" saw"]) == (1, 2, 0)
    assert found[" Who"] == -1
    assert found["Oslo"] == 3


def test_a_name_that_spacy_may_have_missed_is_masked() -> None:
    found = [Labelled("Yesterday Ingrid came.", []), Labelled("The cat came.", [])]

    masked = unsure(found, read_lists())

    assert masked[0].spans == [(10, 16, "MASK")]
    assert masked[1].spans == []


def test_training_lowers_the_loss_and_the_tagger_reads_what_it_wrote(capsys: pytest.CaptureFixture[str]) -> None:
    silver = [Labelled("Peter Wagner lives in Berlin.", [(0, 12, "PERSON"), (22, 28, "LOCATION")])] * 20

    weights = train_names.train(silver, epochs=3, made=1_500, seed=1)

    losses = [float(line.split("loss ")[1].split(",")[0]) for line in capsys.readouterr().err.splitlines()]
    assert losses[-1] < losses[0]
    (tagged,) = Tagger(weights).tag(["Peter Wagner lives in Berlin."])
    assert tagged.chances.shape == (len(tagged.pieces), CLASSES)
    assert np.allclose(tagged.chances.sum(axis=1), 1, atol=1e-4)
