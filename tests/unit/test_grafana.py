"""Grafana's dashboards are the boards: what is kept in deploy/ is what the code makes, and the SDK reads it back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from deployment import DASHBOARDS, ROOT, dashboards, services
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from tidegate.dashboards import grafana
from tidegate.dashboards.boards import BOARDS, sources
from tidegate.dashboards.panel import VARIABLES, Panel
from tidegate.dashboards.workers import MEASURES

KEPT: Final = dict(dashboards())
PANELS: Final = {f"{board.key}.{panel.key}": panel for board in BOARDS for panel in board.panels}
PAGE: Final = (ROOT / "docs" / "dashboards.md").read_text()
READER: Final = (ROOT / "deploy" / "clickhouse" / "reader.xml").read_text()
# Dimensions of calls: what a name may be of.
NAMES: Final = {"by", "model", "prompt", "error_type", None}


def test_what_is_kept_is_what_the_code_makes(tmp_path: Path) -> None:
    """If not: python -m tidegate.dashboards.grafana deploy/grafana/dashboards"""
    grafana.main(tmp_path)

    assert {file.name: file.read_text() for file in DASHBOARDS.iterdir()} == {
        file.name: file.read_text() for file in tmp_path.iterdir()
    }


@pytest.mark.parametrize("name", KEPT)
def test_the_sdk_reads_a_dashboard_and_loses_nothing(name: str) -> None:
    register_default_plugins()

    read = Dashboard.from_json(KEPT[name])

    assert json.loads(json.dumps(read, cls=JSONEncoder)) == KEPT[name]


def drawn(name: str) -> dict[str, dict[str, Any]]:
    return {panel["title"]: panel for panel in KEPT[name]["panels"]}


@pytest.mark.parametrize("name", PANELS)
def test_a_panel_asks_what_its_definition_asks(name: str) -> None:
    panel, board = PANELS[name], name.partition(".")[0]
    (target,) = drawn(f"{board}.json")[panel.title]["targets"]

    # The parameters put back are the definition.
    sql = target["rawSql"]
    for variable in VARIABLES:
        sql = sql.replace(grafana.FILLED_IN[variable.name], f"{{{variable.name}:{variable.kind}}}")
    assert sql == panel.sql.strip()
    assert "$" not in sql
    assert target["queryType"] == ("timeseries" if panel.shape == "series" else "table")


@pytest.mark.parametrize("name", PANELS)
def test_a_definition_uses_what_there_is(name: str) -> None:
    panel = PANELS[name]
    kinds = {variable.name: variable.kind for variable in VARIABLES}

    assert {(given, kinds.get(given)) for given, _ in parameters(panel)} == parameters(panel)
    assert panel.more is None or panel.more in {board.key for board in BOARDS}
    assert panel.series_of in NAMES
    assert bool(panel.columns) == (panel.shape == "table")
    assert all(column.drill is None or column.drill in kinds for column in panel.columns)
    assert panel.series_of != "by" or "{by:" in panel.sql


def parameters(panel: Panel) -> set[tuple[str, str]]:
    return set(re.findall(r"\{(\w+):(\w+)\}", panel.sql))


@pytest.mark.parametrize("name", PANELS)
def test_who_looks_through_grafana_may_read_what_a_panel_reads(name: str) -> None:
    sql = PANELS[name].sql
    defined = set(re.findall(r"(?:WITH|,)\s+(\w+) AS\s*\(", sql))

    read = set(re.findall(r"(?<!FILL )(?:FROM|JOIN)\s+([a-z]\w+)", sql)) - defined
    assert read
    assert read <= set(re.findall(r"GRANT SELECT ON tidegate\.(\w+)", READER))


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.key)
def test_a_board_fits_on_a_page(board: Any) -> None:
    assert 6 <= len(board.panels) <= 10
    assert len({panel.key for panel in board.panels}) == len({panel.title for panel in board.panels}) == len(board.panels)
    assert sum(panel.width for panel in board.panels) % 12 == 0, "a row with a hole"


def test_variables_are_chosen_as_the_console_has_them() -> None:
    tenant, by = (variable for variable in VARIABLES if variable.choices)
    asked = {v["name"]: v for v in KEPT["overview.json"]["templating"]["list"]}

    assert asked.keys() == {tenant.name, by.name}
    # "All" goes into a question as it stands, with its quotes.
    assert asked["tenant"]["allValue"] == f"'{tenant.default}'"
    assert asked["tenant"]["includeAll"]
    assert not asked["tenant"].get("multi")
    assert asked["by"]["query"].split(",") == list(by.choices)
    assert asked["by"]["current"]["value"] == by.default
    for name, board in KEPT.items():
        used = {word for word in ("tenant", "by") if f"${{{word}:" in json.dumps(board["panels"])}
        assert used <= {v["name"] for v in board["templating"]["list"]}, name


def test_what_prometheus_knows_is_on_the_pipeline_alone() -> None:
    def of_prometheus(name: str) -> list[str]:
        return [title for title, panel in drawn(name).items() if panel["datasource"]["type"] == "prometheus"]

    assert of_prometheus("pipeline.json") == [measure.title for measure in MEASURES]
    assert not any(of_prometheus(name) for name in KEPT if name != "pipeline.json")


def test_panels_are_of_the_plugin_that_compose_installs() -> None:
    plugin, _, version = services()["grafana"]["environment"]["GF_PLUGINS_PREINSTALL_SYNC"].partition("@")

    targets = [target for board in KEPT.values() for panel in board["panels"] for target in panel["targets"]]
    assert {target.get("pluginVersion", version) for target in targets} == {version}
    assert {target["datasource"]["type"] for target in targets} == {plugin, "prometheus"}


def test_the_page_tells_of_every_panel_in_its_own_words() -> None:
    rows = re.findall(r"^\| (.+) \| (.+) \|$", PAGE, re.MULTILINE)
    told = [(panel.title, panel.about) for board in BOARDS for panel in board.panels]

    assert [row for row in rows if row != ("panel", "what it tells")] == told + [(each.title, each.about) for each in MEASURES]
    for path in set(re.findall(r"`((?:deploy|dashboards|tests)/[\w/.]+)`", PAGE)):
        assert (ROOT / path).exists(), path


def test_the_panel_that_the_page_adds_is_one_that_works() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

    panel = eval(code, {"Panel": Panel, "series": sources.series, "counted": sources.counted})

    assert isinstance(panel, Panel)
    assert parameters(panel) == {(variable.name, variable.kind) for variable in VARIABLES}


def test_what_runs_needs_no_sdk_of_grafanas() -> None:
    """It is for those who work on Tidegate, and is not installed where a node runs."""
    importing = [
        str(path.relative_to(ROOT))
        for room in ("dashboards", "processors", "producers", "schemas", "sinks")
        for path in (ROOT / room).rglob("*.py")
        if re.search(r"^\s*(from|import) (grafana_foundation_sdk|\.+(dashboards\.)?grafana)\b", path.read_text(), re.MULTILINE)
    ]

    assert importing == ["dashboards/grafana.py"]


def test_links_lead_to_dashboards_that_exist() -> None:
    uids = {board["uid"] for board in KEPT.values()}
    links = re.findall(r"/d/(tidegate-\w+)", json.dumps(KEPT))

    assert links
    assert set(links) <= uids
    assert yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]["environment"][
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"
    ].endswith("/overview.json")
