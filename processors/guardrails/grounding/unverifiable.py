"""A response with nothing to hold it against: what it states that only a source could bear out, where it hedges, and where it
contradicts itself. An answer without context is not faithful and not unfaithful: it has no faithfulness score.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from ..ports import Finding
from .claims import claims
from .contradictions import contradictions
from .facts import Fact, facts, same_amount
from .reading import words

# Findings of one response; a page of numbers is one complaint, not a thousand.
MOST: Final = 20
# Small counts and times of day are the stuff of any sentence; doses, dates and shares are claims about the world.
_SPECIFIC: Final = frozenset(("mass", "units", "volume", "meq", "frequency", "date", "percent", "money", "rate", "pressure"))
_CITATION: Final = re.compile(
    r"\bdoi:\s?\S+|\b10\.\d{4,9}/\S+|\bPMID:?\s?\d+|\bet al\.?,?"
    r"|\((?:[A-Z][\w'’-]+(?:,? (?:and|&) [A-Z][\w'’-]+)?),? (?:19|20)\d\d[a-z]?\)"
    r"|\b(?:a|one|the|recent) (?:\d{4} )?(?:study|trial|meta-analysis|review|survey) "
    r"(?:published|conducted|by|in|from|found|shows?|showed)\b"
    r"|\baccording to (?:a|the) (?:\w+ ){0,3}(?:study|report|survey|journal|guidelines?)\b",
)
_URL: Final = re.compile(r"\bhttps?://[^\s)>\]]+|\bwww\.[^\s)>\]]+")
_YEAR: Final = re.compile(r"\b(?:in|since|of|by|from|until) ((?:1[5-9]|20)\d\d)\b")
# Numbers joined by a mark are one thing: a telephone number, an address of a network, a part number, a range.
_JOINED: Final = re.compile(
    r"(?<![\w.-])(?:\+\d{1,3}[ -]?)?(?:\(\d{1,5}\)[ -]?)?(?:\d+(?:\.\d+){2,}|\d+(?:\.\d+)?(?:-\d+(?:\.\d+)?)+)(?![\w-])"
)
_HEDGE: Final = re.compile(
    r"\b(?:I(?:(?:'|’)?m| am) not (?:entirely |completely |quite )?(?:sure|certain)|I (?:think|believe|guess|assume|suppose)"
    r"|(?:it|this|that) (?:might|may|could) be|(?:may|might) or may not|not (?:entirely )?clear|as far as I (?:know|can tell)"
    r"|to (?:the best of )?my knowledge|I (?:don(?:'|’)t|do not) (?:really |actually )?know|perhaps|possibly|presumably"
    r"|arguably|I (?:cannot|can(?:'|’)t) (?:verify|confirm)|probably|it is (?:possible|unclear|likely) that|hard to say"
    r"|if I (?:recall|remember) correctly)\b",
    re.IGNORECASE,
)


def unverifiable(prompt: str, response: str) -> list[Finding]:
    """UNVERIFIABLE at every specific that the prompt does not give itself; HEDGED; SELF_CONTRADICTION."""
    said = claims(response)
    given = _given(prompt)
    told = [fact for claim in said for fact in claim.facts if _is_specific(fact)]
    joined = _joined(response, told)
    apart = {fact.start for parts in joined.values() for fact in parts}
    found = [
        Finding("faithfulness", "UNVERIFIABLE", "response", fact.start, fact.end, 0.5 if fact.kind == "count" else 0.6)
        for fact in told
        if fact.start not in apart and not any(same_amount(fact, other) for other in given)
    ]
    found += [
        Finding("faithfulness", "UNVERIFIABLE", "response", start, end, 0.5)
        for start, end in joined
        if response[start:end] not in prompt
    ]
    for pattern, score in ((_URL, 0.7), (_CITATION, 0.7), (_YEAR, 0.5)):
        for match in pattern.finditer(response):
            if match.group(match.lastindex or 0) not in prompt and not any(
                one.start < match.end() and match.start() < one.end for one in found
            ):
                found.append(Finding("faithfulness", "UNVERIFIABLE", "response", match.start(), match.end(), score))
    found.sort(key=lambda one: one.start)
    del found[MOST:]
    hedges = [Finding("faithfulness", "HEDGED", "response", m.start(), m.end(), 0.5) for m in _HEDGE.finditer(response)]
    return found + hedges[:MOST] + contradictions(said)[:MOST]


def _given(prompt: str) -> list[Fact]:
    return facts(prompt, words(prompt))


def _joined(response: str, told: Sequence[Fact]) -> dict[tuple[int, int], list[Fact]]:
    """Where numbers are joined that count nothing, and which: not "200-400 mg", nor a date."""
    found: dict[tuple[int, int], list[Fact]] = {}
    for match in _JOINED.finditer(response):
        first, last = (bisect_left(told, at, key=lambda fact: fact.start) for at in match.span())
        if first < last and all(fact.kind == "count" for fact in told[first:last]):
            found[match.span()] = list(told[first:last])
    return found


def _is_specific(fact: Fact) -> bool:
    if fact.kind in _SPECIFIC:
        return True
    # 400 digits in a row are no number that a float holds.
    return fact.kind == "count" and (math.isinf(fact.value) or fact.value != int(fact.value) or fact.value > 100)
