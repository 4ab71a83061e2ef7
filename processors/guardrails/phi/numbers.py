"""Numbers that stand for a person: found by their shape, their check digit, or by what is written beside them.

token or shape ─► label beside it? ─► validator ─► span
                     │ CODE: a clinical code, not a person's
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from . import pictures, shapes, spoken, zones
from .beside import WEAK, Beside, Label
from .ner import Span
from .shapes import LEADING, Shape
from .zones import Zones, matches

# How far before a telephone number a word for fax may stand.
_BEFORE: Final = 72
_LAST_FOUR: Final = re.compile(
    r"[lLfF](?<!\w.)(?i:(?:(?<=l)ast|(?<=f)inal)\s+(?:four|4)(?:\s+(?:digits|numbers|of))*"
    r"(?:\s+(?:on|of|for|my|his|her|their|the|your|patient'?s?|file|social|security|ssn|card|credit|number|account|no)\b\.?)*"
    r"[\s:=(#]*(?:is|are|as|:)?[\s:(#]*)(?P<value>\d{4})(?!\d|[-/]\d)"
)
_TRAILING: Final = re.compile(r"(?: (?:\d{2,5}|[A-Z]{1,3}\d{1,6}|\d{1,6}[A-Z]{1,3}|[A-Z]{1,3}(?= \d)))(?![\w-]|[.,/]\d)")
_DOSE: Final = re.compile(
    r"\s?-?(?:mg|mcg|µg|ug|gm?|kg|ml|cc|dl|l|meq|mmol|iu|units?|mm|cm|bpm|percent|%|tablets?|tabs?|capsules?|puffs?"
    r"|doses?|cells?|copies|steps|calories|"
    r"kcal|hours?|days?|weeks?|months?|years?|patients|people|participants|times|dollars|usd|per|mmhg|k/ul|/ul|ng|pg"
    r"|msec|hz)(?![A-Za-z])|/(?:mm|ul|µl|ml|l|dl|cu)",
    re.IGNORECASE,
)
# What dates know better, but for old record numbers ("12-34-56").
_LIKE_A_DAY: Final = re.compile(r"\d{1,2}([-/.])\d{1,2}\1(?:\d{2}|\d{4})|\d{4}-\d{2}-\d{2}")
_ZIP: Final = re.compile(r"\d{5}(?:-\d{4})?")
_FAXED: Final = re.compile(r"\b(?P<label>fax(?:es|ed)?|facsimile)\b[^.\d\n;]{0,60}\Z", re.IGNORECASE)
# Seven digits are a telephone number behind whom one calls, though names stand between.
_LOCAL: Final = re.compile(r"[2-9]\d\d[-.]\d{4}")
_CALLS: Final = re.compile(
    r"\b(?:call(?:ed|s|ing)?|phone[ds]?|tel|cell|mobile|contacts?|contacted|reach(?:ed)?|numbers?|text(?:ed)?|page[rd]?|fax(?:ed)?"
    r"|mother|father|mom|dad|son|daughter|wife|husband|brother|sister|spouse|partner|friend|neighbor)\b"
    r"(?:(?!\b(?:if|when|unless|until|was|were|are|than|range|between|from|over|dose|score|levels?|counts?)\b)"
    r"(?:[^.;\n\d]|(?<=Dr|Mr|Ms)\.|(?<=Mrs)\.)){0,40}\Z",
    re.IGNORECASE,
)
_YEARLIKE: Final = re.compile(r"(?:19|20)\d{2}\Z")
_STREET: Final = re.compile(r"(?:\s|,\s)?(?:[NSEW]\.?\s)?[A-Z][\w.'-]*[a-z](?![\w:])")
_ADDRESS: Final = re.compile(
    r"(?:\s[A-Z][\w.'-]*){1,4}?\s(?:St|Street|Ave?|Avenue|R(?:oa)?d|L(?:a)?ne?|Dr|Drive|C(?:our)?t|Pl(?:ace)?|Blvd|Boulevard|Terrace|Way"
    r"|Circle|Parkway)\b"
)
_SURE_LINK: Final = re.compile(r"[#:]|number|no\.|\bid\b|\bis\b", re.IGNORECASE)

# The fewest digits that a label makes a number of, where not `_FEW`.
_FEW: Final = 4
_LEAST_DIGITS: Final = {
    "PHONE_NUMBER": 6,
    "FAX_NUMBER": 6,
    "CREDIT_CARD": 4,
    "US_SSN": 4,
    "UNIQUE_ID": 4,
    "LICENSE_PLATE": 1,
    "IBAN_CODE": 8,
    "ABA_ROUTING_NUMBER": 8,
    "DEVICE_ID": 3,
    "MEDICAL_RECORD_NUMBER": 4,
    "BIOMETRIC_ID": 3,
    "PHOTO_ID": 3,
    "US_DRIVER_LICENSE": 4,
    "US_HEALTH_INSURANCE_MEMBER_ID": 4,
}
_AND: Final = re.compile(r"\s?(?:,|;|/|&|and|or|,\s?and|,\s?or)\s?")
# The score of what a label makes of a number, and of what somebody may be called by.
_LABELLED, _CALLED = 0.86, 0.5
# Below this, a telephone number is one by its groups alone.
_GROUPED: Final = 0.5


def find(text: str, within: Zones | None = None) -> Iterator[Span]:
    """Identifiers of one text; they may overlap. Scores: .95 and more by a check digit, .86 by a label, less by shape."""
    within = zones.of(text) if within is None else within
    if within:
        beside = Beside(text, within)
        last: Span | None = None
        for shape in shapes.find(text, within):
            spans = list(_judged(shape, text, beside))
            if last is not None and all(span.type == "UNIQUE_ID" for span in spans) and _goes_on(last, shape, text):
                spans = [Span(shape.start, shape.end, last.type, last.score)]
            yield from spans
            last = spans[0] if spans and spans[0].score == _LABELLED else last
        for match in matches(_LAST_FOUR, text, within):
            card = re.search(r"card|account", match.group(), re.IGNORECASE) or re.search(
                r"card", text[max(0, match.start() - 30) : match.start()]
            )
            yield Span(*match.span("value"), "CREDIT_CARD" if card else "US_SSN", 0.7)
    yield from pictures.find(text)
    for said in spoken.find(text):
        label = Beside(text, [(said.start, said.start)]).nearest(said.start)
        if label is None or label.type not in ("CODE", "UNIQUE_ID"):
            yield Span(said.start, said.end, label.type if label else "PHONE_NUMBER", 0.7)


def _goes_on(last: Span, shape: Shape, text: str) -> bool:
    """ "MRNs 448812 and 448913": the second has the label of the first, and its length."""
    alike = abs((shape.end - shape.start) - (last.end - last.start)) <= 1
    return alike and shape.end - shape.start >= 5 and not shape.sure and _AND.fullmatch(text, last.end, shape.start) is not None


def _judged(shape: Shape, text: str, beside: Beside) -> Iterator[Span]:
    if shape.sure:
        yield Span(shape.start, shape.end, str(shape.type), shape.score)
        return
    start, end = shape.start, shape.end
    labels = beside.before(start)
    label = labels[0] if labels else None
    if (
        label is None
        and (shape.type is None or shape.score < _GROUPED)
        and (lead := LEADING.search(text, max(0, start - 5), start)) is not None
    ):
        label = beside.nearest(lead.start())
        if label is not None and label.type != "CODE":
            start = lead.start()
    if label is not None and label.type == "CODE":
        return
    if (
        shape.type == "PHONE_NUMBER"
        and shape.score < 0.3
        and (label is None or label.type not in ("PHONE_NUMBER", "FAX_NUMBER"))
    ):
        return  # digits in groups of any length are only what they are called
    if shape.type == "PHONE_NUMBER" and shape.score >= 0.55:
        label = _of_a_phone(label, text, start)
    if label is None or (label.type in WEAK and shape.type is None):
        label = _after if (_after := beside.after(end)) is not None and _after.type != "CODE" else label
    written = text[start:end]
    if label is not None:
        if shape.type is None:
            start, end = _whole(text, start, end, label)
            written = text[start:end]
        kind = _labelled(label, shape, written, text, end)
        for other in labels[1:] if kind is None and shape.type in (None, "UNIQUE_ID") else ():
            kind = kind or _labelled(other, shape, written, text, end)
        if kind is not None:
            if kind == "MEDICAL_RECORD_NUMBER" or _LIKE_A_DAY.fullmatch(written) is None:
                yield Span(start, end, kind, _LABELLED)
            return
    if shape.type is None or _DOSE.match(text, shape.end):
        return
    if shape.score >= 0.4:
        yield Span(shape.start, shape.end, shape.type, shape.score)
    elif _LOCAL.fullmatch(written) and (call := _CALLS.search(text, max(0, start - _BEFORE), start)) is not None:
        yield Span(start, end, "FAX_NUMBER" if "fax" in call.group().lower() else "PHONE_NUMBER", _CALLED)


def _of_a_phone(label: Label | None, text: str, start: int) -> Label | None:
    """What is grouped like a telephone number is one, unless a label plainly says otherwise: not in "fax her chart to …"."""
    if label is not None and label.type not in WEAK | {"FAX_NUMBER"} and _SURE_LINK.search(text, label.start, start) is None:
        label = None
    if label is None and (fax := _FAXED.search(text, max(0, start - _BEFORE), start)) is not None:
        return Label("FAX_NUMBER", *fax.span("label"))
    return label


def _whole(text: str, start: int, end: int, label: Label) -> tuple[int, int]:
    """The number with the groups that follow it, where it is written in short groups."""
    if end - start > 5 or label.type in ("CODE", "UNIQUE_ID"):
        return start, end
    for _ in range(4):
        more = _TRAILING.match(text, end)
        if more is None or _DOSE.match(text, more.end()):
            break
        end = more.end()
    return start, end


def _labelled(label: Label, shape: Shape, written: str, text: str, end: int) -> str | None:
    """The type that the label gives, or None where the number cannot be that."""
    digits = sum(map(str.isdigit, written))
    if digits < _LEAST_DIGITS.get(label.type, _FEW):
        return None
    if (
        shape.type is not None
        and label.type in WEAK
        and not (shape.type in ("UNIQUE_ID", "UUID", "US_NPI", "DATE_TIME") and shape.score <= 0.6)
    ):
        return (
            "PHONE_NUMBER"
            if shape.type is None
            else (shape.type if shape.score >= 0.4 or label.type == "PHONE_NUMBER" else None)
        )
    if label.type == "PHONE_NUMBER" and (any(map(str.isalpha, written)) or digits > 15):
        return None
    if label.type == "FAX_NUMBER" and digits > 15:
        return None
    sure = _SURE_LINK.search(text, label.start, end - len(written)) is not None
    if written.isdigit() and len(written) < 6 and (_ADDRESS if sure and label.type not in WEAK else _STREET).match(text, end):
        return None  # the number of a house
    if label.type == "UNIQUE_ID" and not sure and len(written) < 6:
        return None
    if _ZIP.fullmatch(written) and text[label.start : end - len(written)].rstrip() == "ID":
        return None  # "ID 83702" is Boise's
    if _YEARLIKE.fullmatch(written) and not sure:
        return None
    if written.isdigit() and len(written) < 6 and _DOSE.match(text, end):
        return None
    if label.type == "US_SSN" and digits not in (4, 9):
        return None
    if label.type in ("CREDIT_CARD", "US_NPI", "ABA_ROUTING_NUMBER") and (
        digits > 19 or any(map(str.isalpha, written.strip("xX")))
    ):
        return None
    return label.type
