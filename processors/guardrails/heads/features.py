"""Hashed n-grams of a folded text: words, pairs of words, and runs of 3 to 5 letters, as indices into one table.

The hash is a polynomial over code points, mixed; it is computed for all places of a text at once, is the same on every
machine, and is frozen: other indices would make trained weights noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

BITS: Final = 17
BUCKETS: Final = 1 << BITS
_LETTERS: Final = (3, 4, 5)
# Longer texts are judged by their windows anyway; what is beyond this is not hashed again for the whole.
MAX_CHARS: Final = 20_000

_BASE: Final = np.uint64(1_099_511_628_211)
_INVERSE: Final = np.uint64(pow(int(_BASE), -1, 1 << 64))
_MIX: Final = np.uint64(0x9E37_79B9_7F4A_7C15)
_SPACE: Final = 32

Indices = NDArray[np.int64]


def hashed(text: str) -> Indices:
    """The distinct buckets of `text`, ascending. Anything but letters and digits separates words; digits are all alike."""
    codes = _codes(text[:MAX_CHARS])
    if len(codes) < 3:
        return np.zeros(0, np.int64)
    with np.errstate(over="ignore"):
        found = [_buckets(_grams(codes, width), np.uint64(width)) for width in _LETTERS if len(codes) >= width]
        found.extend(_words(codes))
    return np.unique(np.concatenate(found))


def _codes(text: str) -> NDArray[np.uint64]:
    """Code points of the words, one space before, between and after them."""
    words = "".join(character if character.isalnum() else " " for character in text).split()
    plain = f" {' '.join(words)} " if words else ""
    codes = np.frombuffer(plain.encode("utf-32-le", "replace"), np.uint32).astype(np.uint64)
    codes[(codes >= 48) & (codes <= 57)] = 48
    return codes


def _grams(codes: NDArray[np.uint64], width: int) -> NDArray[np.uint64]:
    size = len(codes) - width + 1
    value = np.zeros(size, np.uint64)
    for step in range(width):
        value = value * _BASE + codes[step : step + size]
    return value


def _words(codes: NDArray[np.uint64]) -> Sequence[Indices]:
    """Buckets of words and of neighbouring pairs, by the difference of two prefix hashes."""
    powers, inverses = _powers(_BASE, len(codes)), _powers(_INVERSE, len(codes))
    prefix = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum(codes * powers, out=prefix[1:])
    spaces = np.flatnonzero(codes == _SPACE)
    starts, ends = spaces[:-1] + 1, spaces[1:]
    found = []
    for words in (1, 2):
        first, last = starts[: len(starts) - words + 1], ends[words - 1 :]
        if len(first):
            # Brought back to the power of its first letter: a word is the same wherever it stands.
            value = (prefix[last] - prefix[first]) * inverses[first]
            found.append(_buckets(value, np.uint64(16 + words)))
    return found


def _powers(base: np.uint64, count: int) -> NDArray[np.uint64]:
    powers = np.full(count, base)
    powers[0] = 1
    np.multiply.accumulate(powers, out=powers)
    return powers


def _buckets(values: NDArray[np.uint64], kind: np.uint64) -> Indices:
    mixed = (values + kind * _MIX) * _MIX
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58_476D_1CE4_E5B9)
    return (mixed >> np.uint64(64 - BITS)).astype(np.int64)
