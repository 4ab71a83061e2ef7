"""Long texts in pieces that a transformer can take, and batches of pieces of about one length."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple, TypeVar

_END: Final = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n+")
_Found = TypeVar("_Found")


class Piece(NamedTuple):
    """`text` as it stands from `start` of a longer one."""

    start: int
    text: str

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def sentences(piece: Piece) -> list[Piece]:
    """Sentences and lines, without the blanks between them."""
    cuts = [0, *(match.end() for match in _END.finditer(piece.text)), len(piece.text)]
    found = []
    for start, end in pairwise(cuts):
        text = piece.text[start:end]
        if stripped := text.strip():
            found.append(Piece(piece.start + start + len(text) - len(text.lstrip()), stripped))
    return found


def pieces(text: str, most_chars: int) -> list[Piece]:
    """Whole sentences, as many as fit into `most_chars`; a longer one is cut at a blank, or anywhere if there is none."""
    found: list[Piece] = []
    start = end = 0
    for sentence in (part for whole in sentences(Piece(0, text)) for part in _cut(whole, most_chars)):
        if end > start and sentence.end - start > most_chars:
            found.append(Piece(start, text[start:end]))
            start = sentence.start
        elif end == start:
            start = sentence.start
        end = sentence.end
    if end > start:
        found.append(Piece(start, text[start:end]))
    return found


def _cut(sentence: Piece, most_chars: int) -> list[Piece]:
    found = []
    while len(sentence.text) > most_chars:
        at = sentence.text.rfind(" ", most_chars // 2, most_chars)
        at = most_chars if at < 0 else at + 1
        found.append(Piece(sentence.start, sentence.text[:at]))
        sentence = Piece(sentence.start + at, sentence.text[at:])
    return [*found, sentence]


def in_batches(texts: Sequence[Piece], judge: Callable[[Sequence[Piece]], list[_Found]], size: int) -> list[_Found]:
    """What `judge` says of each, in order; it is asked about pieces of about one length together, for padding costs."""
    order = sorted(range(len(texts)), key=lambda place: len(texts[place].text))
    found: dict[int, _Found] = {}
    for start in range(0, len(order), size):
        places = order[start : start + size]
        found.update(zip(places, judge([texts[place] for place in places]), strict=True))
    return [found[place] for place in range(len(texts))]
