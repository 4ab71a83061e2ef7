"""Made sentences with names, places, organisations and groups, for the name tagger.

    a template ─ slots filled from lists ─► text and spans ─ now and then lower case, capitals, cut, joined ─► a sample

The names come from the lists beside the tagger, mixed at random: nobody is meant. The templates are our own; those of
`presidio_templates.txt`, which the tagger is evaluated on, are not among them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Final

from tidegate.processors.guardrails.phi.ner_words import Lists

from .names_silver import Labelled
from .names_templates import COMPANIES, JOBS, PLAIN, TEMPLATES

_SLOT: Final = re.compile(r"\{(\w+)\}")
_COMMON_GIVEN: Final = """James John Robert Michael William David Richard Joseph Thomas Charles Mary Patricia Linda Barbara Elizabeth
Jennifer Maria Susan Margaret Dorothy Lisa Nancy Karen Betty Helen Sandra Donna Carol Ruth Sharon Michelle Laura Sarah Kimberly
Deborah Jessica Daniel Mark Paul Steven Andrew Kenneth George Joshua Kevin Brian Edward Ronald Anthony Emily Hannah Olivia Emma
Sophia Mia Noah Liam Lucas Ethan Jacob Rosa Carmen Jose Luis Carlos Ahmed Mohamed Fatima Wei Mei Priya Raj Olga Ivan Yuki""".split()  # noqa: SIM905
_PARTICLES: Final = (
    "van",
    "van der",
    "de",
    "de la",
    "von",
    "di",
    "da",
    "dos",
    "del",
    "bin",
    "al-",
    "Mac",
    "O'",
    "St. ",
    "le",
    "ter",
)
_STREET_SUFFIXES: Final = (
    "Street St St. Avenue Ave Ave. Road Rd Rd. Drive Dr Dr. Lane Ln Boulevard Blvd Blvd. Court Ct Place Pl Terrace Way Circle Parkway"
    " Pkwy Square Trail Crescent Close Highway Hwy Loop Alley Row Walk Grove Gardens Mews Plaza"
).split()
_STREET_WORDS: Final = (
    "Main Oak Elm Maple Cedar Pine Walnut Chestnut Washington Lincoln Park Lake Hill River Church High Station Mill Spring Sunset"
    " North South East West Highland Forest Meadow Valley Ridge View Victoria Queen King Bridge Green Market Broad Center Union"
    " Franklin Jefferson Madison Jackson Willow Birch Cherry Dogwood Magnolia Sycamore Prospect Pleasant Grand Court School College"
    " Railroad Front Water Liberty Cambridge Oxford Windsor Rosewood Brook Fox Deer Eagle Stone Gold Silver Diamond Harbor Bay"
).split()
_FOREIGN_STREETS: Final = (
    "{surname}straße {number}", "{word}strasse {number}", "{number} rue {surname}", "{number}, rue de {city}", "Via {person} {number}",
    "Via {surname}, {number}", "Calle {surname} {number}", "C/ {surname} {number}", "Calle de {city}, {number}", "Avenida {person} {number}",
    "Rua {person} {number}", "Rua {surname}, {number}", "{surname}gatan {number}", "{surname}vej {number}", "{surname}veien {number}",
    "{surname}straat {number}", "{surname}weg {number}", "ul. {surname} {number}", "{surname} utca {number}.", "{number} {surname} Marg",
    "Kirchweg {number}", "Hauptstrasse {number}", "{surname}allee {number}", "Piazza {surname} {number}", "{number} avenue {person}",
    "{number} boulevard {surname}", "Paseo {surname} {number}", "{number} chemin {surname}", "{surname}katu {number}", "{surname} {number}",
    "Plac {surname} {number}", "{surname}laan {number}", "{surname}gata {number}", "Rúa {surname} {number}", "{surname}ring {number}",
)  # fmt: skip
_ORGANIZATIONS: Final = (
    "{surname} {company}", "{surname} {company}", "{surname} and {surname}", "{surname} & {surname} {company}", "{surname}-{surname}",
    "{surname}, {surname} and {surname}", "{surname}, {surname} & {surname}", "{surname} Group", "{surname} and Sons", "{surname} Ltd",
    "{surname} Inc", "{surname} PLC", "{surname} LLC", "{surname} GmbH", "{city} {company}", "{city} General Hospital", "Bank of {city}",
    "{city} Medical Center", "St. {given}'s Hospital", "{surname} Memorial Hospital", "University of {city}", "{city} University",
    "{surname} University", "{city} Children's Hospital", "{word} {company}", "{word} {word} {company}", "{surname} Pharmacy",
    "{surname} Family Practice", "{city} Cancer Institute", "{surname} Clinic", "{city} High School", "{word}Tech", "{word} Health",
    "{surname} Insurance", "Department of {word}", "{city} Police Department", "{word} & {word}", "{surname} Foundation", "The {word} Company",
    "{surname} Bros", "{surname} Partners LLP", "{surname} Healthcare", "{city} Orthopedics", "{surname} Hospice", "{coined}", "{coined}",
    "{coined} {company}", "{coined} {company}", "{city} Symphony Orchestra", "{surname} Holdings", "Church of {given}",
)  # fmt: skip
_ORG_SUFFIXES: Final = (
    "Inc Inc. Corp Corporation Co. LLC Ltd Ltd. Group Holdings Partners Associates Systems Solutions Technologies Industries Enterprises"
    " Consulting Logistics Airlines Motors Foods Media Studios Records Insurance Capital Ventures Pharmaceuticals Labs Hospital Clinic"
    " Bank Institute Foundation University College School Academy PLC GmbH AG SA NV AB"
).split()
_SYLLABLES: Final = (
    "al an ar ax be bel bo bra ca cal cen co cor da del do dy el en er ex fa fi fo ga gen go hal he in ja ka ki la len lo lu ma mar me"
    " mi mo na ne no nu ob om on or pa pe pro qua ra re ri ro sa se si so sta sy ta te ti to tra tu ul un va ve vi vo xa ya ze zi zo"
).split()
_NATIONS: Final = (
    "American British German French Italian Spanish Japanese Chinese Korean Indian Mexican Brazilian Russian Polish".split()
)  # noqa: SIM905


class Maker:
    """Fills templates. The same seed makes the same sentences."""

    def __init__(self, lists: Lists, seed: int) -> None:
        self._random = random.Random(seed)
        self._given = sorted(name for name in lists.given if len(name) > 1)
        self._surnames = sorted(name for name in lists.surnames if len(name) > 1)
        self._cities, self._countries = lists.cities, lists.countries
        self._states, self._codes = lists.states, lists.codes
        self._groups = sorted(lists.groups)
        self._slots: dict[str, Callable[[], str]] = {
            "person": self.person,
            "given": self.given,
            "surname": self.surname,
            "last_first": self.last_first,
            "formal": self.formal,
            "initials": self.initials,
            "city": lambda: self._random.choice(self._cities),
            "country": lambda: self._random.choice(self._countries),
            "state": lambda: self._random.choice(self._states),
            "code": lambda: self._random.choice(self._codes),
            "place": lambda: self._random.choice((self._cities, self._cities, self._countries, self._states)[self._below(4)]),
            "street": self.street,
            "address": self.address,
            "street_name": self.street_name,
            "org": self.organization,
            "group": self.group,
            "title": lambda: self._random.choice(("Mr.", "Mrs.", "Ms.", "Dr.", "Mr", "Mrs", "Miss", "Ms", "Dr", "Prof.", "Herr", "Sra.")),
            "company": lambda: self._random.choice(_ORG_SUFFIXES),
            "word": lambda: self._random.choice(_STREET_WORDS),
            "coined": lambda: "".join(self._random.choices(_SYLLABLES, k=self._random.randint(2, 4))).capitalize(),
            "number": lambda: str(self._random.choice((self._random.randint(1, 99), self._random.randint(100, 99999)))),
            "zip": self.postcode,
            "phone": lambda: re.sub("#", lambda _: str(self._below(10)), self._random.choice(("(###) ###-####", "###-###-####", "+## ### ### ####", "0## ### ## ##"))),
            "email": lambda: f"{self.surname().lower().replace(' ', '')}{self._below(99)}@{self._random.choice(_SYLLABLES)}mail.com",
            "date": lambda: self._random.choice((f"{self._random.randint(1, 12)}/{self._random.randint(1, 28)}/{self._random.randint(1930, 2026)}", f"{self._random.randint(1950, 2025)}-0{self._random.randint(1, 9)}-1{self._below(10)}", f"{self._random.choice(('March', 'June', 'Oct', 'January'))} {self._random.randint(1, 28)}, {self._random.randint(1950, 2026)}")),
            "age": lambda: str(self._random.randint(1, 99)),
            "digits": lambda: "".join(str(self._below(10)) for _ in range(self._random.randint(5, 16))),
            "job": lambda: self._random.choice(JOBS),
            "year": lambda: str(self._random.randint(1900, 2026)),
        }  # fmt: skip

    def sample(self) -> Labelled:
        """One text: a template, or two, in whatever case people write."""
        kind = self._random.random()
        if kind < 0.08:
            made = Labelled(self._random.choice(PLAIN), [])
        elif kind < 0.78:
            made = self.fill(self._random.choice(TEMPLATES))
        else:
            made = _joined(
                self.fill(self._random.choice(TEMPLATES)), self.fill(self._random.choice((*TEMPLATES, *PLAIN))), self._random
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

    def _below(self, limit: int) -> int:
        return self._random.randrange(limit)

    def given(self) -> str:
        if self._random.random() < 0.15:
            return self._random.choice(_COMMON_GIVEN)
        return _capital(self._random.choice(self._given), self._random)

    def surname(self) -> str:
        name = _capital(self._random.choice(self._surnames), self._random)
        chance = self._random.random()
        if chance < 0.04:
            return f"{name}-{_capital(self._random.choice(self._surnames), self._random)}"
        if chance < 0.09:
            particle = self._random.choice(_PARTICLES)
            return particle + name if particle[-1] in "-' c" else f"{particle} {name}"
        if chance < 0.12:
            # A name that no list can know: made of syllables.
            return "".join(self._random.choices(_SYLLABLES, k=self._random.randint(2, 4))).capitalize()
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
            return self._random.choice(_NATIONS)
        return self._random.choice(self._groups).capitalize()

    def organization(self) -> str:
        if self._random.random() < 0.3:
            return self._random.choice(COMPANIES)
        return self.fill(self._random.choice(_ORGANIZATIONS)).text

    def street_name(self) -> str:
        first = self._random.choice((self.surname, self.given, self._slots["word"], self._slots["city"]))()
        chance = self._random.random()
        if chance < 0.1:
            first = f"{self._random.randint(1, 140)}{self._random.choice(('th', 'st', 'nd', 'rd'))}"
        elif chance < 0.25:
            first = f"{self._random.choice(('N', 'S.', 'West', 'Old', 'Upper', 'E'))} {first}"
        elif chance < 0.35:
            first = f"{first} {self._slots['word']()}"
        return f"{first} {self._random.choice(_STREET_SUFFIXES)}"

    def street(self) -> str:
        if self._random.random() < 0.3:
            return self.fill(self._random.choice(_FOREIGN_STREETS)).text
        return f"{self._slots['number']()} {self.street_name()}"

    def postcode(self) -> str:
        form = self._random.choice(
            (
                "#####",
                "#####",
                "#####-####",
                "@@# #@@",
                "@# #@@",
                "@#@ #@#",
                "####",
                "#### @@",
                "###-####",
                "## ###",
                "#####-###",
            )
        )
        return re.sub("[#@]", lambda sign: str(self._below(10)) if sign[0] == "#" else chr(65 + self._below(26)), form)

    def address(self) -> str:
        street, city, zip_code = self.street(), self._slots["city"](), self.postcode()
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
    if which < 0.26:
        letters = list(made.text)
        change = str.lower if chance.random() < 0.5 else str.upper
        for start, end, kind in made.spans:
            if kind != "MASK":
                letters[start:end] = [_one(change, letter) for letter in letters[start:end]]
        return Labelled("".join(letters), made.spans)
    return made


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
