"""The weights of faithfulness: `python -m bench.training.grounding mts_dialog_val.csv` fits them and writes `weights.yaml`.

Dialogues with an even number train, those with an odd number report. A claim is what is judged, a response what is reported:
AUROC of faithful against altered notes, with the length of the note as a baseline beside it, and by kind of alteration.
The lexicon grew beside the even dialogues and knows their words better than it will know others'; so training sees each claim
twice more, with half of the lexicon's words withheld at random, lest absence weigh more than it will deserve.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import yaml
from scipy.optimize import minimize
from sklearn.metrics import roc_auc_score
from tidegate.processors.guardrails.encoder import OfflineEncoder
from tidegate.processors.guardrails.grounding import checks, detector, source
from tidegate.processors.guardrails.grounding import claims as claims_module
from tidegate.processors.guardrails.grounding.claims import claims
from tidegate.processors.guardrails.grounding.detector import WEIGHTS, FaithfulnessDetector, read_claims
from tidegate.processors.guardrails.grounding.doubts import FEATURES
from tidegate.processors.guardrails.grounding.lexicon import FILE, read_lexicon
from tidegate.processors.guardrails.grounding.source import Source
from tidegate.processors.guardrails.ports import Batch, Sample

from .swaps import Case, cases, read_notes, read_summaries

# A random word in place of another says next to nothing of what goes wrong in answers; it is reported, not trained on.
NOISY = ("word",)


def features(found: Sequence[Case], batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(claims, features), whether each claim is altered, and the number of its case. Each claim once."""
    rows, altered, owners = [], [], []
    seen = set()
    for number, case in enumerate(found):
        read = Source.read("context", [case.context])
        said = claims(case.response)
        for reading in read_claims(batch, said, read, Sample("", None, case.response, (case.context,)), (case.context,)):
            claim = reading.claim
            wrong = not case.faithful and claim.start < case.changed[1] and case.changed[0] < claim.end
            once = (case.group, case.response[claim.start : claim.end], wrong)
            if once in seen:
                continue
            seen.add(once)
            rows.append([reading.features[name] for name in FEATURES])
            altered.append(wrong)
            owners.append(number)
    return np.array(rows), np.array(altered), np.array(owners)


# What is believed of each feature before any data: a hundred notes cannot tell how bad a wrong relative is. In logits.
PRIOR = {
    "absent_part": -2.5, "absent_terms": -1.2, "absent_named": -4.0, "absent_proper": -1.5, "absent_alone": -1.0,
    "absent_word": -1.0, "absent_swapped": -1.5, "scattered": -0.2, "new_pairs": -0.7, "number_absent": -3.5,
    "number_differs": -8.0, "number_elsewhere": -0.5, "negation": -2.5, "negation_named": -1.0, "negation_near": -1.0,
    "side": -2.5, "opposite": -3.0, "sex": -3.0, "relative": -2.5, "far": -0.8,
}  # fmt: skip
# What is told in a conversation a note puts in words of its own, and the dialogues teach how little that means. A text is not
# paraphrased as far: where the source is one, what is absent from it counts for what it was believed to before any data.
WRITTEN = {"absent_part": -2.5, "absent_terms": -1.2, "absent_named": -4.0, "absent_proper": -4.0, "number_absent": -3.5}
PRIOR_BIAS = 3.3
# Draws of dialogues for an interval; also the seed of them.
RESAMPLED = 500
# How much the prior weighs, in claims: weights move away from it only for what many claims say.
PRIOR_CLAIMS = 100.0
# The part of the lexicon's words that the second and third reading go without.
WITHHELD = 0.5
WITHHELD_SEEDS = (1, 2)


@contextmanager
def withheld(seed: int) -> Iterator[None]:
    """While it lasts, grounding knows a lexicon without a part of its words."""
    rng = random.Random(seed)
    lines = []
    for line in FILE.read_text("utf-8").splitlines():
        kept = [name for name in line.split(",") if rng.random() >= WITHHELD]
        lines.append(line if line.startswith(("[", "#")) else ",".join(kept))
    thinned = read_lexicon(lines)
    with ExitStack() as patched:
        for module in (checks, claims_module, detector, source):
            patched.enter_context(patch.object(module, "lexicon", lambda: thinned))
        yield


