"""`python -m tidegate.bench.training.train_toxicity`: train the toxicity head, print the numbers of its card, write both.

Each of three sources in turn is kept out, the head is fitted on the others and judges it. These numbers are the card's; the
decisions on kept-out sources also calibrate. The weights that ship are then fitted on everything.
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
from ...processors.guardrails.heads.marks import MARKS
from ...processors.guardrails.heads.toxicity import WEIGHTS, ToxicityDetector, features
from ...processors.guardrails.ports import Batch, Sample
from ...processors.guardrails.windows import windows
from . import sources, toxic_lines
from .heads import auroc, by_length, calibrate, decide, fit, share, source

THRESHOLD: Final = 0.4
FILES: Final = [
    "davidson_labeled_data.csv",
    "wiki_toxicity_nonfuzzed_testset.csv",
    "wiki_bias_madlibs_77k.csv",
    "mts_dialog_val.csv",
    "real_calls.jsonl",
]


def main() -> None:
    """Train, and write weights and card."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    head = trained()
    print(json.dumps(head.card["numbers"], indent=2))
    print("sha256", head.save(WEIGHTS), WEIGHTS.stat().st_size, "bytes")


def trained() -> LinearHead:
    """The head that ships, with its numbers in its card. The same data gives the same numbers."""
    encoder = OfflineEncoder.load()
    nothing = Batch([], encoder)

    def seen(texts: Sequence[str]) -> Any:
        return features(nothing, encoder, texts)

    judged = {"davidson": sources.davidson().sample(8_000), "wiki": sources.wiki(), "madlibs": sources.madlibs().sample(4_000)}
    notes, calls = sources.clinical(), [text for prompt, response, _ in sources.calls() for text in (prompt, response)]
    # Even places are trained on, odd ones measured: a dialogue and its note stand together.
    note_lots = [[text for place, text in enumerate(notes) if place // 2 % 2 == lot] for lot in (0, 1)]
    call_lots = [calls[lot::6] for lot in (0, 2)]
    own, own_labels = toxic_lines.own()
    spare = toxic_lines.clinical("train") + toxic_lines.identity("train")

    def cut(texts: Sequence[str]) -> list[str]:
        """The windows of harmless texts: harmless, every one."""
        return [text[start:end] for text in texts for start, end in windows(text)]

    entries = {name: source(seen, each.texts, each.labels) for name, each in judged.items()}
    always = [
        source(seen, own, own_labels, weight=0.5),
        source(seen, *toxic_lines.discussion(), weight=0.5),
        source(seen, *toxic_lines.posts(), weight=0.5),
        source(seen, spare, [0] * len(spare), weight=1.0),
        source(seen, cut(note_lots[0]), [0] * len(cut(note_lots[0]))),
        source(seen, cut(call_lots[0]), [0] * len(cut(call_lots[0]))),
    ]
    harmless = {
        "clinical_notes": note_lots[1],
        "clinical_lines": toxic_lines.clinical("test"),
        "identity_lines": toxic_lines.identity("test"),
        "real_calls": call_lots[1],
    }

    card: dict[str, Any] = {
        "name": "toxicity",
        "encoder": encoder.name,
        "marks": list(MARKS),
        "threshold": THRESHOLD,
        "licence": "ours (weights); trained on MIT, Apache-2.0, CC BY-SA and CC BY data, of which none is contained",
        "trained_on": {"files": sources.hashes(FILES), "own": "bench/training/toxic_lines.yaml"},
        "method": "Unseen source: fitted on the other two and on our own lines, some of which are in the manner of discussion "
        "pages and of short posts. Lexicon, own lines and weights were chosen among some forty variants by these same three "
        "figures, so that they flatter a little.",
        "limits": "English; other languages by a short list of words only. Tweets and comments, not essays. Sarcasm, allusion "
        "and new slang are missed. A score is of the words, not of their truth. Types of findings are told by rule.",
    }
    kept_out = {name: fit([entries[other] for other in entries if other != name] + always, card) for name in entries}
    decisions = {name: decide(kept_out[name], entries[name]) for name in entries}
    slope, shift = calibrate(list(decisions.values()), [entries[name].labels for name in entries])
    numbers: dict[str, Any] = {"unseen_source": {}, "false_alarms": {}}
    for name, head in kept_out.items():
        head = dataclasses.replace(head, slope=slope, shift=shift)
        scores = _scores(head, encoder, judged[name].texts)
        labels = entries[name].labels
        numbers["unseen_source"][name] = {
            "texts": len(labels),
            "toxic": int(labels.sum()),
            "auroc": auroc(labels, scores),
            "auroc_by_length": by_length(labels, entries[name].lengths),
            "recall": share(np.array(scores)[labels == 1], THRESHOLD),
            "false_alarms": share(np.array(scores)[labels == 0], THRESHOLD),
        }
        numbers["false_alarms"][f"without_{name}"] = {
            lot: share(_scores(head, encoder, texts), THRESHOLD) for lot, texts in harmless.items()
        }
    final = dataclasses.replace(fit([*entries.values(), *always], card), slope=slope, shift=shift)
    numbers["false_alarms"]["shipped"] = {
        lot: share(_scores(final, encoder, texts), THRESHOLD) for lot, texts in harmless.items()
    }
    return dataclasses.replace(final, card={**card, "numbers": numbers})


def _scores(head: LinearHead, encoder: OfflineEncoder, texts: Sequence[str]) -> list[float]:
    """As the detector gives them, windows and all."""
    head = dataclasses.replace(head, card={**head.card, "sha256": "0" * 64})
    detector = ToxicityDetector(head, encoder)
    found: list[float] = []
    for start in range(0, len(texts), 256):
        samples = [Sample(str(place), prompt=text) for place, text in enumerate(texts[start : start + 256])]
        found.extend(verdict.scores["prompt", "toxicity"] for verdict in detector.assess(Batch(samples, encoder)))
    return found


if __name__ == "__main__":
    main()
