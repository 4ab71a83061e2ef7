"""The figures of an evaluation as pictures: curves, calibration, types. PNG, drawn without a display."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_auc_score, roc_curve

from .evaluation import Evaluation, Series
from .evaluation_report import MEANINGS
from .evaluation_scores import calibration
from .evaluation_spans import SpanReport

INK: Final = "#1b3a4b"
ACCENT: Final = "#c8553d"
PALE: Final = "#9aa5b1"
MOST_TYPES: Final = 30


def draw(evaluation: Evaluation, folder: Path) -> list[Path]:
    """One picture a label and kind, of what there is; the paths written."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 144}):
        for label, by_source in evaluation.series.items():
            series = by_source["all"]
            if any(series.labels) and not all(series.labels):
                means = MEANINGS.get(label, label)
                written.append(_saved(_curves(means, by_source), folder / f"{label}-curves.png"))
                written.append(_saved(_calibration(means, series), folder / f"{label}-calibration.png"))
        spans = evaluation.span_reports().get("all")
        if spans is not None and any(counts.gold for counts in spans.by_type.values()):
            written.append(_saved(_types(spans), folder / "phi-types.png"))
    return written


def _curves(means: str, by_source: Mapping[str, Series]) -> Figure:
    """ROC and precision over recall, of all lines and of each source, and of length as a dashed line."""
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    roc, pr = figure.subplots(1, 2)
    for source, series in by_source.items():
        truth, scores = np.asarray(series.labels), np.asarray(series.scores)
        if truth.all() or not truth.any() or (source != "all" and len(truth) == len(by_source["all"].labels)):
            continue
        wrong, right, _ = roc_curve(truth, scores)
        precision, recall, _ = precision_recall_curve(truth, scores)
        look: dict[str, Any] = {"color": INK, "lw": 2} if source == "all" else {"lw": 1, "alpha": 0.7}
        roc.plot(wrong, right, label=f"{source} {roc_auc_score(truth, scores):.3f}", **look)
        pr.plot(recall, precision, label=source, **look)
    series = by_source["all"]
    truth, lengths = np.asarray(series.labels), np.asarray(series.lengths, float)
    lengths = lengths if roc_auc_score(truth, lengths) >= 0.5 else -lengths
    wrong, right, _ = roc_curve(truth, lengths)
    roc.plot(wrong, right, "--", color=PALE, label=f"length alone {roc_auc_score(truth, lengths):.3f}")
    report = series.report()
    if report.false_alarms is not None and report.recall is not None:
        roc.plot(
            report.false_alarms, report.recall, "o", color=ACCENT, clip_on=False, zorder=3, label="where it reports a finding"
        )
    if report.precision is not None and report.recall is not None:
        pr.plot(report.recall, report.precision, "o", color=ACCENT, clip_on=False, zorder=3)
    pr.axhline(truth.mean(), ls="--", color=PALE, label="chance")
    roc.set(xlabel="false alarms", ylabel="recall", title=f"{means}: ROC", xlim=(0, 1), ylim=(0, 1.02))
    pr.set(xlabel="recall", ylabel="precision", title=f"{means}: precision over recall", xlim=(0, 1), ylim=(0, 1.02))
    roc.legend(frameon=False, loc="lower right")
    pr.legend(frameon=False, loc="lower left")
    return figure


def _calibration(means: str, series: Series) -> Figure:
    figure = Figure(figsize=(4, 3.8), layout="constrained")
    axes = figure.subplots()
    bins = calibration(np.asarray(series.labels, bool), np.asarray(series.scores, float))
    axes.plot([0, 1], [0, 1], "--", color=PALE, label="as it says")
    axes.plot(
        [said for said, _, _ in bins],
        [true for _, true, _ in bins],
        "o-",
        color=INK,
        label="bins of equal counts",
        clip_on=False,
    )
    axes.set(xlabel="score", ylabel=f"share that is {means}", title=f"{means}: calibration", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, loc="upper left")
    return figure


def _types(report: SpanReport) -> Figure:
    """Recall by any type and F1 by the right one, for the types with most labels."""
    counts = sorted((kind for kind in report.by_type.items() if kind[1].gold), key=lambda item: -item[1].gold)[:MOST_TYPES]
    counts.reverse()
    figure = Figure(figsize=(7, 1.2 + 0.28 * len(counts)), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(counts))
    axes.barh(rows + 0.2, [each.any_recall or 0 for _, each in counts], 0.38, color=INK, label="recall, any type")
    axes.barh(rows - 0.2, [each.f1 or 0 for _, each in counts], 0.38, color=ACCENT, label="F1, right type")
    axes.set_yticks(rows, [f"{kind} ({each.gold})" for kind, each in counts])
    axes.set(xlim=(0, 1), title="phi: by type")
    axes.set_ylim(-0.6, len(counts) - 0.4)
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    return figure


def _saved(figure: Figure, path: Path) -> Path:
    # Without the date in it, the same figures give the same bytes.
    figure.savefig(path, metadata={"Software": None})
    return path
