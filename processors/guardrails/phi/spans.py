"""A place in a text and what stands there."""

from __future__ import annotations

from typing import NamedTuple


class Span(NamedTuple):
    """`[start, end)` characters of one text; `type` as the findings name it; `score` in 0..1."""

    start: int
    end: int
    type: str
    score: float
