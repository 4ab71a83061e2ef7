"""Between an observed call and the gate: asks before, settles after. Only `GateClosed` reaches the caller."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ..schemas.errors import GateClosed

if TYPE_CHECKING:
    from .decision import Estimate
    from .gate import Gate
    from .reservation import Reservation


class Notes(Protocol):
    """Where our own mistakes are counted."""

    def note(self, where: str, error: Exception) -> None: ...


class Guard:
    """Guards one call. `estimate` is (input, output) tokens as far as they are known."""

    __slots__ = ("_cost_usd", "_estimate", "_gate", "_max_tokens", "_notes")

    def __init__(self, notes: Notes, gate: Gate, estimate: Any, max_tokens: int | None, cost_usd: float | None) -> None:
        self._notes = notes
        self._gate = gate
        self._estimate = estimate
        self._max_tokens = max_tokens
        self._cost_usd = cost_usd

    def enter(self, fields: Mapping[str, Any]) -> Reservation | None:
        """Waits a little where that can help, but not in an event loop, which would wait with it. Raises `GateClosed`."""
        try:
            return self._gate.acquire(fields, self._given(), max_wait_s=0.0 if _in_event_loop() else None)
        except GateClosed:
            raise
        except Exception as error:  # noqa: BLE001 — the emitter's door
            self._notes.note("gate", error)
            return None

    async def aenter(self, fields: Mapping[str, Any]) -> Reservation | None:
        """`enter` that waits without holding up the event loop."""
        try:
            return await self._gate.aacquire(fields, self._given())
        except GateClosed:
            raise
        except Exception as error:  # noqa: BLE001 — the emitter's door
            self._notes.note("gate", error)
            return None

    def expected(self, model: str) -> tuple[int | None, int | None]:
        """(input, output) tokens: as given, else what calls of the model usually use."""
        given, usual = self._given(), self._gate.usual(model)
        taken, made = (None, None) if given is None else (given.input_tokens, given.output_tokens)
        return usual.input_tokens if taken is None else taken, usual.output_tokens if made is None else made

    def leave(self, reservation: Reservation, model: str, fields: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
        """The call is over: settle it with what it used; its response is about to be emitted with the reservation."""
        from .decision import Estimate

        used = Estimate(outcome.get("input_tokens"), outcome.get("output_tokens"))
        known = used.input_tokens is not None or used.output_tokens is not None
        if known:
            self._gate.learn(model, used)
        elif "error_type" in outcome:
            used = Estimate(0, 0, 0.0)  # as the ledger will have it
        reservation.settle(used, rides=True)
        if known:
            self._gate.answered(model, outcome.get("response_model"), fields.get("provider_name"))

    def _given(self) -> Estimate | None:
        from .decision import Estimate

        if self._estimate is None and self._max_tokens is None and self._cost_usd is None:
            return None
        taken, made = self._estimate or (None, None)
        return Estimate(taken, made, self._cost_usd, self._max_tokens)


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
