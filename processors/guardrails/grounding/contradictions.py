"""Two sentences of one response that cannot both be so.

    claim ─► statement: its words without what denies them, which way they point, its amounts
    same words, other way ─────────────────────────────► SELF_CONTRADICTION   "is safe", "is not safe", "is dangerous"
    same words, same way, one amount that it states ───► SELF_CONTRADICTION   "is 45 years old", "is 54 years old"
    nearly the same words, and most of them denied ────► SELF_CONTRADICTION

An item of a list, a case, an "it may be", another time or another subject leaves both standing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from ..ports import Finding
from .claims import Claim, Term
from .facts import Fact, known, same_amount
from .reading import Word, key_of, listed

# The first of each line is contrary to the others.
_OPPOSITES: Final = {
    key_of(name): (line.split()[0], place > 0)
    for line in (
        "positive negative", "benign malignant", "normal abnormal", "safe unsafe dangerous harmful", "present absent",
        "effective ineffective", "stable unstable", "alive dead", "true false", "high low", "common rare",
        "possible impossible", "likely unlikely", "open closed", "regular irregular", "reversible irreversible",
        "symptomatic asymptomatic", "intact impaired", "correct incorrect", "legal illegal", "allowed forbidden prohibited",
        "sufficient insufficient", "indicated contraindicated", "mandatory optional", "acute chronic",
    )
    for place, name in enumerate(line.split())
}  # fmt: skip
_CONTRARY_VERBS: Final = {
    key_of(name): (line.split()[0], place > 0)
    for line in ("increase decrease", "improve worsen", "raise lower", "prevent cause")
    for place, name in enumerate(line.split())
}
_IS: Final = frozenset(listed("is are am was were be been isn't aren't wasn't weren't remains remain tested"))
# What follows one of these is what a sentence says of its subject, and not which of several things it speaks of.
_STATES: Final = _IS | frozenset(
    listed(
        "has have takes take weighs weigh lasts last costs cost needs need requires require contains contain measures measure"
    )
)
_PAST: Final = frozenset(listed("was were did had wasn't weren't didn't hadn't"))
_DENIES: Final = frozenset(listed("not no never cannot non without denies denied"))
# Words that only carry the sign, the tense or the article.
_CARRIERS: Final = frozenset(
    listed("a an the any do does did is are am was were be been has have had can reports reported also very currently")
)
# A sentence with one of these says that it may be so, or is so of some.
_VAGUE: Final = frozenset(
    listed(
        "may might could would possibly perhaps maybe sometimes occasionally often some other others another one many few "
        "several most certain either or whether if when unless versus"
    )
)
_PRONOUNS: Final = frozenset(listed("it they this that these those he she"))
_WHEN: Final = frozenset(listed("at on in after before from by since until for to with"))
# These are measured again and again.
_MEASURED: Final = frozenset(("rate", "pressure", "temperature", "percent"))


class Statement(NamedTuple):
    """A claim as it is compared: `rest` are its words but for sign and amounts, `stated` which amounts it is about."""

    rest: tuple[str, ...]
    denied: bool
    amounts: list[Fact]
    stated: list[bool]


def contradictions(said: Sequence[Claim]) -> list[Finding]:
    """SELF_CONTRADICTION at the later of two sentences of one response that cannot both be so."""
    found: list[Finding] = []
    by_word: dict[str, list[int]] = {}
    by_rest: dict[tuple[str, ...], list[tuple[int, Statement]]] = {}
    sets: list[frozenset[str]] = []
    for number, claim in enumerate(said):
        mine = frozenset(_key(term) for term in claim.terms if term.weight >= 0.3)
        sets.append(mine)
        if not claim.words or _is_one_of_many(claim):
            continue
        statement = _statement(claim)
        alike = by_rest.setdefault(statement.rest, []) if statement else []
        opposed = statement is not None and any(
            _contrary(other, statement) and _is_same_subject(said[place : number + 1]) for place, other in alike[-20:]
        )
        if len(mine) >= 2 and not opposed:
            rare = sorted(mine, key=lambda key: len(by_word.get(key, ())))[:3]
            earlier = {place for key in rare for place in by_word.get(key, ())[-20:]}
            opposed = any(_opposed(said[place], claim, sets[place], mine) for place in earlier)
        if opposed:
            found.append(Finding("faithfulness", "SELF_CONTRADICTION", "response", claim.start, claim.end, 0.6))
        if statement:
            alike.append((number, statement))
        for key in mine:
            by_word.setdefault(key, []).append(number)
    return found


def _is_one_of_many(claim: Claim) -> bool:
    """An item of a list, or a case: others of its kind say the like, and say it of something else."""
    first = claim.words[0].low
    return (
        first[0].isdigit() or first in ("-", "–", "•", "*") or any(word.low in ("if", "when", "unless") for word in claim.words)
    )


def _statement(claim: Claim) -> Statement | None:
    """None for what is said of no one thing, or not for sure."""
    said = [word for word in claim.words if word.key]
    if not said or said[0].low in ("a", "an") or any(word.low in _VAGUE for word in said):
        return None
    past = any(word.low in _PAST for word in said)
    rest, denied = ["past" if past else "", *(f"#{fact.kind}" for fact in claim.facts)], False
    for place, word in enumerate(said):
        if any(fact.start <= word.start < fact.end for fact in claim.facts):
            continue
        contrary = _contrary_of(said, place)
        if contrary is not None:
            rest.append(contrary[0])
            denied ^= contrary[1]
            continue
        if word.low in _DENIES or word.low.endswith("n't"):
            denied = not denied
            rest.extend({"without": ["with"], "shouldn't": ["should"], "won't": ["will"]}.get(word.low, ()))
        elif word.low not in _CARRIERS:
            rest.append(word.key)
    if len(rest) < 3:
        return None
    return Statement(tuple(rest), denied, claim.facts, [_is_stated(said, fact) for fact in claim.facts])


def _contrary_of(said: Sequence[Word], place: int) -> tuple[str, bool] | None:
    """What a word and its contrary have in common, where it is what the sentence says: not in "benign tumors are"."""
    before = place - 1
    while before > 0 and (said[before].low in _DENIES or said[before].low in ("a", "an", "very", "also")):
        before -= 1
    if before >= 0 and said[before].low in _IS:
        return _OPPOSITES.get(said[place].key)
    if place and not any(word.low in _IS for word in said):
        return _CONTRARY_VERBS.get(said[place].key)
    return None


def _is_stated(said: Sequence[Word], fact: Fact) -> bool:
    """Whether an amount is what a sentence says of its subject, rather than a part of that, when it was so, or a reading."""
    before = [word.low for word in said if word.start < fact.start]
    if not _STATES & set(before) or (fact.kind in _MEASURED and _PAST & set(before)):
        return False
    return before[-1] not in _WHEN or before[-2] in _IS


def _contrary(one: Statement, other: Statement) -> bool:
    differ = [place for place, pair in enumerate(zip(one.amounts, other.amounts, strict=True)) if not same_amount(*pair)]
    if one.denied != other.denied:
        return not differ
    return not one.denied and len(differ) == 1 and one.stated[differ[0]] and other.stated[differ[0]]


def _is_same_subject(between: Sequence[Claim]) -> bool:
    """Whether the first and the last claim speak of the same: a pronoun may have come to mean something else meanwhile."""
    first = between[-1].words[0].low
    return first not in _PRONOUNS or all(claim.words[0].low == first for claim in between)


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
        and all(_is_stated(claim.words, fact) for claim, fact in ((one, first), (other, second)))
    )


def _key(term: Term) -> str:
    return term.group or term.keys[0]
