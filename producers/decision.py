"""What a gate is asked and what it answers."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ..schemas.errors import GateClosed
from ..schemas.policy import State
from ..schemas.signal import Contributor
from .leases import UNKNOWN

# What a call may use, one amount for each measure that a lease is held of; the last is for policies that spend nothing.
PLACES: Final = {"requests": 0, "input_tokens": 1, "output_tokens": 2, "total_tokens": 3, "cost_usd": 4}
NOTHING: Final = 5
Amounts = tuple[float, float, float, float, float, float]
ALL_UNKNOWN: Final[Amounts] = (1, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, 0)


class Estimate(msgspec.Struct, frozen=True):
    """What a call is expected to use, or has used. None: unknown. Input tokens include cached ones.

    `max_tokens` is what the provider will cut the output off at: limits on a single call are held against it, and it
    stands in for `output_tokens` where nothing is known.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    max_tokens: int | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """A gate's answer. `model` is the one to use. Amounts are in the measure's counted unit (money: nano-dollars), times
    in seconds since 1970. With `retry_after_s` the call may go that much later; without, only once the policy says so.

    `stale`: nothing was heard for longer than the policy allows, and its `stale` setting decided.
    """

    allowed: bool
    state: State = "ok"
    policy: str | None = None
    reason: str = ""
    model: str | None = None
    scope: dict[str, str | None] = {}
    measure: str | None = None
    spend: float | None = None
    limit: float | None = None
    remaining: float | None = None
    window: str | None = None
    resets_at: float | None = None
    retry_after_s: float | None = None
    contributors: list[Contributor] = []
    stale: bool = False
    owner: str | None = None
    runbook: str | None = None

    def closed(self) -> GateClosed:
        """The error that says so."""
        return GateClosed(
            self.reason,
            policy=self.policy,
            scope=self.scope,
            window=self.window,
            spend=self.spend,
            limit=self.limit,
            resets_at=self.resets_at,
            retry_after_s=self.retry_after_s,
        )

    def as_dict(self) -> dict[str, Any]:
        """For logs and pages."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found
