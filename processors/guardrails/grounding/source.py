"""What a response may rest on: the retrieved context, or a prompt that holds its source, read once and indexed.

chunks ─► lines (sentences, with speakers and answers understood) ─► postings: key → lines
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ....schemas.content import Where
from .facts import Fact, facts, implied
from .lexicon import EMPTY_KEYS, lexicon
from .polarity import answer, denied, denies_itself, polarity, presumes
from .reading import Word, listed, read

# Letters that two words must share from their start to be taken for forms of one: surg|ery and surg|ical are too short for it.
SHARED_LETTERS: Final = 5
SHARED_PART: Final = 0.6
# Every number of a response is held against those of the source: so many different ones of a kind, and so many places of each.
MOST_FACTS: Final = 1_000
MOST_ALIKE: Final = 10
# Beyond so many sentences (some 500 pages) no more chunks are read: the verdict would come too late to matter.
MOST_LINES: Final = 10_000
# So many people, and such a part of the lines that begin with one of them, make a conversation.
SPEAKERS: Final = 2
SPOKEN_PART: Final = 0.2
_PEOPLE: Final = frozenset(
    listed(
        "doctor dr physician clinician nurse patient guest mother father parent speaker caller customer agent user assistant"
    )
)
# "How much do you drink?" is denied by these, and not by "not much".
_NONE: Final = frozenset(("no", "none", "nothing", "never", "nobody", "zero"))
NAMED_KINDS: Final = frozenset(("drug", "condition", "procedure", "part", "relative"))
# Fewer letters than this stand for anything.
ABBREVIATED: Final = 3
# Fewer words than this are no quotation.
COPIED_WORDS: Final = 4


class Line(NamedTuple):
    """One sentence of the source."""

    chunk: int
    start: int
    end: int
    words: list[Word]
    polarity: list[int]  # of each word: 1 affirmed, -1 denied, 0 asked and not answered


@dataclass(slots=True)
class Source:
    """Lines and where each key occurs in them."""

    where: Where
    lines: list[Line] = field(default_factory=list)
    # Key, or "=group" → numbers of the lines that have it, in order.
    postings: dict[str, list[int]] = field(default_factory=dict)
    # Key or group → the polarities it occurs with.
    said: dict[str, set[int]] = field(default_factory=dict)
    facts: list[tuple[int, Fact]] = field(default_factory=list)
    # Amounts that are said without a number, "a day off", "next week": they bear a number out and contradict none.
    implied: dict[tuple[str, float], Fact] = field(default_factory=dict)
    # Of each line, the groups that name something.
    named: list[set[str]] = field(default_factory=list)
    spoken: bool = False  # a conversation rather than a text
    pairs: set[tuple[str, str]] = field(default_factory=set)
    stems: dict[str, list[str]] = field(default_factory=dict)
    # Key → a word as it stands that has it: what a vector is made of, for a stem is no word.
    forms: dict[str, str] = field(default_factory=dict)
    # The first letters of the words of each line, for abbreviations.
    initials: str = ""
    # Every word of every chunk, one space before and after each: what a copied sentence is looked up in.
    plain: str = ""

    @classmethod
    def read(cls, where: Where, texts: Sequence[str]) -> Source:
        source = cls(where)
        # In an order of its own, so that the order of the chunks changes nothing but their numbers.
        order = sorted(range(len(texts)), key=lambda number: texts[number])
        speakers = [Counter(source._read(chunk, texts[chunk])) for chunk in order if len(source.lines) < MOST_LINES]
        source.spoken = _is_spoken(speakers, len(source.lines))
        source._index(texts)
        return source

    def _read(self, chunk: int, text: str) -> list[str]:
        """Lines of a chunk; and who speaks, of each line that begins with it."""
        speakers: list[str] = []
        asked: list[Line] = []
        plain: list[str] = []
        for span, spoken in read(text):
            plain.extend(word.low for word in spoken if word.key)
            speaker = _speaker(spoken)
            speakers.extend([spoken[0].low] if speaker else [])
            said = spoken[speaker:]
            if not said:
                continue
            if asked and (speaker or not _asks(said)):
                _settle(asked, said)
                asked = []
            line = Line(chunk, span.start, span.end, said, polarity(said))
            self.lines.append(line)
            if _asks(said):
                asked.append(line)
        _settle(asked, ())
        self.plain += " " + " ".join(plain) + " \n"
        return speakers

    def _index(self, texts: Sequence[str]) -> None:
        known = lexicon()
        self.initials = " ".join("".join(word.low[0] for word in line.words if word.key) for line in self.lines)
        counts: dict[tuple[object, ...], int] = {}
        kinds: dict[str, int] = {}
        for number, line in enumerate(self.lines):
            before = ""
            for word, sign in zip(line.words, line.polarity, strict=True):
                if word.key:
                    self._post(word.key, number, sign)
                    self.forms.setdefault(word.key, word.low)
                    if word.key not in EMPTY_KEYS:
                        if before:
                            self.pairs.add((before, word.key))
                        before = word.key
            self.named.append(set())
            for first, _last, group in known.groups(line.words):
                self._post(group, number, line.polarity[first])
                if known.kinds[group] in NAMED_KINDS:
                    self.named[-1].add(group)
            self.implied.update({(fact.kind, fact.amount): fact for fact in implied(line.words)})
            for fact in facts(texts[line.chunk], line.words):
                alike = counts.get((fact.kind, fact.value, fact.unit, fact.date), 0)
                if alike >= MOST_ALIKE or (not alike and kinds.get(fact.kind, 0) >= MOST_FACTS):
                    continue
                counts[(fact.kind, fact.value, fact.unit, fact.date)] = alike + 1
                kinds[fact.kind] = kinds.get(fact.kind, 0) + (not alike)
                self.facts.append((number, fact))
        for key in self.postings:
            if len(key) >= SHARED_LETTERS and key[0] != "=":
                self.stems.setdefault(key[:SHARED_LETTERS], []).append(key)

    def _post(self, key: str, number: int, sign: int) -> None:
        posted = self.postings.setdefault(key, [])
        if not posted or posted[-1] != number:
            posted.append(number)
        self.said.setdefault(key, set()).add(sign)

    def like(self, key: str) -> str | None:
        """The key of the source that is `key` in another form, if there is one."""
        best, most = None, 0
        for other in self.stems.get(key[:SHARED_LETTERS], ()):
            shared = _shared(key, other)
            if shared >= SHARED_PART * max(len(key), len(other)) and shared > most:
                best, most = other, shared
        return best

    def loosely(self, group: str) -> tuple[str, ...]:
        """The words of a phrase of `group` that stand within a line of each other: "pain … when … urinate"; else nothing."""
        for phrase in lexicon().loose.get(group, ()):
            lines: set[int] | None = None
            for key in phrase:
                found = key if key in self.postings else self.like(key)
                posted = {line + step for line in self.postings.get(found or "", ()) for step in (0, 1)}
                lines = posted if lines is None else lines & posted
                if not lines:
                    break
            if lines:
                return tuple(key if key in self.postings else (self.like(key) or key) for key in phrase)
        return ()

    def has(self, said: Sequence[Word]) -> bool:
        """Whether these words stand in the source one after another; a few words may do so by chance and do not count."""
        return len(said) >= COPIED_WORDS and _plain(said) in self.plain

    def stands_for(self, key: str) -> bool:
        """Whether `key` is made of the first letters of words that follow each other: "ROM", "range of motion"."""
        return len(key) >= ABBREVIATED and key in self.initials

    def rarity(self, key: str) -> float:
        """Weight of a key by how few lines have it: 1 for a key in one line of a hundred, towards 0.2 for one in all."""
        count = len(self.postings.get(key, ()))
        total = len(self.lines)
        return 0.2 + 0.8 * math.log((total + 1) / (count + 0.5)) / math.log(2 * total + 2) if total else 1.0


def _plain(said: Sequence[Word]) -> str:
    return " " + "".join(word.low + " " for word in said if word.key)


def _speaker(said: Sequence[Word]) -> int:
    """How many words at the start name who speaks: "Doctor:", "Guest_family:"."""
    for place, word in enumerate(said[:5]):
        if word.low == ":":
            return place + 1
        if not word.key or (place and not (word.text[0].isupper() or said[place - 1].end + 1 >= word.start)):
            return 0
    return 0


def _is_spoken(speakers: Sequence[Counter[str]], lines: int) -> bool:
    """Whether those words, from the starts of each chunk's lines, are people who talk, and no headings ("Dose:", "Title:").
    Who is not known for a person speaks twice in a chunk."""
    talking = [each for each in speakers if not _PEOPLE.isdisjoint(each) or max(each.values(), default=0) > 1]
    return len(set().union(*talking)) >= SPEAKERS and sum(each.total() for each in talking) >= SPOKEN_PART * lines


def _asks(said: Sequence[Word]) -> bool:
    return said[-1].low == "?"


def _settle(asked: Sequence[Line], said: Sequence[Word]) -> None:
    """A reply settles what was asked: "no" denies it, "yes" leaves it as it was said, else it stays open."""
    reply = answer(said)
    for line in asked:
        presumed = presumes(line.words)
        if reply < 0 and not denies_itself(said) and not (presumed and said[0].low not in _NONE):
            line.polarity[:] = denied(line.words, line.polarity)
        elif not (reply > 0 or presumed):
            line.polarity[:] = [0] * len(line.polarity)


def _shared(one: str, other: str) -> int:
    count = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        count += 1
    return count
