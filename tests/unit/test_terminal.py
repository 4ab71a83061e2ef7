"""The terminal shows names as text, whole, and numbers in line, on any width."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from tidegate.dashboards.terminal import Answer, plain, summary, usd

NAMES = ["gpt-4o-mini-2024-07-18", "us.anthropic.claude-3-5-sonnet-20241022-v2:0", "[/] [bold red]x", "m" * 128]


def model(name: str, **fields: Any) -> dict[str, Any]:
    counts = {"requests": 1_000, "errors": 3, "tokens": 87_058_016, "input_tokens": 80_000_000, "output_tokens": 7_058_016}
    return {"model": name, **counts, "cost_nano_usd": 1_234_567_890, "unpriced": 0, "scored": 0, "findings": 0, **fields}


def status(*models: dict[str, Any], day: str | None = "2026-11-02") -> dict[str, Any]:
    names = ("requests", "errors", "input_tokens", "output_tokens", "cost_nano_usd", "unpriced", "scored", "findings")
    today = {"day": day, **{name: sum(row[name] for row in models) for name in names}, "models": list(models)}
    lags = {"meter_lag_records": 0, "sink_lag_records": 0, "store_away": False}
    return {
        "url": "http://127.0.0.1:8400",
        "totals": {"events": 4_000, "responses": 3_999},
        "today": today,
        "policies": {"in_force": 0, "not_fine": 0, "worst": []},
        **lags,
    }


def shown(what: Any, width: int, terminal: bool = True) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None, legacy_windows=False)
    console.print(what, crop=False)
    written = console.file.getvalue()  # type: ignore[attr-defined]  # it is ours, a StringIO
    assert isinstance(written, str)
    return written


@pytest.mark.parametrize("width", [80, 120])
def test_the_panel_fits_its_terminal_and_cuts_no_name_and_no_number(width: int) -> None:
    text = shown(summary(status(*map(model, NAMES)), 123.4), width)

    assert all(len(line) <= width for line in text.splitlines())
    assert "…" not in text
    assert "gpt-4o-mini-2024-07-18" in text
    assert "[/] [bold red]x" in text
    assert text.count("m") >= 128
    assert text.count("87,058,016") == len(NAMES)
    assert "Ctrl-C stops" in text
    assert "123" in text


def test_numbers_end_in_the_same_column() -> None:
    text = shown(summary(status(model("a", requests=1, cost_nano_usd=5), model("b", requests=1_234_567))), 100)

    rows = [line for line in text.splitlines() if line.startswith(("│ a ", "│ b ", "│ all "))]
    assert len({row.rstrip("│ ").rfind(".") for row in rows}) == 1
    assert len({len(row.rstrip("│ ")) for row in rows}) == 1


def test_a_model_without_a_price_has_not_cost_nothing() -> None:
    unpriced = status(model("nobody-knows", unpriced=1_000, cost_nano_usd=0), model("known"))

    row = next(line for line in shown(summary(unpriced), 100).splitlines() if "nobody-knows" in line)

    assert "$0" not in row
    assert "–" in row


def test_findings_have_a_column_only_where_there_are_some_and_all_still_fits() -> None:
    clean = status(model("a"))
    found = status(*(model(name, findings=12_345, unpriced=7) for name in NAMES))
    found["totals"] |= {"scored": 4_000, "duplicates": 4_000, "dead_letters": 4_000}

    before, after = shown(summary(clean, 123.4), 80), shown(summary(found, 123.4), 80)

    assert "findings" not in before
    assert "judged" not in before
    assert after.count("12,345") == len(NAMES)
    assert "judged" in after
    assert all(len(line) <= 80 for line in after.splitlines())
    assert "…" not in after


def test_the_dearest_models_are_shown_and_the_others_counted() -> None:
    text = shown(summary(status(*(model(f"model-{number}") for number in range(15)))), 100)

    assert "… and 3 more" in text
    assert "model-11" in text
    assert "model-12" not in text


def test_a_folder_without_calls_says_so() -> None:
    text = shown(summary(status(day=None)), 80)

    assert "no calls yet" in text
    assert "None" not in text
    assert "Ctrl-C" not in text


@pytest.mark.parametrize("acts", ["\x1b[2J", "\x9b31m", "\u202e", "\u2066", "\x07", "\r", "\x00", "\ud800"])
def test_no_text_moves_the_cursor_or_turns_the_line(acts: str) -> None:
    assert acts[0] not in plain(f"a{acts}b")
    assert plain("a\tb\nc é 漢 \N{NO-BREAK SPACE}🙂") == "a b\nc é 漢 \N{NO-BREAK SPACE}🙂"


def test_an_answer_keeps_every_digit_and_puts_the_points_in_line() -> None:
    answer = Answer(["m", "n"], ["Decimal(38, 9)", "UInt64"], [["1.5", "18446744073709551615"], ["-20", "7"], ["ᴺᵁᴸᴸ", "0"]])

    text = shown(answer, 80)

    assert "18446744073709551615" in text
    assert "  1.5 " in text
    assert "-20.0 " in text
    assert "ᴺᵁᴸᴸ" in text  # a Decimal that is not Nullable cannot be NULL: it is what it says


def test_what_is_not_known_reads_null() -> None:
    text = shown(Answer(["a", "b"], ["Nullable(Int64)", "LowCardinality(Nullable(String))"], [["ᴺᵁᴸᴸ", "ᴺᵁᴸᴸ"]]), 80)

    assert text.count("NULL") == 2


def test_an_answer_too_wide_for_the_terminal_becomes_blocks_and_in_a_pipe_stays_a_table() -> None:
    names = [f"column_{number}" for number in range(20)]
    answer = Answer(names, ["String"] * 20, [[f"value-{number}" for number in range(20)]])

    narrow, piped = shown(answer, 80), shown(answer, 80, terminal=False)

    assert "row 1" in narrow
    assert "column_19  value-19" in narrow
    assert all(len(line) <= 80 for line in narrow.splitlines())
    assert any("value-0 " in line and "value-19" in line for line in piped.splitlines())


def test_words_of_a_text_wrap_before_an_answer_becomes_blocks() -> None:
    text = shown(Answer(["reason", "n"], ["String", "UInt8"], [["word " * 60, "1"]]), 80)

    assert "row 1" not in text
    assert text.count("word") == 60
    assert all(len(line) <= 80 for line in text.splitlines())


def test_an_answer_without_rows_shows_its_columns() -> None:
    assert "nothing" in shown(Answer(["nothing"], ["UInt8"], []), 80)


def test_money_is_shown_to_the_micro_dollar() -> None:
    assert usd(1_234_567_890_123) == "$1,234.567890"
    assert usd(1_500_000_000, 2) == "$1.50"


def test_scopes_that_are_not_fine_are_named_with_their_policy() -> None:
    worst = [{"policy": "tenant-daily-cost", "scope": {"tenant": "[/]"}, "state": "block"}]
    standing = {"in_force": 9, "not_fine": 1, "worst": worst}

    panel = shown(summary({**status(model("gpt-4o")), "policies": standing}), 100)

    assert "9 policies" in panel
    assert "1 scope not fine" in panel
    assert "tenant-daily-cost: tenant=[/]" in panel
