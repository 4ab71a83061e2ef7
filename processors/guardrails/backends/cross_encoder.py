"""Does the evidence bear the claim out? Asked of a cross-encoder, by sentence-transformers: an NLI model of three labels, or
one that gives a single score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from ..grounding.judge import Judgement
from .folder import ModelFolder, ModelUnavailable, find, head_weights, opened, opening

LABELS: Final = ("entail", "neutral", "contradict")
BATCH: Final = 32


class CrossEncoderJudge:
    """Implements `Judge`. A single score is taken for how likely the claim follows; the rest is neutral, since such a model
    does not tell silence from contradiction."""

    name = "cross-encoder"

    def __init__(self, model: Any, folder: ModelFolder, columns: tuple[int, ...]) -> None:
        self._model = model
        self._folder = folder
        self._columns = columns
        self.version = folder.version("cross-encoder")

    @classmethod
    def load(cls, asked: str) -> CrossEncoderJudge:
        """`asked`: a folder, or a name in the hub's cache, such as cross-encoder/nli-deberta-v3-small.

        Raises `ModelUnavailable`.
        """
        folder = find(asked, (asked, f"cross-encoder/{asked}"))
        with opening(asked):
            from sentence_transformers import CrossEncoder

            model = opened(CrossEncoder, folder)
            head_weights(model, folder)
            judge = cls(model, folder, _columns(model, asked))
            judge.score([("a text that shows", "whether it works at all")])
            return judge

    def describe(self) -> Mapping[str, Any]:
        return self._folder.describe("cross-encoder")

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Judgement]:
        """One judgement for each (premise, hypothesis), in order."""
        if not pairs:
            return []
        one = not self._columns
        found = self._model.predict(list(pairs), batch_size=BATCH, show_progress_bar=False, apply_softmax=not one)
        scores = np.asarray(found, np.float64).reshape(len(pairs), -1)
        if one:
            follows = np.clip(scores[:, 0], 0.0, 1.0)
            return [Judgement(float(each), 1.0 - float(each), 0.0) for each in follows]
        return [Judgement(*map(float, row)) for row in scores[:, list(self._columns)]]


def _columns(model: Any, asked: str) -> tuple[int, ...]:
    """Where the three labels stand in what the model says; none for a single score. Raises `ModelUnavailable`."""
    config = model.config
    if config.num_labels == 1:
        return ()
    named = {int(number): str(label).lower() for number, label in config.id2label.items()}
    columns = [[number for number, label in named.items() if label.startswith(start)] for start in LABELS]
    if config.num_labels != len(LABELS) or any(len(found) != 1 for found in columns):
        raise ModelUnavailable(f"{asked} says neither entailment, neutral, contradiction nor a single score: see id2label")
    return tuple(found[0] for found in columns)
