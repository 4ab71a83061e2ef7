"""The numbers of a text, in words or digits, with what they count: doses, durations, frequencies, ages, dates.

"twenty six years old" → 26 age     "2-3 packs" → 2 pack, 3 pack     "b.i.d." → 2 per day
"January tenth two thousand nine", "01/10/09" → date (2009, 1, 10)   "0.5 g" → 500 mg
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from .reading import Word, listed

_SMALL: Final = {
    name: value
    for value, name in enumerate(
        listed(
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
            "eighteen nineteen"
        )
    )
}
_TENS: Final = {
    name: 10 * value for value, name in enumerate(listed("twenty thirty forty fifty sixty seventy eighty ninety"), 2)
}
_DECADES: Final = {name.removesuffix("y") + "ies": value for name, value in _TENS.items()}
_SCALES: Final = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
_ORDINALS: Final = {
    name: value
    for value, name in enumerate(
        listed(
            "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
            "sixteenth seventeenth eighteenth nineteenth"
        ),
        1,
    )
} | {"twentieth": 20, "thirtieth": 30}
_SUFFIXES: Final = frozenset(("st", "nd", "rd", "th", "s"))
_MONTHS: Final = {
    name: month
    for month, names in enumerate(
        (
            "january jan", "february feb", "march", "april apr", "may", "june jun", "july jul", "august aug",
            "september sep sept", "october oct", "november nov", "december dec",
        ),
        1,
    )
    for name in names.split()
}  # fmt: skip
# "march" and "may" are words, too: only a number beside them makes a month of them.
_SHY_MONTHS: Final = frozenset(("march", "may"))

# Unit → (dimension, how many of the dimension's own unit).
UNITS: Final[dict[str, tuple[str, float]]] = {
    **dict.fromkeys(("mcg", "ug", "µg", "μg", "microgram"), ("mass", 0.001)),
    **dict.fromkeys(("mg", "milligram", "mgs"), ("mass", 1.0)),
    **dict.fromkeys(("g", "gm", "gram", "gms"), ("mass", 1_000.0)),
    **dict.fromkeys(("kg", "kilogram", "kilo", "kgs"), ("weight", 1.0)),
    **dict.fromkeys(("lb", "lbs", "pound"), ("weight", 0.4536)),
    **dict.fromkeys(("oz", "ounce"), ("ounce", 1.0)),
    **dict.fromkeys(("ml", "cc", "milliliter", "millilitre"), ("volume", 1.0)),
    **dict.fromkeys(("l", "liter", "litre"), ("volume", 1_000.0)),
    **dict.fromkeys(("unit", "iu"), ("units", 1.0)),
    **dict.fromkeys(("meq",), ("meq", 1.0)),
    **dict.fromkeys(("mm", "millimeter"), ("length", 0.1)),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), ("length", 1.0)),
    **dict.fromkeys(("inch", "inches"), ("length", 2.54)),
    **dict.fromkeys(("foot", "feet", "ft"), ("length", 30.48)),
    **dict.fromkeys(("meter", "metre"), ("length", 100.0)),
    **dict.fromkeys(("mile",), ("distance", 1.609)),
    **dict.fromkeys(("km", "kilometer", "kilometre"), ("distance", 1.0)),
    **dict.fromkeys(("%", "percent", "percentage"), ("percent", 1.0)),
    **dict.fromkeys(("second", "sec"), ("time", 1 / 3600)),
    **dict.fromkeys(("minute", "min", "mins"), ("time", 1 / 60)),
    **dict.fromkeys(("hour", "hr", "hrs"), ("time", 1.0)),
    **dict.fromkeys(("day",), ("time", 24.0)),
    **dict.fromkeys(("night",), ("time", 24.0)),
    **dict.fromkeys(("week", "wk", "wks"), ("time", 168.0)),
    **dict.fromkeys(("month", "mo", "mos"), ("time", 730.5)),
    **dict.fromkeys(("year", "yr", "yrs"), ("time", 8766.0)),
    **dict.fromkeys(("decade",), ("time", 87_660.0)),
    **dict.fromkeys(("bpm",), ("rate", 1.0)),
    **dict.fromkeys(("mmhg",), ("pressure", 1.0)),
    **dict.fromkeys(("fahrenheit",), ("temperature", 1.0)),
    **dict.fromkeys(("tablet", "tab", "pill", "capsule", "cap"), ("tablet", 1.0)),
    **dict.fromkeys(("pack", "ppd"), ("pack", 1.0)),
    **dict.fromkeys(("dollar", "usd", "$", "buck"), ("money", 1.0)),
}
_EVERY_H: Final = {"hour": 1.0, "day": 24.0, "night": 24.0, "morning": 24.0, "evening": 24.0, "week": 168.0, "month": 730.5,
                   "year": 8766.0}  # fmt: skip
_LATIN: Final = {"bid": 2.0, "tid": 3.0, "qid": 4.0, "qd": 1.0, "qday": 1.0, "qhs": 1.0, "qam": 1.0, "qpm": 1.0,
                 "daily": 1.0, "nightly": 1.0, "qod": 0.5, "hourly": 24.0, "weekly": 1 / 7, "qweek": 1 / 7,
                 "monthly": 24 / 730.5}  # fmt: skip
_TIMES: Final = {"once": 1.0, "twice": 2.0, "thrice": 3.0}
# What is taken then is taken once a day.
_PARTS_OF_DAY: Final = frozenset(("morning", "evening", "bedtime", "night", "breakfast", "dinner", "supper", "bed"))
_Q_HOURS: Final = re.compile(r"q(\d{1,2})h?\Z")
_DATE: Final = re.compile(r"(?<![\d/.-])(\d{1,2})([/.-])(\d{1,2})(?:\2(\d{4}|\d{2}))?(?![\d/]|[.-]\d)")
_ISO_DATE: Final = re.compile(r"(?<![\d-])(\d{4})-(\d{1,2})-(\d{1,2})(?!\d)")

# Half a unit in the last place a person would give: 2 weeks are 14 days, 4 months are 17 weeks.
TOLERANCE: Final = 0.03


class Fact(NamedTuple):
    """A number and what it counts. `amount` is in the dimension's own unit; `first` and `last` number its words."""

    kind: str  # a dimension of `UNITS`, or age, frequency, date, decade, ordinal, count
    value: float  # as it was written
    amount: float
    unit: str
    start: int
    end: int
    first: int
    last: int
    date: tuple[int, int, int] = (0, 0, 0)  # year, month, day; 0 where not said


