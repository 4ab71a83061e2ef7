"""The only file that knows Faust: agents that hand records to the steps, partitions that come and go, acks that wait.

    calls ─► agent ─► Hands.take ─► … flushed, acknowledged … ─► ack ─► Faust commits

Faust brings group membership, fetching with back-pressure and commits in order. It keeps no state here: its tables count
some events twice whenever a partition changes hands, orderly or not. Nothing that goes wrong may leave an agent, for Faust
would take the record for done; it ends the worker instead, and the next owner starts from what was flushed.
"""

from __future__ import annotations

import tempfile
from typing import Any, Final, Protocol

import faust
from faust.auth import SASLCredentials, SSLCredentials
from faust.types import TP

from ...producers.kafka_client import client_options
from ...schemas.kafka_url import KafkaAddress
from ...schemas.settings import Settings
from ...schemas.topics import Topic
from .call_record import CallRecord, decode_headers

# A record is an envelope of up to 900 KB: a few of them waiting per agent are enough, and bound its memory.
_WAITING: Final = 64
_FETCH_BYTES: Final = 16 << 20
# How often Faust commits what is acked. A record that comes again is skipped by its offset, so this is only tidiness.
_COMMIT_EVERY_S: Final = 1.0
# Faust's own; it must be longer than the session.
_REQUEST_S: Final = 90.0
# Faust's own: a client to whom nothing comes for so long leaves its group. One that the brake holds does so on purpose.
_IDLE_S: Final = 1_000.0
# As a setting may say that the brake holds for ever: ten years.
_LONGEST_HOLD_S: Final = 10 * 365 * 86_400.0


class Hands(Protocol):
    """What a step's worker does with what Faust brings. None of it may raise."""

    async def take(self, partition: int, record: CallRecord) -> None:
        """One record; may wait, and holds all partitions up meanwhile."""

    async def assigned(self, partitions: set[int]) -> None:
        """These are ours now, and no others."""

    async def revoked(self) -> None:
        """None is ours until we hear again: see everything off first."""


class FaustEngine:
    """One step's agent in the consumer group `group`. `failed` hears when Faust itself ends."""

    def __init__(self, settings: Settings, topic: Topic, step: str, hands: Hands) -> None:
        address = KafkaAddress.parse(settings.url)
        self._topic = address.topic(topic)
        self._folder = tempfile.TemporaryDirectory(prefix="tidegate-faust-")
        self._app = app = faust.App(
            address.group(step),
            broker=[f"kafka://{server}" for server in address.bootstrap.split(",")],
            broker_credentials=_credentials(client_options(settings)),
            broker_client_id=f"tidegate-{step}",
            broker_commit_interval=_COMMIT_EVERY_S,
            broker_session_timeout=settings.worker_session_s,
            broker_max_poll_interval=_IDLE_S + min(settings.brake_hold_s, _LONGEST_HOLD_S),
            broker_request_timeout=max(settings.worker_session_s * 2, _REQUEST_S),
            broker_heartbeat_interval=settings.worker_session_s / 4,
            consumer_auto_offset_reset="earliest",
            consumer_max_fetch_size=_FETCH_BYTES,
            stream_buffer_maxsize=_WAITING,
            # We wait ourselves, in `revoked`.
            stream_wait_empty=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            web_enabled=False,
            # It makes a folder for the tables that we do not have.
            datadir=self._folder.name,
            store="memory://",
        )
        records = app.topic(
            self._topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", acks=True
        )

        async def agent(stream: Any) -> None:
            async for event in stream.noack().events():
                message = event.message
                record = CallRecord(
                    message.offset,
                    round(message.timestamp * 1_000),
                    message.value or b"",
                    decode_headers(message.headers or ()),
                    event.ack,
                )
                await hands.take(message.partition, record)

        app.agent(records, name=step)(agent)

        async def assigned(_app: Any, partitions: Any, **_: Any) -> None:
            await hands.assigned({tp.partition for tp in partitions if tp.topic == self._topic})

        async def revoked(_app: Any, _partitions: Any, **_: Any) -> None:
            await hands.revoked()

        # Kept here: signals hold their receivers weakly.
        self._receivers = (assigned, revoked)
        app.on_partitions_assigned.connect(assigned)  # type: ignore[arg-type]  # its Protocol asks for a name it never gives
        app.on_partitions_revoked.connect(revoked)  # type: ignore[arg-type]

    async def start(self) -> None:
        await self._app.start()

    async def stop(self) -> None:
        """Commit what is acked, leave the group."""
        await self._app.stop()
        self._folder.cleanup()

    @property
    def failure(self) -> BaseException | None:
        """What ended Faust, if anything did."""
        reason = self._app.crash_reason
        return reason if isinstance(reason, BaseException) else None

    def hold(self, partition: int, held: bool) -> None:
        """Let no more of a partition come, or let it come again. Forgotten whenever partitions change hands."""
        consumer, tp = self._app.consumer, TP(self._topic, partition)
        if tp in consumer.assignment():
            (consumer.pause_partitions if held else consumer.resume_partitions)({tp})

    def ends(self) -> dict[int, int]:
        """Where each of our partitions ends, as the last fetch said; nothing while partitions change hands."""
        consumer = self._app.consumer
        found = {}
        try:
            for tp in consumer.assignment():
                if tp.topic == self._topic and (end := consumer.highwater(tp)) is not None:
                    found[tp.partition] = end
        except (AssertionError, RuntimeError):
            # aiokafka asserts that a partition is assigned; it may be revoked between two of these lines.
            return {}
        return found


def _credentials(options: dict[str, Any]) -> Any:
    if options["security_protocol"].startswith("SASL"):
        return SASLCredentials(
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            mechanism=options["sasl_mechanism"],
            ssl_context=options.get("ssl_context"),
        )
    return SSLCredentials(options["ssl_context"]) if options["security_protocol"] == "SSL" else None
