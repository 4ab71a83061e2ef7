"""Notifiers on a real broker: one works, another takes over; people are told once, and their words are heard."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from kafka_broker import needs_broker
from kafka_fleet import Fleet, eventually
from receivers import webhook
from tidegate.processors.distributed.incident_desk import KafkaDesk
from tidegate.processors.distributed.topics import create_topics
from tidegate.schemas.settings import Settings
from tidegate.schemas.signal import Alert

ON_CALL = """
destinations: {{hook: {{url: "{url}"}}, watch: {{alertmanager: "{alertmanager}"}}}}
routes: [{{to: [hook, watch]}}]
timing: {{pending_warning: 0, group_wait: 0}}
"""


def blocked(tenant: str, state: Any = "block") -> Alert:
    return Alert(
        key=f"policy|tenant-day|tenant={tenant}",
        kind="policy",
        severity="info" if state == "ok" else "critical",
        title=f"tenant={tenant} ok → {state}: tenant-day: $12.0000 in the last 24 h",
        at=time.time(),
        policy="tenant-day",
        scope={"tenant": tenant},
        state=state,
    )


@pytest.mark.slow
@needs_broker
def test_a_notifier_that_is_killed_is_followed_by_another_and_each_incident_is_one_page(tmp_path: Path, kafka_url: str) -> None:
    url = kafka_url
    settings = Settings(url=url)
    asyncio.run(create_topics(settings, partitions=2, policy_partitions=1))
    with webhook() as hook, Fleet(tmp_path, url, TIDEGATE_ON_CALL_FILE=str(tmp_path / "on-call.yaml")) as fleet:
        (tmp_path / "on-call.yaml").write_text(ON_CALL.format(url=hook.url, alertmanager=hook.alertmanager))
        desk = KafkaDesk(settings)
        desk.say(blocked("before-anybody-was-there"))
        first = fleet.start("notifier")
        first.wait_until_it_works()
        eventually(lambda: len(desk.incidents()) == 1, what="history is known")
        second = fleet.start("notifier")
        second.wait_until_it_works()

        for number in range(20):
            desk.say(blocked(f"t{number}"))
            if number == 10:
                fleet.kill(first)
        told = {f"t{number}" for number in range(20)}
        eventually(lambda: opened(hook) == told, what="all are told")
        eventually(lambda: not desk.deliveries(), what="all has arrived")
        acked = command(url, "alerts", "ack", "2", "--by", "kim")
        eventually(lambda: {one.phase for one in desk.incidents() if one.number == 2} == {"acknowledged"}, what="heard")
        listed = command(url, "alerts", "list")
        desk.close()
        fleet.stop(second)

    assert acked.returncode == listed.returncode == 0, acked.stderr.decode() + listed.stderr.decode()
    assert "acknowledged by kim" in listed.stdout.decode()
    assert "21 incidents open" in listed.stdout.decode()
    keys = Counter(posted.key for posted in hook.posted if posted.path == "/hook")
    # One that was being sent when its notifier was killed may come again, under the same key.
    assert sum(keys.values()) - len(keys) <= 1
    titles = [posted.body["title"] for posted in hook.posted if posted.path == "/hook"]
    assert not any("before-anybody" in title for title in titles)


def opened(hook: Any) -> set[str]:
    return {alert["labels"]["tenant"] for posted in hook.posted if posted.path == "/api/v2/alerts" for alert in posted.body}


def command(url: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
    return subprocess.run(
        [sys.executable, "-m", "tidegate", *arguments],
        env={**environment, "TIDEGATE_URL": url},
        capture_output=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
