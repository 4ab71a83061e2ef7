"""`tidegate evaluate`: the detectors measured on labelled lines, or on the development sets against their targets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from tidegate.guard_files import DetectorsOption, Report, StrictOption, err, lines, names, progress, reading
from tidegate.schemas.errors import InvalidEvent, UsageError
from tidegate.schemas.settings import Settings


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
) -> None:
    """Measure the detectors on labelled lines: precision, recall, F1, AUROC beside what length alone gives, calibration.

    A line is as for `tidegate score`, with "labels": {"phi": [{"type", "start", "end", "where"}], "toxicity": 0|1,
    "injection": 0|1, "faithful": 0|1}, any of which may be absent, and perhaps a "source". Exit code 1 where a line could not
    be read, or a development set misses its target.
    """
    if (dev is None) == (not files):
        raise UsageError("give files of labelled lines, or --dev FOLDER")
    _needs_evaluate()
    if dev is not None:
        _evaluate_dev(dev, output, as_json)
        return
    from tidegate.processors.guardrails.evaluation import TASKS, Evaluation, read_labelled
    from tidegate.processors.guardrails.evaluation_report import markdown
    from tidegate.processors.guardrails.loading import load_suite
    from tidegate.processors.guardrails.scoring import batches

    report, evaluation, settings = Report(), Evaluation(), Settings.read()
    asked = names(detectors) or ("phi", *(task.detector for task in TASKS))
    suite = load_suite(settings, asked, strict=strict, trouble=lambda trouble: report.trouble((trouble,)))
    for file in files or ():
        with reading(file) as (source, size), progress(size) as bar:
            for batch in batches(bar(lines(source, file)), settings.guard_batch):
                read = []
                for number, line in batch:
                    try:
                        labelled = read_labelled(line)
                        read.append((labelled, labelled.sample(number)))
                    except InvalidEvent as error:
                        report.refuse(number, error.reason, file)
                assessed = suite.assess([sample for _, sample in read]) if read else []
                for (labelled, sample), assessment in zip(read, assessed, strict=True):
                    evaluation.add(labelled, sample, assessment)
    plots = []
    if output is not None:
        from tidegate.processors.guardrails.evaluation_plots import draw

        plots = draw(evaluation, output)
    _say(markdown(evaluation, files or (), plots), evaluation.as_dict(), output, as_json)
    if report.unread:
        raise typer.Exit(1)


def _needs_evaluate() -> None:
    try:
        import matplotlib
        import sklearn
    except ModuleNotFoundError as error:
        raise UsageError(f"evaluating needs {error.name}: pip install 'tidegate[guardrails,evaluate]'") from None
    del matplotlib, sklearn


def _evaluate_dev(dev: Path, output: Path | None, as_json: bool) -> None:
    """The development sets against their targets. They are made by the checkout's `bench`, which a wheel does not carry."""
    try:
        from tidegate.bench.training import dev_sets
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[:2] != ["tidegate", "bench"]:
            raise
        raise UsageError("--dev makes its sets with bench/training, which is in a checkout of Tidegate alone") from None
    with err.status("making the development sets, and scoring them …"):
        rows = dev_sets.measure(dev)
    figures = [row._asdict() | {"reached": row.reached} for row in rows]
    _say(dev_sets.markdown(rows), {"targets": figures}, output, as_json)
    if not all(row.reached for row in rows):
        raise typer.Exit(1)


def _say(report: str, figures: dict[str, Any], output: Path | None, as_json: bool) -> None:
    told = orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / "report.md").write_text(report, "utf-8")
        (output / "metrics.json").write_bytes(told)
        err.print(f"{output}/report.md, metrics.json and plots written", style="dim", highlight=False, soft_wrap=True)
    sys.stdout.buffer.write(told if as_json else report.encode())
    sys.stdout.buffer.flush()
