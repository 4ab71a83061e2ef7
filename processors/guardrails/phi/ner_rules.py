"""What the tagger is told by rules: names and addresses by their form, names met again, and what only looks like a name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from .ner_words import Lists
from .spans import Span

_SUFFIX: Final = (
    "street|st|avenue|ave|boulevard|blvd|road|rd|lane|ln|drive|dr|court|ct|place|pl|square|sq|terrace|ter|trail|trl|parkway|pkwy|circle"
    "|cir|highway|hwy|way|alley|crescent|close|grove|mews|loop|plaza|turnpike|pike"
)
# "1420 N. Elm Street", "77 Old Mill Rd, Apt 4B"; a number and a suffix, whatever stands between begins with a capital.
_STREET: Final = re.compile(
    r"(?<![\w/.$#-])\d{1,6}[A-Za-z]?(?:[ -]1/2)?[ ]+(?:(?:[NSEW]|NE|NW|SE|SW)\.?[ ]+)?"
    r"(?:(?:[A-Z][\w’'.-]*|\d{1,3}(?:st|nd|rd|th|ST|ND|RD|TH))[ ]+){1,4}?"
    rf"(?:(?i:{_SUFFIX}))(?![\w’'])\.?(?:[ ](?:[NSEW]|NE|NW|SE|SW)\b\.?)?"
    r"(?:,?\s{1,2}(?:(?i:apt|apartment|suite|ste|unit|room|rm|floor|fl|bldg|building|lot)\b\.?[ ]?#?|#)[ ]?"
    r"[A-Za-z]?-?\d*[A-Za-z]?\b)?"
)
# The same written small: only where a suffix is spelt out or a house number goes before "x street".
_SMALL_STREET: Final = re.compile(
    r"(?<![\w/.$#-])\d{1,6}\s(?:(?:[nsew]|north|south|east|west)\.?\s)?(?:[a-z’'-]{3,}\s){1,2}"
    r"(?:street|avenue|boulevard|lane|drive|road|court|parkway|blvd|ave)\b"
)
_BOX: Final = re.compile(r"\b(?:P\.?\s?O\.?|(?i:post\soffice))\s?(?i:box)\s\#?\d{1,6}\b")
_CAPITALS: Final = re.compile(
    r"(?<![\w-])(?P<last>[A-Z][A-Z’'-]{1,20}),\s?(?P<first>[A-Z][A-Z’'-]{1,20})(?:\s[A-Z]\b\.?)?(?![\w-])"
)
_COMMA: Final = re.compile(
    r"(?<![\w-])(?P<last>[A-Z][a-z]+(?:[’'-][A-Z]?[a-z]+)*),\s(?P<first>[A-Z][a-z]+(?:-[A-Z][a-z]+)?)(?:\s[A-Z]\b\.?)?"
    r"(?=\s*(?:$|\n|\(|;|\||MRN|DOB|\d))"
)
# Behind a title stands a name, whatever it is; a second and third word are taken where they begin with a capital too.
_TITLED: Final = re.compile(
    r"(?<![\w.])(?:M(?:r|rs|s|x)\b\.?|Dr\b\.?|Prof\b\.?|Miss|Mister|Doctor|Nurse|Señora?|Sra?\b\.|Herr|Frau)\s{1,2}"
    r"(?P<name>(?:[A-Z]\.\s?){0,2}[A-Z][\w’'-]+(?:[ ](?:[A-Z]\.|[A-Z][\w’'-]+)){0,2})"
)
# What introduces a name even in small letters; there it must be one that a list knows.
_CUE: Final = re.compile(
    r"(?<!\w)(?:my\s(?:full\s|last\s|first\s)?name(?:\sis|’s|'s)|name\s?:|named|dr\.|mrs?\.|ms\.|mister|signed(?:\sby)?:?|"
    r"(?:my|her|his|their|our|the|patient[’']?s)\s(?:mother|father|mom|dad|son|daughter|wife|husband|brother|sister|aunt|uncle|friend))"
    r",?\s+(?P<name>[^\W\d_]{2,}(?:['’-][^\W\d_]+)*(?:\s(?:[^\W\d_]\.\s)?[^\W\d_]{2,}(?:['’-][^\W\d_]+)*)?)",
    re.IGNORECASE,
)

# De-identified notes write these for whoever it was; they name nobody.
_PLACEHOLDERS: Final = re.compile(
    r"(?:[XYZ][\s.]*){1,3}|ABC|A[\s.]*B[\s.]*C|X+|_+|Name|First|Last|N/?A|Unknown|None", re.IGNORECASE
)
_SPEAKERS: Final = re.compile(
    r"(?:doctor|dr|patient|pt|nurse|guest[_ ]?\w*|clinician|physician|provider|agent|customer|user|assistant|system|bot|human"
    r"|ai|caller|interviewer|speaker)s?",
    re.IGNORECASE,
)
# Behind an eponym these say that a disease, a sign or a thing is meant, and nobody.
_OF_MEDICINE: Final = re.compile(
    r"(?:['’]?s)?[\s-]+(?:disease|syndrome|sign|test|score|scale|palsy|lymphoma|sarcoma|tumou?r|catheter|tendon|phenomenon|"
    r"chorea|thyroiditis|esophagus|ulcer|procedure|maneuver|manoeuvre|position|method|reflex|contracture|fracture|hernia|ganglion|stain|smear|classification|"
    r"criteria|index|diverticulum|encephalopathy|lactate|solution|drain|monitor|pump|node|nodes|cell|cells|ataxia|anemia|purpura|nodule|"
    r"nodules|duct|gland|canal|line|lines|triad|law|formula|protocol|regimen|stage|grade|dystrophy|deformity|cyst|neuroma|arthropathy)\b",
    re.IGNORECASE,
)
# Said of a patient in every other note, and of a sixth of a country.
_RACES: Final = re.compile(r"(?:african|afro)(?:[\s-]americans?)?|caucasians?|hispanics?|latin[oax]s?|asians?", re.IGNORECASE)
_AFRICAN: Final = re.compile(r"(?:african|afro)[\s-]\Z", re.IGNORECASE)
# As sure as the tagger ever is.
_CERTAIN: Final = 0.99
# A name is looked for elsewhere when it is this sure and this long.
_SURE, _SHORTEST = 0.85, 4
_WORD: Final = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def by_form(text: str, lists: Lists) -> Iterator[Span]:
    """Addresses and names that their form gives away; they may overlap what the tagger found."""
    if any(map(str.isdigit, text)):
        for pattern in (_STREET, _SMALL_STREET, _BOX):
            for found in pattern.finditer(text):
                yield Span(found.start(), found.end(), "LOCATION", 0.85)
    for found in _TITLED.finditer(text):
        start, end = found.span("name")
        words = found["name"].split()
        while len(words) > 1 and not _named(words[-1], lists):
            end -= len(words.pop()) + 1
        if not _clinical(words[0].lower(), lists):
            yield Span(start, text.rindex(words[-1], start, end) + len(words[-1].rstrip(".,")), "PERSON", 0.85)
    for found in _CUE.finditer(text):
        words = found["name"].split()
        if not _named(words[0], lists) or words[0].lower() in lists.words["common"]:
            continue
        end = (
            found.end("name")
            if all(_named(word, lists) and word.lower() not in lists.words["common"] for word in words[1:])
            else found.start("name") + len(words[0])
        )
        yield Span(found.start("name"), end, "PERSON", 0.75)
    if "," in text:
        for pattern in (_CAPITALS, _COMMA):
            for found in pattern.finditer(text):
                last, first = found["last"].lower(), found["first"].lower()
                known = last in lists.surnames or first in lists.given
                if known and first not in lists.places and not _clinical(last, lists) and not _clinical(first, lists):
                    both = last in lists.surnames and first in lists.given
                    yield Span(found.start(), found.end(), "PERSON", _CERTAIN if both else 0.85)


def again(text: str, spans: Sequence[Span]) -> Iterator[Span]:
    """Where a person that was found stands once more, whole or by one name, in the same letters."""
    names: dict[str, float] = {}
    for span in spans:
        if span.type == "PERSON" and span.score >= _SURE:
            for word in _WORD.finditer(text, span.start, span.end):
                name = word.group()
                if len(name) >= _SHORTEST and name[0].isupper():
                    names[name] = max(span.score, names.get(name, 0.0))
    # Each name once, however often it was found: in a roster that is the difference between one and a thousand readings.
    for name, score in names.items():
        at = text.find(name)
        while at >= 0:
            end = at + len(name)
            if not (text[at - 1 : at].isalnum() or text[end : end + 1].isalnum()):
                yield Span(at, end, "PERSON", score)
            at = text.find(name, end)


def means_nobody(text: str, span: Span, lists: Lists) -> bool:
    """Placeholders, speakers, drugs, eponyms of medicine and words of race: what looks like a name and identifies nobody."""
    written = text[span.start : span.end]
    if span.type == "NRP":
        return _RACES.fullmatch(written) is not None or _AFRICAN.search(text, max(0, span.start - 8), span.start) is not None
    if _PLACEHOLDERS.fullmatch(written) or _SPEAKERS.fullmatch(written) or not any(map(str.isalpha, written)):
        return True
    lower = written.lower()
    words = lower.split()
    if len(lower) < 2 and not (span.type == "PERSON" and text[span.end : span.end + 1] == "."):
        return True
    labels = [word.strip(",.:#") in lists.words["label"] for word in words]
    if any(labels) and all(label or any(map(str.isdigit, word)) for label, word in zip(labels, words, strict=True)):
        return True  # what stands before a number, and the number
    if len(words) == 1 and not (_named(lower, lists) or lower in lists.places):
        # Among words with capitals a small one is a word, and four capitals are an abbreviation.
        if written.islower() and not text.islower():
            return True
        if span.type != "LOCATION" and written.isupper() and written.isalpha() and len(written) <= 4 and not text.isupper():
            return True
    if all(word.strip(",.'’") in lists.words["common"] for word in words):
        return written != written.title() or lower in lists.words["never"]
    if span.type in {"PERSON", "ORGANIZATION"} and all(word.strip(",./-") in lists.words["drug"] for word in words):
        return True
    if (
        len(words) <= 2
        and span.type != "LOCATION"
        and any(word in lists.words["clinical"] for word in re.split(r"[\s'’-]+", lower))
    ):
        return _OF_MEDICINE.match(text, span.end) is not None
    return False


def known_name(piece: str, lists: Lists) -> bool:
    """A word with a capital that a list knows as a name of people, and that is no word of every day."""
    word = piece.strip()
    lower = word.lower()
    return word.istitle() and _named(word, lists) and lower not in lists.words["common"] and not _clinical(lower, lists)


def _named(word: str, lists: Lists) -> bool:
    lower = word.lower()
    return lower in lists.given or lower in lists.surnames or (len(word) == 2 and word[1] == ".")


def _clinical(word: str, lists: Lists) -> bool:
    return word in lists.words["drug"] or word in lists.words["clinical"]
