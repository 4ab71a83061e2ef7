"""The development sets as labelled lines, and what the detectors should reach on them: `tidegate evaluate --dev FOLDER`.

What our own heads and rules were fitted on is left out: of generated sentences the held-out templates, of MTS-Dialog the odd
dialogues. The heads of toxicity and injection have learned from every source in the folder before they ship; what they reach on
a source they had not seen was measured while they were trained, stands in their cards, and is told from there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from tidegate.processors.guardrails.evaluation import Evaluation, LabelledLine
from tidegate.processors.guardrails.evaluation_report import table
from tidegate.processors.guardrails.evaluation_scores import ScoreReport
from tidegate.processors.guardrails.evaluation_spans import Counts, SpanReport

from . import phi_eval, phi_sentences, swaps, toxic_lines
from .grounding import NOISY

SENTENCES: Final = 1_040
SEED: Final = 20260714
GUARDRAILS: Final = Path(__file__).parents[2] / "processors" / "guardrails"

# Sources, as the lines name them.
PRESIDIO: Final = "phi, presidio templates"
HIPAA: Final = "phi, own templates held out"
CODES: Final = "phi, own clinical negatives"
NOTES: Final = "MTS-Dialog notes"
SWAPS: Final = "swaps, odd dialogues"
# One word in place of another, at random: most of them change nothing that anybody would call unfaithful.
WORDS: Final = "random words, odd dialogues"
CLINICAL: Final = "toxicity, clinical lines"
IDENTITY: Final = "toxicity, identity lines"


class Target(NamedTuple):
    """One figure and what it should reach; `target` None is told, not judged. `basis`: where the figure is from."""

    metric: str
    value: float | None
    target: float | None
    at_least: bool = True
    basis: str = "measured"

    @property
    def reached(self) -> bool:
        if self.target is None:
            return True
        if self.value is None:
            return False
        return self.value >= self.target if self.at_least else self.value <= self.target


def lines(dev: Path) -> Iterator[LabelledLine]:
    """Every line, in a fixed order. Texts are made or read here, and kept nowhere."""
    yield from _phi(dev)
    notes = swaps.read_notes(dev / "mts_dialog_val.csv")
    for number, _, note in notes:
        if str(number) not in phi_eval.MTS_WITH_PHI:  # a real day or age is no false alarm
            yield _line(f"note-{number}", NOTES, {"response": note}, {"phi": [], **({"toxicity": 0} if number % 2 else {})})
    for number, case in enumerate(case for case in swaps.cases(notes) if case.group % 2):
        texts = {"response": case.response, "context": [case.context]}
        yield _line(f"swap-{number}", WORDS if case.kind in NOISY else SWAPS, texts, {"faithful": int(case.faithful)})
    for source, texts_of in ((CLINICAL, toxic_lines.clinical), (IDENTITY, toxic_lines.identity)):
        for number, text in enumerate(texts_of("test")):
            yield _line(f"{source}-{number}", source, {"prompt": text}, {"toxicity": 0})


def _phi(dev: Path) -> Iterator[LabelledLine]:
    presidio = list(phi_sentences.presidio_templates(dev / "presidio_templates.txt"))
    for source, templates, seed in ((PRESIDIO, presidio, SEED + 2), (HIPAA, phi_sentences.HELD_OUT, SEED + 1)):
        for number, sentence in enumerate(phi_sentences.sentences(templates, SENTENCES, seed)):
            golds = [
                {"type": gold.type, "start": gold.start, "end": gold.end, "optional": gold.optional}
                for gold in phi_eval.united(sentence)
            ]
            yield _line(f"{source}-{number}", source, {"prompt": sentence.text}, {"phi": golds})
    for number, text in enumerate(phi_sentences.clinical_negatives(400, SEED + 3)):
        yield _line(f"{CODES}-{number}", CODES, {"prompt": text}, {"phi": []})


def _line(name: str, source: str, texts: Mapping[str, Any], labels: Mapping[str, Any]) -> LabelledLine:
    return LabelledLine.model_validate({"id": name, "source": source, **texts, "labels": dict(labels)}, strict=False)


def targets(evaluation: Evaluation) -> list[Target]:
    """The figures of the issue's paragraph on quality."""
    spans, scores = evaluation.span_reports(), evaluation.score_reports()
    return [*_of_phi(spans), *_of_scores(scores), *_of_cards()]


