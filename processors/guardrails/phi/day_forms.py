"""A day taken apart as it is written, so that it can be read, and another be written in its form.

"the 3rd of March '21"  ─►  the ‖ 3rd day ‖ of ‖ March month ‖ '21 year  ─► 2021-03-03
                                                                         ─► the 12th of July '22
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import Final, NamedTuple

MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_ONES: Final = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS: Final = (
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen"),
    *("sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS: Final = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_CARDINALS: Final = ("", *_ONES, *_TEENS, *(f"{ten}{one}" for ten in _TENS for one in ("", *(f"-{one}" for one in _ONES))))
_FIRST: Final = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
_ORDINALS: Final = (
    *_FIRST,
    *("tenth", "eleventh", "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth", "eighteenth"),
    *("nineteenth", "twentieth", *(f"twenty-{one}" for one in _FIRST), "thirtieth", "thirty-first"),
)
# In the middle of them; of feasts that move, near it.
_SEASONS: Final = {"winter": 1, "spring": 4, "summer": 7, "fall": 10, "autumn": 10}
_FEASTS: Final = {
    **{"christmas day": (12, 25), "christmas eve": (12, 24), "christmas": (12, 25), "thanksgiving": (11, 24), "easter": (4, 8)},
    **{"halloween": (10, 31), "new year's eve": (12, 31), "new year": (1, 1), "valentine": (2, 14), "mother": (5, 10)},
    **{
        "father": (6, 18),
        "memorial": (5, 28),
        "labor": (9, 4),
        "independence": (7, 4),
        "veterans": (11, 11),
        "boxing": (12, 26),
    },
    **{"hanukkah": (12, 12), "diwali": (11, 1)},
}

_UNDER_100: Final = "|".join(sorted((word.replace("-", "[- ]") for word in _CARDINALS if word), key=len, reverse=True))
_YEAR_WORDS: Final = (
    rf"(?:two\ thousand(?:\ (?:and\ )?(?:{_UNDER_100}))?"
    rf"|(?:eighteen|nineteen|twenty)[-\ ](?:hundred|oh?[-\ ](?:{'|'.join(_ONES)})|{_UNDER_100}))"
)
_ANY_ORDINAL: Final = "|".join(sorted((word.replace("-", "[- ]") for word in _ORDINALS), key=len, reverse=True))
_ANY_MONTH: Final = "|".join(f"{name[:3]}(?:{name[3:]})?" for name in MONTHS)
_ANY_FEAST: Final = "|".join(_FEASTS).replace(" ", r"\ ").replace("'", "['’]")
_SEPARATED: Final = r"\s?[-/.–]\s?"
# The forms in figures; each group is a part.
_FIGURES: Final = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        rf"(?P<year>\d{{4}})({_SEPARATED})(?P<month>\d{{1,2}})({_SEPARATED})(?P<day>\d{{1,2}})(?P<rest>(?!\d).*)",
        r"(?P<year>(?:19|20)\d\d)(?P<month>0[1-9]|1[0-2])(?P<day>0[1-9]|[12]\d|3[01])(?P<rest>(?!\d).*)",
        r"(?P<month>0[1-9]|1[0-2])(?P<day>0[1-9]|[12]\d|3[01])(?P<year>(?:19|20)\d\d|\d\d)(?P<rest>(?!\d).*)",
        rf"(?P<month>0?[1-9]|1[0-2])({_SEPARATED})(?P<day>\d{{1,2}})({_SEPARATED})(?P<year>\d{{4}}|\d\d)(?P<rest>(?!\d).*)",
        rf"(?P<day>\d{{1,2}})({_SEPARATED})(?P<month>\d{{1,2}})({_SEPARATED})(?P<year>\d{{4}}|\d\d)(?P<rest>(?!\d).*)",
        r"(?P<month>\d{1,2})([/-])(?P<year>\d{4})(?P<rest>(?!\d).*)",
        r"(?P<year>\d{4})([/-])(?P<month>\d{1,2})(?P<rest>(?!\d).*)",
        r"(?P<month>\d{1,2})([/-])(?P<day>\d{1,2})(?P<rest>(?!\d).*)",
        r"(?P<year>\d{4})(-?)(?P<week>W\d\d)(-?)(?P<weekday>\d?)(?P<rest>)",
    )
)
_WORDS: Final = re.compile(
    rf"""(?P<clock>(?<!\d)\d{{1,2}}\s?[ap]\.?m\b|\d{{1,2}}:\d\d(?::\d\d(?:\.\d+)?)?(?:\s?[ap]\.?m\b\.?)?(?:Z|[+-]\d\d:?\d\d)?)
    |(?P<month>(?<![a-z])(?:{_ANY_MONTH}|sept)(?![a-z]))
    |(?P<weekday>\b(?:mon|tues?|wed(?:nes)?|thu(?:rs?)?|fri|sat(?:ur)?|sun)(?:day)?(?=s?\b))
    |(?P<quarter>\bQ[1-4]\b|\b(?:first|second|third|fourth|last|1st|2nd|3rd|4th)(?=\ quarter))
    |(?P<said_year>\b{_YEAR_WORDS}\b)
    |(?P<ordinal>\b(?:{_ANY_ORDINAL})\b)
    |(?P<season>\b(?:{"|".join(_SEASONS)})\b)
    |(?P<feast>\b(?:{_ANY_FEAST})(?:['’]s)?(?:\ (?:day|sunday|monday))?\b)
    |(?P<year>(?<!\d)(?:1[89]|20)\d\d(?!\d)|(?<=['’])\d\d(?!\d)|(?<=[a-z][-/.])\d\d(?=\Z|,?\s|T))
    |(?P<day>(?<!\d)(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?(?!\d))""",
    re.VERBOSE | re.IGNORECASE,
)


class Part(NamedTuple):
    """A stretch of what is written; `role` is empty where it says nothing of the day."""

    role: str
    text: str


def parts(written: str) -> list[Part]:
    """`written`, cut; joined again it is the same."""
    found: list[Part] = []
    for form in _FIGURES:
        match = form.fullmatch(written)
        if match is not None and _is_day(match):
            names = {number: name for name, number in form.groupindex.items()}
            at = 0
            for number in range(1, form.groups + 1):
                role = names.get(number, "")
                found.append(Part("" if role == "rest" else role, match[number]))
                at = match.end(number)
            return [part for part in found if part.text] if at == len(written) else []
    at = 0
    for match in _WORDS.finditer(written):
        found += (Part("", written[at : match.start()]), Part(str(match.lastgroup), match.group()))
        at = match.end()
    return [part for part in (*found, Part("", written[at:])) if part.text]


def _is_day(match: re.Match[str]) -> bool:
    values = match.groupdict()
    return 1 <= int(values.get("month") or 1) <= 12 and 1 <= int(values.get("day") or 1) <= 31


def read(written: str) -> date | None:
    """The day that `written` names, or None where it names none or several (month before day, as in the United States)."""
    cut = parts(written.strip())
    values = {part.role: _value(part) for part in cut if part.role}
    if sum(part.role in ("day", "ordinal") for part in cut) != 1:
        return None
    day, year = values.get("day") or values.get("ordinal"), values.get("year") or values.get("said_year")
    return _day(year, values["month"], day) if day and year and values.get("month") else None


def moved(written: str, by: timedelta, reference: date) -> str | None:
    """`written` with every part of it moved; what it does not say is as in `reference`. None where it names no day at all.

    A weekday moves by the days that are over when weeks are taken out, so that it stays true beside its day."""
    cut = parts(written)
    values = {part.role: _value(part) for part in reversed(cut) if part.role}
    if not values.keys() - {"clock"}:
        return None
    base = _base(values, reference)
    target = _shifted(base, by)
    if values.keys() == {"year"} and target.year == base.year:
        target = target.replace(year=base.year + (1 if by.days > 0 else -1))
    figures = [part.text for part in cut if part.role in ("month", "day") and part.text.isdigit()]
    named = any(part.role == "month" and not part.text.isdigit() for part in cut) or "month" not in values
    padded = any(text.startswith("0") for text in figures) or (not named and all(len(text) == 2 for text in figures))
    made: list[str] = []
    for part in cut:
        if part.role in ("day", "ordinal"):
            last = calendar.monthrange(base.year, base.month)[1]
            other = _day(base.year, base.month, min(_value(part), last)) or base
            made.append(_day_like(part, _shifted(other, by).day, padded))
        elif part.role == "month" and part.text.isdigit():
            made.append(f"{target.month:02d}" if padded else f"{target.month}")
        elif part.role == "weekday" and not part.text.isdigit():
            made.append(_weekday_like(part.text, by.days))
        elif part.role == "year" and "week" in values:
            made.append(f"{target.isocalendar().year}")
        else:
            made.append(_LIKE[part.role](part.text, target) if part.role in _LIKE else part.text)
    return "".join(made)


def _base(values: dict[str, int], reference: date) -> date:
    year = values.get("year") or values.get("said_year") or reference.year
    if "week" in values:
        try:
            return date.fromisocalendar(year, values["week"], values.get("weekday") or 4)
        except ValueError:
            return date(year, 6, 15)
    if "feast" in values:
        month, day = divmod(values["feast"], 100)
        return date(year, month, day)
    for role in ("season", "quarter"):
        if role in values:
            return date(year, values[role], 15)
    said = values.get("day") or values.get("ordinal")
    if "month" in values:
        return _day(year, values["month"], said or 15) or date(year, values["month"], 28)
    if said:
        return _day(reference.year, reference.month, said) or reference
    return date(year, 7, 1)


def _shifted(day: date, by: timedelta) -> date:
    try:
        return day + by
    except OverflowError:
        return day - by


def _value(part: Part) -> int:
    """The number that a part stands for: of a feast 100 × its month + its day, of a season or quarter its month."""
    text = part.text.lower()
    if part.role == "month":
        return (
            int(text)
            if text.isdigit()
            else next(number for number, name in enumerate(MONTHS, 1) if name.lower()[:3] == text[:3])
        )
    if part.role == "year":
        year = int(text)
        return year if year >= 100 else 2000 + year if year < 40 else 1900 + year
    if part.role == "said_year":
        return _said_year(text.replace("-", " ").split())
    if part.role == "ordinal":
        return _ORDINALS.index(text.replace(" ", "-")) + 1
    if part.role == "season":
        return _SEASONS[text]
    if part.role == "quarter":
        number = re.search(r"\d", text)
        return 3 * (int(number.group()) if number else ("first", "second", "third", "fourth", "last").index(text) % 4 + 1) - 1
    if part.role == "feast":
        month, day = next(day for name, day in _FEASTS.items() if text.replace("’", "'").startswith(name))
        return 100 * month + day
    digits = re.match(r"W?(\d+)", part.text)
    return int(digits[1]) if digits else 0


def _said_year(words: Sequence[str]) -> int:
    if words[:2] == ["two", "thousand"]:
        return 2000 + _said([word for word in words[2:] if word != "and"])
    century = {"eighteen": 1800, "nineteen": 1900, "twenty": 2000}[words[0]]
    return century + (0 if words[1] == "hundred" else _said([word for word in words[1:] if word not in ("o", "oh")]))


def _said(words: Sequence[str]) -> int:
    return _CARDINALS.index("-".join(words)) if words else 0


def _day_like(part: Part, day: int, padded: bool) -> str:
    if part.role == "ordinal":
        return _cased(_ORDINALS[day - 1].replace("-", " " if " " in part.text else "-"), part.text)
    digits = re.match(r"\d+", part.text)
    suffix = part.text[digits.end() :] if digits else ""
    number = f"{day:02d}" if padded else f"{day}"
    if not suffix:
        return number
    right = "th" if 11 <= day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return number + (right.upper() if suffix.isupper() else right)


def _month_like(text: str, day: date) -> str:
    name = MONTHS[day.month - 1]
    whole = text.capitalize() in MONTHS and text != "MAY"
    return _cased(name if whole else name[:3], text)


def _weekday_like(text: str, days: int) -> str:
    number = next(number for number, name in enumerate(WEEKDAYS) if name.lower()[:3] == text.lower()[:3])
    name = WEEKDAYS[(number + days) % 7]
    return _cased(name if text.lower().endswith("day") else name[:3], text)


def _year_like(text: str, day: date) -> str:
    return f"{day.year:04d}" if len(text) == 4 else f"{day.year % 100:02d}"


def _said_year_like(text: str, day: date) -> str:
    century, rest = divmod(day.year, 100)
    if century == 20 and (rest < 10 or text.lower().startswith("two")):
        words = f"two thousand {_CARDINALS[rest]}".rstrip()
    else:
        words = f"{_CARDINALS[century]} {_CARDINALS[rest] if rest > 9 else f'oh {_CARDINALS[rest]}' if rest else 'hundred'}"
    return _cased(words, text)


def _season_like(text: str, day: date) -> str:
    return _cased(next(name for name, month in _SEASONS.items() if month == (day.month - 1) // 3 * 3 + 1), text)


def _quarter_like(text: str, day: date) -> str:
    quarter = (day.month - 1) // 3
    if text[-1] in "1234":
        return f"{text[:-1]}{quarter + 1}"
    return ("1st", "2nd", "3rd", "4th")[quarter] if text[0].isdigit() else _cased(_FIRST[quarter], text)


def _feast_like(text: str, day: date) -> str:
    return f"{MONTHS[day.month - 1]} {day.day}"


def _week_like(text: str, day: date) -> str:
    return f"W{day.isocalendar().week:02d}"


_LIKE: Final[dict[str, Callable[[str, date], str]]] = {
    "month": _month_like,
    "year": _year_like,
    "said_year": _said_year_like,
    "season": _season_like,
    "quarter": _quarter_like,
    "feast": _feast_like,
    "week": _week_like,
    "weekday": lambda text, day: f"{day.isoweekday()}",
}


def _cased(made: str, written: str) -> str:
    if written.isupper() and len(written) > 1:
        return made.upper()
    return made.lower() if written.islower() else made if made[:1].isupper() else made.capitalize()


def _day(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None
