"""What a meter's worker does while the brake holds one of its partitions: it says so, lets nothing more come, and asks whether
a person lets it go on. Its other partitions are metered meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog
from aiokafka.errors import KafkaError

from ...schemas.settings import Settings
from ...schemas.topics import CALLS
from ..brake import GROUP, what_to_do
from ..meter import MeterState
from .wire import Wire

log = structlog.get_logger("tidegate.meter")

# A person who lets it go on waits for no longer; each asking is a connection of its own.
_ASK_EVERY_S: Final = 5.0

Hold = Callable[[int, bool], None]


class MeterBrake:
    """One partition's. `look` is to be called every second or so."""

    def __init__(
        self, partition: int, wire: Wire, settings: Settings, hold: Hold, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._partition = partition
        self._wire = wire
        self._settings = settings
        self._hold = hold
        self._clock = clock
        self._asked_at = float("-inf")
        self._stopped = False

    async def look(self, state: MeterState, now_ms: int) -> None:
        """Let a meter that has stopped go on, once that is wanted or it has taken too long; `now_ms` is since 1970."""
        if not state.brake.stopped:
            return
        now = self._clock()
        if not self._stopped:
            self._stopped = True
            log.error("meter_stopped", partition=self._partition, what=what_to_do(self._partition, state.brake))
        # Said again and again: it is forgotten whenever partitions change hands.
        self._hold(self._partition, True)
        if now - self._asked_at < _ASK_EVERY_S:
            return
        self._asked_at = now
        try:
            allowed = await self._said()
            if allowed < state.next_offset:
                if now_ms - (state.brake.since_ms or 0) < self._settings.brake_hold_s * 1_000:
                    return
                allowed = await self._wire.end(CALLS, self._partition)
        except KafkaError as error:
            self._again(error)
            return
        state.brake.allow(allowed)
        self._stopped = False
        self._hold(self._partition, False)
        log.info("meter_goes_on", partition=self._partition, allowed_below=allowed)

    async def _said(self) -> int:
        """How far a person has let it go. A worker that cannot ask, for want of a right, say, does not stand still for ever."""
        try:
            return await self._wire.committed(GROUP, CALLS, self._partition)
        except KafkaError as error:
            self._again(error)
            return 0

    def _again(self, error: KafkaError) -> None:
        log.warning("brake_asks_again", partition=self._partition, error=type(error).__name__, retry_in_s=_ASK_EVERY_S)
