"""The boards as Grafana's dashboards, in the types of Grafana's own SDK: `python -m tidegate.dashboards.grafana FOLDER`.

    Board, Measure ──► builders of grafana-foundation-sdk ──► FOLDER/<board>.json

A panel's SQL stays as it is; what the console gives as parameters is written as Grafana fills it in. The SDK is for those who
work on Tidegate: nothing else here imports it, or this file.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders import barchart, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.runtime import UnknownDataquery
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DynamicConfigValue,
    GridPos,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
    VariableOption,
    VariableRefresh,
)

from .boards import BOARDS
from .panel import VARIABLES, Board, Column, Panel, Variable
from .workers import MEASURES, Measure

STORE: Final = DataSourceRef(type_val="grafana-clickhouse-datasource", uid="clickhouse")
METRICS: Final = DataSourceRef(type_val="prometheus", uid="prometheus")
# What Grafana and its plugin for ClickHouse put into a question, for what the console gives as parameters.
FILLED_IN: Final[Mapping[str, str]] = {
    "since": "'${__from:date:iso}'",
    "until": "'${__to:date:iso}'",
    "tenant": "${tenant:singlequote}",
    "by": "${by:singlequote}",
    "step_s": "$__interval_s",
}
# Grafana writes the value for "All" as it stands.
_EVERYBODY: Final = "'*'"
_UNITS: Final = {
    "usd": "currencyUSD",
    "seconds": "s",
    "share": "percentunit",
    "per_second": "ops",
    "bytes": "bytes",
    **dict.fromkeys(("tokens", "calls", "records", "count"), "short"),
}
_HEIGHTS: Final = {"stat": 4, "series": 8, "bars": 8, "table": 9}
_COLUMNS: Final = 12  # of a board; Grafana has twice as many
# As many as the console asks for, none shorter than a minute.
_POINTS: Final = 300
_PLUGIN: Final = "4.20.0"  # the one in docker-compose.yml
_UNKNOWN: Final = "–"

_Drawn = timeseries.Panel | stat.Panel | table.Panel | barchart.Panel


def as_asked(sql: str) -> str:
    """A panel's SQL as Grafana asks it."""
    return re.sub(r"\{(\w+):\w+\}", lambda parameter: FILLED_IN[parameter[1]], sql).strip()


def dashboards() -> dict[str, str]:
    """Every dashboard as JSON, by the name of its file."""
    return {f"{board.key}.json": _json(_dashboard(board, MEASURES if board.key == "pipeline" else ())) for board in BOARDS}


def _json(built: Dashboard) -> str:
    return json.dumps(built, cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"


def _dashboard(board: Board, measures: Sequence[Measure]) -> Dashboard:
    since, until = (next(v.default for v in VARIABLES if v.name == name) for name in ("since", "until"))
    made = (
        dashboard.Dashboard(f"Tidegate: {board.title}")
        .uid(_uid(board.key))
        .description(board.about)
        .tags(["tidegate"])
        .time(since, until)
        .timezone("browser")
        .refresh("1m")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Tidegate")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["tidegate"])
            .include_vars(True)
            .keep_time(True)
        )
    )
    asked = "".join(panel.sql for panel in board.panels)
    for variable in VARIABLES:
        if variable.choices and f"{{{variable.name}:" in asked:
            made = made.with_variable(_variable(variable))
    drawn: list[tuple[_Drawn, int, int]] = []
    drawn += [(_panel(panel), panel.width, _HEIGHTS[panel.shape]) for panel in board.panels]
    drawn += [(_measure(measure), measure.width, _HEIGHTS[measure.shape]) for measure in measures]
    for number, (panel, place) in enumerate(_placed(drawn), 1):
        made = made.with_panel(panel.id(number).grid_pos(place))
    return made.build()


def _uid(board: str) -> str:
    return f"tidegate-{board}"


def _placed(drawn: Iterable[tuple[_Drawn, int, int]]) -> list[tuple[_Drawn, GridPos]]:
    """Side by side while there is room, each as high as the highest beside it."""
    rows: list[list[tuple[_Drawn, int, int]]] = [[]]
    for one in drawn:
        if sum(width for _, width, _ in rows[-1]) + one[1] > _COLUMNS:
            rows.append([])
        rows[-1].append(one)
    placed, y = [], 0
    for row in rows:
        x, height = 0, max(height for *_, height in row)
        for panel, width, _ in row:
            placed.append((panel, GridPos(x=x, y=y, w=2 * width, h=height)))
            x += 2 * width
        y += height
    return placed


def _variable(variable: Variable) -> dashboard.QueryVariable | dashboard.CustomVariable:
    if isinstance(variable.choices, str):
        return (
            dashboard.QueryVariable(variable.name)
            .label(variable.label)
            .datasource(STORE)
            .query(as_asked(variable.choices))
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .include_all(True)
            .all_value(_EVERYBODY)
            .current(VariableOption(selected=True, text="All", value="$__all"))
        )
    return (
        dashboard.CustomVariable(variable.name)
        .label(variable.label)
        .values(",".join(variable.choices))
        .options([VariableOption(selected=word == variable.default, text=word, value=word) for word in variable.choices])
        .current(VariableOption(selected=True, text=variable.default, value=variable.default))
    )


