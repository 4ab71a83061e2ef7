"""What a gate has heard, and what follows for the scopes it is asked about.

    signals ─► words (scopes nobody here has asked about, as they came) ─► Standing, once somebody asks
    policies ─► rules       gates ─► how many share a lease, and which offsets are counted       prices ─► Usual

Not thread-safe: the gate's lock guards it. `generation` moves when scopes must be resolved anew; everything else that is
heard changes standings in place.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from pydantic import ValidationError

from ..schemas.policy import PolicySet
from ..schemas.signal import POLICIES_KEY, SIGNAL_PREFIX, decode_gates, decode_signal, heartbeat_number, signal_key
from ..schemas.unit_prices import PRICES_KEY, decode_unit_prices
from .decision import Decision
from .heartbeats import Heartbeats
from .leases import INFINITE
from .node_clock import NodeClock
from .scope import Scope, Usual, field_of
from .standing import CallBounds, Rule, Standing, matches

_logger: Final = logging.getLogger("tidegate")

# Scopes and standings kept ready, some 2 KB each; beyond it the idle ones are forgotten and made again when asked for.
_MOST_SCOPES: Final = 20_000
_MOST_MODELS: Final = 1_000


class Knowledge:
    """Everything a gate knows. Times are monotonic seconds."""

    def __init__(self, gate_id: str, clock: NodeClock, now: float) -> None:
        self.gate_id = gate_id
        self.generation = 0
        self.heard = False
        self.heard_at = now
        self.gates = 1
        self.member = False  # this gate is counted among the live ones
        self.standings: dict[bytes, Standing] = {}
        self._clock = clock
        self._rules: tuple[Rule, ...] = ()
        self._policies = PolicySet()
        self._needed: tuple[str, ...] = ("model",)  # the fields by which policies tell calls apart; the first is for Usual
        self._by_model = False  # … and who answers them is one of those
        self._words: dict[bytes, bytes] = {}
        self._scopes: dict[tuple[str | None, ...], Scope] = {}
        self._usual: dict[str | None, Usual] = {}
        self._prices: dict[str, tuple[float, float]] = {}
        self._answered_as: dict[str, tuple[str | None, str | None]] = {}
        self._beats = Heartbeats()
        self._puzzled = False

    # what is heard

    def hear(self, records: Sequence[tuple[bytes, bytes]], now: float) -> None:
        """Take in records of the signals topic, in their order. The first ones may be of long ago."""
        if not records:
            return
        catching_up = not self.heard
        if catching_up:
            self.heard = True
            self.generation += 1
        self.heard_at = now
        for key, value in records:
            try:
                self._hear(key, value, now, catching_up)
            except (msgspec.DecodeError, ValidationError) as error:
                if not self._puzzled:
                    self._puzzled = True
                    _logger.warning("signal_not_understood error=%s; is the node newer than this?", type(error).__name__)
        if catching_up:
            self._beats.caught_up(now)
        self.heard_at = self._beats.heard_at(now)

    def _hear(self, key: bytes, value: bytes, now: float, catching_up: bool) -> None:
        if key.startswith(SIGNAL_PREFIX):
            self._hear_signal(key, value, now)
        elif (number := heartbeat_number(key)) is not None:
            self._hear_heartbeat(number, value, now, catching_up)
        elif key == POLICIES_KEY:
            self._enforce(PolicySet.model_validate_json(value) if value else PolicySet())
        elif key == PRICES_KEY and value:
            self._prices = decode_unit_prices(value).nano_usd
            for model, usual in self._usual.items():
                usual.price(self._prices.get(model or ""))

    def _hear_signal(self, key: bytes, value: bytes, now: float) -> None:
        standing = self.standings.get(key)
        if standing is None:
            if value:
                self._words[key] = value
            else:
                self._words.pop(key, None)
        elif not value:
            standing.taken_back()
            self.generation += 1
        else:
            before = standing.state
            fresh = standing.news(decode_signal(value), self._clock.mono_of, now)
            if fresh and (standing.state != before or standing.state == "warn"):
                self.generation += 1

    def _hear_heartbeat(self, number: int, value: bytes, now: float, catching_up: bool) -> None:
        if not value:
            self._beats.forget(number)
            return
        beat = decode_gates(value)
        # One clock is enough, and several are never quite alike.
        if number == 0 and not catching_up:
            self._clock.heard(beat.at, now)
        settled = self._beats.hear(number, beat, now)
        gates, member = self._beats.members(self.gate_id)
        if (gates, member) != (self.gates, self.member):
            self.gates, self.member = gates, member
            for standing in self.standings.values():
                standing.divide(gates, member)
        if settled is not None:
            for standing in self.standings.values():
                if standing.calls:
                    standing.count_in(settled)

    def _enforce(self, policies: PolicySet) -> None:
        rules = tuple(Rule(policy) for policy in policies.policies)
        by_name = {rule.policy.name: rule for rule in rules}
        for key, standing in list(self.standings.items()):
            rule = by_name.get(standing.rule.policy.name)
            # Of a policy that counts something else now, past amounts mean nothing.
            if rule is None or rule.counts != standing.rule.counts:
                del self.standings[key]
            else:
                standing.obey(rule)
        self._rules, self._policies = rules, policies
        names = [name for policy in policies.policies for name in (*policy.match, *policy.scope)]
        names += [name for limit in policies.request_limits for name in limit.match]
        self._by_model = "model" in names or "provider_name" in names
        self._needed = tuple(dict.fromkeys(("model", *names)))
        self._scopes.clear()
        self.generation += 1

    def answered(self, model: str, response_model: str | None, provider_name: str | None) -> None:
        """By whom calls of `model` are answered: policies count by the model and provider of the answer."""
        said = (response_model, provider_name)
        if self._answered_as.get(model) != said and (len(self._answered_as) < _MOST_MODELS or model in self._answered_as):
            self._answered_as[model] = said
            if self._by_model:
                self.generation += 1

    def tick(self, now: float) -> None:
        """What time alone brings about."""
        for standing in self.standings.values():
            if now >= standing.until:
                standing.turn()
                self.generation += 1

    def forked(self, gate_id: str) -> None:
        """This is another gate now, that owes nothing. Until it is counted there is one more than was heard of."""
        self.gate_id, self.member = gate_id, False
        for standing in self.standings.values():
            standing.reset()
            standing.divide(self.gates + 1, False)
        self.generation += 1

    # what is asked

    def scope_of(self, fields: Mapping[str, Any]) -> Scope:
        """The scope of an event's fields; one for all calls that no policy tells apart."""
        values = tuple([field_of(fields, name) for name in self._needed])
        scope = self._scopes.get(values)
        if scope is None:
            if len(self._scopes) >= _MOST_SCOPES:
                self._scopes.clear()
            scope = Scope({name: value for name, value in zip(self._needed, values, strict=False) if value is not None})
            self._scopes[values] = scope
        return scope

    def resolve(self, scope: Scope) -> None:
        """Find what concerns a scope."""
        # First, so that what changes meanwhile has it resolved again.
        generation = self.generation
        scope.usual = self.usual_of(scope.model)
        fields = dict(scope.fields)
        model, provider = self._answered_as.get(scope.model or "", (None, None))
        fields["model"] = model or scope.model
        fields["provider_name"] = fields.get("provider_name") or provider
        limiting: list[Standing] = []
        alerting: list[Standing] = []
        for rule in self._rules:
            if matches(rule.policy.match, fields):
                standing = self._standing(rule, tuple(fields.get(name) for name in rule.policy.scope))
                if standing.limit is not None:
                    (limiting if rule.action is not None else alerting).append(standing)
        bounds = tuple(limit for limit in self._policies.request_limits if matches(limit.match, fields))
        scope.limiting, scope.alerting = tuple(limiting), tuple(alerting)
        scope.bounds = CallBounds(bounds) if bounds else None
        scope.stale_after_s = min((standing.rule.policy.stale_after for standing in limiting), default=INFINITE)
        scope.go = self._go(scope)
        scope.generation = generation

    def _go(self, scope: Scope) -> Decision:
        """What is said when nothing stands in the way."""
        if not self.heard:
            return Decision(allowed=True, reason="no policy was heard of yet", model=scope.model, stale=True)
        for standing in scope.limiting:
            if standing.state == "warn":
                return msgspec.structs.replace(standing.say("warn", standing.told()), model=scope.model)
        return Decision(allowed=True, model=scope.model)

    def _standing(self, rule: Rule, values: tuple[str | None, ...]) -> Standing:
        key = signal_key(rule.policy.name, values)
        standing = self.standings.get(key)
        if standing is None:
            if len(self.standings) >= _MOST_SCOPES:
                self._forget_idle()
            standing = self.standings[key] = Standing(rule, values)
            standing.divide(self.gates, self.member)
            word = self._words.pop(key, None)
            if word is not None:
                # A word says when it was said, so its age does not matter here.
                standing.news(decode_signal(word), self._clock.mono_of, self.heard_at)
        return standing

    def _forget_idle(self) -> None:
        """Forget standings that nothing hangs on; their last signals are kept as they came."""
        for key, standing in list(self.standings.items()):
            if not standing.calls and standing.quiet:
                del self.standings[key]
                if standing.signal is not None:
                    self._words[key] = msgspec.json.encode(standing.signal)
        self._scopes.clear()
        self.generation += 1

    def usual_of(self, model: str | None) -> Usual:
        """What calls of a model usually use."""
        usual = self._usual.get(model)
        if usual is None:
            if len(self._usual) >= _MOST_MODELS:
                self._usual.clear()
                self.generation += 1
            usual = self._usual[model] = Usual(self._prices.get(model or ""))
        return usual
