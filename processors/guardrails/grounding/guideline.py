"""Guidelines: does a response give more of a drug than its label allows, or a drug that something said of the patient forbids?

    response ─► drugs it gives (not: warns of, stops, reports as toxic) ─┬─► doses ─► GUIDELINE_DOSE
    prompt, context, response ─► conditions, drugs, allergies ───────────┴─► GUIDELINE_CONTRAINDICATION

A screen with few false alarms, not a pharmacist: adult maxima, a drug and its amount in one sentence, and a rule only where its
file has one (`guidelines.yaml`, and a site's own). Each finding covers the drug, or the dose, in the response.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..ports import Batch, Finding, Sample, Verdict
from .facts import Fact, facts
from .polarity import polarity
from .reading import Word, key_of, listed, read, words
from .rules import NUMBERED, Dose, Rules, read_rules

# How far a drug's name may stand from its amount, in words: "metformin extended release tablets, 500 mg", "500 mg of aspirin".
AFTER_WORDS, BEFORE_WORDS = 8, 3
# A sentence with one of these warns, or tells of harm: what it names is not advised.
_WARNS: Final = frozenset(
    key_of(word)
    for word in listed("""avoid avoided avoiding contraindicated contraindication contraindications contraindicate caution
    cautious warning warn danger dangerous unsafe harmful toxic toxicity overdose overdosed poisoning exceed exceeds exceeding
    excess interact interaction interactions interacts stop stopped hold held discontinue discontinued instead unless refrain
    prohibited inappropriate allergic allergy allergies intolerance reaction anaphylaxis ingested swallowed""")
)
# A sentence with one of these, or with an amount, gives or recommends.
_GIVES: Final = frozenset(
    key_of(word)
    for word in listed("""take takes taking give gives given giving start started starting begin prescribe prescribed
    prescribing recommend recommended recommending suggest use using add adding administer administered try continue initiate
    increase switch consider should can may could safe fine okay ok treat treated treatment prn daily option first-line dose""")
)  # fmt: skip
_RELATIVES: Final = frozenset(
    listed("mother father brother sister grandmother grandfather aunt uncle cousin son daughter wife husband")
)
# What follows one of these is known, and no reason to the one who speaks.
_CONCEDES: Final = frozenset(("though", "although", "despite", "spite"))
_ALLERGY: Final = frozenset(("allergic", "allergy", "anaphylaxis"))
# What may stand between a name and its number: "eGFR has fallen to 22".
_BETWEEN: Final = frozenset(
    listed(": = ( is was of at to from and now last today currently only about around has have fallen fell dropped rose risen")
)


class Numbered(NamedTuple):
    """A name that is true where a number beside it is below a limit, or else at or above it."""

    name: str
    keys: tuple[str, ...]
    is_after: bool
    is_below: bool
    limit: float


class Mention(NamedTuple):
    """A name the rules know, in one sentence of one text."""

    name: str
    start: int
    end: int
    first: int
    last: int


class Said(NamedTuple):
    """One sentence, read for names."""

    words: list[Word]
    polarity: list[int]
    mentions: list[Mention]
    facts: list[Fact]


class GuidelineDetector:
    """Implements `Detector`."""

    name = "guideline"

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.version = f"1.{rules.sha256[:8]}"
        self._phrases: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        self._doses: dict[str, list[Dose]] = {}
        for dose in rules.doses.values():
            for name in dose.names:
                self._doses.setdefault(name, []).append(dose)
        known = set(self._doses)
        for rule in rules.contraindications.values():
            known |= rule.drugs | rule.reasons | rule.when
        for allergy in rules.allergies.values():
            known |= allergy.drugs | allergy.also
        self._numbered = [each for name in sorted(known) if (each := _numbered(name))]
        for name in sorted(known - {each.name for each in self._numbered}):
            keys = tuple(word.key for word in words(name) if word.key)
            self._phrases.setdefault(keys[0], []).append((keys, name))
        for phrases in self._phrases.values():
            phrases.sort(key=lambda each: -len(each[0]))

    @classmethod
    def load(cls, extra: Path | None = None) -> GuidelineDetector:
        """The shipped rules, and a site's own. Raises `GuidelineError`, which says the line and what to do."""
        return cls(read_rules(extra))

    def describe(self) -> Mapping[str, Any]:
        """For `tidegate models`."""
        count = len(self._rules.doses) + len(self._rules.contraindications) + len(self._rules.allergies)
        source = f"{count} rules from public labels and guidelines"
        return {"backend": "rules", "source": source, "sha256": self._rules.sha256, "licence": "as Tidegate"}

    def assess(self, batch: Batch) -> list[Verdict]:
        """One verdict for each sample, in order."""
        return [Verdict(findings=self._assess(sample)) for sample in batch.samples]

    def _assess(self, sample: Sample) -> list[Finding]:
        if not sample.response:
            return []
        said = self._read(sample.response)
        if not any(each.mentions for each in said):
            return []
        about = [each for text in (sample.prompt, *sample.context) if text for each in self._read(text)]
        found: dict[tuple[int, int, str], Finding] = {}
        for one in [*self._overdoses(said), *self._forbidden(said, about), *self._allergic(said, about)]:
            key = (one.start, one.end, one.type)
            if key not in found or found[key].score < one.score:
                found[key] = one
        return sorted(found.values(), key=lambda one: (one.start, one.type))

    def _read(self, text: str) -> list[Said]:
        """The sentences of `text` that name something."""
        found: list[Said] = []
        for _, said in read(text):
            mentions, numbers = self._mentions(said), facts(text, said)
            for each in self._numbered:
                mentions += _with_number(each, said, numbers)
            if mentions:
                found.append(Said(said, polarity(said), mentions, numbers))
        return found

    def _mentions(self, said: Sequence[Word]) -> list[Mention]:
        keys = [word.key for word in said]
        found: list[Mention] = []
        at = 0
        while at < len(keys):
            step = 1
            for phrase, name in self._phrases.get(keys[at], ()):
                if tuple(keys[at : at + len(phrase)]) == phrase:
                    step = len(phrase)
                    found.append(Mention(name, said[at].start, said[at + step - 1].end, at, at + step - 1))
                    break
            at += step
        return found

    def _overdoses(self, said: Iterable[Said]) -> Iterable[Finding]:
        for each in said:
            if _warns(each):
                continue
            for place, mention in enumerate(each.mentions):
                for dose in self._doses.get(mention.name, ()):
                    if each.polarity[mention.first] < 0:
                        continue
                    yield from self._over(each, place, dose)

    def _over(self, said: Said, place: int, dose: Dose) -> Iterable[Finding]:
        mention = said.mentions[place]
        drugs = [other for other in said.mentions if other.name in self._doses]
        later = min((other.first for other in drugs if other.first > mention.last), default=len(said.words))
        earlier = max((other.last for other in drugs if other.last < mention.first), default=-1)
        amounts = [fact for fact in said.facts if fact.kind == dose.dimension and _is_amount(said.words, fact)]
        mine = [fact for fact in amounts if mention.last < fact.first < min(later, mention.last + 1 + AFTER_WORDS)]
        if not mine:
            mine = [fact for fact in amounts if max(earlier, mention.first - BEFORE_WORDS - 2) < fact.first < mention.first]
        for fact in mine[:2]:
            often = [
                other
                for other in said.facts
                if other.kind == "frequency" and fact.last < other.first < min(later, fact.last + 6)
            ]
            whole_day = _is_of_a_day(said.words, fact)
            daily = fact.amount if whole_day else fact.amount * often[0].amount if often else None
            over_single = dose.single is not None and not whole_day and fact.amount > dose.single * 1.001
            over_daily = dose.daily is not None and daily is not None and daily > dose.daily * 1.001
            if dose.weekly_only:
                over_daily = over_daily and bool(often) and often[0].amount >= 1
            if over_single or over_daily:
                start, end = (mention.start, fact.end) if fact.start > mention.start else (fact.start, mention.end)
                yield self._finding("GUIDELINE_DOSE", start, end, dose.severity, dose.id)

    def _forbidden(self, said: Sequence[Said], about: Sequence[Said]) -> Iterable[Finding]:
        true = {mention.name for each in about if not _is_family(each) for mention in _affirmed(each)}
        rules = [
            rule
            for rule in self._rules.contraindications.values()
            if not self._is_warned_of(said, rule.drugs, rule.reasons | rule.when)
        ]
        for each in said:
            if not _gives(each):
                continue
            given = {mention.name: mention for mention in _affirmed(each)}
            for rule in rules:
                here = true | set(given)
                for name, mention in given.items():
                    if rule.when and not here & rule.when:
                        continue
                    for drugs, reasons in ((rule.drugs, rule.reasons), (rule.reasons, rule.drugs)):
                        told = name in drugs and (here - {name}) & reasons
                        if told and (drugs is rule.drugs or self._is_drug(name)):
                            yield self._contraindicated(mention, rule.severity, rule.id)

    def _is_drug(self, name: str) -> bool:
        return name in self._doses or any(name in rule.drugs for rule in self._rules.contraindications.values())

    def _is_warned_of(self, said: Sequence[Said], drugs: frozenset[str], reasons: frozenset[str]) -> bool:
        """Whether some sentence of the response itself says that the two do not go together."""
        return any(
            {mention.name for mention in each.mentions} & drugs
            and {mention.name for mention in each.mentions} & reasons
            and (_warns(each) or any(each.polarity[mention.first] < 0 for mention in each.mentions))
            for each in said
        )

    def _allergic(self, said: Sequence[Said], about: Sequence[Said]) -> Iterable[Finding]:
        allergens = {name for each in [*about, *said] if not _is_family(each) for name in _allergens(each)}
        if not allergens:
            return
        for each in said:
            if not _gives(each):
                continue
            known = _conceded(each)
            for mention in _affirmed(each):
                if mention.first in known:
                    continue
                if mention.name in allergens:
                    yield self._contraindicated(mention, 1.0, "allergy")
                for rule in self._rules.allergies.values():
                    if mention.name in rule.drugs and allergens & (rule.drugs | rule.also):
                        yield self._contraindicated(mention, rule.severity, rule.id)

    def _contraindicated(self, mention: Mention, severity: float, rule: str) -> Finding:
        return self._finding("GUIDELINE_CONTRAINDICATION", mention.start, mention.end, severity, rule)

    def _finding(self, kind: str, start: int, end: int, severity: float, rule: str) -> Finding:
        return Finding(self.name, kind, "response", start, end, severity, rule=rule)


