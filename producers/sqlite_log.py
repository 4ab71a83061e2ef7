"""The embedded log: topics with partitions and offsets in one SQLite file in WAL mode.

Several processes append at once; one node consumes. Offsets grow from 0 in each partition and are never reused. They are
dense, but for the quarantine, where a person takes some out, and compacted topics: of these only the last record of each key
stays, so a reader finds gaps, and reading from the start and then following always ends at the last word on every key. An empty
value takes a key back.

    partitions(topic, partition, next_offset)         where each partition ends
    "records/<topic>/<partition>"(offset, ...)        what was appended, with the time of the append
    offsets(consumer_group, topic, partition, next_offset)   how far each consumer has come

Durability is SQLite's: `full` waits for the disk on every commit (an accepted event survives a power cut), `normal`
leaves that to the next checkpoint (it survives a crash of the process).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple, Self

import orjson

from ..schemas.errors import LogUnavailable, UsageError
from ..schemas.topics import TOPICS

FILE_NAME: Final = "log.sqlite"
_FORMAT: Final = "1"
# The node holds the write lock for some 10 ms a flush; ten seconds of waiting means that something is wrong.
_BUSY_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the log. `appended_ms` is the log's clock at the append, milliseconds since 1970."""

    offset: int
    appended_ms: int
    value: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    key: bytes | None = None


