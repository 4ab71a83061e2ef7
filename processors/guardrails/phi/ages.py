"""Ages above 89, in figures and in words: what Safe Harbor asks to be made "90 or older" (45 CFR 164.514(b)(2)(i)(C)).

A number is found first, then what stands about it: "94" and behind it "years old", or before it "turned".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from . import zones
from .dates import UNIT
from .ner_words import read_lists
from .spans import Span
from .zones import Zones, matches

_FIGURES: Final = re.compile(r"[91](?<![\w.$€£/-].)(?:(?<=9)\d|(?<=1)[0-3]\d)(?!\d|[./]\d|-\d)")
_ONES: Final = "one|two|three|four|five|six|seven|eight|nine"
_WORDS: Final = re.compile(
    rf"\b(?:ninety(?:[-\s](?:{_ONES})\b)?|(?P<hundred>(?:a|one)\s+hundred(?:\s+(?:and\s+)?(?:{_ONES}|ten))?\b))", re.IGNORECASE
)
_MAY_BE_WORDS: Final = re.compile(r"[nNhHcC9](?i:inet|undred|onagen|entenar|0['’]?s)")
_OLD: Final = re.compile(
    r"\s*-?\s*(?:years?|yrs?|yr\.)[-\s]*(?:old|of\s+age|young)|[-\s]*(?:y/?o|yo|y\.o\.?)\b|[-\s]year[-\s]old"
    r"|[-\s]*y[-\s/]*(?:[mf]\b|male|female|woman|man\b|lady|gentleman)|,?\s*\(?(?:alive|living|a&w)\b|M\b|\s[Mm](?:ale)?\b",
    re.IGNORECASE,
)
# Degrees are written so too.
_FEMALE: Final = re.compile(r"\s?F\b")
_SOMEBODY: Final = re.compile(r"(?:^|[.;:|\n(]\s*|\b(?:an?|the|pt|patient|is|this|our|of)\s+)\Z", re.IGNORECASE)
_HOT: Final = re.compile(r"\b(?:t|temp\w*|t-?max|fever\w*|febrile|afebrile)\b[^.;\n]*\Z", re.IGNORECASE)
_KIN: Final = (
    "mother|father|mom|dad|grand(?:mother|father|ma|pa)|aunt|uncle|sister|brother|husband|wife|lady|gentleman|woman|man|who"
)
_CUE: Final = re.compile(
    rf"(?:\bage[ds]?(?:\s?/\s?(?:sex|gender))?[\"']?\s*[:=]?(?:\s+(?:of|is|was))?|\b(?:turn(?:ed|s|ing)?|aged?\s+of)"
    rf"|\b(?:s?he|patient|pt|{_KIN})(?:['’]s|\s+(?:is|was|turned|will\s+be)|['’]ll\s+be)|\bi\s?['’]?\s?a?m"
    r"|\b(?:died|dead|passed(?:\s+away)?|deceased|lived|lives|survived)\s+(?:at|to|until|till)(?:\s+(?:the|a|ripe|old)){0,3})"
    r"\s*[:=]?\s*(?:(?:now|just|about|almost|nearly|already|only)\s+)?\Z",
    re.IGNORECASE,
)
# "Age/Sex: 97/F".
_SEX: Final = re.compile(r"\s?/\s?(?:[MF]|male|female)\b", re.IGNORECASE)
# "Rosa is 93.", and set off by commas: "Mr. Price, 97, fell".
_NAMED: Final = re.compile(
    r"(?:(?P<titled>\b(?i:mr|mrs|ms|miss)\b\.?\s+[^\W\d_]{2,})"
    rf"|(?P<role>\b(?:[Pp]t|(?i:patient|{_KIN})))|(?P<name>\b[^\W\d_]{{2,}}))"
    r"(?P<link>\s+(?:is|was|will\s+be)\s+(?:(?:now|just|about|almost|nearly|already|only)\s+)?|,\s*)\Z"
)
_SAID: Final = re.compile(r"\s*(?:[.,;:!?)\n]|\Z)|\s(?:and|but|now|with|who|when|today|next|this)\b")
_SET_OFF: Final = re.compile(r",\s+[A-Za-z(]")
# Names of people as well, and what is 93 oftener.
_MEASURES: Final = frozenset({"height", "min", "peak"})
_COUNTED: Final = re.compile(
    r"[\w%/]|\s*(?:%|percent|"
    + UNIT.replace("years?|yrs?|", "")
    + r"|systolic|over|bpm|degrees|or|out|on\s+(?:room|ra)|miles?|blocks?"
    r"|dollars?|bucks|patients|people|kilos?)\b|\s*%",
    re.IGNORECASE,
)
_BIRTHDAY: Final = re.compile(r"(?P<th>(?:st|nd|rd|th)?)\s+b(?:irth\s?|-)?day\b", re.IGNORECASE)
_NTH_BIRTHDAY: Final = re.compile(
    r"\b(?P<value>ninetieth|ninety[-\s](?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth)|(?:one\s+)?hundredth)"
    r"\s+b(?:irth\s?|-)?day\b",
    re.IGNORECASE,
)
_DECADE: Final = re.compile(
    rf"\b(?:in\s+(?:his|her|their|my)|(?:{_KIN}|male|female|patient|pt),?)\s+(?:(?:very\s+)?(?:early|mid|middle|late)[-\s]+)?"
    r"(?P<value>nineties|90['’]?s)\b(?!\s*(?:over|systolic|/))",
    re.IGNORECASE,
)
# Whose pulse is in her nineties is of any age.
_READING: Final = re.compile(
    r"\b(?:bp|hr|heart\s+rate|pulse|sats?|saturations?|spo2|o2|pressures?|systolics?|sugars?|glucose|weight|temp\w*)\b[^.;\n]*\Z",
    re.IGNORECASE,
)
_GREAT_AGE: Final = re.compile(r"\b(?:nonagenarian|(?:super)?centenarian)s?\b", re.IGNORECASE)
_SURE, _TOLD = 0.85, 0.6
# Before a number, how much is read for a cue, and for whether a temperature is spoken of.
_BEFORE: Final = 40


def find(text: str, within: Zones | None = None) -> Iterator[Span]:
    """Ages of one text that are above 89. Scores: .85 where years are spoken of, .6 by what leads up to the number."""
    for match in matches(_FIGURES, text, zones.of(text) if within is None else within):
        if (score := _score(text, *match.span())) is not None:
            birthday = _BIRTHDAY.match(text, match.end())
            yield Span(match.start(), match.end() if birthday is None else birthday.end("th"), "AGE", score)
    if _MAY_BE_WORDS.search(text) is None:
        return
    for match in _WORDS.finditer(text):
        start, end = match.span()
        score = _score(text, start, end)
        # "I'm a hundred miles away": a round number is an age only where years are spoken of.
        if score is not None and (score == _SURE or match["hundred"] is None):
            yield Span(start, end, "AGE", score)
    for match in _DECADE.finditer(text):
        if _READING.search(text, max(0, match.start() - _BEFORE), match.start()) is None:
            yield Span(*match.span("value"), "AGE", _SURE)
    for pattern in (_NTH_BIRTHDAY, _GREAT_AGE):
        for match in pattern.finditer(text):
            yield Span(*match.span("value" if "value" in pattern.groupindex else 0), "AGE", _SURE)


def _score(text: str, start: int, end: int) -> float | None:
    if _OLD.match(text, end) or _BIRTHDAY.match(text, end):
        return _SURE
    before = max(0, start - _BEFORE)
    if _FEMALE.match(text, end) and _SOMEBODY.search(text, before, start) and not _HOT.search(text, before, start):
        return _SURE
    if (_COUNTED.match(text, end) is None or _SEX.match(text, end) is not None) and (
        cue := _CUE.search(text, before, start)
    ) is not None:
        return _SURE if cue.group().lower().startswith("age") else _TOLD
    return _TOLD if _is_of_somebody(text, before, start, end) else None


def _is_of_somebody(text: str, before: int, start: int, end: int) -> bool:
    """Whether a number stands where an age does beside a name or a word for somebody, and nothing measured is spoken of."""
    if (named := _NAMED.search(text, before, start)) is None or _READING.search(text, before, start) is not None:
        return False
    if (_SET_OFF if named["link"].startswith(",") else _SAID).match(text, end) is None:
        return False
    if (name := named["name"]) is None:
        return True
    lists, lower = read_lists(), name.lower()
    word = lower in lists.words["common"] or lower in lists.words["label"] or lower in _MEASURES or lists.is_clinical(lower)
    return name[0].isupper() and lists.names(name) and not word
