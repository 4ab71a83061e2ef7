"""The overspend trial: many processes spend one budget at once, against a real node, while things go wrong.

    worker processes × threads:  reserve ─ spend ─ settle ─ emit      each call, and what its gate then stood at, is noted
    node process:                meter ─ policies ─ signals           delayed, cut off, killed and started again
    afterwards:                  what was spent  ≤  limit + the bound of `producers.leases`, of what really happened
                                 what was spent  =  the ledger, to the nano-dollar
                                 no call refused for good while the money for it was there

Every process reads the same monotonic clock, so their notes can be put in one order. The last trial does without leases
and is there to show that the others could fail: its gates only obey the signals.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Final, Literal, Self

import orjson
import urllib3
from tidegate.producers.decision import Estimate
from tidegate.producers.emitter import Emitter
from tidegate.producers.gate import Gate
from tidegate.producers.http_log import HttpLog
from tidegate.producers.http_signals import HttpSignals
from tidegate.producers.leases import Hold, overshoot_bound
from tidegate.producers.local_log import LocalLog
from tidegate.producers.local_signals import LocalSignals
from tidegate.producers.ports import Log, Position, Settled
from tidegate.producers.signals import SignalRecord, SignalSource
from tidegate.schemas.envelope import Envelope
from tidegate.schemas.errors import GateClosed, LogUnavailable
from tidegate.schemas.policy import NANO
from tidegate.schemas.settings import Settings
from tidegate.schemas.signal import decode_signal, signal_key

from .report import Result, Table
from .rounds import Spread, Tick

LIBRARIES: Final = ("orjson", "msgspec", "urllib3", "chdb")
_POLICY: Final = "trial"
_SHARE: Final = 0.5
# gpt-4o-mini-2024-07-18: 0.15 and 0.60 dollars a million tokens, so 150 and 600 nano-dollars a token.
_MODEL: Final = "gpt-4o-mini-2024-07-18"
_INPUT_NANO_USD, _OUTPUT_NANO_USD = 150, 600
_INPUT_TOKENS, _OUTPUT_TOKENS = 1_000, 500
_MEAN_NANO_USD: Final = _INPUT_TOKENS * _INPUT_NANO_USD + _OUTPUT_TOKENS * _OUTPUT_NANO_USD
# A call takes so long: short for a model, so that a budget of a thousand calls is used up in seconds.
_CALL_S: Final = (0.005, 0.040)
# What a call is expected to use differs by a fifth, and what it uses from that by up to a half.
_VARIES: Final = (0.8, 1.2)
_MISSES: Final = (0.5, 1.5)
# A thread that was refused for good so long, and never let go in between, is done.
_PATIENCE_S: Final = 1.0
# No trial takes so long unless a gate waits for news that never comes.
_LONGEST_S: Final = 40.0
# When things go wrong, and for how long.
_TROUBLE_AT_S: Final = 1.0
_CUT_FOR_S: Final = 4.0
_DOWN_FOR_S: Final = 1.0
_DELAY_S: Final = (0.5, 2.0)
_LIFE_S: Final = 1.5
_JOIN_EVERY_S: Final = 0.7


@dataclass(frozen=True, slots=True)
class Trial:
    """One way for things to be. `calls` is the limit, in calls of the mean cost."""

    name: str
    calls: int
    processes: int = 4
    threads: int = 4
    over_http: bool = False
    delayed: bool = False
    cut: bool = False
    killed: bool = False
    joining: bool = False
    asks: Literal["reserve", "call", "check"] = "reserve"

    @property
    def limit(self) -> int:
        """Nano-dollars."""
        return self.calls * _MEAN_NANO_USD


TRIALS: Final = (
    Trial("all is well", 1_500),
    Trial("observed calls, each announced by a request", 1_500, asks="call"),
    Trial("over HTTP", 1_500, over_http=True),
    Trial("signals come 0.5–2 s late", 400, delayed=True),
    Trial("two gates of four are cut off for 4 s", 1_500, cut=True),
    Trial("the node is killed, and back after 1 s", 1_500, killed=True),
    Trial("the node is killed, over HTTP", 1_500, over_http=True, killed=True),
    Trial("gates join and leave", 1_500, joining=True),
    Trial("eight first requests at once, money for 4", 4, processes=8, threads=1),
    Trial("money for 3 calls", 3),
    Trial("for comparison: no leases, signals alone", 1_500, asks="check"),
)


@dataclass(frozen=True, slots=True)
class Stand:
    """How a gate stood with the budget: what its signal said was left, its lease, and how many gates share."""

    remaining: float
    lease: float
    gates: int


@dataclass(slots=True)
class Call:
    """A call that was let go. Moments are monotonic seconds, amounts nano-dollars. `stands`: right before it was let go,
    and right after; None when no policy was heard of. `offset`: where its response is in the calls topic."""

    asked_at: float
    went_at: float
    estimate: int
    actual: int
    stands: tuple[Stand | None, Stand | None]
    settled_at: float = 0.0
    offset: int | None = None

    def is_after(self, applied: int) -> bool:
        """Whether a signal that counts calls up to there leaves it out."""
        return self.offset is None or self.offset > applied


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call that was refused for good: waiting for news would not help."""

    at: float
    estimate: int
    reason: str


