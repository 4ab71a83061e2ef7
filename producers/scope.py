"""A kind of call, made ready for a gate: which policies concern it, and what such calls usually use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from ..schemas.policy import NANO
from .decision import ALL_UNKNOWN, Amounts, Decision, Estimate
from .leases import INFINITE
from .standing import CallBounds, Standing

# A service asks for a handful of models; whoever makes names up starts over.
_MOST_MODELS: Final = 1_000
# Half of what is remembered is of the last five calls: the prompts of a service change seldom, and then for good.
_NEWS: Final = 1 / 8


class Usual:
    """What calls of a model usually use: running means of settled calls, for those that come without an estimate. They
    may use more, and that is in the bound (see `leases`) like any estimate that is too low."""

    __slots__ = ("amounts", "cost_usd", "input_tokens", "output_tokens", "prices")

    def __init__(self, prices: tuple[float, float] | None = None) -> None:
        self.input_tokens: float | None = None
        self.output_tokens: float | None = None
        self.cost_usd: float | None = None
        self.prices = prices
        self.amounts: Amounts = ALL_UNKNOWN
        self._conclude()

    def learn(self, used: Estimate) -> None:
        """One more call has used this."""
        self.input_tokens = _mean(self.input_tokens, used.input_tokens)
        self.output_tokens = _mean(self.output_tokens, used.output_tokens)
        self.cost_usd = _mean(self.cost_usd, used.cost_usd)
        self._conclude()

    def price(self, prices: tuple[float, float] | None) -> None:
        """Nano-dollars of an input and of an output token; None: unknown."""
        self.prices = prices
        self._conclude()

    def _conclude(self) -> None:
        self.amounts = self.fill(Estimate())

    def fill(self, given: Estimate) -> Amounts:
        """Amounts of an estimate, with the usual where it says nothing."""
        taken, made, cost = given.input_tokens, given.output_tokens, given.cost_usd
        if taken is None and self.input_tokens is not None:
            taken = math.ceil(self.input_tokens)
        if made is None:
            made = given.max_tokens
            if self.output_tokens is not None:
                usual = math.ceil(self.output_tokens)
                made = usual if made is None else min(usual, made)
        if cost is None and self.prices is None:
            cost = self.cost_usd
        return amounts_of(taken, made, cost, self.prices)

    def used(self, used: Estimate) -> Amounts:
        """Amounts of what a call has used; unknown where it does not say."""
        return amounts_of(used.input_tokens, used.output_tokens, used.cost_usd, self.prices)


class Scope:
    """The fields of a kind of call. Prepare one where calls are alike, and `check` takes a third of a microsecond.

    What is worked out here belongs to one gate: do not ask another one with it.
    """

    __slots__ = ("_others", "alerting", "bounds", "fields", "generation", "go", "limiting", "model", "stale_after_s", "usual")

    def __init__(self, fields: Mapping[str, str | None]) -> None:
        self.fields = fields
        self.model = fields.get("model")
        self.generation = -1
        self.limiting: tuple[Standing, ...] = ()
        self.alerting: tuple[Standing, ...] = ()  # of policies that hold nobody back
        self.bounds: CallBounds | None = None
        self.stale_after_s = INFINITE
        self.usual = Usual()
        self.go = Decision(allowed=True, model=self.model)
        self._others: dict[str, Scope] = {}

    def on(self, model: str) -> Scope:
        """The same kind of call with another model."""
        if model == self.model:
            return self
        other = self._others.get(model)
        if other is None:
            if len(self._others) >= _MOST_MODELS:
                self._others.clear()
            other = self._others[model] = Scope({**self.fields, "model": model})
        return other


def amounts_of(taken: int | None, made: int | None, cost_usd: float | None, prices: tuple[float, float] | None) -> Amounts:
    """By measure, in counted units. Without a cost, prices (nano-dollars a token, input and output) make one."""
    unknown = taken is None or made is None
    cost: float = INFINITE
    if cost_usd is not None:
        cost = math.ceil(cost_usd * NANO)
    elif prices is not None:
        if taken is not None and made is not None:
            cost = math.ceil(taken * prices[0] + made * prices[1])
        elif not any(prices):
            cost = 0
    return (
        1,
        INFINITE if taken is None else taken,
        INFINITE if made is None else made,
        INFINITE if unknown else taken + made,  # type: ignore[operator]  # neither is None
        cost,
        0,
    )


def field_of(fields: Mapping[str, Any], name: str) -> str | None:
    """A field of an event, or of what a caller says of a call, by the name that policies use."""
    if name.startswith("label."):
        found = (fields.get("labels") or {}).get(name[6:])
        return fields.get(name) if found is None else found
    if name == "model":
        return fields.get("model") or fields.get("request_model")
    return fields.get(name)


def _mean(mean: float | None, value: float | None) -> float | None:
    if value is None:
        return mean
    return float(value) if mean is None else mean + (value - mean) * _NEWS
