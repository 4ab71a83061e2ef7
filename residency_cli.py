"""`tidegate residency`: where data may rest, and what rests where it may not."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tidegate.dashboards.terminal import plain
from tidegate.query_cli import DataOption, asked, must_exist
from tidegate.schemas.errors import UsageError
from tidegate.schemas.residency import Residency
from tidegate.schemas.residency_file import residency_of
from tidegate.schemas.settings import Settings

out = Console()
err = Console(stderr=True)

residency_app = typer.Typer(
    name="residency", help="Where each tenant's data may rest, and what of the store may not.", no_args_is_help=True
)

# What tells tenants and regions, and by which time. The hours and days of calls are kept for ever.
_TABLES: Final = {
    "calls": "started_at",
    "call_requests": "started_at",
    "scored_calls": "started_at",
    "transcripts": "started_at",
    "calls_1h": "hour",
    "calls_1d": "day",
    "calls_1d_totals": "day",
}
# What tells tenants alone: hours of verdicts and of what was retrieved, the meter's sums, and what was said of a tenant's
# budget or calls. Alerts of kind `residency` name whose data was refused; they are no data of theirs.
_WITHOUT_REGION: Final = {
    "retrieval_1h": ("hour", "tenant", "1"),
    "scored_1h": ("hour", "tenant", "1"),
    "findings_1h": ("hour", "tenant", "1"),
    "usage_ledger": ("hour", "tenant", "tenant != ''"),
    "signals": ("at", "scope['tenant']", "scope['tenant'] != ''"),
    "alerts": ("at", "scope['tenant']", "scope['tenant'] != '' AND kind != 'residency'"),
}
_ASKED: Final = {
    **{table: (at, "tenant", "toString(region)", "1") for table, at in _TABLES.items()},
    **{table: (at, tenant, "NULL", told) for table, (at, tenant, told) in _WITHOUT_REGION.items()},
}
_UNITED: Final = " UNION ALL ".join(
    f"SELECT '{table}' AS `table`, toString({tenant}) AS of_tenant, {region} AS of_region, count() AS rows,"
    f" toUnixTimestamp(toDateTime(min({at}))) AS first, toUnixTimestamp(toDateTime(max({at}))) AS last"
    f" FROM {table} WHERE {told} GROUP BY of_tenant, of_region"
    for table, (at, tenant, region, told) in _ASKED.items()
)
_FOUND: Final = f"SELECT `table`, of_tenant AS tenant, of_region AS region, rows, first, last FROM ({_UNITED})"

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON line for each tenant and region, for programs")]


@residency_app.command()
def show(data: DataOption = None) -> None:
    """Check the map and what this process would write to, and say what it allows here."""
    _show(_in_force(Settings.read(data_dir=data)))


@residency_app.command()
def check(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Find what is in the store and may not rest here, by table, tenant and region. Ends with 1 where there is any.

    Rows stay as they are: a map that is new says nothing of who wrote them. `tidegate residency show` tells the map alone.
    """
    settings = Settings.read(data_dir=data)
    residency = _in_force(settings)
    must_exist(settings)
    with asked(settings) as folder:
        found = [orjson.loads(line) for line in folder.query(_FOUND, "JSONEachRow").splitlines()]
    wrong = violations(residency, found)
    if as_json:
        for row in wrong:
            sys.stdout.buffer.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        sys.stdout.buffer.flush()
    else:
        _show(residency)
        _tell(wrong, sum(int(row["rows"]) for row in found))
    raise typer.Exit(1 if wrong else 0)


def violations(residency: Residency, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Which of these groups of rows may not rest here; '' is not known. A region of None: the table tells none, and its rows
    go by their tenant alone."""
    wrong = []
    for row in sorted(found, key=lambda row: (row["table"], row["tenant"], row["region"] or "")):
        tenant, region = row["tenant"] or None, row["region"] or None
        if row["region"] is None:
            allowed = residency.allowed(tenant, None)
            may_rest = allowed is None or residency.here in allowed
        else:
            may_rest = residency.refusal(tenant, region) is None
        if may_rest:
            continue
        first, last = (datetime.fromtimestamp(int(row[name]), UTC).isoformat() for name in ("first", "last"))
        wrong.append(
            {
                "table": row["table"],
                "tenant": tenant,
                "region": region,
                "here": residency.here,
                "allowed": residency.allowed(tenant, region),
                "rows": int(row["rows"]),
                "first": first,
                "last": last,
            }
        )
    return wrong


def _in_force(settings: Settings) -> Residency:
    found = residency_of(settings)
    if found is None:
        raise UsageError(
            "no residency map is in force: name a file in TIDEGATE_RESIDENCY_FILE; docs/examples/residency.toml shows how"
        )
    return found


def _show(residency: Residency) -> None:
    residency_map = residency.map
    out.print(f"residency map {residency_map.version}, in {residency.here}", highlight=False)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("tenant", "may rest in", f"in {residency.here}"):
        table.add_column(column)
    default = residency_map.default
    for tenant, allowed in (*sorted(residency_map.tenants.items()), ("every other", default)):
        listed = allowed or ("the region that a call names",)
        here = "of its own region" if allowed is None else "yes" if residency.here in allowed else "refused"
        table.add_row(*map(Text, (plain(tenant), ", ".join(map(plain, listed)), here)))
    out.print(table)
    untagged = "refused" if residency_map.untagged == "refuse" else "accepted where they are"
    out.print(f"Calls that name no region are {untagged}.", highlight=False)
    for host, region in sorted(residency_map.hosts.items()):
        out.print(Text(f"{plain(host)} is in {plain(region)}"))


def _tell(wrong: list[dict[str, Any]], rows: int) -> None:
    if not wrong:
        out.print(f"All {rows:,} rows of {', '.join(_ASKED)} may rest here.", highlight=False)
        return
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("table", "tenant", "region", "may rest in", "rows", "first (UTC)", "last (UTC)"):
        # A tenant and a region may be long, and are folded; a time is read whole.
        table.add_column(column, justify="right" if column == "rows" else "left", no_wrap="UTC" in column, overflow="fold")
    for row in wrong:
        allowed = ", ".join(row["allowed"] or ()) or "?"
        cells = (
            row["table"],
            row["tenant"] or "?",
            row["region"] or "?",
            allowed,
            f"{row['rows']:,}",
            row["first"][: len("2026-11-02T08:00")],
            row["last"][: len("2026-11-02T08:00")],
        )
        table.add_row(*(Text(plain(cell)) for cell in cells), style="red")
    out.print(table)
    err.print(f"{sum(row['rows'] for row in wrong):,} of {rows:,} rows may not rest here", style="red", highlight=False)
