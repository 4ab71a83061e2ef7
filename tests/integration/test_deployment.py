"""What the deployment files ask of real engines: the broker takes compose's settings."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from deployment import services
from kafka_broker import needs_broker
from tidegate.bench.kafka import broker as launcher
from tidegate.bench.kafka.broker import Broker
from tidegate.processors.distributed.topic_plan import plan
from tidegate.processors.distributed.topics import check_topics, create_topics
from tidegate.schemas.settings import Settings

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
