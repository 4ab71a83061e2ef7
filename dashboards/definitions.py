"""What the console is told of boards and variables: everything but the SQL. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..schemas.errors import UsageError
from .boards import BOARDS
from .panel import VARIABLES, Board, Panel, Variable

# What a person chooses, and the range does not say already.
CHOSEN: Final[tuple[Variable, ...]] = tuple(one for one in VARIABLES if one.name not in ("since", "until", "step_s"))
_LONGEST_VALUE: Final = 128


def definitions() -> dict[str, Any]:
    return {"boards": [_board(one) for one in BOARDS], "variables": [_variable(one) for one in CHOSEN]}


def board(key: str) -> Board:
    """Raises `UsageError`."""
    for one in BOARDS:
        if one.key == key:
            return one
    raise UsageError(f"there is no board {key[:40]!r}; there are {', '.join(one.key for one in BOARDS)}")


def variable(name: str) -> Variable:
    """One that has choices to ask for. Raises `UsageError`."""
    for one in CHOSEN:
        if one.name == name and isinstance(one.choices, str):
            return one
    raise UsageError(f"there are no choices of {name[:40]!r} to ask for")


def chosen(asked: Mapping[str, str]) -> dict[str, str]:
    """The variables' values, with their defaults. Raises `UsageError`."""
    values = {one.name: asked.get(one.name) or one.default for one in CHOSEN}
    for one in CHOSEN:
        value = values[one.name]
        if len(value) > _LONGEST_VALUE or not value.isprintable():
            raise UsageError(f"{one.name} has at most {_LONGEST_VALUE} printable characters")
        if isinstance(one.choices, tuple) and one.choices and value not in one.choices:
            raise UsageError(f"{one.name} is one of {', '.join(one.choices)}")
    return values


def _board(one: Board) -> dict[str, Any]:
    return {"key": one.key, "title": one.title, "about": one.about, "panels": [_panel(panel) for panel in one.panels]}


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "key": panel.key,
        "title": panel.title,
        "about": panel.about,
        "shape": panel.shape,
        "unit": panel.unit,
        "width": panel.width,
        "stacked": panel.stacked,
        "columns": [{"name": one.name, "title": one.title, "how": one.how, "drill": one.drill} for one in panel.columns],
        "more": panel.more,
        "series_of": panel.series_of,
    }


def _variable(one: Variable) -> dict[str, Any]:
    told: dict[str, Any] = {"name": one.name, "label": one.label, "default": one.default}
    return told | ({"choices": list(one.choices)} if isinstance(one.choices, tuple) else {})
