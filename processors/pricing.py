"""What a call cost: integer nano-dollars, or a status that says why not. Never 0 for what is not known.

    tenant's own price ─ else ─ price file ─ else ─ genai-prices ──► rates in force at the call's time
        × what the stated service tier costs × the tenant's multiplier ──► integer arithmetic ──► rounded once, half-even

Resolving rates through genai-prices takes 0.1-0.2 ms, so the resolved rates of a (tenant, provider, model, tier) are
kept, per stretch of time in which none of its prices changes: dated prices and daily off-peak hours alike. Applying them
is exact, so the sum before rounding is genai-prices' own. Its updater stays off: nothing here touches the network.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal, TypeVar

import msgspec
from genai_prices.data_snapshot import find_provider_by_id
from genai_prices.types import ModelInfo, ModelPrice, Provider, StartDateConstraint, TimeOfDateConstraint
from genai_prices.validation import validate_priced_units

from ..schemas.provider_usage import canonical_provider
from .price_file import PriceFile, Rates, latest
from .rates import UNITS, TokenRates, token_rates

PriceStatus = Literal["priced", "cache_hit", "no_usage", "invalid_usage", "unpriced"]


class Price(msgspec.Struct, frozen=True, gc=False):
    """`cost_nano_usd` is None unless the status is `priced` or `cache_hit` (where it is 0).

    `cache_savings_nano_usd`: the price of the same call with nothing read from or written to the provider's cache, less the
    cost; below 0 where the writes cost more than the reads saved. None without a price, and where nobody told of the cache.
    """

    cost_nano_usd: int | None
    status: PriceStatus
    cache_savings_nano_usd: int | None = None


_CACHE_HIT: Final = Price(0, "cache_hit", 0)
_NO_USAGE: Final = Price(None, "no_usage")
_INVALID: Final = Price(None, "invalid_usage")
_UNPRICED: Final = Price(None, "unpriced")

# Names are the callers' to choose, so both caches are bounded; misses are apart so that inventing names evicts no real model.
_MOST_LINES: Final = 4096
_MOST_MISSES: Final = 4096
# Where nobody takes them out.
_MOST_QUOTES: Final = 10_000
# Of one model: a year of days with off-peak hours. Calls that come late are of yesterday, by turns with those of today.
_MOST_STRETCHES: Final = 1_000

# Vertex AI states its tiers as traffic types.
_TIER_SPELLINGS: Final[Mapping[str, str]] = {
    "auto": "standard",
    "default": "standard",
    "standard_only": "standard",
    "on_demand": "standard",
    "on_demand_flex": "flex",
    "on_demand_priority": "priority",
}
# What genai-prices' variants are selected by.
_PRICE_CONTEXT: Final[Mapping[str, Mapping[str, str]]] = {
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "fast": {"service_tier": "fast", "speed": "fast"},
}
# OpenTelemetry's provider names to genai-prices' ids, where its own matching would miss or mislead (azure.ai.openai ∋ openai).
_BOOK_IDS: Final[Mapping[str, str]] = {
    "aws.bedrock": "aws",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "fireworks_ai": "fireworks",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "mistral_ai": "mistral",
    "moonshot_ai": "moonshotai",
    "together_ai": "together",
    "x_ai": "x-ai",
}

_BEGINNING: Final = datetime.min.replace(tzinfo=UTC)
_END: Final = datetime.max.replace(tzinfo=UTC)

Name = TypeVar("Name")
Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True)
class Quote:
    """Rates that were looked up: of a provider's model as the call named them, in [`since`, `until`). `tenant`: they are its
    own; `tier` in one spelling."""

    tenant: str | None
    provider_name: str | None
    model: str
    tier: str
    since: datetime
    until: datetime
    rates: TokenRates


class PriceBook:
    """Prices calls from genai-prices' bundled book and, over it, the operator's price file. One thread at a time.

    `version` names both: `genai-prices-0.2.3`, with `+` and twelve digits of the file's SHA-256 when there is one. `quotes`
    are the rates that were looked up, for whoever keeps them to take out.
    """

    def __init__(self, file: PriceFile | None = None) -> None:
        # The bundled data, read past the snapshot's own lookup: that keeps every model name it ever missed.
        from genai_prices.data import providers

        self.version = f"genai-prices-{version('genai-prices')}" + (f"+{file.sha256[:12]}" if file else "")
        self._file = file or PriceFile()
        self._providers: list[Provider] = providers
        self._tenants = frozenset(entry.tenant for entry in self._file.tenants)
        self.quotes: deque[Quote] = deque(maxlen=_MOST_QUOTES)
        self._lines: dict[_Key, _Line] = {}
        self._misses: dict[_Key, None] = {}

    @classmethod
    def load(cls, path: Path | None = None) -> PriceBook:
        """The book with the price file at `path` over it. Raises `UsageError` naming the file, the key and what to do."""
        return cls(None if path is None else PriceFile.read(path))

    def price(
        self,
        tenant: str | None,
        provider_name: str | None,
        response_model: str | None,
        request_model: str,
        service_tier: str | None,
        at: datetime,
        input_tokens: int | None,
        output_tokens: int | None,
        cache_read_tokens: int | None = None,
        cache_write_5m_tokens: int | None = None,
        cache_write_1h_tokens: int | None = None,
        reasoning_tokens: int | None = None,
        input_audio_tokens: int | None = None,
        output_audio_tokens: int | None = None,
        cache_audio_read_tokens: int | None = None,
        cache_hit: bool | None = None,
    ) -> Price:
        """The cost of one call at the prices of `at` (aware), its token fields in the order of the schema.

        The first of `response_model`, `request_model` that is known is priced. Input includes cached tokens, output
        includes reasoning. The status is one of

        - `priced`: the cost is the book's, or the price file's;
        - `cache_hit`: a gateway answered from its own cache, the provider was not asked: 0;
        - `no_usage`: a count that the rates need is not known;
        - `invalid_usage`: a negative count, or parts that exceed their whole;
        - `unpriced`: provider or model unknown, billed by something other than tokens, output without a rate for it, or a
          service tier that neither the price file nor the book (on that day) has a price for. `auto`, `default` and
          `standard` are the standard tier; batch, flex and priority are never charged as standard for want of a price.

        Cached reads and 5-minute writes without a rate cost what plain input costs; 1-hour writes without one cost twice
        the input (Anthropic's rule), never the 5-minute rate. Searches, pages, seconds and images are not in the schema
        and not in the cost.
        """
        if cache_hit:
            return _CACHE_HIT
        if input_tokens is None and output_tokens is None:
            return _NO_USAGE
        if tenant not in self._tenants:
            tenant = None
        line = self._lines.get((tenant, provider_name, response_model or request_model, service_tier))
        if line is None:
            line = self._line(tenant, provider_name, response_model, request_model, service_tier)
            if line is None:
                return _UNPRICED
        if not line.since <= at < line.until:
            line.turn_to(at)
        rates = line.rates
        if rates is None:
            return _UNPRICED
        if input_tokens is None:
            if rates.needs_input:
                return _NO_USAGE
            input_tokens = 0
        if output_tokens is None:
            if rates.needs_output:
                return _NO_USAGE
            output_tokens = 0
        elif output_tokens and not rates.has_output:
            return _UNPRICED
        for start, longer in rates.steps:
            if input_tokens > start:
                rates = longer
                break
        if input_tokens < 0 or output_tokens < 0:
            return _INVALID
        cost = rates.per_call + rates.input * input_tokens + rates.output * output_tokens
        cached = 0  # what the cache makes the call dearer by, as rates of parts are differences to plain input
        if cache_read_tokens or cache_write_5m_tokens or cache_write_1h_tokens or reasoning_tokens:
            read, write_5m, write_1h = cache_read_tokens or 0, cache_write_5m_tokens or 0, cache_write_1h_tokens or 0
            reasoning = reasoning_tokens or 0
            if read < 0 or write_5m < 0 or write_1h < 0 or reasoning < 0:
                return _INVALID
            if read + write_5m + write_1h > input_tokens or reasoning > output_tokens:
                return _INVALID
            cached = rates.cache_read * read + rates.cache_write_5m * write_5m + rates.cache_write_1h * write_1h
            cost += cached + rates.reasoning * reasoning
        if input_audio_tokens or output_audio_tokens or cache_audio_read_tokens:
            heard, spoken, reheard = input_audio_tokens or 0, output_audio_tokens or 0, cache_audio_read_tokens or 0
            if heard < 0 or spoken < 0 or reheard < 0 or heard > input_tokens or spoken > output_tokens:
                return _INVALID
            read = cache_read_tokens or 0
            if reheard > read or reheard > heard:
                return _INVALID
            if rates.splits_cached_audio and heard and read:
                if cache_audio_read_tokens is None:
                    return _NO_USAGE
                if heard + read - reheard > input_tokens:
                    return _INVALID
            cached_audio = rates.cache_audio_read * reheard
            cached += cached_audio
            cost += rates.input_audio * heard + rates.output_audio * spoken + cached_audio
        savings: int | None = -cached
        denominator = rates.denominator
        if denominator != 1:
            uncached, cost = cost - cached, _rounded(cost, denominator)
            if cached:
                savings = _rounded(uncached, denominator) - cost
        if not cached and cache_read_tokens is None and cache_write_5m_tokens is None and cache_write_1h_tokens is None:
            savings = None
        return Price(cost, "priced", savings)

    def dearest(
        self, provider_name: str | None, response_model: str | None, request_model: str, service_tier: str | None, at: datetime
    ) -> tuple[float, float]:
        """Nano-dollars of one input and of one output token of a call as long as can be; 0 where no price is known."""
        many = 1_000_000
        model = (None, provider_name, response_model, request_model, service_tier, at)
        taken = self.price(*model, many, 0).cost_nano_usd or 0
        both = self.price(*model, many, many).cost_nano_usd
        return taken / many, 0.0 if both is None else (both - taken) / many

    def _line(
        self, tenant: str | None, provider: str | None, response_model: str | None, request_model: str, tier: str | None
    ) -> _Line | None:
        """The line of the first model that is known; each is looked up once, until its turn to be forgotten comes."""
        for model in (response_model, request_model):
            key = (tenant, provider, model, tier)
            if model is None or key in self._misses:
                continue
            line = self._lines.get(key)
            if line is not None:
                return line
            line = self._resolve(tenant, provider, model, tier)
            if line is not None:
                _keep(self._lines, key, line, _MOST_LINES)
                return line
            _keep(self._misses, key, None, _MOST_MISSES)
        return None

    def _resolve(self, tenant: str | None, provider: str | None, model: str, tier: str | None) -> _Line | None:
        """All that is said about a model, on whatever day; None when nothing is."""
        stated = provider, model
        provider = None if provider is None else canonical_provider(provider)
        tier = tier_of(tier)
        name = model.lower()
        about = [entry for entry in self._file.tenants if entry.tenant == tenant and entry.concerns(provider, name)]
        contracts = [entry for entry in about if entry.multiplier is None]
        discounts = [entry for entry in about if entry.multiplier is not None]
        models = [entry for entry in self._file.models if entry.concerns(provider, name)]
        tiers = [e for e in self._file.service_tiers if tier_of(e.tier) == tier and e.concerns(provider, name)]
        book = self._in_book(provider, name)
        if not (contracts or models or book):
            return None
        if tier != "standard" and not tiers and (book is None or tier not in _PRICE_CONTEXT):
            return None

        def in_force(at: datetime) -> TokenRates | None:
            contract, surcharge = latest(contracts, at), latest(tiers, at)
            custom = contract or latest(models, at)
            discount = None if contract else latest(discounts, at)
            multiplier = Fraction(1)
            if surcharge is not None:
                multiplier *= Fraction(surcharge.multiplier)
            if discount is not None and discount.multiplier is not None:
                multiplier *= Fraction(discount.multiplier)
            stated_tier = None if surcharge is not None or tier == "standard" else tier
            if custom is not None:
                return None if stated_tier else token_rates(_of_file(custom), multiplier)
            prices = None if book is None else _of_book(*book, at, stated_tier)
            return None if prices is None else token_rates(prices, multiplier)

        starts = [e.starts_at for e in (*contracts, *discounts, *models, *tiers) if e.starts_at is not None]
        whose = tenant if contracts or discounts else None

        def told(rates: TokenRates, since: datetime, until: datetime) -> None:
            self.quotes.append(Quote(whose, *stated, tier, since, until, rates))

        return _Line(in_force, starts, _constraints(book[0]) if book else (), told)

    def _in_book(self, provider: str | None, model: str) -> tuple[ModelInfo, bool] | None:
        """A model of the book, and whether it is the provider's own (only then do its variants hold)."""
        if provider == "litellm":
            prefix, _, rest = model.partition("/")
            known = bool(rest) and find_provider_by_id(self._providers, prefix) is not None
            provider, model = (prefix, rest) if known else (None, model)
        if provider is not None:
            found = find_provider_by_id(self._providers, _BOOK_IDS.get(provider, provider))
        else:
            found = next((p for p in self._providers if p.model_match is not None and p.model_match.is_match(model)), None)
        if found is None:
            return None
        # Google's APIs name a model by its path: models/…, publishers/google/models/…
        for name in dict.fromkeys((model, model.rpartition("models/")[2])):
            info = found.find_model(name, all_providers=self._providers) if name else None
            if info is not None:
                return info, any(info is own for own in found.models)
        return None


_Key = tuple[str | None, str | None, str | None, str | None]


class _Line:
    """The rates of one model over time: `rates` hold in [`since`, `until`); `turn_to` moves to the stretch around a time, and
    each stretch is told once: hours of the day are another one every day."""

    __slots__ = ("_day_marks", "_in_force", "_known", "_starts", "_stretches", "_told", "rates", "since", "until")

    def __init__(
        self,
        in_force: Callable[[datetime], TokenRates | None],
        starts: Iterable[datetime],
        constraints: Iterable[StartDateConstraint | TimeOfDateConstraint],
        told: Callable[[TokenRates, datetime, datetime], None],
    ) -> None:
        days, marks = set(starts), {time(0)}
        for constraint in constraints:
            if isinstance(constraint, StartDateConstraint):
                days.add(datetime.combine(constraint.start_date, time(0), UTC))
            else:
                marks |= {_utc_time(constraint.start_time), _utc_time(constraint.end_time)}
        self._in_force = in_force
        self._told = told
        self._starts = sorted(days)
        self._day_marks = sorted(marks)
        # As many as prices ever change: dates × hours of the day, a handful.
        self._known: dict[tuple[int, int], TokenRates | None] = {}
        # When those began that were told.
        self._stretches: dict[datetime, None] = {}
        self.since = self.until = _BEGINNING
        self.rates: TokenRates | None = None

    def turn_to(self, at: datetime) -> None:
        at = at.astimezone(UTC)
        period = bisect_right(self._starts, at)
        since = self._starts[period - 1] if period else _BEGINNING
        until = self._starts[period] if period < len(self._starts) else _END
        hour = 0
        if len(self._day_marks) > 1:
            midnight = datetime.combine(at, time(0), UTC)
            hour = bisect_right(self._day_marks, at.time())
            since = max(since, datetime.combine(midnight, self._day_marks[hour - 1], UTC))
            is_last = hour == len(self._day_marks)
            next_mark = midnight + timedelta(days=1) if is_last else datetime.combine(midnight, self._day_marks[hour], UTC)
            until = min(until, next_mark)
        if (period, hour) not in self._known:
            self._known[period, hour] = self._in_force(at)
        self.rates, self.since, self.until = self._known[period, hour], since, until
        if self.rates is not None and since not in self._stretches:
            _keep(self._stretches, since, None, _MOST_STRETCHES)
            self._told(self.rates, since, until)


def _rounded(numerator: int, denominator: int) -> int:
    """The nearest whole number; of two, the even one."""
    whole, rest = divmod(numerator, denominator)
    if 2 * rest > denominator or (2 * rest == denominator and whole & 1):
        whole += 1
    return whole


def _of_book(info: ModelInfo, own: bool, at: datetime, tier: str | None) -> ModelPrice | None:
    """The book's prices at a time; None when it cannot price tokens then, or has no price for the stated tier."""
    if tier is None:
        prices = info.get_prices(at)
    else:
        context = _PRICE_CONTEXT.get(tier, {})
        in_force = (v for v in info.price_variants or () if own and (v.constraint is None or v.constraint.active(at)))
        if not any(all(context.get(key) == value for key, value in variant.when.items()) for variant in in_force):
            return None
        prices = info.get_prices(at, context)
    priced = [UNITS.unit_for_price_key(key) for key, price in vars(prices).items() if price is not None]
    if not priced and info.id.endswith(":free"):
        return ModelPrice(input_mtok=Decimal(0), output_mtok=Decimal(0))
    try:
        validate_priced_units(priced, UNITS)
    except ValueError:
        return None
    return prices


def _of_file(entry: Rates) -> ModelPrice:
    """An entry's rates under the book's names, the kinds it leaves out filled in as `Rates` promises."""
    stated = entry.stated()
    plain = stated["input"]
    keys = {
        "input": "input_mtok",
        "output": "output_mtok",
        "cache_read": "cache_read_mtok",
        "cache_write_5m": "cache_write_mtok",
        "cache_write_1h": "cache_write_1h_mtok",
        "reasoning": "output_reasoning_mtok",
        "input_audio": "input_audio_mtok",
        "output_audio": "output_audio_mtok",
        "cache_audio_read": "cache_audio_read_mtok",
    }
    prices = {keys[name]: rate for name, rate in stated.items() if name in keys}
    prices.setdefault("cache_write_mtok", plain * Decimal("1.25"))
    prices.setdefault("cache_write_1h_mtok", plain * 2)
    if "input_audio" in stated and "cache_read" in stated:
        prices.setdefault("cache_audio_read_mtok", stated["input_audio"])
    if "per_request" in stated:
        prices["requests_kcount"] = stated["per_request"] * 1000
    return ModelPrice(**prices)


def _constraints(info: ModelInfo) -> list[StartDateConstraint | TimeOfDateConstraint]:
    conditional = [] if isinstance(info.prices, ModelPrice) else info.prices
    every = [price.constraint for price in conditional] + [variant.constraint for variant in info.price_variants or ()]
    return [constraint for constraint in every if constraint is not None]


def tier_of(name: str | None) -> str:
    """The tier that a call names, in one spelling; a call that names none is of the standard tier."""
    name = "standard" if name is None else name.lower()
    return _TIER_SPELLINGS.get(name, name)


def _utc_time(at: time) -> time:
    if at.tzinfo is None:
        return at
    return datetime.combine(date(1970, 1, 1), at).astimezone(UTC).time()


def _keep(cache: dict[Name, Kept], key: Name, value: Kept, most: int) -> None:
    """Keep one more, and forget the one that was learnt first when there are too many."""
    if len(cache) >= most:
        del cache[next(iter(cache))]
    cache[key] = value
