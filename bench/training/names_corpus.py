"""Made sentences with names, places, organisations and groups, for the name tagger.

    a template ─ slots filled from lists ─► text and spans ─ now and then lower case, capitals, joined ─► a sample

The names come from the lists beside the tagger, mixed at random: nobody is meant. The sentences are our own, in
names_corpus.txt; those of `presidio_templates.txt`, which the tagger is evaluated on, are not among them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from tidegate.processors.guardrails.phi.ner_words import Lists

from .names_silver import Labelled

# Slots that any entry of a section fills.
_SECTIONS: Final = {
    "title": "title",
    "form": "legal form",
    "family": "family",
    "trade": "trade",
    "adjective": "adjective",
    "company": "company suffix",
    "word": "street word",
    "job": "job",
}
_SLOT: Final = re.compile(r"\{(\w+)\}")
_PARTS: Final = Path(__file__).parent / "names_corpus.txt"


def read_parts(path: Path = _PARTS) -> dict[str, list[str]]:
    """Section → its entries: sentences with slots, kinds of organisations and streets, and what they are made of."""
    parts: dict[str, list[str]] = {}
    into: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("[") and line.endswith("]"):
            into = parts.setdefault(line[1:-1], [])
        elif line and not line.startswith("#"):
            into.append(line.replace("\\n", "\n").replace("\\t", "\t"))
    return parts


class Maker:
    """Fills templates. The same seed makes the same sentences."""

    def __init__(self, lists: Lists, seed: int) -> None:
        self._random = random.Random(seed)
        self._parts = read_parts()
        self._given = sorted(name for name in lists.given if len(name) > 1)
        self._surnames = sorted(name for name in lists.surnames if len(name) > 1)
        self._cities, self._countries = lists.cities, lists.countries
        self._states, self._codes = lists.states, lists.codes
        self._groups = sorted(lists.groups)
        self._drugs, self._clinical = sorted(lists.words["drug"]), sorted(lists.words["clinical"])
        self._slots: dict[str, Callable[[], str]] = {
            "person": self.person,
            "given": self.given,
            "surname": self.surname,
            "last_first": self.last_first,
            "formal": self.formal,
            "initials": self.initials,
            "city": self.city,
            "country": lambda: self._random.choice(self._countries),
            "state": lambda: self._random.choice(self._states),
            "code": lambda: self._random.choice(self._codes),
            "place": lambda: (self.city, self.city, self._slots["country"], self._slots["state"])[self._below(4)](),
            "medical": lambda: self._any("medical beginning") + self._any("medical ending"),
            "drug": lambda: self._random.choice((str, str.capitalize))(self._random.choice(self._drugs)),
            "eponym": lambda: self._random.choice(self._clinical).capitalize(),
            "mark": lambda: self._shaped(self._any("mark")),
            "letter": lambda: self._shaped("@"),
            "letters": lambda: self._shaped(self._random.choice(("@@", "@@@", "@@@@"))),
            "street": self.street,
            "address": self.address,
            "street_name": self.street_name,
            "org": self.organization,
            "group": self.group,
            "coined": self.coined,
            "number": lambda: str(self._random.choice((self._random.randint(1, 99), self._random.randint(100, 99999)))),
            "zip": self.postcode,
            "phone": lambda: self._shaped(self._any("telephone")),
            "email": lambda: f"{self.surname().lower().replace(' ', '')}{self._below(99)}@{self._any('syllable')}mail.com",
            "date": lambda: self._shaped(self._any("date")),
            "age": lambda: str(self._random.randint(1, 99)),
            "digits": lambda: self._shaped("%" * self._random.randint(5, 16)),
            "year": lambda: str(self._random.randint(1900, 2026)),
        }
        for slot, section in _SECTIONS.items():
            self._slots[slot] = partial(self._any, section)

    def sample(self) -> Labelled:
        """One text: a template, or two, in whatever case people write."""
        kind = self._random.random()
        if kind < 0.08:
            made = self.fill(self._any("plain"))
        elif kind < 0.78:
            made = self.fill(self._any("sentence"))
        else:
            made = _joined(
                self.fill(self._any("sentence")),
                self.fill(self._random.choice((*self._parts["sentence"], *self._parts["plain"]))),
                self._random,
            )
        return cased(made, self._random)

    def fill(self, template: str) -> Labelled:
        """The template with its slots filled; a slot that names something is a span."""
        parts: list[str] = []
        spans: list[tuple[int, int, str]] = []
        length = at = 0
        for slot in _SLOT.finditer(template):
            parts.append(template[at : slot.start()])
            length += len(parts[-1])
            value = self._slots[slot[1]]()
            if (kind := _KINDS.get(slot[1])) is not None:
                spans.append((length, length + len(value), kind))
            parts.append(value)
            length += len(value)
            at = slot.end()
        parts.append(template[at:])
        return Labelled("".join(parts), spans)

    def like(self, kind: str, words: int) -> str:
        """Another name of a kind, of about so many words: to stand in a real sentence in place of the one that is there."""
        if kind == "PERSON":
            return self._random.choice((self.given, self.surname))() if words == 1 else self.person()
        if kind == "LOCATION":
            return self._slots["place"]()
        if kind == "NRP":
            return self.group()
        return self.organization()

    def _any(self, section: str) -> str:
        return self._random.choice(self._parts[section])

    def _shaped(self, form: str) -> str:
        """The form with a digit for each "%" and a capital for each "@"."""
        return re.sub("[%@]", lambda sign: str(self._below(10)) if sign[0] == "%" else chr(65 + self._below(26)), form)

    def coined(self) -> str:
        """A name that no list can know, made of syllables."""
        return "".join(self._random.choices(self._parts["syllable"], k=self._random.randint(2, 4))).capitalize()

    def _below(self, limit: int) -> int:
        return self._random.randrange(limit)

    def given(self) -> str:
        if self._random.random() < 0.15:
            return self._any("given name")
        return _capital(self._random.choice(self._given), self._random)

    def surname(self) -> str:
        name = _capital(self._random.choice(self._surnames), self._random)
        chance = self._random.random()
        if chance < 0.04:
            return f"{name}-{_capital(self._random.choice(self._surnames), self._random)}"
        if chance < 0.09:
            particle = self._any("particle")
            return particle + name if particle[-1] in "-' c" else f"{particle} {name}"
        if chance < 0.12:
            return self.coined()
        return name

    def person(self) -> str:
        given, surname, chance = self.given(), self.surname(), self._random.random()
        if chance < 0.62:
            return f"{given} {surname}"
        letter = chr(65 + self._below(26))
        forms = (
            f"{given} {letter}. {surname}",
            f"{given} {letter} {surname}",
            f"{letter}. {surname}",
            f"{given[0]}. {letter}. {surname}",
            f"{given[0]}.{letter}. {surname}",
            f"{given} {self.given()} {surname}",
            f"{given} {surname} {self.surname()}",
            f"{given} {surname}, Jr.",
            f"{given} {surname} III",
            f"{surname} {given}",
            f"{given}-{self.given()} {surname}",
            given,
            surname,
        )
        return self._random.choice(forms)

    def last_first(self) -> str:
        given, surname, letter = self.given(), self.surname(), chr(65 + self._below(26))
        form = self._random.choice(
            (f"{surname}, {given}", f"{surname}, {given} {letter}.", f"{surname}, {given} {letter}", f"{surname}, {letter}.")
        )
        return form.upper() if self._random.random() < 0.5 else form

    def formal(self) -> str:
        return self._random.choice((self.surname, self.surname, self.person))()

    def initials(self) -> str:
        letters = [chr(65 + self._below(26)) for _ in range(self._random.randint(2, 3))]
        return self._random.choice(("".join(f"{letter}." for letter in letters), f"{letters[0]}. {letters[1]}."))

    def group(self) -> str:
        if self._random.random() < 0.3:
            return self._any("nation")
        return self._random.choice(self._groups).capitalize()

    def organization(self) -> str:
        if self._random.random() < 0.3:
            return self._any("company")
        return self.fill(self._any("organization")).text

    def city(self) -> str:
        chance = self._random.random()
        if chance < 0.72:
            return self._random.choice(self._cities)
        name = _capital(self._random.choice((self._given, self._surnames)[self._below(2)]), self._random)
        if chance < 0.80:
            return f"{self._any('town beginning')} {name}"
        if chance < 0.88:
            return name.replace(" ", "") + self._any("town ending")
        if chance < 0.92:
            return name + self._any("town tail").replace("_", " ")
        return name if chance < 0.94 else self.coined()

    def street_name(self) -> str:
        first = self._random.choice((self.surname, self.given, self._slots["word"], self._slots["city"]))()
        chance = self._random.random()
        if chance < 0.1:
            first = f"{self._random.randint(1, 140)}{self._random.choice(('th', 'st', 'nd', 'rd'))}"
        elif chance < 0.25:
            first = f"{self._random.choice(('N', 'S.', 'West', 'Old', 'Upper', 'E'))} {first}"
        elif chance < 0.35:
            first = f"{first} {self._slots['word']()}"
        return f"{first} {self._any('street suffix')}"

    def street(self) -> str:
        if self._random.random() < 0.3:
            return self.fill(self._any("foreign street")).text
        return f"{self._slots['number']()} {self.street_name()}"

    def postcode(self) -> str:
        return self._shaped(self._any("postal code"))

    def address(self) -> str:
        street, city, zip_code = self.street(), self.city(), self.postcode()
        if self._random.random() < 0.3:
            unit = self._random.choice(("Apt.", "Apt", "Suite", "Unit", "#", "Floor", "PO Box", "Room", "Flat"))
            number = f"{self._random.randint(1, 999)}{self._random.choice(('', '', 'A', 'B'))}"
            street = f"{street}{self._random.choice((', ', ' ', chr(10)))}{unit}{'' if unit == '#' else ' '}{number}"
        elif self._random.random() < 0.05:
            street = f"P.O. Box {self._random.randint(1, 9999)}"
        forms = (
            f"{street}, {city}, {self._slots['code']()} {zip_code}",
            f"{street}, {city}, {self._slots['state']()} {zip_code}",
            f"{street}\n{city}, {self._slots['code']()} {zip_code}",
            f"{street} {city} {self._slots['code']()} {zip_code}",
            f"{street}\n{city}\n{self._slots['country']()} {zip_code}",
            f"{street}, {zip_code} {city}",
            f"{street}\n{zip_code} {city}",
            f"{street}, {zip_code} {city}, {self._slots['country']()}",
            f"{street}, {city} {zip_code}, {self._slots['country']()}",
            f"{street}, {city}",
            f"{street}\n {city}\n {self._slots['country']()}",
            f"{street}\n{city}\n{zip_code}",
            f"{street} {zip_code} {city.upper()}",
            f"{street}\n{city}, {self._any('region')}, {zip_code}",
            f"{street}\n{zip_code}, {city} ({self._any('region')})",
            f"{street}\n{city}, {self._any('region')} {zip_code}",
            f"{street}\n{city}, {zip_code}",
            f"{street}, {city} {zip_code}",
            f"{street}, {city}, {zip_code}",
            f"{street}\n {zip_code} {city}",
            f"{street}, {city}, {self._any('region')}",
        )
        return self._random.choice(forms)


_KINDS: Final = {
    "person": "PERSON",
    "given": "PERSON",
    "surname": "PERSON",
    "last_first": "PERSON",
    "formal": "PERSON",
    "initials": "PERSON",
    "city": "LOCATION",
    "country": "LOCATION",
    "state": "LOCATION",
    "place": "LOCATION",
    "street": "LOCATION",
    "address": "LOCATION",
    "street_name": "LOCATION",
    "org": "ORGANIZATION",
    "group": "NRP",
}


def swapped(found: Labelled, maker: Maker, chance: random.Random) -> Labelled:
    """A real sentence with other names in it: what stands around a name stays, the name is one more."""
    parts: list[str] = []
    spans: list[tuple[int, int, str]] = []
    length = at = 0
    for start, end, kind in sorted(found.spans):
        parts.append(found.text[at:start])
        length += len(parts[-1])
        value = found.text[start:end]
        if kind != "MASK" and chance.random() < 0.6:
            value = maker.like(kind, len(value.split()))
        spans.append((length, length + len(value), kind))
        parts.append(value)
        length += len(value)
        at = end
    parts.append(found.text[at:])
    return Labelled("".join(parts), spans)


def cased(made: Labelled, chance: random.Random) -> Labelled:
    """Now and then lower case or capitals, of the whole or of its names; lengths stay."""
    which = chance.random()
    if which < 0.10:
        return _mapped(made, str.lower)
    if which < 0.16:
        return _mapped(made, str.upper)
    if which < 0.21:
        return _headline(made, chance)
    if which < 0.30:
        letters = list(made.text)
        change = str.lower if chance.random() < 0.5 else str.upper
        for start, end, kind in made.spans:
            if kind != "MASK":
                letters[start:end] = [_one(change, letter) for letter in letters[start:end]]
        return Labelled("".join(letters), made.spans)
    return made


def _headline(made: Labelled, chance: random.Random) -> Labelled:
    """Some words with a capital that name nothing, as in a heading."""
    share = chance.choice((0.1, 0.3, 1.0))
    letters = list(made.text)
    named = {at for start, end, _ in made.spans for at in range(start, end)}
    for word in re.finditer(r"[a-z]{3,}", made.text):
        if (
            word.start() not in named
            and chance.random() < share
            and (word.start() == 0 or not made.text[word.start() - 1].isalpha())
        ):
            letters[word.start()] = letters[word.start()].upper()
    return Labelled("".join(letters), made.spans)


def _mapped(made: Labelled, change: Callable[[str], str]) -> Labelled:
    return Labelled("".join(_one(change, letter) for letter in made.text), made.spans)


def _one(change: Callable[[str], str], letter: str) -> str:
    changed = change(letter)
    return changed if len(changed) == 1 else letter  # ß and its like would move what follows


def _joined(first: Labelled, second: Labelled, chance: random.Random) -> Labelled:
    between = chance.choice((" ", "\n", "  ", ". ", "\n\n"))
    moved = len(first.text) + len(between)
    return Labelled(
        first.text + between + second.text, [*first.spans, *((s + moved, e + moved, k) for s, e, k in second.spans)]
    )


def _capital(name: str, chance: random.Random) -> str:
    """As names are written: `o'brien` → `O'Brien`, `mcdonald` → `McDonald` as often as not."""
    written = re.sub(r"(^|[\s'’-])(\w)", lambda found: found[1] + found[2].upper(), name)
    if written.startswith("Mc") and len(written) > 4 and chance.random() < 0.7:
        written = f"Mc{written[2:].capitalize()}"
    return written


def corpus(maker: Maker, silver: Sequence[Labelled], made: int, chance: random.Random) -> list[Labelled]:
    """One epoch: every real text, its names swapped, and so many made ones, shuffled."""
    found = [cased(swapped(each, maker, chance), chance) for each in silver]
    found += [maker.sample() for _ in range(made)]
    chance.shuffle(found)
    return found
