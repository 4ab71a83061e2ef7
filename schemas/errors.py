"""The error tree: every way Tidegate says no, and what follows from each.

    TidegateError
    ├── InvalidEvent        one record cannot be understood       → dead letter, the rest goes on
    ├── Backpressure        try again later                       → slow down, nothing is lost
    │   ├── LogUnavailable  the durable log cannot be reached     → the emitter spools and retries
    │   └── StoreUnavailable the store cannot be reached          → the sink pauses and retries
    ├── EnvelopeRefused     the log will never take this envelope → counted as dropped, with the reason
    ├── Unreadable          sealed content cannot be opened       → quarantined and counted, never guessed at
    │   └── KeyGone         its key is no longer in the ring      → as was wanted, where a tenant was shredded
    ├── GateClosed          a policy does not let this call go    → the service answers without a model, or later
    ├── NotDelivered        a destination did not take a message   → tried again, until it is too old for that
    ├── MeterStopped        what is waited for stands still       → printed, with how it goes on
    └── UsageError          the person at the keyboard can mend it → printed, exit code 2

Whatever is none of these is unknown and crashes its process; offsets make that harmless.
"""

from __future__ import annotations

from collections.abc import Mapping


class TidegateError(Exception):
    """Root of all errors raised on purpose."""


class InvalidEvent(TidegateError):
    """One event cannot be understood. `reason` is safe to store: it names fields and bounds, never their content."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Backpressure(TidegateError):
    """Nothing is wrong with the data; the other side cannot take it now. `retry_after_s` is a hint, or None."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LogUnavailable(Backpressure):
    """The durable log cannot be reached or is busy."""


class StoreUnavailable(Backpressure):
    """ClickHouse cannot be reached or is busy."""


class EnvelopeRefused(TidegateError):
    """The log will never take this envelope (too large, not authorised); retrying cannot help."""


class Unreadable(TidegateError):
    """What is sealed cannot be opened. `reason`: key_gone, tampered, malformed or too_large; nothing of the content."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"sealed content cannot be opened: {reason}")
        self.reason = reason


class KeyGone(Unreadable):
    """The key that sealed it is not in the ring: shredded, or the ring is another one."""

    def __init__(self) -> None:
        super().__init__("key_gone")


class GateClosed(TidegateError):
    """A policy does not let this call go; the provider was not called. `spend` and `limit` are in the measure's counted
    unit (money: nano-dollars), `resets_at` in seconds since 1970; what is not known is None."""

    def __init__(
        self,
        reason: str,
        *,
        policy: str | None = None,
        scope: Mapping[str, str | None] | None = None,
        window: str | None = None,
        spend: float | None = None,
        limit: float | None = None,
        resets_at: float | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.policy = policy
        self.scope = dict(scope or {})
        self.window = window
        self.spend = spend
        self.limit = limit
        self.resets_at = resets_at
        self.retry_after_s = retry_after_s


class MeterStopped(TidegateError):
    """What is waited for stands behind a meter that the brake holds; the message says how it goes on."""


class NotDelivered(TidegateError):
    """A destination did not take a message. It may be tried again until it has answered so for `patience_s`; None: as long
    as any may. Says nothing of where that is."""

    def __init__(self, problem: str, patience_s: float | None = None) -> None:
        super().__init__(problem)
        self.patience_s = patience_s


class UsageError(TidegateError):
    """A setting, file or argument is wrong; the message says what to do about it."""
