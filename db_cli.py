"""`tidegate db`: the store's schema, as it is and as this version wants it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tidegate.dashboards.terminal import plain
from tidegate.processors.folder_mark import kafka_of
from tidegate.producers.folder_audit import audit_of
from tidegate.query_cli import must_exist
from tidegate.schemas.errors import TidegateError, UsageError
from tidegate.schemas.settings import Settings
from tidegate.sinks import keeping
from tidegate.sinks.keeping import Kept

if TYPE_CHECKING:
    from tidegate.processors.ledger_check import Checked
    from tidegate.sinks.clickhouse import Store

db_app = typer.Typer(
    name="db",
    help="The store's schema, in a data folder or on the server that TIDEGATE_STORE names. Nodes and sinks bring it up to"
    " date when they start; these commands look, and do it on purpose.",
    no_args_is_help=True,
)
out = Console()
err = Console(stderr=True)

DataOption = Annotated[
    Path | None, typer.Option("--data", "-d", metavar="DIR", help="Data folder. Default: TIDEGATE_DATA_DIR, or ./tidegate-data")
]

_SHOWN: Final = 50
_APPLIED: Final = "SELECT number, name, sha256, toString(applied_at) AS applied_at FROM schema_migrations ORDER BY number"
_TABLES: Final = """
SELECT
    t.name AS name,
    t.engine AS engine,
    sum(p.rows) AS rows,
    sum(p.bytes_on_disk) AS bytes,
    sum(p.data_uncompressed_bytes) AS bytes_uncompressed,
    countIf(p.active) AS parts,
    t.engine_full AS engine_full
FROM system.tables AS t
LEFT JOIN (SELECT * FROM system.parts WHERE active AND database = currentDatabase()) AS p ON p.table = t.name
WHERE t.database = currentDatabase() AND t.engine LIKE '%MergeTree'
GROUP BY name, engine, engine_full
ORDER BY name
"""


@db_app.command()
def status(
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs")] = False,
) -> None:
    """Show which migrations are applied and which wait, and how large each table is. Ends with 1 when some wait."""
    from tidegate.sinks import migrations

    with _asked(Settings.read(data_dir=data)) as ask:
        applied = {int(row["number"]): row for row in _applied(ask)}
        tables = [_counted(row) for row in ask(_TABLES)] if applied else []
    known = {migration.number: migration for migration in migrations.read()}
    found = [_state(number, applied.get(number), known.get(number)) for number in sorted(applied.keys() | known.keys())]
    if as_json:
        out.file.write(orjson.dumps({"migrations": found, "tables": tables}, option=orjson.OPT_APPEND_NEWLINE).decode())
    else:
        _show(found, tables)
    if any(one["state"] != "applied" for one in found):
        raise typer.Exit(1)


@db_app.command()
def migrate(data: DataOption = None) -> None:
    """Bring the schema up to date. Harmless when it is, and after a migration that was cut off."""
    from tidegate.processors.audit_events import tell_migrated

    settings = Settings.read(data_dir=data)
    with owned(settings, "has migrated its store when it started") as store:
        done = store.migrate()
        tell_migrated(audit_of(settings.data_dir, settings), done)
    names = {migration.number: migration.name for migration in _known()}
    for number in done:
        out.print(Text(f"applied {names[number]}"))
    if not done:
        out.print("Nothing to do: the schema is up to date.")


@db_app.command()
def keep(
    table: Annotated[str, typer.Argument(help=", ".join(keeping.TABLES))],
    days: Annotated[str, typer.Argument(help="How many days after a row came it goes; or: for-ever")],
    tenant: Annotated[
        str | None, typer.Option(help="Of one tenant alone, sooner than everybody's; for-ever takes its rule back")
    ] = None,
    data: DataOption = None,
) -> None:
    """Keep a table's rows for so many days. What is older goes soon after; the rollups, and so the sums, stay."""
    if days != "for-ever" and not days.isdecimal():
        raise UsageError(f"{plain(days)} is no number of days; give one, or for-ever")
    from tidegate.processors.audit_events import tell_kept, tell_migrated

    settings = Settings.read(data_dir=data)
    audit, how_many = audit_of(settings.data_dir, settings), None if days == "for-ever" else int(days)
    with owned(settings, "has its store; stop it first") as store:
        tell_migrated(audit, store.migrate())
        keeping.statements(table, Kept().changed(how_many, tenant))  # what cannot be is no entry
        tell_kept(audit, table, how_many, tenant)
        kept = store.keep(table, how_many, tenant)
    out.print(Text(f"{table}: {_told(kept)}"))


