"""The node's clock, as a gate can know it."""

from __future__ import annotations

from typing import Final

# How long the nearest guess is believed before newer ones count alone: a node's clock that is set back is followed
# within twice this.
_EVERY_S: Final = 120.0


class NodeClock:
    """The node's clock on the local monotonic one, so that setting the wall clock here changes nothing. Until the node is
    heard, the wall clock has to do.

    What is heard is late by its way here, so the least late of the last minutes is the nearest to the truth; what is
    reckoned by it comes a little late, never early.
    """

    def __init__(self, wall: float, now: float) -> None:
        self._ahead = wall - now
        self._recent: float | None = None
        self._before: float | None = None
        self._turn_at = now + _EVERY_S

    def heard(self, at: float, now: float) -> None:
        """At `now` here it was at least `at` there."""
        if now >= self._turn_at:
            self._before, self._recent, self._turn_at = self._recent, None, now + _EVERY_S
        self._recent = at - now if self._recent is None else max(self._recent, at - now)
        self._ahead = self._recent if self._before is None else max(self._recent, self._before)

    def mono_of(self, at: float) -> float:
        """When it will be `at` there, in local monotonic seconds."""
        return at - self._ahead
