"""How well a score tells two kinds of text apart, and what plain length would have told.

Beside every area under a curve stands that of the text's length: where the two are close, the score has learned to count
characters. Intervals are bootstrapped over samples, with a seed, so that the same file gives the same figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

BINS: Final = 10
RESAMPLES: Final = 300
SEED: Final = 20_261_122
# The shares of false alarms at which recall is asked for: what a team bears on prompts, and on everything.
FALSE_ALARMS: Final = (0.02, 0.05)


@dataclass(frozen=True, slots=True)
class ScoreReport:
    """`auroc` and its interval are None where only one kind is there. `alarmed` figures are at the detector's own line:
    a finding is an alarm. `recall_at`: the share of false alarms → recall at the threshold that allows it."""

    samples: int
    positives: int
    auroc: float | None
    auroc_low: float | None
    auroc_high: float | None
    length_auroc: float | None
    average_precision: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    false_alarms: float | None
    recall_at: dict[str, float]
    best_f1: float | None
    best_threshold: float | None
    calibration_error: float | None
    brier: float | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(labels: Sequence[bool], scores: Sequence[float], alarmed: Sequence[bool], lengths: Sequence[int]) -> ScoreReport:
    """One label, score, alarm and length in characters a sample; a higher score speaks for the label."""
    truth = np.asarray(labels, bool)
    said = np.asarray(scores, np.float64)
    alarms = np.asarray(alarmed, bool)
    both = bool(truth.any() and not truth.all())
    low, high = _interval(truth, said) if both else (None, None)
    best_f1, best_threshold = _best(truth, said) if both else (None, None)
    right = int((alarms & truth).sum())
    return ScoreReport(
        samples=len(truth),
        positives=int(truth.sum()),
        auroc=float(roc_auc_score(truth, said)) if both else None,
        auroc_low=low,
        auroc_high=high,
        length_auroc=length_auroc(truth, np.asarray(lengths, np.float64)) if both else None,
        average_precision=float(average_precision_score(truth, said)) if both else None,
        precision=_share(right, int(alarms.sum())),
        recall=_share(right, int(truth.sum())),
        f1=_share(2 * right, int(alarms.sum() + truth.sum())),
        false_alarms=_share(int((alarms & ~truth).sum()), int((~truth).sum())),
        recall_at={f"{share:g}": recall_at(truth, said, share) for share in FALSE_ALARMS} if both else {},
        best_f1=best_f1,
        best_threshold=best_threshold,
        calibration_error=calibration_error(truth, said) if len(truth) else None,
        brier=float(np.mean((said - truth) ** 2)) if len(truth) else None,
    )


def length_auroc(truth: Flags, lengths: Floats) -> float:
    """What length alone tells, whichever way round it tells it."""
    area = float(roc_auc_score(truth, lengths))
    return max(area, 1.0 - area)


def recall_at(truth: Flags, scores: Floats, false_alarms: float) -> float:
    """The most that can be found while at most that share of the others alarms."""
    wrong, right, _ = roc_curve(truth, scores, drop_intermediate=False)
    return float(right[wrong <= false_alarms].max(initial=0.0))


def calibration_error(truth: Flags, scores: Floats, bins: int = BINS) -> float:
    """Expected calibration error over bins of equal counts: how far, on average, a score is from the share it stands for."""
    return float(sum(abs(said - true) * count for said, true, count in calibration(truth, scores, bins)) / len(truth))


def calibration(truth: Flags, scores: Floats, bins: int = BINS) -> list[tuple[float, float, int]]:
    """(mean score, share of positives, count) of each bin, from the lowest scores to the highest."""
    order = np.argsort(scores, kind="stable")
    return [
        (float(scores[part].mean()), float(truth[part].mean()), len(part))
        for part in np.array_split(order, min(bins, len(order)))
        if len(part)
    ]


def _best(truth: Flags, scores: Floats) -> tuple[float, float]:
    precision, recall, thresholds = precision_recall_curve(truth, scores)
    f1 = 2 * precision[:-1] * recall[:-1] / np.maximum(precision[:-1] + recall[:-1], 1e-12)
    at = int(f1.argmax())
    return float(f1[at]), float(thresholds[at])


def _interval(truth: Flags, scores: Floats) -> tuple[float, float]:
    """95 % of the areas of samples drawn again from these, each kind from its own."""
    random = np.random.default_rng(SEED)
    kinds = [np.flatnonzero(truth), np.flatnonzero(~truth)]
    areas = []
    for _ in range(RESAMPLES):
        drawn = np.concatenate([random.choice(kind, len(kind)) for kind in kinds])
        areas.append(roc_auc_score(truth[drawn], scores[drawn]))
    low, high = np.quantile(areas, (0.025, 0.975))
    return float(low), float(high)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
