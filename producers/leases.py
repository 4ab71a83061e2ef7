"""Leases: how much one gate may have outstanding before it must hear again, and how far all of them can overshoot.

A policy allows `ceiling` in a scope's window. Each signal says how much of it is spent, and up to which offset of the
calls topic calls are counted in that. What a gate has let go and the signal does not count is *outstanding*: calls in
flight, by their estimate, and calls settled since, by what they used.

    lease       a call may go while outstanding + estimate ≤ share × (ceiling − spend) ÷ gates
    one call    with nothing outstanding, one call may go whose estimate is ≤ what remains: so small limits can be used up

**The bound.** Let gate g have last let a call go under a signal that said r_g > 0 was left, n_g gates live. What it had
outstanding then is at most h_g = max(share × r_g ÷ n_g, the one call, which is ≤ r_g). Of the signals so used, the one
counted in furthest said r was left. Every call of every gate is either counted in that one or was outstanding at its
own gate, so all that is ever spent in the window is at most (ceiling − r) + Σ h_g + X, and beyond the ceiling

    overshoot ≤ max(0, Σ h_g − r) + X ≤ max(0, Σ h_g − min r_g) + X

with X = Σ max(0, actual − estimate) over the calls that were in flight when their gate last let one go. Where all gates
have heard the newest signal, Σ share × r ÷ n ≤ r: leases add nothing, and only the one call of a gate and X are left.
A gate that has not heard it adds its old lease, and no more, however long it is deaf. Nobody needs to hear of anybody:
r_g falls as others spend, and a lease is a share of it.

Not covered, since a policy chose it: `stale: open` lets calls go after `stale_after` of silence, a `probe_every` lets one
call of a gate through each time, and what services without a gate spend is heard of only afterwards.

Amounts are whole numbers in the measure's counted unit (nano-dollars, tokens, calls). Pure: no clock, no lock.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

INFINITE: Final = float("inf")
# An amount that nobody could tell; larger than any lease, so that only the one-call rule lets it go.
UNKNOWN: Final = INFINITE


@dataclass(frozen=True, slots=True)
class Hold:
    """Under what a gate last let a call go: what its signal said was left, and the share of it that was its own."""

    remaining: float
    share: float
    gates: int
    largest_call: float = 0.0

    @property
    def most(self) -> float:
        """The most it may have had outstanding then."""
        return max(self.share * self.remaining / self.gates, min(self.largest_call, self.remaining))


def overshoot_bound(holds: Iterable[Hold], excess: float = 0.0, newest_remaining: float | None = None) -> float:
    """How far beyond the ceiling all gates together can get (see the top of this file).

    One `Hold` for each gate that let a call go. `excess` is Σ max(0, actual − estimate) of calls in flight; a call whose
    estimate was unknown counts in full. `newest_remaining` is what the signal counted in furthest said was left; by
    default the least that any gate heard, which never makes the bound smaller than it is.
    """
    holds = list(holds)
    if not holds:
        return excess
    left = min(hold.remaining for hold in holds) if newest_remaining is None else newest_remaining
    return max(0.0, sum(hold.most for hold in holds) - left) + excess


class Lease:
    """What one gate has outstanding with one policy on one scope, and what it may.

    `margin` is how much one more call may use; below 0 none may go by the lease alone, and `admits` has the last word.
    A `ceiling` of None leaves amounts free (a policy that judges, and spends nothing).
    """

    __slots__ = (
        "_placed",
        "alone",
        "applied",
        "calls",
        "ceiling",
        "gates",
        "margin",
        "outstanding",
        "quiet",
        "reserved",
        "share",
        "spend",
        "unknown",
    )

    def __init__(self, ceiling: float | None, share: float) -> None:
        self.ceiling = ceiling
        self.share = share
        self.gates = 1
        self.spend: float = 0
        self.reserved: float = 0
        self.applied: Sequence[int] = ()
        self.outstanding: float = 0
        self.calls = 0  # outstanding ones, of known and unknown amount
        self.unknown = 0
        self.alone = True  # only the one-call rule: this gate is not counted among the live ones, or the spend is unknown
        self.quiet = True  # nothing but the lease stands in a call's way
        self.margin = -1.0
        self._placed: dict[int, list[tuple[int, float]]] = {}
        self.update()

    @property
    def left(self) -> float:
        """What the last signal leaves to all gates together."""
        return INFINITE if self.ceiling is None else self.ceiling - self.spend

    @property
    def room(self) -> float:
        """What this gate may have outstanding by its lease."""
        if self.ceiling is None:
            return INFINITE
        return 0.0 if self.alone else max(0.0, self.share * (self.ceiling - self.spend) / self.gates)

    def update(self) -> None:
        """Work out `margin` again; after every change."""
        self.margin = -1.0
        if self.quiet and not self.unknown and not self.alone:
            if self.ceiling is None:
                self.margin = INFINITE
            elif (left := self.ceiling - self.spend) > 0:
                self.margin = self.share * left / self.gates - self.outstanding

    def admits(self, amount: float) -> bool:
        """Whether a call of this amount may go, by the lease or as the one call."""
        left = self.left
        if left <= 0:
            return False
        if not self.alone and not self.unknown and self.outstanding + amount <= self.room:
            return True
        if self.calls:
            return False
        return amount == UNKNOWN or amount <= left - max(0.0, self.reserved)

    # what the policy says

    def hear(self, spend: float, reserved: float, share: float, applied: Sequence[int]) -> None:
        """News: what is spent, with everything up to `applied` counted in."""
        self.spend, self.reserved, self.share = spend, reserved, share
        self.count_in(applied)

    def count_in(self, applied: Sequence[int]) -> None:
        """Own calls up to these offsets are in the spend, or never will be: no longer outstanding."""
        self.applied = applied
        for partition, placed in self._placed.items():
            if partition < len(applied):
                while placed and placed[0][0] <= applied[partition]:
                    self._forget(heapq.heappop(placed)[1])
        self.update()

    # what becomes of a call

    def take(self, amount: float) -> None:
        """A call of this amount goes."""
        self.calls += 1
        if amount == UNKNOWN:
            self.unknown += 1
            self.margin = -1.0
        else:
            self.outstanding += amount
            self.margin -= amount

    def drop(self, amount: float) -> None:
        """A call of this amount is outstanding no more."""
        self._forget(amount)
        self.update()

    def change(self, amount: float, actual: float) -> None:
        """A call that was taken for `amount` has used `actual`."""
        if amount != actual:
            self._forget(amount)
            self.take(actual)
            self.update()

    def place(self, amount: float, partition: int, offset: int) -> None:
        """A settled call of this amount is in the calls topic at this place; it is outstanding until a signal counts it."""
        if partition < len(self.applied) and offset <= self.applied[partition]:
            self.drop(amount)
        else:
            heapq.heappush(self._placed.setdefault(partition, []), (offset, amount))

    def reset(self) -> None:
        """Nothing is outstanding: what was is another process's."""
        self.outstanding = self.calls = self.unknown = 0
        self._placed = {}
        self.update()

    def _forget(self, amount: float) -> None:
        self.calls -= 1
        if amount == UNKNOWN:
            self.unknown -= 1
        else:
            self.outstanding -= amount
