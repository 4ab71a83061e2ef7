"""`tidegate incident bundle`: its figures against a plain computation, its hashes, and what must not be in it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
import yaml
from canaries import EMAIL, MRN, NAME, prompt, texts, traces
from node_process import NodeProcess, eventually, tidegate
from support import finding, ndjson, response, scored
from tidegate.dashboards.incident_bundle import MANIFEST, About, archive, files, series_of
from tidegate.processors.folder_mark import keep_to_kafka
from tidegate.processors.incident_facts import Facts, Names, facts, without_people
from tidegate.processors.policy_file import parse_policies
from tidegate.producers.audit_log import AuditLog
from tidegate.producers.connect import connect
from tidegate.schemas.audit import Entry
from tidegate.sinks.clickhouse import Store

START: Final = datetime(2026, 11, 2, 8, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
USER: Final = "rosa.testwell@example.com"
NAMES: Final = Names(b"k" * 32)
PLACED: Final = {"producer": "p", "ingested_at": (START + timedelta(minutes=30)).isoformat(), "source_partition": 0}

Row = dict[str, Any]


def calls() -> list[Row]:
    """Two hours of calls; the second hour is the one that is asked for."""
    found = []
    for number in range(240):
        failed = {"error_type": "overloaded"} if number % 4 == 0 else {}
        found.append(
            response(f"c{number}", started_at=(START + timedelta(seconds=30 * number)).isoformat(), user=USER, **failed)
            | PLACED
            | {"tenant": ("harbor-health", "st-anne")[number % 2], "team": "triage", "prompt_name": "triage"}
            | {"prompt_version": "2.1" if number < 180 else "2.2", "price_status": "priced", "price_book": "b"}
            | {"cost_nano_usd": 1_000_000 + number, "seq": number, "source_offset": number, "source_partition": 0}
        )
    return found


def alert(at: datetime, key: str, severity: str, **more: Any) -> Row:
    told = {"key": key, "kind": "policy", "severity": severity, "title": "t", "policy": key, "scope": {}, "contributors": {}}
    return told | {"at": at.isoformat(timespec="milliseconds")} | more


def alerts() -> list[Row]:
    """One incident that was open before, one of a user that is over, one that a person ended, and a silence."""
    spent = {f"user={USER}": 9.0, "service=triage": 1.0}
    title = f"tenant=harbor-health, user={USER} ok → block: user-day: $12.00 in the last 24 h, limit $10.00"
    scope = {"tenant": "harbor-health", "user": USER}
    day = {"policy": "user-day", "scope": scope, "owner": "finops"}
    well = title.replace("ok → block", "block → ok")

    def at(minutes: int) -> datetime:
        return START + HOUR + timedelta(minutes=minutes)

    return [
        alert(START + timedelta(minutes=10), "breaker", "critical", state="block", title=": breaker: 40 % errors"),
        alert(at(1), "user-day|u", "critical", state="block", title=title, contributors=spent, **day),
        alert(at(2), "silence-1", "info", kind="silenced", policy="", title=f"for {USER}"),
        alert(at(3), "user-day|u", "info", kind="acknowledged", title="acknowledged by ops", **day | {"owner": "ops"}),
        alert(at(9), "user-day|u", "info", state="ok", title=well, **day),
        alert(at(20), "m", "critical", kind="meter_stopped", policy="", title="the meter has stopped"),
        alert(at(30), "m", "info", kind="resolved_by_hand", policy="", owner="ops"),
        alert(START + 3 * HOUR, "later", "critical", state="block"),
    ]


def letters() -> list[Row]:
    shared = {"stage": "edge", "size_bytes": 5, "source_partition": 0, "producer": "clinic"}
    return [
        shared
        | {"at": (START + HOUR + timedelta(minutes=number)).isoformat(), "source_offset": number}
        | {"reason": ("unknown field", "not valid JSON")[number % 3 == 0], "sha256": hashlib.sha256(b"%d" % number).hexdigest()}
        for number in range(9)
    ]


def verdicts() -> list[Row]:
    return [
        scored(f"c{number}", started_at=(START + HOUR).isoformat(), scored_at=(START + HOUR).isoformat(), user=USER)
        | PLACED
        | {"findings": [finding(leak=True, fingerprint="f"), finding(type="PERSON")], "seq": number, "source_offset": number}
        for number in range(5)
    ]


@pytest.fixture
def told(store: Store, tmp_path: Path) -> Facts:
    store.insert("calls", ndjson(calls()), "calls:0:0-1")
    store.insert("alerts", ndjson(alerts()), "alerts:0:0-1")
    store.insert("dead_letters", ndjson(letters()), "letters:0:0-1")
    store.insert("scored_calls", ndjson(verdicts()), "scored:0:0-1")
    audit = AuditLog(tmp_path / "audit", now=lambda: START + HOUR + timedelta(minutes=5))
    audit.append("policies.in_force", details={"version": "abc"})
    entries = [entry for line in audit.lines()[0] if (entry := Entry.parse(line)) is not None]
    return facts(asking(store), NAMES, (START + HOUR).timestamp(), (START + 2 * HOUR).timestamp(), entries)


def asking(store: Store) -> Any:
    return lambda sql: store.query_bytes(sql, "JSONEachRow")


def about() -> About:
    return About(START, "a data folder", None, {"tidegate": "1"}, None, None, {"whole": True}, True)


def read(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


def test_incidents_are_those_of_the_alerts_with_when_and_by_whom_they_ended(told: Facts) -> None:
    found = {episode.policy or episode.kind: episode for episode in told.episodes}

    assert set(found) == {"breaker", "user-day", "meter_stopped"}
    assert found["breaker"].began_before
    assert found["breaker"].ended_at is None
    day = found["user-day"]
    assert (day.opened_at, day.ended_at, day.ended_by) == (
        (START + HOUR + timedelta(minutes=1)).timestamp(),
        (START + HOUR + timedelta(minutes=9)).timestamp(),
        "well again",
    )
    assert day.acknowledged_by == "ops"
    assert day.runbook == "docs/runbooks/budget-exhaustion.md"
    assert found["meter_stopped"].ended_by == "by hand, ops"
    assert found["meter_stopped"].runbook == "docs/runbooks/dead-letter-surge.md#stopped"
    words = [change.words for change in day.changes]
    assert words[0].endswith("ok → block: $12.00 in the last 24 h, limit $10.00")
    assert [line.at for line in told.timeline] == sorted(line.at for line in told.timeline)
    assert any(line.words.startswith("policies.in_force by ") for line in told.timeline)
    assert [line.words for line in told.timeline if line.what == "new"] == ["first call of prompt triage@2.2"]


def test_one_incident_alone_leaves_the_others_out(store: Store, told: Facts) -> None:
    since, until = told.since, told.until

    alone = facts(asking(store), NAMES, since, until, [], only="m")

    assert [episode.kind for episode in alone.episodes] == ["meter_stopped"]
    assert alone.tables["cost"] == told.tables["cost"]


def test_tables_hold_what_the_rows_of_that_time_add_up_to(told: Facts) -> None:
    mine = [row for row in calls() if START + HOUR <= datetime.fromisoformat(row["started_at"]) < START + 2 * HOUR]

    cost = {row["tenant"]: (int(row["calls"]), int(row["failed"]), int(row["nano_usd"])) for row in told.tables["cost"]}

    assert cost == {
        tenant: (
            sum(row["tenant"] == tenant for row in mine),
            sum(row["tenant"] == tenant and "error_type" in row for row in mine),
            sum(row["cost_nano_usd"] for row in mine if row["tenant"] == tenant),
        )
        for tenant in ("harbor-health", "st-anne")
    }
    assert sum(int(row["failed"]) for row in told.tables["errors"]) == sum("error_type" in row for row in mine)
    assert {row["reason"]: int(row["letters"]) for row in told.tables["dead_letters"]} == Counter(
        row["reason"] for row in letters()
    )
    assert {(row["type"], row["leak"]): int(row["places"]) for row in told.tables["findings"]} == {
        ("US_SSN", True): 5,
        ("PERSON", False): 5,
    }


def test_the_bundle_names_nobody_and_its_manifest_proves_every_file(store: Store, told: Facts) -> None:
    series = series_of(asking(store), told.since, told.until)

    made = files(told, series, about())
    again = archive(files(told, series, about()))

    assert archive(made) == again
    whole = b"".join(made.values())
    assert USER.encode() not in whole
    assert NAMES.digest("user", USER).encode() in whole
    assert hashlib.sha256(b"0").hexdigest().encode() not in whole
    proof = json.loads(made[MANIFEST])["files"]
    assert set(proof) == set(made) - {MANIFEST}
    assert {name: one["sha256"] for name, one in proof.items()} == {
        name: hashlib.sha256(content).hexdigest() for name, content in made.items() if name != MANIFEST
    }
    by_minute = Counter(row["started_at"][:16] for row in calls() if row["tenant"] == "st-anne")
    drawn = [row for row in read(made["series/calls_over_time-by-tenant.csv"]) if row["series"] == "st-anne"]
    assert len(drawn) == 60
    assert {row["t"][:16]: float(row["value"]) for row in drawn} == {
        minute: by_minute[minute] for minute in {row["t"][:16] for row in drawn}
    }
    assert b"<script" not in made["index.html"]
    assert b"name, but those of who acted" in made["index.html"]


def test_what_a_service_calls_itself_is_text_in_a_spreadsheet_and_on_the_page(store: Store) -> None:
    evil = '=HYPERLINK("http://x")|<img src=x>'
    row = calls()[0] | {"tenant": evil, "started_at": START.isoformat()}
    store.insert("calls", ndjson([row]), "calls:0:0-1")
    found = facts(asking(store), NAMES, START.timestamp(), (START + HOUR).timestamp(), [])

    made = files(found, series_of(asking(store), found.since, found.until), about())

    assert read(made["tables/cost.csv"])[0]["tenant"] == f"'{evil}"
    assert b"<img" not in made["index.html"] + made["timeline.md"]


def test_policies_are_told_without_the_people_whom_limits_name() -> None:
    text = f"""