def _numbered(name: str) -> Numbered | None:
    match = NUMBERED.match(name)
    if match is None or not (sign := match["after"] or match["before"]):
        return None
    keys = tuple(word.key for word in words(match["name"]) if word.key)
    return Numbered(name, keys, match["after"] is not None, sign == "<", float(match["least"] or match["most"]))


def _with_number(one: Numbered, said: Sequence[Word], numbers: Sequence[Fact]) -> list[Mention]:
    """Where a name stands with a number that makes it true; not with two, of which one does not: "eGFR rose from 22 to 65"."""
    told = [(place, word.key) for place, word in enumerate(said) if word.key]
    found: list[Mention] = []
    for at in range(len(told) - len(one.keys) + 1):
        if any(told[at + step][1] != key for step, key in enumerate(one.keys)):
            continue
        first, last = told[at][0], told[at + len(one.keys) - 1][0]
        if one.is_after:
            beside = _following(said, last + 1, numbers)
        else:
            beside = [fact for fact in numbers if at and fact.last == told[at - 1][0]]
        if beside and all((fact.value < one.limit) == one.is_below for fact in beside):
            found.append(Mention(one.name, said[first].start, said[last].end, first, last))
    return found


def _following(said: Sequence[Word], at: int, numbers: Sequence[Fact]) -> list[Fact]:
    """The numbers from word `at` on, up to a word that may belong to another: "eGFR normal, potassium 4"."""
    by_first = {fact.first: fact for fact in numbers}
    found: list[Fact] = []
    while at < len(said) and (at in by_first or said[at].low in _BETWEEN):
        if at in by_first:
            found.append(by_first[at])
            at = by_first[at].last
        at += 1
    return found


