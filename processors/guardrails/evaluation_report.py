"""An evaluation as Markdown: one table a label, one row a source, the length baseline beside every area."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from .evaluation import Evaluation
from .evaluation_scores import ScoreReport
from .evaluation_spans import Counts, SpanReport

_Report = TypeVar("_Report", ScoreReport, SpanReport)
_CELL: Final = re.compile(r"(?<!\\)\|")
_BLANKS: Final = re.compile(r"\n{3,}")

MOST_CONFUSED: Final = 10
RATES: Final = ("precision", "recall", "F1", "any-type recall")
# What each label's alarm is about; a faithful answer should give none.
MEANINGS: Final = {"toxicity": "toxic", "injection": "injected", "faithful": "unfaithful"}
OTHERS: Final = {"toxicity": "clean", "injection": "clean", "faithful": "faithful"}
# A faithful answer scores high, and here the others are looked for.
TURNED: Final = {"faithful": "The scores of this table are 1 − faithfulness."}
# Where length alone comes as near as this, the score may have learned to count characters.
NEAR_LENGTH: Final = 0.02
SCORES_LEGEND: Final = (
    "By length: the AUROC of the text's length alone. Precision, recall, F1 and false alarms are at the detector's own line,"
    " where it reports a finding; recall at 2 % is at the line that would let 2 % of the others alarm. ECE: how far, on"
    " average, a score is from the share that it stands for."
)
PHI_LEGEND: Final = (
    "Precision, recall and F1 ask for the right type; any-type recall for nine tenths of a span's letters and digits. Left: the"
    " share of the spans' letters and digits that redaction would leave. Clean flagged: the share of texts without PHI that"
    " have a finding."
)


def markdown(evaluation: Evaluation, names: Sequence[str], plots: Sequence[Path] = ()) -> str:
    parts = [f"# Evaluation of {', '.join(names)}", f"{lines(evaluation.lines)}."]
    if evaluation.failed:
        failed = ", ".join(f"{detector} on {lines(count)}" for detector, count in sorted(evaluation.failed.items()))
        parts.append(f"Detectors that failed: {failed}.")
    spans = evaluation.span_reports()
    if spans:
        parts += ["## PHI", *_phi(spans), PHI_LEGEND]
    for label, reports in evaluation.score_reports().items():
        unscored = evaluation.series[label]["all"].unscored
        parts.append(f"## {label}")
        if reports:
            legend = " ".join((SCORES_LEGEND, TURNED.get(label, ""))).rstrip()
            parts += [_scores(label, reports), *_warnings(label, reports["all"]), legend]
        if unscored:
            parts.append(f"{lines(unscored)} with this label got no score, and count in no figure here.")
    parts += [f"![{path.stem}]({path.name})" for path in plots]
    return "\n\n".join(parts) + "\n"


def _phi(spans: dict[str, SpanReport]) -> Iterable[str]:
    rows = []
    for source, report in shown(spans).items():
        total = report.total
        rows.append(
            (
                _cell(source),
                f"{report.samples:,}",
                f"{total.gold:,}",
                *_rates(total),
                number(report.any_precision),
                number(report.left_share),
                share(report.flagged_share),
            )
        )
    yield table(
        (
            "source",
            "texts",
            "spans",
            "precision",
            "recall",
            "F1",
            "any-type recall",
            "any-type precision",
            "left",
            "clean flagged",
        ),
        rows,
    )
    report = spans["all"]
    kinds = sorted(report.by_type.items(), key=lambda item: (-item[1].gold, item[0]))
    yield table(
        ("type", "spans", "found", *RATES, "false alarms"),
        [(kind, f"{each.gold:,}", f"{each.said:,}", *_rates(each), f"{each.alarms:,}") for kind, each in kinds],
    )
    if report.said_as:
        confused = ", ".join(f"{was} as {said} ({count})" for (was, said), count in report.said_as.most_common(MOST_CONFUSED))
        yield f"Found, but as another type or in part: {confused}."


def _cell(name: str) -> str:
    """A source is anybody's word."""
    return " ".join(name.split()).replace("|", "\\|") or "–"


def _rates(counts: Counts) -> tuple[str, ...]:
    return tuple(map(number, (counts.precision, counts.recall, counts.f1, counts.any_recall)))


def _warnings(label: str, report: ScoreReport) -> Iterable[str]:
    if report.auroc is None:
        only = MEANINGS.get(label, label) if report.positives else OTHERS.get(label, "other")
        yield f"**Only {only} texts are here.** AUROC, thresholds and pictures need both kinds."
    elif report.length_auroc is not None and report.length_auroc >= report.auroc - NEAR_LENGTH:
        yield "**Length alone tells as much.** These lines do not show that the detector has read the texts."


def _scores(label: str, reports: dict[str, ScoreReport]) -> str:
    means = MEANINGS.get(label, label)
    rows = []
    for source, report in shown(reports).items():
        interval = "" if report.auroc_low is None else f" ({report.auroc_low:.3f}–{report.auroc_high:.3f})"
        rows.append(
            (
                _cell(source),
                f"{report.samples:,}",
                f"{report.positives:,}",
                number(report.auroc) + interval,
                number(report.length_auroc),
                number(report.average_precision),
                *map(number, (report.precision, report.recall, report.f1)),
                share(report.false_alarms),
                *(number(report.recall_at.get(at)) for at in ("0.02", "0.05")),
                number(report.best_threshold),
                number(report.calibration_error),
            )
        )
    head = ("source", "lines", means, "AUROC (95 %)", "by length", "AP", "precision", "recall", "F1", "false alarms")
    return table((*head, "recall at 2 %", "recall at 5 %", "best threshold", "ECE"), rows)


def shown(by_source: Mapping[str, _Report]) -> Mapping[str, _Report]:
    """Where all lines are of one source, one row says it."""
    every = by_source["all"]
    one = len(by_source) <= 2 and all(report.samples == every.samples for report in by_source.values())
    return {"all": every} if one else by_source


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def aligned(report: str) -> str:
    """The same Markdown for a terminal: columns under each other, and no pictures."""
    found: list[str] = []
    rows: list[list[str]] = []
    for line in [*report.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in _CELL.split(line)[1:-1]])
            continue
        if rows:
            found += _padded(rows)
            rows = []
        if not line.startswith("!["):
            found.append(line)
    return _BLANKS.sub("\n\n", "\n".join(found).rstrip()) + "\n"


def _padded(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        if set(row[0]) == {"-"}:
            cells = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
        else:
            cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        yield f"| {' | '.join(cells)} |"


def lines(count: int) -> str:
    return f"{count:,} line{'' if count == 1 else 's'}"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
