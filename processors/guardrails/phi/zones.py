r"""Where in a text there are digits, with some room about them: patterns that need one are tried there and nowhere else.

Prose is mostly letters, and a pattern that fails at each of them is what scanning costs. For the same reason many patterns of
this folder begin with a set of characters and ask behind it what stands before: `re` skips at once to where `[0-9](?<![\w.].)`
may match, but tries `(?<![\w.])[0-9]` everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

Zones = list[tuple[int, int]]

# Before a digit: the words that lead up to a number within its own pattern ("discharged on 3/14"). Behind the last: what may
# still belong to it, and what a lookahead must see.
_BEFORE: Final = 48
_BEHIND: Final = 48
_RUNS: Final = re.compile(rf"\d(?:\D{{0,{_BEFORE + _BEHIND}}}\d)*", re.DOTALL)


def of(text: str) -> Zones:
    """[start, end) in order; they neither overlap nor touch."""
    return [(max(0, run.start() - _BEFORE), min(len(text), run.end() + _BEHIND)) for run in _RUNS.finditer(text)]


def matches(pattern: re.Pattern[str], text: str, zones: Zones) -> Iterator[re.Match[str]]:
    """What `pattern.finditer` finds in the zones."""
    for start, end in zones:
        yield from pattern.finditer(text, start, end)
