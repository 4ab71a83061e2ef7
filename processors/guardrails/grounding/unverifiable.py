"""A response with nothing to hold it against: what it states that only a source could bear out, where it hedges, and where it
contradicts itself. An answer without context is not faithful and not unfaithful: it has no faithfulness score.
"""

from __future__ import annotations

import math
import re
from typing import Final

from ..ports import Finding
from .claims import Claim, Term, claims
from .facts import Fact, facts, known, same_amount
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
    found = [
        Finding("faithfulness", "UNVERIFIABLE", "response", fact.start, fact.end, 0.5 if fact.kind == "count" else 0.6)
        for claim in said
        for fact in claim.facts
        if _is_specific(fact) and not any(same_amount(fact, other) for other in given)
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


def _is_specific(fact: Fact) -> bool:
    if fact.kind in _SPECIFIC:
        return True
    # 400 digits in a row are no number that a float holds.
    return fact.kind == "count" and (math.isinf(fact.value) or fact.value != int(fact.value) or fact.value > 100)


def contradictions(said: list[Claim]) -> list[Finding]:
    """SELF_CONTRADICTION where two sentences of one response say the same words, but one denies them, or gives another amount
    of the same thing. The later one is named."""
    found: list[Finding] = []
    by_word: dict[str, list[int]] = {}
    sets: list[frozenset[str]] = []
    for number, claim in enumerate(said):
        mine = frozenset(_key(term) for term in claim.terms if term.weight >= 0.3)
        sets.append(mine)
        if len(mine) < 2 or _is_one_of_many(claim):
            continue
        rare = sorted(mine, key=lambda key: len(by_word.get(key, ())))[:3]
        earlier = {place for key in rare for place in by_word.get(key, ())[-20:]}
        if any(_opposed(said[place], claim, sets[place], mine) for place in earlier):
            found.append(Finding("faithfulness", "SELF_CONTRADICTION", "response", claim.start, claim.end, 0.6))
        for key in mine:
            by_word.setdefault(key, []).append(number)
    return found


def _is_one_of_many(claim: Claim) -> bool:
    """An item of a list, or a case: others of its kind say the like, and say it of something else."""
    first = claim.words[0].low
    return (
        first[0].isdigit() or first in ("-", "–", "•", "*") or any(word.low in ("if", "when", "unless") for word in claim.words)
    )


def _opposed(one: Claim, other: Claim, mine: frozenset[str], theirs: frozenset[str]) -> bool:
    """Nearly the same words, and most shared ones denied in one sentence only; or one amount said of them differs."""
    shared = mine & theirs
    if len(shared) < 2 or len(shared) < 0.75 * len(mine | theirs):
        return False
    signs = [{_key(term): term.polarity for term in claim.terms if _key(term) in shared} for claim in (one, other)]
    # What stands before the "not" has the same sign in both.
    if sum(signs[0][key] != signs[1][key] for key in shared) > len(shared) / 2:
        return True
    if len(shared) < len(mine | theirs) or len(one.facts) != 1 or len(other.facts) != 1:
        return False
    first, second = one.facts[0], other.facts[0]
    return (
        known(first)
        and first.kind == second.kind
        and first.kind not in ("date", "frequency")
        and not same_amount(first, second)
    )


def _key(term: Term) -> str:
    return term.group or term.keys[0]
