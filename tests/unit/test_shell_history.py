"""What the shell keeps of a statement."""

from __future__ import annotations

import pytest
from tidegate.query_cli import without_values


@pytest.mark.parametrize(
    "written",
    [
        "= 'Muster'",
        "= 'it''s \\' Muster'",
        "= 'Muster",
        '= "Muster"',
        "= $$Muster$$",
        "= $tag$Muster$tag$",
        "-- Muster",
        "# Muster",
        "/* Muster */",
        "/* Muster",
        "= 83926104",
    ],
)
def test_no_value_of_a_statement_is_kept(written: str) -> None:
    kept = without_values(f"SELECT count() FROM `calls of today` WHERE user {written}")

    assert kept.startswith("SELECT count() FROM `calls of today` WHERE user ")
    assert "Muster" not in kept
    assert "83926104" not in kept
