"""The whole pipeline on Kafka in one command, as a person runs it: up, a process that dies, and down again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kafka_broker import needs_broker
from node_process import environment, eventually, rows, tidegate
from tidegate.bench.kafka.broker import cache_dir, fetch_jars

pytestmark = [needs_broker, pytest.mark.slow]


class Running:
    """`make up-kafka` in a process, its terminal a file. Whatever it started is gone after the block."""

    def __init__(self, folder: Path, *arguments: str, **more: str) -> None:
        self.folder = folder
        self.said = folder.parent / f"{folder.name}.out"
        command = [sys.executable, "-m", "tidegate.bench.kafka.pipeline", str(folder), "--port", "0", *arguments]
        with self.said.open("ab") as out:
            # The broker's jars are kept where they were.
            self.process = subprocess.Popen(
                command,
                env=environment(TIDEGATE_KAFKA_CACHE=str(cache_dir()), **more),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def text(self) -> str:
        return self.said.read_text()

    def pid(self, name: str) -> int:
        found = re.findall(rf"{name}[^(\n]*\(pid (\d+)\)", self.text().replace("127.0.0.1", ""))
        return int(found[-1])

    def status(self) -> dict[str, Any]:
        asked = tidegate("status", "--data", self.folder / "node", "--format", "json")
        found: dict[str, Any] = json.loads(asked.stdout or b"{}")
        return found

    def wait_for_calls(self, count: int) -> dict[str, Any]:
        def calls() -> dict[str, Any]:
            assert self.process.poll() is None, self.text()
            return self.status() if (self.folder / "node" / "node.json").exists() else {}

        return eventually(calls, lambda found: found.get("totals", {}).get("responses", 0) >= count, 180)

    def scored(self) -> int:
        """Calls whose texts the guardrails have judged, as far as the store knows."""
        (found,) = rows(self.folder / "node", "SELECT count() AS calls FROM scored_calls")
        return int(found["calls"])

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            for name in ("broker", "meter", "policies", "guardrails"):
                if is_alive(self.pid(name)):
                    os.kill(self.pid(name), signal.SIGKILL)
            raise


def is_alive(pid: int) -> bool:
    """A process that has ended and was not asked for its status is dead, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_comes_up_mends_what_dies_and_leaves_no_process_behind(tmp_path: Path) -> None:
    with Running(tmp_path / "kafka", "--rate", "50") as running:
        before = running.wait_for_calls(100)["totals"]["responses"]
        pids = {name: running.pid(name) for name in ("broker", "policies", "meter", "guardrails")}
        os.kill(pids["meter"], signal.SIGKILL)
        eventually(running.text, lambda said: "meter started again" in said, 60)
        pids["next meter"] = running.pid("meter")

        after = running.wait_for_calls(before + 200)
        scored = eventually(lambda: running.scored(), bool, 180)
        running.process.send_signal(signal.SIGINT)
        code = running.process.wait(120)
    said = running.text()
    (kept,) = rows(tmp_path / "kafka" / "node", "SELECT count() AS calls, uniqExact(call_id) AS ids FROM calls")

    assert code == 0, said
    assert after["policies"]["in_force"] > 0
    assert f"meter (pid {pids['meter']}) ended by itself; starts again in 1 s" in said
    stops = [line.split()[0] for line in said.splitlines() if " stopped " in line]
    assert stops == ["traffic", "guardrails", "meter", "policies", "node", "broker"]
    assert scored
    assert {name: is_alive(pid) for name, pid in pids.items()} == dict.fromkeys(pids, False)
    assert kept["calls"] == kept["ids"] >= after["totals"]["responses"]


def test_without_java_it_says_what_to_install(tmp_path: Path) -> None:
    fetch_jars()  # with Maven missing as well, that would be said first
    empty = tmp_path / "bin"
    empty.mkdir()

    with Running(tmp_path / "kafka", PATH=str(empty), JAVA_HOME="") as running:
        code = running.process.wait(60)

    assert code == 1
    assert "java is not on PATH: install" in running.text()
    assert "Traceback" not in running.text()