policies:
  - name: user-day
    scope: [tenant, user]
    measure: requests
    window: {{rolling: 24h}}
    limit: 9
    limits:
      - {{scope: {{tenant: harbor-health, user: {USER}}}, limit: 100}}
    action: block
"""
    policies = parse_policies(Path("p.yaml"), text.encode())

    told = without_people(policies, NAMES)

    assert USER not in json.dumps(told)
    assert told["version"] == policies.version
    assert told["policies"][0]["limits"][0]["scope"] == {"tenant": "harbor-health", "user": NAMES.digest("user", USER)}


# People as YAML lets them be written: what is looked for is what the file means.
SPELLED: Final = r"""
policies:
  - name: user-day
    scope: [user]
    measure: requests
    window: {rolling: 24h}
    limit: 2
    limits:
      - {scope: {user: 'pat o''brien'}, limit: 3}
      - {scope: {user: "J\u00fcrgen Kr\u00e4mer"}, limit: 4}
    action: block
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One call, in the store, and no node."""
    data = tmp_path / "data"
    with connect(str(data), producer_id="clinic", gate=False) as tide:
        assert tide.emit(response("c1", started_at=datetime.now(UTC).isoformat()))
        assert tide.flush(60)
    asked = tidegate("query", "SELECT count() FROM calls", "--data", data)
    assert asked.returncode == 0, asked.stderr
    return data


def test_a_policy_files_people_are_digests_however_they_are_spelled(folder: Path, tmp_path: Path) -> None:
    policies, to = tmp_path / "policies.yaml", tmp_path / "b.zip"
    policies.write_text(SPELLED)

    done = tidegate("incident", "bundle", "--since", "1h", "--out", to, "--data", folder, TIDEGATE_POLICY_FILE=str(policies))

    assert done.returncode == 0, done.stderr
    told = yaml.safe_load(opened(to)["policy_file.yaml"])["policies"][0]
    assert (told["name"], len(told["limits"])) == ("user-day", 2)
    assert all(row["scope"]["user"].startswith("~") for row in told["limits"])
    whole = b"".join(opened(to).values()).lower()
    assert [name for name in ("brien", "rgen kr") if name.encode() in whole] == []


def test_a_policy_file_that_is_not_taken_does_not_keep_the_bundle_from_being_made(folder: Path, tmp_path: Path) -> None:
    policies, to = tmp_path / "policies.yaml", tmp_path / "b.zip"
    policies.write_text(SPELLED.replace("limit: 2", f'limit: "{NAME}"'))

    done = tidegate("incident", "bundle", "--since", "1h", "--out", to, "--data", folder, TIDEGATE_POLICY_FILE=str(policies))

    assert done.returncode == 0, done.stderr
    assert b"without the policy file: " in done.stderr
    assert b"limit: must be a number" in done.stderr
    made = opened(to)
    assert orjson.loads(made["policies.json"])["file_problem"] == "ValidationError"
    assert sum(int(row["calls"]) for row in read(made["tables/cost.csv"])) == 1
    assert "policy_file.yaml" not in made
    assert NAME.encode() not in b"".join(made.values())


POLICIES: Final = f"""
# asked for by {NAME}
policies:
  - name: user-day
    scope: [tenant, user]
    measure: requests
    window: {{rolling: 24h}}
    limit: 2
    limits:
      - {{scope: {{tenant: harbor-health, user: "{EMAIL}"}}, limit: 3}}
    action: block
  - name: patient
    scope: [label.patient]
    measure: requests
    window: {{rolling: 24h}}
    limit: 2
    action: block
