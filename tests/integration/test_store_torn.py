"""What a process killed in the middle of an insert leaves in the store's folder: a batch remembered and not there.

The engine writes a batch's token first and renames its part into place after; tests make that state by taking the part
away, and then send the batch again as the sink does.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tidegate.schemas.errors import StoreUnavailable
from tidegate.sinks.clickhouse import Store

COUNTED = {
    "calls": "count()",
    **dict.fromkeys(("calls_1m", "calls_1h", "calls_1d", "calls_1d_totals"), "sum(requests)"),
    "retrieval_1h": "sum(calls_with_retrieval)",
}
TABLES = tuple(COUNTED)
# Batches of ten days each, so that some lie in one month and some in two.
FIRST, SECOND, THIRD = range(0, 10), range(10, 20), range(20, 40)
NOON = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)


def insert(store: Store, numbers: range) -> None:
    """One call a day, under the token that the sink would give them."""
    lines = []
    for number in numbers:
        event = {
            "event": "response",
            "call_id": f"c{number}",
            "started_at": (NOON + timedelta(days=number)).isoformat(),
            "request_model": "gpt-4o",
            "price_status": "priced",
            "price_book": "b",
            "cost_nano_usd": 1,
            "retrieval": [{"chunk_id": "k", "score": 0.5, "source": "kb"}],
            "producer": "p",
            "seq": number,
            "ingested_at": NOON.isoformat(),
            "source_partition": 0,
            "source_offset": number,
        }
        lines.append(json.dumps(event).encode())
    store.insert("calls", b"\n".join(lines), f"metered:0:{numbers[0]}-{numbers[-1]}")


def counts(store: Store) -> dict[str, int]:
    """How many calls each table holds, as rows or as a sum."""
    return {table: store.query(f"SELECT {what} FROM {table}").rows[0][0] for table, what in COUNTED.items()}


def each(count: int) -> dict[str, int]:
    return dict.fromkeys(TABLES, count)


def filled(folder: Path, *batches: range) -> None:
    """A store that took these batches and was closed."""
    with Store.open(path=folder) as store:
        store.migrate()
        for batch in batches:
            insert(store, batch)


def place(folder: Path, table: str) -> Path:
    """Where the table's parts and logs are."""
    return (folder / "data" / "tidegate" / table).resolve()


def lose(folder: Path, table: str, first_block: int) -> None:
    """The table's parts from this block on were never renamed into place."""
    parts = [path for path in place(folder, table).glob("2026*") if int(path.name.split("_")[1]) >= first_block]
    assert parts
    for part in parts:
        shutil.rmtree(part)


def log_file(folder: Path, table: str, number: int = 1) -> Path:
    return place(folder, table) / "deduplication_logs" / f"deduplication_log_{number}.txt"


def logs(folder: Path) -> dict[str, bytes]:
    """Every table's deduplication log, byte for byte."""
    return {table: log_file(folder, table).read_bytes() for table in TABLES}


@pytest.mark.parametrize("table", TABLES)
def test_a_batch_that_is_remembered_and_not_there_is_taken_when_sent_again(tmp_path: Path, table: str) -> None:
    filled(tmp_path, FIRST, SECOND)
    lose(tmp_path, table, first_block=2)

    with Store.open(path=tmp_path) as store:
        before = counts(store)
        insert(store, SECOND)
        insert(store, SECOND)
        insert(store, FIRST)
        after = counts(store)

    assert before == each(20) | {table: 10}
    assert after == each(20)
    with Store.open(path=tmp_path) as store:
        insert(store, SECOND)
        assert counts(store) == each(20)


@pytest.mark.parametrize("table", TABLES)
def test_a_batch_of_two_months_of_which_one_is_there_gets_the_other(tmp_path: Path, table: str) -> None:
    filled(tmp_path, FIRST, THIRD)
    before = logs(tmp_path)[table].splitlines()
    lose(tmp_path, table, first_block=3)

    with Store.open(path=tmp_path) as store:
        assert counts(store)[table] < 30
        insert(store, THIRD)
        assert counts(store) == each(30)

    *unchanged, dropped, again = logs(tmp_path)[table].splitlines()
    assert unchanged == before
    assert dropped == b"2" + before[-1][1:]
    assert again.split(b"\t")[2] == before[-1].split(b"\t")[2]


def test_a_whole_store_is_left_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled(tmp_path, FIRST, SECOND, THIRD)
    before = logs(tmp_path)

    with Store.open(path=tmp_path) as store:
        insert(store, THIRD)
        assert counts(store) == each(40)

    assert logs(tmp_path) == before
    assert caplog.records == []


@pytest.mark.parametrize(
    "statement",
    [
        "OPTIMIZE TABLE calls_1m FINAL",
        "ALTER TABLE calls_1m UPDATE cost_nano_usd = cost_nano_usd WHERE 1 SETTINGS mutations_sync = 2",
    ],
)
def test_parts_that_were_merged_or_mutated_are_there(tmp_path: Path, statement: str) -> None:
    filled(tmp_path, FIRST, SECOND)
    with Store.open(path=tmp_path) as store:
        store._writer.command(statement)
        _wait_until_gone(store, "calls_1m", place(tmp_path, "calls_1m") / "202611_2_2_1")
    before = logs(tmp_path)

    with Store.open(path=tmp_path) as store:
        insert(store, SECOND)
        assert counts(store) == each(20)

    assert logs(tmp_path) == before


