"""Where a long text is cut to be judged: sentences, and windows of neighbouring sentences, as spans of the text."""

from __future__ import annotations

import re
from typing import Final

# A judge that was trained on comments sees nothing in a page: what is said in one line drowns in the rest.
WINDOW_CHARS: Final = 400
# However long a text is, it is cut in no more windows than this: they grow instead.
MAX_WINDOWS: Final = 1_000

Span = tuple[int, int]

_END: Final = re.compile(r"""[.!?…؟]+["'”’)\]]*(?=\s|$)|[。！？।]+|\n+""")


def sentences(text: str) -> list[Span]:
    """The sentences and lines of `text`, without the space around them, in order. None of them is empty."""
    ends = [match.end() for match in _END.finditer(text)]
    spans = (trimmed(text, start, end) for start, end in zip([0, *ends], [*ends, len(text)], strict=True))
    return [span for span in spans if span[0] < span[1]]


def windows(text: str, chars: int = WINDOW_CHARS) -> list[Span]:
    """`text` in spans of about `chars`, each of whole sentences where they are short enough. All of it where it is short."""
    whole = trimmed(text, 0, len(text))
    if whole[1] - whole[0] <= chars:
        return [whole] if whole[0] < whole[1] else []
    chars = max(chars, len(text) // MAX_WINDOWS * 2)
    found: list[Span] = []
    for start, end in sentences(text):
        if found and end - found[-1][0] <= chars:
            found[-1] = (found[-1][0], end)
            continue
        found.extend((cut, min(cut + chars, end)) for cut in range(start, end, chars))
    return found


def trimmed(text: str, start: int, end: int) -> Span:
    """`[start, end)` without the white space at both ends."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end
