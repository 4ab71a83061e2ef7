"""What the name tagger sees of a word: the word, its letters, its shape, and the lists it stands in.

All of it depends on the word alone, so that a word met again costs one look into a table.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

_HERE: Final = Path(__file__).parent

# A piece is a word, a number, one sign or white space; blanks before it belong to it: the pieces of a text are the text.
_PIECES: Final = re.compile(r"[ \t]*(?:['’]s\b|[^\W\d_]+(?:['’](?!s\b)[^\W\d_]+)*|\d+|[^\w\s]|_)|\s+|.", re.DOTALL)

SHAPES: Final = 512
LETTERS: Final = 8_192
# Longer words are cut: a name this long is told by its beginning.
_MOST_LETTERS: Final = 24

FLAGS: Final = (
    "given",
    "surname",
    "place",
    "place begins",
    "place goes on",
    "country",
    "code",
    "group",
    "title",
    "street",
    "company",
    "kin",
    "day",
    "clinical",
    "drug",
    "blank before",
    "blanks before",
)
# The sections of words.txt, in the order of the flags.
_CLASSES: Final = ("group", "title", "street", "company", "kin", "day", "clinical", "drug")


@dataclass(frozen=True, slots=True)
class Lists:
    """Lower-case names. `places` are whole, of one word or several; `groups` nationalities, religions and peoples."""

    given: frozenset[str]
    surnames: frozenset[str]
    places: frozenset[str]
    cities: tuple[str, ...]  # as they are written
    countries: tuple[str, ...]
    states: tuple[str, ...]
    codes: tuple[str, ...]
    groups: frozenset[str]
    words: dict[str, frozenset[str]]  # of words.txt, by section

    def names(self, word: str) -> bool:
        """Whether a list has it as a name of people, with its accents or without, or it is an initial."""
        lower = word.lower()
        return (
            lower in self.given
            or lower in self.surnames
            or (len(word) == 2 and word[1] == ".")
            or (not lower.isascii() and (bare := _unaccented(lower)) != lower and self.names(bare))
        )

    def is_clinical(self, word: str) -> bool:
        """Whether it is, in lower case, a drug, or the name of a sign or disease."""
        return word in self.words["drug"] or word in self.words["clinical"]


# Letters that are no letter with a sign upon it.
_OWN: Final = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "ı": "i", "ß": "ss", "æ": "ae", "œ": "oe", "ð": "d", "þ": "th"})


def _unaccented(lower: str) -> str:
    parted = unicodedata.normalize("NFD", lower.translate(_OWN))
    return "".join(letter for letter in parted if not unicodedata.combining(letter))


@cache
def read_lists() -> Lists:
    """The lists beside this file, which says where each is from."""
    names, places = sections("names.txt"), sections("places.txt")
    words = {name: frozenset(word for line in lines for word in line.split()) for name, lines in sections("words.txt").items()}
    whole = [*places["city"], *places["country"], *places["state"]]
    return Lists(
        given=frozenset([*names["given"], *names["both"]]),
        surnames=frozenset([*names["surname"], *names["both"]]),
        places=frozenset(place.lower() for place in whole),
        cities=tuple(places["city"]),
        countries=tuple(places["country"]),
        states=tuple(places["state"]),
        codes=tuple(places["code"]),
        groups=words["group"],
        words=words,
    )


def sections(name: str) -> dict[str, list[str]]:
    """The lines of a list beside this file, by the heading above them."""
    found: dict[str, list[str]] = {}
    into: list[str] = []
    for line in (_HERE / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            into = found.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            into.append(line)
    return found


def pieces(text: str) -> list[str]:
    """The text, cut: `"".join(pieces(text)) == text`."""
    found: list[str] = _PIECES.findall(text)
    return found


class Words:
    """Piece → the rows of the table of features, and their weights. `known` are the checksums of the words that have a row."""

    def __init__(self, known: Sequence[int] | NDArray[np.uint32]) -> None:
        lists = read_lists()
        self._given, self._surnames = lists.given, lists.surnames
        self._countries = {word.lower() for place in (*lists.countries, *lists.states) for word in place.split()}
        self._codes = frozenset(lists.codes)
        self._places = lists.places
        self._classes = [lists.words[name] for name in _CLASSES]
        parts = [place.split() for place in lists.places if " " in place]
        self._begins = {words[0] for words in parts}
        self._goes_on = {word for words in parts for word in words[1:]}
        self._known = {int(checksum): row for row, checksum in enumerate(known)}
        self.unknown = len(self._known)
        self.rows = len(self._known) + 1 + SHAPES + LETTERS + len(FLAGS)

    @property
    def flags_begin(self) -> int:
        return self.rows - len(FLAGS)

    def features(self, piece: str) -> tuple[list[int], list[float]]:
        """The rows of a piece: its word or the row of all unknown words, its shape, its letters, its flags."""
        word = piece.lstrip(" \t")
        blanks = len(piece) - len(word)
        word = ("\n" if "\n" in word else word.strip() or " ")[:_MOST_LETTERS]
        lower = word.lower().replace("’", "'")
        row = self._known.get(crc32(lower.encode()), len(self._known))
        base = len(self._known) + 1
        rows, weights = [row, base + crc32(_shape(word).encode()) % SHAPES], [1.0, 1.0]
        base += SHAPES
        if word[0].isalpha():
            grams = list(_grams(lower))
            rows += [base + crc32(gram.encode()) % LETTERS for gram in grams]
            weights += [1.0 / len(grams) ** 0.5] * len(grams)
        base += LETTERS
        flags = [base + number for number in self._flags(word, lower, blanks)]
        return rows + flags, weights + [1.0] * len(flags)

    def _flags(self, word: str, lower: str, blanks: int) -> Iterator[int]:
        told = (
            lower in self._given,
            lower in self._surnames,
            lower in self._places,
            lower in self._begins,
            lower in self._goes_on,
            lower in self._countries,
            word in self._codes,
            *(lower in words for words in self._classes),
            blanks == 1,
            blanks > 1,
        )
        return (number for number, holds in enumerate(told) if holds)


def _shape(word: str) -> str:
    """Capitals, small letters, digits and signs, runs longer than three as three."""
    found: list[str] = []
    for character in word:
        kind = "X" if character.isupper() else "x" if character.isalpha() else "d" if character.isdigit() else character
        if found[-3:] != [kind] * 3:
            found.append(kind)
    return "".join(found)


def _grams(lower: str) -> Iterator[str]:
    """Threes of letters, and beginnings and ends, which tell more."""
    framed = f"<{lower}>"
    yield from (framed[start : start + 3] for start in range(max(1, len(framed) - 2)))
    for length in (2, 4):
        yield f"^{lower[:length]}"
        yield f"{lower[-length:]}$"
