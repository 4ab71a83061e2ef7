"""The dead letters of a data folder, whether a node runs on it or not: the log takes several at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...producers.sqlite_log import SqliteLog
from ...schemas.envelope import partition_of
from ...schemas.errors import UsageError
from ...schemas.topics import CALLS, DEAD_LETTERS, REFUSED
from ..brake import GROUP
from ..letters import Letter, LetterId, outcome
from ..topology import METER


class FolderLetters:
    """`Letters` in the log of a data folder. Raises `UsageError` where there is none."""

    def __init__(self, data_dir: Path) -> None:
        if not SqliteLog.exists(data_dir):
            raise UsageError(f"{data_dir} is no data folder of a node; give --data DIR")
        self.where = str(data_dir)
        self._log = SqliteLog(data_dir)

    def kept(self) -> Iterator[Letter]:
        for partition in range(self._log.partitions):
            # What is refused anew while somebody goes through them is for the next time.
            start, end = 0, self._log.end_offset(REFUSED.name, partition)
            while records := self._log.read(REFUSED.name, partition, start, end=end):
                for record in records:
                    if letter := Letter.read(record.key or b"", record.headers, record.value, record.appended_ms):
                        yield letter
                start = records[-1].offset + 1

    def find(self, letter_id: LetterId) -> Letter | None:
        if letter_id.partition >= self._log.partitions:
            return None
        key = str(letter_id).encode()
        record = self._log.last(REFUSED.name, letter_id.partition, key)
        return Letter.read(key, record.headers, record.value, record.appended_ms) if record else None

    def fix(self, letter: Letter) -> bool:
        with self._log.transaction():
            if self.find(letter.letter_id) is None:
                return False
            self._log.append(REFUSED.name, letter.letter_id.partition, [letter.record()])
            self._say(letter, "fixed")
        return True

    def replay(self, letter: Letter, lines: list[bytes]) -> bool:
        envelope = letter.envelope(lines)
        with self._log.transaction():
            if not self._take(letter):
                return False
            record = (envelope.producer.encode(), envelope.headers(), envelope.value)
            self._log.append(CALLS.name, partition_of(envelope.producer, self._log.partitions), [record])
            self._say(letter, "replayed")
        return True

    def drop(self, letter: Letter) -> bool:
        with self._log.transaction():
            if not self._take(letter):
                return False
            self._say(letter, "dropped")
        return True

    def resume(self) -> int:
        waiting = 0
        with self._log.transaction():
            for partition in range(self._log.partitions):
                end = self._log.end_offset(CALLS.name, partition)
                waiting += end - self._log.committed(METER.name, CALLS.name, partition)
                self._log.commit_offset(GROUP, CALLS.name, partition, end)
        return waiting

    def close(self) -> None:
        self._log.close()

    def _take(self, letter: Letter) -> bool:
        """Let go of it, unless somebody else was faster, or has fixed it meanwhile."""
        found = self.find(letter.letter_id)
        if found is None or found.sha256 != letter.sha256:
            return False
        self._log.append(REFUSED.name, letter.letter_id.partition, [(str(letter.letter_id).encode(), {}, b"")])
        return True

    def _say(self, letter: Letter, what: str) -> None:
        self._log.append(DEAD_LETTERS.name, letter.letter_id.partition, [outcome(letter, what)])
