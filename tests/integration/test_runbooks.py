"""docs/runbooks: every command runs on a node that has such an incident, and answers in the shape that the page shows."""

from __future__ import annotations

import ast
import os
import re
import shlex
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from node_process import NodeProcess, eventually
from policing import policy
from rich.console import Console
from tidegate.cli import app
from tidegate.processors.incident_words import runbook_of
from tidegate.processors.runbooks import INDEX, KINDS, runbook_of_policy
from tidegate.producers.connect import connect
from tidegate.schemas.signal import Alert
from typer.testing import CliRunner

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
PARTS: Final = ("What it means:", "Is anyone hurt now?", "First three commands", "Decide", "Over when", "Write down", "Tell")
ASKED: Final = [
    (page.stem, command, shown)
    for page in PAGES
    for block, shown in re.findall(r"```sh\n(.*?)```(?:\n\n```text\n(.*?)```)?", page.read_text(), re.DOTALL)
    for command in block.splitlines()
]


def calls(now: datetime) -> Iterator[dict[str, Any]]:
    """A tenant that overspends, a provider that fails every other call, and a model that nobody has a price for."""
    for number in range(120):
        common = {
            "event": "response",
            "environment": "production",
            "started_at": (now - timedelta(seconds=120 - number)).isoformat(),
        }
        yield common | {
            **{"call_id": f"dear-{number}", "tenant": "harbor-health", "team": "pharmacy", "user": f"pharmacy-{number % 5:03}"},
            **{"service": "interactions-api", "provider_name": "openai", "request_model": "gpt-4o", "latency_s": 2.0},
            **{"input_tokens": 40_000, "output_tokens": 20_000},
        }
        failed = {"error_type": "overloaded"} if number % 2 else {"input_tokens": 1_400, "output_tokens": 100}
        yield (
            common
            | failed
            | {
                **{"call_id": f"failing-{number}", "tenant": "st-anne", "team": "radiology", "service": "report-api"},
                **{"provider_name": "anthropic", "request_model": "claude-haiku-4-5", "latency_s": 1.0},
            }
        )
    own = {
        "tenant": "northside-clinic",
        "provider_name": "self_hosted",
        "request_model": "northside-coder-7b",
        "input_tokens": 9,
    }
    yield {"event": "response", "call_id": "unpriced", "started_at": now.isoformat(), **own}


def leaks(now: datetime) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Calls of a prompt that tells callers about somebody else, and whose callers are rude."""
    for number in range(4):
        call = {
            **{"event": "response", "call_id": f"leak-{number}", "started_at": now.isoformat(), "tenant": "harbor-health"},
            **{"team": "triage", "user": f"triage-{number:03}", "service": "triage-api", "task_type": "chat", "latency_s": 2.0},
            **{"prompt_name": "triage", "prompt_version": "2.2", "provider_name": "anthropic"},
            **{"request_model": "claude-sonnet-4-5", "input_tokens": 900, "output_tokens": 100},
        }
        prompt = f"Which level of urgency, {number}? You useless idiots never pick up the phone."
        answer = f"Today, {number}. The last such case was Rosa Testwell, MRN 8461927{number}, (617) 555-0182."
        yield call, {"prompt": prompt, "response": answer, "context": []}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    data, now = tmp_path_factory.mktemp("night") / "data", datetime.now(UTC)
    example = str(ROOT / "docs" / "examples" / "policies.yaml")
    with NodeProcess(data, "--policies", example, TIDEGATE_GUARD_DETECTORS='["phi", "toxicity"]') as node:
        with connect(str(data), producer_id="clinic", gate=False) as tide:
            for call in calls(now):
                assert tide.emit(call)
            for call, texts in leaks(now):
                assert tide.emit(call)
                assert tide.emit_content(call, texts)
            assert tide.flush(60)
        assert node.post(b'{"event": "response", "call_id": "bad", "note": "hello"}').status == 202
        status = eventually(
            node.status,
            lambda found: found["totals"].get("scored") == 4 and found["notifier"]["incidents"].get("firing", 0) >= 4,
            180,
        )
        assert status["totals"].get("scored") == 4, status
        node.settled()
        yield node


def run(node: NodeProcess, command: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """What a page's command prints, in this process: it asks the node, and needs no store of its own."""
    monkeypatch.chdir(node.data_dir.parent)
    for name in [name for name in os.environ if name.startswith("TIDEGATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TIDEGATE_DATA_DIR", str(node.data_dir))
    for module in [module for name, module in sys.modules.items() if name.startswith("tidegate.")]:
        if isinstance(console := getattr(module, "out", None), Console):
            monkeypatch.setattr(console, "_width", 300)
    word, *arguments = shlex.split(command)
    assert word == "tidegate", command
    done = CliRunner().invoke(app, arguments)
    if isinstance(done.exception, Exception) and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


def words(line: str) -> list[str]:
    """Of a line, what is the same on every machine and day."""
    return [word for word in re.split(r"[\s┃│╭─…]+", line) if word and not re.search(r"\d", word)]


def says(output: str, shown: str) -> bool:
    """Whether some line has all the words of the one shown, in their order."""
    for line in output.splitlines():
        there = iter(words(line))
        if all(word in there for word in words(shown)):
            return True
    return False


@pytest.mark.parametrize(
    ("page", "command", "shown"), ASKED, ids=[f"{page}-{place}" for place, (page, _, _) in enumerate(ASKED)]
)
def test_every_command_of_a_page_answers_in_the_shape_shown(
    node: NodeProcess, monkeypatch: pytest.MonkeyPatch, page: str, command: str, shown: str
) -> None:
    if "dlq show" in command:  # places in the log are each node's own
        letters = run(node, "tidegate dlq list", monkeypatch)[1]
        command = re.sub(r"\d+:\d+:\d+", re.findall(r"^\d+:\d+:\d+", letters, re.MULTILINE)[0], command)

    code, output = run(node, command.replace("docs/", f"{ROOT}/docs/"), monkeypatch)

    assert code == 0, output
    for line in shown.splitlines():
        assert says(output, line), (line, output)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "README.md"], ids=lambda page: page.stem)
