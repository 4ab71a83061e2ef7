"""What a person sees in the terminal: the node's live summary, query answers as tables."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text


def usd(nano_usd: int) -> str:
    """Nano-dollars as dollars, six places: a single short call is still visible."""
    return f"${nano_usd / 1e9:,.6f}"


def summary(status: dict[str, Any], rate_per_s: float | None = None) -> RenderableType:
    """The node at a glance."""
    totals, today = status["totals"], status["today"]
    head = Text()
    head.append("Tidegate ", style="bold cyan")
    head.append(status["url"], style="underline")
    head.append("   Ctrl-C stops", style="dim")
    counts = Table.grid(padding=(0, 3))
    counts.add_row("events", "calls", "dead letters", "duplicates", "waiting", "events/s", style="dim")
    bad = sum(totals.get(name, 0) for name in ("rejected", "dead_letters", "bad_envelopes"))
    waiting = status["meter_lag_records"] + status["sink_lag_records"]
    counts.add_row(
        f"{totals.get('events', 0):,}",
        f"{totals.get('responses', 0):,}",
        Text(f"{bad:,}", style="bold yellow" if bad else ""),
        f"{totals.get('duplicates', 0):,}",
        f"{waiting:,}" + (" (store away)" if status["store_away"] else ""),
        "–" if rate_per_s is None else f"{rate_per_s:,.0f}",
    )
    return Panel(Group(head, Text(), counts, Text(), models(today)), border_style="cyan", expand=False)


def models(today: dict[str, Any]) -> Table:
    """One day's usage by model, dearest first."""
    table = Table(title=f"{today['day']} (UTC)", title_justify="left", title_style="dim", box=None, header_style="bold")
    for name in ("model", "calls", "errors", "input tokens", "output tokens", "cost", "unpriced"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for row in today["models"][:12]:
        table.add_row(
            row["model"],
            f"{row['requests']:,}",
            f"{row['errors']:,}",
            f"{row['input_tokens']:,}",
            f"{row['output_tokens']:,}",
            usd(row["cost_nano_usd"]),
            f"{row['unpriced']:,}" if row["unpriced"] else "",
        )
    if len(today["models"]) > 12:
        table.add_row(f"… and {len(today['models']) - 12} more", style="dim")
    table.add_row(
        "all",
        f"{today['requests']:,}",
        f"{today['errors']:,}",
        f"{today['input_tokens']:,}",
        f"{today['output_tokens']:,}",
        usd(today["cost_nano_usd"]),
        "",
        style="bold",
        end_section=True,
    )
    return table


def answer(columns: list[str], types: list[str], rows: list[list[Any]]) -> Table:
    """A query's answer. Numbers stand right; what is not known reads NULL."""
    table = Table(header_style="bold")
    for name, kind in zip(columns, types, strict=True):
        numeric = any(word in kind for word in ("Int", "Float", "Decimal"))
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text("NULL", style="dim") if value is None else Text(str(value)) for value in row))
    return table
