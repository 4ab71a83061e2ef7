"""kill -9 of the node at random moments under load, fifty times: afterwards every accepted event is there exactly once.

Two producers keep going all the while: one appends to the folder's log through the Emitter, whether a node runs or not;
the other posts numbered batches over HTTP and repeats each until it is told 202.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import urllib3
from tidegate.producers.emitter import Emitter
from tidegate.producers.local_log import LocalLog
from tidegate.schemas.settings import Settings

KILLS = int(os.environ.get("TIDEGATE_TEST_KILLS", "50"))
# gpt-4o-mini-2024-07-18: 0.15 and 0.60 dollars a million tokens, so 150 and 600 nano-dollars a token.
INPUT_NANO_USD, OUTPUT_NANO_USD = 150, 600


def event(producer: str, number: int) -> dict[str, Any]:
    return {
        "event": "response",
        "call_id": f"{producer}-{number}",
        "started_at": datetime.now(UTC).isoformat(),
        "tenant": f"tenant-{number % 5}",
        "provider_name": "openai",
        "request_model": "gpt-4o-mini-2024-07-18",
        "input_tokens": number % 1_000,
        "output_tokens": number % 97,
        "latency_s": 0.5,
    }


def cost(numbers: range) -> int:
    return sum(number % 1_000 * INPUT_NANO_USD + number % 97 * OUTPUT_NANO_USD for number in numbers)


class HttpProducer(threading.Thread):
    """Posts numbered batches, one after the other, each until it is accepted."""

    def __init__(self, url: str, stop: threading.Event) -> None:
        super().__init__()
        self.url, self.stop, self.accepted = url, stop, 0

    def run(self) -> None:
        with urllib3.PoolManager(retries=False, timeout=2) as http:
            while not self.stop.is_set():
                count = random.randint(1, 60)
                lines = [json.dumps(event("over-http", self.accepted + index)) for index in range(count)]
                headers = {
                    "Content-Type": "application/x-ndjson",
                    "X-Tidegate-Producer": "over-http",
                    "X-Tidegate-Seq": str(self.accepted),
                    "X-Tidegate-Count": str(count),
                }
                while True:
                    try:
                        answer = http.request("POST", f"{self.url}/v1/events", body="\n".join(lines).encode(), headers=headers)
                    except urllib3.exceptions.HTTPError:
                        time.sleep(0.02)  # the node is being restarted
                        continue
                    assert answer.status == 202, answer.data
                    break
                self.accepted += count
                time.sleep(0.002)


class LocalProducer(threading.Thread):
    """Emits into the folder's log through the real Emitter."""

    def __init__(self, data_dir: Path, stop: threading.Event) -> None:
        super().__init__()
        self.stop, self.emitted = stop, 0
        self.emitter = Emitter(LocalLog(data_dir, fsync="normal"), settings=Settings.read(), producer_id="in-process")

    def run(self) -> None:
        while not self.stop.is_set():
            for _ in range(20):
                assert self.emitter.emit(event("in-process", self.emitted))
                self.emitted += 1
            time.sleep(0.02)
        assert self.emitter.close(30)


def free_port() -> int:
    """A free port below those that the system hands out to clients: while the node is down, a client that knocks at its
    port from that very port would connect to itself, and the node could not have it back."""
    while True:
        port = random.randint(15_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def start_node(data_dir: Path, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tidegate", "up", "--data", str(data_dir), "--port", str(port)]
    environment = {**os.environ, "TIDEGATE_FSYNC": "normal", "TIDEGATE_SINK_LINGER_S": "0.1", "TIDEGATE_FLUSH_S": "0.02"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_until_ready(node: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + 60
    with urllib3.PoolManager(retries=False, timeout=2) as http:
        while time.monotonic() < deadline:
            assert node.poll() is None, node.communicate()[1].decode()
            try:
                if http.request("GET", f"{url}/readyz").status == 200:
                    return
            except urllib3.exceptions.HTTPError:  # not yet
                time.sleep(0.02)
    raise AssertionError("the node did not become ready in a minute")


@pytest.mark.slow
def test_killing_the_node_at_random_moments_neither_loses_nor_doubles_an_event(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    stop = threading.Event()
    moments = random.Random(20261122)
    node = start_node(tmp_path, port)
    producers = [HttpProducer(url, stop), LocalProducer(tmp_path, stop)]
    wait_until_ready(node, url)
    for producer in producers:
        producer.start()

    for _ in range(KILLS):
        # From within the start itself to well into the work.
        if moments.random() < 0.7:
            wait_until_ready(node, url)
        time.sleep(moments.uniform(0.0, 0.8))
        node.send_signal(signal.SIGKILL)
        node.communicate()
        node = start_node(tmp_path, port)
    wait_until_ready(node, url)
    stop.set()
    for producer in producers:
        producer.join(60)
    node.send_signal(signal.SIGTERM)
    _, complaint = node.communicate(timeout=60)

    assert node.returncode == 0, complaint.decode()
    http, local = producers
    account = "count(), uniqExact(seq), min(seq), max(seq), sum(cost_nano_usd)"
    found = ask(tmp_path, f"SELECT producer, {account} FROM calls GROUP BY producer")
    assert found == {
        "over-http": [http.accepted, http.accepted, 0, http.accepted - 1, cost(range(http.accepted))],
        "in-process": [local.emitted, local.emitted, 0, local.emitted - 1, cost(range(local.emitted))],
    }
    total = cost(range(http.accepted)) + cost(range(local.emitted))
    assert ask(tmp_path, "SELECT 'all', sum(requests), sum(cost_nano_usd) FROM v_calls_1m") == {
        "all": [http.accepted + local.emitted, total]
    }
    assert ask(tmp_path, "SELECT 'all', sum(requests), sum(cost_nano_usd) FROM v_calls_1h") == {
        "all": [http.accepted + local.emitted, total]
    }
    assert http.accepted > 50 * KILLS, "hardly anything was sent: the test tests nothing"


def ask(data_dir: Path, sql: str) -> dict[str, list[Any]]:
    """Rows by their first column, through the command line as an analyst would."""
    command = [sys.executable, "-m", "tidegate", "query", "--data", str(data_dir), "--format", "json", sql]
    answer = subprocess.run(command, check=True, capture_output=True, timeout=120)
    rows = [list(json.loads(line).values()) for line in answer.stdout.splitlines()]
    return {row[0]: [int(value) for value in row[1:]] for row in rows}
