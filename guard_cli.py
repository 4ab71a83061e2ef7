"""`tidegate score`, `models`, `evaluate`: the guardrails by hand, over files."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final

import typer
from rich.console import Console
from rich.text import Text
from tidegate.dashboards.terminal import plain
from tidegate.schemas.errors import UsageError
from tidegate.schemas.settings import DETECTORS, Settings

if TYPE_CHECKING:
    from tidegate.processors.guardrails.scoring import Numbered, Scored

out = Console()
err = Console(stderr=True)

# The texts of one line have a bound of their own; this one keeps a file that has no line ends out of memory.
MAX_LINE_BYTES: Final = 64 << 20
# Each problem is told once and in full, but a file of another kind is not told line by line.
MAX_PROBLEMS_SHOWN: Final = 20

DetectorsOption = Annotated[
    str | None, typer.Option("--detectors", metavar="A,B", help=f"Only these of {', '.join(DETECTORS)}. Default: all")
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Fail where a production model cannot be had, instead of scoring with the default")
]


class Redaction(StrEnum):
    """What stands for PHI in a redacted text."""

    TAG = "tag"
    SURROGATE = "surrogate"
    HASH = "hash"


def score(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Lines of JSON, each a call's texts; - reads standard input")],
    output: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Default: standard output")] = None,
    detectors: DetectorsOption = None,
    redaction: Annotated[Redaction | None, typer.Option(help="What stands for PHI in the redacted texts")] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, metavar="N", help="Scoring processes")] = 1,
    strict: StrictOption = False,
) -> None:
    """Score texts: PHI, toxicity, injection, faithfulness, relevance, guidelines. One line in, one line out, in order.

    A line is {"id", "prompt", "response", "context": [...]}, any part of which may be absent. Its result holds findings (type
    and characters), scores in 0..1 (null: not scored) and the texts redacted (null: PHI could not be looked for). Exit code
    1 where a line could not be read, or a detector not judge it.
    """
    from tidegate.processors.guardrails.scoring import Plan, score_apart, score_here

    settings = Settings.read(redaction=redaction and redaction.value)
    plan = Plan(settings, _names(detectors), strict, secrets.token_bytes(32))
    with ExitStack() as opened:
        source, size = opened.enter_context(_reading(file))
        target = opened.enter_context(_writing(output, file))
        report = _Report()
        bar = opened.enter_context(_progress(size))
        lines = bar(_lines(source, file))
        for batch in score_here(lines, plan) if workers == 1 else score_apart(lines, plan, workers):
            report.trouble(batch.troubles)
            for scored in batch.lines:
                report.add(scored)
                target.write(scored.output + b"\n")
        target.flush()
    report.tell()
    if report.unread or report.failed:
        raise typer.Exit(1)


class _Report:
    """What a person must hear of a run: nothing, where all is well."""

    def __init__(self) -> None:
        self.lines = 0
        self.unread = 0
        self.failed: dict[tuple[str, str], int] = {}
        self._troubles: set[str] = set()

    def trouble(self, troubles: tuple[str, ...]) -> None:
        for trouble in troubles:
            if trouble not in self._troubles:
                self._troubles.add(trouble)
                err.print(Text(f"{plain(trouble)}; the offline default scores instead", style="yellow"), soft_wrap=True)

    def add(self, scored: Scored) -> None:
        self.lines += 1
        if scored.problem is not None:
            self.unread += 1
            if self.unread <= MAX_PROBLEMS_SHOWN:
                err.print(Text(f"line {scored.number}: {plain(scored.problem)}", style="yellow"), soft_wrap=True)
        for failure in scored.failed.items():
            self.failed[failure] = self.failed.get(failure, 0) + 1

    def tell(self) -> None:
        if self.unread:
            err.print(Text(f"{self.unread:,} of {self.lines:,} lines could not be scored", style="yellow"), soft_wrap=True)
        for (detector, kind), count in sorted(self.failed.items()):
            closed = "; their texts are not shown" if detector == "phi" else ""
            err.print(
                Text(f"{detector} could not judge {count:,} of {self.lines:,} lines ({kind}){closed}", style="yellow"),
                soft_wrap=True,
            )


def _names(detectors: str | None) -> tuple[str, ...] | None:
    if detectors is None:
        return None
    names = tuple(name for each in detectors.split(",") if (name := each.strip()))
    if not names:
        raise UsageError(f"--detectors names none; choose from {', '.join(DETECTORS)}")
    return names


@contextmanager
def _reading(file: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """The bytes, and how many there are, where that can be known."""
    if file == "-":
        yield sys.stdin.buffer, None
        return
    try:
        with open(file, "rb") as source:
            size = Path(file).stat().st_size if Path(file).is_file() else None
            yield source, size
    except OSError as error:
        if error.filename != file:
            raise
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None


@contextmanager
def _writing(path: Path | None, source: str) -> Iterator[BinaryIO]:
    if path is None:
        yield sys.stdout.buffer
        return
    if source != "-" and path.exists() and path.samefile(source):
        raise UsageError(f"--out {path} is the file that is read; give another")
    try:
        target = path.open("wb")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
    with target:
        yield target


def _lines(source: BinaryIO, name: str) -> Iterator[Numbered]:
    """The lines that hold something, numbered from 1."""
    number = 0
    while line := source.readline(MAX_LINE_BYTES):
        number += 1
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            raise UsageError(f"{name}: line {number} is longer than {MAX_LINE_BYTES >> 20} MB; is it a file of JSON lines?")
        if not line.isspace():
            yield number, line


@contextmanager
def _progress(size: int | None) -> Iterator[Any]:
    """A function that shows how far the lines it is given have been read."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    # Off a terminal even a bar that is wiped away leaves an empty line.
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("loading the detectors", total=size)

        def shown(lines: Iterator[Numbered]) -> Iterator[Numbered]:
            done = 0
            for number, line in lines:
                yield number, line
                done += len(line)
                bar.update(task, completed=done, description=f"scoring, {number:,} lines")

        yield shown
