"""Every panel on a seeded store: over every variable's value, in the shape that it promises, and as Grafana asks it; the main
ones against a plain Python count of the same rows.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import Any, Final

import pytest
from panel_store import DAYS, END, HOUR_WITHOUT_LEDGER, MISSING, PERSON, START, TENANTS, Row, Seeded
from tidegate.dashboards.boards import BOARDS
from tidegate.dashboards.grafana import as_asked
from tidegate.dashboards.panel import VARIABLES, Panel, step_s
from tidegate.sinks.clickhouse import Store, Table

PANELS: Final = {f"{board.key}.{panel.key}": panel for board in BOARDS for panel in board.panels}
VARIABLE: Final = {variable.name: variable for variable in VARIABLES}
BY: Final = tuple(VARIABLE["by"].choices)
MIDNIGHT: Final = (START + timedelta(days=3)).replace(hour=0, minute=0, second=0, microsecond=0)
HUNDRED_DAYS: Final = (END - timedelta(days=100), END + timedelta(hours=3))
WEEK: Final = (START + timedelta(days=1), START + timedelta(days=8))
DAY: Final = (MIDNIGHT + timedelta(hours=7, minutes=13), MIDNIGHT + timedelta(hours=31, minutes=13))
HOUR: Final = (MIDNIGHT + timedelta(hours=9), MIDNIGHT + timedelta(hours=10))
EMPTY: Final = (START - timedelta(days=40), START - timedelta(days=30))
MOST_ROWS: Final = {"stat": 1, "bars": 20, "table": 100}
MOST_SERIES: Final = 20

Range = tuple[datetime, datetime]
Points = dict[tuple[datetime, str], Any]


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    with Store.open(path=tmp_path_factory.mktemp("panels") / "store") as store:
        store.migrate()
        yield Seeded(store)


def iso(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def ask(seeded: Seeded, panel: Panel, asked: Range, tenant: str = "*", by: str = "model", step: int | None = None) -> Table:
    """A panel as the console asks it."""
    since, until = asked
    values = {"since": iso(since), "until": iso(until), "tenant": tenant, "by": by}
    values |= {"step_s": step or step_s((until - since).total_seconds())}
    return seeded.store.query(panel.sql, {name: value for name, value in values.items() if f"{{{name}:" in panel.sql})


def told(seeded: Seeded, panel: str, asked: Range, **variables: Any) -> list[tuple[Any, ...]]:
    return ask(seeded, PANELS[panel], asked, **variables).rows


def points(seeded: Seeded, panel: str, asked: Range, **variables: Any) -> Points:
    return {(t, series): value for t, series, value in told(seeded, panel, asked, **variables)}


# every panel


def check_shape(panel: Panel, table: Table) -> None:
    kinds = dict(zip(table.columns, table.types, strict=True))
    number = re.compile(r"(Nullable\()?(U?Int|Float|Decimal)")
    assert not any(re.search("Array|Map|Tuple|Nothing|AggregateFunction", kind) for kind in table.types), kinds
    if panel.shape == "series":
        assert table.columns == ["t", "series", "value"]
        assert kinds["t"].startswith("DateTime")
        assert kinds["series"] in ("String", "LowCardinality(String)")
        assert [row[0] for row in table.rows] == sorted(row[0] for row in table.rows)
        assert len({row[1] for row in table.rows}) <= MOST_SERIES
        assert len({row[:2] for row in table.rows}) == len(table.rows), "one value for a moment of a series"
        assert len({row[0] for row in table.rows}) <= 302
        assert all(row[1] for row in table.rows)
    elif panel.shape == "bars":
        assert table.columns == ["name", "value"]
        assert [row[1] for row in table.rows] == sorted((row[1] for row in table.rows), reverse=True)
    elif panel.shape == "stat":
        assert table.columns == ["value", "before"]
        assert len(table.rows) == 1
    else:
        assert table.columns == [column.name for column in panel.columns]
        for column in panel.columns:
            assert column.how == "text" or number.match(kinds[column.name]) or column.how == "time", column
            assert column.how != "time" or "DateTime" in kinds[column.name], column
    assert panel.shape == "table" or number.match(kinds["value"])
    assert len(table.rows) <= MOST_ROWS.get(panel.shape, MOST_SERIES * 302)


@pytest.mark.parametrize("name", PANELS)
def test_every_panel_answers_in_its_shape_whatever_is_chosen(seeded: Seeded, name: str) -> None:
    panel = PANELS[name]
    bys = BY if "{by:" in panel.sql else ("model",) * 4
    asked = zip(bys, cycle((HUNDRED_DAYS, WEEK, DAY, HOUR)), cycle(("*", *TENANTS)), strict=False)

    for by, when, tenant in [*asked, ("prompt", EMPTY, "*")]:
        table = ask(seeded, panel, when, tenant, by)

        check_shape(panel, table)
        assert PERSON not in str(table.rows), "nobody is named on a wall"
        if when == EMPTY and panel.shape != "stat" and "signals_now" not in panel.sql:
            assert table.rows == []


def as_grafana(sql: str, asked: Range, tenant: str, by: str, step: int) -> str:
    """A dashboard's question with everything filled in, by the rules of Grafana and of its plugin for ClickHouse.

    `singlequote` puts a value in quotes, and a backslash before a quote in it; what "All" stands for is put in as it is.
    """
    filled = {
        "${__from:date:iso}": iso(asked[0]),
        "${__to:date:iso}": iso(asked[1]),
        "${tenant:singlequote}": "'*'" if tenant == "*" else "'" + tenant.replace("'", "\\'") + "'",
        "${by:singlequote}": f"'{by}'",
        "$__interval_s": str(step),
    }
    for word, value in filled.items():
        sql = sql.replace(word, value)
    assert "$" not in sql, "something that the test does not know"
    return sql


# It tells how long ago something was, and the two are not asked at the same time.
@pytest.mark.parametrize("name", sorted(PANELS.keys() - {"pipeline.newest_call"}))
def test_grafana_is_told_what_the_console_is_told(seeded: Seeded, name: str) -> None:
    panel = PANELS[name]

    # Both ways a tenant is written come by in turns.
    tenant = ("o'hara", "*")[len(name) % 2]
    step = step_s((WEEK[1] - WEEK[0]).total_seconds())
    grafana = seeded.store.query(as_grafana(as_asked(panel.sql), WEEK, tenant, "team", step))

    assert grafana == ask(seeded, panel, WEEK, tenant, "team")


def test_the_tenants_to_choose_from_are_those_with_calls_in_the_range(seeded: Seeded) -> None:
    def choices(asked: Range) -> list[str]:
        sql = VARIABLE["tenant"].choices
        assert isinstance(sql, str)
        since, until = (iso(at) for at in asked)
        found = seeded.store.query(as_grafana(as_asked(sql), asked, "*", "model", 60))
        assert found == seeded.store.query(sql, {"since": since, "until": until})
        return [row[0] for row in found.rows]

    assert choices(WEEK) == ["", *TENANTS]
    assert choices(EMPTY) == []


def test_nobody_is_asked_by_what_a_question_does_not_know(seeded: Seeded) -> None:
    with pytest.raises(Exception, match="cannot be asked by"):
        ask(seeded, PANELS["overview.calls_over_time"], DAY, by="user")


# against a plain count


def at(row: Row) -> datetime:
    return datetime.fromisoformat(row["started_at"])


def within(rows: Sequence[Row], asked: Range, tenant: str = "*") -> list[Row]:
    return [row for row in rows if asked[0] <= at(row) < asked[1] and tenant in ("*", row.get("tenant"))]


def before(asked: Range) -> Range:
    return (asked[0] - (asked[1] - asked[0]), asked[0])


def usd(rows: Sequence[Row]) -> Any:
    """What rows cost; unknown where there are some and nobody knows the price of any."""
    known = [row["cost_nano_usd"] for row in rows if row["cost_nano_usd"] is not None]
    return None if rows and not known else pytest.approx(sum(known) / 1e9)


def name_of(row: Row, by: str) -> str:
    if by == "model":
        return str(row["request_model"])
    if by == "prompt":
        name, version = row["prompt_name"] or "", row["prompt_version"]
        return (f"{name}@{version}" if version else name) or "unknown"
    return row.get(by) or "unknown"


def stretch(moment: datetime, step: int) -> datetime:
    return datetime.fromtimestamp(int(moment.timestamp()) // step * step, UTC)


def rolled_up(rows: Sequence[Row], asked: Range, step: int) -> dict[datetime, list[Row]]:
    """The rows of each step of a range, the empty ones too: all that a rollup has of the first step, and of its own last."""
    width = 86_400 if step % 86_400 == 0 else 3_600 if step % 3_600 == 0 else 60
    first = stretch(asked[0], step)
    steps: dict[datetime, list[Row]] = {}
    while first < asked[1]:
        steps[first] = []
        first += timedelta(seconds=step)
    for row in rows:
        if stretch(at(row), width) < asked[1] and stretch(at(row), step) in steps:
            steps[stretch(at(row), step)].append(row)
    return steps


def expected(
    rows: Sequence[Row],
    asked: Range,
    step: int,
    name: Callable[[Row], str],
    value: Callable[[list[Row]], Any],
    weight: Callable[[Row], float],
) -> Points:
    """A series by plain counting: nineteen names with most weight, and the rest."""
    steps = rolled_up(rows, asked, step)
    heavy: Counter[str] = Counter()
    for row in (row for found in steps.values() for row in found):
        heavy[name(row)] += weight(row)
    kept = [one for one, _ in sorted(heavy.items(), key=lambda item: (-item[1], item[0]))[: MOST_SERIES - 1]]
    names = kept if len(heavy) < MOST_SERIES else [*kept, "other"]

    def named(row: Row) -> str:
        return name(row) if name(row) in kept else "other"

    return {(t, one): value([row for row in found if named(row) == one]) for t, found in steps.items() for one in names}


STEPS: Final = ((HOUR, 60), (DAY, 300), (WEEK, 3_600), (WEEK, 10_800), (HUNDRED_DAYS, 86_400))


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize(("asked", "step"), STEPS)
def test_cost_and_calls_over_time_are_the_plain_sums(seeded: Seeded, by: str, asked: Range, step: int) -> None:
    # Beyond an hour there are days, and by prompt nothing below it.
    width = 86_400 if step > 3_600 else 3_600 if by == "prompt" else step

    def name(row: Row) -> str:
        return name_of(row, by)

    cost = expected(seeded.calls, asked, width, name, usd, lambda row: row["cost_nano_usd"] or 0)
    calls = expected(seeded.calls, asked, width, name, len, lambda row: 1)

    assert points(seeded, "cost.cost_over_time", asked, by=by, step=step) == cost
    assert points(seeded, "overview.calls_over_time", asked, by=by, step=step) == calls
    assert by != "prompt" or asked == HOUR or any(name == "other" for _, name in calls)


def test_a_series_without_a_known_price_is_unknown_and_one_without_calls_is_nothing(seeded: Seeded) -> None:
    found = points(seeded, "cost.cost_over_time", HUNDRED_DAYS, by="model")

    ours = {value for (_, name), value in found.items() if name == "ours"}
    assert ours == {None, 0.0}
    assert points(seeded, "cost.cost_over_time", EMPTY) == {}


@pytest.mark.parametrize("tenant", ["*", *TENANTS])
@pytest.mark.parametrize("asked", [HUNDRED_DAYS, DAY, EMPTY])
def test_numbers_are_those_of_the_range_and_of_the_one_before(seeded: Seeded, asked: Range, tenant: str) -> None:
    now, past = (within(seeded.calls, each, tenant) for each in (asked, before(asked)))
    judged, judged_before = (
        [row for row in within(seeded.verdicts, each, tenant) if row["outcome"] == "scored"] for each in (asked, before(asked))
    )

    def failed(rows: list[Row]) -> Any:
        return pytest.approx(sum(bool(row["error_type"]) for row in rows) / len(rows)) if rows else None

    def leaked(rows: list[Row]) -> int | None:
        return sum(any(one["leak"] for one in row["findings"]) for row in rows) if rows else None

    for panel, value, earlier in (
        ("overview.calls", len(now), len(past) or None),
        ("overview.cost", usd(now), usd(past) if past else None),
        ("overview.error_share", failed(now), failed(past)),
        ("overview.leaks", leaked(judged), leaked(judged_before)),
        (
            "cost.without_price",
            sum(row["cost_nano_usd"] is None for row in now),
            sum(row["cost_nano_usd"] is None for row in past) if past else None,
        ),
        (
            "guardrails.judged_share",
            pytest.approx(len(judged) / len(now)) if now else None,
            pytest.approx(len(judged_before) / len(past)) if past else None,
        ),
    ):
        assert told(seeded, panel, asked, tenant=tenant) == [(value, earlier)], panel


def near(value: float | None, known: list[float], level: float) -> bool:
    """Within 1 % of a value beside the rank; 2 % beside one second, where the sketch has a wider step."""
    if value is None or not known:
        return value is None and not known
    known = sorted(known)
    rank = level * (len(known) - 1)
    least, most = known[max(int(rank) - 1, 0)], known[min(int(rank) + 2, len(known) - 1)]
    return least * 0.979 <= value <= most * 1.021


@pytest.mark.parametrize(("asked", "step"), [(DAY, 300), (WEEK, 3_600), (HUNDRED_DAYS, 86_400)])
def test_latencies_over_time_are_those_of_the_calls_and_gaps_where_none_told_one(
    seeded: Seeded, asked: Range, step: int
) -> None:
    for panel, column in (("latency_over_time", "latency_s"), ("first_token_over_time", "time_to_first_token_s")):
        found = points(seeded, f"latency.{panel}", asked, step=step)

        steps = rolled_up(seeded.calls, asked, step)
        assert found.keys() == {(t, name) for t in steps for name in ("p50", "p95", "p99")}
        assert step > 300 or None in found.values()
        for (t, name), value in found.items():
            known = [row[column] for row in steps[t] if row[column] is not None]
            assert near(value, known, int(name[1:]) / 100), (t, name)


@pytest.mark.parametrize("asked", [WEEK, HUNDRED_DAYS, EMPTY])
def test_a_latency_is_that_of_the_range(seeded: Seeded, asked: Range) -> None:
    ((value, earlier),) = told(seeded, "overview.latency_p95", asked)

    for told_value, each in ((value, asked), (earlier, before(asked))):
        assert near(told_value, [row["latency_s"] for row in within(seeded.calls, each) if row["latency_s"] is not None], 0.95)


def test_tokens_over_time_are_told_once_each(seeded: Seeded) -> None:
    found = points(seeded, "cost.tokens_over_time", WEEK, step=3_600)

    def total(rows: list[Row], column: str) -> int:
        return sum(row[column] or 0 for row in rows)

    for t, rows in rolled_up(seeded.calls, WEEK, 3_600).items():
        cached, reasoning = total(rows, "cache_read_tokens"), total(rows, "reasoning_tokens")
        assert found[t, "input"] == total(rows, "input_tokens") - cached
        assert found[t, "input from the cache"] == cached
        assert found[t, "output"] == total(rows, "output_tokens") - reasoning
        assert found[t, "reasoning"] == reasoning


def test_errors_over_time_and_their_share_by_name(seeded: Seeded) -> None:
    steps = rolled_up(seeded.calls, WEEK, 3_600)
    types = points(seeded, "overview.errors_over_time", WEEK, step=3_600)
    shares = points(seeded, "latency.error_share_by", WEEK, step=3_600, by="team")

    assert types == {
        (t, kind): sum(row["error_type"] == kind for row in rows)
        for t, rows in steps.items()
        for kind in ("rate_limit", "timeout")
    }
    for (t, team), share in shares.items():
        rows = [row for row in steps[t] if name_of(row, "team") == team]
        assert share == (pytest.approx(sum(bool(row["error_type"]) for row in rows) / len(rows)) if rows else None)


def test_the_last_whole_day_stands_beside_those_before_it(seeded: Seeded) -> None:
    until = MIDNIGHT + timedelta(days=6, hours=5)
    rows = told(seeded, "cost.day_over_day", (until - timedelta(hours=1), until), by="tenant")

    def spent(tenant: str | None, days: int) -> Any:
        midnight = MIDNIGHT + timedelta(days=days)
        return usd([row for row in within(seeded.calls, (midnight, midnight + timedelta(days=1))) if row["tenant"] == tenant])

    assert {row[0] for row in rows} == {None, *TENANTS}
    for tenant, cost, day_before, *_ in rows:
        assert float(cost) == spent(tenant, 5)
        assert float(day_before) == spent(tenant, 4)


# guardrails and prompts


def test_leaks_and_findings_over_time_are_those_of_the_verdicts(seeded: Seeded) -> None:
    leaks: Counter[tuple[datetime, str]] = Counter()
    findings: Counter[tuple[datetime, str]] = Counter()
    for t, rows in rolled_up(seeded.verdicts, WEEK, 3_600).items():
        for one in (one for row in rows for one in row["findings"]):
            findings[t, one["detector"]] += 1
            leaks[t, one["type"]] += one["leak"]

    for panel, counted in (("leaks_over_time", leaks), ("findings_over_time", findings)):
        found = points(seeded, f"guardrails.{panel}", WEEK, step=3_600)
        assert {key: value for key, value in found.items() if value} == {key: value for key, value in counted.items() if value}


def test_scores_over_time_are_means_of_those_that_have_one(seeded: Seeded) -> None:
    found = points(seeded, "guardrails.scores_over_time", WEEK, step=3_600)

    for t, rows in rolled_up(seeded.verdicts, WEEK, 3_600).items():
        scores = [row["scores"]["response.faithfulness"] for row in rows if "response.faithfulness" in row["scores"]]
        assert found[t, "faithfulness"] == (sum(scores) / len(scores) if scores else None)
        assert found[t, "injection"] is None


def test_versions_of_prompts_are_compared_by_what_is_known_of_them(seeded: Seeded) -> None:
    table = ask(seeded, PANELS["prompts.compared"], WEEK)
    calls: dict[tuple[Any, Any], list[Row]] = defaultdict(list)
    verdicts: dict[tuple[Any, Any], list[Row]] = defaultdict(list)
    for grouped, rows in ((calls, seeded.calls), (verdicts, seeded.verdicts)):
        for row in within(rows, WEEK):
            if row.get("prompt_name"):
                grouped[row["prompt_name"], row.get("prompt_version")].append(row)

    found = {(row["prompt_name"], row["prompt_version"]): row for row in table.dicts()}
    assert found.keys() == calls.keys()
    for version, row in found.items():
        priced = [call["cost_nano_usd"] for call in calls[version] if call["cost_nano_usd"] is not None]
        judged = [verdict for verdict in verdicts[version] if verdict["outcome"] == "scored"]
        assert row["calls"] == len(calls[version])
        assert row["cost_usd_per_request"] == (pytest.approx(sum(priced) / 1e9 / len(priced)) if priced else None)
        assert row["judged"] == len(judged)
        with_findings = sum(bool(verdict["findings"]) for verdict in judged)
        assert row["finding_rate"] == (pytest.approx(with_findings / len(judged)) if judged else None)
    ((new, _),) = told(seeded, "prompts.new_versions", HOUR)
    old = {(row["prompt_name"], row["prompt_version"]) for row in within(seeded.calls, before(HOUR))}
    assert new == len(
        {(row["prompt_name"], row["prompt_version"]) for row in within(seeded.calls, HOUR) if row["prompt_name"]} - old
    )


# budgets and the pipeline


def test_a_word_of_a_policy_holds_until_the_next_one(seeded: Seeded) -> None:
    asked = (START, START + timedelta(hours=2))
    found = points(seeded, "budgets.shares", asked)

    spends: dict[str, list[tuple[datetime, float | None]]] = defaultdict(list)
    for row in seeded.signals:
        scope = ", ".join(f"{name}={'…' if name == 'user' else value}" for name, value in row["scope"].items()) or "everything"
        share = None if row["withdrawn"] else row["spend"] / row["limit"]
        spends[f"{row['policy']} {scope}"].append((datetime.fromisoformat(row["at"]), share))
    assert {name for _, name in found} == spends.keys()
    for (t, name), share in found.items():
        assert share == [share for said, share in spends[name] if said < t + timedelta(minutes=5)][-1], (t, name)


def test_budgets_tell_who_is_kept_back_and_for_how_long(seeded: Seeded) -> None:
    asked = (START, START + timedelta(hours=2))

    def only(panel: str, tenant: str = "*") -> Any:
        return told(seeded, f"budgets.{panel}", asked, tenant=tenant)

    assert only("kept_back") == [(2, None)]
    assert only("kept_back", "o'hara") == [(1, None)]
    assert only("fullest") == [(1.2, None)]
    assert only("blocks_begun") == [(2, 0)]
    assert only("longest") == [("each tenant=o'hara, user=…", 5_400.0), ("daily tenant=harbor-health", 1_800.0)]
    assert [row[1:4] for row in only("blocks")] == [
        ("block", "daily", "tenant=harbor-health"),
        ("throttle", "each", "tenant=o'hara, user=…"),
    ]
    assert [row[:3] for row in only("now")] == [
        ("block", "daily", "tenant=harbor-health"),
        ("throttle", "each", "tenant=o'hara, user=…"),
        ("ok", "daily", "tenant=o'hara"),
    ]
    assert [row[0] for row in told(seeded, "overview.not_fine", asked)] == ["block", "throttle"]


def test_the_pipeline_tells_what_was_refused_and_what_does_not_add_up(seeded: Seeded) -> None:
    asked = (START - timedelta(hours=1), START + timedelta(hours=24))

    assert told(seeded, "pipeline.refused", asked) == [(3, 0)]
    assert told(seeded, "pipeline.to_mend", asked) == [(3, None)]
    assert told(seeded, "pipeline.became", asked) == [("refused", 2), ("dropped", 1)]
    assert [row[:4] for row in told(seeded, "pipeline.reasons", asked)] == [
        ("no model", "meter", 2, 2),
        ("not JSON", "edge", 1, 1),
    ]
    assert [row[1:] for row in told(seeded, "pipeline.trouble", asked)] == [
        ("warning", "dead_letters", "many lines are refused")
    ]
    assert sum(value for *_, value in told(seeded, "pipeline.refused_over_time", asked)) == 3
    assert told(seeded, "pipeline.ledger_difference", asked) == [(MISSING, None)]
    ((hour, counted, stored, missing_usd),) = told(seeded, "pipeline.ledger_hours", asked)
    assert (counted - stored, missing_usd) == (MISSING, 0.0)
    assert hour > HOUR_WITHOUT_LEDGER
    assert told(seeded, "pipeline.ledger_difference", EMPTY) == [(None, None)]


def test_the_newest_call_is_as_old_as_its_minute(seeded: Seeded) -> None:
    assert told(seeded, "pipeline.newest_call", DAY) == [(None, None)]

    now = seeded.store.query("SELECT now()").rows[0][0]
    call = {"event": "response", "call_id": "now", "started_at": now.isoformat(), "request_model": "gpt-4o", "tenant": "late"}
    seeded.store.insert("calls", str(call).replace("'", '"').encode(), "calls:9:9-9")
    ((age, _),) = told(seeded, "pipeline.newest_call", DAY)

    later = seeded.store.query("SELECT now()").rows[0][0]
    minute = now.replace(second=0)
    assert (now - minute).total_seconds() <= age <= (later - minute).total_seconds()


def test_a_range_of_any_length_has_some_three_hundred_points() -> None:
    for days in (0.01, 0.5, 1, 3, 7, 12, 13, 30, 90, 100, 400, 4_000):
        assert days * 86_400 / step_s(days * 86_400) <= 300
    assert DAYS * 86_400 / step_s(DAYS * 86_400) > 100
