"""The detectors of one process, asked together. One that fails takes nothing from the others, and is named."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from .ports import Batch, Detector, Encoder, Evidence, Finding, Sample, Scores, Verdict


@dataclass(slots=True)
class Assessment:
    """All that is known of one sample. `failed`: detector → the kind of error that kept it from judging."""

    findings: list[Finding] = field(default_factory=list)
    scores: Scores = field(default_factory=dict)
    evidence: list[Evidence] = field(default_factory=list)
    detectors: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


class Suite:
    """Detectors in the order they are asked; they share one embedding pass."""

    def __init__(self, detectors: Sequence[Detector], encoder: Encoder | None = None) -> None:
        self.detectors = tuple(detectors)
        self.encoder = encoder

    def assess(self, samples: Sequence[Sample]) -> list[Assessment]:
        """One assessment for each sample, in order. A detector that fails on a batch is asked again sample by sample, so
        that only the sample that breaks it goes without."""
        batch = Batch(samples, self.encoder)
        found = [Assessment() for _ in samples]
        for detector in self.detectors:
            try:
                verdicts = detector.assess(batch)
            except Exception:  # noqa: BLE001 — the per-record boundary: whatever breaks a detector is found by sample
                verdicts = None
            for place, sample in enumerate(samples):
                if verdicts is not None:
                    _add(found[place], detector, verdicts[place])
                    continue
                try:
                    _add(found[place], detector, detector.assess(Batch([sample], self.encoder))[0])
                except Exception as error:  # noqa: BLE001 — the same boundary; the error may quote the text, its kind does not
                    found[place].failed[detector.name] = type(error).__name__
        return found


def _add(assessment: Assessment, detector: Detector, verdict: Verdict) -> None:
    assessment.detectors[detector.name] = detector.version
    # A score that is no number says nothing, and no event takes it; but what may be PHI is PHI.
    findings = [
        one._replace(score=1.0) if one.detector == "phi" and not math.isfinite(one.score) else one for one in verdict.findings
    ]
    fine = [one for one in findings if math.isfinite(one.score)]
    scores = {place: score for place, score in verdict.scores.items() if math.isfinite(score)}
    evidence = [one for one in verdict.evidence if math.isfinite(one.score)]
    if (len(fine), len(scores), len(evidence)) != (len(findings), len(verdict.scores), len(verdict.evidence)):
        assessment.failed[detector.name] = "NotANumber"
    assessment.findings.extend(fine)
    assessment.scores.update(scores)
    assessment.evidence.extend(evidence)
