"""Workers killed at random under load, others joining and leaving, the broker going away and coming back: afterwards the
rows, the usage, the store and the signals are what a plain loop over the events says, to the nano-dollar.

Three services keep calling all the while, through the real Emitter.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kafka_ledger as ledger
import pytest
from kafka_broker import needs_broker
from kafka_fleet import Fleet, eventually
from tidegate.bench.kafka.broker import Broker
from tidegate.processors.distributed.topic_plan import plan
from tidegate.processors.distributed.topics import create_topics
from tidegate.processors.topology import SINK
from tidegate.producers.connect import connect
from tidegate.schemas.settings import Settings
from tidegate.schemas.signal import decode_signal
from tidegate.schemas.topics import METERED, SIGNALS

ROUNDS = int(os.environ.get("TIDEGATE_TEST_KILLS", "30"))
PARTITIONS, POLICY_PARTITIONS = 4, 2
# gpt-4o-mini-2024-07-18: 0.15 and 0.60 dollars a million tokens, so 150 and 600 nano-dollars a token.
INPUT_NANO_USD, OUTPUT_NANO_USD = 150, 600
TENANTS = 5
POLICIES = """
policies:
  - name: tenant-day
    scope: [tenant]
    measure: cost_usd
    window: {rolling: 24h}
    limit: 1000000
    action: block
