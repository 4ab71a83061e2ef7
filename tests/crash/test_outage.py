"""The store is killed under load and comes back later: `bench/outage.py`, in seconds instead of half an hour.

What is lost, doubled or out of order raises there. Whoever starts while the store is away must work all the same.
"""

from __future__ import annotations

from pathlib import Path

import kafka_ledger
import pytest
from kafka_broker import needs_broker
from kafka_fleet import Fleet
from node_process import NodeProcess, eventually
from support import response
from tidegate.bench.chdb_server import ChdbServer, Inserted
from tidegate.bench.kafka.broker import Broker
from tidegate.bench.kafka.engine import make_topics
from tidegate.bench.outage import Plan, endure, in_order
from tidegate.producers.connect import connect
from tidegate.schemas.topics import METERED
from tidegate.sinks.clickhouse import Store

PLAN = Plan(before_s=3, away_s=12, probe_s=1, calls_per_s=60)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["node", pytest.param("kafka", marks=needs_broker)])
def test_an_outage_of_the_store_under_load_loses_and_doubles_nothing_and_shuts_gates_as_ever(
    engine: str, tmp_path: Path
) -> None:
    found = endure(engine, PLAN, tmp_path)

    _, during, _ = found.shut_s
    assert found.calls >= PLAN.calls_per_s * PLAN.away_s
    assert found.sink_lag[1] > 2 * found.sink_lag[0], "hardly anything waited: the test tests little"
    assert len(during) >= 3
    assert found.told_after_s < PLAN.away_s
    # A line or two a try, each try twice as late as the one before.
    assert found.said < 30


@pytest.mark.slow
def test_a_node_that_starts_while_the_store_is_away_meters_and_writes_the_rows_when_it_is_back(tmp_path: Path) -> None:
    server = ChdbServer(tmp_path / "store")
    calls = [response(f"call-{number}", input_tokens=number) for number in range(50)]

    with NodeProcess(tmp_path / "data", TIDEGATE_STORE=server.dsn) as node:
        taken = node.post(calls)
        metered = eventually(node.status, lambda status: status["totals"].get("responses") == 50)
        ready, metrics = node.get("/readyz"), node.get("/metrics").data.decode()
        with server:
            settled = eventually(node.status, lambda status: not status["sink_lag_records"], 60)
            with Store.open(dsn=server.dsn) as store:
                rows = store.query("SELECT count(), sum(input_tokens) FROM calls").rows

    assert taken.status == 202
    assert metered["totals"]["responses"] == 50
    assert ready.status == 200
    assert "\ntidegate_store_away 1.0" in metrics
    assert not settled["store_away"]
    assert rows == [(50, sum(range(50)))]


@pytest.mark.slow
@needs_broker
def test_meters_that_start_while_the_store_is_away_meter(tmp_path: Path) -> None:
    server = ChdbServer(tmp_path / "store")  # not started
    with Broker(tmp_path / "kafka") as broker:
        url = f"kafka://{broker.bootstrap}"
        make_topics(url)
        with Fleet(tmp_path, url, TIDEGATE_STORE=server.dsn) as fleet:
            fleet.start("meter").wait_until_it_works()
            with connect(url, gate=False, spool_dir=tmp_path / "spool") as emitter:
                for number in range(50):
                    emitter.emit(response(f"call-{number}"))
            rows = eventually(lambda: list(kafka_ledger.rows(url, METERED)), lambda found: len(found) == 50, 60)

    assert len(rows) == 50


def batch(first: int, last: int, *sources: int, partition: int = 0) -> Inserted:
    ascending = list(sources) == sorted(sources)
    return Inserted(f"tidegate.metered:{partition}:{first}-{last}", len(sources), {"0": (sources[0], sources[-1], ascending)})


def test_batches_in_order_are_counted_and_one_that_was_sent_again_is_told() -> None:
    found = in_order([batch(0, 1, 3, 4), batch(2, 2, 5), batch(2, 2, 5), Inserted("audit:1", 1, {})])

    assert found == (2, 1)


@pytest.mark.parametrize(
    ("inserts", "told"),
    [
        ([batch(0, 1, 3, 4), batch(3, 4, 5, 6)], "does not follow upon 2"),
        ([batch(2, 3, 3, 4), batch(0, 1, 1, 2)], "does not follow upon 0"),
        ([batch(0, 1, 4, 3)], "out of order"),
        ([batch(0, 1, 3, 4), batch(2, 3, 4, 5)], "out of order"),
    ],
)
def test_a_gap_and_rows_out_of_order_are_told(inserts: list[Inserted], told: str) -> None:
    with pytest.raises(RuntimeError, match=told):
        in_order(inserts)
