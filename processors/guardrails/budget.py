"""The processor time that scoring may take: a bucket that fills by the second and is emptied by what processes used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# A burst of calls may take half a minute's allowance at once; then the pace is kept.
_BURST_S: Final = 30.0


@dataclass(slots=True)
class Budget:
    """`share` processor seconds a second. `now` is monotonic seconds. A batch is paid for when it is done, so the account
    may be in the red by what was under way; it is paid back before anything else is begun."""

    share: float
    now: float
    left_s: float = 0.0

    def __post_init__(self) -> None:
        self.left_s = self._most_s

    @property
    def _most_s(self) -> float:
        return self.share * _BURST_S

    def spent(self, cpu_s: float) -> None:
        self.left_s -= cpu_s

    def allows(self, now: float) -> bool:
        """Whether more may be begun."""
        self.left_s = min(self.left_s + (now - self.now) * self.share, self._most_s)
        self.now = now
        return self.left_s > 0
