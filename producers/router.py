"""Which model a task needs: the cheapest that is capable of it, large enough for it, and let through by the gate.

    task type ─► capability needed ┐
    complexity ────────────────────┴─► models that have it, and room ─ by price ─► the first whose gate is open ─► Choice
                                                                                        └─ downgraded: the one it names

Models, prices and the table of tasks are the caller's, from a TOML file or a mapping:

    otherwise = 3                       # what a task needs that is not in the table; else the most there is
    [tasks]
    triage = 2
    [[models]]
    provider = "openai"
    model = "gpt-4o-mini"
    capability = 1                      # 1 is the least
    input_usd = 0.15                    # per million tokens; without a price a model comes after all that have one
    output_usd = 0.60
    context_tokens = 128_000
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..schemas.call import Identifier
from ..schemas.errors import GateClosed, UsageError
from ..schemas.provider_usage import canonical_provider
from .course import all_closed
from .decision import Decision, Estimate
from .fallback import Candidate

if TYPE_CHECKING:
    from .gate import Gate

_MILLION: Final = 1_000_000
# Prices are compared for such a call where the caller says nothing: four times as much in as out, as most prompts are.
_USUAL_INPUT: Final = 1_000
_USUAL_OUTPUT: Final = 250

# Dollars per million tokens; a float is taken for what it prints as, so 0.15 is 0.15.
Usd = Annotated[Decimal, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
Level = Annotated[int, Field(ge=1, le=1_000)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, regex_engine="python-re")


class Model(_Model):
    """A model to choose from. Prices are dollars per million tokens; `context_tokens` bounds input and output together."""

    provider: Identifier
    model: Identifier
    capability: Level
    input_usd: Usd | None = None
    output_usd: Usd | None = None
    context_tokens: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _both_prices(self) -> Self:
        if (self.input_usd is None) != (self.output_usd is None):
            raise ValueError("give input_usd and output_usd, or neither: half a price cannot be compared")
        return self

    def cost_usd(self, input_tokens: int, output_tokens: int) -> Decimal | None:
        """What such a call costs, exact; None without a price."""
        if self.input_usd is None or self.output_usd is None:
            return None
        return (self.input_usd * input_tokens + self.output_usd * output_tokens) / _MILLION

    def __str__(self) -> str:
        return f"{self.provider} {self.model}"


class _Tiers(_Model):
    models: Annotated[tuple[Model, ...], Field(min_length=1)]
    tasks: dict[Identifier, Level] = {}
    otherwise: Level | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        names = [(canonical_provider(model.provider), model.model) for model in self.models]
        if twins := {f"{provider} {model}" for provider, model in names if names.count((provider, model)) > 1}:
            raise ValueError(f"{', '.join(sorted(twins))} is there twice")
        most = max(model.capability for model in self.models)
        wanting = {**self.tasks, "otherwise": self.otherwise or 1}
        if beyond := [task for task, level in wanting.items() if level > most]:
            raise ValueError(f"{', '.join(beyond)}: no model has more than capability {most}")
        return self


@dataclass(frozen=True, slots=True)
class Choice:
    """A model for a task, and why. `cost_usd` is expected, by the caller's prices; None without one. `decision` is what the
    gate said of it; None without a gate."""

    provider: str
    model: str
    reason: str
    cost_usd: Decimal | None = None
    decision: Decision | None = None


class Router:
    """Chooses models by need and price. Immutable, so threads share it. Choosing takes nothing from a gate: the call does.

    `models` are `Model`s or mappings of their fields, `tasks` the capability that a task type needs, `otherwise` what a task
    needs that is in no table (default: the most there is). Raises `UsageError` when they make no sense.
    """

    def __init__(
        self,
        models: Any,
        *,
        tasks: Mapping[str, int] | None = None,
        otherwise: int | None = None,
        gate: Gate | None = None,
    ) -> None:
        given = [model.model_dump() if isinstance(model, Model) else model for model in models]
        self._take({"models": given, "tasks": dict(tasks or {}), "otherwise": otherwise}, "router", gate)

    @classmethod
    def read(cls, path: Path, *, gate: Gate | None = None) -> Self:
        """The router that a TOML file describes. Raises `UsageError` naming the file and what is wrong."""
        try:
            given = tomllib.loads(path.read_text("utf-8"), parse_float=Decimal)
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror}); check the path") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: {error}; correct the syntax") from error
        router = cls.__new__(cls)
        router._take(given, str(path), gate)
        return router

    def _take(self, given: Any, where: str, gate: Gate | None) -> None:
        try:
            tiers = _Tiers.model_validate(given)
        except ValidationError as error:
            told = "; ".join(
                f"{'.'.join(map(str, problem['loc'])) or 'models'}: {problem['msg'].removeprefix('Value error, ')}"
                for problem in error.errors(include_url=False)
            )
            raise UsageError(f"{where}: {told}") from error
        self.models = tiers.models
        self.tasks: Mapping[str, int] = tiers.tasks
        self.most = max(model.capability for model in tiers.models)
        self.otherwise = tiers.otherwise or self.most
        self.gate = gate

    def choose(
        self,
        *,
        task_type: str | None = None,
        complexity: int | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        scope: Mapping[str, str | None] | None = None,
    ) -> Choice:
        """The cheapest capable model that the gate lets go for calls of `scope` (`tenant`, `team`, … as for `tide.call`).

        The harder of task type and complexity (a capability) decides. Tokens unknown are taken to be 1,000 in and 250 out
        for comparing prices, and for nothing else. What a policy downgrades to is obeyed, capable or not. Raises
        `GateClosed` when every capable model is closed, and `UsageError` when there is none.
        """
        needed, why = self._needed(task_type, complexity)
        found = self._capable(needed, input_tokens, output_tokens)
        if not found:
            size = "" if input_tokens is None else f" with room for {input_tokens + (output_tokens or 0):,} tokens"
            raise UsageError(f"no model of capability {needed} ({why}){size}; the most there is is {self.most}")
        passed: list[str] = []
        closures: list[tuple[str, GateClosed]] = []
        for model, cost_usd in found:
            decision = self._ask(model, scope, task_type, input_tokens, output_tokens)
            if decision is not None and not decision.allowed:
                closures.append((str(model), decision.closed()))
                passed.append(f"{model} is closed: {decision.reason}")
                continue
            reason = f"cheapest of {len(found)} for {why}" if not passed else f"cheapest open one of {len(found)} for {why}"
            reason += f", {_price_text(cost_usd)}"
            if decision is not None and decision.model not in (None, model.model):
                return self._downgraded(model, decision, [reason, *passed], input_tokens, output_tokens)
            return Choice(model.provider, model.model, "; ".join([reason, *passed]), cost_usd, decision)
        raise all_closed(closures)

    def chain(
        self,
        *,
        task_type: str | None = None,
        complexity: int | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
    ) -> list[Candidate]:
        """All capable models, cheapest first: a chain for `Fallback`, which asks the gate itself."""
        needed, _ = self._needed(task_type, complexity)
        return [Candidate(model.provider, model.model) for model, _ in self._capable(needed, input_tokens, output_tokens)]

    def _needed(self, task_type: str | None, complexity: int | None) -> tuple[int, str]:
        """The capability that a task needs, and in words why."""
        by_task = self.tasks.get(task_type or "")
        if by_task is None and complexity is None:
            what = "a task of no type" if task_type is None else f"{task_type}, which is not in the table"
            return self.otherwise, f"{what} (capability {self.otherwise})"
        if complexity is not None and complexity >= (by_task or 0):
            return complexity, f"complexity {complexity}"
        return by_task or 0, f"{task_type} (capability {by_task})"

    def _capable(self, needed: int, input_tokens: int | None, output_tokens: int | None) -> list[tuple[Model, Decimal | None]]:
        """Models that have what is needed, and room, cheapest first; of equal ones the more capable, then as declared."""
        room = None if input_tokens is None else input_tokens + (output_tokens or 0)
        found = [
            (model, _cost(model, input_tokens, output_tokens))
            for model in self.models
            if model.capability >= needed and (room is None or model.context_tokens is None or room <= model.context_tokens)
        ]
        return sorted(found, key=lambda pair: (pair[1] is None, pair[1] or Decimal(0), -pair[0].capability))

    def _ask(
        self,
        model: Model,
        scope: Mapping[str, str | None] | None,
        task_type: str | None,
        input_tokens: int | None,
        output_tokens: int | None,
    ) -> Decision | None:
        if self.gate is None:
            return None
        fields = {"task_type": task_type, **(scope or {})}
        fields |= {"provider_name": canonical_provider(model.provider), "model": model.model}
        known = input_tokens is not None or output_tokens is not None
        return self.gate.check(fields, estimate=Estimate(input_tokens, output_tokens) if known else None)

    def _downgraded(
        self, model: Model, decision: Decision, said: list[str], input_tokens: int | None, output_tokens: int | None
    ) -> Choice:
        """What a policy names instead, of its own provider if that is declared."""
        name = decision.model or model.model
        homes = sorted((home for home in self.models if home.model == name), key=lambda home: home.provider != model.provider)
        cost_usd = _cost(homes[0], input_tokens, output_tokens) if homes else None
        said.append(f"{decision.policy} downgrades {model.model} to {name}: {decision.reason}")
        return Choice(homes[0].provider if homes else model.provider, name, "; ".join(said), cost_usd, decision)


def _cost(model: Model, input_tokens: int | None, output_tokens: int | None) -> Decimal | None:
    return model.cost_usd(
        _USUAL_INPUT if input_tokens is None else input_tokens, _USUAL_OUTPUT if output_tokens is None else output_tokens
    )


def _price_text(cost_usd: Decimal | None) -> str:
    return "of unknown price" if cost_usd is None else f"${cost_usd.normalize():f} a call"
