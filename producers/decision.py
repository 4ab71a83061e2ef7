"""What a gate is asked and what it answers."""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

from ..schemas.errors import GateClosed
from ..schemas.policy import NANO, State
from ..schemas.signal import Contributor
from .leases import UNKNOWN

# What a call may use, one amount for each measure that a lease is held of; the last is for policies that spend nothing.
PLACES: Final = {"requests": 0, "input_tokens": 1, "output_tokens": 2, "total_tokens": 3, "cost_usd": 4}
NOTHING: Final = 5
Amounts = tuple[float, float, float, float, float, float]
ALL_UNKNOWN: Final[Amounts] = (1, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, 0)


class Estimate(msgspec.Struct, frozen=True):
    """What a call is expected to use, or has used. None: unknown. Input tokens include cached ones."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None

    def amounts(self, prices: tuple[float, float] | None) -> Amounts:
        """By measure, in counted units. Without a cost, `prices` (nano-dollars a token, input and output) make one."""
        given, made = self.input_tokens, self.output_tokens
        if self.cost_usd is not None:
            cost: float = math.ceil(self.cost_usd * NANO)
        elif prices is not None and given is not None and made is not None:
            cost = math.ceil(given * prices[0] + made * prices[1])
        else:
            cost = 0 if prices == (0, 0) else UNKNOWN
        return (
            1,
            UNKNOWN if given is None else given,
            UNKNOWN if made is None else made,
            UNKNOWN if given is None or made is None else given + made,
            cost,
            0,
        )


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
