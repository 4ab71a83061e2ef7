"""A response as claims: each sentence with the words that matter in it, what it denies, and its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from .facts import Fact, facts
from .lexicon import EMPTY_KEYS, FRAME_KEYS, commonness, is_drug, lexicon
from .polarity import polarity
from .reading import Span, Word, read

# How much a word matters: a drug, a condition or a name more than others, a common word less; "patient" and "reports" next to
# nothing.
NAMED: Final = 1.6
PLAIN: Final = 1.0
COMMON: Final = 0.3
FRAME: Final = 0.15
# A sentence without a word of this weight, and without a number, asserts nothing: "Noncontributory."
TELLING: Final = 0.3
# Kinds of terms that name something.
NAMES: Final = frozenset(("drug", "condition", "procedure", "part", "relative", "name"))
# A response longer than this is judged by its first sentences; 500 sentences are some twenty pages.
MAX_CLAIMS: Final = 500
# And a sentence by its first numbers: more than these are a table.
MAX_FACTS: Final = 20


class Term(NamedTuple):
    """A word or phrase of a claim that asserts something. `keys` are its words, `group` what they mean ("" if unknown)."""

    keys: tuple[str, ...]
    group: str
    kind: str  # one of `NAMES`, or same, word, frame
    weight: float
    polarity: int
    start: int
    end: int
    first: int
    last: int
    also: tuple[str, ...] = ()  # what else its words may mean


class Claim(NamedTuple):
    """One sentence of the response, at `[start, end)`."""

    start: int
    end: int
    words: list[Word]
    terms: list[Term]
    facts: list[Fact]
    polarity: list[int]  # of each word


def claims(text: str) -> list[Claim]:
    """The sentences of `text` that assert something, in order: not headings, greetings or questions."""
    found: list[Claim] = []
    for span, said in read(text)[:MAX_CLAIMS]:
        found.append(_claim(text, span, said))
    return [claim for claim in found if claim.facts or any(term.weight >= TELLING for term in claim.terms)]


def _claim(text: str, span: Span, said: list[Word]) -> Claim:
    if said[-1].low == "?":
        return Claim(span.start, span.end, said, [], [], [])
    numbers = [fact for fact in facts(text, said) if not _counts_items(said, fact)][:MAX_FACTS]
    counted = {place for fact in numbers for place in range(fact.first, fact.last + 1)}
    counted |= {place for place, word in enumerate(said) if any(fact.start <= word.start < fact.end for fact in numbers)}
    signs = polarity(said)
    terms: list[Term] = []
    covered: set[int] = set()
    known = lexicon()
    heading = _heading(said)
    for first, last, group in known.groups(said):
        if (group == "=back" and not _is_the_back(said, first)) or counted.issuperset(range(first, last + 1)):
            continue
        if terms and (terms[-1].first, terms[-1].last) == (first, last):
            terms[-1] = terms[-1]._replace(also=(*terms[-1].also, group))
        elif covered.isdisjoint(range(first, last + 1)):
            covered.update(range(first, last + 1))
            terms.append(_term(said, first, last, group, known.kinds[group], signs))
    for place, word in enumerate(said):
        if place in covered or place in counted or not word.key or word.key in EMPTY_KEYS or word.key[0].isdigit():
            continue
        if len(word.key) == 1 and word.key.isascii():
            continue
        named = word.text[0].isupper() and place > 0 and said[place - 1].low not in (".", ":", "\n", "-", "•", "*")
        kind = "drug" if is_drug(word.low) else "name" if named else "frame" if word.key in FRAME_KEYS else "word"
        terms.append(_term(said, place, place, "", kind, signs))
    terms = [term._replace(weight=min(term.weight, FRAME)) if term.last < heading else term for term in terms]
    terms.sort(key=lambda term: term.first)
    return Claim(span.start, span.end, said, terms, numbers, signs)


def _heading(said: Sequence[Word]) -> int:
    """How many words at the start are a heading: "CARDIAC: …", "Past surgical history: …"."""
    for place, word in enumerate(said[:6]):
        if word.low == ":":
            return place + 1 if place + 1 < len(said) else 0
    return 0


def _is_the_back(said: Sequence[Word], place: int) -> bool:
    """Whether "back" is the part of the body, and not "back home"."""
    before = said[place - 1].low if place else ""
    after = said[place + 1].key if place + 1 < len(said) else ""
    own = before in ("low", "lower", "upper", "mid", "middle", "my", "his", "her", "the", "your", "their", "left", "right")
    return (
        said[place].low != "back"
        or own
        or after in ("pain", "surgery", "injury", "brac", "problem", "spasm", "strain", "muscl", "hurt")
    )


def _term(said: Sequence[Word], first: int, last: int, group: str, kind: str, signs: Sequence[int]) -> Term:
    keys = tuple(word.key for word in said[first : last + 1] if word.key)
    if kind in NAMES:
        weight = NAMED
    elif all(key in EMPTY_KEYS for key in keys):
        weight = 0.0
    elif kind == "frame" or all(key in FRAME_KEYS or key in EMPTY_KEYS for key in keys):
        weight = FRAME
    else:
        weight = PLAIN - (PLAIN - COMMON) * min(commonness().get(key, 0.0) for key in keys)
    return Term(keys, group, kind, weight, signs[first], said[first].start, said[last].end, first, last)


def _counts_items(said: Sequence[Word], fact: Fact) -> bool:
    """Whether a number only numbers the items of a list, or is the pronoun "one"."""
    if fact.kind != "count":
        return False
    if fact.first == 0 and fact.last + 1 < len(said) and said[fact.last + 1].low in (".", ")", ":"):
        return True
    return said[fact.first].low == "one" and fact.first == fact.last
