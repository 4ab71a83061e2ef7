"""The brake: a meter that refuses most of what it hears stops, instead of turning the topic into dead letters.

When a bad deploy makes most lines unreadable, what waits in the log is worth more than what was refused: the deploy is
rolled back, and all of it counts. So a partition's meter stops where, over the last minute of the log, more than `ratio` of
at least `least` lines were refused, and more than `ratio` of the producers had most of theirs refused. Both, because a
partition is shared: one service that sends nonsense, however much, costs its own lines (they are kept, sealed), and holds
nobody up. What an edge has refused is not asked: whoever sent it was told. Nor are verdicts: each producer whose content is
guarded has a good one beside it on its partition, and no deploy would ever look bad.

The meter goes on when a person says so (`allow`), or after `hold_s`: budgets that count nothing are worse than dead letters,
and where the one bad producer was alone, nobody must wait behind it for ever. A restart does not forget that it stands, since
when and why, unless another version begins, or other settings by which lines are judged (`judged_by`): that is a deploy which
was rolled back, and it judges what waits anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final

from ..schemas.residency import Residency
from ..schemas.settings import Settings
from ..schemas.signal import Alert
from .incidents import AGAIN_S

# Long enough that one bad envelope is no trend; short enough that a deploy is seen while it rolls out.
WINDOW_S: Final = 60
# How far a person has let the meter go: the group under which that is committed.
GROUP: Final = "brake"


@dataclass(slots=True)
class Brake:
    """The brake of one partition. Looks at no clock but the log's; a ratio of 1 never stops anything."""

    ratio: float = 0.5
    least: int = 200
    # Below this offset a person, or patience, lets everything pass.
    allowed: int = 0
    stopped: bool = False
    # Since when it stands, by the engine's clock, once that was told; and when people last heard that it does.
    since_ms: int | None = None
    told_ms: int | None = None
    lines: int = 0
    refused: int = 0
    # Of each second of the window, and of all of it: lines and refused, by producer.
    _heard: deque[tuple[int, dict[str, list[int]]]] = field(default_factory=deque)
    _of: dict[str, list[int]] = field(default_factory=dict)
    _bad: set[str] = field(default_factory=set)

    def count(self, offset: int, at_ms: int, producer: str, lines: int, refused: int) -> None:
        """One record was judged. Stops the meter behind it when that is one too many."""
        if offset < self.allowed or self.ratio >= 1:
            return
        second = at_ms // 1_000
        while self._heard and self._heard[0][0] <= second - WINDOW_S:
            for gone, (its_lines, its_refused) in self._heard.popleft()[1].items():
                self._add(gone, -its_lines, -its_refused)
        if not self._heard or self._heard[-1][0] < second:
            self._heard.append((second, {}))
        tally = self._heard[-1][1].setdefault(producer, [0, 0])
        tally[0] += lines
        tally[1] += refused
        self._add(producer, lines, refused)
        if refused and self.refused >= self.least and self.refused > self.ratio * self.lines:
            self.stopped = len(self._bad) > self.ratio * len(self._of)

    def allow(self, below: int) -> None:
        """Go on, and ask nothing below this offset."""
        self.allowed = max(self.allowed, below)
        self.stopped, self.since_ms = False, None
        self.lines = self.refused = 0
        self._heard.clear()
        self._of.clear()
        self._bad.clear()

    def memory(self, judge: str) -> dict[str, Any] | None:
        """What a restart must know: since when it stands, and why; nothing while it does not."""
        if not self.stopped:
            return None
        return {
            "since_ms": self.since_ms,
            "told_ms": self.told_ms,
            "lines": self.lines,
            "refused": self.refused,
            "judge": judge,
        }

    def remember(self, told: Mapping[str, Any] | None, judge: str) -> None:
        """Stand still as before, if the same judge goes on."""
        if told is None:
            return
        self.told_ms = told.get("told_ms", told["since_ms"])
        if told["judge"] == judge:
            self.stopped, self.since_ms = True, told["since_ms"]
            self.lines, self.refused = told["lines"], told["refused"]

    def word(self, partition: int, now_ms: int) -> Alert | None:
        """What the on-call is to hear, now that it is `now_ms`: that it stands, at once and each hour; that it goes on."""
        if self.stopped:
            if self.since_ms is not None and self.told_ms is not None and now_ms - self.told_ms < AGAIN_S * 1_000:
                return None
            return alert_of(partition, self, now_ms)
        if self.told_ms is None:
            return None
        title = f"the meter of partition {partition} goes on"
        return Alert(key=_key(partition), kind="meter_stopped", severity="info", title=title, at=now_ms / 1_000)

    def heard(self, now_ms: int) -> None:
        """The `word` of this time is told."""
        if self.stopped and self.since_ms is None:
            self.since_ms = now_ms
        self.told_ms = now_ms if self.stopped else None

    def _add(self, producer: str, lines: int, refused: int) -> None:
        self.lines += lines
        self.refused += refused
        tally = self._of.get(producer)
        if tally is None:
            tally = self._of[producer] = [0, 0]
        tally[0] += lines
        tally[1] += refused
        if not tally[0]:
            del self._of[producer]
        if refused or self._bad:
            if tally[1] > self.ratio * tally[0]:
                self._bad.add(producer)
            else:
                self._bad.discard(producer)


def what_to_do(partition: int, brake: Brake) -> str:
    """For a person, in one sentence: no name, no text."""
    return (
        f"the meter of partition {partition} has stopped: {brake.refused:,} of {brake.lines:,} lines of the last minute were"
        " refused. Roll the last deploy back, or see `tidegate dlq list`; then `tidegate dlq resume`"
    )


def alert_of(partition: int, brake: Brake, at_ms: int) -> Alert:
    """That it stands."""
    return Alert(
        key=_key(partition),
        kind="meter_stopped",
        severity="critical",
        title=what_to_do(partition, brake),
        at=at_ms / 1_000,
    )


def _key(partition: int) -> str:
    return f"meter|brake|{partition}"


def judged_by(settings: Settings, residency: Residency | None = None) -> str:
    """Which version judges lines, and by which settings and residency map; another one judges them anew."""
    # What the map says, and not where it is: one that was mended in its place is another judge.
    told = residency.map.version if residency is not None else None
    return (
        f"{version('tidegate')} {settings.max_future_s} {settings.brake_ratio} {settings.brake_lines} {settings.region} {told}"
    )
