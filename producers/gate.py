"""The gate: "may this call go?", answered locally in a fraction of a microsecond.

    source ─► follower thread ─► Knowledge: what every policy says of the scopes this gate is asked about
                                    │
    service ─► check ──── look ─────┤   no lock and no I/O, unless something is in the way
            ─► reserve ── take ─────┘─► Reservation ─ settle ─► emitter ─ placed at (partition, offset)
                                                                              └─► outstanding until a signal counts it

How far all gates together can overspend is at the top of `leases`. Every policy that speaks is obeyed; a decision is
given in the name of the harshest. When nothing was heard for longer than a policy's `stale_after`, its `stale` decides;
but what is known to be blocked until a certain time stays so until then. Before anything at all was heard there are no
policies and calls go (`GateSettings.unheard`); `acquire` and an observed call give the first answer a moment to come.

Locks are held for microseconds and never during I/O, so threads and asyncio tasks share one gate. The lock is reentrant:
a signal handler that makes a call in the middle of another's reservation may exceed a lease by that call, and does not
hang. The child of a fork knows what its parent knew, owes nothing, and is another gate.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from ..schemas.errors import GateClosed, LogUnavailable
from ..schemas.policy import SEVERITY
from .decision import Amounts, Decision, Estimate
from .knowledge import Knowledge
from .leases import INFINITE
from .node_clock import NodeClock
from .reservation import Book, Reservation
from .scope import Scope
from .signals import START, SignalSource
from .standing import jittered

_logger: Final = logging.getLogger("tidegate")

# A waiter sleeps at least this long, so that many of them do not spin, and at most that, so that it notices news.
_SHORTEST_WAIT_S: Final = 0.005
_LONGEST_WAIT_S: Final = 0.25
_FIRST_RETRY_S: Final = 0.2
# A node that is restarted is heard again this soon.
_SLOWEST_RETRY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class GateSettings:
    """How a gate behaves, beyond what policies say."""

    # The default wait of `acquire`: four heartbeats of a hot scope. After that a caller had rather have the refusal.
    max_wait_s: float = 1.0
    # For the first answer of the source, once in a process: the time to connect to a node, and not more.
    first_answer_s: float = 2.0
    # How long spend stays outstanding that nobody can place: longer than any call runs and any healthy emitter spools.
    kept_s: float = 600.0
    # A node takes a gate that has been silent for five seconds for gone.
    announce_s: float = 1.0
    # Before any policy was heard of: `open` lets calls go, `closed` does not.
    unheard: Literal["open", "closed"] = "open"


class Gate:
    """Follows a `SignalSource` and answers for it. Thread-safe. Nothing is opened before the first question.

    `clock` is the wall clock, seconds since 1970, looked at once; all else goes by `monotonic`. With `follow=False` there
    is no thread: give it the records by `hear`.
    """

    def __init__(
        self,
        source: SignalSource,
        *,
        gate_id: str | None = None,
        settings: GateSettings | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        follow: bool = True,
    ) -> None:
        self.settings = settings or GateSettings()
        self._source = source
        self._monotonic = monotonic
        self._sleep = sleep
        self._follows = follow
        self._known = Knowledge(gate_id or _new_id(), NodeClock(clock(), monotonic()), monotonic())
        self._position = START
        self._refused: Counter[str] = Counter()
        self._told: set[str] = set()
        self._begin()
        _gates.add(self)
        _watch_forks()

    def _begin(self) -> None:
        """What belongs to one process."""
        self._lock = threading.RLock()
        self._book = Book(self._lock, self._monotonic, self.settings.kept_s)
        self._following = False
        self._starting = threading.Lock()
        self._stop = threading.Event()
        self._answered = threading.Event()  # the source has, or cannot
        if self._known.heard:
            self._answered.set()

    @property
    def id(self) -> str:
        """The name under which it is counted among the live gates."""
        return self._known.gate_id

    # --- the caller's side -------------------------------------------------------------------------------------------

    def scope(self, **fields: str | None) -> Scope:
        """Make a kind of call ready: `tenant`, `team`, `user`, `model`, `prompt_name` … by the names of an event, and labels
        as `**{"label.channel": "phone"}`."""
        return Scope({name: value for name, value in fields.items() if value is not None})

    def check(
        self, scope: Scope | Mapping[str, Any], *, model: str | None = None, estimate: Estimate | None = None
    ) -> Decision:
        """Whether a call may go now, and how. Looks, and takes nothing.

        Without an estimate the call is taken to use what calls of this model usually do.
        """
        if not isinstance(scope, Scope):
            scope = self._known.scope_of(scope)
        if model is not None and model != scope.model:
            scope = scope.on(model)
        known = self._known
        if scope.generation == known.generation and (estimate is None or scope.bounds is None):
            amounts = scope.usual.amounts if estimate is None else scope.usual.fill(estimate)
            for standing in scope.limiting:
                if amounts[standing.place_of] > standing.margin:
                    break
            else:
                if self._monotonic() - known.heard_at <= scope.stale_after_s and (known.heard or self._open_unheard):
                    return scope.go
        with self._lock:
            return self._decide(scope, estimate, self._monotonic())[0]

    def reserve(
        self, scope: Scope | Mapping[str, Any], estimate: Estimate | None = None, *, model: str | None = None
    ) -> Reservation:
        """Let a call go and hold what it is expected to use. Raises `GateClosed` at once when it may not go."""
        reservation = self._try(scope, estimate, model)
        if isinstance(reservation, Decision):
            raise self._refuse(reservation)
        return reservation

    def acquire(
        self,
        scope: Scope | Mapping[str, Any],
        estimate: Estimate | None = None,
        *,
        model: str | None = None,
        max_wait_s: float | None = None,
    ) -> Reservation:
        """`reserve`, waiting up to `max_wait_s` while waiting can help: for news of a lease, or for a throttle's turn."""
        wait_s = self.settings.max_wait_s if max_wait_s is None else max_wait_s
        if not self._answered.is_set() and self.follow():
            self._answered.wait(min(self.settings.first_answer_s, wait_s))
        deadline = self._monotonic() + wait_s
        while isinstance(found := self._try(scope, estimate, model), Decision):
            self._sleep(self._patience(found, deadline))
        return found

    async def aacquire(
        self,
        scope: Scope | Mapping[str, Any],
        estimate: Estimate | None = None,
        *,
        model: str | None = None,
        max_wait_s: float | None = None,
    ) -> Reservation:
        """`acquire` without holding up the event loop."""
        wait_s = self.settings.max_wait_s if max_wait_s is None else max_wait_s
        if not self._answered.is_set() and self.follow():
            until = self._monotonic() + min(self.settings.first_answer_s, wait_s)
            while not self._answered.is_set() and self._monotonic() < until:
                await asyncio.sleep(_SHORTEST_WAIT_S)
        deadline = self._monotonic() + wait_s
        while isinstance(found := self._try(scope, estimate, model), Decision):
            await asyncio.sleep(self._patience(found, deadline))
        return found

    def explain(self, scope: Scope | Mapping[str, Any]) -> list[dict[str, Any]]:
        """What every policy that concerns such a call says, with its lease; those that only alert included."""
        self.follow()
        if not isinstance(scope, Scope):
            scope = self._known.scope_of(scope)
        with self._lock:
            self._book.read_mail()
            self._known.resolve(scope)
            now = self._monotonic()
            return [
                standing.explain(scope.usual.amounts[standing.place_of], now, now - self._known.heard_at)
                for standing in (*scope.limiting, *scope.alerting)
            ]

    def learn(self, model: str, used: Estimate) -> None:
        """What a call of this model has used, for calls without an estimate."""
        with self._lock:
            self._known.usual_of(model).learn(used)

    def usual(self, model: str) -> Estimate:
        """What calls of this model usually use, as far as was learnt."""
        amounts = self._known.usual_of(model).amounts
        return Estimate(*(None if amount == INFINITE else int(amount) for amount in amounts[1:3]))

    def answered(self, model: str, response_model: str | None, provider_name: str | None) -> None:
        """By whom calls of `model` are answered: policies count by the model and provider of the answer."""
        with self._lock:
            self._known.answered(model, response_model, provider_name)

    def stats(self) -> dict[str, Any]:
        """For metrics and for people: how it stands with this gate."""
        with self._lock:
            known = self._known
            return {
                "id": known.gate_id,
                "member": known.member,
                "gates": known.gates,
                "heard": known.heard,
                "silent_s": self._monotonic() - known.heard_at,
                "refused": dict(self._refused),
                "outstanding_calls": max((standing.calls for standing in known.standings.values()), default=0),
                "kept_calls": len(self._book.kept),
                "scopes": len(known.standings),
            }

    def close(self) -> None:
        """Stop following. What it knows stays, and grows stale. Idempotent."""
        self._follows = False
        self._stop.set()
        self._answered.set()
        self._source.close()

    # --- deciding ----------------------------------------------------------------------------------------------------

    @property
    def _open_unheard(self) -> bool:
        return self.settings.unheard == "open"

    def _try(self, scope: Scope | Mapping[str, Any], estimate: Estimate | None, model: str | None) -> Reservation | Decision:
        if not isinstance(scope, Scope):
            scope = self._known.scope_of(scope)
        if model is not None and model != scope.model:
            scope = scope.on(model)
        with self._lock:
            self._book.read_mail()
            now = self._monotonic()
            decision, scope, amounts = self._decide(scope, estimate, now)
            if not decision.allowed:
                return decision
            entries = []
            for standing in scope.limiting:
                amount = amounts[standing.place_of]
                if amount > standing.margin:
                    standing.go(amount, now)
                standing.take(amount)
                entries.append((standing, amount))
            return Reservation(self._book, scope, decision, entries)

    def _decide(self, scope: Scope, estimate: Estimate | None, now: float) -> tuple[Decision, Scope, Amounts]:
        """The answer, the scope of the model to use, and what is expected of it. The lock is held.

        A downgrade is followed to the model it names, whose own policies are asked in turn; each policy downgrades once.
        """
        if not self._following:
            self.follow()
        known = self._known
        silent_s = now - known.heard_at
        obeyed: set[str | None] = set()
        said: Decision | None = None
        while True:
            if scope.generation != known.generation:
                known.resolve(scope)
            amounts = scope.usual.amounts if estimate is None else scope.usual.fill(estimate)
            refusal: Decision | None = None
            if scope.bounds is not None and estimate is not None:
                refusal = scope.bounds.refuse(estimate)
            further: Decision | None = None
            for standing in scope.limiting:
                amount = amounts[standing.place_of]
                if amount <= standing.margin and silent_s <= scope.stale_after_s:
                    continue
                verdict = standing.judge(amount, now, silent_s)
                if verdict is None:
                    continue
                if not verdict.allowed:
                    refusal = _harsher(refusal, verdict)
                    continue
                if said is None or SEVERITY[verdict.state] > SEVERITY[said.state]:
                    said = verdict
                if further is None and verdict.model not in (None, scope.model) and verdict.policy not in obeyed:
                    further = verdict
            if refusal is not None:
                return msgspec.structs.replace(refusal, model=scope.model), scope, amounts
            if further is None:
                break
            obeyed.add(further.policy)
            scope = scope.on(further.model or "")
        if not known.heard and not self._open_unheard:
            reason = "no policy was heard of yet, and this gate is set to hold calls back until then"
            retry_s = _SHORTEST_WAIT_S
            return Decision(allowed=False, state="block", reason=reason, stale=True, retry_after_s=retry_s), scope, amounts
        if said is None or SEVERITY[scope.go.state] > SEVERITY[said.state]:
            return scope.go, scope, amounts
        return msgspec.structs.replace(said, model=scope.model), scope, amounts

    def _refuse(self, decision: Decision) -> GateClosed:
        self._refused[decision.policy or ""] += 1
        return decision.closed()

    def _patience(self, decision: Decision, deadline: float) -> float:
        """How long to wait before asking again. Raises `GateClosed` when that cannot help in time."""
        wait_s, left_s = decision.retry_after_s, deadline - self._monotonic()
        if wait_s is None or left_s <= 0 or (wait_s > left_s and decision.state == "throttle"):
            raise self._refuse(decision)
        return min(jittered(min(max(wait_s, _SHORTEST_WAIT_S), _LONGEST_WAIT_S)), max(left_s, _SHORTEST_WAIT_S))

    # --- the follower's side -----------------------------------------------------------------------------------------

    def hear(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Take in records of the signals topic, in their order."""
        with self._lock:
            now = self._monotonic()
            self._book.read_mail()
            self._known.hear(records, now)
            self._tick(now)

    def _tick(self, now: float) -> None:
        self._known.tick(now)
        self._book.tick(now)

    def follow(self) -> bool:
        """Begin to follow the source, unless that is so already; every question does. Whether it is followed."""
        # Not blocking: of many first questions, and a signal handler interrupting one, exactly one starts the thread.
        if self._follows and not self._following and self._starting.acquire(blocking=False):
            try:
                self._following = True
                threading.Thread(target=self._run, args=(self._stop,), name="tidegate-gate", daemon=True).start()
            except RuntimeError:  # the interpreter is ending
                self._answered.set()
        return self._follows

    def _run(self, stop: threading.Event) -> None:
        """Follow until closed; the source is this thread's."""
        announced_at, failures = -INFINITE, 0
        while not stop.is_set():
            rest_s = 0.0
            try:
                # Real time, whatever the clock of the rest: it paces real I/O.
                if time.monotonic() - announced_at >= self.settings.announce_s:
                    announced_at = time.monotonic()
                    self._source.announce(self.id)
                # The first time somebody may be waiting for what there is, and be it nothing.
                wait_s = self.settings.announce_s if self._answered.is_set() else 0.0
                records, position = self._source.poll(self._position, wait_s)
                if stop.is_set():
                    break
                self.hear(records)
                self._position = position
                failures = 0
                self._told.discard("away")
            except LogUnavailable as error:
                failures += 1
                rest_s = min(_SLOWEST_RETRY_S, max(_FIRST_RETRY_S * 2.0 ** min(failures, 10), error.retry_after_s or 0.0))
                self._warn("away", "signals_unavailable error=%s", error)
            except Exception as error:  # noqa: BLE001 — the emitter's door: an unknown error must not end the thread
                rest_s = _SLOWEST_RETRY_S
                self._warn(type(error).__name__, "gate_failed error=%s", type(error).__name__)
            self._answered.set()
            if rest_s:
                with self._lock:
                    self._tick(self._monotonic())
                stop.wait(jittered(rest_s))
        self._source.close()

    def _warn(self, kind: str, message: str, *values: object) -> None:
        """Once for each kind and outage."""
        if kind not in self._told:
            self._told.add(kind)
            _logger.warning(message, *values)

    def forked(self) -> None:
        """Begin again in the child of a fork."""
        self._source.abandon()
        self._book.close()
        self._known.forked(_new_id())
        self._begin()


def _harsher(one: Decision | None, other: Decision) -> Decision:
    """Of two refusals the harsher; of equal ones the one that no waiting helps, or that lasts longer."""
    if one is None:
        return other
    left = (SEVERITY[one.state], INFINITE if one.retry_after_s is None else one.retry_after_s)
    right = (SEVERITY[other.state], INFINITE if other.retry_after_s is None else other.retry_after_s)
    return other if right > left else one


def _new_id() -> str:
    return f"gate-{socket.gethostname()[:60]}-{os.getpid()}-{secrets.token_hex(6)}"


_gates: Final[weakref.WeakSet[Gate]] = weakref.WeakSet()
_watching = False


def _watch_forks() -> None:
    """Registered with the first gate, not at import."""
    global _watching
    if not _watching and hasattr(os, "register_at_fork"):
        _watching = True
        os.register_at_fork(after_in_child=_after_fork)


def _after_fork() -> None:
    for gate in list(_gates):
        gate.forked()
