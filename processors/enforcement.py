"""What surrounds the policies step on any log: what was said before, which policies are in force, which gates live, and
what is to be published.

    Memory (what the topics say) ─► take up the last words ─► enforce a policy set
    usage, gates ─► hear ─► judge (the step) ─► Publication ─► the engine makes it last ─► published

Synchronous, and looks at no clock: every `now` is seconds since 1970. An engine that could not publish either publishes
the same again, or begins anew from its memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import msgspec
from pydantic import ValidationError

from ..schemas.policy import PolicySet
from ..schemas.signal import (
    POLICIES_KEY,
    SIGNAL_PREFIX,
    TROUBLE_PREFIX,
    Alert,
    Gates,
    Signal,
    decode_signal,
    heartbeat_key,
    signal_key,
    signal_prefix,
)
from ..schemas.unit_prices import PRICES_KEY, UnitPrices, decode_unit_prices
from .incidents import AGAIN_S
from .judging import NEAR
from .policies import PoliciesOutputs, PoliciesState, policies
from .series import Values, usage_prefix
from .signal_rows import Kept

# A gate announces itself every second; after five it is gone, and what it could have spent is the others' again.
GATE_GONE_S: Final = 5.0
# The heartbeat of all gates; a policy's `stale_after` is a second at the least.
BEAT_S: Final = 0.5

Prices = dict[str, tuple[float, float]]


class Memory(Protocol):
    """The last record on every key of the usage and the signals topic, as an engine has it."""

    def usage(self, partition: int, key: bytes) -> bytes | None:
        """What a source partition last said of a scope."""
        ...

    def usage_of(self, prefix: bytes) -> Iterable[tuple[int, bytes, bytes]]:
        """The same, of all scopes of one's own whose keys begin so: (source partition, key, value)."""
        ...

    def signal(self, key: bytes) -> bytes | None:
        """The record in force of a key of the signals topic."""
        ...

    def signals(self, prefix: bytes) -> Iterable[tuple[bytes, bytes]]:
        """All records in force whose keys begin so; none that were taken back."""
        ...


@dataclass(frozen=True, slots=True)
class Share:
    """The scopes of one of several workers: `owns(series id, values)` are those of the `number`-th `of` so many."""

    number: int = 0
    of: int = 1
    owns: Callable[[str, Values], bool] = lambda _series, _values: True


@dataclass(frozen=True, slots=True)
class Publication:
    """What is to be said: `records` of the signals topic in their order, where an empty value takes a key back; and
    `alerts`. `signals` counts those among the records; `kept` are the words that the store keeps."""

    records: list[tuple[bytes, bytes]]
    alerts: list[Alert]
    signals: int
    kept: list[Kept]
    beat: Gates | None
    prices: Prices
    trouble: int


class Beat(NamedTuple):
    """When gates were last told that somebody is there, or that began; seconds since 1970. And how many gates live."""

    at: float
    gates: int


def beat_of(enforcements: Sequence[Enforcement]) -> Beat | None:
    """The oldest of their words, as a gate waits for all of them; None where there are none of them."""
    if not enforcements:
        return None
    return Beat(min(one.beat_at for one in enforcements), max(one.gates for one in enforcements))


