"""What the name tagger sees of a word: the word, its letters, its shape, and the lists it stands in.

All of it depends on the word alone, so that a word met again costs one look into a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final
from zlib import crc32

import numpy as np
import regex
from numpy.typing import NDArray

_HERE: Final = Path(__file__).parent

# A piece is a word, a number, one sign or white space; blanks before it belong to it, so that the pieces of a text are the text.
_PIECES: Final = regex.compile(r"[ \t]*(?:['’]s\b|[^\W\d_]+(?:['’](?!s\b)[^\W\d_]+)*|\d+|[^\w\s]|_)|\s+|.", regex.DOTALL)

SHAPES: Final = 512
LETTERS: Final = 8_192
# Longer words are cut: a name this long is told by its beginning.
_MOST_LETTERS: Final = 24

FLAGS: Final = (
    "given",
    "surname",
    "place",
    "place begins",
    "place goes on",
    "country",
    "code",
    "group",
    "title",
    "street",
    "company",
    "kin",
    "day",
    "clinical",
    "blank before",
    "blanks before",
)

GROUPS: Final = frozenset(
    """american americans british briton britons english englishman englishwoman scottish scot scots welsh irish irishman
    canadian canadians mexican mexicans cuban cubans puerto rican brazilian brazilians argentine argentinian argentinians chilean
    chileans peruvian peruvians colombian colombians venezuelan venezuelans bolivian ecuadorian uruguayan paraguayan guatemalan
    honduran salvadoran nicaraguan panamanian dominican haitian haitians jamaican jamaicans french frenchman frenchwoman german
    germans austrian austrians swiss dutch dutchman dutchwoman belgian belgians luxembourgish danish dane danes swedish swede
    swedes norwegian norwegians finnish finn finns icelandic icelander italian italians spanish spaniard spaniards portuguese
    greek greeks cypriot maltese polish pole poles czech czechs slovak slovaks slovene slovenian slovenians hungarian hungarians
    romanian romanians bulgarian bulgarians serbian serb serbs croatian croat croats bosnian bosnians albanian albanians
    macedonian montenegrin kosovar estonian estonians latvian latvians lithuanian lithuanians russian russians ukrainian
    ukrainians belarusian moldovan georgian georgians armenian armenians azerbaijani azeri turkish turk turks kurdish kurd kurds
    arab arabs arabic arabian saudi saudis emirati qatari kuwaiti bahraini omani yemeni iraqi iraqis iranian iranians persian
    persians syrian syrians lebanese jordanian jordanians palestinian palestinians israeli israelis egyptian egyptians libyan
    tunisian tunisians algerian algerians moroccan moroccans sudanese ethiopian ethiopians eritrean somali somalis kenyan kenyans
    ugandan ugandans tanzanian tanzanians rwandan burundian congolese cameroonian nigerian nigerians ghanaian ghanaians
    senegalese malian ivorian liberian gambian togolese beninese angolan mozambican zambian zimbabwean zimbabweans namibian
    botswanan african africans afghan afghans pakistani pakistanis indian indians bangladeshi bangladeshis nepali nepalese
    bhutanese sri lankan lankans chinese japanese korean koreans mongolian mongolians taiwanese tibetan tibetans vietnamese thai
    thais cambodian laotian burmese malaysian malaysians singaporean singaporeans indonesian indonesians filipino filipinos
    filipina australian australians aussie aussies zealander zealanders kiwi kiwis fijian samoan tongan hawaiian hawaiians maori
    european europeans asian asians latino latinos latina latinas hispanic hispanics caucasian caucasians kazakh kazakhs uzbek
    uzbeks tajik turkmen kyrgyz uyghur catalan basque breton flemish bavarian sicilian corsican caribbean scandinavian slavic
    jewish jew jews christian christians catholic catholics protestant protestants muslim muslims islamic sunni shia shiite
    hindu hindus buddhist buddhists sikh sikhs mormon mormons baptist methodist lutheran presbyterian evangelical anglican
    orthodox atheist amish quaker democrat democrats democratic republican republicans cherokee navajo sioux apache mohawk inuit
    zulu yoruba igbo hausa berber roma gypsy texan texans californian californians londoner londoners parisian parisians
    afro-american barbadian bahamian bruneian chadian djiboutian gabonese grenadian guinean guyanese surinamese trinidadian
    belizean comoran equatoguinean lesotho basotho swazi malawian maldivian marshallese mauritanian mauritian micronesian
    monegasque nauruan palauan papuan andorran liechtensteiner seychellois timorese vanuatuan tuvaluan afrikaner""".split()  # noqa: SIM905
)
TITLES: Final = frozenset(
    """mr mrs ms miss mx dr doctor prof professor sir madam lord lady rev reverend father sister brother pastor rabbi imam judge
    justice captain capt lieutenant lt sergeant sgt colonel col major general officer senator governor president chairman nurse
    mister herr frau monsieur madame mme señor señora sra sr signor signora don doña princess prince king queen aunt uncle
    auntie granny grandma grandpa coach detective""".split()  # noqa: SIM905
)
STREETS: Final = frozenset(
    """street st avenue ave av boulevard blvd road rd lane ln drive dr court ct place pl square sq terrace ter trail trl parkway
    pkwy circle cir highway hwy way alley aly loop crescent cres close grove gardens mews row walk path plaza turnpike expressway
    bypass crossing ridge heights hill hollow canyon view apartment apt suite ste unit floor fl building bldg room rm box po lot
    strasse straße str gasse weg platz allee rue chemin impasse via viale piazza corso calle avenida carrera paseo plaza rua
    travessa praça straat laan gracht plein kade ulica ulitsa prospekt utca út gatan vägen gade vej""".split()  # noqa: SIM905
)
COMPANIES: Final = frozenset(
    """inc incorporated corp corporation co company llc llp lp ltd limited plc gmbh ag kg sa sas sarl srl spa bv nv ab oy as aps
    pty group holdings holding partners associates sons brothers bros bank trust fund foundation institute university college
    school academy hospital clinic center centre medical healthcare health pharmacy laboratories labs laboratory technologies
    technology systems solutions services industries enterprises consulting logistics airlines motors foods media studios
    records press times post society association council committee agency department ministry church club union league museum
    library theatre theater orchestra insurance capital ventures international global hospice rehabilitation memorial""".split()  # noqa: SIM905
)
KIN: Final = frozenset(
    """mother father mom dad mum parent son daughter wife husband spouse partner sister brother sibling aunt uncle cousin niece
    nephew grandmother grandfather grandson granddaughter friend roommate neighbor neighbour girlfriend boyfriend fiance fiancee
    patient pt client guardian caregiver boss manager colleague coworker name named called signed from cc attn attention dear hi
    hello hey contact provider physician surgeon witness author subscriber member insured beneficiary next kin""".split()  # noqa: SIM905
)
DAYS: Final = frozenset(
    """monday tuesday wednesday thursday friday saturday sunday mon tue tues wed thu thur thurs fri sat sun january february march
    april may june july august september october november december jan feb mar apr jun jul aug sep sept oct nov dec christmas
    easter thanksgiving halloween ramadan""".split()  # noqa: SIM905
)
CLINICAL: Final = frozenset(
    """alzheimer alzheimers parkinson parkinsons crohn crohns hodgkin hodgkins bell bells graves hashimoto addison cushing raynaud
    sjogren sjögren huntington tourette down turner klinefelter marfan ehlers danlos wilson paget kaposi burkitt wilms ewing
    lyme ebola zika meniere ménière barrett bartter brugada kawasaki guillain barre barré charcot marie tooth duchenne becker
    gaucher fabry pompe tay sachs hirschsprung dupuytren peyronie osgood schlatter baker achilles babinski romberg phalen tinel
    murphy mcburney rovsing homan homans kernig brudzinski glasgow apgar foley swan ganz hickman holter doppler valsalva
    trendelenburg fowler heimlich kegel whipple roux nissen billroth papanicolaou gram pap snellen ishihara weber rinne
    mallory weiss zenker wernicke korsakoff korsakov broca horner munchausen asperger stevens johnson ringer ringers""".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class Lists:
    """Lower-case names. `places` are whole, of one word or several; `groups` nationalities, religions and peoples."""

    given: frozenset[str]
    surnames: frozenset[str]
    places: frozenset[str]
    cities: tuple[str, ...]  # as they are written
    countries: tuple[str, ...]
    states: tuple[str, ...]
    codes: tuple[str, ...]
    groups: frozenset[str]


@cache
def read_lists() -> Lists:
    """The lists beside this file, which says where each is from."""
    names, places = _sections("names.txt"), _sections("places.txt")
    whole = [*places["city"], *places["country"], *places["state"]]
    return Lists(
        given=frozenset([*names["given"], *names["both"]]),
        surnames=frozenset([*names["surname"], *names["both"]]),
        places=frozenset(place.lower() for place in whole),
        cities=tuple(places["city"]),
        countries=tuple(places["country"]),
        states=tuple(places["state"]),
        codes=tuple(places["code"]),
        groups=GROUPS,
    )


def _sections(name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    into: list[str] = []
    for line in (_HERE / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            into = found.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            into.append(line)
    return found


def pieces(text: str) -> list[str]:
    """The text, cut: `"".join(pieces(text)) == text`."""
    found: list[str] = _PIECES.findall(text)
    return found


class Words:
    """Piece → the rows of the table of features, and their weights. `known` are the checksums of the words that have a row."""

    def __init__(self, known: Sequence[int] | NDArray[np.uint32]) -> None:
        lists = read_lists()
        self._given, self._surnames = lists.given, lists.surnames
        self._countries = {word.lower() for place in (*lists.countries, *lists.states) for word in place.split()}
        self._codes = frozenset(lists.codes)
        self._places = lists.places
        parts = [place.split() for place in lists.places if " " in place]
        self._begins = {words[0] for words in parts}
        self._goes_on = {word for words in parts for word in words[1:]}
        self._known = {int(checksum): row for row, checksum in enumerate(known)}
        self.unknown = len(self._known)
        self.rows = len(self._known) + 1 + SHAPES + LETTERS + len(FLAGS)

    @property
    def flags_begin(self) -> int:
        return self.rows - len(FLAGS)

    def features(self, piece: str) -> tuple[list[int], list[float]]:
        """The rows of a piece: its word or the row of all unknown words, its shape, its letters, its flags."""
        word = piece.lstrip(" \t")
        blanks = len(piece) - len(word)
        word = ("\n" if "\n" in word else word.strip() or " ")[:_MOST_LETTERS]
        lower = word.lower().replace("’", "'")
        row = self._known.get(crc32(lower.encode()), len(self._known))
        base = len(self._known) + 1
        rows, weights = [row, base + crc32(_shape(word).encode()) % SHAPES], [1.0, 1.0]
        base += SHAPES
        if word[0].isalpha():
            grams = list(_grams(lower))
            rows += [base + crc32(gram.encode()) % LETTERS for gram in grams]
            weights += [1.0 / len(grams) ** 0.5] * len(grams)
        base += LETTERS
        flags = [base + number for number in self._flags(word, lower, blanks)]
        return rows + flags, weights + [1.0] * len(flags)

    def _flags(self, word: str, lower: str, blanks: int) -> Iterator[int]:
        told = (
            lower in self._given,
            lower in self._surnames,
            lower in self._places,
            lower in self._begins,
            lower in self._goes_on,
            lower in self._countries,
            word in self._codes,
            lower in GROUPS,
            lower in TITLES,
            lower in STREETS,
            lower in COMPANIES,
            lower in KIN,
            lower in DAYS,
            lower in CLINICAL,
            blanks == 1,
            blanks > 1,
        )
        return (number for number, holds in enumerate(told) if holds)


def _shape(word: str) -> str:
    """Capitals, small letters, digits and signs, runs longer than three as three."""
    found: list[str] = []
    for character in word:
        kind = "X" if character.isupper() else "x" if character.isalpha() else "d" if character.isdigit() else character
        if found[-3:] != [kind] * 3:
            found.append(kind)
    return "".join(found)


def _grams(lower: str) -> Iterator[str]:
    """Threes of letters, and beginnings and ends, which tell more."""
    framed = f"<{lower}>"
    yield from (framed[start : start + 3] for start in range(max(1, len(framed) - 2)))
    for length in (2, 4):
        yield f"^{lower[:length]}"
        yield f"{lower[-length:]}$"
