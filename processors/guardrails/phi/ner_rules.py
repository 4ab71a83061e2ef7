"""What the tagger is told by rules: names and addresses by their form, names met again, and what only looks like a name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from .cues import EVERYDAY, introduced, is_titled
from .everyday import everyday
from .letters import written as in_letters
from .ner_words import Lists
from .orders import ordered
from .spans import TOLD, Span

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
    r"(?<![\w-])(?P<last>[A-Z][A-Z’'-]{1,20})(?:,\s?|[/^](?=[A-Z]{3}))(?P<first>[A-Z][A-Z’'-]{1,20})(?:\s[A-Z]\b\.?)?(?![\w-])"
)
_ENDS: Final = re.compile(r"\s*(?:\Z|\n|[-–—(;|]|MRN|DOB|\d)")
# Particles between the parts of one name.
_WITHIN: Final = re.compile(
    r"\s(?:(?:ibn|bin|bint|ben|abu|al|el|de|da|do|di|del|della|dos|das|du|la|las|los|le|van|von|der|den|ter|ten|zu)\s){1,3}"
)
_COMMA: Final = re.compile(
    r"(?<![\w-])(?P<last>[A-Z][a-z]+(?:[’'-][A-Z]?[a-z]+)*),\s(?P<first>[A-Z][a-z]+(?:-[A-Z][a-z]+)?)(?:\s[A-Z]\b\.?)?"
    r"(?=\s*(?:$|\n|\(|;|\||MRN|DOB|\d))"
)
# "Delgado, Rosa was seen": at the beginning of a sentence and before what somebody does.
_FILED: Final = re.compile(
    r"(?:(?<![^\n])|(?<=[.;:] ))(?P<last>[A-Z][a-z]+(?:[’'-][A-Z]?[a-z]+)*),\s"
    r"(?P<first>[A-Z][a-z]+(?:-[A-Z][a-z]+)?)(?:\s[A-Z]\b\.?)?"
    r"(?=\s(?:was|is|has|had|presents|presented|reports|reported|denies|denied|complains|states|called|arrived)\b)"
)
# What reads like a name at the beginning of an order, and is a verb or an adjective there.
_NO_NAME: Final = re.compile(
    r"(?:Mark|Bill|Chase|Grant|Pat|Drew|Rob)\s(?:the|an?|your|this|that|all|each|blood|labs|access|dry|down|insurance"
    r"|incisions?|lesions?|sites?|margins?)\b|(?:May|Will)\s(?:I|we|you|it|he|she|they|not|be|have|need)\b|Congo\sred"
    r"|Rich\sin\b|Art\stherapy"
    r"|Frank\s(?:\w+(?:uria|emia|rhage)|blood|pus|bleeding)|Jack\s?knife|Max\s(?:dose|assist|temp|HR)\b"
    r"|(?:Lily|Ivy|Rose|Olive|Daisy)\s(?:allergy|pollen|rash|bengal|hips?|oil|to|from)\b",
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
_CAPITALISED: Final = re.compile(r"[A-Z][^\W\d_]{2,}")
_SMALL_TAIL: Final = re.compile(r"\s[a-z]+\Z")
_SURNAME: Final = re.compile(r" (?P<name>[A-Z](?:[a-z]+|[A-Z]{2,}))(?![\w-])")
# An herb, the forms that an answer is asked for in, and a number's word.
_WORT: Final = re.compile(r"(?:['’]?s)?\s+wort\b", re.IGNORECASE)
_FORMATS: Final = frozenset("JSON XML CSV YAML HTML PDF SQL FHIR API Markdown".split())  # noqa: SIM905
_DEA: Final = re.compile(r"(?:.{0,24}['’]s )?DEA")
_ITS_NUMBER: Final = re.compile(r"\W{1,3}(?:(?i:no|number|is|registration)\W{1,3})?[A-Z]{2}\d")
_WEEKDAY: Final = re.compile(r"(?:mon|tues|wednes|thurs|fri|satur|sun)days?", re.IGNORECASE)
# Surnames that a tool or a sign bears as well.
_BORNE: Final = frozenset(
    "addison baker barrett becker bell foley fowler johnson murphy stevens turner weber weiss wells wilson".split()  # noqa: SIM905
)
# So far about a name it is asked whether all is written small, or in capitals: the whole text would be read for every name.
_ABOUT: Final = 2_000
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
    yield from introduced(text, lists)
    yield from in_letters(text, lists)
    yield from everyday(text, lists)
    yield from ordered(text, lists)
    if "," in text:
        yield from _filed(text, lists)
    if "," in text or "/" in text or "^" in text:
        for pattern in (_CAPITALS, _COMMA):
            for found in pattern.finditer(text):
                last, first = found["last"].lower(), found["first"].lower()
                known = (last in lists.surnames or first in lists.given) and first not in lists.words["label"]
                if known and first not in lists.places and not lists.is_clinical(last) and not lists.is_clinical(first):
                    both = last in lists.surnames and first in lists.given
                    told = both and _ENDS.match(text, found.end()) is not None
                    yield Span(found.start(), found.end(), "PERSON", TOLD if told else _CERTAIN if both else 0.85)


def _filed(text: str, lists: Lists) -> Iterator[Span]:
    """Surname first. "Boston, Rosa was seen" names a town and "Maria, Rosa was here" speaks to somebody."""
    for found in _FILED.finditer(text):
        last, first = found["last"].lower(), found["first"].lower()
        if last in lists.places or last in lists.words["common"] or first in lists.words["never"]:
            continue
        if last in lists.surnames and last not in lists.given and first in lists.given:
            yield Span(found.start(), found.end(), "PERSON", _CERTAIN)


def again(text: str, spans: Sequence[Span]) -> Iterator[Span]:
    """Where a person that was found stands once more, whole or by one name, in the same letters."""
    names: dict[str, float] = {}
    for span in spans:
        if span.type == "PERSON" and span.score >= _SURE:
            score = min(span.score, _CERTAIN)  # what a title told of a word of every day is told there alone
            for word in _WORD.finditer(text, span.start, span.end):
                name = word.group()
                if len(name) >= _SHORTEST and name[0].isupper():
                    names[name] = max(score, names.get(name, 0.0))
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
    if _WEEKDAY.fullmatch(written) or written in _FORMATS or _WORT.match(text, span.end) is not None:
        return True
    if _DEA.fullmatch(written) and _ITS_NUMBER.match(text, span.end) is not None:
        return True
    if span.type != "ORGANIZATION" and _NO_NAME.match(text, span.start) is not None:
        return True
    lower = written.lower()
    words = lower.split()
    if len(lower) < 2 and not (span.type == "PERSON" and text[span.end : span.end + 1] == "."):
        return True
    labels = [word.strip(",.:#") in lists.words["label"] for word in words]
    if any(labels) and all(label or any(map(str.isdigit, word)) for label, word in zip(labels, words, strict=True)):
        return True  # what stands before a number, and the number
    about = text[max(0, span.start - _ABOUT) : span.end + _ABOUT]
    if not about.islower() and written.islower() and _are_only_words(span.type, words, lists):
        return True
    if not about.isupper() and written.isupper() and _is_abbreviation(span.type, words, lists):
        return True
    if all(word.strip(",.'’") in lists.words["common"] for word in words):
        if span.score >= TOLD and (words[0].strip(",") in EVERYDAY or is_titled(text, span.start)):
            return False
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


def _are_only_words(kind: str, words: Sequence[str], lists: Lists) -> bool:
    """Whether none of these small words, in a text that has capitals too, is known as a name."""
    if kind == "LOCATION":
        return len(words) == 1 and not (lists.names(words[0]) or words[0] in lists.places)
    return not any(lists.names(word.strip(".,'’")) for word in words) or (kind == "ORGANIZATION" and len(words) == 1)


def _is_abbreviation(kind: str, words: Sequence[str], lists: Lists) -> bool:
    short = kind != "LOCATION" and len(words) == 1 and words[0].isalpha() and len(words[0]) <= 4
    return short and not (lists.names(words[0]) or words[0] in lists.places)


def whole(text: str, span: Span, lists: Lists) -> Span:
    """A person with the surname behind a given name ("Karen Young"), without the verb behind a name ("Anne-Marie calls")."""
    if span.type != "PERSON":
        return span
    start, end = span.start, span.end
    while (tail := _SMALL_TAIL.search(text, start, end)) is not None and _CAPITALISED.search(text, start, tail.start()):
        end = tail.start()
    while (tail := _SMALL_TAIL.search(text, start, end)) is not None and _is_only_word(tail.group().strip(), lists):
        end = tail.start()
    last, more = text[start:end].rpartition(" ")[2], _SURNAME.match(text, end)
    if more is not None and last.lower() in lists.given and (last.istitle() if more["name"].istitle() else last.isupper()):
        name = more["name"].lower()
        word = name in lists.words["common" if last.isupper() else "never"]
        if name in lists.surnames and not word and not _is_eponym(text, name, more.end(), lists):
            end = more.end()
    return span._replace(end=end)


def _is_eponym(text: str, name: str, end: int, lists: Lists) -> bool:
    """Whether behind a given name a drug or a disease stands, and no surname that a disease or a tool bears as well."""
    if name in lists.words["drug"] or name not in _BORNE:
        return lists.is_clinical(name)
    return _OF_MEDICINE.match(text, end) is not None


def bridged(text: str, spans: Sequence[Span]) -> Iterator[Span]:
    """What stands between two parts of one name: the "ibn" of "Abd al-Rahman ibn Yusuf"."""
    people = sorted(span for span in spans if span.type == "PERSON")
    for first, second in pairwise(people):
        if first.end < second.start <= first.end + 16 and _WITHIN.fullmatch(text, first.end, second.start) is not None:
            yield Span(first.start, second.end, "PERSON", min(first.score, second.score))


def _is_only_word(word: str, lists: Lists) -> bool:
    return word in lists.words["common"] and not lists.names(word)


def known_name(piece: str, lists: Lists) -> bool:
    """A word with a capital that a list knows as a name of people, and that is no word of every day."""
    word = piece.strip()
    lower = word.lower()
    return word.istitle() and lists.names(word) and lower not in lists.words["common"] and not lists.is_clinical(lower)
