"""One claim held against a source: how much of it is there, and what of it the source contradicts.

claim × source ─► Reading: support of each term, best lines, `Doubt`s (what is wrong, and where), features
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from .amounts import hold_numbers
from .claims import COMMON, NAMES, Claim, Term
from .doubts import Doubt, Reading
from .lexicon import EMPTY_KEYS, FRAME_KEYS, lexicon
from .reading import listed
from .source import Source

# Of a term that only the question has: it is no invention, but the source does not bear it out.
IN_QUESTION: Final = 0.8
# Of a term that is absent from the source, but which the claim denies.
DENIED: Final = 0.6
DENIED_ALONE: Final = 0.9
# Weight from which a term that is absent alone counts.
ALONE: Final = 0.6
IN_ANOTHER_FORM: Final = 0.9
# Of a phrase whose words the source has close to each other.
SAID_LOOSELY: Final = 0.85
# A drug has few names, and the lexicon has most of them: its absence says more than that of a condition.
DRUG: Final = 1.5
# Of a word that many names end in, beside the word that tells them apart.
GENERIC: Final = 0.4
_GENERIC: Final = frozenset(
    listed("diseas pain surgery infection problem cancer removal test therapy scan smear section repair replacement level")
)
# Weight above which a word that is denied in one place and affirmed in another tells something.
SPOKEN_OF: Final = 0.15
# Cosine of two words from which they count as near, and at which as the same.
NEAR, SAME = 0.35, 0.75
# And of a name with a phrase; and the most that such a likeness bears out.
NEAR_NAME, SAME_NAME = 0.3, 0.6
NAMED_ALIKE = 0.5

_SIDES: Final = (
    ({"left"}, {"right"}),
    ({"upper"}, {"lower"}),
    ({"medial"}, {"lateral"}),
    ({"anterior", "front"}, {"posterior", "back"}),
    ({"proximal"}, {"distal"}),
    ({"unilateral"}, {"bilateral", "both"}),
)
_OPPOSITES: Final = (
    ("=worsen", "=improve"),
    ("=increase", "=decrease"),
    ("=begin", "=stop"),
    ("=deceased", "=alive"),
    ("more", "less"),
    ("more", "fewer"),
    ("mild", "sever"),
    ("mild", "moderat"),
    ("moderat", "sever"),
    ("acut", "chronic"),
    ("high", "low"),
    ("larg", "small"),
    ("before", "after"),
    ("morning", "night"),
    ("morning", "evening"),
    ("single", "marry"),
    ("single", "divorc"),
    ("marry", "divorc"),
    ("always", "never"),
    ("continuou", "intermittent"),
    ("=continuous", "=intermittent"),
    ("=constant", "=intermittent"),
    ("=mild", "=severe"),
    ("=large", "=small"),
    ("hot", "cold"),
    ("older", "younger"),
    ("benign", "malignant"),
    ("dry", "productiv"),
    ("sharp", "dull"),
    ("early", "late"),
)
_SEXES: Final = {
    1: frozenset(listed("male man gentleman boy mr mister sir")),
    2: frozenset(listed("female woman lady girl mrs ms miss ma'am")),
}
_RELATIVES: Final = (
    "=mother", "=father", "=grandmother", "=grandfather", "=brother", "=sister", "=aunt", "=uncle", "=cousin", "=son",
    "=daughter", "=husband", "=wife", "=nephew", "=niece",
)  # fmt: skip

# What one kind of name is mistaken for: "eye pain" stands where "chest pain" should.
_LIKE: Final = {"part": "body", "condition": "body", "drug": "drug", "procedure": "procedure", "relative": "relative"}

# What stands beside the thing denied and is not denied itself: "no injury of the knee" leaves the knee.
_BESIDE: Final = frozenset(("part", "relative"))


def read_claim(
    claim: Claim, source: Source, asked: frozenset[str], near: Mapping[str, float], cosines: np.ndarray | None
) -> Reading:
    """`asked`: keys of the question; `near`: key → how near the source's nearest word is, for keys that it does not have;
    `cosines`: of the claim with each line, where there is an encoder."""
    reading = Reading(claim, spoken=source.spoken)
    found = [_find(term, source, asked, near) for term in claim.terms]
    reading.support = [support for support, _ in found]
    cover, hits = _cover(claim, source, found)
    if cosines is not None and len(cosines):
        reading.features["far"] = 1.0 - float(max(cosines.max(), 0.0))
        hits = hits + 0.5 * cosines * max(float(hits.max(initial=0.0)), 0.2)
    order = np.argsort(-hits, kind="stable")[:3] if len(hits) else np.zeros(0, np.int64)
    reading.lines = [int(line) for line in order if hits[line] > 0]
    _absences(reading, source, cover, found)
    hold_numbers(reading, source, found)
    _negations(reading, source, found)
    _negations_near(reading, source, found)
    _sides(reading, source)
    _opposites(reading, source)
    _sex(reading, source)
    _relatives(reading, source, found)
    reading.copied = source.has(claim.words)
    return reading


def _find(term: Term, source: Source, asked: frozenset[str], near: Mapping[str, float]) -> tuple[float, list[str]]:
    """How well the source has a term, and the keys it has it by."""
    groups = (term.group,) if term.kind in ("relative", "drug") else (term.group, *term.also) if term.group else ()
    for group in groups:
        if group in source.postings:
            return 1.0, [group]
    for group in groups:
        if phrase := source.loosely(group):
            return SAID_LOOSELY, list(phrase)
    supports: list[float] = []
    weights: list[float] = []
    by: list[str] = []
    for key in term.keys:
        if key in EMPTY_KEYS and len(term.keys) > 1:
            continue
        # "Thyroid disease" is mostly of the thyroid.
        weights.append(GENERIC if key in FRAME_KEYS or key in _GENERIC else 1.0)
        if key in source.postings:
            supports.append(1.0)
            by.append(key)
        elif (other := source.like(key)) is not None and (term.kind != "drug"):
            supports.append(IN_ANOTHER_FORM)
            by.append(other)
        elif key in asked or term.group in asked:
            supports.append(IN_QUESTION)
        elif term.kind == "name" and source.stands_for(key):
            supports.append(SAID_LOOSELY)
        elif term.kind in ("drug", "name"):
            supports.append(0.0)
        else:
            supports.append(min(0.9, max(0.0, (near.get(key, 0.0) - NEAR) / (SAME - NEAR))))
    if not supports:
        return 1.0, []
    whole = float(np.dot(supports, weights)) / sum(weights)
    whole = whole if len(term.keys) == 1 else 0.85 * whole
    alike = (near.get(term.group, 0.0) - NEAR_NAME) / (SAME_NAME - NEAR_NAME)
    return max(whole, min(1.0, max(0.0, alike)) * NAMED_ALIKE), by


def _cover(claim: Claim, source: Source, found: Sequence[tuple[float, list[str]]]) -> tuple[np.ndarray, np.ndarray]:
    """For each line, the claim's weight within a line of it; and how well the line itself matches, rarer keys counting more."""
    cover = np.zeros(len(source.lines))
    hits = np.zeros(len(source.lines))
    if not len(cover):
        return cover, hits
    for term, (support, by) in zip(claim.terms, found, strict=True):
        if not by or not term.weight:
            continue
        mark = np.zeros(len(cover), bool)
        for key in by:
            posted = np.asarray(source.postings[key])
            hits[posted] += support * term.weight * source.rarity(key)
            mark[posted] = True
        wide = mark.copy()
        wide[1:] |= mark[:-1]
        wide[:-1] |= mark[1:]
        cover += support * term.weight * wide
    return cover, hits