@dataclass(slots=True)
class Life:
    """One gate, from its first question to its end. `counted`: by spend, up to where a signal says calls are in it."""

    calls: list[Call] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    waits: int = 0
    gave_up: int = 0
    lost: int = 0
    counted: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one trial came to, in nano-dollars. `false_blocks` were refused for good while the money was there."""

    trial: Trial
    tenant: str
    calls: int
    spend: int
    bound: float
    unheard: int
    false_blocks: tuple[Refusal, ...]
    refusals: int
    waits: int
    gave_up: int
    lost: int
    took_s: float

    @property
    def held(self) -> bool:
        return self.spend <= self.trial.limit + self.bound


# --- what goes wrong -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of monotonic time in which a process is cut off."""

    start: float
    end: float

    @property
    def now(self) -> bool:
        return self.start <= time.monotonic() < self.end


class Overheard:
    """A `SignalSource` that notes what a tenant's signals count."""

    def __init__(self, inner: SignalSource, tenant: str, counted: dict[int, int]) -> None:
        self._inner = inner
        self._key = signal_key(_POLICY, (tenant,))
        self._counted = counted

    def poll(self, after: int, timeout_s: float) -> tuple[Sequence[SignalRecord], int]:
        records, position = self._inner.poll(after, timeout_s)
        for key, value in records:
            if key == self._key and value:
                told = decode_signal(value)
                applied = told.applied[0] if told.applied else -1
                spend = int(told.spend)
                self._counted[spend] = max(applied, self._counted.get(spend, -1))
        return records, position

    def announce(self, gate_id: str) -> None:
        self._inner.announce(gate_id)

    def close(self) -> None:
        self._inner.close()

    def abandon(self) -> None:
        self._inner.abandon()


class Late(Overheard):
    """Delivers each answer late, in order; the first at once, for there a gate would wait."""

    def __init__(self, inner: SignalSource, tenant: str, counted: dict[int, int], rng: random.Random) -> None:
        super().__init__(inner, tenant, counted)
        self._rng = rng
        self._under_way: deque[tuple[float, Sequence[SignalRecord], int]] = deque()
        self._asked: int | None = None

    def poll(self, after: int, timeout_s: float) -> tuple[Sequence[SignalRecord], int]:
        if self._asked is None:
            found, self._asked = super().poll(after, timeout_s)
            return found, self._asked
        until = time.monotonic() + timeout_s
        while (now := time.monotonic()) < until:
            if self._under_way and self._under_way[0][0] <= now:
                _, records, position = self._under_way.popleft()
                return records, position
            records, self._asked = super().poll(self._asked, 0.05)
            if records:
                due = time.monotonic() + self._rng.uniform(*_DELAY_S)
                if self._under_way:
                    due = max(due, self._under_way[-1][0])
                self._under_way.append((due, records, self._asked))
        return [], after


