"""The copy of the audit log in the store: whole, each entry once, and read no further back than where it has been."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tidegate.processors.audit_copy import AuditCopy
from tidegate.producers.audit_log import AuditLog
from tidegate.schemas.audit import Entry
from tidegate.schemas.errors import StoreUnavailable
from tidegate.sinks.clickhouse import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(path=tmp_path_factory.mktemp("audit") / "store") as opened:
        opened.migrate()
        yield opened


class Counting(AuditLog):
    """How many bytes of the file were read."""

    read = 0

    def added(self, start: int) -> Iterator[tuple[bytes, int]]:
        for line, end in super().added(start):
            self.read += len(line) + 1
            yield line, end


def write(audit: AuditLog, count: int) -> list[Entry]:
    return [audit.append("key.made", f"tenant-{number}", {"key": "k"}, actor="user:ops") for number in range(count)]


def in_store(store: Store, log: str) -> list[tuple[Any, ...]]:
    return store.query("SELECT seq, hash FROM audit WHERE log = {log:String} ORDER BY seq", {"log": log}).rows


def test_what_was_copied_is_not_read_again(store: Store, tmp_path: Path) -> None:
    audit = Counting(tmp_path)
    copy = AuditCopy(audit, store)

    entries = write(audit, 50)
    first, before = copy.run_once(), audit.read
    nothing = copy.run_once()
    entries += write(audit, 2)
    news = copy.run_once()

    assert (first, nothing, news) == (50, 0, 2)
    assert audit.read - before == sum(len(entry.line()) + 1 for entry in entries[50:])
    assert in_store(store, entries[0].log) == [(entry.seq, entry.hash) for entry in entries]


def test_half_a_line_is_copied_once_it_is_whole(store: Store, tmp_path: Path) -> None:
    audit = AuditLog(tmp_path)
    copy = AuditCopy(audit, store)
    entries = write(audit, 3)
    whole = audit.path.read_bytes()

    audit.path.write_bytes(whole[:-20])
    torn = copy.run_once()
    entries += write(audit, 1)  # which mends what is torn
    mended = copy.run_once()

    assert (torn, mended) == (2, 2)
    assert audit.path.read_bytes().startswith(whole)
    assert in_store(store, entries[0].log) == [(entry.seq, entry.hash) for entry in entries]


def test_a_file_that_was_put_in_the_place_of_another_is_read_from_its_start(store: Store, tmp_path: Path) -> None:
    audit = AuditLog(tmp_path)
    copy = AuditCopy(audit, store)
    write(audit, 5)
    copy.run_once()

    audit.path.unlink()
    audit.head_path.unlink()
    entries = write(audit, 2)

    assert copy.run_once() == 2
    assert in_store(store, entries[0].log) == [(entry.seq, entry.hash) for entry in entries]


def test_what_the_store_did_not_take_is_copied_the_next_time_and_by_whoever_begins_anew(store: Store, tmp_path: Path) -> None:
    class Away:
        def query(self, sql: str, parameters: Any = None) -> Any:
            return store.query(sql, parameters)

        def insert(self, table: str, lines: bytes, token: str) -> None:
            raise StoreUnavailable("away")

    audit, away = AuditLog(tmp_path), Away()
    entries = write(audit, 4)
    copy = AuditCopy(audit, away)

    with pytest.raises(StoreUnavailable):
        copy.run_once()
    copy._store = store
    later = copy.run_once()
    anew = AuditCopy(audit, store).run_once()

    assert (later, anew) == (4, 0)
    assert in_store(store, entries[0].log) == [(entry.seq, entry.hash) for entry in entries]
