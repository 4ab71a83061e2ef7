"""Policies: budgets, rate limits, breakers and SLAs are one thing — a measure of a scope over a window against a limit.

    match ─ which calls count       scope ─ one counter for each value of these fields
    measure over window ─ what is counted, and for how long          limit ─ how much is too much
    warn_at / actions ─ what happens at which share of the limit     hold, stale, owner, runbook ─ how it behaves

The file is YAML or TOML and read by `processors/policy_file.py`. A limit of 0 rejects everything; an absent limit is
unlimited. Money is written in dollars and kept as integer nano-dollars.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from difflib import get_close_matches
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, Final, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from .call import SCOPE_FIELDS, Identifier, Slug

NANO: Final = 1_000_000_000

# A policy may match on these and count by them; `label.<key>` reads one label.
POLICY_FIELDS: Final = SCOPE_FIELDS
_LABEL: Final = re.compile(r"label\.[A-Za-z0-9_.:/-]{1,64}\Z")

State = Literal["ok", "warn", "throttle", "downgrade", "block"]
# From harmless to harsh: where several policies speak, the harshest is obeyed.
SEVERITY: Final[dict[State, int]] = {"ok": 0, "warn": 1, "throttle": 2, "downgrade": 3, "block": 4}

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION: Final = re.compile(r"(\d{1,9})\s*(s|m|h|d)\Z")


def parse_duration(value: Any) -> Any:
    """Seconds from `90s`, `15m`, `24h`, `31d`, or a plain number of seconds."""
    if isinstance(value, bool):
        raise ValueError("write a duration such as 30s, 15m, 24h or 31d")
    if isinstance(value, str) and (found := _DURATION.match(value.strip())):
        return int(found[1]) * _UNITS_S[found[2]]
    if isinstance(value, str):
        raise ValueError("write a duration such as 30s, 15m, 24h or 31d")
    return value


Duration = Annotated[int, BeforeValidator(parse_duration)]


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A known word that is spelt much like the given one, as the end of a sentence; else all of them to choose from."""
    known = tuple(known)
    close = get_close_matches(given.lower(), known, n=1)
    return f"did you mean {close[0]}?" if close else f"choose from {', '.join(known)}"


def _field_name(name: str) -> str:
    if name not in POLICY_FIELDS and not _LABEL.match(name):
        raise ValueError(f"unknown field {name!r}; {did_you_mean(name, (*POLICY_FIELDS, 'label.<key>'))}")
    return name


def _listed(match: Any) -> Any:
    """A single value where `match` takes a list."""
    if not isinstance(match, dict):
        return match
    return {name: [value] if isinstance(value, str) else value for name, value in match.items()}


