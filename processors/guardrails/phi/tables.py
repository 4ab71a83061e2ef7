"""Tables, whose head says what their columns hold, and lines that say it of one value: `First name: will`.

name,dob,mrn              | Patient | DOB |         Patient Name<tab>Will Rose       <tr><th>Patient</th></tr>
Will Rose,1/2/80,12       | will rose | 1970 |      DOB<tab>1/2/80                   <tr><td>Will Rose</td></tr>
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from . import fields
from .cues import EVERYDAY
from .fields import Field
from .ner_words import read_lists
from .spans import TOLD, Span

_MOST_COLUMNS: Final = 64
# A line, or the break behind an empty one.
_LINE: Final = re.compile(r"[^\r\n]+|(?<=\n)\r?\n")
_RULE: Final = re.compile(r"[\s|:+=-]+")
_GAP: Final = re.compile(r"\t+| {2,}")
_HEADING: Final = re.compile(r"[\"'*_\s]*[A-Za-z][\w #/'’().*-]{0,40}:?\**")
_HTML: Final = re.compile(
    r"<t(?P<kind>[hd])\b[^<>]{0,200}>(?:\s|<(?:b|strong|p|span|em|i)\b[^<>]{0,80}>)*+(?P<value>[^<>]{0,200})|<(?P<row>/?t(?:r|able))\b",
    re.IGNORECASE,
)
# `(name, dob) VALUES ('Will Rose', '1980-01-02'), …`
_INSERT: Final = re.compile(r"(?i:VALUES)(?=\s{0,8}\()")
_NAMES_OF_COLUMNS: Final = re.compile(r"\((?P<cells>[^()]{3,600})\)\s{0,8}\Z")
_TUPLE: Final = re.compile(r"[\s,]{0,8}\((?P<cells>[^()]{1,2000})\)")
# What parts a label and its value, and what may stand on the next line of them; the label is looked for backwards.
_PARTED: Final = re.compile(r"[:=]\**[ \t]*(?:\r?\n[ \t]*)?['\"]?(?=[^\W_])")
_LABEL: Final = re.compile(r"(?<![\w\"'<>/.-])(?P<name>[A-Za-z]+(?:[ _.'’/-]{1,2}[A-Za-z]+){0,4})(?:\**\s?|\.{2,40} ?)\Z")
_LONGEST_LABEL: Final = 64
_WORD: Final = re.compile(r"[^\W_]+")
# A name behind its label: words with capitals, or two or three small ones to the end of the line.
_WRITTEN: Final = re.compile(r"[^\W\d_][^\W\d_.'’-]*(?:['’.-]{1,2}[^\W\d_]*)*+")
_BETWEEN: Final = re.compile(r",?[ ](?=[^\W\d_])")
_AT_END: Final = re.compile(r"[ \t]*(?:\Z|[\r\n;|(<,\"'{}\[\]]|\.(?:\s|\Z))")
_NEXT_LABEL: Final = re.compile(r"(?:[ ]?[A-Za-z]+){0,3}[ ]?[:=#]")
_NEXT: Final = frozenset(
    """dob date mrn age sex gender phone address ssn first last middle id provider account birth patient email tel admit visit
    room fax zip city state street""".split()  # noqa: SIM905
)
_TO_END: Final = re.compile(r"[^\r\n;|<>{}\[\]]{2,120}")
_ADDRESS: Final = re.compile(r"(?=.*\d)(?=.*[A-Za-z]{2})(?!.*(?:@|://|\d\.\d+\.\d))")
_TOWN: Final = re.compile(r"[A-Z][\w.'’-]*(?: [A-Z][\w.'’-]*){0,3}")


class _Cell(NamedTuple):
    start: int
    end: int
    text: str


class _Row(NamedTuple):
    mark: str
    cells: list[_Cell]


def find(text: str) -> Iterator[Span]:
    """What heads of columns and labels of lines tell of the values under and behind them."""
    if "\n" in text or "\r" in text:
        yield from _told(text, [_row(text, *line.span()) for line in _LINE.finditer(text)])
    if "<t" in text or "<T" in text:
        yield from _told(text, list(_html(text)))
    for insert in _INSERT.finditer(text) if "(" in text else ():
        yield from _told(text, list(_inserted(text, insert)))
    if ":" in text or "=" in text:
        yield from _lines(text)


def _told(text: str, rows: Sequence[_Row | None]) -> Iterator[Span]:
    mark = ""
    columns: list[Field | None] = []
    among = before = False
    for number, row in enumerate(rows):
        if row is None or (columns and row.mark != mark):
            columns = []
        if row is None:
            before = False
            continue
        if not row.cells:  # a rule
            continue
        heads = [fields.named(cell.text) if _HEADING.fullmatch(cell.text) else None for cell in row.cells]
        # A record on its side: names of fields in the first column.
        if len(row.cells) == 2 and heads[0] is not None and heads[1] is None:
            after = next((each for each in rows[number + 1 : number + 3] if each is not None and each.cells), None)
            on_side = before or (after is not None and len(after.cells) == 2 and fields.named(after.cells[0].text) is not None)
            if on_side:
                yield from _spans(text, row.cells[1:], heads[:1], among=True)
            before = True
            if on_side:
                continue
        else:
            before = False
        if columns:
            yield from _spans(text, _aligned(row.cells, columns), columns, among=among)
        elif _is_head(row, heads):
            mark, columns = row.mark, heads
            among = fields.of_people(cell.text for cell in row.cells)


def _is_head(row: _Row, heads: Sequence[Field | None]) -> bool:
    known = sum(head is not None for head in heads)
    if not known or not all(_HEADING.fullmatch(cell.text) for cell in row.cells if cell.text):
        return False
    if row.mark in {",", ";"} and any(cell.text.count(" ") > 2 for cell in row.cells):
        return False  # prose has commas too
    return known >= 2 if row.mark == "  " else len(heads) >= 2


def _spans(text: str, cells: Sequence[_Cell], columns: Sequence[Field | None], *, among: bool) -> Iterator[Span]:
    for cell, field in zip(cells, columns, strict=False):
        found = (
            fields.span(text, cell.start, cell.end, field, among_people=among, in_column=True) if field is not None else None
        )
        if found is not None:
            yield found


def _aligned(cells: list[_Cell], columns: Sequence[Field | None]) -> list[_Cell]:
    """An address with commas of its own, unquoted, takes the cells that are too many."""
    more = len(cells) - len(columns)
    place = next((number for number, field in enumerate(columns) if field is not None and field.type == "LOCATION"), None)
    if more <= 0 or place is None:
        return cells
    last = cells[place + more]
    return [*cells[:place], _Cell(cells[place].start, last.end, ""), *cells[place + more + 1 :]]


def _row(text: str, start: int, end: int) -> _Row | None:
    """The cells of a line, by the first of its marks; none for a rule, None where it is no row."""
    line = text[start:end]
    if not line or line.isspace():
        return None
    if _RULE.fullmatch(line):
        return _Row("|", []) if "|" in line or "--" in line or "==" in line else None
    for mark in ("|", "\t", ",", ";"):
        if mark in line:
            cells = list(_cells(text, start, end, mark))
            if mark == "|" and len(cells) > 2:
                cells = cells[not cells[0].text : len(cells) - (not cells[-1].text)]
            return _Row(mark, cells) if 2 <= len(cells) <= _MOST_COLUMNS else None
    if "  " in line.strip():
        cells, at = [], start + len(line) - len(line.lstrip())
        for gap in _GAP.finditer(text, at, start + len(line.rstrip())):
            cells.append(_Cell(at, gap.start(), text[at : gap.start()]))
            at = gap.end()
        cells.append(_Cell(at, end, text[at:end].strip()))
        return _Row("  ", cells) if len(cells) <= _MOST_COLUMNS else None
    return None


def _cells(text: str, start: int, end: int, mark: str) -> Iterator[_Cell]:
    at = start
    while at <= end:
        begin = at
        while begin < end and text[begin] == " ":
            begin += 1
        closing = -1
        if text[begin : begin + 1] == '"':
            closing = text.find('"', begin + 1, end)
            while closing >= 0 and text[closing + 1 : closing + 2] == '"' and closing + 1 < end:
                closing = text.find('"', closing + 2, end)
        after = text.find(mark, closing + 1 if closing >= 0 else begin, end)
        after = end if after < 0 else after
        yield _Cell(begin, after, text[begin:after].strip().strip('"'))
        at = after + 1


def _html(text: str) -> Iterator[_Row]:
    cells: list[_Cell] = []
    for tag in _HTML.finditer(text):
        if tag["row"] is None:
            cells.append(_Cell(*tag.span("value"), tag["value"].strip()))
        elif cells:
            yield _Row("<", cells)
            cells = []
    if cells:
        yield _Row("<", cells)


def _inserted(text: str, insert: re.Match[str]) -> Iterator[_Row]:
    columns = _NAMES_OF_COLUMNS.search(text, max(0, insert.start() - 640), insert.start())
    row, at = columns, insert.end()
    while row is not None and columns is not None:
        yield _Row("(", list(_cells(text, *row.span("cells"), ",")))
        row = _TUPLE.match(text, at)
        at = row.end() if row is not None else at


def _lines(text: str) -> Iterator[Span]:
    """`Patient name: will rose`: what is behind the label, by the rules of what is behind it."""
    for parted in _PARTED.finditer(text):
        label = _LABEL.search(text, max(0, parted.start() - _LONGEST_LABEL), parted.start())
        if label is None:
            continue
        name = label["name"]
        field = fields.named(name)
        while field is None and (blank := name.find(" ")) >= 0:  # what stands before the label
            name = name[blank + 1 :]
            field = fields.named(name)
            if field is not None and not (field.sure and field.type == "PERSON"):
                field = None
        if field is not None:
            yield from _behind(text, parted.end(), field, name)


def _behind(text: str, start: int, field: Field, name: str) -> Iterator[Span]:
    if field.type == "LOCATION":
        value = _TO_END.match(text, start)
        if value is not None and field.sure and _NEXT_LABEL.match(text, start) is None:
            ends = _cut(value.group())
            if name.lower().endswith(("city", "town", "county", "village")):
                town = _TOWN.match(value.group(), 0, ends)
                ends = town.end() if town is not None else ends if value.group().count(" ", 0, ends) < 3 else 0
            elif _ADDRESS.match(value.group()[:ends]) is None:
                return
            if (found := fields.span(text, start, start + ends, field)) is not None:
                yield found
    elif field.type == "PERSON" and fields.letters(name) not in _STYLES:
        end = _name_end(text, start)
        at_end = _AT_END.match(text, end) is not None or _NEXT_LABEL.match(text, end + 1) is not None
        known = field.sure or (at_end and _all_known(text[start:end]))
        # What a speaker says begins with such words, in small letters after the first: "Patient: Will do."
        said = fields.letters(name) in _SPEAKERS and not (" " in text[start:end] and text[start:end].istitle())
        begins = _WORD.match(text, start)
        if begins is not None and not said and at_end and end == begins.end() and _is_everyday(text[start:end]):
            yield Span(start, end, "PERSON", TOLD)
            return
        if (
            begins is not None
            and not field.sure
            and begins.group().lower() in read_lists().words["never"]
            and end == begins.end()
        ):
            return
        if end > start and known and (text[start].isupper() or at_end):
            found = fields.span(text, start, end, field, in_column=not said)
            if found is not None:
                yield found


def _name_end(text: str, start: int) -> int:
    """Where the words of a name end: before the next label, and before small words where it has capitals."""
    capital, at, end, count = text[start : start + 1].isupper(), start, start, 0
    while count < (5 if capital else 3) and (word := _WRITTEN.match(text, at)) is not None:
        behind = text[word.end() : word.end() + 2].lstrip()[:1]
        if behind in {":", "=", "#"} or word.group().lower() in _NEXT:
            break
        if capital and not word.group()[0].isupper() and word.group().lower() not in _PARTICLES:
            break
        end, count = word.end(), count + 1
        between = _BETWEEN.match(text, end)
        if between is None:
            break
        at = between.end()
    return end


def _is_everyday(word: str) -> bool:
    return word.lower() in EVERYDAY and word.lower() in read_lists().given


_SPEAKERS: Final = frozenset("patient pt doctor nurse provider physician client caller resident mother father".split())  # noqa: SIM905
_STYLES: Final = frozenset({"display", "text", "content"})
_PARTICLES: Final = frozenset("de da di del della der den van von la le bin ibn al el dos das du ter ten y".split())  # noqa: SIM905


def _all_known(written: str) -> bool:
    lists = read_lists()
    words = [word.group().lower() for word in _WORD.finditer(written)]
    return bool(words) and all(
        word in lists.given or word in lists.surnames or len(word) == 1 or word in fields.CREDENTIALS for word in words
    )


def _cut(written: str) -> int:
    """Up to the next label on the line."""
    label = re.search(r"[\s,]+(?:[A-Z][A-Za-z]*[ ]?){1,3}[:=#]", written)
    return label.start() if label is not None else len(written)
