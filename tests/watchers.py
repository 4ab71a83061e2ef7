"""Debian's Prometheus and Alertmanager as processes, on free ports of this machine; stopped by their pid."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Self

import pytest
import urllib3
import yaml
from deployment import ROOT, read
from node_process import eventually

PROMETHEUS: Final = shutil.which("prometheus")
ALERTMANAGER: Final = shutil.which("prometheus-alertmanager")
_missing: Final = [name for name, found in (("prometheus", PROMETHEUS), ("prometheus-alertmanager", ALERTMANAGER)) if not found]
# CI has both: there a test that cannot run fails.
needs_watchers = pytest.mark.skipif(bool(_missing) and not os.environ.get("CI"), reason=f"needs {' and '.join(_missing)}")
_DEPLOY: Final = ROOT / "deploy"


class _Watcher:
    """A process that answers over HTTP. `with` waits until it is ready, and stops it."""

    def __init__(self, folder: Path, command: str | None, arguments: Callable[[int], list[str]]) -> None:
        assert command is not None, f"{', '.join(_missing)} is not here, and CI installs it"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.http = urllib3.PoolManager(retries=False, timeout=30)
        self._output = folder / "output"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [command, *arguments(port)], cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def __enter__(self) -> Self:
        def ready() -> bool:
            assert self._process.poll() is None, self._output.read_text()
            try:
                return bool(self.http.request("GET", f"{self.url}/-/ready").status == 200)
            except urllib3.exceptions.HTTPError:
                return False

        try:
            assert eventually(ready, bool, 60), self._output.read_text()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.http.clear()

    def get(self, path: str, **fields: str) -> Any:
        answer = self.http.request("GET", self.url + path, fields=fields)
        assert answer.status == 200, answer.data
        return json.loads(answer.data)


class Alertmanager(_Watcher):
    """As deployed, but that it tells a webhook, and at once."""

    def __init__(self, folder: Path, webhook: str) -> None:
        folder.mkdir()
        config = read(_DEPLOY / "alertmanager" / "alertmanager.yml")
        config["receivers"] = [{"name": "hook", "webhook_configs": [{"url": webhook, "send_resolved": True}]}]
        config["route"] |= {"receiver": "hook", "group_wait": "0s", "group_interval": "1s"}
        (folder / "config.yml").write_text(yaml.safe_dump(config))
        storage = ["--config.file=config.yml", "--storage.path=data", "--cluster.listen-address="]
        super().__init__(folder, ALERTMANAGER, lambda port: [*storage, f"--web.listen-address=127.0.0.1:{port}"])

    def alerts(self) -> list[dict[str, Any]]:
        """Those that are not over."""
        found: list[dict[str, Any]] = self.get("/api/v2/alerts")
        return found

    def groups(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/api/v2/alerts/groups")
        return found


class Prometheus(_Watcher):
    """As deployed, but that it asks the one node that `point_at` names, every second, and that alerts wait for two."""

    def __init__(self, folder: Path, alertmanager: str, token: str) -> None:
        folder.mkdir()
        (folder / "token").write_text(token)
        self._targets = folder / "targets.json"
        self._targets.write_text("[]")
        config = read(_DEPLOY / "prometheus" / "prometheus.yml")
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [alertmanager.removeprefix("http://")]}]}]
        (node,) = [job for job in config["scrape_configs"] if job["job_name"] == "node"]
        del node["static_configs"]
        node["authorization"]["credentials_file"] = "token"
        node["file_sd_configs"] = [{"files": ["targets.json"], "refresh_interval": "1s"}]
        config["scrape_configs"] = [node]
        (folder / "config.yml").write_text(yaml.safe_dump(config))
        for name in config["rule_files"]:
            rules = read(_DEPLOY / "prometheus" / name)
            for rule in (rule for group in rules["groups"] for rule in group["rules"]):
                if "for" in rule:
                    rule["for"] = "2s"
            (folder / name).write_text(yaml.safe_dump(rules))
        storage = ["--config.file=config.yml", "--storage.tsdb.path=data", "--enable-feature=exemplar-storage"]
        super().__init__(folder, PROMETHEUS, lambda port: [*storage, f"--web.listen-address=127.0.0.1:{port}"])

    def point_at(self, url: str) -> None:
        """Ask this node from now on; to Prometheus it is always the same one."""
        named = [{"targets": [url.removeprefix("http://")], "labels": {"instance": "node"}}]
        written = self._targets.with_suffix(".new")
        written.write_text(json.dumps(named))
        written.replace(self._targets)

    def ask(self, expression: str) -> dict[frozenset[tuple[str, str]], float]:
        """What an expression yields now, by labels."""
        found = self.get("/api/v1/query", query=expression)["data"]["result"]
        return {frozenset(one["metric"].items()): float(one["value"][1]) for one in found}

    def number(self, expression: str) -> float | None:
        """What an expression without labels yields now."""
        return self.ask(expression).get(frozenset())

    def exemplars(self, query: str, since_s: float, until_s: float) -> list[Mapping[str, Any]]:
        found = self.get("/api/v1/query_exemplars", query=query, start=str(since_s), end=str(until_s))["data"]
        return [one | {"series": series["seriesLabels"]} for series in found for one in series["exemplars"]]
