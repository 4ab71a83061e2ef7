"""A logistic head over an embedding, hashed n-grams and named marks: its weights, their hash, and its card."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from ..ports import Vectors
from .features import BUCKETS, Indices

Logits = NDArray[np.float64]
# Part of every version. Raise it when code that a head rests on changes what it sees: folding, marks, windows.
REVISION: Final = 1


class HeadUnavailable(RuntimeError):
    """The weights of a head are missing, are not what their card says, or are made for something else."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearHead:
    """`logit = vector · v + marks · m + mean of the buckets' weights · √n`, then a slope and a shift that calibrate it."""

    card: Mapping[str, Any]
    vector: NDArray[np.float32]
    marks: NDArray[np.float64]
    table: NDArray[np.float32]
    bias: float
    slope: float
    shift: float

    @classmethod
    def load(cls, weights: Path, names: Sequence[str], encoder: str) -> Self:
        """From `NAME.npz` and the card `NAME.json` beside it. `names` are the marks the caller computes, in order. Raises
        `HeadUnavailable`."""
        try:
            card = json.loads(weights.with_suffix(".json").read_text("utf-8"))
            read = weights.read_bytes()
        except (OSError, ValueError) as error:
            raise HeadUnavailable(f"{weights.name} and its card cannot be read") from error
        if hashlib.sha256(read).hexdigest() != card["sha256"]:
            raise HeadUnavailable(f"{weights.name} is not the file its card describes: its SHA-256 differs")
        if list(card["marks"]) != list(names) or card["encoder"] != encoder:
            raise HeadUnavailable(f"{weights.name} was trained on other features; train it again with bench/training")
        with np.load(io.BytesIO(read), allow_pickle=False) as arrays:
            return cls(
                card,
                arrays["vector"].astype(np.float32),
                arrays["marks"].astype(np.float64),
                arrays["table"].astype(np.float32),
                float(arrays["bias"]),
                float(arrays["slope"]),
                float(arrays["shift"]),
            )

    def save(self, weights: Path) -> str:
        """Write both files; the same head makes the same bytes. Returns the hash of the weights."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            vector=self.vector.astype(np.float16),
            marks=self.marks.astype(np.float32),
            table=self.table.astype(np.float16),
            bias=np.float64(self.bias),
            slope=np.float64(self.slope),
            shift=np.float64(self.shift),
        )
        weights.write_bytes(buffer.getvalue())
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        card = {**self.card, "sha256": digest}
        weights.with_suffix(".json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", "utf-8")
        return digest

    @property
    def version(self) -> str:
        """Changes with the weights and with the code under them."""
        return f"{REVISION}-{self.card['sha256'][:12]}"

    def logits(self, vectors: Vectors, marks: Sequence[Sequence[float]], buckets: Sequence[Indices]) -> Logits:
        """Calibrated logits. Each row is summed by itself, so that a text scores the same in any batch."""
        found = (vectors * self.vector).sum(axis=1, dtype=np.float64) + self.bias
        for row, (mark, indices) in enumerate(zip(marks, buckets, strict=True)):
            found[row] += float((np.asarray(mark, np.float64) * self.marks).sum())
            if len(indices):
                found[row] += float(self.table[indices].sum(dtype=np.float64)) / len(indices) ** 0.5
        calibrated: Logits = found * self.slope + self.shift
        return calibrated


def probabilities(logits: Logits) -> Logits:
    """In 0..1, to four places: what is beyond them differs between machines and means nothing."""
    clipped = np.clip(logits, -30, 30)
    rounded: Logits = np.round(1 / (1 + np.exp(-clipped)), 4)
    return rounded


def empty(names: Sequence[str], dimensions: int) -> LinearHead:
    """A head that knows nothing: every text scores one half."""
    return LinearHead(
        {"marks": list(names)},
        np.zeros(dimensions, np.float32),
        np.zeros(len(names)),
        np.zeros(BUCKETS, np.float32),
        0.0,
        1.0,
        0.0,
    )
