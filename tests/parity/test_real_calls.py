"""Parity on the real calls: a service's log through the real replay, into both engines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from kafka_broker import needs_broker
from memory_log import MemoryLog
from parity_engines import Engines
from parity_sides import Appended
from tidegate.producers.emitter import Emitter
from tidegate.producers.replay import replay
from tidegate.schemas.settings import Settings

ROOT = Path(__file__).parents[2]
REAL_CALLS = Path(os.environ.get("TIDEGATE_REAL_CALLS") or ROOT.parent / "shared" / "data" / "real_calls.jsonl")

pytestmark = [
    pytest.mark.slow,
    needs_broker,
    pytest.mark.skipif(not REAL_CALLS.is_file(), reason="real_calls.jsonl is absent; name it in TIDEGATE_REAL_CALLS"),
]


def parts(folder: Path, shift: timedelta) -> Iterator[Path]:
    """The log in four files, each a producer's, every time in it moved by `shift`."""
    lines = [orjson.loads(line) for line in REAL_CALLS.read_bytes().splitlines()]
    for number in range(4):
        path = folder / f"calls-{number}.jsonl"
        with path.open("wb") as out:
            for line in lines[number::4]:
                moved = {
                    name: (datetime.fromisoformat(line[name]) + shift).isoformat()
                    for name in ("started_at", "first_token_at", "ended_at")
                    if line.get(name)
                }
                out.write(orjson.dumps(line | moved) + b"\n")
        yield path


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


def moved_by(when: str) -> timedelta:
    last = orjson.loads(REAL_CALLS.read_bytes().splitlines()[-1])["ended_at"]
    return timedelta(0) if when == "as recorded" else datetime.now(UTC) - datetime.fromisoformat(last)


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
