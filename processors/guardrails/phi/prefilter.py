"""Where the labels of numbers stand in a text.

There are hundreds of them, and at nearly every word none; which types of label a word can begin depends on the word alone, and
words repeat. So that is remembered, and only the patterns of those types are tried.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import regex

from .labels import LABELS

_Patterns = tuple[re.Pattern[str], ...]

# A word with the character behind it, which tells "a/c" from "a".
_WORD: Final = re.compile(r"(?<![A-Za-z])[A-Za-z]+[^A-Za-z]?")
_PARTIAL: Final = [(pattern, regex.compile(pattern.pattern, regex.IGNORECASE | regex.VERBOSE)) for pattern in LABELS.values()]
# Words remembered; past that the memory is begun anew. Words longer than this begin no label and are not kept.
_MOST_WORDS: Final = 16_384
_LONGEST: Final = 24

_begun_by: dict[str, _Patterns] = {}


def labels(text: str, start: int, end: int) -> Iterator[re.Match[str]]:
    """Each label in `[start, end)`, its type the name of its group; they do not overlap. Of several at one place the first type
    of `LABELS` counts."""
    after = start
    for word in _WORD.finditer(text, start, end):
        if word.start() >= after and (label := _first(word, text, end)) is not None:
            yield label
            after = label.end()


def label_at(text: str, start: int, end: int) -> re.Match[str] | None:
    """The label that begins at `start`, read no further than `end`."""
    word = _WORD.match(text, start, end)
    return _first(word, text, end) if word is not None else None


def is_label(written: str) -> bool:
    """Whether the whole is a label."""
    word = _WORD.match(written)
    return word is not None and any(pattern.fullmatch(written) for pattern in _patterns(word.group()))


def _first(word: re.Match[str], text: str, end: int) -> re.Match[str] | None:
    for pattern in _patterns(word.group()):
        if (label := pattern.match(text, word.start(), end)) is not None:
            return label
    return None


def _patterns(word: str) -> _Patterns:
    found = _begun_by.get(word)
    return _learn(word) if found is None else found


def _learn(word: str) -> _Patterns:
    if len(word) > _LONGEST:
        return ()
    if len(_begun_by) >= _MOST_WORDS:
        _begun_by.clear()
    found = _begun_by[word] = tuple(pattern for pattern, partial in _PARTIAL if partial.match(word, partial=True))
    return found
