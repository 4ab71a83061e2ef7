"""What the console shows of a node's status: the status itself, rates over the last minute, and nobody's id. Pure."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from ..processors.console_access import Digests

_OVER_S: Final = 60.0
# Two looks in one breath say nothing of a rate.
_LEAST_S: Final = 2.0


class Rates:
    """What is added to a growing total in a minute, from looks at it. One that falls (a new day, a new folder) begins anew."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, float]] = deque()

    def per_s(self, at: float, total: float) -> float | None:
        """None: not known yet. `at` is monotonic seconds."""
        if self._looks and total < self._looks[-1][1]:
            self._looks.clear()
        self._looks.append((at, total))
        while len(self._looks) > 2 and self._looks[1][0] <= at - _OVER_S:
            self._looks.popleft()
        first, before = self._looks[0]
        # Older than a minute, it was looked at by somebody who has gone since: the average would be of a time nobody asked of.
        if at - first > 2 * _OVER_S:
            self._looks = deque([(at, total)])
            return None
        return (total - before) / (at - first) if at - first >= _LEAST_S else None


def shown(status: dict[str, Any], calls: Rates, cost: Rates, at: float, digests: Digests) -> dict[str, Any]:
    """A node's status as its console tells it."""
    calls_per_s = calls.per_s(at, status["totals"].get("responses", 0))
    nano_per_s = cost.per_s(at, status["today"]["cost_nano_usd"])
    standing = status["policies"]
    worst = [one | {"scope": digests.scope(one["scope"])} for one in standing.get("worst", ())]
    return status | {
        "policies": standing | {"worst": worst},
        "calls_per_s": None if calls_per_s is None else round(calls_per_s, 2),
        "cost_usd_per_h": None if nano_per_s is None else round(nano_per_s * 3_600 / 1e9, 6),
        "log_away": status.get("log_away", False),
    }
