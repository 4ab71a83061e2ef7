"""Debian's Prometheus asks a real node, its rules fire, and Debian's Alertmanager tells; it takes our incidents as well."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from node_process import NodeProcess, eventually
from receivers import Webhook, webhook
from support import response
from tidegate.processors.alert_rows import alert_record
from tidegate.processors.embedded.notifier import NotifierThread
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.settings import Settings
from tidegate.schemas.signal import Alert
from tidegate.schemas.topics import ALERTS
from watchers import Alertmanager, Prometheus, needs_watchers

pytestmark = [needs_watchers, pytest.mark.slow]

TOKEN = "a-token-of-a-test"
# A scrape, an evaluation and a delivery each take a second, and this machine may do other things.
PATIENCE_S = 90.0


@pytest.fixture(scope="module")
def hook() -> Iterator[Webhook]:
    with webhook() as running:
        yield running


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory, hook: Webhook) -> Iterator[Alertmanager]:
    with Alertmanager(tmp_path_factory.mktemp("am") / "am", f"{hook.alertmanager}/told") as running:
        yield running


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory, alertmanager: Alertmanager) -> Iterator[Prometheus]:
    with Prometheus(tmp_path_factory.mktemp("prometheus") / "p", alertmanager.url, TOKEN) as running:
        yield running


def told(hook: Webhook, alertname: str) -> list[tuple[str, Any]]:
    """What Alertmanager told of one alert, in order: (status, labels and annotations)."""
    return [
        (alert["status"], alert)
        for posted in list(hook.posted)
        if posted.path == "/told"
        for alert in posted.body["alerts"]
        if alert["labels"]["alertname"] == alertname
    ]


def calls(first: int, count: int) -> list[dict[str, Any]]:
    """Of every ten one fails, and one takes long."""
    now = datetime.now(UTC).isoformat()
    return [
        response(
            f"call-{number}",
            started_at=now,
            tenant=f"clinic-{number % 3}",
            latency_s=40.0 if number % 10 == 7 else 0.7,
            error_type="overloaded" if number % 10 == 3 else None,
        )
        for number in range(first, first + count)
    ]


def test_prometheus_has_the_sums_of_a_node_through_a_crash_and_tells_of_the_node_that_is_gone(
    prometheus: Prometheus, alertmanager: Alertmanager, hook: Webhook, tmp_path: Path
) -> None:
    began_s = time.time()
    headers = {"Content-Type": "application/x-ndjson", "Authorization": f"Bearer {TOKEN}"}
    events = calls(0, 60)
    with crashing(NodeProcess(tmp_path / "data", TIDEGATE_TOKEN=TOKEN, TIDEGATE_GUARD="false")) as node:
        prometheus.point_at(node.url)
        for start in range(0, 60, 20):
            assert node.post(events[start : start + 20], headers).status == 202
        metered = eventually(lambda: prometheus.number("sum(llm_requests_total)"), lambda found: found == 60, PATIENCE_S)

        # Sums are plain ones; gpt-4o costs 2.50 US dollars a million tokens in, and 10 out.
        assert metered == 60
        whose = Counter(event["tenant"] for event in events)
        assert prometheus.ask("sum by (tenant) (llm_requests_total)") == {
            frozenset({("tenant", tenant)}): count for tenant, count in whose.items()
        }
        assert prometheus.number('sum(llm_requests_total{outcome="overloaded"})') == 6
        assert prometheus.number("sum(llm_cost_total)") == pytest.approx(60 * (1_000 * 2.5 + 100 * 10) / 1e6)
        assert prometheus.number('sum(llm_latency_seconds_bucket{le="1.0"})') == 54
        assert prometheus.number("sum(llm_latency_seconds_count)") == 60
        # Ids of calls to look at, of the slow ones and of those that failed.
        shown = eventually(
            lambda: prometheus.exemplars("llm_latency_seconds_bucket", began_s - 60, time.time() + 60), bool, PATIENCE_S
        )
        slow = {event["call_id"]: event["latency_s"] for event in events if event["latency_s"] == 40.0}
        assert {one["labels"]["call_id"] for one in shown} <= set(slow)
        assert {(float(one["value"]), one["series"]["le"]) for one in shown} == {(40.0, "60.0")}
        failed = prometheus.exemplars("llm_requests_total", began_s - 60, time.time() + 60)
        assert {one["labels"]["call_id"] for one in failed} <= {e["call_id"] for e in events if "error_type" in e}
        assert {one["series"]["outcome"] for one in failed} == {"overloaded"}
        # Before there was a node at all, its absence may have been told.
        assert eventually(lambda: away(prometheus, alertmanager, hook), lambda found: not found, PATIENCE_S) is False
        before = len(told(hook, "TidegateNoNode"))

    gone = eventually(lambda: told(hook, "TidegateNoNode")[before:], bool, PATIENCE_S)
    assert [(status, one["labels"]["severity"]) for status, one in gone] == [("firing", "critical")]
    assert gone[0][1]["annotations"]["runbook_url"] == "docs/runbooks/stale-gates.md"

    with NodeProcess(tmp_path / "data", TIDEGATE_TOKEN=TOKEN, TIDEGATE_GUARD="false") as node:
        prometheus.point_at(node.url)
        assert node.post(calls(60, 20), headers).status == 202

        assert eventually(lambda: prometheus.number("sum(llm_requests_total)"), lambda found: found == 80, PATIENCE_S) == 80
        # No counter of calls has ever gone back: each reset would count everything once more.
        assert prometheus.number("max(resets(llm_requests_total[1h]))") == 0
        assert prometheus.number("max(resets(llm_latency_seconds_sum[1h]))") == 0
        rate = eventually(lambda: prometheus.ask("provider:llm_requests:rate5m"), bool, PATIENCE_S)
        assert [dict(labels)["provider"] for labels in rate] == ["openai"]
        ended = eventually(lambda: told(hook, "TidegateNoNode")[before:], lambda found: found[-1][0] == "resolved", PATIENCE_S)
        assert [status for status, _ in ended] == ["firing", "resolved"]


@contextmanager
def crashing(node: NodeProcess) -> Iterator[NodeProcess]:
    """A node that ends by kill -9."""
    try:
        yield node.__enter__()
    finally:
        node.kill()


def away(prometheus: Prometheus, alertmanager: Alertmanager, hook: Webhook) -> bool:
    """Whether anybody thinks yet that there is no node."""
    said = told(hook, "TidegateNoNode")
    known = [one["labels"]["alertname"] for one in alertmanager.alerts()]
    asked = prometheus.ask('ALERTS{alertname="TidegateNoNode"}')
    return bool(asked) or "TidegateNoNode" in known or (bool(said) and said[-1][0] == "firing")


ON_CALL = """
destinations:
  watch: {{alertmanager: "{alertmanager}"}}
