"""Carries the derived topics from the embedded log into ClickHouse, each row once in effect.

One batch, numbered as the crash test aborts it:

    1  cut       records after the committed offset, of one partition, to a bounded batch
    2  promise   (first, last) is stored before anything is sent
    3  insert    with the token topic:partition:first-last; the store drops what it has seen
    4  commit    offset moves behind the batch and the promise is taken back, in one transaction

After a crash a standing promise is kept first, to the letter: the same range under the same token. So the store sees
either a batch it knows, or one it does not; never half of one under another name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ...producers.sqlite_log import Record, SqliteLog
from ...schemas.settings import Settings
from ...schemas.topics import DEAD_LETTERS, Topic
from ...sinks.batching import Batch, cut
from ...sinks.clickhouse import RowsRefused, Store
from ..refused import dead_letter, refused_lines
from ..topology import SINK, TABLES

# An insert is one block in memory, several times over; this is some 50,000 rows.
_BATCH_BYTES: Final = 48 << 20
# A read ends with the record that reaches its bound; leaving room for one keeps "full" from depending on that.
_ENVELOPE_BYTES: Final = 4 << 20

_SCHEMA: Final = """CREATE TABLE IF NOT EXISTS sink_promises (
    topic TEXT, partition INTEGER, first INTEGER NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)) WITHOUT ROWID"""

_HOURS_VIEW: Final = "SELECT 1 FROM system.tables WHERE database = currentDatabase() AND name = 'calls_to_1h'"


def _nothing(_step: str) -> None:
    return None


class Sink:
    """The sink over one data folder's log. Used from one thread; `clock` is monotonic seconds."""

    def __init__(
        self,
        data_dir: Path,
        settings: Settings,
        store: Store,
        *,
        clock: Callable[[], float] = time.monotonic,
        at: Callable[[str], None] = _nothing,
    ) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._at = at
        self.log = SqliteLog(data_dir, fsync=settings.fsync)
        self._waiting_since: dict[tuple[str, int], float] = {}
        self.rows = 0
        with self.log.transaction():
            self.log.db.execute(_SCHEMA)

    def run_once(self, *, drain: bool = False) -> int:
        """Insert what is due: full batches, and rows that have waited for `sink_linger_s`; all of it when draining.

        Returns how many rows went in. Raises `StoreUnavailable`; calling again later loses nothing.
        """
        return sum(
            self._partition(topic, TABLES[topic.name], partition, drain)
            for topic in SINK.reads
            for partition in range(self.log.partitions)
        )

    def keep_promises(self) -> None:
        """Send what was promised and is not committed, and nothing else. Before the store's schema changes: a new rollup is
        made of what the store has, and would not know a batch again that it was made of. Where the view of the hours is
        missing, the migration that makes it anew was cut off, and without it the hours would lose the batch: that migration
        is ended first. It makes nothing of what the store has.
        """
        if not self._store.query(_HOURS_VIEW).rows:
            self._store.migrate(at_most=1)
        for topic in SINK.reads:
            for partition in range(self.log.partitions):
                if self._standing(topic, partition) is not None:
                    self._partition(topic, TABLES[topic.name], partition, drain=True)

    def _partition(self, topic: Topic, table: str, partition: int, drain: bool) -> int:
        promise = self._standing(topic, partition)
        if promise is not None:
            return self._insert(
                promise, table, self.log.read(topic.name, partition, promise.first, end=promise.last + 1, max_bytes=1 << 62)
            )
        start = self.log.committed(SINK.name, topic.name, partition)
        if self.log.end_offset(topic.name, partition) <= start:
            self._waiting_since.pop((topic.name, partition), None)
            return 0
        records = self.log.read(topic.name, partition, start, max_bytes=_BATCH_BYTES)
        found = cut(
            topic.name,
            partition,
            ((record.offset, int(record.headers["count"]), len(record.value)) for record in records),
            max_rows=self._settings.sink_batch_rows,
            max_bytes=_BATCH_BYTES - _ENVELOPE_BYTES,
        )
        if found is None:
            return 0
        waiting_since = self._waiting_since.setdefault((topic.name, partition), self._clock())
        if not (found.full or drain or self._clock() - waiting_since >= self._settings.sink_linger_s):
            return 0
        self._at("1 cut")
        promise = found.batch
        with self.log.transaction():
            self.log.db.execute(
                "INSERT INTO sink_promises VALUES (?, ?, ?, ?)", (topic.name, partition, promise.first, promise.last)
            )
        self._at("2 promise")
        return self._insert(promise, table, [record for record in records if record.offset <= promise.last])

    def _standing(self, topic: Topic, partition: int) -> Batch | None:
        row = self.log.db.execute(
            "SELECT first, last FROM sink_promises WHERE topic = ? AND partition = ?", (topic.name, partition)
        ).fetchone()
        return Batch(topic.name, partition, *row) if row else None

    def _insert(self, promise: Batch, table: str, records: Sequence[Record]) -> int:
        lines = b"\n".join(record.value for record in records)
        refused: list[tuple[int, bytes]] = []
        try:
            self._store.insert(table, lines, promise.token)
        except RowsRefused:
            if promise.topic == DEAD_LETTERS.name:
                raise  # there is no further place to put it; a person must look
            refused = self._without_refused(table, records, promise.token)
        self._at("3 insert")
        rows = sum(int(record.headers["count"]) for record in records)
        with self.log.transaction():
            if refused:
                self.log.append(DEAD_LETTERS.name, promise.partition, [_dead_letters(promise, refused)])
            self.log.commit_offset(SINK.name, promise.topic, promise.partition, promise.last + 1)
            self.log.db.execute(
                "DELETE FROM sink_promises WHERE topic = ? AND partition = ?", (promise.topic, promise.partition)
            )
        self._at("4 commit")
        self._waiting_since.pop((promise.topic, promise.partition), None)
        self.rows += rows
        return rows

    def _without_refused(self, table: str, records: Sequence[Record], token: str) -> list[tuple[int, bytes]]:
        """Insert all rows the store takes; return those that it refuses, with the offset of their record."""

        def takes(lines: Sequence[bytes], token: str) -> bool:
            try:
                self._store.insert(table, b"\n".join(lines), token)
            except RowsRefused:
                return False
            return True

        rows = [(record.offset, line) for record in records for line in record.value.split(b"\n")]
        return [rows[index] for index in refused_lines(takes, [line for _, line in rows], token)]

    def lag(self) -> int:
        """Log records not yet in the store."""
        return self.log.lag(SINK.name, [topic.name for topic in SINK.reads])

    def close(self) -> None:
        self.log.close()


def _dead_letters(promise: Batch, refused: Sequence[tuple[int, bytes]]) -> tuple[None, dict[str, str], bytes]:
    at = datetime.now(UTC)
    rows = [dead_letter(line, promise.topic, promise.partition, offset, at) for offset, line in refused]
    return None, {"schema": "rows/1", "count": str(len(rows))}, b"\n".join(rows)