class Cut(Overheard):
    """Cut off for a while: it raises, or it just does not answer. What comes afterwards is what it missed."""

    def __init__(self, inner: SignalSource, tenant: str, counted: dict[int, int], window: Window, raises: bool) -> None:
        super().__init__(inner, tenant, counted)
        self._window = window
        self._raises = raises

    def poll(self, after: int, timeout_s: float) -> tuple[Sequence[SignalRecord], int]:
        found = super().poll(after, timeout_s)
        while self._window.now:
            if self._raises:
                raise LogUnavailable("cut off")
            time.sleep(0.02)
        return found

    def announce(self, gate_id: str) -> None:
        if self._window.now and self._raises:
            raise LogUnavailable("cut off")
        super().announce(gate_id)


class CutLog:
    """A `Log` that cannot be reached for a while."""

    def __init__(self, inner: Log, window: Window) -> None:
        self._inner = inner
        self._window = window

    def append(self, envelopes: Sequence[Envelope]) -> Sequence[Position | None]:
        if self._window.now:
            raise LogUnavailable("cut off")
        return self._inner.append(envelopes)

    def close(self) -> None:
        self._inner.close()


class Placed:
    """Hears for a reservation where its response went, and notes it."""

    __slots__ = ("_call", "_settled")

    def __init__(self, settled: Settled, call: Call) -> None:
        self._settled = settled
        self._call = call

    def placed(self, position: Position | None) -> None:
        self._call.offset = None if position is None else position.offset
        self._settled.placed(position)


class Noting(Emitter):
    """An emitter that notes where the responses of `calls`, by id, went."""

    def __init__(self, log: Log, *, settings: Settings, signals: Callable[[], SignalSource]) -> None:
        super().__init__(log, settings=settings, signals=signals)
        self.calls: dict[str, Call] = {}

    def emit(self, event: Any, settled: Settled | None = None) -> bool:
        if settled is not None:
            settled = Placed(settled, self.calls.pop(event["call_id"]))
        return super().emit(event, settled)


# --- a process that spends -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spender:
    """One worker process."""

    trial: Trial
    tenant: str
    number: int
    folder: Path
    url: str

    def run(self, start: Barrier, told: Connection) -> None:
        """The process: wait for the others, spend, tell."""
        start.wait(60)
        begun = time.monotonic()
        lives: list[Life] = []
        if self.trial.joining:
            time.sleep(self.number * _JOIN_EVERY_S)
        while True:
            stays = not self.trial.joining or self.number == 0
            life = self._live(begun, len(lives), begun + _LONGEST_S if stays else time.monotonic() + _LIFE_S)
            lives.append(life)
            if stays:
                break
            life.gave_up = 0  # it was to leave
            if life.refusals:
                break
        told.send(lives)
        told.close()

    def _live(self, begun: float, number: int, until: float) -> Life:
        life = Life()
        rng = random.Random(f"{self.tenant} {self.number} {number}")
        window = Window(begun + _TROUBLE_AT_S, begun + _TROUBLE_AT_S + _CUT_FOR_S)
        log: Log = HttpLog(self.url) if self.trial.over_http else LocalLog(self.folder)
        inner: SignalSource = HttpSignals(self.url) if self.trial.over_http else LocalSignals(self.folder)
        source: SignalSource = Overheard(inner, self.tenant, life.counted)
        if self.trial.delayed:
            source = Late(inner, self.tenant, life.counted, rng)
        elif self.trial.cut and self.number < 2:
            # One hears nothing and is not heard either; of the other only the ear is deaf, and does not know it.
            source = Cut(inner, self.tenant, life.counted, window, raises=self.number == 0)
            log = CutLog(log, window) if self.number == 0 else log
        emitter = Noting(log, settings=Settings(), signals=lambda: source)
        doers = [
            threading.Thread(target=self._spend, args=(emitter, life, random.Random(rng.random()), until))
            for _ in range(self.trial.threads)
        ]
        for doer in doers:
            doer.start()
        for doer in doers:
            doer.join()
        if not emitter.close(30):
            life.lost = emitter.stats().dropped.total()
        return life

    def _spend(self, emitter: Noting, life: Life, rng: random.Random, until: float) -> None:
        """One thread: call after call, until it is refused for good."""
        ask = _ASKS[self.trial.asks](emitter, self.tenant)
        shut_since: float | None = None
        while (now := time.monotonic()) < until:
            taken, made = (int(most * rng.uniform(*_VARIES)) for most in (_INPUT_TOKENS, _OUTPUT_TOKENS))
            miss = rng.uniform(*_MISSES)
            used = int(taken * miss), int(made * miss)
            call = Call(now, now, _cost(taken, made), _cost(*used), (ask.stand(), None))
            try:
                end = ask.let_go(call, (taken, made), used)
            except GateClosed as closed:
                now = time.monotonic()
                if closed.retry_after_s is not None:
                    life.waits += 1
                    time.sleep(closed.retry_after_s * rng.uniform(0.75, 1.5))
                    continue
                life.refusals.append(Refusal(now, call.estimate, closed.reason))
                shut_since = now if shut_since is None else shut_since
                if now - shut_since > _PATIENCE_S:
                    return
                time.sleep(rng.uniform(0.02, 0.1))
                continue
            call.went_at = time.monotonic()
            call.stands = call.stands[0], ask.stand()
            shut_since = None
            life.calls.append(call)
            time.sleep(rng.uniform(*_CALL_S))
            end()
        life.gave_up += 1


