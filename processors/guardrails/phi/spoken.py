"""Numbers as they are said: "six one seven, triple five, oh one four two", and which digits those are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

_ONES: Final = {
    word: str(digit)
    for digit, words in enumerate("zero|oh|nought|naught one two three four five six seven eight nine".split())  # noqa: SIM905
    for word in words.split("|")
}
_TEENS: Final = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()  # noqa: SIM905
_TENS: Final = "twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905
_TIMES: Final = {"double": 2, "triple": 3}

_ONE: Final = "|".join(_ONES)
# One thing said, which a digit or several stand for. Atomic, or "twenty-two twenty-two …" could be parted in thousands of ways.
_SAID: Final = (
    rf"(?>(?:{'|'.join(_TIMES)})[ -](?:{_ONE})|(?:{'|'.join(_TENS)})(?:[ -](?:{_ONE})\b)?|{'|'.join(_TEENS)}"
    rf"|(?:{_ONE})(?:[ -]hundred)?|\d{{1,4}})(?!\w)"
)
_BETWEEN: Final = r"[\s,.-]{1,3}"
_RUN: Final = re.compile(rf"(?<![\w.-])(?>{_SAID}{_BETWEEN}){{3,24}}{_SAID}", re.IGNORECASE)
_PART: Final = re.compile(_SAID, re.IGNORECASE)
# Two in a row, quick to look for.
_MAY_BE: Final = re.compile(
    r"[zZoOtTfFsSeEnN](?:ero|h|ne|wo|hree|our|ive|ix|even|ight|ine|ought|aught)[\s,.-]+"
    r"(?:[zZ]ero|[oO]h|[oO]ne|[tT]wo|[tT]hree|[fF]our|[fF]ive|[sS]ix|[sS]even|[eE]ight|[nN]ine|[nN]ought|[nN]aught)\b"
)
# An area code is said digit by digit: so many words of one digit each begin or end a number, and part it from figures in prose.
_LEAD: Final = 3
_FEWEST: Final = 7
_COUNTING: Final = ("0123456789", "9876543210")


class Spoken(NamedTuple):
    """`[start, end)` of a text, and the digits that are said there."""

    start: int
    end: int
    digits: str


def find(text: str) -> Iterator[Spoken]:
    """Numbers of seven digits and more that are said digit by digit, at least at one of their ends. Counting is none."""
    if _MAY_BE.search(text) is None:
        return
    for run in _RUN.finditer(text):
        parts = [_digits(part.group()) for part in _PART.finditer(run.group())]
        digits = "".join(parts)
        ones = [len(part) == 1 or len(set(part)) == 1 for part in parts]
        if len(digits) >= _FEWEST and (all(ones[:_LEAD]) or all(ones[-_LEAD:])) and not any(digits in row for row in _COUNTING):
            yield Spoken(run.start(), run.end(), digits)


def _digits(said: str) -> str:
    if said.isdigit():
        return said
    first, _, second = said.lower().replace("-", " ").partition(" ")
    if first in _TIMES:
        return _ONES[second] * _TIMES[first]
    if first in _TEENS:
        return str(10 + _TEENS.index(first))
    if first in _TENS:
        return str(2 + _TENS.index(first)) + (_ONES[second] if second else "0")
    return _ONES[first] + ("00" if second else "")
