"""Names, places, organisations and groups in running text: what no pattern of digits can find.

    texts ─► tagger (a small network, one pass a batch) ─► runs of pieces ─┐
          └► rules (cues, "LAST, FIRST", addresses) ───────────────────────┴► spans of each text, none overlapping

Days and dates are found by form (`dates`), not here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .ner_rules import again, bridged, by_form, known_name, means_nobody, whole
from .ner_tagger import TYPES, Tagged, Tagger
from .ner_words import Lists, read_lists
from .orders import bare, is_order
from .spans import TOLD
from .spans import Span as Span
from .whereabouts import is_reading, is_torn, placed

WEIGHTS: Final = Path(__file__).parent / "ner.npz"
# Above this chance a piece belongs to a name, whatever type; a lesser one is enough between two that do, and where a list
# knows the name.
_CHANCE, _BETWEEN = 0.5, 0.2
# A piece that may as well go on with a name as begin one goes on.
_ANEW: Final = 2.0
_EDGES: Final = " \t\n\r,;:()[]{}<>\"'’“”|-–—*#@!?/\\_=+&•"


class TaggerUnavailable(RuntimeError):
    """The tagger's weights are missing, or are not what their card says."""


class NameFinder:
    """Finds names in batches of texts; see `load`. Used from one thread."""

    def __init__(self, tagger: Tagger, version: str) -> None:
        self._tagger = tagger
        self._lists = read_lists()
        self.version = version

    @classmethod
    def load(cls, weights: Path = WEIGHTS) -> NameFinder:
        """Read the weights beside this file, or others that `bench/training/train_names.py` wrote, and the card beside them.
        Raises `TaggerUnavailable`."""
        try:
            held = weights.read_bytes()
            card = json.loads(weights.with_suffix(".json").read_bytes())
        except (OSError, ValueError) as error:
            raise TaggerUnavailable(f"{weights.name} and its card cannot be read") from error
        if sha256(held).hexdigest() != card["sha256"]:
            raise TaggerUnavailable(f"{weights.name} is not the file its card describes: its SHA-256 differs")
        with np.load(BytesIO(held), allow_pickle=False) as arrays:
            return cls(Tagger(arrays), f"names-{sha256(held).hexdigest()[:8]}")

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """The spans of each text, in order of their place; none overlap. The batch changes nothing."""
        return [self._settled(text, tagged) for text, tagged in zip(texts, self._tagger.tag(texts), strict=True)]

    def _settled(self, text: str, tagged: Tagged) -> list[Span]:
        spans = [*_runs(text, tagged, self._lists), *by_form(text, self._lists)]
        if not spans:
            return spans
        spans = [whole(text, bare(text, span, self._lists), self._lists) for span in self._meant(text, spans)]
        spans += self._meant(text, [*again(text, spans), *bridged(text, spans)])
        return placed(text, united(spans), self._lists)

    def _meant(self, text: str, spans: Iterable[Span]) -> list[Span]:
        return [span for span in spans if not self._is_nobody(text, span)]

    def _is_nobody(self, text: str, span: Span) -> bool:
        lists = self._lists
        return is_order(text, span, lists) or _is_no_place(text, span, lists) or means_nobody(text, span, lists)


def _is_no_place(text: str, span: Span, lists: Lists) -> bool:
    return span.type == "LOCATION" and (is_torn(text, span, lists) or is_reading(text, span, lists))


def united(spans: Iterable[Span]) -> list[Span]:
    """Spans that overlap as one, from the first character to the last, of the type that is told of half
    of it, else of the longest."""
    found: list[Span] = []
    for span in sorted(spans):
        last = found[-1] if found else None
        if last is None or span.start >= last.end:
            found.append(span)
            continue
        end = max(last.end, span.end)
        longer = max(span, last, key=lambda each: (_fills(each, end - last.start), each.end - each.start, each.score))
        found[-1] = Span(last.start, end, longer.type, max(last.score, span.score))
    return found


def _fills(span: Span, length: int) -> bool:
    return span.score >= TOLD and 2 * (span.end - span.start) >= length


def _runs(text: str, tagged: Tagged, lists: Lists) -> Iterator[Span]:
    """Pieces next to each other that belong to one name; its type is what most of it looks like."""
    chances = tagged.chances
    perhaps = chances[:, 0] < 1 - _BETWEEN
    if not perhaps.any():
        return
    named = chances[:, 0] < 1 - _CHANCE
    for place in np.flatnonzero(perhaps & ~named):
        named[place] = known_name(tagged.pieces[place], lists)
    likely = np.flatnonzero(_bridged(named, perhaps))
    if not len(likely):
        return
    chosen = chances[likely]
    begins, goes_on = chosen[:, 1::2], chosen[:, 2::2]
    by_type = begins + goes_on
    starts_anew = (begins.max(1) > _ANEW * goes_on.max(1)).tolist()
    parts, ends = tagged.pieces, np.cumsum([len(part) for part in tagged.pieces])
    places = likely.tolist()
    at = 0
    while at < len(places):
        after = at + 1
        while after < len(places) and places[after] == places[after - 1] + 1:
            if starts_anew[after] and not _bound(parts, places[after]):
                break
            after += 1
        first, last = places[at], places[after - 1]
        start, end = _trimmed(text, int(ends[first]) - len(parts[first]), int(ends[last]))
        if start < end:
            kind = TYPES[int(by_type[at:after].sum(0).argmax())]
            if kind == "PERSON" and text[end - 2 : end] in {"'s", "’s"}:
                end -= 2
            yield Span(start, end, kind, min(0.99, round(float(1 - chances[first : last + 1, 0].mean()), 2)))
        at = after


def _bridged(named: NDArray[np.bool_], perhaps: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Also the pieces that may belong to a name and stand between two that do."""
    bridged: NDArray[np.bool_] = named.copy()
    bridged[1:-1] |= perhaps[1:-1] & named[:-2] & named[2:]
    return bridged


def _bound(parts: Sequence[str], place: int) -> bool:
    """Whether a piece hangs on the one before: what follows a hyphen, and any sign, begins no name of its own."""
    part = parts[place]
    return (part[0] != " " and parts[place - 1] in {"-", "–"}) or not part.strip()[:1].isalnum()


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and (text[start] in _EDGES or text[start] == "."):
        start += 1
    while start < end and text[end - 1] in _EDGES:
        end -= 1
    if end - start > 1 and text[end - 1] == "." and not _abbreviated(text, end - 1):
        end -= 1
    return start, end


def _abbreviated(text: str, dot: int) -> bool:
    """Whether the word before a full stop is one that is written with it: "R.", "Jr.", "Inc."."""
    begin = dot
    while begin and text[begin - 1].isalpha():
        begin -= 1
    return (dot - begin == 1 and text[begin].isupper() and not text[begin - 1 : begin].isdigit()) or text[
        begin:dot
    ].lower() in {
        "jr",
        "sr",
        "st",
        "ave",
        "rd",
        "blvd",
        "dr",
        "ln",
        "inc",
        "co",
        "corp",
        "ltd",
        "apt",
        "ct",
        "esq",
    }
