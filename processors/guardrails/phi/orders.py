"""The bare name in what was taken for one: without the verb before it, the degree, the age or the belongings behind it.

"Discharge Rosa Delgado"    Rosa Delgado        "JOHN SMITH, RN"        JOHN SMITH
"Call Rosa Delgado"         Rosa Delgado        "John Smith's labs"     John Smith
"Emily Call", "Dr. Page"    as they stand
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from .ner_words import Lists
from .spans import Span

_FIRST: Final = re.compile(r"(?P<word>[^\W\d_]+)[ \t]+(?=[^\W\d_])")
_NEXT: Final = re.compile(r"[ \t]*(?P<next>[^\W\d_]+(?:['’-][^\W\d_]+)*)(?P<more>[ \t]+[A-Z])?")
_FULL: Final = re.compile(r"[A-Z](?<![\w’'-].)[a-z]+(?= (?P<last>[A-Z][a-z]+)(?![\w-]))")
_BEHIND: Final = re.compile(r"(?<![\w-])([^\W\d_]+)[ \t]\Z")
# Where a sentence or a line begins: elsewhere a verb that is a surname as well may be one.
_BEGINS: Final = re.compile(
    r"(?:\A|[.;:!?\n\r•*(\"“]|[-–—]\s)[\s\d.)]{0,6}(?:(?:please|then|and|now|also)[, ]\s?)?\Z", re.IGNORECASE
)
# Behind one more name these say that the verb is none: "Page Turner, MD", "Page Turner is here".
_SAID: Final = re.compile(
    r"[ \t]+[A-Z][\w’'-]*(?:,\s(?:M\.?D|R\.?N|D\.?O|N\.?P)\b|\s(?:is|was|has|presents|presented|reports|denies|says|said)\b)"
)
_DEGREE: Final = re.compile(
    r"(?:,\s*(?:R\.?N|M\.?D|D\.?O|N\.?P|PA(?:-C)?|LPN|CNA|APRN|FNP|CRNA|PharmD|PHARMD|Ph\.?D|PHD|DDS|DPM|LCSW|MSW|BSN|RT|PT|OT)\.?"
    r"|\s+(?:RN|MD|LPN|CNA|APRN|CRNA|PhD|PharmD))+\Z"
)
_AGED: Final = re.compile(
    r"[\s,(]+\d{1,3}[\s-]*(?:y[\s/.]*o\b\.?|yrs?\b(?:\s?old)?|years?\b(?:[\s-]?old)?|[mf])\Z", re.IGNORECASE
)
_OWNED: Final = re.compile(r"['’]s?\s+(?=[^\W\d_])")
_DONE_WITH_PEOPLE: Final = re.compile(
    r"\b(?i:discharge|admit|extubate|intubate|ambulate|notify|remind|bathe|sedate|escort)[ \t](?P<name>[A-Z][a-z]{2,})"
    r"(?=['’]s\b|\s?[.,;!?\n]|\s?\Z|\s(?:today|tomorrow|tonight|now|home|to|and|when|if|in|on|at|with|before|after|for)\b)"
)
# How far before a name it is asked whether a sentence begins.
_BEFORE: Final = 24
_TOLD: Final = 0.85


def bare(text: str, span: Span, lists: Lists) -> Span:
    """The span without what is no part of the name; as it stands, where nothing of a name would be left."""
    if span.type not in {"PERSON", "ORGANIZATION"}:
        return span
    start, end = span.start, span.end
    while (first := _FIRST.match(text, start, end)) is not None and _is_order(text, *first.span("word"), lists):
        if span.type == "ORGANIZATION" and not _begins_given(text, first.end(), lists):
            break
        start = first.end()
    if (owned := _OWNED.search(text, start, end)) is not None and _is_somebody(text[start : owned.start()], span.type, lists):
        others = (word for word in text[owned.end() : end].split() if word[0].isupper() and lists.names(word))
        return span._replace(start=start) if any(others) else Span(start, owned.start(), "PERSON", span.score)
    if span.type == "PERSON":
        for pattern in (_AGED, _DEGREE):
            if (tail := pattern.search(text, start, end)) is not None and tail.start() > start:
                end = tail.start()
    return span._replace(start=start, end=end)


def is_order(text: str, span: Span, lists: Lists) -> bool:
    """Whether the whole of the span is a verb, and whom it is about follows: "Call" of "Call Rosa"."""
    return span.type in {"PERSON", "ORGANIZATION"} and _is_order(text, span.start, span.end, lists)


def ordered(text: str, lists: Lists) -> Iterator[Span]:
    """A given name and a surname that lists know, behind such a verb: "increase Thea Larkin's dose"."""
    for given in _FULL.finditer(text):
        first, last = given.group().lower(), given["last"].lower()
        if first not in lists.given or last not in lists.surnames or lists.is_clinical(first):
            continue
        if first in lists.words["common"] or last in lists.words["never"] or lists.is_clinical(last):
            continue
        verb = _BEHIND.search(text, max(0, given.start() - _BEFORE), given.start())
        if verb is not None and verb[1].lower() in lists.words["order"]:
            yield Span(given.start(), given.end("last"), "PERSON", _TOLD)
    yield from _lone(text, lists)


def _lone(text: str, lists: Lists) -> Iterator[Span]:
    """One name behind what is done with people alone: "Discharge Okafor today"."""
    for found in _DONE_WITH_PEOPLE.finditer(text):
        name = found["name"].lower()
        word = any(name in lists.words[kind] for kind in ("common", "label", "group", "day", "title"))
        if lists.names(name) and not (word or name in lists.places or lists.is_clinical(name)):
            yield Span(*found.span("name"), "PERSON", _TOLD)


def _is_order(text: str, start: int, end: int, lists: Lists) -> bool:
    word, following = text[start:end].lower(), _NEXT.match(text, end)
    if word not in lists.words["order"] or following is None:
        return False
    name = following["next"]
    if not (name[0].isupper() or lists.names(name)):
        return False
    if name.lower() in lists.words["order"] or not lists.names(word):
        return True  # "Please call …"
    if _SAID.match(text, end) is not None:
        return False
    told = name.lower() in lists.given or following["more"] is not None
    return told and _BEGINS.search(text, max(0, start - _BEFORE), start) is not None


def _begins_given(text: str, start: int, lists: Lists) -> bool:
    following = _NEXT.match(text, start)
    return following is not None and following["next"].lower() in lists.given


def _is_somebody(written: str, kind: str, lists: Lists) -> bool:
    """Whether it is a given name and a surname; of a person the given name is enough."""
    words = written.lower().split()
    given = bool(words) and words[0] in lists.given
    return given and (kind == "PERSON" if len(words) == 1 else all(map(lists.names, words)))
