"""A node in front of a real Kafka: it takes events, sinks and shows what worker processes make of them, and serves gates."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import tidegate
from console_visitor import Visitor
from kafka_broker import needs_broker
from kafka_fleet import Fleet
from kafka_side import KafkaSide
from node_process import NodeProcess, eventually, rows
from node_process import tidegate as command
from support import request, response
from tidegate.bench.kafka.broker import Broker

pytestmark = [needs_broker, pytest.mark.slow]

POLICY = """
policies:
  - name: daily
    scope: [tenant]
    measure: cost_usd
    window: {calendar: day}
    limit: 0.001
    action: block
"""
# gpt-4o, 1,000 tokens in and 100 out: 2.50 and 10 dollars a million.
COST = 3_500_000
LEDGER = "SELECT count() AS calls, uniqExact(call_id) AS ids, sum(cost_nano_usd) AS cost FROM calls"


def calls(prefix: str, count: int, **fields: Any) -> list[dict[str, Any]]:
    return [response(f"{prefix}-{number}", **fields) for number in range(count)]


def ledger(node: NodeProcess, prefix: str = "") -> dict[str, Any]:
    (found,) = node.rows(f"{LEDGER} WHERE startsWith(call_id, '{prefix}')")
    return found


@pytest.fixture(scope="module")
def url(kafka: str) -> str:
    made = f"kafka://{kafka}/node-{uuid4().hex[:12]}"
    KafkaSide(made, partitions=2).make_topics()
    return made


@pytest.fixture(scope="module")
def workers(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("workers")
    (folder / "policies.yaml").write_text(POLICY)
    with Fleet(folder, url, TIDEGATE_POLICY_FILE=str(folder / "policies.yaml")) as fleet:
        for role in ("meter", "policies"):
            fleet.start(role)
        for worker in fleet.workers:
            worker.wait_until_it_works()
        yield fleet


@pytest.fixture(scope="module")
def node(url: str, workers: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("node") / "data", TIDEGATE_URL=url) as running:
        yield running


def test_what_is_posted_is_metered_by_a_worker_and_found_in_the_nodes_store(node: NodeProcess) -> None:
    before = node.settled()["totals"]

    answer = node.post([*calls("posted", 20), request("posted-request"), {"event": "junk"}])
    told = json.loads(answer.data)
    after = node.settled()

    assert (answer.status, told["accepted"], told["rejected"]) == (202, 21, 1)
    assert all(answer.headers[name].isdigit() for name in ("X-Tidegate-Partition", "X-Tidegate-Offset"))
    assert ledger(node, "posted") == {"calls": 20, "ids": 20, "cost": 20 * COST}
    became = {name: after["totals"].get(name, 0) - before.get(name, 0) for name in ("responses", "requests", "rejected")}
    assert became == {"responses": 20, "requests": 1, "rejected": 1}
    assert {row["model"]: row["requests"] for row in after["today"]["models"]}["gpt-4o"] >= 20


def test_a_request_repeated_under_its_idempotency_key_counts_once(node: NodeProcess) -> None:
    for _ in range(3):
        assert node.post(calls("repeated", 5), {"Idempotency-Key": "once"}).status == 202
    node.settled()

    assert ledger(node, "repeated")["calls"] == 5


def test_a_gate_over_http_closes_when_the_budget_is_spent_and_hears_it_was_counted(node: NodeProcess, tmp_path: Path) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with tidegate.connect(node.url, spool_dir=tmp_path) as tide:
        gate = tide.gate
        assert gate is not None
        scope = gate.scope(tenant="lakeside", model="gpt-4o")
        eventually(lambda: gate.check(scope).allowed and node.status()["policies"]["in_force"], bool, 60)

        opened = gate.check(scope).allowed
        tide.emit(response("dear", tenant="lakeside", started_at=now, output_tokens=1_000))
        decision = eventually(lambda: gate.check(scope), lambda found: not found.allowed, 30)

    assert opened
    assert (decision.policy, decision.state, decision.spend) == ("daily", "block", 12_500_000)
    assert gate.check(gate.scope(tenant="st-anne", model="gpt-4o")).allowed
    standing = node.status()["policies"]
    assert {"policy": "daily", "scope": {"tenant": "lakeside"}, "state": "block"} in standing["worst"]


def test_gates_that_ask_the_node_are_announced_to_the_policies(node: NodeProcess) -> None:
    def live(*gates: str) -> set[str]:
        found: set[str] = set()
        for gate in gates:
            answer = json.loads(node.get(f"/v1/signals?after=-1&gate={gate}").data)
            said = {record["key"]: record["value"] for record in answer["records"]}
            found |= set(said.get("gates", {"ids": []})["ids"])
        return found

    heard = eventually(lambda: live("ward-1", "ward-2"), lambda found: {"ward-1", "ward-2"} <= found, 30)

    assert {"ward-1", "ward-2"} <= heard


def test_a_long_poll_ends_with_the_news_and_goes_on_from_its_position(node: NodeProcess) -> None:
    position = json.loads(node.get("/v1/signals?after=-1").data)["position"]

    news = json.loads(node.get(f"/v1/signals?after={position}&wait=10").data)
    again = json.loads(node.get(f"/v1/signals?after={position}").data)
    elsewhere = json.loads(node.get(f"/v1/signals?after={10**9}").data)

    assert news["position"] > position
    assert news["records"]
    assert {record["key"] for record in news["records"]} <= {record["key"] for record in again["records"]}
    assert "policies" in {record["key"] for record in elsewhere["records"]}  # another topic's position: everything anew


def test_query_and_status_ask_the_node_and_say_the_same(node: NodeProcess) -> None:
    node.settled()

    asked = rows(node.data_dir, LEDGER)
    status = json.loads(command("status", "--data", node.data_dir, "--format", "json").stdout)
    panel = command("status", "--data", node.data_dir).stdout.decode()

    assert asked == [ledger(node)]
    assert status["totals"] == node.status()["totals"]
    assert status["url"] == node.url
    assert "1 policies" in panel


def test_doors_for_machines_tell_how_kafka_is(node: NodeProcess) -> None:
    metrics = node.get("/metrics").data.decode()

    assert node.get("/readyz").data == b"ready\n"
    assert node.get("/healthz").status == 200
    for name in ("meter_lag_records", "policies_lag_records", "sink_lag_records", "log_away", "store_away"):
        assert f"\ntidegate_{name} " in metrics
    assert "backlog_bytes" not in metrics  # nobody knows it


def test_a_file_replayed_into_the_nodes_folder_goes_through_kafka_and_counts_once(node: NodeProcess, tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    file.write_bytes(b"".join(json.dumps(call).encode() + b"\n" for call in calls("replayed", 30)))

    first, second = (
        command("replay", file, "--data", node.data_dir, XDG_STATE_HOME=str(tmp_path)).stdout.decode() for _ in range(2)
    )

    assert "30 new calls" in first
    assert "30 already known" in second
    assert ledger(node, "replayed") == {"calls": 30, "ids": 30, "cost": 30 * COST}


def test_a_node_that_is_stopped_or_killed_carries_on_with_everything(kafka_url: str, tmp_path: Path) -> None:
    KafkaSide(kafka_url, partitions=2).make_topics()
    folder = tmp_path / "data"
    with Fleet(tmp_path, kafka_url) as fleet:
        fleet.start("meter").wait_until_it_works()
        with NodeProcess(folder, TIDEGATE_URL=kafka_url) as first:
            assert first.post(calls("first", 40)).status == 202
        killed = NodeProcess(folder, TIDEGATE_URL=kafka_url).__enter__()
        for number in range(20):
            assert killed.post(calls(f"second-{number}", 10)).status == 202
        killed.kill()

        with NodeProcess(folder, TIDEGATE_URL=kafka_url) as last:
            assert last.post(calls("third", 3)).status == 202
            # The killed one's partitions are its own until the group gives it up.
            status = eventually(last.status, lambda found: not found["meter_lag_records"] + found["sink_lag_records"], 60)
            found = ledger(last)

    assert found == {"calls": 243, "ids": 243, "cost": 243 * COST}
    assert status["totals"]["responses"] == 243


def test_a_folder_without_its_node_still_answers_and_says_who_knows_the_rest(kafka_url: str, tmp_path: Path) -> None:
    KafkaSide(kafka_url, partitions=1).make_topics()
    folder = tmp_path / "data"
    with Fleet(tmp_path, kafka_url) as fleet, NodeProcess(folder, TIDEGATE_URL=kafka_url) as node:
        fleet.start("meter")
        assert node.post(calls("kept", 7)).status == 202
        eventually(lambda: ledger(node)["calls"], lambda count: count == 7, 60)

    status = command("status", "--data", folder)
    replayed = command("replay", "-", "--data", folder)

    assert rows(folder, LEDGER) == [{"calls": 7, "ids": 7, "cost": 7 * COST}]
    for refused in (status, replayed):
        assert refused.returncode == 2
        assert f"TIDEGATE_URL={kafka_url} tidegate up" in refused.stderr.decode()


def test_a_node_says_that_kafka_is_away_and_takes_events_when_it_is_back(tmp_path: Path) -> None:
    with Broker(tmp_path / "kafka", port=free_port()) as broker:
        url = f"kafka://{broker.bootstrap}/away"
        KafkaSide(url, partitions=1).make_topics()
        with Fleet(tmp_path, url) as fleet, NodeProcess(tmp_path / "data", TIDEGATE_URL=url) as node:
            fleet.start("meter").wait_until_it_works()
            assert node.post(calls("before", 3)).status == 202
            node.settled()
            broker.kill()

            away = eventually(lambda: node.get("/readyz").data, lambda said: said == b"kafka away\n", 30)
            refused = node.post(calls("while", 3), {"Idempotency-Key": "while"})
            status = node.status()
            broker.start()
            taken = eventually(
                lambda: node.post(calls("while", 3), {"Idempotency-Key": "while"}).status, lambda answered: answered == 202, 60
            )
            eventually(lambda: node.get("/readyz").data, lambda said: said == b"ready\n", 30)
            if not fleet.running("meter"):
                fleet.start("meter")
            found = eventually(lambda: ledger(node), lambda now: now["calls"] == 6, 60)

    assert away == b"kafka away\n"
    assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
    assert (status["log_away"], status["healthy"], status["totals"]["responses"]) == (True, True, 3)
    assert taken == 202
    assert found == {"calls": 6, "ids": 6, "cost": 6 * COST}


def free_port() -> int:
    """Below the range that clients get theirs from: a broker comes back where it was."""
    import socket

    for port in range(21_000, 22_000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


# ---- what cannot be


def refusal(data_dir: Path, *arguments: str | Path, **more: str) -> str:
    """The one line that `tidegate up` ends with."""
    refused = command("up", "--data", data_dir, "--port", "0", *arguments, **more)
    (line,) = refused.stderr.decode().splitlines()
    assert refused.returncode == 2
    assert line.startswith("tidegate: ")
    return line


def test_without_topics_the_node_says_how_to_make_them(kafka_url: str, tmp_path: Path) -> None:
    said = refusal(tmp_path / "data", TIDEGATE_URL=kafka_url)

    assert "`tidegate topics create`" in said
    assert not (tmp_path / "data" / "kafka.json").exists()


def test_policies_are_not_the_nodes_on_kafka(url: str, tmp_path: Path) -> None:
    said = refusal(tmp_path / "data", "--policies", "budget.yaml", TIDEGATE_URL=url)

    assert "TIDEGATE_POLICY_FILE=budget.yaml tidegate worker --role policies" in said


@pytest.mark.parametrize("address", ["kafka://", "kafka://user:secret@broker:9092", "kafka://127.0.0.1:99999"])
def test_an_address_that_is_none_is_told_without_what_may_be_secret(tmp_path: Path, address: str) -> None:
    said = refusal(tmp_path / "data", TIDEGATE_URL=address)

    assert "kafka://broker:9092" in said
    assert "secret" not in said


def test_a_broker_that_is_not_there_is_told(tmp_path: Path) -> None:
    said = refusal(tmp_path / "data", TIDEGATE_URL="kafka://127.0.0.1:1")

    assert "Kafka at 127.0.0.1:1 cannot be reached" in said
    assert "TIDEGATE_URL" in said


def test_a_folder_is_one_kafkas_or_its_own_and_never_both(url: str, kafka_url: str, node: NodeProcess, tmp_path: Path) -> None:
    KafkaSide(kafka_url, partitions=1).make_topics()
    own, ours = tmp_path / "own", tmp_path / "ours"
    with NodeProcess(own):
        pass
    with NodeProcess(ours, TIDEGATE_URL=url):
        pass

    assert "unset TIDEGATE_URL" in refusal(own, TIDEGATE_URL=url)
    assert f"set TIDEGATE_URL={url}" in refusal(ours)
    assert "another Kafka or namespace" in refusal(ours, TIDEGATE_URL=kafka_url)


def test_a_node_with_a_store_of_its_own_does_not_share_the_rows_with_another_sink(node: NodeProcess, tmp_path: Path) -> None:
    url = json.loads((node.data_dir / "kafka.json").read_bytes())["url"]

    refused = command("up", "--data", tmp_path / "second", "--port", "0", TIDEGATE_URL=url, timeout_s=120)
    node.post(calls("still-whole", 9))
    node.settled()

    assert refused.returncode == 2
    assert "another sink writes the rows of this Kafka" in refused.stderr.decode()
    assert "TIDEGATE_STORE" in refused.stderr.decode()
    assert ledger(node, "still-whole")["calls"] == 9


def test_the_console_shows_what_workers_make_of_it_and_hears_people(node: NodeProcess, workers: Fleet) -> None:
    notifier = workers.start("notifier")
    notifier.wait_until_it_works()
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    operator = Visitor(node).signed_in(node.token)

    assert node.post(calls("seen", 3, tenant="seen", started_at=now)).status == 202
    with operator.stream(board="budgets", range="1h", tenant="seen") as stream:
        told = stream.until(lambda name, data: name == "budgets" and any(one["state"] == "block" for one in data["budgets"]))
    with operator.stream(board="overview", range="1h", tenant="seen") as stream:
        panel = stream.until(lambda name, data: name == "panel" and data["key"] == "cost_over_time" and data["rows"])
        status = stream.until(lambda name, data: name == "status")
        opened = stream.until(lambda name, data: name == "incidents" and of_seen(data))
        number = of_seen(opened)[0]["number"]
        assert operator.ask("POST", f"/console/incidents/{number}/ack").status == 200
        acked = stream.until(lambda name, data: name == "incidents" and of_seen(data)[0]["phase"] == "acknowledged")

    [budget] = told["budgets"]
    assert (budget["scope"], budget["limit"], budget["remaining"]) == ({"tenant": "seen"}, 0.001, 0.0)
    assert budget["spend"] == pytest.approx(3 * COST / 1e9)
    assert sum(row[2] or 0 for row in panel["rows"]) == pytest.approx(3 * COST / 1e9)
    assert status["kafka"].startswith("kafka://")
    assert of_seen(acked)[0]["acknowledged_by"].startswith("user:")
    assert [call["call_id"] for call in operator.get("/console/calls", tenant="seen")["calls"]] == [
        "seen-2",
        "seen-1",
        "seen-0",
    ]


def of_seen(told: Any) -> list[dict[str, Any]]:
    return [one for one in told["incidents"] if one["scope"].get("tenant") == "seen"]
