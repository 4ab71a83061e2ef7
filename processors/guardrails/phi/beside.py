"""What is said beside the numbers of a text: the labels that lead up to one, and the one behind it.

Labels are looked for once a text, and remembered with the number they lead up to: one number has several shapes.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import Final, NamedTuple

from .labels import LINK
from .prefilter import label_at
from .prefilter import labels as label_matches
from .zones import Zones

# How far before a number its label may stand: "Medicare beneficiary identifier on the card is: …" takes some 50 characters.
_BEFORE: Final = 72
_AFTER: Final = 40
# What calls a number, but says little of it: other labels come first.
WEAK: Final = frozenset({"UNIQUE_ID", "PHONE_NUMBER", "CERTIFICATE_NUMBER"})
_SPEAKS_OF: Final = re.compile(
    r"[\s\-–,;(:]{0,4}(?:(?:is|was|as|being)\s+)?(?:(?:the|my|his|her|their|your|our|a|an|for|on|patient'?s?)\s+){0,3}",
    re.IGNORECASE,
)
_SAID: Final = re.compile(r"\b(?:is|was|as)\b|[(–-]")
# A clinical code may stand further from its word: "LOINC code for hemoglobin A1c is 4548-4".
_CODE_LINK: Final = re.compile(r"(?:(?![.?!]\s)[^\n;]){0,60}\Z")


class Label(NamedTuple):
    """`text[start:end]` says that a number is of `type`."""

    type: str
    start: int
    end: int


class Beside:
    """The labels of one text, about its zones."""

    def __init__(self, text: str, within: Zones) -> None:
        self._text = text
        self._labels: list[Label] = []
        after = 0
        for start, end in within:
            start = max(after, start - _BEFORE)
            self._labels += [Label(str(match.lastgroup), *match.span()) for match in label_matches(text, start, end)]
            after = end
        self._starts = [label.start for label in self._labels]
        self._before: dict[int, list[Label]] = {}

    def before(self, start: int) -> list[Label]:
        """What the number at `start` may be said to be, likeliest first: labels that lead up to it, the nearest first, narrow
        ones before vague ones. A clinical code's word ends the list."""
        known = self._before.get(start)
        if known is None:
            known = self._before[start] = self._leading_up(start)
        return known

    def nearest(self, start: int) -> Label | None:
        """The first of those `before`."""
        labels = self.before(start)
        return labels[0] if labels else None

    def _leading_up(self, start: int) -> list[Label]:
        text = self._text
        narrow: list[Label] = []
        vague: list[Label] = []
        # What parts a label from the number also parts those before it.
        linked = True
        first = bisect_left(self._starts, start - _BEFORE)
        for place in range(bisect_left(self._starts, start) - 1, first - 1, -1):
            label = self._labels[place]
            if label.end > start:  # it reaches into the number, and is read as far as there
                match = label_at(text, label.start, start)
                if match is None:
                    continue
                label = Label(str(match.lastgroup), *match.span())
            if label.type == "CODE" and _CODE_LINK.match(text, label.end, start):
                return [*narrow, *vague] or [label]
            linked = linked and LINK.match(text, label.end, start) is not None
            if linked and not self._ends_the_line_above(label, start):
                (vague if label.type in WEAK else narrow).append(label)
        return [*narrow, *vague]

    def _ends_the_line_above(self, label: Label, start: int) -> bool:
        """ "555-0142 fax" on the line above speaks of that line's number."""
        link = self._text[label.end : start]
        return (
            "\n" in link and ":" not in link and self._text[max(0, label.start - 3) : label.start].rstrip(" -(")[-1:].isdigit()
        )

    def after(self, end: int) -> Label | None:
        """What the words behind the number say it was: "88172635 is her MRN"."""
        text = self._text
        until = min(len(text), end + _AFTER)
        lead = _SPEAKS_OF.match(text, end, until)
        if lead is None or not lead.group() or "\n" in lead.group() or _SAID.search(lead.group()) is None:
            return None
        match = label_at(text, lead.end(), until)
        return Label(str(match.lastgroup), *match.span()) if match is not None else None
