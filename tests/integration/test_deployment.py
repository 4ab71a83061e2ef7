"""What the deployment files ask of real engines: the broker takes compose's settings, the store answers every panel."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment import dashboards, services, targets
from kafka_broker import needs_broker
from tidegate.bench.kafka import broker as launcher
from tidegate.bench.kafka.broker import Broker
from tidegate.processors.distributed.topic_plan import plan
from tidegate.processors.distributed.topics import check_topics, create_topics
from tidegate.schemas.settings import Settings
from tidegate.sinks.clickhouse import Store

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TIDEGATE_") and name != "TIDEGATE_KAFKA_CACHE"]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


# the broker


def properties(environment: dict[str, str], places: dict[str, str]) -> str:
    """What the image makes of its environment: KAFKA_A_B is a.b. `places` are written anew, for this machine."""
    lines = []
    for name, value in environment.items():
        if name.startswith("KAFKA_") and name != "KAFKA_HEAP_OPTS":
            for there, here in places.items():
                value = value.replace(there, here)
            lines.append(f"{name.removeprefix('KAFKA_').lower().replace('_', '.')}={value}")
    return "\n".join((*lines, ""))


@needs_broker
def test_a_broker_with_composes_settings_starts_and_has_nothing_to_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = services()["kafka"]["environment"]
    (outside,) = launcher._free_ports(1)

    def written(data: Path, inside: int, controller: int) -> str:
        here = "127.0.0.1"
        places = {"/var/lib/kafka/data": str(data), "kafka:": f"{here}:", "//:": f"//{here}:"}
        ports = {":9092": f":{inside}", ":9093": f":{controller}", ":9094": f":{outside}"}
        return properties(environment, places | ports)

    monkeypatch.setattr(launcher, "_properties", written)
    monkeypatch.setattr(launcher, "_cluster_id", lambda _: environment["CLUSTER_ID"])
    with Broker(tmp_path / "kafka"):
        settings = Settings(url=f"kafka://127.0.0.1:{outside}")
        made = asyncio.run(create_topics(settings, partitions=2))
        problems = asyncio.run(check_topics(settings))

    assert [one.topic for one in made] == [one.topic for one in plan()]
    assert problems == []


# the dashboards


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with some calls, a dead letter and an alert of the last hour."""
    found = Store.open(path=tmp_path_factory.mktemp("store"))
    try:
        found.migrate()
        now = found.query("SELECT now()").rows[0][0]
        calls = [
            {
                "event": "response",
                "call_id": f"call-{number}",
                "started_at": now.isoformat(),
                "tenant": "harbor-health" if number % 2 else "o'hara",
                "provider_name": "anthropic",
                "request_model": "claude-sonnet-4-5",
                "prompt_name": "triage",
                "prompt_version": "2.1",
                "input_tokens": 100,
                "output_tokens": 10,
                "cache_read_tokens": 40,
                "latency_s": 1.0 + number / 10,
                "time_to_first_token_s": 0.25,
                "error_type": "" if number else "timeout",
                "cost_nano_usd": 1_000_000,
                "price_status": "priced",
            }
            for number in range(10)
        ]
        found.insert("calls", b"\n".join(json.dumps(call).encode() for call in calls), token="calls")
        letter = {"at": now.isoformat(), "stage": "meter", "size_bytes": 3, "sha256": "", "reason": "not JSON"}
        found.insert("dead_letters", json.dumps(letter).encode(), token="letters")
        alert = {"at": now.isoformat(), "key": "k", "kind": "policy", "severity": "warning", "title": "half is spent"}
        found.insert("alerts", json.dumps(alert).encode(), token="alerts")
        yield found
    finally:
        found.close()


def written_out(sql: str) -> str:
    """A panel's question as Grafana's plugin would send it for the last day, with both tenants chosen."""
    macros = {
        r"\$__timeFilter\((\w+)\)": r"(\1 >= now() - INTERVAL 1 DAY AND \1 <= now() + INTERVAL 1 MINUTE)",
        r"\$__timeInterval\((\w+)\)": r"toStartOfInterval(toDateTime(\1), INTERVAL 60 second)",
        r"\$__conditionalAll\((.*), \$tenant\)": r"\1",
        r"\$\{tenant:singlequote\}": r"'harbor-health', 'o\\'hara'",
    }
    for macro, meaning in macros.items():
        sql = re.sub(macro, meaning, sql)
    assert "$" not in sql, "a macro that the test does not know"
    return sql


PANELS = {name: target["rawSql"] for name, target in targets("clickhouse")}


@pytest.mark.parametrize("name", PANELS)
def test_the_store_answers_every_panel(store: Store, name: str) -> None:
    table = store.query(written_out(PANELS[name]))

    assert table.rows
    assert not any(kind.startswith(("Array", "Map", "Tuple")) for kind in table.types), "a panel cannot draw that"


def test_a_line_has_a_time_and_a_number(store: Store) -> None:
    for name, target in targets("clickhouse"):
        if target["queryType"] == "timeseries":
            table = store.query(written_out(target["rawSql"]))
            assert table.columns[0] == "time", name
            assert table.types[0].startswith("DateTime"), name
            assert re.match(r"(Nullable\()?(U?Int|Float|Decimal)", table.types[-1]), name


def test_the_panels_tell_what_is_in_the_store(store: Store) -> None:
    def answer(title: str) -> list[tuple[object, ...]]:
        return store.query(written_out(PANELS[f"usage.json: {title}"])).rows

    assert answer("Spend") == [(0.01,)]
    assert answer("Calls") == [(10,)]
    assert answer("Errors") == [(0.1,)]
    assert answer("Calls without a price") == [(0,)]
    assert {row[1] for row in answer("Spend by tenant")} == {"harbor-health", "o'hara"}
    assert [row[1:] for row in answer("Errors by type")] == [("timeout", 1)]
    assert [row[1:] for row in answer("Tokens")] == [(600, 400, 100)]


def test_the_choice_of_tenants_is_those_of_the_store(store: Store) -> None:
    (variable,) = [v for _, board in dashboards() for v in board["templating"]["list"]]

    assert [row[0] for row in store.query(variable["query"]).rows] == ["harbor-health", "o'hara"]
