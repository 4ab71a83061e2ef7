"""What a text affirms and what it denies, word by word; and what a question is answered.

    "denies fever, chills, but has a cough"        fever −  chills −  cough +
    "Any swelling?" "No."                          swelling −
    "Do you smoke?" (no answer that says so)       smoke 0: spoken of, neither affirmed nor denied

A reading in the manner of NegEx: a word that denies has a scope, and a mark or a "but" ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .reading import Word, listed

# Words a denial reaches over. A list after "denies" or "no" may be long; "not" is about its clause.
LIST_WORDS: Final = 24
CLAUSE_WORDS: Final = 7
BACK_WORDS: Final = 6
NON_WORDS: Final = 2  # "non-smoker"
CONDITION_WORDS: Final = 2  # "if you are not better we will"

_LISTS: Final = frozenset(
    ("no", "denies", "denied", "deny", "denying", "without", "neither", "nor", "absence", "non", "lacks", "lack", "refuses")
)
_CLAUSE: Final = frozenset(
    listed(
        "not never cannot nothing nobody don't dont doesn't doesnt didn't didnt isn't isnt aren't arent wasn't wasnt weren't "
        "werent haven't havent hasn't hasnt hadn't hadnt won't wont can't cant couldn't couldnt ain't unable "
        "unlikely"
    )
)
# "A murmur was not heard."
_FOUND: Final = frozenset(
    listed("present seen noted found heard identified evident appreciated demonstrated detected observed reported palpable")
)
_AFTER: Final = frozenset(("none", "negative", "absent", "denied", "unlikely", "nil", "no", "never"))
_ENDS: Final = frozenset(
    (
        ".",
        "?",
        ";",
        "\n",
        "but",
        "however",
        "except",
        "although",
        "though",
        "yet",
        "besides",
        "apart",
        "aside",
        "because",
        "other",
        "just",
        "only",
        "otherwise",
    )
)
# After these, "no" denies nothing: "no change", "no longer" is about what was before.
_IDLE: Final = frozenset(("doubt", "matter", "problem", "wonder", "idea"))
# "A negative test" denies nothing by itself.
_RESULTS: Final = frozenset(
    ("test", "tests", "result", "results", "and", "or", "but", "as", "at", "in", "impact", "effect", "effects")
)
_HAS: Final = frozenset(
    (
        "has",
        "have",
        "had",
        "is",
        "was",
        "are",
        "were",
        "reports",
        "does",
        "admits",
        "endorses",
        "complains",
        "takes",
        "continues",
        "i",
        "he",
        "she",
        "they",
        "it",
    )
)

_YES: Final = frozenset(
    listed(
        "yes yeah yep yup ya yah sure correct right absolutely definitely certainly uh-huh mhm mmhmm indeed affirmative "
        "exactly unfortunately oh ok okay well um uh hmm hm ah so"
    )
)
_FILLERS: Final = frozenset(listed("oh ok okay well um uh hmm hm ah so unfortunately thankfully fortunately actually , - – ."))
_PERSONS: Final = frozenset(("i", "he", "she", "it", "we", "they", "that", "there"))
_AUXILIARIES: Final = frozenset(listed("is was are were am do does did have has had can could would will"))
_MAY: Final = (["can"], ["could"], ["may"], ["should"])  # "When can I drive?"
_PRESUME: Final = frozenset(("when", "where", "how", "why", "which"))
# "Of course not", "absolutely not".
_SURE: Final = frozenset(("of", "absolutely", "definitely", "certainly", "probably", "actually", "really"))
# Replies that say how often or how much, and so that it is so.
_AT_TIMES: Final = frozenset(
    listed("sometimes occasionally socially rarely seldom always usually often mostly mainly constantly daily somewhat very")
)
_TWO_WORDS_YES: Final = frozenset(
    (one, other)
    for line in ("i do", "i have", "i am", "he does", "she does", "he has", "she has", "of course", "i think", "i used",
                 "a little", "a bit", "just a", "only a", "once in", "every now", "now and", "on and", "off and", "kind of",
                 "sort of", "that's right", "that's correct", "that's true", "that is", "from time", "at times", "every day")
    for one, other in (line.split(),)
)  # fmt: skip
_OPINES: Final = frozenset(("guess", "believe", "suppose", "think", "would"))
# What these name is known to both who speak.
_DEFINITES: Final = frozenset(listed("the that this these those your his her their my"))
_SUBORDINATES: Final = frozenset(listed("when while if because after before since what who why how where which"))
# A noun phrase ends at the latest before these.
_AFTER_NAMES: Final = frozenset(
    listed(
        "is was are were am do does did have has had can could will would be been being get gets got go goes went gone come "
        "feel feels hurt hurts still ever at in on to for with from of by or and than as bother bothers help helps worse "
        "better any"
    )
)
_NO: Final = frozenset(listed("no nope nah never none negative not don't haven't didn't doesn't isn't nothing neither"))


def polarity(words: Sequence[Word]) -> list[int]:
    """For each word 1 (affirmed) or -1 (denied)."""
    found = [1] * len(words)
    at = 0
    while at < len(words):
        low = words[at].low
        after = words[at + 1].low if at + 1 < len(words) else "."
        if low in _LISTS and not (low == "no" and (after in (",", ".", ":", "\n") or after in _IDLE or after.isdigit())):
            if low == "without" and at and found[at] < 0:  # "can't walk without a cane"
                found[at + 1 :] = [1] * (len(words) - at - 1)
            else:
                _deny(found, words, at, NON_WORDS if low == "non" else LIST_WORDS)
        elif low == "not" and after in _FOUND:
            _deny_back(found, words, at)
        elif low in _CLAUSE and not (low == "not" and after in ("only", "just")):
            conditional = any(word.low == "if" for word in words[:at])
            _deny(found, words, at, CONDITION_WORDS if conditional else CLAUSE_WORDS)
        elif low == "negative" and after in ("for", "history") and found[at] < 0:  # "was not negative for"
            found[at + 1 :] = [1] * (len(words) - at - 1)
        elif low == "negative" and after in ("for", "history"):
            _deny(found, words, at, LIST_WORDS)
        elif low == "negative" and after[0].isalpha() and after not in _RESULTS:
            _deny(found, words, at, 3)
        elif low == "free" and after == "of":
            _deny(found, words, at, LIST_WORDS)
        elif low == "ruled" and after == "out":
            _deny_back(found, words, at)
        elif low in _AFTER and at and after in (".", ";", "\n", ","):
            before = words[at - 1].low
            if before == "otherwise":
                pass
            elif before in (":", "-", "–", "is", "are", "was", "were", "been") or low in ("negative", "absent", "denied"):
                _deny_back(found, words, at)
        at += 1
    return found


def _deny(found: list[int], words: Sequence[Word], trigger: int, reach: int) -> None:
    comma = False
    # "If there is no fever, call": the condition ends where the advice begins.
    conditional = any(word.low == "if" for word in words[:trigger])
    # "No fever, chills, cough" is a list; "colectomy with no recurrence, appendectomy" is not.
    first = trigger == 0 or words[trigger - 1].low in (
        ":",
        ".",
        ";",
        "-",
        "has",
        "have",
        "had",
        "is",
        "are",
        "were",
        "was",
        "been",
    )
    lists = (
        first
        or words[trigger].low not in ("no", "non", "without", "negative")
        or any(word.low in ("or", "nor") for word in words[trigger : trigger + reach])
    )
    for place in range(trigger + 1, min(len(words), trigger + 1 + reach)):
        low = words[place].low
        if low == "other" and place + 1 < len(words) and words[place + 1].low == "than":
            return
        if (
            low in _ENDS
            or (comma and (low in _HAS or not lists or conditional))
            or (low in ("and", "who", "which") and _turns(words, place))
        ):
            return
        comma = low == ","
        found[place] = -1


def _turns(words: Sequence[Word], place: int) -> bool:
    """Whether an affirmation begins at "and": "no fever and he has a cough"."""
    after = [word.low for word in words[place + 1 : place + 3]]
    return bool(after) and after[0] in _HAS and not (len(after) > 1 and after[1] in ("no", "not", "never", "denies"))


def _deny_back(found: list[int], words: Sequence[Word], trigger: int) -> None:
    for place in range(trigger - 1, max(-1, trigger - 1 - BACK_WORDS), -1):
        if words[place].low in _ENDS:
            return
        found[place] = -1


def answer(words: Sequence[Word]) -> int:
    """What `words`, said after a question, answer: 1 yes, -1 no, 0 neither."""
    said = [word.low for word in words[:8]]
    while said and said[0] in _FILLERS:
        said.pop(0)
    if not said or (said[0] == "no" and said[1:2] and (said[1] in _IDLE or said[1] == "more")):
        return 0
    if said[0] in _NO and not (said[0] == "not" and said[1:2] == ["only"]):
        return -1
    if said[0] in _SURE and "not" in said[1:3]:
        return -1
    if said[0] in _PERSONS and set(said[1:3]) & (_NO | {"hasn't", "wasn't", "can't", "cannot", "deny"}):
        return -1
    if said[0] in _YES or said[0] in _AT_TIMES or tuple(said[:2]) in _TWO_WORDS_YES:
        return 1
    if said[0] in _PERSONS and said[1:2] and said[1] in _OPINES:
        return 1
    # "It is.", "She was.": nothing but the answer.
    if len(said) > 1 and said[0] in _PERSONS and said[1] in _AUXILIARIES and (len(said) == 2 or said[2] in (".", ",", "\n")):
        return 1
    return 0


def denies_itself(words: Sequence[Word]) -> bool:
    """Whether a reply says itself what it denies, "No fever, but chills.", so that its "no" is not about all that was asked."""
    said = [word.low for word in words if word.low not in _FILLERS or word.low == ","][:3]
    return said[:1] == ["no"] and said[1:2] != [] and said[1][0].isalpha() and said[1] not in _PERSONS | _NO


def presumes(words: Sequence[Word]) -> bool:
    """Whether a question takes for granted what it speaks of: "When did the pain begin?"; but not "How about chest pain?"."""
    said = [word.low for word in words[:4] if word.key and word.low not in _YES and word.low != "and"]
    return said[:1] != [] and said[0] in _PRESUME and said[1:2] != ["about"] and said[1:2] not in _MAY


def denied(words: Sequence[Word], signs: Sequence[int]) -> list[int]:
    """The polarity of a question's words once it is answered with no. "Has the rash gone?" and "Anything for the pain?" still
    speak of a rash and a pain (0), and what follows "besides" is taken for true (1)."""
    found: list[int] = []
    taken = 0  # 1 after "besides", 2 inside "the pain", 3 after "when"
    for word, sign in zip(words, signs, strict=True):
        if word.low in ("besides", "apart", "aside", "except") or (word.low == "than" and found):
            taken = 1
        elif word.low in _SUBORDINATES and found and taken != 1:
            taken = 3
        elif word.low in _DEFINITES and not taken:
            taken = 2
        elif taken == 2 and (not word.key or word.low in _AFTER_NAMES):
            taken = 0
        found.append({0: -1, 1: sign, 2: 0, 3: 0}[taken])
    return found
