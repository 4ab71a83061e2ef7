"""The quarantine of a data folder, whether a node runs on it or not: the log takes several at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ...producers.sqlite_log import Record, SqliteLog
from ...schemas.errors import UsageError
from ...schemas.topics import CONTENT, QUARANTINE
from ..quarantine import Held, Place, Releasing


class FolderQuarantine:
    """`Quarantine` in the log of a data folder. Raises `UsageError` where there is none."""

    lets_go = True

    def __init__(self, data_dir: Path) -> None:
        if not SqliteLog.exists(data_dir):
            raise UsageError(f"{data_dir} is no data folder of a node; give --data DIR")
        self.where = str(data_dir)
        self._log = SqliteLog(data_dir)

    def held(self) -> Iterator[Held]:
        for partition in range(self._log.partitions):
            start = 0
            while records := self._log.read(QUARANTINE.name, partition, start):
                for record in records:
                    yield _held(partition, record)
                start = records[-1].offset + 1

    def find(self, place: Place) -> Held | None:
        if place.partition >= self._log.partitions:
            return None
        records = self._log.read(QUARANTINE.name, place.partition, place.offset, end=place.offset + 1)
        return _held(place.partition, records[0]) if records else None

    def release(self, places: Iterable[Place]) -> int:
        releasing, released = Releasing(), 0
        for place in places:
            # One at a time: the meter waits for none of them.
            with self._log.transaction():
                if (held := self.find(place)) is not None:
                    envelope = releasing.envelope(held)
                    record = (envelope.producer.encode(), envelope.headers(), envelope.value)
                    self._log.append(CONTENT.name, place.partition, [record])
                    released += self._log.remove(QUARANTINE.name, place.partition, place.offset)
        return released

    def drop(self, places: Iterable[Place]) -> int:
        dropped = 0
        for place in places:
            if place.partition < self._log.partitions:
                with self._log.transaction():
                    dropped += self._log.remove(QUARANTINE.name, place.partition, place.offset)
        return dropped

    def close(self) -> None:
        self._log.close()


def _held(partition: int, record: Record) -> Held:
    return Held(Place(partition, record.offset), record.appended_ms, record.headers, record.value)
