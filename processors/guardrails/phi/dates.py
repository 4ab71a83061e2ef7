"""Dates more exact than a year: what Safe Harbor asks to be taken out (45 CFR 164.514(b)(2)(i)(C)).

A bare year, a duration ("for 10 days"), a distance ("2 weeks ago") and a time of day name no day: they are let stand. A month,
a day and month, a weekday, or a season of a year do; so does a year of birth that tells an age above 89.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from . import zones
from .day_forms import MONTHS as MONTH_NAMES
from .day_forms import WEEKDAYS
from .ner import Span
from .zones import Zones, matches

MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

_MONTH: Final = (
    r"(?:jan(?:uary|\.)?|feb(?:ruary|\.)?|mar(?:ch|\.)?|apr(?:il|\.)?|may|june?\.?|july?\.?|aug(?:ust|\.)?|sept?(?:ember|\.)?"
    r"|oct(?:ober|\.)?|nov(?:ember|\.)?|dec(?:ember|\.)?)(?![a-z])"
)
_DAY: Final = r"(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?(?!\d)"
_YEAR: Final = r"(?:(?:1[89]|20)\d{2}(?!\d)|['’]\d{2}(?!\d))"
_WEEKDAY: Final = r"(?:mon|tues?|wed(?:nes)?|thu(?:rs?)?|fri|sat(?:ur)?|sun)(?:day)?"
_CLOCK: Final = (
    r"(?:,?\ {0,2}(?:at\ |@\ ?|T)?(?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d+)?)?"
    r"(?:\ ?[ap]\.?m\b\.?)?(?:Z|[+-][0-2]\d:?[0-5]\d)?)?"
)
_ONES: Final = "one|two|three|four|five|six|seven|eight|nine"
_TEENS: Final = "ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen"
_TENS: Final = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
_UNDER_100: Final = rf"(?:(?:{_TENS})(?:[-\ ](?:{_ONES}))?|{_TEENS}|oh?[-\ ](?:{_ONES})|{_ONES})"
_YEAR_WORDS: Final = (
    rf"(?:two\ thousand(?:\ (?:and\ )?{_UNDER_100})?|(?:nineteen|twenty|eighteen)[-\ ](?:hundred|{_UNDER_100}))"
)
_ORDINAL: Final = (
    r"(?:(?:twenty|thirty)[-\ ])?(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth"
    r"|thirteenth"
    r"|fourteenth|fifteenth|sixteenth|seventeenth|eighteenth|nineteenth|twentieth|thirtieth)\b"
)
# Behind a number these make it a dose or a reading, and "Mar 10 mg" is no day in March.
UNIT: Final = (
    r"(?:mg|mcg|µg|ug|g|gm|kg|ml|cc|l|dl|meq|mmol|iu|units?|mmhg|bpm|cm|mm|tabs?|tablets?|caps?|capsules?|puffs?|drops?"
    r"|percent|%|lbs?|pounds?"
    r"|kcal|cal|hrs?|hours?|mins?|minutes?|days?|weeks?|wks?|months?|mos?|years?|yrs?|times|x|doses?|pills?|ounces?|oz"
    r"|inch(?:es)?|feet|ft)"
)

_NUMERIC: Final = re.compile(
    rf"""(?=\d)(?<![\w/.$€£])(?<!(?<!/\d\d)(?<!/\d{{4}})-)(?:
        (?P<iso>(?P<y1>(?:1[89]|20)\d{{2}})(?P<s1>[-/.])(?P<m1>0?[1-9]|1[0-2])(?P=s1)(?P<d1>0?[1-9]|[12]\d|3[01]))(?:T?{_CLOCK})
      | (?P<a>\d{{1,2}})(?P<s2>\ ?[-/.–]\ ?)(?P<b>\d{{1,2}})(?P=s2)(?P<y2>(?:1[89]|20)\d{{2}}|\d{{2}}){_CLOCK}
      | (?P<m3>0?[1-9]|1[0-2])[/-](?P<y3>(?:19|20)\d{{2}})
      | (?P<y4>(?:19|20)\d{{2}})-(?P<m4>0[1-9]|1[0-2])
    )(?![\w%]|/\d|-\d+(?![\d/])|\.\d)""",
    re.VERBOSE | re.IGNORECASE,
)
_TEXTUAL: Final = re.compile(
    rf"""(?<![\w-])(?:(?P<weekday>{_WEEKDAY})\b,?\.?\ (?:the\ )?)?(?:
        (?P<md>{_MONTH}[-\ ,./]{{0,2}}(?P<dd1>{_DAY})(?:\s?(?:-|–|to|through|and|&|,)\s?{_DAY}(?!\s?(?:{UNIT}\b|:)))?
        (?:(?:,|\ of|,?\ in)?[-\s]{{0,2}}{_YEAR})?){_CLOCK}
      | (?P<dm>{_DAY}(?:\s?(?:-|–|to|and|&)\s?{_DAY})?(?:\ (?:day\ )?of)?[-\ ./]{{0,2}}{_MONTH}(?:(?:,
        |\ of)?[-\ ./]{{0,2}}(?:{_YEAR}|\d{{2}}(?=\b(?![:.]\d))(?<=[-/.]\d\d)))?){_CLOCK}
      | (?P<my>{_MONTH}(?:,|\ of|\ in)?[-\ /]{{0,2}}{_YEAR}|{_MONTH}[-/]\d{{2}})
      | (?P<words>
            {_MONTH}\ (?:the\ )?{_ORDINAL}(?:,?\ (?:of\ |in\ )?(?:{_YEAR_WORDS}|{_YEAR}))?
          | (?:the\ )?{_ORDINAL}\ (?:day\ )?of\ {_MONTH}(?:,?\ (?:of\ |in\ )?(?:{_YEAR_WORDS}|{_YEAR}))?
          | {_MONTH}\ (?:of\ |in\ )?{_YEAR_WORDS}
        )
    )(?!\w)""",
    re.VERBOSE | re.IGNORECASE,
)
# A month, a feast or a weekday alone; the capital keeps the verbs "may" and "march" out.
_LONE: Final = re.compile(
    r"(?P<month>January|February|March|April|May|June|July|August|September|October|November|December)(?![\w-]|'s\b)"
    r"|(?P<feast>Christmas|Thanksgiving|Easter|Halloween|Hanukkah|Diwali|(?:New Year|Valentine|Mother|Father)['’]s|"
    r"(?:Memorial|Labor|Independence|Veterans|Boxing)(?= Day))(?:\ (?:Day|Eve|Sunday|Monday))?(?!\w)"
    r"|(?P<day>Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)(?![\w-])"  # "Mondays" are of no calendar
)
_CAPITALISED: Final = re.compile(r"[A-Z][a-z]{2,}")
# The words that one of those begins with.
_ALONE: Final = frozenset(
    [
        *MONTH_NAMES,
        *WEEKDAYS,
        *("Christmas", "Thanksgiving", "Easter", "Halloween", "Hanukkah", "Diwali", "New", "Valentine", "Mother", "Father"),
        *("Memorial", "Labor", "Independence", "Veterans", "Boxing"),
    ]
)
_PART_OF: Final = re.compile(r"\b(?:mid|early|late|post|pre)-\Z", re.IGNORECASE)
_OVER: Final = re.compile(
    r"\b(?:on|since|at|before|after|over|last|this|next|until|till|around|by|for|during|past)\s+\Z", re.IGNORECASE
)
# Days of a schedule are of no calendar.
_EVERY_WEEK: Final = re.compile(r"(?:\b(?:every|each)\s|days?\s?(?:through|thru|to|-|–)\s?)\Z", re.IGNORECASE)
_AND_ON: Final = re.compile(rf"\s?(?:through|thru|to|-|–)\s?{_WEEKDAY}\b", re.IGNORECASE)
_LEADS_TO_MONTH: Final = re.compile(
    r"(?:\b(?:in|since|until|till|by|during|last|next|this|past|early|late|mid|from|between|to|through|before|after|for"
    r"|of|every|each|around|about|and|or|"
    r"on|around|following|previous|coming|end\ of|beginning\ of|month\ of)[\s-]+(?:the\s+)?)\Z",
    re.IGNORECASE,
)
# What leads up to a month and a day, or to a day alone.
_LEADS_UP: Final = (
    r"on|since|dated?|dos|dob|until|till|by|from|to|through|thru|seen|admit(?:ted)?|d/c'?d?|discharged?|visit|appt|appointment"
    r"|due|performed|done|drawn|collected|started|before|after|between|and|as\ of|of|last|next|scheduled|for|week\ of"
    r"|(?:birthday|bday|b-day|dob)\s+is"
)
_OF_YEAR: Final = re.compile(
    r"[0-9](?<![\w/.$€£].)(?<!(?<!/\d)(?<!/\d\d)-.)(?:(?<=0)[1-9]|(?<=1)[0-2]|(?<!0))(?P<s>[/-])(?P<day>0?[1-9]|[12]\d|3[01])(?![\w/%]|\.\d|-\d{1,2}(?!/|\d))"
)
_CUED: Final = re.compile(rf"(?:\b(?:{_LEADS_UP})\b[\s:(]{{0,3}}|\b{_WEEKDAY}[.,]?\s{{1,2}})\Z", re.IGNORECASE)
_CUED_IN: Final = re.compile(r"\b(?:in|around|circa|follow(?:\s|-)?up|f/u)\s{1,2}\Z", re.IGNORECASE)
_AT: Final = re.compile(r"\s?(?:@|at)?\s?(?:0?[1-9]|1[0-2])(?::[0-5]\d)?\s?[ap]\.?m\b", re.IGNORECASE)
_TILL: Final = re.compile(r"\s?(?:-|–|to|through|thru)\s?(?=\d{1,2}/)")
# Fractions of a strength, a scale, a dose or a crowd.
_FRACTION: Final = re.compile(
    rf"\s*(?:strength|power|murmur|systolic|diastolic|reflex|pulse|pain|scale|motor|of\b|on\s+(?:the|a)\b.{{0,12}}scale|{UNIT}\b"
    r"|patients|cases|eyes|subjects|participants|samples|cores|cultures|women|men|children|people)",
    re.IGNORECASE,
)
# Denominators of scales: what comes before a time of day may be a pain of 3/10.
_SCALES: Final = frozenset({4, 5, 6, 10})
# Digits without a separator are a day only where something says so.
_BORN: Final = re.compile(
    r"\b(?:dob|d\.o\.b\.?|birth\s?date|birthday|date(?:\s+of\s+(?:birth|service|death|admission|discharge|visit))?|born"
    r"|admitted|discharged|dos)(?!\w)[\s.:#=(]*(?:is|was|on)?[\s:(]*\Z",
    re.IGNORECASE,
)
_COMPACT: Final = re.compile(r"[0-9](?<!\d.)(?:\d{7}|\d{5})(?!\d)")
_COMPACT_DAY: Final = re.compile(
    r"(?P<ymd>(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))|(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:19|20)\d{2}|\d{6}\Z"
)
# In the name of a file, or with the time behind it, it says so itself.
_STAMPED: Final = re.compile(r"T[0-2]\d[0-5]\d(?:[0-5]\d)?(?:\.\d+)?Z?(?![A-Za-z0-9])|(?=_)")
# A year of birth that makes somebody older than 89 is as telling as the age (the rule says so); of 2026, when this was written.
_BORN_LONG_AGO: Final = re.compile(r"1(?<![\w/.-].)(?:8\d\d|9[0-2]\d|93[0-6])(?![\w/-]|\.\d)")
_BORN_IN: Final = re.compile(
    r"\b(?:born|dob|d\.o\.b\.?|birth\s?year|year\s+of\s+birth|date\s+of\s+birth|b\.)[\s:=(]{1,3}(?:(?:in|is|was|back\s+in)\s+)?\Z",
    re.IGNORECASE,
)
_YEAR_BEHIND: Final = re.compile(r"[12](?<=[ ’'].)(?:(?<=1)9|(?<=2)0)\d{2}(?!\w)")
_SEASON: Final = re.compile(
    r"(?<!\w)(?:spring|summer|fall|autumn|winter|christmas|thanksgiving|easter|halloween|new\ year'?s(?:\ (?:eve|day))?"
    r"|q[1-4]|(?:first|second|third|fourth|last|1st|2nd|3rd|4th)\ quarter)(?:\ of|,)?[ ]\Z",
    re.IGNORECASE,
)
_WEEK: Final = re.compile(r"[12](?<![\w-].)(?:(?<=1)9|(?<=2)0)\d\d-?W[0-5]\d(?:-?[1-7])?(?![\w-])")
# A day of this month or another: "the 14th". Lower ones than those also number ribs and nerves.
_NTH: Final = re.compile(r"(?P<number>[1-9](?<![\w.].)\d?)(?:st|nd|rd|th)(?![\w-])")
_NTH_SAID: Final = re.compile(
    r"\b(?:eleventh|twelfth|(?:thir|four|fif|six|seven|eigh|nine)teenth|twentieth|thirtieth"
    r"|(?:twenty|thirty)[-\ ](?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth))\b",
    re.IGNORECASE,
)
_MAY_BE_SAID: Final = re.compile(r"[tT](?:eenth|went|hirt|welfth)|leventh")
_ON_THE: Final = re.compile(rf"\b(?:{_LEADS_UP}|surgery|procedure|back|here)\s+(?:on\s+)?the\s+\Z", re.IGNORECASE)
_ENDS_THERE: Final = re.compile(
    r"\s*(?:\Z|[.;:!?)\n])|\s+(?:at|because|when|but|of\s+(?:this|last|next|the)\s+month|in\s+the\s+(?:morning|afternoon|evening))\b",
    re.IGNORECASE,
)
_GOES_ON: Final = re.compile(r",|\s+(?:and|to|for|with|then|s?he|we|i|they)\b", re.IGNORECASE)
_NUMBERED: Final = 12
# The longest of what leads up to a day.
_BEFORE: Final = 48
# Begins with a set of letters, for that is quick to look for: what may be a month, and then is looked up.
_MAY_BE_A_MONTH: Final = re.compile(r"[jfmasondJFMASOND][aeupcoAEUPCO][nlbrygptvcNLBRYGPTVC][a-zA-Z]*")
_MONTH_WORDS: Final = frozenset(
    [
        *MONTHS,
        "sept",
        "january",
        "february",
        "march",
        "april",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ]
)
# From the month, how far a date may reach: "Wednesday, the twenty-third day of" and "… thirty-first, two thousand twenty-four".
_ABOUT_A_MONTH: Final = (36, 64)
_FOLLOWED_BY_UNIT: Final = re.compile(rf"\s?-?\s?(?:{UNIT})\b", re.IGNORECASE)
_ANY_ORDER_LOWER: Final = frozenset({"may", "march", "mar", "sun", "sat"})


def find(text: str, within: Zones | None = None) -> Iterator[Span]:
    """Dates of one text; they may overlap. Scores: .85 a whole date, .6 a month or weekday alone."""
    within = zones.of(text) if within is None else within
    if within:
        for match in matches(_NUMERIC, text, within):
            if (score := _numeric_score(match)) is not None:
                yield Span(match.start(), match.end(), "DATE_TIME", score)
        yield from _days_of_a_year(text, within)
        yield from _compact(text, within)
        for match in matches(_BORN_LONG_AGO, text, within):
            if _led_by(_BORN_IN, text, match.start()):
                yield Span(match.start(), match.end(), "DATE_TIME", 0.8)
        for match in matches(_YEAR_BEHIND, text, within):
            if (season := _SEASON.search(text, max(0, match.start() - _BEFORE), match.start())) is not None:
                yield Span(season.start(), match.end(), "DATE_TIME", 0.85)
        for match in matches(_WEEK, text, within) if "W" in text else ():
            yield Span(match.start(), match.end(), "DATE_TIME", 0.85)
        for match in matches(_NTH, text, within):
            if int(match["number"]) <= 31 and _is_of_a_month(text, *match.span(), int(match["number"]) > _NUMBERED):
                yield Span(match.start(), match.end(), "DATE_TIME", 0.5)
    for match in _NTH_SAID.finditer(text) if _MAY_BE_SAID.search(text) is not None else ():
        if _is_of_a_month(text, match.start(), match.end(), True):
            yield Span(match.start(), match.end(), "DATE_TIME", 0.5)
    for match in matches(_TEXTUAL, text, _about_months(text)):
        if _means_a_day(match, text):
            yield Span(match.start(), match.end(), "DATE_TIME", 0.85)
    for match in _alone(text):
        hangs_on = match.start() and (text[match.start() - 1].isalnum() or text[match.start() - 1] == "-")
        if hangs_on and not (match["month"] and _led_by(_PART_OF, text, match.start())):
            continue
        if match["feast"] is not None and match.end() == match.end("feast") and not _led_by(_OVER, text, match.start()):
            continue
        if match["day"] is not None and (
            _EVERY_WEEK.search(text, max(0, match.start() - 24), match.start()) or _AND_ON.match(text, match.end())
        ):
            continue
        if match["month"] is None or _led_by(_LEADS_TO_MONTH, text, match.start()):
            yield Span(match.start(), match.end(), "DATE_TIME", 0.6)


def _alone(text: str) -> Iterator[re.Match[str]]:
    """What `_LONE` finds; what few words begin it is quicker to look up."""
    for word in _CAPITALISED.finditer(text):
        if word.group() in _ALONE and (match := _LONE.match(text, word.start())) is not None:
            yield match


def _led_by(cue: re.Pattern[str], text: str, start: int) -> bool:
    """Whether `cue`, which ends where it is asked to, stands right before `start`."""
    return cue.search(text, max(0, start - _BEFORE), start) is not None


def _days_of_a_year(text: str, within: Zones) -> Iterator[Span]:
    """A month and a day without a year, where what stands about them says that they are no fraction."""
    begun = None
    for match in matches(_OF_YEAR, text, within):
        day = int(match["day"])
        if match["s"] == "-":
            told = day > 12 and (_led_by(_CUED, text, match.start()) or _led_by(_CUED_IN, text, match.start()))
        else:
            till = _TILL.match(text, match.end())
            other = _OF_YEAR.match(text, till.end()) if till is not None else None
            told = (
                begun == match.start()
                or (other is not None and other["day"] != match["day"])
                or _led_by(_CUED, text, match.start())
                or (day > 12 and _led_by(_CUED_IN, text, match.start()))
                or (day not in _SCALES and _AT.match(text, match.end()) is not None)
            )
            begun = till.end() if told and till is not None else None
        if told and _FRACTION.match(text, match.end()) is None:
            yield Span(match.start(), match.end(), "DATE_TIME", 0.5)


def _compact(text: str, within: Zones) -> Iterator[Span]:
    for match in matches(_COMPACT, text, within):
        start, end = match.span()
        day = _COMPACT_DAY.fullmatch(match.group())
        if day is None:
            continue
        stamp = _STAMPED.match(text, end) if day["ymd"] is not None else None
        if _led_by(_BORN, text, start):
            yield Span(start, stamp.end() if stamp is not None else end, "DATE_TIME", 0.9)
        elif day["ymd"] is not None and (text[start - 1 : start] == "_" or (stamp and not text[start - 1 : start].isalnum())):
            yield Span(start, stamp.end() if stamp is not None else end, "DATE_TIME", 0.45)


def _is_of_a_month(text: str, start: int, end: int, sure: bool) -> bool:
    return _led_by(_ON_THE, text, start) and (
        _ENDS_THERE.match(text, end) is not None or (sure and _GOES_ON.match(text, end) is not None)
    )


def _about_months(text: str) -> Zones:
    """The surroundings of each month's name."""
    about: Zones = []
    for match in _MAY_BE_A_MONTH.finditer(text):
        start, end = match.span()
        if match.group().lower() not in _MONTH_WORDS or (start and text[start - 1].isalpha()):
            continue
        start, end = max(0, start - _ABOUT_A_MONTH[0]), end + _ABOUT_A_MONTH[1]
        if about and start <= about[-1][1]:
            about[-1] = (about[-1][0], end)
        else:
            about.append((start, end))
    return about


