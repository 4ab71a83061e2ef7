"""`tidegate score`: the texts of calls judged by hand, over files."""

from __future__ import annotations

import errno
import os
import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import typer
from tidegate.guard_files import DetectorsOption, Report, err, lines, names, progress, reading
from tidegate.schemas.errors import UsageError
from tidegate.schemas.settings import Settings

# As a shell says it of a command that a closed pipe has ended.
_PIPE_CLOSED: Final = 128 + signal.SIGPIPE


class Redaction(StrEnum):
    """What stands for PHI in a redacted text."""

    TAG = "tag"
    SURROGATE = "surrogate"
    HASH = "hash"


def score(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Lines of JSON, each a call's texts; - reads standard input")],
    output: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="There when all is scored, not before. Default: standard output"),
    ] = None,
    detectors: DetectorsOption = None,
    redaction: Annotated[Redaction | None, typer.Option(help="What stands for PHI in the redacted texts")] = None,
    canary_file: Annotated[
        Path | None, typer.Option("--canary-file", metavar="FILE", help="Strings that no answer may hold: one a line, or JSON")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, metavar="N", help="Scoring processes")] = 1,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first line that cannot be judged, or model that cannot be had")
    ] = False,
) -> None:
    """Score texts: PHI, toxicity, injection, faithfulness, relevance, guidelines. One line in, one line out, in order.

    A line is {"id", "prompt", "response", "context": [...]}; any part may be absent,
    but not all. Its result holds findings (type and characters), scores in 0..1
    (null: not scored) and the texts redacted (null: PHI could not be looked for).

    A line that cannot be read or judged says so in its place and on standard error;
    the others are scored, and the exit code is 1.

    Try it: echo '{"prompt": "Call Rosa Delgado at (617) 555-0139."}' | tidegate score -
    """
    from tidegate.processors.guardrails.scoring import Plan
    from tidegate.processors.guardrails.scoring_processes import score_apart

    settings = Settings.read(redaction=redaction and redaction.value, guard_canary_file=canary_file)
    plan = Plan(settings, names(detectors), strict, secrets.token_bytes(32))
    # Told to end, it leaves no half file.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with ExitStack() as opened:
        source, size = opened.enter_context(reading(file))
        target = opened.enter_context(_writing(output, file))
        report = Report()
        bar = opened.enter_context(progress(size, quiet=output is None and sys.stdout.isatty()))
        scoring = opened.enter_context(closing(score_apart(bar(lines(source, file)), plan, workers)))
        for batch in scoring:
            report.trouble(batch.troubles)
            for scored in batch.lines:
                if strict and (problem := scored.problem or ", ".join(f"{name}: {why}" for name, why in scored.failed.items())):
                    raise UsageError(f"{file}, line {scored.number}: {problem}")
                report.add(scored)
                target.write(scored.output + b"\n")
            target.flush()  # who reads behind a pipe waits for a batch, not for a buffer
    report.tell()
    if report.unread or report.failed:
        raise typer.Exit(1)


@contextmanager
def _writing(path: Path | None, source: str) -> Iterator[BinaryIO]:
    """A file that is there when it is whole; a pipe or a device as it is."""
    if path is None:
        try:
            yield sys.stdout.buffer
        except BrokenPipeError:
            # Whoever read has seen enough: `| head`. What is left in the buffer would complain once more at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(_PIPE_CLOSED) from None
        return
    if source != "-" and path.exists() and path.samefile(source):
        raise UsageError(f"--out {path} is the file that is read; give another")
    whole = not path.exists() or path.is_file()
    # Where a link points to, not in the link's place.
    draft = path.resolve().with_name(f".{path.name}.{os.getpid()}.part") if whole else path
    try:
        try:
            with draft.open("wb") as target:
                yield target
        except OSError as error:
            if error.filename != str(draft) and error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UsageError(f"{path} cannot be written: {error.strerror}") from None
        if whole:
            draft.replace(path.resolve())
    except KeyboardInterrupt:
        err.print(f"stopped; {path} was not written" if whole else "stopped", highlight=False, soft_wrap=True)
        raise
    finally:
        if whole:
            with suppress(OSError):  # it is gone, or was never there
                draft.unlink()
