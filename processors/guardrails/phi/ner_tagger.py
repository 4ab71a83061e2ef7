"""A small network that says of every word whether it is part of a name: NumPy alone, a batch of texts in one pass.

    pieces ─► a row each (kept: words repeat) ─► 4 × [ x + relu(left·A + x·B + right·C + b) ] ─► softmax over classes

What a piece looks like depends on the piece alone (`ner_words`), so its row is computed once and kept. Texts stand in one
sequence with an empty row between them that every layer puts back to zero: nothing passes from text to text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .ner_words import Words, pieces

Floats = NDArray[np.float32]

TYPES: Final = ("PERSON", "LOCATION", "ORGANIZATION", "NRP")
# Class 0 is no name; then for each type its beginning and its going on.
CLASSES: Final = 1 + 2 * len(TYPES)
LAYERS: Final = 4
# Rows kept, 12 MB and what one pass adds; past that the table is begun anew.
_MOST_ROWS: Final = 32_768
# Pieces in one pass: what the layers write stays in the processor's cache.
_PASS: Final = 512


class Tagged(NamedTuple):
    """`pieces` of a text, and of each the chances of its classes, (pieces, CLASSES)."""

    pieces: list[str]
    chances: Floats


class Tagger:
    """The network, with its weights: `known`, `rows`, `word`, `word_bias`, `layer0` … , `bias0` …, `out`, `out_bias`."""

    def __init__(self, weights: Mapping[str, NDArray[np.generic]]) -> None:
        self._words = Words(np.asarray(weights["known"], np.uint32))
        self._rows = _floats(weights["rows"])
        self._word, self._word_bias = _floats(weights["word"]), _floats(weights["word_bias"])
        self._layers = [(_floats(weights[f"layer{n}"]), _floats(weights[f"bias{n}"])) for n in range(LAYERS)]
        self._out, self._out_bias = _floats(weights["out"]), _floats(weights["out_bias"])
        self._width = self._word.shape[1]
        # Piece → its row; row 0 is the empty one between texts.
        self._places: dict[str, int] = {}
        self._kept = np.zeros((1_024, self._width), np.float32)

    def tag(self, texts: Sequence[str]) -> list[Tagged]:
        """The chances of every piece of every text."""
        cut = [pieces(text) for text in texts]
        found: list[Tagged] = []
        begun, length = 0, 0
        for number, parts in enumerate(cut):
            if length and length + len(parts) > _PASS:
                found += self._pass(cut[begun:number])
                begun, length = number, 0
            length += len(parts) + 1
        return found + self._pass(cut[begun:])

    def _pass(self, cut: Sequence[list[str]]) -> list[Tagged]:
        if len(self._places) >= _MOST_ROWS:
            self._forget()
        rows = [0]
        for parts in cut:
            rows += self._look_up(parts)
            rows.append(0)
        places = np.array(rows, np.intp)
        x = self._kept[places]
        between = np.flatnonzero(places == 0)
        width = self._width
        for weights, bias in self._layers:
            z = x @ weights
            y = z[:, width : 2 * width]
            y[1:] += z[:-1, :width]
            y[:-1] += z[1:, 2 * width :]
            y += bias
            np.maximum(y, 0, out=y)
            x += y
            x[between] = 0
        chances = _softmax(x @ self._out + self._out_bias)
        found, at = [], 1
        for parts in cut:
            found.append(Tagged(parts, chances[at : at + len(parts)]))
            at += len(parts) + 1
        return found

    def _look_up(self, parts: list[str]) -> list[int]:
        places = self._places
        try:
            return [places[part] for part in parts]
        except KeyError:
            pass
        for part in parts:
            if part not in places:
                self._learn(part)
        return [places[part] for part in parts]

    def _learn(self, part: str) -> None:
        rows, weights = self._words.features(part)
        sum_of = np.asarray(weights, np.float32) @ self._rows[rows]
        place = len(self._places) + 1
        if place >= len(self._kept):
            self._kept = np.concatenate([self._kept, np.zeros_like(self._kept)])
        self._kept[place] = np.maximum(sum_of @ self._word + self._word_bias, 0)
        self._places[part] = place

    def _forget(self) -> None:
        self._places.clear()
        self._kept = np.zeros((1_024, self._width), np.float32)


def _floats(array: NDArray[np.generic]) -> Floats:
    return np.ascontiguousarray(array, dtype=np.float32)


def _softmax(logits: Floats) -> Floats:
    chances: Floats = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    return chances
