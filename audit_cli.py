"""`tidegate audit`: who did what with keys, sealed texts, policies and transcripts; and whether that account is whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.text import Text
from tidegate.dashboards.terminal import plain
from tidegate.processors.folder_mark import kafka_of
from tidegate.producers.folder_audit import audit_of
from tidegate.query_cli import must_exist, write_whole
from tidegate.schemas.errors import UsageError
from tidegate.schemas.settings import Settings

if TYPE_CHECKING:
    from tidegate.processors.audit_check import Ask, Checked, Told

audit_app = typer.Typer(
    name="audit",
    help="Who did what with keys, sealed texts, policies, transcripts and the node: audit.jsonl in the data folder, each entry"
    ' chained to the one before. The store has a copy: tidegate query "SELECT * FROM audit".',
    no_args_is_help=True,
)
out = Console()
err = Console(stderr=True)

DataOption = Annotated[
    Path | None, typer.Option("--data", "-d", metavar="DIR", help="Data folder. Default: TIDEGATE_DATA_DIR, or ./tidegate-data")
]
OtherOption = Annotated[
    list[str] | None,
    typer.Option(
        "--other", metavar="LOG", help="A log whose file is in another folder, by its name; as often as there are some"
    ),
]
_MONTH: Final = re.compile(r"(\d{4})-(\d{2})\Z", re.ASCII)
_MARK: Final = re.compile(r"(\d{1,18}):([0-9a-f]{64})\Z")
# A person reads so many; where more is wrong, the file is another one.
_SHOWN: Final = 50


@audit_app.command()
def verify(
    data: DataOption = None,
    known: Annotated[
        str | None,
        typer.Option("--known", metavar="N:HASH", help="A mark that an earlier run printed: is that entry still the same?"),
    ] = None,
    file_only: Annotated[bool, typer.Option("--file-only", help="Do not compare with the store's copy")] = False,
    other: OtherOption = None,
) -> None:
    """Find every entry that was changed, taken away, put elsewhere or added. Ends with 1 where there is any.

    Also where the store has a log that is not here. With TIDEGATE_URL on Kafka, what its workers told is looked at too.

    Keep the mark that it prints where this machine cannot write, in a ticket say: with --known it proves what was there then.
    """
    mark = _MARK.match(known) if known is not None else None
    if known is not None and mark is None:
        raise UsageError("--known takes the mark that `tidegate audit verify` prints: a number, a colon and 64 digits")
    settings = Settings.read(data_dir=data)
    if not settings.data_dir.is_dir():
        raise UsageError(f"{settings.data_dir} is not there; give --data DIR")
    from tidegate.processors.audit_check import check

    if file_only:
        checked = check(audit_of(settings.data_dir, settings), None)
    else:
        must_exist(settings)
        with asking(settings) as ask:
            checked = check(audit_of(settings.data_dir, settings), ask, worker_logs(settings, data), other or ())
    problems = [str(problem) for problem in sorted(checked.problems, key=lambda problem: (problem.log, problem.seq))]
    if mark is not None and checked.chain.hash_of(int(mark[1])) != mark[2]:
        problems.append(f"entry {int(mark[1]):,} is not the one of the mark: all up to it may have been written anew")
    _tell(checked, problems)
    if problems:
        raise typer.Exit(1)


@audit_app.command()
def report(
    month: Annotated[str, typer.Option("--month", "-m", metavar="YYYY-MM", help="Which month, of UTC")],
    to: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="report.html, or report.md with pictures beside it")
    ] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", "-t", metavar="TENANT", help="Of this tenant alone")] = None,
    data: DataOption = None,
    other: OtherOption = None,
) -> None:
    """Tell a month's leaks of health information: by whom, of what, how soon they were stopped; and who had to do with it.

    What nobody judged is told as unknown. Without --out it is printed as Markdown. Holds no text and no user of a call.
    """
    from tidegate.dashboards.leak_report import html, markdown
    from tidegate.processors.audit_check import check
    from tidegate.processors.leak_figures import Month, figures
    from tidegate.schemas.audit import Entry

    found = _MONTH.match(month)
    if found is None or not 1 <= int(found[2]) <= 12:
        raise UsageError(f"--month {plain(month)}: give a month as 2026-11")
    if to is not None and to.suffix not in (".html", ".md"):
        raise UsageError(f"--out {plain(str(to))}: end its name with .html or .md")
    settings = Settings.read(data_dir=data)
    must_exist(settings)
    audit = audit_of(settings.data_dir, settings)
    with asking(settings) as ask:
        checked = check(audit, ask, worker_logs(settings, data), other or ())
        entries = [entry for line in audit.lines()[0] if (entry := Entry.parse(line)) is not None]
        told = figures(ask, checked, [*entries, *checked.workers], Month(int(found[1]), int(found[2])), tenant)
    now = datetime.now(UTC)
    if to is not None and to.suffix == ".html":
        written = {to: html(told, now)}
    else:
        text, pictures = markdown(told, now, to.stem if to is not None else "report")
        if to is None:
            out.file.write(text)
            return
        written = {to: text, **{to.with_name(name): picture for name, picture in pictures.items()}}
    for path, content in written.items():
        write_whole(path, content.encode())
    err.print(Text(plain(f"{', '.join(map(str, written))} written"), style="dim"), soft_wrap=True)


def worker_logs(settings: Settings, data: Path | None) -> Callable[[], Told] | None:
    """What workers told, where the folder's rows come from Kafka. Raises `UsageError` when it is not known how to get there."""
    mark = kafka_of(settings.data_dir)
    if mark is None and data is not None:
        return None
    if not settings.url.lower().startswith("kafka://"):
        if mark is not None:
            raise UsageError(f"the workers of {settings.data_dir} tell what they do on Kafka: set TIDEGATE_URL={mark}")
        return None
    from tidegate.processors.distributed.worker_audit import told_by_workers

    return lambda: told_by_workers(settings)


@contextmanager
def asking(settings: Settings) -> Iterator[Ask]:
    """A way to ask the store, through its node where one runs; everything that waits is brought into it first."""
    from tidegate.query_cli import asked

    with asked(settings) as folder:
        yield lambda sql: folder.query(sql, "JSONEachRow")


def _tell(checked: Checked, problems: list[str]) -> None:
    for problem in problems[:_SHOWN]:
        err.print(Text(plain(problem), style="red"), soft_wrap=True)
    if len(problems) > _SHOWN:
        err.print(Text(f"and {len(problems) - _SHOWN:,} more", style="red"))
    for remark in checked.remarks:
        err.print(Text(plain(remark), style="yellow"), soft_wrap=True)
    if checked.workers:
        logs = len({entry.log for entry in checked.workers})
        out.print(
            Text(f"Workers told {len(checked.workers):,} entries on Kafka, in {logs:,} logs of their own"), soft_wrap=True
        )
    if checked.last is None:
        out.print("No entries: nothing has been done here yet, or the log was taken away whole.")
        return
    whole = "is not whole" if problems else "is whole"
    count = "1 entry" if checked.entries == 1 else f"{checked.entries:,} entries"
    out.print(
        Text(f"The audit log {plain(checked.log)} {whole}: {count}, the last at {plain(checked.last.at)}"), soft_wrap=True
    )
    out.print(Text(f"mark {checked.last.seq}:{checked.last.hash}"), soft_wrap=True)
