"""Where findings stand in a redacted text. Pure.

Findings know their places in the text as it was. What stands for health information has another length than what it replaced,
and moves all that follows: with tags and hashes it is known by how much, with surrogates it is not, and no place is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

_HASH_DIGITS: Final = 8


def marks(text: str, style: str, findings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The findings of one text with `start` and `end` in its redacted form. One whose place cannot be told is left out; so are
    all behind the first place where the text is not as its findings say (a verdict may have had no room for all of them)."""
    moved = _replaced(text, style, [one for one in findings if one["detector"] == "phi"])
    if moved is None:
        return []
    spans, known_until = moved
    found = []
    for one in findings:
        if one["end"] <= known_until:
            start, end = _moved(one["start"], spans, 0), _moved(one["end"], spans, 1)
            if start < end <= len(text):
                found.append(
                    {"start": start, "end": end, "type": one["type"], "detector": one["detector"], "score": one["score"]}
                )
    return sorted(found, key=lambda one: (one["start"], one["end"]))


# (start, end) before and after.
_Span = tuple[tuple[int, int], tuple[int, int]]


def _replaced(text: str, style: str, phi: Sequence[Mapping[str, Any]]) -> tuple[list[_Span], float] | None:
    """What was replaced and by what, and up to which place of the text as it was that is certain; None: nothing is."""
    if style not in ("tag", "hash"):
        return None if phi else ([], float("inf"))
    spans: list[_Span] = []
    shift = 0
    for start, end, kind in _united(phi):
        stands = f"<{kind}>" if style == "tag" else f"{kind}_"
        length = len(stands) + (0 if style == "tag" else _HASH_DIGITS)
        at = start + shift
        if not text.startswith(stands, at):
            return spans, start
        spans.append(((start, end), (at, at + length)))
        shift += length - (end - start)
    return spans, float("inf")


def _united(phi: Sequence[Mapping[str, Any]]) -> list[tuple[int, int, str]]:
    """As the redaction makes overlapping findings one: the type is that of the longest."""
    united: list[tuple[int, int, str, int]] = []
    for one in sorted(phi, key=lambda one: (one["start"], one["start"] - one["end"])):
        start, end, length = one["start"], one["end"], one["end"] - one["start"]
        if united and start < united[-1][1]:
            first, last, kind, longest = united[-1]
            united[-1] = (first, max(last, end), one["type"] if length > longest else kind, max(longest, length))
        elif start < end:
            united.append((start, end, one["type"], length))
    return [(start, end, kind) for start, end, kind, _ in united]


def _moved(place: int, spans: Sequence[_Span], edge: int) -> int:
    """A place in the redacted text; within what was replaced, that one's beginning (`edge` 0) or end (1)."""
    shift = 0
    for before, after in spans:
        if place < before[0] or (edge == 0 and place == before[0]) or (edge == 1 and place <= before[0]):
            break
        if place < before[1] or (edge == 1 and place == before[1]):
            return after[edge]
        shift = after[1] - before[1]
    return place + shift