class Ask:
    """A thread's way to let a call go. `let_go` raises `GateClosed`, or returns what ends the call."""

    def __init__(self, emitter: Noting, tenant: str) -> None:
        if emitter.gate is None:
            raise ValueError("an emitter with signals has a gate")
        self.emitter = emitter
        self.gate: Gate = emitter.gate
        self.tenant = tenant
        self.scope = self.gate.scope(tenant=tenant, model=_MODEL)
        self.first = True

    def stand(self) -> Stand | None:
        for said in self.gate.explain(self.scope):
            if said["policy"] == _POLICY:
                return Stand(said["remaining"], said["lease"], said["gates"])
        return None

    def let_go(self, call: Call, expected: tuple[int, int], used: tuple[int, int]) -> Callable[[], None]:
        raise NotImplementedError

    def named(self, call: Call) -> str:
        """An id for a call, under which the emitter knows it."""
        name = f"{self.tenant}-{os.getpid()}-{next(_numbers)}"
        self.emitter.calls[name] = call
        return name


class Reserving(Ask):
    """`reserve`, and wait outside of it where the waits can be counted; only a gate's first answer is awaited within."""

    def let_go(self, call: Call, expected: tuple[int, int], used: tuple[int, int]) -> Callable[[], None]:
        estimate = Estimate(*expected, call.estimate / NANO)
        reservation = self.gate.acquire(self.scope, estimate) if self.first else self.gate.reserve(self.scope, estimate)
        self.first = False

        def end() -> None:
            reservation.settle(Estimate(*used, call.actual / NANO), rides=True)
            call.settled_at = time.monotonic()
            self.emitter.emit(_response(self.named(call), self.tenant, *used), reservation)

        return end


class Observing(Ask):
    """What a service writes: the call is announced by a request event, and what it holds is heard of by everybody."""

    def let_go(self, call: Call, expected: tuple[int, int], used: tuple[int, int]) -> Callable[[], None]:
        observed = self.emitter.call(
            call_id=self.named(call),
            model=_MODEL,
            tenant=self.tenant,
            provider="openai",
            estimate=expected,
            cost_usd=call.estimate / NANO,
        )
        observed.__enter__()

        def end() -> None:
            observed.usage(input_tokens=used[0], output_tokens=used[1])
            observed.__exit__(None, None, None)
            call.settled_at = time.monotonic()

        return end


