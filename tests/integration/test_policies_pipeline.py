"""Policies in the running pipeline: one added while it runs knows what was before it, and a bad file is told of."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support import envelope, response
from tidegate.processors.embedded.pipeline import Pipeline
from tidegate.processors.notifier import alerts_of
from tidegate.producers.local_log import LocalLog
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.errors import LogUnavailable
from tidegate.schemas.policy import PolicySet
from tidegate.schemas.settings import Settings
from tidegate.schemas.signal import Signal, decode_signal, signal_key
from tidegate.schemas.topics import ALERTS, SIGNALS

# Threads of the pipeline have to get there; on a busy machine that takes its time.
DEADLINE_S = 60.0

HOURLY = "  - {name: hourly, scope: [tenant], measure: requests, window: {rolling: 1h}, limit: 5, action: block}\n"
DAILY = "  - {name: daily, scope: [tenant], measure: cost_usd, window: {rolling: 24h}, limit: 0.01, action: block}\n"


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    path = tmp_path / "policies.yaml"
    path.write_text("policies:\n" + HOURLY)
    return path


@pytest.fixture
def pipeline(tmp_path: Path, policy_file: Path) -> Iterator[Pipeline]:
    opened = Pipeline(tmp_path / "data", Settings.read(fsync="normal", sink_linger_s=0.0, policy_file=policy_file))
    try:
        opened.start()
        yield opened
    finally:
        opened.close()


def call(folder: Path, first: int, count: int) -> None:
    """Calls of a service, 3.5 million nano-dollars each."""
    log = LocalLog(folder, fsync="normal")
    now = datetime.now(UTC).isoformat()
    log.append([envelope("service-1", first, [response(f"call-{n}", started_at=now) for n in range(first, first + count)])])
    log.close()


def signal(folder: Path, policy: str) -> Signal | None:
    with SqliteLog(folder, fsync="normal") as log:
        record = log.last(SIGNALS.name, 0, signal_key(policy, ("harbor-health",)))
        return decode_signal(record.value) if record and record.value else None


def eventually(said: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not said():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_policy_added_at_noon_knows_the_morning(pipeline: Pipeline, policy_file: Path) -> None:
    call(pipeline.data_dir, 0, 4)
    eventually(lambda: (said := signal(pipeline.data_dir, "hourly")) is not None and said.spend == 4)

    policy_file.write_text("policies:\n" + HOURLY + DAILY)
    eventually(lambda: signal(pipeline.data_dir, "daily") is not None)
    first = signal(pipeline.data_dir, "daily")
    call(pipeline.data_dir, 4, 1)
    eventually(lambda: (said := signal(pipeline.data_dir, "daily")) is not None and said.spend == 5 * 3_500_000)

    assert first is not None
    assert (first.state, first.spend) == ("block", 4 * 3_500_000)
    hourly = signal(pipeline.data_dir, "hourly")
    assert hourly is not None
    assert (hourly.state, hourly.spend) == ("block", 5)
    assert pipeline.healthy


def test_an_edit_that_meets_a_busy_log_is_not_lost(
    pipeline: Pipeline, policy_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, refused = pipeline.meter.watch, [True, True]

    def busy(*policy_sets: PolicySet) -> None:
        if refused:
            refused.pop()
            raise LogUnavailable("told to be busy", retry_after_s=0.01)
        watch(*policy_sets)

    monkeypatch.setattr(pipeline.meter, "watch", busy)
    call(pipeline.data_dir, 0, 4)
    eventually(lambda: signal(pipeline.data_dir, "hourly") is not None)

    policy_file.write_text("policies:\n" + HOURLY + DAILY)
    eventually(lambda: signal(pipeline.data_dir, "daily") is not None)

    assert refused == []
    assert pipeline.healthy


def test_a_policy_file_that_is_refused_is_told_once_and_so_is_that_it_is_mended(pipeline: Pipeline, policy_file: Path) -> None:
    policy_file.write_text("policies: [{name: half}]")
    eventually(lambda: told(pipeline.data_dir) == ["warning"])

    policy_file.write_text("policies:\n" + HOURLY + "# mended\n")
    eventually(lambda: told(pipeline.data_dir) == ["warning", "info"])

    assert pipeline.healthy


def told(folder: Path) -> list[str]:
    """How bad each word on the policy file was."""
    with SqliteLog(folder, fsync="normal") as log:
        alerts = [alert for record in log.read(ALERTS.name, 0, 0) for alert in alerts_of(record.value)]
    return [alert.severity for alert in alerts if alert.key == "policy_file"]
