"""Which runbook an alert names: a page of docs/runbooks, unless its policy names one of its own.

kind ──────────────┐
policy's measure ──┴─► docs/runbooks/PAGE.md#part, below the on-call file's `runbooks` where that is set
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..schemas.policy import OF_VERDICTS, QUANTILES, Policy

_FOLDER: Final = "docs/runbooks"
# Where an alert is of a kind that has no page of its own.
INDEX: Final = f"{_FOLDER}/README.md"
BUDGET: Final = f"{_FOLDER}/budget-exhaustion.md"
LEAK: Final = f"{_FOLDER}/phi-leak.md"
TOXICITY: Final = f"{_FOLDER}/toxicity-burst.md"
PROVIDER: Final = f"{_FOLDER}/provider-outage.md"
LAG: Final = f"{_FOLDER}/lag.md"
DEAD_LETTERS: Final = f"{_FOLDER}/dead-letter-surge.md"
STALE: Final = f"{_FOLDER}/stale-gates.md"

KINDS: Final[Mapping[str, str]] = {
    "policy": BUDGET,
    "policy_file": f"{STALE}#policy-file",
    "on_call_file": "docs/oncall.md",
    "no_data": STALE,
    "residency": "docs/residency.md",
    "meter_stopped": f"{DEAD_LETTERS}#stopped",
    "dead_letters_full": f"{DEAD_LETTERS}#full",
    "guardrails_phi": f"{LEAK}#unjudged",
    "guardrails_quarantine": f"{LEAK}#unjudged",
    "guardrails_quarantine_full": f"{LEAK}#unjudged",
    "guardrails_unreadable": f"{LEAK}#unjudged",
    "guardrails_detector": f"{LAG}#guardrails",
    "guardrails_behind": f"{LAG}#guardrails",
}
# Detectors of how somebody speaks. Of what else is found, health information is the worst it can be.
_SPEECH: Final = frozenset({"toxicity", "injection", "bias", "faithfulness", "relevance", "guideline"})
_FAILING: Final = QUANTILES | {"errors", "error_rate"}


def runbook_of_policy(policy: Policy) -> str:
    """Its own, or the page for what it measures."""
    if policy.runbook is not None:
        return policy.runbook
    if policy.measure in OF_VERDICTS:
        return TOXICITY if policy.finding_type in _SPEECH else LEAK
    if policy.measure == "unpriced":
        return f"{BUDGET}#unpriced"
    return PROVIDER if policy.measure in _FAILING else BUDGET
