"""How one policy stands towards one scope, as a gate knows it: the last signal, the lease, and what follows for a call.

    Rule      a policy made ready: whom it concerns, and its hardest action
    Standing  a Rule for one scope: what it was told, what is outstanding, what it answers

A lease is held of the ceiling of the hardest action, that is of `at × limit`; the milder ones come into force when a
signal says so. When the lease is used up a blocking policy makes calls wait for news, then refuses them; one that
throttles or downgrades at most does that.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from ..schemas.policy import ADDITIVE, SEVERITY, Action, Policy, RequestLimit, State
from ..schemas.signal import Signal
from ..schemas.words import measure_text, window_text
from .decision import NOTHING, PLACES, Decision, Estimate
from .leases import INFINITE, Lease

# News of a hot scope comes four times a second; a lease that is used up is looked at again a little more often.
NEWS_S: Final = 0.1

_LIMITS: Final = {"throttle": 2, "downgrade": 3, "block": 4}


def matches(match: Mapping[str, tuple[str, ...]], fields: Mapping[str, str | None]) -> bool:
    """Whether a call is meant."""
    return all(fields.get(name) in values for name, values in match.items())


class Rule:
    """A policy made ready for a gate."""

    __slots__ = ("action", "counts", "place", "policy", "window")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        limiting = [action for action in policy.actions if action.do in _LIMITS]
        self.action: Action | None = max(limiting, key=lambda action: (_LIMITS[action.do], -action.at), default=None)
        self.place = PLACES[policy.measure] if policy.measure in ADDITIVE else NOTHING
        # What is counted, and for whom.
        self.counts = (policy.measure, policy.finding_type, policy.window, policy.scope, policy.match)
        self.window = window_text(policy)


class Standing(Lease):
    """A rule for one scope. Not thread-safe: the gate's lock guards it. Times are monotonic seconds."""

    __slots__ = (
        "_probe_at",
        "_tokens",
        "_tokens_at",
        "limit",
        "member",
        "place_of",
        "rule",
        "signal",
        "state",
        "unsure",
        "until",
        "values",
        "verdict",
    )

    def __init__(self, rule: Rule, values: tuple[str | None, ...]) -> None:
        self.rule = rule
        self.values = values
        self.place_of = rule.place
        self.signal: Signal | None = None
        self.state: State = "ok"
        self.limit: float | None = None
        self.until = INFINITE  # when the window starts anew
        self.unsure = False  # what is spent is not known: a block is over by the clock alone
        self.member = False
        self.verdict: Decision | None = None
        self._tokens = 1.0
        self._tokens_at = -INFINITE
        self._probe_at = -INFINITE
        super().__init__(None, rule.policy.lease_share)
        self.obey(rule)

    # what is heard

    def obey(self, rule: Rule) -> None:
        """A policy set is in force: what it says of this scope."""
        policy = rule.policy
        limit = policy.limit_of(self.values)
        self.rule, self.place_of = rule, rule.place
        self.limit = None if limit is None else float(limit) * policy.unit
        self.share = policy.lease_share
        at = rule.action.at if rule.action else 1.0
        self.ceiling = None if self.limit is None or rule.place == NOTHING else self.limit * at
        self._conclude()

    def news(self, signal: Signal, mono_of: Callable[[float], float], now: float) -> bool:
        """Take in a signal; False when it is an old one. Signals are numbered, and a policies step that has lost count
        goes on with later times."""
        last = self.signal
        if last is not None and signal.sequence <= last.sequence and signal.at <= last.at:
            return False
        if signal.state == "block" and (last is None or last.state != "block"):
            self._probe_at = now + (signal.probe_every_s or 0.0)
        self.signal = signal
        self.unsure = False
        self.until = INFINITE if signal.resets_at is None else mono_of(signal.resets_at)
        self.count_in(signal.applied)
        self.spend, self.reserved, self.share = signal.spend, signal.reserved, signal.lease_share
        self._conclude()
        return True

    def divide(self, gates: int, member: bool) -> None:
        """So many gates are live, and this one is among them or not."""
        self.gates = max(1, gates, self.signal.gates if self.signal else 1)
        self.member = member
        self._conclude()

    def taken_back(self) -> None:
        """The policy has nothing more to say of this scope."""
        self.signal = None
        self.until = INFINITE
        self.unsure = False
        self.spend = self.reserved = 0
        self._conclude()

    def turn(self) -> None:
        """The window starts anew: nothing of it is spent. A block stays half shut, with the one-call rule, until the
        policies step has said the same: the clocks it was reckoned by may differ."""
        self.unsure = self.state == "block"
        self.signal = None
        self.until = INFINITE
        self.spend = self.reserved = 0
        self._conclude()

    def _conclude(self) -> None:
        said = self.signal.state if self.signal is not None else "ok"
        if self.limit is None:
            said = "ok"
        elif self.limit == 0 and self.rule.action is not None and self.rule.action.do != "alert":
            said = self.rule.action.do  # a limit of zero is always reached, and nobody need say so
        self.state = said
        self.alone = self.unsure or (self.ceiling is not None and not self.member)
        self.quiet = SEVERITY[said] <= SEVERITY["warn"]
        self.verdict = None
        self.update()

    # what is answered

    def judge(self, amount: float, now: float, silent_s: float) -> Decision | None:
        """What stands in the way of a call of this amount, or how it must go; None for nothing.

        `silent_s` is how long nothing was heard at all.
        """
        if now >= self.until:
            self.turn()
        policy, state = self.rule.policy, self.state
        if state == "block" and (self.until < INFINITE or self.limit == 0):
            return self._block(now)  # known, and until when; silence changes nothing about it
        if silent_s > policy.stale_after:
            if policy.stale == "open":
                return self.say("ok", f"nothing was heard for {silent_s:.0f} s; this policy lets calls go then", stale=True)
            reason = f"nothing was heard for {silent_s:.0f} s; this policy holds calls back then"
            return self.say("block", reason, stale=True, retry_after_s=NEWS_S)
        if state == "block":
            return self._block(now)
        if state in ("downgrade", "throttle"):
            return self._soften(state, now)
        if not self.admits(amount):
            return self._used_up(amount, now)
        if state == "warn":
            if self.verdict is None:
                self.verdict = self.say("warn", self.signal.reason if self.signal else "")
            return self.verdict
        return None

    def _block(self, now: float) -> Decision:
        every = self.signal.probe_every_s if self.signal else None
        if every is not None and self.limit != 0:
            if now >= self._probe_at:
                return self.say("block", "one call goes through to see whether it is over", allowed=True)
            return self.say("block", self.told(), retry_after_s=self._probe_at - now)
        return self.say("block", self.told())

    def _soften(self, state: State, now: float) -> Decision:
        if state == "downgrade":
            return self.say("downgrade", self.told(), allowed=True, model=self._model())
        wait_s = self._wait_s(now)
        if wait_s > 0:
            return self.say("throttle", f"{self.told()}; {self._per_minute():g} calls a minute go", retry_after_s=wait_s)
        return self.say("throttle", self.told(), allowed=True)

    def _used_up(self, amount: float, now: float) -> Decision:
        """The lease is used up, or all of the limit is."""
        action = self.rule.action
        if action is not None and action.do in ("downgrade", "throttle"):
            return self._soften(action.do, now)
        if self.left <= 0:
            return self.say("block", self.told())
        if not self.calls and not self.unknown:  # even alone it is too large for what remains
            return self.say("block", f"{self.told()}; this call would use {self.amount_text(amount)}, more than remains")
        reason = f"{self.told()}; {self.amount_text(self.outstanding)} of this gate's calls are not counted yet"
        return self.say("block", reason, retry_after_s=NEWS_S)

    def go(self, amount: float, now: float) -> None:
        """A call of this amount that `judge` let go is going: use up what a throttle or a probe allows one call."""
        if self.state == "block":
            every = self.signal.probe_every_s if self.signal else None
            self._probe_at = now + (every or 0.0)
        elif self._throttles(amount):
            self._refill(now)
            self._tokens -= 1

    def say(
        self,
        state: State,
        reason: str,
        *,
        allowed: bool | None = None,
        model: str | None = None,
        retry_after_s: float | None = None,
        stale: bool = False,
    ) -> Decision:
        """A decision in this policy's name."""
        policy, signal = self.rule.policy, self.signal
        return Decision(
            allowed=SEVERITY[state] < SEVERITY["throttle"] if allowed is None else allowed,
            state=state,
            policy=policy.name,
            reason=reason if reason.startswith(policy.name) else f"{policy.name}: {reason}",
            model=model,
            scope=dict(zip(policy.scope, self.values, strict=True)),
            measure=policy.measure,
            spend=self.spend if signal is not None or self.place_of != NOTHING else None,
            limit=self.limit,
            remaining=None if self.limit is None or self.place_of == NOTHING else max(0.0, self.limit - self.spend),
            window=self.rule.window,
            resets_at=signal.resets_at if signal else None,
            retry_after_s=retry_after_s,
            contributors=signal.contributors if signal else [],
            stale=stale,
            owner=policy.owner,
            runbook=policy.runbook,
        )

    def explain(self, amount: float, now: float, silent_s: float) -> dict[str, Any]:
        """What it says to a call of this amount, as a decision, and how it stands with the lease."""
        verdict = None if self.rule.action is None else self.judge(amount, now, silent_s)
        said = (verdict or self.say(self.state, self.told())).as_dict()
        lease = {"lease": None if math.isinf(self.room) else self.room, "gates": self.gates}
        return said | lease | {"outstanding": self.outstanding, "outstanding_calls": self.calls}

    def amount_text(self, amount: float) -> str:
        """An amount as a person writes it."""
        if not math.isfinite(amount):
            return "an unknown amount"
        return measure_text(self.rule.policy, amount)

    def told(self) -> str:
        """What the policy says, in its own words if it has spoken."""
        if self.signal is not None:
            return self.signal.reason
        if self.limit == 0:
            return "its limit is zero"
        limit = "" if self.limit is None else f", limit {self.amount_text(self.limit)}"
        return f"{self.amount_text(self.spend)} in {self.rule.window}{limit}"

    # throttle: a bucket of at most one second's calls, refilled at this gate's part of `per_minute`

    def _throttles(self, amount: float) -> bool:
        if self.state == "throttle":
            return True
        action = self.rule.action
        return action is not None and action.do == "throttle" and amount > self.margin and not self.admits(amount)

    def _per_minute(self) -> float:
        if self.state == "throttle" and self.signal is not None and self.signal.per_minute is not None:
            return self.signal.per_minute
        action = self.rule.action
        return action.per_minute or INFINITE if action is not None else INFINITE

    def _model(self) -> str | None:
        if self.state == "downgrade" and self.signal is not None and self.signal.model is not None:
            return self.signal.model
        return self.rule.action.model if self.rule.action is not None else None

    def _rate(self) -> float:
        return self._per_minute() / self.gates / 60.0

    def _refill(self, now: float) -> None:
        most = max(1.0, self._rate())
        waited = now - self._tokens_at
        self._tokens = most if waited == INFINITE else min(most, self._tokens + waited * self._rate())
        self._tokens_at = now

    def _wait_s(self, now: float) -> float:
        """How long until the bucket has a call."""
        self._refill(now)
        # Sums of thousandths are not exact; without the allowance a waiter would come back a nanosecond too early.
        return 0.0 if self._tokens >= 1.0 - 1e-9 else (1.0 - self._tokens) / self._rate()


class CallBounds:
    """Bounds on a single call, of the request limits that concern it."""

    __slots__ = ("limits",)

    def __init__(self, limits: tuple[RequestLimit, ...]) -> None:
        self.limits = limits

    def refuse(self, estimate: Estimate) -> Decision | None:
        """Why a call of this size may not go; None when it may."""
        made = estimate.max_tokens if estimate.output_tokens is None else estimate.output_tokens
        for limit in self.limits:
            for tokens, most, what in (
                (estimate.input_tokens, limit.max_input_tokens, "input"),
                (made, limit.max_output_tokens, "output"),
            ):
                if most is not None and tokens is not None and tokens > most:
                    return Decision(
                        allowed=False,
                        state="block",
                        policy=limit.name,
                        reason=f"{limit.name}: {tokens:,} {what} tokens expected, at most {most:,} are allowed for one call",
                        measure=f"{what}_tokens",
                        spend=tokens,
                        limit=most,
                        window="one call",
                        owner=limit.owner,
                        runbook=limit.runbook,
                    )
        return None


def jittered(wait_s: float, uniform: Callable[[float, float], float] = random.uniform) -> float:
    """A wait of about this long, so that waiters do not come back as one."""
    return wait_s * uniform(0.75, 1.5)
