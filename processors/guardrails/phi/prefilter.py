"""What can be known of a place in a text before a large pattern is tried there.

The pattern of labels has hundreds of alternatives and fails at nearly every word; whether a word can begin a label at all
depends on the word alone, and words repeat.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import regex

from .labels import LABEL

# A word with the character behind it, which tells "a/c" from "a".
_WORD: Final = re.compile(r"(?<![A-Za-z])[A-Za-z]+[^A-Za-z]?")
_PARTIAL: Final = regex.compile(LABEL.pattern, regex.IGNORECASE | regex.VERBOSE)
# Words remembered; past that the memory is begun anew. Words longer than this begin no label and are not kept.
_MOST_WORDS: Final = 16_384
_LONGEST: Final = 24

_begins: dict[str, bool] = {}


def labels(text: str, start: int, end: int) -> Iterator[re.Match[str]]:
    """The same as `LABEL.finditer(text, start, end)`, but that no label begins with a blank."""
    after = start
    for word in _WORD.finditer(text, start, end):
        if word.start() < after:
            continue
        if _begins_one(word.group()) and (label := LABEL.match(text, word.start(), end)) is not None:
            yield label
            after = label.end()


def is_label(written: str) -> bool:
    """Whether the whole is a label."""
    word = _WORD.match(written)
    return word is not None and _begins_one(word.group()) and LABEL.fullmatch(written) is not None


def _begins_one(word: str) -> bool:
    found = _begins.get(word)
    return _learn(word) if found is None else found


def _learn(word: str) -> bool:
    if len(word) > _LONGEST:
        return False
    if len(_begins) >= _MOST_WORDS:
        _begins.clear()
    found = _begins[word] = _PARTIAL.match(word, partial=True) is not None
    return found
