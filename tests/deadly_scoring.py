"""A scorer that some lines kill or hold up, for tests; scoring processes import it by name."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tidegate.processors.guardrails import scoring
from tidegate.processors.guardrails.ports import Batch, Verdict
from tidegate.processors.guardrails.scoring import Plan, Scorer
from tidegate.processors.guardrails.suite import Suite


class Fine:
    """Scores 0.5 for every prompt."""

    name = "toxicity"
    version = "test-1"

    def assess(self, batch: Batch) -> list[Verdict]:
        return [Verdict(scores={("prompt", "toxicity"): 0.5}) for _ in batch.samples]

    def describe(self) -> Mapping[str, Any]:
        return {}


class Deadly(Fine):
    """Obeys what a prompt says."""

    name = "injection"

    def assess(self, batch: Batch) -> list[Verdict]:
        for sample in batch.samples:
            word, _, path = (sample.prompt or "").partition(" ")
            if word == "DIE" or (word == "ONCE" and not Path(path).exists()):
                Path(path or os.devnull).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            while word == "HANG":
                pass
            if word == "GROW":
                bytearray(32 << 30)
        return [Verdict(scores={("prompt", "injection"): 0.25}) for _ in batch.samples]


def make(plan: Plan, at: Callable[[str], None]) -> Scorer:
    """With these two instead of the real ones."""
    scoring.load_suite = lambda *_, **__: Suite(_detectors())  # type: ignore[assignment]  # in a process of its own
    return Scorer(plan, at)


def vanish(plan: Plan, at: Callable[[str], None]) -> Scorer:
    """Ends while it is loading."""
    os._exit(1)


def _detectors() -> Sequence[Fine]:
    return [Fine(), Deadly()]
