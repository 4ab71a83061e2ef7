"""Parity on traffic: a million calls of simulated clinics; and the same engines while workers join and leave."""

from __future__ import annotations

import os
import shutil
from itertools import islice
from pathlib import Path

import pytest
from kafka_broker import needs_broker
from parity_engines import Engines
from parity_traffic import in_order, traffic

pytestmark = [pytest.mark.slow, needs_broker]

EVENTS = int(os.environ.get("TIDEGATE_TEST_PARITY_EVENTS", "1000000"))


def test_a_million_calls_come_to_the_same_on_both_engines(tmp_path: Path, kafka_url: str) -> None:
    with Engines(tmp_path / "engines", kafka_url, partitions=3, flush_bytes=1 << 20) as engines:
        records = traffic(EVENTS, engines.partitions, seed=20261122, judged=0.05)
        while some := list(islice(records, 500)):
            engines.append(some)
        engines.settle(300)

        assert not engines.differences(60)
        assert engines.totals()["responses"] == EVENTS
        assert engines.totals()["duplicates"] > 0
        assert engines.totals()["scored"] > EVENTS // 25
    shutil.rmtree(tmp_path / "engines")  # two gigabytes


def test_workers_that_join_leave_and_are_killed_change_nothing(tmp_path: Path, kafka_url: str) -> None:
    with Engines(tmp_path, kafka_url, partitions=4, flush_bytes=100_000) as engines:
        fleet = engines.distributed.fleet
        records = list(traffic(60_000, engines.partitions, seed=5, announced=0.3, judged=0.3))
        parts = in_order(records, 8)

        engines.append(parts[0])
        fleet.start("meter").wait_until_it_works()
        engines.append(parts[1])
        fleet.start("policies")
        engines.append(parts[2])
        fleet.stop(fleet.running("meter")[0])
        engines.append(parts[3])
        fleet.start("meter").wait_until_it_works()
        engines.append(parts[4])
        fleet.kill(fleet.running("meter")[0])
        engines.append(parts[5])
        fleet.kill(fleet.running("policies")[0])
        for part in parts[6:]:
            engines.append(part)
        engines.settle()

        assert not engines.differences()
        assert engines.totals()["responses"] == 60_000
        assert engines.totals()["requests"] > 10_000
        assert engines.totals()["scored"] > 10_000
