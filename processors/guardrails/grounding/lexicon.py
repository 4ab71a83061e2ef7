"""The words grounding knows: which mean the same, what is a drug or a condition, and which say nothing by themselves.

`lexicon.txt` is read once a process. It helps a paraphrase ("gallbladder out" for "cholecystectomy") to be recognised; a word
that it does not know is compared by its letters and, with an encoder, by its vector.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

from .reading import Word, key_of, listed, words

FILE: Final = Path(__file__).with_name("lexicon.txt")
COMMON_FILE: Final = Path(__file__).with_name("common.txt")

# Stems that name a kind of drug, from the list of international non-proprietary names; long enough not to end other words.
_DRUG: Final = re.compile(
    r"[a-z]{3,}(?:pril|sartan|olol|statin|conazole|cillin|mycin|floxacin|dipine|gliptin|gliflozin|glutide|parin|xaban|tidine"
    r"|prazole|setron|triptan|azepam|azolam|barbital|caine|lukast|oxetine|cycline|zosin|fenac|coxib|dronate|tinib|zumab|ximab)\Z"
)

# Words that carry no claim of their own.
_EMPTY: Final = frozenset(
    listed("""a an the and or but nor so yet if then than that this these those there here it its they them their theirs we us
    our you your yours i me my mine he him his she her hers who whom whose which what when where why how all any both each few
    more most other others some such only own same too very just also again once ever even still already is am are was were be
    been being do does did doing done have has had having will would shall should can could may might must ought of at by for
    with about against between into through during above below to from up down in out on off over under further as until while
    because since upon within without toward towards among across along around near via per no not never none neither cannot n't
    dont doesnt didnt isnt wasnt havent hasnt hadnt wont wouldnt cant couldnt i'm i've i'd i'll you're you've he's she's it's
    that's we're we've they're they've there's what's let's don't doesn't didn't isn't aren't wasn't weren't haven't hasn't
    hadn't won't wouldn't can't couldn't shouldn't get gets got getting gotten go goes going went gone come comes came coming
    make makes made making take takes took taking taken say says said saying tell tells told see sees saw seen know knows knew
    known think thought like well really quite rather much many lot lots bit kind sort thing things something anything nothing
    everything someone anyone one's yes yeah yep ok okay um uh oh hmm right sure please thank thanks hello hi hey etc eg ie vs
    mr mrs ms miss mister sir ma'am another either whether however therefore thus though although unless else instead anyway
    maybe perhaps us use used using uses give given gives gave put let keep kept seem seems seemed become becomes became
    able""")
)
# What reports are written in: not in a conversation, and no claim about it.
_FRAME: Final = frozenset(
    listed("""patient patients pt report reports reported reporting state states stated stating deny denies denied denying note
    notes noted notable present presents presented presenting presentation history hx past present medical significant
    significantly complaint complaints complain complains complained include includes including included indicate indicates
    indicated mention mentions mentioned describe describes described review reviewed otherwise positive negative regarding
    related current currently recent recently time times today day date summary visit follow following followed status post
    secondary due associated assessment plan year years old aged age male female gentleman lady man woman individual person
    subject doctor physician provider clinician discussed discussion advised approximately remarkable unremarkable
    noncontributory contributory unknown reviewed evaluation evaluate symptom symptoms condition conditions problem problems
    issue issues experience experiences experienced experiencing feel feels felt feeling find finds found ask asked answer
    response question context passage according document text information based provide provides provided conclude overall
    additionally furthermore moreover first second third last next previous prior several various multiple certain particular
    general generally occur occurs occurred occurring develop develops developed continue continues continued remain remains
    remained deliver dialogue conversation encounter""")
)

EMPTY_KEYS: Final = frozenset(key_of(word) for word in _EMPTY) | {"i", "s", "t"}
FRAME_KEYS: Final = frozenset(key_of(word) for word in _FRAME)


@dataclass(slots=True)
class Lexicon:
    """Groups of words that mean the same, by their keys."""

    # First key of a phrase → its keys and its group, longest first.
    phrases: dict[str, list[tuple[tuple[str, ...], str]]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)  # group → drug, condition, procedure, part, relative or same
    names: dict[str, list[str]] = field(default_factory=dict)  # group → its alternatives
    # Group → the words of each of its phrases that say something, where there are several.
    loose: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)

    def read(self, line: str, kind: str) -> None:
        names = [name.strip() for name in line.split(",")]
        group = "=" + names[0]
        self.kinds.setdefault(group, kind)
        self.names.setdefault(group, []).extend(names)
        for name in names:
            keys = tuple(word.key for word in words(name.lower()) if word.key)
            self.phrases.setdefault(keys[0], []).append((keys, group))
            telling = tuple(key for key in keys if key not in EMPTY_KEYS)
            if len(telling) > 1:
                self.loose.setdefault(group, []).append(telling)

    def groups(self, read: Sequence[Word]) -> list[tuple[int, int, str]]:
        """(first word, last word, group) of every phrase in `read`; of those that begin at one word, the longest."""
        keys = [word.key for word in read]
        found: list[tuple[int, int, str]] = []
        at = 0
        while at < len(keys):
            step = 1
            for phrase, group in self.phrases.get(keys[at], ()):
                if tuple(keys[at : at + len(phrase)]) == phrase:
                    if step > 1 and len(phrase) < step:
                        break
                    found.append((at, at + len(phrase) - 1, group))
                    step = max(step, len(phrase))
            at += step
        return found


@cache
def lexicon() -> Lexicon:
    """The shipped lexicon."""
    return read_lexicon(FILE.read_text("utf-8").splitlines())


def read_lexicon(lines: Iterable[str]) -> Lexicon:
    """A lexicon of such lines as `lexicon.txt` has."""
    loaded = Lexicon()
    kind = "same"
    for line in lines:
        if line.startswith("["):
            kind = line.strip("[] ")
        elif line and not line.startswith("#"):
            loaded.read(line, kind)
    for alternatives in loaded.phrases.values():
        alternatives.sort(key=lambda each: -len(each[0]))
    return loaded


@cache
def commonness() -> dict[str, float]:
    """Key → how common the word is: 1 for the commonest, towards 0 for the rarest of the list."""
    found: dict[str, float] = {}
    for line in COMMON_FILE.read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            key, count = line.split()
            found[key] = min(1.0, math.log(int(count) / 4) / math.log(100))
    return found


def is_drug(low: str) -> bool:
    """Whether a lower-case word has the stem of a drug's name."""
    return _DRUG.match(low) is not None
