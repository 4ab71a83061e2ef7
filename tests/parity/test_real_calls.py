"""Parity on the real calls: a service's log through the real replay, into both engines."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from kafka_broker import needs_broker
from memory_log import MemoryLog
from parity_engines import Engines
from parity_real import REAL_CALLS, moved_by, needs_real_calls, parts
from parity_sides import Appended
from tidegate.producers.emitter import Emitter
from tidegate.producers.replay import replay
from tidegate.schemas.settings import Settings

pytestmark = [pytest.mark.slow, needs_broker, needs_real_calls]


def replayed(paths: list[Path], partitions: int) -> list[Appended]:
    """What a replay appends; a log's clock that goes on by a millisecond an envelope, up to now."""
    log = MemoryLog()
    settings = Settings(flush_timeout_s=60)
    for path in paths:
        with Emitter(log, settings=settings, producer_id=path.stem) as emitter:
            report = replay([path], emitter)
        assert not report.problems
        assert report.dropped == 0
    begun_ms = int(datetime.now(UTC).timestamp() * 1_000) - len(log.envelopes)
    return [Appended.of(envelope, begun_ms + number, partitions) for number, envelope in enumerate(log.envelopes)]


@pytest.mark.parametrize("when", ["as recorded", "as if they had just been made"])
def test_real_calls_come_to_the_same_on_both_engines(tmp_path: Path, kafka_url: str, when: str) -> None:
    paths = list(parts(tmp_path, moved_by(when)))
    with Engines(tmp_path, kafka_url, partitions=3) as engines:
        records = replayed(paths, engines.partitions)

        engines.append(records)
        engines.append(records[: len(records) // 2])  # a replay that was broken off, begun again
        engines.settle()

        assert not engines.differences()
        assert engines.totals()["responses"] == len(REAL_CALLS.read_bytes().splitlines())
        assert {record.partition for record in records} == {0, 1, 2}, "a partition has no calls: the test tests less"
