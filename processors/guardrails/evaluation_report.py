"""An evaluation as Markdown: one table a label, one row a source, the length baseline beside every area."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from .evaluation import Evaluation
from .evaluation_scores import ScoreReport
from .evaluation_spans import Counts, SpanReport

_T = TypeVar("_T")

MOST_CONFUSED: Final = 10
RATES: Final = ("precision", "recall", "F1", "any-type recall")
# What each label's alarm is about; a faithful answer should give none.
MEANINGS: Final = {"toxicity": "toxic", "injection": "injected", "faithful": "unfaithful"}


def markdown(evaluation: Evaluation, names: Sequence[str], plots: Sequence[Path] = ()) -> str:
    parts = [f"# Evaluation of {', '.join(names)}", f"{evaluation.lines:,} lines."]
    if evaluation.failed:
        failed = ", ".join(f"{detector} on {count:,}" for detector, count in sorted(evaluation.failed.items()))
        parts.append(f"Detectors that failed: {failed} lines.")
    spans = evaluation.span_reports()
    if spans:
        parts += ["## PHI", *_phi(spans)]
    for label, reports in evaluation.score_reports().items():
        unscored = evaluation.series[label]["all"].unscored
        parts += [f"## {label}", *([_scores(label, reports)] if reports else [])]
        if unscored:
            parts.append(f"{unscored:,} lines with this label have no score, and are in no figure here.")
    parts += [f"![{path.stem}]({path.name})" for path in plots]
    return "\n\n".join(parts) + "\n"


def _phi(spans: dict[str, SpanReport]) -> Iterable[str]:
    rows = []
    for source, report in shown(spans).items():
        total = report.total
        rows.append(
            (
                source,
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


def _rates(counts: Counts) -> tuple[str, ...]:
    return tuple(map(number, (counts.precision, counts.recall, counts.f1, counts.any_recall)))


def _scores(label: str, reports: dict[str, ScoreReport]) -> str:
    means = MEANINGS.get(label, label)
    rows = []
    for source, report in shown(reports).items():
        interval = "" if report.auroc_low is None else f" ({report.auroc_low:.3f}–{report.auroc_high:.3f})"
        rows.append(
            (
                source,
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


def shown(by_source: Mapping[str, _T]) -> Mapping[str, _T]:
    """Where all lines are of one source, one row says it."""
    return by_source if len(by_source) > 2 else {"all": by_source["all"]}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
