"""Where an answer holds a canary, in whichever form it was asked for.

    as it is read: plainly, masked, decoded by anybody ── views ──────────────────────────────┐
    spaced out, cut up, backwards, shifted by 13, in hex ── its letters and digits alone ─────┼─► spans of the answer
    base64, by itself or at any place of what was encoded with it ── without white space ─────┘

A canary need not be words: what decodes to it is known beforehand, so nothing has to look readable.
"""

from __future__ import annotations

import base64
import codecs
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ..folding import Folded, fold, unmask
from ..windows import Span
from .normalise import View, views

# So many letters and digits in a row are not found by chance once everything between words is gone.
_LEAST_BARE: Final = 8
_URL_SAFE: Final = str.maketrans("-_", "+/")


def spans_of(text: str, canaries: Sequence[str]) -> list[Span]:
    """One span for each canary and form that is found; the first one, where it is there more than once."""
    if not canaries:
        return []
    readings = views(text)
    bare = _keeping(readings[0].folded, str.isalnum)
    packed = _keeping(Folded(text.translate(_URL_SAFE), range(len(text))), lambda character: not character.isspace())
    found: dict[Span, None] = {}
    for canary in canaries:
        spans = [*_read(readings, canary)] or [*_in(bare, _bare_forms(canary)), *_in(packed, _base64_forms(canary))]
        found.update(dict.fromkeys(spans))
    return list(found)


def _read(readings: Sequence[View], canary: str) -> Iterator[Span]:
    seen = fold(canary)
    for view in readings:
        for wording in (seen.text, unmask(seen).text):
            if (place := view.folded.text.find(wording)) >= 0:
                yield view.span(place, place + len(wording))


def _in(text: Folded, forms: Sequence[str]) -> Iterator[Span]:
    for form in forms:
        if (place := text.text.find(form)) >= 0:
            yield text.span(place, place + len(form))


def _keeping(text: Folded, kept: Callable[[str], bool]) -> Folded:
    places = [place for place, character in enumerate(text.text) if kept(character)]
    return Folded("".join(text.text[place] for place in places), [text.places[place] for place in places])


def _bare_forms(canary: str) -> list[str]:
    bare = "".join(filter(str.isalnum, fold(canary).text))
    forms = [bare, bare[::-1], codecs.encode(bare, "rot13")] if len(bare) >= _LEAST_BARE else []
    in_hex = [f"{byte:02x}" for byte in canary.encode()]
    return [*forms, *(between.join(in_hex) for between in ("", "x", "0x"))]


def _base64_forms(canary: str) -> list[str]:
    """The characters that hold nothing but the canary, when none, one or two bytes of a group stand before it."""
    raw = canary.encode()
    forms = []
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + raw).decode()
        forms.append(encoded[-(-8 * before // 6) : 8 * (before + len(raw)) // 6])
    return forms
