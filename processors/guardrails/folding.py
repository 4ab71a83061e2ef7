"""Text as an eye reads it: hidden characters gone, look-alikes back to letters, and every character's place remembered.

    fold     drops zero-width, bidi, tag and combining characters, undoes full-width, styled and borrowed letters, lower case
    unmask   on top of that: l33t, "s p a c e d" and stretched letters

Both give `Folded`, whose `span` leads back to the characters of the original text. Accents are dropped too, so a pattern
that is matched against a folded text is written without them.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, NamedTuple

# Written in one script to be read in another. Left: Cyrillic, Greek, Armenian, Cherokee and friends; right: the letter seen.
_LOOK_ALIKE: Final = dict(
    zip(
        "абвгԁеёжзіїјкӏмһнорстцухѕԛԝүҽɑɡɩʟɴʀʏαβγδεηικμνορτυχωϲϳոսօցհ",
        "a6bгdee*3iijklmhnopctцyxsqwyeagilnryabydenikuvoptuxwcjnuogh",
        strict=True,
    )
)
# Look-alikes that stay as they are in a word of their own script, and are letters in a Latin one.
_BORROWED: Final = {ord(seen): letter for seen, letter in _LOOK_ALIKE.items() if letter.isascii() and letter.isalpha()}

# Never seen on a page: soft hyphen, zero-width, bidi controls, fillers, variation selectors, byte-order mark.
HIDDEN: Final = frozenset(
    (
        *(0x00AD, 0x034F, 0x061C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180E, 0x3164, 0xFEFF, 0xFFA0),
        *(*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), *range(0xFE00, 0xFE10)),
        *range(0xE0100, 0xE01F0),
    )
)
_TAGS: Final = range(0xE0020, 0xE007F)  # invisible copies of ASCII, read by models and by nobody else
_MARKS: Final = range(0x0300, 0x0370)
_PLAIN: Final = {
    "’": "'",
    "‘": "'",
    "“": '"',
    "”": '"',
    "–": "-",
    "—": "-",
    "‑": "-",
    "…": "...",
    "ß": "ss",
    "æ": "ae",
    "ø": "o",
}

_WORD: Final = re.compile(r"[^\W\d_]+")
_LATIN: Final = re.compile(r"[a-z]")
_BLANK: Final = re.compile(r"[^\S\n]")

_LEET: Final = str.maketrans("0134578@$!|+€", "oieastbasilte")
# A word with a digit or sign in the place of a letter: at least two letters, and the signs inside or at its front.
_MASKED: Final = re.compile(
    r"(?<![\w@$!|+€])(?=[a-z0134578@$!|+€]*[a-z])[a-z0134578@$!|+€]*[0134578@$|+€][a-z0134578@$!|+€]*(?![\w@$|+€])"
)
_QUANTITY: Final = re.compile(r"\d+(?:[a-z]{1,4}|(?:st|nd|rd|th))|[a-z]{1,3}\d+|[@$+]?\d+\w?")
_SPACED: Final = re.compile(r"(?<![^\W_])[^\W\d_](?:([ .*_\-]{1,2})[^\W\d_])(?:\1[^\W\d_])+(?![^\W_])")
_STRETCHED: Final = re.compile(r"([^\W\d_])\1{2,}")


class Folded(NamedTuple):
    """`text` after folding; `places[i]` is the original index of its character i, never falling."""

    text: str
    places: list[int] | range

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where `[start, end)` of the folded text stands in the original; empty for an empty span."""
        if not 0 <= start < end <= len(self.text):
            place = self.places[start] if 0 <= start < len(self.text) else 0
            return place, place
        return self.places[start], self.places[end - 1] + 1


def fold(text: str) -> Folded:
    """The text as it is seen, lower case."""
    if text.isascii():
        return Folded(text.lower(), range(len(text)))
    found: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        seen = _seen(character)
        if seen:
            found.append(seen)
            places.extend([place] * len(seen))
    return Folded(_unborrow("".join(found)), places)


def unmask(folded: Folded) -> Folded:
    """What `folded` says beneath l33t, spaced and stretched letters. The same object where there was no mask."""
    text, places = folded
    masked = _MASKED.sub(_unleet, text)
    if _SPACED.search(masked) or _STRETCHED.search(masked):
        keep = _kept(masked)
        masked = "".join(masked[index] for index in keep)
        places = [places[index] for index in keep]
    return folded if masked == text else Folded(masked, places)


def _seen(character: str) -> str:
    code = ord(character)
    if code < 128:
        return character.lower()
    if code in HIDDEN or code in _MARKS:
        return ""
    if code in _TAGS:
        return chr(code - 0xE0000).lower()
    if character in _PLAIN:
        return _PLAIN[character]
    wide = unicodedata.normalize("NFKD", character).lower()
    return "".join(_PLAIN.get(each, each) for each in wide if ord(each) not in _MARKS)


def _unborrow(text: str) -> str:
    """Borrowed letters become Latin in words that have Latin letters, and in lone words of a Latin text."""
    latin = len(_LATIN.findall(text))
    mostly_latin = latin * 2 > sum(map(str.isalpha, text))

    def word(match: re.Match[str]) -> str:
        seen = match.group()
        if seen.isascii():
            return seen
        plain = seen.translate(_BORROWED)
        return plain if plain.isascii() and (mostly_latin or _LATIN.search(seen)) else seen

    return _WORD.sub(word, text)


def _unleet(match: re.Match[str]) -> str:
    seen = match.group()
    if _QUANTITY.fullmatch(seen) or sum(map(str.isalpha, seen)) * 3 < len(seen):
        return seen
    word = seen.rstrip("!")  # at the end it is a cry, not an i
    return word.translate(_LEET) + seen[len(word) :]


def _kept(text: str) -> list[int]:
    """The indices that stay when spaced letters close up and a letter said three times or more is said once."""
    gone: set[int] = set()
    for match in _SPACED.finditer(text):
        gap = len(match.group(1))
        gone.update(place + step for place in range(match.start() + 1, match.end(), gap + 1) for step in range(gap))
    for match in _STRETCHED.finditer(text):
        gone.update(range(match.start() + 1, match.end()))
    return [index for index in range(len(text)) if index not in gone]
