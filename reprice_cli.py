"""`tidegate reprice`: calls of the past at other prices, written beside what was metered."""

from __future__ import annotations

import re
from collections import defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tidegate.dashboards.terminal import plain
from tidegate.db_cli import moment, owned
from tidegate.producers.folder_audit import audit_of
from tidegate.query_cli import DataOption, asked, must_exist
from tidegate.running import progress_bar
from tidegate.schemas.errors import UsageError
from tidegate.schemas.settings import Settings

if TYPE_CHECKING:
    from tidegate.processors.pricing import PriceBook
    from tidegate.processors.repricing import Change
    from tidegate.sinks.clickhouse import Store

    Changes = dict[tuple[str, str], Change]

out = Console()

_NAME: Final = re.compile(r"[\w.+-]{1,100}\Z", re.ASCII)
_SPAN_CALLS: Final = 100_000
_SHOWN: Final = 30
_WHERE: Final = "started_at >= {since:DateTime64(6, 'UTC')} AND started_at < {until:DateTime64(6, 'UTC')}"
_TENANT: Final = "({tenant:String} = '*' OR tenant = {tenant:String})"


def reprice(
    since: Annotated[str, typer.Option(help="From when on, UTC, e.g. 2026-11-01")],
    until: Annotated[str | None, typer.Option(help="Up to when, not included. Default: now")] = None,
    prices: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Price file over the book. Default: TIDEGATE_PRICE_FILE; else the book alone"),
    ] = None,
    tenant: Annotated[str, typer.Option(help="One tenant's calls alone")] = "*",
    name: Annotated[
        str | None,
        typer.Option("--as", metavar="VERSION", help="What to call this version. Default: the book, the range, the tenant"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would change, and write nothing")] = False,
    data: DataOption = None,
) -> None:
    """Price calls of the past anew, beside what was metered: table repriced_calls, a version each time.

    What was metered stays as it is, and so do budgets. A version that stands is not written again: give another name.

    Example: tidegate reprice --since 2026-11-01 --prices prices.toml --dry-run
    """
    from tidegate.processors.audit_events import tell_migrated, tell_repriced
    from tidegate.processors.pricing import PriceBook

    settings = Settings.read(data_dir=data)
    book = PriceBook.load(prices or settings.price_file)
    first, last = moment(since), moment(until) if until else datetime.now(UTC)
    if first >= last:
        raise UsageError("the range is empty: --since must be before --until")
    version = name or "_".join(
        [book.version, f"{first:%Y%m%dT%H%M%S}", f"{last:%Y%m%dT%H%M%S}", *([tenant] if tenant != "*" else [])]
    )
    if not dry_run and not _NAME.match(version):
        raise UsageError("a version is named by letters, digits, _ . + -, 100 at most; give another with --as")
    if settings.store is None:
        must_exist(settings)
        with asked(settings):
            pass  # what a node that was killed has left in its log is metered and stored first
    audit = audit_of(settings.data_dir, settings)
    with owned(settings, "has its store; stop it first") as store:
        tell_migrated(audit, store.migrate())
        if not dry_run and store.query("SELECT 1 FROM repricings WHERE version = {v:String}", {"v": version}).rows:
            raise UsageError(f"version {version} stands already; give this one another name with --as")
        if not dry_run:
            told = {"version": version, "price_book": book.version, "since": first.isoformat(), "until": last.isoformat()}
            tell_repriced(audit, told | {"calls": _calls(store, first, last, tenant)}, tenant)
        changes = _reprice(store, book, first, last, tenant, None if dry_run else version)
    _show(changes, book, None if dry_run else version)


def _calls(store: Store, since: datetime, until: datetime, tenant: str) -> int:
    asked = {"since": since, "until": until, "tenant": tenant}
    [(count,)] = store.query(f"SELECT count() FROM calls WHERE {_WHERE} AND {_TENANT}", asked).rows
    return int(count)


def _reprice(store: Store, book: PriceBook, since: datetime, until: datetime, tenant: str, version: str | None) -> Changes:
    """Span by span; what changed for each tenant and model."""
    from tidegate.processors.repricing import KEPT, PRICED_BY, Change, encoded, repriced, spans

    changes: Changes = defaultdict(Change)
    asked = {"since": since, "until": until, "tenant": tenant}
    counted = (
        f"SELECT toStartOfHour(started_at) AS hour, count() FROM calls WHERE {_WHERE} AND {_TENANT} GROUP BY hour ORDER BY hour"
    )
    hours = store.query(counted, asked, max_rows=10_000_000).rows
    columns = ", ".join(dict.fromkeys([*PRICED_BY, *KEPT]))
    if version is not None:
        store.drop_partition("repriced", version)
    with progress_bar() as bar:
        task = bar.add_task("pricing", total=sum(count for _, count in hours))
        for place, (first, last, count) in enumerate(spans(hours, _SPAN_CALLS)):
            span = asked | {"since": max(first, since), "until": min(last, until)}
            found = store.query(
                f"SELECT {columns} FROM calls WHERE {_WHERE} AND {_TENANT}", span, max_rows=100_000_000, timeout_s=120
            )
            rows = [repriced(book, version or "", row) for row in found.dicts()]
            for row in rows:
                changes[row["tenant"], row["model"]].add(row["metered_nano_usd"], row["cost_nano_usd"])
            if version is not None and rows:
                store.insert("repriced", encoded(rows), f"reprice:{datetime.now(UTC).timestamp()}:{place}")
            bar.advance(task, count)
    if version is not None:
        made: dict[str, Any] = {
            "version": version,
            "made_at": datetime.now(UTC),
            "since": since,
            "until": until,
            "tenant": tenant,
        }
        calls = sum(change.calls for change in changes.values())
        store.insert(
            "repricings",
            orjson.dumps(made | {"price_book": book.version, "calls": calls}),
            f"repricings:{made['made_at'].timestamp()}",
        )
    return changes


def _show(changes: Changes, book: PriceBook, version: str | None) -> None:
    table = Table(header_style="bold")
    for column in ("tenant", "model"):
        table.add_column(column)
    for column in ("calls", "changed", "metered $", "now $", "difference $", "got a price", "lost it"):
        table.add_column(column, justify="right")
    changed = [(who, change) for who, change in changes.items() if change.changed]
    changed.sort(key=lambda item: -abs(item[1].cost_nano_usd - item[1].metered_nano_usd))
    for (tenant, model), change in changed[:_SHOWN]:
        table.add_row(*map(Text, (plain(tenant), plain(model), *_cells(change))))
    table.add_section()
    table.add_row(*map(Text, ("all", "", *_cells(_whole(changes)))), style="bold")
    out.print(table)
    if len(changed) > _SHOWN:
        out.print(f"{len(changed) - _SHOWN:,} more tenants and models are in the sum", style="dim", highlight=False)
    out.print(Text(f"prices: {book.version}"), style="dim")
    if version is None:
        out.print("Nothing was written.", style="yellow")
    else:
        out.print(Text(f"version: {version}"))
        out.print("SELECT tenant, sum(difference_usd) FROM repriced_calls WHERE version = '…' GROUP BY tenant", style="dim")


def _whole(changes: Changes) -> Change:
    from tidegate.processors.repricing import Change

    return Change(*(sum(getattr(change, name) for change in changes.values()) for name in Change.__slots__))


def _cells(change: Change) -> tuple[str, ...]:
    money = (change.metered_nano_usd, change.cost_nano_usd, change.difference_nano_usd)
    usd = (f"{Decimal(nano) / 1_000_000_000:,.4f}" for nano in money)
    return (f"{change.calls:,}", f"{change.changed:,}", *usd, f"{change.got_price:,}", f"{change.lost_price:,}")
