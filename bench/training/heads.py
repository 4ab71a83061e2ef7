"""How our heads are trained and measured: fit on some sources, judge one that was not among them, then fit on all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack, vstack
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from ...processors.guardrails.heads.features import BUCKETS
from ...processors.guardrails.heads.linear import LinearHead

# How loud each block of features is before the penalty: words and letters of a text are spread over hundreds of buckets.
LOUDNESS: Final = {"vector": 1.5, "marks": 1.3, "table": 6.0}
# Every source weighs the same, however many lines it has, but for what its entry here says.
SOURCE_WEIGHT: Final = 2_000.0

# How much of what comes by is taken to be what a head looks for, when logits are made probabilities.
PRIOR: Final = 0.2

Matrix = Any  # scipy's sparse matrices have no types
Values = NDArray[np.float64]


class Source(NamedTuple):
    """Features and labels of one source, and how much it weighs beside the others."""

    vectors: NDArray[np.float32]
    marks: NDArray[np.float64]
    table: Matrix
    labels: NDArray[np.int64]
    lengths: NDArray[np.int64]
    weight: float = 1.0


def source(
    features: Callable[[Sequence[str]], tuple[Any, Any, Any]], texts: Sequence[str], labels: Sequence[int], weight: float = 1.0
) -> Source:
    """Everything the head sees of `texts`."""
    vectors, marks, buckets = features(texts)
    ends = np.cumsum([0] + [len(each) for each in buckets])
    values = np.concatenate([np.full(len(each), len(each) ** -0.5) for each in buckets if len(each)])
    table = csr_matrix((values, np.concatenate(buckets), ends), shape=(len(texts), BUCKETS))
    return Source(vectors, np.array(marks), table, np.array(labels), np.array([len(text) for text in texts]), weight)


def fit(sources: Sequence[Source], card: Mapping[str, Any], penalty: float = 3.0) -> LinearHead:
    """A head fitted on all of `sources`, not yet calibrated."""
    model = LogisticRegression(C=1 / penalty, max_iter=400)
    weights = np.concatenate([np.full(len(each.labels), each.weight * SOURCE_WEIGHT / len(each.labels)) for each in sources])
    model.fit(
        vstack([_matrix(each) for each in sources]), np.concatenate([each.labels for each in sources]), sample_weight=weights
    )
    found = model.coef_[0]
    ends = np.cumsum([0, sources[0].vectors.shape[1], sources[0].marks.shape[1], BUCKETS])
    parts = [found[start:end] * loud for start, end, loud in zip(ends[:-1], ends[1:], LOUDNESS.values(), strict=True)]
    return LinearHead(
        dict(card), parts[0].astype(np.float32), parts[1], parts[2].astype(np.float32), float(model.intercept_[0]), 1.0, 0.0
    )


def decide(head: LinearHead, of: Source) -> Values:
    """Logits of a source's texts as whole pieces."""
    raw: Values = of.vectors @ head.vector + of.marks @ head.marks + of.table @ head.table + head.bias
    return raw * head.slope + head.shift


def calibrate(decisions: Sequence[Values], labels: Sequence[NDArray[np.int64]], prior: float = PRIOR) -> tuple[float, float]:
    """Slope and shift that turn decisions on unseen sources into log-odds (Platt). Every source weighs the same, and in each
    of them one text in `1 / prior` is what the head looks for."""
    values, truth = np.concatenate(decisions), np.concatenate(labels)
    weights = np.concatenate([_balanced(each, prior) for each in labels])
    model = LogisticRegression(C=1e6).fit(values[:, None], truth, sample_weight=weights)
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def auroc(labels: Sequence[int] | NDArray[np.int64], scores: Sequence[float] | Values) -> float:
    """To three places."""
    return round(float(roc_auc_score(labels, scores)), 3)


def by_length(labels: Sequence[int] | NDArray[np.int64], lengths: Sequence[int] | NDArray[np.int64]) -> float:
    """The AUROC that the length of a text alone gives, whichever way it points."""
    found = auroc(labels, np.asarray(lengths, np.float64))
    return round(max(found, 1 - found), 3)


def share(scores: Sequence[float] | Values, threshold: float) -> float:
    """Of the scores, how many reach the threshold."""
    return round(float((np.asarray(scores) >= threshold).mean()), 4)


def _matrix(of: Source) -> Matrix:
    vector, marks, table = LOUDNESS.values()
    return hstack([csr_matrix(of.vectors * vector), csr_matrix(of.marks * marks), of.table * table]).tocsr()


def _balanced(labels: NDArray[np.int64], prior: float) -> Values:
    counts = np.bincount(labels, minlength=2)
    shares = (1 - prior, prior)
    weights: Values = np.array([shares[label] / max(int(counts[label]), 1) for label in labels])
    return weights
