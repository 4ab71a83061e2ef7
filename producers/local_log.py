"""The Emitter's backend on one machine: envelopes go straight into the data folder's SQLite log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ..schemas.envelope import Envelope, partition_of
from ..schemas.topics import BY_SCHEMA
from .ports import Position
from .sqlite_log import SqliteLog


class LocalLog:
    """`Log` on a data folder; several processes may append at once. Opens on first use and again after `close`."""

    def __init__(self, data_dir: Path, *, fsync: Literal["full", "normal"] = "full", partitions: int | None = None) -> None:
        self._data_dir = data_dir
        self._fsync = fsync
        self._partitions = partitions
        self._log: SqliteLog | None = None

    def append(self, envelopes: Sequence[Envelope]) -> list[Position | None]:
        """All of them in one transaction: after an error none is there."""
        if self._log is None:
            self._log = SqliteLog(self._data_dir, partitions=self._partitions, fsync=self._fsync)
        log = self._log
        positions: list[Position | None] = []
        with log.transaction():
            for envelope in envelopes:
                partition = partition_of(envelope.producer, log.partitions)
                record = (envelope.producer.encode(), envelope.headers(), envelope.value)
                offset, _ = log.append(BY_SCHEMA[envelope.schema].name, partition, [record])
                positions.append(Position(partition, offset))
        return positions

    def close(self) -> None:
        log, self._log = self._log, None
        if log is not None:
            log.close()
