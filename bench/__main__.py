"""`python -m bench`: run the benches and say what they found; write docs/benchmarks.md after a full run."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table as ScreenTable

from . import (
    analysts,
    block,
    console,
    distributed,
    embedded,
    emit,
    gate,
    guardrails,
    metering,
    outage,
    overspend,
    phi,
    report,
    scopes,
    sink,
)
from .kafka.broker import BrokerUnavailable
from .rounds import Tick

Bench = Callable[[bool, Tick], report.Result]

# In the order of the page.
BENCHES: Final[dict[str, Bench]] = {
    "metering": metering.run,
    "emit": emit.run,
    "sink": sink.run,
    "analysts": analysts.run,
    "embedded": embedded.run,
    "kafka": distributed.run,
    "gate": gate.run,
    "block": block.run,
    "overspend": overspend.run,
    "outage": outage.run,
    "console": console.run,
    "scopes": scopes.run,
    "guardrails": guardrails.run,
    "phi": phi.run,
}

# Into a file or a pipe nothing need be folded.
_WIDTH: Final = 160

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    names: Annotated[list[str] | None, typer.Argument(help=f"Which: {', '.join(BENCHES)}. Default: all")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few seconds each: to see that they run, not to quote")] = False,
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.1, help="How long `outage` leaves the store away")
    ] = outage.MINUTES,
    write: Annotated[
        bool | None, typer.Option("--write/--no-write", help="Rewrite docs/benchmarks.md. Default: after a full run of all")
    ] = None,
) -> None:
    """Run the benches; every ratio is of two sides that took turns in this run."""
    screen, progress_screen = Console(), Console(stderr=True)
    if not screen.is_terminal:
        screen.width = _WIDTH
    for name in names or ():
        if name not in BENCHES:
            raise typer.BadParameter(f"no bench {name!r}; there are {', '.join(BENCHES)}")
    chosen = list(dict.fromkeys(names or BENCHES))
    if write is None:
        write = not names and not quick
    missing = 0
    for name in chosen:
        try:
            result = _run(name, quick, minutes, progress_screen)
        except BrokerUnavailable as error:
            progress_screen.print(f"[red]{name} cannot run here:[/] {escape(str(error))}")
            missing += 1
            continue
        show(screen, name, result)
        if write:
            asked = ["--quick"] if quick else []
            if name == "outage" and not quick and minutes != outage.MINUTES:
                asked += ["--minutes", f"{minutes:g}"]
            command = shlex.join(["python", "-m", "bench", name, *asked, "--write"])
            body = report.markdown(result, command=command, date=datetime.now(UTC).date().isoformat())
            report.DOCS.write_text(report.rewrite(report.DOCS.read_text(), name, body))
    if missing:
        raise typer.Exit(1)


def _run(name: str, quick: bool, minutes: float, screen: Console) -> report.Result:
    started = time.monotonic()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True) as progress:
        task = progress.add_task(name, total=None)

        def tick(what: str) -> None:
            progress.update(task, description=escape(f"{name}: {what}"))

        result = outage.run(quick, tick, minutes) if name == "outage" else BENCHES[name](quick, tick)
    screen.print(f"[dim]{name}: {time.monotonic() - started:.0f} s[/]")
    return result


def show(screen: Console, name: str, result: report.Result) -> None:
    for table in result.tables:
        shown = ScreenTable(*map(escape, table.columns), title=f"{name}: {escape(table.caption)}", title_justify="left")
        for column in shown.columns[1:]:
            column.justify = "right"
        for row in table.rows:
            shown.add_row(*map(escape, row))
        screen.print(shown)
    for note in result.notes:
        screen.print(escape(note), style="dim")
    screen.print(f"{escape(result.samples)}; {escape(report.machine())}; {escape(report.versions(result.libraries))}\n")


if __name__ == "__main__":
    app(prog_name="python -m bench")
