"""Families of expressions, from `patterns.yaml`: what injections say."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..windows import Span
from .normalise import View

FILE: Final = Path(__file__).with_name("patterns.yaml")
# A hit that is an example in a text about attacks keeps this much of its score: below any threshold.
EXAMPLE: Final = 0.4
_QUOTES: Final = re.compile(r"[\"'`«»“”„]")


class Family(NamedTuple):
    """One idea in many wordings."""

    name: str
    type: str
    where: str  # prompt, context or both
    score: float
    pattern: re.Pattern[str]


class Hit(NamedTuple):
    """A family spoke at `span` of the original text. `how` is the view it was seen in; an `example` is quoted by a text that
    speaks of attacks."""

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
    digest: str  # SHA-256 of the file

    def hits(self, view: View, where: str) -> Iterator[Hit]:
        """The first hit of each family in this view; a hint in a decoded view is none."""
        text = view.folded.text
        reflective: bool | None = None
        for family in self.families:
            if family.where not in (where, "both"):
                continue
            match = family.pattern.search(text)
            if match is None:
                continue
            example = False
            if _quoted(text, match.span()):
                if reflective is None:
                    reflective = bool(self.about.search(text))
                example = reflective
            score = family.score * (EXAMPLE if example else 1.0)
            yield Hit(family.name, family.type, score, view.span(*match.span()), view.how, example)


@cache
def patterns() -> Patterns:
    """Those that ship, compiled once a process."""
    import yaml

    source = FILE.read_bytes()
    read = yaml.safe_load(source)
    words = {name: " ".join(value.split("\n")) for name, value in read["words"].items()}
    families = [_family(name, entry, words) for name, entry in read["families"].items()]
    return Patterns(families, re.compile(read["about"].strip()), hashlib.sha256(source).hexdigest())


def _family(name: str, entry: Mapping[str, Any], words: Mapping[str, str]) -> Family:
    expressions = "|".join(f"(?:{line.format(**words)})" for line in entry["expressions"])
    return Family(name, entry["type"], entry["where"], float(entry["score"]), re.compile(expressions))


def _quoted(text: str, span: Span) -> bool:
    """Whether a quotation mark stands shortly before and after, on the same line."""
    before, after = text[max(0, span[0] - 40) : span[0]], text[span[1] : span[1] + 120]
    return bool(_QUOTES.search(before.rpartition("\n")[2])) and bool(_QUOTES.search(after.partition("\n")[0]))
