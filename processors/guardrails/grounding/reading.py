"""A text read for grounding: sentences and words, with their places. No model; a page takes well under a millisecond.

text ─► sentences (offsets) ─► words (key, offsets) ─► facts (`facts.py`), polarity (`polarity.py`)
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple


def listed(names: str) -> tuple[str, ...]:
    """The words of a literal: a long list reads better without its quotes and commas."""
    return tuple(names.split())


# Never the end of a sentence, whatever follows.
_TITLES: Final = frozenset(
    listed("dr mr mrs ms prof st vs e.g i.e cf fig approx inc ltd jr sr rev gen col capt al ca dept est tel ext mt ft")
)
# The end of a sentence only before a capital.
_DOSING: Final = frozenset(
    listed(
        "b.i.d t.i.d q.i.d q.d q.h.s q.o.d p.r.n p.o i.v i.m s.c a.m p.m u.s u.k etc mg mcg ml hr hrs min wk wks mo yr yrs tab "
        "tabs cap caps lb lbs oz in pt hx dx rx tx sx ph.d m.d r.n d.o n.p p.a m.p.h"
    )
)
_STOP: Final = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s|$)|[。!?]|\n+")
_LAST_WORD: Final = re.compile(r"[\w.]*\Z")
_LINE_STARTS: Final = re.compile(r"\s*(?:[-*•·–]|\d{1,2}[.)]|[A-Z#\"'“(]|[^\W\d_]{1,20}:|$)")

# Words of a script without spaces are single characters: a run of them would match nothing.
_WORD: Final = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
    r"|(?<![^\W\d_])(?:[^\W\d_]\.){2,}(?:[^\W\d_](?![^\W\d_]))?"  # b.i.d., U.S.
    r"|\d+(?:,\d{3})+(?:\.\d+)?|\d+\.\d+|\d+|\.\d+"
    r"|[^\W\d_]+(?:['’][^\W\d_]+)*"
    r"|[%$€£/?.,;:\-–—()\n]"
)
# Words that "non", "a" or "an" denies when it is written together with them.
_NON: Final = re.compile(
    r"non((?:smok|drink|diabet|alcohol|tender|labored|productive|radiat|pregnan)[a-z]*)\Z|a(febrile|traumatic)\Z|an(icteric)\Z"
)
# Beyond this many words a sentence is cut: a claim is a few words long, and a page without a full stop is not one claim.
MAX_SENTENCE_WORDS: Final = 120


# "Hurting yourself?" and "hurting herself" say the same of the one they are about.
_SELVES: Final = frozenset(("myself", "yourself", "himself", "herself", "themselves", "themself"))


class Span(NamedTuple):
    start: int
    end: int


class Word(NamedTuple):
    """A word, number or mark; `key` is what it is compared by ("" for a mark)."""

    text: str
    low: str
    key: str
    start: int
    end: int


def sentences(text: str) -> list[Span]:
    """The sentences of `text`, without the white space around them. "Dr. Lee", "b.i.d. with", "2.5 mg" are not ends; a new
    line is one unless it only wraps."""
    found: list[Span] = []
    start = 0
    for stop in _STOP.finditer(text):
        if stop.start() < start or not _ends(text, stop):
            continue
        _add(found, text, start, stop.end())
        start = stop.end()
    _add(found, text, start, len(text))
    return found


def _ends(text: str, stop: re.Match[str]) -> bool:
    mark = stop.group()
    if mark.startswith("\n"):
        return len(mark) > 1 or _LINE_STARTS.match(text, stop.end(), stop.end() + 24) is not None
    if not mark.startswith(".") or len(mark) > 1:
        return True
    last = _LAST_WORD.search(text, max(0, stop.start() - 12), stop.start())
    word = (last.group() if last else "").lower()
    after = text[stop.end() : stop.end() + 3].lstrip(" ")
    if word in _TITLES or (len(word) == 1 and word.isalpha() and text[stop.start() - 1].isupper() and word != "i"):
        return not after.strip()
    if word in _DOSING or word.count("."):
        return not after or not after[0].islower()
    if word == "no":
        return not after[:1].isdigit()
    return not (word.isdigit() and len(word) <= 2 and _at_line_start(text, stop.start() - len(word)))


def _at_line_start(text: str, at: int) -> bool:
    while at > 0 and text[at - 1] in " \t":
        at -= 1
    return at == 0 or text[at - 1] == "\n"


def _add(found: list[Span], text: str, start: int, end: int) -> None:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start < end:
        found.append(Span(start, end))


def words(text: str, start: int = 0, end: int | None = None) -> list[Word]:
    """The words, numbers and marks of `text[start:end]`. Letters spoken one by one ("P T", "I V") become one word."""
    found: list[Word] = []
    spelled = False
    for each in _WORD.finditer(text, start, len(text) if end is None else end):
        token = each.group()
        if len(token) == 1 and token.isupper() and found and _spelled(found[-1], text, each.start()):
            before = found.pop()
            joined = before.text + token
            found.append(Word(joined, joined.lower(), joined.lower(), before.start, each.end()))
            spelled = True
            continue
        low = token.lower().replace("’", "'")
        if (denied := _NON.match(low)) is not None:
            rest = denied.group(denied.lastindex or 0)
            middle = each.end() - len(rest)
            found.append(Word(token[: -len(rest)], "non", "non", each.start(), middle))
            found.append(Word(token[-len(rest) :], rest, key_of(rest), middle, each.end()))
            continue
        if low[0].isalpha() and "." in low:
            low = low.replace(".", "")
        found.append(Word(token, low, key_of(low), each.start(), each.end()))
    return [part for word in found for part in _unit_apart(word)] if spelled else found


def read(text: str) -> list[tuple[Span, list[Word]]]:
    """Every sentence of `text` with its words; one that is too long, in pieces. Linear in the text, whatever is in it."""
    found: list[tuple[Span, list[Word]]] = []
    for span in sentences(text):
        all_words = words(text, span.start, span.end)
        if len(all_words) <= MAX_SENTENCE_WORDS:
            found.append((span, all_words))
            continue
        for part in range(0, len(all_words), MAX_SENTENCE_WORDS):
            piece = all_words[part : part + MAX_SENTENCE_WORDS]
            found.append((Span(piece[0].start, piece[-1].end), piece))
    return [(span, piece) for span, piece in found if piece]


def _unit_apart(word: Word) -> list[Word]:
    """ "4 M G I M", spelled out, is "mg" and "IM"."""
    if (
        word.end - word.start != 2 * len(word.text) - 1
        or len(word.text) < 3
        or word.low[:2] not in ("mg", "ml", "cc", "iv", "im")
    ):
        return [word]
    middle = word.start + 3
    one, other = word.text[:2], word.text[2:]
    return [
        Word(one, one.lower(), one.lower(), word.start, middle),
        Word(other, other.lower(), key_of(other.lower()), middle + 1, word.end),
    ]


def _spelled(before: Word, text: str, at: int) -> bool:
    """Whether `before` is an upper-case letter, or letters, spelled out right before `at`: "A B" of "A B C"."""
    if at - before.end != 1 or text[before.end] != " " or not before.text.isupper():
        return False
    spoken = before.end - before.start == 2 * len(before.text) - 1
    if before.text == "I":  # the pronoun, unless a letter alone follows
        return at + 1 < len(text) and text[at + 1] in " ,.?"
    return spoken


@lru_cache(maxsize=65_536)
def key_of(low: str) -> str:
    """What a lower-case word is compared by: without possessive, plural and the common endings of verbs. "" for a mark."""
    if not low[:1].isalnum() and not low[1:].isdigit():
        return ""
    if low[0].isdigit() or low[0] == ".":
        return low.replace(",", "")
    if low in _SELVES:
        return "self"
    low = low.removesuffix("'s").removesuffix("'")
    if len(low) <= 3 or not low.isascii():
        return low
    if low.endswith("ies") and len(low) > 4:
        low = low[:-3] + "y"
    elif low.endswith(("sses", "shes", "ches", "xes", "zes")):
        low = low[:-2]
    elif low.endswith("s") and not low.endswith(("ss", "us", "is")):
        low = low[:-1]
    if low.endswith("ing") and len(low) > 5:
        low = _undouble(low[:-3])
    elif low.endswith("ied") and len(low) > 4:
        low = low[:-3] + "y"
    elif low.endswith("ed") and len(low) > 4:
        low = _undouble(low[:-2])
    elif low.endswith("ly") and len(low) > 5:
        low = low[:-2]
    return low[:-1] if low.endswith("e") and len(low) > 4 else low


def _undouble(stem: str) -> str:
    return stem[:-1] if len(stem) > 3 and stem[-1] == stem[-2] and stem[-1] not in "lsz" else stem
