"""The benchmark page has a place for every bench, its tables come from the command alone, and the benches run."""

from __future__ import annotations

import re

import pytest
from tidegate.bench import metering, report
from tidegate.bench.report import Result, Table
from tidegate.bench.rounds import Spread, take_turns

pytest.importorskip("aiokafka", reason="the emit bench compares with aiokafka")

from tidegate.bench.__main__ import BENCHES

RESULT = Result(
    (Table("Widgets a second.", ("", "ours", "theirs", "ratio"), (("a|b", "2", "1", "2.00 (1.90–2.10)"),)),),
    "3 rounds",
    ("Theirs is best case.",),
    ("orjson", "no-such-library"),
)


def test_a_result_becomes_markdown_with_all_that_is_needed_to_repeat_it() -> None:
    text = report.markdown(RESULT, command="python -m bench widgets --write", date="2026-11-02")

    assert "| a\\|b | 2 | 1 | 2.00 (1.90–2.10) |" in text
    assert "| --- | ---: | ---: | ---: |" in text
    assert "- Theirs is best case." in text
    assert text.splitlines()[-1].startswith("`python -m bench widgets --write`, 2026-11-02: 3 rounds; ")
    assert re.search(r"; \d+ cores, \w+ \w+, Python 3\.\d+\.\d+; orjson \d[\w.]+, no-such-library absent\.$", text)


def test_rewriting_a_section_leaves_the_rest_of_the_page_alone_and_twice_is_once() -> None:
    page = "# B\n\n<!-- bench:x -->\nold 1\n<!-- /bench:x -->\n\nprose\n\n<!-- bench:y -->\n<!-- /bench:y -->\n"

    once = report.rewrite(page, "x", "new")
    twice = report.rewrite(once, "x", "new")

    assert once == "# B\n\n<!-- bench:x -->\n\nnew\n\n<!-- /bench:x -->\n\nprose\n\n<!-- bench:y -->\n<!-- /bench:y -->\n"
    assert twice == once


@pytest.mark.parametrize(
    "page",
    ["", "<!-- bench:x -->", "<!-- /bench:x --> <!-- bench:x -->", "<!-- bench:x --> <!-- bench:x --> <!-- /bench:x -->"],
)
def test_a_page_without_its_markers_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="bench:x"):
        report.rewrite(page, "x", "new")


def test_the_page_has_a_section_for_every_bench_and_no_other() -> None:
    page = report.DOCS.read_text()

    assert re.findall(r"<!-- bench:(\w+) -->", page) == list(BENCHES)
    for name in BENCHES:
        assert report.rewrite(page, name, "body")


def test_a_section_that_is_filled_says_which_command_printed_it() -> None:
    page = report.DOCS.read_text()

    for name in BENCHES:
        body = page.partition(f"<!-- bench:{name} -->")[2].partition(f"<!-- /bench:{name} -->")[0]
        if body.strip():
            assert f"`python -m bench {name} --write`, 20" in body


def test_sides_take_turns_and_the_warm_up_does_not_count() -> None:
    order: list[str] = []
    figures = {"a": iter([99.0, 1.0, 2.0, 4.0]), "b": iter([99.0, 2.0, 2.0, 2.0])}

    def side(name: str) -> float:
        order.append(name)
        return next(figures[name])

    found = take_turns({"a": lambda: side("a"), "b": lambda: side("b")}, 3, lambda _: None)

    assert order == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert found["a"] == Spread((1.0, 2.0, 4.0))
    assert f"{found['a'].per(found['b']):.2f}" == "1.00 (0.50–2.00)"


def test_the_metering_bench_runs_and_fills_its_tables() -> None:
    result = metering.run(quick=True, tick=lambda _: None)

    assert len(result.tables) == 2
    for table in result.tables:
        assert table.rows
        assert all(len(row) == len(table.columns) for row in table.rows)
