"""Faithful and unfaithful answers, made from dialogues and the notes that clinicians wrote of them (MTS-Dialog).

A note as it stands, shortened, or with its numbers spelled out is faithful. A note in which one thing is changed is not: a
number, a unit, a date, a drug, a condition, a body part, a side, a denial, a relative, any content word, or a sentence
that comes from another patient's note and says what this dialogue does not. Seeded: the same file gives the same cases.
Nothing here reads the detector's lexicon.
"""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tidegate.processors.guardrails.grounding.reading import listed

SEED: Final = 20_261_102

DRUGS: Final = listed(
    "metformin lisinopril atorvastatin albuterol omeprazole gabapentin sertraline ibuprofen tylenol advil aspirin coumadin "
    "prednisone amoxicillin synthroid lasix plavix zoloft xanax vicodin insulin chantix claritin singulair nexium zocor "
    "lipitor metoprolol digoxin lithium celebrex lexapro ambien percocet flonase benadryl zyrtec hydrochlorothiazide"
)
CONDITIONS: Final = (
    "hypertension", "diabetes", "asthma", "pneumonia", "arthritis", "depression", "anxiety", "migraine", "seizures", "stroke",
    "hepatitis", "anemia", "gout", "osteoporosis", "hypothyroidism", "glaucoma", "emphysema", "tuberculosis", "cancer",
    "headache", "nausea", "vomiting", "diarrhea", "constipation", "fever", "chills", "cough", "fatigue", "dizziness", "rash",
    "chest pain", "shortness of breath", "palpitations", "swelling", "numbness", "weakness", "wheezing", "insomnia",
    "abdominal pain", "back pain", "sore throat", "jaundice", "heart disease", "kidney disease", "hallucinations",
    "confusion",
)  # fmt: skip
PARTS: Final = listed(
    "knee shoulder elbow wrist ankle hip thigh calf foot hand neck back chest abdomen jaw ear eye nose throat heel finger toe "
    "forearm tailbone rib"
)
RELATIVES: Final = listed("mother father brother sister grandmother grandfather aunt uncle son daughter wife husband")
UNITS: Final = (
    ("mg", "mcg"), ("mg", "g"), ("milligrams", "grams"), ("pounds", "kilograms"), ("ounces", "grams"), ("days", "weeks"),
    ("weeks", "months"), ("months", "years"), ("years", "months"), ("hours", "days"), ("minutes", "hours"), ("day", "week"),
    ("week", "month"), ("month", "year"), ("year", "month"), ("inches", "feet"), ("cm", "mm"), ("packs", "cartons"),
)  # fmt: skip
MONTHS: Final = listed("January February March April May June July August September October November December")
SIDES: Final = (
    ("left", "right"),
    ("upper", "lower"),
    ("bilateral", "unilateral"),
    ("medial", "lateral"),
    ("anterior", "posterior"),
)
OPPOSITES: Final = (
    ("increased", "decreased"), ("worse", "better"), ("worsened", "improved"), ("before", "after"), ("mild", "severe"),
    ("acute", "chronic"), ("more", "less"), ("single", "married"), ("male", "female"), ("constant", "intermittent"),
)  # fmt: skip
# Words of a foreign sentence, of four letters or more, that the dialogue must lack.
NEW_WORDS: Final = 2
_WORDS: Final = listed("zero one two three four five six seven eight nine ten eleven twelve")
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Case:
    """`response` of the dialogue `group`; `changed` is where it was altered, (0, 0) where it is faithful."""

    group: int
    kind: str
    context: str
    response: str
    faithful: bool
    changed: tuple[int, int] = (0, 0)


Change = tuple[str, int, int]


def read_notes(path: Path) -> list[tuple[int, str, str]]:
    """(number, dialogue, note) of each row."""
    with path.open(newline="", encoding="utf-8") as file:
        return [(int(row["ID"]), row["dialogue"], " ".join(row["section_text"].split())) for row in csv.DictReader(file)]


def read_summaries(path: Path, notes: Sequence[tuple[int, str, str]]) -> list[list[tuple[int, str, str]]]:
    """(number, dialogue, summary) of the calls that summarise one of these dialogues: first each one's first summary, then each
    one's second."""
    numbers = {" ".join(dialogue.split()): number for number, dialogue, _ in notes}
    rounds: list[list[tuple[int, str, str]]] = []
    counts: dict[int, int] = {}
    with path.open(encoding="utf-8") as file:
        for call in map(json.loads, file):
            dialogue = (call["retrieved_context"] or [""])[0]
            number = numbers.get(" ".join(dialogue.split()))
            if number is None:
                continue
            place = counts[number] = counts.get(number, 0) + 1
            rounds.extend([] for _ in range(place - len(rounds)))
            summary = " ".join(call["response"]["choices"][0]["message"]["content"].split())
            rounds[place - 1].append((number, dialogue, summary))
    return rounds


