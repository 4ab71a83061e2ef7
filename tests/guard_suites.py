"""Suites that break on command, for the pool; a scoring process loads them by name, as it loads the real one."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tidegate.processors.guardrails.ports import Batch, Finding, Sample, Verdict
from tidegate.processors.guardrails.suite import Suite
from tidegate.schemas.errors import UsageError
from tidegate.schemas.settings import Settings

NAME = re.compile(r"\bZq[a-z]+\b")


class Names:
    """A real, tiny detector of PHI: every word that begins with Zq is somebody's name. Some words end or hang the process:
    what a broken model does."""

    name = "phi"
    version = "names-1"

    def assess(self, batch: Batch) -> list[Verdict]:
        found = [Verdict([finding for text in sample.texts() for finding in _names(*text)]) for sample in batch.samples]
        for sample in batch.samples:
            _obey(sample)
        return found

    def describe(self) -> Mapping[str, Any]:
        return {"backend": "test", "source": "tests", "sha256": "", "licence": "MIT"}


class Tally:
    """Scores nothing and counts: 1 for a text that is there."""

    name = "toxicity"
    version = "tally-1"

    def assess(self, batch: Batch) -> list[Verdict]:
        return [
            Verdict(scores={(where, "toxicity"): 1.0 for where, _, _ in sample.texts() if where != "context"})
            for sample in batch.samples
        ]

    def describe(self) -> Mapping[str, Any]:
        return {"backend": "test", "source": "tests", "sha256": "", "licence": "MIT"}


def _names(where: Any, chunk: int, text: str) -> list[Finding]:
    return [Finding("phi", "PERSON", where, match.start(), match.end(), 0.9, chunk) for match in NAME.finditer(text)]


def _obey(sample: Sample) -> None:
    text = sample.prompt or ""
    if "KILL" in text:
        os.kill(os.getpid(), signal.SIGKILL)
    if "HANG" in text:
        while True:
            time.sleep(3600)
    if "RAISE" in text:
        raise ValueError(text)
    if "GROW" in text:
        _grown.append(bytearray(int(text.split()[-1]) << 20))
    if "ONCE" in text and not (flag := Path(text.split()[-1])).exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)


_grown: list[bytearray] = []


def names(_settings: Settings, *, trouble: Callable[[str], None]) -> Suite:
    return Suite([Names(), Tally()])


def refusing(_settings: Settings, *, trouble: Callable[[str], None]) -> Suite:
    raise UsageError("install what is missing")


def broken(_settings: Settings, *, trouble: Callable[[str], None]) -> Suite:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def hardened(_settings: Settings, *, trouble: Callable[[str], None]) -> Suite:
    """Says in its version how the process is kept."""
    get_dumpable = 3
    names = Names()
    dumpable = ctypes.CDLL(None).prctl(get_dumpable, 0, 0, 0, 0)
    names.version = f"core-{resource.getrlimit(resource.RLIMIT_CORE)[0]}-dumpable-{dumpable}"
    return Suite([names])


def indiscreet(settings: Settings, *, trouble: Callable[[str], None]) -> Suite:
    """Says in its version what it was told that it should not know."""
    names = Names()
    secrets = (settings.token, settings.keys, settings.key_file, settings.kafka_password, settings.store)
    names.version = f"{[*filter(None, secrets)]}{[name for name in os.environ if name.startswith('TIDEGATE')]}"
    return Suite([names])


def grown(_settings: Settings, *, trouble: Callable[[str], None]) -> Suite:
    _grown.append(bytearray(b"x" * (400 << 20)))
    return Suite([Names()])


def standing_in(_settings: Settings, *, trouble: Callable[[str], None]) -> Suite:
    trouble("the model is not there")
    return Suite([Names()])
