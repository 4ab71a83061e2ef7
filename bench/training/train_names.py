"""`python -m bench.training.train_names FOLDER`: train the name tagger and write its weights.

Real texts with silver labels and swapped names, and made sentences (see `names_silver`, `names_corpus`); words seldom seen,
and lists that may not know a name, are dropped at random, so that what stands around a name counts for as much as the name.
Plain NumPy and SciPy: what the tagger computes, its gradient, Adam. About a quarter of an hour on one core; the same seed gives
the same weights on the same machine.

The shipped weights are of two runs: twelve epochs on a corpus whose five-digit forms were lost, then three more from there
(`--begin`, `--seed 7`) on the corpus as it is. One run on the corpus as it is gives other weights of the same kind. Sentences
were added with an eye on the mistakes made in `presidio_templates.txt`: what is measured on those flatters.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final
from zlib import crc32

import numpy as np
import typer
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from tidegate.processors.guardrails.phi.ner import WEIGHTS
from tidegate.processors.guardrails.phi.ner_tagger import CLASSES, LAYERS, TYPES
from tidegate.processors.guardrails.phi.ner_words import Words, pieces, read_lists

from .names_corpus import Maker, corpus
from .names_silver import Labelled, label, texts, unsure

_EMBEDDED, _WIDTH = 64, 96
_WORDS: Final = 8_000
_BATCH: Final = 6_000  # pieces
_DROPPED: Final = 0.15
_RATE, _RATE_AGAIN = 0.003, 0.0012
# A list that knows every name would teach the tagger to trust it.
_LISTS_FORGET, _WORDS_FORGET = 0.45, 0.15
_MASK: Final = -1
# Flags of the lists that a name may be missing from.
_LIST_FLAGS: Final = 5

Floats = NDArray[np.float32]
Arrays = dict[str, Floats]


class Encoded:
    """Texts as places in a table of pieces, with the class of every piece; 0 stands between texts."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self.table: dict[str, int] = {"": 0}
        self._features: list[tuple[list[int], list[float]]] = [([], [])]

    def encode(self, made: Labelled) -> tuple[list[int], list[int]]:
        parts = pieces(made.text)
        places = []
        for part in parts:
            place = self.table.get(part)
            if place is None:
                place = self.table[part] = len(self._features)
                self._features.append(self._words.features(part))
            places.append(place)
        return [*places, 0], [*classes(parts, made.spans), _MASK]

    def features(self, unique: NDArray[np.intp], chance: np.random.Generator) -> csr_matrix:
        """The rows of so many pieces, some of their words and lists forgotten."""
        columns: list[int] = []
        values: list[float] = []
        ends = [0]
        flags, unknown = self._words.flags_begin, self._words.unknown
        word_gone, list_gone = chance.random(len(unique)) < _WORDS_FORGET, chance.random(len(unique)) < _LISTS_FORGET
        for number, place in enumerate(unique):
            rows, weights = self._features[place]
            if rows:
                first = unknown if word_gone[number] else rows[0]
                if list_gone[number]:
                    kept = [(r, w) for r, w in zip(rows, weights, strict=True) if not flags <= r < flags + _LIST_FLAGS]
                    rows, weights = [r for r, _ in kept], [w for _, w in kept]
                columns.append(first)
                columns += rows[1:]
                values += weights
            ends.append(len(columns))
        return csr_matrix((np.array(values, np.float32), columns, ends), shape=(len(unique), self._words.rows))


def classes(parts: Sequence[str], spans: Sequence[tuple[int, int, str]]) -> list[int]:
    """The class of every piece: 0, a type's beginning, its going on, or -1 where nobody knows."""
    found: list[int] = []
    remaining = sorted(spans)
    at = number = 0
    begun = -1
    for part in parts:
        end = at + len(part)
        start = end - len(part.lstrip())
        while number < len(remaining) and remaining[number][1] <= start:
            number += 1
        kind = 0
        if number < len(remaining) and remaining[number][0] < end and start < remaining[number][1] and start < end:
            name = remaining[number][2]
            kind = _MASK if name == "MASK" else 1 + 2 * TYPES.index(name) + (begun == number)
            begun = number
        elif start == end and number < len(remaining) and begun == number and end < remaining[number][1]:
            kind = found[-1] if found[-1] <= 0 else found[-1] + found[-1] % 2  # a line break inside an address
        found.append(kind)
        at = end
    return found


