"""Named marks of toxicity: counted words of a lexicon, and what they are aimed at.

Some fifty numbers that mean the same in a tweet, a comment and an answer, so that a head learns less of its sources.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import math
import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Final, NamedTuple

WORDS: Final = "toxic_words.txt"
AIMS: Final = "toxic_aims.txt"
SLANDER: Final = "bias_words.txt"
KINDS: Final = (
    "obscene",
    "mild",
    "sexual",
    "insult",
    "slur",
    "slight",
    "identity",
    "harm",
    "hate",
    "kind",
    "scorn",
    "courteous",
)
# "f***" has no letter at its end; what is in bold has stars before it, too. And "b!tch" is one word.
_TOKEN: Final = re.compile(
    r"(?<![\w*])[^\W\d_]{1,3}\*{2,}(?![\w*])|(?<!\w)[^\W\d_]{1,2}![^\W\d_]{1,5}(?!\w)|[^\W\d_]+(?:['*#@$%]+[^\W\d_]+)*"
)
_LONGEST: Final = 16  # no word of the lexicon is longer
_STARRED: Final = re.compile(r"[*#@$%!]")

# VILE stands for a word of obscene, sexual, insult or slur, GROUP for identity; the others are their kind in capitals.
_CODED: Final = re.compile("VILE|SLIGHT|SCORN|GROUP|HARM|HATE")
_OFFENSIVE: Final = ("obscene", "sexual", "insult", "slur", "slight", "scorn")
# What somebody does to somebody: the same words are harmless elsewhere ("killed in action", "you are right").
# In the order of `MARKS`; their expressions are in toxic_aims.txt.
_AIMED: Final = (
    "you_are",
    "you_slight",
    "they_are",
    "to_you",
    "vile_group",
    "harm_vile",
    "kill_you",
    "die",
    "shut_up",
    "you",
    "hate_group",
    "all_group",
    "supremacy",
    "threat",
    "slander",
    "contempt",
    "menace",
    "scornful",
    "civil",
    "clinical",
    "reported",
    "of_self",
)
_HARMLESS: Final = frozenset({"you", "civil", "clinical", "reported", "of_self"})
MARKS: Final = (
    *(kind for kind in KINDS if kind != "identity"),  # who is spoken of is no mark against a text
    *(f"{kind}_share" for kind in KINDS[:6]),
    *_AIMED,
    "shouting",
    "bangs",
    "any_offence",
    "two_vile",
)


class Marks(NamedTuple):
    """The numbers of one text, in the order of `MARKS`, and how often each kind of word was there. `neutral` is the text
    without the names of groups, so that n-grams cannot learn which of them are spoken ill of."""

    values: list[float]
    counts: Mapping[str, int]
    aimed: frozenset[str]
    neutral: str

    @property
    def offends(self) -> bool:
        """Whether anything in the text may hurt, however harmless it turns out to be."""
        return any(self.counts[kind] for kind in _OFFENSIVE) or not self.aimed <= _HARMLESS


def marks(plain: str, original: str) -> Marks:
    """Of an unmasked text; the original is only asked whether it shouts."""
    counts = dict.fromkeys(KINDS, 0)
    tokens = _TOKEN.findall(plain)
    coded = []
    for token in tokens:
        kind = kind_of(token)
        if kind is not None:
            counts[kind] += 1
        coded.append(_CODE.get(kind or "", token))
    said, meant = " ".join(tokens), " ".join(coded)
    aimed = frozenset(
        name for name, pattern in _compiled().items() if pattern.search(meant if _CODED.search(pattern.pattern) else said)
    )
    grouped = " ".join("GROUP" if code == "GROUP" else token for token, code in zip(tokens, coded, strict=True))
    slander, denial = _slander()
    if "GROUP" in grouped and slander.search(grouped) and not denial.search(said):
        aimed |= {"slander"}
    vile = counts["obscene"] + counts["sexual"] + counts["insult"] + counts["slur"]
    letters = sum(map(str.isalpha, original)) or 1
    shouting = sum(map(str.isupper, original)) / letters
    size = max(len(tokens), 1)
    values = [math.log1p(counts[kind]) for kind in KINDS if kind != "identity"]
    values += [min(1.0, 4 * counts[kind] / (size + 4)) for kind in KINDS[:6]]
    values += [float(name in aimed) for name in _AIMED]
    values += [
        float(shouting > 0.5 and letters > 12),
        min(1.0, original.count("!") / 5),
        float(vile > 0 or bool(aimed & {"threat", "menace", "die", "slander", "supremacy"})),
        float(vile > 1),
    ]
    neutral = " ".join(token for token, code in zip(tokens, coded, strict=True) if code != "GROUP")
    return Marks(values, counts, aimed, neutral)


def kind_of(token: str) -> str | None:
    """The kind of a folded word, or None. A word with a star in it is what it can only be read as."""
    words, endings = _lexicon()
    found = words.get(token)
    if found is not None:
        return found
    for size in range(min(len(token), _LONGEST), 2, -1):
        found = endings.get(token[:size])
        if found is not None:
            return found
    if _STARRED.search(token):
        return _starred(token)
    return None


_CODE: Final = {
    "obscene": "VILE",
    "sexual": "VILE",
    "insult": "VILE",
    "slur": "VILE",
    "identity": "GROUP",
    "harm": "HARM",
    "hate": "HATE",
    "slight": "SLIGHT",
    "scorn": "SCORN",
}


@cache
def digest() -> str:
    """SHA-256 of the words and expressions: marks change with them."""
    folder = importlib.resources.files(__package__)
    return hashlib.sha256(b"".join(folder.joinpath(name).read_bytes() for name in (WORDS, AIMS, SLANDER))).hexdigest()


@lru_cache(maxsize=4_096)
def _starred(token: str) -> str | None:
    if len(token) > 24:
        return None
    pattern = re.compile("".join("[a-z]" if _STARRED.match(each) else re.escape(each) for each in token))
    words, endings = _lexicon()
    for kind in ("obscene", "slur"):
        for known in (words, endings):
            if any(found == kind and pattern.fullmatch(word) for word, found in known.items()):
                return kind
    return None


@cache
def _compiled() -> Mapping[str, re.Pattern[str]]:
    return {name: re.compile("|".join(lines)) for name, lines in sections(AIMS)}


@cache
def _slander() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What is said of people for the group they are of, and the words of those who deny it."""
    read = dict(sections(SLANDER))
    return re.compile("|".join(f"(?:{line})" for line in read["slander"])), re.compile(read["denial"][0])


@cache
def _lexicon() -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Word → kind, and beginning of a word → kind. A word stands under the first kind that names it."""
    words: dict[str, str] = {}
    endings: dict[str, str] = {}
    for kind, lines in sections(WORDS):
        for word in " ".join(lines).split():
            (endings if word.endswith("*") else words).setdefault(word.rstrip("*"), kind)
    return words, endings


def sections(name: str) -> Iterator[tuple[str, list[str]]]:
    """The lines under each `[title]` of a file of this package."""
    text = importlib.resources.files(__package__).joinpath(name).read_text("utf-8")
    title = ""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("["):
            if title:
                yield title, lines
            title, lines = line.strip("[]"), []
        elif line and not line.startswith("#"):
            lines.append(line)
    yield title, lines
