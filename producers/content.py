"""The emitter's way out for content: beside metering, and never in its way.

    caller's thread                           one daemon thread, of its own
    emit ─ mode? ─ SimpleQueue.put ────────►  ContentPump ──► log of its own, or spool of its own

It has its own buffer, producer id, spool and connection, made with the first content; what fills or fails here costs no
call. Modes are the settings': `off` takes nothing, `hashed` leaves fingerprints only.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from ..schemas.content import ContentMode
from ..schemas.residency import Residency
from ..schemas.settings import Settings
from .content_pump import ContentPump, Plain
from .key_source import KeySource
from .lane import Lane
from .ports import Log
from .pump import Wish
from .sealing import MAX_TEXTS_BYTES
from .stats import ContentStats, Tally

_logger: Final = logging.getLogger("tidegate")

_REFUSALS: Final = ("buffer_full", "spool_full", "too_large", "no_key", "residency", "invalid", "closed")
# Pairs of provider and reason: a name comes from the caller, and must not grow this without end.
_MOST_PASSED_OVER: Final = 256
_NO_KEY: Final = (
    "content_refused reason=no_key hint=texts of calls are not sent without a key ring: set TIDEGATE_KEY_FILE, TIDEGATE_KEYS"
    " or TIDEGATE_KEY_COMMAND to have them scored, or TIDEGATE_CONTENT=off"
)


class ContentOutlet:
    """Takes the texts of calls. Thread-safe, takes no lock; `emit` never blocks. Opens nothing before the first text."""

    def __init__(
        self,
        settings: Settings,
        producer: str,
        *,
        open_log: Callable[[], Log] | None,
        keys: Callable[[], KeySource | None],
        residency: Residency | None = None,
        owner: object,
        errors: Tally,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._producer = f"{producer[:192]}-content"
        self._open_log = open_log
        self._keys = keys
        self._residency = residency
        self._owner = owner
        self._errors = errors
        self._now = now
        self._monotonic = monotonic
        self._lanes: dict[str, Lane] = {}  # one, once there is any
        self._told_no_key = False
        self._emitted = Tally()
        self._refusals = {reason: Tally() for reason in _REFUSALS}
        self._passed_over: dict[tuple[str, str], Tally] = {}
        self._silent = False
        self.closed = False

    def mode(self, tenant: str | None) -> ContentMode:
        """What leaves of this tenant's texts."""
        tenants = self._settings.content_tenants
        return tenants.get(tenant, self._settings.content) if tenants and tenant is not None else self._settings.content

    def emit(self, call: Mapping[str, Any], prompt: str | None, response: str | None, context: Sequence[str]) -> bool:
        """Accept the texts of one call. False when they were dropped; True, too, when there is nothing to send."""
        mode = self.mode(call.get("tenant"))
        if mode == "off" or not (prompt or response or any(context)):
            return True
        if self._residency is not None and self._residency.refusal(call.get("tenant"), call.get("region")) is not None:
            # That the call itself is refused says so where somebody hears it.
            return self._refuse("residency")
        if self.closed:
            return self._refuse("closed")
        lane = self._lanes.get("lane") or self._made()
        if lane is None:
            return self._refuse_without_key()
        if len(prompt or "") + len(response or "") + sum(map(len, context)) > MAX_TEXTS_BYTES:
            return self._refuse("too_large")
        item = Plain(mode, call, prompt or None, response or None, [chunk for chunk in context if chunk])
        return self._put(lane, item)

    def _put(self, lane: Lane, item: Plain) -> bool:
        pump = lane.pump
        shipper = pump.shipper
        waiting = pump.put_bytes - pump.taken_bytes + shipper.memory_bytes + item.size
        if pump.queue.qsize() + shipper.memory_events >= self._settings.buffer_events or waiting > self._settings.buffer_bytes:
            return self._refuse("spool_full" if shipper.spool_full else "buffer_full")
        pump.put_bytes += item.size
        self._emitted.bump()
        pump.queue.put(item)
        if not lane.started:
            lane.start()
        return not pump.ended or not pump.sweep()

    def _made(self) -> Lane | None:
        keys = self._keys()
        if keys is None or self._open_log is None:
            return None
        spool_dir = self._settings.spool_dir
        pump = ContentPump(
            keys,
            self._open_log(),
            self._producer,
            0,
            settings=self._settings.model_copy(update={"spool_dir": spool_dir / "content"}) if spool_dir else self._settings,
            refused=self._refused,
            errors=self._errors,
            now=self._now,
            monotonic=self._monotonic,
        )
        if self._silent:
            pump.hush()
        # Of threads that come here at once, all go on with the one that was first; the others have opened nothing yet.
        return self._lanes.setdefault("lane", Lane(pump, "tidegate-content", self._owner, self._monotonic))

    def _refuse_without_key(self) -> bool:
        if not self._told_no_key and not self._silent:
            self._told_no_key = True
            _logger.warning(_NO_KEY)
        return self._refuse("no_key")

    def _refuse(self, reason: str) -> bool:
        self._refusals[reason].bump()
        return False

    def refuse_invalid(self) -> bool:
        """What a caller handed in holds no texts."""
        return self._refuse("invalid")

    def pass_over(self, provider: str, reason: str) -> None:
        """A call's texts leave something out. Providers beyond those that anybody has are counted as one."""
        if len(self._passed_over) >= _MOST_PASSED_OVER:
            provider = "other"
        self._passed_over.setdefault((provider, reason), Tally()).bump()

    def _refused(self) -> Counter[str]:
        return Counter({reason: count for reason, tally in self._refusals.items() if (count := tally.value())})

    # --- waiting -----------------------------------------------------------------------------------------------------

    def flush(self, timeout_s: float) -> bool:
        lane = self._lanes.get("lane")
        return lane is None or lane.flush(timeout_s)

    def wait_for_room(self, timeout_s: float | None) -> bool:
        lane = self._lanes.get("lane")
        return lane is None or lane.wait_for_room(timeout_s)

    def begin_close(self, timeout_s: float) -> Wish | None:
        self.closed = True
        lane = self._lanes.get("lane")
        return None if lane is None else lane.begin_close(timeout_s)

    def close(self, timeout_s: float, begun: Wish | None) -> bool:
        lane = self._lanes.get("lane")
        return lane is None or lane.close(timeout_s, begun)

    def hush(self) -> None:
        """Log nothing from here on."""
        self._silent = True
        if (lane := self._lanes.get("lane")) is not None:
            lane.pump.hush()

    def abandon(self) -> None:
        """In a forked child: all of it is the parent's."""
        if (lane := self._lanes.get("lane")) is not None:
            lane.pump.shipper.abandon()

    def stats(self) -> ContentStats:
        """The counts so far."""
        refused = self._refused()
        passed_over = Counter({key: tally.value() for key, tally in list(self._passed_over.items())})
        lane = self._lanes.get("lane")
        if lane is None:
            return ContentStats(dropped=refused, passed_over=passed_over)
        shipper = lane.pump.shipper
        after = lane.pump.dropped_after()
        emitted = self._emitted.value()
        settled = shipper.appended_events + shipper.spooled_events
        return ContentStats(
            emitted=emitted,
            appended=shipper.appended_events,
            spooled=shipper.spooled_events,
            pending=max(0, emitted - settled - after.total()),
            dropped=refused + after,
            adopted=shipper.adopted_events,
            passed_over=passed_over,
        )