def _absences(reading: Reading, source: Source, cover: np.ndarray, found: Sequence[tuple[float, list[str]]]) -> None:
    terms, features = reading.claim.terms, reading.features
    total = sum(term.weight for term in terms)
    if total <= 0:
        return
    _alone(reading, source, total)
    held = sum(
        term.weight * (support if term.polarity > 0 else 1 - DENIED * (1 - support))
        for term, support in zip(terms, reading.support, strict=True)
    )
    features["absent_part"] = 1.0 - held / total
    absent = [
        (term, 1.0 - support)
        for term, support in zip(terms, reading.support, strict=True)
        if support < 0.5 and term.weight >= 0.4
    ]
    features["absent_terms"] = min(4.0, sum(gone * term.weight for term, gone in absent)) / 4
    named = [term for term, _ in absent if term.kind in NAMES]
    # What is denied without being in the source is a smaller fault: reports list what nobody spoke of.
    for name, proper in (("absent_named", False), ("absent_proper", True)):
        faults = sum(
            gone * (1.0 if term.polarity > 0 else DENIED) * (DRUG if term.kind == "drug" else 1.0)
            for term, gone in absent
            if term.kind in NAMES and (term.kind == "name") is proper
        )
        features[name] = min(2.0, faults) / 2
    for term in named:
        reading.doubts.append(Doubt("absent_named", term.start, term.end, 0.6))
    inside = sum(term.weight * support for term, (support, by) in zip(terms, found, strict=True) if by)
    if inside > 0 and len(cover):
        features["scattered"] = 1.0 - float(cover.max()) / inside
    pairs, new, before = 0, 0, ""
    for word in reading.claim.words:
        if word.key and word.key not in EMPTY_KEYS:
            pairs += bool(before)
            new += bool(before) and (before, word.key) not in source.pairs
            before = word.key
    features["new_pairs"] = new / pairs if pairs else 0.0


