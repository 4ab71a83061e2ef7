"""Stand-ins for PHI: they look like what they stand for, mean nobody, and are the same for the same value within a call.

All of it follows from a keyed HMAC: without the key nothing leads back, and a replay gives the same text. Days move by one
offset a call, so that what lies between two of them stays true. Addresses are of documentation ranges (RFC 2606, 3849, 5737),
telephones of 555-01xx, social security numbers of the 9xx area, which nobody is given.
"""

from __future__ import annotations

import hmac
import re
import string
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import Final

from .phi import dates


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_GIVEN: Final = _words(
    """Alma Amos Bram Carla Cleo Dario Edda Elio Fenna Gita Hugo Ilse Ivor Jonas Kaia Lars Lena Mira Nico Nora Odin
    Orla Pavel Petra Quinn Rhea Rolf Sanna Selma Tarik Thea Ugo Vera Viggo Wanda Xenia Yara Yuri Zelda Zeno"""
)
_FAMILY: Final = _words(
    """Abney Barlow Corwin Dunmore Eastvale Farrow Garrick Hollis Ingram Jessop Kestrel Larkin Marlow Norwell Oakes
    Prewitt Quill Ravenel Sorrel Thorne Underhay Vickery Wexley Yarrow Zeller Ashdown Birchall Cresswell Denholm
    Elmsley"""
)
_PLACES: Final = _words(
    """Alderbrook Brindleton Cedarmoor Dunhaven Elmsworth Fairhollow Glenmere Hartsfield Inverlake Juniper
    Kingsmead Larchmont Millbrae Northwick Oakenford Pinehurst Quarrydale Rosemount Stonebridge Thornbury Upwell
    Valewood Westmarch Yewdale"""
)
_GROUPS: Final = ("Norlander", "Estmarian", "Valdorian", "Hespian", "Ostrian", "Merovian")
# What says nothing of whom: it stays, so that a text reads on.
_TITLES: Final = frozenset(_words("mr mrs ms miss dr prof rev jr sr ii iii iv md phd"))
_KEPT: Final = frozenset(
    _words(
        """street st avenue ave road rd lane ln drive dr court ct boulevard blvd way place pl terrace ter circle
        cir highway hwy parkway pkwy suite ste apt apartment unit floor fl room rm box po north south east west
        ne nw se sw hospital clinic center centre university college school inc llc ltd corp company co group
        health medical care of the and"""
    )
)
_OF_DATES: Final = frozenset(
    _words("of the at on in and to through day st nd rd th am pm t z m a p spring summer fall autumn winter")
)
_ORDINALS: Final = _words(
    """first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth
    fifteenth"""
)
_CARDINALS: Final = _words(
    """one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"""
)
_STATES: Final = _words("""AZ CO GA IA KY MN NE OR TN VT WI WY""")
_WORD: Final = re.compile(r"[^\W\d_]+")
_WORDS_AND_REST: Final = re.compile(r"(?P<word>[^\W\d_]+)|(?P<rest>(?:[\W\d_])+)")
_MONTH: Final = re.compile(r"[A-Za-z]+")
_FULL_MONTHS: Final = _words("""January February March April May June July August September October November December""")


