"""Injections in prompts and in retrieved context, and canaries in responses.

    text ─► views ─► families of patterns ───────────────┐
       └──► windows and decoded views ─► linear head ────┴─► the higher of both; above the threshold: where it stands

A pattern alone is enough to alarm. The head sees which families spoke, and finds what they have no words for.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np

from ..encoder import OfflineEncoder, embedded
from ..folding import fold, unmask
from ..heads.features import Indices, hashed
from ..heads.linear import LinearHead, probabilities
from ..ports import Batch, Encoder, Finding, Vectors, Verdict
from ..windows import WINDOW_CHARS, Span, sentences, windows
from .canaries import MIN_CHARS, NONE, Canaries
from .canary_search import spans_of
from .normalise import View, views
from .patterns import EXAMPLE, FILE, Hit, Patterns, patterns

WEIGHTS: Final = Path(__file__).with_name("injection.npz")
# Up to here a text is judged whole and nothing else; beyond it, its windows are judged beside the whole.
WHOLE_CHARS: Final = 600
# A window sees less than the text around it tells, so it has to be surer; a sentence is more of a piece.
WINDOW_MARGIN: Final = 1.5
SENTENCE_MARGIN: Final = 0.5
# More sentences of a text than this are not judged by themselves: its windows are.
MAX_SENTENCES: Final = 200
# What is said to a model names it, its answer, its reader or its orders, or somewhere to send things.
_CUE: Final = re.compile(
    r"\b(?:you|your|users?|readers?|assistants?|ai|models?|llms?|chatbots?|bots?|answer\w*|respon[ds]\w*|repl(?:y|ies)|output"
    r"|summar\w+|instruct\w*|prompts?|ignore|disregard|forget|override|append|instead|pretend|https?)\b",
    re.IGNORECASE,
)
# Families below this are hints, and an alarm only with the head's word.
HINT: Final = 0.5
MAX_FINDINGS: Final = 8


class Piece(NamedTuple):
    """Something the head judges: a window, or a decoded view, and where it stands."""

    text: str
    span: Span
    marks: list[float]
    margin: float  # 0 for a whole text or a decoded view


class Read(NamedTuple):
    """One text with all that patterns say of it."""

    hits: list[Hit]
    pieces: list[Piece]


class InjectionDetector:
    """Implements `Detector`. Scores `prompt.injection` and `context.injection`, the worst of its chunks.

    A canary is a string that the prompt holds and no answer may: `known["canary"]` of a sample, several on lines of their own,
    or one of `canaries` for such a call."""

    name = "injection"

    def __init__(
        self,
        head: LinearHead,
        encoder: Encoder,
        families: Patterns,
        canaries: Canaries = NONE,
        threshold: float | None = None,
    ) -> None:
        self._head = head
        self._encoder = encoder
        self._patterns = families
        self._canaries = canaries
        self.threshold = float(head.card["threshold"]) if threshold is None else threshold
        self.version = f"{head.version}-{families.digest[:8]}"

    @classmethod
    def load(
        cls,
        encoder: Encoder | None = None,
        canaries: Canaries = NONE,
        threshold: float | None = None,
        weights: Path = WEIGHTS,
    ) -> Self:
        """With the weights and patterns that ship. An encoder they were not trained on is put aside for the one they were."""
        if encoder is None or encoder.name != OfflineEncoder.name:
            encoder = OfflineEncoder.load()
        families = patterns()
        return cls(LinearHead.load(weights, names(families), encoder.name), encoder, families, canaries, threshold)

    def describe(self) -> Mapping[str, Any]:
        """For `tidegate models`."""
        return {
            "backend": "offline",
            "source": f"{WEIGHTS.name} and {FILE.name}, over {self._encoder.name}",
            "sha256": self._head.card["sha256"],
            "patterns_sha256": self._patterns.digest,
            "licence": self._head.card["licence"],
            "size_bytes": WEIGHTS.stat().st_size,
            "threshold": self.threshold,
        }

    def assess(self, batch: Batch) -> list[Verdict]:
        """One verdict a sample. A text of white space scores 0."""
        asked = {(text, place) for sample in batch.samples for place, _, text in sample.texts() if place != "response"}
        judged = self._judge(batch, sorted(asked))
        found = []
        for sample in batch.samples:
            verdict = Verdict()
            for place, chunk, text in sample.texts():
                if place == "response":
                    verdict.findings.extend(self._leaks(text, sample.known))
                    continue
                score, spans = judged[text, place]
                verdict.scores[place, "injection"] = max(score, verdict.scores.get((place, "injection"), 0.0))
                verdict.findings.extend(
                    Finding(self.name, kind, place, start, end, sure, chunk) for kind, (start, end), sure in spans
                )
            found.append(verdict)
        return found

    def _judge(
        self, batch: Batch, asked: Sequence[tuple[str, str]]
    ) -> dict[tuple[str, str], tuple[float, list[tuple[str, Span, float]]]]:
        texts = [read(text, where, self._patterns) for text, where in asked]
        pieces = [piece for each in texts for piece in each.pieces]
        logits = self._head.logits(*features(batch, self._encoder, pieces)).tolist() if pieces else []
        found = {}
        for (text, where), each in zip(asked, texts, strict=True):
            ours, logits = logits[: len(each.pieces)], logits[len(each.pieces) :]
            found[text, where] = self._verdict(each, ours, where)
        return found

    def _verdict(self, read: Read, logits: Sequence[float], where: str) -> tuple[float, list[tuple[str, Span, float]]]:
        sure = [float(probabilities(np.array(logit - piece.margin))) for piece, logit in zip(read.pieces, logits, strict=True)]
        strong = [hit.score for hit in read.hits if hit.score >= HINT]
        score = max([*sure, *strong], default=0.0)
        if not strong and any(hit.example for hit in read.hits):
            score = min(score, EXAMPLE)
        if score < self.threshold:
            return score, []
        spans: dict[Span, tuple[str, float]] = {}
        for hit in sorted(read.hits, key=lambda hit: -hit.score):
            if hit.score >= self.threshold and hit.span not in spans:
                spans[hit.span] = (hit.type, hit.score)
        if not spans:  # only the head has seen it: the surest piece, the smaller one where two are as sure
            best = min(range(len(sure)), key=lambda place: (-sure[place] + 0.05 * (not read.pieces[place].margin), place))
            spans[read.pieces[best].span] = (_likely(read.pieces[best]), score)
        kinds = [("INDIRECT_INJECTION" if where == "context" else kind, span, value) for span, (kind, value) in spans.items()]
        return score, sorted(kinds, key=lambda found: -found[2])[:MAX_FINDINGS]

    def _leaks(self, text: str, known: Mapping[str, str]) -> list[Finding]:
        named = [each.strip() for each in known.get("canary", "").splitlines()]
        canaries = [*(each for each in named if len(each) >= MIN_CHARS), *self._canaries.of_call(known)]
        leaked = spans_of(text, canaries)[:MAX_FINDINGS]
        return [Finding(self.name, "CANARY_LEAK", "response", *span, 1.0) for span in leaked]


def names(families: Patterns) -> list[str]:
    """The marks of a piece, in order: which families spoke in it, and whether it was hidden."""
    return [*(family.name for family in families.families), "hints", "masked", "decoded"]


def read(text: str, where: str, families: Patterns) -> Read:
    """All hits in all views of `text`, and the pieces that the head is to judge."""
    if not text.strip():
        return Read([], [])
    seen = views(text)
    hits = [hit for view in seen for hit in families.hits(view, where)]
    whole = (len(text) - len(text.lstrip()), len(text.rstrip()))
    cut = windows(text, WINDOW_CHARS) if len(text) > WHOLE_CHARS else ()
    margins = dict.fromkeys(cut, WINDOW_MARGIN) | dict.fromkeys(_cued(text), SENTENCE_MARGIN) | {whole: 0.0}
    pieces = [
        Piece(text[start:end], (start, end), _marks(hits, (start, end), families), margins[start, end])
        for start, end in dict.fromkeys([whole, *margins])
    ]
    pieces.extend(_decoded(view, hits, families) for view in seen if view.how not in ("seen", "unmasked"))
    return Read(hits, pieces)


def _cued(text: str) -> list[Span]:
    """The sentences that may speak to a model: one order does not drown in the document that it stands in. Of a long text,
    a dialogue as a rule, its questions are left to its windows: they order nothing."""
    spans, long = sentences(text), len(text) > WHOLE_CHARS
    found = (span for span in spans if not (long and text[span[1] - 1] == "?") and _CUE.search(text, *span))
    return list(itertools.islice(found, MAX_SENTENCES)) if len(spans) > 1 else []


def features(batch: Batch, encoder: Encoder, pieces: Sequence[Piece]) -> tuple[Vectors, list[list[float]], list[Indices]]:
    """What the head looks at."""
    buckets = [hashed(unmask(fold(piece.text)).text) for piece in pieces]
    return embedded(batch, encoder, [piece.text for piece in pieces]), [piece.marks for piece in pieces], buckets


def _decoded(view: View, hits: Sequence[Hit], families: Patterns) -> Piece:
    span = view.within or view.span(0, len(view.folded.text))
    return Piece(view.folded.text, span, _marks([hit for hit in hits if hit.how == view.how], span, families), 0.0)


def _marks(hits: Sequence[Hit], span: Span, families: Patterns) -> list[float]:
    inside = [hit for hit in hits if hit.span[0] < span[1] and hit.span[1] > span[0]]
    said = {hit.family: hit.score for hit in inside}
    marks = [said.get(family.name, 0.0) / family.score for family in families.families]
    hints = sum(1 for hit in said.values() if hit < HINT)
    return [
        *marks,
        min(hints, 3) / 3,
        float(any(hit.how == "unmasked" for hit in inside)),
        float(any(hit.how not in ("seen", "unmasked") for hit in inside)),
    ]


def _likely(piece: Piece) -> str:
    """What the head has found is a jailbreak if it is long enough to paint a character, and else an injection."""
    return "JAILBREAK" if len(piece.text) > WINDOW_CHARS // 2 else "PROMPT_INJECTION"
