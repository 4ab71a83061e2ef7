"""A place in a text and what stands there."""

from __future__ import annotations

from typing import Final, NamedTuple

# Surer than the name tagger ever is: so is told what is a name, and not a word of every day.
TOLD: Final = 1.0


class Span(NamedTuple):
    """`[start, end)` characters of one text; `type` as the findings name it; `score` in 0..1."""

    start: int
    end: int
    type: str
    score: float