def cases(notes: Sequence[tuple[int, str, str]], each: int = 2) -> list[Case]:
    """Every note as faithful cases, and up to `each` alterations of every kind."""
    found: list[Case] = []
    for number, dialogue, note in notes:
        rng = random.Random(SEED + number)
        for kind, text in _faithful(note, rng):
            found.append(Case(number, kind, dialogue, text, True))
        others = [other for place, _, other in notes if place != number]
        for kind, change in CHANGES.items():
            seen = {note}
            for _ in range(each):
                changed = change(note, dialogue, others, rng)
                if changed is not None and changed[0] not in seen:
                    seen.add(changed[0])
                    found.append(Case(number, kind, dialogue, changed[0], False, changed[1:]))
    return found


def _faithful(note: str, rng: random.Random) -> Iterator[tuple[str, str]]:
    yield "as written", note
    parts = _SENTENCE.split(note)
    if len(parts) > 1:
        for _ in range(2):
            kept = sorted(rng.sample(range(len(parts)), rng.randint(1, len(parts) - 1)))
            yield "shortened", " ".join(parts[place] for place in kept)
        shuffled = list(parts)
        rng.shuffle(shuffled)
        yield "reordered", " ".join(shuffled)
    spelled = re.sub(r"(?<![\d./-])(\d{1,2})(?![\d./%-])", lambda m: _spell(int(m.group())), note)
    if spelled != note:
        yield "spelled out", spelled
    yield "introduced", "Here is a summary of the visit. " + note


def _spell(value: int) -> str:
    return _WORDS[value] if value < len(_WORDS) else str(value)


def _replace(note: str, match: re.Match[str], by: str) -> Change:
    if match.group()[:1].isupper():
        by = by[:1].upper() + by[1:]
    return note[: match.start()] + by + note[match.end() :], match.start(), match.start() + len(by)


def _choose(pattern: str, note: str, rng: random.Random) -> re.Match[str] | None:
    found = list(re.finditer(pattern, note, re.IGNORECASE))
    return rng.choice(found) if found else None


def _number(note: str, dialogue: str, others: Sequence[str], rng: random.Random) -> Change | None:
    match = _choose(r"(?<![\d/.A-Z])\d+(?:\.\d+)?(?![\d/]|\. [A-Z])", note, rng)
    if match is None:
        return None
    value = float(match.group())
    new = rng.choice([value + rng.randint(2, 9), value * 2 + 1, value * 10, max(1.0, value - rng.randint(1, 5))])
    written = f"{new:g}"
    return None if written == match.group() or re.search(rf"\b{written}\b", dialogue) else _replace(note, match, written)


def _unit(note: str, dialogue: str, others: Sequence[str], rng: random.Random) -> Change | None:
    rng_pairs = [(a, b) for a, b in UNITS if re.search(rf"\d[ -]?{a}\b", note, re.IGNORECASE)]
    if not rng_pairs:
        return None
    one, other = rng.choice(rng_pairs)
    match = _choose(rf"(?<=\d[ -]){one}\b", note, rng) or _choose(rf"(?<=\d){one}\b", note, rng)
    return None if match is None else _replace(note, match, other)


def _date(note: str, dialogue: str, others: Sequence[str], rng: random.Random) -> Change | None:
    match = _choose(r"\b(?:" + "|".join(MONTHS) + r")\b(?= \d|,? (?:19|20))|\b(?:19|20)\d\d\b", note, rng)
    if match is None:
        match = _choose(r"\b\d{1,2}/\d{1,2}/\d{2,4}\b", note, rng)
        if match is None:
            return None
        month, day, year = match.group().split("/")
        return _replace(note, match, f"{int(month) % 12 + 1:02d}/{day}/{year}")
    if match.group()[0].isdigit():
        return _replace(note, match, str(int(match.group()) + rng.choice([-7, -3, -2, 2, 4, 6])))
    return _replace(note, match, rng.choice([month for month in MONTHS if month.lower() != match.group().lower()]))


