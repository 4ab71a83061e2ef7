"""The audit log compared with itself, its head and its copy in the store; and so what workers told on Kafka.

    audit.jsonl ───► Chain ──────┬─► problems, remarks ◄─ table audit
    topic audit ───► Chain each ─┘

File and topic are the truth, and a little ahead of the table. The table is ahead of them only where somebody has cut them, or
put others in their place. So each log that the table knows must be here, or a person must say that it is elsewhere.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
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
    """What there is to say of a folder's log, and of the others beside it. `problems` are empty where all are whole; of
    `workers`, the entries that workers have told."""

    log: str
    entries: int
    last: Entry | None
    problems: list[Problem]
    remarks: list[str]
    chain: Chain
    workers: list[Entry]


@dataclass(frozen=True, slots=True)
class Told:
    """What the topic of the workers holds: its records in order, and how many of the first, or in between, are gone."""

    lines: list[bytes]
    gone: int = 0


def check(
    audit: AuditLog, ask: Ask | None, topic: Callable[[], Told] | None = None, elsewhere: Collection[str] = ()
) -> Checked:
    """The file's chain, its head, the workers' chains, and the table beside them, where the store can be asked. `elsewhere`:
    whose files a person knows to be in other folders; of each, the table alone is looked at. Raises `TidegateError`."""
    # The table before what it is a copy of, which is ahead of it.
    counts = {row["log"]: int(row["entries"]) for row in _answer(ask, _LOGS)} if ask is not None else {}
    rows = {name: list(_rows(ask, name)) for name in counts} if ask is not None else {}
    told = topic() if topic is not None else Told([])
    lines, head = audit.lines()
    chain, known = Chain(), dict[int, bytes]()
    for line in lines:
        if (entry := chain.see(line)) is not None:
            known.setdefault(entry.seq, entry.line())
    chain.end(head, audit.ring())
    name = chain.last.log if chain.last is not None else ""
    problems, remarks = list(chain.problems), list(chain.remarks)
    there = rows.pop(name, [])
    problems += _differences(known, there, "file")
    waiting = max(known, default=0) - max((row.seq for row in there), default=0)
    if ask is not None and waiting > 0:
        remarks.append(f"{waiting:,} not in the store yet: whoever has the folder next copies them")
    workers, waiting = list[Entry](), 0
    for number, line in enumerate(told.lines, 1):
        if (entry := Entry.parse(line)) is not None:
            workers.append(entry)
        else:
            problems.append(Problem(number, "in the workers' topic cannot be read"))
    if told.gone:
        problems.append(Problem(1, f"of the workers' topic, or a later one, is gone: {told.gone:,} records are missing there"))
    for log in dict.fromkeys(entry.log for entry in workers):
        own = [entry for entry in workers if entry.log == log]
        there = rows.pop(log, [])
        problems += _of(log, _chained(own))
        if ask is not None:
            problems += _of(log, _differences({entry.seq: entry.line() for entry in own}, there, "workers' topic"))
            waiting += max(len(own) - len(there), 0)
    if waiting:
        remarks.append(f"{waiting:,} of the workers not in the store yet: the sink copies them")
    for log, there in rows.items():
        if log in elsewhere:
            problems += _of(log, _chained(there))
            remarks.append(
                f"of log {log}, which is elsewhere, {counts[log]:,} entries in the store were looked at, and no file"
            )
        else:
            what = (
                f"is in the store ({counts[log]:,} in all), and its log is not here: it was taken away; or it is another"
                f" folder's, then add --other {log}"
            )
            problems.append(Problem(1, what, log))
    return Checked(name, chain.lines, chain.last, problems, remarks, chain, workers)


def _chained(entries: Iterable[Entry]) -> list[Problem]:
    """What is wrong with a chain of which nobody has kept the head."""
    chain = Chain()
    for entry in entries:
        chain.see(entry.line())
    return chain.problems


def _of(log: str, problems: Iterable[Problem]) -> Iterator[Problem]:
    return (replace(problem, log=log) for problem in problems)


def _differences(known: dict[int, bytes], rows: list[Entry], where: str) -> Iterator[Problem]:
    """Where the table is not what the file or the topic is, as far as the table goes."""
    there = Counter(row.seq for row in rows)
    for start, end in _ranges(sorted(seq for seq in known if seq not in there and seq < max(there, default=0))):
        yield Problem(start, f"{_up_to(start, end)} missing in the store")
    for seq, times in there.items():
        if times > 1:
            yield Problem(seq, f"is in the store {times} times")
    for row in rows:
        if row.seq in known and known[row.seq] != row.line():
            yield Problem(row.seq, f"is another one in the store than in the {where}")
    for start, end in _ranges(sorted(there.keys() - known.keys())):
        yield Problem(start, f"{_up_to(start, end)} in the store and not in the {where}")


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
