"""What looks like a name and is medicine: drugs, tests, sections of a note, and the doctors whose names diseases bear.

Only findings of names, places, organisations and groups come here: a number has a form, and its label decides (`labels`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from . import eponyms
from .ner import Span
from .ner_words import read_lists
from .prefilter import is_label
from .spans import TOLD

_WORDS: Final = frozenset(
    word
    for line in (Path(__file__).parent / "clinical.txt").read_text("utf-8").splitlines()
    if not line.startswith("#")
    for word in line.split()
)
# How drugs, diseases and procedures end. Four letters before, for Mr. Caine and the month of April are no drugs.
_ENDINGS: Final = re.compile(
    r"\w{4,}(?:mab|tinib|sartan|olol|azole|cillin|mycin|micin|statin|prazole|gliptin|gliflozin|tidine|oxetine|azepam"
    r"|zolam|dipine|parin"
    r"|xaban|gatran|triptan|cycline|floxacin|nisone|solone|thasone|profen|caine|thiazide|semide|lukast|dronate|setron"
    r"|dafil|glutide"
    r"|barbital|triptyline|phylline|terol|tropium|codone|morphone|vudine|navir|ciclovir|cyclovir"
    r"|itis|osis|iasis|emia|ectomy|otomy|ostomy|opathy|algia|uria|pnea|plasty|scopy|graphy|gram|megaly|plegia|paresis"
    r"|carcinoma|sarcoma"
    r"|penia|cytosis|trophy|plasia|sclerosis|stenosis|thermia|glycemia|lipidemia|tension|ology)s?"
)
# Words of medicine that are part of the names of places and departments: beside another word they are no proof.
_SHARED: Final = frozenset(
    """clinic pharmacy laboratory department emergency room unit ward medicine internal intensive care rehab
    rehabilitation hospice surgery surgical medical physical occupational speech therapy social family history heart
    chest head neck back eyes ears nose throat skin cardiology neurology oncology radiology pediatrics dermatology
    urology orthopedics orthopaedics psychiatry gastroenterology nephrology pulmonology endocrinology rheumatology
    hematology gynecology obstetrics ophthalmology otolaryngology anesthesia anesthesiology pathology doctor nurse
    patient physician provider general cancer diabetes present past normal unknown none negative positive stable
    review plan guest beta blocker candida""".split()  # noqa: SIM905
)
# A dose, a reading or a score in what was taken for an address, and the stage of a tumour.
_READING: Final = re.compile(
    r"(?<![A-Za-z])(?:(?i:mg|mcg|ug|ml|dl|mmol|meq|mmhg|bpm|mm|kg|iu|prn)|cc|cm|min|(?<=\d )units?|tablets?|tabs?"
    r"|capsules?|doses?|puffs?|hrs?"
    r"|bid|tid|qid|po|iv|sc|im)(?![A-Za-z'’])"
    r"|%|\bT?[0-4]N[0-3]|\b[Ss]tage [0-4I]|\b[IVX]+-[IVX]+\b|[A-Za-z] \d+/\d+|^\d+/\d+,|^\d, [CTLS]\d",
)
_SCORE: Final = re.compile(r"(?!APT|UNIT|PO BOX|BOX|SUITE|STE|ROOM|FLOOR|LOT)[A-Z][A-Z0-9-]{1,9} \d{1,3}\b(?!\d)(?!.*\d{5})")
_DOTTED: Final = re.compile(r"(?:[A-Z]\.){2,4}(?=\Z|[ ,;][ a-z]*\Z)|(?:[A-Z]\.){1,3}[A-Z]\Z")
_PART: Final = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_WORD: Final = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
# Behind any surname that stands alone these make it an eponym; what somebody may own, such as a fracture, is not among them.
_NAMED_AFTER: Final = re.compile(
    r"(?:\s|-)(?:scores?|scale|stag(?:e|ing)|grad(?:e|ing)|classification|class|level [IVX]|criteria|criterion|signs?"
    r"|syndrome|palsy|phenomenon"
    r"|contracture|lymphoma|sarcoma|thyroiditis|esophagus|maneuver|triad|nodes|nodules|bodies|index|tear|fracture"
    r"|equation|formula"
    r"|anastomosis|pouch|procedure|catheter|retractor|forceps|stain|agar|blot|test)\b"
)
# Race and descent are none of the eighteen; a nationality elsewhere may be telling.
_DESCRIBES: Final = re.compile(
    r"(?:[\s-]+(?:african|american|asian|hispanic|white|black|non-hispanic))*[\s-]*(?:male|female|man|men|woman|women"
    r"|gentleman|lady|boy|girl|patient|"
    r"descent|ancestry|origin|race|ethnicity|heritage|infant|child)\b",
    re.IGNORECASE,
)
_STATE: Final = re.compile(r",\s\Z")
_ABBREVIATED: Final = re.compile(r"-[A-Z]{2}\Z")
_POSSESSIVE: Final = re.compile(r"['’]s?\Z")
_TITLED: Final = re.compile(r"(?:\b(?:mr|mrs|ms|miss|dr|doctor|prof|nurse)\.?\s+)\Z", re.IGNORECASE)


def _known(word: str) -> bool:
    """A short word is one only in capitals: ED is a department, Ed is somebody."""
    folded = word.casefold()
    return (
        word.isdigit()
        or len(word) == 1
        or (folded in _WORDS and (len(word) > 3 or not word.istitle()))
        or (_ENDINGS.fullmatch(folded) is not None)
    )


def without(text: str, span: Span) -> Span | None:
    """The name found at `span` without the words of medicine before and behind it, None where nobody's name is left:
    "Discharge Rosa Delgado" is somebody, "Discharge Summary" is not."""
    if not is_medicine(text, span):
        return span
    if span.type not in {"PERSON", "ORGANIZATION"}:
        return None
    words = list(_PART.finditer(text, span.start, span.end))
    while words and _is_of_medicine(words[0].group()):
        del words[0]
    while words and _is_of_medicine(words[-1].group()):
        words.pop()
    if not words or not _is_somebody([word.group() for word in words]):
        return None
    left = Span(words[0].start(), words[-1].end(), "PERSON", span.score)
    # A word of medicine in the midst of a name is no reason to let the name stand.
    held = any(map(_is_of_medicine, (word.group() for word in words)))
    return left if held or (left != span and not is_medicine(text, left)) else None


def _is_of_medicine(word: str) -> bool:
    return _known(_POSSESSIVE.sub("", word)) or _READING.fullmatch(word) is not None


def _is_somebody(words: Sequence[str]) -> bool:
    """Whether a list knows one of these as a name, and it is no word of every day; or two begin with a capital."""
    lists = read_lists()
    own = [word for word in (_POSSESSIVE.sub("", word) for word in words) if word.lower() not in lists.words["common"]]
    return any(len(word) > 2 and lists.names(word) and not lists.is_clinical(word.lower()) for word in own) or (
        len(own) > 1 and all(word[0].isupper() and not lists.is_clinical(word.lower()) for word in own)
    )


def is_medicine(text: str, span: Span) -> bool:
    """Whether the name found at `span` is a word of medicine, and nobody's."""
    written = text[span.start : span.end]
    words = _WORD.findall(written.casefold())
    if span.type == "NRP":
        return _DESCRIBES.match(text, span.end) is not None
    if not words or _TITLED.search(text, max(0, span.start - 10), span.start):
        return False
    if span.type == "LOCATION" and _STATE.search(text, max(0, span.start - 3), span.start) is not None and len(written) == 2:
        return False  # "Eugene, OR" is no operating room
    if span.type == "LOCATION" and _ABBREVIATED.search(text, max(0, span.start - 1), span.end) is not None:
        return True  # the hydroxyl of "25-OH"
    if is_label(written) and (len(written) > 4 or written.isupper() or written.islower()):
        return True  # it says what the number behind it is
    if (dotted := _DOTTED.match(written)) is not None and dotted.group().replace(".", "").casefold() in _WORDS:
        return span.score < TOLD  # "B.I.D.", "P.R.N."
    if all(map(_known, _PART.findall(written))):
        return any(len(word) > 1 for word in words)
    if span.type == "LOCATION" and not written[0].isdigit() and (_READING.search(written) or _SCORE.match(written)):
        return True
    if span.type == "LOCATION" and len(words) <= 3 and _READING.search(written) is not None:
        return True
    if any(len(word) > 3 and word in _WORDS and word not in _SHARED for word in words) or _READING.search(written) is not None:
        return not written[0].isdigit()
    _, _, rest = written.partition(" ")
    if span.type != "LOCATION" and _NAMED_AFTER.fullmatch(" " + rest) is not None:
        return True
    if span.type != "LOCATION" and not rest and _NAMED_AFTER.match(text, span.end) is not None:
        return True
    return eponyms.means_medicine(text, span.start, span.end)
