"""The operator's price file: models the book does not know, contracts, discounts. TOML or YAML, dated, exact.

    [[models]]          a price of our own            provider? model   from?  rates
    [[tenants]]         a contract or a discount      provider? model?  from?  tenant  rates | multiplier
    [[service_tiers]]   what a tier costs             provider? model?  from?  tier    multiplier

The most specific entry wins (exact model, then the longest prefix, then a named provider), among equals the latest whose
`from` has come. Past prices stay true: a change is a new entry with a later `from`, never an edit.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Final, Self, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..schemas.errors import UsageError
from ..schemas.provider_usage import canonical_provider

# Sixteen times the dearest model of the book; with a thousand million tokens and the multiplier still below 2**63 nano-dollars.
_DEAREST_USD_PER_MTOK: Final = 10_000
_LARGEST_MULTIPLIER: Final = 10
_DECIMALS: Final = 12


def _exact(value: Any) -> Decimal:
    """A decimal from text or an exact number; a binary float has already lost the price that was meant."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ValueError('write it as a decimal, such as "2.50"')
    try:
        number = Decimal(value.strip() if isinstance(value, str) else value)
    except InvalidOperation:
        raise ValueError('write it as a decimal, such as "2.50"') from None
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int):
        raise ValueError("must be a finite number")
    if -exponent > _DECIMALS:
        raise ValueError(f"has more than {_DECIMALS} decimals; round it")
    return number


Usd = Annotated[Decimal, BeforeValidator(_exact), Field(ge=0, le=_DEAREST_USD_PER_MTOK)]
Multiplier = Annotated[Decimal, BeforeValidator(_exact), Field(ge=0, le=_LARGEST_MULTIPLIER)]
Text = Annotated[str, Field(min_length=1, max_length=128)]


class _Entry(BaseModel):
    """What every entry can be limited by: a provider, a model (a trailing `*` makes it a prefix), a first day (UTC)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=False)

    provider: Text | None = None
    model: Text | None = None
    from_: Annotated[date | None, Field(alias="from")] = None

    @field_validator("from_", mode="before")
    @classmethod
    def _day(cls, value: Any) -> Any:
        if isinstance(value, str):
            try:
                return date.fromisoformat(value)
            except ValueError:
                raise ValueError("write it as a day, such as 2026-01-31") from None
        if isinstance(value, datetime):
            raise ValueError("write it as a day, such as 2026-01-31; it begins at midnight UTC")
        return value

    @field_validator("provider")
    @classmethod
    def _known_spelling(cls, value: str | None) -> str | None:
        return None if value is None else canonical_provider(value)

    @field_validator("model")
    @classmethod
    def _lower(cls, value: str | None) -> str | None:
        if value is not None and ("*" in value[:-1] or value == "*"):
            raise ValueError("a * may only end a prefix, such as clinic-llama-*; leave the key out to match every model")
        return None if value is None else value.lower()

    @property
    def starts_at(self) -> datetime | None:
        return None if self.from_ is None else datetime(self.from_.year, self.from_.month, self.from_.day, tzinfo=UTC)

    def concerns(self, provider: str | None, model: str) -> bool:
        """Whether it speaks of this model (lower-case) of this provider (canonical), on whatever day."""
        if self.provider is not None and self.provider != provider:
            return False
        if self.model is None or self.model == model:
            return True
        return self.model.endswith("*") and model.startswith(self.model[:-1])

    def rank(self) -> tuple[bool, int, bool, date]:
        exact = self.model is not None and not self.model.endswith("*")
        return exact, len(self.model or ""), self.provider is not None, self.from_ or date.min


class Rates(_Entry):
    """USD per million tokens, and `per_request` in USD a call.

    A kind left out costs what holds it: cached reads and audio cost `input`, reasoning and spoken audio `output`, cached
    audio `input_audio`. Cache writes left out cost 1.25 × `input` for five minutes and 2 × for an hour, as Anthropic does.
    """

    input: Usd | None = None
    output: Usd | None = None
    cache_read: Usd | None = None
    cache_write_5m: Usd | None = None
    cache_write_1h: Usd | None = None
    reasoning: Usd | None = None
    input_audio: Usd | None = None
    output_audio: Usd | None = None
    cache_audio_read: Usd | None = None
    per_request: Usd | None = None

    def stated(self) -> dict[str, Decimal]:
        return {name: value for name in RATE_KEYS if (value := getattr(self, name)) is not None}

    def _check_rates(self, where: str) -> None:
        stated = self.stated()
        if "input" not in stated:
            raise ValueError(f'{where} needs input = "…", in USD per million tokens ("0" if it is free)')
        if "output" not in stated and stated.keys() & {"reasoning", "output_audio"}:
            raise ValueError(f'{where} needs output = "…" beside reasoning or output_audio')
        if "cache_audio_read" in stated and not stated.keys() >= {"input_audio", "cache_read"}:
            raise ValueError(f'{where} needs input_audio = "…" and cache_read = "…" beside cache_audio_read')


RATE_KEYS: Final = tuple(name for name in Rates.model_fields if name not in _Entry.model_fields)


class ModelEntry(Rates):
    model: Text

    @model_validator(mode="after")
    def _complete(self) -> Self:
        self._check_rates("a model")
        return self


class TenantEntry(Rates):
    """Either a multiplier on whatever the model costs, or rates of its own, which nothing but a service tier changes."""

    tenant: Text
    multiplier: Multiplier | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.multiplier is None:
            if self.model is None:
                raise ValueError('a tenant needs either multiplier = "…" or model = "…" with rates of its own')
            self._check_rates("a tenant's own price")
        elif self.stated():
            raise ValueError("a tenant has either a multiplier or rates of its own, not both: make it two entries")
        return self


class ServiceTierEntry(_Entry):
    tier: Annotated[str, Field(min_length=1, max_length=64)]
    multiplier: Multiplier

    @field_validator("tier")
    @classmethod
    def _lower_tier(cls, value: str) -> str:
        return value.lower()


class PriceFile(BaseModel):
    """All entries of one file. `sha256` is of the file's bytes: what a priced row names as its price book."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: tuple[ModelEntry, ...] = ()
    tenants: tuple[TenantEntry, ...] = ()
    service_tiers: tuple[ServiceTierEntry, ...] = ()
    sha256: Annotated[str, Field(exclude=True)] = ""

    @field_validator("models", "tenants", "service_tiers")
    @classmethod
    def _no_twins(cls, entries: tuple[Any, ...]) -> tuple[Any, ...]:
        seen: dict[tuple[object, ...], int] = {}
        for index, entry in enumerate(entries):
            own_rates = getattr(entry, "multiplier", None) is None
            key = (entry.provider, entry.model, entry.from_, getattr(entry, "tenant", getattr(entry, "tier", None)), own_rates)
            if key in seen:
                raise ValueError(
                    f"entries {seen[key]} and {index} speak of the same from the same day: give one a later `from`"
                )
            seen[key] = index
        return entries

    @classmethod
    def read(cls, path: Path) -> PriceFile:
        """Read and check a file. Raises `UsageError` naming the file, the key and what to do."""
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror}); check the path of the price file") from error
        try:
            data = _parse(path, raw)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UsageError(f"{path}: {str(error).replace(chr(10), ' ')}; correct the syntax") from error
        if not isinstance(data, dict):
            raise UsageError(f"{path}: must hold the lists `models`, `tenants` and `service_tiers`")
        try:
            return cls.model_validate({**data, "sha256": hashlib.sha256(raw).hexdigest()})
        except ValidationError as error:
            raise UsageError("\n".join(f"{path}: {_explained(problem)}" for problem in error.errors())) from error