def _of_phi(spans: Mapping[str, SpanReport]) -> Iterator[Target]:
    if not spans:  # nobody asked for it
        return
    for source in (PRESIDIO, HIPAA):
        total = spans[source].total
        yield Target(f"{source}: typed F1", total.f1, None)
        yield Target(f"{source}: any-type recall", total.any_recall, None)
    structured = _structured(spans[HIPAA])
    yield Target(f"{HIPAA}: any-type recall of structured ids", structured.any_recall, 0.98)
    yield Target(f"{HIPAA}: typed recall of structured ids", structured.recall, None)
    for source in (CODES, NOTES):
        yield Target(f"phi, {source.removeprefix('phi, ')}: flagged", spans[source].flagged_share, 0.05, at_least=False)


def _of_scores(scores: Mapping[str, Mapping[str, ScoreReport]]) -> Iterator[Target]:
    for source in (CLINICAL, IDENTITY, NOTES):
        if report := scores.get("toxicity", {}).get(source):
            name = f"toxicity, {source.removeprefix('toxicity, ')}: alarms"
            yield Target(name, report.false_alarms, 0.05, at_least=False)
    for source, name, target in ((SWAPS, SWAPS, 0.88), ("all", f"{SWAPS}, with random words", None)):
        if report := scores.get("faithful", {}).get(source):
            yield Target(f"faithfulness, {name}: AUROC", report.auroc, target)
            yield Target(f"faithfulness, {name}: AUROC of length alone", report.length_auroc, None)


def _structured(report: SpanReport) -> Counts:
    chosen = [counts for kind, counts in report.by_type.items() if kind in phi_sentences.STRUCTURED]
    return Counts(
        **{name: sum(getattr(each, name) for each in chosen) for name in ("gold", "typed", "found", "said", "alarms")}
    )


def _of_cards() -> Iterator[Target]:
    toxicity, injection = _card("heads/toxicity.json"), _card("injection/injection.json")
    for source, numbers in toxicity.get("unseen_source", {}).items():
        yield Target(f"toxicity, unseen source {source}: AUROC", numbers["auroc"], 0.92, basis="card")
        yield Target(f"toxicity, unseen source {source}: AUROC of length alone", numbers["auroc_by_length"], None, basis="card")
    for source, numbers in injection.get("unseen_source", {}).items():
        yield Target(f"injection, unseen source {source}: recall", numbers["recall"], 0.75, basis="card")
        yield Target(f"injection, unseen source {source}: AUROC", numbers["auroc"], None, basis="card")
        yield Target(
            f"injection, unseen source {source}: AUROC of length alone", numbers["auroc_by_length"], None, basis="card"
        )
    for name, most, numbers in (("toxicity", 0.05, toxicity), ("injection", 0.02, injection)):
        for source, shares in numbers.get("false_alarms", {}).items():
            # What ships has also seen where these texts are from.
            if source.startswith("without_"):
                worst = max(shares, key=lambda lot: shares[lot])
                metric = f"{name}, {source.replace('_', ' ')}: alarms on {worst.replace('_', ' ')}, the worst of {len(shares)}"
                yield Target(metric, shares[worst], most, at_least=False, basis="card")


def _card(name: str) -> dict[str, Any]:
    path = GUARDRAILS / name
    found: dict[str, Any] = json.loads(path.read_bytes()).get("numbers", {}) if path.is_file() else {}
    return found


def markdown(rows: Sequence[Target]) -> str:
    def told(row: Target) -> tuple[str, ...]:
        value = "–" if row.value is None else f"{row.value:.3f}"
        target = "" if row.target is None else f"{'≥' if row.at_least else '≤'} {row.target:g}"
        return row.metric, value, target, "" if row.target is None else "yes" if row.reached else "**no**", row.basis

    return table(("metric", "value", "target", "reached", "basis"), map(told, rows)) + "\n"
