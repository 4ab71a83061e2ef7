"""The audit log: every single thing that can be done to it is found, and the entry it was done to is named."""

from __future__ import annotations

import itertools
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import NOW_S
from tidegate.producers.audit_chain import Chain
from tidegate.producers.audit_head import Head
from tidegate.producers.audit_keys import tell_keys
from tidegate.producers.audit_log import FILE, HEAD, AuditLog
from tidegate.producers.key_source import FolderKeys
from tidegate.producers.keyring import Key, KeyRing
from tidegate.schemas.audit import MAX_LINE_BYTES, Entry
from tidegate.schemas.errors import UsageError

RING: Final = KeyRing.made()
ENTRIES: Final = 7


class Aborted(BaseException):
    """The process is killed here."""


def clock() -> Callable[[], datetime]:
    seconds = itertools.count(NOW_S)
    return lambda: datetime.fromtimestamp(next(seconds), UTC)


def log(folder: Path, ring: KeyRing | None = RING, at: Callable[[str], None] = lambda _step: None) -> AuditLog:
    return AuditLog(folder, lambda: ring, now=clock(), at=at)


def filled(folder: Path, ring: KeyRing | None = RING) -> AuditLog:
    audit = log(folder, ring)
    for number in range(ENTRIES):
        audit.append("key.made", f"tenant-{number}", {"key": f"k-{number}"}, actor="user:ops")
    return audit


def looked_at(audit: AuditLog, ring: KeyRing | None = RING) -> Chain:
    chain = Chain()
    lines, head = audit.lines()
    for line in lines:
        chain.see(line)
    chain.end(head, ring)
    return chain


def judged(lines: Iterable[bytes], head: Head | None) -> Chain:
    chain = Chain()
    for line in lines:
        chain.see(line)
    chain.end(head, RING)
    return chain


def lines_of(audit: AuditLog) -> list[bytes]:
    return audit.path.read_bytes().splitlines()


def rewrite(audit: AuditLog, lines: list[bytes]) -> None:
    audit.path.write_bytes(b"".join(line + b"\n" for line in lines))


def hashed_anew(entry: Entry, **changes: str) -> Entry:
    changed = replace(entry, **changes)
    return replace(changed, hash=changed.computed_hash())


def chained_anew(lines: list[bytes]) -> list[bytes]:
    """The same entries with every link made new, as somebody would who has no key."""
    prev, out = "0" * 64, []
    for number, line in enumerate(lines, 1):
        entry = Entry.parse(line)
        assert entry is not None
        entry = replace(entry, seq=number, prev_hash=prev)
        entry = replace(entry, hash=entry.computed_hash())
        prev = entry.hash
        out.append(entry.line())
    return out


def entries(audit: AuditLog) -> Iterator[Entry]:
    for line in lines_of(audit):
        entry = Entry.parse(line)
        assert entry is not None
        yield entry


# ---- as it should be


def test_a_log_that_nobody_touched_is_whole(tmp_path: Path) -> None:
    audit = filled(tmp_path)

    chain = looked_at(audit)

    assert (chain.problems, chain.remarks, chain.lines) == ([], [], ENTRIES)
    assert [entry.seq for entry in entries(audit)] == list(range(1, ENTRIES + 1))
    assert next(entries(audit)).at == "2026-11-02T08:00:00.000Z"
    assert stat.S_IMODE(audit.path.stat().st_mode) == stat.S_IMODE(audit.head_path.stat().st_mode) == 0o600


def test_no_log_is_no_problem_and_makes_no_file(tmp_path: Path) -> None:
    chain = looked_at(log(tmp_path / "none"))

    assert (chain.problems, chain.lines) == ([], 0)
    assert not (tmp_path / "none").exists()


