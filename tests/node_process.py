"""A real node in a process of its own, for tests; stopped by its pid. chDB allows one process a folder, never a fork."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import urllib3

T = TypeVar("T")

QUICK = {"TIDEGATE_FSYNC": "normal", "TIDEGATE_SINK_LINGER_S": "0.05", "TIDEGATE_FLUSH_S": "0.02"}


def environment(**more: str) -> dict[str, str]:
    """The caller's environment without settings of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
    return kept | QUICK | more


def tidegate(*arguments: str | Path, timeout_s: float = 60, **more: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the command line to its end."""
    command = [sys.executable, "-m", "tidegate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=timeout_s, env=environment(**more), stdin=subprocess.DEVNULL)


def rows(data_dir: Path, sql: str) -> list[dict[str, Any]]:
    """A query's answer as an analyst gets it; raises when it is refused."""
    answer = tidegate("query", "--data", data_dir, "--format", "json", sql)
    assert answer.returncode == 0, answer.stderr.decode()
    return [json.loads(line) for line in answer.stdout.splitlines()]


def eventually(ask: Callable[[], T], is_right: Callable[[T], bool], within_s: float = 20) -> T:
    """Ask until the answer is right, or a deadline has passed; the last answer either way."""
    deadline = time.monotonic() + within_s
    while not is_right(found := ask()) and time.monotonic() < deadline:
        time.sleep(0.03)
    return found


class NodeProcess:
    """`with NodeProcess(folder) as node:` gives a node that is ready; leaving stops it and looks at how it ended."""

    def __init__(self, data_dir: Path, *arguments: str, **more: str) -> None:
        self.data_dir = data_dir
        command = [sys.executable, "-m", "tidegate", "up", "--data", str(data_dir), "--port", "0", *arguments]
        self.output = data_dir.parent / f"{data_dir.name}.out"
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                command, env=environment(**more), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self.http = urllib3.PoolManager(retries=False, timeout=30, maxsize=16)
        self.url = ""
        self.token = ""

    def __enter__(self) -> Self:
        word = self.data_dir / "node.json"

        def told() -> dict[str, Any]:
            assert self.process.poll() is None, self.output.read_text()
            found: dict[str, Any] = json.loads(word.read_bytes()) if word.exists() else {}
            return found if found.get("pid") == self.process.pid else {}

        try:
            found = eventually(told, bool, 60)
            self.url, self.token = found["url"], found["token"]
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        code = self.stop()
        if error is None:
            assert code == 0, self.output.read_text()

    def stop(self, how: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        self.http.clear()
        return code

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def get(self, path: str, *, token: str | None = None) -> urllib3.BaseHTTPResponse:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.http.request("GET", self.url + path, headers=headers)

    def post(
        self, body: bytes | Sequence[Mapping[str, Any]], headers: Mapping[str, str] | None = None, path: str = "/v1/events"
    ) -> urllib3.BaseHTTPResponse:
        if not isinstance(body, bytes):
            body = b"\n".join(json.dumps(event).encode() for event in body)
        return self.http.request("POST", self.url + path, body=body, headers=dict(headers or {}))

    def query(self, sql: str, token: str | None = None, form: str = "JSONEachRow") -> urllib3.BaseHTTPResponse:
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"}
        return self.post(json.dumps({"sql": sql, "format": form}).encode(), headers, "/v1/query")

    def rows(self, sql: str) -> list[dict[str, Any]]:
        answer = self.query(sql)
        assert answer.status == 200, answer.data
        return [json.loads(line) for line in answer.data.splitlines()]

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/v1/status", token=self.token).data)
        return found

    def settled(self) -> dict[str, Any]:
        """The status once everything that was accepted is in the store."""
        status = eventually(self.status, lambda found: not found["meter_lag_records"] + found["sink_lag_records"])
        assert not status["meter_lag_records"] + status["sink_lag_records"], status
        return status
