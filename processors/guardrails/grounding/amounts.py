"""The numbers of a claim held against those of the source: which it lacks, which it has of something else, which differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .doubts import Doubt, Reading
from .facts import Fact, known, same_amount
from .source import Source

# A number up to this is said of many things.
FEW: Final = 3
# What each further wrong number leaves of the doubt that is left.
FURTHER: Final = 0.3
# Numbers that belong to whom or what a sentence is about, so that denying the sentence denies them. "Not … in many years" does
# not.
_OWNED: Final = frozenset(("age", "mass", "units", "pack", "weight", "percent", "count"))


def hold_numbers(reading: Reading, source: Source, found: Sequence[tuple[float, list[str]]]) -> None:
    """Marks in `reading` the numbers that the source lacks, has of something else, or says otherwise. `found`: of
    each term, how well the source has it, and by which keys."""
    features = reading.features
    beside = {line + step for line in reading.lines for step in (-1, 0, 1)}
    for fact in reading.claim.facts:
        equal = [(line, other) for line, other in source.facts if same_amount(fact, other)]
        if known(fact) and fact.value <= FEW and all(other.kind == "count" for _, other in equal):
            # "One" is in every conversation: it is no ounce where ounces are spoken of.
            alike = {line for line, other in source.facts if other.kind == fact.kind and line in beside}
            equal = equal if not alike or alike & {line for line, _ in equal} else []
        if equal:
            signs = {sign for line, other in equal for sign in _signs(source, line, other)}
            if signs == {1} and fact.kind in _OWNED and reading.claim.polarity[fact.first] < 0:
                features["negation"] = 1.0
                reading.doubts.append(Doubt("negation", fact.start, fact.end, 0.8))
            if fact.kind != "frequency" and _elsewhere(reading, source, fact, [line for line, _ in equal], found):
                features["number_elsewhere"] += 1
            continue
        digits = any(other.value == fact.value and known(other) for _, other in source.facts) and known(fact)
        rivals = [
            line
            for line, other in source.facts
            if other.kind == fact.kind and (fact.kind != "count" or (fact.unit and other.unit == fact.unit))
        ]
        if _is_year(fact):
            rivals = [line for line, other in source.facts if _is_year(other) or other.date[0]]
        if not rivals and fact.kind != "date":
            rivals = [line for line, other in source.facts if line in reading.lines[:1] and _stands_for(fact, other, reading)]
        small = (fact.kind == "count" and fact.value in (0.5, 1, 2, 3)) or (fact.kind == "frequency" and fact.amount == 1)
        if any(same_amount(fact, other) for other in source.implied.values()):
            continue
        if digits and fact.kind not in ("date", "age", "frequency") and (fact.kind != "time" or fact.value > 2):
            reading.doubts.append(Doubt("unit", fact.start, fact.end, 0.8))
            features["number_differs"] += 1
        elif rivals and (
            set(rivals) & beside
            or ((fact.kind != "count" or _is_year(fact)) and not _elsewhere(reading, source, fact, rivals, found))
        ):
            reading.doubts.append(Doubt(_kind(fact), fact.start, fact.end, 0.85 if set(rivals) & beside else 0.7))
            features["number_differs"] += 0.5 if small else 1
        else:
            reading.doubts.append(Doubt("absent_number", fact.start, fact.end, 0.3 if small else 0.6))
            features["number_absent"] += 0.3 if small else 1
    # The first wrong number says most; ten are not ten times as wrong.
    for name in ("number_differs", "number_absent", "number_elsewhere"):
        features[name] = 1 - FURTHER ** features[name]


def _is_year(fact: Fact) -> bool:
    return fact.kind == "count" and 1900 <= fact.value <= 2100 and fact.value == int(fact.value)


def _stands_for(fact: Fact, other: Fact, reading: Reading) -> bool:
    """Whether `other`, a number that the claim does not have, may be what `fact` should be."""
    alike = other.kind == fact.kind or "count" in (fact.kind, other.kind)
    return alike and other.kind != "date" and not any(same_amount(mine, other) for mine in reading.claim.facts)


def _signs(source: Source, line: int, fact: Fact) -> list[int]:
    return [
        sign
        for word, sign in zip(source.lines[line].words, source.lines[line].polarity, strict=True)
        if word.start == fact.start
    ]


def _kind(fact: Fact) -> str:
    names = {
        "mass": "dose",
        "units": "dose",
        "tablet": "dose",
        "frequency": "frequency",
        "time": "duration",
        "age": "age",
        "date": "date",
    }
    return names.get(fact.kind, "number")


def _elsewhere(
    reading: Reading, source: Source, fact: Fact, lines: Sequence[int], found: Sequence[tuple[float, list[str]]]
) -> bool:
    """Whether the source has the number, but not near anything that the claim says beside it."""
    beside = sorted(
        (place for place, term in enumerate(reading.claim.terms) if term.weight >= 0.5 and found[place][1]),
        key=lambda place: abs(reading.claim.terms[place].first - fact.first),
    )[:3]
    if not beside:
        return False
    near = {line + step for line in lines for step in (-1, 0, 1)}
    return not any(near & set(source.postings[key]) for place in beside for key in found[place][1])