routes:
  - {{to: [watch]}}
timing: {{pending_warning: 0, group_wait: 0}}
runbooks: https://runbooks.example/
"""


class OnCall:
    """A notifier on a folder, at a time of its own that is never ahead of Alertmanager's."""

    def __init__(self, folder: Path, alertmanager: Alertmanager) -> None:
        # Whole seconds: what is written down is rounded to microseconds, which may be up.
        self.now = float(int(time.time()) - 3_600)
        self.log = SqliteLog(folder / "data", fsync="normal")
        file = folder / "on-call.yaml"
        file.write_text(ON_CALL.format(alertmanager=alertmanager.url))
        self.notifier = NotifierThread(folder / "data", Settings(on_call_file=file, fsync="normal"), clock=lambda: self.now)

    def tell(self, state: Any, seconds: float = 0.0) -> None:
        """So many seconds later a budget says this, and whoever is to be told is told."""
        self.now += seconds
        alert = Alert(
            key="policy|tenant-day|tenant=clinic-a,user=dr-anna-weiss",
            kind="policy",
            severity={"ok": "info", "warn": "warning", "block": "critical"}[state],  # type: ignore[arg-type]  # one of these
            title=f"tenant=clinic-a ok → {state}: tenant-day: $12.0000 in the last 24 h, limit $10.0000, 120% of it",
            at=self.now,
            policy="tenant-day",
            scope={"tenant": "clinic-a", "user": "dr-anna-weiss"},
            state=state,
            spend=12.0,
            limit=10.0,
            runbook="budget",
        )
        with self.log.transaction():
            self.log.append(ALERTS.name, 0, [alert_record([alert])])
        self.run()

    def run(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.notifier.run_once()

        def quiet() -> bool:
            self.notifier.run_once()
            return not self.notifier.sending.busy

        assert eventually(quiet, bool, PATIENCE_S)

    def close(self) -> None:
        self.notifier.close()
        self.log.close()


def test_alertmanager_has_an_incident_of_ours_once_and_until_it_is_over(
    alertmanager: Alertmanager, hook: Webhook, tmp_path: Path
) -> None:
    on_call = OnCall(tmp_path, alertmanager)

    def ours() -> list[dict[str, Any]]:
        return [one for one in alertmanager.alerts() if one["labels"]["alertname"] == "tenant-day"]

    try:
        on_call.tell("warn")
        (warned,) = eventually(ours, bool, PATIENCE_S)
        on_call.tell("block", 30)
        on_call.tell("block", 30)
        (blocked,) = eventually(ours, lambda found: [one["labels"]["severity"] for one in found] == ["critical"], PATIENCE_S)
        assert eventually(
            lambda: severities(told(hook, "tenant-day")), lambda found: ("firing", "critical") in found, PATIENCE_S
        )
        (group,) = [one for one in alertmanager.groups() if one["labels"] == {"alertname": "tenant-day"}]
        on_call.tell("ok", 30)
        on_call.run(61)
        left = eventually(ours, lambda found: not found, PATIENCE_S)
        ended = eventually(
            lambda: told(hook, "tenant-day"), lambda found: ("resolved", "critical") in severities(found), PATIENCE_S
        )
    finally:
        on_call.close()

    assert warned["labels"]["severity"] == "warning"
    assert {name: blocked["labels"][name] for name in ("tenant", "kind", "service")} == {
        "tenant": "clinic-a",
        "kind": "policy",
        "service": "tidegate",
    }
    assert blocked["annotations"]["runbook_url"] == "https://runbooks.example/budget"
    assert "limit $10.0000" in blocked["annotations"]["summary"]
    assert [one["labels"]["severity"] for one in group["alerts"]] == ["critical"]
    assert left == []
    # As one alert that began once and became another; and nobody is named.
    assert list(dict.fromkeys(severities(ended))) in (
        [("firing", "warning"), ("resolved", "warning"), ("firing", "critical"), ("resolved", "critical")],
        [("firing", "warning"), ("firing", "critical"), ("resolved", "warning"), ("resolved", "critical")],
    )
    assert len({one["startsAt"] for _, one in ended}) == 1
    assert "anna" not in str([posted.body for posted in hook.posted])


def severities(found: list[tuple[str, Any]]) -> list[tuple[str, str]]:
    return [(status, one["labels"]["severity"]) for status, one in found]
