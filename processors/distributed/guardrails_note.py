"""What stands beside the committed offset of a partition of content: which number each of its latest producers comes to next.

    {"<48 bits of the producer's name>": next number, …}   the latest last

So an envelope that is sent twice is judged once, whoever has the partition by then. Brokers take some four kilobytes: two
hundred producers. Of one that is not among them an envelope that comes twice is judged twice: its verdicts are known by their
numbers, its transcript is in the store twice.
"""

from __future__ import annotations

import base64
import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, Self

import msgspec

# The brokers' own bound, `offset.metadata.max.bytes`.
_MOST_BYTES: Final = 4_096
# Of two hundred names two are alike once in ten billion times.
_MARK_BYTES: Final = 6
# `"mark":` and `,` around each number, `{}` around all.
_MARK_CHARS: Final = 8
_AROUND: Final = _MARK_CHARS + 4
_BRACES: Final = 2


class Note:
    """Of one partition. Keeps as many producers as are written."""

    def __init__(self, next_seqs: Mapping[str, int] | None = None) -> None:
        self._next_seqs: OrderedDict[str, int] = OrderedDict(next_seqs or {})

    @classmethod
    def load(cls, text: str | None) -> Self:
        """What `dump` wrote; a note of somebody else says nothing."""
        try:
            found = msgspec.json.decode(text or "{}", type=dict[str, int])
        except msgspec.MsgspecError:
            return cls()
        return cls({mark: next_seq for mark, next_seq in found.items() if len(mark) == _MARK_CHARS})

    def next_seq(self, producer: str) -> int | None:
        """The number that a producer comes to next, where it is known."""
        return self._next_seqs.get(_mark(producer))

    def put(self, producers: Mapping[str, int]) -> None:
        """These producers are the latest, and where they come to next."""
        for producer, next_seq in producers.items():
            mark = _mark(producer)
            self._next_seqs[mark] = next_seq
            self._next_seqs.move_to_end(mark)

    def dump(self) -> str:
        """The note; who has no room in it is forgotten."""
        size = _BRACES + sum(_AROUND + len(str(next_seq)) for next_seq in self._next_seqs.values())
        while size > _MOST_BYTES:
            _, next_seq = self._next_seqs.popitem(last=False)
            size -= _AROUND + len(str(next_seq))
        return msgspec.json.encode(self._next_seqs).decode()


def _mark(producer: str) -> str:
    digest = hashlib.blake2b(producer.encode(errors="surrogatepass"), digest_size=_MARK_BYTES).digest()
    return base64.urlsafe_b64encode(digest).decode()
