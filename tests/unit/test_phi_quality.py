"""Floors of the PHI detector as it is shipped, by the same measure as `python -m bench.training.phi_eval`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.training import phi_eval, phi_sentences

DEV = Path(os.environ.get("TIDEGATE_DEV_DATA") or Path(__file__).parents[2].parent / "shared" / "data" / "dev")


@pytest.fixture(scope="module")
def find() -> phi_eval.Find:
    return phi_eval.ours()


def needs(name: str) -> Path:
    if not (DEV / name).is_file():
        pytest.skip(f"{name} is absent; name its folder in TIDEGATE_DEV_DATA")
    return DEV / name


def test_identifiers_and_names_of_held_out_templates_are_found(find: phi_eval.Find) -> None:
    sentences = phi_sentences.sentences(phi_sentences.HELD_OUT, 520, seed=21)

    tally = phi_eval.tally(sentences, find([sentence.text for sentence in sentences]))

    structured = [kind for kind in tally.gold if kind in phi_sentences.STRUCTURED]
    everything = tally.rows()[-1]
    assert sum(tally.typed[kind] for kind in structured) >= 0.98 * sum(tally.gold[kind] for kind in structured)
    assert everything[4] >= 0.93  # typed F1
    assert everything[5] >= 0.98  # any type


def test_clinical_sentences_without_phi_are_let_stand(find: phi_eval.Find) -> None:
    texts = phi_sentences.clinical_negatives(400, seed=22)

    flagged = sum(bool(spans) for spans in find(texts))

    assert flagged <= 0.05 * len(texts)


def test_templates_of_another_hand_are_read_as_well(find: phi_eval.Find) -> None:
    templates = list(phi_sentences.presidio_templates(needs("presidio_templates.txt")))
    sentences = phi_sentences.sentences(templates, 600, seed=23)

    tally = phi_eval.tally(sentences, find([sentence.text for sentence in sentences]))

    everything = tally.rows()[-1]
    assert everything[4] >= 0.85
    assert everything[5] >= 0.95


def test_clinical_notes_without_phi_are_let_stand(find: phi_eval.Find) -> None:
    texts = phi_eval.mts(needs("mts_dialog_val.csv"))

    found = find(texts)

    flagged = sum(bool(spans) for spans in found)
    assert flagged <= 0.05 * len(texts)
