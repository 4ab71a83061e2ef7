"""docs/analysts.md says what the views are: each example runs, and the columns are those that come."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from support import ndjson, scored
from tidegate.sinks import migrations
from tidegate.sinks.clickhouse import Store

PAGE: Final = (Path(__file__).parents[2] / "docs" / "analysts.md").read_text()
SECTIONS: Final = {part.partition("(")[0]: part for part in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]}
# What the views are made of, and not for asking.
PARTS: Final = {
    *("edges_between", "usage_between", "totals_between", "usage_by"),
    *("verdicts_between", "findings_between", "retrieval_between"),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(path=tmp_path_factory.mktemp("docs") / "store") as store:
        store.migrate()
        yield store


@pytest.mark.parametrize("view", sorted(SECTIONS))
def test_the_columns_told_are_those_that_come(store: Store, view: str) -> None:
    told = re.findall(r"^\| `(\w+)` \|", SECTIONS[view], re.MULTILINE)
    names = re.match(r"\w+\(([^)]*)\)", SECTIONS[view])
    assert names is not None
    sample = {"by": "'model'", "tenant": "'*'", "since": "'2026-11-01'", "until": "'2026-12-01'", "prompt": "'p'", "rows": "5"}
    given = ", ".join(f"{name} = {sample[name]}" for name in names[1].split(", "))

    come = store.query(f"SELECT * FROM {view}({given})").columns

    assert told == come or not told


@pytest.mark.parametrize("view", sorted(SECTIONS))
def test_the_example_runs(store: Store, view: str) -> None:
    example = re.search(r"```sql\n(.*?)```", SECTIONS[view], re.DOTALL)
    assert example is not None
    assert f"FROM {view}(" in example[1]

    assert store.query(example[1]).rows == []


def test_the_question_of_bias_over_time_tells_each_days_mean_of_each_group(store: Store) -> None:
    scores = [
        (2, {"response.bias_women": 0.5, "response.toxicity": 0.9}),
        (2, {"response.bias_women": 0.25}),
        (3, {"response.bias_women": 1.0, "response.bias_muslim": 0.0}),
    ]
    placed = {"producer": "guardrails-0", "ingested_at": "2026-11-03T09:00:00Z", "source_partition": 0}
    rows = [
        scored(f"c{place}", started_at=f"2025-11-0{day}T08:00:00Z", scores=each, seq=place, source_offset=place, **placed)
        for place, (day, each) in enumerate(scores)
    ]
    store.insert("scored_calls", ndjson(rows), "t:0:1-3")
    question = re.search(r"\*\*Bias over time\*\*.*?```sql\n(.*?)```", PAGE, re.DOTALL)
    assert question is not None

    answer = store.query(question[1].replace("2026-", "2025-")).rows  # of a year that no other example asks about

    assert [(str(day), *rest) for day, *rest in answer] == [
        ("2025-11-02", "response.bias_women", 2, 0.375),
        ("2025-11-03", "response.bias_muslim", 1, 0.0),
        ("2025-11-03", "response.bias_women", 1, 1.0),
    ]


def test_every_view_with_parameters_is_on_the_page() -> None:
    text = "".join(file.read_text() for file in sorted(migrations.FOLDER.glob("*.sql")))
    views = re.findall(r"CREATE VIEW IF NOT EXISTS (\w+) AS\n(.*?);\n", text, re.DOTALL)

    asked = {name for name, body in views if "{since:String}" in body}

    assert asked - PARTS == set(SECTIONS)
