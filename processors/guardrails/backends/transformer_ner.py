"""Names by a transformer that labels tokens, in place of the small spaCy model: any token classifier in a folder.

Its labels become Presidio's names, whether they are of CoNLL (PER, LOC, ORG), OntoNotes (GPE, NORP) or of i2b2's notes
(PATIENT, STAFF, HOSP). What a pattern with a check digit finds better (PHONE, EMAIL, ID) is left to the patterns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ..phi.ner import NameFinder, Span, united
from .folder import ModelFolder, ModelUnavailable, complete, find, longest, opening

TYPES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("PER", "PERSON", "NAME", "PATIENT", "STAFF", "DOCTOR", "HCW", "USERNAME", "VENDOR"), "PERSON"),
    **dict.fromkeys(("FIRSTNAME", "LASTNAME", "GIVENNAME", "SURNAME", "FIRST_NAME", "LAST_NAME"), "PERSON"),
    **dict.fromkeys(("LOC", "LOCATION", "GPE", "FAC", "CITY", "STATE", "COUNTRY", "STREET", "ADDRESS"), "LOCATION"),
    **dict.fromkeys(("ORG", "ORGANIZATION", "HOSP", "HOSPITAL", "PATORG", "CORP", "COMPANY"), "ORGANIZATION"),
    **dict.fromkeys(("NORP", "NRP"), "NRP"),
    **dict.fromkeys(("DATE", "DATE_TIME", "DATETIME"), "DATE_TIME"),
}
BATCH: Final = 16
# Tokens that windows of a long text share: a name is whole in one of them.
SHARED_TOKENS: Final = 32
# Below it, what a token classifier says of a span is a guess.
LEAST_SCORE: Final = 0.5


class TransformerNer:
    """Finds names as `NameFinder` does."""

    def __init__(self, pipeline: Any, folder: ModelFolder) -> None:
        self._pipeline = pipeline
        self._folder = folder
        self.version = folder.version("transformers")

    @classmethod
    def load(cls, asked: str) -> TransformerNer:
        """`asked`: a folder, or a name in the hub's cache. Raises `ModelUnavailable`."""
        folder = find(asked)
        with opening(asked):
            from transformers import AutoConfig, AutoModelForTokenClassification, AutoTokenizer, pipeline

            config = AutoConfig.from_pretrained(folder.path, local_files_only=True, trust_remote_code=False)
            if not any(_type(label) for label in config.id2label.values()):
                raise ModelUnavailable(f"{asked} has no label of a person, place or organisation; see id2label in config.json")
            tokenizer = AutoTokenizer.from_pretrained(folder.path, local_files_only=True, trust_remote_code=False)
            if not tokenizer.is_fast:
                raise ModelUnavailable(f"{asked} has no tokenizer that tells where its tokens stand (tokenizer.json)")
            tokenizer.model_max_length = longest(tokenizer, config)
            model, loading = AutoModelForTokenClassification.from_pretrained(
                folder.path,
                config=config,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
            complete(loading, asked)
            model.eval()
            # A word has the label of its first token, or "Rosalind" would be half a person.
            found = cls(
                pipeline(
                    "token-classification",
                    model=model,
                    tokenizer=tokenizer,
                    aggregation_strategy="first",
                    stride=min(SHARED_TOKENS, tokenizer.model_max_length // 4),
                    device="cpu",
                ),
                folder,
            )
            found.find(["a text that shows whether it works at all"])
            return found

    def describe(self) -> Mapping[str, Any]:
        return self._folder.describe("transformers")

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """The spans of each text, in order of their place; spans of one type do not overlap."""
        asked = [place for place, text in enumerate(texts) if text.strip()]
        # Texts of about one length come together, for padding costs.
        asked.sort(key=lambda place: len(texts[place]))
        spans: list[list[Span]] = [[] for _ in texts]
        if asked:
            answers = self._pipeline([texts[place] for place in asked], batch_size=BATCH)
            for place, entities in zip(asked, answers, strict=True):
                spans[place] = _spans(texts[place], entities)
        return spans


class BesideOwn:
    """A transformer's names first, and beside them what our own finder sees: forms such as "MARTINEZ, ROSA" are in no corpus
    that such a model was trained on, and a name that is missed costs more than one too many."""

    def __init__(self, transformer: TransformerNer, own: NameFinder) -> None:
        self._transformer = transformer
        self._own = own
        self.version = f"{transformer.version}-{own.version}"

    def describe(self) -> Mapping[str, Any]:
        return self._transformer.describe()

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """The spans of each text, in order of their place, none overlapping: where both see something, it reaches as far as
        either says, and is what the transformer says if that saw half of it."""
        both = zip(self._transformer.find(texts), self._own.find(texts), strict=True)
        return [[_named(span, first) for span in united([*first, *own])] for first, own in both]


def _named(span: Span, first: Sequence[Span]) -> Span:
    """The span by the type of the longest of `first` in it, where that is half of it or more."""
    inside = (one for one in first if span.start <= one.start and one.end <= span.end)
    longest = max(inside, key=lambda one: one.end - one.start, default=None)
    if longest is None or 2 * (longest.end - longest.start) < span.end - span.start:
        return span
    return span._replace(type=longest.type)


def _spans(text: str, entities: Sequence[Mapping[str, Any]]) -> list[Span]:
    found: list[Span] = []
    for entity in sorted(entities, key=lambda entity: (int(entity["start"]), -int(entity["end"]))):
        kind = _type(str(entity["entity_group"]))
        score = min(1.0, float(entity["score"]))
        start, end = int(entity["start"]), int(entity["end"])
        covered = text[start:end]
        start += len(covered) - len(covered.lstrip())
        end = start + len(covered.strip())
        if kind is None or score < LEAST_SCORE or not any(map(str.isalnum, text[start:end])):
            continue
        last = next((place for place in reversed(range(len(found))) if found[place].type == kind), None)
        if last is not None and start < found[last].end:
            continue
        if last is not None and kind == "PERSON" and not text[found[last].end : start].strip(" \t"):
            # Given name and surname, labelled one by one.
            found[last] = found[last]._replace(end=end, score=max(score, found[last].score))
            continue
        found.append(Span(start, end, kind, score))
    return found


def _type(label: str) -> str | None:
    bare = label.upper()
    for tag in ("B-", "I-", "E-", "S-", "L-", "U-"):
        bare = bare.removeprefix(tag)
    return TYPES.get(bare)