def _wait_until_gone(store: Store, table: str, part: Path) -> None:
    """The engine removes what it has merged a second later; while it is there it would hide what is tested."""
    deadline = time.monotonic() + 60
    while part.exists():
        assert time.monotonic() < deadline, f"{table} keeps {part.name}"
        store.query("SELECT sleep(0.05)")


def test_a_month_that_was_dropped_changes_nothing_in_the_others(tmp_path: Path) -> None:
    filled(tmp_path, FIRST, THIRD)
    with Store.open(path=tmp_path) as store:
        store._writer.command("ALTER TABLE calls_1m DROP PARTITION 202612")
        kept = counts(store)["calls_1m"]
    before = logs(tmp_path)

    with Store.open(path=tmp_path) as store:
        insert(store, FIRST)
        assert counts(store) == each(30) | {"calls_1m": kept}

    assert logs(tmp_path) == before


def test_a_torn_batch_is_found_behind_the_dropping_of_a_month(tmp_path: Path) -> None:
    filled(tmp_path, FIRST, THIRD)
    came = logs(tmp_path)["calls_1m"].splitlines()
    lose(tmp_path, "calls_1m", first_block=2)
    # The engine dropped December while November's part of the same batch had no place yet.
    with open(log_file(tmp_path, "calls_1m"), "ab") as log:
        log.write(b"2" + came[-1][1:] + b"\n")

    with Store.open(path=tmp_path) as store:
        insert(store, THIRD)
        assert counts(store) == each(30)


def test_a_part_that_went_missing_before_the_last_insert_stays_remembered(tmp_path: Path) -> None:
    filled(tmp_path, FIRST, SECOND)
    shutil.rmtree(place(tmp_path, "calls_1m") / "202611_1_1_1")
    before = logs(tmp_path)

    with Store.open(path=tmp_path) as store:
        insert(store, FIRST)
        assert counts(store) == each(20) | {"calls_1m": 10}

    assert logs(tmp_path) == before


def test_what_is_torn_is_found_in_the_file_before_the_last(tmp_path: Path) -> None:
    filled(tmp_path, FIRST, SECOND)
    lose(tmp_path, "calls_1h", first_block=2)
    log_file(tmp_path, "calls_1h", 2).touch()  # begun after every 20,000th record

    with Store.open(path=tmp_path) as store:
        insert(store, SECOND)
        assert counts(store) == each(20)

    with Store.open(path=tmp_path) as store:
        insert(store, SECOND)
        assert counts(store) == each(20)


def test_a_record_cut_off_in_the_middle_does_not_make_the_next_ones_unreadable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path, FIRST)
    with open(log_file(tmp_path, "calls_1m"), "ab") as log:
        log.write(b"1\t202611_2_")
    with Store.open(path=tmp_path) as store:
        insert(store, SECOND)

    with Store.open(path=tmp_path) as store:
        insert(store, SECOND)
        assert counts(store) == each(20)

    [record] = caplog.records
    assert record.getMessage().endswith("forgotten= cut_bytes=11")


@pytest.mark.parametrize(
    ("broken", "written"),
    [
        ("a kind of record that is not known", b"3\t202611_3_3_1\t202611_1_1\n"),
        ("a part's name that is none", b"1\tNovember\t202611_1_1\n"),
        ("one field more", b"1\t202611_3_3_1\t202611_1_1\t1793606400\n"),
        ("no text", b"1\t202611_3_3_1\t\xff\xfe\n"),
        ("a tail of zeros", b"\0\0\0\0"),
    ],
)
def test_a_log_that_is_not_understood_is_left_alone_and_said_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str, written: bytes
) -> None:
    filled(tmp_path, FIRST, SECOND)
    lose(tmp_path, "calls", first_block=2)
    lose(tmp_path, "calls_1m", first_block=2)
    with open(log_file(tmp_path, "calls_1m"), "ab") as log:
        log.write(written)
    before = logs(tmp_path)

    with Store.open(path=tmp_path) as store:
        insert(store, SECOND)
        assert counts(store)["calls"] == 20, "the other tables are mended all the same"

    assert logs(tmp_path)["calls_1m"].startswith(before["calls_1m"]), broken
    said = [(record.levelno, record.getMessage()) for record in caplog.records if "unknown" in record.getMessage()]
    assert [level for level, _ in said] == [logging.WARNING]
    assert place(tmp_path, "calls_1m").name in said[0][1]


def test_a_file_of_another_name_among_the_logs_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled(tmp_path, FIRST, SECOND)
    lose(tmp_path, "calls_1m", first_block=2)
    # By a name that the engine itself still reads as its first.
    strange = log_file(tmp_path, "calls_1m").rename(log_file(tmp_path, "calls_1m").with_suffix(".v2"))
    before = strange.read_bytes()

    Store.open(path=tmp_path).close()

    assert strange.read_bytes() == before
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_the_logs_of_a_live_engine_are_not_touched(tmp_path: Path) -> None:
    filled(tmp_path, FIRST, SECOND)

    with Store.open(path=tmp_path):
        before = logs(tmp_path)
        lose(tmp_path, "calls_1m", first_block=2)
        with Store.open(path=tmp_path, database="other"):
            pass

    assert logs(tmp_path) == before


def test_a_log_that_cannot_be_read_keeps_the_store_shut(tmp_path: Path) -> None:
    filled(tmp_path, FIRST)
    log_file(tmp_path, "calls_1m", 2).mkdir()

    with pytest.raises(StoreUnavailable, match="cannot be mended: Is a directory"):
        Store.open(path=tmp_path)
