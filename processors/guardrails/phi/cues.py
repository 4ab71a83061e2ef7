"""What introduces a name: a title, a word for kin, "my name is". There a word of every day may be one.

"Mr. Will", "her daughter hope is here", "hi im mark"             names
"her son will call", "my wife, hope for the best"                 none
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from .ner_words import Lists
from .spans import TOLD, Span

# Behind a title stands a name, whatever it is; a second and third word are taken where they begin with a capital too.
_TITLED: Final = re.compile(
    r"(?<![\w.])(?:(?:M(?:r|rs|s|x)|MR|MRS|MS|DR)\b\.?|Drs?\b\.?|(?P<job>RN|LPN|CNA|APRN|PCP|Nurse|Doctor)|Prof\b\.?|Miss|Mister|Señora?|Sra?\b\.|Herr|Frau)\s{1,2}"
    r"(?P<name>(?:[A-Z]\.\s?){0,2}[A-Z][\w’'-]+(?:[ ](?:[A-Z]\.|[A-Z][\w’'-]+)){0,2})"
)
# What introduces a name even in small letters; there it must be one that a list knows.
_KIN: Final = (
    "mother|father|mom|dad|mum|son|daughter|wife|husband|brother|sister|aunt|uncle|friend|spouse|partner|grandson|granddaughter"
    "|grandmother|grandfather|niece|nephew|cousin|fiance|fiancee|boyfriend|girlfriend|caregiver|neighbor|roommate|guardian"
)
_CUE: Final = re.compile(
    r"(?<![\w-])(?:(?P<sure>my\s(?:full\s|last\s|first\s)?name(?:\sis|’s|'s)|name\s?:|named|dr\.|mrs?\.|ms\.|mister|signed(?:\sby)?:?"
    r"|(?:hi|hello|hey)[,.!]?\s(?:i['’]?m|i\sam|this\sis|it['’]?s)|this\sis\s(?:doctor|dr|nurse))"
    r"|baby\s(?:boy|girl)"
    rf"|(?:{_KIN})(?:-in-law)?"
    r"|the\s(?:patient|pt)(?=,))"
    r"(?:,?\s+|\s?\()(?P<name>[^\W\d_]{2,}(?:['’-][^\W\d_]+)*(?:\s(?:[^\W\d_]\.\s)?[^\W\d_]{2,}(?:['’-][^\W\d_]+)*)?)",
    re.IGNORECASE,
)
# Names that are words of every day: behind a cue they are names, unless a verb or a wish goes on.
EVERYDAY: Final = frozenset(
    """will may hope grant grace faith joy rose mark bill pat sue art rich frank drew chase dawn june april summer autumn
    amber ivy lily violet daisy iris olive pearl ruby crystal charity patience prudence constance honor honour harmony
    melody jade jasmine heather ginger sandy cliff clay earl dean penny robin wren jay chip ray gene miles pierce lance
    wade ward reed brook hunter carter mason young price day green brown black white king sky star guy jack jean max long
    moon stone wood rice""".split()  # noqa: SIM905
)
_HIS_NAME: Final = re.compile(
    r"['’]s\b|[.,;:)?!]|\s*\Z|\s(?:is|was|has|had|and|with|at|from|in|on|re|called|says|said|states|told|gave|saw|here)\b|\s\("
)
_WISH: Final = re.compile(r"\s(?:to|for|that|so|it|the|a|an|is\s(?:not|a|that)|you|we|they|he|she|i)\b", re.IGNORECASE)

# Without any of these no cue stands in a text: looking for a string is quick, for a pattern it is not.
_CUES: Final = (
    *_KIN.split("|"),
    "name",
    "dr.",
    "mr.",
    "mrs.",
    "ms.",
    "mister",
    "signed",
    "baby",
    *("hi i", "hi, i", "hi! i", "hi th", "hello", "hey i", "hey, i", "this is d", "this is n"),
    "patient,",
    "pt,",
)
# Behind these a word of every day is a name: "Mr. Will", "Dr. May". "Doctor May" and "Nurse will" may ask or promise.
_BEHIND_TITLE: Final = re.compile(r"(?<![\w.])(?:(?:mr|mrs|ms|mx|drs?|prof)\b\.?|miss|rn|lpn|cna|aprn)\s{1,2}\Z", re.IGNORECASE)
# Initials are somebody's where somebody comes or complains; "P.O." and "M.D." are not.
_INITIALS: Final = re.compile(
    r"(?P<name>[A-Z](?<![\w.].)\.(?<!P\.)(?: ?[A-Z]\.){1,2})(?<!M\.D\.)(?<!D\.O\.)(?<!R\.N\.)\s"
    r"(?:is\san?\s\d+|presents|presented|reports|reported|denies|denied|complains|was\s(?:seen|admitted|discharged))\b"
)
_POSSESSIVE: Final = re.compile(r"['’]s?\Z")


def introduced(text: str, lists: Lists) -> Iterator[Span]:
    """Names that something introduces; they may overlap."""
    for found in _TITLED.finditer(text):
        start, end = found.span("name")
        words = found["name"].split()
        while len(words) > 1 and not lists.names(words[-1]):
            end -= len(words.pop()) + 1
        if not lists.is_clinical(words[0].lower()) and (found["job"] is None or lists.names(words[0])):
            name = _POSSESSIVE.sub("", words[-1].rstrip(".,"))
            yield Span(start, text.rindex(words[-1], start, end) + len(name), "PERSON", TOLD)
    if ". " in text:
        for found in _INITIALS.finditer(text):
            yield Span(*found.span("name"), "PERSON", TOLD)
    lower = text.lower()
    if any(cue in lower for cue in _CUES):
        for found in _CUE.finditer(text):
            yield from _behind_cue(text, found, lists)


def is_titled(text: str, start: int) -> bool:
    """Whether a title stands before what begins at `start`."""
    return _BEHIND_TITLE.search(text, max(0, start - 8), start) is not None


def _behind_cue(text: str, cue: re.Match[str], lists: Lists) -> Iterator[Span]:
    start = cue.start("name")
    words = cue["name"].split()
    own = (cue["sure"] or "").lower().startswith(("my", "name"))
    while len(words) > 1 and not all(
        lists.names(word) and (own or word.lower() not in lists.words["common"]) for word in words[1:]
    ):
        words.pop()
    first, end = words[0], start + len(" ".join(words))
    if not lists.names(first) or not _may_be_one(first, lists):
        return
    if first.lower() in lists.words["common"] and not own:
        # "her son will is here" and "her son will call", "my wife hope is well" and "my wife, hope for the best".
        verb = first.lower() in {"will", "may"}
        if not (_HIS_NAME.match(text, end) if verb else _WISH.match(text, end) is None):
            return
    yield Span(start, end, "PERSON", TOLD)


def _may_be_one(word: str, lists: Lists) -> bool:
    return word.lower() in EVERYDAY or word.lower() not in lists.words["common"]
