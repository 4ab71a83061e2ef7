"""Telephone numbers: grouped as they are in some country, written digit by digit, or spoken.

What they are the number of, a telephone or something else, is for their label to say (`numbers`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from .check_digits import digits_of
from .spans import Span
from .zones import Zones, matches

_EXTENSION: Final = r"(?:\ ?,?\ ?(?:x|ext|extn|extension)\.?\ ?:?\ ?\d{1,6})?"
# A group of digits ends where a separator stands, never somewhere within: or a long run of digits could be parted in
# thousands of ways, each of them tried.
_PHONE: Final = re.compile(
    rf"""(?=[+(\d])(?<![\w./$€£*-])(?<!\d[\ ,])(?:
        (?P<plus>\+\ ?\d(?:[\ ().\-–/]{{0,3}}\d){{6,15}})
      | (?P<nanp>(?:(?:00)?1[-.\ /]{{0,2}})?(?:\(\ ?\d{{3}}\ ?\)[-.\ /]{{0,3}}|\d{{3}}\ ?[-.–/]\ ?
        |\d{{3}}\ )\d{{3}}[-.\ –]{{1,3}}\d{{4}})
      | (?P<plain>(?:1[-\ ]?)?[2-9]\d{{2}}[2-9]\d{{6}})
      | (?P<mixed>(?:1[-.\ ])?\(?[2-9]\d{{2}}\)?[-.\ ]{{0,2}}[2-9]\d{{2}}[-.\ ]?\d{{4}})
      | (?P<trunk>(?:00\d{{1,3}}[-.\ /])?(?:\(0\d{{1,5}}\)\d{{2,8}}|\(?0\d{{1,5}}\)?)(?:[-.\ /]{{1,3}}\d{{2,9}}){{1,5}}
        |0\d{{8,14}})
      | (?P<pairs>\d{{2}}(?P<s>[-.\ ])\d{{2}}(?P=s)\d{{2}}(?P=s)\d{{2}}(?:(?P=s)\d{{2}}){{0,2}})
      | (?P<groups>(?:\(\d{{2,5}}\)[-.\ ]{{0,2}}\d{{2,5}}|\d{{2,5}}[-.\ ]\d{{3,4}})[-.\ ]\d{{3,4}}(?:[-.\ ]\d{{2,4}})?)
      | (?P<many>\d{{2,4}}(?P<t>[-.\ ])\d{{2,4}}(?:(?P=t)\d{{2,4}}){{1,3}})(?!\ \d)
      | (?P<vanity>1-8\d\d-(?=[A-Z0-9-]*[A-Z])[A-Z0-9]{{3,4}}-?[A-Z0-9]{{3,4}})
      | (?P<eight>8\ ?\(\d{{3,5}}\)\ ?\d{{1,3}}[-\ ]\d{{2,3}}[-\ ]\d{{2,4}})
      | (?P<local>[2-9]\d{{2}}[-.\ ]\d{{4}})
      | (?P<loose>\(?\d{{1,6}}\)?(?:(?:[-.\ ]{{1,2}}\(?|\()\d{{1,8}}\)?){{1,5}})
    ){_EXTENSION}(?![\w%]|[-–]\d|\.\d|-(?-i:[A-Z]{{1,2}}\b))""",
    re.VERBOSE | re.IGNORECASE,
)
# A National Drug Code is 4-4-2, 5-3-2 or 5-4-2; no telephone is grouped so.
_NDC: Final = re.compile(r"\d{4}-\d{4}-\d{2}\Z|\d{5}-\d{3,4}-\d{1,2}\Z")

# Social security numbers, days, network addresses and ranges of years.
_OTHERWISE: Final = re.compile(
    r"\d{3}\D\d\d\D\d{4}\Z|\d{4}\D\d\d\D\d\d\Z|\d\d\D\d\d\D\d{4}\Z|(?:\d+\.){3}\d+\Z|(?:19|20)\d\d\D(?:19|20)\d\d"
)

_PHONE_SCORES: Final = {
    "plus": 0.9,
    "nanp": 0.8,
    "vanity": 0.7,
    "plain": 0.5,
    "mixed": 0.6,
    "trunk": 0.55,
    "pairs": 0.5,
    "groups": 0.4,
    "many": 0.4,
    "local": 0.3,
    "eight": 0.6,
    "loose": 0.2,
}

# The fewest and the most digits, where not 7 to 17.
_DIGITS: Final = {"loose": (5, 17), "trunk": (9, 15), "plus": (8, 15), "many": (8, 12), "groups": (8, 13)}
# What is written in threes and a four after American custom is one even hard behind another number, in a list or after a day.
_AMERICAN: Final = re.compile(
    rf"[(2-9](?<![\w.-].)(?:(?<=\()[2-9]\d\d\)\ ?|(?<!\()\d\d[-.])[2-9]\d\d[-.]\d{{4}}{_EXTENSION}(?![\w%]|[-–]\d|\.\d)",
    re.VERBOSE | re.IGNORECASE,
)
# A digit at a time: as it is dictated, or as the boxes of a form are read.
_APART: Final = re.compile(r"[0-9](?<![\w.,/-].)(?<!\d[ ].)(?:[ -]\d){6,15}(?![\w%/]|[.,]\d|[ -]\d)")
_ALL: Final = 10


def find(text: str, within: Zones) -> Iterator[Span]:
    """What is grouped like a telephone number, seven to fifteen digits. Weak shapes score below .5: they wait for a label."""
    for match in matches(_PHONE, text, within):
        if (span := _grouped(match)) is not None:
            yield span
        # The bracket may be of the prose: "her daughter (612 345 678) was told".
        inner = _PHONE.match(text, match.start() + 1, match.endpos) if match["loose"] and text[match.start()] == "(" else None
        if inner is not None and (span := _grouped(inner)) is not None:
            yield span
    for match in matches(_AMERICAN, text, within):
        yield Span(match.start(), match.end(), "PHONE_NUMBER", _PHONE_SCORES["nanp"])
    for match in matches(_APART, text, within):
        digits = digits_of(match.group())
        whole = len(digits) == _ALL and digits[0] not in "01" and len(set(digits)) > 2
        yield Span(match.start(), match.end(), *(("PHONE_NUMBER", 0.4) if whole else ("UNIQUE_ID", 0.2)))


def _grouped(match: re.Match[str]) -> Span | None:
    kind = match.lastgroup if match.lastgroup in _PHONE_SCORES else next(name for name in _PHONE_SCORES if match[name])
    written = match.group()
    core = digits_of(match[kind])
    fewest, most = _DIGITS.get(kind, (7, 17))
    if not fewest <= len(core) <= most or len(set(core)) < 2 or _NDC.match(written):
        return None
    if kind == "trunk" and not (any(mark in written for mark in " -./()") or len(core) in (10, 11)):
        return None
    if kind in ("many", "groups", "loose") and _OTHERWISE.match(written) is not None:
        return None
    if kind == "many" and core[0] == "1":
        return None
    score = _PHONE_SCORES[kind]
    if kind == "pairs" and match["s"] == " " and written[0] != "0":
        score = 0.35  # a list of numbers looks the same
    return Span(match.start(), match.end(), "PHONE_NUMBER", score)
