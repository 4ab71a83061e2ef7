"""The shared embedding by any sentence-transformers bi-encoder, in place of the offline one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from ..ports import Vectors
from .folder import ModelFolder, ModelUnavailable, find, known_weights, opened, opening
from .windows import pieces

# A bi-encoder cuts off what is beyond its window, 256 tokens for most; pieces of a long text are averaged instead.
PIECE_CHARS: Final = 900
BATCH: Final = 32


class SentenceEncoder:
    """Implements `Encoder`."""

    def __init__(self, model: Any, folder: ModelFolder, dimensions: int) -> None:
        self._model = model
        self._folder = folder
        self.name = folder.version("sentence-transformers")
        self.dimensions = dimensions

    @classmethod
    def load(cls, asked: str) -> SentenceEncoder:
        """`asked`: a folder, or a name in the hub's cache, such as sentence-transformers/all-MiniLM-L6-v2.

        Raises `ModelUnavailable`.
        """
        folder = find(asked, (asked, f"sentence-transformers/{asked}"))
        with opening(asked):
            from sentence_transformers import SentenceTransformer

            model = opened(SentenceTransformer, folder)
            known_weights(model, folder)
            dimensions = model.get_embedding_dimension()
            if not dimensions:
                raise ModelUnavailable(f"{asked} gives no embedding of one size")
            encoder = cls(model, folder, int(dimensions))
            encoder.encode(["a text that shows whether it works at all"])
            return encoder

    def describe(self) -> Mapping[str, Any]:
        return {**self._folder.describe("sentence-transformers"), "dimensions": self.dimensions}

    def encode(self, texts: Sequence[str]) -> Vectors:
        """(len(texts), dimensions) float32, rows of length 1. A long text is the mean of its pieces; an empty one is the first
        axis."""
        split = [pieces(text, PIECE_CHARS) for text in texts]
        sums = np.zeros((len(texts), self.dimensions), np.float64)
        if flat := [piece.text for each in split for piece in each]:
            # Pieces of about one length come together: the library sorts them itself.
            vectors = self._model.encode(flat, batch_size=BATCH, show_progress_bar=False, normalize_embeddings=True)
            owners = np.repeat(np.arange(len(texts)), [len(each) for each in split])
            np.add.at(sums, owners, np.asarray(vectors, np.float64))
        lengths = np.linalg.norm(sums, axis=1)
        nothing = ~np.isfinite(lengths) | (lengths < 1e-9)
        sums[nothing] = np.eye(1, self.dimensions)
        lengths[nothing] = 1.0
        unit: Vectors = (sums / lengths[:, None]).astype(np.float32)
        return unit
