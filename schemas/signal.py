"""Signals: what a policy says about a scope now. Compacted by key, so a gate that starts late still hears the last word.

Six kinds of record share the topic, told apart by the key's first part:

    signal|<policy>|<values>   one Signal
    policies                   the PolicySet in force, for gates: limits of scopes nobody has spoken of yet
    policies.coming            the one that will be, once what it counts is counted; for meters
    prices                     what a token costs at most (`unit_prices.py`)
    gates, gates|<number>      the live gates, by id, and the offsets counted in: heartbeat, and what leases divide by;
                               where several workers share the scopes, each has its own
    trouble|<kind>             when people were last told of trouble that is no policy's, until they are told that it is over
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
import orjson

from .policy import State

SCHEMA: Final = "signals/1"
SIGNAL_PREFIX: Final = b"signal|"
POLICIES_KEY: Final = b"policies"
COMING_KEY: Final = b"policies.coming"
GATES_KEY: Final = b"gates"
TROUBLE_PREFIX: Final = b"trouble|"


class Contributor(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who spent it: a value below the scope (or the scope itself), and its part of the measure."""

    scope: dict[str, str | None]
    spend: float


class Signal(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A policy's word on one scope. Spend, reserved, limit and remaining are in the measure's counted unit (money:
    nano-dollars; rates: 0 to 1; latencies: seconds). Times are seconds since 1970."""

    policy: str
    policy_version: str
    scope: dict[str, str | None]
    state: State
    measure: str
    spend: float
    reserved: float = 0
    limit: float | None = None
    remaining: float | None = None
    lease_share: float = 0.5
    model: str | None = None
    per_minute: float | None = None
    probe_every_s: float | None = None
    window_start: float
    window_end: float
    resets_at: float | None = None
    burn_per_s: float | None = None
    exhausted_at: float | None = None
    reason: str
    contributors: list[Contributor] = []
    # From when on the policy has said this; a hold counts from it.
    since: float | None = None
    sequence: int
    at: float
    # Source offset up to which each partition of `calls` is counted in; -1: nothing yet.
    applied: list[int] = []
    gates: int = 1
    stale: Literal["open", "closed"] = "open"
    stale_after_s: float = 30
    owner: str | None = None
    runbook: str | None = None

    def key(self) -> bytes:
        return signal_key(self.policy, tuple(self.scope.values()))


def signal_key(policy: str, values: tuple[str | None, ...]) -> bytes:
    """The compaction key of a policy's signal on a scope."""
    return signal_prefix(policy) + orjson.dumps(values)


def signal_prefix(policy: str) -> bytes:
    """What the keys of all signals of a policy begin with. A name has no `|` in it."""
    return SIGNAL_PREFIX + policy.encode() + b"|"


def parse_signal_key(key: bytes) -> tuple[str, tuple[str | None, ...]] | None:
    """(policy, values) of a signal's key; None for other records."""
    if not key.startswith(SIGNAL_PREFIX):
        return None
    policy, _, values = key.removeprefix(SIGNAL_PREFIX).partition(b"|")
    return policy.decode(), tuple(orjson.loads(values))


def heartbeat_key(number: int) -> bytes:
    """The compaction key of a worker's heartbeat."""
    return b"%b|%d" % (GATES_KEY, number) if number else GATES_KEY


def heartbeat_number(key: bytes) -> int | None:
    """Which worker's heartbeat a key is of; None for other records."""
    name, _, number = key.partition(b"|")
    if name != GATES_KEY:
        return None
    return int(number) if number.isdigit() else 0 if key == GATES_KEY else None


class Gates(msgspec.Struct, frozen=True):
    """The live gates at a time, by id, and how far the calls topic is counted in; sent every second, so it is also the
    heartbeat by which a gate knows that it is not stale.

    `applied` is as in Signal: own spend at or before it is in every signal sent with or before this, or was never counted.
    Where workers share the scopes, that holds of one worker's, and `of` is how many there are. `policies` is the version in
    force.
    """

    ids: list[str]
    at: float
    applied: list[int] = []
    of: int = 1
    policies: str = ""


class Alert(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Something a person must know. `key` names the incident; the notifier deduplicates by it."""

    key: str
    kind: str
    severity: Literal["info", "warning", "critical"]
    title: str
    at: float
    policy: str | None = None
    scope: dict[str, str | None] = {}
    state: State | None = None
    previous_state: State | None = None
    spend: float | None = None
    limit: float | None = None
    resets_at: float | None = None
    exhausted_at: float | None = None
    contributors: list[Contributor] = []
    owner: str | None = None
    runbook: str | None = None
    details: dict[str, Any] = {}


_signal: Final = msgspec.json.Decoder(Signal)
_gates: Final = msgspec.json.Decoder(Gates)


def decode_signal(value: bytes) -> Signal:
    return _signal.decode(value)


def decode_gates(value: bytes) -> Gates:
    return _gates.decode(value)
