"""Forgets a person in a data folder, from the log to the last byte of its files. The caller holds the folder's lock.

    1  remembered   a fingerprint, so that what still comes of them is counted under nobody
    2  settled      what waits in the log is metered and stored
    3  log          lines and records (`forgetting.py`); by the calls that the store names
    4  store        rows (`sinks/erasure.py`)
    5  wiped        the log's file is written anew, and the store's old parts are gone
    6  checked      rows, records and bytes are looked through again

Cut off anywhere, it is done again from the start: what is done already is not there any more.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from ...producers.audit_log import AuditLog
from ...producers.keyring import KeyRing
from ...producers.sqlite_log import SqliteLog
from ...schemas.settings import Settings
from ...sinks.clickhouse import Store
from ...sinks.erasure import StoreErasure
from ..audit_copy import AuditCopy
from ..erasure_report import ErasureReport
from ..forgetting import Eraser, Person, Traces, fingerprint_of, salt_of
from ..series import Series, series_of
from ..store_erasing import check_rows, count_rows, erase_rows, now
from .forgetting import LogErasure
from .pipeline import Pipeline

_REMAINS: Final = (
    ("backups, and copies of this folder or of the key ring", "you delete them"),
    ("spools of services that could not reach the node", "they are sent: then they count under nobody, and lie in the log for"
     " three days more"),
    ("the memory of services that run: words of policies on this person", "they are started again"),
    ("what a disk keeps of files that were deleted", "it is written over; an encrypted disk has nothing to show"),
    ("other systems: the services' own logs, the providers of the models", "you ask them"),
)  # fmt: skip


def forget_in_folder(
    settings: Settings,
    person: Person,
    ring: KeyRing,
    audit: AuditLog,
    *,
    at: Callable[[str], None] = lambda _step: None,
    old_parts_within_s: float = 600.0,
    progress: Callable[[str], None] = lambda _what: None,
) -> ErasureReport:
    """Do all of it. `at` hears of each step, for tests of crashes; `progress` of what takes long."""
    data_dir, key = settings.data_dir, ring.fingerprint_key
    fingerprint, salt = fingerprint_of(person, key), salt_of(person, key)
    report = ErasureReport(person.tenant, fingerprint, now())
    with SqliteLog(data_dir, fsync=settings.fsync) as log:
        LogErasure(log, Eraser(person, salt), {}, ring).remember(fingerprint, time.time_ns() // 1_000_000)
    at("remembered")
    progress("bringing what waits into the store")
    series = _settled(settings)
    at("settled")
    with (
        Store.open(path=None if settings.store else settings.data_dir / "store", dsn=settings.store) as store,
        SqliteLog(data_dir, fsync=settings.fsync) as log,
    ):
        rows = StoreErasure(store, person.tenant, person.user, salt, at=at)
        progress("going through the log")
        eraser = Eraser(person, salt, rows.call_ids())
        records = LogErasure(log, eraser, series, ring, at=at)
        report.log = dict(records.erase())
        at("log")
        progress("going through the store")
        erase_rows(report, rows)
        at("store")
        progress("having files written anew")
        log.wipe()
        at("wiped")
        progress("waiting until the store's old files are gone")
        check_rows(report, rows, person, old_parts_within_s)
        progress("looking for what is left")
        report.checked["records of the log"] = sum(records.found().values())
        if records.unopened:
            report.unchecked.append(f"{records.unopened:,} refused lines, sealed, that no key of this ring opens")
        same = rows.of_others()
        AuditCopy(audit, store).run_once()
    _check_files(report, data_dir, person, same)
    report.remains = list(_REMAINS)
    if settings.store is not None:
        report.remains.append(("the server's own query_log, backups and replicas", "its retention is over"))
    report.ended_at = now()
    return report


def found_in_folder(settings: Settings, person: Person, ring: KeyRing) -> ErasureReport:
    """How much there is of a person; nothing is removed."""
    report = ErasureReport(person.tenant, fingerprint_of(person, ring.fingerprint_key), now())
    series = _settled(settings)
    with (
        Store.open(path=None if settings.store else settings.data_dir / "store", dsn=settings.store) as store,
        SqliteLog(settings.data_dir) as log,
    ):
        rows = StoreErasure(store, person.tenant, person.user, "")
        report.log = dict(LogErasure(log, Eraser(person, "", rows.call_ids()), series, ring).found())
        count_rows(report, rows)
    report.ended_at = now()
    return report


def _settled(settings: Settings) -> dict[str, Series]:
    """Everything that is in the log is in the store; what is counted in it."""
    pipeline = Pipeline(settings.data_dir, settings)
    try:
        pipeline.drain()
        return series_of(pipeline.watch.current.policies)
    finally:
        pipeline.close()


def _check_files(report: ErasureReport, data_dir: Path, person: Person, same: int) -> None:
    if same:
        # It is not this person's name alone: what is found says nothing, and the rows were told apart by tenant.
        report.remains.append((f"the same id, as somebody of another tenant ({same:,} rows)", "they are forgotten, too"))
        return
    traces = Traces.of(person.user)
    found = [str(path.relative_to(data_dir)) for path in files_with(data_dir, traces)]
    report.checked[f"files of the folder, searched for {traces.described}"] = len(found)
    report.traces += [f"the file {name} has the id in it" for name in found]


def files_with(folder: Path, traces: Traces) -> Iterator[Path]:
    """Every file below a folder with a trace in it, or in its name."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        if traces.are_in(path.name.encode(errors="surrogateescape")):
            yield path
        elif path.stat().st_size:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if traces.are_in(content):
                    yield path
