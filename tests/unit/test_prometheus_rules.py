"""The configuration and the rules of Prometheus, by its own tool: they are accepted, and do what their cases say."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
from deployment import ROOT, read

TOOL: Final = shutil.which("promtool")
CASES: Final = sorted((ROOT / "tests" / "prometheus").glob("*.yml"))
RULES: Final = ROOT / "deploy" / "prometheus"

pytestmark = pytest.mark.skipif(
    TOOL is None and not os.environ.get("CI"), reason="promtool is not here (apt install prometheus)"
)


def promtool(*arguments: str | Path) -> str:
    """What it says. Fails when it finds something wrong."""
    assert TOOL is not None, "promtool is part of Debian's package prometheus, which CI installs"
    done = subprocess.run([TOOL, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_the_configuration_and_the_files_that_it_names(tmp_path: Path) -> None:
    shutil.copytree(RULES, tmp_path / "prometheus")
    secret = tmp_path / "token"
    secret.write_text("a-token")
    config = tmp_path / "prometheus" / "prometheus.yml"
    config.write_text(config.read_text().replace("/run/secrets/tidegate-token", str(secret)))

    said = promtool("check", "config", config)

    assert all(f"/{name}\n  SUCCESS" in said for name in ("prometheus.yml", *_rule_files()))


def test_no_rule_is_suspicious() -> None:
    said = promtool("check", "rules", "--lint=all", "--lint-fatal", *(RULES / name for name in _rule_files()))

    assert said.count("SUCCESS") == len(_rule_files())


def _rule_files() -> list[str]:
    names: list[str] = read(RULES / "prometheus.yml")["rule_files"]
    return names


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_rules_do_what_their_cases_say(case: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", case)


def test_every_recording_rule_is_tried() -> None:
    """By a case of its own, or within an alert or another rule that is."""
    recording = [rule for group in read(RULES / "recording.yml")["groups"] for rule in group["rules"]]
    asked = "".join([path.read_text() for path in (*CASES, RULES / "rules.yml")] + [rule["expr"] for rule in recording])

    assert [rule["record"] for rule in recording if rule["record"] not in asked] == []
