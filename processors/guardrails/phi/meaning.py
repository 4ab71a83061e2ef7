"""What a found value means, however it is written: full-width, spoken, with or without separators, a day in any form.

Two values that mean the same are the same to whoever compares them: a leak, a hash, a stand-in.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from . import day_forms, spoken
from .readings import as_read

# What is said of somebody beside the name.
TITLES: Final = frozenset("mr mrs ms miss dr prof rev jr sr ii iii iv md phd".split())  # noqa: SIM905
# A name of people, with the apostrophe that belongs to it: "O'Neil", but of "Smith's" only "Smith".
WORD: Final = re.compile(r"[^\W\d_]+(?:['’](?!s\b)[^\W\d_]+)*", re.IGNORECASE)
_OF_SOMEBODY: Final = re.compile(r"['’]s\b", re.IGNORECASE)
_WORDS_ALONE: Final = frozenset({"PERSON", "LOCATION", "ORGANIZATION", "NRP", "AGE"})
_SPELLED: Final = (
    (re.compile(r"\s*(?:[\[({<]\s?at\s?[\])}>]|\s@\s|\bat\b)\s*", re.IGNORECASE), "@"),
    (re.compile(r"\s*(?:[\[({]\s?dot\s?[\])}]|\bdot\b)\s*", re.IGNORECASE), "."),
    (re.compile(r"\s*\bunderscore\b\s*", re.IGNORECASE), "_"),
    (re.compile(r"\s*\b(?:dash|hyphen)\b\s*", re.IGNORECASE), "-"),
)
_AMERICAN: Final = 11  # digits of a telephone number with the country's 1


def meant(kind: str, written: str) -> str:
    """The same for the same value of type `kind`; never empty where `written` is not."""
    read = unicodedata.normalize("NFKC", as_read(written)).casefold()
    if kind == "DATE_TIME":
        day = day_forms.read(read)
        return day.isoformat() if day is not None else _bare(read) or read
    if kind == "PERSON":
        return _name(read) or _bare(read) or read
    if kind == "EMAIL_ADDRESS" and "@" not in read:
        for pattern, sign in _SPELLED:
            read = pattern.sub(sign, read)
        return "".join(read.split()) or read
    if kind in ("EMAIL_ADDRESS", "URL", "USERNAME"):
        return read.strip()
    said = next(spoken.find(read), None) if kind not in _WORDS_ALONE else None
    bare = said.digits if said is not None else _bare(read)
    if kind in ("PHONE_NUMBER", "FAX_NUMBER") and bare.isdigit() and len(bare) == _AMERICAN and bare[0] == "1":
        bare = bare[1:]
    return bare or read


def _name(read: str) -> str:
    """Its words without titles, given name first: "MARTINEZ, ROSA" is Rosa Martinez."""
    family, comma, given = _OF_SOMEBODY.sub("", read).partition(",")
    words = WORD.findall(f"{given} {family}" if comma and WORD.search(given) else f"{family} {given}")
    return " ".join(word for word in words if word not in TITLES)


def _bare(read: str) -> str:
    return "".join(filter(str.isalnum, read))
