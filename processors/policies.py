"""The policies step: usage of scopes in; signals and alerts out.

    usage record ─► its scope ─► every policy on that series: judge(measure, limit, now) ─► signal, if it is news
    timer ────────► scopes whose window will move by itself, or whose hold ends

Usage is absolute per source partition, so a record heard twice changes nothing. Worse news goes out at once, and with an
alert. All other news goes out together, at most every `HEARTBEAT_S`: so a scope has four words a second and one more for
each step that it falls, and after such a moment everything that was heard has been told (`PoliciesState.settled`).

Scopes that are fine and silent leave memory and come back with their next usage. Those of which a policy has said
anything else, or which have used half of their limit, stay, and are judged again whenever their window moves.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from ..schemas.policy import SEVERITY, Policy, PolicySet
from ..schemas.signal import Alert, Signal
from .judging import AT_EASE, Rule, Verdict, Word, is_near, judge
from .series import ScopeUsage, Series, SeriesKey, Values, parse_usage_key, series_of, usage_key
from .signalling import alert_of, signal_of, withdrawn

# A gate may use its lease up in a fraction of a second; four words a second keep it going without flooding the topic.
HEARTBEAT_S: Final = 0.25
# A scope has four words a second, most of them about what is left. The store has each that changes something, and of the
# others the first in each five minutes: enough to draw how a budget goes, and never more rows than calls.
KEPT_EVERY_S: Final = 300.0
# How long a scope that is fine and silent stays in memory. The meter keeps it for longer; hearing it again is cheap.
IDLE_S: Final = 120.0
# A clock that was set back does not make a signal older than the one before it.
_TICK_S: Final = 0.001


# What one source partition says of a scope: as it came, or made ready.
Heard = bytes | ScopeUsage
# A policy's name and a scope's values.
ScopeKey = tuple[str, Values]


@dataclass(slots=True)
class Scope:
    """What is known of one scope of a series: the usage of each source partition as it came, which takes less room than
    made ready, and a word of each policy. `news`: more was heard than has been told."""

    usage: list[Heard | None]
    words: list[Word]
    heard_at: float = 0.0
    news: bool = False
    timer: float = 0.0


@dataclass(slots=True)
class Watched:
    """One series: the policies on it, and its live scopes."""

    series: Series
    rules: list[Rule]
    scopes: dict[Values, Scope] = field(default_factory=dict)


@dataclass(slots=True)
class PoliciesOutputs:
    """News of one step. `removed` are signals to take back, unless there is a new one; `kept`, those of the signals that the
    store keeps."""

    signals: list[Signal] = field(default_factory=list)
    kept: list[Signal] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    removed: list[ScopeKey] = field(default_factory=list)


@dataclass(slots=True)
class PoliciesState:
    """All live scopes. `load(partition, key)` fetches a usage record; `last(policy, values)` the last signal sent.

    `applied` is the source offset of each partition that everything heard so far counts in; `settled`, the one that
    everything told so far does.
    """

    partitions: int
    load: Callable[[int, bytes], bytes | None] = lambda _partition, _key: None
    last: Callable[[str, Values], Signal | None] = lambda _policy, _values: None
    heartbeat_s: float = HEARTBEAT_S
    version: str = ""
    rules: dict[str, Rule] = field(default_factory=dict)
    watched: dict[str, Watched] = field(default_factory=dict)
    applied: list[int] = field(default_factory=list)
    settled: list[int] = field(default_factory=list)
    gates: int = 1
    _pending: dict[SeriesKey, None] = field(default_factory=dict)
    _untold: dict[SeriesKey, None] = field(default_factory=dict)
    _told_at: float = 0.0
    # When, a running number (scopes have no order), whom.
    _timers: list[tuple[float, int, SeriesKey]] = field(default_factory=list)
    _timers_set: int = 0
    _sweep_at: float = 0.0

    def __post_init__(self) -> None:
        self.applied = self.applied or [-1] * self.partitions
        self.settled = self.settled or [-1] * self.partitions

    def enforce(self, policies: PolicySet, now: float, outputs: PoliciesOutputs) -> set[str]:
        """Put a policy set in force; what is said under a policy that is gone is taken back. Returns the series of whose
        scopes something may be new, so that those at rest should be heard again.

        A policy that was edited judges each scope afresh: neither hold nor hysteresis keeps what the old one said. One that
        now counts something else goes on from what it said, or takes it back where that was nothing.
        """
        series = series_of(policies.policies)
        rules = {policy.name: Rule.of(policy, series[Series.of(policy).id]) for policy in policies.policies}
        watched = {name: Watched(one, []) for name, one in series.items()}
        for rule in rules.values():
            watched[rule.series.id].rules.append(rule)
        old, self.rules, self.version = self.watched, rules, policies.version
        self.watched = watched
        again = set()
        known = {rule.policy.name: rule for each in old.values() for rule in each.rules}
        for rule in rules.values():
            before = known.get(rule.policy.name)
            if before is None or before.policy != rule.policy:
                again.add(rule.series.id)
        for each in old.values():
            for values, scope in each.scopes.items():
                words = {rule.policy.name: word for rule, word in zip(each.rules, scope.words, strict=True)}
                self._carry_over(each, values, scope, words, now, outputs)
        self._timers.clear()
        self._untold.clear()
        self._pending = {(name, values): None for name, each in watched.items() for values in each.scopes}
        return again

    def _carry_over(
        self, old: Watched, values: Values, scope: Scope, words: dict[str, Word], now: float, outputs: PoliciesOutputs
    ) -> None:
        """Put a scope, and what was said of it, under the rules now in force."""
        here = self.watched.get(old.series.id)
        if here is not None:
            kept = [words.get(rule.policy.name) or self._word(rule, values) for rule in here.rules]
            here.scopes[values] = Scope(scope.usage, kept, scope.heard_at, scope.news)
        for before in old.rules:
            name = before.policy.name
            word, rule = words[name], self.rules.get(name)
            if rule is None or rule.policy.scope != before.policy.scope:
                outputs.removed.append((name, values))
                if word.state != "ok":
                    outputs.alerts.append(withdrawn(before, values, word, now))
            elif rule.series.id != before.series.id and word.state == "ok":
                outputs.removed.append((name, values))
            elif rule.policy != before.policy:
                # Whatever was told may be told otherwise now.
                word.spend, word.since = -1.0, -1.0
                word.step = _same_step(before, word.step, rule)
                if rule.series.id != before.series.id:
                    there = self.scope(rule.series.id, values, now)
                    there.words[self.watched[rule.series.id].rules.index(rule)] = word

    def hear(self, partition: int, key: bytes, value: bytes, now: float, *, news: bool = True) -> None:
        """Take in one record of the usage topic; without `news` it was heard before, and is only to be judged again."""
        parsed = parse_usage_key(key)
        if parsed is not None and value:
            self.take(partition, *parsed, value, now, news=news)

    def take(self, partition: int, series_id: str, values: Values, usage: Heard, now: float, *, news: bool = True) -> None:
        """Take in what one source partition says of a scope."""
        each = self.watched.get(series_id)
        if each is None:
            return
        scope = each.scopes.get(values)
        if scope is None:
            scope = self.scope(series_id, values, now, partition)
        scope.usage[partition] = usage
        scope.heard_at = now
        scope.news = scope.news or news
        self._pending[series_id, values] = None

    def scope(self, series_id: str, values: Values, now: float, told_by: int | None = None) -> Scope:
        """A scope, from memory or from what the topics last said of it, to be judged at the next step. `told_by` is the
        partition of which the usage is at hand."""
        each = self.watched[series_id]
        scope = each.scopes.get(values)
        if scope is None:
            usage: list[Heard | None] = [None] * self.partitions
            key = usage_key((series_id, values))
            for partition in range(self.partitions):
                if partition != told_by:
                    usage[partition] = self.load(partition, key) or None
            scope = each.scopes[values] = Scope(usage, [self._word(rule, values) for rule in each.rules], now)
        self._pending[series_id, values] = None
        return scope

    def _word(self, rule: Rule, values: Values) -> Word:
        """What a policy last said of a scope, by the topic."""
        signal = self.last(rule.policy.name, values)
        if signal is None:
            return Word()
        word = Word(
            state=signal.state,
            step=rule.step_of(signal),
            since=signal.at if signal.since is None else signal.since,
            at=signal.at,
            sequence=signal.sequence,
            spend=signal.spend,
            reserved=signal.reserved,
            limit=signal.limit,
        )
        if signal.policy_version != self.version and not _same_terms(signal, rule.policy):
            word.spend = word.since = -1.0
        return word

    def next_due(self) -> float | None:
        """When the step has something to do by itself; None when time alone changes nothing."""
        times = [self._timers[0][0]] if self._timers else []
        if self._untold:
            times.append(self._told_at + self.heartbeat_s)
        return min(times, default=None)

    def words(self) -> Iterator[tuple[Rule, Values, Word]]:
        """What is said of every live scope."""
        for each in self.watched.values():
            for values, scope in each.scopes.items():
                for rule, word in zip(each.rules, scope.words, strict=True):
                    yield rule, values, word


def policies(state: PoliciesState, now: float) -> tuple[PoliciesState, PoliciesOutputs]:
    """Judge every scope that has news or whose time has come, at `now` (seconds since 1970), and say what is new."""
    outputs = PoliciesOutputs()
    due, state._pending = state._pending, {}
    timers = state._timers
    while timers and timers[0][0] <= now:
        at, _, key = heapq.heappop(timers)
        scope = _live(state, key)
        if scope is not None and scope.timer == at:
            scope.timer = 0.0
            due[key] = None
    # A clock that was set back does not silence anybody.
    all_news = not state._told_at <= now < state._told_at + state.heartbeat_s
    if all_news:
        due.update(state._untold)
        state._untold = {}
    for key in due:
        scope = _live(state, key)
        if scope is not None:
            _judge_scope(state, state.watched[key[0]], key, scope, now, all_news, outputs)
    if all_news and outputs.signals:
        state._told_at = now
    if not state._untold:
        state.settled = list(state.applied)
    if not state._sweep_at - IDLE_S / 4 <= now < state._sweep_at:
        state._sweep_at = now + IDLE_S / 4
        _sweep(state, now)
    return state, outputs


def _live(state: PoliciesState, key: SeriesKey) -> Scope | None:
    each = state.watched.get(key[0])
    return None if each is None else each.scopes.get(key[1])


def _sweep(state: PoliciesState, now: float) -> None:
    """Let scopes go that are fine and silent, and wait for nothing."""
    for name, each in state.watched.items():
        idle = [values for values, scope in each.scopes.items() if not scope.timer and now - scope.heard_at >= IDLE_S]
        for values in idle:
            if (name, values) not in state._untold:
                del each.scopes[values]


def _judge_scope(
    state: PoliciesState,
    each: Watched,
    key: SeriesKey,
    scope: Scope,
    now: float,
    all_news: bool,
    outputs: PoliciesOutputs,
) -> None:
    values = key[1]
    if state.partitions == 1 and scope.usage[0] is None:
        scope.usage[0] = state.load(0, usage_key(key)) or None
    usage = [ScopeUsage.load(each.series, part) if isinstance(part, bytes) else part for part in scope.usage if part]
    again: list[float] = []
    moves = False
    for rule, word in zip(each.rules, scope.words, strict=True):
        word.since = min(word.since, now)
        verdict = judge(rule, values, usage, now, word)
        worse = SEVERITY[verdict.state] > SEVERITY[word.state] or verdict.step > word.step
        if worse or scope.news or not word.says(verdict):
            if worse or all_news:
                previous, before = word.state, word.step
                kept = _is_kept(word, verdict, now)
                _say(word, verdict, now)
                signal = signal_of(state, rule, values, word, usage, verdict, now)
                outputs.signals.append(signal)
                if kept:
                    outputs.kept.append(signal)
                if previous != verdict.state or verdict.step > before:
                    outputs.alerts.append(alert_of(signal, rule.policy, previous, worse))
            else:
                state._untold[key] = None
        if word.step != AT_EASE and rule.policy.hold and (ends := word.since + rule.policy.hold) > now:
            again.append(ends)
        moves = moves or word.state != "ok" or is_near(verdict)
    scope.news = scope.news and not all_news
    again += [at for part in usage if (at := part.ring.next_rise(now)) is not None]
    if moves:
        again += [at for part in usage if (at := part.ring.next_change(now)) is not None]
    if state.partitions == 1 and not again and key not in state._untold:
        # Its next record says all there is to know, and until then the topic keeps this one.
        scope.usage[0] = None
    if again:
        at = min(again)
        # One that goes off too early does no harm, and one for each record would fill the memory.
        if not scope.timer or at < scope.timer:
            scope.timer = at
            state._timers_set += 1
            heapq.heappush(state._timers, (at, state._timers_set, key))


def _is_kept(word: Word, verdict: Verdict, now: float) -> bool:
    """Whether the store is to know: the policy says something else than before, or speaks for the first time in a while."""
    if word.since < 0 or (word.state, word.step, word.limit) != (verdict.state, verdict.step, verdict.limit):
        return True
    return now // KEPT_EVERY_S != word.at // KEPT_EVERY_S


def _say(word: Word, verdict: Verdict, now: float) -> None:
    if verdict.step != word.step or word.since < 0:
        word.since = now
    word.state, word.step = verdict.state, verdict.step
    word.spend, word.reserved, word.limit = verdict.reading.value or 0.0, verdict.reading.reserved, verdict.limit
    word.at = now if now > word.at else word.at + _TICK_S
    word.sequence = max(word.sequence + 1, int(word.at * 1_000))


def _same_step(before: Rule, step: int, after: Rule) -> int:
    """The step of a policy after an edit that says what this one said before it, or the mildest of that state."""
    if step == AT_EASE:
        return AT_EASE
    was = before.steps[step]
    same = [number for number, other in enumerate(after.steps) if other.state == was.state]
    return next((number for number in same if after.steps[number] == was), same[0] if same else AT_EASE)


def _same_terms(signal: Signal, policy: Policy) -> bool:
    """Whether a signal says what the policy says of how it behaves."""
    said = (signal.measure, signal.lease_share, signal.stale, signal.stale_after_s, signal.owner, signal.runbook)
    return said == (*(policy.measure, policy.lease_share, policy.stale, policy.stale_after, policy.owner, policy.runbook),)
