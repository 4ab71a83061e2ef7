"""The deployment files, read as those read them that they are for: compose's variables filled in, paths made absolute."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[1]
COMPOSE_FILE: Final = ROOT / "docker-compose.yml"
ENV_EXAMPLE: Final = ROOT / ".env.example"
DASHBOARDS: Final = ROOT / "deploy" / "grafana" / "dashboards"

# ${NAME}, ${NAME:-default}, ${NAME:?complaint}
VARIABLE: Final = re.compile(r"\$\{([A-Z0-9_]+)(?::([-?])([^}]*))?\}")


def compose(env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The compose file with these variables; a secret that is not among them is `secret-of-<name>`."""
    values = env or {}

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        return values.get(name) or (rest if kind == "-" else f"secret-of-{name}")

    found: dict[str, Any] = yaml.safe_load(VARIABLE.sub(value, COMPOSE_FILE.read_text()))
    return found


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def ours() -> dict[str, dict[str, Any]]:
    """The services that run our own image."""
    return {name: service for name, service in services().items() if "build" in service}


def mounted(service: Mapping[str, Any], path: str) -> Path:
    """The file or folder of the repository that a service finds at a path."""
    for volume in service.get("volumes", ()):
        source, target = volume.split(":")[:2]
        if source.startswith("./") and (path == target or path.startswith(target + "/")):
            return ROOT / source / path.removeprefix(target).lstrip("/") if path != target else ROOT / source
    raise AssertionError(f"nothing of the repository is mounted at {path}")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def dashboards() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in sorted(DASHBOARDS.glob("*.json")):
        yield file.name, json.loads(file.read_text())


def targets(source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every question that a panel asks a data source, with the panel's name."""
    for name, board in dashboards():
        for panel in board["panels"]:
            for target in panel["targets"]:
                if target["datasource"]["uid"] == source:
                    yield f"{name}: {panel['title']}", target
