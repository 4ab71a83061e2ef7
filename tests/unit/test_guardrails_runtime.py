"""Partitions, pool, budget and sampling together: what is passed on, what is judged first, and what a budget cannot take away.

The pool's queues are real, and its processes are not: a batch is judged at once, and costs what the test says.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import orjson
from hypothesis import given
from hypothesis import strategies as st
from support import NOW_S, LogRecord, line
from tidegate.processors.guardrails.jobs import Judged, Redacted
from tidegate.processors.guardrails.pool import Pool
from tidegate.processors.guardrails.runtime import Runtime
from tidegate.processors.guardrails.sampling import Sampling, Sighting
from tidegate.processors.guardrails.step import BEHIND_S
from tidegate.producers.key_source import GivenKeys
from tidegate.producers.sealing import seal
from tidegate.schemas.content import Texts
from tidegate.schemas.envelope import CONTENT_SCHEMA, Envelope
from tidegate.schemas.settings import Settings

KEY = "MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA="
KEYS = GivenKeys(
    orjson.dumps(
        {
            "version": 1,
            "fingerprint": KEY,
            "keys": [{"id": "k-1", "tenant": None, "key": KEY, "created_at": "2026-01-01T00:00:00Z", "retired": False}],
        }
    ).decode()
)
SEALED = seal(Texts(prompt="text"), "any", KEYS.opening("k-1"))
ALWAYS = "harbor-health"


@dataclass
class Time:
    """Goes on when somebody waits."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class JudgingPool(Pool):
    """Judges a batch whenever it is asked, `cost_s` of processor time a call; waits where there is none."""

    cost_s = 0.0
    judged: list[str]

    def collect(self, wait_s: float) -> list[Judged]:
        if self.paused or not self.waiting:
            self._clock.now += wait_s  # type: ignore[attr-defined]
            return []
        jobs = self._next_batch().jobs
        self.account.cpu_s += self.cost_s * len(jobs)
        self.judged = [*getattr(self, "judged", []), *(job.call_id for job in jobs)]
        return [Judged(number=job.number, outcome="scored", redacted=Redacted(prompt="text")) for job in jobs]


@dataclass
class Engine:
    """One partition of a log that ends in a list; the log's clock is the runtime's."""

    settings: Settings
    sampling: Sampling = field(default_factory=Sampling)
    time: Time = field(default_factory=Time)
    unread: deque[LogRecord] = field(default_factory=deque)
    outcomes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with patch("tidegate.processors.guardrails.runtime.Pool", JudgingPool):
            self.runtime = Runtime(self.settings, KEYS, sampling=self.sampling, clock=self.time)
        self.runtime.assign(0, 0)
        self.appended = 0

    def append(self, **fields: Any) -> str:
        call_id = f"call-{self.appended}"
        event = {"event": "content", "call_id": call_id, "started_at": "2026-11-02T08:00:00Z", "request_model": "usual"}
        event |= {"mode": "sealed", "key_id": "k-1", "sealed": SEALED} | fields
        envelope = Envelope.of("svc", self.appended, [line(event)], schema=CONTENT_SCHEMA)
        self.unread.append(LogRecord.of(self.appended, envelope, int((NOW_S + self.time.now) * 1_000)))
        self.appended += 1
        return call_id

    def run_once(self) -> None:
        now = NOW_S + self.time.now
        while self.unread and self.runtime.has_room:
            self.runtime.take(0, self.unread.popleft(), now)
        self.runtime.work(0.05)
        for _, outputs in self.runtime.finished(NOW_S + self.time.now):
            for _, value in outputs.scored:
                self.outcomes |= {event["call_id"]: event["outcome"] for event in map(orjson.loads, value.split(b"\n"))}
            self.runtime.put_out(outputs)


def test_what_is_only_passed_on_waits_for_nobody_and_takes_no_room() -> None:
    engine = Engine(Settings(guard_sample=0, guard_new_h=0, guard_batch=1))
    for _ in range(2_000):
        engine.append()

    engine.run_once()

    assert engine.outcomes == dict.fromkeys((f"call-{number}" for number in range(2_000)), "sampled_out")
    assert engine.time.now == 0.0


def test_what_waits_behind_one_that_is_not_judged_has_a_bound() -> None:
    engine = Engine(Settings(guard_sample=0, guard_new_h=0, guard_batch=1, guard_always={"tenant": (ALWAYS,)}))
    engine.runtime.pool.paused = True
    engine.append(tenant=ALWAYS)
    for _ in range(10_500):
        engine.append()

    with patch.object(JudgingPool, "collect", lambda _self, _wait_s: []):
        engine.run_once()

    assert len(engine.unread) == 501
    assert not engine.outcomes


def test_what_is_new_or_named_is_judged_before_what_came_earlier() -> None:
    usual = (("model", "usual"), Sighting(0, int(NOW_S * 1_000)))
    sampling = Sampling()
    sampling.restore([usual])
    engine = Engine(Settings(guard_batch=2, guard_always={"tenant": (ALWAYS,)}), sampling)
    for fields in ({}, {}, {}, {"request_model": "new"}, {"tenant": ALWAYS}):
        engine.append(**fields)

    for _ in range(3):
        engine.run_once()

    assert engine.runtime.pool.judged == ["call-3", "call-4", "call-0", "call-1", "call-2"]


@given(
    calls=st.lists(st.tuples(st.booleans(), st.integers(0, 300)), min_size=1, max_size=60),
    share=st.sampled_from([0.01, 0.1, 1.0]),
    sample=st.sampled_from([0.0, 0.5, 1.0]),
    cost_s=st.sampled_from([0.1, 1.0, 30.0]),
)
def test_what_is_named_is_scored_whatever_the_budget_and_the_budget_holds(
    calls: list[tuple[bool, int]], share: float, sample: float, cost_s: float
) -> None:
    settings = Settings(
        guard_batch=2, guard_cpu_share=share, guard_sample=sample, guard_new_h=0, guard_always={"tenant": (ALWAYS,)}
    )
    engine = Engine(settings)
    pool = engine.runtime.pool
    assert isinstance(pool, JudgingPool)
    pool.cost_s = cost_s

    named = set()
    for is_named, pause_s in calls:
        call_id = engine.append(tenant=ALWAYS if is_named else "other")
        named |= {call_id} if is_named else set()
        engine.run_once()
        engine.time.now += pause_s
    while engine.unread or engine.runtime.busy:
        engine.run_once()
        engine.time.now += 10

    assert len(engine.outcomes) == len(calls)
    assert {outcome for call_id, outcome in engine.outcomes.items() if call_id in named} <= {"scored"}
    assert pool.account.cpu_s <= share * (30 + engine.time.now) + 2 * cost_s + 1e-6
    if sample == 1.0 and engine.time.now <= BEHIND_S:
        assert set(engine.outcomes.values()) == {"scored"}, "left out, though nothing is behind"
