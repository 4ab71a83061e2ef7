"""What a gate's answer costs the caller, while signals keep arriving: `check`, and a call's whole way through the books.

    source ─ twenty times a second, a word on every policy ─► gate ◄─ check            a look
                                                                   ◄─ reserve ─ settle ─ placed

Beside them what any guard does at the least: take a lock and look a value up in a dict. Each figure is of batches, so that
reading the clock does not count; with four threads it is the time that all of them took, by all calls: their turns at the
interpreter's lock, not what one of them waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from statistics import median
from typing import Final

import msgspec
from tidegate.producers.decision import Estimate
from tidegate.producers.gate import Gate
from tidegate.producers.ports import Position
from tidegate.producers.scope import Scope
from tidegate.producers.signals import START, SignalRecord
from tidegate.schemas.policy import Action, Measure, Policy, PolicySet, RollingWindow
from tidegate.schemas.signal import GATES_KEY, POLICIES_KEY, Gates, Signal

from .report import Result, Table
from .rounds import Side, Spread, Tick, take_turns

LIBRARIES: Final = ("msgspec", "pydantic")
_POLICIES: Final = (1, 5, 20)
_THREADS: Final = 4
# One batch is long against the clock's grain, and short against the time between two signals.
_BATCH: Final = 500
_EVERY_S: Final = 0.05
_MODEL: Final = "gpt-4o-mini"
_GATE: Final = "bench"
# Money for longer than any run: nothing stands in the way, which is when it has to be fast.
_LIMIT: Final = 1_000_000_000
_ESTIMATE: Final = Estimate(1_000, 500, 0.001)
_USED: Final = Estimate(900, 480, 0.0009)
# By turns, so that every kind of limit is asked.
_MEASURES: Final[tuple[Measure, ...]] = ("cost_usd", "requests", "total_tokens", "input_tokens", "output_tokens")


class Wire:
    """A `SignalSource` with news on every policy, twenty times a second. `placed` is how far calls are in the log."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.placed = -1
        self._policies = policies
        self._sequence = 0
        self._closed = threading.Event()

    def poll(self, after: int, timeout_s: float) -> tuple[Sequence[SignalRecord], int]:
        records: list[SignalRecord] = []
        if after == START:
            records.append((POLICIES_KEY, PolicySet(policies=tuple(self._policies)).model_dump_json().encode()))
        else:
            self._closed.wait(_EVERY_S)
        self._sequence += 1
        now, applied = time.time(), [self.placed]
        records.append((GATES_KEY, msgspec.json.encode(Gates([_GATE], now, applied))))
        for policy in self._policies:
            told = Signal(
                policy=policy.name,
                policy_version="bench",
                scope={"tenant": "harbor-health"},
                state="ok",
                measure=policy.measure,
                spend=self._sequence,
                limit=float(_LIMIT * policy.unit),
                window_start=now - 86_400,
                window_end=now,
                reason="far from its limit",
                sequence=self._sequence,
                at=now,
                applied=applied,
            )
            records.append((told.key(), msgspec.json.encode(told)))
        return records, self._sequence

    def announce(self, gate_id: str) -> None:
        pass

    def close(self) -> None:
        self._closed.set()

    def abandon(self) -> None:
        pass


class Guarded:
    """A gate that follows a `Wire` of so many policies, and a scope made ready."""

    def __init__(self, policies: int) -> None:
        self.wire = Wire(
            [
                Policy(
                    name=f"policy-{number}",
                    scope=("tenant",),
                    measure=_MEASURES[number % len(_MEASURES)],
                    window=RollingWindow(rolling=86_400),
                    limit=Decimal(_LIMIT),
                    actions=(Action(do="block"),),
                )
                for number in range(policies)
            ]
        )
        self.gate = Gate(self.wire, gate_id=_GATE)
        self.scope: Scope = self.gate.scope(tenant="harbor-health", model=_MODEL)
        self.gate.learn(_MODEL, _USED)
        self.gate.acquire(self.scope, _ESTIMATE).release()
        deadline = time.monotonic() + 5
        while not (self.gate.stats()["member"] and len(self.gate.explain(self.scope)) == policies):
            if time.monotonic() > deadline:
                raise RuntimeError("the gate does not hear its policies")
            time.sleep(0.01)

    def checks(self, count: int) -> None:
        check, scope = self.gate.check, self.scope
        for _ in range(count):
            check(scope)

    def calls(self, count: int) -> None:
        reserve, scope, wire = self.gate.reserve, self.scope, self.wire
        for _ in range(count):
            reservation = reserve(scope, _ESTIMATE)
            reservation.settle(_USED, rides=True)
            offset = wire.placed + 1
            reservation.placed(Position(0, offset))
            wire.placed = offset