def test_several_that_write_at_once_make_one_chain(tmp_path: Path) -> None:
    def writes() -> None:
        for _ in range(10):
            log(tmp_path).append("node.started")

    threads = [threading.Thread(target=writes) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    chain = looked_at(log(tmp_path))
    assert (chain.problems, chain.lines) == ([], 40)


def test_an_entry_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()

    with pytest.raises(UsageError, match="cannot be written"):
        log(tmp_path).append("node.started")
    with pytest.raises(UsageError, match="at most"):
        log(tmp_path / "other").append("quarantine.released", details={"places": ["0:1"] * MAX_LINE_BYTES})


# ---- every single change

PLACES: Final = st.integers(min_value=1, max_value=ENTRIES)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> AuditLog:
    return filled(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def copy(template: AuditLog, scratch: Path) -> Callable[[], AuditLog]:
    def made() -> AuditLog:
        for name in (FILE, HEAD):
            (scratch / name).write_bytes((template.path.parent / name).read_bytes())
        return log(scratch)

    return made


@given(
    place=PLACES, field=st.sampled_from(("log", "at", "actor", "action", "subject", "prev_hash", "hash")), anew=st.booleans()
)
def test_a_changed_entry_is_named(template: AuditLog, place: int, field: str, anew: bool) -> None:
    lines, head = lines_of(template), Head.read(template.head_path)
    entry = Entry.parse(lines[place - 1])
    assert entry is not None
    changed = {field: "f" * 64}
    lines[place - 1] = (hashed_anew(entry, **changed) if anew and field != "hash" else replace(entry, **changed)).line()

    chain = judged(lines, head)

    assert place in {problem.seq for problem in chain.problems}


@given(place=PLACES, at=st.integers(min_value=0), byte=st.integers(min_value=0, max_value=255))
def test_a_changed_byte_is_named(template: AuditLog, place: int, at: int, byte: int) -> None:
    lines, head = lines_of(template), Head.read(template.head_path)
    line = bytearray(lines[place - 1])
    line[at % len(line)] ^= byte or 1
    lines[place - 1] = bytes(line)

    chain = judged(b"\n".join(lines).split(b"\n"), head)

    assert place in {problem.seq for problem in chain.problems}


@given(first=PLACES, second=PLACES)
def test_two_entries_that_were_swapped_are_named(template: AuditLog, first: int, second: int) -> None:
    if first == second:
        return
    first, second = sorted((first, second))
    lines, head = lines_of(template), Head.read(template.head_path)
    lines[first - 1], lines[second - 1] = lines[second - 1], lines[first - 1]

    chain = judged(lines, head)

    assert first in {problem.seq for problem in chain.problems}


@given(place=PLACES, behind=PLACES)
def test_an_entry_that_stands_twice_is_named(template: AuditLog, place: int, behind: int) -> None:
    lines, head = lines_of(template), Head.read(template.head_path)
    lines.insert(max(place, behind), lines[place - 1])

    chain = judged(lines, head)

    assert {problem.seq for problem in chain.problems} == {place}


@given(first=PLACES, count=st.integers(min_value=1, max_value=ENTRIES))
def test_entries_that_were_taken_away_are_named(template: AuditLog, first: int, count: int) -> None:
    lines, head = lines_of(template), Head.read(template.head_path)
    del lines[first - 1 : first - 1 + count]

    chain = judged(lines, head)

    assert first in {problem.seq for problem in chain.problems}


@given(kept=st.integers(min_value=0, max_value=ENTRIES - 1), more=st.integers(min_value=1, max_value=3))
def test_a_tail_that_was_cut_off_is_still_named_after_more_was_written(
    copy: Callable[[], AuditLog], kept: int, more: int
) -> None:
    audit = copy()
    rewrite(audit, lines_of(audit)[:kept])
    before = looked_at(audit)

    for _ in range(more):
        audit.append("node.started")

    assert [problem.seq for problem in before.problems] == [kept + 1] + [ENTRIES] * (kept < ENTRIES)
    after = {problem.seq for problem in looked_at(audit).problems}
    # One that is in the head is not lost: it is written again.
    assert after == (set() if kept == ENTRIES - 1 else {kept + 1})


@given(kept=st.integers(min_value=1, max_value=ENTRIES))
def test_who_has_no_key_cannot_make_another_chain_of_it(copy: Callable[[], AuditLog], kept: int) -> None:
    audit = copy()
    old = Head.read(audit.head_path)
    assert old is not None
    forged = chained_anew(
        [hashed.line() for hashed in (replace(entry, actor="user:nobody") for entry in entries(audit))][:kept]
    )
    rewrite(audit, forged)
    newest = Entry.parse(forged[-1])
    assert newest is not None
    Head(newest, replace(old.signature, seq=newest.seq, hash=newest.hash) if old.signature else None).write(audit.head_path)

    before = looked_at(audit)
    audit.append("node.started")
    after = looked_at(audit)

    assert [problem.seq for problem in before.problems] == [kept]
    assert [str(problem) for problem in after.problems] == [
        f"entry {kept + 1} tells that the head before it was lost, or not ours"
    ]


def test_a_signature_that_was_taken_away_is_missed(tmp_path: Path) -> None:
    audit = filled(tmp_path)
    head = Head.read(audit.head_path)
    assert head is not None
    Head(head.entry, None).write(audit.head_path)

    before = looked_at(audit)

    assert [str(problem) for problem in before.problems] == [
        "entry 7 is not signed, though there is a key ring: run with it, or taken away"
    ]


def test_a_head_that_was_taken_away_is_missed_for_ever(tmp_path: Path) -> None:
    audit = filled(tmp_path)
    audit.head_path.unlink()

    before = looked_at(audit)
    audit.append("node.started")
    after = looked_at(audit)

    assert [problem.seq for problem in before.problems] == [ENTRIES]
    assert [problem.seq for problem in after.problems] == [ENTRIES + 1]


def test_whoever_hashes_the_chain_anew_without_a_key_ring_anywhere_is_not_found_by_the_file_alone(tmp_path: Path) -> None:
    audit = filled(tmp_path, ring=None)
    forged = chained_anew([replace(entry, actor="user:nobody").line() for entry in entries(audit)])
    rewrite(audit, forged)
    newest = Entry.parse(forged[-1])
    assert newest is not None
    Head(newest, None).write(audit.head_path)

    chain = looked_at(audit, None)

    assert chain.problems == []
    assert chain.remarks == ["not signed: without a key ring, who can write the log can also write it anew"]


# ---- writers with and without the ring


def test_signing_begins_when_there_is_a_ring_and_the_log_says_when(tmp_path: Path) -> None:
    log(tmp_path, None).append("node.started")

    log(tmp_path).append("node.stopped")

    chain = looked_at(log(tmp_path))
    assert [entry.action for entry in entries(log(tmp_path))] == ["node.started", "audit.signed", "node.stopped"]
    assert (chain.problems, chain.remarks) == ([], ["signed from entry 2 on; before that there was no key ring"])


def test_a_writer_without_the_ring_leaves_the_signature_to_the_next_that_has_it(tmp_path: Path) -> None:
    audit = filled(tmp_path)
    for _ in range(3):
        log(tmp_path, None).append("transcripts.read")

    between = looked_at(audit)
    audit.append("node.stopped")
    after = looked_at(audit)

    assert between.problems == []
    assert between.remarks == [f"the entries after {ENTRIES} were written without the key ring, and are chained only"]
    assert (after.problems, after.remarks, after.lines) == ([], [], ENTRIES + 4)


def test_what_was_written_without_the_ring_hides_no_signed_entry_that_is_gone(tmp_path: Path) -> None:
    audit = filled(tmp_path)
    log(tmp_path, None).append("transcripts.read")
    rewrite(audit, [line for number, line in enumerate(lines_of(audit), 1) if number != ENTRIES])

    audit.append("node.stopped")

    assert [problem.seq for problem in looked_at(audit).problems] == [ENTRIES, ENTRIES + 2]


def test_another_ring_neither_vouches_for_the_log_nor_signs_it(tmp_path: Path) -> None:
    audit = filled(tmp_path)
    other = KeyRing.made()

    log(tmp_path, other).append("node.started")

    with_other, with_none, with_own = looked_at(audit, other), looked_at(audit, None), looked_at(audit)
    assert "is it the right ring?" in str(with_other.problems[0])
    assert (with_none.problems, "was not checked" in with_none.remarks[0]) == ([], True)
    assert (with_own.problems, "without the key ring" in with_own.remarks[0]) == ([], True)


# ---- crashes


@pytest.mark.parametrize("step", ["1 head", "2 line"])
@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_writer_that_is_killed_leaves_a_log_that_the_next_one_mends(tmp_path: Path, step: str, before: int) -> None:
    for _ in range(before):
        log(tmp_path).append("node.started")

    def abort(at: str) -> None:
        if at == step:
            raise Aborted

    with pytest.raises(Aborted):
        log(tmp_path, at=abort).append("key.made", "harbor-health")
    log(tmp_path).append("node.stopped")

    chain = looked_at(log(tmp_path))
    assert (chain.problems, chain.lines) == ([], before + 2)
    assert [entry.action for entry in entries(log(tmp_path))][-2:] == ["key.made", "node.stopped"]


@given(cut=st.integers(min_value=1))
def test_half_a_line_is_written_whole_by_the_next_one(copy: Callable[[], AuditLog], cut: int) -> None:
    audit = copy()
    last = len(lines_of(audit)[-1]) + 1
    os.truncate(audit.path, audit.path.stat().st_size - 1 - cut % last)

    audit.append("node.stopped")

    chain = looked_at(audit)
    assert (chain.problems, chain.lines) == ([], ENTRIES + 1)


def test_half_a_line_of_somebody_else_stays_to_be_seen(tmp_path: Path) -> None:
    audit = filled(tmp_path)
    with audit.path.open("ab") as file:
        file.write(b'{"log": "half')

    audit.append("node.stopped")

    assert [problem.seq for problem in looked_at(audit).problems] == [ENTRIES + 1]
    assert orjson.loads(lines_of(audit)[-1])["seq"] == ENTRIES + 1


def test_times_are_in_utc_to_the_millisecond() -> None:
    at = datetime(2026, 11, 2, 9, 0, 0, 123_456, tzinfo=UTC) + timedelta(hours=1)

    entry = Entry.after("log", None, at, "user:ops", "node.started", details={"b": 1, "a": [2]})

    assert (entry.at, entry.details) == ("2026-11-02T10:00:00.123Z", '{"a":[2],"b":1}')
    assert Entry.parse(entry.line()) == entry


# ---- rings


def test_a_ring_that_was_never_kept_stays_to_be_seen(tmp_path: Path) -> None:
    class Dying(FolderKeys):
        def _tell(self, before: KeyRing | None, after: KeyRing) -> None:
            super()._tell(before, after)
            raise Aborted

    with pytest.raises(Aborted):
        Dying(tmp_path).ring()
    ring = FolderKeys(tmp_path).ring()

    chain = looked_at(AuditLog(tmp_path), ring)
    assert [entry.action for entry in entries(AuditLog(tmp_path))] == ["key.made", "audit.resumed", "key.made"]
    assert [problem.seq for problem in chain.problems] == [2]


def test_a_ring_that_comes_with_the_first_text_of_a_tenant_signs_from_its_first_entry(tmp_path: Path) -> None:
    keys = FolderKeys(tmp_path)
    keys.sealing("harbor-health")
    keys.sealing("harbor-health")

    chain = looked_at(AuditLog(tmp_path), keys.ring())
    told = [(entry.action, entry.subject) for entry in entries(AuditLog(tmp_path))]
    assert told == [("key.made", "everybody"), ("key.made", "harbor-health")]
    assert (chain.problems, chain.remarks) == ([], [])


def test_a_rotation_that_was_cut_off_is_signed_by_the_ring_that_stayed(tmp_path: Path) -> None:
    keys = FolderKeys(tmp_path)
    before = keys.ring()
    after = before.retiring(*(key.key_id for key in before.keys)).adding(Key.made(None))

    tell_keys(AuditLog(tmp_path), before, after, own=True)

    chain = looked_at(AuditLog(tmp_path), keys.ring())
    assert [entry.action for entry in entries(AuditLog(tmp_path))][-2:] == ["key.retired", "key.made"]
    assert (chain.problems, chain.remarks) == ([], [])
