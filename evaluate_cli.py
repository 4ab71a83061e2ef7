"""`tidegate evaluate`: the detectors measured on labelled lines, or on the development sets against their targets."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from tidegate.db_cli import DataOption, owned
from tidegate.guard_files import DetectorsOption, Report, StrictOption, err, lines, names, progress, reading
from tidegate.schemas.errors import InvalidEvent, UsageError
from tidegate.schemas.settings import Settings

if TYPE_CHECKING:
    from tidegate.processors.guardrails.evaluation import Evaluation, LabelledLine
    from tidegate.processors.guardrails.ports import Sample
    from tidegate.processors.guardrails.scoring import Numbered
    from tidegate.processors.guardrails.suite import Suite


def evaluate(
    files: Annotated[list[str] | None, typer.Argument(metavar="FILE...", help="Labelled lines; - reads standard input")] = None,
    output: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write report.md, metrics.json and plots there")
    ] = None,
    dev: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Instead of files: the sets made from this folder, against their targets"),
    ] = None,
    detectors: DetectorsOption = None,
    strict: StrictOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON")] = False,
    store: Annotated[bool, typer.Option("--store", help="Keep the figures in the store, too: table evaluations")] = False,
    data: DataOption = None,
) -> None:
    """Measure the detectors on labelled lines: precision, recall, F1, AUROC beside what length alone gives, calibration.

    A line is as for `tidegate score`, with "labels": {"phi": [{"type", "start", "end", "where"}], "toxicity": 0|1,
    "injection": 0|1, "faithful": 0|1}, any of which may be absent, and perhaps a "source". Exit code 1 where a line could not
    be read, or a development set misses its target.
    """
    if (dev is None) == (not files):
        raise UsageError("give files of labelled lines, or --dev FOLDER")
    _needs_evaluate()
    from tidegate.processors.guardrails.evaluation import MEASURED, Evaluation
    from tidegate.processors.guardrails.evaluation_report import markdown
    from tidegate.processors.guardrails.loading import load_suite

    asked = MEASURED.intersection(names(detectors) or MEASURED)
    if not asked:
        raise UsageError(f"labels measure {', '.join(sorted(MEASURED))}; --detectors names none of them")
    if output is not None:
        # Before the work, not after it.
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--out {output} cannot be made: {error.strerror}") from None
    report, evaluation, settings = Report(), Evaluation(asked), Settings.read(data_dir=data)
    if store:
        _keep(settings, b"")  # whether it can be had is better said now
    digest, versions = hashlib.sha256(), dict[str, str]()
    suite = load_suite(settings, tuple(asked), strict=strict, trouble=lambda trouble: report.trouble((trouble,)))
    sets = _dev_sets() if dev is not None else None
    if sets is not None:
        with err.status("making the development sets, and judging them …"), _reading(dev):
            made = _hashed_sets(sets.lines(dev), digest)
            _judge(suite, ((line, line.sample(number)) for number, line in enumerate(made)), evaluation, settings, versions)
    for file in files or ():
        with reading(file) as (source, size), progress(size) as bar:
            read = _labelled(bar(_hashed(lines(source, file), digest)), file, report)
            _judge(suite, read, evaluation, settings, versions)
    report.tell()
    if not evaluation.lines:
        raise UsageError(f"{', '.join(files or [str(dev)])}: not one line with a label for {', '.join(sorted(asked))}")
    plots = []
    if output is not None:
        from tidegate.processors.guardrails.evaluation_plots import draw

        plots = draw(evaluation, output)
    told, figures = markdown(evaluation, files or [str(dev)], plots), evaluation.as_dict()
    rows = sets.targets(evaluation) if sets is not None else []
    if sets is not None:
        told = f"{sets.markdown(rows)}\n{told}"
        figures["targets"] = [row._asdict() | {"reached": row.reached} for row in rows]
    if store:
        from tidegate.processors.guardrails.evaluation_rows import rows as rows_of

        data_set = ", ".join(Path(file).name for file in files or [str(dev)])
        run = {"at": datetime.now(UTC), "data_set": data_set, "sha256": digest.hexdigest()}
        _keep(settings, rows_of(figures, versions, run))
    _say(told, figures, output, [path.name for path in plots], as_json)
    if report.unread or not all(row.reached for row in rows):
        raise typer.Exit(1)


@contextmanager
def _reading(dev: Path | None) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UsageError(f"--dev {dev} has no {Path(error.filename).name}; give the folder of development data") from None


def _labelled(numbered: Iterator[Numbered], file: str, report: Report) -> Iterator[tuple[LabelledLine, Sample]]:
    from tidegate.processors.guardrails.evaluation import read_labelled

    for number, line in numbered:
        report.lines += 1
        try:
            read = read_labelled(line)
        except InvalidEvent as error:
            report.refuse(number, error.reason, file)
        else:
            yield read, read.sample(number)


def _hashed(numbered: Iterator[Numbered], digest: hashlib._Hash) -> Iterator[Numbered]:
    """The same lines, each with its end as LF in the digest: that of a file with no other, and no empty line."""
    for number, line in numbered:
        digest.update(line.rstrip(b"\r\n") + b"\n")
        yield number, line


def _hashed_sets(made: Iterable[LabelledLine], digest: hashlib._Hash) -> Iterator[LabelledLine]:
    for line in made:
        digest.update(line.model_dump_json().encode() + b"\n")
        yield line


def _keep(settings: Settings, rows: bytes) -> None:
    """Bring rows into the store of a folder that no node has, or of a server."""
    from tidegate.processors.audit_events import tell_migrated
    from tidegate.producers.folder_audit import audit_of

    with owned(settings, "has its store; stop it first") as store:
        tell_migrated(audit_of(settings.data_dir, settings), store.migrate())
        store.insert("evaluations", rows, f"evaluations:{hashlib.sha256(rows).hexdigest()}")


def _judge(
    suite: Suite,
    read: Iterator[tuple[LabelledLine, Sample]],
    evaluation: Evaluation,
    settings: Settings,
    versions: dict[str, str],
) -> None:
    while batch := list(islice(read, settings.guard_batch)):
        assessed = suite.assess([sample for _, sample in batch])
        for (line, sample), assessment in zip(batch, assessed, strict=True):
            evaluation.add(line, sample, assessment)
            versions.update(assessment.detectors)


def _needs_evaluate() -> None:
    try:
        import matplotlib
        import sklearn
    except ModuleNotFoundError as error:
        raise UsageError(f"evaluating needs {error.name}: pip install 'tidegate[guardrails,evaluate]'") from None
    del matplotlib, sklearn


def _dev_sets() -> Any:
    """The module that makes them: it is in a checkout's `bench`, which a wheel does not carry."""
    try:
        from tidegate.bench.training import dev_sets
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[:2] != ["tidegate", "bench"]:
            raise
        raise UsageError("--dev makes its sets with bench/training, which is in a checkout of Tidegate alone") from None
    return dev_sets


def _say(report: str, figures: dict[str, Any], output: Path | None, plots: list[str], as_json: bool) -> None:
    from tidegate.processors.guardrails.evaluation_report import aligned

    told = orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)
    if output is not None:
        (output / "report.md").write_text(report, "utf-8")
        (output / "metrics.json").write_bytes(told)
        written = ", ".join(("report.md", "metrics.json", *plots))
        err.print(f"in {output}: {written}", style="dim", highlight=False, soft_wrap=True)
    sys.stdout.buffer.write(told if as_json else aligned(report).encode())
    sys.stdout.buffer.flush()
