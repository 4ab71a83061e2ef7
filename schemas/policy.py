"""Policies: budgets, rate limits, breakers and SLAs are one thing — a measure of a scope over a window against a limit.

    match ─ which calls count       scope ─ one counter for each value of these fields
    measure over window ─ what is counted, and for how long          limit ─ how much is too much
    warn_at / actions ─ what happens at which share of the limit     hold, stale, owner, runbook ─ how it behaves

The file is YAML or TOML and read by `processors/policy_file.py`. A limit of 0 rejects everything; an absent limit is
unlimited. Money is written in dollars and kept as integer nano-dollars.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from .call import Identifier, Slug

NANO: Final = 1_000_000_000

# Fields of a call that a policy may match on and count by; `label.<key>` reads one label.
POLICY_FIELDS: Final = (
    "tenant",
    "team",
    "user",
    "service",
    "environment",
    "region",
    "provider_name",
    "model",
    "prompt_name",
    "prompt_version",
    "task_type",
)
_LABEL: Final = re.compile(r"label\.[A-Za-z0-9_.:/-]{1,64}\Z")

State = Literal["ok", "warn", "throttle", "downgrade", "block"]
# From harmless to harsh: where several policies speak, the harshest is obeyed.
SEVERITY: Final[dict[State, int]] = {"ok": 0, "warn": 1, "throttle": 2, "downgrade": 3, "block": 4}

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION: Final = re.compile(r"(\d{1,9})\s*(s|m|h|d)\Z")


def parse_duration(value: Any) -> Any:
    """Seconds from `90s`, `15m`, `24h`, `31d`, or a plain number of seconds."""
    if isinstance(value, str) and (found := _DURATION.match(value.strip())):
        return int(found[1]) * _UNITS_S[found[2]]
    if isinstance(value, str):
        raise ValueError("write a duration such as 30s, 15m, 24h or 31d")
    return value


Duration = Annotated[int, BeforeValidator(parse_duration)]


def _field_name(name: str) -> str:
    if name not in POLICY_FIELDS and not _LABEL.match(name):
        raise ValueError(f"unknown field {name!r}; choose from {', '.join(POLICY_FIELDS)} or label.<key>")
    return name


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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


Window = RollingWindow | CalendarWindow

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
# A rate over few calls says nothing.
_DEFAULT_MINIMUM: Final = 20


class Action(_Model):
    """What happens once the measure reaches `at` times the limit."""

    at: Annotated[float, Field(gt=0, le=100)] = 1.0
    do: Literal["alert", "throttle", "downgrade", "block"]
    model: Annotated[Identifier | None, Field(description="downgrade: the model to use instead")] = None
    per_minute: Annotated[float | None, Field(gt=0, description="throttle: calls a minute, over all gates")] = None
    probe_every: Annotated[
        Duration | None, Field(ge=1, description="block: let one call through this often, to see whether it is over")
    ] = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for name, owner in (("model", "downgrade"), ("per_minute", "throttle")):
            if (getattr(self, name) is not None) != (self.do == owner):
                raise ValueError(f"`{name}` belongs to the action {owner}, which needs it")
        if self.probe_every is not None and self.do != "block":
            raise ValueError("`probe_every` belongs to the action block")
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
    finding_type: Annotated[Slug | None, Field(description="findings, finding_rate: count this type only")] = None
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
        match = given.get("match")
        if isinstance(match, dict):
            given["match"] = {name: [value] if isinstance(value, str) else value for name, value in match.items()}
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
        for name, values in match.items():
            _field_name(name)
            if not values:
                raise ValueError(f"match of {name} is empty: it would match nothing; leave it out to match everything")
        return match

    @field_validator("warn_at", mode="after")
    @classmethod
    def _ascending(cls, steps: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted(set(steps)))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for row in self.limits:
            if set(row.scope) != set(self.scope):
                raise ValueError(
                    f"each row of `limits` must name exactly the scope fields: {', '.join(self.scope) or '(none)'}"
                )
        if self.limits and not self.scope:
            raise ValueError("`limits` by scope need `scope` fields")
        if self.limit is None and not self.limits:
            raise ValueError("has no limit; give `limit`, or `limits` by scope")
        if self.finding_type is not None and self.measure not in ("findings", "finding_rate"):
            raise ValueError("`finding_type` belongs to the measures findings and finding_rate")
        if self.measure in ("error_rate", "finding_rate"):
            for limit in (self.limit, *(row.limit for row in self.limits)):
                if limit is not None and limit > 1:
                    raise ValueError(f"a limit of {self.measure} is a share from 0 to 1, such as 0.25")
        return self

    @property
    def unit(self) -> int:
        """How many of the counted units make one of the limit's: money is counted in nano-dollars."""
        return NANO if self.measure == "cost_usd" else 1

    def limit_of(self, values: tuple[str | None, ...]) -> Decimal | None:
        """The limit of one scope, by its values in the order of `scope`; None is unlimited."""
        for row in self.limits:
            if all(row.scope[name] == value for name, value in zip(self.scope, values, strict=True)):
                return row.limit
        return self.limit


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
        match = given.get("match") if isinstance(given, dict) else None
        if isinstance(match, dict):
            given = {**given, "match": {name: [v] if isinstance(v, str) else v for name, v in match.items()}}
        return given

    @field_validator("match")
    @classmethod
    def _match_fields(cls, match: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name in match:
            _field_name(name)
        return match


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