def facts(text: str, words: Sequence[Word]) -> list[Fact]:
    """Every number of `words`, in order; `text` is what they are of."""
    found: list[Fact] = []
    dated = _dates(text, words)
    at = 0
    while at < len(words):
        if at in dated:
            found.append(dated[at])
            at = dated[at].last + 1
            continue
        often = _frequency(words, at)
        if often is not None:
            found.append(often)
            at = often.last + 1
            continue
        if at and words[at - 1].end == words[at].start and words[at].low[0].isdigit() and words[at - 1].text[-1].isalpha():
            at += 1  # "A1", "T4": a name
            continue
        number = _number(words, at)
        if number is None:
            if decade := _DECADES.get(words[at].low):
                found.append(Fact("decade", decade, decade, "", words[at].start, words[at].end, at, at))
            ordinal = _ORDINALS.get(words[at].low)
            if ordinal and words[at].low not in ("first", "second"):
                found.append(Fact("ordinal", ordinal, ordinal, "", words[at].start, words[at].end, at, at))
            at += 1
            continue
        value, last = number
        if last + 1 < len(words) and words[last + 1].start == words[last].end and words[last + 1].low in _SUFFIXES:
            kind = "decade" if words[last + 1].low == "s" else "ordinal"
            found.append(Fact(kind, value, value, "", words[at].start, words[last + 1].end, at, last + 1))
            at = last + 2
            continue
        found.append(_counted(words, at, last, value))
        at = max(found[-1].last, last) + 1
    return found


