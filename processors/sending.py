"""Sends what is due, each destination in a thread of its own: one that is slow holds up nobody but itself."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Protocol

import structlog

from ..schemas.errors import NotDelivered, TidegateError
from ..schemas.notice import Delivery, Message
from .notifier import Notifier

log = structlog.get_logger("tidegate.notifier")

OUTCOMES: Final = ("sent", "failed", "given_up")
# More destinations than an on-call file names: one that is slow holds a thread for half a minute, and nobody waits for it.
_AT_ONCE: Final = 64


class Deliver(Protocol):
    def __call__(self, address: str, message: Message, *, alertmanager: bool = False) -> None: ...


class Sending:
    """`begin` and `note` from the notifier's thread; counts of what became of messages from any. `deliver(address, message,
    alertmanager=…)` raises when it does not arrive."""

    def __init__(self, deliver: Deliver, at: Callable[[str], None] = lambda _step: None) -> None:
        self._deliver = deliver
        self._at = at
        self._pool = ThreadPoolExecutor(_AT_ONCE, "tidegate-send")
        self._going: dict[str, tuple[Delivery, Future[tuple[str, float | None]]]] = {}
        self.sent = self.failed = self.given_up = 0

    @property
    def busy(self) -> bool:
        return bool(self._going)

    def begin(self, notifier: Notifier, now: float) -> None:
        """Send what is due and kept."""
        for delivery in notifier.due(now):
            if delivery.destination not in self._going:
                self._going[delivery.destination] = delivery, self._pool.submit(self._send, notifier, delivery)

    def _send(self, notifier: Notifier, delivery: Delivery) -> tuple[str, float | None]:
        """Why it did not arrive, or ''; and how long that may go on."""
        destination = notifier.on_call.destinations.get(delivery.destination)
        if destination is None:
            return "the on-call file names no such destination any more", None
        try:
            self._deliver(destination.address(), delivery.message, alertmanager=destination.alertmanager is not None)
        except TidegateError as error:
            return str(error), error.patience_s if isinstance(error, NotDelivered) else None
        except Exception as error:  # noqa: BLE001 — a strange address or receiver must end nobody but this message
            return f"it failed ({type(error).__name__})", None
        self._at("3 sent")
        return "", None

    def note(self, notifier: Notifier, now: float) -> None:
        """Tell the notifier what has become of what was sent."""
        for name, (delivery, sending) in list(self._going.items()):
            if not sending.done():
                continue
            del self._going[name]
            problem, patience_s = sending.result()
            if not notifier.delivered(delivery, now, problem, patience_s):
                self.given_up += 1
                log.error("notification_given_up", destination=name, id=delivery.message.id, problem=problem)
            elif problem:
                self.failed += 1
                log.warning("notification_failed", destination=name, id=delivery.message.id, problem=problem)
            else:
                self.sent += 1

    def counts(self) -> dict[str, int]:
        """What became of messages, since this process began. One that failed is tried again."""
        return dict(zip(OUTCOMES, (self.sent, self.failed, self.given_up), strict=True))

    def close(self) -> None:
        """Wait for what is being sent."""
        self._pool.shutdown()
