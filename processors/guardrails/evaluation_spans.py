"""How well spans were found: by type, by any type, and by what of the text is left uncovered.

A gold span is *found* when nine tenths of its letters and digits are covered by findings of any type: redaction would take it
out. It is found *by its type* when one finding of that type stands in the same place (their overlap is half of their union or
more); each finding is counted for one gold span. A finding that meets no gold span is a false alarm. An *optional* gold span
counts neither way: readers differ on it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ...schemas.content import Where

# A name with or without its title is the same name; a first name is not the whole of three.
SAME_PLACE: Final = 0.5
# A last letter that a form cut off, or a comma, tells nobody anything; a surname does.
TAKEN_OUT: Final = 0.9

Place = tuple[Where, int]


class Marked(NamedTuple):
    """`[start, end)` characters of the text at `place` (where, and which chunk of the context). Of a gold span: where its
    letters and digits are, and whether it counts."""

    place: Place
    start: int
    end: int
    type: str
    letters: tuple[int, ...] = ()
    optional: bool = False

    @classmethod
    def gold(cls, place: Place, start: int, end: int, kind: str, text: str, optional: bool = False) -> Marked:
        return cls(place, start, end, kind, tuple(at for at in range(start, end) if text[at].isalnum()), optional)


@dataclass(slots=True)
class Counts:
    """`typed`: gold spans found by their type; `found`: by any; `alarms`: findings of this type that no gold span asked for."""

    gold: int = 0
    typed: int = 0
    found: int = 0
    said: int = 0
    alarms: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    @property
    def recall(self) -> float | None:
        return _share(self.typed, self.gold)

    @property
    def any_recall(self) -> float | None:
        return _share(self.found, self.gold)

    @property
    def precision(self) -> float | None:
        """Of the findings of this type, those that were right about it."""
        return _share(self.typed, self.said)

    @property
    def f1(self) -> float | None:
        return _share(2 * self.typed, self.said + self.gold)


@dataclass(slots=True)
class SpanReport:
    """All samples together. `clean`: samples without any gold span; `flagged`: those of them with a finding."""

    by_type: dict[str, Counts] = field(default_factory=lambda: defaultdict(Counts))
    samples: int = 0
    clean: int = 0
    flagged: int = 0
    gold_chars: int = 0
    left_chars: int = 0
    said_as: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def total(self) -> Counts:
        return sum(self.by_type.values(), Counts())

    @property
    def any_precision(self) -> float | None:
        """Of the findings, those that met a gold span of whatever type."""
        total = self.total
        return _share(total.said - total.alarms, total.said)

    @property
    def flagged_share(self) -> float | None:
        return _share(self.flagged, self.clean)

    @property
    def left_share(self) -> float | None:
        """Of the letters and digits of gold spans, those that redaction would leave to be read."""
        return _share(self.left_chars, self.gold_chars)

    @property
    def macro_f1(self) -> float | None:
        f1s = [counts.f1 for counts in self.by_type.values() if counts.gold and counts.f1 is not None]
        return sum(f1s) / len(f1s) if f1s else None

    def as_dict(self) -> dict[str, object]:
        def of(counts: Counts) -> dict[str, object]:
            rates = {"precision": counts.precision, "recall": counts.recall, "f1": counts.f1, "any_recall": counts.any_recall}
            return {"gold": counts.gold, "said": counts.said, "alarms": counts.alarms, **rates}

        return {
            "samples": self.samples,
            "clean": self.clean,
            "flagged_share": self.flagged_share,
            "left_share": self.left_share,
            "any_precision": self.any_precision,
            "macro_f1": self.macro_f1,
            **of(self.total),
            "by_type": {kind: of(counts) for kind, counts in sorted(self.by_type.items())},
        }


def compare(samples: Iterable[tuple[Sequence[Marked], Sequence[Marked]]]) -> SpanReport:
    """(gold, said) of each sample, as one report."""
    report = SpanReport()
    for gold, said in samples:
        report.samples += 1
        if not gold:  # an optional span is PHI to some reader: such a sample is not clean
            report.clean += 1
            report.flagged += bool(said)
        _count(report, gold, said)
    return report


def _count(report: SpanReport, gold: Sequence[Marked], said: Sequence[Marked]) -> None:
    near: Mapping[Place, list[Marked]] = _by_place(said)
    used: set[int] = set()
    for wanted in sorted(gold):
        if wanted.optional:
            continue
        counts = report.by_type[wanted.type]
        meeting = [span for span in near.get(wanted.place, ()) if _overlap(wanted, span)]
        covered = sum(any(span.start <= at < span.end for span in meeting) for at in wanted.letters)
        counts.gold += 1
        counts.found += covered >= TAKEN_OUT * len(wanted.letters)
        report.gold_chars += len(wanted.letters)
        report.left_chars += len(wanted.letters) - covered
        same = [span for span in meeting if span.type == wanted.type and id(span) not in used]
        best = max(same, key=lambda span: _likeness(wanted, span), default=None)
        if best is not None and _likeness(wanted, best) >= SAME_PLACE:
            counts.typed += 1
            used.add(id(best))
        elif meeting:
            report.said_as[wanted.type, max(meeting, key=lambda span: _overlap(wanted, span)).type] += 1
    wanted_at = _by_place(gold)
    for span in said:
        met = [wanted for wanted in wanted_at.get(span.place, ()) if _overlap(wanted, span)]
        if met and all(wanted.optional for wanted in met):
            continue
        counts = report.by_type[span.type]
        counts.said += 1
        counts.alarms += not met


def _by_place(spans: Iterable[Marked]) -> dict[Place, list[Marked]]:
    found: dict[Place, list[Marked]] = defaultdict(list)
    for span in spans:
        found[span.place].append(span)
    return found


def _overlap(one: Marked, other: Marked) -> int:
    return max(0, min(one.end, other.end) - max(one.start, other.start))


def _likeness(one: Marked, other: Marked) -> float:
    shared = _overlap(one, other)
    return shared / (one.end - one.start + other.end - other.start - shared) if shared else 0.0


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
