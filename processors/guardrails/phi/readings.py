"""A text as its reader sees it, before anything is looked for: typographic signs as those of a keyboard, and what hides gone.

    plain      hyphens, blanks, full-width letters and the digits of any script, each one character of ASCII: no place moves
    unveiled   a second reading, where there is cause: hidden characters dropped, letters and their accents one, `&#45;` and
               `%2D` undone, dashes beside a letter hyphens, a number whole that a line break parts; every character's place
               is remembered

The second is read beside the first, not in its stead: a zero-width blank may part two words as well as veil one number.
"""

from __future__ import annotations

import html
import re
import unicodedata
from typing import Final, NamedTuple

from ..folding import HIDDEN

_HYPHENS: Final = (0x2010, 0x2011, 0x2012, 0x2043, 0x207B, 0x2212, 0x2796, 0xFE58, 0xFE63)
_BLANKS: Final = (0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000)
_LINES: Final = (0x85, 0x2028, 0x2029)
# Full-width signs, the styled letters of mathematics, and copies of ASCII that nobody sees.
_COPIES: Final = {
    **{code: unicodedata.normalize("NFKC", chr(code)) for code in (*range(0xFF01, 0xFF5F), *range(0x1D400, 0x1D7CC))},
    **{code: chr(code - 0xE0000) for code in range(0xE0020, 0xE007F)},
}
_DIGITS: Final = {code: str(unicodedata.decimal(chr(code))) for code in range(0x80, 0x20000) if chr(code).isdecimal()}
_AS_TYPED: Final = {
    **{code: copy for code, copy in _COPIES.items() if len(copy) == 1},
    **_DIGITS,
    **dict.fromkeys(_HYPHENS, "-"),
    **dict.fromkeys(_BLANKS, " "),
    **dict.fromkeys(_LINES, "\n"),
}
# A dash parts clauses as well as digits: between two digits it is a hyphen, beside a letter it may be either.
_DASH: Final = "[\u2013-\u2015]"
_BETWEEN_DIGITS: Final = re.compile(rf"(?<=\d){_DASH}(?=\d)")
_BESIDE_LETTER: Final = rf"(?<=[A-Za-z]){_DASH}(?=\d)|(?<=\d){_DASH}(?=[A-Za-z])"

# Also lines under and through a letter, which no script needs.
_UNSEEN: Final = frozenset(map(chr, (*HIDDEN, 0x332, 0x333, *range(0x335, 0x339), 0xE007F)))
_HIDDEN: Final = f"[{''.join(sorted(_UNSEEN))}]"
# What is drawn over a digit: a dot, a ring, a key.
_DRAWN: Final = "[\u0300-\u036f\u20d0-\u20f0]"
# Behind or before what an identifier is written with; not the half of an emoji.
_VEILED: Final = re.compile(rf"(?<=[\w@.:/()+-]){_HIDDEN}|{_HIDDEN}(?=[\w@.:/()+-])|(?<=\w){_DRAWN}|{_BESIDE_LETTER}")
# Whether there is any at all is asked of a set: a class of so many characters is slow.
_VEILS: Final = _UNSEEN | frozenset(map(chr, (*range(0x2013, 0x2016), *range(0x300, 0x370), *range(0x20D0, 0x20F1))))
_ENTITY: Final = r"&(?:\#\d{1,7}|\#[xX][0-9a-fA-F]{1,6}|[a-zA-Z]{2,24});"
_PERCENT: Final = r"%(?:2[0-9a-fA-F]|3[0-9a-fA-F]|40|[46][1-9a-fA-F]|[57][0-9aA]|5[fF])"
_PARTED: Final = r"(?<=\d-)[ \t\r]*\n[ \t]*(?=\d)"
_ESCAPED: Final = re.compile(rf"{_ENTITY}|{_PERCENT}|{_PARTED}")
_UNDONE: Final = re.compile(
    rf"(?P<accented>[^\W\d_]{_DRAWN}+)|(?<=\d)(?P<drawn>(?:{_HIDDEN}|{_DRAWN})*{_DRAWN})|(?P<hidden>{_HIDDEN}+)|{_BESIDE_LETTER}|{_ESCAPED.pattern}"
)


def plain(text: str) -> str:
    """The text with what a keyboard would have written, character by character."""
    return text if text.isascii() else _BETWEEN_DIGITS.sub("-", text.translate(_AS_TYPED))


class Unveiled(NamedTuple):
    """`text` of a second reading; `places[i]` is where what its character i stands for begins in the first, and the last of
    them is the first's length."""

    text: str
    places: list[int]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The whole stretch of the first reading that `[start, end)` stands for, with what was dropped in it or behind it."""
        return self.places[start], self.places[end]


def unveiled(text: str) -> Unveiled | None:
    """`text` (plain already) with what hides or parts its identifiers gone; None where nothing does."""
    if not _is_veiled(text):
        return None
    found: list[str] = []
    places: list[int] = []
    after = 0
    for match in _UNDONE.finditer(text):
        start, end = match.span()
        seen = plain(_seen(match))
        if len(seen) > 1:
            continue  # no sign, but something between & and ;
        found += (text[after:start], seen)
        places += (*range(after, start), *(start for _ in seen))
        after = end
    found.append(text[after:])
    places += range(after, len(text) + 1)
    return Unveiled("".join(found), places)


def as_read(text: str) -> str:
    """The text as its last reading has it, to be compared with others."""
    typed = plain(text)
    second = unveiled(typed)
    return typed if second is None else second.text


def _is_veiled(text: str) -> bool:
    if not text.isascii() and not _VEILS.isdisjoint(text) and _VEILED.search(text) is not None:
        return True
    return ("&" in text or "%" in text or "-" in text) and _ESCAPED.search(text) is not None


def _seen(match: re.Match[str]) -> str:
    written, text = match.group(), match.string
    if match.lastgroup == "accented":
        return unicodedata.normalize("NFC", written)[0]
    if match.lastgroup is not None:
        # A soft hyphen between digits is drawn at a line's end, and in what a PDF leaves of a number it is the hyphen.
        between = text[match.start() - 1 : match.start()].isdigit() and text[match.end() : match.end() + 1].isdigit()
        return "-" if "\u00ad" in written and between else ""
    if written[0] == "&":
        seen = html.unescape(written)
        return "" if seen in _UNSEEN else seen
    if written[0] == "%":
        return chr(int(written[1:], 16))
    return "" if written[-1:].isspace() else "-"  # a line's end behind a hyphen, or a dash
