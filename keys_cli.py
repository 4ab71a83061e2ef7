"""`tidegate keys`: the ring that seals the texts of calls; made, listed, rotated, shredded and checked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Final

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tidegate.dashboards.terminal import plain
from tidegate.producers.audit_keys import tell_keys
from tidegate.producers.folder_audit import audit_of
from tidegate.producers.key_source import FileKeys, FolderKeys, KeySource, key_source
from tidegate.producers.keyring import Key, KeyRing
from tidegate.producers.ring_file import change_ring, read_ring
from tidegate.producers.sealing import fingerprint, fingerprint_id, opened, seal
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

    ring = change_ring(path, added, make=True, tell=_telling(path, data))
    done = "made" if not there else "changed" if given else "as it was:"
    _say(f"{done} {path}: {_count(len(ring.keys), 'key')}, mark {_mark(ring)}")
    for tenant in dict.fromkeys(tenants or ()):
        _say(f"  {tenant}: {'a key of its own' if tenant in given else 'had one'}")
    if not there and not (file is None and Settings.read().key_file is None):
        _say(
            f"Services and workers find it with TIDEGATE_KEY_FILE={path}. Keep a copy: without it nothing sealed can be opened."
        )


@keys_app.command(name="list")
def list_keys(
    file: FileOption = None,
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON")] = False,
) -> None:
    """Show the keys: whose, since when, and whether they seal or only open. Never the keys themselves."""
    ring, where = _ring(file, data)
    now = datetime.now(UTC)
    keys = sorted(ring.keys, key=lambda key: (key.tenant is not None, key.tenant or "", key.created_at))
    if as_json:
        told = [
            {
                "id": key.key_id,
                "tenant": key.tenant,
                "created_at": key.created_at,
                "age_days": max((now - key.created_at).days, 0),
                "seals": ring.own(key.tenant) == key,
                "retired": key.retired,
            }
            for key in keys
        ]
        listed = {"ring": where, "mark": _mark(ring), "fingerprint_key": fingerprint_id(ring.fingerprint_key), "keys": told}
        options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z
        sys.stdout.buffer.write(orjson.dumps(listed, option=options))
        return
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("key", "tenant", "made", "age", "does"):
        table.add_column(column)
    for key in keys:
        does = "seals and opens" if ring.own(key.tenant) == key else "retired: opens" if key.retired else "opens"
        table.add_row(
            key.key_id,
            Text(plain(key.tenant)) if key.tenant is not None else Text(_EVERYBODY, style="dim"),
            _day(key.created_at),
            Text(_age(now - key.created_at), style="dim"),
            Text(does, style="green" if does.startswith("seals") else "dim"),
        )
    out.print(table)
    prints = f"fingerprints are made with {fingerprint_id(ring.fingerprint_key)}"
    _say(f"{_count(len(ring.keys), 'key')} in {where}, mark {_mark(ring)}; {prints}")


@keys_app.command()
def rotate(
    tenant: Annotated[str | None, typer.Argument(metavar="[TENANT]", help="Whose key. Default: the one for everybody")] = None,
    file: FileOption = None,
    data: DataOption = None,
    everyone: Annotated[bool, typer.Option("--all", help="Of every tenant, and the one for everybody")] = False,
    new: Annotated[bool, typer.Option("--new", help="The tenant has no key yet: give them their first")] = False,
    prints: Annotated[bool, typer.Option("--fingerprints", help="Instead: the key that fingerprints are made with")] = False,
) -> None:
    """Seal with a new key from now on. The old one still opens what it sealed; running services hear of it by themselves.

    With --fingerprints, what was fingerprinted before can be compared with nothing that comes later.
    """
    if everyone and tenant is not None:
        raise UsageError("give a tenant or --all, not both")
    if new and tenant is None:
        raise UsageError("--new gives a tenant their first key: name the tenant")
    path = _changeable(file, data)
    if prints:
        if everyone or tenant is not None:
            raise UsageError("fingerprints of all tenants are made with one key; give --fingerprints alone")
        before = fingerprint_id(read_ring(path).fingerprint_key)
        ring = change_ring(path, KeyRing.fingerprinting_anew, tell=_telling(path, data))
        _say(f"fingerprints are made with {fingerprint_id(ring.fingerprint_key)} now, and {before} is gone")
        _say(
            "What was hashed, found or redacted by hash before cannot be joined with what comes; sealed texts are as they were."
        )
        return
    made: list[Key] = []

    def rotated(ring: KeyRing) -> KeyRing:
        if tenant is not None:
            _expect(ring, tenant, new)
        whose: Iterable[str | None] = {key.tenant for key in ring.keys if not key.retired} if everyone else (tenant,)
        for one in sorted(whose, key=lambda name: name or ""):
            made.append(Key.made(one))
            ring = ring.retiring(*(key.key_id for key in ring.keys if key.tenant == one)).adding(made[-1])
        return ring

    change_ring(path, rotated, tell=_telling(path, data))
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

    path = _changeable(file, data)
    ring = change_ring(path, retired, tell=_telling(path, data))
    _say(f"{key_id} opens, and no longer seals")
    _tell_what_seals(ring, ring.opening(key_id).tenant, isinstance(_source(file, data), FolderKeys))


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
        raise UsageError(f"{path} has no key of {_whose(read_ring(path), tenant)}")
    since = _day(min(key.created_at for key in keys))
    if not yes:
        if not at_a_terminal():
            raise UsageError("shredding cannot be undone: type the tenant's name on a terminal, or give --yes")
        _say(f"{_count(len(keys), 'key')} of {plain(tenant)}, and every text they sealed since {since}, will be gone for good.")
        if typer.prompt("Type the tenant's name") != tenant:
            raise UsageError("not the tenant's name; nothing was shredded")
    gone: list[Key] = []

    def shredded(ring: KeyRing) -> KeyRing:
        gone[:] = [key for key in ring.keys if key.tenant == tenant]
        return ring.without(*(key.key_id for key in gone))

    ring = change_ring(path, shredded, tell=_telling(path, data))
    _say(f"shredded: {_count(len(gone), 'key')} of {plain(tenant)} ({', '.join(key.key_id for key in gone)})")
    _say(f"What they sealed since {since} can no longer be opened, wherever a copy of it lies.")
    _say("Still there: redacted transcripts in the store, other copies of the ring, and what the key for everybody has sealed.")
    _tell_what_seals(ring, tenant, isinstance(_source(file, data), FolderKeys))


@keys_app.command()
def check(file: FileOption = None, data: DataOption = None) -> None:
    """Does the ring work here? Reads it as a service would, seals and opens a probe with each key that seals.

    Two machines with the same mark have the same ring of keys.
    """
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


def _expect(ring: KeyRing, tenant: str, new: bool) -> None:
    """A name that is mistyped would be a tenant of its own, and the one that was meant go on with the old key."""
    there = any(key.tenant == tenant for key in ring.keys)
    if new and there:
        raise UsageError(f"{plain(tenant)} has a key already; leave --new out to give them another")
    if not new and not there:
        raise UsageError(f"there is no key of {_whose(ring, tenant)}; --new gives a new tenant their first")


def _whose(ring: KeyRing, tenant: str) -> str:
    """A name that the ring does not know, and whom it may have been meant for."""
    names = sorted({key.tenant for key in ring.keys if key.tenant is not None})
    near = get_close_matches(tenant, names, n=1)
    hint = f"did you mean {plain(near[0])}?" if near else "`tidegate keys list` shows whose there are"
    return f"{plain(tenant)} ({hint})"


def _tell_what_seals(ring: KeyRing, tenant: str | None, of_folder: bool) -> None:
    """What becomes of the tenant's next text."""
    name, sealing = plain(tenant) if tenant is not None else _EVERYBODY, ring.sealing(tenant)
    if of_folder and ring.own(tenant) is None:
        _say(f"The next text of {name} makes a new key.")
    elif sealing is None:
        mends = "tidegate keys rotate" if tenant is None else f"tidegate keys make {name}"
        _warn(f"Nothing seals for {name} now, and their texts are not sent; `{mends}` mends it.")
    elif sealing.tenant != tenant:
        _say(
            f"For {name} the key for everybody, {sealing.key_id}, seals now; `tidegate keys make {name}` gives them their own."
        )
    else:
        _say(f"For {name} {sealing.key_id} seals now.")


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


def _telling(path: Path, data: Path | None) -> Callable[[KeyRing | None, KeyRing], None]:
    """What writes the change of this ring into the data folder's audit log, which it signs itself where it is the folder's."""
    settings = Settings.read(data_dir=data)
    audit = audit_of(settings.data_dir, settings)
    of_log = settings.key_file.expanduser() if settings.key_file is not None else settings.data_dir / "keys.json"
    own = of_log.resolve() == path.resolve()
    return lambda before, after: tell_keys(audit, before, after, own=own)


def _mark(ring: KeyRing) -> str:
    ids = "\n".join(sorted(key.key_id for key in ring.keys))
    return fingerprint(ring.fingerprint_key, ids)[-_MARK_DIGITS:]


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _day(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}Z"


def _age(age: timedelta) -> str:
    hours = int(age.total_seconds() // 3600)
    return _count(hours // 24, "day") if hours >= 48 else _count(hours, "hour") if hours > 0 else "new"


def _say(text: str) -> None:
    # A sentence is broken between words on a terminal, and not at all in a file.
    out.print(Text(plain(text)), soft_wrap=not out.is_terminal)


def _warn(text: str) -> None:
    err.print(Text(plain(text), style="yellow"), soft_wrap=not err.is_terminal)
