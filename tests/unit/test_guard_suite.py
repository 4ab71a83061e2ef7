"""Detectors asked together: what one of them cannot say costs nobody else a word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from tidegate.processors.guardrails.ports import Batch, Evidence, Finding, Sample, Verdict
from tidegate.processors.guardrails.suite import Suite

NAN = float("nan")


class Says:
    """A detector that says one thing of every sample."""

    version = "1"

    def __init__(self, name: str, verdict: Verdict) -> None:
        self.name = name
        self._verdict = verdict

    def assess(self, batch: Batch) -> list[Verdict]:
        return [self._verdict for _ in batch.samples]

    def describe(self) -> Mapping[str, Any]:
        return {}


@pytest.mark.parametrize("score", [NAN, float("inf"), float("-inf")])
def test_a_score_that_is_no_number_is_left_out_and_its_detector_named(score: float) -> None:
    findings = [Finding("tone", "RUDE", "prompt", 0, 4, one) for one in (score, 0.5)]
    places = [Evidence(0, 4, one, "context", 0, 4) for one in (score, 0.5)]
    wrong = Says("tone", Verdict(findings, {("prompt", "tone"): score, ("response", "tone"): 0.5}, places))
    right = Says("length", Verdict(scores={("prompt", "length"): 0.25}))

    [found] = Suite([wrong, right]).assess([Sample("a", prompt="text")])

    assert found.failed == {"tone": "NotANumber"}
    assert found.scores == {("response", "tone"): 0.5, ("prompt", "length"): 0.25}
    assert (found.findings, found.evidence) == (findings[1:], places[1:])


def test_what_may_be_phi_is_phi_though_its_score_is_no_number() -> None:
    phi = Says("phi", Verdict([Finding("phi", "US_SSN", "prompt", 0, 11, NAN)]))

    [found] = Suite([phi]).assess([Sample("a", prompt="xxx-xx-xxxx")])

    assert found.findings == [Finding("phi", "US_SSN", "prompt", 0, 11, 1.0)]
    assert found.failed == {}
