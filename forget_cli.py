"""`tidegate forget`: a person is taken out of everything that is kept, and that is proven."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text
from tidegate.dashboards.terminal import plain
from tidegate.producers.folder_audit import audit_of
from tidegate.producers.key_source import key_source
from tidegate.query_cli import DataOption, must_exist, write_whole
from tidegate.running import progress_bar
from tidegate.schemas.errors import UsageError
from tidegate.schemas.settings import Settings

if TYPE_CHECKING:
    from tidegate.processors.erasure_report import ErasureReport
    from tidegate.processors.forgetting import Person
    from tidegate.producers.keyring import KeyRing

out = Console()
err = Console(stderr=True)


def forget(
    user: Annotated[str, typer.Option("--user", metavar="ID", help="As calls name them; - reads it from standard input")],
    tenant: Annotated[str, typer.Option("--tenant", "-t", metavar="TENANT", help="Whose user that is")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell how much there is, and remove nothing")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")] = False,
    to: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write the report here: FILE.md or FILE.json")
    ] = None,
    data: DataOption = None,
) -> None:
    """Take a person out of the store, the log and every file of a data folder, for good, and look whether that is so.

    Their texts go. What their calls cost stays, under nobody: all sums are what they were. The node is stopped meanwhile;
    services go on, and deliver afterwards. Cut off, it is done again. Ends with 1 when something is left.

    Example: tidegate forget --user u-4711 --tenant harbor-health --out forgotten.md
    """
    from tidegate.processors.forgetting import Person, fingerprint_of

    settings = Settings.read(data_dir=data)
    person = Person(tenant, sys.stdin.readline().strip() if user == "-" else user)
    if not person.user:
        raise UsageError("--user is empty: calls that name nobody are nobody's")
    if to is not None and to.suffix not in (".md", ".json"):
        raise UsageError("--out is a file that ends in .md or .json")
    on_kafka = data is None and settings.url.lower().startswith("kafka://")
    with _owned(settings, on_kafka=on_kafka), progress_bar() as bar:
        ring = _ring(settings, on_kafka=on_kafka)
        task = bar.add_task("looking", total=None)
        if dry_run:
            _write(_found(settings, person, ring, on_kafka=on_kafka), to, dry=True)
            return
        bar.stop()
        _confirm(person.tenant, yes=yes)
        bar.start()
        audit = audit_of(settings.data_dir, settings)
        audit.append("person.forgetting", tenant, {"person": fingerprint_of(person, ring.fingerprint_key)})

        def progress(what: str) -> None:
            bar.update(task, description=what)

        if on_kafka:
            from tidegate.processors.distributed.forgetting import forget_on_kafka

            report = forget_on_kafka(settings, person, ring, progress=progress)
        else:
            from tidegate.processors.embedded.forgetting_folder import forget_in_folder

            report = forget_in_folder(settings, person, ring, audit, progress=progress)
        told = _write(report, to, dry=False)
        proof = {"report_sha256": hashlib.sha256(told).hexdigest(), "proven": report.proven}
        audit.append("person.forgotten", tenant, {"person": report.fingerprint, **proof})
    if not report.proven:
        raise typer.Exit(1)


@contextmanager
def _owned(settings: Settings, *, on_kafka: bool) -> Iterator[None]:
    """The folder, for as long as it takes, where anything is in it. Raises `UsageError`."""
    from tidegate.processors.folder import RunningNode, own_or_find
    from tidegate.processors.folder_mark import kafka_of

    if on_kafka and settings.store is not None:
        yield
        return
    must_exist(settings)
    if not on_kafka and (url := kafka_of(settings.data_dir)) is not None:
        raise UsageError(f"what {settings.data_dir} has comes from Kafka: set TIDEGATE_URL={url}, and leave out --data")
    lock = own_or_find(settings.data_dir)
    if isinstance(lock, RunningNode):
        raise UsageError(
            f"a node runs on {settings.data_dir} (pid {lock.pid}); stop it, forget, and start it again: services wait meanwhile"
        )
    with lock:
        yield


def _ring(settings: Settings, *, on_kafka: bool) -> KeyRing:
    source = key_source(settings, None if on_kafka else settings.data_dir)
    if source is None:
        raise UsageError("there is no key ring to name the person by; set TIDEGATE_KEY_FILE")
    return source.ring()


def _found(settings: Settings, person: Person, ring: KeyRing, *, on_kafka: bool) -> ErasureReport:
    if on_kafka:
        from tidegate.processors.distributed.forgetting import found_on_kafka

        return found_on_kafka(settings, person, ring)
    from tidegate.processors.embedded.forgetting_folder import found_in_folder

    return found_in_folder(settings, person, ring)


def _confirm(tenant: str, *, yes: bool) -> None:
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("what is forgotten does not come back: type the tenant's name on a terminal, or give --yes")
    out.print(Text(f"Everything about this person of {plain(tenant)} will be gone for good; sums stay."))
    if typer.prompt("Type the tenant's name") != tenant:
        raise UsageError("not the tenant's name; nothing was removed")


def _write(report: ErasureReport, to: Path | None, *, dry: bool) -> bytes:
    told = report.json() if to is not None and to.suffix == ".json" else report.markdown(dry=dry)
    if to is not None:
        write_whole(to, told)
    else:
        sys.stdout.buffer.write(told)
        sys.stdout.buffer.flush()
    if dry:
        err.print("Nothing was removed.", style="yellow")
    elif report.proven:
        err.print("Nothing is left of them here; the report says what is out of reach.", style="green")
    else:
        err.print("Something is left, or could not be looked at: the report says what.", style="red")
    return told