def implied(words: Sequence[Word]) -> list[Fact]:
    """Amounts that are said without a number: "a day off", "next week", "another month", "a couple of weeks", "at bedtime"."""
    found: list[Fact] = []
    for at, word in enumerate(words[:-1]):
        value = 1.0 if word.low in ("a", "an", "next", "last", "another", "this", "past") else 0.0
        unit = at + 1
        if word.low == "couple":
            value, unit = 2.0, at + 1 + (words[at + 1].low == "of")
        if value and unit < len(words) and (known_unit := UNITS.get(words[unit].key)) and known_unit[0] in ("time", "tablet"):
            kind, factor = known_unit
            found.append(Fact(kind, value, value * factor, words[unit].key, word.start, words[unit].end, at, unit))
        elif word.low in _PARTS_OF_DAY:
            found.append(Fact("frequency", 1.0, 1.0, "", word.start, word.end, at, at))
        elif word.low == "all" and words[at + 1].low in ("day", "night"):
            found.append(Fact("time", 1.0, 24.0, "day", word.start, words[at + 1].end, at, at + 1))
        elif word.low in _TIMES:
            found.append(Fact("count", _TIMES[word.low], _TIMES[word.low], "", word.start, word.end, at, at))
    return found


def _number(words: Sequence[Word], at: int) -> tuple[float, int] | None:
    """The number that begins at word `at`, and its last word."""
    low = words[at].low
    if low[0].isdigit() or (low[0] == "." and low[1:2].isdigit()):
        value = float(low.replace(",", "")) if low.isascii() else 0.0
        if [word.low for word in words[at + 1 : at + 4]] in (["/", "2"], ["1", "/", "2"]) or (
            [word.low for word in words[at + 1 : at + 5]] == ["-", "1", "/", "2"]
        ):
            half = next(place for place in range(at + 1, at + 5) if words[place].low == "2")
            return (value / 2 if half == at + 2 else value + 0.5), half  # "1/2", "1 1/2", "1-1/2"
        if at + 1 < len(words) and words[at + 1].low in _SCALES:
            return value * _SCALES[words[at + 1].low], at + 1
        return value, at
    if low == "point" and at + 1 < len(words) and words[at + 1].low in _SMALL:
        return _decimals(words, 0.0, at)
    if low == "half" and at + 1 < len(words) and words[at + 1].low in ("-", "life"):
        return None  # "half-life"
    if low == "half" and not (at and words[at - 1].low in ("and", "a") and at > 1 and words[at - 2].low in _SMALL):
        return 0.5, at
    if low in _SCALES and at and words[at - 1].low == "a":
        return float(_SCALES[low]), at  # "a thousand"
    if low not in _SMALL and low not in _TENS:
        return None
    total, current, last, place = 0.0, 0.0, at, at
    parts: list[int] = []
    while place < len(words):
        word = words[place].low
        if word in _SMALL and (not parts or (parts[-1] >= 20 and parts[-1] % 10 == 0 and _SMALL[word] < 10) or parts[-1] == -1):
            current += _SMALL[word]
            parts.append(_SMALL[word])
        elif word in _TENS and (not parts or parts[-1] == -1):
            current += _TENS[word]
            parts.append(_TENS[word])
        elif word in _TENS and len(parts) == 1 and (10 <= parts[0] <= 20 or 0 < parts[0] < 10):
            current = current * 100 + _TENS[word]  # "nineteen sixty", "one twenty"
            parts = [100, _TENS[word]]
        elif word in _SMALL and len(parts) == 1 and parts[0] in (19, 20) and 10 <= _SMALL[word] < 20:
            current = current * 100 + _SMALL[word]  # "twenty twelve"
            parts.append(_SMALL[word])
        elif word in _SCALES and parts:
            scale = _SCALES[word]
            if scale == 100:
                current *= 100
            else:
                total, current = total + current * scale, 0.0
            parts.append(-1)
        elif word in ("and", "-", "–") and place + 1 < len(words) and parts:
            after = words[place + 1].low
            joins = parts[-1] == -1 if word == "and" else parts[-1] >= 20 and parts[-1] % 10 == 0
            if not (joins and (after in _SMALL or (word == "and" and after in _TENS))):
                break
            place += 1
            continue
        else:
            break
        last = place
        place += 1
    value = total + current
    if last + 2 < len(words) and words[last + 1].low == "point" and words[last + 2].low in _SMALL:
        return _decimals(words, value, last + 1)
    if last + 3 < len(words) and [word.low for word in words[last + 1 : last + 4]] == ["and", "a", "half"]:
        return value + 0.5, last + 3
    return value, last