"""


def opened(path: Path) -> Mapping[str, bytes]:
    with zipfile.ZipFile(path) as bundle:
        assert bundle.testzip() is None
        return {name: bundle.read(name) for name in bundle.namelist()}


def test_no_byte_of_what_a_patient_said_is_in_a_bundle_with_a_node_and_without_one(tmp_path: Path) -> None:
    data, policies = tmp_path / "data", tmp_path / "policies.yaml"
    policies.write_text(POLICIES)
    more = {"TIDEGATE_POLICY_FILE": str(policies), "TIDEGATE_GUARD_DETECTORS": '["phi"]'}
    beside, alone = tmp_path / "beside.zip", tmp_path / "alone.zip"

    with NodeProcess(data, **more) as node:
        with connect(str(data), producer_id="clinic", gate=False) as tide:
            for number in range(6):
                call = response(f"c{number}", started_at=datetime.now(UTC).isoformat(), user=EMAIL, labels={"patient": MRN})
                assert tide.emit(call)
                assert tide.emit_content(call, texts(number))
            assert tide.flush(60)
        assert node.post(b'{"event": "response", "prompt": "%b"}' % prompt(0).encode()).status == 202
        status = eventually(
            node.status, lambda now: now["totals"].get("scored") == 6 and sum(now["notifier"]["incidents"].values()) >= 2, 120
        )
        assert status["totals"].get("scored") == 6, status
        node.settled()
        said = tidegate("incident", "bundle", "--since", "1h", "--out", beside, "--data", data, **more)
        number = tidegate("incident", "bundle", "--incident", "1", "--out", tmp_path / "one.zip", "--data", data, **more)
        unknown = tidegate("incident", "bundle", "--incident", "99", "--out", tmp_path / "no.zip", "--data", data, **more)
    later = tidegate("incident", "bundle", "--since", "1h", "--out", alone, "--data", data, **more)

    assert (said.returncode, number.returncode, later.returncode) == (0, 0, 0), said.stderr + number.stderr + later.stderr
    assert (unknown.returncode, b"no incident 99 is open" in unknown.stderr) == (2, True)
    assert len(json.loads(opened(tmp_path / "one.zip")["incidents.json"])) == 1
    for made in (opened(beside), opened(alone), opened(tmp_path / "one.zip")):
        assert {name: traces(content) for name, content in made.items() if traces(content)} == {}
        assert EMAIL.encode() not in b"".join(made.values())
    for made in (opened(beside), opened(alone)):
        episodes = orjson.loads(made["incidents.json"])
        assert {episode["policy"] for episode in episodes} == {"user-day", "patient"}
        assert all(episode["number"] for episode in episodes)
        assert orjson.loads(made["audit_proof.json"])["whole"] is True
        assert orjson.loads(made["status.json"])["totals"]["responses"] == 6
        assert orjson.loads(made["policies.json"])["now"]["policies"][0]["name"] == "user-day"
        assert b"name: user-day" in made["policy_file.yaml"]
        assert orjson.loads(made["policies.json"])["file_problem"] is None
        assert read(made["tables/findings.csv"])
        assert sum(int(row["letters"]) for row in read(made["tables/dead_letters.csv"])) == 1
    exported = [json.loads(line) for line in (data / "audit.jsonl").read_bytes().splitlines() if b"incident.exported" in line]
    assert [entry["details"]["sha256"] for entry in exported][0::2] == [
        hashlib.sha256(path.read_bytes()).hexdigest() for path in (beside, alone)
    ]


def test_of_a_kafka_nodes_folder_it_tells_what_the_store_knows_and_says_what_it_could_not_ask(tmp_path: Path) -> None:
    data, to = tmp_path / "data", tmp_path / "bundle.zip"
    data.mkdir()
    keep_to_kafka(data, "kafka://127.0.0.1:9", "cluster", "")
    with Store.open(path=data / "store") as store:
        store.migrate()
        store.insert("calls", ndjson(calls()), "calls:0:0-1")
        store.insert("alerts", ndjson(alerts()), "alerts:0:0-1")

    since, until = (START + HOUR).isoformat(), (START + 2 * HOUR).isoformat()
    done = tidegate("incident", "bundle", "--since", since, "--until", until, "--out", to, "--data", data)

    assert done.returncode == 0, done.stderr
    made = opened(to)
    assert {episode["policy"] for episode in orjson.loads(made["incidents.json"])} == {"breaker", "user-day", None}
    assert orjson.loads(made["status.json"]) is None
    assert orjson.loads(made["audit_proof.json"])["whole"] is False
    assert "TIDEGATE_URL" in " ".join(orjson.loads(made["audit_proof.json"])["remarks"])
    assert USER.encode() not in b"".join(made.values())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--out", "b.zip"), b"say from when on"),
        (("--since", "1h", "--out", "b.tar"), b"end its name with .zip"),
        (("--since", "yesterday", "--out", "b.zip"), b"--since yesterday: give a duration"),
        (("--since", "1h", "--until", "2h", "--out", "b.zip"), b"--since must be before --until"),
        (("--since", "1h", "--out", "b.zip"), b"holds no Tidegate data"),
    ],
)
def test_what_is_wrong_with_a_command_is_said(tmp_path: Path, arguments: tuple[str, ...], said: bytes) -> None:
    refused = tidegate("incident", "bundle", *arguments, "--data", tmp_path / "none")

    assert (refused.returncode, said in refused.stderr) == (2, True), refused.stderr
    assert not (tmp_path / "b.zip").exists()
