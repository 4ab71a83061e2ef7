"""Taking turns: every side once per round, so that what disturbs the machine disturbs all of them.

Round 0 warms up and is not counted. Odd rounds run the sides backwards: nobody is always first.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Final

Tick = Callable[[str], None]
# One run of one side; what it returns is the side's figure for that round.
Side = Callable[[], float]

WARM_UP: Final = "warm-up"


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure in every round."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)

    def per(self, other: Spread) -> Spread:
        """This figure ÷ another, round by round: what disturbs a round disturbs both."""
        return Spread(tuple(mine / its for mine, its in zip(self.values, other.values, strict=True)))

    def __format__(self, spec: str) -> str:
        """Median, then least–most of the rounds, each in the given format."""
        least, most = min(self.values), max(self.values)
        return f"{self.median:{spec}} ({least:{spec}}–{most:{spec}})"


def take_turns(sides: Mapping[str, Side], rounds: int, tick: Tick) -> dict[str, Spread]:
    """Every side's figure over `rounds` rounds."""
    if rounds < 1:
        raise ValueError("a bench needs at least one round")
    found: dict[str, list[float]] = {name: [] for name in sides}
    # The collector stays on, as in life, but starts each run clean and leaves the bench's own data alone.
    gc.collect()
    gc.freeze()
    try:
        for number in range(rounds + 1):
            for name in reversed(list(sides)) if number % 2 else sides:
                tick(f"{WARM_UP if number == 0 else f'round {number} of {rounds}'}: {name}")
                gc.collect()
                figure = sides[name]()
                if number:
                    found[name].append(figure)
    finally:
        gc.unfreeze()
    return {name: Spread(tuple(values)) for name, values in found.items()}
