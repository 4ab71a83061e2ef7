"""Simulated time for waiting code: an event loop, and turns for threads, in which a minute takes as long as its work."""

from __future__ import annotations

import asyncio
import heapq
import selectors
import threading
from collections.abc import Callable, Coroutine
from typing import Any


class _Leaping(selectors.DefaultSelector):
    """Sleeps by moving the loop's clock."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


def run(main: Callable[[asyncio.AbstractEventLoop], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine on a loop whose `time()` leaps from one timer to the next; nothing in it may wait for the world."""
    selector = _Leaping()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main(loop))


class Turns:
    """Threads of which one runs at a time: the one whose sleep ends first. Deterministic, whatever the scheduler does."""

    def __init__(self) -> None:
        self.now = 0.0
        self._order = 0
        self._asleep: list[tuple[float, int, threading.Event]] = []
        self._idle = threading.Semaphore(0)  # released when the running thread sleeps or ends

    def sleep(self, wait_s: float) -> None:
        """For a thread of `run`: let the others have their turns until this is over."""
        woken = threading.Event()
        self._order += 1
        heapq.heappush(self._asleep, (self.now + max(wait_s, 0.0), self._order, woken))
        self._idle.release()
        if not woken.wait(60):
            raise TimeoutError("nobody gave this thread its turn")

    def run(self, works: list[Callable[[], None]]) -> None:
        """Run all of these to their end, each in a thread, beginning at the same time. Raises what the first of them raises."""
        errors: list[BaseException] = []

        def thread(work: Callable[[], None]) -> None:
            try:
                self.sleep(0.0)
                work()
            except BaseException as error:  # noqa: BLE001 — raised again in the thread that waits for it
                errors.append(error)
            finally:
                self._idle.release()

        threads = [threading.Thread(target=thread, args=(work,), daemon=True) for work in works]
        for each in threads:
            each.start()
            assert self._idle.acquire(timeout=60)
        while self._asleep and not errors:
            at, _, woken = heapq.heappop(self._asleep)
            self.now = max(self.now, at)
            woken.set()
            assert self._idle.acquire(timeout=60)
        if errors:
            raise errors[0]