class Network:
    """The tagger's network, with its gradient and Adam."""

    def __init__(self, rows: int, seed: int) -> None:
        chance = np.random.default_rng(seed)

        def start(shape: tuple[int, ...], of: int) -> Floats:
            return np.asarray(chance.standard_normal(shape) * (2 / of) ** 0.5, np.float32)

        self.weights: Arrays = {
            "rows": (chance.standard_normal((rows, _EMBEDDED)) * 0.3).astype(np.float32),
            "word": start((_EMBEDDED, _WIDTH), _EMBEDDED),
            "word_bias": np.zeros(_WIDTH, np.float32),
            "out": start((_WIDTH, CLASSES), _WIDTH),
            "out_bias": np.zeros(CLASSES, np.float32),
        }
        for n in range(LAYERS):
            self.weights[f"layer{n}"] = start((_WIDTH, 3 * _WIDTH), 3 * _WIDTH) * np.float32(0.5)
            self.weights[f"bias{n}"] = np.zeros(_WIDTH, np.float32)
        self._first = {name: np.zeros_like(value) for name, value in self.weights.items()}
        self._second = {name: np.zeros_like(value) for name, value in self.weights.items()}
        self.average = {name: value.copy() for name, value in self.weights.items()}
        self._step = 0
        self._chance = chance

    def begin(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Take these weights for its own."""
        for name in self.weights:
            self.weights[name] = np.array(weights[name], np.float32)
            self.average[name] = self.weights[name].copy()

    def learn(self, features: csr_matrix, places: NDArray[np.intp], wanted: NDArray[np.intp], rate: float) -> float:
        """One step on one batch; the mean loss. `places` are rows of `features`, `wanted` classes or -1."""
        w, n = self.weights, len(places)
        between = np.flatnonzero(wanted == _MASK - 1)
        embedded = features @ w["rows"]
        pre = embedded @ w["word"] + w["word_bias"]
        each = np.maximum(pre, 0)
        keep = (self._chance.random((n, _WIDTH), dtype=np.float32) >= _DROPPED) / np.float32(1 - _DROPPED)
        x = each[places] * keep
        x[between] = 0
        kept: list[tuple[Floats, Floats]] = []
        for layer in range(LAYERS):
            z = x @ w[f"layer{layer}"]
            y = z[:, _WIDTH : 2 * _WIDTH].copy()
            y[1:] += z[:-1, :_WIDTH]
            y[:-1] += z[1:, 2 * _WIDTH :]
            y += w[f"bias{layer}"]
            np.maximum(y, 0, out=y)
            kept.append((x, y))
            x = x + y
            x[between] = 0
        logits = x @ w["out"] + w["out_bias"]
        chances = np.exp(logits - logits.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        known = np.flatnonzero(wanted >= 0)
        loss = float(-np.log(chances[known, wanted[known]] + 1e-9).mean())
        slope = np.zeros_like(chances)
        slope[known] = chances[known]
        slope[known, wanted[known]] -= 1
        slope /= len(known)
        gradient: Arrays = {"out": x.T @ slope, "out_bias": slope.sum(0)}
        back = slope @ w["out"].T
        for layer in reversed(range(LAYERS)):
            back[between] = 0
            x, y = kept[layer]
            of_y = back * (y > 0)
            of_z = np.zeros((n, 3 * _WIDTH), np.float32)
            of_z[:, _WIDTH : 2 * _WIDTH] = of_y
            of_z[:-1, :_WIDTH] = of_y[1:]
            of_z[1:, 2 * _WIDTH :] = of_y[:-1]
            gradient[f"layer{layer}"] = x.T @ of_z
            gradient[f"bias{layer}"] = of_y.sum(0)
            back = back + of_z @ w[f"layer{layer}"].T
        back[between] = 0
        spread = csr_matrix((np.ones(n, np.float32), (places, np.arange(n))), shape=(len(each), n))
        of_pre = (spread @ (back * keep)) * (pre > 0)
        gradient["word"] = embedded.T @ of_pre
        gradient["word_bias"] = of_pre.sum(0)
        gradient["rows"] = features.T @ (of_pre @ w["word"].T)
        self._adam(gradient, rate)
        return loss

    def _adam(self, gradient: Arrays, rate: float) -> None:
        self._step += 1
        fix = (1 - 0.999**self._step) ** 0.5 / (1 - 0.9**self._step)
        size = float(sum(np.square(value).sum() for value in gradient.values())) ** 0.5
        scale = np.float32(min(1.0, 1.0 / (size + 1e-9)))
        for name, slope in gradient.items():
            slope = slope * scale
            first, second = self._first[name], self._second[name]
            first *= 0.9
            first += 0.1 * slope
            second *= 0.999
            second += 0.001 * np.square(slope)
            self.weights[name] -= np.float32(rate * fix) * first / (np.sqrt(second) + 1e-8)
            self.average[name] += np.float32(0.004) * (self.weights[name] - self.average[name])


def known_words(found: Sequence[Labelled]) -> NDArray[np.uint32]:
    """The checksums of the words met most often in real texts: they say which words it knows without saying them."""
    counts: Counter[str] = Counter()
    for made in found:
        counts.update({part.strip().lower().replace("’", "'") for part in pieces(made.text) if part.strip().isalpha()})
    return np.unique(np.array([crc32(word.encode()) for word, _ in counts.most_common(_WORDS)], np.uint32))


def train(
    silver: Sequence[Labelled], epochs: int, made: int, seed: int, begin: Mapping[str, NDArray[Any]] | None = None
) -> dict[str, NDArray[Any]]:
    """The weights after so many epochs, an average over the last steps, and the words that have a row of their own. From
    `begin` it goes on where another training ended, in smaller steps."""
    maker, chance, numbers = Maker(read_lists(), seed), random.Random(seed), np.random.default_rng(seed)
    known = known_words(silver) if begin is None else np.asarray(begin["known"], np.uint32)
    words = Words(known)
    network = Network(words.rows, seed)
    if begin is not None:
        network.begin(begin)
    most = _RATE if begin is None else _RATE_AGAIN
    steps = epochs * (sum(len(pieces(each.text)) for each in silver) + 17 * made) // _BATCH
    step, begun = 0, time.monotonic()
    for epoch in range(epochs):
        coded = Encoded(words)
        places: list[int] = [0]
        wanted: list[int] = [_MASK]
        losses = []
        for each in corpus(maker, silver, made, chance):
            more_places, more_wanted = coded.encode(each)
            places += more_places
            wanted += more_wanted
            if len(places) < _BATCH:
                continue
            at = np.array(places, np.intp)
            aims = np.array(wanted, np.intp)
            aims[at == 0] = _MASK - 1
            unique, inverse = np.unique(at, return_inverse=True)
            rate = most * min(1.0, (step + 1) / 50) * max(0.02, 1 - step / steps)
            losses.append(network.learn(coded.features(unique, numbers), inverse, aims, rate))
            step += 1
            places, wanted = [0], [_MASK]
        typer.echo(f"epoch {epoch + 1}: {step} steps, loss {np.mean(losses):.4f}, {time.monotonic() - begun:.0f} s", err=True)
    return {"known": known, **network.average}


def main(
    folder: Annotated[Path, typer.Argument(help="the shared folder of development data")],
    out: Annotated[Path, typer.Option(help="where the weights go")] = WEIGHTS,
    epochs: int = 12,
    made: Annotated[int, typer.Option(help="made sentences an epoch")] = 80_000,
    seed: int = 6,
    begin: Annotated[Path | None, typer.Option(help="weights to go on from")] = None,
) -> None:
    """Train, and write the weights as float16."""
    lists = read_lists()
    real = list(dict.fromkeys(text for text in texts(folder) if text.strip()))
    silver = unsure(list(label(real, lists)), lists)
    found = train(silver, epochs, made, seed, None if begin is None else np.load(begin, allow_pickle=False))
    halves: dict[str, Any] = {name: value if name == "known" else value.astype(np.float16) for name, value in found.items()}
    np.savez_compressed(out, **halves)
    out.with_suffix(".json").write_text(json.dumps({"sha256": hashlib.sha256(out.read_bytes()).hexdigest()}) + "\n")
    typer.echo(f"{out}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    typer.run(main)
