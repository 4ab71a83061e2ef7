"""What a worker tells the audit log: it has no folder, so its entries are records of a topic that only ever grows.

    worker.started ─► policies.in_force, schema.migrated … ─► worker.stopped     topic audit ─► sink ─► table audit

Each process has a chain of its own, under a name that it takes at its start; a killed one has no `worker.stopped`. Who does
not know whether an entry has arrived begins another chain, so no chain ever holds one twice. What happened anyway is kept
then, and is the first to be written next time, at the time of which it speaks.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from ...producers.audit_log import operator
from ...producers.kafka_client import client_options
from ...schemas.audit import LOG_BYTES, Entry, checked
from ...schemas.errors import UsageError
from ...schemas.kafka_url import KafkaAddress
from ...schemas.settings import Settings
from ...schemas.topics import AUDIT
from ..audit_check import Told
from .topic_reading import TopicReading

log = structlog.get_logger("tidegate.audit")

# Whoever waits for this is at a start, or holds policies back: a leader election takes a few seconds.
_GIVE_UP_MS: Final = 20_000
# An outage of days, with policies that change every few minutes; after it the oldest are missing, and the log says so.
_KEPT_MOST: Final = 1_000
_HEADERS: Final = [("schema", b"rows/1"), ("count", b"1")]


class _Happened(NamedTuple):
    at: datetime
    action: str
    details: Mapping[str, Any]
    subject: str


class WorkerAudit:
    """One process's chain. Used from one event loop, until `stop`; connects with the first entry."""

    def __init__(self, settings: Settings, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._address = KafkaAddress.parse(settings.url)
        self._options = client_options(settings)
        self._now = now
        self._actor = operator()
        self._producer: Any = None
        self._turn = asyncio.Lock()
        # What happened and could not be written yet, in order.
        self._kept: deque[_Happened] = deque()
        self._begin()

    def _begin(self) -> None:
        self._log, self._last = secrets.token_hex(LOG_BYTES), None  # type: tuple[str, Entry | None]

    async def append(self, action: str, details: Mapping[str, Any], subject: str = "") -> None:
        """Write one entry, and have it acknowledged. Raises `KafkaError`, and `UsageError` where there is no topic for it."""
        async with self._turn:
            await self._write_kept()
            await self._write(_Happened(self._now(), action, details, subject))

    def _entry(self, happened: _Happened) -> Entry:
        at, action, details, subject = happened
        return checked(Entry.after(self._log, self._last, at, self._actor, action, subject, details))

    async def _write(self, happened: _Happened) -> None:
        if self._producer is None:
            await self._open()
        entry = self._entry(happened)
        try:
            await self._producer.send_and_wait(self._address.topic(AUDIT), entry.line(), partition=0, headers=_HEADERS)
        except BaseException:
            # Whether it arrived is not known, and neither is the producer's next number.
            self._begin()
            await self.stop()
            raise
        self._last = entry

    async def _write_kept(self) -> None:
        while self._kept:
            # Out of the queue first: while it is written, what is told meanwhile may push out the oldest.
            happened = self._kept.popleft()
            try:
                await self._write(happened)
            except BaseException:
                self._kept.appendleft(happened)
                raise

    async def require(self) -> None:
        """See that there is a topic to write to, before something is done that must be written down. Raises as `append`."""
        async with self._turn:
            if self._producer is None:
                await self._open()

    async def tell(self, action: str, details: Mapping[str, Any]) -> None:
        """Write down what happens anyway: policies hold, and a worker stops, also where nothing can be written. It is kept for
        the next time then."""
        happened = _Happened(self._now(), action, details, "")
        try:
            self._entry(happened)
        except UsageError as error:  # it would hold up all that is told later
            log.error("audit_entry_lost", action=action, error=str(error))
            return
        self._kept.append(happened)
        while len(self._kept) > _KEPT_MOST:
            log.error("audit_entry_lost", action=self._kept.popleft().action)
        try:
            async with self._turn:
                await self._write_kept()
        except (KafkaError, UsageError) as error:
            log.error("audit_not_written", action=action, waiting=len(self._kept), error=type(error).__name__)

    async def _open(self) -> None:
        producer = AIOKafkaProducer(**self._options, enable_idempotence=True, acks="all", request_timeout_ms=_GIVE_UP_MS)
        try:
            await producer.start()
            # All topics at once: with auto.create on, asking for one would make it.
            there = (await producer.client.fetch_all_metadata()).topics()
            if (name := self._address.topic(AUDIT)) not in there:
                raise UsageError(
                    f"there is no topic {name}, where workers tell what they do, or no right to it: run `tidegate topics"
                    " create`, or look at `tidegate topics acls`"
                )
        except BaseException:
            await producer.stop()
            raise
        self._producer = producer

    async def stop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()


def told_by_workers(settings: Settings) -> Told:
    """All that is in the topic. Raises `UsageError` without a right to it, `LogUnavailable`."""
    with closing(TopicReading(settings, AUDIT, "auditor")) as reading:
        [tp] = reading.partitions()
        begin, end = reading.bounds(tp)
        lines = [record.value or b"" for record in reading.records(tp, begin, end)]
    # Nothing is in there but records, and none ever goes by itself.
    return Told(lines, end - len(lines))