def _of(names: Sequence[str]) -> Callable[[str, str, Sequence[str], random.Random], Change | None]:
    def change(note: str, dialogue: str, others: Sequence[str], rng: random.Random) -> Change | None:
        match = _choose(r"\b(?:" + "|".join(map(re.escape, names)) + r")\b", note, rng)
        if match is None:
            return None
        free = [name for name in names if name not in dialogue.lower() and name not in note.lower()]
        return _replace(note, match, rng.choice(free)) if free else None

    return change


def _paired(pairs: Sequence[tuple[str, str]]) -> Callable[[str, str, Sequence[str], random.Random], Change | None]:
    both = {**dict(pairs), **{other: one for one, other in pairs}}

    def change(note: str, dialogue: str, others: Sequence[str], rng: random.Random) -> Change | None:
        match = _choose(r"\b(?:" + "|".join(both) + r")\b", note, rng)
        return None if match is None else _replace(note, match, both[match.group().lower()])

    return change


_DENIALS: Final = (
    (r"\bdenies (?:any )?", "reports "), (r"\bdenied (?:any )?", "reported "), (r"(?:(?<=\. )|^)No (?=[a-z])", "Has "),
    (r"\bno (?=[a-z])", "some "), (r"\bnegative for\b", "positive for"), (r"\bwithout\b", "with"), (r"\bnot \b", ""),
    (r"\bdoes not\b", "does"), (r"\bnever\b", "often"), (r"\bhas a\b", "does not have a"), (r"\bhas had\b", "has not had"),
    (r"\bhas (?=[a-z]+ed\b)", "has not "), (r"\bis (?!no)(?=[a-z])", "is not "), (r"\bwas (?!no)(?=[a-z])", "was not "),
    (r"\bcomplains of\b", "denies"), (r"\bpositive for\b", "negative for"), (r"\breports\b", "denies"),
    (r"\bstates (?:that )?(?:he|she) has\b", "denies"), (r"\bhas been\b(?! no)", "has not been"),
    (r"\btakes\b", "does not take"),
    (r"\bsmokes\b", "does not smoke"), (r"\bwith history of\b", "without history of"),
)  # fmt: skip


def _negation(note: str, dialogue: str, others: Sequence[str], rng: random.Random) -> Change | None:
    able = [(pattern, by) for pattern, by in _DENIALS if re.search(pattern, note, re.IGNORECASE)]
    if not able:
        return None
    pattern, by = rng.choice(able)
    match = _choose(pattern, note, rng)
    return None if match is None else _replace(note, match, by)


def _word(note: str, dialogue: str, others: Sequence[str], rng: random.Random) -> Change | None:
    """A content word becomes one of another patient's note, that neither this note nor its dialogue has."""
    match = _choose(r"\b[a-z]{6,}\b", note, rng)
    if match is None:
        return None
    ending = match.group()[-2:].lower()
    spoken = (note + dialogue).lower()
    free = sorted(
        {
            word
            for other in others
            for word in re.findall(r"\b[a-z]{6,}\b", other)
            if word[-2:] == ending and word[:4] not in spoken
        }
    )
    return _replace(note, match, rng.choice(free)) if free else None


def _sentence(note: str, dialogue: str, others: Sequence[str], rng: random.Random) -> Change | None:
    """A sentence of another patient's note is put among these, if it says something that the dialogue does not: "Denies the use
    of alcohol." is as true of the next patient who does."""
    spoken = dialogue.lower()
    other = [
        part
        for part in _SENTENCE.split(rng.choice(others))
        if len(part.split()) >= 5
        and sum(word[:5] not in spoken for word in re.findall(r"[a-z]{4,}", part.lower())) >= NEW_WORDS
    ]
    if not other:
        return None
    parts = _SENTENCE.split(note)
    added = rng.choice(other)
    place = rng.randint(0, len(parts))
    start = sum(len(part) + 1 for part in parts[:place])
    return " ".join([*parts[:place], added, *parts[place:]]), start, start + len(added)


CHANGES: Final[dict[str, Callable[[str, str, Sequence[str], random.Random], Change | None]]] = {
    "number": _number,
    "unit": _unit,
    "date": _date,
    "drug": _of(DRUGS),
    "condition": _of(CONDITIONS),
    "body part": _of(PARTS),
    "relative": _of(RELATIVES),
    "side": _paired(SIDES),
    "opposite": _paired(OPPOSITES),
    "negation": _negation,
    "word": _word,
    "sentence": _sentence,
}
