"""`tidegate worker` as whoever runs it meets it: one line when it cannot start, doors that tell the truth, and an end when
it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import kafka_ledger as ledger
import pytest
import urllib3
from aiokafka import AIOKafkaProducer
from kafka_broker import needs_broker
from kafka_fleet import Fleet, Worker, eventually
from support import envelope, response
from tidegate.bench.kafka.broker import Broker
from tidegate.processors.distributed.kafka_admin import kafka_admin
from tidegate.processors.distributed.topics import create_topics
from tidegate.schemas.errors import TidegateError
from tidegate.schemas.kafka_url import KafkaAddress
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import CALLS, METER_CHANGELOG

pytestmark = [pytest.mark.slow, needs_broker]

HTTP = urllib3.PoolManager(timeout=5.0, retries=False)
# Two cores start a dozen workers at once; one alone is there in three seconds.
PATIENCE_S = 60.0


def tell(role: str, without: str | None = None, first: str = "", **environment: str) -> subprocess.Popen[str]:
    """A worker; `without` is a package that is not installed, `first` is done before anything."""
    hidden = f"sys.modules[{without!r}] = None; " if without else ""
    code = f"import sys; {hidden}{first}sys.argv[1:] = ['worker', '--role', {role!r}]; from tidegate.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "TIDEGATE_WORKER_PORT": "0", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_what_keeps_a_worker_from_starting_is_said_in_one_line_and_soon(kafka_url: str) -> None:
    namespace = kafka_url.rpartition("/")[2]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        cases = [
            (tell("meter", TIDEGATE_URL="kafka://127.0.0.1:1"), "Kafka at 127.0.0.1:1 cannot be reached"),
            (tell("policies", TIDEGATE_URL="kafka://127.0.0.1:1"), "Kafka at 127.0.0.1:1 cannot be reached"),
            (tell("meter", TIDEGATE_URL=kafka_url), f"has no topic for us: {namespace}.alerts, "),
            (tell("policies", TIDEGATE_URL=kafka_url), "run `tidegate topics create`"),
            (tell("meter", TIDEGATE_URL="http://node:8400"), "set TIDEGATE_URL to Kafka's address"),
            (tell("all", TIDEGATE_URL="http://node:8400"), "set TIDEGATE_URL to Kafka's address"),
            (tell("meter", TIDEGATE_URL=kafka_url, TIDEGATE_WORKER_PORT=port), "choose another with TIDEGATE_WORKER_PORT"),
            (tell("cleaner", TIDEGATE_URL=kafka_url), "no role cleaner; choose from meter, policies, sink, guardrails"),
            (tell("guardrails", TIDEGATE_URL=kafka_url), "set TIDEGATE_KEY_FILE"),
            (tell("meter", without="faust", TIDEGATE_URL=kafka_url), "pip install 'tidegate[kafka]'"),
            (tell("meter", without="aiokafka", TIDEGATE_URL=kafka_url), "pip install 'tidegate[kafka]'"),
        ]
        for process, expected in cases:
            said, _ = process.communicate(timeout=PATIENCE_S)

            # The log begins with the time, and may tell of tries that failed.
            ours = [line for line in said.splitlines() if not line.startswith("20")]
            assert len(ours) == 1, said
            assert ours[0].startswith("tidegate: ")
            assert expected in ours[0]
            assert process.returncode == 2


def test_a_bad_price_file_is_named(kafka_url: str, tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text("half a line = [")
    asyncio.run(create_topics(Settings(url=kafka_url), partitions=1, policy_partitions=1))

    said, _ = (worker := tell("meter", TIDEGATE_URL=kafka_url, TIDEGATE_PRICE_FILE=str(prices))).communicate(timeout=PATIENCE_S)

    assert said.startswith(f"tidegate: {prices}: ")
    assert worker.returncode == 2


def test_a_start_that_waits_for_a_silent_broker_ends_when_told_to() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        silent.settimeout(PATIENCE_S)
        worker = tell("meter", TIDEGATE_URL=f"kafka://127.0.0.1:{silent.getsockname()[1]}")
        connection, _ = silent.accept()
        with connection:
            worker.send_signal(signal.SIGTERM)
            # A request that is not answered takes two minutes.
            said, _ = worker.communicate(timeout=30)

    assert worker.returncode == 0, said
    assert "Traceback" not in said
    assert "Unclosed" not in said


def test_a_worker_ends_when_told_to_although_kafka_is_away(tmp_path: Path) -> None:
    impatient = "from tidegate.processors.distributed import worker; worker._END_WITHIN_S = 3.0; "
    with Broker(tmp_path / "kafka") as broker:
        url = f"kafka://{broker.bootstrap}"
        asyncio.run(create_topics(Settings(url=url), partitions=1, policy_partitions=1))
        workers = [tell(role, first=impatient, TIDEGATE_URL=url) for role in ("meter", "policies")]
        for worker in workers:
            assert worker.stdout is not None
            assert any(" works; metrics at" in line for line in worker.stdout)
        broker.kill()
        for worker in workers:
            worker.send_signal(signal.SIGTERM)

        for worker in workers:
            said, _ = worker.communicate(timeout=20)
            assert worker.returncode in (0, 1), said


async def publish(url: str, partitions: int) -> None:
    address = KafkaAddress.parse(url)
    producer = AIOKafkaProducer(bootstrap_servers=address.bootstrap)
    await producer.start()
    try:
        for partition in range(partitions):
            made = envelope(f"service-{partition}", 0, [response(call_id=f"call-{partition}")])
            headers = [(name, text.encode()) for name, text in made.headers().items()]
            await producer.send_and_wait(address.topic(CALLS), made.value, partition=partition, headers=headers)
    finally:
        await producer.stop()


def lags(worker: Worker) -> dict[int, int]:
    answer = HTTP.request("GET", f"{worker.doors}/metrics")
    assert answer.status == 200
    found = {}
    for line in answer.data.decode().splitlines():
        if line.startswith("tidegate_worker_lag_records{"):
            labels, _, value = line.rpartition(" ")
            found[int(labels.partition('partition="')[2].partition('"')[0])] = int(float(value))
    return found


def test_doors_tell_how_a_worker_is_and_what_it_has_left_to_do_wherever_partitions_go(kafka_url: str, tmp_path: Path) -> None:
    asyncio.run(create_topics(Settings(url=kafka_url), partitions=2, policy_partitions=1))
    asyncio.run(publish(kafka_url, 2))
    with Fleet(tmp_path, kafka_url) as fleet:
        first = fleet.start("meter")
        first.wait_until_it_works()
        eventually(lambda: lags(first) == {0: 0, 1: 0}, what="the first has both partitions, and is through")
        second = fleet.start("meter")
        second.wait_until_it_works()
        eventually(lambda: sorted([*lags(first), *lags(second)]) == [0, 1] and lags(first), what="each has one partition")
        fleet.stop(second)
        eventually(lambda: lags(first) == {0: 0, 1: 0}, what="the first has both again")

        assert HTTP.request("GET", f"{first.doors}/healthz").status == 200
        metrics = HTTP.request("GET", f"{first.doors}/metrics").data.decode()
        # Counted once, however often partitions changed hands.
        assert 'tidegate_worker_events_total{outcome="responses"} 2.0' in metrics
        began = time.monotonic()
        fleet.stop(first)
        assert time.monotonic() - began < 30
        assert all("Traceback" not in worker.text() for worker in fleet.workers)


def test_a_topic_that_was_made_anew_is_not_taken_for_the_one_that_was(kafka_url: str, tmp_path: Path) -> None:
    asyncio.run(create_topics(Settings(url=kafka_url), partitions=1, policy_partitions=1))
    asyncio.run(publish(kafka_url, 1))
    with Fleet(tmp_path, kafka_url) as fleet:
        first = fleet.start("meter")
        first.wait_until_it_works()
        eventually(lambda: ledger.totals(kafka_url).get("responses") == 1, what="the call is metered")
        fleet.stop(first)
        asyncio.run(make_anew(kafka_url))
        second = fleet.start("meter")
        status = second.process.wait(PATIENCE_S)

    assert status == 2
    assert "ends at 0, but 1 records of it are metered" in second.text()
    assert "Traceback" not in second.text()


def test_a_changelog_of_another_version_is_said_so(kafka_url: str) -> None:
    async def write(value: bytes) -> None:
        address = KafkaAddress.parse(kafka_url)
        producer = AIOKafkaProducer(bootstrap_servers=address.bootstrap)
        await producer.start()
        try:
            await producer.send_and_wait(address.topic(METER_CHANGELOG), value, key=b"@", partition=0)
        finally:
            await producer.stop()

    asyncio.run(create_topics(Settings(url=kafka_url), partitions=1, policy_partitions=1))
    asyncio.run(write(b'{"version":2}'))

    said, _ = (worker := tell("meter", TIDEGATE_URL=kafka_url)).communicate(timeout=PATIENCE_S)

    assert worker.returncode == 2, said
    assert "tidegate: the meter's changelog of partition 0 cannot be read (KeyError)" in said
    assert "Traceback" not in said


async def make_anew(url: str) -> None:
    settings = Settings(url=url)
    async with kafka_admin(settings) as admin:
        await admin.delete_topics([KafkaAddress.parse(url).topic(CALLS)])
    deadline = time.monotonic() + PATIENCE_S
    while True:  # the broker deletes in its own time
        with contextlib.suppress(TidegateError):
            await create_topics(settings, partitions=1, policy_partitions=1)
            return
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)
