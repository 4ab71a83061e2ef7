"""Names, places, organisations and groups in running text: what no pattern of digits can find.

    texts ─► tagger (a small network, one pass a batch) ─► runs of pieces ─┐
          └► rules (cues, "LAST, FIRST", addresses) ───────────────────────┴► spans of each text, none overlapping

Days and dates are found by form (`dates`), not here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from .ner_tagger import TYPES, Tagged, Tagger

WEIGHTS: Final = Path(__file__).parent / "ner.npz"
# Above this chance a piece belongs to a name, whatever type. Missing one costs more than one too many.
_CHANCE: Final = 0.5
_EDGES: Final = " \t\n\r,;:()[]{}<>\"'’“”|-–—*#@!?/\\_=+&•"


class Span(NamedTuple):
    """`[start, end)` characters of one text. `type`: PERSON, LOCATION, ORGANIZATION, NRP or DATE_TIME."""

    start: int
    end: int
    type: str
    score: float


class NameFinder:
    """Finds names in batches of texts; see `load`. Used from one thread."""

    def __init__(self, tagger: Tagger, version: str) -> None:
        self._tagger = tagger
        self.version = version

    @classmethod
    def load(cls, weights: Path = WEIGHTS) -> NameFinder:
        """Read the weights beside this file, or others that `bench/training/train_names.py` wrote."""
        held = weights.read_bytes()
        with np.load(BytesIO(held), allow_pickle=False) as arrays:
            return cls(Tagger(arrays), f"names-{sha256(held).hexdigest()[:8]}")

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """The spans of each text, in order of their place; none overlap. The batch changes nothing."""
        return [list(_runs(text, tagged)) for text, tagged in zip(texts, self._tagger.tag(texts), strict=True)]


def _runs(text: str, tagged: Tagged) -> Iterator[Span]:
    """Pieces next to each other that belong to one name."""
    if not tagged.pieces:
        return
    chances = tagged.chances
    named = 1 - chances[:, 0]
    likely = np.flatnonzero(named > _CHANCE)
    if not len(likely):
        return
    chosen = chances[likely]
    begins, goes_on = chosen[:, 1::2], chosen[:, 2::2]
    kinds = (begins + goes_on).argmax(1).tolist()
    starts_anew = (begins.max(1) > goes_on.max(1)).tolist()
    ends = np.cumsum([len(part) for part in tagged.pieces])
    at = 0
    places = likely.tolist()
    while at < len(places):
        after = at + 1
        while (
            after < len(places)
            and places[after] == places[after - 1] + 1
            and kinds[after] == kinds[at]
            and not starts_anew[after]
        ):
            after += 1
        first, last = places[at], places[after - 1]
        start, end = int(ends[first]) - len(tagged.pieces[first]), int(ends[last])
        start, end = _trimmed(text, start, end)
        if start < end:
            yield Span(start, end, TYPES[kinds[at]], min(0.99, round(float(named[first : last + 1].mean()), 2)))
        at = after


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start] in _EDGES:
        start += 1
    while start < end and text[end - 1] in _EDGES:
        end -= 1
    if end - start > 1 and text[end - 1] == "." and text[end - 2].islower() and not _abbreviated(text, end - 1):
        end -= 1
    return start, end


def _abbreviated(text: str, dot: int) -> bool:
    """Whether the word before a full stop is one that is written with it: "Jr.", "St.", "Inc."."""
    begin = dot
    while begin and text[begin - 1].isalpha():
        begin -= 1
    return text[begin:dot].lower() in {
        "jr",
        "sr",
        "st",
        "ave",
        "rd",
        "blvd",
        "dr",
        "ln",
        "inc",
        "co",
        "corp",
        "ltd",
        "apt",
        "ct",
        "esq",
    }
