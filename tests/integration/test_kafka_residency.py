"""Residency on Kafka: what a service without a map has put there is not metered or kept, and is told of once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import kafka_ledger as ledger
import orjson
import pytest
import urllib3
from kafka_broker import needs_broker
from kafka_fleet import Fleet, eventually
from support import envelope, response
from tidegate.processors.distributed.topics import create_topics
from tidegate.producers.connect import connect
from tidegate.producers.kafka_log import KafkaLog
from tidegate.producers.keyring import KeyRing
from tidegate.schemas.residency_file import read_map
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import ALERTS, AUDIT, CALLS, DEAD_LETTERS, METERED, REFUSED, Topic

pytestmark = [pytest.mark.slow, needs_broker]

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "residency.toml"
CANARY = "Zqann4711"
US, EU = "us-east-1", "eu-west-1"
OF_EU = {"tenant": "nordkyst-klinik", "region": EU, "user": CANARY}


def rows(url: str, topic: Topic) -> list[dict[str, Any]]:
    return [orjson.loads(one) for record in ledger.records(url, topic) for one in record.value.split(b"\n")]


def test_a_meter_refuses_what_may_not_rest_in_its_region_and_services_with_a_map_do_not_send_it(
    kafka_url: str, tmp_path: Path
) -> None:
    asyncio.run(create_topics(Settings(url=kafka_url), partitions=1, policy_partitions=1))
    ring = KeyRing.made().dump().decode()

    with Fleet(tmp_path, kafka_url, TIDEGATE_KEYS=ring, TIDEGATE_REGION=US, TIDEGATE_RESIDENCY_FILE=str(EXAMPLE)) as fleet:
        worker = fleet.start("meter")
        with connect(kafka_url, region=US, residency_file=EXAMPLE, spool_dir=tmp_path / "spool", gate=False) as service:
            taken = [service.emit(response("c-us", region=US)), service.emit(response("c-kept-back", **OF_EU))]
            assert service.flush(30)
        log = KafkaLog(Settings(url=kafka_url))
        log.append([envelope("without-a-map", 0, [response("c-eu", **OF_EU), response("c-west", region="us-west-2"), b"{"])])
        log.close()
        eventually(lambda: len(rows(kafka_url, DEAD_LETTERS)) == 3, what="the dead letters")
        eventually(lambda: rows(kafka_url, ALERTS), what="an alert")
        page = urllib3.request("GET", f"{worker.doors}/metrics").data.decode()

    sent = [one.value for one in ledger.records(kafka_url, CALLS) if b"c-us" in one.value or b"rejected" in one.value]
    assert taken == [True, False]
    assert sorted(row["call_id"] for row in rows(kafka_url, METERED)) == ["c-us", "c-west"]
    assert sorted(row["stage"] for row in rows(kafka_url, DEAD_LETTERS)) == ["edge", "meter", "meter"]
    assert [(alert["kind"], alert["key"]) for alert in rows(kafka_url, ALERTS)] == [
        ("residency", f"residency|nordkyst-klinik|{EU}|{US}")
    ]
    assert f'tidegate_residency_refusals_total{{from="{EU}",tenant="nordkyst-klinik",to="{US}"}} 2.0' in page
    [in_force] = [one for one in rows(kafka_url, AUDIT) if one["action"] == "residency.in_force"]
    assert in_force["details"]["version"] == read_map(EXAMPLE).version
    assert sent
    assert not any(CANARY.encode() in value for value in sent)
    # Nor is the line that nobody can read: it may be of any region.
    assert ledger.records(kafka_url, REFUSED) == []
