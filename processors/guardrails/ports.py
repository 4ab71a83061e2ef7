"""The port of the detectors: samples in, verdicts out, batched.

A detector judges a batch of samples and says, for each, what it found and how it scores. It raises nothing on purpose:
whatever it raises means that it could not judge this batch, and `Suite` narrows that down to the sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ...schemas.content import Where

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sample:
    """The texts of one call; None is a text that was not there. `known` are facts of the call a detector may use, such as
    `prompt_name`. Never shown in a log or a traceback: the repr is the id."""

    id: str
    prompt: str | None = field(default=None, repr=False)
    response: str | None = field(default=None, repr=False)
    context: tuple[str, ...] = field(default=(), repr=False)
    known: Mapping[str, str] = field(default_factory=dict, repr=False)

    def texts(self) -> list[tuple[Where, int, str]]:
        """Every text that is there, with its place and number."""
        found: list[tuple[Where, int, str]] = []
        if self.prompt is not None:
            found.append(("prompt", 0, self.prompt))
        if self.response is not None:
            found.append(("response", 0, self.response))
        found.extend(("context", index, chunk) for index, chunk in enumerate(self.context))
        return found


class Finding(NamedTuple):
    """`detector` found `type` at `[start, end)` characters of that text, with a score in 0..1. A `leak` is PHI in a response
    that neither prompt nor context had; `rule` is the id of the rule that says so, where people keep the rules."""

    detector: str
    type: str
    where: Where
    start: int
    end: int
    score: float
    chunk: int = 0  # of the context
    leak: bool = False
    rule: str = ""


class Evidence(NamedTuple):
    """What one sentence of the response rests on: `[start, end)` of the response is supported to `score` in 0..1 by
    `[source_start, source_end)` of `source`. Where nothing speaks of it, the source's span is empty."""

    start: int
    end: int
    score: float
    source: Where
    source_start: int
    source_end: int
    chunk: int = 0  # of the context


# The score of a sample: (where, name) → 0..1. What was not scored is not there.
Scores = dict[tuple[Where, str], float]


@dataclass(slots=True)
class Verdict:
    """What one detector says of one sample."""

    findings: list[Finding] = field(default_factory=list)
    scores: Scores = field(default_factory=dict)
    evidence: list[Evidence] = field(default_factory=list)


class Encoder(Protocol):
    """Sentence embeddings of unit length."""

    name: str
    dimensions: int

    def encode(self, texts: Sequence[str]) -> Vectors:
        """(len(texts), dimensions) float32, rows of length 1. An empty text gives some unit vector, never NaN."""
        ...


class Batch:
    """Samples that are judged together, and their embeddings: each distinct text is embedded once, whoever asks."""

    def __init__(self, samples: Sequence[Sample], encoder: Encoder | None = None) -> None:
        self.samples = samples
        self._encoder = encoder
        self._known: dict[str, NDArray[np.float32]] = {}

    @property
    def encoder_name(self) -> str | None:
        """Whose vectors `embed` gives. Trained weights mean nothing over another encoder's."""
        return None if self._encoder is None else self._encoder.name

    def embed(self, texts: Sequence[str]) -> Vectors:
        """(len(texts), dimensions), rows of length 1. Raises `LookupError` where no encoder was given."""
        if self._encoder is None:
            raise LookupError("this batch has no encoder; load one with the suite")
        fresh = [text for text in dict.fromkeys(texts) if text not in self._known]
        if fresh:
            self._known.update(zip(fresh, self._encoder.encode(fresh), strict=True))
        if not texts:
            return np.zeros((0, self._encoder.dimensions), np.float32)
        return np.stack([self._known[text] for text in texts])


class Detector(Protocol):
    """One detector, loaded. Used from one thread."""

    name: str
    # Changes whenever its verdicts may: it stands on every verdict, and is part of the cache's key.
    version: str

    def assess(self, batch: Batch) -> list[Verdict]:
        """One verdict for each sample, in order."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """For `tidegate models`: `backend`, `source`, `sha256` of the weights or rules, `licence`."""
        ...
