"""One reading of a text from many: overlapping spans are settled, so that no character belongs to two."""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence

from .ner import Span


def settle(text: str, structured: Iterable[Span], names: Iterable[Span]) -> list[Span]:
    """Spans in order of place, none overlapping. Structured beats names, surer beats less sure, longer beats shorter; what is
    left of a beaten span stays, if it still holds a letter or digit, so that no part of it is let through."""
    taken: list[Span] = []
    for span in [*sorted(structured, key=_rank), *sorted(names, key=_rank)]:
        for piece in _rest(text, span, taken):
            insort(taken, piece)
    return joined(text, taken)


def _rank(span: Span) -> tuple[bool, bool, int, float, int]:
    """A check digit that holds, then a label or a full form, then a guess; among equals the longer."""
    return span.score < 0.95, span.score < 0.7, span.start - span.end, -span.score, span.start


def _rest(text: str, span: Span, taken: Sequence[Span]) -> list[Span]:
    """What of `span` none of `taken` (in order, none overlapping) has. A part of two characters or fewer is dropped unless
    it is the whole."""
    pieces: list[tuple[int, int]] = []
    start = span.start
    # The one that begins before the span may reach into it.
    for place in range(max(0, bisect_left(taken, (start,)) - 1), len(taken)):
        other = taken[place]
        if other.start >= span.end:
            break
        if other.end <= start:
            continue
        if start < other.start:
            pieces.append((start, other.start))
        start = other.end
    if start == span.start and not pieces:
        return [span]
    if start < span.end:
        pieces.append((start, span.end))
    trimmed = (_trim(text, *piece) for piece in pieces)
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