def _decimals(words: Sequence[Word], whole: float, point: int) -> tuple[float, int]:
    """ "two point five", "point zero zero four": the digits after the point."""
    digits, last = "", point
    while last + 1 < len(words) and (_SMALL.get(words[last + 1].low, 10) < 10 or words[last + 1].low in ("o", "oh")):
        last += 1
        digits += str(_SMALL.get(words[last].low, 0))
    return whole + float("0." + (digits or "0")), last


def _counted(words: Sequence[Word], first: int, last: int, value: float) -> Fact:
    """The number with its unit, if it has one within a mark or two: "500 mg", "five-year", "3 to 4 days"."""
    if {"age", "aged", "ages"} & {word.low for word in words[max(0, first - 2) : first]}:
        unit = words[last + 1].key if last + 1 < len(words) else ""
        if unit in UNITS and UNITS[unit][0] == "time":
            end = words[last + 1].end
            return Fact("age", value, value * UNITS[unit][1] / 8766.0, unit, words[first].start, end, first, last + 1)
        return Fact("age", value, value, "", words[first].start, words[last].end, first, last)
    place = last + 1
    while place < len(words) and words[place].low in ("-", "–", "/", "to", "or", "a", "an", "of", "more", "few"):
        other = _number(words, place + 1) if place + 1 < len(words) else None
        if words[place].low in ("-", "–", "/", "to", "or") and other is not None:
            place = other[1] + 1
            continue
        if words[place].low in ("-", "–", "a", "an", "of"):
            place += 1
            continue
        break
    start = words[first - 1].start if first and words[first - 1].low == "$" else words[first].start
    if start != words[first].start:
        return Fact("money", value, value, "$", start, words[last].end, first, last)
    if place < len(words) and place <= last + 8:
        word = words[place]
        unit = word.low if word.low in UNITS else word.key
        unit = {"minut": "minute", "ounc": "ounce", "capsul": "capsule", "mil": "mile", "inche": "inch"}.get(unit, unit)
        if unit == "pack" and {each.low for each in words[place + 1 : place + 3]} & {"year", "years", "yr", "yrs"}:
            # A product of two numbers, which the source may have apart.
            return Fact("count", value, value, "pack-year", start, words[last].end, first, last)
        if unit in UNITS and unit != "$":
            kind, factor = UNITS[unit]
            if kind == "time" and _says_age(words, first, place):
                return Fact("age", value, value * factor / 8766.0, unit, start, word.end, first, last)
            return Fact(kind, value, value * factor, unit, start, word.end, first, last)
        if unit and unit[0].isalpha():
            before = first > 1 and words[first - 1].low in ("age", "aged", "of", "at")
            if before and {"age", "aged"} & {word.low for word in words[max(0, first - 2) : first]}:
                return Fact("age", value, value, "", start, words[last].end, first, last)
            return Fact("count", value, value, unit, start, words[last].end, first, last)
    if {"age", "aged"} & {word.low for word in words[max(0, first - 3) : first]}:
        return Fact("age", value, value, "", start, words[last].end, first, last)
    return Fact("count", value, value, "", start, words[last].end, first, last)


