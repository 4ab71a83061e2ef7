"""The heartbeats of all policies workers as a gate hears them: together they are as well as the worst of them.

Each worker has its part of the scopes. That offsets are counted in is true when all say so; a worker that is silent makes
the gate deaf, however loud the others are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ..schemas.signal import Gates

# After this long all that a heartbeat says is counted has been signalled, too: a policies step holds news of a hot scope
# back for a quarter of a second. By the worker's clock, so it does not matter how late we hear.
_SETTLING_S: Final = 1.0


@dataclass(slots=True)
class _Worker:
    """One worker. `beats` are those that may not be settled yet, `settled` what the last one says that is."""

    heard_at: float
    last: Gates | None = None
    settled: Sequence[int] | None = None
    beats: deque[Gates] = field(default_factory=deque)

    def hear(self, beat: Gates) -> bool:
        """Whether more is settled now."""
        self.last = beat
        beats = self.beats
        while beats and beats[-1].at > beat.at:  # its clock was set back
            beats.pop()
        if not beats or beat.at - beats[-1].at >= _SETTLING_S / 4:
            beats.append(beat)
        counted: Gates | None = None
        while beats and beat.at - beats[0].at >= _SETTLING_S:
            counted = beats.popleft()
        if counted is None:
            return False
        self.settled = counted.applied
        return True


class Heartbeats:
    """What all workers say together. Times are monotonic seconds here, but for those in a heartbeat."""

    def __init__(self) -> None:
        self._workers: dict[int, _Worker] = {}
        self._of = 1

    def hear(self, number: int, beat: Gates, now: float) -> Sequence[int] | None:
        """Take in a worker's heartbeat. What is settled of every partition, if that may be more than before."""
        if number == 0:
            self._of = max(beat.of, 1)
            for gone in [known for known in self._workers if known >= self._of]:
                del self._workers[gone]
        elif number >= self._of and 0 in self._workers:
            return None  # of a time when there were more
        for expected in range(self._of):
            # One that was never heard has as long to speak up as one that fell silent now.
            self._workers.setdefault(expected, _Worker(now))
        worker = self._workers.setdefault(number, _Worker(now))
        worker.heard_at = now
        if not worker.hear(beat):
            return None
        settled = [each.settled for each in self._workers.values()]
        known = [applied for applied in settled if applied is not None]
        return [min(offsets) for offsets in zip(*known, strict=False)] if len(known) == len(settled) else None

    def forget(self, number: int) -> None:
        """A worker's heartbeat was taken back."""
        self._workers.pop(number, None)

    def caught_up(self, now: float) -> None:
        """The heartbeats so far were of any age: those much older than the newest are of workers that fell silent then."""
        newest = max((worker.last.at for worker in self._workers.values() if worker.last), default=0.0)
        for worker in self._workers.values():
            if worker.last is not None:
                worker.heard_at = now - (newest - worker.last.at)

    def heard_at(self, now: float) -> float:
        """Since when at least one worker has been silent; `now` where there is but one, whose every record is a sign."""
        if self._of == 1:
            return now
        return min((worker.heard_at for worker in self._workers.values()), default=now)

    def members(self, gate_id: str) -> tuple[int, bool]:
        """How many gates share a lease, and whether every worker counts this one among them."""
        ids = [worker.last.ids for worker in self._workers.values() if worker.last is not None]
        return max([1, *map(len, ids)]), all(gate_id in each for each in ids)