def _alone(reading: Reading, source: Source, total: float) -> None:
    """A claim of which one thing alone is absent has had it put there; one that is absent in many words is told differently."""
    terms = reading.claim.terms
    gone = [term.weight * (1.0 - support) for term, support in zip(terms, reading.support, strict=True)]
    own = {term.group for term in terms}
    there = set().union(*(source.named[line] for line in reading.lines[:2])) - own if reading.lines else set()
    kinds = {_LIKE.get(lexicon().kinds.get(group, ""), "") for group in there}
    for term, lost in zip(terms, gone, strict=True):
        if lost < 0.5 * term.weight or term.weight < ALONE:
            continue
        rest = total - term.weight
        clean = max(0.0, 1.0 - 2.0 * (sum(gone) - lost) / rest) if rest > 0.5 else 0.0
        clean *= 1.0 if term.polarity > 0 else DENIED_ALONE
        name = "absent_alone" if term.kind in _LIKE else "absent_word"
        reading.features[name] = max(reading.features[name], clean * min(1.0, term.weight))
        if term.kind in _LIKE and _LIKE[term.kind] in kinds:
            reading.features["absent_swapped"] = max(reading.features["absent_swapped"], clean)


def _negations(reading: Reading, source: Source, found: Sequence[tuple[float, list[str]]]) -> None:
    settled = against = 0.0
    worst: Term | None = None
    named = 0
    for term, (support, by) in zip(reading.claim.terms, found, strict=True):
        if not by or support < IN_QUESTION or term.weight < 0.5 or term.kind in _BESIDE:
            continue
        signs = set().union(*(source.said[key] for key in by))
        if signs == {0}:
            settled += 0.5 * term.weight
            continue
        settled += term.weight
        if term.polarity not in signs:
            against += term.weight
            if term.kind in ("condition", "drug", "procedure"):
                named += 1
            if worst is None or term.weight > worst.weight:
                worst = term
    if settled and worst is not None:
        # One thing denied that the source affirms is a contradiction, however much else the claim says.
        share = max(against / settled, min(1.0, worst.weight) * 0.8 if worst.kind in NAMES else 0.5 * worst.weight)
        reading.features["negation"] = max(reading.features["negation"], share)
        reading.features["negation_named"] = min(2, named) / 2
        if against / settled >= 0.5 or named:
            reading.doubts.append(Doubt("negation", worst.start, worst.end, 0.5 + 0.4 * against / settled))


def _negations_near(reading: Reading, source: Source, found: Sequence[tuple[float, list[str]]]) -> None:
    """What the best line denies and the claim affirms, or the other way round, in words that both have."""
    if not reading.lines:
        return
    line = source.lines[reading.lines[0]]
    signs: dict[str, set[int]] = {}
    for word, sign in zip(line.words, line.polarity, strict=True):
        signs.setdefault(word.key, set()).add(sign)
    for first, _last, group in lexicon().groups(line.words):
        signs.setdefault(group, set()).add(line.polarity[first])
    settled = against = denied = affirmed = 0.0
    for term, (support, by) in zip(reading.claim.terms, found, strict=True):
        said = set().union(*(signs.get(key, set()) for key in by)) - {0}
        if support >= IN_QUESTION and said and term.weight > SPOKEN_OF:
            settled += term.weight
            against += term.weight * (term.polarity not in said)
            denied += term.weight * (term.polarity < 0)
            affirmed += term.weight * (term.polarity < 0 and said == {1})
    # A claim may deny little of what it says, and that little be what the line affirms.
    shares = (against / settled if settled else 0.0, affirmed / denied if denied >= COMMON else 0.0)
    reading.features["negation_near"] = max(shares)


