"""The ways one text can be read: as it is seen, without its masks, and what is packed into it.

A view keeps its way back: whatever is found in it stands somewhere in the original text. What was found in a decoded blob
stands where the blob stands.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from collections.abc import Iterator
from typing import Final, NamedTuple
from urllib.parse import unquote

from ..folding import Folded, fold, unmask
from ..windows import Span

# Nobody hides an instruction behind more wrappings than a model would follow.
MAX_DEPTH: Final = 2
# Of one text: an answer full of keys or images is not decoded to the last one.
MAX_BLOBS: Final = 16
MAX_BLOB_CHARS: Final = 20_000
# Longer texts are not turned around and shifted: the words that would show it are looked for in their beginning.
MAX_TURNED_CHARS: Final = 20_000

_BASE64: Final = re.compile(r"(?<![A-Za-z0-9+/_=-])[A-Za-z0-9+/_-]{16,}={0,2}(?![A-Za-z0-9+/_=-])")
_HEX: Final = re.compile(r"(?<![0-9A-Fa-f])(?:0x)?(?:[0-9A-Fa-f]{2}[ :,]?){12,}(?![0-9A-Fa-f])|(?:\\x[0-9A-Fa-f]{2}){8,}")
_PERCENT: Final = re.compile(r"(?:[A-Za-z0-9]{0,16}%[0-9A-Fa-f]{2}){4,}[\w%.-]*")
_BINARY: Final = re.compile(r"(?<![01])(?:[01]{8} ?){8,}(?![01])")
# Words that injections use, shifted by 13 and written backwards.
_SHIFTED: Final = re.compile(
    r"\b(?:vtaber|qvfertneq|sbetrg|erirny|cerivbhf|vafgehpgvbaf?|flfgrz|cebzcg|cergraq)\b", re.IGNORECASE
)
_BACKWARDS: Final = re.compile(r"(?:erongi|dragersid|tegrof|laever|suoiverp|snoitcurtsni|tpmorp|metsys)", re.IGNORECASE)


class View(NamedTuple):
    """One reading. `how` is `seen`, `unmasked`, or the name of what was undone; `within` is where a blob stood."""

    folded: Folded
    how: str
    within: Span | None = None

    def span(self, start: int, end: int) -> Span:
        """Where `[start, end)` of this view stands in the original."""
        return self.folded.span(start, end) if self.within is None else self.within


def views(text: str) -> list[View]:
    """Every reading of `text`, the one that is seen first."""
    seen = fold(text)
    found = [View(seen, "seen")]
    unmasked = unmask(seen)
    if unmasked is not seen:
        found.append(View(unmasked, "unmasked"))
    hidden = _tagged(text)
    if hidden:
        found.append(hidden)
    found.extend(_packed(text, None, MAX_DEPTH))
    return found


def _packed(text: str, within: Span | None, depth: int) -> Iterator[View]:
    """What is encoded in `text`; what is encoded in that, too, down to `depth`."""
    for how, span, inner in _decoded(text):
        place = within or span
        yield View(fold(inner), how, place)
        if depth > 1:
            yield from _packed(inner, place, depth - 1)


def _decoded(text: str) -> Iterator[tuple[str, Span, str]]:
    blobs = 0
    for how, pattern in (("base64", _BASE64), ("hex", _HEX), ("percent", _PERCENT), ("binary", _BINARY)):
        for match in pattern.finditer(text):
            blobs += 1
            if blobs > MAX_BLOBS:
                return
            inner = _readable(_raw(how, match.group()[:MAX_BLOB_CHARS]))
            if inner is not None and inner != match.group():
                yield how, match.span(), inner
    if len(text) <= MAX_TURNED_CHARS:
        whole = (0, len(text))
        if _SHIFTED.search(text):
            yield "rot13", whole, codecs.decode(text, "rot13")
        if _BACKWARDS.search(text):
            yield "reversed", whole, text[::-1]


def _raw(how: str, blob: str) -> bytes | None:
    try:
        if how == "base64":
            plain = blob.translate(str.maketrans("-_", "+/")).rstrip("=")
            return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        if how == "hex":
            return bytes.fromhex(re.sub(r"0x|\\x|[^0-9A-Fa-f]", "", blob))
        if how == "binary":
            digits = blob.replace(" ", "")
            return bytes(int(digits[place : place + 8], 2) for place in range(0, len(digits) - 7, 8))
        return unquote(blob).encode()
    except (ValueError, binascii.Error):
        return None


def _readable(raw: bytes | None) -> str | None:
    """The text in `raw`, if it is text: letters and spaces for the most part, and nothing a page cannot show."""
    if not raw or len(raw) < 8:
        return None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
    letters = sum(character.isalpha() or character.isspace() for character in text)
    shown = all(character.isprintable() or character.isspace() for character in text)
    return text if shown and letters >= 0.7 * len(text) else None


def _tagged(text: str) -> View | None:
    """What is written in invisible tag characters, by itself: no eye has seen it."""
    places = (
        [place for place, character in enumerate(text) if 0xE0020 <= ord(character) < 0xE007F] if not text.isascii() else []
    )
    if len(places) < 4:
        return None
    return View(Folded("".join(chr(ord(text[place]) - 0xE0000).lower() for place in places), places), "tags")
