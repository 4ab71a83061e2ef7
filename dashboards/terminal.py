"""What a person sees in the terminal: the node's live summary, query answers as tables.

Names come from whoever sends events, so they are text here, never markup, and keep their control characters to
themselves.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

# How ClickHouse writes NULL among strings.
_NULL: Final = "ᴺᵁᴸᴸ"
_MODELS_SHOWN: Final = 12
_STATE_STYLES: Final = {"block": "bold red", "downgrade": "bold magenta", "throttle": "yellow", "warn": "yellow"}
_DECIMAL: Final = re.compile(r"-?\d+(\.\d+)?\Z")


def plain(text: str) -> str:
    """Text that cannot move a cursor, ring a bell or turn the line around; line ends stay."""
    return "".join(
        char if char == "\n" else " " if char == "\t" else "\N{REPLACEMENT CHARACTER}" if _acts(char) else char for char in text
    )


def _acts(char: str) -> bool:
    return not char.isprintable() and unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def usd(nano_usd: int, places: int = 6) -> str:
    """Nano-dollars as dollars; with six places a single short call is still visible."""
    return f"${nano_usd / 1e9:,.{places}f}"


def summary(status: dict[str, Any], rate_per_s: float | None = None, kept_back: int | None = None) -> RenderableType:
    """The node at a glance. With a rate it is the panel of a running node, which says how to stop it; `kept_back` counts the
    calls that gates of this process refused."""
    totals, today = status["totals"], status["today"]
    head = Text("Tidegate ", style="bold cyan")
    head.append(plain(status["url"]), style="not bold underline" if "://" in status["url"] else "not bold")
    waiting = status["meter_lag_records"] + status["sink_lag_records"]
    bad = sum(totals.get(name, 0) for name in ("rejected", "dead_letters", "bad_envelopes"))
    counts: dict[str, str | Text] = {
        "events": f"{totals.get('events', 0):,}",
        "calls": f"{totals.get('responses', 0):,}",
        **({"judged": f"{totals['scored']:,}"} if "scored" in totals else {}),
        "dead letters": Text(f"{bad:,}", style="bold yellow" if bad else ""),
        "duplicates": f"{totals.get('duplicates', 0):,}",
        "waiting": f"{waiting:,}" + (" (store away)" if status["store_away"] else ""),
    }
    if rate_per_s is not None:
        head.append("   Ctrl-C stops", style="not bold dim")
        counts["events/s"] = f"{rate_per_s:,.0f}"
    if kept_back is not None:
        counts["kept back"] = Text(f"{kept_back:,}", style="bold yellow" if kept_back else "")
    grid = Table.grid(padding=(0, 3))
    grid.add_row(*counts, style="dim")
    grid.add_row(*counts.values())
    parts: list[RenderableType] = [head, Text(), grid, Text(), models(today)]
    if status["policies"]["in_force"]:
        parts += [Text(), policies(status["policies"])]
    return Panel(Group(*parts), border_style="cyan", expand=False)


def policies(standing: dict[str, Any]) -> RenderableType:
    """How many policies are in force, and which scopes are not fine."""
    count = standing["not_fine"]
    fine = f"{count:,} scope{'' if count == 1 else 's'} not fine" if count else "every scope is fine"
    table = Table.grid(padding=(0, 2))
    table.add_row(Text(f"{standing['in_force']} policies", style="dim"), Text(fine, style="dim"))
    for entry in standing["worst"]:
        scope = ", ".join(f"{name}={value}" for name, value in entry["scope"].items()) or "everything"
        table.add_row(
            Text(entry["state"], style=_STATE_STYLES.get(entry["state"], "")), Text(plain(f"{entry['policy']}: {scope}"))
        )
    return table


def models(today: dict[str, Any]) -> RenderableType:
    """One day's usage by model, dearest first."""
    if not today["models"]:
        return Text("no calls yet", style="dim")
    # Cents are enough once there are dollars by the hundred; all rows alike, so that the points stand in line.
    places = 6 if today["cost_nano_usd"] < 100 * 10**9 else 2
    # What most days have none of stands there only when there is some.
    rare = [name for name in ("unpriced", "findings") if any(row[name] for row in today["models"])]
    table = Table(
        title=f"{today['day']} (UTC)",
        title_justify="left",
        title_style="dim",
        box=None,
        header_style="bold",
        padding=(0, 2, 0, 0),
        pad_edge=False,
    )
    table.add_column("model", overflow="fold", min_width=16)
    for name in ("calls", "errors", "tokens", "cost", *rare):
        table.add_column(name, justify="right", no_wrap=True)
    shown = today["models"][:_MODELS_SHOWN]
    for row in [*shown, {"model": "all", **today}]:
        if row is not shown[-1] and row["model"] == "all" and len(today["models"]) > len(shown):
            table.add_row(Text(f"… and {len(today['models']) - len(shown)} more"), style="dim")
        cells = [f"{count:,}" for count in (row["requests"], row["errors"], row["input_tokens"] + row["output_tokens"])]
        cells.append(usd(row["cost_nano_usd"], places) if row["unpriced"] < row["requests"] else "–")
        cells += [f"{row[name]:,}" if row[name] else "" for name in rare]
        table.add_row(Text(plain(row["model"])), *cells)
    return table


