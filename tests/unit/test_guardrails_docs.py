"""docs/guardrails.md tells of every setting, detector and outcome there is, and its example is what the detectors say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest
from tidegate.schemas.finding import Outcome
from tidegate.schemas.settings import DETECTORS, Settings

PAGE = (Path(__file__).parents[2] / "docs" / "guardrails.md").read_text()


def test_every_setting_of_the_guardrails_is_told() -> None:
    table = PAGE.partition("## Settings")[2].partition("## Production")[0]
    told = set(re.findall(r"`([A-Z_]+)`", table))

    ours = ("guard", "quarantine", "redaction", "guideline")
    settings = {name.upper() for name in Settings.model_fields if name.startswith(ours)}

    assert told == settings


def test_every_detector_and_outcome_is_told() -> None:
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))

    assert set(DETECTORS) | set(get_args(Outcome)) <= rows


def test_the_example_is_what_the_detectors_say() -> None:
    pytest.importorskip("tokenizers", reason="the extra `guardrails` is not installed")
    from tidegate.processors.guardrails.scoring import Plan, Scorer

    line, told = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
    plan = Plan(Settings(), ("phi", "faithfulness", "guideline"), redaction_key=b"k" * 32)

    (scored,) = Scorer(plan).score([(1, json.dumps(line).encode())])

    said = json.loads(scored.output)
    assert [finding for finding in said["findings"] if finding in told["findings"]] == told["findings"]
    assert (said["id"], said["redacted"]) == (told["id"], told["redacted"])
