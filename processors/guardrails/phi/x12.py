"""Claims and eligibility in X12 (837, 270, 271, 835): the standard says which element of which segment is somebody's.

NM1*IL*1*MARTINEZ*ROSA*L***MI*W5512009~N3*12 OAK ST~N4*BOISE*ID*83702~DMG*D8*19650314*F~
       name                   member id    address       place         birth
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from .spans import Span

_SURE: Final = 0.9
_SIGNS: Final = ("NM1*", "DMG*", "ISA*")
_SEGMENT: Final = re.compile(r"(?<![A-Z0-9])(?P<name>NM1|DMG|REF|PER|CLM|DTP|N3|N4)\*(?P<elements>[^~\r\n]{1,300})")
# Element → type. That of an identifier stands in the element before it, that of a telephone too.
_FIELDS: Final[dict[str, dict[int, str]]] = {
    "N3": {1: "LOCATION", 2: "LOCATION"},
    "N4": {1: "LOCATION", 3: "LOCATION"},
    "DMG": {2: "DATE_TIME"},
    "DTP": {3: "DATE_TIME"},
    "CLM": {1: "ACCOUNT_NUMBER"},
}
_QUALIFIED: Final = {
    "MI": "US_HEALTH_INSURANCE_MEMBER_ID",
    "34": "US_SSN",
    "XX": "US_NPI",
    "SY": "US_SSN",
    "EA": "MEDICAL_RECORD_NUMBER",
    "1L": "US_HEALTH_INSURANCE_MEMBER_ID",
    "IG": "US_HEALTH_INSURANCE_MEMBER_ID",
    "0F": "US_HEALTH_INSURANCE_MEMBER_ID",
    "G1": "US_PRIOR_AUTHORIZATION_NUMBER",
    "9F": "US_REFERRAL_NUMBER",
    "F8": "US_CLAIM_NUMBER",
    "D9": "US_CLAIM_NUMBER",
    "EI": "US_PROVIDER_TAX_ID",
    "TE": "PHONE_NUMBER",
    "WP": "PHONE_NUMBER",
    "HP": "PHONE_NUMBER",
    "CP": "PHONE_NUMBER",
    "FX": "FAX_NUMBER",
    "EM": "EMAIL_ADDRESS",
}


def find(text: str) -> Iterator[Span]:
    """The elements that are of a person. In time linear in the text."""
    if not any(sign in text for sign in _SIGNS):
        return
    for segment in _SEGMENT.finditer(text):
        elements = segment["elements"].split("*")
        at = segment.start("elements")
        for number, element in enumerate(elements, 1):
            kind = _type(segment["name"], elements, number)
            if kind is not None and _can_be(kind, element):
                begins = at + len(element) - len(element.lstrip())
                yield Span(begins, begins + len(element.strip()), kind, _SURE)
            at += len(element) + 1


def _can_be(kind: str, element: str) -> bool:
    digits = sum(map(str.isdigit, element))
    if kind in {"PERSON", "LOCATION", "EMAIL_ADDRESS"}:
        return any(map(str.isalnum, element)) and not (kind == "PERSON" and digits)
    return digits >= 3


def _type(segment: str, elements: list[str], number: int) -> str | None:
    if segment == "NM1":  # who, 1 of a person, last, first, middle, prefix, suffix, kind of id, id
        if 3 <= number <= 5 and elements[1:2] == ["1"]:
            return "PERSON"
        return _QUALIFIED.get(elements[7]) if number == 9 else None
    if segment == "PER":  # contact, name, then pairs of kind and number
        return "PERSON" if number == 2 else _QUALIFIED.get(elements[number - 2]) if number in {4, 6, 8} else None
    if segment == "REF":
        return _QUALIFIED.get(elements[0]) if number == 2 else None
    return _FIELDS[segment].get(number)