def _says_age(words: Sequence[Word], first: int, unit: int) -> bool:
    after = [word.low for word in words[unit + 1 : unit + 4] if word.key]
    return (
        after[:1] == ["old"]
        or bool({"age", "aged"} & {word.low for word in words[max(0, first - 2) : first]})
        or (after[:2] == ["of", "age"])
    )


def _frequency(words: Sequence[Word], at: int) -> Fact | None:
    """How often, in times a day: "b.i.d.", "q6h", "every 8 hours", "twice a day", "3 times daily"."""
    word = words[at]
    hours = _Q_HOURS.match(word.low)
    if hours and int(hours.group(1)):
        return _often(words, at, at, 24 / int(hours.group(1)), "q")
    if word.low in _LATIN:
        return _often(words, at, at, _LATIN[word.low], word.low)
    if word.low == "q" and at + 1 < len(words) and words[at + 1].low.isdigit() and int(words[at + 1].low):
        return _often(words, at, at + 1, 24 / int(words[at + 1].low), "q")
    if word.low in ("every", "each", "per") and at + 1 < len(words):
        number = _number(words, at + 1)
        unit = (number[1] if number else at) + 1
        # "every 4 to 6 hours" is taken at its mildest.
        if (
            number
            and unit + 1 < len(words)
            and words[unit].low in ("to", "-", "–", "or")
            and (later := _number(words, unit + 1))
        ):
            number, unit = later, later[1] + 1
        if unit < len(words):
            span_h = _EVERY_H.get(words[unit].key, 0.0)
            count = number[0] if number else 1.0
            if span_h and count > 0 and (number or word.low != "per"):
                return _often(words, at, unit, 24 / (span_h * count), "every")
        return None
    if word.low in _TIMES:
        times, last = _TIMES[word.low], at
    else:
        number = _number(words, at)
        if number is None or number[1] + 1 >= len(words) or words[number[1] + 1].low not in ("times", "time"):
            return None
        times, last = number[0], number[1] + 1
    after = last + 1
    if after < len(words) and words[after].low in ("a", "per", "each", "every", "in", "/"):
        after += 1
    if after < len(words):
        low = words[after].low
        if low in ("daily", "day", "night", "nightly"):
            return _often(words, at, after, times, "day")
        if low in ("weekly", "week"):
            return _often(words, at, after, times / 7, "week")
        if low in ("month", "monthly"):
            return _often(words, at, after, times * 24 / 730.5, "month")
    return None


def _often(words: Sequence[Word], first: int, last: int, a_day: float, unit: str) -> Fact:
    return Fact("frequency", a_day, a_day, unit, words[first].start, words[last].end, first, last)


def _dates(text: str, words: Sequence[Word]) -> dict[int, Fact]:
    """First word → date."""
    found: dict[int, Fact] = {}
    if not words:
        return found
    starts = {word.start: place for place, word in enumerate(words)}
    low, high = words[0].start, words[-1].end
    for pattern in (_ISO_DATE, _DATE):
        for match in pattern.finditer(text, low, high):
            place = starts.get(match.start())
            if place is None or place in found:
                continue
            year, month, day = _numeric(match, pattern is _ISO_DATE)
            if not 1 <= month <= 12 or not 0 <= day <= 31 or not (year or match.group(2) == "/"):
                continue
            if not year and _unlikely_date(words, place):
                continue
            last = max(at for start, at in starts.items() if start < match.end())
            found[place] = Fact("date", 0, 0, "", match.start(), match.end(), place, last, (year, month, day))
    for place, word in enumerate(words):
        spoken = word.low.rstrip(".")
        if spoken in _MONTHS and not any(fact.first <= place <= fact.last for fact in found.values()):
            named = _named(words, place, spoken)
            if named is not None:
                found[named.first] = named
    return found


