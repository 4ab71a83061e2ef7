"""The PHI detector: patterns and check digits for what has a form, the name finder for the rest, settled into one reading."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from ..ports import Batch, Finding, Verdict
from . import ages, clinical, contacts, coordinates, dates, handles, leak, numbers, places, structure, zones
from .foreign import Foreign
from .labels import TYPES
from .merge import settle
from .ner import NameFinder, Span, united
from .readings import plain, unveiled

# What redaction has written: no finding, so that a redacted text stays as it is.
_NOT_LABELLED: Final = (
    "PERSON|LOCATION|ORGANIZATION|NRP|DATE_TIME|AGE|EMAIL_ADDRESS|URL|IP_ADDRESS|MAC_ADDRESS|CRYPTO|UUID|USERNAME"
)
_KINDS: Final = "|".join(TYPES) + "|" + _NOT_LABELLED
_REDACTED: Final = re.compile(rf"<(?:{_KINDS})>|\b(?:{_KINDS})_[0-9a-f]{{8}}\b")
_THRESHOLD: Final = 0.35


class Finder(Protocol):
    """What finds names: our own, or a transformer beside it."""

    version: str

    def find(self, texts: Sequence[str]) -> list[list[Span]]: ...


class PhiDetector:
    """The 18 identifiers of Safe Harbor in prompts, responses and context. One finding a place; no two overlap."""

    name = "phi"

    def __init__(self, finder: Finder, foreign: Foreign | None = None) -> None:
        self._finder = finder
        self._foreign = foreign
        self._sha256 = _rules_sha256()
        self.version = f"1-{self._sha256[:8]}-{finder.version}"

    @classmethod
    def load(cls, ner: str = "offline") -> PhiDetector:
        """`ner`: offline, or transformers:FOLDER for a token classifier of that folder (extra `models`)."""
        if ner == "offline":
            return cls(NameFinder.load(), Foreign.load())
        kind, _, folder = ner.partition(":")
        if kind != "transformers" or not folder:
            raise ValueError(f"unknown name finder {ner!r}; choose offline or transformers:FOLDER")
        from ..backends.transformer_ner import BesideOwn, TransformerNer  # torch only where it is asked for

        return cls(BesideOwn(TransformerNer.load(folder), NameFinder.load()), Foreign.load())

    def assess(self, batch: Batch) -> list[Verdict]:
        places_of = [
            (number, place, chunk) for number, sample in enumerate(batch.samples) for place, chunk, _ in sample.texts()
        ]
        texts = [text for sample in batch.samples for _, _, text in sample.texts()]
        verdicts = [Verdict() for _ in batch.samples]
        for (number, where, chunk), spans in zip(places_of, self.find(texts), strict=True):
            verdicts[number].findings.extend(
                Finding(self.name, span.type, where, span.start, span.end, round(span.score, 4), chunk) for span in spans
            )
        for sample, verdict in zip(batch.samples, verdicts, strict=True):
            verdict.findings = leak.marked(sample, verdict.findings)
        return verdicts

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """The spans of each text, in order of place, none overlapping."""
        first = [plain(text) for text in texts]
        second = [(place, other) for place, text in enumerate(first) if (other := unveiled(text)) is not None]
        read = [*first, *(other.text for _, other in second)]
        found = [self._settled(text, names) for text, names in zip(read, self._finder.find(read), strict=True)]
        for (place, other), spans in zip(second, found[len(first) :], strict=True):
            found[place] = united([*found[place], *(Span(*other.span(s.start, s.end), s.type, s.score) for s in spans)])
        return found[: len(first)]

    def _settled(self, text: str, names: Sequence[Span]) -> list[Span]:
        structured = structured_spans(text)
        if self._foreign is not None:
            structured += self._foreign.find(text)
        redacted = [match.span() for match in _REDACTED.finditer(text)] if "<" in text or "_" in text else []
        people = [name for found in names if (name := clinical.without(text, found)) is not None]
        return [
            span
            for span in settle(text, structured, people)
            if span.score >= _THRESHOLD and not (redacted and _says_nothing_else(text, span, redacted))
        ]

    def describe(self) -> Mapping[str, Any]:
        return {
            "backend": "own rules and check digits, Presidio's recognizers of other countries, own name tagger",
            "source": "tidegate.processors.guardrails.phi",
            "sha256": self._sha256,
            "licence": "ours (rules, tagger); MIT (Presidio, name lists), CC BY 4.0 (GeoNames)",
            # Names by a model of the user's own, where there is one.
            **({"names": self._finder.describe()} if hasattr(self._finder, "describe") else {}),
        }


def structured_spans(text: str) -> list[Span]:
    """What has a form: before it is settled, and without names."""
    within = zones.of(text)
    found = [
        *contacts.find(text, within),
        *handles.find(text),
        *coordinates.find(text, within),
        *dates.find(text, within),
        *ages.find(text, within),
        *numbers.find(text, within),
        *places.find(text, within),
    ]
    return [*found, *structure.find(text)]


def _says_nothing_else(text: str, span: Span, redacted: Sequence[tuple[int, int]]) -> bool:
    """Whether outside of what redaction has written no letter or digit of the span is left."""
    after, left = span.start, False
    for start, end in redacted:
        if start < span.end and span.start < end:
            left = left or any(map(str.isalnum, text[after:start]))
            after = end
    return not (left or any(map(str.isalnum, text[after : span.end])))


def _rules_sha256() -> str:
    """Of the rules themselves, so that a changed rule is another version, and the cache forgets."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.iterdir()):
        if path.suffix in {".py", ".txt", ".json", ".npz", ".yaml"}:
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
