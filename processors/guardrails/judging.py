"""From sealed jobs to judgements, in one scoring process: open, ask the suite, name what was found, redact.

    job ─ open ─ judged before? ─ Suite.assess ─ fingerprints ─ redact ─► Judged
             └ unreadable                                          └ only where PHI was judged

No text leaves in anything but `Judged.redacted`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from ...producers.keyring import Key
from ...producers.sealing import fingerprint, opened
from ...schemas.errors import Unreadable
from ...schemas.finding import MAX_EVIDENCE, MAX_FINDINGS
from .cache import Cache, Fingerprints
from .jobs import Entry, Job, Judged, Redacted
from .ports import Batch, Detector, Encoder, Evidence, Finding, Sample, Vectors, Verdict
from .suite import Assessment, Suite

# What may stand in a scored event where a word is asked for.
_NO_SLUG: Final = re.compile(r"[^A-Za-z0-9_.:/-]+")
_SLUG_CHARS: Final = 64
_MAX_SCORES: Final = 32
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


class RedactedTexts(Protocol):
    """A call's texts with all PHI replaced."""

    @property
    def prompt(self) -> str | None: ...
    @property
    def response(self) -> str | None: ...
    @property
    def context(self) -> Sequence[str]: ...


# What takes PHI out of a sample, given all findings and the key for whatever stands in its place.
Redact = Callable[[Sample, Sequence[Finding], bytes], RedactedTexts]


class Judge:
    """Judges batches with one suite. Used from one thread. `seconds`: detector → processor time it has taken: on a busy machine
    the wall clock would count others' work, too."""

    def __init__(self, suite: Suite, redact: Redact, *, cache: Cache | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self._encoder = _TimedEncoder(suite.encoder, self.seconds) if suite.encoder is not None else None
        self._suite = Suite([_TimedDetector(one, self.seconds) for one in suite.detectors], self._encoder)
        self._redact = redact
        self._cache = cache if cache is not None else Cache()
        self.versions = {slug(one.name): slug(one.version) for one in suite.detectors}
        self._names: tuple[bytes, Fingerprints] | None = None

    def judge(self, jobs: Sequence[Job], fingerprint_key: bytes) -> list[Judged]:
        """One judgement for each job, in order. Raises nothing that a text can bring about but `MemoryError`."""
        names = self._fingerprints(fingerprint_key)
        judged: dict[int, Judged] = {}
        samples: list[tuple[Job, Sample, bytes]] = []
        for job in jobs:
            try:
                texts = opened(job.sealed, job.call_id, Key(job.key_id, None, job.key, _EPOCH))
            except Unreadable as error:
                judged[job.number] = Judged(number=job.number, outcome="unreadable", failed={"content": slug(error.reason)})
                continue
            sample = Sample(job.call_id, texts.prompt, texts.response, tuple(texts.context), job.known)
            samples.append((job, sample, names.of(sample)))
        before = {name: found for _, _, name in samples if (found := self._cache.get(name)) is not None}
        fresh = {name: sample for _, sample, name in samples if name not in before}
        begun = time.thread_time()
        assessed = dict(zip(fresh, self._suite.assess(list(fresh.values())), strict=True)) if fresh else {}
        each_s = (time.thread_time() - begun) / max(len(fresh), 1)
        for job, sample, name in samples:
            cached = name in before
            assessment = before[name] if cached else assessed[name]
            judged[job.number] = self._judged(job, sample, assessment, fingerprint_key, cached, 0.0 if cached else each_s)
        for name, assessment in assessed.items():
            self._cache.put(name, assessment)
        return [judged[job.number] for job in jobs]

    def _fingerprints(self, key: bytes) -> Fingerprints:
        if self._names is None or self._names[0] != key:
            self._names = key, Fingerprints(key, [f"{name}={version}" for name, version in self.versions.items()])
        return self._names[1]

    def _judged(self, job: Job, sample: Sample, assessment: Assessment, key: bytes, cached: bool, scoring_s: float) -> Judged:
        failed = {slug(name): slug(why) for name, why in assessment.failed.items()}
        redacted = None
        if "phi" in assessment.detectors:
            try:
                found = self._redact(sample, assessment.findings, key)
                redacted = Redacted(prompt=found.prompt, response=found.response, context=list(found.context))
            except Exception as error:  # noqa: BLE001 — without a redacted text there is none; the error may quote it
                failed["redaction"] = slug(type(error).__name__)
        texts = {(where, chunk): text for where, chunk, text in sample.texts()}
        # What matters most stays, should there be more than an event takes.
        ranked = sorted(assessment.findings, key=lambda one: (not one.leak, -one.score))[:MAX_FINDINGS]
        return Judged(
            number=job.number,
            outcome="partial" if failed else "scored",
            findings=[_entry(one, texts.get((one.where, one.chunk), ""), key) for one in ranked],
            more_findings=len(assessment.findings) - len(ranked),
            evidence=[_evidence(one) for one in assessment.evidence[:MAX_EVIDENCE]],
            scores={
                f"{where}.{slug(name)}": unit(score) for (where, name), score in list(assessment.scores.items())[:_MAX_SCORES]
            },
            detectors={slug(name): slug(version) for name, version in assessment.detectors.items()},
            failed=failed,
            redacted=redacted,
            cached=cached,
            texts=len(texts),
            scoring_s=round(scoring_s, 6),
        )


def slug(text: str) -> str:
    """A word that an event takes."""
    return _NO_SLUG.sub("_", text)[:_SLUG_CHARS] or "unknown"


def unit(score: float) -> float:
    """A score as an event takes it: within 0..1, four digits."""
    return round(min(max(float(score), 0.0), 1.0), 4)


def _entry(found: Finding, text: str, key: bytes) -> Entry:
    matched = " ".join(text[found.start : found.end].casefold().split())
    return Entry(
        detector=slug(found.detector),
        type=slug(found.type),
        where=found.where,
        chunk=found.chunk,
        start=found.start,
        end=found.end,
        score=unit(found.score),
        leak=found.leak,
        rule=slug(found.rule) if found.rule else None,
        fingerprint=fingerprint(key, f"{found.type}\n{matched}"),
    )


def _evidence(found: Evidence) -> dict[str, Any]:
    return {**found._asdict(), "score": unit(found.score)}


class _TimedEncoder:
    """Notes how long embedding takes."""

    def __init__(self, encoder: Encoder, seconds: dict[str, float]) -> None:
        self._encoder, self._seconds = encoder, seconds
        self.name, self.dimensions = encoder.name, encoder.dimensions

    def encode(self, texts: Sequence[str]) -> Vectors:
        begun = time.thread_time()
        try:
            return self._encoder.encode(texts)
        finally:
            self._seconds["encoder"] = self._seconds.get("encoder", 0.0) + time.thread_time() - begun


class _TimedDetector:
    """Notes how long a detector takes, embedding left out."""

    def __init__(self, detector: Detector, seconds: dict[str, float]) -> None:
        self._detector, self._seconds = detector, seconds
        self.name, self.version = detector.name, detector.version

    def assess(self, batch: Batch) -> list[Verdict]:
        begun, embedding = time.thread_time(), self._seconds.get("encoder", 0.0)
        try:
            return self._detector.assess(batch)
        finally:
            took_s = time.thread_time() - begun - (self._seconds.get("encoder", 0.0) - embedding)
            self._seconds[self.name] = self._seconds.get(self.name, 0.0) + took_s

    def describe(self) -> Mapping[str, Any]:
        return self._detector.describe()