def test_a_page_says_all_that_is_asked_at_night_and_in_that_order(page: Path) -> None:
    text = page.read_text()

    places = [text.index(part) for part in PARTS]

    assert places == sorted(places)
    first = text[places[2] : places[3]]
    assert len(re.findall(r"^tidegate ", first, re.MULTILINE)) == 3
    assert f"({page.name})" in (page.parent / "README.md").read_text()


def test_every_link_of_a_page_leads_somewhere() -> None:
    for page in PAGES:
        for target, _, anchor in re.findall(r"\]\(((?!http)[^)#]*)(#([^)]*))?\)", page.read_text()):
            there = page.parent / target if target else page
            assert there.is_file(), (page, target)
            assert not anchor or has(there, anchor), (page, target, anchor)


def has(page: Path, anchor: str) -> bool:
    text = page.read_text()
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return f'<a id="{anchor}">' in text or anchor in {title.lower().replace(" ", "-") for title in titles}


def kinds_told() -> set[str]:
    """Every kind of alert that the steps write, as their source names them."""
    found: set[str] = set()
    for file in (ROOT / "processors").rglob("*.py"):
        for call in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            texts = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
            if name == "Alert":
                found |= {
                    word.value.value for word in call.keywords if word.arg == "kind" and isinstance(word.value, ast.Constant)
                }
            elif name in ("tell", "stands"):
                found |= {
                    text
                    for text in texts
                    if isinstance(text, str) and (text.startswith("guardrails_") or text == "policy_file")
                }
            elif name == "Bounded":
                found.add(str(texts[2]))
    return found


def test_every_kind_of_alert_has_a_page_that_is_there() -> None:
    assert kinds_told() == set(KINDS)
    for place in {*KINDS.values(), INDEX}:
        page, _, anchor = place.partition("#")
        assert (ROOT / page).is_file(), place
        assert not anchor or has(ROOT / page, anchor), place


@pytest.mark.parametrize(
    ("measure", "more", "page"),
    [
        ("cost_usd", {}, "budget-exhaustion.md"),
        ("requests", {}, "budget-exhaustion.md"),
        ("unpriced", {}, "budget-exhaustion.md#unpriced"),
        ("error_rate", {"limit": 0.25}, "provider-outage.md"),
        ("latency_p95_s", {"actions": [{"do": "alert"}]}, "provider-outage.md"),
        ("findings", {"finding_type": "phi_leak"}, "phi-leak.md"),
        ("findings", {"finding_type": "US_SSN"}, "phi-leak.md"),
        ("finding_rate", {"limit": 0.2, "finding_type": "toxicity"}, "toxicity-burst.md"),
        ("cost_usd", {"runbook": "https://runbooks.example/mine"}, "https://runbooks.example/mine"),
    ],
)
def test_a_policy_names_the_page_for_what_it_measures_or_its_own(measure: str, more: dict[str, Any], page: str) -> None:
    named = runbook_of_policy(policy(measure=measure, **more))

    assert named == (page if "://" in page else f"docs/runbooks/{page}")
    file, _, anchor = named.partition("#")
    assert "://" in named or ((ROOT / file).is_file() and (not anchor or has(ROOT / file, anchor)))


def test_a_message_names_the_page_below_the_address_of_all_runbooks() -> None:
    stopped = Alert(key="k", kind="meter_stopped", severity="critical", title="t", at=0.0)
    unknown = Alert(key="k", kind="something_new", severity="warning", title="t", at=0.0)

    assert runbook_of(stopped, "") == "docs/runbooks/dead-letter-surge.md#stopped"
    assert (
        runbook_of(stopped, "https://git.example/tidegate/")
        == "https://git.example/tidegate/docs/runbooks/dead-letter-surge.md#stopped"
    )
    assert runbook_of(unknown, "") == INDEX


def test_alerts_that_a_node_writes_name_a_page(node: NodeProcess) -> None:
    told = {row["policy"]: row["runbook"] for row in node.rows("SELECT policy, runbook FROM alerts WHERE kind = 'policy'")}

    assert told["tenant-daily-cost"] == "docs/runbooks/budget-exhaustion.md"
    assert told["phi-leak"] == "docs/runbooks/phi-leak.md"
    assert told["provider-breaker"] == "docs/runbooks/provider-outage.md"
    assert told["unpriced-calls"] == "docs/runbooks/budget-exhaustion.md#unpriced"
