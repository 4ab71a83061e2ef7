"""What is done to the workers' chains, on Kafka or in the store, is found; and so is a log that is not here any more."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from support import NOW_S
from tidegate.processors.audit_check import Checked, Told, check
from tidegate.producers.audit_log import AuditLog
from tidegate.schemas.audit import Entry

METER: Final = "a1" * 8
POLICIES: Final = "b2" * 8
ENTRIES: Final = 6
NOON: Final = datetime.fromtimestamp(NOW_S, UTC)


def chain(log: str, count: int = ENTRIES, actor: str = "user:tide") -> list[Entry]:
    made: list[Entry] = []
    for number in range(count):
        last = made[-1] if made else None
        at = NOON + timedelta(seconds=number)
        made.append(Entry.after(log, last, at, actor, "policies.in_force", details={"version": f"v{number}"}))
    return made


def told_by_two() -> list[Entry]:
    """As they stand in the topic: two workers that speak in turn."""
    return [entry for pair in zip(chain(METER), chain(POLICIES), strict=True) for entry in pair]


class Table:
    """The store's table `audit`, as it answers the two questions that are asked of it."""

    def __init__(self, rows: Sequence[Entry]) -> None:
        self._rows = rows

    def __call__(self, sql: str) -> bytes:
        if "GROUP BY log" in sql:
            names = sorted({row.log for row in self._rows})
            return self._lines([{"log": name, "entries": sum(row.log == name for row in self._rows)} for name in names])
        asked = re.search(r"log = '(\w+)' AND seq > (\d+)", sql)
        assert asked is not None
        found = [row for row in self._rows if row.log == asked[1] and row.seq > int(asked[2])]
        return self._lines([self._row(row) for row in sorted(found, key=lambda row: row.seq)])

    def _row(self, row: Entry) -> dict[str, Any]:
        told = asdict(row)
        return told | {"ms": round(datetime.fromisoformat(told.pop("at")).timestamp() * 1_000)}

    def _lines(self, rows: Sequence[dict[str, Any]]) -> bytes:
        return b"\n".join(map(orjson.dumps, rows))


def looked_at(folder: Path, rows: Sequence[Entry], told: Sequence[Entry], gone: int = 0, other: Sequence[str] = ()) -> Checked:
    return check(AuditLog(folder), Table(rows), lambda: Told([entry.line() for entry in told], gone), other)


def said(checked: Checked) -> list[str]:
    return [str(problem) for problem in checked.problems]


def changed(entry: Entry) -> Entry:
    """Written anew by who knows how entries are hashed."""
    return Entry.after(entry.log, None, NOON, "user:nobody", entry.action, entry.subject)


def test_chains_that_are_whole_on_kafka_and_in_the_store_are_nothing_to_tell(tmp_path: Path) -> None:
    whole = told_by_two()

    copied, behind = looked_at(tmp_path, whole, whole), looked_at(tmp_path, whole[:-3], whole)

    assert said(copied) == said(behind) == []
    assert (len(copied.workers), copied.remarks) == (2 * ENTRIES, [])
    assert behind.remarks == ["3 of the workers not in the store yet: the sink copies them"]


Tampering = Callable[[list[Entry], int], list[Entry]]
TAMPERING: Final[dict[str, Tampering]] = {
    "changed": lambda entries, place: [*entries[:place], changed(entries[place]), *entries[place + 1 :]],
    "taken out": lambda entries, place: [*entries[:place], *entries[place + 1 :]],
    "doubled": lambda entries, place: [*entries[: place + 1], *entries[place:]],
    "swapped": lambda entries, place: [
        *entries[:place],
        entries[place + 2],
        entries[place + 1],
        entries[place],
        *entries[place + 3 :],
    ],
}


@pytest.mark.parametrize("how", TAMPERING)
@pytest.mark.parametrize("place", range(2 * ENTRIES - 3))
def test_what_is_done_to_an_entry_is_found_with_nothing_but_the_topic(tmp_path: Path, how: str, place: int) -> None:
    tampered = TAMPERING[how](told_by_two(), place)

    found = check(AuditLog(tmp_path), None, lambda: Told([entry.line() for entry in tampered]))

    assert {problem.log for problem in found.problems} == {told_by_two()[place].log}


@pytest.mark.parametrize("how", ["changed", "taken out", "doubled"])
@pytest.mark.parametrize("place", range(2 * ENTRIES - 2))
def test_what_is_done_to_a_row_of_the_store_is_found(tmp_path: Path, how: str, place: int) -> None:
    found = looked_at(tmp_path, TAMPERING[how](told_by_two(), place), told_by_two())

    assert {problem.log for problem in found.problems} == {told_by_two()[place].log}


def test_a_cut_tail_of_the_topic_is_found_by_the_store_and_a_cut_head_by_the_offsets(tmp_path: Path) -> None:
    whole = told_by_two()

    tail, head = looked_at(tmp_path, whole, whole[:-1]), looked_at(tmp_path, whole[2:], whole[2:], gone=2)

    assert said(tail) == [f"entry 6 of log {POLICIES} is in the store and not in the workers' topic"]
    assert "entry 1 of the workers' topic, or a later one, is gone: 2 records are missing there" in said(head)
    assert f"entry 1 of log {METER} is missing at this place" in said(head)


def test_a_record_that_is_no_entry_is_named_by_its_place(tmp_path: Path) -> None:
    lines = [entry.line() for entry in told_by_two()]

    found = check(AuditLog(tmp_path), None, lambda: Told([*lines[:4], b"{}", *lines[4:]]))

    assert said(found) == ["entry 5 in the workers' topic cannot be read"]


def test_a_log_that_the_store_knows_and_the_folder_does_not_is_wrong_until_a_person_says_where_it_is(tmp_path: Path) -> None:
    rows = chain("c3" * 8)

    gone, elsewhere = looked_at(tmp_path, rows, []), looked_at(tmp_path, rows, [], other=["c3" * 8])
    forged = looked_at(tmp_path, [*rows[:2], changed(rows[2]), *rows[3:]], [], other=["c3" * 8])

    [why] = said(gone)
    assert why.startswith(f"entry 1 of log {'c3' * 8} is in the store (6 in all), and its log is not here")
    assert (said(elsewhere), len(elsewhere.remarks)) == ([], 1)
    assert forged.problems


def test_a_workers_log_that_was_taken_out_of_the_topic_whole_is_found_by_the_store(tmp_path: Path) -> None:
    found = looked_at(tmp_path, told_by_two(), chain(POLICIES))

    assert [(problem.log, problem.seq) for problem in found.problems] == [(METER, 1)]


def test_whatever_order_workers_speak_in_their_chains_are_whole(tmp_path: Path) -> None:
    moments = random.Random(20261122)
    for _ in range(50):
        left = {METER: chain(METER), POLICIES: chain(POLICIES)}
        order = [name for name in left for _ in range(ENTRIES)]
        moments.shuffle(order)

        mixed = [left[name].pop(0) for name in order]

        assert said(looked_at(tmp_path, mixed, mixed)) == []