@dataclass(frozen=True, slots=True)
class Answer:
    """A query's answer, from ClickHouse's JSONCompactStrings. Numbers stand right; what is not known reads NULL.

    Where the words of the columns do not fit side by side, each row is a block of lines. Off a terminal there is no
    width to fit.
    """

    columns: list[str]
    types: list[str]
    rows: list[list[str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = self._table()
        needed = Measurement.get(console, options.update_width(1 << 16), table)
        if not console.is_terminal:
            yield from console.render(table, options.update_width(max(needed.maximum, 1)))
        elif needed.minimum <= options.max_width:
            yield table
        else:
            for number, row in enumerate(self.rows, 1):
                yield Text(f"row {number}", style="dim")
                yield self._block(row)

    def _table(self) -> Table:
        table = Table(header_style="bold")
        for name, kind in zip(self.columns, self.types, strict=True):
            number = _is_number(kind)
            table.add_column(Text(plain(name)), justify="right" if number else "left", no_wrap=number, overflow="fold")
        columns = [_points_in_line(column) if "Decimal" in kind else column for column, kind in self._by_column()]
        for row in zip(*columns, strict=True):
            table.add_row(*(_cell(value, kind) for value, kind in zip(row, self.types, strict=True)))
        return table

    def _by_column(self) -> Iterator[tuple[list[str], str]]:
        for place, kind in enumerate(self.types):
            yield [row[place] for row in self.rows], kind

    def _block(self, row: list[str]) -> Table:
        block = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        block.add_column(style="bold", no_wrap=True)
        block.add_column(overflow="fold")
        for name, kind, value in zip(self.columns, self.types, row, strict=True):
            block.add_row(Text(plain(name)), _cell(value, kind))
        return block


def _is_number(kind: str) -> bool:
    return kind.removeprefix("Nullable(").startswith(("Int", "UInt", "Float", "Decimal"))


def _points_in_line(numbers: list[str]) -> list[str]:
    """Decimals with as many places as the longest of them; ClickHouse leaves out zeros at the end."""
    places = max((len(number.partition(".")[2]) for number in numbers if _DECIMAL.match(number)), default=0)
    if not places:
        return numbers
    return [
        f"{number if '.' in number else f'{number}.'}{'0' * (places - len(number.partition('.')[2]))}"
        if _DECIMAL.match(number)
        else number
        for number in numbers
    ]


def _cell(value: str, kind: str) -> Text:
    return Text("NULL", style="dim") if value == _NULL and "Null" in kind else Text(plain(value))
