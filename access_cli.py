"""`tidegate access`: tokens for a tenant's people and for the console's; granted, listed and revoked."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tidegate.dashboards.terminal import plain
from tidegate.processors.tenant_tokens import Grant, TenantTokens
from tidegate.producers.folder_audit import audit_of
from tidegate.query_cli import must_exist
from tidegate.schemas.errors import UsageError
from tidegate.schemas.settings import Settings

access_app = typer.Typer(
    name="access",
    help="Tokens for people. A tenant's opens that tenant's views at the node's ClickHouse door; a role's signs in to the"
    " console. Each opens nothing else, is shown once, and kept as a hash.",
    no_args_is_help=True,
)
out = Console()
err = Console(stderr=True)


class Given(StrEnum):
    """The roles that can be given; the operator's comes with the data folder."""

    VIEWER = "viewer"
    ONCALL = "oncall"
    ANALYST = "analyst"
    COMPLIANCE = "compliance"


DataOption = Annotated[
    Path | None, typer.Option("--data", "-d", metavar="DIR", help="Data folder. Default: TIDEGATE_DATA_DIR, or ./tidegate-data")
]


@access_app.command()
def grant(
    tenant: Annotated[str | None, typer.Option("--tenant", "-t", help="Whose figures it opens")] = None,
    role: Annotated[
        Given | None, typer.Option("--role", help="Instead: what its owner may in the console (docs/console.md)")
    ] = None,
    name: Annotated[str, typer.Option(help="Who or what it is for; in the console, who acknowledged an incident")] = "",
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long it lasts")] = 90,
    data: DataOption = None,
) -> None:
    """Make a token and print it, this once. A running node takes it at once."""
    given, token = _tokens(data).grant(tenant, name, timedelta(days=days), role.value if role is not None else None)
    sys.stdout.write(f"{token}\n")
    _tell(f"token {given.id} opens {_opens(given)} until {_day(given.expires_at)}. It is not shown again.")


@access_app.command(name="list")
def list_tokens(data: DataOption = None, as_json: Annotated[bool, typer.Option("--json", help="As JSON")] = False) -> None:
    """Show which tokens there are, whose, until when, and whether they were ever used. Never the tokens themselves."""
    tokens = _tokens(data)
    grants = sorted(tokens.grants(), key=lambda one: (one.tenant or "", one.role or "", one.granted_at))
    if as_json:
        told = [one.model_dump(mode="json", exclude={"sha256"}) for one in grants]
        sys.stdout.buffer.write(orjson.dumps(told, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        return
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("token", "opens", "name", "granted", "by", "until", "first used"):
        table.add_column(column)
    for one in grants:
        table.add_row(
            one.id,
            Text(one.role or plain(one.tenant or "")),
            Text(plain(one.name)),
            _day(one.granted_at),
            Text(plain(one.granted_by)),
            _until(one, tokens.now()),
            _day(one.first_used_at) if one.first_used_at is not None else Text("never", style="dim"),
        )
    out.print(table)


@access_app.command()
def revoke(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="As `tidegate access list` shows them")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", "-t", help="Instead: all tokens of this tenant")] = None,
    data: DataOption = None,
) -> None:
    """Take tokens back: a running node refuses them from its next question on."""
    if bool(ids) == (tenant is not None):
        raise UsageError("name tokens by their ids, or a tenant with --tenant; `tidegate access list` shows both")
    tokens = _tokens(data)
    if unknown := set(ids or ()) - {one.id for one in tokens.grants()}:
        raise UsageError(f"there is no token {', '.join(sorted(map(plain, unknown)))}; nothing was revoked")
    gone = tokens.revoke(lambda one: one.tenant == tenant if tenant is not None else one.id in (ids or ()))
    if not gone:
        raise UsageError(f"{plain(tenant or '')} has no tokens; `tidegate access list` shows whose there are")
    for one in gone:
        _tell(f"token {one.id}, which opened {_opens(one)}, opens nothing any more")


def _tokens(data: Path | None) -> TenantTokens:
    settings = Settings.read(data_dir=data)
    must_exist(settings)
    return TenantTokens(settings.data_dir, audit_of(settings.data_dir, settings))


def _opens(one: Grant) -> str:
    return f"the views of {plain(one.tenant)}" if one.tenant is not None else f"the console as {one.role} for {plain(one.name)}"


def _until(one: Grant, now: datetime) -> Text:
    expired = one.has_expired(now)
    return Text(f"{_day(one.expires_at)}{' (ended)' if expired else ''}", style="dim" if expired else "")


def _day(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}Z"


def _tell(text: str) -> None:
    # The token alone is on standard output, to be piped into a file or a secret store.
    err.print(Text(text), soft_wrap=not err.is_terminal)
