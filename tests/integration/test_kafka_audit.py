"""Workers have no folder: what they do is told on Kafka, copied into the store, and whatever is done to it is found."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from kafka_broker import needs_broker
from kafka_fleet import Fleet, eventually
from kafka_side import KafkaSide
from node_process import NodeProcess, tidegate
from tidegate.schemas.audit import Entry
from tidegate.schemas.topics import AUDIT
from tidegate.sinks.clickhouse import Store

pytestmark = [pytest.mark.slow, needs_broker]

POLICIES = """policies:
  - {name: daily, scope: [tenant], measure: cost_usd, window: {calendar: day}, limit: 1, action: block}
"""


def verified(data: Path, url: str) -> tuple[int, str]:
    done = tidegate("audit", "verify", "--data", data, TIDEGATE_URL=url)
    return done.returncode, (done.stdout + done.stderr).decode()


def test_what_workers_do_is_told_copied_and_proved(kafka_url: str, tmp_path: Path) -> None:
    kafka, data, policies = KafkaSide(kafka_url), tmp_path / "data", tmp_path / "policies.yaml"
    kafka.make_topics()
    policies.write_text(POLICIES)

    def told(action: str) -> list[Entry]:
        found = [Entry.parse(record.value) for record in kafka.read(AUDIT)]
        assert None not in found
        return [entry for entry in found if entry is not None and entry.action.startswith(action)]

    with NodeProcess(data, TIDEGATE_URL=kafka_url) as node:
        with Fleet(tmp_path, kafka_url, TIDEGATE_POLICY_FILE=str(policies)) as fleet:
            first, killed = fleet.start("policies"), fleet.start("meter")
            first.wait_until_it_works()
            killed.wait_until_it_works()
            eventually(lambda: len(told("policies.in_force")) == 1)
            policies.write_text(POLICIES.replace("limit: 1", "limit: 2"))
            eventually(lambda: len(told("policies.in_force")) == 2)
            fleet.kill(killed)
            fleet.stop(first)
            second = fleet.start("policies")
            second.wait_until_it_works()
            fleet.stop(second)
        everything = told("")
        copied = "SELECT count() AS entries FROM audit WHERE log IN (SELECT log FROM audit WHERE action = 'worker.started')"
        eventually(lambda: node.rows(copied) == [{"entries": len(everything)}])
        while_running = verified(data, kafka_url)

    by_log: dict[str, list[str]] = {}
    for entry in everything:
        by_log.setdefault(entry.log, []).append(entry.action)
    assert sorted(by_log.values()) == [
        ["worker.started"],
        ["worker.started", "policies.in_force", "policies.in_force", "worker.stopped"],
        ["worker.started", "worker.stopped"],
    ]
    one, other = (orjson.loads(entry.details) for entry in told("policies.in_force"))
    assert (one["version"] != other["version"], one["policies"], one["file_owner_uid"]) == (True, 1, policies.stat().st_uid)
    assert {orjson.loads(entry.details)["role"] for entry in told("worker.started")} == {"meter", "policies"}
    assert while_running[0] == 0, while_running[1]
    assert "Workers told 7 entries on Kafka, in 3 logs of their own" in while_running[1]

    victim = told("policies.in_force")[0]
    with Store.open(path=data / "store") as store:
        store._writer.command(f"DELETE FROM audit WHERE log = '{victim.log}' AND seq = {victim.seq}")
    taken_out = verified(data, kafka_url)
    kafka.write(AUDIT, [(None, victim.line())])
    doubled = verified(data, kafka_url)

    assert (taken_out[0], f"entry {victim.seq} of log {victim.log} is missing in the store" in taken_out[1]) == (1, True)
    assert (doubled[0], f"entry {victim.seq} of log {victim.log} stands twice" in doubled[1]) == (1, True)


def test_whoever_does_not_say_where_kafka_is_is_told_to(kafka_url: str, tmp_path: Path) -> None:
    KafkaSide(kafka_url).make_topics()
    with NodeProcess(tmp_path / "data", TIDEGATE_URL=kafka_url):
        pass

    refused = tidegate("audit", "verify", "--data", tmp_path / "data")

    assert refused.returncode == 2
    assert f"set TIDEGATE_URL={kafka_url}".encode() in refused.stderr
