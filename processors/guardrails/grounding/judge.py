"""The port of a judge: a cross-encoder that has learned what follows from what. Optional; `backends/` has one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol


class Judgement(NamedTuple):
    """Shares that add up to 1: the premise says so; it says nothing of it; it says otherwise."""

    entail: float
    neutral: float
    contradict: float


class Judge(Protocol):
    """A natural-language-inference model, loaded."""

    name: str
    # Changes whenever its judgements may.
    version: str

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Judgement]:
        """One judgement for each (premise, hypothesis), in order."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """For `tidegate models`: `backend`, `source`, `sha256`, `licence`."""
        ...
