"""What simulated clinics say is judged as it was meant: ordinary calls are let alone, and what was put in is found."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from functools import cache

import pytest

pytest.importorskip("tokenizers", reason="the extra `guardrails` is not installed")

from tidegate.processors.guardrails.loading import load_suite
from tidegate.processors.guardrails.ports import Sample
from tidegate.processors.guardrails.suite import Assessment, Suite
from tidegate.producers import simulate_texts
from tidegate.producers.simulate import NEW_VERSION_AFTER_CALLS, generate
from tidegate.schemas.settings import Settings

NOW = datetime(2026, 11, 2, 8, tzinfo=UTC)
SHARES = ("_PHI_SHARE", "_WRONG_SHARE", "_INJECTION_SHARE", "_RUDE_SHARE", "_LEAK_SHARE")
MOST = 150


@cache
def suite() -> Suite:
    return load_suite(Settings())


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """All of them at nothing."""
    for name in SHARES:
        monkeypatch.setattr(simulate_texts, name, 0.0)
    return monkeypatch


def assessed(of: tuple[str, ...] = ()) -> list[Assessment]:
    """Of calls that differ in what is said, up to `MOST`; of one prompt and version, where that is asked."""
    events = itertools.islice(generate(3, NOW, diurnal=False), 2 * NEW_VERSION_AFTER_CALLS)
    wanted = (event for event in events if not of or (event["prompt_name"], event.get("prompt_version")) == of)
    said = [texts for event in wanted if (texts := simulate_texts.texts_of(event)) is not None]
    differing = {(texts["prompt"], texts["response"], *texts["context"]): texts for texts in said if texts["response"]}
    some = itertools.islice(differing.values(), MOST)
    return suite().assess([Sample("a", texts["prompt"], texts["response"], tuple(texts["context"])) for texts in some])


def test_nothing_is_said_against_an_ordinary_call(shares: pytest.MonkeyPatch) -> None:
    shares.setattr(simulate_texts, "_PHI_SHARE", 0.5)

    found = [finding for one in assessed() for finding in one.findings]

    assert {(finding.detector, finding.type) for finding in found if finding.detector != "phi"} == set()
    assert {finding.type for finding in found if finding.leak} == set()
    assert {"PERSON", "MEDICAL_RECORD_NUMBER", "PHONE_NUMBER", "EMAIL_ADDRESS"} <= {finding.type for finding in found}


@pytest.mark.parametrize(
    ("share", "detector", "of"),
    [("_INJECTION_SHARE", "injection", ()), ("_RUDE_SHARE", "toxicity", ()), ("_LEAK_SHARE", "phi", simulate_texts.LEAKING)],
)
def test_what_was_put_in_is_found(shares: pytest.MonkeyPatch, share: str, detector: str, of: tuple[str, ...]) -> None:
    shares.setattr(simulate_texts, share, 1.0)

    found = [any(finding.detector == detector for finding in one.findings) for one in assessed(of)]

    assert len(found) >= 50
    assert sum(found) >= 0.9 * len(found)
