"""The sink beside a node's doors, in a thread with an event loop of its own: chDB allows its folder one process.

Rows in a folder are of use only when all of them are there, so this sink works alone: with another one in the group each
would get some partitions, and neither store would be whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from typing import Final

import structlog
from aiokafka.errors import KafkaError

from ...schemas.errors import LogUnavailable, UsageError
from ...schemas.settings import Settings
from ...sinks.clickhouse import Store
from .sink import KafkaSink

log = structlog.get_logger("tidegate.sink")

# As on one machine: a row may be in the store a little later, and an answer to a gate must not wait for an insert.
_NICE: Final = 10
_BACKOFF_S: Final = 0.5
_BACKOFF_MAX_S: Final = 10.0
# A sink that was killed is in its group until its session is over, ten seconds; then the group may be busy for a moment.
_OTHERS_S: Final = 25.0
_LOOK_S: Final = 0.5


class SinkThread:
    """A `KafkaSink`, begun anew while Kafka is away, until `stop`. `failure` is what else has ended it: a `UsageError` when
    it is not alone. `members` are those at work in the sink's group."""

    def __init__(self, settings: Settings, store: Store, members: Callable[[], list[str]]) -> None:
        self._settings = settings
        self._store = store
        self._members = members
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._told = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tidegate-sink")
        self.sink: KafkaSink | None = None
        self.failure: BaseException | None = None

    @property
    def store_away(self) -> bool:
        sink = self.sink
        return sink is not None and sink.store_away

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write what has been read, leave the group. Idempotent."""
        self._told.set()
        if self._loop is not None and self._stopping is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._stopping.set)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        try:
            asyncio.run(self._carry())
        except BaseException as error:  # noqa: BLE001 — a thread's death must be seen by the node, which then ends
            if self._told.is_set() and isinstance(error, asyncio.CancelledError):
                log.warning("sink_cut_off", advice="what was not written is still in the log")
                return
            self.failure = error
            log.error("sink_failed", error_type=type(error).__name__)

    async def _carry(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        backoff_s = _BACKOFF_S
        while not self._told.is_set():
            began = self._loop.time()
            try:
                if not await self._is_alone(self._loop, self._stopping):
                    return
                self.sink = KafkaSink(self._settings, self._store)
                await self.sink.run(self._stopping)
            except (KafkaError, LogUnavailable) as error:
                # What was not written is still in the log.
                log.warning("sink_waits", error=str(error) or type(error).__name__, retry_in_s=backoff_s)
                if self._loop.time() - began > _BACKOFF_MAX_S:
                    backoff_s = _BACKOFF_S
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), backoff_s)
                backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)

    async def _is_alone(self, loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> bool:
        """Wait until nobody is left in the group; False: told to stop meanwhile. Raises `UsageError` when somebody stays."""
        deadline = loop.time() + _OTHERS_S
        while others := await asyncio.to_thread(self._members):
            if loop.time() > deadline:
                raise UsageError(
                    f"another sink writes the rows of this Kafka into a store of its own ({len(others)} in the group): stop it,"
                    " or let both write to one ClickHouse server and set TIDEGATE_STORE"
                )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _LOOK_S)
            if stopping.is_set():
                return False
        return True
