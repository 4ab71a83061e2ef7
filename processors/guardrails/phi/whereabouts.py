"""Which findings of places are places: a town that has the name of somebody, and a reading that looks like an address.

"visited Boston", "moved here from Austin"   a place, though the words are names as well
"unit 4B, K 4.5", "Bishop 6, N1b M0"         digits without a street, a state or a postal code: no address
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from .ner_words import Lists
from .spans import Span

# Somebody moves, and a place follows.
_MOVES: Final = re.compile(
    r"(?:\b(?:visit(?:s|ed|ing)?|tour(?:s|ed|ing)|leaving)"
    r"|\b(?:mov(?:e|es|ed|ing)|relocat(?:es?|ed|ing)|travel(?:s|l?ed|l?ing)?|fl(?:y|ies|ew|ying|own)|dr(?:ives?|ove|iven|iving)"
    r"|went|go(?:es|ing)?|gone|c(?:a|o)me|comes|coming|return(?:s|ed|ing)?|transfer(?:s|red|ring)?|airlifted|arriv(?:es?|ed|ing)"
    r"|trips?|liv(?:es?|ed|ing)|resid(?:es?|ed|ing)|residents?|born|raised|grew\sup|natives?|stay(?:s|ed|ing)?|vacation(?:s|ed|ing)?"
    r"|based|located|immigrated|emigrated|deported|flights?|(?:from|is|was|are|were)(?=\s(?:originally|back)\s))"
    r"(?:\s(?:back|here|there|home|down|up|out|over|recently|originally|by\s\w+|yesterday|today)){0,2}"
    r"\s(?:to|from|in|near|outside|around|of|through|via|at)(?:\s(?:downtown|greater|nearby))?)\s\Z",
    re.IGNORECASE,
)
_LEFT: Final = re.compile(r"\bleft\s\Z", re.IGNORECASE)
_FOR: Final = re.compile(r"\sfor\s")
# "from Jackson to Charlotte", "Houston and Dallas".
_AND_SO: Final = re.compile(r",?\s(?:to|and|or|via|for|then)\s(?:then\s|to\s)?|,\s")
_STATE: Final = re.compile(r"(?<![A-Za-z])[A-Z]{2}(?![A-Za-z\d])")
_ZIP: Final = re.compile(r"(?<![\w.])\d{5}(?:-\d{4})?(?![\w.])")
# Five digits of a bill: behind a word for codes, or beside a code of a diagnosis or a service.
_BILL: Final = re.compile(
    r"\b(?i:CPT|HCPCS|ICD(?:-?(?:9|10))?(?:-CM)?|DX|bill(?:s|ed|ing)?|(?<!zip )(?<!postal )cod(?:e|es|ed|ing))\b"
    r"|\b[A-TV-Z]\d{2}\b(?!\s\d[A-Z])|\b[A-V]\d{4}\b"
)
_POSTAL: Final = re.compile(r"\b[A-Z]{1,2}\d[A-Z\d]?\s\d[A-Z]{2}\b|\b[A-Z]\d[A-Z]\s?\d[A-Z]\d\b")
# House numbers before and behind the name of a street, as the world writes them.
_HOUSE: Final = re.compile(
    r"\d{1,6}[A-Za-z]?\s(?:[A-Z][a-z’'.-]+\s){1,3}(?:Jr|Sr|Dr|St|Ln|Rd|Av|Ct|Pl|Sq)\b"
    r"|\d{1,6}[A-Z]?\s(?:[A-Z][A-Z’'.-]+\s){1,3}(?:ST|LN|RD|DR|AV)\b"
    r"|\w{3,}(?:stra(?:ß|ss)e|str\.|gasse|weg|platz|allee|gatan|vej|gata|laan|straat|katu)\b"
)
_WORD: Final = re.compile(r"[^\W\d_]+")
# How far beside five digits a word of a bill is looked for.
_BESIDE: Final = 16
# Words for streets that say as well where in a hospital somebody lies, what a table and a tooth have, or what the heart has.
_WITHIN: Final = frozenset(
    "unit room rm ward floor fl station box point neck ring run line view str bar mill mills cad".split()  # noqa: SIM905
)


def is_torn(text: str, span: Span, lists: Lists) -> bool:
    """Whether a place begins or ends within a word or a number: the half of a code is no town, but beside one it may be its
    postal code."""
    begins = span.start > 0 and text[span.start - 1].isalnum() and text[span.start].isalnum()
    if not (begins or (text[span.end - 1].isalnum() and text[span.end : span.end + 1].isalnum())):
        return False
    words = _WORD.findall(text[span.start : span.end].lower())
    return not (_holds_place(words, lists) or _holds_street(words, lists))


def is_reading(text: str, span: Span, lists: Lists) -> bool:
    """Whether what was taken for a place holds digits, and nothing else that an address has."""
    written = text[span.start : span.end]
    if not any(map(str.isdigit, written)) or _POSTAL.search(written) or _HOUSE.search(written):
        return False
    words = _WORD.findall(written.lower())
    if _holds_street(words, lists) or _holds_place(words, lists) or re.search(r"(?i)\bbox\s?#?\d", written):
        return False
    zipped = _ZIP.search(written) is not None
    states = [state for state in _STATE.findall(written) if state in lists.codes]
    if zipped and (states or _BILL.search(text, max(0, span.start - _BESIDE), span.end + _BESIDE) is None):
        return False
    # "MI 2015" and "PE 2018" are what befell somebody.
    return all(lists.is_clinical(state.lower()) for state in states)


def _holds_street(words: Sequence[str], lists: Lists) -> bool:
    return any(len(word) > 2 and word in lists.words["street"] and word not in _WITHIN for word in words)


def _holds_place(words: Sequence[str], lists: Lists) -> bool:
    pairs = (" ".join(words[at : at + 2]) for at in range(len(words) - 1))
    return any(len(word) > 3 and word in lists.places for word in words) or any(pair in lists.places for pair in pairs)


def placed(text: str, spans: Sequence[Span], lists: Lists) -> list[Span]:
    """The spans in order; those of names that somebody goes to, comes from or lives in are places."""
    found: list[Span] = []
    for span in sorted(spans):
        if span.type in {"PERSON", "ORGANIZATION"} and text[span.start : span.end].lower() in lists.places:
            before = found[-1] if found else None
            follows = (
                before is not None
                and before.type == "LOCATION"
                and _AND_SO.fullmatch(text, before.end, span.start) is not None
                and _moves_to(text, before)
            )
            if follows or _moves_to(text, span):
                span = span._replace(type="LOCATION")
        found.append(span)
    return found


def _moves_to(text: str, span: Span) -> bool:
    before = max(0, span.start - 48)
    if _MOVES.search(text, before, span.start) is not None:
        return True
    return _LEFT.search(text, before, span.start) is not None and _FOR.match(text, span.end) is not None