def fit(found: Sequence[Case], batch: Batch) -> dict[str, object]:
    """Weights from the claims of `found`: logistic, around the prior. No feature may speak for a claim, for each is of
    something wrong."""
    chosen = [case for case in found if case.kind not in NOISY]
    seen = [features(chosen, batch)[:2]]
    for seed in WITHHELD_SEEDS:
        with withheld(seed):
            seen.append(features(chosen, batch)[:2])
    rows, altered = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    share = np.where(altered, 0.5 / altered.mean(), 0.5 / (~altered).mean())
    prior = np.array([PRIOR[name] for name in FEATURES] + [PRIOR_BIAS])
    design = np.hstack([rows, np.ones((len(rows), 1))])

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = np.where(altered, -1, 1) * (design @ weights)
        slope = -np.where(altered, -1, 1) * share / (1 + np.exp(logits))
        away = (weights - prior) / np.maximum(np.abs(prior), 0.5)
        cost = float(share @ np.logaddexp(0, -logits)) + PRIOR_CLAIMS / 2 * float(away @ away)
        return cost, design.T @ slope + PRIOR_CLAIMS * away / np.maximum(np.abs(prior), 0.5)

    bounds = [(None, 0.0)] * len(FEATURES) + [(None, None)]
    weights = minimize(loss, prior, jac=True, bounds=bounds).x
    named = {name: round(float(weight), 3) for name, weight in zip(FEATURES, weights, strict=False)}
    return {"bias": round(float(weights[-1]), 3), "features": named, "written": dict(WRITTEN)}


def report(found: Sequence[Case], encoder: OfflineEncoder | None) -> None:
    faithfulness = FaithfulnessDetector.load()
    samples = [Sample(str(place), None, case.response, (case.context,)) for place, case in enumerate(found)]
    verdicts = faithfulness.assess(Batch(samples, encoder))
    scores = np.array([verdict.scores.get(("response", "faithfulness"), 0.5) for verdict in verdicts])
    faithful = np.array([case.faithful for case in found])
    lengths = np.array([-len(case.response) for case in found])
    out = sys.stdout.write
    out(
        f"{len(found)} cases  AUROC {roc_auc_score(faithful, scores):.3f}  "
        f"by length alone {roc_auc_score(faithful, lengths):.3f}\n"
    )
    for kind in sorted({case.kind for case in found if not case.faithful}):
        chosen = faithful | np.array([case.kind == kind for case in found])
        count = int(chosen.sum() - faithful.sum())
        out(f"  {kind:10} {count:4}  {roc_auc_score(faithful[chosen], scores[chosen]):.3f}\n")
    plain = faithful | ~np.isin([case.kind for case in found], NOISY)
    low, high = interval(np.array([case.group for case in found])[plain], faithful[plain], scores[plain])
    out(
        f"  without {', '.join(NOISY)}: AUROC {roc_auc_score(faithful[plain], scores[plain]):.3f} "
        f"(95 % by dialogue {low:.3f} to {high:.3f})\n"
    )
    written = {case.group: score for case, score in zip(found, scores, strict=True) if case.kind == "as written"}
    below = [score < written[case.group] - 1e-6 for case, score in zip(found, scores, strict=True) if not case.faithful]
    out(f"  altered notes that score below the same note as written: {np.mean(below):.2f}\n")
    flagged = np.array([bool(verdict.findings) for verdict in verdicts])
    out(f"  with a finding: {flagged[~faithful].mean():.2f} of altered, {flagged[faithful].mean():.2f} of faithful\n")


def interval(groups: np.ndarray, faithful: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Between what bounds AUROC lies in 95 of 100 draws of as many dialogues, with replacement."""
    rng = np.random.default_rng(RESAMPLED)
    places = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    drawn = []
    for _ in range(RESAMPLED):
        chosen = np.concatenate([places[number] for number in rng.integers(len(places), size=len(places))])
        drawn.append(roc_auc_score(faithful[chosen], scores[chosen]))
    low, high = np.percentile(drawn, (2.5, 97.5))
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notes", type=Path)
    parser.add_argument("--calls", type=Path, help="real_calls.jsonl, whose summaries of these dialogues are reported, too")
    parser.add_argument("--report", action="store_true", help="fit nothing")
    chosen = parser.parse_args()
    notes = read_notes(chosen.notes)
    found = cases(notes)
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
    if chosen.calls:
        # A model's own mistakes stand in them as faithful.
        summaries = [case for each in read_summaries(chosen.calls, notes) for case in cases(each) if case.group % 2]
        sys.stdout.write("held out, models' summaries: ")
        report(summaries, encoder)


if __name__ == "__main__":
    main()
