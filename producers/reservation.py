"""What calls hold of their policies, from before they go until a signal counts them.

    reserve ─► in flight ── settle ──► riding ─── placed(partition, offset) ──► the lease's, until a signal counts it
                   └─ release ─► gone     └── placed(None), or no emitter ──► kept for `kept_s` ─► gone

When nobody can say what became of a response's envelope, because it was dropped or the node did not tell its place, the
amount stays outstanding for `kept_s`: the money is really spent, and to forget it at once would let it be spent again.
It cannot stay for good, or every lost event would narrow the lease for as long as the process lives. Ten minutes is
beyond any provider's timeout, and as long as the node itself waits for the response of a request it has heard of.
What rides in an emitter is not timed: it may wait in the spool of an outage, and is placed when that is over.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from .decision import Decision, Estimate
from .leases import UNKNOWN
from .ports import Position
from .scope import Scope
from .standing import Standing

_IN_FLIGHT, _RIDING, _KEPT, _GONE = range(4)


class Reservation:
    """What one call holds. Works in `with` and `async with`: leaving by an exception releases it, leaving without `settle`
    counts the estimate as used."""

    __slots__ = ("_book", "_early", "_entries", "_phase", "_scope", "decision")

    def __init__(self, book: Book, scope: Scope, decision: Decision, entries: list[tuple[Standing, float]]) -> None:
        self._phase = _IN_FLIGHT
        self._early: tuple[Position | None] | None = None  # where it went, heard before it was settled
        self._book = book
        self._scope = scope
        self._entries = entries
        self.decision = decision

    @property
    def model(self) -> str | None:
        """The model to use."""
        return self.decision.model

    @property
    def leased(self) -> bool:
        """Some policy counts what this call uses."""
        return any(standing.ceiling is not None for standing, _ in self._entries)

    def settle(self, used: Estimate | None = None, *, rides: bool = False) -> None:
        """The call has used this much; what is unknown counts as estimated. `rides`: an emitter carries the response and
        will say where it went (`placed`); until then the amount is outstanding, however long that takes. Once."""
        self._book.settle(self, used, rides)

    def release(self) -> None:
        """The call was not made, or used nothing. Idempotent, and nothing after `settle`."""
        self._book.release(self)

    def placed(self, position: Position | None) -> None:
        """The response is in the calls topic there; None: nobody knows. From any thread, collector or signal handler."""
        self._book.mail.append((self, position))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self.release()
        else:
            self.settle()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __del__(self) -> None:
        # Lost by its owner. Whether the call was made nobody knows, so it is kept like one whose event was dropped. The
        # collector may run anywhere, so this takes no lock.
        if self._phase < _KEPT:
            with contextlib.suppress(Exception):  # the interpreter may be ending
                lost = Reservation(self._book, self._scope, self.decision, self._entries)
                lost._phase = _KEPT
                lost.placed(None)


class Book:
    """All reservations of one gate in one process. `lock` is the gate's; `mail` takes news without it."""

    def __init__(self, lock: threading.RLock, monotonic: Callable[[], float], kept_s: float) -> None:
        self.mail: deque[tuple[Reservation, Position | None]] = deque()
        self.kept: dict[Reservation, float] = {}  # until when, soonest first
        self._lock = lock
        self._monotonic = monotonic
        self._kept_s = kept_s
        self._closed = False

    def settle(self, reservation: Reservation, used: Estimate | None, rides: bool) -> None:
        with self._lock:
            if reservation._phase != _IN_FLIGHT or self._closed:
                return
            reservation._phase = _RIDING
            if used is not None:
                amounts = reservation._scope.usual.used(used)
                entries = reservation._entries
                for index, (standing, amount) in enumerate(entries):
                    actual = amounts[standing.place_of]
                    if actual not in (amount, UNKNOWN):
                        standing.change(amount, actual)
                        entries[index] = (standing, actual)
            if not rides:
                self._keep(reservation)
            if reservation._early is not None:
                self.mail.append((reservation, *reservation._early))

    def release(self, reservation: Reservation) -> None:
        with self._lock:
            if reservation._phase == _IN_FLIGHT and not self._closed:
                self._let_go(reservation)

    def read_mail(self) -> None:
        """Hear where responses went. The lock is held."""
        mail = self.mail
        while mail:
            reservation, position = mail.popleft()
            if reservation._phase == _IN_FLIGHT:
                reservation._early = (position,)
                continue
            if reservation._phase not in (_RIDING, _KEPT):
                continue
            if position is None:
                self._keep(reservation)
                continue
            self.kept.pop(reservation, None)
            reservation._phase = _GONE
            for standing, amount in reservation._entries:
                standing.place(amount, position.partition, position.offset)

    def tick(self, now: float) -> None:
        """Let go of what was kept for long enough. The lock is held."""
        while self.kept:
            reservation, until = next(iter(self.kept.items()))
            if until > now:
                break
            del self.kept[reservation]
            self._let_go(reservation)

    def close(self) -> None:
        """In the child of a fork: what is held is the parent's."""
        self._closed = True
        self.mail = deque(maxlen=0)
        self.kept.clear()

    def _keep(self, reservation: Reservation) -> None:
        reservation._phase = _KEPT
        self.kept.setdefault(reservation, self._monotonic() + self._kept_s)

    def _let_go(self, reservation: Reservation) -> None:
        reservation._phase = _GONE
        for standing, amount in reservation._entries:
            standing.drop(amount)