@db_app.command()
def check(
    since: Annotated[str | None, typer.Option(help="From when on, UTC, e.g. 2026-11-01. Default: seven days ago")] = None,
    until: Annotated[str | None, typer.Option(help="Up to when, not included. Default: the hour that runs")] = None,
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs")] = False,
) -> None:
    """Hold calls and their rollups against the meter's own sums, hour by hour. Ends with 1 where they differ.

    The rollup by day is held against that by the hour, of each day that ends in the range. Hours that the meter has not counted
    are told, and the rest of them compared. Both ends are taken to the whole hour. Rows are on their way for some seconds, and
    sums for up to half a minute: an hour that only just ended, or that old calls are coming into, may differ for a moment.
    """
    from tidegate.processors.ledger_check import BEFORE, DAY_QUESTIONS, QUESTIONS
    from tidegate.processors.ledger_check import check as compare

    now = datetime.now(UTC)
    first = _hour(moment(since) if since else now - timedelta(days=7))
    last = _hour(moment(until) if until else now)
    if until and last < moment(until):
        last += timedelta(hours=1)
    if first >= last:
        raise UsageError("the range is empty: --since must be before --until, and in an hour before its")
    spelt = {"since": f"{first:%Y-%m-%d %H:%M:%S}", "until": f"{last:%Y-%m-%d %H:%M:%S}"}
    with _asked(Settings.read(data_dir=data)) as ask:
        tables = {row["name"]: Kept.read(row["engine_full"]) for row in ask(_TABLES)}
        if "usage_ledger" not in tables:
            raise UsageError("the store has no ledger yet; bring its schema up to date with: tidegate db migrate")
        found = {source: ask(question.format(**spelt)) for source, question in QUESTIONS.items()}
        of_days = {source: ask(question.format(**spelt)) for source, question in DAY_QUESTIONS.items()}
        before = [row["hour"] for row in ask(BEFORE.format(**spelt))]
    gone = {source: _gone_before(tables[table], now) for source, table in {"calls": "calls", "ledger": "usage_ledger"}.items()}
    checked = compare(found, of_days, before, gone)
    if as_json:
        out.file.write(orjson.dumps(asdict(checked), option=orjson.OPT_APPEND_NEWLINE).decode())
    else:
        _show_checked(checked, list(QUESTIONS))
    if checked.differences or checked.day_differences:
        raise typer.Exit(1)


def _hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def moment(text: str) -> datetime:
    """A time that a person wrote; UTC where it does not say."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{plain(text)} is no time; write 2026-11-01 or 2026-11-01T08:30:00Z") from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _gone_before(kept: Kept | None, now: datetime) -> str:
    """The first hour of which a table surely has all rows that came."""
    days = [] if kept is None else [days for days in (kept.days, *kept.tenants.values()) if days is not None]
    if not days:
        return ""
    return f"{_hour(now - timedelta(days=min(days))) + timedelta(hours=1):%Y-%m-%d %H:%M:%S}"


def _show_checked(checked: Checked, sources: list[str]) -> None:
    not_counted = set(checked.not_counted)
    if checked.differences:
        rows = []
        for one in checked.differences:
            unsaid = "not counted" if one.hour in not_counted else "not kept"
            cells = (unsaid if (said := one.said[source]) is None else f"{said:,}" for source in sources)
            rows.append((one.hour, one.measure, *cells))
        _show_differences("hour (UTC)", sources, rows)
    if checked.day_differences:
        of = list(checked.day_differences[0].said)
        _show_differences(
            "day (UTC)",
            of,
            [(day.day, day.measure, *(f"{day.said[source]:,}" for source in of)) for day in checked.day_differences],
        )
    if checked.before:
        out.print(
            f"{len(checked.before):,} hours were left out: they began before there was a ledger", style="dim", highlight=False
        )
    if not_counted:
        out.print(
            f"{len(not_counted):,} hours are not counted by the ledger: compared without it", style="dim", highlight=False
        )
    hours = len({one.hour for one in checked.differences})
    out.print(Text(f"{checked.hours:,} hours compared, {hours:,} differ", style="red" if hours else "green"))
    days = len({one.day for one in checked.day_differences})
    out.print(Text(f"{checked.days:,} days compared, {days:,} differ", style="red" if days else "green"))


def _show_differences(bucket: str, sources: list[str], rows: list[tuple[str, ...]]) -> None:
    table = Table(header_style="bold")
    table.add_column(bucket)
    table.add_column("measure")
    for source in sources:
        table.add_column(source, justify="right")
    for row in rows[:_SHOWN]:
        table.add_row(*map(Text, row))
    out.print(table)
    if len(rows) > _SHOWN:
        out.print(f"{len(rows) - _SHOWN:,} more; --json has all", style="dim", highlight=False)


@contextmanager
def owned(settings: Settings, taken: str) -> Iterator[Store]:
    """The store, to change it; a running node's is refused. A folder's has what its sink has promised."""
    from tidegate.processors.folder import RunningNode, own_or_find
    from tidegate.sinks.clickhouse import Store

    if settings.store is not None:
        with Store.open(dsn=settings.store, cluster=settings.store_cluster) as store:
            yield store
        return
    must_exist(settings)
    lock = own_or_find(settings.data_dir)
    if isinstance(lock, RunningNode):
        raise UsageError(f"a node runs on {settings.data_dir} (pid {lock.pid}), and {taken}")
    with lock, Store.open(path=settings.data_dir / "store") as store:
        if kafka_of(settings.data_dir) is None and store.is_behind():
            _keep_promises(settings, store)
        yield store


def _keep_promises(settings: Settings, store: Store) -> None:
    """What a node that was killed amid a batch has promised goes in before the schema changes, as at a node's start."""
    from tidegate.processors.embedded.sink import Sink

    sink = Sink(settings.data_dir, settings, store)
    try:
        sink.keep_promises()
    finally:
        sink.close()