class Enforcement:
    """The policies over one memory. It begins under the policies that the memory was last told are in force; `enforce`
    what is in force now before the first `judge`.

    `unit_prices()` is what a token of each model that was asked costs at most. `trouble` are alerts that are no policy's.
    """

    def __init__(
        self,
        memory: Memory,
        partitions: int,
        now: float,
        *,
        unit_prices: Callable[[], Prices] = dict,
        share: Share = Share(),  # noqa: B008 — frozen
    ) -> None:
        self._memory = memory
        self._unit_prices = unit_prices
        self._share = share
        self.trouble: list[Alert] = []
        # What stands of it: what was said (empty: before this one began), and when.
        self.standing: dict[str, tuple[str, float]] = {
            key.removeprefix(TROUBLE_PREFIX).decode(): ("", float(value)) for key, value in memory.signals(TROUBLE_PREFIX)
        }
        self._gates: dict[str, float] = {}
        self._told: tuple[list[str], list[int]] | None = None
        self._began_at, self._beat_at = now, float("-inf")
        self._outputs = PoliciesOutputs()
        self._outdated: dict[bytes, None] = {}
        self._news: bytes | None = None
        stored = memory.signal(PRICES_KEY)
        self._prices: Prices = dict(decode_unit_prices(stored).nano_usd) if stored else {}
        self.state = PoliciesState(partitions, memory.usage, self._last_signal)
        self.policy_set = last_policies(memory) or PolicySet()
        self.state.enforce(self.policy_set, now, self._outputs)
        for key, signal in self._signals(SIGNAL_PREFIX):
            rule, values = self.state.rules.get(signal.policy), tuple(signal.scope.values())
            if rule is None or tuple(signal.scope) != rule.policy.scope:
                self._outdated[key] = None
            elif (signal.state != "ok" or _is_near(signal)) and share.owns(rule.series.id, values):
                self.state.scope(rule.series.id, values, now)

    def enforce(self, policy_set: PolicySet, now: float) -> None:
        """Put a policy set in force. What is known of the scopes that it judges otherwise is judged in the next run."""
        before, owns = self.state.rules, self._share.owns
        self.policy_set = policy_set
        outputs = PoliciesOutputs()
        again = self.state.enforce(policy_set, now, outputs)
        for name, old in before.items():
            rule = self.state.rules.get(name)
            gone = rule is None or rule.policy.scope != old.policy.scope
            if rule is None or rule.series.id != old.series.id:
                # Of scopes at rest nothing is in memory; those that are not go on from what was said of them.
                for key, signal in self._signals(signal_prefix(name)):
                    values = tuple(signal.scope.values())
                    if not owns((old if gone or rule is None else rule).series.id, values):
                        continue
                    if gone or rule is None or signal.state == "ok":
                        self._outdated[key] = None
                    else:
                        # A worker may have had it that has it no more, since it counts by another series now.
                        self.state.scope(rule.series.id, values, now)
        for name, each in self.state.watched.items():
            for values in [values for values in each.scopes if not owns(name, values)]:
                del each.scopes[values]
        self._outputs.alerts += outputs.alerts
        self._outputs.removed += [
            (name, values)
            for name, values in outputs.removed
            if (rule := self.state.rules.get(name)) is None
            or rule.policy.scope != before[name].policy.scope
            or owns(rule.series.id, values)
        ]
        for series_id in again:
            for partition, key, value in self._memory.usage_of(usage_prefix(series_id)):
                self.state.hear(partition, key, value, now, news=False)
        self.repeat_policies()

    def hear(self, partition: int, key: bytes, value: bytes, now: float) -> None:
        """Take in one record of the usage topic that the memory holds by now."""
        self.state.hear(partition, key, value, now)

    def hear_gate(self, gate_id: str, seen_at: float | None) -> None:
        """A gate has announced itself at this time, or (None) said goodbye."""
        if seen_at is None:
            self._gates.pop(gate_id, None)
        else:
            self._gates[gate_id] = seen_at

    def repeat(self, policy: str, values: Values, now: float) -> None:
        """Say again what a policy says of a scope: somebody else has spoken of it, as the memory knows by now."""
        rule = self.state.rules.get(policy)
        if rule is not None and len(values) == len(rule.policy.scope) and self._share.owns(rule.series.id, values):
            self.state.scope(rule.series.id, values, now).news = True

    def repeat_policies(self) -> None:
        """Say which policies are in force, unless that is what the memory has. The first of several workers does."""
        if self._share.number:
            return
        news = self.policy_set.model_dump_json().encode()
        self._news = None if self._memory.signal(POLICIES_KEY) == news else news

    def stands(self, kind: str, problem: str | None, now: float) -> None:
        """Say how it stands with trouble that is no policy's, as often as you like. People hear of it with the next run: when
        it begins or becomes another, each hour while it stands, and when it is over (None)."""
        before = self.standing.pop(kind, None)
        if problem is not None:
            if before is not None and before[0] == problem and now - before[1] < AGAIN_S:
                self.standing[kind] = before
                return
            self.standing[kind] = problem, now
            self.trouble.append(Alert(key=kind, kind=kind, severity="warning", title=problem[:1_000], at=now))
        elif before is not None:
            title = f"over: {before[0] or kind.replace('_', ' ')}"
            self.trouble.append(Alert(key=kind, kind=kind, severity="info", title=title[:1_000], at=now))

    def judge(self, counted: list[int], now: float, *, anyway: bool = False) -> Publication | None:
        """What is to be said now, everything up to these offsets being heard; None for nothing, unless `anyway`. Until it
        is `published`, nobody may judge again."""
        self.state.applied = counted
        for gate_id in [gate_id for gate_id, seen_at in self._gates.items() if now - seen_at > GATE_GONE_S]:
            del self._gates[gate_id]
        # A signal names it as it was then; gates divide by the heartbeat's.
        self.state.gates = max(len(self._gates), 1)
        _, outputs = policies(self.state, now)
        alerts = [*outputs.alerts, *self._outputs.alerts, *self.trouble]
        # What is taken back first: of each key the last record counts. Gates forget what was said under other policies
        # when they hear the new ones, so those come before their signals.
        removed = [signal_key(*key) for key in (*outputs.removed, *self._outputs.removed)]
        removed += self._outdated
        records = [(key, b"") for key in removed]
        if self._news is not None:
            records.append((POLICIES_KEY, self._news))
        records += [(signal.key(), msgspec.json.encode(signal)) for signal in outputs.signals]
        # Without its words: those may name people, and services read these.
        records += [
            (TROUBLE_PREFIX + told.key.encode(), b"" if told.severity == "info" else b"%.3f" % told.at) for told in self.trouble
        ]
        beat = self._beat(now)
        if not (records or alerts or beat or anyway):
            return None
        if beat is not None:
            records.append((heartbeat_key(self._share.number), msgspec.json.encode(beat)))
        prices = self._prices | self._unit_prices()
        if prices != self._prices:
            records.append((PRICES_KEY, msgspec.json.encode(UnitPrices(prices, now))))
        kept = [Kept(signal) for signal in outputs.kept]
        kept += self._taken_back(set(removed).difference(signal.key() for signal in outputs.signals), now)
        return Publication(records, alerts, len(outputs.signals), kept, beat, prices, len(self.trouble))

    def published(self, publication: Publication) -> None:
        """What was to be said is said, for good."""
        self._outputs = PoliciesOutputs()
        self._outdated, self._news = {}, None
        del self.trouble[: publication.trouble]
        self._prices = publication.prices
        if publication.beat is not None:
            self._beat_at = publication.beat.at
            self._told = publication.beat.ids, publication.beat.applied

    @property
    def beat_at(self) -> float:
        """When gates were last told that somebody is there. Before the first time, when this began: one that never comes to
        speak is seen as one that fell silent is."""
        return self._beat_at if math.isfinite(self._beat_at) else self._began_at

    @property
    def gates(self) -> int:
        """How many gates live."""
        return len(self._gates)

    def next_due(self) -> float:
        """When there is something to say by itself, at the latest."""
        due, beat_at = self.state.next_due(), self._beat_at + BEAT_S
        return beat_at if due is None else min(due, beat_at)

    def _beat(self, now: float) -> Gates | None:
        """The heartbeat, if one is due: by time (a clock that was set back counts), or because there is news for it."""
        live, settled = sorted(self._gates), self.state.settled
        if 0 <= now - self._beat_at < BEAT_S and self._told == (live, settled):
            return None
        return Gates(live, now, list(settled), self._share.of, self.policy_set.version)

    def _taken_back(self, keys: Iterable[bytes], now: float) -> Iterator[Kept]:
        """The last words under these keys, which are no more in force."""
        for key in sorted(keys):
            if stored := self._memory.signal(key):
                last = decode_signal(stored)
                at = max(now, last.at)
                sequence = max(last.sequence + 1, int(at * 1_000))
                # One that counts something else now says nothing of the scope until that is counted.
                edited = " as it was" if last.policy in self.state.rules else ""
                reason = f"{last.policy}: no longer in force{edited}"
                yield Kept(msgspec.structs.replace(last, state="ok", reason=reason, at=at, sequence=sequence), withdrawn=True)

    def _signals(self, prefix: bytes) -> Iterator[tuple[bytes, Signal]]:
        for key, value in self._memory.signals(prefix):
            yield key, decode_signal(value)

    def _last_signal(self, policy: str, values: Values) -> Signal | None:
        stored = self._memory.signal(signal_key(policy, values))
        return decode_signal(stored) if stored else None


def last_policies(memory: Memory) -> PolicySet | None:
    """The set that the signals were said under; None when there is none that can be read."""
    stored = memory.signal(POLICIES_KEY)
    try:
        return PolicySet.model_validate_json(stored) if stored else None
    except ValidationError:
        # Written by a version with other rules of what a policy may be: all signals are told anew.
        return None


def _is_near(signal: Signal) -> bool:
    return signal.limit is not None and signal.spend + signal.reserved >= NEAR * signal.limit
