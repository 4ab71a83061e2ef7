"""Names that are words of every day, written with a capital, where what stands about them says that somebody is meant.

"I saw Joy today", "Rose's incision", "Chase presents with cough", "call May back"      names
"the Hope fund", "Mark all", "in May", "press Grant", "Will it hurt?"                   none
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from .ner_words import Lists
from .spans import TOLD, Span

# With a capital in the midst of a sentence these are names; others ("Art", "Frank", "Rich", "Price") are too often words.
_NAMES: Final = (
    "Hope|Grant|Grace|Faith|Joy|Rose|Mark|Bill|Pat|Sue|Drew|Chase|Dawn|Amber|Ivy|Lily|Violet|Daisy|Ruby|Heather|Sandy|Cliff"
    "|Penny|Robin|Hunter|Carter|Mason|Pierce|Jade|Jasmine|Melody|Harmony|Will|Gene|Wade|Ray|Jay|Chip|Lance|Reed|Clay|Earl"
)
_SEASONS: Final = frozenset({"May", "June", "April", "Summer", "Autumn", "August"})
_ANY: Final = "|".join((_NAMES, *sorted(_SEASONS)))
# What somebody does who is in a note.
_DOES: Final = (
    r"(?:presents|presented|reports|reported|denies|denied|complains|complained|endorses|states\sthat|stated|said|says|lives|returns"
    r"|returned|arrived|underwent|called|came|was\s(?:seen|admitted|discharged|born|referred|diagnosed|brought))\b"
)
_MET: Final = (
    r"(?:saw|sees|seen|call|calls|called|calling|tell|told|ask|asks|asked|asking|with|meet|met|page|paged|remind|reminded"
    r"|notify|notified|inform|informed|text|texted|thank|thanked|visit|visited|per|hi|hello|hey|dear)"
)
_BEFORE: Final = re.compile(r"([^\W\d_]+)(,?) \Z")
# Behind these stands a thing, or what is to be done.
_THINGS: Final = frozenset(
    "the a an this that these no any all each every of to please not must should can could or press click select button".split()  # noqa: SIM905
)
# It begins with letters, and not with what may stand before them: such a pattern is searched for quickly.
_STANDING: Final = re.compile(
    rf"(?P<name>(?:{_ANY})(?![\w-])(?: [A-Z]\.)?(?: (?P<last>[A-Z][a-z]+))?)(?P<own>['’]s)?(?![\w’'-])"
)
# The same where all is written in capitals.
_LOUD: Final = re.compile(
    rf"(?P<name>(?:{_NAMES.upper()})(?![\w-])(?: (?P<last>(?!IS|WAS)[A-Z]+))?) "
    r"(?:IS AN? \d|PRESENTS|REPORTS|DENIES|COMPLAINS|STATES|WAS (?:SEEN|ADMITTED|DISCHARGED))"
)
_OPENS: Final = " \t\r\n(\"“‘'@"
_GOES_ON: Final = re.compile(r"\s[a-z\d(]|[.,;:!?)\"”]|\s*\Z")
_SET_OFF: Final = re.compile(r"[.,;:)]|\s*\Z")
# "Hope is a 34F", "Will (45M)", "Grant (husband)".
_OF_AGE: Final = (
    r"is\s(?:an?\s)?\d|\(\d{1,3}\s?[MFymf]|\((?:mother|father|wife|husband|son|daughter|sister|brother|partner|spouse)\b"
)
_THEN: Final = re.compile(rf"\s(?:{_DOES}|{_OF_AGE})")
_CALLED: Final = re.compile(rf"\b{_MET} \Z", re.IGNORECASE)
_ITS: Final = re.compile(r" [a-z]")


def everyday(text: str, lists: Lists) -> Iterator[Span]:
    """Names among words of every day; as sure as what a title introduces."""
    for loud in _LOUD.finditer(text):
        if text[loud.start() - 1 : loud.start()] in _OPENS and (loud["last"] is None or lists.names(loud["last"])):
            yield Span(*loud.span("name"), "PERSON", TOLD)
    for found in _STANDING.finditer(text):
        start, end = found.span("name")
        if text[start - 1 : start] not in _OPENS or not (found["last"] is None or lists.names(found["last"])):
            continue
        season = found["name"] in _SEASONS
        addressed = text[start - 1 : start] == "@"
        if (
            addressed
            or _THEN.match(text, found.end()) is not None
            or _CALLED.search(text, max(0, start - 12), start) is not None
        ):
            named = _GOES_ON.match(text, found.end()) is not None
        elif season:
            named = False
        elif found["own"] is not None:
            named = _ITS.match(text, found.end()) is not None
        else:
            before = _BEFORE.search(text, max(0, start - 24), start)
            named = (
                before is not None
                and before[1].islower()
                and before[1] not in _THINGS
                and (_SET_OFF if before[2] else _GOES_ON).match(text, found.end()) is not None
            )
        if named:
            yield Span(start, end, "PERSON", TOLD)