EntryT = TypeVar("EntryT", bound=_Entry)


def latest(entries: Iterable[EntryT], at: datetime) -> EntryT | None:
    """The most specific of these entries in force at `at`."""
    in_force = (entry for entry in entries if entry.starts_at is None or entry.starts_at <= at)
    return max(in_force, key=lambda entry: entry.rank(), default=None)


def _parse(path: Path, raw: bytes) -> Any:
    if path.suffix == ".toml":
        return tomllib.loads(raw.decode(), parse_float=Decimal)
    if path.suffix in (".yaml", ".yml"):
        return yaml.load(raw, Loader=_ExactLoader) or {}  # noqa: S506 — a SafeLoader
    raise UsageError(f"{path}: name the price file *.toml, *.yaml or *.yml, after what it holds")


class _ExactLoader(yaml.SafeLoader):
    """YAML with decimals in place of floats, that refuses a key given twice."""

    def exact(self, node: yaml.ScalarNode) -> Decimal:
        try:
            return Decimal(self.construct_scalar(node).replace("_", ""))
        except InvalidOperation:
            raise yaml.constructor.ConstructorError(None, None, "not a decimal number", node.start_mark) from None

    def once(self, node: yaml.MappingNode) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        if len(set(map(str, keys))) < len(keys):
            raise yaml.constructor.ConstructorError(None, None, "a key is given twice", node.start_mark)
        return self.construct_mapping(node, deep=True)


_ExactLoader.add_constructor("tag:yaml.org,2002:float", _ExactLoader.exact)
_ExactLoader.add_constructor("tag:yaml.org,2002:map", _ExactLoader.once)


def _explained(problem: Any) -> str:
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]).lstrip(".")
    if problem["type"] == "extra_forbidden":
        return f"{where}: not a key of a price file; check its spelling, or remove it"
    if problem["type"] == "missing":
        return f"{where}: missing; add it"
    return f"{where}: {problem['msg'].removeprefix('Value error, ')}".removeprefix(": ")
