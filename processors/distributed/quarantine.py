"""The quarantine on Kafka. There nothing is taken out of the middle of a topic: what is released lies on until its time is
over, and nothing is dropped one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, Final

from aiokafka import TopicPartition

from ...schemas.envelope import Envelope
from ...schemas.errors import UsageError
from ...schemas.settings import Settings
from ...schemas.topics import CONTENT, QUARANTINE
from ..quarantine import Held, Place, Releasing
from .call_record import decode_headers
from .topic_reading import TopicReading

# Some hundred kilobytes are read in the time that looking elsewhere takes.
_NEAR: Final = 100


class KafkaQuarantine(TopicReading):
    """`Quarantine` on the Kafka of these settings."""

    lets_go = False

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, QUARANTINE, "reviewer")
        self._content = self.address.topic(CONTENT)

    def held(self) -> Iterator[Held]:
        for tp in self.partitions():
            begin, end = self.bounds(tp)
            yield from self._read(tp, begin, end)

    def find(self, place: Place) -> Held | None:
        return next(self._those([place]), None)

    def release(self, places: Iterable[Place]) -> int:
        """One text at a time is in memory, and all of a stretch are read at once: there may be as many as a topic holds."""
        producer = self.producer()
        releasing, released = Releasing(), 0
        try:
            for held in self._those(places):
                self.run(self._send(producer, held.place.partition, releasing.envelope(held)))
                released += 1
        finally:
            self.run(producer.stop())
        return released

    def _those(self, places: Iterable[Place]) -> Iterator[Held]:
        """What is held at these places."""
        there, asked = {tp.partition: tp for tp in self.partitions()}, set(places)
        for partition, offsets in groupby(sorted(asked), key=lambda place: place.partition):
            if partition not in there:
                continue
            tp = there[partition]
            begin, end = self.bounds(tp)
            for first, last in _stretches(place.offset for place in offsets if begin <= place.offset < end):
                yield from (held for held in self._read(tp, first, last + 1) if held.place in asked)

    def drop(self, places: Iterable[Place]) -> int:
        raise UsageError(
            f"Kafka takes nothing out of the middle of a topic: what is held goes when its time is over; all of a partition"
            f" up to an offset goes with kafka-delete-records on {self.topic}"
        )

    async def _send(self, producer: Any, partition: int, envelope: Envelope) -> None:
        headers = [(name, value.encode()) for name, value in envelope.headers().items()]
        await producer.send_and_wait(
            self._content, envelope.value, key=envelope.producer.encode(), partition=partition, headers=headers
        )

    def _read(self, tp: TopicPartition, start: int, end: int) -> Iterator[Held]:
        for record in self.records(tp, start, end):
            place = Place(tp.partition, record.offset)
            yield Held(place, record.timestamp, decode_headers(record.headers), record.value or b"")


def _stretches(offsets: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The first and last of ascending offsets that lie so near each other that it is quicker to read what is between them."""
    first = last = -1
    for offset in offsets:
        if first < 0:
            first = offset
        elif offset - last > _NEAR:
            yield first, last
            first = offset
        last = offset
    if first >= 0:
        yield first, last