"""


def event(producer: str, number: int) -> dict[str, Any]:
    return {
        "event": "response",
        "call_id": f"{producer}-{number}",
        "started_at": datetime.now(UTC).isoformat(),
        "tenant": f"tenant-{number % TENANTS}",
        "provider_name": "openai",
        "request_model": "gpt-4o-mini-2024-07-18",
        "input_tokens": number % 1_000,
        "output_tokens": number % 97,
        "latency_s": 0.5,
    }


def cost(number: int) -> int:
    return number % 1_000 * INPUT_NANO_USD + number % 97 * OUTPUT_NANO_USD


class Service(threading.Thread):
    """Calls at a steady pace until told to stop; everything it was let emit must be counted."""

    def __init__(self, name: str, url: str, spool: Path, stop: threading.Event) -> None:
        super().__init__()
        self.stop, self.emitted = stop, 0
        self.id = name
        self.emitter = connect(url, producer_id=name, gate=False, spool_dir=spool, flush_timeout_s=60)

    def run(self) -> None:
        while not self.stop.is_set():
            for _ in range(20):
                assert self.emitter.emit(event(self.id, self.emitted))
                self.emitted += 1
            time.sleep(0.03)
        assert self.emitter.flush(60)
        assert self.emitter.close()


def port_for_a_broker() -> int:
    """Below what the system hands out to clients: while the broker is away, nobody else may take it."""
    while True:
        port = random.randint(15_000, 30_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "kafka", port=port_for_a_broker()) as running:
        yield running


@pytest.mark.slow
@needs_broker
def test_workers_killed_at_random_moments_neither_lose_nor_double_an_event(tmp_path: Path, broker: Broker) -> None:
    url = f"kafka://{broker.bootstrap}"
    asyncio.run(create_topics(Settings(url=url), partitions=PARTITIONS, policy_partitions=POLICY_PARTITIONS))
    (tmp_path / "policies.yaml").write_text(POLICIES)
    moments = random.Random(20261122)
    stop = threading.Event()
    with Fleet(tmp_path, url, TIDEGATE_POLICY_FILE=str(tmp_path / "policies.yaml"), TIDEGATE_SINK_LINGER_S="0.2") as fleet:
        for role in ("policies", "meter", "meter", "sink"):
            fleet.start(role).wait_until_it_works()
        services = [Service(f"service-{number}", url, tmp_path / "spool", stop) for number in range(3)]
        for service in services:
            service.start()

        for number in range(ROUNDS):
            disturb(number, fleet, broker, moments)
            time.sleep(moments.uniform(0.2, 2.5))
        stop.set()
        for service in services:
            service.join(120)
        for role, least in (("policies", 1), ("meter", 1), ("sink", 1)):
            while len(fleet.running(role)) < least:
                fleet.start(role)
        expected = sum(service.emitted for service in services)
        account = eventually(lambda: counted(url, expected), 180, "every event is metered")
        signals = eventually(lambda: spent(url, services), 60, "the signals say what was spent")
        eventually(lambda: not waiting(fleet), 120, "the sink has passed everything")
        for worker in fleet.workers:
            if worker.running:
                fleet.stop(worker)

        rows = list(ledger.rows(url, METERED))
        assert sorted((row["producer"], row["seq"]) for row in rows) == sorted(
            (service.emitter.producer, number) for service in services for number in range(service.emitted)
        )
        total = sum(cost(number) for service in services for number in range(service.emitted))
        assert sum(row["cost_nano_usd"] for row in rows) == total
        assert account["responses"] == expected
        assert account.get("lost", 0) == account.get("missing_records", 0) == account.get("dead_letters", 0) == 0
        by_tenant = oracle(services)
        buckets = {key: bucket for key, bucket in ledger.usage(url).items() if key.bucket == "day"}
        found = {key.values[0]: 0 for key in buckets if key.fields == ("tenant",)}
        for key, bucket in buckets.items():
            if key.fields == ("tenant",):
                found[key.values[0]] += bucket.counts[3]
        assert found == by_tenant
        assert signals == by_tenant
        assert ask(tmp_path / "data" / "store", "SELECT count(), uniqExact(producer, seq), sum(cost_nano_usd) FROM calls") == [
            expected,
            expected,
            total,
        ]
        assert ask(tmp_path / "data" / "store", "SELECT sum(requests), sum(cost_nano_usd) FROM v_calls_1h") == [expected, total]
        assert expected > 100 * ROUNDS, "hardly anything was sent: the test tests nothing"


def disturb(number: int, fleet: Fleet, broker: Broker, moments: random.Random) -> None:
    """One thing that goes wrong, or changes; the broker twice in all, the sink and the policies now and then."""
    if number in (ROUNDS // 3, 2 * ROUNDS // 3):
        broker.stop()
        time.sleep(moments.uniform(0.5, 3.0))
        broker.start()
    elif number % 7 == 3:
        if (sink := fleet.any("sink", moments)) is not None:
            fleet.kill(sink)
        fleet.start("sink").wait_until_it_works()
    elif number % 7 == 5:
        if (policies := fleet.any("policies", moments)) is not None:
            fleet.kill(policies)
        fleet.start("policies")
    elif number % 5 == 4:
        fleet.start("meter")
    elif number % 5 == 1 and len(fleet.running("meter")) > 1:
        fleet.stop(fleet.running("meter")[0])
    else:
        if (meter := fleet.any("meter", moments)) is not None:
            fleet.kill(meter)
        if not fleet.running("meter") or moments.random() < 0.5:
            fleet.start("meter")


def counted(url: str, expected: int) -> dict[str, int] | None:
    account = ledger.totals(url)
    return account if account.get("responses", 0) >= expected else None


def oracle(services: list[Service]) -> dict[str, int]:
    found = {f"tenant-{number}": 0 for number in range(TENANTS)}
    for service in services:
        for number in range(service.emitted):
            found[f"tenant-{number % TENANTS}"] += cost(number)
    return found


def spent(url: str, services: list[Service]) -> dict[str, int] | None:
    """What the signals say, once they say what is right; who gets nothing here reads the difference in the end."""
    found = {}
    for record in ledger.records(url, SIGNALS):
        if record.key.startswith(b"signal|tenant-day|") and record.value:
            signal = decode_signal(record.value)
            found[signal.scope["tenant"] or ""] = int(signal.spend)
    return found if found == oracle(services) else None


def waiting(fleet: Fleet) -> int:
    """Records the sink has not written yet, as its metrics tell. While it lacks partitions, one that was killed holds them."""
    import urllib3

    (sink,) = fleet.running("sink")[-1:]
    text = urllib3.PoolManager().request("GET", f"{sink.doors}/metrics").data.decode()
    lines = [line for line in text.splitlines() if line.startswith("tidegate_worker_lag_records{")]
    every = sum(planned.partitions for planned in plan(PARTITIONS, POLICY_PARTITIONS) if planned.topic in SINK.reads)
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines) if len(lines) == every else 1


def ask(store: Path, sql: str) -> list[int]:
    """One row from the store, by another process: chDB opens one folder in a process's life."""
    code = (
        "import json, sys; from pathlib import Path; from tidegate.sinks.clickhouse import Store\n"
        "with Store.open(path=Path(sys.argv[1])) as store:\n"
        "    print(json.dumps([int(number) for number in store.query(sys.argv[2]).rows[0]]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(store), sql], check=True, capture_output=True, timeout=120)
    return list(json.loads(done.stdout))
