"""The audit log compared with itself, its head and its copy in the store.

    audit.jsonl ─► Chain ─► problems, remarks ◄─ table audit

The file is the truth, and a little ahead of the table. The table is ahead of it only where somebody has cut the file, or put
another one in its place.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from ..producers.audit_chain import Chain, Problem
from ..producers.audit_log import AuditLog
from ..schemas.audit import Entry

# Of one page of the table.
_BATCH: Final = 10_000
_LOG_NAME: Final = re.compile(r"[0-9a-f]{1,64}\Z")
_LOGS: Final = "SELECT log, count() AS entries FROM audit GROUP BY log ORDER BY log"
_PAGE: Final = f"""
SELECT log, seq, toUnixTimestamp64Milli(at) AS ms, actor, action, subject, details, prev_hash, hash
FROM audit WHERE log = '{{name}}' AND seq > {{last}} ORDER BY seq LIMIT {_BATCH} WITH TIES
"""

Ask = Callable[[str], bytes]
"""A statement's answer as JSONEachRow, from the store itself or through its node."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What there is to say of a log. `problems` are empty where it is whole."""

    log: str
    entries: int
    last: Entry | None
    problems: list[Problem]
    remarks: list[str]
    chain: Chain


def check(audit: AuditLog, ask: Ask | None, *, shared: bool = False) -> Checked:
    """The file's chain, its head, and the table beside it, where the store can be asked. `shared`: other folders' logs may be
    in that table too. Raises `TidegateError`."""
    chain, known = Chain(), dict[int, bytes]()
    # The table before the file, which is ahead of it.
    others = {row["log"]: int(row["entries"]) for row in _answer(ask, _LOGS)} if ask is not None else {}
    first, _ = audit.lines()
    entry = next((entry for line in first if (entry := Entry.parse(line)) is not None), None)
    rows = list(_rows(ask, entry.log)) if ask is not None and entry is not None else []
    lines, head = audit.lines()
    for line in lines:
        if (entry := chain.see(line)) is not None:
            known.setdefault(entry.seq, entry.line())
    chain.end(head, audit.ring())
    name = chain.last.log if chain.last is not None else ""
    problems, remarks = list(chain.problems), list(chain.remarks)
    problems += _differences(known, rows)
    waiting = max(known, default=0) - max((row.seq for row in rows), default=0)
    if ask is not None and waiting > 0:
        remarks.append(f"{waiting:,} not in the store yet: whoever has the folder next copies them")
    for other, count in others.items():
        if other != name and shared:
            remarks.append(f"the store also has {count:,} entries of another folder's log, {other}")
        elif other != name:
            problems.append(Problem(1, f"is not the store's: {count:,} entries there are of another log, {other}"))
    return Checked(name, chain.lines, chain.last, problems, remarks, chain)


def _differences(known: dict[int, bytes], rows: list[Entry]) -> Iterator[Problem]:
    """Where the table is not what the file is, as far as the table goes."""
    there = Counter(row.seq for row in rows)
    for start, end in _ranges(sorted(seq for seq in known if seq not in there and seq < max(there, default=0))):
        yield Problem(start, f"{_up_to(start, end)} missing in the store")
    for seq, times in there.items():
        if times > 1:
            yield Problem(seq, f"is in the store {times} times")
    for row in rows:
        if row.seq in known and known[row.seq] != row.line():
            yield Problem(row.seq, "is another one in the store than in the file")
    for start, end in _ranges(sorted(there.keys() - known.keys())):
        yield Problem(start, f"{_up_to(start, end)} in the store and not in the file")


def _up_to(start: int, end: int) -> str:
    return "is" if start == end else f"and all up to entry {end:,} are"


def _ranges(seqs: list[int]) -> Iterator[tuple[int, int]]:
    start = 0
    for index, seq in enumerate(seqs):
        if index + 1 == len(seqs) or seqs[index + 1] != seq + 1:
            yield seqs[start], seq
            start = index + 1


def _answer(ask: Ask, sql: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in ask(sql).splitlines()]


def _rows(ask: Ask, name: str) -> Iterator[Entry]:
    """The table's rows of one log by number, page by page."""
    if not _LOG_NAME.match(name):
        return
    last = 0
    while page := _answer(ask, _PAGE.format(name=name, last=last)):
        for row in page:
            ms, seq = int(row.pop("ms")), int(row.pop("seq"))
            at = datetime.fromtimestamp(ms / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            yield Entry(**row, seq=seq, at=at)
            last = seq
