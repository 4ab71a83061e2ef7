"""Names, places and numbers that their place in a form tells: no sentence stands about them, and many are words of every day.

    HL7 v2          PID|1||448812||MARTINEZ^ROSA         by segment and field (`hl7`)
    X12             NM1*IL*1*MARTINEZ*ROSA               by segment and element (`x12`)
    JSON, FHIR      {"family": "Rose", "given": ["Will"]} ┐
    XML, C-CDA      <given>Will</given>, <city value=…/>  │ by the name of the field (`fields`)
    tables, labels  name,dob / Will Rose,1/2/80           ┘ (`tables`)

Each reader passes over the text once and holds no more of it than one record. A text need not be whole or well formed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from . import fields, hl7, tables, x12
from .fields import Field
from .spans import Span

# Deeper than any record of a patient; what is deeper is read without what it stands in.
_DEEPEST: Final = 64
# Names that a parent gives a meaning: `identifier.value`, `address.line`, `name.text`.
_IN: Final = {
    ("identifier", "value"): Field("UNIQUE_ID", True),
    ("address", "line"): Field("LOCATION", True),
    ("address", "text"): Field("LOCATION", True),
    ("addr", "text"): Field("LOCATION", True),
    ("telecom", "value"): Field("PHONE_NUMBER", True),
    ("name", "text"): Field("PERSON", True),
    ("name", "given"): Field("PERSON", True),
    ("name", "family"): Field("PERSON", True),
    ("name", "first"): Field("PERSON", True),
    ("name", "last"): Field("PERSON", True),
}
# What an `identifier` says of itself, in the codes of HL7's table 0203.
_CODES: Final = {
    "MR": "MEDICAL_RECORD_NUMBER",
    "SS": "US_SSN",
    "DL": "US_DRIVER_LICENSE",
    "PPN": "US_PASSPORT",
    "AN": "ACCOUNT_NUMBER",
    "NPI": "US_NPI",
    "MB": "US_HEALTH_INSURANCE_MEMBER_ID",
    "MC": "US_MBI",
    "ACSN": "ACCESSION_NUMBER",
}
# One word in these is somebody only beside fields of a person: `{"text": "Colon"}`.
_ANYTHING: Final = frozenset({"text", "display"})
_HOLDERS: Final = frozenset(
    {"patient", "patientrole", "assignedentity", "assignedauthor", "relatedperson", "subject", "member"}
)

_MAY_BE_JSON: Final = re.compile(r"[\"']\s{0,8}:")
_REST_OF_JSON: Final = r"(?P<colon>\s{0,8}:)?|(?P<bare>(?<![\w.])\d{2,20}(?![\w.]))|(?P<open>[{\[])|(?P<close>[}\]])"
# Strings and what nests them; no string goes on past its line.
_JSON: Final = re.compile(r"(?:(?<!\\)\"(?P<d>(?:[^\"\\\n]|\\.)*+)\"|(?<!\w)'(?P<s>(?:[^'\\\n]|\\.)*+)'(?!\w))" + _REST_OF_JSON)
# The same in a string of JSON, its quotes escaped.
_INNER_JSON: Final = re.compile(
    r"(?:\\{1,7}\"(?P<d>(?:[^\"\\\n]|\\{1,7}[A-Za-z/])*+)\\{1,7}\"|\\'(?P<s>(?:[^'\\\n])*+)\\')" + _REST_OF_JSON
)
_TAG: Final = re.compile(
    r"<(?P<end>/?)(?:[\w.-]{1,30}:)?(?P<name>[A-Za-z][\w.-]{0,50})(?P<attributes>(?:\s[^<>]{0,1000})?)>(?P<value>[^<>]{0,200})"
)
_ATTRIBUTE: Final = re.compile(r"(?<![\w.-])(?P<name>[A-Za-z][\w.-]{0,50})\s?=\s?(?P<q>[\"'])(?P<value>[^\"<>]{0,200}?)(?P=q)")
_REFERENCE: Final = re.compile(
    r"\b(?:Patient|RelatedPerson|Practitioner|Person|Encounter)/(?P<value>[A-Za-z0-9.-]{2,64})(?![\w/-])"
)


class _Value(NamedTuple):
    """`[start, end)` stands in a field `name`, and that in one called `parent`; `code` is what the parent says of itself."""

    start: int
    end: int
    name: str
    parent: str
    code: str = ""


def find(text: str) -> Iterator[Span]:
    """What the forms in `text` tell; the spans may overlap."""
    yield from hl7.find(text)
    yield from x12.find(text)
    yield from tables.find(text)
    if _MAY_BE_JSON.search(text) is not None:
        yield from _told(text, list(_json(text, _JSON)))
        if '\\"' in text:
            yield from _told(text, list(_json(text, _INNER_JSON)))
    if "</" in text or "/>" in text:
        yield from _told(text, list(_xml(text)))
    for reference in _REFERENCE.finditer(text) if "/" in text else ():
        if any(map(str.isdigit, reference["value"])):
            yield Span(*reference.span("value"), "UNIQUE_ID", 0.7)


def _told(text: str, values: list[_Value]) -> Iterator[Span]:
    among_people = fields.of_people({value.name for value in values})
    for value in values:
        field = _field(value)
        if value.name.lower() in _ANYTHING and not among_people and " " not in text[value.start : value.end]:
            continue
        if field is not None and (found := fields.span(text, value.start, value.end, field, among_people=among_people)):
            yield found


def _field(value: _Value) -> Field | None:
    parent, name = value.parent.lower(), value.name.lower()
    if parent == "identifier" and value.code in _CODES and name == "value":
        return Field(_CODES[value.code], True)
    if (parent, name) in _IN:
        return _IN[parent, name]
    if name == "id" and parent in _HOLDERS:
        return Field("UNIQUE_ID", True)
    field = fields.named(name)
    if field is None or not field.sure:
        owned = fields.named(f"{parent} {name}") if parent else None
        return owned if owned is not None and owned.sure else field
    return field


class _Frame:
    """One object or list that is open: the field it stands in, and what it said of itself."""

    __slots__ = ("code", "is_list", "key", "pending")

    def __init__(self, key: str, is_list: bool) -> None:
        self.key, self.is_list, self.pending, self.code = key, is_list, "", ""


def _json(text: str, tokens: re.Pattern[str]) -> Iterator[_Value]:
    """Strings and numbers of JSON, or of what Python prints, with the names of their fields."""
    frames = [_Frame("", False)]
    for token in tokens.finditer(text):
        frame = frames[-1]
        kind = token.lastgroup
        if kind == "open":
            if len(frames) < _DEEPEST:
                frames.append(_Frame(frame.pending or (frame.key if frame.is_list else ""), token.group() == "["))
                frames[-1].code = frame.code if not frame.is_list and frame.key.lower() == "identifier" else ""
            frame.pending = ""
        elif kind == "close":
            if len(frames) > 1:
                closed = frames.pop()
                frames[-1].code = frames[-1].code or (closed.code if closed.key.lower() in {"type", "coding"} else "")
        elif kind == "colon":
            frame.pending = (token["d"] or token["s"] or "")[:60]
        else:
            group = "bare" if kind == "bare" else "d" if token["d"] is not None else "s"
            name = frame.pending or (frame.key if frame.is_list else "")
            frame.pending = ""
            if name == "code":
                frame.code = token[group]
            outer = frame
            if frame.is_list:
                outer = next((each for each in reversed(frames) if not each.is_list), frame)
            if name:
                yield _Value(*token.span(group), name, outer.key, outer.code)


def _xml(text: str) -> Iterator[_Value]:
    """What stands in elements and their attributes, with their names; `value` of an attribute is that of its element."""
    open_tags: list[str] = []
    for tag in _TAG.finditer(text):
        name = tag["name"]
        if tag["end"]:
            if name in open_tags:
                del open_tags[len(open_tags) - 1 - open_tags[::-1].index(name) :]
            continue
        parent = open_tags[-1] if open_tags else ""
        for attribute in _ATTRIBUTE.finditer(text, *tag.span("attributes")):
            is_id = attribute["name"] == "extension" and name in {"id", "setId"}
            if is_id or attribute["name"] == "value":
                yield _Value(*attribute.span("value"), name, "patient" if is_id else parent)
            else:
                yield _Value(*attribute.span("value"), attribute["name"], name)
        if not tag["attributes"].endswith("/"):
            if len(open_tags) < _DEEPEST:
                open_tags.append(name)
            if not tag["value"].isspace() and tag["value"]:
                yield _Value(*tag.span("value"), name, parent)