# ---- panels that ask the store


class _Question(Builder[Dataquery]):
    """A question in the form of the ClickHouse plugin, which the SDK does not know."""

    def __init__(self, sql: str, *, lines: bool) -> None:
        self._data: dict[str, object] = {
            "refId": "A",
            "datasource": STORE.to_json(),
            "editorType": "sql",
            "queryType": "timeseries" if lines else "table",
            "format": 0 if lines else 1,
            "pluginVersion": _PLUGIN,
            "rawSql": sql,
        }

    def build(self) -> Dataquery:
        return UnknownDataquery(self._data)


def _panel(panel: Panel) -> _Drawn:
    drawn: _Drawn
    if panel.shape == "series":
        drawn = _lines(stacked=panel.stacked).display_name("${__field.labels.series}")
        drawn = drawn.max_data_points(_POINTS).interval("1m")
    elif panel.shape == "bars":
        drawn = (
            barchart.Panel()
            .orientation(VizOrientation.HORIZONTAL)
            .x_field("name")
            .show_value(VisibilityMode.ALWAYS)
            .fill_opacity(70)
            .legend(common.VizLegendOptions().show_legend(False))
        )
    elif panel.shape == "stat":
        drawn = _number().color_mode(BigValueColorMode.NONE).text_mode(BigValueTextMode.VALUE_AND_NAME)
        drawn = _titled(drawn, (("value", "in this range"), ("before", "in the range before")))
    else:
        drawn = table.Panel().show_header(True)
        for column in panel.columns:
            drawn = drawn.override_by_name(column.name, _column(column))
    if panel.shape != "table":
        drawn = drawn.unit(_UNITS[panel.unit])
    if panel.more:
        link = dashboard.DashboardLink("More").type(DashboardLinkType.LINK)
        drawn = drawn.links([link.url(f"/d/{_uid(panel.more)}?${{__url_time_range}}&${{__all_variables}}")])
    return (
        drawn.title(panel.title)
        .description(panel.about)
        .datasource(STORE)
        .no_value(_UNKNOWN)
        .with_target(_Question(as_asked(panel.sql), lines=panel.shape == "series"))
    )


def _titled(drawn: stat.Panel, names: Iterable[tuple[str, str]]) -> stat.Panel:
    for name, title in names:
        drawn = drawn.override_by_name(name, [DynamicConfigValue("displayName", title)])
    return drawn


def _column(column: Column) -> list[DynamicConfigValue]:
    drawn = [DynamicConfigValue("displayName", column.title)]
    if column.how in _UNITS:
        drawn.append(DynamicConfigValue("unit", _UNITS[column.how]))
    if column.drill:
        url = f"/d/${{__dashboard.uid}}?${{__url_time_range}}&var-{column.drill}=${{__value.raw:percentencode}}"
        drawn.append(DynamicConfigValue("links", [{"title": f"Only this {column.title.lower()}", "url": url}]))
    return drawn


def _lines(*, stacked: bool) -> timeseries.Panel:
    drawn = (
        timeseries.Panel()
        .draw_style(GraphDrawStyle.BARS if stacked else GraphDrawStyle.LINE)
        .line_width(1)
        .fill_opacity(70 if stacked else 10)
        .show_points(VisibilityMode.AUTO)
        .span_nulls(False)
        .legend(
            common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    return drawn.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A")) if stacked else drawn


def _number() -> stat.Panel:
    return (
        stat.Panel()
        .graph_mode(BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
    )


# ---- panels that ask Prometheus


def _measure(measure: Measure) -> _Drawn:
    drawn: timeseries.Panel | stat.Panel
    if measure.shape == "series":
        drawn = _lines(stacked=False)
    else:
        drawn = _number().graph_mode(BigValueGraphMode.AREA).color_mode(BigValueColorMode.VALUE)
        drawn = drawn.thresholds(_thresholds(measure)).mappings(_mappings(measure))
    for number, (expr, name) in enumerate(measure.queries):
        query = prometheus.Dataquery().expr(expr).legend_format(name).datasource(METRICS).ref_id(chr(ord("A") + number))
        drawn = drawn.with_target(query)
    return drawn.title(measure.title).description(measure.about).datasource(METRICS).unit(measure.unit).no_value(_UNKNOWN)


def _thresholds(measure: Measure) -> dashboard.ThresholdsConfig:
    steps = [Threshold(value=None, color="green"), *(Threshold(value=value, color=color) for color, value in measure.levels)]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _mappings(measure: Measure) -> list[ValueMapping]:
    words = {value: ValueMappingResult(text=word, index=at) for at, (value, word) in enumerate(measure.words)}
    return [ValueMap(options=words)] if words else []


def main(folder: Path) -> None:
    """Write every dashboard into the folder."""
    for name, text in dashboards().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
