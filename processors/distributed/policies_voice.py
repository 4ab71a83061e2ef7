"""How a policies worker speaks: signals, rows of them and alerts, each batch there whole or not at all, and signed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final
from uuid import uuid4

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, TopicAuthorizationFailedError

from ...producers.kafka_client import client_options
from ...schemas.errors import LogUnavailable, UsageError
from ...schemas.kafka_url import KafkaAddress
from ...schemas.settings import Settings
from ...schemas.signal import SCHEMA, Alert
from ...schemas.topics import ALERTS, SIGNAL_ROWS, SIGNALS, Topic
from ..alert_rows import alert_record
from ..signal_rows import Kept, signal_records

# A broker that restarts is back in ten seconds; after thirty, somebody should hear that nothing can be said.
_GIVE_UP_S: Final = 30.0
# A record of signals is below a kilobyte; the one that may be large holds all policies, and the topic takes 4 MiB.
_BATCH_BYTES: Final = 512 << 10
_REQUEST_BYTES: Final = 4 << 20
LARGEST: Final = _REQUEST_BYTES - 4_096
# Alerts a record of rows: some 0.5 MB.
_ROWS: Final = 500
_BY: Final = "by"
_ADVICE: Final[dict[type[KafkaError], str]] = {
    MessageSizeTooLargeError: "a record is larger than a topic lets in; see tidegate topics check",
    TopicAuthorizationFailedError: "this worker has not the right to; see tidegate topics acls",
}


class Voice:
    """Speaks for the worker of one usage partition, between `start` and `stop`. A `producer` that is given must be
    idempotent and wait for all acknowledgements; it is left open.

    All raise `KafkaError`. After one, what was sent may or may not be there, or still come: from then on it is signed as
    somebody else's.
    """

    def __init__(self, settings: Settings, partition: int, producer: Any = None) -> None:
        self._settings = settings
        self._address = KafkaAddress.parse(settings.url)
        self._partition = partition
        self._shared = producer
        self._producer: Any = None
        self._id = ""

    def _sign(self) -> None:
        self._id = f"{self._partition}-{uuid4().hex[:12]}"

    async def start(self) -> None:
        self._sign()
        if self._shared is not None:
            self._producer = self._shared
            return
        producer = AIOKafkaProducer(
            **client_options(self._settings),
            enable_idempotence=True,
            acks="all",
            linger_ms=0,
            compression_type="zstd",
            request_timeout_ms=int(_GIVE_UP_S * 1_000),
            max_batch_size=_BATCH_BYTES,
            max_request_size=_REQUEST_BYTES,
        )
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._producer = producer

    async def stop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None and producer is not self._shared:
            await producer.stop()

    async def partitions(self, topic: Topic) -> int:
        """How many partitions a topic has. Raises `UsageError` when it is not there."""
        name = self._address.topic(topic)
        # All topics at once: with auto.create on, asking for one would make it.
        metadata = await self._producer.client.fetch_all_metadata()
        found = metadata.partitions_for_topic(name)
        if not found:
            raise UsageError(f"there is no topic {name}; make the topics with: tidegate topics create")
        return len(found)

    def said(self, headers: Iterable[tuple[str, bytes]]) -> bool:
        """Whether a record was said here."""
        return dict(headers).get(_BY) == self._id.encode()

    async def alert(self, alerts: Sequence[Alert]) -> None:
        starts = range(0, len(alerts), _ROWS)
        await self._send(ALERTS, (alert_record(alerts[start : start + _ROWS]) for start in starts))

    async def keep(self, words: Sequence[Kept]) -> None:
        """Send these words to the store."""
        await self._send(SIGNAL_ROWS, signal_records(words))

    async def say(self, records: Iterable[tuple[bytes, bytes]]) -> None:
        """Say these on the signals topic, in this order; an empty value takes a key back."""
        headers = {"schema": SCHEMA, _BY: self._id}
        await self._send(SIGNALS, ((key, headers, value or None) for key, value in records))

    async def _send(self, topic: Topic, records: Iterable[tuple[bytes | None, dict[str, str], bytes | None]]) -> None:
        """Send records in as few batches as they fit in, and wait until they are acknowledged."""
        if self._producer is None:
            await self.start()
        try:
            name, producer = self._address.topic(topic), self._producer
            batch, sent = producer.create_batch(), []
            for key, headers, value in records:
                encoded = [(header, text.encode()) for header, text in headers.items()]
                while batch.append(key=key, value=value, timestamp=None, headers=encoded) is None:
                    sent.append(await producer.send_batch(batch, name, partition=0))
                    batch = producer.create_batch()
            if batch.record_count():
                sent.append(await producer.send_batch(batch, name, partition=0))
            for result in await asyncio.gather(*sent, return_exceptions=True):
                if isinstance(result, BaseException):
                    raise result
        except KafkaError:
            await self.stop()  # and begin anew, under another name
            raise


def unavailable(error: KafkaError) -> LogUnavailable:
    advice = _ADVICE.get(type(error), "they wait until it can be reached")
    return LogUnavailable(f"Kafka takes no signals or alerts ({type(error).__name__}): {advice}", retry_after_s=0.5)