class Looking(Ask):
    """`check`, which takes no lease: nothing but the signals holds back."""

    def let_go(self, call: Call, expected: tuple[int, int], used: tuple[int, int]) -> Callable[[], None]:
        estimate = Estimate(*expected, call.estimate / NANO)
        if self.first:
            self.gate.acquire(self.scope, estimate).release()
            self.first = False
        decision = self.gate.check(self.scope, estimate=estimate)
        if not decision.allowed:
            raise decision.closed()

        def end() -> None:
            call.settled_at = time.monotonic()
            self.emitter.emit(_response(f"{self.tenant}-{os.getpid()}-{next(_numbers)}", self.tenant, *used))

        return end


_ASKS: Final[dict[str, type[Ask]]] = {"reserve": Reserving, "call": Observing, "check": Looking}


def _cost(taken: int, made: int) -> int:
    return taken * _INPUT_NANO_USD + made * _OUTPUT_NANO_USD


_numbers: Final = itertools.count()


def _response(call_id: str, tenant: str, taken: int, made: int) -> dict[str, Any]:
    return {
        "event": "response",
        "call_id": call_id,
        "started_at": datetime.now(UTC),
        "tenant": tenant,
        "provider_name": "openai",
        "request_model": _MODEL,
        "input_tokens": taken,
        "output_tokens": made,
        "latency_s": 0.02,
    }


# --- the node ------------------------------------------------------------------------------------------------------------


