"""Names where letters, notes and mails have them: under the closing, before a degree, on the envelope, in the head of a mail.

"Hope Grant, RN"  "Joy (RN)"  "Sincerely,\\nJoy Will"  "- Hope" at the very end  "Chase Grant <cg@…>"  "CHASE GRANT\\n12 ELM ST"

There both words may be words of every day; each must be a name that a list knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from .ner_words import Lists
from .spans import TOLD, Span

_DEGREE: Final = r"MD|M\.D\.|DO|D\.O\.|RN|R\.N\.|LPN|CNA|NP|PA-C|PA|PhD|PharmD|DDS|DPM|LCSW|LMFT|DPT|OTR|RRT|CRNA|FNP|APRN"
_CLOSING: Final = r"Sincerely|(?:Best |Kind )?[Rr]egards|Best|Thanks|Thank you|Yours|Love|Cheers"
_NAME: Final = r"[A-Z][a-z]+(?: [A-Z]\.)?(?: [A-Z][a-z]+)"
# The name is looked for backwards, for there are fewer degrees than words with a capital.
_HAS_DEGREE: Final = re.compile(rf"(?:{_DEGREE})\b(?P<close>\)?)")
_BEFORE_DEGREE: Final = re.compile(rf"(?<![\w-])(?:(?P<name>{_NAME}{{1,2}}),? \(?|(?P<one>[A-Z][a-z]+) \()\Z")
_LONGEST: Final = 64
# Who speaks, behind the hour or in brackets: "[10:02 AM] Rose May: BP is low", "Speaker 1 (Hope): I fell".
_SPEAKS: Final = re.compile(rf"[\](] ?(?P<name>{_NAME}?)\)?:")
_CLOSED: Final = re.compile(rf"(?:^|\n)(?:{_CLOSING}),?\s{{1,3}}(?P<name>{_NAME}?)(?=\s*(?:\Z|\n|,))")
_LAST: Final = re.compile(rf"\n[ \t]*[-–—]{{1,2}} ?(?P<name>{_NAME}?)\s{{0,8}}\Z")
_MAILED: Final = re.compile(rf"(?<![\w-])(?P<name>{_NAME}{{1,2}})\"? <(?=[\w.+-]{{1,64}}@)")
_ADDRESSED: Final = re.compile(
    r"(?:^|\n)[ \t]*(?P<name>[A-Z][\w’'-]+(?: [A-Z]\b\.?)?(?: [A-Z][\w’'-]+){1,2})[ \t]*\r?\n[ \t]*"
    r"(?=\d{1,6} [A-Z]|(?:Nurse|Director|Manager|Office|Practice|Clinical|Medical|Care|Tel|Phone|Cell|Dep(?:artmen)?t)\b)"
)


def written(text: str, lists: Lists) -> Iterator[Span]:
    """Names in their place of a letter; they may overlap."""
    for found in _named(text):
        name = found.lastgroup or "name"
        if all(lists.names(word) for word in found[name].split()):
            yield Span(*found.span(name), "PERSON", TOLD)


def _named(text: str) -> Iterator[re.Match[str]]:
    for degree in _HAS_DEGREE.finditer(text):
        if text[degree.start() - 1 : degree.start()] in {" ", "("}:
            before = _BEFORE_DEGREE.search(text, max(0, degree.start() - _LONGEST), degree.start())
            if before is not None and (before.lastgroup == "name" or degree["close"]):
                yield before
    patterns = [_CLOSED]
    if "\n" in text:
        patterns += (_LAST, _ADDRESSED)
    if "]" in text or "):" in text:
        patterns.append(_SPEAKS)
    if "@" in text:
        patterns.append(_MAILED)
    for pattern in patterns:
        yield from pattern.finditer(text)
