"""The ways one text can be read: as it is seen, without its masks, and what is packed into it.

A view keeps its way back: whatever is found in it stands somewhere in the original text. What was found in a decoded blob
stands where the blob stands.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import re
from collections.abc import Iterator
from typing import Final, NamedTuple
from urllib.parse import unquote

from ..folding import Folded, fold, unmask
from ..windows import Span

# Shorter than this, pieces of base64 that are put together are most of the time something else.
_LEAST_JOINED: Final = 24
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
_ENTITIES: Final = re.compile(r"(?:&#(?:\d{2,6}|x[0-9A-Fa-f]{2,5});\s?){4,}")
_ESCAPES: Final = re.compile(r"(?:\\u[0-9A-Fa-f]{4}\s?){4,}")
_DECIMAL: Final = re.compile(r"(?<![\d.])(?:\d{2,3}[ ,]{1,2}){11,}\d{2,3}(?![\d.])")
_BASE32: Final = re.compile(r"(?<![A-Za-z0-9])[A-Z2-7]{24,}={0,6}(?![A-Za-z0-9])")
# Base64 in pieces, with what holds them apart: spaces, line ends, quotation marks and plus signs.
_PIECES: Final = re.compile(
    r"(?<![A-Za-z0-9+/])(?!(?:[A-Z]?[a-z]{2,}|[A-Z]{2,}|\d+)\s)"
    r"(?:[A-Za-z0-9+/]{1,76}=?=?(?:[\"'] ?\+ ?[\"']|[\s\"'`,])\s?){3,}[A-Za-z0-9+/]{1,76}(?![A-Za-z0-9+/])={0,2}"
)
_BREAKS: Final = re.compile(r"[\"'`]\s*\+\s*[\"'`]|[\s\"'`,]+")
_PLAIN_WORD: Final = re.compile(r"[A-Z]?[a-z]+|\d+|[A-Z]{2,}")
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


# Where a line was wrapped, or words are held apart by more or less than a space: between two words, and no empty line.
_WRAPPED: Final = re.compile(
    r"(?<=[\w,])(?:[^\S\n]{2,}|[^\S\n]*\n[^\S\n]*|\t|[*_`~]{0,3} [*_`~]{1,3}|[*_`~]{1,3} |(?<=[a-z])_+(?=[a-z]))(?=\w)"
)


def unwrapped(view: View) -> View:
    """The same, its words held apart by one space. The same object where they were."""
    text, places = view.folded
    parts: list[str] = []
    kept: list[int] = []
    end = 0
    for gap in _WRAPPED.finditer(text):
        parts += text[end : gap.start()], " "
        kept.extend(places[end : gap.start() + 1])
        end = gap.end()
    if not end:
        return view
    kept.extend(places[end:])
    return view._replace(folded=Folded("".join((*parts, text[end:])), kept))


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
    for how, pattern in _WRAPPINGS.items():
        for match in pattern.finditer(text):
            raw = _raw(how, match.group()[:MAX_BLOB_CHARS])
            blobs += bool(raw)
            if blobs > MAX_BLOBS:
                return
            inner = _readable(raw)
            if inner is not None and inner != match.group():
                yield how, match.span(), inner
    if len(text) <= MAX_TURNED_CHARS:
        whole = (0, len(text))
        if _SHIFTED.search(text):
            yield "rot13", whole, codecs.decode(text, "rot13")
        if _BACKWARDS.search(text):
            yield "reversed", whole, text[::-1]


_WRAPPINGS: Final = {
    "base64": _BASE64,
    "pieces": _PIECES,
    "hex": _HEX,
    "percent": _PERCENT,
    "binary": _BINARY,
    "entities": _ENTITIES,
    "escapes": _ESCAPES,
    "decimal": _DECIMAL,
    "base32": _BASE32,
}


def _raw(how: str, blob: str) -> bytes | None:
    try:
        if how == "base64":
            plain = blob.translate(str.maketrans("-_", "+/")).rstrip("=")
            return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        if how == "pieces":
            return _raw("base64", _joined(blob))
        if how == "entities":
            return html.unescape(blob).encode()
        if how == "escapes":
            return "".join(chr(int(code, 16)) for code in re.findall(r"u(\w{4})", blob)).encode()
        if how == "decimal":
            return bytes(int(code) for code in re.findall(r"\d+", blob))
        if how == "base32":
            plain = blob.rstrip("=")
            return base64.b32decode(plain + "=" * (-len(plain) % 8))
        if how == "hex":
            return bytes.fromhex(re.sub(r"0x|\\x|[^0-9A-Fa-f]", "", blob))
        if how == "binary":
            digits = blob.replace(" ", "")
            return bytes(int(digits[place : place + 8], 2) for place in range(0, len(digits) - 7, 8))
        return unquote(blob).encode()
    except (ValueError, binascii.Error):
        return None


def _joined(blob: str) -> str:
    """The pieces put together, without the plain words that stand after them."""
    pieces = [piece for piece in _BREAKS.split(blob) if piece.strip("+")]
    while pieces and len(pieces[-1]) > 1 and _PLAIN_WORD.fullmatch(pieces[-1]):
        pieces.pop()
    joined = "".join(pieces)
    return joined if len(joined) >= _LEAST_JOINED else ""


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
