"""Doctors whose names signs, scores and instruments bear: "Romberg negative", "Kocher clamps", "Bishop 6" are nobody.

nobody else bears it (Babinski)    nobody, unless somebody is spoken of: a title, a given name, "called", "MD"
many bear it (Murphy, Weber)       nobody only beside a word of medicine: "Murphy sign", "Weber lateralizes"
"""

from __future__ import annotations

import re
from typing import Final

from .ner_words import read_lists, sections

_LISTS: Final = sections("eponyms.txt")
_RARE: Final = frozenset(word for line in _LISTS["rare"] for word in line.split())
_SHARED: Final = frozenset(word for line in _LISTS["shared"] for word in line.split())
_THINGS: Final = "|".join(word for line in _LISTS["thing"] for word in line.split())
# What is said of a sign, and of a thing that somebody does something with; "placed the order" is said of people.
_SAID: Final = (
    r"(?:negative|positive)(?!\s+for)|neg\b|pos\b|absent|equivocal|(?:down|up)going|bilateral(?:ly)?|lateraliz|intact\b"
    r"|in place|out\b(?! of)"
    r"|(?:placed|inserted|removed|applied|performed|reduced|maintained|draining|d/c'?d)(?!\s+(?:the|a|an|his|her|my|orders?|consult)\b)"
    r"|I{2,3}\b|IV\b|VI{1,3}\b"
)
# What somebody may have had, whatever the name: "Kelly surgery" is no proof.
_OWNED: Final = (
    r"(?:surgery|rash|mass|lesions?|cultures?|tests\b|test\s+results|resection|repair|dressings?|monitor|pump|level|type|block|brace"
    r"|needle|procedure|operation|tumou?r|boots?|wires?|class|cells?|area|joints?|pattern|line)\b"
)
_OF_MEDICINE: Final = re.compile(rf"(?:['’]s?)?(?:\s[IVX]{{1,4}})?[\s-]+(?:(?:{_THINGS})s?\b|{_SAID})", re.IGNORECASE)
_PERHAPS: Final = re.compile(rf"[\s-]+{_OWNED}", re.IGNORECASE)
# The next name of a list: "Allis, Babcock and Kocher clamps", "Ranson 3, Mallampati II".
_NEXT: Final = re.compile(
    r"(?:['’]s?)?(?:\s(?:\d{1,2}|[IVX]{1,4})\b)?(?:\s?[,/&]\s?(?:and\s|or\s)?|\s(?:and|or)\s)(?P<name>[A-Z][\w-]+)"
)
_MOST_IN_A_LIST: Final = 5
# "Hashimoto's, Graves', Addison's": a disease without its noun.
_DISEASES: Final = frozenset(
    """addison alzheimer barrett bell crohn cushing graves hashimoto hodgkin huntington meniere paget parkinson raynaud
    sjogren wegener wilson""".split()  # noqa: SIM905
)
_POSSESSED: Final = re.compile(r"['’]s?(?=\s?[,.;:)/]|\s?\Z|\s(?:on|flare|exacerbation|with|and|or|since|x\d)\b)")
_COUNTED: Final = frozenset("apgar apgars bishop braden morse norton glasgow gleason wells ranson forrest barthel".split())  # noqa: SIM905
_NUMBER: Final = re.compile(r"(?:\s(?:is|of|was|score))?\s?[:=]?\s?\d{1,3}\b")
# A tool that goes without its noun: behind what is done with one, and in a list of lines.
_TOOLS: Final = frozenset({"foley", "hickman", "holter"})
_HANDLED: Final = re.compile(
    r"\b(?:(?:insert|remov|plac)(?:e|ed|ing)|continue|keep|d/c|dc|indwelling|an?|no|lines?:|(?:PIVs?|PICC|IV|ETT|NGT?|OGT|CVC),)"
    r"\s\Z",
    re.IGNORECASE,
)
_SET_OFF: Final = re.compile(r"\s?[.,;)]|\s?\Z|\s(?:and|for|today)\b")
# How far before a tool it is asked what is done with it.
_BEFORE: Final = 16
_LINES: Final = re.compile(r",\s(?:PIVs?|PICC|IVs?|ETT|NGT?|OGT|CVC|central|arterial|art|a-)\b")
# Before a name these say that somebody is meant, and behind it.
_SOMEBODY: Final = re.compile(
    r"(?:\b(?:mr|mrs|ms|miss|mx|dr|doctor|prof|professor|nurse|sir|rev|patient|pt|name|named|dear|hi|hello|signed|attending"
    r"|surgeon|provider|resident|wife|husband|mother|father|son|daughter|sister|brother|called|asked|told|notified|paged|by|md)\b"
    r"[.:,]?\s{1,2}"
    r"|\b[A-Z]\.\s?)\Z",
    re.IGNORECASE,
)
_DOES: Final = re.compile(
    r"(?:,?\s(?:M\.?D|D\.?O|R\.?N|Ph\.?D|N\.?P|P\.?A)\b|\s(?:called|calls|says?|said|stat(?:es|ed)|report(?:s|ed)|present(?:s|ed)"
    r"|is\sa|was\s(?:seen|admitted|born|discharged|called)|has|had|lives|asked|complains|denies|came|went|agrees|wrote|notes"
    r"|recommend(?:s|ed))\b)"
)
_GIVEN_BEFORE: Final = re.compile(r"([^\W\d_]{2,})\s\Z")
_TOKEN: Final = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def means_medicine(text: str, start: int, end: int) -> bool:
    """Whether the name at `[start, end)` is that of a sign, a score, an operation or a tool."""
    while start and (text[start - 1].isalnum() or text[start - 1] == "-"):
        start -= 1
    while end < len(text) and (text[end].isalnum() or (text[end] == "-" and text[end + 1 : end + 2].isalpha())):
        end += 1
    words = [word.group() for word in _TOKEN.finditer(text, start, end)]
    names = [word for word in words if not _is_thing(word)]
    bearers = [_bearer(name) for name in names]
    if not names or not all(bearers) or _is_somebody(text, start, end):
        return False
    rare = all(bearer == "rare" for bearer in bearers)
    if rare or (len(names) < len(words) and _PERHAPS.fullmatch(" " + words[-1]) is None):
        return True
    folded = _folded(names[-1])
    if len(words) == 1 and folded in _TOOLS:
        handled = _HANDLED.search(text, max(0, start - _BEFORE), start) is not None
        if (handled and _SET_OFF.match(text, end) is not None) or _LINES.match(text, end) is not None:
            return True
    return (
        (folded in _COUNTED and _NUMBER.match(text, end) is not None)
        or (folded in _DISEASES and _POSSESSED.match(text, end - 2 if names[-1][-2:] in {"'s", "’s"} else end) is not None)
        or _is_said_of(text, end)
    )