class Node:
    """`tidegate up` on a folder of its own, with a policy file; killed and started at will. Only its own process is ended."""

    def __init__(self, folder: Path, policies: Sequence[dict[str, Any]], **environment: str) -> None:
        self.data_dir = folder / "data"
        file = folder / "policies.yaml"
        file.write_bytes(orjson.dumps({"policies": list(policies)}))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
        self._environment = kept | {"TIDEGATE_POLICY_FILE": str(file)} | environment
        self._said = folder / "node.out"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Returns once it takes events, and has left word of how to ask it."""
        command = [sys.executable, "-m", "tidegate", "up", "--data", str(self.data_dir), "--port", str(self._port)]
        with self._said.open("ab") as said:
            self._process = subprocess.Popen(command, env=self._environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            # The word of one that was killed is still there.
            if self._word().get("pid") == self._process.pid:
                return
            time.sleep(0.02)
        self.kill()
        raise RuntimeError(f"the node did not start: {self._said.read_text()[-2_000:]}")

    @property
    def pid(self) -> int:
        """Of the process; only while it runs."""
        if self._process is None:
            raise ValueError("the node does not run")
        return self._process.pid

    def said(self) -> str:
        """What it has said, over all its lives."""
        return self._said.read_text(errors="replace")

    def kill(self) -> None:
        """As a power cut ends it."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """In good order: what was accepted is in the store afterwards."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(how)
            process.wait(120)

    def _word(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = orjson.loads((self.data_dir / "node.json").read_bytes())
        except FileNotFoundError:
            return {}
        return found

    def status(self) -> dict[str, Any]:
        """What the node says of itself."""
        headers = {"Authorization": f"Bearer {self._word()['token']}"}
        with urllib3.PoolManager(retries=False, timeout=30) as http:
            answer = http.request("GET", f"{self.url}/v1/status", headers=headers)
        if answer.status != 200:
            raise RuntimeError(f"the node answers {answer.status}: {answer.data[:500].decode(errors='replace')}")
        found: dict[str, Any] = orjson.loads(answer.data)
        return found

    def query(self, sql: str) -> list[dict[str, Any]]:
        """As an analyst asks."""
        command = [sys.executable, "-m", "tidegate", "query", "--data", str(self.data_dir), "--format", "json", sql]
        answer = subprocess.run(
            command, env=self._environment, stdin=subprocess.DEVNULL, check=True, capture_output=True, timeout=120
        )
        return [json.loads(line) for line in answer.stdout.splitlines()]


# --- trials --------------------------------------------------------------------------------------------------------------


def hold(trials: Sequence[Trial], tick: Tick) -> list[Outcome]:
    """Hold the trials one after the other on one node, each with a tenant and a limit of its own. Raises `RuntimeError` when
    the ledger has not what the processes spent."""
    tenants = [f"trial-{number}" for number in range(len(trials))]
    policy = {
        "name": _POLICY,
        "scope": ["tenant"],
        "measure": "cost_usd",
        "window": {"rolling": "24h"},
        "limits": [
            {"scope": {"tenant": tenant}, "limit": str(Decimal(trial.limit) / NANO)}
            for tenant, trial in zip(tenants, trials, strict=True)
        ],
        "action": "block",
        "lease_share": _SHARE,
        # A gate that hears nothing lives on its lease for the whole trial.
        "stale_after": "10m",
    }
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as scratch, Node(Path(scratch), [policy]) as node:
        found = []
        for tenant, trial in zip(tenants, trials, strict=True):
            tick(trial.name)
            found.append(_judge(trial, tenant, _spend(node, trial, tenant)))
        tick("asking the ledger")
        node.stop()
        rows = node.query("SELECT tenant, count() AS calls, sum(cost_nano_usd) AS spend FROM calls GROUP BY tenant")
        ledger = {row["tenant"]: (int(row["calls"]), int(row["spend"])) for row in rows}
        spent = {outcome.tenant: (outcome.calls, outcome.spend) for outcome in found}
    if ledger != spent:
        wrong = {tenant: (ledger.get(tenant), noted) for tenant, noted in spent.items() if ledger.get(tenant) != noted}
        raise RuntimeError(f"the ledger is not what was spent; (calls, nano-dollars) in the ledger and noted: {wrong}")
    return found


def _spend(node: Node, trial: Trial, tenant: str) -> list[Life]:
    """Let the processes spend, and do to the node what the trial says."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(trial.processes + 1)
    ends, workers = [], []
    try:
        for number in range(trial.processes):
            end, theirs = context.Pipe(duplex=False)
            spender = Spender(trial, tenant, number, node.data_dir, node.url)
            worker = context.Process(target=spender.run, args=(start, theirs), daemon=True)
            worker.start()
            theirs.close()
            ends.append(end)
            workers.append(worker)
        start.wait(60)
        if trial.killed:
            time.sleep(_TROUBLE_AT_S)
            node.kill()
            time.sleep(_DOWN_FOR_S)
            node.start()
        lives: list[Life] = []
        for end in ends:
            if not end.poll(_LONGEST_S + 60):
                raise RuntimeError(f"{trial.name}: a process did not end")
            lives += end.recv()
        return lives
    finally:
        for worker in workers:
            worker.join(5)
            if worker.is_alive():
                worker.kill()


def _judge(trial: Trial, tenant: str, lives: Sequence[Life]) -> Outcome:
    """What was spent, against the bound by what happened."""
    calls = sorted((call for life in lives for call in life.calls), key=lambda call: call.went_at)
    refusals = [refusal for life in lives for refusal in life.refusals]
    return Outcome(
        trial,
        tenant,
        calls=len(calls),
        spend=sum(call.actual for call in calls),
        bound=_bound(trial.limit, lives),
        unheard=sum(call.stands == (None, None) for call in calls),
        false_blocks=tuple(_false_blocks(trial.limit, calls, refusals)),
        refusals=len(refusals),
        waits=sum(life.waits for life in lives),
        gave_up=sum(life.gave_up for life in lives),
        lost=sum(life.lost for life in lives),
        took_s=calls[-1].went_at - calls[0].went_at if calls else 0.0,
    )


def _bound(limit: int, lives: Sequence[Life]) -> float:
    """The bound at the top of `producers.leases`, with the gates as they stood when each last let a call go.

    Where news came in that very moment, each part is taken so that the bound is the larger.
    """
    counted: dict[int, int] = {}
    for life in lives:
        for spend, applied in life.counted.items():
            counted[spend] = max(applied, counted.get(spend, -1))
    lasts = [(life, max(life.calls, key=lambda call: call.went_at)) for life in lives if life.calls]
    left = min((stand.remaining for _, last in lasts for stand in _stands(limit, last)), default=limit)
    # Of a gate whose every call is counted in the newest signal nothing is outstanding: it has left, or is done.
    newest = counted.get(int(limit - left), -1)
    holds = [_hold(limit, last) for life, last in lasts if any(call.is_after(newest) for call in life.calls)]
    excess = sum(
        max(0, call.actual - call.estimate) for life, last in lasts for call in life.calls if call.settled_at >= last.asked_at
    )
    return overshoot_bound(holds, excess, left)


def _stands(limit: int, call: Call) -> list[Stand]:
    """Before anything is heard there is all of the limit, and only the one call."""
    return [stand for stand in call.stands if stand] or [Stand(limit, 0.0, 1)]


def _hold(limit: int, last: Call) -> Hold:
    found = [
        Hold(stand.remaining, _SHARE if stand.lease else 0.0, stand.gates, last.estimate) for stand in _stands(limit, last)
    ]
    return max(found, key=lambda hold: hold.most)


def _false_blocks(limit: int, calls: Sequence[Call], refusals: Sequence[Refusal]) -> Iterator[Refusal]:
    """Refusals for good of calls for which there was money, all that was in flight at its estimate."""
    steps = sorted(
        [(call.asked_at, call.estimate) for call in calls] + [(call.settled_at, call.actual - call.estimate) for call in calls]
    )
    moments = [at for at, _ in steps]
    taken = list(itertools.accumulate((amount for _, amount in steps), initial=0))
    for refusal in refusals:
        if taken[bisect_right(moments, refusal.at)] + refusal.estimate <= limit:
            yield refusal


def run(quick: bool, tick: Tick) -> Result:
    """The table of this bench. Raises `RuntimeError` when a bound is broken, a call refused that could be paid, or the
    ledger wrong."""
    rounds = 1 if quick else 3
    outcomes = hold([trial for trial in TRIALS for _ in range(rounds)], tick)
    for outcome in outcomes:
        if outcome.trial.asks != "check" and not outcome.held:
            raise RuntimeError(f"the bound is broken: {outcome}")
        if outcome.false_blocks:
            raise RuntimeError(f"calls were refused that could be paid: {outcome}")
    table = Table(
        "Shares of the limit that were spent and that the bound allows, with all gates together.",
        (
            "",
            "calls the limit pays",
            "spent",
            "limit + bound",
            "held",
            "unheard",
            "false blocks",
            "in vain",
            "ledger",
            "calls/s",
        ),
        tuple(_row(trial, [one for one in outcomes if one.trial is trial]) for trial in TRIALS),
    )
    return Result(
        (table,),
        f"{rounds} trials of each kind, {_processes()}",
        (
            "Each thread: reserve, 5–40 ms of a call, settle, emit; what a call uses differs from its estimate by up to a half."
            " `lease_share` 0.5. The bound is `overshoot_bound` of what each gate had heard when it last let a call go, and of"
            " the calls in flight then that used more than estimated.",
            "Unheard went calls before their gate had heard of any policy: it lets them go then, and no bound covers them.",
            "A false block is a refusal for good of a call that the limit would have paid for, with all calls in flight at"
            " their estimate; waiting for news is none. In vain waited a thread that was still told to after 40 s.",
            "The ledger is ClickHouse's sum over each trial's calls after the node has stopped, against what the processes"
            " noted, in nano-dollars.",
            "The last row asks `check` and takes no lease: it is there to show that the trial tells a broken bound.",
        ),
        LIBRARIES,
    )


def _processes() -> str:
    return "4 processes × 4 threads (eight first requests: 8 × 1) against one embedded node"


def _row(trial: Trial, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    def spread(values: Sequence[float]) -> Spread:
        return Spread(tuple(values))

    return (
        trial.name,
        f"{trial.calls:,}",
        f"{spread([one.spend / trial.limit for one in outcomes]):.3f}",
        f"{spread([1 + one.bound / trial.limit for one in outcomes]):.3f}",
        f"{sum(one.held for one in outcomes)} of {len(outcomes)}",
        f"{sum(one.unheard for one in outcomes)}",
        f"{sum(len(one.false_blocks) for one in outcomes)} of {sum(one.refusals for one in outcomes):,}",
        f"{sum(one.gave_up for one in outcomes)}",
        "equal",
        f"{spread([one.calls / one.took_s if one.took_s else 0.0 for one in outcomes]):.0f}",
    )