class Oldest(NamedTuple):
    """The oldest `records` of a partition: those below `end`, with values of `size_bytes` in all."""

    end: int
    records: int
    size_bytes: int


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class SqliteLog:
    """One connection to the log of a data folder. Not shared between threads: open one in each.

    Raises `LogUnavailable` when the file is busy for too long, cannot be made or the disk is full, `UsageError` when the
    folder was made with other settings.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        partitions: int | None = None,
        fsync: Literal["full", "normal"] = "full",
        clock_ms: Callable[[], int] = _now_ms,
    ) -> None:
        self.path = data_dir / FILE_NAME
        self._clock_ms = clock_ms
        try:
            data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not self.path.exists():
                self.path.touch(mode=0o600)
        except OSError as error:
            raise LogUnavailable(f"{self.path}: {error.strerror}", retry_after_s=0.2) from error
        with _translated(self.path):
            self.db = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
            try:
                self._switch_to_wal()
                self.db.execute(f"PRAGMA synchronous={fsync.upper()}")
                # A quarter of a gigabyte mapped saves a copy per read; the log is read once, in order.
                self.db.execute("PRAGMA mmap_size=268435456")
                self.partitions = self._prepare(partitions)
            except BaseException:
                self.db.close()
                raise

    @classmethod
    def exists(cls, data_dir: Path) -> bool:
        """Whether a data folder has a log with anything in it."""
        path = data_dir / FILE_NAME
        return path.is_file() and path.stat().st_size > 0

    def _switch_to_wal(self) -> None:
        """SQLite's busy timeout does not hold here: of processes that open a new file at once, all but one are refused."""
        deadline = time.monotonic() + _BUSY_TIMEOUT_S
        while True:
            try:
                self.db.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.005)

    def _prepare(self, partitions: int | None) -> int:
        row = None
        if self.db.execute("SELECT 1 FROM sqlite_master WHERE name = 'log_format'").fetchone():
            row = self.db.execute("SELECT version, partitions FROM log_format").fetchone()
        if row is None:
            row = self._create(partitions or 1)
        version, found = row
        if version != _FORMAT:
            raise UsageError(f"{self.path} has log format {version}; this version of Tidegate reads {_FORMAT}")
        if partitions is not None and partitions != found:
            raise UsageError(
                f"{self.path} was made with {found} partitions, not {partitions}: the number is fixed, because a producer's "
                "events must stay in one partition to be counted once. Set TIDEGATE_PARTITIONS to match, or use a new folder."
            )
        self._add_topics(int(found))
        return int(found)

    def _add_topics(self, partitions: int) -> None:
        """Make what this version knows and the folder does not have yet."""
        known = set(self.db.execute("SELECT topic, partition FROM partitions"))
        wanted = {(topic, partition) for topic in TOPICS for partition in range(partitions)}
        if wanted <= known:
            return
        with self.transaction():
            for topic, partition in sorted(wanted):
                table = _table(topic, partition)
                self.db.execute(
                    f"CREATE TABLE IF NOT EXISTS {table} (offset INTEGER PRIMARY KEY, appended_ms INTEGER NOT NULL,"
                    " key BLOB, headers TEXT NOT NULL, value BLOB NOT NULL)"
                )
                if TOPICS[topic].compacted:
                    self.db.execute(f"CREATE INDEX IF NOT EXISTS {_index(topic, partition)} ON {table} (key)")
                    self.db.execute(
                        f'CREATE INDEX IF NOT EXISTS "tombstones/{topic}/{partition}" ON {table} (offset)'
                        " WHERE length(value) = 0"
                    )
                self.db.execute("INSERT OR IGNORE INTO partitions VALUES (?, ?, 0)", (topic, partition))

    def _create(self, partitions: int) -> tuple[str, int]:
        with self.transaction():
            if self.db.execute("SELECT 1 FROM sqlite_master WHERE name = 'log_format'").fetchone():
                # another process was faster
                row: tuple[str, int] = self.db.execute("SELECT version, partitions FROM log_format").fetchone()
                return row
            self.db.execute("CREATE TABLE log_format (version TEXT NOT NULL, partitions INTEGER NOT NULL)")
            self.db.execute("INSERT INTO log_format VALUES (?, ?)", (_FORMAT, partitions))
            self.db.execute(
                "CREATE TABLE partitions (topic TEXT, partition INTEGER, next_offset INTEGER NOT NULL,"
                " PRIMARY KEY (topic, partition)) WITHOUT ROWID"
            )
            self.db.execute(
                "CREATE TABLE offsets (consumer_group TEXT, topic TEXT, partition INTEGER, next_offset INTEGER NOT NULL,"
                " PRIMARY KEY (consumer_group, topic, partition)) WITHOUT ROWID"
            )
            return _FORMAT, partitions

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, with the write lock held from the start."""
        with _translated(self.path):
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:  # a full disk may have rolled back already
                    self.db.execute("ROLLBACK")
                raise

    def append(
        self, topic: str, partition: int, records: Iterable[tuple[bytes | None, Mapping[str, str], bytes]]
    ) -> tuple[int, int]:
        """Append `(key, headers, value)` in order, inside a `transaction`. Returns first offset and the one after the last.

        Raises `ValueError` for a record without a key in a compacted topic: nobody could ever say anything newer.
        """
        (first,) = self.db.execute(
            "SELECT next_offset FROM partitions WHERE topic = ? AND partition = ?", (topic, partition)
        ).fetchone()
        now_ms = self._clock_ms()
        rows = [
            (offset, now_ms, key, orjson.dumps(headers).decode(), value)
            for offset, (key, headers, value) in enumerate(records, first)
        ]
        end = first + len(rows)
        if rows:
            if TOPICS[topic].compacted:
                if any(row[2] is None for row in rows):
                    raise ValueError(f"{topic} is compacted: every record needs a key")
                self.db.executemany(f"DELETE FROM {_table(topic, partition)} WHERE key = ?", {(row[2],) for row in rows})
                rows = list({row[2]: row for row in rows}.values())
            self.db.executemany(f"INSERT INTO {_table(topic, partition)} VALUES (?, ?, ?, ?, ?)", rows)
            self.db.execute("UPDATE partitions SET next_offset = ? WHERE topic = ? AND partition = ?", (end, topic, partition))
        return first, end

    def read(self, topic: str, partition: int, start: int, *, end: int | None = None, max_bytes: int = 8 << 20) -> list[Record]:
        """Records from offset `start` on (to before `end`), in order, until `max_bytes` are reached; at least one if any."""
        records: list[Record] = []
        size = 0
        with _translated(self.path):
            cursor = self.db.execute(
                f"SELECT offset, appended_ms, value, headers, key FROM {_table(topic, partition)}"
                " WHERE offset >= ? AND offset < ? ORDER BY offset",
                (start, 2**62 if end is None else end),
            )
            for offset, appended_ms, value, headers, key in cursor:
                records.append(Record(offset, appended_ms, value, orjson.loads(headers), key))
                size += len(value) + 100
                if size >= max_bytes:
                    break
            cursor.close()
        return records

    def last(self, topic: str, partition: int, key: bytes) -> Record | None:
        """The record in force of a key in a compacted topic."""
        with _translated(self.path):
            row = self.db.execute(
                f"SELECT offset, appended_ms, value, headers, key FROM {_table(topic, partition)} WHERE key = ?"
                " ORDER BY offset DESC LIMIT 1",
                (key,),
            ).fetchone()
        return Record(row[0], row[1], row[2], orjson.loads(row[3]), row[4]) if row else None

    def keyed(self, topic: str, partition: int, prefix: bytes) -> list[Record]:
        """The records in force of a compacted topic whose keys begin with `prefix`, oldest first."""
        with _translated(self.path):
            rows = self.db.execute(
                f"SELECT offset, appended_ms, value, headers, key FROM {_table(topic, partition)}"
                " WHERE key >= ? AND key < ? ORDER BY offset",
                (prefix, prefix + b"\xff"),
            ).fetchall()
        return [Record(row[0], row[1], row[2], orjson.loads(row[3]), row[4]) for row in rows]

    def end_offset(self, topic: str, partition: int) -> int:
        """The offset that the next append to the partition will get."""
        with _translated(self.path):
            row = self.db.execute(
                "SELECT next_offset FROM partitions WHERE topic = ? AND partition = ?", (topic, partition)
            ).fetchone()
        return int(row[0])

    def committed(self, group: str, topic: str, partition: int) -> int:
        """The offset a consumer group reads next; 0 before its first commit."""
        with _translated(self.path):
            row = self.db.execute(
                "SELECT next_offset FROM offsets WHERE consumer_group = ? AND topic = ? AND partition = ?",
                (group, topic, partition),
            ).fetchone()
        return int(row[0]) if row else 0

    def commit_offset(self, group: str, topic: str, partition: int, next_offset: int) -> None:
        """Record how far a group has come; inside the `transaction` that holds what it did."""
        self.db.execute(
            "INSERT INTO offsets VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset",
            (group, topic, partition, next_offset),
        )

    def lag(self, group: str, topics: Iterable[str]) -> int:
        """How many records of the topics a group has not passed. What retention has taken unread waits for nobody."""
        return sum(self._unpassed(group, topic, partition) for topic in topics for partition in range(self.partitions))

    def _unpassed(self, group: str, topic: str, partition: int) -> int:
        passed = max(self.committed(group, topic, partition), self._begin(topic, partition))
        return self.end_offset(topic, partition) - passed

    def _begin(self, topic: str, partition: int) -> int:
        """The offset of the first record that is there; the end where there is none."""
        with _translated(self.path):
            (first,) = self.db.execute(f"SELECT min(offset) FROM {_table(topic, partition)}").fetchone()
        return self.end_offset(topic, partition) if first is None else int(first)

    def waiting_bytes(self, group: str, topic: str) -> int:
        """Roughly how much a group has not read yet, bytes; from one record in sixteen where there are many."""
        total = 0
        with _translated(self.path):
            for partition in range(self.partitions):
                start, end = self.committed(group, topic, partition), self.end_offset(topic, partition)
                stride = 16 if end - start > 1_000 else 1
                (size,) = self.db.execute(
                    f"SELECT coalesce(sum(length(value)), 0) FROM {_table(topic, partition)}"
                    " WHERE offset >= ? AND offset % ? = 0",
                    (start, stride),
                ).fetchone()
                total += size * stride
        return total

    def waiting_bytes_guessed(self, group: str, topic: str) -> int:
        """The same from the newest few records and their number: for large ones, of which many may wait for long, and which
        may be trimmed unread."""
        total = 0
        with _translated(self.path):
            for partition in range(self.partitions):
                table = _table(topic, partition)
                (first,) = self.db.execute(f"SELECT min(offset) FROM {table}").fetchone()
                start, end = self.committed(group, topic, partition), self.end_offset(topic, partition)
                if first is not None and max(start, first) < end:
                    newest = f"SELECT length(value) AS size FROM {table} ORDER BY offset DESC LIMIT 64"
                    (mean,) = self.db.execute(f"SELECT avg(size) FROM ({newest})").fetchone()
                    total += int((end - max(start, first)) * mean)
        return total

    def oldest(
        self, topic: str, partition: int, below: int, older_than_ms: int, limit: int = 500, max_bytes: int = 4 << 20
    ) -> Oldest:
        """The oldest records as long as they are below an offset and older than a time: `limit` of them at most, up to the one
        that reaches `max_bytes`. Looks no further than to the first that stays, and at no value."""
        end = records = size = 0
        with _translated(self.path):
            cursor = self.db.execute(
                f"SELECT offset, appended_ms, length(value) FROM {_table(topic, partition)} WHERE offset < ?"
                " ORDER BY offset LIMIT ?",
                (below, limit),
            )
            for offset, appended_ms, length in cursor:
                if appended_ms >= older_than_ms or size >= max_bytes:
                    break
                end, records, size = offset + 1, records + 1, size + length
            cursor.close()
        return Oldest(end, records, size)

    def trim(self, topic: str, partition: int, below: int, older_than_ms: int, limit: int = 500) -> int:
        """Delete the `oldest` records, so few at once that whoever waits to append waits for milliseconds. Returns how
        many."""
        found = self.oldest(topic, partition, below, older_than_ms, limit)
        if found.records:
            with self.transaction():
                self.db.execute(f"DELETE FROM {_table(topic, partition)} WHERE offset < ?", (found.end,))
        return found.records

    def remove(self, topic: str, partition: int, offset: int) -> bool:
        """Delete one record, inside a `transaction`: a person has seen to it. Whether it was there."""
        return bool(self.db.execute(f"DELETE FROM {_table(topic, partition)} WHERE offset = ?", (offset,)).rowcount)

    def rewrite(self, topic: str, partition: int, offset: int, value: bytes, headers: Mapping[str, str]) -> None:
        """Put something else in the place of a record that is there, inside a `transaction`: for what may not be kept."""
        self.db.execute(
            f"UPDATE {_table(topic, partition)} SET value = ?, headers = ? WHERE offset = ?",
            (value, orjson.dumps(dict(headers)).decode(), offset),
        )

    def wipe(self) -> None:
        """Leave nothing in the file of what was deleted, or put in another's place. Takes as long as writing the file anew, and
        that much room. Raises `LogUnavailable` while somebody else reads."""
        with _translated(self.path):
            self.db.execute("VACUUM")
            (busy, *_) = self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise LogUnavailable(f"{self.path}: somebody reads it, so what was deleted is still in it", retry_after_s=1.0)

    def size_bytes(self, topic: str, partition: int, start: int = 0) -> int:
        """What the values of the records from offset `start` on have together. Looks at each record, not at what is in it."""
        with _translated(self.path):
            (size,) = self.db.execute(
                f"SELECT coalesce(sum(length(value)), 0) FROM {_table(topic, partition)} WHERE offset >= ?", (start,)
            ).fetchone()
        return int(size)

    def trim_tombstones(self, topic: str, partition: int, below: int, older_than_ms: int, limit: int = 1_000) -> int:
        """Delete at most `limit` of the oldest records of a compacted topic that only say that a key was taken back, and
        that are below an offset and older than a time. Returns how many."""
        table = _table(topic, partition)
        with self.transaction():
            return self.db.execute(
                f"DELETE FROM {table} WHERE offset IN (SELECT offset FROM {table}"
                " WHERE length(value) = 0 AND offset < ? AND appended_ms < ? ORDER BY offset LIMIT ?)",
                (below, older_than_ms, limit),
            ).rowcount

    def forget(self, topic: str, partition: int, prefix: bytes) -> int:
        """Delete the records of a compacted topic whose keys begin with `prefix`, inside a `transaction`: for keys that
        nobody follows. Returns how many."""
        return self.db.execute(
            f"DELETE FROM {_table(topic, partition)} WHERE key >= ? AND key < ?", (prefix, prefix + b"\xff")
        ).rowcount

    def close(self) -> None:
        self.db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _table(topic: str, partition: int) -> str:
    return f'"records/{topic}/{partition}"'


def _index(topic: str, partition: int) -> str:
    return f'"keys/{topic}/{partition}"'


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise LogUnavailable(f"{path}: {error}", retry_after_s=0.2) from error
