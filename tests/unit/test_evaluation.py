"""Figures of an evaluation: held against sklearn, against hand-counted cases, and against what labels must not hide."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the extra `evaluate` is not installed")
pytest.importorskip("matplotlib", reason="the extra `evaluate` is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score
from tidegate.processors.guardrails import evaluation_scores, evaluation_spans
from tidegate.processors.guardrails.evaluation import Evaluation, read_labelled
from tidegate.processors.guardrails.evaluation_plots import draw
from tidegate.processors.guardrails.evaluation_report import aligned, markdown
from tidegate.processors.guardrails.evaluation_spans import Marked
from tidegate.processors.guardrails.ports import Finding, Sample
from tidegate.processors.guardrails.suite import Assessment
from tidegate.schemas.errors import InvalidEvent

PROMPT = ("prompt", 0)
TEXT = "Rosa Martinez came on 3 May with Dr. Lee"


def gold(start: int, end: int, kind: str, *, optional: bool = False) -> Marked:
    return Marked.gold(PROMPT, start, end, kind, TEXT, optional)


def said(start: int, end: int, kind: str) -> Marked:
    return Marked(PROMPT, start, end, kind)


def test_a_span_is_found_by_type_where_half_of_both_is_shared_and_out_where_nine_tenths_are() -> None:
    name, day, doctor = gold(0, 13, "PERSON"), gold(22, 27, "DATE_TIME"), gold(37, 40, "PERSON")
    found = [said(0, 8, "PERSON"), said(22, 27, "AGE"), said(33, 40, "PERSON")]

    report = evaluation_spans.compare([([name, day, doctor], found)])

    people, days = report.by_type["PERSON"], report.by_type["DATE_TIME"]
    assert (people.gold, people.typed, people.found, people.said, people.alarms) == (2, 1, 1, 2, 0)
    assert (days.typed, days.found, report.by_type["AGE"].alarms) == (0, 1, 0)
    assert report.total.any_recall == pytest.approx(2 / 3)
    assert report.total.f1 == pytest.approx(2 * 1 / (3 + 3))
    assert report.left_share == pytest.approx(5 / 19), "tinez, of all letters and digits"
    assert report.said_as["DATE_TIME", "AGE"] == 1


def test_one_finding_counts_for_one_span_and_a_finding_elsewhere_is_an_alarm() -> None:
    twice = [said(0, 13, "PERSON"), said(0, 13, "PERSON"), said(14, 18, "PERSON")]

    report = evaluation_spans.compare([([gold(0, 13, "PERSON")], twice), ([], []), ([], [said(0, 4, "PERSON")])])

    assert report.total.precision == pytest.approx(1 / 4)
    assert report.total.alarms == 2
    assert report.flagged_share == 0.5


def test_optional_spans_count_neither_way() -> None:
    doctor = gold(33, 40, "PERSON", optional=True)

    found = evaluation_spans.compare([([doctor], [said(33, 40, "ORGANIZATION")])])
    missed = evaluation_spans.compare([([doctor], [])])

    assert found.total == missed.total == evaluation_spans.Counts()
    assert found.clean == 0


def test_a_finding_in_another_text_of_the_call_meets_nothing() -> None:
    elsewhere = Marked(("context", 1), 0, 13, "PERSON")

    report = evaluation_spans.compare([([gold(0, 13, "PERSON")], [elsewhere])])

    assert (report.total.found, report.total.alarms) == (0, 1)


def test_scores_are_as_sklearn_says_and_length_stands_beside_them() -> None:
    random = np.random.default_rng(5)
    labels = random.random(400) < 0.3
    scores = np.clip(labels * 0.3 + random.random(400) * 0.7, 0, 1)
    alarms = scores > 0.5
    lengths = np.where(labels, 10, 30) + random.integers(0, 25, 400)

    report = evaluation_scores.compare(labels.tolist(), scores.tolist(), alarms.tolist(), lengths.tolist())

    assert report.auroc == pytest.approx(roc_auc_score(labels, scores))
    assert report.length_auroc == pytest.approx(1 - roc_auc_score(labels, lengths)), "short texts are the positives here"
    assert report.precision == pytest.approx(precision_score(labels, alarms))
    assert report.recall == pytest.approx(recall_score(labels, alarms))
    assert report.f1 == pytest.approx(f1_score(labels, alarms))
    assert report.auroc_low < report.auroc < report.auroc_high
    assert report.best_f1 == pytest.approx(max(f1_score(labels, scores >= at) for at in np.unique(scores)))


def test_recall_at_a_share_of_false_alarms_is_counted_by_hand() -> None:
    truth = np.array([True, True, True, False, False, False, False])
    scores = np.array([0.9, 0.6, 0.2, 0.7, 0.5, 0.3, 0.1])

    none, a_quarter, all_of_them = (evaluation_scores.recall_at(truth, scores, share) for share in (0.0, 0.25, 1.0))

    assert (none, a_quarter, all_of_them) == (pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0)


def test_calibration_error_is_nought_for_shares_that_come_true_and_half_for_certainty_that_does_not() -> None:
    truth = np.array([True, False] * 50)

    honest = evaluation_scores.calibration_error(truth, np.full(100, 0.5))
    certain = evaluation_scores.calibration_error(truth, np.ones(100))

    assert honest == pytest.approx(0.0)
    assert certain == pytest.approx(0.5)


# Each example draws three hundred samples again.
@settings(max_examples=25)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1), st.booleans(), st.integers(0, 99)), max_size=30))
def test_figures_are_shares_or_unknown_whatever_the_labels(rows: list[tuple[bool, float, bool, int]]) -> None:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], []]

    report = evaluation_scores.compare(*columns)

    figures = [value for name, value in report.as_dict().items() if isinstance(value, float) and name != "best_threshold"]
    assert all(0 <= figure <= 1 + 1e-9 for figure in figures)
    assert (report.auroc is None) == (len(set(columns[0])) < 2)


def labelled(**more: object) -> bytes:
    return json.dumps({"id": "a", "prompt": TEXT, "response": "ok", **more}).encode()


def test_an_unfaithful_answer_is_what_should_alarm() -> None:
    evaluation = Evaluation()
    wrong = Finding("faithfulness", "CONTRADICTED_DOSE", "response", 0, 2, 0.9)
    hedge = Finding("faithfulness", "HEDGED", "response", 0, 2, 0.5)
    for faithful, score, finding in ((1, 0.9, hedge), (0, 0.2, wrong), (1, 0.8, None), (0, 0.4, wrong)):
        line = read_labelled(labelled(labels={"faithful": faithful}))
        assessment = Assessment([finding] if finding else [], {("response", "faithfulness"): score})
        evaluation.add(line, line.sample(1), assessment)

    report = evaluation.score_reports()["faithful"]["all"]

    assert (report.auroc, report.recall, report.false_alarms) == (1.0, 1.0, 0.0)


def test_lines_without_a_score_are_counted_and_in_no_figure() -> None:
    evaluation = Evaluation()
    line = read_labelled(labelled(labels={"toxicity": True}, source="forum"))
    evaluation.add(line, line.sample(1), Assessment(failed={"toxicity": "RuntimeError"}))

    report = markdown(evaluation, ["lines.jsonl"])

    assert evaluation.series["toxicity"]["all"].unscored == 1
    assert evaluation.failed == {"toxicity": 1}
    assert "toxicity on 1 line." in report
    assert "1 line with this label got no score" in report


def test_who_was_not_asked_has_missed_nothing() -> None:
    evaluation = Evaluation(frozenset({"toxicity"}))
    labels = {"phi": [{"type": "PERSON", "start": 0, "end": 4}], "faithful": 0}
    for more in ({}, {"toxicity": 1}):
        line = read_labelled(labelled(labels=labels | more))
        evaluation.add(line, line.sample(1), Assessment(scores={("prompt", "toxicity"): 0.9}))

    figures = evaluation.as_dict()

    assert (figures["lines"], figures["phi"], set(figures) - {"failed"}) == (1, {}, {"lines", "phi", "toxicity"})
    assert figures["toxicity"]["all"]["samples"] == 1


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({}, 'no "labels"'),
        ({"labels": {"Rosa": 1}}, "labels: an unknown label; known are phi, toxicity, injection, faithful"),
        ({"labels": {"toxicity": 2}}, "labels.toxicity: Input should be 0 or 1"),
        ({"labels": {"toxicity": "Rosa"}}, "labels.toxicity: Input should be 0 or 1"),
        ({"labels": {}}, "labels: none is given"),
        ({"labels": {"toxicity": None}}, "labels: none is given"),
        ({"prompt": None, "response": None, "labels": {"toxicity": 1}}, "nothing to score"),
        ({"labels": {"phi": [{"type": "PERSON", "start": 0, "end": 99}]}}, r"labels.phi\[0\] is outside"),
        ({"labels": {"phi": [{"type": "PERSON", "start": 0, "end": 4, "where": "context"}]}}, r"labels.phi\[0\] is outside"),
    ],
)
def test_labels_that_cannot_be_meant_are_refused_without_quoting_the_text(more: dict[str, object], problem: str) -> None:
    with pytest.raises(InvalidEvent, match=problem) as raised:
        read_labelled(labelled(**more))

    assert "Rosa" not in str(raised.value)


def judged(rows: Sequence[tuple[int, float, str]]) -> Evaluation:
    """Of toxicity: label, score, text."""
    evaluation = Evaluation()
    for label, score, text in rows:
        line = read_labelled(json.dumps({"prompt": text, "labels": {"toxicity": label}, "source": "a|b"}).encode())
        evaluation.add(line, line.sample(1), Assessment(scores={("prompt", "toxicity"): score}))
    return evaluation


def test_a_report_says_what_its_figures_cannot() -> None:
    one_kind = judged([(1, 0.9, "x"), (1, 0.8, "yy")])
    by_length = judged([(1, 0.9, "x"), (1, 0.8, "x"), (0, 0.1, "yyyy"), (0, 0.2, "yyyy")])
    read = judged([(1, 0.9, "x"), (1, 0.8, "yy"), (0, 0.1, "x"), (0, 0.2, "yy")])

    told = [markdown(evaluation, ["f"]) for evaluation in (one_kind, by_length, read)]

    assert ["Only toxic texts are here" in one for one in told] == [True, False, False]
    assert ["Length alone tells as much" in one for one in told] == [False, True, False]


def test_lines_of_one_source_among_lines_of_none_have_a_row_of_their_own() -> None:
    evaluation = Evaluation()
    for source, label in (("all", 1), ("all", 0), ("forum", 1), ("forum", 0)):
        line = read_labelled(json.dumps({"prompt": "x", "labels": {"toxicity": label}, "source": source}).encode())
        evaluation.add(line, line.sample(1), Assessment(scores={("prompt", "toxicity"): 0.5}))

    report = markdown(evaluation, ["f"])

    assert "| all | 4 | 2 |" in report
    assert "| forum | 2 | 1 |" in report


def test_on_a_terminal_columns_stand_under_each_other_and_pictures_are_left_out() -> None:
    evaluation = judged([(1, 0.9, "x"), (0, 0.1, "yy")])
    for source in list(evaluation.series["toxicity"]):
        evaluation.series["toxicity"][f"{source}|other"] = evaluation.series["toxicity"][source]

    report = markdown(evaluation, ["f"], [Path("toxicity-curves.png")])
    shown = aligned(report)

    rows = [line for line in shown.splitlines() if line.startswith("|")]
    assert len(rows) == 6
    assert len({len(row) for row in rows}) == 1
    assert "| a\\|b\\|other |" in shown
    assert "toxicity-curves" in report
    assert "toxicity-curves" not in shown
    assert [row.replace(" ", "") for row in rows if "--" not in row] == [
        row.replace(" ", "") for row in report.splitlines() if row.startswith("|") and "--" not in row
    ]


def test_plots_are_drawn_of_what_there_is(tmp_path: Path) -> None:
    evaluation = Evaluation()
    for number in range(20):
        labels = {"toxicity": number % 2, "phi": [{"type": "PERSON", "start": 0, "end": 13}]}
        line = read_labelled(labelled(labels=labels, source=f"s{number % 3}"))
        person = Finding("phi", "PERSON", "prompt", 0, 13, 0.9)
        evaluation.add(line, Sample("a", TEXT), Assessment([person], {("prompt", "toxicity"): number / 20}))

    drawn = draw(evaluation, tmp_path)

    assert [path.name for path in drawn] == ["toxicity-curves.png", "toxicity-calibration.png", "phi-types.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
    assert "| s0 |" in markdown(evaluation, ["x"], drawn)
