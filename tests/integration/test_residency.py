"""Residency in a node of its own: what may not rest there is on none of its disks, and all who must know hear of it."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from node_process import NodeProcess, eventually, rows, tidegate
from support import envelope, request, response
from tidegate.cli import app
from tidegate.processors.embedded.client import opened
from tidegate.producers.connect import connect
from tidegate.producers.keyring import KeyRing
from tidegate.producers.local_log import LocalLog
from tidegate.producers.sealing import seal
from tidegate.residency_cli import _FOUND, violations
from tidegate.schemas.content import Texts
from tidegate.schemas.residency import Residency
from tidegate.schemas.residency_file import read_map
from tidegate.schemas.settings import Settings
from tidegate.sinks.clickhouse import Store
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "residency.toml"
PAGE = (ROOT / "docs" / "residency.md").read_text()
CANARY = "Rosa-Martinez-MRN-4711"
US, EU = "us-east-1", "eu-west-1"
IN_FORCE = {"TIDEGATE_REGION": US, "TIDEGATE_RESIDENCY_FILE": str(EXAMPLE)}
OF_EU = {"tenant": "nordkyst-klinik", "region": EU, "user": CANARY}
(KEY,) = KeyRing.made().keys


def now() -> str:
    return datetime.now(UTC).isoformat()


def sealed(call_id: str, **fields: Any) -> dict[str, Any]:
    texts = seal(Texts(prompt=CANARY), call_id, KEY)
    event = {"event": "content", "call_id": call_id, "started_at": now(), "mode": "sealed", "key_id": KEY.key_id}
    return event | {"sealed": texts, **fields}


def seen_in(folder: Path, text: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_what_may_not_rest_in_a_nodes_region_is_on_none_of_its_disks_and_is_told(tmp_path: Path) -> None:
    data = tmp_path / "data"
    wrong = sealed("t-eu", **OF_EU)

    with NodeProcess(data, TIDEGATE_GUARD="false", **IN_FORCE) as node:
        events = [response("c-us", region=US, started_at=now()), response("c-eu", started_at=now(), **OF_EU)]
        events += [request("r-none", started_at=now(), user=CANARY), response("c-west", region="us-west-2", started_at=now())]
        answer = json.loads(node.post(events).data)
        of_content = node.post([sealed("t-us", region=US), wrong], path="/v1/content")
        with connect(node.url, region=US, residency_file=EXAMPLE, spool_dir=tmp_path / "spool", gate=False) as service:
            taken = service.emit(response("c-service", started_at=now(), **OF_EU))
            assert service.flush(20)
            stats = service.stats()
        node.settled()
        found = {table: [row["call_id"] for row in node.rows(f"SELECT call_id FROM {table} ORDER BY ALL")]
                 for table in ("calls", "call_requests")}  # fmt: skip
        letters = node.rows("SELECT stage, source, reason, size_bytes FROM dead_letters ORDER BY ALL")
        alerts = node.rows("SELECT kind, severity, title, scope['tenant'] AS tenant FROM alerts ORDER BY ALL")
        metrics = node.get("/metrics").data.decode()
        entries = eventually(
            lambda: node.rows("SELECT details FROM audit WHERE action = 'residency.in_force'"), lambda found: len(found) == 1
        )
        status = node.status()

    assert (answer["accepted"], answer["rejected"]) == (2, 2)
    assert [error["line"] for error in answer["errors"]] == [2, 3]
    assert (of_content.status, json.loads(of_content.data)["accepted"], json.loads(of_content.data)["rejected"]) == (202, 1, 1)
    assert (taken, dict(stats.dropped)) == (False, {"residency": 1})
    assert found == {"calls": ["c-us", "c-west"], "call_requests": []}
    assert {(letter["stage"], letter["source"]) for letter in letters} == {("edge", "http"), ("edge", "emitter")}
    assert all(letter["reason"].startswith("residency: ") for letter in letters)
    assert len(letters) == 3
    assert [(alert["kind"], alert["severity"], alert["tenant"]) for alert in alerts] == [
        ("residency", "critical", ""),
        ("residency", "critical", "nordkyst-klinik"),
    ]
    assert status["totals"]["residency"] == 3
    assert f'tidegate_residency_refusals_total{{from="{EU}",tenant="nordkyst-klinik",to="{US}"}} 2.0' in metrics
    assert 'tidegate_residency_refusals_total{from="untagged",tenant="other",to="us-east-1"} 1.0' in metrics
    assert json.loads(entries[0]["details"])["version"] == read_map(EXAMPLE).version
    assert seen_in(tmp_path, CANARY) == []
    assert seen_in(tmp_path, wrong["sealed"][:60]) == []
    assert tidegate("audit", "verify", "--data", data).returncode == 0
    assert rows(data, "SELECT count() AS n FROM transcripts") == [{"n": 0}]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"TIDEGATE_REGION": ""}, "set TIDEGATE_REGION"),
        ({"TIDEGATE_REGION": "us-east-9"}, "not one of `regions`"),
        ({"TIDEGATE_STORE": "clickhouse://u:p@clickhouse.eu.example.org:8123/t"}, "does not tell the region of the store"),
        ({"TIDEGATE_REGION": EU, "TIDEGATE_STORE": "clickhouse://clickhouse.us.example.org/t"}, f"is in {US}"),
        ({"TIDEGATE_URL": "kafka://kafka.us.example.org", "TIDEGATE_REGION": EU}, f"kafka.us.example.org is in {US}"),
    ],
)
def test_a_node_does_not_start_where_it_would_write_to_another_region(
    tmp_path: Path, settings: dict[str, str], said: str
) -> None:
    found = tidegate("up", "--data", tmp_path / "data", "--port", "0", **(IN_FORCE | settings))

    assert found.returncode == 2
    assert said in " ".join(found.stderr.decode().split())
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("role", ["meter", "sink", "policies", "guardrails"])
def test_no_worker_starts_on_brokers_of_another_region(role: str) -> None:
    settings = IN_FORCE | {"TIDEGATE_REGION": EU, "TIDEGATE_URL": "kafka://kafka.us.example.org", "TIDEGATE_WORKER_PORT": "0"}

    found = tidegate("worker", "--role", role, **settings)

    assert found.returncode == 2
    assert f"Kafka broker kafka.us.example.org is in {US}" in " ".join(found.stderr.decode().split())


# --- the command


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    for name in ("KEY_FILE", "KEYS", "KEY_COMMAND", "DATA_DIR", "URL", "STORE", "REGION", "RESIDENCY_FILE"):
        monkeypatch.delenv(f"TIDEGATE_{name}", raising=False)
    return tmp_path


def run(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["residency", *map(str, arguments)])
    if isinstance(done.exception, Exception) and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output


def test_the_page_shows_the_example_as_the_command_does(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in IN_FORCE.items():
        monkeypatch.setenv(name, value)
    [block] = re.findall(r"```\n\$ tidegate residency show\n(.*?)```", PAGE, re.DOTALL)

    assert block.splitlines() == [line.rstrip() for line in run("show").splitlines()]


def test_check_finds_the_rows_that_were_there_before_the_map(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = here / "tidegate-data"
    placed = [("harbor-health", US), ("harbor-health", "us-west-2"), ("harbor-health", EU), ("harbor-health", None)]
    placed += [("nordkyst-klinik", EU), ("nordkyst-klinik", US), (None, "mars"), ("harbor-health", EU)]
    log = LocalLog(data, fsync="normal")
    log.append([
        envelope("svc", 0, [response(f"c-{n}", tenant=tenant, region=region) for n, (tenant, region) in enumerate(placed)]),
        envelope("svc", len(placed), [request("r-1", tenant="nordkyst-klinik", region=EU)]),
    ])  # fmt: skip
    log.close()
    with opened(data, Settings(data_dir=data, fsync="normal")) as folder:
        folder.settle(lambda _meter, _sink: None)
    for name, value in IN_FORCE.items():
        monkeypatch.setenv(name, value)

    told = [orjson.loads(line) for line in run("check", "--json", code=1).splitlines()]
    said = run("check", code=1)

    # Whatever is not harbor-health's in the United States, of eight calls: told of calls and their hours.
    expected = {("harbor-health", EU): 2, ("harbor-health", None): 1, ("nordkyst-klinik", EU): 1}
    expected |= {("nordkyst-klinik", US): 1, (None, "mars"): 1}
    for table in ("calls", "calls_1h", "calls_1d", "calls_1d_totals"):
        assert {(row["tenant"], row["region"]) for row in told if row["table"] == table} == expected.keys()
    assert {(row["tenant"], row["region"]): row["rows"] for row in told if row["table"] == "calls"} == expected
    assert [row["tenant"] for row in told if row["table"] == "call_requests"] == ["nordkyst-klinik"]
    assert {row["tenant"] for row in told if row["table"] == "usage_ledger"} == {"nordkyst-klinik"}
    assert "may not rest here" in said
    assert "2026-11-02T08:00" in said


def test_check_is_content_with_what_may_rest_here(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = here / "tidegate-data"
    for name, value in IN_FORCE.items():
        monkeypatch.setenv(name, value)
    log = LocalLog(data, fsync="normal")
    log.append([envelope("svc", 0, [response("c-1", region=US), response("c-2", **OF_EU)])])
    log.close()

    said = run("check")

    assert "may rest here" in said
    assert "calls_1d_totals, retrieval_1h, scored_1h, findings_1h, usage_ledger, signals, alerts" in " ".join(said.split())
    # The one that came past a service without a map was met by the meter.
    assert rows(data, "SELECT stage FROM dead_letters") == [{"stage": "meter"}]


def test_without_a_map_the_command_says_what_to_do(here: Path) -> None:
    with pytest.raises(Exception, match="TIDEGATE_RESIDENCY_FILE"):
        run("show")


def test_violations_are_what_the_doors_would_refuse() -> None:
    residency = Residency(read_map(EXAMPLE), "eu-central-1")
    found = [
        {"table": "calls", "tenant": tenant, "region": region, "rows": "3", "first": 0, "last": 60}
        for tenant in ("nordkyst-klinik", "")
        for region in (EU, US, "")
    ]

    told = violations(residency, found)

    assert [(row["tenant"], row["region"]) for row in told] == [
        (None, None),
        (None, EU),
        (None, US),
        ("nordkyst-klinik", None),
        ("nordkyst-klinik", US),
    ]


def test_rows_of_tables_that_tell_no_region_go_by_their_tenant() -> None:
    residency = Residency(read_map(EXAMPLE), US)
    found = [
        {"table": "scored_1h", "tenant": tenant, "region": None, "rows": "3", "first": 0, "last": 60}
        for tenant in ("nordkyst-klinik", "harbor-health", "")
    ]

    told = violations(residency, found)

    assert [(row["tenant"], row["region"]) for row in told] == [("nordkyst-klinik", None)]


def test_check_asks_every_table_that_tells_tenants(tmp_path: Path) -> None:
    with Store.open(path=tmp_path / "data") as store:
        store.migrate()
        for kind, tenant in (("budget", "nordkyst-klinik"), ("residency", "harbor-health"), ("budget", "")):
            store.command(f"INSERT INTO alerts (kind, scope, at) VALUES ('{kind}', map('tenant', '{tenant}'), now())")
        for table in ("retrieval_1h", "scored_1h", "findings_1h", "usage_ledger"):
            store.command(f"INSERT INTO {table} (hour, tenant) VALUES (toStartOfHour(now()), 'nordkyst-klinik')")
        store.command("INSERT INTO signals (scope, at) VALUES (map('tenant', 'nordkyst-klinik'), now())")
        found = [orjson.loads(line) for line in store.query_bytes(_FOUND, "JSONEachRow").splitlines()]

    told = [(row["table"], row["tenant"], row["region"]) for row in found]

    assert sorted(told) == [
        (table, "nordkyst-klinik", None)
        for table in ("alerts", "findings_1h", "retrieval_1h", "scored_1h", "signals", "usage_ledger")
    ]