def _numeric(match: re.Match[str], iso: bool) -> tuple[int, int, int]:
    if iso:
        return int(match.group(1)), int(match.group(2)), int(match.group(3))
    year = int(match.group(4) or 0)
    if year and year < 100:
        year += 2000 if year < 50 else 1900
    month, day = int(match.group(1)), int(match.group(3))
    return (year, day, month) if month > 12 >= day else (year, month, day)


def _unlikely_date(words: Sequence[Word], place: int) -> bool:
    """A slash without a year is rather a score, a ratio or a share: "pain 6/10", "5/5 strength"."""
    before = {word.low for word in words[max(0, place - 3) : place]}
    return not before & {"on", "since", "dated", "date", "until", "by", "from", "visit", "seen"}


def _named(words: Sequence[Word], place: int, month: str) -> Fact | None:
    """ "January 10th, 2009", "10 January", "August of two thousand eight"; a month alone is a date, too."""
    first = last = place
    year = day = 0
    if place and (before := _day(words[place - 1])):
        day, first = before, place - 1
    elif place > 1 and words[place - 1].low == "of" and (before := _day(words[place - 2])):
        day, first = before, place - 2
    at = place + 1
    while at < len(words) and words[at].low in ("of", "the", ",", "."):
        at += 1
    if not day and at < len(words):
        spoken = words[at].low
        then = words[at + 1].low if at + 1 < len(words) else ""
        if spoken in ("twenty", "thirty") and then in _ORDINALS and _ORDINALS[then] < 10:
            day, last, at = _TENS[spoken] + _ORDINALS[then], at + 1, at + 2
        elif (said := _day(words[at])) and not (spoken in _SMALL and then in ("hundred", "thousand", *_TENS)):
            day, last, at = said, at, at + 1
            if at < len(words) and words[at].low in ("st", "nd", "rd", "th"):
                last, at = at, at + 1
    while at < len(words) and words[at].low in ("of", ",", "in"):
        at += 1
    if at < len(words):
        number = _number(words, at)
        if number is not None and 1900 <= number[0] <= 2100 and number[0] == int(number[0]):
            year, last = int(number[0]), number[1]
    if month in _SHY_MONTHS and not day and not year:
        return None
    return Fact("date", 0, 0, "", words[first].start, words[last].end, first, last, (year, _MONTHS[month], day))


def _day(word: Word) -> int:
    if word.low in _ORDINALS:
        return _ORDINALS[word.low]
    if word.low in _SMALL:
        return _SMALL[word.low]
    digits = re.match(r"(\d{1,2})\Z", word.low)
    return int(digits.group(1)) if digits and 1 <= int(digits.group(1)) <= 31 else 0


def same_amount(one: Fact, other: Fact) -> bool:
    """Whether both say the same, converted if need be: 2 weeks and 14 days, 0.5 g and 500 mg."""
    if one.kind == "date" or other.kind == "date":
        if one.kind != other.kind:
            dated, plain = (one, other) if one.kind == "date" else (other, one)
            return plain.kind == "count" and plain.value == dated.date[0]
        return all(not mine or not theirs or mine == theirs for mine, theirs in zip(one.date, other.date, strict=True))
    if one.kind == other.kind:
        if one.kind == "count":
            return one.value == other.value
        wide = one.unit != other.unit
        return abs(one.amount - other.amount) <= (TOLERANCE if wide else 1e-6) * max(abs(one.amount), abs(other.amount), 1e-9)
    if {one.kind, other.kind} == {"age", "count"}:
        return one.amount == other.amount
    return one.value == other.value and (not known(one) or not known(other) or {one.kind, other.kind} <= {"age", "time"})


def known(fact: Fact) -> bool:
    """Whether what it counts is a unit, rather than some noun or nothing."""
    return fact.kind != "count"
