"""Stand-ins for PHI: they look like what they stand for, mean nobody, and are the same for the same value within a call.

All of it follows from a keyed HMAC: without the key nothing leads back, and a replay gives the same text. Days move by one
offset a call, so that what lies between two of them stays true. Addresses are of documentation ranges (RFC 2606, 3849, 5737),
telephones of 555-01xx, social security numbers of the 9xx area, which nobody is given.

Two values of a call have never one stand-in, and no stand-in is a value of the call: what is drawn and taken is drawn anew.
"""

from __future__ import annotations

import hmac
import re
import string
from collections.abc import Callable, Iterable, Sequence
from datetime import date, timedelta
from typing import Final

from .phi import day_forms, places, spoken
from .phi.meaning import TITLES, WORD, meant


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
_KEPT: Final = frozenset(
    _words(
        """street st avenue ave road rd lane ln drive dr court ct boulevard blvd way place pl terrace ter circle
        cir highway hwy parkway pkwy suite ste apt apartment unit floor fl room rm box po north south east west
        ne nw se sw hospital clinic center centre university college school inc llc ltd corp company co group
        health medical care of the and"""
    )
)
_STATES: Final = tuple(places.STATES.split("|"))
_SAID: Final = _words("zero one two three four five six seven eight nine")
_WORDS_AND_REST: Final = re.compile(rf"(?P<word>{WORD.pattern})|(?P<of>(?<=\w)['’]s\b)|(?P<rest>.)", re.IGNORECASE | re.DOTALL)
_EXTENSION: Final = re.compile(r"\s?,?\s?(?:x|ext|extn|extension)[.:\s]*\d+\Z", re.IGNORECASE)
# The code of a country names no place smaller than one, and a number without one of those is none.
_COUNTRY: Final = re.compile(r"\+\s?(?:[17]|\d\d)")
# A month at least and no quarter of a year beside a whole one: a month, season or quarter alone becomes another, too.
_LEAST_DAYS, _MOST_DAYS = 92, 272
# Where no day of the call says which year is spoken of.
_SOME_DAY: Final = date(2023, 6, 15)
_ATTEMPTS: Final = 64


