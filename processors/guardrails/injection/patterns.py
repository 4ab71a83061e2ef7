"""Families of expressions, from `patterns.yaml`: what injections say."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..folding import fold
from ..windows import Span
from .normalise import View, unwrapped

FILE: Final = Path(__file__).with_name("patterns.yaml")
# A hit that is an example in a text about attacks keeps this much of its score: below any threshold.
EXAMPLE: Final = 0.4
# Hits of one family in one text that are looked at for one that is meant.
_MOST_TRIES: Final = 8
# Around a hit, its sentence is looked for as far as this.
_NEAR_CHARS: Final = 100
_SENTENCE_END: Final = re.compile(r"[.!?](?=\s|$)|\n")
_FOREIGN: Final = re.compile(r"[^\x00-\x7f⟦⟧]+")
_QUOTES: Final = re.compile(r"[\"'`«»“”„]")


class Family(NamedTuple):
    """One idea in many wordings."""

    name: str
    type: str
    where: str  # prompt, context or both
    score: float
    pattern: re.Pattern[str]
    lines: bool = False
    spared: str = ""  # by which expressions of `Patterns.spare`


class Hit(NamedTuple):
    """A family spoke at `span` of the original text. `how` is the view it was seen in. An `example` is quoted by a text that
    speaks of attacks, or is most of a text whose order is for somebody else."""

    family: str
    type: str
    score: float
    span: Span
    how: str
    example: bool = False


class Patterns(NamedTuple):
    """Everything the file says."""

    families: Sequence[Family]
    about: re.Pattern[str]
    spare: Mapping[str, re.Pattern[str]]
    unspared: re.Pattern[str]
    digest: str  # SHA-256 of the file

    def hits(self, view: View, where: str) -> Iterator[Hit]:
        """Of each family the first hit in this view that is meant, or else the first."""
        flowing = unwrapped(view)
        for family in self.families:
            if family.where in (where, "both"):
                read = view if family.lines else flowing
                found = [
                    self._hit(family, read, match.span())
                    for match in itertools.islice(family.pattern.finditer(read.folded.text), _MOST_TRIES)
                ]
                if found:
                    yield max(found, key=lambda hit: hit.score)

    def _hit(self, family: Family, view: View, span: Span) -> Hit:
        text = view.folded.text
        sentence = _sentence(text, span)
        if _quoted(text, span) and self.about.search(text):
            meant, example = EXAMPLE, True
        elif family.spared and self.spare[family.spared].search(sentence) and not self.unspared.search(sentence):
            meant, example = EXAMPLE, 2 * len(sentence) >= len(text)
        else:
            meant, example = 1.0, False
        return Hit(family.name, family.type, family.score * meant, view.span(*span), view.how, example)


@cache
def patterns() -> Patterns:
    """Those that ship, compiled once a process."""
    import yaml

    source = FILE.read_bytes()
    read = yaml.safe_load(source)
    words = {name: " ".join(value.split("\n")) for name, value in read["words"].items()}
    families = [_family(name, entry, words) for name, entry in read["families"].items()]
    spare = {name: _spare(lines, words["mine"]) for name, lines in read["spare"].items()}
    about, unspared = (re.compile(read[name].strip()) for name in ("about", "unspared"))
    return Patterns(families, about, spare, unspared, hashlib.sha256(source).hexdigest())


def _family(name: str, entry: Mapping[str, Any], words: Mapping[str, str]) -> Family:
    expressions = "|".join(f"(?:{_as_folded(line.format(**words))})" for line in entry["expressions"])
    lines, spared = bool(entry.get("lines")), str(entry.get("spared", ""))
    return Family(name, entry["type"], entry["where"], float(entry["score"]), re.compile(expressions), lines, spared)


def _spare(lines: Sequence[str], mine: str) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{line.replace('{mine}', mine)})" for line in lines))


def _as_folded(expression: str) -> str:
    """With its foreign letters as folding leaves them: Hangul taken apart, say."""
    return _FOREIGN.sub(lambda letters: fold(letters.group()).text, expression)


def _sentence(text: str, span: Span) -> str:
    """The sentence around a hit, near it, with the hit between its marks."""
    before = _SENTENCE_END.split(text[max(0, span[0] - _NEAR_CHARS) : span[0]])[-1]
    after = _SENTENCE_END.split(text[span[1] : span[1] + _NEAR_CHARS])[0]
    return f"{before}⟦{text[span[0] : span[1]]}⟧{after}"


def _quoted(text: str, span: Span) -> bool:
    """Whether a quotation mark stands shortly before and after, on the same line."""
    before, after = text[max(0, span[0] - 40) : span[0]], text[span[1] : span[1] + 120]
    return bool(_QUOTES.search(before.rpartition("\n")[2])) and bool(_QUOTES.search(after.partition("\n")[0]))