class LookUp:
    """The named baseline: `with lock: table[key]`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._table = {("harbor-health", f"policy-{number}"): number for number in range(1_000)}

    def looks(self, count: int) -> None:
        lock, table, key = self._lock, self._table, ("harbor-health", "policy-500")
        for _ in range(count):
            with lock:
                table[key]


def run(quick: bool, tick: Tick) -> Result:
    """The table of this bench."""
    batches, rounds = (20, 2) if quick else (100, 7)
    guarded = {policies: Guarded(policies) for policies in _POLICIES}
    sides: dict[str, Side] = {}
    for threads in (1, _THREADS):
        sides[f"look {threads}"] = _side(LookUp().looks, threads, batches)
        for policies, one in guarded.items():
            sides[f"check {policies} {threads}"] = _side(one.checks, threads, batches)
            sides[f"calls {policies} {threads}"] = _side(one.calls, threads, batches // 5)
    try:
        found = take_turns(sides, rounds, tick)
    finally:
        for one in guarded.values():
            one.gate.close()
    return Result(
        tuple(_table(found, threads) for threads in (1, _THREADS)),
        f"{rounds} rounds after a warm-up, each the median of {batches} batches of {_BATCH} checks, of {batches // 5} of calls",
        (
            f"A prepared scope, far from every limit; policies of {', '.join(_MEASURES)} by turns. Every policy speaks twenty"
            " times a second, five times as often as a node does of a scope.",
            "A call is `reserve`, `settle` with other amounts, and the news of its place in the log; signals then count it in.",
            "The baseline is `with lock: table[key]` on a `threading.Lock` and a dict of 1,000.",
        ),
        LIBRARIES,
    )


def _side(work: Callable[[int], None], threads: int, batches: int) -> Side:
    """Microseconds a call, the median of batches; with threads, of batches that all of them work on at once."""

    def alone() -> float:
        return median(_timed(lambda: work(_BATCH)) for _ in range(batches)) / _BATCH * 1e6

    def together() -> float:
        each = batches * _BATCH // threads
        doers = [threading.Thread(target=work, args=(each,)) for _ in range(threads)]

        def all_of_them() -> None:
            for doer in doers:
                doer.start()
            for doer in doers:
                doer.join()

        return _timed(all_of_them) / (each * threads) * 1e6

    return alone if threads == 1 else together


def _timed(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _table(found: dict[str, Spread], threads: int) -> Table:
    base = found[f"look {threads}"]

    def row(what: str, name: str, target: str) -> tuple[str, ...]:
        mine = found[f"{name} {threads}"]
        return what, f"{mine:.2f}", f"{mine.per(base):.1f}", target

    rows: list[tuple[str, ...]] = [("`with lock: table[key]`", f"{base:.3f}", f"{base.per(base):.1f}", "")]
    for name, what, target in (("check", "`check`", "≤ 1"), ("calls", "`reserve` + `settle`", "≤ 10")):
        rows += [
            row(f"{what}, {policies} polic{'y' if policies == 1 else 'ies'}", f"{name} {policies}", target)
            for policies in _POLICIES
        ]
    who = "One thread" if threads == 1 else f"{threads} threads sharing a gate"
    return Table(f"{who}: microseconds a call.", ("", "µs", "÷ a look-up under a lock", "target, µs"), tuple(rows))
