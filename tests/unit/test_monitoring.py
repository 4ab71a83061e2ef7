"""Prometheus, its rules, Alertmanager and Grafana: everything they name is there, and every metric is one that we emit.

Expressions are parsed by a port of Prometheus's parser; names and labels are held against what the registries of nodes, workers
and services really expose. What Prometheus's own checker says, and what the rules do, is in test_prometheus_rules.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import promql_parser
import pytest
from deployment import DASHBOARDS, ROOT, dashboards, mounted, ours, read, services, targets
from memory_log import MemoryLog
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from signalling import MemorySignals
from support import LogRecord, envelope, finding, response, scored
from tidegate.processors import exposition
from tidegate.processors.aggregate import ScopeSets, UsageState
from tidegate.processors.call_account import CallAccount
from tidegate.processors.distributed.roles import BY_NAME
from tidegate.processors.distributed.worker_doors import WorkerMetrics
from tidegate.processors.embedded.metrics import Metrics
from tidegate.processors.enforcement import Beat
from tidegate.processors.guardrails.runtime import Tally
from tidegate.processors.guardrails.telling import told
from tidegate.processors.meter import MeterState, meter
from tidegate.processors.pricing import PriceBook
from tidegate.processors.residency_alerts import Refusals
from tidegate.processors.sending import Sending
from tidegate.producers.emitter import Emitter
from tidegate.producers.metrics import ServiceMetrics
from tidegate.schemas.call import TOKEN_FIELDS
from tidegate.schemas.errors import GateClosed
from tidegate.schemas.metrics import METRICS, OK
from tidegate.schemas.residency import CrossRegion
from tidegate.schemas.settings import Settings
from tidegate.schemas.usage import ERROR_TYPES

PROMETHEUS: Final = read(ROOT / "deploy" / "prometheus" / "prometheus.yml")
ALERTMANAGER: Final = read(ROOT / "deploy" / "alertmanager" / "alertmanager.yml")
DATASOURCES: Final = read(ROOT / "deploy" / "grafana" / "provisioning" / "datasources" / "tidegate.yml")["datasources"]
JOBS: Final = {job["job_name"]: job for job in PROMETHEUS["scrape_configs"]}
SERVICES: Final = services()
# What Prometheus itself adds to every sample.
TARGET_LABELS: Final = {"job", "instance"}


# what is emitted


@dataclass(frozen=True, slots=True)
class Writing:
    """What a sink tells of itself."""

    rows: int = 5
    batches: int = 2
    batch_seconds: float = 0.5
    refused_rows: int = 1
    lost_records: int = 1
    store_away: bool = False

    def lag(self) -> dict[tuple[str, int], int]:
        return {("tidegate.metered", 0): 3}


def judged() -> Tally:
    """What guardrails tell of themselves."""
    tally = Tally(restarts={"crash": 1}, seconds={"phi": 1.5})
    tally.outcomes["scored"] = tally.failed["phi"] = tally.findings["phi", "PERSON"] = 1
    return tally


# What a notifier tells of itself.
TELLING: Final = {"incidents": {"firing": 1}, "waiting": 1, "sent": 2, "failed": 1, "given_up": 1, "problem": None}


def counted() -> dict[int, CallAccount]:
    """What a meter has counted of a call, and of a verdict on it."""
    state = MeterState(0, UsageState(ScopeSets(())))
    verdict = scored(
        provider_name="openai",
        detectors={"phi": "1", "faithfulness": "1"},
        findings=[finding(detector="faithfulness", start=0, end=4)],
        evidence=[{"start": 0, "end": 9, "score": 0.1, "source": "context", "source_start": 0, "source_end": 9}],
    )
    events = [response(time_to_first_token_s=0.2, error_type="timeout"), verdict]
    meter(state, [LogRecord.of(0, envelope("triage-1", 0, events))], PriceBook.load(None), 86_400.0)
    state.usage.account.tell(state.usage.account.copies())
    return {0: state.usage.account}


def service_page() -> str:
    registry = CollectorRegistry()
    settings = Settings(content="off", gate_unheard="closed")
    with Emitter(MemoryLog(), settings=settings, signals=MemorySignals) as emitter:
        assert emitter.gate is not None
        with contextlib.suppress(GateClosed):
            emitter.gate.reserve({"tenant": "harbor-health"})
    emitter.emit(response())
    registry.register(ServiceMetrics(emitter))
    return exposition.page(registry, None)[0].decode()


def node_page() -> str:
    status: dict[str, Any] = {
        "totals": {},
        "meter_lag_records": 0,
        "policies_lag_records": 0,
        "sink_lag_records": 0,
        "store_away": False,
        "log_away": False,
        "guardrails": told(judged()),
        "notifier": TELLING,
        "guardrails_lag_records": 0,
        "backlog_bytes": 0,
        "gates": 1,
        "policies_beat_at": 1.0,
        "quarantine": {"bytes": 1, "pushed_out": 0},
        "meters_stopped": [],
        "dead_letters": {"bytes": 1},
        "residency": [{"tenant": "other", "from": "eu-west-1", "to": "us-east-1", "refused": 2}],
    }
    metrics = Metrics(lambda: status, counted)
    metrics.ingested(1, 1, 100)
    metrics.refused(503)
    return metrics.render()[0].decode()


def worker_page(role: str) -> str:
    metrics = WorkerMetrics(role)
    metrics.events.labels("events").inc()
    if role == "sink":
        metrics.sink(Writing())
    elif role == "notifier":
        metrics.notifier, metrics.lags = lambda: TELLING, lambda: {("tidegate.alerts", 0): 3}
    elif role == "guardrails":
        metrics.guardrails(lambda: told(judged()), lambda: {("tidegate.content", 0): 3})
    elif role == "policies":
        metrics.lags, metrics.beat = lambda: {("tidegate.usage", 0): 3}, lambda: Beat(1.0, 1)
    else:
        metrics.accounts = counted
        metrics.lags, metrics.stopped = lambda: {("tidegate.calls", 0): 3}, lambda: 0
        metrics.refusals = Refusals(None)
        metrics.refusals.wrote([CrossRegion("st-anne", "eu-west-1", "us-east-1")])
    return metrics.render()[0].decode()


def pages() -> dict[str, str]:
    return {"node": node_page(), "service": service_page(), **{role: worker_page(role) for role in BY_NAME}}


PAGES: Final = pages()
FAMILIES: Final = {where: list(text_string_to_metric_families(page)) for where, page in PAGES.items()}


def emitted() -> dict[str, set[str]]:
    """The labels of every sample by its name."""
    found: dict[str, set[str]] = {"up": set(TARGET_LABELS)}
    for families in FAMILIES.values():
        for family in families:
            for sample in family.samples:
                found.setdefault(sample.name, set(TARGET_LABELS)).update(sample.labels)
    return found


EMITTED: Final = emitted()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_tells_every_sample_once(page: str) -> None:
    """Prometheus would take the first and drop the others."""
    names = [line.rpartition(" ")[0] for line in PAGES[page].splitlines() if line and not line.startswith("#")]

    assert sorted(names) == sorted(set(names))


DEFINED: Final = {definition.name: definition for definition in METRICS}
# What a Python process tells of each counter and histogram of its own besides.
CREATED: Final = "_created"


def test_every_metric_is_defined_once() -> None:
    assert len(DEFINED) == len(METRICS)
    assert all(re.fullmatch(r"(tidegate|llm)_[a-z_]+(?<!_total)", name) for name in DEFINED)
    assert all("user" not in definition.labels for definition in METRICS)


@pytest.mark.parametrize("where", PAGES)
def test_a_page_shows_what_is_defined_for_it_and_nothing_else(where: str) -> None:
    shown = {family.name: family for family in FAMILIES[where] if not family.name.endswith(CREATED)}

    assert set(shown) == {definition.name for definition in METRICS if where in definition.shown_by}
    for name, family in shown.items():
        definition = DEFINED[name]
        assert (family.type, family.documentation) == (definition.kind, definition.meaning)
        assert family.samples, name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(definition.labels), name


def test_the_page_of_metrics_is_the_list_of_definitions() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()

    told = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| `")]
    assert told == [
        [
            f"`{definition.sample}`",
            definition.kind,
            ", ".join(definition.labels) or "–",
            ", ".join(definition.shown_by),
            definition.meaning,
        ]
        for definition in METRICS
    ]


# expressions


def all_rules(kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """By name: `record` or `alert`."""
    for name in PROMETHEUS["rule_files"]:
        for group in read(mounted(SERVICES["prometheus"], f"/etc/prometheus/{name}"))["groups"]:
            for rule in group["rules"]:
                if kind in rule:
                    yield rule[kind], rule


def rules() -> Iterator[tuple[str, dict[str, Any]]]:
    return all_rules("alert")


RECORDED: Final = {name: rule["expr"] for name, rule in all_rules("record")}
EXPRESSIONS: Final = {
    **RECORDED,
    **{name: rule["expr"] for name, rule in rules()},
    **{f"{name} {target['refId']}": target["expr"] for name, target in targets("prometheus")},
}


def nodes(expression: str, kind: type) -> list[Any]:
    """The parts of an expression of one kind. Raises `ValueError` when it is none of PromQL."""
    found: list[Any] = []
    promql_parser.walk(promql_parser.parse(expression), found.append)
    return [node for node in found if isinstance(node, kind)]


def labels_of(expression: str) -> set[str]:
    """The labels that what it yields has."""
    aggregates = nodes(expression, promql_parser.AggregateExpr)
    if aggregates:
        found = set(aggregates[0].modifier.labels) if aggregates[0].modifier else set()
    else:
        found = set().union(*(EMITTED[selector.name] for selector in nodes(expression, promql_parser.VectorSelector)))
    return found - {"le"} if "histogram_quantile" in expression else found


# Each is there for the rules behind it.
for recorded, expression in RECORDED.items():
    EMITTED[recorded] = labels_of(expression)


def test_a_recording_rule_is_named_by_the_labels_that_it_keeps() -> None:
    for name in RECORDED:
        level, _, _ = name.partition(":")
        assert level == "llm_error_budget" or set(level.split("_")) == EMITTED[name], name


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_metric_and_label_that_is_asked_for_is_emitted(name: str) -> None:
    selectors = nodes(EXPRESSIONS[name], promql_parser.VectorSelector)

    assert selectors
    for selector in selectors:
        assert selector.name in EMITTED
        assert {matcher.name for matcher in selector.matchers.matchers} <= EMITTED[selector.name]


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_what_is_grouped_by_is_a_label_of_what_is_grouped(name: str) -> None:
    for aggregate in nodes(EXPRESSIONS[name], promql_parser.AggregateExpr):
        if aggregate.modifier is not None:
            selectors = nodes(aggregate.expr.prettify(), promql_parser.VectorSelector)
            for selector in selectors:
                assert set(aggregate.modifier.labels) <= EMITTED[selector.name]


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_value_that_is_asked_for_can_occur(name: str) -> None:
    allowed = {"job": set(JOBS), "role": set(BY_NAME), "outcome": outcomes() | {OK, *ERROR_TYPES}}
    allowed["type"] = {name.removesuffix("_tokens") for name in TOKEN_FIELDS}

    for selector in nodes(EXPRESSIONS[name], promql_parser.VectorSelector):
        for matcher in selector.matchers.matchers:
            assert set(matcher.value.split("|")) <= allowed[matcher.name]


def outcomes() -> set[str]:
    """What can become of an event, the words that the meter counts by, and of a message to people."""
    return set(Sending(lambda *_, **__: None).counts()) | set(
        re.findall(r'_count\([a-z._]+, "([a-z_]+)"', (ROOT / "processors" / "meter.py").read_text())
    )


def test_a_counter_is_asked_for_its_growth_and_a_gauge_for_its_value() -> None:
    growing = re.compile(r"_(total|bucket|sum|count)\Z")

    for name, expression in EXPRESSIONS.items():
        within = {s.vector_selector.name for s in nodes(expression, promql_parser.MatrixSelector)}
        for selector in nodes(expression, promql_parser.VectorSelector):
            if selector.name in RECORDED:
                continue
            assert (selector.name in within) is bool(growing.search(selector.name)), f"{name}: {selector.name}"


# rules


def test_every_alert_has_a_name_of_its_own_and_says_how_bad_and_what_to_do() -> None:
    names = [name for name, _ in rules()]

    assert len(set(names)) == len(names)
    for name, rule in rules():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}, name
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert (f'<a id="{anchor}"></a>{rule["alert"]}' if anchor else "# ") in (ROOT / page).read_text()
        assert len(rule["annotations"]["description"]) > 40


def test_what_an_alert_tells_of_is_a_label_that_it_has() -> None:
    for name, rule in rules():
        told = set(re.findall(r"\$labels\.([a-z_]+)", " ".join(rule["annotations"].values())))
        assert told <= labels_of(rule["expr"]), name


@pytest.mark.parametrize(
    "subject",
    ["meter", "policies", "sink", "store", "log_away", "events", 'lag_records\\{role="meter"', 'lag_records\\{role="sink"'],
)
def test_the_troubles_that_matter_have_an_alert(subject: str) -> None:
    assert any(re.search(subject, rule["expr"]) for _, rule in rules())


# prometheus


def test_every_service_with_metrics_of_ours_is_asked_at_its_port() -> None:
    environment = {"node": "8400", **dict.fromkeys(BY_NAME, "8401")}

    assert set(JOBS) == {"prometheus", "node", *BY_NAME}
    assert JOBS["node"]["static_configs"][0]["targets"] == [f"node:{environment['node']}"]
    for role in BY_NAME:
        (found,) = JOBS[role]["dns_sd_configs"]
        assert found["names"] == [role]
        assert role in ours()
        assert (found["type"], str(found["port"])) == ("A", environment[role])


def test_the_nodes_token_comes_from_a_secret_that_is_mounted() -> None:
    secret = JOBS["node"]["authorization"]["credentials_file"].removeprefix("/run/secrets/")

    assert secret in SERVICES["prometheus"]["secrets"]
    assert "authorization" not in JOBS["meter"]


def test_alerts_reach_alertmanager() -> None:
    (managers,) = PROMETHEUS["alerting"]["alertmanagers"]

    assert managers["static_configs"][0]["targets"] == ["alertmanager:9093"]
    assert mounted(SERVICES["prometheus"], "/etc/prometheus/prometheus.yml").is_file()
    assert "--config.file=/etc/prometheus/prometheus.yml" in SERVICES["prometheus"]["command"]


# alertmanager


def test_alerts_are_routed_to_receivers_that_exist() -> None:
    receivers = {receiver["name"] for receiver in ALERTMANAGER["receivers"]}

    assert mounted(SERVICES["alertmanager"], "/etc/alertmanager/alertmanager.yml").is_file()
    assert ALERTMANAGER["route"]["receiver"] in receivers
    assert {route["receiver"] for route in ALERTMANAGER["route"].get("routes", ())} <= receivers


def test_an_alert_that_silences_another_exists_and_so_does_the_other() -> None:
    names = {name for name, _ in rules()}

    for rule in ALERTMANAGER["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            label, _, value = re.split(r"\s*(=~|=)\s*", matcher)
            assert label == "alertname"
            assert set(value.strip('"').split("|")) <= names


# grafana


def test_a_data_source_leads_to_a_service() -> None:
    hosts = {
        source["uid"]: source.get("url", "").removeprefix("http://").partition(":")[0] or source["jsonData"]["host"]
        for source in DATASOURCES
    }

    assert hosts == {"prometheus": "prometheus", "clickhouse": "clickhouse", "alertmanager": "alertmanager"}


def test_the_store_is_read_by_the_reader_with_a_password_from_the_environment() -> None:
    (store,) = [source for source in DATASOURCES if source["uid"] == "clickhouse"]
    environment = SERVICES["grafana"]["environment"]

    assert store["jsonData"]["username"] == "reader"
    assert store["secureJsonData"]["password"].removeprefix("$") in environment
    assert environment["GF_PLUGINS_PREINSTALL_SYNC"].partition("@")[0] == store["type"]


def test_dashboards_are_found_where_they_are_mounted() -> None:
    grafana = SERVICES["grafana"]
    (provider,) = read(mounted(grafana, "/etc/grafana/provisioning") / "dashboards" / "tidegate.yml")["providers"]

    assert mounted(grafana, provider["options"]["path"]).resolve() == DASHBOARDS
    home = mounted(grafana, grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert home.is_file()


BOARDS: Final = dict(dashboards())


def test_dashboards_have_names_of_their_own() -> None:
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS) == 7
    assert len({board["title"] for board in BOARDS.values()}) == len(BOARDS)


@pytest.mark.parametrize("name", BOARDS)
def test_panels_stand_side_by_side_and_ask_a_source_that_exists(name: str) -> None:
    panels = BOARDS[name]["panels"]
    sources = {source["uid"]: source["type"] for source in DATASOURCES}

    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["targets"]
        for target in (panel, *panel["targets"]):
            assert sources[target["datasource"]["uid"]] == target["datasource"]["type"]


def test_thresholds_rise() -> None:
    configured = [panel["fieldConfig"]["defaults"] for board in BOARDS.values() for panel in board["panels"]]
    thresholds = [defaults["thresholds"]["steps"] for defaults in configured if "thresholds" in defaults]

    assert any(len(steps) > 2 for steps in thresholds)
    for levels in thresholds:
        steps = [step["value"] for step in levels]
        assert steps[0] is None
        assert all(low < high for low, high in pairwise(steps[1:]))