def _warns(said: Said) -> bool:
    lows = [word.low for word in said.words]
    more_than = any(one == "more" and other == "than" for one, other in pairwise(lows))
    known = _conceded(said)
    return more_than or any(word.key in _WARNS for place, word in enumerate(said.words) if place not in known)


def _conceded(said: Said) -> range:
    """The words of "even though you are allergic to penicillin", if a sentence has such: an allergy that it sets aside."""
    for place, word in enumerate(said.words):
        if word.low in _CONCEDES:
            clause = list(takewhile(lambda each: each.low not in (",", ";"), said.words[place:]))
            if any(each.key in _ALLERGY for each in clause):
                return range(place, place + len(clause))
    return range(0)


def _gives(said: Said) -> bool:
    """Whether a sentence gives or recommends what it names, rather than mentions it."""
    if _warns(said):
        return False
    return bool(said.facts) or any(word.key in _GIVES for word in said.words)


def _affirmed(said: Said) -> list[Mention]:
    return [mention for mention in said.mentions if said.polarity[mention.first] > 0]


def _is_family(said: Said) -> bool:
    return any(word.key in _RELATIVES for word in said.words)


def _allergens(said: Said) -> list[str]:
    """The names that a sentence says someone is allergic to: after "allergic to", "allergy:", or before "allergy"."""
    for place, word in enumerate(said.words):
        if word.key not in _ALLERGY or said.polarity[place] < 0:
            continue
        known = _conceded(said)
        return [mention.name for mention in _affirmed(said) if not known or mention.first in known]
    return []


def _is_amount(said: Sequence[Word], fact: Fact) -> bool:
    """Not a strength or a rate: "250 mg/5 mL", "15 mg/kg", "mg per kg"."""
    end = next((place for place, word in enumerate(said) if word.end == fact.end), fact.last)
    after = [word.low for word in said[end + 1 : end + 3]]
    return not (after[:1] in (["/"], ["per"]) and after[1:2] and after[1] not in ("day", "d", "24"))


def _is_of_a_day(said: Sequence[Word], fact: Fact) -> bool:
    """Whether an amount is what is taken in a whole day: "4 g per day", "3,000 mg/day", "in 24 hours", "daily dose of 4 g"."""
    end = next((place for place, word in enumerate(said) if word.end == fact.end), fact.last)
    after = [word.low for word in said[end + 1 : end + 4]]
    before = [word.low for word in said[max(0, fact.first - 5) : fact.first]]
    return (
        after[:2] in (["per", "day"], ["/", "day"], ["a", "day"], ["/", "d"], ["each", "day"])
        or after[:3] in (["in", "24", "hours"], ["per", "24", "hours"], ["in", "a", "day"], ["over", "24", "hours"])
        or ("daily" in before and bool({"dose", "maximum", "max", "total"} & set(before)))
    )
