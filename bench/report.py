"""What a bench found, as tables: on the screen, and in docs/benchmarks.md between markers.

<!-- bench:emit -->
…                        rewritten by `python -m bench emit --write`
<!-- /bench:emit -->
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).parent.parent / "docs" / "benchmarks.md"


@dataclass(frozen=True, slots=True)
class Table:
    """One table; the first column says what, the others hold figures."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What one bench found. `samples` says how much was measured and how often, `notes` what to keep in mind."""

    tables: tuple[Table, ...]
    samples: str
    notes: tuple[str, ...] = ()
    libraries: tuple[str, ...] = field(default=())


def machine() -> str:
    """Where the figures come from: cores that this process may use, system, Python."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


def versions(libraries: Sequence[str]) -> str:
    found = []
    for name in libraries:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} absent")
    return ", ".join(found)


def markdown(result: Result, *, command: str, date: str) -> str:
    """A section's body: tables, notes, and what is needed to judge and repeat them."""
    parts = []
    for table in result.tables:
        lines = [table.caption, "", _line(table.columns), _line(["---", *["---:"] * (len(table.columns) - 1)])]
        parts.append("\n".join([*lines, *(_line(row) for row in table.rows)]))
    if result.notes:
        parts.append("\n".join(f"- {note}" for note in result.notes))
    parts.append(f"`{command}`, {date}: {result.samples}; {machine()}; {versions(result.libraries)}.")
    return "\n\n".join(parts)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def rewrite(document: str, name: str, body: str) -> str:
    """The document with a section's body in place of the one between its markers. Raises `ValueError` without markers."""
    begin, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    if document.count(begin) != 1 or document.count(end) != 1:
        raise ValueError(f"docs/benchmarks.md must hold {begin} and {end} once each")
    head, _, rest = document.partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        raise ValueError(f"docs/benchmarks.md has {end} before {begin}")
    return f"{head}{begin}\n\n{body}\n\n{end}{tail}"
