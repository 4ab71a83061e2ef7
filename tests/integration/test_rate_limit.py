"""Several processes, threads and tasks share one throttle of a real node."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from node_process import NodeProcess, environment

# A minute is longer than a test may take, so the rate is high enough to show within seconds: 20 calls a second.
POLICIES = """
policies:
  - name: requests-per-minute
    match: {provider_name: openai}
    measure: requests
    window: {rolling: 1m}
    limit: 1_300
    warn_at: []
    actions:
      - {at: 0.02, do: throttle, per_minute: 1_200}
"""
BEFORE = 26  # 2 % of the limit go before the throttle is reached
PER_S = 20
PROCESSES = 2
THREADS = TASKS = 3
FOR_S = 7.0

SERVICE = """
import asyncio, json, sys, threading, time
import tidegate

url, until = sys.argv[1], float(sys.argv[2])
went = {}

def note(name, began_at):
    went.setdefault(name, []).append((began_at, time.monotonic()))

async def task(tide, name):
    while (began_at := time.monotonic()) < until:
        try:
            async with tide.call(model="gpt-4o", provider="openai") as call:
                note(name, began_at)
                await asyncio.sleep(0.005)
                call.usage(input_tokens=10, output_tokens=1)
        except tidegate.GateClosed:
            pass

def thread(tide, name):
    while (began_at := time.monotonic()) < until:
        try:
            with tide.call(model="gpt-4o", provider="openai") as call:
                note(name, began_at)
                time.sleep(0.005)
                call.usage(input_tokens=10, output_tokens=1)
        except tidegate.GateClosed:
            pass

async def tasks(tide, count):
    await asyncio.gather(*(task(tide, f"task-{number}") for number in range(count)))

with tidegate.connect(url) as tide:
    threads = [threading.Thread(target=thread, args=(tide, f"thread-{number}")) for number in range(int(sys.argv[3]))]
    for each in threads:
        each.start()
    asyncio.run(tasks(tide, int(sys.argv[4])))
    for each in threads:
        each.join()
print(json.dumps({"went": went, "internal_errors": tide.stats().internal_errors}))
"""


@pytest.mark.slow
def test_threads_and_tasks_of_several_processes_keep_to_one_rate(tmp_path: Path) -> None:
    policies = tmp_path / "policies.yaml"
    policies.write_text(POLICIES)
    data = tmp_path / "data"

    with NodeProcess(data, TIDEGATE_POLICY_FILE=str(policies)):
        until = time.monotonic() + FOR_S
        command = [sys.executable, "-c", SERVICE, str(data), str(until), str(THREADS), str(TASKS)]
        services = [
            subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for _ in range(PROCESSES)
        ]
        said: list[dict[str, Any]] = []
        for service in services:
            out, err = service.communicate(timeout=60)
            assert service.returncode == 0, err.decode()
            said.append(json.loads(out))

    waiters = [times for each in said for times in each["went"].values()]
    went = sorted(at for times in waiters for _, at in times)
    # Within two seconds every gate knows of the others; from then on the rate is divided among them.
    settled = [at for at in went if at >= went[0] + 2.0]
    assert all(each["internal_errors"] == 0 for each in said)
    assert most_beyond(settled, PER_S) <= PER_S + PROCESSES
    assert len(went) <= BEFORE + PER_S * (went[-1] - went[0]) + (PER_S + PROCESSES) * PROCESSES
    assert len(settled) >= 0.6 * PER_S * (settled[-1] - settled[0])
    # Everybody has had turns.
    assert len(waiters) == PROCESSES * (THREADS + TASKS)
    assert min(len(times) for times in waiters) >= 3


def most_beyond(times: list[float], per_s: float) -> float:
    """By how many calls any stretch of time exceeds what the rate allows in it."""
    most = least_before = 0.0
    for count, at in enumerate(times):
        # What is used up by this call, less what has been allowed until it; the deepest point so far is the stretch's start.
        debt = count - per_s * (at - times[0])
        least_before = min(least_before, debt)
        most = max(most, debt + 1 - least_before)
    return most
