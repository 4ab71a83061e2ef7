"""National identifiers of other countries, by Presidio's own recognizers: their patterns, validators and context words.

Presidio's engine asks every recognizer about every text. Here one is asked only where one of its context words stands ("NINO",
"codice fiscale", "Aadhaar"), and its answer counts only near that word: without one, eleven digits are anybody's.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from .ner import Span

# As Presidio's registry names them. What the United States have is ours already, by label and check digit.
_RECOGNIZERS: Final = (
    "AuAbnRecognizer",
    "AuAcnRecognizer",
    "AuMedicareRecognizer",
    "AuTfnRecognizer",
    "CaSinRecognizer",
    "DeTaxIdRecognizer",
    "DeSocialSecurityRecognizer",
    "DeHealthInsuranceRecognizer",
    "EsNieRecognizer",
    "EsNifRecognizer",
    "FiPersonalIdentityCodeRecognizer",
    "InAadhaarRecognizer",
    "InPanRecognizer",
    "InVoterRecognizer",
    "ItFiscalCodeRecognizer",
    "KrRrnRecognizer",
    "NhsRecognizer",
    "PlPeselRecognizer",
    "SePersonnummerRecognizer",
    "SgFinRecognizer",
    "ThTninRecognizer",
    "TrNationalIdRecognizer",
    "UkNinoRecognizer",
    "ZaIdNumberRecognizer",
)
# Context words that stand everywhere, and so say nothing of a country.
_VAGUE: Final = frozenset(
    """number no id identity identification card code tax national health insurance social security medical service patient
    document registration business company personal government population citizen resident permanent account voter
    steuer fin permit identifier person individual unique civil republic medicare cf abn acn singapore sweden finland
    australia canada india korea turkey thailand ssn epic rente""".split()  # noqa: SIM905
)
_VAGUE_PAIRS: Final = frozenset({"national id", "id number", "identity number", "personal identity number", "health authority"})
# A pattern this weak is one of nearly anything: it counts only where the validator agrees.
_WEAK: Final = 0.1
_BEFORE: Final = 60  # characters in which the word leads up to its number
_AFTER: Final = 25


_WORD: Final = re.compile(r"\w+")


class _Asked(NamedTuple):
    """`begins`: the first word of each phrase of `context`, which is looked up sooner than searched for."""

    begins: frozenset[str]
    context: re.Pattern[str]
    recognizer: Any
    patterns: list[tuple[re.Pattern[str], float]]


class Foreign:
    """Presidio's recognizers of national identifiers, ready to be asked. Used from one thread."""

    def __init__(self, recognizers: Sequence[Any]) -> None:
        self._asked: list[_Asked] = []
        for recognizer in recognizers:
            context = {word.casefold() for word in recognizer.context or () if len(word) > 2} - _VAGUE - _VAGUE_PAIRS
            if not context:
                continue
            patterns = [
                (re.compile(pattern.regex, re.DOTALL | re.MULTILINE | re.IGNORECASE), pattern.score)
                for pattern in recognizer.patterns
            ]
            begins = frozenset(word for phrase in context for word in _WORD.findall(phrase)[:1])
            self._asked.append(_Asked(begins, _any_of(context), recognizer, patterns))

    @classmethod
    def load(cls) -> Foreign:
        """Those of the list that this Presidio has."""
        from presidio_analyzer import predefined_recognizers

        known = (getattr(predefined_recognizers, name, None) for name in _RECOGNIZERS)
        return cls([recognizer() for recognizer in known if recognizer is not None])

    def find(self, text: str) -> Iterator[Span]:
        """Identifiers beside a word that names them; .95 where Presidio's validator agrees, .85 where it has none."""
        words = frozenset(_WORD.findall(text.casefold()))
        for asked in self._asked:
            if asked.begins.isdisjoint(words) or not (cues := [match.span() for match in asked.context.finditer(text)]):
                continue
            for pattern, strength in asked.patterns:
                for match in pattern.finditer(text):
                    if _beside(match, cues) and (score := _score(asked.recognizer, match.group(), strength)) is not None:
                        yield Span(match.start(), match.end(), asked.recognizer.supported_entities[0], score)


def _beside(match: re.Match[str], cues: Sequence[tuple[int, int]]) -> bool:
    """Whether the nearest word before leads up to the number, or the nearest behind it says what it was."""
    behind = bisect_left(cues, (match.end(),))
    before = bisect_left(cues, (match.start(),)) - 1
    return (before >= 0 and 0 <= match.start() - cues[before][1] <= _BEFORE) or (
        behind < len(cues) and cues[behind][0] - match.end() <= _AFTER
    )


def _score(recognizer: Any, written: str, strength: float) -> float | None:
    if recognizer.invalidate_result(written):
        return None
    valid = recognizer.validate_result(written)
    if valid is None:
        return 0.85 if strength > _WEAK else None
    return 0.95 if valid else None


def _any_of(words: set[str]) -> re.Pattern[str]:
    longest_first = sorted(words, key=lambda word: (-len(word), word))
    return re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, longest_first)) + r")(?!\w)", re.IGNORECASE)
