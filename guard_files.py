"""What the commands of the guardrails share: files of lines read with a bar, problems told once, detectors by name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final

import typer
from rich.console import Console
from rich.text import Text
from tidegate.dashboards.terminal import plain
from tidegate.schemas.errors import UsageError
from tidegate.schemas.settings import DETECTORS

if TYPE_CHECKING:
    from tidegate.processors.guardrails.scoring import Numbered, Scored

err = Console(stderr=True)

# Each problem is told once and in full, but a file of another kind is not told line by line.
MAX_PROBLEMS_SHOWN: Final = 20
# Some hundred megabytes of ids; in a longer file those of the first million lines are compared.
MOST_IDS: Final = 1_000_000

DetectorsOption = Annotated[
    str | None, typer.Option("--detectors", metavar="A,B", help=f"Only these of {', '.join(DETECTORS)}. Default: all")
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Fail where a production model cannot be had, instead of scoring with the default")
]


class Report:
    """What a person must hear of a run: nothing, where all is well."""

    def __init__(self) -> None:
        self.lines = 0
        self.unread = 0
        self.repeated = 0
        # (detector, kind of error) → lines, the first of them.
        self.failed: dict[tuple[str, str], list[int]] = {}
        self._ids: set[str | int] = set()
        self._troubles: set[str] = set()

    def trouble(self, troubles: tuple[str, ...]) -> None:
        for trouble in troubles:
            if trouble not in self._troubles:
                self._troubles.add(trouble)
                err.print(Text(f"{plain(trouble)}; the offline default scores instead", style="yellow"), soft_wrap=True)

    def refuse(self, number: int, problem: str, file: str = "") -> None:
        self.unread += 1
        if self.unread <= MAX_PROBLEMS_SHOWN:
            place = f"{file}, line {number}" if file else f"line {number}"
            err.print(Text(f"{plain(place)}: {plain(problem)}", style="yellow"), soft_wrap=True)

    def add(self, scored: Scored) -> None:
        self.lines += 1
        if scored.problem is not None:
            self.refuse(scored.number, scored.problem)
        for failure in scored.failed.items():
            self.failed.setdefault(failure, [0, scored.number])[0] += 1
        if scored.own_id is not None and len(self._ids) < MOST_IDS:
            self.repeated += scored.own_id in self._ids
            self._ids.add(scored.own_id)

    def tell(self) -> None:
        if self.repeated:
            told = f"ids repeat, on {self.repeated:,} of {self.lines:,} lines: results cannot be joined by them"
            err.print(Text(told, style="yellow"), soft_wrap=True)
        if self.unread:
            err.print(Text(f"{self.unread:,} of {self.lines:,} lines could not be scored", style="yellow"), soft_wrap=True)
        for (detector, kind), (count, first) in sorted(self.failed.items()):
            closed = "; their texts are not shown" if detector in ("phi", "redaction", "worker") else ""
            who = "the scoring process" if detector == "worker" else detector
            told = f"{who} could not judge {count:,} of {self.lines:,} lines ({kind}, line {first} first){closed}"
            err.print(Text(told, style="yellow"), soft_wrap=True)


def names(detectors: str | None) -> tuple[str, ...] | None:
    if detectors is None:
        return None
    names = tuple(name for each in detectors.split(",") if (name := each.strip()))
    if not names:
        raise UsageError(f"--detectors names none; choose from {', '.join(DETECTORS)}")
    for name in names:
        if name not in DETECTORS:
            near = get_close_matches(name, DETECTORS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(DETECTORS)}"
            raise UsageError(f"unknown detector {name!r}; {hint}")
    return names


@contextmanager
def reading(file: str) -> Iterator[tuple[BinaryIO, int | None]]:
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


def lines(source: BinaryIO, name: str) -> Iterator[Numbered]:
    """The lines that hold something, numbered from 1; of one that is too long so much that this can be said of it."""
    from tidegate.processors.guardrails.lines import MAX_LINE_BYTES

    number = 0
    while line := source.readline(MAX_LINE_BYTES + 1):
        number += 1
        if number == 1:
            if line.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise UsageError(f"{name} is UTF-16; make it UTF-8: iconv -f UTF-16 -t UTF-8")
            if line.startswith(b"\x1f\x8b"):
                raise UsageError(f"{name} is compressed; unpack it: gzip -dc FILE | tidegate score -")
            line = line.removeprefix(b"\xef\xbb\xbf")  # what some editors begin a file with
        if len(line) > MAX_LINE_BYTES:
            while not line.endswith(b"\n") and (rest := source.readline(MAX_LINE_BYTES)):
                line = line[:MAX_LINE_BYTES] + rest[-1:]
        if line and not line.isspace():
            yield number, line


@contextmanager
def progress(size: int | None, *, quiet: bool = False) -> Iterator[Callable[[Iterator[Numbered]], Iterator[Numbered]]]:
    """A function that shows how far the lines it is given have been read; `quiet` where results go to the same terminal."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    # Off a terminal even a bar that is wiped away leaves an empty line.
    with Progress(*columns, console=err, transient=True, disable=quiet or not err.is_terminal) as bar:
        task = bar.add_task("loading the detectors", total=size)

        def shown(lines: Iterator[Numbered]) -> Iterator[Numbered]:
            done = 0
            for number, line in lines:
                yield number, line
                done += len(line)
                bar.update(task, completed=done, description=f"scoring, {number:,} lines")

        yield shown
