"""The gate: "may this call go?", answered locally in about a microsecond.

    source ──► follower thread ──► what every policy says of every scope this gate was asked about
                                         │
    service ──► check ───── look ────────┤   no lock, no I/O
            ──► reserve ─── take ────────┘──► Reservation ── settle ──► emitter ── placed at (partition, offset)
                                                                            └──► outstanding until a signal counts it

A call that was let go is outstanding (see `leases`, where the bound on overspending is) from `reserve` until a signal
counts the envelope that its response travelled in. When nobody can say what became of that envelope, because it was
dropped or the node did not tell its place, the amount stays outstanding for `kept_s`: the money is really spent, so to
forget it at once would let it be spent again.

Every policy that speaks is obeyed; a decision is given in the name of the harshest. Before anything was heard there are
no policies, so calls go; `acquire` and an observed call give the first answer a moment to come.

Locks are held for microseconds and never during I/O, so threads and asyncio tasks share one gate. The lock is reentrant:
a signal handler that makes a call in the middle of another's reservation may exceed a lease by that call, and does not
hang. The child of a fork knows what its parent knew, owes nothing, and is another gate.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import secrets
import socket
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Self

import msgspec
from pydantic import ValidationError

from ..schemas.errors import LogUnavailable
from ..schemas.policy import SEVERITY, PolicySet
from ..schemas.signal import GATES_KEY, POLICIES_KEY, Gates, decode_gates, decode_signal, signal_key
from ..schemas.unit_prices import PRICES_KEY, decode_unit_prices
from .decision import ALL_UNKNOWN, Amounts, Decision, Estimate
from .leases import INFINITE, UNKNOWN
from .ports import Position
from .signals import START, SignalSource
from .standing import CallBounds, Rule, Standing, jittered, matches

_logger: Final = logging.getLogger("tidegate")

_SIGNAL: Final = b"signal|"
# Scopes of mappings, and standings, that are kept ready; beyond it the idle ones are forgotten and made again when asked.
_MOST_SCOPES: Final = 20_000
# How long after the offsets of a heartbeat the signals that count them have been sent: a policies step holds news of a hot
# scope back for a quarter of a second.
_SETTLING_S: Final = 1.0
# A wait that has nothing better to go by; and the longest sleep of a waiter, so that it notices news.
_SHORTEST_WAIT_S: Final = 0.005
_LONGEST_WAIT_S: Final = 0.25
_FIRST_RETRY_S: Final = 0.2
_SLOWEST_RETRY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class GateSettings:
    """How a gate behaves, beyond what policies say."""

    # The default wait of `acquire`: four heartbeats of a hot scope. Longer, and a caller had rather have the refusal.
    max_wait_s: float = 1.0
    # For the first answer of the source, once in a process: the time to connect to a node, and not more.
    first_answer_s: float = 2.0
    # How long spend stays outstanding that no signal can be seen to count: twice the longest that events wait in a healthy
    # service, and above every provider's timeout.
    kept_s: float = 600.0
    # The node takes a gate that has been silent for five seconds for gone.
    announce_s: float = 1.0
    # Before any policy was heard of: `open` lets calls go, `closed` does not.
    unheard: Literal["open", "closed"] = "open"


class Scope:
    """The fields of a kind of call, made ready: prepare one where calls are alike, and `check` takes a microsecond."""

    __slots__ = ("_others", "bounds", "fields", "generation", "go", "limiting", "model", "silent", "stale_after_s", "usual")

    def __init__(self, fields: Mapping[str, str | None]) -> None:
        self.fields = fields
        self.model = fields.get("model")
        self.generation = -1
        self.limiting: tuple[Standing, ...] = ()
        self.silent: tuple[Standing, ...] = ()  # of policies that only alert
        self.bounds: CallBounds | None = None
        self.stale_after_s = INFINITE
        self.usual = _Usual()
        self.go = Decision(allowed=True, model=self.model)
        self._others: dict[str, Scope] = {}

    def on(self, model: str) -> Scope:
        """The same kind of call with another model."""
        if model == self.model:
            return self
        other = self._others.get(model)
        if other is None:
            if len(self._others) > 1_000:
                self._others.clear()
            other = self._others[model] = Scope({**self.fields, "model": model})
            other._others[self.model or ""] = self
        return other


class _Usual:
    """What calls of a model usually use: running means of settled calls, for those that come without an estimate."""

    __slots__ = ("amounts", "cost_nano", "input_tokens", "output_tokens", "prices")

    def __init__(self) -> None:
        self.input_tokens: float | None = None
        self.output_tokens: float | None = None
        self.cost_nano: float | None = None
        self.prices: tuple[float, float] | None = None
        self.amounts: Amounts = ALL_UNKNOWN

    def learn(self, used: Estimate) -> None:
        """Half of what is remembered is of the last five calls: prompts of a service change seldom, and then for good."""
        for name, value in (
            ("input_tokens", used.input_tokens),
            ("output_tokens", used.output_tokens),
            ("cost_nano", None if used.cost_usd is None else used.cost_usd * 1e9),
        ):
            if value is not None:
                mean = getattr(self, name)
                setattr(self, name, float(value) if mean is None else mean + (value - mean) / 8)
        self.conclude()

    def conclude(self) -> None:
        cost = None if self.prices is not None or self.cost_nano is None else self.cost_nano / 1e9
        self.amounts = Estimate(_up(self.input_tokens), _up(self.output_tokens), cost).amounts(self.prices)

    def fill(self, given: Estimate) -> Amounts:
        """Amounts of an estimate, with the usual where it says nothing."""
        mine = Estimate(
            _up(self.input_tokens) if given.input_tokens is None else given.input_tokens,
            _up(self.output_tokens) if given.output_tokens is None else given.output_tokens,
            given.cost_usd if given.cost_usd is not None or self.prices or self.cost_nano is None else self.cost_nano / 1e9,
        )
        return mine.amounts(self.prices)


class _NodeClock:
    """The node's clock on ours. Only differences of the monotonic clock count, so setting the wall clock here changes
    nothing; before the node is heard the wall clock has to do.

    A heartbeat is late by its delay, so the least late of the last minutes is the nearest to the truth; what is reckoned
    with it comes a little late, never early.
    """

    _EVERY_S: Final = 120.0

    def __init__(self, wall: float, now: float) -> None:
        self._ahead = wall - now
        self._now: float | None = None
        self._before: float | None = None
        self._turn_at = now + self._EVERY_S

    def heard(self, at: float, now: float) -> None:
        if now >= self._turn_at:
            self._before, self._now, self._turn_at = self._now, None, now + self._EVERY_S
        self._now = at - now if self._now is None else max(self._now, at - now)
        self._ahead = self._now if self._before is None else max(self._now, self._before)

    def mono_of(self, at: float) -> float:
        return at - self._ahead


_IN_FLIGHT, _SETTLED, _GONE = range(3)


class Reservation:
    """What one call holds of its policies, from before it goes until it is counted. Works in `with` and `async with`:
    leaving by an exception releases it, leaving without `settle` counts the estimate as used."""

    __slots__ = ("_entries", "_epoch", "_gate", "_phase", "_scope", "decision")

    def __init__(self, gate: Gate, scope: Scope, decision: Decision, entries: list[tuple[Standing, float]]) -> None:
        self.decision = decision
        self._gate = gate
        self._scope = scope
        self._epoch = gate._epoch
        self._entries = entries
        self._phase = _IN_FLIGHT

    @property
    def model(self) -> str | None:
        """The model to use."""
        return self.decision.model

    @property
    def leased(self) -> bool:
        """Some policy counts what this call uses."""
        return any(standing.ceiling is not None for standing, _ in self._entries)

    def expected(self) -> Estimate:
        """What is held for it, as tokens; None where that is unknown."""
        amounts = self._scope.usual.amounts
        known = [int(amount) if amount != UNKNOWN else None for amount in amounts[1:3]]
        return Estimate(known[0], known[1])

    def settle(self, used: Estimate | None = None, *, rides: bool = False) -> None:
        """The call has used this much; what is unknown counts as estimated. `rides`: an emitter carries the response and
        will say where it went (`placed`); until then, without a time limit, the amount is outstanding. Once."""
        self._gate._settle(self, used, rides)

    def release(self) -> None:
        """The call was not made, or used nothing. Idempotent, and nothing after `settle`."""
        self._gate._release(self)

    def placed(self, position: Position | None) -> None:
        """The response is in the calls topic there; None: nobody knows. From any thread or signal handler."""
        self._gate._mail.append((self, position))

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
        # Lost by its owner: whether the call was made nobody knows, so it is kept like one whose event was dropped. The
        # collector may run anywhere, so this takes no lock.
        with contextlib.suppress(Exception):
            if self._phase != _GONE:
                lost = Reservation(self._gate, self._scope, self.decision, self._entries)
                lost._epoch, lost._phase = self._epoch, _SETTLED
                self._gate._mail.append((lost, None))


class Gate:
    """Follows a `SignalSource` and answers for it. Thread-safe. Nothing is opened before the first question.

    `clock` is the wall clock, seconds since 1970, looked at once; all else goes by `monotonic`.
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
        self.id = gate_id or _new_id()
        self.settings = settings or GateSettings()
        self._source = source
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._follows = follow
        self._rules: tuple[Rule, ...] = ()
        self._limits: PolicySet = PolicySet()
        self._needed: tuple[str, ...] = ("model",)
        self._by_model = False  # some policy tells calls apart by who answers them
        self._words: dict[bytes, bytes] = {}  # signals of scopes nobody here has asked about, as they came
        self._standings: dict[bytes, Standing] = {}
        self._scopes: dict[tuple[str | None, ...], Scope] = {}
        self._usual: dict[str | None, _Usual] = {}
        self._prices: dict[str, tuple[float, float]] = {}
        self._answered_as: dict[str, tuple[str | None, str | None]] = {}
        self._generation = 0
        self._gates = 1
        self._member = False
        self._beats: deque[Gates] = deque()
        self._position = START
        self._policies_heard = False
        self._node_clock = _NodeClock(clock(), monotonic())
        self._heard_at = monotonic()
        self._heard = False
        self._refused: Counter[str] = Counter()
        self._told: set[str] = set()
        self._epoch = 0
        self._begin()
        _gates.add(self)
        _watch_forks()

    def _begin(self) -> None:
        """What belongs to one process."""
        self._epoch += 1
        self._lock = threading.RLock()
        self._mail: deque[tuple[Reservation, Position | None]] = deque()
        self._kept: dict[Reservation, float] = {}
        self._following = False
        self._starting = threading.Lock()
        self._stop = threading.Event()
        self._first = threading.Event()
        if self._position != START:
            self._first.set()

    # --- the caller's side -------------------------------------------------------------------------------------------

    def scope(self, **fields: str | None) -> Scope:
        """Make a kind of call ready: `tenant`, `team`, `user`, `model`, `prompt_name` … as in an event, `label.<key>` as
        `**{"label.channel": "phone"}`."""
        return Scope({name: value for name, value in fields.items() if value is not None})

    def check(
        self, scope: Scope | Mapping[str, Any], *, model: str | None = None, estimate: Estimate | None = None
    ) -> Decision:
        """Whether a call may go now, and how. Looks, and takes nothing; no lock and no I/O unless something is in the way.

        Without an estimate the call is taken to use what calls of this model usually do.
        """
        if not isinstance(scope, Scope):
            scope = self._scope_of(scope)
        if model is not None and model != scope.model:
            scope = scope.on(model)
        if estimate is None and scope.generation == self._generation:
            amounts = scope.usual.amounts
            for standing in scope.limiting:
                if amounts[standing.place_of] > standing.margin:
                    break
            else:
                if self._monotonic() - self._heard_at <= scope.stale_after_s:
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
        deadline = self._deadline(max_wait_s)
        self.follow()
        if not self._first.is_set():
            self._first.wait(min(self.settings.first_answer_s, max(0.0, deadline[1])))
        while True:
            reservation = self._try(scope, estimate, model)
            if isinstance(reservation, Reservation):
                return reservation
            self._sleep(self._patience(reservation, deadline[0]))

    async def aacquire(
        self,
        scope: Scope | Mapping[str, Any],
        estimate: Estimate | None = None,
        *,
        model: str | None = None,
        max_wait_s: float | None = None,
    ) -> Reservation:
        """`acquire` without holding up the event loop."""
        deadline, wait_s = self._deadline(max_wait_s)
        self.follow()
        first = self._monotonic() + min(self.settings.first_answer_s, wait_s)
        while not self._first.is_set() and self._monotonic() < first:
            await asyncio.sleep(_SHORTEST_WAIT_S)
        while True:
            reservation = self._try(scope, estimate, model)
            if isinstance(reservation, Reservation):
                return reservation
            await asyncio.sleep(self._patience(reservation, deadline))

    def explain(self, scope: Scope | Mapping[str, Any]) -> list[dict[str, Any]]:
        """What every policy that concerns such a call says, those that only alert included."""
        if not isinstance(scope, Scope):
            scope = self._scope_of(scope)
        with self._lock:
            self._read_mail()
            self._resolve(scope)
            now = self._monotonic()
            silent_s = now - self._heard_at
            found = []
            for standing in (*scope.limiting, *scope.silent):
                verdict = standing.judge(scope.usual.amounts[standing.place_of], now, silent_s)
                verdict = verdict or standing.say(standing.state, standing.told())
                told = verdict.as_dict()
                told["lease"] = None if math.isinf(standing.room) else standing.room
                told["outstanding"] = standing.outstanding
                told["outstanding_calls"] = standing.calls
                told["gates"] = standing.gates
                found.append(told)
            return found

    def stats(self) -> dict[str, Any]:
        """For metrics: how it stands with this gate."""
        with self._lock:
            return {
                "id": self.id,
                "member": self._member,
                "gates": self._gates,
                "silent_s": self._monotonic() - self._heard_at,
                "refused": dict(self._refused),
                "outstanding_calls": sum(standing.calls for standing in self._standings.values()),
                "kept": len(self._kept),
                "scopes": len(self._standings),
            }

    def learn(self, model: str, used: Estimate) -> None:
        """What a call of this model has used, for calls without an estimate."""
        with self._lock:
            self._usual_of(model).learn(used)

    def answered(self, model: str, response_model: str | None, provider_name: str | None) -> None:
        """By which model and provider calls of `model` are answered: policies count by those."""
        said = (response_model, provider_name)
        if self._answered_as.get(model) != said and (len(self._answered_as) < 1_000 or model in self._answered_as):
            with self._lock:
                self._answered_as[model] = said
                if self._by_model:
                    self._generation += 1

    def close(self) -> None:
        """Stop following. What it knows stays, and grows stale."""
        self._stop.set()
        self._first.set()
        self._follows = False
        self._source.close()

    def follow(self) -> None:
        """Start to follow the source, unless that is so already; every question does."""
        if self._following or not self._follows:
            return
        # Not blocking: of many first questions, and a signal handler interrupting one, exactly one starts the thread.
        if self._starting.acquire(blocking=False):
            try:
                self._following = True
                threading.Thread(target=self._run, name="tidegate-gate", daemon=True).start()
            except RuntimeError:  # the interpreter is ending
                self._first.set()

    # --- deciding ----------------------------------------------------------------------------------------------------

    def _try(self, scope: Scope | Mapping[str, Any], estimate: Estimate | None, model: str | None) -> Reservation | Decision:
        if not isinstance(scope, Scope):
            scope = self._scope_of(scope)
        if model is not None and model != scope.model:
            scope = scope.on(model)
        with self._lock:
            self._read_mail()
            now = self._monotonic()
            decision, scope, amounts = self._decide(scope, estimate, now)
            if not decision.allowed:
                return decision
            entries = []
            for standing in scope.limiting:
                amount = amounts[standing.place_of]
                standing.go(amount, now)
                standing.take(amount)
                entries.append((standing, amount))
            return Reservation(self, scope, decision, entries)

    def _decide(self, scope: Scope, estimate: Estimate | None, now: float) -> tuple[Decision, Scope, Amounts]:
        """The answer, the scope of the model to use, and what is expected of it. The lock is held.

        A downgrade is followed to the model it names, whose own policies are asked in turn; each policy downgrades once.
        """
        if not self._following:
            self.follow()
        silent_s = now - self._heard_at
        obeyed: set[str] = set()
        said: Decision | None = None
        while True:
            if scope.generation != self._generation:
                self._resolve(scope)
            usual = scope.usual
            amounts = usual.amounts if estimate is None else usual.fill(estimate)
            refusal: Decision | None = None
            if scope.bounds is not None and estimate is not None:
                refusal = scope.bounds.refuse(estimate.input_tokens, estimate.output_tokens)
            further: Decision | None = None
            for standing in scope.limiting:
                amount = amounts[standing.place_of]
                if amount <= standing.margin and standing.state == "ok" and silent_s <= scope.stale_after_s:
                    continue
                verdict = standing.judge(amount, now, silent_s)
                if verdict is None:
                    continue
                if not verdict.allowed:
                    refusal = _harsher(refusal, verdict)
                    continue
                if said is None or SEVERITY[verdict.state] > SEVERITY[said.state]:
                    said = verdict
                if verdict.model not in (None, scope.model) and verdict.policy not in obeyed:
                    further = further or verdict
            if refusal is not None:
                return msgspec.structs.replace(refusal, model=scope.model), scope, amounts
            if further is None:
                break
            obeyed.add(further.policy or "")
            scope = scope.on(further.model or "")
        if not self._heard and self.settings.unheard == "closed":
            reason = "no policy was heard of yet, and this gate is set to hold calls back until then"
            return Decision(allowed=False, state="block", reason=reason, stale=True, retry_after_s=0.05), scope, amounts
        if said is not None:
            return msgspec.structs.replace(said, model=scope.model), scope, amounts
        return scope.go, scope, amounts

    def _refuse(self, decision: Decision) -> Exception:
        self._refused[decision.policy or ""] += 1
        return decision.closed()

    def _deadline(self, max_wait_s: float | None) -> tuple[float, float]:
        wait_s = self.settings.max_wait_s if max_wait_s is None else max_wait_s
        return self._monotonic() + wait_s, wait_s

    def _patience(self, decision: Decision, deadline: float) -> float:
        """How long to wait before asking again; raises `GateClosed` when that cannot help in time."""
        wait_s, left_s = decision.retry_after_s, deadline - self._monotonic()
        if wait_s is None or left_s <= 0 or (decision.state == "throttle" and wait_s > left_s):
            raise self._refuse(decision)
        return min(jittered(min(max(wait_s, _SHORTEST_WAIT_S), _LONGEST_WAIT_S)), max(left_s, _SHORTEST_WAIT_S))

    def _scope_of(self, fields: Mapping[str, Any]) -> Scope:
        """The scope of an event's fields; one for all that no policy tells apart."""
        values = tuple(_field(fields, name) for name in self._needed)
        scope = self._scopes.get(values)
        if scope is None:
            with self._lock:
                if len(self._scopes) >= _MOST_SCOPES:
                    self._scopes.clear()
                scope = Scope({name: value for name, value in zip(self._needed, values, strict=False) if value is not None})
                self._scopes[values] = scope
        return scope

    def _resolve(self, scope: Scope) -> None:
        """Find what concerns a scope. The lock is held."""
        if scope.generation == self._generation:
            return
        scope.usual = self._usual_of(scope.model)
        fields = dict(scope.fields)
        model, provider = self._answered_as.get(scope.model or "", (None, None))
        fields["model"] = model or scope.model
        fields["provider_name"] = fields.get("provider_name") or provider
        limiting: list[Standing] = []
        silent: list[Standing] = []
        for rule in self._rules:
            if matches(rule.policy.match, fields):
                standing = self._standing(rule, tuple(fields.get(name) for name in rule.policy.scope))
                if standing.limit is not None:
                    (silent if rule.action is None else limiting).append(standing)
        bounds = tuple(limit for limit in self._limits.request_limits if matches(limit.match, fields))
        scope.limiting, scope.silent = tuple(limiting), tuple(silent)
        scope.bounds = CallBounds(bounds) if bounds else None
        scope.stale_after_s = min((standing.rule.policy.stale_after for standing in limiting), default=INFINITE)
        warned = next((standing for standing in limiting if standing.state == "warn"), None)
        if warned is not None and warned.signal is not None:
            scope.go = msgspec.structs.replace(warned.say("warn", warned.signal.reason), model=scope.model)
        else:
            quiet = "" if self._heard else "no policy was heard of yet"
            scope.go = Decision(allowed=True, reason=quiet, model=scope.model, stale=not self._heard)
        if not self._heard and self.settings.unheard == "closed":
            scope.stale_after_s = -1.0
        scope.generation = self._generation

    def _standing(self, rule: Rule, values: tuple[str | None, ...]) -> Standing:
        key = signal_key(rule.policy.name, values)
        standing = self._standings.get(key)
        if standing is None:
            if len(self._standings) >= _MOST_SCOPES:
                self._forget_idle()
            standing = self._standings[key] = Standing(rule, values)
            standing.divide(self._gates, self._member)
            word = self._words.pop(key, None)
            if word is not None:
                standing.news(decode_signal(word), self._node_clock.mono_of, self._monotonic())
        return standing

    def _forget_idle(self) -> None:
        """Forget standings that nothing hangs on; their last signals are kept as they came."""
        for key, standing in list(self._standings.items()):
            if not standing.calls and standing.quiet:
                del self._standings[key]
                if standing.signal is not None:
                    self._words[key] = msgspec.json.encode(standing.signal)
        self._scopes.clear()
        self._generation += 1

    def _usual_of(self, model: str | None) -> _Usual:
        usual = self._usual.get(model)
        if usual is None:
            if len(self._usual) >= 1_000:
                self._usual.clear()
                self._generation += 1
            usual = self._usual[model] = _Usual()
            usual.prices = self._prices.get(model or "")
            usual.conclude()
        return usual

    # --- what becomes of calls ---------------------------------------------------------------------------------------

    def _settle(self, reservation: Reservation, used: Estimate | None, rides: bool) -> None:
        with self._lock:
            if reservation._phase != _IN_FLIGHT or reservation._epoch != self._epoch:
                return
            reservation._phase = _SETTLED
            if used is not None:
                usual = reservation._scope.usual
                amounts = used.amounts(usual.prices)
                entries = []
                for standing, amount in reservation._entries:
                    actual = amounts[standing.place_of]
                    actual = amount if actual == UNKNOWN else actual
                    standing.change(amount, actual)
                    entries.append((standing, actual))
                reservation._entries = entries
            if not rides:
                self._kept[reservation] = self._monotonic() + self.settings.kept_s

    def _release(self, reservation: Reservation) -> None:
        with self._lock:
            if reservation._phase == _IN_FLIGHT and reservation._epoch == self._epoch:
                self._let_go(reservation)

    def _let_go(self, reservation: Reservation) -> None:
        reservation._phase = _GONE
        for standing, amount in reservation._entries:
            standing.drop(amount)

    def _read_mail(self) -> None:
        """Hear where responses went. The lock is held."""
        mail = self._mail
        while mail:
            reservation, position = mail.popleft()
            if reservation._phase != _SETTLED or reservation._epoch != self._epoch:
                continue
            if position is None:
                self._kept.setdefault(reservation, self._monotonic() + self.settings.kept_s)
                continue
            self._kept.pop(reservation, None)
            reservation._phase = _GONE
            for standing, amount in reservation._entries:
                standing.place(amount, position.partition, position.offset)

    # --- the follower's side -----------------------------------------------------------------------------------------

    def hear(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Take in records of the signals topic, in their order."""
        with self._lock:
            self._read_mail()
            now = self._monotonic()
            if records:
                self._heard_at = now
            catching_up = not self._heard
            if catching_up:
                self._heard = True
                self._generation += 1
            for key, value in records:
                try:
                    self._hear(key, value, now, catching_up)
                except (msgspec.DecodeError, ValidationError, ValueError) as error:
                    self._tell_once(f"signal_not_understood error={type(error).__name__}; is the node newer than this service?")
            self._tick(now)

    def _hear(self, key: bytes, value: bytes, now: float, catching_up: bool) -> None:
        if key.startswith(_SIGNAL):
            standing = self._standings.get(key)
            if standing is None:
                if value:
                    self._words[key] = value
                else:
                    self._words.pop(key, None)
            elif not value:
                standing.taken_back()
                self._generation += 1
            else:
                before = standing.state
                fresh = standing.news(decode_signal(value), self._node_clock.mono_of, now)
                if fresh and (standing.state != before or standing.state == "warn"):
                    self._generation += 1
        elif key == GATES_KEY and value:
            beat = decode_gates(value)
            if not catching_up:  # that one may be of long ago
                self._node_clock.heard(beat.at, now)
            self._count_gates(beat)
        elif key == POLICIES_KEY:
            self._enforce(PolicySet.model_validate_json(value) if value else PolicySet())
        elif key == PRICES_KEY and value:
            self._prices = decode_unit_prices(value).nano_usd
            for model, usual in self._usual.items():
                usual.prices = self._prices.get(model or "")
                usual.conclude()

    def _count_gates(self, beat: Gates) -> None:
        gates, member = len(beat.ids), self.id in beat.ids
        if (gates, member) != (self._gates, self._member):
            self._gates, self._member = max(1, gates), member
            for standing in self._standings.values():
                standing.divide(self._gates, member)
        # Signals of what a heartbeat says is counted may still be held back, so an older one is believed.
        beats = self._beats
        while beats and beats[-1].at > beat.at:  # the node's clock was set back
            beats.pop()
        if not beats or beat.at - beats[-1].at >= _SETTLING_S / 4:
            beats.append(beat)
        counted: Gates | None = None
        while beats and beat.at - beats[0].at >= _SETTLING_S:
            counted = beats.popleft()
        if counted is not None and counted.applied:
            for standing in self._standings.values():
                if standing.calls:
                    standing.count_in(counted.applied)

    def _enforce(self, policies: PolicySet) -> None:
        rules = tuple(Rule(policy) for policy in policies.policies)
        by_name = {rule.policy.name: rule for rule in rules}
        for key, standing in list(self._standings.items()):
            rule = by_name.get(standing.rule.policy.name)
            if rule is None or _counts(rule) != _counts(standing.rule):
                del self._standings[key]
            else:
                standing.obey(rule)
        self._rules, self._limits = rules, policies
        names = [name for policy in policies.policies for name in (*policy.match, *policy.scope)]
        names += [name for limit in policies.request_limits for name in limit.match]
        self._by_model = "model" in names or "provider_name" in names
        self._needed = tuple(dict.fromkeys(("model", *names)))
        self._scopes.clear()
        self._generation += 1

    def _tick(self, now: float) -> None:
        """What time alone brings about. The lock is held."""
        for standing in self._standings.values():
            if now >= standing.until:
                standing.turn()
                self._generation += 1
        while self._kept:
            reservation, until = next(iter(self._kept.items()))
            if until > now:
                break
            del self._kept[reservation]
            self._let_go(reservation)

    def _run(self) -> None:
        """Follow until closed; the source is this thread's."""
        epoch, stop, announced_at, failures = self._epoch, self._stop, -INFINITE, 0
        while not stop.is_set():
            wait_s = 0.0
            try:
                if time.monotonic() - announced_at >= self.settings.announce_s:
                    announced_at = time.monotonic()
                    self._source.announce(self.id)
                records, position = self._source.poll(self._position, self.settings.announce_s)
                if self._epoch == epoch and not stop.is_set():
                    self.hear(records)
                    self._position = position
                failures = 0
                self._told.discard("source")
            except LogUnavailable as error:
                failures += 1
                wait_s = min(_SLOWEST_RETRY_S, max(_FIRST_RETRY_S * 2.0 ** min(failures, 10), error.retry_after_s or 0.0))
                self._tell_once("source", f"signals_unavailable error={error}")
            except Exception as error:  # noqa: BLE001 — the gate's door: an unknown error must not end the thread
                failures += 1
                wait_s = _SLOWEST_RETRY_S
                self._tell_once(f"gate_failed error={type(error).__name__}")
            self._first.set()
            if wait_s:
                with self._lock:
                    self._tick(self._monotonic())
                stop.wait(jittered(wait_s))
        if self._epoch == epoch:
            self._source.close()

    def _tell_once(self, key: str, message: str | None = None) -> None:
        if key not in self._told and len(self._told) < 100:
            self._told.add(key)
            _logger.warning("%s", message or key)

    def forked(self) -> None:
        """Begin again in the child of a fork, as another gate that owes nothing."""
        self.id = _new_id()
        self._member = False
        self._source.abandon()
        self._begin()
        for standing in self._standings.values():
            standing.reset()
            standing.divide(self._gates + 1, False)
        self._generation += 1


def _harsher(one: Decision | None, other: Decision) -> Decision:
    """Of two refusals the harsher; of equal ones the one that no waiting helps, or that lasts longer."""
    if one is None:
        return other
    left = (SEVERITY[one.state], INFINITE if one.retry_after_s is None else one.retry_after_s)
    right = (SEVERITY[other.state], INFINITE if other.retry_after_s is None else other.retry_after_s)
    return other if right > left else one


def _counts(rule: Rule) -> tuple[Any, ...]:
    """What a policy counts, and for whom; when that changes its past amounts mean nothing."""
    policy = rule.policy
    return policy.measure, policy.window, policy.scope, policy.match, policy.finding_type


def _field(fields: Mapping[str, Any], name: str) -> str | None:
    if name.startswith("label."):
        found = (fields.get("labels") or {}).get(name[6:])
        return fields.get(name) if found is None else found
    if name == "model":
        return fields.get("model") or fields.get("request_model")
    return fields.get(name)


def _up(mean: float | None) -> int | None:
    return None if mean is None else math.ceil(mean)


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
