"""`tidegate score`: the texts of calls judged by hand, over files."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from tidegate.guard_files import DetectorsOption, Report, StrictOption, lines, names, progress, reading
from tidegate.schemas.errors import UsageError
from tidegate.schemas.settings import Settings


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
    plan = Plan(settings, names(detectors), strict, secrets.token_bytes(32))
    with ExitStack() as opened:
        source, size = opened.enter_context(reading(file))
        target = opened.enter_context(_writing(output, file))
        report = Report()
        bar = opened.enter_context(progress(size))
        numbered = bar(lines(source, file))
        for batch in score_here(numbered, plan) if workers == 1 else score_apart(numbered, plan, workers):
            report.trouble(batch.troubles)
            for scored in batch.lines:
                report.add(scored)
                target.write(scored.output + b"\n")
            target.flush()  # who reads behind a pipe waits for a batch, not for a buffer
    report.tell()
    if report.unread or report.failed:
        raise typer.Exit(1)


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
