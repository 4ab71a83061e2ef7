"""What a token of each model that was asked costs at most; gates use it for models of which nobody has told them yet."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from .meter import MeterState
from .pricing import PriceBook

# Nano-dollars a token: (input, output).
UnitPrices = dict[str, tuple[float, float]]


class AskedPrices:
    """Prices of what meters have seen. A price that was higher once stays: a reservation should rather be too large."""

    def __init__(self, book: PriceBook) -> None:
        self._book = book
        self._known: UnitPrices = {}
        # How many ways each partition has seen a model answered, when it was last looked at.
        self._ways: dict[tuple[int, str], int] = {}

    def of(self, states: Iterable[MeterState], at: datetime) -> UnitPrices:
        """All prices so far, those of new models looked up at `at`."""
        for state in states:
            for model, ways in state.asked.items():
                seen = state.partition, model
                if self._ways.get(seen) == len(ways):
                    continue
                self._ways[seen] = len(ways)
                rates = [self._book.dearest(provider, answered, model, tier, at) for provider, answered, tier in ways]
                rates.append(self._known.get(model, (0.0, 0.0)))
                self._known[model] = max(rate[0] for rate in rates), max(rate[1] for rate in rates)
        return self._known
