"""Relevance: does the answer speak to the question, and do the chunks?

Two scores. ("response", "relevance") is how near the answer is to what was asked; ("context", "relevance") how near the
best of the chunks is, for one good chunk is what retrieval is for. Each is the better of two readings: the cosine of question
and text, and the part of the question's words (rarer ones counting more) that the text takes up. An answer is read sentence by
sentence, too, so that a long one is not far from the question for being long.

Where neither reading finds much, that says something only of a question of some words, and of an answer of some. Not of a short
question ("Why?", "Go on."), which means what stood before it; nor of a task ("Write a limerick", "Summarize this note."), whose
answer need have no word of it; nor of "500 mg twice daily." These have no score, rather than a low one.

An answer may refuse, ask back, or say that it does not know: that is relevant, and scores at least `DECLINED`. OFF_TOPIC
is reported only where neither reading finds anything in common, with an encoder. An answer drawn from what was retrieved for
the question is as near to it as that is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from .grounding.lexicon import COMMON_FILE, EMPTY_KEYS, FILE, FRAME_KEYS, commonness, lexicon
from .grounding.reading import sentences, words
from .ports import Batch, Finding, Sample, Verdict

# Cosines of the offline encoder: unrelated pairs lie about 0.1, an answer and its question about 0.5 and above.
UNRELATED, RELATED = 0.1, 0.6
# Below this an answer has nothing to do with its question. In the development calls one answer in several hundred is.
OFF_TOPIC: Final = 0.12
# A question with fewer words that say something cannot be strayed from.
QUESTION_WORDS: Final = 3
# An answer of fewer words ("Yes.", "42") may well be to the point without a word in common.
ANSWER_WORDS: Final = 6
DECLINED: Final = 0.6
# From here on what is shared speaks for an answer, whatever was asked.
SPOKEN_FOR: Final = 0.3
# The question of a long prompt stands at its start or its end; the middle is material.
QUESTION_CHARS: Final = 600
# A longer prompt holds its material, and an answer drawn from that is an answer.
MATERIAL_WORDS: Final = 80
# Sentences of an answer that are looked at one by one.
MOST_SENTENCES: Final = 40

# What asks for something to be told, rather than made.
_ASKS: Final = re.compile(
    r"\?|(?:^|[.!\n]\s*)(?:please )?(?:who|what|when|where|why|how|which|is|are|does|do|did|can|should|explain|define|tell me"
    r"|describe (?:the|how|why|what))\b",
    re.IGNORECASE,
)
_DECLINES: Final = re.compile(
    r"\b(?:I(?:'|’)?m sorry|I am sorry|I apologi[sz]e|I can(?:'|’)?t|I cannot|I(?:(?:'|’)m| am) (?:not able|unable)"
    r"|I (?:do not|don(?:'|’)t) (?:know|have (?:access|enough|any|the|information|that))|as an AI|unfortunately, I"
    r"|(?:could|can) you (?:please )?(?:clarify|provide|specify|tell)|please (?:provide|clarify|specify|share|consult)"
    r"|not (?:mentioned|stated|provided) in|no information (?:about|on|regarding)|seek (?:medical|emergency|professional))\b",
    re.IGNORECASE,
)


class RelevanceDetector:
    """Implements `Detector`."""

    name = "relevance"

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256(b"".join(path.read_bytes() for path in (Path(__file__), FILE, COMMON_FILE))).hexdigest()
        self.version = f"1.{self._sha256[:8]}"

    @classmethod
    def load(cls) -> RelevanceDetector:
        lexicon()
        return cls()

    def describe(self) -> Mapping[str, Any]:
        """For `tidegate models`."""
        return {
            "backend": "offline",
            "source": "the shared embedding and shared words",
            "sha256": self._sha256,
            "licence": "as Tidegate",
        }

    def assess(self, batch: Batch) -> list[Verdict]:
        """One verdict for each sample, in order. Without a prompt nothing was asked, and nothing is scored."""
        return [self._assess(batch, sample) for sample in batch.samples]

    def _assess(self, batch: Batch, sample: Sample) -> Verdict:
        verdict = Verdict()
        if not sample.prompt or not sample.prompt.strip():
            return verdict
        asked = question(sample.prompt)
        chunks = [chunk for chunk in sample.context if chunk.strip()]
        if chunks:
            verdict.scores[("context", "relevance")] = max(near(batch, asked, chunks))
        response = (sample.response or "").strip()
        if not response:
            return verdict
        parts = [response] + [response[span.start : span.end] for span in sentences(response)[:MOST_SENTENCES]]
        score = max(near(batch, asked, parts))
        long = len(sample.prompt.split()) > MATERIAL_WORDS
        if long:
            score = max(score, *near(batch, response[:QUESTION_CHARS], [sample.prompt]))
        if chunks:
            # An answer drawn from what was retrieved for the question is an answer to it, as far as that is.
            drawn = max(near(batch, response[:QUESTION_CHARS], chunks))
            score = max(score, min(drawn, verdict.scores[("context", "relevance")]))
        if _DECLINES.search(response[:QUESTION_CHARS]):
            score = max(score, DECLINED)
        plain = _is_plain(sample.prompt, response)
        if score >= SPOKEN_FOR or long or plain:
            verdict.scores[("response", "relevance")] = score
        if score < OFF_TOPIC and plain and not long and _has_vectors(batch):
            verdict.findings.append(Finding(self.name, "OFF_TOPIC", "response", 0, len(sample.response or ""), 1 - score))
        return verdict


def question(prompt: str) -> str:
    """What of a prompt asks: all of a short one; of a long one its questions, or else how it begins and ends."""
    if len(prompt) <= 2 * QUESTION_CHARS:
        return prompt
    ends = prompt[:QUESTION_CHARS] + "\n" + prompt[-QUESTION_CHARS:]
    asking = [ends[span.start : span.end] for span in sentences(ends) if ends[span.start : span.end].endswith("?")]
    return " ".join(asking) if asking else ends


def near(batch: Batch, asked: str, texts: Sequence[str]) -> list[float]:
    """How near each text is to what was asked, 0..1: by vector if there is an encoder, by shared words in any case."""
    wanted = _telling(asked)
    total = sum(wanted.values())
    held = [wanted.keys() & _keys(text) for text in texts] if wanted else [set[str]() for _ in texts]
    shared = [sum(wanted[key] for key in sorted(keys)) / total if total else 0.0 for keys in held]
    try:
        cosines = batch.embed([asked, *texts])
    except LookupError:
        return [min(1.0, each) for each in shared]
    scaled = np.clip((cosines[1:] @ cosines[0] - UNRELATED) / (RELATED - UNRELATED), 0.0, 1.0)
    return [float(max(vector, min(1.0, each))) for vector, each in zip(scaled, shared, strict=True)]


def _telling(text: str) -> dict[str, float]:
    """Key → weight of the words of a question that say what it is about."""
    keys = (word.key for word in words(text) if word.key and word.key not in EMPTY_KEYS and word.key not in FRAME_KEYS)
    return {key: 1.0 - 0.7 * commonness().get(key, 0.0) for key in keys}


def _keys(text: str) -> set[str]:
    return {word.key for word in words(text)}


def _is_plain(prompt: str, response: str) -> bool:
    """Whether a prompt is a question, and it and the answer say enough to be compared, in a script the encoder knows."""
    enough = len(_telling(question(prompt))) >= QUESTION_WORDS and len(_keys(response)) >= ANSWER_WORDS
    return enough and _ASKS.search(question(prompt)) is not None and _latin(prompt) and _latin(response)


def _has_vectors(batch: Batch) -> bool:
    try:
        batch.embed([])
    except LookupError:
        return False
    return True


def _latin(text: str) -> bool:
    return sum(each < "\u0250" for each in text) >= 0.9 * len(text)
