"""A pump and the daemon thread that runs it: started with the first thing put, flushed and closed within a bound.

An emitter has one for calls and, once there is any, one for content; neither waits for the other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from . import lifecycle
from .pump import Pump, Wish


class Lane:
    """Thread-safe, and safe in a signal handler: locks handed to waiters are fresh ones, made for that wait alone.

    `owner` is who must live for as long as the thread does: one that nobody refers to any more is still closed at the
    process's end.
    """

    def __init__(self, pump: Pump, name: str, owner: object, monotonic: Callable[[], float]) -> None:
        self.pump = pump
        self.started = False
        self._name = name
        self._owner = owner
        self._monotonic = monotonic
        self._starting = threading.Lock()

    def start(self) -> None:
        # Not blocking: of many first emits, and a signal handler interrupting one, exactly one starts the thread.
        if self._starting.acquire(blocking=False):
            try:
                lifecycle.watch_child()
                self.started = True
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
            except RuntimeError:  # no thread to be had, or the interpreter is ending: `close` does the work itself
                self.started = False
            finally:
                self._starting.release()

    def _run(self) -> None:
        self.pump.run()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all put before is in the log; False when the time is over first."""
        pump = self.pump
        if pump.ended:
            return not (pump.shipper.spooled_events or pump.shipper.unsent_events)
        return self._met(self._put(Wish(close=False)), timeout_s)

    def begin_close(self, timeout_s: float) -> Wish | None:
        """Tell a running thread to be done by then, without waiting for it. What is returned goes to `close`."""
        if self.pump.ended or not self.started:
            return None
        self.pump.close_at = self._monotonic() + timeout_s
        return self._put(Wish(close=True))

    def close(self, timeout_s: float, begun: Wish | None = None) -> bool:
        """Send what is left, and take over when the time is up. True when nothing was lost. Idempotent."""
        pump = self.pump
        if not pump.ended:
            if begun is None:
                pump.close_at = self._monotonic() + timeout_s
            wish = begun or Wish(close=True)
            # Where no thread is draining, it is done here.
            if not pump.run(None if begun else wish) and not self._met(wish if begun else self._put(wish), timeout_s):
                pump.take_over()
        return pump.shipper.unsent_events == 0

    def _put(self, wish: Wish) -> Wish:
        self.pump.queue.put(wish)
        self.pump.nudges.put(None)
        if not self.started:
            self.start()
        if self.pump.ended:
            self.pump.sweep()
        return wish

    def _met(self, wish: Wish, timeout_s: float) -> bool:
        wish.done.acquire(timeout=min(max(timeout_s, 0.0), threading.TIMEOUT_MAX))
        return wish.met

    def wait_for_room(self, timeout_s: float | None) -> bool:
        """Block until half of the buffer is free."""
        deadline = None if timeout_s is None else self._monotonic() + timeout_s
        pump = self.pump
        while not (pump.has_room() or pump.ended):
            ticket = threading.Lock()
            ticket.acquire()
            pump.room.append(ticket)
            if pump.has_room() or pump.ended:
                break
            if not ticket.acquire(timeout=-1 if deadline is None else max(0.0, deadline - self._monotonic())):
                return False
        return True
