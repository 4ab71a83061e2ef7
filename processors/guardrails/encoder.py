"""The offline encoder: static token vectors, averaged. WordLlama's 256-dimension table (MIT), out of its own wheel.

    text ─► byte-pair tokens ─► a row of the table for each ─► mean ─► unit length

The package itself is never imported: it would bring `requests` along, look for its tokenizer in a cache folder, download
what it does not find there and configure logging. Its two files are read where pip put them, and nothing else is touched.
A text costs some tens of microseconds; there is no attention, so word order is not seen.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .ports import Batch, Encoder, Vectors

WEIGHTS: Final = "weights/l2_supercat_256.safetensors"
TOKENIZER: Final = "tokenizers/l2_supercat_tokenizer_config.json"
# Of the wheel 0.4.0.post1. The heads are trained on these vectors, and mean nothing over others.
SHA256: Final = {
    WEIGHTS: "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
    TOKENIZER: "93248f2a9ec36c7b35f700a033d5f36228aae48db61aee31007fa49062cdeb68",
}

# Byte pairs are merged over the whole text, there being no words to this tokenizer, and that costs n log n; so a long text
# is tokenized in pieces. A mean over tokens does not feel where it was cut, but for the token at the seam.
PIECE_CHARS: Final = 2_000
# Tokens that are summed at once: 64 MB of float32 rows at the very most.
BLOCK_TOKENS: Final = 65_536


class EncoderUnavailable(RuntimeError):
    """The vectors are not installed, or are not the ones that the heads were trained on."""


class OfflineEncoder:
    """Implements `Encoder`. Deterministic: a text has the same vector alone, in any batch, on any machine."""

    name = "wordllama-l2-supercat-256"
    dimensions = 256

    def __init__(self, table: NDArray[np.float32], tokenizer: Tokenizer) -> None:
        self._table = table
        self._tokenizer = tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._nothing = np.zeros(self.dimensions, np.float32)
        self._nothing[0] = 1.0

    @classmethod
    def load(cls, folder: Path | None = None) -> OfflineEncoder:
        """From the installed wheel, once a process, or from `folder` laid out like it. Raises `EncoderUnavailable`."""
        return _installed_encoder() if folder is None else cls._from(folder)

    @classmethod
    def _from(cls, folder: Path) -> OfflineEncoder:
        from safetensors.numpy import load

        read = {name: _checked(folder / name, digest) for name, digest in SHA256.items()}
        table = load(read[WEIGHTS])["embedding.weight"].astype(np.float32)
        return cls(table, Tokenizer.from_buffer(read[TOKENIZER]))

    def describe(self) -> Mapping[str, Any]:
        """For `tidegate models`."""
        return {
            "backend": "offline",
            "source": "wordllama 0.4.0.post1, l2_supercat_256",
            "sha256": SHA256[WEIGHTS],
            "licence": "MIT",
            "dimensions": self.dimensions,
            "size_bytes": sum((installed() / name).stat().st_size for name in SHA256),
        }

    def encode(self, texts: Sequence[str]) -> Vectors:
        """(len(texts), 256) float32, rows of length 1. An empty text is the first axis."""
        sums = np.zeros((len(texts), self.dimensions), np.float64)
        pieces: list[str] = []
        owners: list[int] = []
        for place, text in enumerate(texts):
            for piece in _pieces(text):
                pieces.append(piece)
                owners.append(place)
        for owner, ids in zip(owners, self._tokens(pieces), strict=True):
            for start in range(0, len(ids), BLOCK_TOKENS):
                sums[owner] += self._table[ids[start : start + BLOCK_TOKENS]].sum(axis=0, dtype=np.float64)
        lengths = np.linalg.norm(sums, axis=1)
        sums[lengths < 1e-9] = self._nothing
        lengths[lengths < 1e-9] = 1.0
        vectors: Vectors = (sums / lengths[:, None]).astype(np.float32)
        return vectors

    def _tokens(self, pieces: Sequence[str]) -> list[NDArray[np.int64]]:
        encoded = self._tokenizer.encode_batch_fast(list(pieces), add_special_tokens=False)
        return [np.asarray(each.ids, np.int64) for each in encoded]


@cache
def _installed_encoder() -> OfflineEncoder:
    return OfflineEncoder._from(installed())


def embedded(batch: Batch, encoder: Encoder, texts: Sequence[str]) -> Vectors:
    """The vectors of `encoder`: out of the batch, which keeps them for the other detectors, where it has the same encoder."""
    return batch.embed(texts) if batch.encoder_name == encoder.name else encoder.encode(texts)


def _pieces(text: str) -> list[str]:
    """`text` in pieces of at most `PIECE_CHARS`, cut at a space where there is one. Half a surrogate pair, which no
    tokenizer takes, becomes a question mark."""
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8")
    if not text or text.isspace():
        return []
    if len(text) <= PIECE_CHARS:
        return [text]
    found: list[str] = []
    start = 0
    while len(text) - start > PIECE_CHARS:
        end = text.rfind(" ", start + PIECE_CHARS // 2, start + PIECE_CHARS)
        end = start + PIECE_CHARS if end < 0 else end
        found.append(text[start:end])
        start = end
    found.append(text[start:])
    return found


def installed() -> Path:
    spec = importlib.util.find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise EncoderUnavailable("the offline encoder needs the package wordllama: pip install 'tidegate[guardrails]'")
    return Path(spec.origin).parent


def _checked(path: Path, digest: str) -> bytes:
    try:
        read = path.read_bytes()
    except OSError as error:
        raise EncoderUnavailable(f"{path.name} is not where the encoder looks for it") from error
    if hashlib.sha256(read).hexdigest() != digest:
        raise EncoderUnavailable(f"{path.name} is not the file that the heads were trained on: its SHA-256 differs")
    return read
