"""A chain of candidates for one call: while a gate is closed or a provider fails, the next one answers.

    chain = Fallback(tide, [("anthropic", "claude-sonnet-4-5"), ("openai", "gpt-4o")])
    for attempt in chain(tenant="harbor-health", prompt="triage@2.1"):
        with attempt as call:
            call.answer(ask(attempt.provider, call.model))

    candidate ─ its gate is closed ───────────────► the next … ─ all closed ─► GateClosed, saying which and until when
        └─ rate limit, timeout, overload, ────────► the next … ─ all tried ──► a wait, once more, then the last exception
           connection, server error                                            itself
        └─ any other exception ─► the caller's, at once

Each attempt is an observed call of its own: guarded, and emitted with its `attempt` and the first choice as
`fallback_from`. An exception is held back only while another attempt may follow.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from ..schemas.errors import GateClosed, UsageError
from .course import Course, Runner, all_closed, read_failure
from .guard import Guard

if TYPE_CHECKING:
    from .call_scope import CallScope
    from .gate import Gate
    from .observe import Observer
    from .reservation import Reservation

# Failures that another provider, or the same one a moment later, may not have.
MAY_PASS: Final = frozenset({"rate_limit", "timeout", "overloaded", "connection", "server_error"})


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to have a call answered. `options` go to `tide.call` with it, such as `max_tokens`. `ask(call)`, which `run`
    needs, asks the provider for `call.model` and returns its response."""

    provider: str
    model: str
    ask: Callable[[CallScope], Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.provider} {self.model}"


