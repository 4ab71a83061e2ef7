"""docs/models.md says of each head what its card says: whoever trains anew writes the page anew."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="the extra `evaluate` is not installed")
pytest.importorskip("tokenizers", reason="the extra `guardrails` is not installed")

from tidegate.bench.training import cards

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def test_the_page_is_what_the_cards_make_of_it() -> None:
    text = PAGE.read_text("utf-8")

    again = cards.page(cards.kept(text))

    assert again == text, "run `python -m bench.training.cards --dev FOLDER`"


def test_beside_every_area_of_a_target_stands_that_of_length() -> None:
    rows = [line.split(" | ")[0].removeprefix("| ") for line in cards.kept(PAGE.read_text("utf-8")).splitlines()]

    areas = [row for row in rows if row.endswith(": AUROC")]

    assert areas
    assert all(f"{row} of length alone" in rows for row in areas)