def _numeric_score(match: re.Match[str]) -> float | None:
    if match["iso"] is not None or match["y4"] is not None:
        return 0.85
    if match["m3"] is not None:
        return 0.75
    first, second = int(match["a"]), int(match["b"])
    if not (1 <= first <= 31 and 1 <= second <= 31 and min(first, second) <= 12):
        return None
    separator = match["s2"].strip()
    if len(match["y2"]) == 2 and separator != "/" and _FOLLOWED_BY_UNIT.match(match.string, match.end()):
        return None
    if len(match["y2"]) == 2 and (separator == "." or len(match["s2"]) > 1) and not (len(match["a"]) == len(match["b"]) == 2):
        # 1.2.20 is a version or a section, where nothing says that somebody was born.
        return 0.85 if _led_by(_BORN, match.string, match.start()) else None
    return 0.85


def _means_a_day(match: re.Match[str], text: str) -> bool:
    """Not the verb "may", and not a dose behind an abbreviation."""
    if match["md"] is not None or match["dm"] is not None:
        found = match["md"] or match["dm"]
        word = re.search(_MONTH, found, re.IGNORECASE)
        if word is None:
            return False
        exact = re.search(rf"{_YEAR}|\d(?:st|nd|rd|th)", found, re.IGNORECASE) is not None
        if not exact and (word.group().rstrip(".") in _ANY_ORDER_LOWER or _FOLLOWED_BY_UNIT.match(text, match.end())):
            return False
    return True
