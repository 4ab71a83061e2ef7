"""Which stretch of time a board shows, how wide a point of it is, and how often it is worth asking again. Pure.

?range=1h                         the last hour, moving on
?since=…Z&until=…Z                a fixed one
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from ..schemas.errors import UsageError
from .panel import step_s

# What a person chooses from: its length, and the pace at which what it shows changes to the eye. A question that took long is
# asked more rarely still, by whoever asks.
MOVING: Final[dict[str, tuple[int, float]]] = {
    "15m": (900, 2.0),
    "1h": (3_600, 2.0),
    "6h": (6 * 3_600, 5.0),
    "24h": (86_400, 10.0),
    "7d": (7 * 86_400, 30.0),
    "30d": (30 * 86_400, 60.0),
    "100d": (100 * 86_400, 120.0),
}
DEFAULT: Final = "1h"
# Calls of a fixed stretch may still come in late.
_FIXED_PACE_S: Final = 60.0
_LONGEST: Final = timedelta(days=3_660)


@dataclass(frozen=True, slots=True)
class Range:
    """A stretch as it was asked for. `word` names a moving one; otherwise `since` and `until` are there."""

    word: str | None
    since: datetime | None = None
    until: datetime | None = None

    @classmethod
    def read(cls, asked: Mapping[str, str]) -> Range:
        """From a query's parameters. Raises `UsageError`."""
        since, until = asked.get("since"), asked.get("until")
        if since or until:
            if not (since and until):
                raise UsageError("give both since and until, or a range")
            first, last = moment(since), moment(until)
            if not first < last or last - first > _LONGEST:
                raise UsageError("since must be before until, and not by more than ten years")
            return cls(None, first, last)
        word = asked.get("range", DEFAULT)
        if word not in MOVING:
            raise UsageError(f"range is one of {', '.join(MOVING)}")
        return cls(word)

    @property
    def pace_s(self) -> float:
        return _FIXED_PACE_S if self.word is None else MOVING[self.word][1]

    @property
    def step_s(self) -> int:
        return step_s(self._length_s())

    def bounds(self, now: datetime) -> tuple[datetime, datetime]:
        """From when to when; a moving one begins with a whole point, so that points stay as they are from look to look."""
        if self.since is not None and self.until is not None:
            return self.since, self.until
        begin = int(now.timestamp() - self._length_s())
        return datetime.fromtimestamp(begin - begin % self.step_s, UTC), now

    def _length_s(self) -> float:
        if self.since is not None and self.until is not None:
            return (self.until - self.since).total_seconds()
        return MOVING[self.word or DEFAULT][0]


def moment(text: str) -> datetime:
    """A moment in UTC. Raises `UsageError`."""
    try:
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError("times are ISO 8601, such as 2026-11-23T08:00:00Z") from None


def iso(at: datetime) -> str:
    """As the console and the panels' questions have it: UTC, with a Z."""
    at = at.astimezone(UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S" + (f".{at.microsecond:06d}" if at.microsecond else "")) + "Z"


def iso_of(at_s: float | None) -> str | None:
    """The same of seconds since 1970, to the second; None stays unknown."""
    return None if at_s is None else iso(datetime.fromtimestamp(int(at_s), UTC))
