"""Toxicity by Detoxify: its models and its prediction, but loaded our way.

`Detoxify(checkpoint=…)` unpickles, and asks the hub for configuration and tokenizer even then. Here both come from one
folder, with the weights as safetensors; a checkpoint is made such a folder by `tidegate models convert`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..ports import Batch, Finding, Verdict
from .folder import ModelFolder, ModelUnavailable, complete, find, longest, opening
from .windows import Piece, in_batches, pieces, sentences

# As the hub calls Detoxify's own models.
NAMES: Final = {
    "original": ("unitary/toxic-bert",),
    "unbiased": ("unitary/unbiased-toxic-roberta",),
    "multilingual": ("unitary/multilingual-toxic-xlm-roberta",),
}
# Labels of its training sets that mean the same.
SAME: Final = {"toxic": "toxicity", "identity_hate": "identity_attack", "severe_toxic": "severe_toxicity"}
# What is toxic among its labels; `unbiased` also has labels of who is spoken of (male, christian …), which is no fault.
KINDS: Final = {
    "toxicity": "TOXICITY",
    "severe_toxicity": "SEVERE_TOXICITY",
    "obscene": "OBSCENE",
    "threat": "THREAT",
    "insult": "INSULT",
    "identity_attack": "IDENTITY_ATTACK",
    "sexual_explicit": "SEXUAL_EXPLICIT",
}
UNBIASED: Final = ("toxicity", "severe_toxicity", "obscene", "identity_attack", "insult", "threat", "sexual_explicit")
# Who is spoken of: `unbiased` and `multilingual` learned that beside the rest.
IDENTITIES: Final = (
    *("male", "female", "homosexual_gay_or_lesbian", "christian", "jewish", "muslim", "black", "white"),
    "psychiatric_or_mental_illness",
)
# The order in its checkpoints, for a folder whose configuration does not name the labels.
ORDERS: Final = {
    1: ("toxicity",),
    6: ("toxicity", "severe_toxicity", "obscene", "threat", "insult", "identity_attack"),
    7: UNBIASED,
    16: (*UNBIASED, *IDENTITIES),
}
# Where its authors draw the line.
THRESHOLD: Final = 0.5
# It was trained on comments, and a long text dilutes an insult: some 100 tokens at once, which is also the cheapest.
PIECE_CHARS: Final = 400
BATCH: Final = 16


class DetoxifyDetector:
    """Implements `Detector`. A text is as toxic as its most toxic piece."""

    name = "toxicity"

    def __init__(self, model: Any, folder: ModelFolder) -> None:
        self._model = model
        self._folder = folder
        self._label = "toxicity" if "toxicity" in model.class_names else model.class_names[0]
        self.version = folder.version("detoxify")

    @classmethod
    def load(cls, asked: str) -> DetoxifyDetector:
        """`asked`: original, unbiased, multilingual, another name in the hub's cache, or a folder.

        Raises `ModelUnavailable`.
        """
        folder = find(asked, NAMES.get(asked, ()))
        with opening(asked):
            from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

            config = AutoConfig.from_pretrained(folder.path, local_files_only=True, trust_remote_code=False)
            classes = _classes(config, asked)
            tokenizer = AutoTokenizer.from_pretrained(folder.path, local_files_only=True, trust_remote_code=False)
            tokenizer.model_max_length = longest(tokenizer, config)
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                folder.path,
                config=config,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
            complete(loading, asked)
            detector = cls(_predictor(model, tokenizer, classes), folder)
            detector._predict([Piece(0, "a text that shows whether it works at all")])
            return detector

    def describe(self) -> Mapping[str, Any]:
        return self._folder.describe("detoxify")

    def assess(self, batch: Batch) -> list[Verdict]:
        verdicts = [Verdict() for _ in batch.samples]
        judged = [
            (place, where, text)
            for place, sample in enumerate(batch.samples)
            for where, _, text in sample.texts()
            if where != "context"
        ]
        split = [pieces(text, PIECE_CHARS) for _, _, text in judged]
        scores = self._predict([piece for each in split for piece in each])
        start = 0
        for (place, where, _), found in zip(judged, split, strict=True):
            own = scores[start : start + len(found)]
            start += len(found)
            verdict = verdicts[place]
            verdict.scores[where, "toxicity"] = float(max((each[self._label] for each in own), default=0.0))
            for piece, kinds in zip(found, own, strict=True):
                if kinds[self._label] >= THRESHOLD:
                    verdict.findings.extend(
                        Finding(self.name, _kind(fine, self._label), where, span.start, span.end, fine[self._label])
                        for span, fine in self._worst(piece, kinds)
                    )
        return verdicts

    def _worst(self, piece: Piece, kinds: dict[str, float]) -> list[tuple[Piece, dict[str, float]]]:
        """The sentences that make the piece toxic, or the whole of it where none does alone."""
        split = sentences(piece)
        if len(split) > 1:
            judged = zip(split, self._predict(split), strict=True)
            if found := [(span, own) for span, own in judged if own[self._label] >= THRESHOLD]:
                return found
        return [(piece, kinds)]

    def _predict(self, texts: Sequence[Piece]) -> list[dict[str, float]]:
        """Label → 0..1 of each piece."""

        def predict(some: Sequence[Piece]) -> list[dict[str, float]]:
            found: Mapping[str, Any] = self._model.predict([each.text for each in some])
            # Of a single text it gives numbers instead of lists.
            columns: dict[str, NDArray[np.float64]] = {label: np.atleast_1d(np.asarray(own)) for label, own in found.items()}
            return [{label: float(own[row]) for label, own in columns.items()} for row in range(len(some))]

        return in_batches(texts, predict, BATCH)


def _kind(kinds: Mapping[str, float], label: str) -> str:
    """The finest kind that is likely; `toxicity` itself where none is."""
    fine = {name: score for name, score in kinds.items() if name in KINDS and name not in (label, "toxicity")}
    best = max(fine, key=lambda name: fine[name], default=label)
    return KINDS.get(best if fine.get(best, 0.0) >= THRESHOLD else label, "TOXICITY")


def _classes(config: Any, asked: str) -> list[str]:
    """The model's labels, by Detoxify's names. Raises `ModelUnavailable` where they are not its."""
    named = [str(config.id2label[number]).lower().replace(" ", "_") for number in range(config.num_labels)]
    if all(name == f"label_{number}" for number, name in enumerate(named)):
        named = list(ORDERS.get(len(named), ()))
    classes = [SAME.get(name, name) for name in named]
    if not classes or not any(name in KINDS for name in classes):
        raise ModelUnavailable(f"{asked} has none of Detoxify's labels; config.json must name them in id2label")
    if getattr(config, "problem_type", None) == "single_label_classification" and len(classes) > 1:
        raise ModelUnavailable(
            f"{asked} chooses one label of several; Detoxify's models give each label a probability of its own"
        )
    return classes


def _predictor(model: Any, tokenizer: Any, classes: list[str]) -> Any:
    """A `Detoxify` whose parts were loaded elsewhere; its `predict` is used as it is."""
    from detoxify import Detoxify

    class Loaded(Detoxify):  # type: ignore[misc]  # the package has no types
        def __init__(self) -> None:
            self.model = model
            self.tokenizer = tokenizer
            self.class_names = classes
            self.device = "cpu"

    return Loaded()