def _sides(reading: Reading, source: Source) -> None:
    read = reading.claim.words
    # "Lower extremity" is a leg, wherever "lower" stands in the source.
    named = {
        place
        for term in reading.claim.terms
        if term.last > term.first and term.group in source.postings
        for place in range(term.first, term.last + 1)
    }
    for place, word in enumerate(read):
        if place in named:
            continue
        for one, other in _SIDES:
            for mine, theirs in ((one, other), (other, one)):
                if word.low not in mine or not _is_side(read, place):
                    continue
                after = next((each for each in read[place + 1 : place + 4] if each.key and each.key not in EMPTY_KEYS), None)
                said = _sided(source, mine, after.key if after else "")
                opposed = _sided(source, theirs, after.key if after else "")
                if after is not None and not said and not opposed:
                    said, opposed = _sided(source, mine, ""), _sided(source, theirs, "")
                if opposed and not said:
                    reading.features["side"] = 1.0
                    reading.doubts.append(Doubt("laterality", word.start, word.end, 0.85))
                elif not said and mine <= {"left", "right"}:
                    reading.features["side"] = max(reading.features["side"], 0.5)
                    reading.doubts.append(Doubt("absent_named", word.start, word.end, 0.5))


def _is_side(read: Sequence, place: int) -> bool:  # type: ignore[type-arg]
    after = read[place + 1].low if place + 1 < len(read) else "."
    before = read[place - 1].low if place else ""
    if read[place].low == "right":
        adverb = after in ("now", "away", "after", "before", "and", "here", "there", "so")
        return ((after[0].isalpha() or after == "-") and not adverb) or before in ("the", "on", "my", "his", "her")
    if read[place].low == "back":
        return False
    if read[place].low == "left":
        told = (
            before in ("he", "she", "they", "i", "we", "who") or read[place + 1].key in EMPTY_KEYS
            if place + 1 < len(read)
            else False
        )
        return not told or before in ("the", "on", "my", "his", "her")
    return True


def _sided(source: Source, sides: set[str], part: str) -> bool:
    for side in sides:
        for number in source.postings.get(side, ()):
            line = source.lines[number]
            for place, word in enumerate(line.words):
                if word.low == side and _is_side(line.words, place):
                    if not part:
                        return True
                    if part in {each.key for each in line.words[max(0, place - 4) : place + 5]}:
                        return True
    return False


def _opposites(reading: Reading, source: Source) -> None:
    mine: dict[str, Term | None] = {word.key: None for word in reading.claim.words if word.key}
    mine.update({term.group: term for term in reading.claim.terms if term.group})
    for one, other in _OPPOSITES:
        for said, opposed in ((one, other), (other, one)):
            if said not in mine or opposed in mine:
                continue
            if not source.said.get(said, set()) - {0} and opposed in source.postings:
                word = next((w for w in reading.claim.words if w.key == said), None)
                term = mine[said]
                start, end = (term.start, term.end) if term else (word.start, word.end) if word else (reading.claim.start,) * 2
                beside = {line + step for line in reading.lines for step in (-1, 0, 1)}
                close = bool(beside & set(source.postings[opposed]))
                reading.features["opposite"] = max(reading.features["opposite"], 1.0 if close else 0.5)
                if close:
                    reading.doubts.append(Doubt("comparison", start, end, 0.7))


def _sex(reading: Reading, source: Source) -> None:
    for word in reading.claim.words:
        for mine, other in ((1, 2), (2, 1)):
            if word.low in _SEXES[mine]:
                said = any(each in source.postings for each in _SEXES[mine])
                opposed = any(each in source.postings for each in _SEXES[other])
                if opposed and not said:
                    reading.features["sex"] = 1.0
                    reading.doubts.append(Doubt("sex", word.start, word.end, 0.7))
                elif not said:
                    reading.features["sex"] = max(reading.features["sex"], 0.1)


def _relatives(reading: Reading, source: Source, found: Sequence[tuple[float, list[str]]]) -> None:
    """A condition said of one relative that the source has beside others only."""
    clause = 0
    clauses: list[int] = []
    for word in reading.claim.words:
        clause += word.low in (",", ";", ".")
        clauses.append(clause)
    people: dict[int, list[str]] = {}
    for term in reading.claim.terms:
        if term.group in _RELATIVES:
            people.setdefault(clauses[term.first], []).append(term.group)
    for term, (_, by) in zip(reading.claim.terms, found, strict=True):
        mine = people.get(clauses[term.first], [])
        if not mine or not by or term.kind != "condition":
            continue
        near = {line + step for key in by for line in source.postings[key] for step in (-1, 0, 1)}
        beside = {person for person in _RELATIVES if near & set(source.postings.get(person, ()))}
        if beside and not beside & set(mine):
            reading.features["relative"] = 1.0
            reading.doubts.append(Doubt("relative", term.start, term.end, 0.6))
