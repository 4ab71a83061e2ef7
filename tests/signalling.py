"""Policies, signals and a source for tests of gates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from support import NOW_S
from tidegate.producers.gate import Gate, GateSettings
from tidegate.producers.signals import START, SignalRecord
from tidegate.schemas.errors import LogUnavailable
from tidegate.schemas.policy import Policy, PolicySet, RequestLimit
from tidegate.schemas.signal import GATES_KEY, POLICIES_KEY, Gates, Signal
from tidegate.schemas.unit_prices import PRICES_KEY, UnitPrices


@dataclass
class Clock:
    """Monotonic seconds of a process that started a while ago."""

    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class MemorySignals:
    """`SignalSource` in memory; `away` makes it unreachable."""

    records: list[SignalRecord] = field(default_factory=list)
    away: bool = False
    announced: list[str] = field(default_factory=list)
    polls: int = 0
    closed: int = 0
    abandoned: int = 0

    def poll(self, after: int, timeout_s: float) -> tuple[Sequence[SignalRecord], int]:
        self.polls += 1
        if self.away:
            raise LogUnavailable("told to be away")
        found = self.records[after + 1 :]
        return found, len(self.records) - 1 if found else after

    def announce(self, gate_id: str) -> None:
        self.announced.append(gate_id)

    def close(self) -> None:
        self.closed += 1

    def abandon(self) -> None:
        self.abandoned += 1


@dataclass
class Stage:
    """A gate that hears what it is told, on a clock that stands still. `wall` is the node's clock."""

    clock: Clock = field(default_factory=Clock)
    source: MemorySignals = field(default_factory=MemorySignals)
    settings: GateSettings = field(default_factory=GateSettings)
    id: str = "gate-1"
    wall: float = float(NOW_S)
    sequence: int = 0
    heard: int = START

    def __post_init__(self) -> None:
        self.gate = Gate(
            self.source,
            gate_id=self.id,
            settings=self.settings,
            clock=lambda: self.wall,
            monotonic=self.clock,
            sleep=self.sleep,
            follow=False,
        )

    def sleep(self, wait_s: float) -> None:
        self.pass_s(wait_s)
        self.catch_up()

    def pass_s(self, seconds: float) -> None:
        """Time passes, here and there."""
        self.clock.now += seconds
        self.wall += seconds

    def catch_up(self) -> None:
        if records := self.source.records[self.heard + 1 :]:
            self.heard = len(self.source.records) - 1
            self.gate.hear(records)

    def tell(self, *records: SignalRecord) -> None:
        """The gate hears these now."""
        self.source.records.extend(records)
        self.catch_up()

    def enforce(self, *policies: Policy | RequestLimit) -> None:
        """A policy set is in force, and this gate is the only live one."""
        bounds = tuple(policy for policy in policies if isinstance(policy, RequestLimit))
        rest = tuple(policy for policy in policies if isinstance(policy, Policy))
        self.tell(policy_record(PolicySet(policies=rest, request_limits=bounds)), self.beat())

    def beat(self, *ids: str, applied: Sequence[int] = ()) -> SignalRecord:
        return GATES_KEY, msgspec.json.encode(Gates(list(ids or (self.id,)), self.wall, list(applied)))

    def signal(self, policy: str, spend: float = 0, **fields: Any) -> SignalRecord:
        self.sequence += 1
        given: dict[str, Any] = {"sequence": self.sequence, "at": self.wall} | fields
        return signal_record(policy, spend, **given)


def policy(name: str = "budget", **fields: Any) -> Policy:
    """A monthly budget of 1,000 tokens that blocks; `fields` replace."""
    given: dict[str, Any] = {
        "name": name,
        "measure": "total_tokens",
        "window": {"calendar": "month"},
        "limit": 1_000,
        "action": "block",
    } | fields
    if "actions" in given:
        del given["action"]
    return Policy(**given)


def policy_record(policies: PolicySet) -> SignalRecord:
    return POLICIES_KEY, policies.model_dump_json().encode()


def price_record(**nano_usd: tuple[float, float]) -> SignalRecord:
    return PRICES_KEY, msgspec.json.encode(UnitPrices(nano_usd))


def signal_record(name: str, spend: float, **fields: Any) -> SignalRecord:
    given: dict[str, Any] = {
        "policy": name,
        "policy_version": "1",
        "scope": {},
        "state": "ok",
        "measure": "total_tokens",
        "spend": spend,
        "limit": 1_000.0,
        "window_start": NOW_S,
        "window_end": NOW_S + 1_000_000,
        "reason": f"{name}: {spend:g} tokens this month, limit 1,000",
    } | fields
    signal = Signal(**given)
    return signal.key(), msgspec.json.encode(signal)
