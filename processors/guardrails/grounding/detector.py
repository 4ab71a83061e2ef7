"""Faithfulness: does the source bear out what the response says, claim by claim?

    context (or a prompt that holds its source) ─► Source ─┐
    response ─► claims ────────────────────────────────────┴► features ─► support of each claim ─► score, findings, evidence
    no source ─► `unverifiable.py`: specifics that nothing bears out are unverifiable, not fine

The score of a response is that of its worst claim, softened by the mean: one invented dose in a faithful page is the page's
fault, and a longer page is not worse for its length alone. Weights are fitted by `bench/training/grounding.py`.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from ....schemas.content import Where
from ..ports import Batch, Evidence, Finding, Sample, Verdict
from .checks import read_claim
from .claims import NAMES, Claim, claims
from .doubts import FEATURES, Doubt, Reading
from .judge import Judge
from .lexicon import COMMON_FILE, EMPTY_KEYS, FILE, lexicon
from .reading import words
from .source import Source
from .unverifiable import unverifiable

WEIGHTS: Final = Path(__file__).with_name("weights.yaml")
# The part of the worst claim in the score of the response; the mean of all is the rest.
WORST: Final = 0.7
# A claim supported less than this is reported. Fitted: see the card in docs/models.md for what it finds and what it flags.
REPORTED: Final = 0.35
# A contradiction is reported from this strength on, whatever else supports its claim.
CONTRADICTED: Final = 0.7
# How much of a claim's support a sure contradiction takes, whatever else the source bears out.
DECISIVE: Final = 0.7
# A copied sentence needs no argument; nor can one be perfect, for the source may be quoted out of place.
COPIED: Final = 0.98
# The score of a response that asserts nothing, such as "Noncontributory.": no fault found, and little said.
NOTHING_SAID: Final = 0.8
# A prompt this long that asks for something to be done with a text is taken to hold that text.
PROMPT_SOURCE_WORDS: Final = 80
_ASKS_OF_TEXT: Final = re.compile(
    r"\b(?:summar\w+|rewrite|rephrase|paraphrase|extract|translate|shorten|condense|proofread|based on|according to|"
    r"(?:the )?following|below|above|given (?:the|this)|from (?:the|this)|using (?:the|this)|note|encounter|transcript|"
    r"dialogue|passage|article|context|document|report|conversation)\b",
    re.IGNORECASE,
)
# More distinct words than this are compared by letters alone: their vectors would cost more than the verdict is worth.
MOST_EMBEDDED_WORDS: Final = 6_000
MOST_EMBEDDED_LINES: Final = 4_000
# Words of a phrase of the source that may be one name: "up at night".
PHRASE_WORDS: Final = 3
# How far a judge's word moves a claim, against the features.
JUDGED: Final = 0.6

TYPES: Final = {
    "absent_named": "UNSUPPORTED_ENTITY",
    "absent_number": "UNSUPPORTED_NUMBER",
    "number": "CONTRADICTED_NUMBER",
    "unit": "CONTRADICTED_UNIT",
    "dose": "CONTRADICTED_DOSE",
    "frequency": "CONTRADICTED_FREQUENCY",
    "duration": "CONTRADICTED_DURATION",
    "age": "CONTRADICTED_AGE",
    "date": "CONTRADICTED_DATE",
    "negation": "CONTRADICTED_NEGATION",
    "laterality": "CONTRADICTED_LATERALITY",
    "comparison": "CONTRADICTED_COMPARISON",
    "sex": "CONTRADICTED_SEX",
    "relative": "CONTRADICTED_RELATIVE",
    "judge": "CONTRADICTION",
}


class FaithfulnessDetector:
    """Implements `Detector`. Scores ("response", "faithfulness") where there is a source to hold the response against."""

    name = "faithfulness"

    def __init__(
        self, weights: Mapping[str, float], written: Mapping[str, float], bias: float, judge: Judge | None = None
    ) -> None:
        """`written`: weights that differ where the source is a text, in whose own words an answer is more often put."""
        self._spoken = np.array([weights[name] for name in FEATURES])
        self._written = np.array([{**weights, **written}[name] for name in FEATURES])
        self._bias = bias
        self._judge = judge
        read = b"".join(path.read_bytes() for path in (WEIGHTS, FILE, COMMON_FILE))
        self._sha256 = hashlib.sha256(read).hexdigest()
        self.version = f"1.{self._sha256[:8]}" + (f"+{judge.version}" if judge else "")
        lexicon()

    @classmethod
    def load(cls, judge: Judge | None = None) -> FaithfulnessDetector:
        """With the shipped weights; `judge`, if given, is asked about every claim and its best evidence."""
        read = yaml.safe_load(WEIGHTS.read_text("utf-8"))
        return cls(read["features"], read["written"], read["bias"], judge)

    def describe(self) -> Mapping[str, Any]:
        """For `tidegate models`."""
        told = {
            "backend": "offline",
            "source": "rules, lexicon and weights in the package",
            "sha256": self._sha256,
            "licence": "as Tidegate",
        }
        return told | ({"judge": dict(self._judge.describe())} if self._judge else {})

    def assess(self, batch: Batch) -> list[Verdict]:
        """One verdict for each sample, in order."""
        return [self._assess(batch, sample) for sample in batch.samples]

    def _assess(self, batch: Batch, sample: Sample) -> Verdict:
        if not sample.response or not sample.response.strip():
            return Verdict()
        where, texts = source_of(sample)
        if not texts:
            return Verdict(findings=unverifiable(sample.prompt or "", sample.response))
        source = Source.read(where, texts)
        said = claims(sample.response)
        if not said or not source.lines:
            return Verdict(scores={("response", "faithfulness"): NOTHING_SAID})
        readings = read_claims(batch, said, source, sample, texts)
        supports = self._supports(readings, source, sample.response, texts)
        verdict = Verdict()
        for reading, support in zip(readings, supports, strict=True):
            verdict.evidence.append(_evidence(reading, support, source))
            verdict.findings.extend(_findings(reading, support))
        verdict.scores[("response", "faithfulness")] = overall(supports)
        return verdict

    def _supports(self, readings: Sequence[Reading], source: Source, response: str, texts: Sequence[str]) -> list[float]:
        supports = [self.support(reading) for reading in readings]
        if self._judge is None:
            return supports
        pairs = [(_premise(reading, source, texts), response[reading.claim.start : reading.claim.end]) for reading in readings]
        for place, judged in enumerate(self._judge.score(pairs)):
            opinion = judged.entail + 0.3 * judged.neutral
            supports[place] = (1 - JUDGED) * supports[place] + JUDGED * opinion
            if judged.contradict >= 0.5:
                claim = readings[place].claim
                readings[place].doubts.append(Doubt("judge", claim.start, claim.end, judged.contradict))
        return supports

    def support(self, reading: Reading) -> float:
        """How well the source bears out one claim, 0..1."""
        if reading.copied:
            return COPIED
        weights = self._spoken if reading.spoken else self._written
        logit = self._bias + float(weights @ np.array([reading.features[name] for name in FEATURES]))
        worst = max((doubt.strength for doubt in reading.doubts if contradicts(doubt)), default=0.0)
        return (1 - DECISIVE * worst) / (1 + math.exp(-max(-30.0, min(30.0, logit))))


def contradicts(doubt: Doubt) -> bool:
    """Whether a doubt is that the source says otherwise, and sure enough to be reported."""
    return not doubt.type.startswith("absent") and doubt.strength >= CONTRADICTED


def source_of(sample: Sample) -> tuple[Where, Sequence[str]]:
    """What the response may rest on: its context, else a long prompt that asks for something to be done with a text."""
    if any(chunk.strip() for chunk in sample.context):
        return "context", sample.context
    prompt = sample.prompt or ""
    if len(prompt.split()) >= PROMPT_SOURCE_WORDS and _ASKS_OF_TEXT.search(prompt):
        return "prompt", (prompt,)
    return "context", ()


def read_claims(batch: Batch, said: Sequence[Claim], source: Source, sample: Sample, texts: Sequence[str]) -> list[Reading]:
    """Every claim held against the source; with vectors, if the batch has an encoder."""
    asked = frozenset(_asked(sample.prompt)) if source.where == "context" and sample.prompt else frozenset[str]()
    near: dict[str, float] = {}
    cosines = None
    wanted = {key for claim in said for term in claim.terms for key in term.keys if key not in source.postings}
    missing = {word.key: word.low for claim in said for word in claim.words if word.key in wanted}
    own = [form for key, form in source.forms.items() if key not in EMPTY_KEYS]
    try:
        if missing and own and len(own) + len(missing) <= MOST_EMBEDDED_WORDS:
            nearest = (batch.embed(list(missing.values())) @ batch.embed(own).T).max(axis=1)
            near = dict(zip(missing, nearest.tolist(), strict=True))
            near |= _nearest_phrases(batch, said, source)
        if len(source.lines) + len(said) <= MOST_EMBEDDED_LINES:
            lines = batch.embed([texts[line.chunk][line.start : line.end] for line in source.lines])
            response = sample.response or ""
            cosines = batch.embed([response[claim.start : claim.end] for claim in said]) @ lines.T
    except LookupError:
        near, cosines = {}, None
    return [
        read_claim(claim, source, asked, near, None if cosines is None else cosines[place]) for place, claim in enumerate(said)
    ]


def _nearest_phrases(batch: Batch, said: Sequence[Claim], source: Source) -> dict[str, float]:
    """Group → the cosine of the nearest of its names with one to three words of the source, where it has none."""
    known = lexicon()
    absent = {term.group for claim in said for term in claim.terms if term.group and term.kind in NAMES}
    absent = {group for group in absent if group not in source.postings}
    if not absent:
        return {}
    runs = [[word.low for word in line.words if word.key and word.key not in EMPTY_KEYS] for line in source.lines]
    single = np.concatenate([batch.embed(run) for run in runs if run] or [batch.embed([])])
    rows = [single]
    for length in range(2, PHRASE_WORDS + 1):
        ends = np.cumsum([len(run) for run in runs])
        starts = [at for run, end in zip(runs, ends, strict=True) for at in range(end - len(run), end - length + 1)]
        if starts:
            several = np.add.reduce([single[np.array(starts) + step] for step in range(length)])
            rows.append(several / np.maximum(np.linalg.norm(several, axis=1, keepdims=True), 1e-9))
    phrases = np.concatenate(rows)
    if not len(phrases):
        return {}
    return {group: float((batch.embed(known.names[group]) @ phrases.T).max()) for group in sorted(absent)}


def _asked(prompt: str) -> list[str]:
    read = words(prompt)
    return [word.key for word in read if word.key] + [group for _, _, group in lexicon().groups(read)]


def overall(supports: Sequence[float]) -> float:
    """The score of a response from those of its claims."""
    return WORST * min(supports) + (1 - WORST) * sum(supports) / len(supports)


def _evidence(reading: Reading, support: float, source: Source) -> Evidence:
    claim = reading.claim
    if not reading.lines:
        return Evidence(claim.start, claim.end, support, source.where, 0, 0)
    line = source.lines[reading.lines[0]]
    return Evidence(claim.start, claim.end, support, source.where, line.start, line.end, line.chunk)


def _premise(reading: Reading, source: Source, texts: Sequence[str]) -> str:
    """The best lines and what stands beside them: what a judge reads. Empty where nothing speaks of the claim."""
    chosen = sorted({line + step for line in reading.lines for step in (-1, 0, 1)} & set(range(len(source.lines))))
    return " ".join(texts[source.lines[line].chunk][source.lines[line].start : source.lines[line].end] for line in chosen)


def _findings(reading: Reading, support: float) -> list[Finding]:
    claim = reading.claim
    found: list[Finding] = []
    if reading.copied:
        return []
    found.extend(
        Finding("faithfulness", TYPES[doubt.type], "response", doubt.start, doubt.end, doubt.strength)
        for doubt in reading.doubts
        if contradicts(doubt) or (doubt.type.startswith("absent") and support < REPORTED)
    )
    if not found and support < REPORTED:
        found.append(Finding("faithfulness", "UNSUPPORTED_CLAIM", "response", claim.start, claim.end, 1 - support))
    return found
