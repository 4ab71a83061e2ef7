"""What a policy's `finding_type` means: which findings count, and which verdicts can tell that there are none."""

from __future__ import annotations

from typing import Any

import pytest
from support import finding, line, scored
from tidegate.processors.findings import Wanted
from tidegate.schemas.hot import decode_event

FOUND = [
    finding(type="US_SSN", leak=True),
    finding(type="PERSON"),
    finding(type="PERSON", leak=True),
    finding(detector="toxicity", type="insult"),
    finding(detector="injection", type="phi"),
]


def verdict(**fields: Any) -> Any:
    return decode_event(line(scored(**fields)))


@pytest.mark.parametrize(
    ("finding_type", "count"),
    [
        (None, 9),
        ("PERSON", 2),
        ("person", 2),
        ("phi", 4),  # of the detector, and of another one's type of that name
        ("Toxicity", 1),
        ("insult", 1),
        ("phi_leak", 2),
        ("PHI_LEAK", 2),
        ("US", 0),
    ],
)
def test_findings_go_by_type_detector_or_leak_without_case(finding_type: str | None, count: int) -> None:
    found = verdict(findings=FOUND, more_findings=4)

    assert Wanted.of(finding_type).count(found) == count


@pytest.mark.parametrize(
    ("finding_type", "fields", "tells"),
    [
        *((None, {"outcome": outcome}, True) for outcome in ("scored", "partial")),
        *((None, {"outcome": outcome}, False) for outcome in ("sampled_out", "hashed", "unreadable", "quarantined")),
        ("phi", {}, True),
        ("phi", {"outcome": "sampled_out"}, False),
        ("phi", {"outcome": "partial", "detectors": {"toxicity": "1"}, "failed": {"phi": "timeout"}}, False),
        ("PHI", {"outcome": "partial", "failed": {"phi": "timeout"}}, False),
        ("phi_leak", {"outcome": "partial", "failed": {"phi": "timeout"}}, False),
        ("toxicity", {"outcome": "partial", "failed": {"phi": "timeout"}}, True),
        ("faithfulness", {}, False),  # nobody had asked for it
        ("faithfulness", {"detectors": None}, True),
        ("US_SSN", {"outcome": "partial", "failed": {"toxicity": "timeout"}}, True),
    ],
)
def test_a_verdict_can_tell_only_of_what_was_looked_for(finding_type: str | None, fields: dict[str, Any], tells: bool) -> None:
    assert Wanted.of(finding_type).can_tell(verdict(**fields)) is tells
