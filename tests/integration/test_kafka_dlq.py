"""Dead letters on Kafka: kept sealed by the meter, mended and metered once; and a brake that leaves what waits where it is."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import kafka_ledger as ledger
import orjson
import pytest
import urllib3
from kafka_broker import needs_broker
from kafka_fleet import Fleet, Worker, eventually
from node_process import NodeProcess, tidegate
from support import envelope, response
from tidegate.cli import app
from tidegate.processors.distributed.topics import create_topics
from tidegate.producers.kafka_log import KafkaLog
from tidegate.schemas.envelope import Envelope, partition_of
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import ALERTS, CALLS, DEAD_LETTERS, METERED, REFUSED
from typer.testing import CliRunner

pytestmark = [pytest.mark.slow, needs_broker]

HTTP = urllib3.PoolManager(timeout=10.0, retries=False)
CANARY = "Zqann4711"
TOLD = response("c-told", note=f"{CANARY} has a rash")


@pytest.fixture(autouse=True)
def _with_a_ring(kafka_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    CliRunner().invoke(app, ["keys", "make", "--file", "ring.json"])
    monkeypatch.setenv("TIDEGATE_KEY_FILE", str(tmp_path / "ring.json"))
    monkeypatch.setenv("TIDEGATE_URL", kafka_url)


def run(*arguments: object) -> str:
    """What a command prints. Raises what it raises."""
    done = CliRunner().invoke(app, ["dlq", *map(str, arguments)])
    if isinstance(done.exception, Exception) and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.stdout
    return done.stdout


def listed() -> list[str]:
    return [json.loads(one)["letter"] for one in run("list", "--json").splitlines()]


def send(url: str, *envelopes: Envelope) -> None:
    log = KafkaLog(Settings(url=url))
    for one in envelopes:
        log.append([one])
    log.close()


def metered(url: str) -> list[dict[str, Any]]:
    return list(ledger.rows(url, METERED))


def stopped(worker: Worker) -> bool:
    return "tidegate_meter_stopped 1.0" in HTTP.request("GET", f"{worker.doors}/metrics").data.decode()


def test_a_line_is_kept_sealed_mended_replayed_twice_and_metered_once(kafka_url: str, tmp_path: Path) -> None:
    asyncio.run(create_topics(Settings(url=kafka_url), partitions=2, policy_partitions=1))
    ring = str(tmp_path / "ring.json")
    with Fleet(tmp_path, kafka_url, TIDEGATE_KEY_FILE=ring) as fleet:
        fleet.start("meter")
        send(kafka_url, envelope("triage-1", 0, [response("c-good"), TOLD, b"{"]))
        home = partition_of("triage-1", 2)
        eventually(lambda: len(listed()) == 2, what="two letters")
        names, opened = listed(), run("show", f"{home}:0:1", "--open")
        run("fix", f"{home}:0:1", "--unset", "note")
        run("replay", f"{home}:0:1")
        # Whoever was cut off before the letter was let go of sends it again, under the same name.
        [again] = [one for one in ledger.records(kafka_url, CALLS) if (one.key or b"").startswith(b"dead-letter:")]
        send(kafka_url, Envelope.from_record(ledger.headers_of(again), again.value))
        run("drop", f"{home}:0:2")
        eventually(lambda: ledger.totals(kafka_url).get("duplicates") == 1, what="the second replay")
        calls = metered(kafka_url)

    told = [orjson.loads(one) for record in ledger.records(kafka_url, DEAD_LETTERS) for one in record.value.split(b"\n")]
    audit = [orjson.loads(one) for one in (tmp_path / "tidegate-data" / "audit.jsonl").read_bytes().splitlines()]
    acts = [(one["action"], one["details"]) for one in audit if one["action"].startswith("letters.")]
    assert acts == [
        ("letters.opened", {"letter": f"{home}:0:1"}),
        ("letters.fixed", {"letter": f"{home}:0:1"}),
        ("letters.replayed", {"letters": [f"{home}:0:1"]}),
        ("letters.dropped", {"letters": [f"{home}:0:2"]}),
    ]
    done = [(row["seq"], row["reason"]) for row in told if row["stage"] == "person"]
    assert names == [f"{home}:0:1", f"{home}:0:2"]
    assert CANARY in opened
    assert sorted(row["call_id"] for row in calls) == ["c-good", "c-told"]
    assert sorted(done) == [(1, "fixed"), (1, "replayed"), (2, "dropped")]
    assert listed() == []
    assert not any(CANARY.encode() in (record.value or b"") for record in ledger.records(kafka_url, REFUSED))


def test_one_partition_stops_others_go_on_a_restart_loses_nothing_and_a_person_lets_it_go_on(
    kafka_url: str, tmp_path: Path
) -> None:
    asyncio.run(create_topics(Settings(url=kafka_url), partitions=2, policy_partitions=1))
    names = {partition_of(name, 2): name for name in (f"service-{number}" for number in range(20))}
    here = [name for name in (f"bad-{number}" for number in range(40)) if partition_of(name, 2) == 0][:12]
    bad = [envelope(name, 0, [TOLD] * 10) for name in here]
    with Fleet(tmp_path, kafka_url, TIDEGATE_BRAKE_LINES="40") as fleet:
        worker = fleet.start("meter")
        worker.wait_until_it_works()
        send(kafka_url, *bad, envelope(names[0], 0, [response("c-behind")]))
        eventually(lambda: stopped(worker), what="the brake")
        send(kafka_url, envelope(names[1], 0, [response("c-beside")]))
        eventually(lambda: [row["call_id"] for row in metered(kafka_url)] == ["c-beside"], what="the other partition")
        eventually(lambda: ledger.totals(kafka_url).get("responses") == 1, what="its changelog")
        refused = ledger.totals(kafka_url)["dead_letters"]
        fleet.stop(worker)

        again = fleet.start("meter")
        again.wait_until_it_works()
        eventually(lambda: stopped(again), what="the brake after a restart")
        calls = tmp_path / "calls.jsonl"
        calls.write_bytes(b"".join(orjson.dumps(response(f"c-late-{number}")) + b"\n" for number in range(40)))
        with NodeProcess(tmp_path / "node", TIDEGATE_URL=kafka_url, TIDEGATE_GUARD="false") as node:
            eventually(lambda: node.status()["meters_stopped"] == [0], what="the node sees it")
            name = next(name for name in (f"late-{number}" for number in range(40)) if partition_of(name, 2) == 0)
            late = tidegate("replay", calls, "--producer", name, "--data", node.data_dir, TIDEGATE_URL=kafka_url)
            alerts = [orjson.loads(one) for record in ledger.records(kafka_url, ALERTS) for one in record.value.split(b"\n")]
        said = run("resume")
        eventually(lambda: ledger.totals(kafka_url).get("responses") == 42, what="what waited")
        after = ledger.totals(kafka_url)

    # Four envelopes of ten bad lines; after the restart it stood where it was, and then took all that waited.
    assert refused == 40
    assert "records wait for them" in said
    # Told by the worker that stopped, and by none that found it stopped.
    assert [(alert["kind"], alert["severity"]) for alert in alerts] == [("meter_stopped", "critical")]
    assert late.returncode == 2
    assert b"wait behind a meter that has stopped" in late.stderr
    assert {"c-behind", "c-beside"} <= {row["call_id"] for row in metered(kafka_url)}
    assert (after["dead_letters"], after["responses"], after.get("duplicates", 0), after.get("lost", 0)) == (120, 42, 0, 0)
