"""Toxicity of prompts and responses: a calibrated probability, and where the worst of it stands.

    text ─► windows, sentences with marks ─► linear head ─► the most toxic speaks for the text ─► above the threshold: its
                                                                                              window's worst sentence

The head only knows toxic from not. The type of a finding is told by rule, from the words of its sentence: THREAT,
IDENTITY_ATTACK, INSULT, OBSCENE, or TOXICITY where no rule speaks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np

from ..encoder import OfflineEncoder, embedded
from ..folding import fold, unmask
from ..ports import Batch, Encoder, Finding, Vectors, Verdict
from ..windows import WINDOW_CHARS, Span, sentences, windows
from .features import Indices, hashed
from .linear import LinearHead, Logits, probabilities
from .marks import MARKS, Marks, digest, marks

WEIGHTS: Final = Path(__file__).with_name("toxicity.npz")
# A window sees less than the text around it tells, so it has to be surer.
WINDOW_MARGIN: Final = 2.0
# And so has a sentence: one insult among polite sentences is an insult, but a line of a list is cut off from what it lists.
SENTENCE_MARGIN: Final = 0.75
# A comment is judged whole, as the comments were that the head has learnt from; only longer texts are cut.
WHOLE_CHARS: Final = 1_200
# A page of abuse is one finding a window; more than this says nothing new.
MAX_FINDINGS: Final = 8
# Names and addresses are not words: nobody is toxic for what somebody is called. And a Dutch question begins with "hoe".
_SPARE: Final = re.compile(
    r"https?://\S+|www\.\S+|(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,64}\.\w+|(?<!\w)@\w+"
    r"|\b[Hh]oe(?= (?:laat|gaat|kan|kun|veel|lang|vaak|moet|ik|werkt|maak|heet|oud|groot|ver|doe|zijn|wordt|het|een|je|we)\b)"
)


# Marks of contempt for somebody, with or without a word of abuse.
_INSULTING: Final = frozenset({"you_are", "they_are", "you_slight", "scornful", "to_you", "shut_up", "contempt"})
# Vectors, marks and buckets, a row a text.
Features = tuple[Vectors, list[list[float]], list[Indices]]


class Judged(NamedTuple):
    """One text: its probability, and the sentences that are above the threshold."""

    score: float
    findings: list[tuple[str, Span, float]]


class ToxicityDetector:
    """Implements `Detector`. Scores `prompt.toxicity` and `response.toxicity`."""

    name = "toxicity"

    def __init__(self, head: LinearHead, encoder: Encoder, threshold: float | None = None) -> None:
        self._head = head
        self._encoder = encoder
        self.threshold = float(head.card["threshold"]) if threshold is None else threshold
        self.version = f"{head.version}-{digest()[:8]}"

    @classmethod
    def load(cls, encoder: Encoder | None = None, threshold: float | None = None, weights: Path = WEIGHTS) -> Self:
        """With the weights that ship. An encoder they were not trained on is put aside for the one they were."""
        if encoder is None or encoder.name != OfflineEncoder.name:
            encoder = OfflineEncoder.load()
        return cls(LinearHead.load(weights, MARKS, encoder.name), encoder, threshold)

    def describe(self) -> Mapping[str, Any]:
        """For `tidegate models`."""
        return {
            "backend": "offline",
            "source": f"{WEIGHTS.name}, over {self._encoder.name}",
            "sha256": self._head.card["sha256"],
            "licence": self._head.card["licence"],
            "size_bytes": WEIGHTS.stat().st_size,
            "threshold": self.threshold,
        }

    def assess(self, batch: Batch) -> list[Verdict]:
        """One verdict a sample. A text of white space scores 0: there is nothing in it."""
        asked = [(place, text) for sample in batch.samples for place, _, text in sample.texts() if place != "context"]
        judged = self._judge(batch, list(dict.fromkeys(text for _, text in asked)))
        found = []
        for sample in batch.samples:
            verdict = Verdict()
            for where, _, text in sample.texts():
                if where == "context":
                    continue
                verdict.scores[where, "toxicity"] = judged[text].score
                verdict.findings.extend(
                    Finding(self.name, kind, where, start, end, score) for kind, (start, end), score in judged[text].findings
                )
            found.append(verdict)
        return found

    def _judge(self, batch: Batch, texts: Sequence[str]) -> dict[str, Judged]:
        cut = [windows(text, WINDOW_CHARS if len(text) > WHOLE_CHARS else WHOLE_CHARS) for text in texts]
        owners = [place for place, spans in enumerate(cut) for _ in spans]
        parts = [text[start:end] for text, spans in zip(texts, cut, strict=True) for start, end in spans]
        margins = [WINDOW_MARGIN if len(spans) > 1 else 0.0 for spans in cut for _ in spans]
        seen = [_marks(part) for part in parts]
        logits = np.maximum(self._logits(batch, parts, seen) - margins, self._worst_spoken(batch, parts, seen))
        whole = self.logits(batch, [text for text, spans in zip(texts, cut, strict=True) if len(spans) > 1])
        of_windows: list[list[float]] = [[] for _ in texts]
        for owner, logit in zip(owners, logits, strict=True):
            of_windows[owner].append(float(logit))
        of_whole = iter(whole)
        return {
            text: self._verdict(batch, text, spans, ours, float(next(of_whole)) if len(spans) > 1 else None)
            for text, spans, ours in zip(texts, cut, of_windows, strict=True)
        }

    def _worst_spoken(self, batch: Batch, parts: Sequence[str], seen: Sequence[Marks]) -> Logits:
        """Of each part the logit of its worst sentence that bears a mark, where there are more sentences than one."""
        found = np.full(len(parts), -np.inf)
        spoken: list[tuple[int, str, Marks]] = []
        for place, (part, marked) in enumerate(zip(parts, seen, strict=True)):
            spans = sentences(part) if marked.offends else []
            if len(spans) > 1:
                spoken.extend((place, part[start:end], _marks(part[start:end])) for start, end in spans)
        spoken = [one for one in spoken if one[2].offends]
        logits = self._logits(batch, [text for _, text, _ in spoken], [marked for _, _, marked in spoken])
        np.maximum.at(found, [place for place, _, _ in spoken], logits - SENTENCE_MARGIN)
        # It is heard where it alarms by itself. Short of that it says less than all of its text.
        found[probabilities(found) < self.threshold] = -np.inf
        return found

    def _verdict(self, batch: Batch, text: str, spans: list[Span], logits: list[float], whole: float | None) -> Judged:
        if not spans:
            return Judged(0.0, [])
        score = _probability(max(logits if whole is None else [*logits, whole]))
        if score < self.threshold:
            return Judged(score, [])
        worst = sorted(range(len(spans)), key=lambda place: -logits[place])
        above = [place for place in worst if _probability(logits[place]) >= self.threshold][:MAX_FINDINGS] or worst[:1]
        return Judged(
            score,
            [self._finding(batch, text, spans[place], max(_probability(logits[place]), self.threshold)) for place in above],
        )

    def _finding(self, batch: Batch, text: str, window: Span, score: float) -> tuple[str, Span, float]:
        begin, end = window
        inside = [(begin + start, begin + stop) for start, stop in sentences(text[begin:end])]
        if len(inside) > 1:
            logits = self.logits(batch, [text[start:stop] for start, stop in inside])
            inside = [inside[int(logits.argmax())]]
        span = inside[0] if inside else window
        return kind_of_sentence(_marks(text[span[0] : span[1]])), span, score

    def logits(self, batch: Batch, parts: Sequence[str]) -> Logits:
        """The head's calibrated logit of each text as one piece."""
        return self._logits(batch, parts, [_marks(part) for part in parts])

    def _logits(self, batch: Batch, parts: Sequence[str], seen: Sequence[Marks]) -> Logits:
        vectors, found, buckets = _features(batch, self._encoder, parts, seen)
        return self._head.logits(vectors, found, buckets)


