"""`tidegate keys`: the ring that seals the texts of calls; made, listed, rotated, shredded and checked."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tidegate.dashboards.terminal import plain
from tidegate.producers.key_source import FileKeys, FolderKeys, KeySource, key_source
from tidegate.producers.keyring import Key, KeyRing
from tidegate.producers.ring_file import change_ring, read_ring
from tidegate.schemas.content import Texts
from tidegate.schemas.errors import UsageError
from tidegate.schemas.settings import Settings

keys_app = typer.Typer(
    name="keys",
    help="The key ring that seals prompts, answers and context. It is TIDEGATE_KEY_FILE, TIDEGATE_KEYS or what"
    " TIDEGATE_KEY_COMMAND prints; a data folder has one of its own, keys.json. Keys themselves are never shown.",
    no_args_is_help=True,
)
out = Console()
err = Console(stderr=True)

DataOption = Annotated[
    Path | None, typer.Option("--data", "-d", metavar="DIR", help="Data folder. Default: TIDEGATE_DATA_DIR, or ./tidegate-data")
]
FileOption = Annotated[
    Path | None, typer.Option("--file", "-f", metavar="FILE", help="The ring. Default: TIDEGATE_KEY_FILE, or the data folder's")
]

_EVERYBODY: Final = "everybody"
# Enough of a fingerprint to compare two machines by eye.
_MARK_DIGITS: Final = 8


@keys_app.command()
def make(
    tenants: Annotated[list[str] | None, typer.Argument(metavar="[TENANT]...", help="Who gets a key of their own")] = None,
    file: FileOption = None,
    data: DataOption = None,
) -> None:
    """Make a ring with a key for everybody, readable by you only; or give tenants keys of their own in one that is there."""
    path = _path(file, data)
    there = path.exists()
    if there and not tenants:
        raise UsageError(f"{path} is there already; name tenants to give keys to, or `tidegate keys rotate`")
    given: list[str] = []

    def added(ring: KeyRing) -> KeyRing:
        for tenant in tenants or ():
            if ring.own(tenant) is None:
                ring = ring.adding(Key.made(tenant))
                given.append(tenant)
        return ring

    ring = change_ring(path, added, make=True)
    _say(f"{'changed' if there else 'made'} {path}: {_count(len(ring.keys), 'key')}, mark {_mark(ring)}")
    for tenant in dict.fromkeys(tenants or ()):
        _say(f"  {tenant}: {'a key of its own' if tenant in given else 'had one'}")
    if not there and not (file is None and Settings.read().key_file is None):
        _say(
            f"Services and workers find it with TIDEGATE_KEY_FILE={path}. Keep a copy: without it nothing sealed can be opened."
        )


@keys_app.command(name="list")
def list_keys(file: FileOption = None, data: DataOption = None) -> None:
    """Show the keys: whose, since when, and whether they seal or only open."""
    ring, where = _ring(file, data)
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("key", "tenant", "made", "does"):
        table.add_column(column)
    for key in sorted(ring.keys, key=lambda key: (key.tenant is not None, key.tenant or "", key.created_at)):
        does = "seals and opens" if ring.own(key.tenant) == key else "retired: opens" if key.retired else "opens"
        table.add_row(
            key.key_id,
            Text(plain(key.tenant)) if key.tenant is not None else Text(_EVERYBODY, style="dim"),
            f"{key.created_at.astimezone(UTC):%Y-%m-%d %H:%M}Z",
            Text(does, style="green" if does.startswith("seals") else "dim"),
        )
    out.print(table)
    _say(f"{_count(len(ring.keys), 'key')} in {where}, mark {_mark(ring)}")


@keys_app.command()
def rotate(
    tenant: Annotated[str | None, typer.Argument(metavar="[TENANT]", help="Whose key. Default: the one for everybody")] = None,
    file: FileOption = None,
    data: DataOption = None,
    everyone: Annotated[bool, typer.Option("--all", help="Of every tenant, and the one for everybody")] = False,
) -> None:
    """Seal with a new key from now on. The old one still opens what it sealed; running services hear of it by themselves."""
    if everyone and tenant is not None:
        raise UsageError("give a tenant or --all, not both")
    path = _changeable(file, data)
    made: list[Key] = []

    def rotated(ring: KeyRing) -> KeyRing:
        whose: Iterable[str | None] = {key.tenant for key in ring.keys if not key.retired} if everyone else (tenant,)
        for one in sorted(whose, key=lambda name: name or ""):
            made.append(Key.made(one))
            ring = ring.retiring(*(key.key_id for key in ring.keys if key.tenant == one)).adding(made[-1])
        return ring

    change_ring(path, rotated)
    for key in made:
        _say(f"{key.tenant or _EVERYBODY}: seals with {key.key_id} now")


@keys_app.command()
def retire(
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="The key's id, as `tidegate keys list` shows it")],
    file: FileOption = None,
    data: DataOption = None,
) -> None:
    """Let a key only open from now on: one that may be known to others, before what it sealed has run out."""

    def retired(ring: KeyRing) -> KeyRing:
        if all(key.key_id != key_id for key in ring.keys):
            raise UsageError(f"there is no key {plain(key_id)} in the ring; `tidegate keys list` shows them")
        return ring.retiring(key_id)

    ring = change_ring(_changeable(file, data), retired)
    key = ring.opening(key_id)
    _say(f"{key_id} opens, and no longer seals")
    sealing = ring.sealing(key.tenant)
    if isinstance(_source(file, data), FolderKeys):
        if ring.own(key.tenant) is None:
            _say(f"the next text of {key.tenant or _EVERYBODY} makes a new key")
    elif sealing is None:
        _warn(
            f"nothing seals for {key.tenant or _EVERYBODY} now, and their texts are not sent; `tidegate keys rotate` mends it"
        )
    elif sealing.tenant != key.tenant:
        _say(f"for {key.tenant} the key for everybody seals now; `tidegate keys rotate {key.tenant}` gives them their own")


@keys_app.command()
def shred(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="Whose sealed texts nobody shall ever open again")],
    file: FileOption = None,
    data: DataOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")] = False,
) -> None:
    """Delete a tenant's keys, and with them every text they sealed: in logs, spools, quarantine and backups. For good.

    Not shredded: what the key for everybody sealed before the tenant had its own, redacted transcripts in the store, and copies
    of the ring elsewhere, which need the same.
    """
    path = _changeable(file, data)
    keys = [key for key in read_ring(path).keys if key.tenant == tenant]
    if not keys:
        raise UsageError(f"{path} has no key of {plain(tenant)}; `tidegate keys list` shows whose there are")
    if not yes:
        if not at_a_terminal():
            raise UsageError("shredding cannot be undone: type the tenant's name on a terminal, or give --yes")
        answer = typer.prompt(f"{_count(len(keys), 'key')} of {plain(tenant)} will be gone for good. Type the tenant's name")
        if answer != tenant:
            raise UsageError("not the tenant's name; nothing was shredded")
    change_ring(path, lambda ring: ring.without(*(key.key_id for key in ring.keys if key.tenant == tenant)))
    _say(f"shredded: {_count(len(keys), 'key')} of {plain(tenant)}; what they sealed can no longer be opened")


@keys_app.command()
def check(file: FileOption = None, data: DataOption = None) -> None:
    """Does the ring work here? Reads it as a service would, seals and opens a probe with each key that seals.

    Two machines with the same mark have the same ring of keys.
    """
    from tidegate.producers.sealing import opened, seal

    ring, where = _ring(file, data)
    probe = Texts(prompt="probe")
    sealing = [key for key in ring.keys if ring.own(key.tenant) == key]
    for key in sealing:
        if opened(seal(probe, "probe", key), "probe", ring.opening(key.key_id)) != probe:
            raise UsageError(f"{key.key_id} does not open what it sealed")
    _say(f"{where} works: {_count(len(ring.keys), 'key')}, of which {len(sealing)} seal and open; mark {_mark(ring)}")
    if ring.own(None) is None:
        _warn("there is no key for everybody: texts of tenants without one of their own are not sent")
    modes = Settings.read()
    if modes.content == "off" and not modes.content_tenants:
        _warn("TIDEGATE_CONTENT is off: nothing is sealed")


def at_a_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty()


def _source(file: Path | None, data: Path | None) -> KeySource:
    if file is not None:
        return FileKeys(file)
    settings = Settings.read(data_dir=data)
    source = FolderKeys(settings.data_dir) if data is not None else key_source(settings, settings.data_dir)
    if isinstance(source, FolderKeys) and not source.path.exists():
        raise UsageError(f"{source.path} is not there; a node makes it at its first content, or `tidegate keys make`")
    if source is None:
        raise UsageError("there is no key ring; make one: tidegate keys make --file FILE")
    return source


def _ring(file: Path | None, data: Path | None) -> tuple[KeyRing, str]:
    source = _source(file, data)
    where = str(source.path) if isinstance(source, FileKeys) else getattr(source, "where", "the key ring")
    return source.ring(), where


def _changeable(file: Path | None, data: Path | None) -> Path:
    """The file of the ring, where it has one."""
    source = _source(file, data)
    if not isinstance(source, FileKeys):
        raise UsageError("this ring comes from TIDEGATE_KEYS or TIDEGATE_KEY_COMMAND and is changed there; or give --file")
    return source.path


def _path(file: Path | None, data: Path | None) -> Path:
    if file is not None:
        return file.expanduser().absolute()
    settings = Settings.read(data_dir=data)
    if data is None and settings.key_file is not None:
        return settings.key_file.expanduser().absolute()
    return settings.data_dir.absolute() / "keys.json"


def _mark(ring: KeyRing) -> str:
    from tidegate.producers.sealing import fingerprint

    ids = "\n".join(sorted(key.key_id for key in ring.keys))
    return fingerprint(ring.fingerprint_key, ids)[:_MARK_DIGITS]


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _say(text: str) -> None:
    out.print(Text(plain(text)), soft_wrap=True)


def _warn(text: str) -> None:
    err.print(Text(plain(text), style="yellow"), soft_wrap=True)