def _checked_match(match: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The values of each field, each once and in order: how it is written makes no difference."""
    for name, values in match.items():
        _field_name(name)
        if not values:
            raise ValueError(f"match of {name} is empty: it would match nothing; leave it out to match everything")
    return {name: tuple(sorted(set(values))) for name, values in match.items()}


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, regex_engine="python-re")


class RollingWindow(_Model):
    """The last `rolling` seconds, 1 minute to 31 days, in 60 buckets: it may reach back one bucket further, never less."""

    rolling: Annotated[Duration, Field(ge=60, le=31 * 86_400)]

    @property
    def bucket_s(self) -> int:
        """Length of a bucket, seconds: a sixtieth of the window, rounded up."""
        return -(-self.rolling // 60)


class CalendarWindow(_Model):
    """The current hour, day, week (from Monday) or month in a named time zone; exact."""

    calendar: Literal["hour", "day", "week", "month"]
    time_zone: str = "UTC"

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"unknown time zone {name!r}; use a name such as America/New_York") from error
        return name


def _window_kind(given: Any) -> str | None:
    if isinstance(given, dict):
        kinds = [kind for kind in ("rolling", "calendar") if kind in given]
        return kinds[0] if len(kinds) == 1 else None
    if isinstance(given, RollingWindow):
        return "rolling"
    return "calendar" if isinstance(given, CalendarWindow) else None


Window = Annotated[
    Annotated[RollingWindow, Tag("rolling")] | Annotated[CalendarWindow, Tag("calendar")],
    Discriminator(
        _window_kind,
        custom_error_type="window",
        custom_error_message="a window is either `rolling: 24h`, or `calendar: day` with a `time_zone`",
    ),
]

Measure = Literal[
    "cost_usd",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "requests",
    "errors",
    "error_rate",
    "latency_p50_s",
    "latency_p95_s",
    "latency_p99_s",
    "findings",
    "finding_rate",
    "unpriced",
]
# Measures that add up, of which a gate can hold a lease. The others are judged, not spent.
ADDITIVE: Final = frozenset({"cost_usd", "input_tokens", "output_tokens", "total_tokens", "requests"})
RATES: Final = frozenset({"error_rate", "finding_rate"})
# What the guardrails say of calls, and not the calls themselves.
OF_VERDICTS: Final = frozenset({"findings", "finding_rate"})
QUANTILES: Final = frozenset({"latency_p50_s", "latency_p95_s", "latency_p99_s"})
# Beyond this a limit is a slip of the hand; in nano-dollars it still fits 63 bits.
_LARGEST_LIMIT: Final = 1_000_000_000_000
_LARGEST_LIMIT_USD: Final = 1_000_000_000
# A rate over few calls says nothing.
_DEFAULT_MINIMUM: Final = 20


class Action(_Model):
    """What happens once the measure reaches `at` times the limit."""

    at: Annotated[float, Field(gt=0, le=100)] = 1.0
    do: Literal["alert", "throttle", "downgrade", "block"]
    model: Annotated[Identifier | None, Field(description="downgrade: the model to use instead")] = None
    per_minute: Annotated[
        float | None, Field(gt=0, le=1_000_000_000, description="throttle: calls a minute, over all gates")
    ] = None
    probe_every: Annotated[
        Duration | None, Field(ge=1, description="block: let one call through this often, to see whether it is over")
    ] = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for name, owner in (("model", "downgrade"), ("per_minute", "throttle")):
            given = getattr(self, name) is not None
            if self.do == owner and not given:
                raise ValueError(f"the action {owner} needs `{name}`")
            if given and self.do != owner:
                raise ValueError(f"`{name}` belongs to the action {owner}, not to {self.do}")
        if self.probe_every is not None and self.do != "block":
            raise ValueError(f"`probe_every` belongs to the action block, not to {self.do}")
        return self


class ScopeLimit(_Model):
    """One row of a limit table: this limit for this scope."""

    scope: dict[str, Identifier]
    limit: Annotated[Decimal, Field(ge=0)] | None


class Policy(_Model):
    """One policy. `limit` is in the measure's unit: dollars, tokens, calls, a rate of 0 to 1, seconds."""

    name: Slug
    description: str | None = None
    match: dict[str, tuple[Identifier, ...]] = {}
    scope: tuple[str, ...] = ()
    measure: Measure
    finding_type: Annotated[
        Slug | None, Field(description="findings, finding_rate: only this type, what this detector found, or phi_leak")
    ] = None
    window: Window
    limit: Annotated[Decimal | None, Field(ge=0)] = None
    limits: tuple[ScopeLimit, ...] = ()
    warn_at: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.8,)
    actions: Annotated[tuple[Action, ...], Field(min_length=1)]
    minimum_requests: Annotated[int, Field(ge=1, description="rates and quantiles: judge only from this many calls on")] = (
        _DEFAULT_MINIMUM
    )
    hysteresis: Annotated[float, Field(ge=0, lt=1, description="how far below a step the measure must fall to leave it")] = 0.05
    hold: Annotated[Duration, Field(ge=0, le=86_400, description="how long a state lasts at least")] = 0
    stale: Annotated[Literal["open", "closed"], Field(description="what a gate does that has heard nothing")] = "open"
    stale_after: Annotated[Duration, Field(ge=1, le=86_400)] = 30
    lease_share: Annotated[float, Field(gt=0, le=1, description="share of what remains that all gates together may hold")] = 0.5
    owner: str | None = None
    runbook: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _shorthands(cls, given: Any) -> Any:
        """`action: block` for one action at the limit; a single value where `match` takes a list."""
        if not isinstance(given, dict):
            return given
        given = dict(given)
        if "action" in given:
            if "actions" in given:
                raise ValueError("give either `action` or `actions`, not both")
            action = given.pop("action")
            given["actions"] = [{"do": action} if isinstance(action, str) else action]
        if "match" in given:
            given["match"] = _listed(given["match"])
        return given

    @field_validator("scope")
    @classmethod
    def _scope_fields(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError("names a field twice")
        return tuple(_field_name(name) for name in names)

    @field_validator("match")
    @classmethod
    def _match_fields(cls, match: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        return _checked_match(match)

    @field_validator("warn_at", mode="after")
    @classmethod
    def _ascending(cls, steps: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted(set(steps)))

    @field_validator("actions", mode="after")
    @classmethod
    def _mild_to_harsh(cls, actions: tuple[Action, ...]) -> tuple[Action, ...]:
        """In the order in which they are reached. One that a harsher one always hides is a slip."""
        actions = tuple(sorted(actions, key=lambda action: action.at))
        acting = [action for action in actions if action.do != "alert"]
        for before, after in pairwise(acting):
            if before.at == after.at:
                raise ValueError(f"{before.do} and {after.do} are both at {before.at:g}; only one can be obeyed")
            if before.do == "block":
                raise ValueError(f"{after.do} at {after.at:g} comes after block at {before.at:g} and would never be heard")
            if SEVERITY[cls._state(before)] > SEVERITY[cls._state(after)]:
                raise ValueError(
                    f"{after.do} at {after.at:g} is milder than {before.do} at {before.at:g} and would never be heard"
                )
        return actions

    @staticmethod
    def _state(action: Action) -> State:
        return "warn" if action.do == "alert" else action.do

    @model_validator(mode="after")
    def _warns_before_it_acts(self) -> Self:
        first = next((action for action in self.actions if action.do != "alert"), None)
        if first is None:
            return self
        heard = tuple(step for step in self.warn_at if step <= first.at)
        if "warn_at" in self.model_fields_set and heard != self.warn_at:
            raise ValueError(
                f"`warn_at` {self.warn_at[-1]:g} comes after {first.do} at {first.at:g} and would never be heard; warn earlier"
            )
        object.__setattr__(self, "warn_at", heard)
        return self

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        if self.limits and not self.scope:
            raise ValueError("`limits` by scope need `scope` fields")
        seen = set()
        for row in self.limits:
            if set(row.scope) != set(self.scope):
                raise ValueError(
                    f"each row of `limits` must name exactly the scope fields: {', '.join(self.scope) or '(none)'}"
                )
            values = tuple(row.scope[name] for name in self.scope)
            spelled = ", ".join(f"{name}={row.scope[name]}" for name in self.scope)
            if values in seen:
                raise ValueError(f"two rows of `limits` speak of {spelled}; keep one")
            seen.add(values)
            for name, value in row.scope.items():
                if value not in self.match.get(name, (value,)):
                    raise ValueError(f"the row of `limits` for {spelled} is never used: `match` lets no {name}={value} in")
        limits = [limit for limit in (self.limit, *(row.limit for row in self.limits)) if limit is not None]
        if not limits:
            raise ValueError("has no limit; give `limit`, or `limits` by scope")
        for limit in limits:
            self._check_limit(limit)
        return self

    def _check_limit(self, limit: Decimal) -> None:
        exponent = limit.normalize().as_tuple().exponent
        decimals = -exponent if isinstance(exponent, int) else 0
        if self.measure in RATES:
            if limit > 1:
                raise ValueError(f"a limit of {self.measure} is a share from 0 to 1, such as 0.25")
            for action in self.actions:
                if action.at * float(limit) > 1:
                    raise ValueError(f"{action.do} at {action.at:g} × {limit} is more than everything; it is never reached")
        elif self.measure == "cost_usd":
            if decimals > 9:
                raise ValueError("a limit in dollars has at most nine decimals; money is counted in nano-dollars")
        elif self.measure not in QUANTILES and decimals > 0:
            raise ValueError(f"a limit of {self.measure} is a whole number")
        largest = _LARGEST_LIMIT_USD if self.measure == "cost_usd" else _LARGEST_LIMIT
        if limit > largest:
            raise ValueError(f"a limit above {largest:,} is none; leave it out, or write null")
        if limit == 0 and self.measure not in ADDITIVE:
            least = (
                "1 speaks up at the first" if self.measure in ("errors", "findings", "unpriced") else "give a number above 0"
            )
            raise ValueError(f"a limit of 0 for {self.measure} is always reached, even with no calls; {least}")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.measure in OF_VERDICTS:
            for name in (*self.scope, *self.match):
                if name.startswith("label."):
                    raise ValueError(f"{self.measure} cannot go by {name}: a verdict does not know the labels of its call")
        elif self.finding_type is not None:
            raise ValueError("`finding_type` belongs to the measures findings and finding_rate")
        for action in self.actions:
            if action.model is not None and action.model in self.match.get("model", ()):
                raise ValueError(f"downgrade to {action.model} leads back into the models that `match` watches; use another")
            if action.do == "block" and action.probe_every is None and self.measure in QUANTILES:
                raise ValueError(
                    f"block on {self.measure} needs `probe_every`: while nothing gets through, nothing shows that it is over"
                )
        return self

    @property
    def unit(self) -> int:
        """How many of the counted units make one of the limit's: money is counted in nano-dollars."""
        return NANO if self.measure == "cost_usd" else 1

    def limit_of(self, values: tuple[str | None, ...]) -> Decimal | None:
        """The limit of one scope, by its values in the order of `scope`; None is unlimited."""
        return self._limit_table.get(values, self.limit)

    @cached_property
    def _limit_table(self) -> dict[tuple[str | None, ...], Decimal | None]:
        # Asked for on every judgement, and a table may have a row for each of ten thousand users.
        return {tuple(row.scope[name] for name in self.scope): row.limit for row in self.limits}


class RequestLimit(_Model):
    """Bounds on a single call, for the calls it matches. What a gate refuses before any money is spent."""

    name: Slug
    match: dict[str, tuple[Identifier, ...]] = {}
    max_input_tokens: Annotated[int | None, Field(ge=0)] = None
    max_output_tokens: Annotated[int | None, Field(ge=0)] = None
    owner: str | None = None
    runbook: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _shorthands(cls, given: Any) -> Any:
        if isinstance(given, dict) and "match" in given:
            given = {**given, "match": _listed(given["match"])}
        return given

    @field_validator("match")
    @classmethod
    def _match_fields(cls, match: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        return _checked_match(match)

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if self.max_input_tokens is None and self.max_output_tokens is None:
            raise ValueError("bounds nothing; give `max_input_tokens`, `max_output_tokens` or both")
        return self


class PolicySet(_Model):
    """A policy file. `version` is the first twelve digits of the SHA-256 of what it says, however it is written."""

    policies: tuple[Policy, ...] = ()
    request_limits: tuple[RequestLimit, ...] = ()
    version: str = ""

    @model_validator(mode="after")
    def _unique(self) -> Self:
        names = [policy.name for policy in self.policies] + [limit.name for limit in self.request_limits]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two policies are called {name!r}; a name says which one spoke")
        return self