class Surrogates:
    """The stand-ins of one call. `key` is the ring's; `call` keeps one call's stand-ins apart from another's; `values` are
    all (type, value) of it, so that none of them is drawn as the stand-in of another."""

    def __init__(self, key: bytes, call: str, values: Iterable[tuple[str, str]] = ()) -> None:
        self._key = hmac.digest(key, b"surrogates\0" + call.encode("utf-8", "surrogatepass"), "sha256")
        values = list(values)
        self._said = {word.casefold() for _, value in values for word in WORD.findall(value)}
        self._meant = {meant(kind, value) for kind, value in values}
        self._people = [
            [word.casefold() for word in WORD.findall(value) if word.casefold() not in TITLES]
            for kind, value in values
            if kind == "PERSON"
        ]
        read = (day_forms.read(value) for kind, value in values if kind == "DATE_TIME")
        self._reference = next((day for day in read if day is not None), _SOME_DAY)
        self._picked: dict[tuple[str, str], str] = {}
        self._taken: dict[tuple[str, str], str] = {}  # of words: (list, what was picked) → for which
        self._stands_for: dict[str, tuple[str, str]] = {}  # of whole values: stand-in → (type, meaning)
        drawn = self._number("offset", "", 0)
        days = _LEAST_DAYS + drawn % (_MOST_DAYS - _LEAST_DAYS) + 365 * (drawn >> 21 & 1)
        days += days % 7 == 0  # a weekday becomes another
        self._by = timedelta(days=days * (1 if drawn >> 20 & 1 else -1))

    def of(self, kind: str, value: str) -> str:
        """What stands for `value`: never `value` itself, whatever its case, nor what stands for another."""
        make = _MAKERS.get(kind, Surrogates._same_form)
        means = (kind, meant(kind, value))
        for attempt in range(_ATTEMPTS):
            made = make(self, kind, value, attempt)
            folded = made.casefold()
            if kind == "AGE":
                return made
            if folded != value.casefold() and self._stands_for.get(folded, means) == means and not self._is_a_value(kind, made):
                self._stands_for[folded] = means
                return made
        return f"<{kind}>"

    def _is_a_value(self, kind: str, made: str) -> bool:
        """Days alone may fall on one another: which day they are is what their distance says."""
        return kind != "DATE_TIME" and meant(kind, made) in self._meant

    def _number(self, kind: str, value: str, attempt: int) -> int:
        digest = hmac.digest(self._key, f"{kind}\0{value}\0{attempt}".encode("utf-8", "surrogatepass"), "sha256")
        return int.from_bytes(digest[:8], "big")

    def _pick(self, kind: str, value: str, choices: Sequence[str]) -> str:
        """One of `choices` for `value`, the same all through the call, no word of the call, and nobody else's; two of them
        joined where all are taken."""
        known = self._picked.get((kind, value))
        if known is not None:
            return known
        drawn = self._number(kind, value, 0)
        count = len(choices)
        for step in range(count * (count + 1)):
            first = choices[(drawn + step) % count]
            picked = first if step < count else f"{first}-{choices[step // count - 1]}"
            folded = picked.casefold()
            if self._taken.setdefault((kind, folded), value) == value and folded != value and folded not in self._said:
                break
        self._picked[kind, value] = picked
        return picked

    def _name(self, kind: str, value: str, attempt: int) -> str:
        words = [word for word in WORD.findall(value) if word.casefold() not in TITLES]
        family_first = "," in value
        waiting = iter(
            [
                self._word_of_a_name(
                    word, place == len(words) - 1 if family_first else place < len(words) - 1, words[0 if family_first else -1]
                )
                for place, word in enumerate(words)
            ]
        )
        return self._rewritten(kind, value, attempt, lambda word: word if word.casefold() in TITLES else next(waiting))

    def _word_of_a_name(self, word: str, given: bool, family: str) -> str:
        folded = word.casefold()
        if len(word) > 1:
            return _cased(self._pick("name", folded, _GIVEN if given else _FAMILY), word)
        # "R. Martinez" has the initial of what stands for Rosa, where the call names one Rosa Martinez.
        whole = {
            name
            for names in self._people
            if family.casefold() in names
            for name in names
            if len(name) > 1 and name[0] == folded and name != family.casefold()
        }
        if len(whole) == 1:
            return _cased(self._pick("name", whole.pop(), _GIVEN)[0], word)
        return _cased(self._pick("initial", folded, string.ascii_uppercase)[0], word)

    def _place(self, kind: str, value: str, attempt: int) -> str:
        def word(written: str) -> str:
            folded = written.casefold()
            if len(written) == 2 and written.isupper():
                return self._pick("state", folded, _STATES)
            if len(written) == 1:
                return self._same_form(kind, written, attempt)
            return written if folded in _KEPT else _cased(self._pick("place", folded, _PLACES), written)

        return self._rewritten(kind, value, attempt, word)

    def _rewritten(self, kind: str, value: str, attempt: int, word: Callable[[str], str]) -> str:
        """Each word by another, and what is between words in the same form; whose it is stays."""
        made: list[str] = []
        rest = ""
        for match in _WORDS_AND_REST.finditer(value):
            if match.lastgroup == "rest":
                rest += match.group()
                continue
            made += (self._same_form(kind, rest, attempt), word(match.group()) if match.lastgroup == "word" else match.group())
            rest = ""
        return "".join((*made, self._same_form(kind, rest, attempt)))

    def _group(self, kind: str, value: str, attempt: int) -> str:
        return _cased(self._pick(kind, value.casefold(), _GROUPS), value)

    def _same_form(self, kind: str, value: str, attempt: int) -> str:
        """Digits for digits, letters for letters of the same case; what parts them stays."""
        bare = meant("", value) if value else ""
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
        if (said := self._aloud(kind, value, attempt)) is not None:
            return said
        made = self._same_form(kind, value, attempt)
        return "9" + made[1:] if made[:1].isdigit() and sum(map(str.isdigit, made)) == 9 else made

    def _phone(self, kind: str, value: str, attempt: int) -> str:
        """A number of the United States is one of 555-01xx; the code of a country and the word for an extension stay."""
        if (said := self._aloud(kind, value, attempt)) is not None:
            return said
        extension = _EXTENSION.search(value)
        number = value[: extension.start()] if extension is not None else value
        country = _COUNTRY.match(number)
        kept = country.group() if country is not None else ""
        made = [*kept, *self._same_form(kind, number[len(kept) :], attempt)]
        digits = [place for place, character in enumerate(made) if character.isdigit()]
        american = len(digits) == 10 or (len(digits) == 11 and number[digits[0]] == "1")
        if american or len(digits) == 7:
            for place, digit in zip(digits[-7:-2], "55501", strict=True):
                made[place] = digit
        if american:
            made[digits[-10]] = "23456789"[int(made[digits[-10]]) % 8]
            made[digits[0]] = number[digits[0]] if len(digits) == 11 else made[digits[0]]
        rest = re.sub(r"\d+", lambda match: self._same_form(kind, match.group(), attempt), value[len(number) :])
        return "".join(made) + rest

    def _aloud(self, kind: str, value: str, attempt: int) -> str | None:
        """What is spoken is answered in spoken digits."""
        said = next(spoken.find(value), None)
        if said is None:
            return None
        return " ".join(_SAID[int(digit)] for digit in self._same_form(kind, said.digits, attempt))

    def _email(self, kind: str, value: str, attempt: int) -> str:
        written = meant(kind, value)
        drawn = self._number(kind, written, attempt)
        made = f"{_GIVEN[drawn % len(_GIVEN)]}.{_FAMILY[drawn // 64 % len(_FAMILY)]}@example.org".lower()
        return made if "@" in value else made.replace("@", " at ").replace(".", " dot ")

    def _url(self, kind: str, value: str, attempt: int) -> str:
        scheme = value.split("://")[0] + "://" if "://" in value else "www."
        return f"{scheme}example.org/{self._number(kind, value.casefold(), attempt):016x}"[: len(scheme) + 20]

    def _user(self, kind: str, value: str, attempt: int) -> str:
        drawn = self._number(kind, meant(kind, value).lstrip("@"), attempt)
        made = f"{_GIVEN[drawn % len(_GIVEN)]}{_FAMILY[drawn // 64 % len(_FAMILY)]}{drawn // 4096 % 90 + 10}".lower()
        return value[: len(value) - len(value.lstrip("@/"))] + ("u/" if value.lstrip("/").startswith("u/") else "") + made

    def _ip(self, kind: str, value: str, attempt: int) -> str:
        drawn = self._number(kind, value.casefold(), attempt)
        if ":" in value and "." not in value:
            return f"2001:db8::{drawn & 0xFFFF:x}"
        return f"{('192.0.2', '198.51.100', '203.0.113')[drawn % 3]}.{drawn // 3 % 254 + 1}"

    def _age(self, kind: str, value: str, attempt: int) -> str:
        return "90+"  # what Safe Harbor lets stand for every age above 89

    def _date(self, kind: str, value: str, attempt: int) -> str:
        """Moved by the call's offset, in the form it was written; what no calendar knows, in the same form."""
        return day_forms.moved(value, self._by, self._reference) or self._same_form(kind, value, attempt)


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
    "USERNAME": Surrogates._user,
    "PHONE_NUMBER": Surrogates._phone,
    "FAX_NUMBER": Surrogates._phone,
    "US_SSN": Surrogates._ssn,
    "PHOTO_ID": Surrogates._picture,
}


def _cased(made: str, written: str) -> str:
    if written.isupper() and len(written) > 1:
        return made.upper()
    return made.lower() if written.islower() else made