def _is_said_of(text: str, end: int) -> bool:
    """Whether a word of medicine stands behind the name, or behind the last of a list of such names."""
    for _ in range(_MOST_IN_A_LIST):
        if _OF_MEDICINE.match(text, end) is not None:
            return _PERHAPS.match(text, end) is None
        following = _NEXT.match(text, end)
        if following is None or _bearer(following["name"]) is None:
            return False
        end = following.end()
    return False


def _folded(name: str) -> str:
    return name.casefold().removesuffix("'s").removesuffix("’s")


def _bearer(name: str) -> str | None:
    folded = _folded(name)
    for word in (folded, folded.removesuffix("s")):
        if word in _RARE:
            return "rare"
        if word in _SHARED:
            return "shared"
    parts = folded.split("-")
    if len(parts) > 1 and all(part in _RARE or part in _SHARED for part in parts):
        return "rare"
    return None


def _is_thing(word: str) -> bool:
    return re.fullmatch(rf"(?:(?:{_THINGS})s?|[IVX]+|\d+)", word, re.IGNORECASE) is not None


def _is_somebody(text: str, start: int, end: int) -> bool:
    if _SOMEBODY.search(text, max(0, start - 16), start) is not None or _DOES.match(text, end) is not None:
        return True
    before = _GIVEN_BEFORE.search(text, max(0, start - 24), start)
    return (
        before is not None
        and before[1][0].isupper()
        and before[1].lower() in read_lists().given
        and before[1].lower() not in (read_lists().words["common"])
    )
