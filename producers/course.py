"""In which order the candidates of a chain are asked, and after which waits. Pure: times are given.

    asked less often ─ first ─┐
    earlier in the chain ─────┴─► of those that are ready; when none is, a wait until the first will be

A candidate that failed is ready again after a wait that doubles with each failure, with jitter, or that its provider
asked for; one whose gate is closed when the gate said, if that is soon, and else not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from ..schemas.errors import GateClosed
from .failures import classify

# Waits for a gate at least this long, so that a refusal without a time to it does not become a busy loop.
_SHORTEST_WAIT_S: Final = 0.005


@dataclass(slots=True)
class Runner:
    """A candidate at its `place` in the chain, in the course of one call."""

    place: int
    tries: int = 0
    ready_at: float = float("-inf")
    out: bool = False
    closed: GateClosed | None = None  # by the gate, when it was last asked


class Course:
    """One call's way along a chain. `deadline`: no attempt but the first begins later, and no wait is longer."""

    def __init__(
        self,
        candidates: int,
        *,
        rounds: int,
        first_wait_s: float,
        closed_wait_s: float,
        deadline: float,
        uniform: Callable[[float, float], float],
    ) -> None:
        self.runners = [Runner(place) for place in range(candidates)]
        self.deadline = deadline
        self._rounds = rounds
        self._first_wait_s = first_wait_s
        self._closed_left_s = closed_wait_s
        self._uniform = uniform

    def next(self, now: float) -> Runner | float | None:
        """Whom to ask now; or how long to wait and then ask again; None when nothing more can be done."""
        left = [runner for runner in self.runners if not runner.out and runner.tries < self._rounds]
        begun = any(runner.tries or runner.closed for runner in self.runners)
        if not left or (begun and now >= self.deadline):
            return None
        ready = [runner for runner in left if runner.ready_at <= now]
        if ready:
            return min(ready, key=lambda runner: (runner.tries, runner.place))
        soonest = min(left, key=lambda runner: (runner.ready_at, runner.place))
        # Never too early: what is ready first is asked first.
        wait_s = (soonest.ready_at - now) * self._uniform(1.0, 1.5)
        if soonest.ready_at >= self.deadline:
            return None
        if soonest.closed is not None:
            if wait_s > self._closed_left_s:
                soonest.out = True
                return self.next(now)
            self._closed_left_s -= wait_s
        return min(wait_s, self.deadline - now)

    def over(self, now: float) -> bool:
        """Nothing more can be done, as far as can be told without asking a gate."""
        left = [runner for runner in self.runners if not runner.out and runner.tries < self._rounds]
        return not left or now >= self.deadline or all(runner.ready_at >= self.deadline for runner in left)

    def failed(self, runner: Runner, now: float, told_s: float | None) -> None:
        """A candidate failed in a way that may pass; its provider may have told after which time."""
        runner.closed = None
        wait_s = self._first_wait_s * 2.0**runner.tries * self._uniform(0.5, 1.0)
        runner.tries += 1
        runner.ready_at = now + max(wait_s, told_s or 0.0)

    def closed(self, runner: Runner, news: GateClosed, now: float) -> None:
        """A candidate's gate is closed."""
        runner.closed = news
        if news.retry_after_s is None:
            runner.out = True
        else:
            runner.ready_at = now + max(news.retry_after_s, _SHORTEST_WAIT_S)


def all_closed(closures: list[tuple[str, GateClosed]]) -> GateClosed:
    """One error that says of each candidate why it is closed and until when; what it is about is the one that opens first."""
    told = "; ".join(f"{name}: {news.reason}, {_until(news)}" for name, news in closures)
    first = min((news for _, news in closures), key=_opens_at)
    return GateClosed(
        told if len(closures) == 1 else f"none of {len(closures)} candidates may be asked: {told}",
        policy=first.policy,
        scope=first.scope,
        window=first.window,
        spend=first.spend,
        limit=first.limit,
        resets_at=first.resets_at,
        retry_after_s=first.retry_after_s,
    )


def read_failure(error: BaseException) -> tuple[str, float | None]:
    """The kind of an exception, and how many seconds its provider asks to wait. Never raises: whatever a foreign exception's
    attributes do, the caller must see that exception."""
    try:
        return classify(error)[0], _told_s(error)
    except Exception:  # noqa: BLE001 — what is raised here would hide the caller's exception
        return "failure", None


def _told_s(error: BaseException) -> float | None:
    headers: Any = getattr(getattr(error, "response", None), "headers", None)
    if not isinstance(headers, Mapping):
        return None
    told = headers.get("retry-after") or headers.get("Retry-After")
    try:
        return max(0.0, float(told)) if told is not None else None
    except ValueError:
        return None  # a date


def _opens_at(news: GateClosed) -> tuple[float, float]:
    never = float("inf")
    return (
        never if news.retry_after_s is None else news.retry_after_s,
        never if news.resets_at is None else news.resets_at,
    )


def _until(news: GateClosed) -> str:
    if news.retry_after_s is not None:
        return f"again in {news.retry_after_s:.1f} s"
    if news.resets_at is not None:
        return f"until {datetime.fromtimestamp(news.resets_at, UTC):%Y-%m-%d %H:%M:%S} UTC"
    return "until its policy says otherwise"
