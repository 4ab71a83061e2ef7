"""A scorer that some lines kill, for tests; scoring processes import it by name."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from tidegate.processors.guardrails.scoring import Numbered, Plan, Scored, ScoredBatch


def score(plan: Plan, batch: Sequence[Numbered]) -> ScoredBatch:
    if any(b"deadly" in line for _, line in batch):
        os.kill(os.getpid(), signal.SIGKILL)
    return ScoredBatch([Scored(number, line) for number, line in batch])
