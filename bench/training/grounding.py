"""The weights of faithfulness: `python -m bench.training.grounding mts_dialog_val.csv` fits them and writes `weights.yaml`.

Dialogues with an even number train, those with an odd number report. A claim is what is judged, a response what is reported:
AUROC of faithful against altered notes, with the length of the note as a baseline beside it, and by kind of alteration.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from tidegate.processors.guardrails.encoder import OfflineEncoder
from tidegate.processors.guardrails.grounding.checks import FEATURES
from tidegate.processors.guardrails.grounding.claims import claims
from tidegate.processors.guardrails.grounding.detector import WEIGHTS, FaithfulnessDetector, read_claims
from tidegate.processors.guardrails.grounding.source import Source
from tidegate.processors.guardrails.ports import Batch, Sample

from .swaps import Case, cases, read_notes


def features(found: Sequence[Case], batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(claims, features), whether each claim is altered, and the number of its case."""
    rows, altered, owners = [], [], []
    for number, case in enumerate(found):
        source = Source.read("context", [case.context])
        said = claims(case.response)
        for reading in read_claims(batch, said, source, Sample("", None, case.response, (case.context,)), (case.context,)):
            rows.append([reading.features[name] for name in FEATURES])
            claim = reading.claim
            altered.append(not case.faithful and claim.start < case.changed[1] and case.changed[0] < claim.end)
            owners.append(number)
    return np.array(rows), np.array(altered), np.array(owners)


def fit(found: Sequence[Case], batch: Batch) -> dict[str, object]:
    """Weights from the claims of `found`. No feature may speak for a claim: they are all of something wrong."""
    rows, altered, _ = features(found, batch)
    use = list(range(len(FEATURES)))
    while True:
        model = LogisticRegression(C=1.0, class_weight="balanced", max_iter=2_000).fit(rows[:, use], ~altered)
        wrong = [place for place, weight in zip(use, model.coef_[0], strict=True) if weight > 0]
        if not wrong:
            break
        use = [place for place in use if place not in wrong]
    weights = {name: 0.0 for name in FEATURES} | {
        FEATURES[place]: round(float(weight), 3) for place, weight in zip(use, model.coef_[0], strict=True)
    }
    return {"bias": round(float(model.intercept_[0]), 3), "features": weights}


def report(found: Sequence[Case], encoder: OfflineEncoder | None) -> None:
    detector = FaithfulnessDetector.load()
    samples = [Sample(str(place), None, case.response, (case.context,)) for place, case in enumerate(found)]
    verdicts = detector.assess(Batch(samples, encoder))
    scores = np.array([verdict.scores.get(("response", "faithfulness"), 0.5) for verdict in verdicts])
    faithful = np.array([case.faithful for case in found])
    lengths = np.array([-len(case.response) for case in found])
    out = sys.stdout.write
    out(
        f"{len(found)} cases  AUROC {roc_auc_score(faithful, scores):.3f}  by length alone {roc_auc_score(faithful, lengths):.3f}\n"
    )
    for kind in sorted({case.kind for case in found if not case.faithful}):
        chosen = faithful | np.array([case.kind == kind for case in found])
        count = int(chosen.sum() - faithful.sum())
        out(f"  {kind:10} {count:4}  {roc_auc_score(faithful[chosen], scores[chosen]):.3f}\n")
    flagged = np.array([bool(verdict.findings) for verdict in verdicts])
    out(f"  with a finding: {flagged[~faithful].mean():.2f} of altered, {flagged[faithful].mean():.2f} of faithful\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notes", type=Path)
    parser.add_argument("--report", action="store_true", help="fit nothing")
    chosen = parser.parse_args()
    found = cases(read_notes(chosen.notes))
    training, held_out = ([case for case in found if case.group % 2 == odd] for odd in (0, 1))
    encoder = OfflineEncoder.load()
    if not chosen.report:
        head = "# Made by bench.training.grounding from the even dialogues of MTS-Dialog's validation set.\n"
        WEIGHTS.write_text(head + yaml.safe_dump(fit(training, Batch([], encoder)), sort_keys=False), "utf-8")
    for name, each, by in (
        ("train", training, encoder),
        ("held out", held_out, encoder),
        ("held out, no encoder", held_out, None),
    ):
        sys.stdout.write(name + ": ")
        report(each, by)


if __name__ == "__main__":
    main()