class Fallback:
    """A chain, made once and followed by any number of calls, threads and tasks.

    `rounds`: how often each candidate is asked at most. `within_s`: no attempt begins later than that after the first, and
    no wait goes beyond; how long a provider may take is the caller's to say (`attempt.left_s`). Waits grow from
    `first_wait_s`, with jitter, or are as long as a Retry-After says. `closed_wait_s`: the longest wait, in all, for closed
    gates; like a gate's own. `stand_ins` are candidates for nothing but models that a policy downgrades to; a model that
    is nobody's is asked of the provider that was to be asked. Raises `UsageError` for a chain of nobody.
    """

    def __init__(
        self,
        tide: Observer,
        chain: Sequence[Candidate | tuple[str, str]],
        *,
        stand_ins: Sequence[Candidate | tuple[str, str]] = (),
        rounds: int = 2,
        within_s: float = 30.0,
        first_wait_s: float = 0.25,
        closed_wait_s: float = 1.0,
        may_pass: Collection[str] = MAY_PASS,
        sleep: Callable[[float], None] = time.sleep,
        asleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.tide = tide
        self.chain = tuple(_candidate(given) for given in chain)
        if not self.chain or rounds < 1:
            raise UsageError("a fallback needs at least one candidate, such as (provider, model), and one round")
        self.may_pass = frozenset(may_pass)
        self.within_s = within_s
        self.sleep, self.asleep = sleep, asleep
        self.known = (*self.chain, *(_candidate(given) for given in stand_ins))
        # Once, the gate is given the time to hear what the policies are.
        self.heard = False
        self._rounds, self._first_wait_s, self._closed_wait_s, self._uniform = rounds, first_wait_s, closed_wait_s, uniform

    def __call__(self, **fields: Any) -> Attempts:
        """The attempts at one call, for `for` or `async for`; `fields` as for `tide.call`, but for model and provider."""
        return Attempts(self, fields)

    def run(self, **fields: Any) -> Any:
        """Ask the candidates by their own `ask`: the first response, already read by `call.answer`."""
        self._need_asks()
        for attempt in self(**fields):
            with attempt as call:
                response = attempt.candidate.ask(call)  # type: ignore[misc]  # all have one
                call.answer(response)
                return response
        raise AssertionError("attempts end by an answer or an exception")

    async def arun(self, **fields: Any) -> Any:
        """`run`, where an `ask` may give something to await."""
        self._need_asks()
        async for attempt in self(**fields):
            async with attempt as call:
                response = attempt.candidate.ask(call)  # type: ignore[misc]  # all have one
                if inspect.isawaitable(response):
                    response = await response
                call.answer(response)
                return response
        raise AssertionError("attempts end by an answer or an exception")

    def course(self, now: float) -> Course:
        """The way of one call that begins now."""
        return Course(
            len(self.chain),
            rounds=self._rounds,
            first_wait_s=self._first_wait_s,
            closed_wait_s=self._closed_wait_s,
            deadline=now + self.within_s,
            uniform=self._uniform,
        )

    def home_of(self, model: str, candidate: Candidate) -> Candidate:
        """Who is asked for a model that a policy downgrades this candidate to: its own provider if that may have it."""
        homes = [known for known in self.known if known.model == model]
        if not homes or any(home.provider == candidate.provider for home in homes):
            return candidate
        return homes[0]

    def _need_asks(self) -> None:
        if lacking := [str(candidate) for candidate in self.known if candidate.ask is None]:
            raise UsageError(f"no `ask` for {', '.join(lacking)}; give them one, or loop over the attempts")


class Attempt:
    """One candidate, let through by its gate. Enter it, with `with` or `async with`, for the observed call."""

    __slots__ = ("_attempts", "call", "candidate", "number", "runner")

    def __init__(self, attempts: Attempts, runner: Runner, candidate: Candidate, call: CallScope, number: int) -> None:
        self._attempts = attempts
        self.runner = runner
        self.candidate = candidate
        self.call = call
        self.number = number

    @property
    def provider(self) -> str:
        """The provider to ask."""
        return self.candidate.provider

    @property
    def model(self) -> str:
        """The model to use: the candidate's, or what a policy has downgraded it to."""
        return self.call.model

    @property
    def left_s(self) -> float:
        """Until when another attempt may begin: no good reason to wait for this one much longer, unless it is the last."""
        return self._attempts.left_s

    def __enter__(self) -> CallScope:
        return self.call

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        self.call.end(error)
        return self._attempts.ended(self, error)

    async def __aenter__(self) -> CallScope:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return self.__exit__(kind, error, trace)


class Attempts:
    """The attempts at one call: an iterator, plain and async, that ends after the first success. When no further one may
    follow, the last provider's own exception is raised, or `GateClosed` when none was let through."""

    def __init__(self, chain: Fallback, fields: Mapping[str, Any]) -> None:
        self._chain = chain
        self._fields = fields
        self._now = chain.tide.monotonic
        self._course = chain.course(self._now())
        self._current: Attempt | None = None
        self._moved: Attempt | None = None  # a policy says so
        self._number = 0
        self._failure: BaseException | None = None
        self._told: list[str] = []  # what became of the attempts: kinds, never messages
        self._done = False

    @property
    def left_s(self) -> float:
        """Until when another attempt may begin."""
        return max(0.0, self._course.deadline - self._now())

    def __iter__(self) -> Attempts:
        return self

    def __aiter__(self) -> Attempts:
        return self

    def __next__(self) -> Attempt:
        while (step := self._step()) is not None:
            if isinstance(step, Attempt):
                try:
                    step.call.__enter__()
                except (GateClosed, _Elsewhere) as news:
                    self._kept_out(step, news)
                else:
                    return self._let_in(step)
            elif _in_event_loop():  # which would wait with it
                self._give_up()
            else:
                self._chain.sleep(step)
        raise StopIteration

    async def __anext__(self) -> Attempt:
        while (step := self._step()) is not None:
            if isinstance(step, Attempt):
                try:
                    await step.call.__aenter__()
                except (GateClosed, _Elsewhere) as news:
                    self._kept_out(step, news)
                else:
                    return self._let_in(step)
            else:
                await self._chain.asleep(step)
        raise StopAsyncIteration

    def ended(self, attempt: Attempt, error: BaseException | None) -> bool:
        """An attempt is over. True when its exception is held back, since another attempt may follow."""
        self._current = None
        self._done = True
        if error is None:
            return False
        kind, told_s = read_failure(error)
        if kind in self._chain.may_pass:
            now = self._now()
            for runner in self._course.runners:
                # Who was downgraded to another candidate has tried that one, too.
                if runner is attempt.runner or self._chain.chain[runner.place] is attempt.candidate:
                    self._course.failed(runner, now, told_s)
            self._failure = error
            self._told.append(f"{attempt.candidate.provider} {attempt.model} ({kind})")
            self._done = self._course.over(now)
            if self._done:
                self._tell(error)
        return not self._done

    def _step(self) -> Attempt | float | None:
        """Whom to ask, or how long to wait first; None after success. Raises when nothing more can be done."""
        if self._done:
            return None
        if self._current is not None:
            self._abandon(self._current)
        if self._moved is not None:
            moved, self._moved = self._moved, None
            return moved
        found = self._course.next(self._now())
        if found is None:
            self._give_up()
        return found if isinstance(found, float) else self._attempt(found, self._chain.chain[found.place])

    def _attempt(self, runner: Runner, candidate: Candidate, moved: bool = False) -> Attempt:
        chain, number, first = self._chain, self._number + 1, self._chain.chain[0]
        given: dict[str, Any] = {**candidate.options, **self._fields}
        if number > 1 and given.get("call_id") is not None:
            given["call_id"] = f"{str(given['call_id'])[:120]}-{number}"  # each attempt is a call of its own
        if candidate is not first:
            given.setdefault("fallback_from", first.model)
        call = chain.tide.call(provider=candidate.provider, model=candidate.model, attempt=number, **given)
        gate = chain.tide.gate if call._guard is not None else None
        if gate is not None:
            # The call's own guard waits for one model; here another one may be open meanwhile.
            call._guard = _Guard(chain, gate, given, None if moved else candidate)
        return Attempt(self, runner, candidate, call, number)

    def _let_in(self, attempt: Attempt) -> Attempt:
        self._chain.heard = True
        self._number = attempt.number
        self._current = attempt
        return attempt

    def _kept_out(self, attempt: Attempt, news: GateClosed | _Elsewhere) -> None:
        self._chain.heard = True
        if isinstance(news, _Elsewhere):
            self._moved = self._attempt(attempt.runner, news.home, moved=True)
        else:
            self._course.closed(attempt.runner, news, self._now())

    def _abandon(self, attempt: Attempt) -> NoReturn:
        """The loop came round without entering the attempt, and would do so for ever."""
        self._done = True
        attempt.call.end(GeneratorExit())
        raise UsageError("an attempt was not entered; write `with attempt as call:` in the loop over the attempts")

    def _give_up(self) -> NoReturn:
        self._done = True
        if self._failure is not None:
            self._tell(self._failure)
            raise self._failure
        closures = self._closures()
        raise all_closed(closures) from closures[0][1]

    def _closures(self) -> list[tuple[str, GateClosed]]:
        runners = self._course.runners
        return [(str(self._chain.chain[runner.place]), runner.closed) for runner in runners if runner.closed is not None]

    def _tell(self, error: BaseException) -> None:
        """Say below the last exception what came before it."""
        told = [*self._told, *(f"{name} (closed by {closed.policy})" for name, closed in self._closures())]
        if len(told) > 1:
            error.add_note(f"tidegate fallback: {', '.join(told)}")


class _Elsewhere(Exception):
    """A policy downgrades to a model that another provider has."""

    def __init__(self, home: Candidate) -> None:
        super().__init__(str(home))
        self.home = home


class _Guard(Guard):
    """Asks without waiting, but for the first news. Raises `_Elsewhere` when a downgrade leads away from `candidate`."""

    __slots__ = ("_candidate", "_chain")

    def __init__(self, chain: Fallback, gate: Gate, given: Mapping[str, Any], candidate: Candidate | None) -> None:
        super().__init__(chain.tide, gate, given.get("estimate"), given.get("max_tokens"), given.get("cost_usd"))
        self._chain = chain
        self._candidate = candidate

    def enter(self, fields: Mapping[str, Any]) -> Reservation | None:
        try:
            self._look_elsewhere(fields)
            return self._gate.acquire(fields, self._given(), max_wait_s=0.0 if self._chain.heard or _in_event_loop() else None)
        except (GateClosed, _Elsewhere):
            raise
        except Exception as error:  # noqa: BLE001 — the emitter's door
            self._notes.note("gate", error)
            return None

    async def aenter(self, fields: Mapping[str, Any]) -> Reservation | None:
        try:
            self._look_elsewhere(fields)
            return await self._gate.aacquire(fields, self._given(), max_wait_s=0.0 if self._chain.heard else None)
        except (GateClosed, _Elsewhere):
            raise
        except Exception as error:  # noqa: BLE001 — the emitter's door
            self._notes.note("gate", error)
            return None

    def _look_elsewhere(self, fields: Mapping[str, Any]) -> None:
        candidate = self._candidate
        if candidate is None:
            return
        decision = self._gate.check(fields, estimate=self._given())
        if decision.allowed and decision.model not in (None, candidate.model):
            home = self._chain.home_of(decision.model or "", candidate)
            if home is not candidate:
                raise _Elsewhere(home)


def _candidate(given: Candidate | tuple[str, str]) -> Candidate:
    return given if isinstance(given, Candidate) else Candidate(*given)


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
