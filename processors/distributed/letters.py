"""The dead letters on Kafka: a compacted topic in which the last record of a letter is the letter, and an empty one its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition

from ...schemas.envelope import partition_of
from ...schemas.settings import Settings
from ...schemas.topics import CALLS, DEAD_LETTERS, REFUSED
from ..brake import GROUP
from ..letters import Letter, LetterId, outcome
from ..topology import METER
from .call_record import decode_headers
from .topic_reading import TopicReading


class KafkaLetters(TopicReading):
    """`Letters` on the Kafka of these settings."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, REFUSED, "mender")
        self._calls, self._dead_letters = self.address.topic(CALLS), self.address.topic(DEAD_LETTERS)
        self._writer: Any = None

    def kept(self) -> Iterator[Letter]:
        """Reads each partition twice, so that of all letters only the names are in memory."""
        for tp in self.partitions():
            begin, end = self.bounds(tp)
            last = {record.key: record.offset for record in self.records(tp, begin, end)}
            for record in self.records(tp, begin, end):
                if last[record.key] == record.offset and (letter := _letter(record)):
                    yield letter

    def find(self, letter_id: LetterId) -> Letter | None:
        tp = TopicPartition(self.topic, letter_id.partition)
        if tp not in self.partitions():
            return None
        key, found = str(letter_id).encode(), None
        for record in self.records(tp, *self.bounds(tp)):
            if record.key == key:
                found = record
        return _letter(found) if found is not None else None

    def fix(self, letter: Letter) -> bool:
        key, headers, value = letter.record()
        self._send(self.topic, letter.letter_id.partition, key, headers, value)
        self._say(letter, "fixed")
        return True

    def replay(self, letter: Letter, lines: list[bytes]) -> bool:
        """First metered, then let go of: whoever is cut off in between replays it again, and the meter knows it."""
        envelope = letter.envelope(lines)
        partition = partition_of(envelope.producer, len(self.partitions(self._calls)))
        self._send(self._calls, partition, envelope.producer.encode(), envelope.headers(), envelope.value)
        self._take(letter)
        self._say(letter, "replayed")
        return True

    def drop(self, letter: Letter) -> bool:
        self._take(letter)
        self._say(letter, "dropped")
        return True

    def resume(self) -> int:
        calls = self.partitions(self._calls)
        ends = {tp: self.bounds(tp)[1] for tp in calls}
        passed = self.run(self._passed(calls))
        self.run(self._allow(ends))
        return sum(max(ends[tp] - passed[tp], 0) for tp in calls)

    async def _allow(self, ends: Mapping[TopicPartition, int]) -> None:
        brakes = await self.member(self.address.group(GROUP))
        try:
            brakes.assign(list(ends))
            await brakes.commit(ends)
        finally:
            await brakes.stop()

    async def _passed(self, calls: list[TopicPartition]) -> dict[TopicPartition, int]:
        meters = await self.member(self.address.group(METER.name))
        try:
            return {tp: await meters.committed(tp) or 0 for tp in calls}
        finally:
            await meters.stop()

    def close(self) -> None:
        if self._writer is not None:
            self.run(self._writer.stop())
        super().close()

    def _take(self, letter: Letter) -> None:
        self._send(self.topic, letter.letter_id.partition, str(letter.letter_id).encode(), {}, b"")

    def _say(self, letter: Letter, what: str) -> None:
        _, headers, value = outcome(letter, what)
        self._send(self._dead_letters, letter.letter_id.partition, None, headers, value)

    def _send(self, topic: str, partition: int, key: bytes | None, headers: Mapping[str, str], value: bytes) -> None:
        if self._writer is None:
            self._writer = self.producer()
        encoded = [(name, text.encode()) for name, text in headers.items()]
        # An empty value is Kafka's own word for the end of a key.
        self.run(self._writer.send_and_wait(topic, value or None, key=key, partition=partition, headers=encoded))


def _letter(record: ConsumerRecord) -> Letter | None:
    return Letter.read(record.key or b"", decode_headers(record.headers), record.value or b"", record.timestamp)
