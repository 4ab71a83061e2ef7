"""Messages of HL7 version 2: what stands in which field of which segment, for the standard says it and no word does.

PID|1||448812^^^HARBOR^MR||MARTINEZ^ROSA^L||19650314|F|||12 OAK ST^^BOISE^ID^83702||(208)555-0199
        id                 name             birth        address                    telephone
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from .spans import Span

_SURE: Final = 0.9
# A segment begins a line, or stands behind what a log has made of its carriage return.
_SEGMENT: Final = re.compile(r"(?:(?<![A-Za-z0-9|^~&])|(?<=\\[rn])|(?<=\\x0[dD]))(?P<name>[A-Z][A-Z0-9]{2})\|")
_MAY_BE: Final = re.compile(r"(?:PID|PD1|NK1|PV1|PV2|GT1|IN1|IN2|MRG|ORC|OBR|EVN|MSH|OBX|DG1|PR1|TXA|ACC|SCH|AIP|STF|PRA)\|")
_ENDS: Final = re.compile(r"[\r\n]|[ \t](?=[A-Z][A-Z0-9]{2}\|\d)|\\{1,4}[rn](?=[A-Z][A-Z0-9]{2}\|)|\\x0[dD]")
# Name of a person (XPN: family, given, middle), of staff (XCN: id, family, given), address (XAD), telephone (XTN), day (TS).
_NAME, _STAFF, _ADDRESS, _PHONE, _DAY = "XPN", "XCN", "XAD", "XTN", "TS"
_MRN, _ACCOUNT, _SSN, _MEMBER = "MEDICAL_RECORD_NUMBER", "ACCOUNT_NUMBER", "US_SSN", "US_HEALTH_INSURANCE_MEMBER_ID"
_ACCESSION, _ID = "ACCESSION_NUMBER", "UNIQUE_ID"
_FIELDS: Final[dict[str, dict[int, str]]] = {
    "PID": {
        **{
            2: _MRN,
            3: _MRN,
            4: _MRN,
            5: _NAME,
            6: _NAME,
            7: _DAY,
            9: _NAME,
            11: _ADDRESS,
            13: _PHONE,
            14: _PHONE,
            18: _ACCOUNT,
        },
        **{19: _SSN, 20: "US_DRIVER_LICENSE", 21: _MRN, 23: "LOCATION", 29: _DAY},
    },
    "PD1": {4: _STAFF},
    "NK1": {
        **{2: _NAME, 4: _ADDRESS, 5: _PHONE, 6: _PHONE, 8: _DAY, 12: _ID, 16: _DAY, 26: _NAME, 30: _NAME, 31: _PHONE},
        **{32: _ADDRESS, 33: _ID, 37: _SSN},
    },
    "PV1": {
        **{
            5: _ACCOUNT,
            7: _STAFF,
            8: _STAFF,
            9: _STAFF,
            17: _STAFF,
            19: _ACCOUNT,
            44: _DAY,
            45: _DAY,
            50: _ACCOUNT,
            52: _STAFF,
        },
    },
    "PV2": {8: _DAY, 9: _DAY, 13: _STAFF},
    "GT1": {
        **{2: _ACCOUNT, 3: _NAME, 4: _NAME, 5: _ADDRESS, 6: _PHONE, 7: _PHONE, 8: _DAY, 12: _SSN, 16: _NAME, 17: _ADDRESS},
        **{18: _PHONE, 19: _ID, 29: _ID},
    },
    "IN1": {
        5: _ADDRESS,
        6: _NAME,
        7: _PHONE,
        8: _MEMBER,
        16: _NAME,
        18: _DAY,
        19: _ADDRESS,
        36: _MEMBER,
        44: _ADDRESS,
        49: _MEMBER,
    },
    "IN2": {
        1: _ID,
        2: _SSN,
        3: _STAFF,
        6: "US_MBI",
        7: _NAME,
        8: _MEMBER,
        9: _NAME,
        10: _ID,
        25: _MEMBER,
        61: _MEMBER,
        63: _PHONE,
    },
    "MRG": {1: _MRN, 2: _MRN, 3: _ACCOUNT, 4: _MRN, 5: _ACCOUNT, 7: _NAME},
    "ORC": {2: _ACCESSION, 3: _ACCESSION, 9: _DAY, 10: _STAFF, 11: _STAFF, 12: _STAFF, 14: _PHONE, 19: _STAFF, 24: _ADDRESS},
    "OBR": {2: _ACCESSION, 3: _ACCESSION, 7: _DAY, 8: _DAY, 10: _STAFF, 14: _DAY, 16: _STAFF, 17: _PHONE, 22: _DAY, 28: _STAFF},
    "OBX": {14: _DAY, 16: _STAFF, 19: _DAY},
    "EVN": {2: _DAY, 5: _STAFF, 6: _DAY},
    "MSH": {6: _DAY},  # its first field is the bar itself
    "DG1": {5: _DAY, 16: _STAFF},
    "PR1": {5: _DAY, 8: _STAFF, 11: _STAFF, 12: _STAFF},
    "TXA": {4: _DAY, 5: _STAFF, 6: _DAY, 7: _DAY, 8: _DAY, 9: _STAFF, 10: _STAFF, 11: _STAFF, 22: _STAFF},
    "ACC": {1: _DAY},
    "SCH": {12: _STAFF, 13: _PHONE, 14: _ADDRESS, 16: _STAFF, 17: _PHONE, 18: _ADDRESS, 20: _STAFF},
    "AIP": {3: _STAFF, 6: _DAY},
    "STF": {1: _ID, 2: _ID, 3: _NAME, 6: _DAY, 10: _PHONE, 11: _ADDRESS, 15: "EMAIL_ADDRESS", 22: "US_DRIVER_LICENSE"},
    "PRA": {1: _ID, 6: _ID},
}
# Numbers of the components that tell of somebody; state and country do not.
_COMPONENTS: Final = {_NAME: (1, 2, 3), _STAFF: (1, 2, 3, 4), _ADDRESS: (1, 2, 3, 5, 8, 9), _PHONE: (1, 4, 7, 12)}
_PART: Final = re.compile(r"[^~^&]+|[~^&]")
_NO_VALUE: Final = frozenset({'""', "null", "unknown", "none", "na", "n/a", "self", "same"})
_EDGES: Final = " \t\"'`\\"
# No field of a person's is longer; what is, is a note.
_LONGEST: Final = 120


def find(text: str) -> Iterator[Span]:
    """The values of fields that the standard gives to a person, component by component. In time linear in the text."""
    if _MAY_BE.search(text) is None:
        return
    for segment in _SEGMENT.finditer(text):
        fields = _FIELDS.get(segment["name"])
        if fields is None:
            continue
        ending = _ENDS.search(text, segment.end())
        last = ending.start() if ending is not None else len(text)
        start, number = segment.end(), 1
        while start <= last and number <= max(fields):
            bar = text.find("|", start, last)
            end = bar if bar >= 0 else last
            if number in fields:
                yield from _parts(text, start, end, fields[number])
            start, number = end + 1, number + 1


def _parts(text: str, start: int, end: int, kind: str) -> Iterator[Span]:
    wanted = _COMPONENTS.get(kind, (1,))
    component = 1
    for part in _PART.finditer(text, start, end):
        written = part.group()
        if written == "^":
            component += 1
        elif written == "~":
            component = 1
        elif written != "&" and component in wanted:
            value = written.strip(_EDGES)
            told = _type(value, kind, component)
            if told is not None:
                begin = part.start() + written.index(value)
                yield Span(begin, begin + len(value), told, _SURE)


def _type(written: str, kind: str, component: int) -> str | None:
    digits = sum(map(str.isdigit, written))
    letters = any(map(str.isalpha, written))
    if not (digits or letters) or written.lower() in _NO_VALUE or len(written) > _LONGEST:
        return None
    if kind == _NAME or (kind == _STAFF and component > 1):
        return "PERSON" if letters and not digits else None
    if kind == _STAFF:
        return "UNIQUE_ID" if digits >= 3 else None
    if kind == _ADDRESS:
        return "LOCATION" if len(written) > 1 else None
    if kind == _PHONE:
        return "EMAIL_ADDRESS" if "@" in written else "PHONE_NUMBER" if digits >= 5 else None
    if kind == _DAY:
        return "DATE_TIME" if digits >= 6 else None
    if kind in {"LOCATION", "EMAIL_ADDRESS"}:
        return kind
    return kind if digits >= 3 else None