def _told(kept: Kept | None) -> str:
    if kept is None:
        return "see its TTL"
    days = "for ever" if kept.days is None else f"{kept.days} days"
    return ", ".join([days, *(f"{plain(tenant)} {days} days" for tenant, days in sorted(kept.tenants.items()))])


def _known() -> list[Any]:
    from tidegate.sinks import migrations

    return migrations.read()


@contextmanager
def _asked(settings: Settings) -> Iterator[Any]:
    """A way to ask the store for rows, as it is: nothing is brought into it, and nothing is migrated."""
    from tidegate.processors.folder import RunningNode, own_or_find
    from tidegate.sinks.clickhouse import Store

    if settings.store is not None:
        with Store.open(dsn=settings.store, cluster=settings.store_cluster) as store:
            yield lambda sql: store.query(sql).dicts()
        return
    must_exist(settings)
    lock = own_or_find(settings.data_dir)
    if isinstance(lock, RunningNode):
        from tidegate.processors.embedded.client import NodeFolder

        node = NodeFolder(settings.data_dir, lock)
        yield lambda sql: [orjson.loads(line) for line in node.query(sql, "JSONEachRow").splitlines()]
        return
    with lock, Store.open(path=settings.data_dir / "store") as store:
        yield lambda sql: store.query(sql).dicts()


def _applied(ask: Any) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = ask(_APPLIED)
    except TidegateError as error:
        if "schema_migrations" not in str(error):
            raise
        return []  # a store that nobody has migrated yet
    return rows


def _counted(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose numbers are numbers, whoever answered, and which says how long rows are kept."""
    kept = Kept.read(row["engine_full"])
    numbers = {name: int(row[name]) for name in ("rows", "bytes", "bytes_uncompressed", "parts")}
    return {"name": row["name"], "engine": row["engine"], **numbers, "kept": None if kept is None else asdict(kept)}


def _state(number: int, applied: dict[str, Any] | None, known: Any) -> dict[str, Any]:
    if applied is None:
        return {"number": number, "name": known.name, "state": "waits", "applied_at": None}
    state = "applied"
    if known is None:
        state = "unknown to this version"
    elif known.sha256 != applied["sha256"]:
        state = "changed since"
    return {"number": number, "name": applied["name"], "state": state, "applied_at": applied["applied_at"]}


def _show(found: list[dict[str, Any]], tables: list[dict[str, Any]]) -> None:
    schema = Table(header_style="bold")
    for column in ("migration", "state", "applied at (UTC)"):
        schema.add_column(column)
    for one in found:
        style = "" if one["state"] == "applied" else "yellow"
        schema.add_row(Text(plain(one["name"])), Text(one["state"], style=style), (one["applied_at"] or "")[:19])
    out.print(schema)
    if any(one["state"] == "waits" for one in found):
        err.print("tidegate db migrate applies what waits; so does the next start of a node or a sink.", style="yellow")
    if not tables:
        return
    sizes = Table(header_style="bold")
    for column in ("table", "rows", "on disk", "÷ plain", "parts", "kept"):
        sizes.add_column(column, justify="left" if column in ("table", "kept") else "right")
    for one in tables:
        size, full = one["bytes"], one["bytes_uncompressed"]
        ratio = f"{size / full:.2f}" if full else ""
        kept = _told(None if one["kept"] is None else Kept(**one["kept"]))
        row = (
            plain(one["name"]),
            f"{one['rows']:,}",
            f"{size / 2**20:,.1f} MiB",
            ratio,
            str(one["parts"]),
            kept,
        )
        sizes.add_row(*map(Text, row))
    out.print(sizes)
