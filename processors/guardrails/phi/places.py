"""Postal codes by their label or their state, and towns that are words of every day by theirs ("Normal, IL"); streets and
other towns are the name finder's.

Safe Harbor lets the first three digits of a ZIP code stand where more than 20,000 people live there. We flag the whole code and
leave nothing of it: which three digits may stay is a matter of the latest census, and a transcript can do without.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from . import zones
from .ner import Span
from .ner_words import read_lists
from .zones import Zones, matches

STATES: Final = (
    "AL|AK|AZ|AR|CA|CO|CT|DE|FL|GA|HI|ID|IL|IN|IA|KS|KY|LA|ME|MD|MA|MI|MN|MS|MO|MT|NE|NV|NH|NJ|NM|NY|NC|ND|OH|OK|OR|PA|RI|SC|SD|TN|TX|UT|VT"
    "|VA|WA|WV|WI|WY|DC|PR|GU|VI|AS|MP|AA|AE|AP|FM|MH|PW"
)
_STATES: Final = frozenset(STATES.split("|"))
_LABELLED: Final = re.compile(
    r"[zZpP](?<!\w.)(?i:(?<=z)ip(?:\s?-?\s?codes?)?|(?<=p)(?:ost(?:al)?\s?codes?|in\s?code|lz))\b"
    r"[\s:#=(]*(?i:is|was|of|are|:)?[\s:#(]*"
    r"(?i:(?P<value>\d{5}(?:-\d{4})?|\d{3}\*{2}|[A-Z]{1,2}\d[A-Z\d]?\s?\d[A-Z]{2}|[A-Z]\d[A-Z]\s?\d[A-Z]\d|\d{4}\s?[A-Z]{2}"
    r"|\d{3,4}[- ]?\d{2,4}|\d{3,7}))(?![\w-])"
)
_BEHIND_STATE: Final = re.compile(r"[A-Z](?<![A-Za-z].)[A-Z][\s,]{1,3}(?P<value>\d{5}(?:-\d{4})?)(?![\w-]|[,.]\d)")
_LIVES_IN: Final = re.compile(
    r"[lrmf](?<!\w.)(?:(?<=l)iv(?:e|es|ed|ing)|(?<=r)esid(?:e|es|ing)|(?<=m)oved|(?<=f)rom)"
    r"\s+(?:in|to|near|around)?\s*(?P<value>\d{5})(?![\w-]|[,.]\d)"
)
_NINE: Final = re.compile(r"[0-9](?<![\w.-].)\d{4}-\d{4}(?![\w-]|\.\d)")
_UK: Final = re.compile(
    r"[A-PR-UWYZ](?<![\w-].)(?:(?<=G)IR 0AA|(?:\d{1,2}|[A-HK-Y]\d{1,2}|\d[A-HJKSTUW]"
    r"|[A-HK-Y]\d[ABEHMNPRV-Y]) \d[ABD-HJLNP-UW-Z]{2})(?![\w-])"
)
_CANADA: Final = re.compile(
    r"[ABCEGHJ-NPRSTVXY](?<![\w-].)(?!(?<=T)[0-4]N[0-3]M|(?<=E)[1-4]V[1-5]M[1-6])"
    r"\d[ABCEGHJ-NPRSTV-Z] ?\d[ABCEGHJ-NPRSTV-Z]\d(?![\w-])"
)
# States whose letters are no word, no degree and no abbreviation of a note: "Normal, OK" may be said of anything.
_PLAIN_STATE: Final = re.compile(r", (?:A[KLRZ]|CA|FL|GA|I[AL]|K[SY]|M[NOT]|N[HJMVY]|TN|TX|UT|W[AIVY])(?![A-Za-z])")
_TOWN: Final = re.compile(r"(?<![\w-])[A-Z][a-z]+\Z")


def find(text: str, within: Zones | None = None) -> Iterator[Span]:
    """Postal codes of one text."""
    within = zones.of(text) if within is None else within
    for match in matches(_LABELLED, text, within):
        yield Span(*match.span("value"), "LOCATION", 0.85)
    for match in matches(_BEHIND_STATE, text, within):
        if match.group()[:2] in _STATES:
            yield Span(*match.span("value"), "LOCATION", 0.85)
    for match in matches(_LIVES_IN, text, within):
        yield Span(*match.span("value"), "LOCATION", 0.6)
    for match in matches(_NINE, text, within):
        yield Span(match.start(), match.end(), "LOCATION", 0.6)
    for pattern in (_UK, _CANADA):
        for match in matches(pattern, text, within):
            yield Span(match.start(), match.end(), "LOCATION", 0.6)
    for state in _PLAIN_STATE.finditer(text):
        town = _TOWN.search(text, max(0, state.start() - 24), state.start())
        if town is not None and _is_word_and_town(town.group().lower()):
            yield Span(town.start(), state.end(), "LOCATION", 0.6)


def _is_word_and_town(word: str) -> bool:
    lists = read_lists()
    return word in lists.places and (word in lists.words["common"] or word in lists.words["label"])