def features(batch: Batch, encoder: Encoder, texts: Sequence[str]) -> Features:
    """What the head looks at: vectors, marks, buckets."""
    return _features(batch, encoder, texts, [_marks(text) for text in texts])


def _features(batch: Batch, encoder: Encoder, texts: Sequence[str], seen: Sequence[Marks]) -> Features:
    return embedded(batch, encoder, texts), [mark.values for mark in seen], [hashed(mark.neutral) for mark in seen]


def _marks(text: str) -> Marks:
    spare = _SPARE.sub(" ", text)
    return marks(unmask(fold(spare)).text, spare)


def kind_of_sentence(mark: Marks) -> str:
    """The type of a finding, by what its words are and whom they are aimed at."""
    counts, aimed = mark.counts, mark.aimed
    of_group = counts["slur"] or aimed & {"vile_group", "supremacy", "slander"}
    of_group = of_group or (counts["identity"] and aimed & {"hate_group", "all_group"})
    if aimed & {"threat", "menace"} or ("die" in aimed and not of_group):
        return "THREAT"
    if of_group:
        return "IDENTITY_ATTACK"
    if counts["insult"] or aimed & _INSULTING:
        return "INSULT"
    return "OBSCENE" if counts["obscene"] or counts["sexual"] else "TOXICITY"


def _probability(logit: float) -> float:
    return float(probabilities(np.array(logit)))
