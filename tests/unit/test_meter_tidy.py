"""What the meter remembers of producers goes when nobody can come back to it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support import envelope, response
from tidegate.processors.embedded.engine import MeterEngine
from tidegate.processors.meter import KEYED, KEYED_RETENTION_MS, PRODUCER_RETENTION_MS
from tidegate.producers.local_log import LocalLog
from tidegate.schemas.settings import Settings


def known(engine: MeterEngine) -> set[str]:
    return {name for state in engine.states.values() for name in state.producers}


@pytest.mark.parametrize(
    ("later_ms", "left"),
    [
        (KEYED_RETENTION_MS - 60_000, {"service-1", f"{KEYED}abc"}),
        (KEYED_RETENTION_MS + 60_000, {"service-1"}),
        (PRODUCER_RETENTION_MS + 60_000, set()),
    ],
)
def test_a_key_is_forgotten_with_the_raw_calls_and_a_producer_when_it_is_gone(
    tmp_path: Path, later_ms: int, left: set[str]
) -> None:
    log = LocalLog(tmp_path, fsync="normal")
    log.append([envelope("service-1", 0, [response()]), envelope(f"{KEYED}abc", 0, [response()])])
    log.close()
    engine = MeterEngine(tmp_path, Settings(fsync="normal"))
    engine.run_once()

    engine.tidy(time.time_ns() // 1_000_000 + later_ms)

    assert known(engine) == left
    engine.close()
    again = MeterEngine(tmp_path, Settings(fsync="normal"))
    assert known(again) == left
    again.close()