class Surrogates:
    """The stand-ins of one call. `key` is the ring's; `call` keeps one call's stand-ins apart from another's."""

    def __init__(self, key: bytes, call: str) -> None:
        self._key = hmac.digest(key, b"surrogates\0" + call.encode("utf-8", "surrogatepass"), "sha256")
        self._words: dict[tuple[str, str], str] = {}
        # Between one and some 13 months either way, never zero.
        drawn = self._number("offset", "", 0)
        self._days = timedelta(days=(31 + drawn % 365) * (1 if drawn >> 20 & 1 else -1))

    def of(self, kind: str, value: str) -> str:
        """What stands for `value`: never `value` itself, whatever its case."""
        make = _MAKERS.get(kind, Surrogates._same_form)
        for attempt in range(8):
            made = make(self, kind, value, attempt)
            if made.casefold() != value.casefold():
                return made
        return f"<{kind}>"

    def _number(self, kind: str, value: str, attempt: int) -> int:
        digest = hmac.digest(self._key, f"{kind}\0{value}\0{attempt}".encode("utf-8", "surrogatepass"), "sha256")
        return int.from_bytes(digest[:8], "big")

    def _pick(self, kind: str, value: str, attempt: int, choices: Sequence[str]) -> str:
        """One of `choices` for `value`, the same all through the call, and not `value`."""
        known = self._words.get((kind, value))
        if known is not None and attempt == 0:
            return known
        drawn = self._number(kind, value, attempt)
        picked = choices[drawn % len(choices)]
        if picked.casefold() == value:
            picked = choices[(drawn + 1) % len(choices)]
        self._words[kind, value] = picked
        return picked

    def _name(self, kind: str, value: str, attempt: int) -> str:
        words = [match.group() for match in _WORD.finditer(value) if match.group().casefold() not in _TITLES]
        family_first = "," in value
        made: list[str] = []
        for place, word in enumerate(words):
            folded = word.casefold()
            if len(word) == 1:
                made.append(self._pick("initial", folded, attempt, string.ascii_uppercase))
                continue
            given = place == len(words) - 1 if family_first else place < len(words) - 1
            made.append(_cased(self._pick("name", folded, attempt, _GIVEN if given else _FAMILY), word))
        waiting = iter(made)
        return self._rewritten(kind, value, attempt, lambda word: word if word.casefold() in _TITLES else next(waiting))

    def _place(self, kind: str, value: str, attempt: int) -> str:
        def word(written: str) -> str:
            folded = written.casefold()
            if len(written) == 2 and written.isupper():
                return self._pick("state", folded, attempt, _STATES)
            if len(written) == 1:
                return self._same_form(kind, written, attempt)
            return written if folded in _KEPT else _cased(self._pick("place", folded, attempt, _PLACES), written)

        return self._rewritten(kind, value, attempt, word)

    def _rewritten(self, kind: str, value: str, attempt: int, word: Callable[[str], str]) -> str:
        """Each word by another, and what is between words in the same form."""
        return _WORDS_AND_REST.sub(
            lambda match: word(match.group()) if match.lastgroup == "word" else self._same_form(kind, match.group(), attempt),
            value,
        )

    def _group(self, kind: str, value: str, attempt: int) -> str:
        return _cased(self._pick(kind, value.casefold(), attempt, _GROUPS), value)

    def _same_form(self, kind: str, value: str, attempt: int) -> str:
        """Digits for digits, letters for letters of the same case; what parts them stays."""
        bare = "".join(character for character in value.casefold() if character.isalnum())
        made, place = [], 0
        for character in value:
            if character.isalnum():
                drawn = self._number(f"{kind}:{place}", bare, attempt)
                place += 1
                if character.isdigit():
                    character = str(drawn % 10)
                elif character.isupper():
                    character = chr(ord("A") + drawn % 26)
                else:
                    character = chr(ord("a") + drawn % 26)
            made.append(character)
        return "".join(made)

    def _picture(self, kind: str, value: str, attempt: int) -> str:
        stem, dot, ending = value.rpartition(".")
        return self._same_form(kind, stem, attempt) + dot + ending if dot else self._same_form(kind, value, attempt)

    def _ssn(self, kind: str, value: str, attempt: int) -> str:
        made = self._same_form(kind, value, attempt)
        return "9" + made[1:] if made[:1].isdigit() and sum(map(str.isdigit, made)) == 9 else made

    def _phone(self, kind: str, value: str, attempt: int) -> str:
        made = list(self._same_form(kind, value, attempt))
        digits = [place for place, character in enumerate(made) if character.isdigit()]
        if len(digits) >= 10 and len(digits) <= 11:
            for place, digit in zip(digits[-7:-2], "55501", strict=True):
                made[place] = digit
        return "".join(made)

    def _email(self, kind: str, value: str, attempt: int) -> str:
        folded = value.casefold()
        given, family = self._pick("mail", folded, attempt, _GIVEN), self._pick("mail.of", folded, attempt, _FAMILY)
        return f"{given}.{family}@example.org".lower()

    def _url(self, kind: str, value: str, attempt: int) -> str:
        scheme = value.split("://")[0] + "://" if "://" in value else "www."
        return f"{scheme}example.org/{self._number(kind, value.casefold(), attempt):016x}"[: len(scheme) + 20]

    def _ip(self, kind: str, value: str, attempt: int) -> str:
        drawn = self._number(kind, value.casefold(), attempt)
        if ":" in value and "." not in value:
            return f"2001:db8::{drawn & 0xFFFF:x}"
        return f"{('192.0.2', '198.51.100', '203.0.113')[drawn % 3]}.{drawn // 3 % 254 + 1}"

    def _age(self, kind: str, value: str, attempt: int) -> str:
        return "90+"  # what Safe Harbor lets stand for every age above 89

    def _date(self, kind: str, value: str, attempt: int) -> str:
        """Moved by the call's offset, in the form it was written; what names no day moves by months or weekdays."""
        day = dates.read(value)
        if day is not None and (moved := _written_like(value, day, self._moved(day))) is not None:
            return moved

        def word(written: str) -> str:
            folded = written.casefold()
            if (other := _other_word(written, self._days.days // 30, self._days.days)) != written or folded in _OF_DATES:
                return other
            for choices in (_ORDINALS, _CARDINALS):
                if folded in choices:
                    return _cased(self._pick("number", folded, attempt, choices), written)
            return self._same_form(kind, written, attempt)

        return _WORDS_AND_REST.sub(
            lambda match: (
                word(match.group()) if match.lastgroup == "word" else self._other_digits(match.group(), value, attempt)
            ),
            value,
        )

    def _other_digits(self, written: str, value: str, attempt: int) -> str:
        """A year by the next or the last one, any other number by one from 1 to 12."""

        def other(match: re.Match[str]) -> str:
            digits = match.group()
            if len(digits) == 4 and digits.isascii() and digits[:2] in ("18", "19", "20"):
                return str(int(digits) + (1 if self._days.days > 0 else -1))
            return f"{self._number('date:' + digits, value.casefold(), attempt) % 12 + 1:0{len(digits)}d}"

        return re.sub(r"\d+", other, written)

    def _moved(self, day: date) -> date:
        try:
            return day + self._days
        except OverflowError:
            return day - self._days


_MAKERS: Final[dict[str, Callable[[Surrogates, str, str, int], str]]] = {
    "PERSON": Surrogates._name,
    "LOCATION": Surrogates._place,
    "ORGANIZATION": Surrogates._place,
    "NRP": Surrogates._group,
    "DATE_TIME": Surrogates._date,
    "AGE": Surrogates._age,
    "EMAIL_ADDRESS": Surrogates._email,
    "URL": Surrogates._url,
    "IP_ADDRESS": Surrogates._ip,
    "PHONE_NUMBER": Surrogates._phone,
    "FAX_NUMBER": Surrogates._phone,
    "US_SSN": Surrogates._ssn,
    "PHOTO_ID": Surrogates._picture,
}


def _cased(made: str, written: str) -> str:
    if written.isupper() and len(written) > 1:
        return made.upper()
    return made.lower() if written.islower() else made


def _other_word(word: str, months: int, days: int) -> str:
    """Another month or weekday in the same style; any other word as it is."""
    folded = word.lower()
    for number, name in enumerate(_FULL_MONTHS):
        if folded in (name.lower(), name[:3].lower(), "sept" if name == "September" else ""):
            other = _FULL_MONTHS[(number + (months % 12 or 1)) % 12]
            return _cased(other if len(word) > 4 or folded == name.lower() else other[:3], word)
    for number, name in enumerate(dates.WEEKDAYS):
        if len(folded) >= 3 and (name.startswith(folded) or folded == name + "s"):
            other = dates.WEEKDAYS[(number + (days % 7 or 1)) % 7].capitalize()
            return _cased(other if len(word) > 4 else other[:3], word)
    return word


def _written_like(value: str, day: date, moved: date) -> str | None:
    """`moved` in the form of `value`, or None where that form is none of ours."""
    numeric = re.fullmatch(r"(\d{1,4})(\s?[-/.–]\s?)(\d{1,2})(\s?[-/.–]\s?)(\d{1,4})(.*)", value, re.DOTALL)
    if numeric is not None:
        first, one, second, two, third, rest = numeric.groups()
        if len(first) == 4:
            parts = (f"{moved.year:04d}", _padded(moved.month, second), _padded(moved.day, third))
        elif int(first) <= 12:
            parts = (_padded(moved.month, first), _padded(moved.day, second), _year(moved.year, third))
        else:
            parts = (_padded(moved.day, first), _padded(moved.month, second), _year(moved.year, third))
        return f"{parts[0]}{one}{parts[1]}{two}{parts[2]}{_other_clock(rest)}"
    made = re.sub(rf"(?<!\d){day.year}(?!\d)", f"{moved.year}", value)
    if made == value:
        made = re.sub(rf"(?<!\d){day.year % 100:02d}(?!\d)(?=\D*\Z)", f"{moved.year % 100:02d}", value)
    head, count = re.subn(rf"(?<!\d)0?{day.day}(?:st|nd|rd|th)?(?![\d])", f"{moved.day}", made, count=1)
    if count != 1:
        return None
    names = (_FULL_MONTHS[day.month - 1], _FULL_MONTHS[moved.month - 1])
    result, count = re.subn(
        rf"(?i)(?:{names[0]}|{names[0][:3]}t?)(?![a-z])",
        lambda match: _cased(names[1] if match.group().lower() == names[0].lower() else names[1][:3], match.group()),
        head,
        count=1,
    )
    weekdays = "|".join(dates.WEEKDAYS)
    result = re.sub(
        rf"(?i)\b(?:{weekdays})\b", lambda match: _cased(dates.WEEKDAYS[moved.weekday()].capitalize(), match.group()), result
    )
    return result if count == 1 else None


def _padded(number: int, like: str) -> str:
    """With a leading zero where `like` has two digits."""
    return f"{number:02d}" if len(like) == 2 else f"{number}"


def _year(year: int, like: str) -> str:
    return f"{year:04d}" if len(like) == 4 else f"{year % 100:02d}"


def _other_clock(rest: str) -> str:
    return re.sub(r"\d", "0", rest)
