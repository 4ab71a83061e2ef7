"""One reading of a text from many: overlapping spans are settled, so that no character belongs to two."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .ner import Span

# What names and places a model sees in running text; a structured identifier inside one is cut out of it.
SOFT = frozenset({"PERSON", "LOCATION", "ORGANIZATION", "NRP"})


def settle(text: str, structured: Iterable[Span], names: Iterable[Span]) -> list[Span]:
    """Spans in order of place, none overlapping. Structured beats names, surer beats less sure, longer beats shorter; what is
    left of a beaten span stays, if it still holds a letter or digit, so that no part of it is let through."""
    ranked = sorted(structured, key=_rank) + sorted(names, key=_rank)
    taken: list[Span] = []
    for span in ranked:
        taken.extend(_rest(text, span, taken))
    return joined(text, sorted(taken))


def _rank(span: Span) -> tuple[bool, bool, int, float, int]:
    """A check digit that holds, then a label or a full form, then a guess; among equals the longer."""
    return span.score < 0.95, span.score < 0.7, span.start - span.end, -span.score, span.start


def _rest(text: str, span: Span, taken: Sequence[Span]) -> list[Span]:
    """What of `span` nobody has. A part of two characters or fewer is dropped unless it is the whole."""
    pieces = [(span.start, span.end)]
    for other in taken:
        pieces = [
            piece
            for start, end in pieces
            for piece in (
                ((start, end),) if other.end <= start or end <= other.start else ((start, other.start), (other.end, end))
            )
            if piece[0] < piece[1]
        ]
    if pieces == [(span.start, span.end)]:
        return [span]
    trimmed = (_trim(text, start, end) for start, end in pieces)
    return [Span(start, end, span.type, span.score) for start, end in trimmed if end - start > 2]


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and not text[start].isalnum():
        start += 1
    while end > start and not text[end - 1].isalnum():
        end -= 1
    return start, end


# What parts the lines of an address, quoted or not.
_BETWEEN = re.compile(r"[\s,;>?|*]{1,10}\Z")
_STATE = re.compile(r"[A-Z]{2}\b")


def joined(text: str, spans: Sequence[Span]) -> list[Span]:
    """The parts of one address are one: a street, its city, its state and ZIP code. Two cities in a row stay two."""
    merged: list[Span] = []
    for span in spans:
        last = merged[-1] if merged else None
        if last is not None and last.type == span.type == "LOCATION" and _BETWEEN.match(text, last.end, span.start):
            numbered = any(character.isdigit() for character in text[last.start : last.end] + text[span.start : span.end])
            if numbered or _STATE.match(text, span.start, span.end) is not None or "\n" in text[last.end : span.start]:
                merged[-1] = Span(last.start, span.end, span.type, max(last.score, span.score))
                continue
        merged.append(span)
    return merged
