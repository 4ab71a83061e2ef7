"""The cached, integer price of a call is genai-prices' Decimal price of it, rounded once; what is not known is never 0."""

from __future__ import annotations

import json
import os
import socket
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from pathlib import Path
from typing import Any

import genai_prices
import pytest
from genai_prices.data import providers
from genai_prices.types import ModelInfo, ModelPrice, Provider, StartDateConstraint, TimeOfDateConstraint
from hypothesis import given, settings
from hypothesis import strategies as st
from tidegate.processors import pricing
from tidegate.processors.price_file import RATE_KEYS, PriceFile
from tidegate.processors.pricing import Price, PriceBook
from tidegate.schemas.errors import UsageError
from tidegate.schemas.provider_usage import normalise_usage

NOW = datetime(2026, 11, 2, 8, tzinfo=UTC)
REPOSITORY = Path(__file__).parents[2]
REAL_CALLS = Path(os.environ.get("TIDEGATE_REAL_CALLS", REPOSITORY.parent / "shared" / "data" / "real_calls.jsonl"))
BOOK = PriceBook.load()


def by_the_book(provider: str, model: str, at: datetime, context: dict[str, str] | None, tokens: dict[str, int]) -> int:
    """What genai-prices says, in nano-dollars, in arithmetic wide enough not to round on the way."""
    usage = {("output_reasoning_tokens" if name == "reasoning_tokens" else name): count for name, count in tokens.items()}
    usage["cache_write_tokens"] = usage.get("cache_write_5m_tokens", 0) + usage.get("cache_write_1h_tokens", 0)
    with localcontext(prec=100):
        price = genai_prices.calc_price(
            genai_prices.Usage(**usage), model, provider_id=provider, genai_request_timestamp=at, price_context=context
        )
        return int((price.total_price * 1_000_000_000).quantize(Decimal(1), ROUND_HALF_EVEN))


def priced_by_the_book(
    provider: str, model: str, at: datetime, context: dict[str, str] | None, tokens: dict[str, int]
) -> Price:
    """Its price of the call, and what the cache saved: its price of the call without a cache, less that."""
    cost = by_the_book(provider, model, at, context, tokens)
    plain = {name: count for name, count in tokens.items() if not name.startswith("cache_")}
    if plain == tokens:
        return Price(cost, "priced")
    return Price(cost, "priced", by_the_book(provider, model, at, context, plain) - cost)


def prices_of(model: ModelInfo) -> list[ModelPrice]:
    return [model.prices] if isinstance(model.prices, ModelPrice) else [each.prices for each in model.prices]


def can_price(prices: ModelPrice) -> bool:
    return prices.input_mtok is not None and prices.output_mtok is not None


CHAT_MODELS = [
    (provider, model)
    for provider in providers
    for model in provider.models
    if provider.find_model(model.id) is model and all(map(can_price, prices_of(model)))
]
# Half of the draws go to the models in which something can go wrong.
INTRICATE = [
    (provider, model)
    for provider, model in CHAT_MODELS
    if model.price_variants or not isinstance(model.prices, ModelPrice) or len(vars(model.prices)) > 3
]
TIERS: list[tuple[str | None, dict[str, str] | None]] = [
    (None, None),
    ("auto", None),
    ("default", {"service_tier": "default"}),
    ("batch", {"processing": "batch"}),
    ("flex", {"service_tier": "flex"}),
    ("priority", {"service_tier": "priority"}),
    ("fast", {"service_tier": "fast", "speed": "fast"}),
]


def moments(model: ModelInfo) -> st.SearchStrategy[datetime]:
    """Any time, and the microseconds around each moment at which a price of the model changes."""
    edges = [datetime(2026, 11, 2, tzinfo=UTC)]
    conditions = [] if isinstance(model.prices, ModelPrice) else [each.constraint for each in model.prices]
    for constraint in [*conditions, *(variant.constraint for variant in model.price_variants or ())]:
        if isinstance(constraint, StartDateConstraint):
            edges.append(datetime.combine(constraint.start_date, time(0), UTC))
        elif isinstance(constraint, TimeOfDateConstraint):
            edges += [datetime.combine(date(2026, 11, 2), at) for at in (constraint.start_time, constraint.end_time)]
    near = st.builds(
        lambda edge, microseconds: edge + timedelta(microseconds=microseconds), st.sampled_from(edges), st.integers(-1, 1)
    )
    zones = st.sampled_from([UTC, timezone(timedelta(hours=9)), timezone(timedelta(hours=-7))])
    anywhen = st.datetimes(datetime(2024, 1, 1), datetime(2027, 12, 31), timezones=zones)
    return st.builds(lambda at, zone: at.astimezone(zone), st.one_of(near, anywhen), zones)


@st.composite
def tokens(draw: st.DrawFn, model: ModelInfo) -> dict[str, int]:
    """Counts a response may state: parts within their wholes, sizes around the tiers, kinds that the model knows."""
    keys = {key for prices in prices_of(model) for key, value in vars(prices).items() if value is not None}
    sizes = st.one_of(
        st.integers(0, 5_000), st.sampled_from([0, 1, 199_999, 200_000, 200_001, 272_000, 272_001]), st.integers(0, 10**9)
    )
    whole, answer = draw(sizes), draw(sizes)
    counts = {"input_tokens": whole, "output_tokens": answer, "reasoning_tokens": draw(st.integers(0, answer))}
    cached = draw(st.integers(0, whole))
    counts["cache_read_tokens"] = draw(st.integers(0, cached))
    counts["cache_write_5m_tokens"] = draw(st.integers(0, cached - counts["cache_read_tokens"]))
    if "cache_write_1h_mtok" in keys:  # elsewhere the rule is ours
        counts["cache_write_1h_tokens"] = cached - counts["cache_read_tokens"] - counts["cache_write_5m_tokens"]
    if "input_audio_mtok" in keys:
        counts["input_audio_tokens"] = draw(st.integers(0, whole - cached))
        counts["cache_audio_read_tokens"] = draw(st.integers(0, min(counts["input_audio_tokens"], counts["cache_read_tokens"])))
    if "output_audio_mtok" in keys:
        counts["output_audio_tokens"] = draw(st.integers(0, answer))
    return counts


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_the_cached_price_is_the_books_price_rounded_half_even_once(data: st.DataObject) -> None:
    provider, model = data.draw(st.one_of(st.sampled_from(CHAT_MODELS), st.sampled_from(INTRICATE)))
    at, counts = data.draw(moments(model)), data.draw(tokens(model))
    tier, context = data.draw(st.sampled_from(TIERS))

    price = BOOK.price(None, provider.id, None, model.id, tier, at, **with_both(counts))

    if tier in (None, "auto", "default") or has_variant(provider, model, context or {}, at):
        assert price == priced_by_the_book(provider.id, model.id, at, context, counts)
    else:
        assert price == Price(None, "unpriced")


def with_both(counts: dict[str, int]) -> dict[str, Any]:
    return {"input_tokens": None, "output_tokens": None, **counts}


def has_variant(provider: Provider, model: ModelInfo, context: dict[str, str], at: datetime) -> bool:
    return any(
        all(context.get(key) == value for key, value in variant.when.items())
        and (variant.constraint is None or variant.constraint.active(at))
        for variant in model.price_variants or ()
    )


def test_every_chat_model_of_the_book_costs_the_same_standard_price() -> None:
    counts = {"input_tokens": 250_123, "output_tokens": 4_567, "cache_read_tokens": 1_111, "cache_write_5m_tokens": 2_222}

    ours = {(p.id, m.id): BOOK.price(None, p.id, None, m.id, None, NOW, **with_both(counts)) for p, m in CHAT_MODELS}

    assert len(ours) > 1_500
    assert ours == {(p.id, m.id): priced_by_the_book(p.id, m.id, NOW, None, counts) for p, m in CHAT_MODELS}


def test_real_calls_cost_what_plain_genai_prices_says() -> None:
    if not REAL_CALLS.exists():
        pytest.skip("the recorded calls are not here; name them in TIDEGATE_REAL_CALLS")
    # One genai-prices call takes 0.2 ms; equal calls cost equal, so each distinct one is computed once.
    expected: dict[tuple[Any, ...], Price] = {}
    lines = 0

    for line in REAL_CALLS.read_bytes().splitlines():
        call = json.loads(line)
        at, provider, model = datetime.fromisoformat(call["started_at"]), call["provider"], call["response"]["model"]
        counts = normalise_usage(call["response"]["usage"], provider)
        key = (provider, model, at.date(), *sorted(counts.items()))
        if key not in expected:
            expected[key] = priced_by_the_book(provider, model, at, None, counts)
        price = BOOK.price("harbor-health", provider, model, call["request"]["model"], None, at, **with_both(counts))
        assert price == expected[key]
        lines += 1

    assert lines > 4_000


# What the book cannot say


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "nobody-knows-this-model"),
        ("nobody-knows-this-provider", "gpt-4o"),
        (None, "nobody-knows-this-model"),
        ("openai", "whisper-1"),  # by the second
        ("google", "gemma-3"),  # the book knows it, without a price
    ],
)
def test_what_the_book_cannot_price_has_no_cost(provider: str | None, model: str) -> None:
    assert BOOK.price(None, provider, None, model, None, NOW, 10, 10) == Price(None, "unpriced")


def test_output_without_a_rate_is_not_free() -> None:
    embed = ("openai", None, "text-embedding-3-small", None, NOW, 1_000)

    assert BOOK.price(None, *embed, None) == BOOK.price(None, *embed, 0) == Price(20_000, "priced")
    assert BOOK.price(None, *embed, 5) == Price(None, "unpriced")


def test_a_model_that_calls_itself_free_costs_nothing() -> None:
    assert BOOK.price(None, "mistral_ai", None, "mistral-nemo:free", None, NOW, 10, 10) == Price(0, "priced")


def test_unknown_counts_have_no_cost_and_a_gateways_cache_costs_nothing() -> None:
    gpt = (None, "openai", None, "gpt-4o", None, NOW)

    assert BOOK.price(*gpt, None, None) == Price(None, "no_usage")
    assert BOOK.price(*gpt, 100, None) == Price(None, "no_usage")
    assert BOOK.price(*gpt, None, 100) == Price(None, "no_usage")
    assert BOOK.price(*gpt, None, None, cache_hit=True) == Price(0, "cache_hit", 0)


def test_cached_audio_that_may_or_may_not_be_there_is_unknown_usage() -> None:
    realtime = (None, "openai", None, "gpt-realtime", None, NOW, 100, 10)

    assert BOOK.price(*realtime, 50, input_audio_tokens=50) == Price(None, "no_usage")
    assert BOOK.price(*realtime, 50, input_audio_tokens=50, cache_audio_read_tokens=20).status == "priced"


@pytest.mark.parametrize(
    "counts",
    [
        {"input_tokens": -1},
        {"output_tokens": -1},
        {"cache_read_tokens": 101},
        {"cache_read_tokens": -1},
        {"cache_read_tokens": 50, "cache_write_5m_tokens": 51},
        {"cache_write_1h_tokens": 101},
        {"reasoning_tokens": 11},
        {"input_audio_tokens": 101},
        {"output_audio_tokens": 11},
        {"cache_audio_read_tokens": 1},
        {"input_audio_tokens": 60, "cache_read_tokens": 60, "cache_audio_read_tokens": 10},
    ],
)
def test_parts_beyond_their_whole_are_invalid(counts: dict[str, int]) -> None:
    stated: dict[str, Any] = {"input_tokens": 100, "output_tokens": 10, **counts}

    assert BOOK.price(None, "openai", None, "gpt-realtime", None, NOW, **stated) == Price(None, "invalid_usage")


# Names


@pytest.mark.parametrize(
    ("otel", "book", "model"),
    [
        ("gcp.gemini", "google", "gemini-2.5-flash"),
        ("gcp.vertex_ai", "google", "claude-sonnet-4-5@20250929"),
        ("aws.bedrock", "aws", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("azure.ai.openai", "azure", "gpt-4o"),
        ("mistral_ai", "mistral", "mistral-large-latest"),
        ("x_ai", "x-ai", "grok-4-0709"),
        ("deepseek", "deepseek", "deepseek-chat"),
        ("cohere", "cohere", "command-r-plus-08-2024"),
        ("Azure OpenAI", "azure", "GPT-4o"),
    ],
)
def test_opentelemetrys_provider_names_find_the_books_models(otel: str, book: str, model: str) -> None:
    counts = {"input_tokens": 1_001, "output_tokens": 97}

    price = BOOK.price(None, otel, None, model, None, NOW, **with_both(counts))

    assert price == Price(by_the_book(book, model, NOW, None, counts), "priced")


def test_the_response_model_is_priced_and_the_request_model_stands_in_for_one_nobody_knows() -> None:
    mini = BOOK.price(None, "openai", None, "gpt-4o-mini", None, NOW, 1_000, 1_000)
    large = BOOK.price(None, "openai", None, "gpt-4o", None, NOW, 1_000, 1_000)

    assert mini != large
    assert BOOK.price(None, "openai", "gpt-4o-mini-2024-07-18", "gpt-4o", None, NOW, 1_000, 1_000) == mini
    assert BOOK.price(None, "openai", "our-deployment", "gpt-4o", None, NOW, 1_000, 1_000) == large


def test_a_model_named_by_its_path_or_through_a_gateway_is_found() -> None:
    plain = BOOK.price(None, "gcp.gemini", None, "gemini-2.5-flash", None, NOW, 1_000, 1_000)

    assert plain.status == "priced"
    assert BOOK.price(None, "gcp.gemini", None, "models/gemini-2.5-flash", None, NOW, 1_000, 1_000) == plain
    assert BOOK.price(None, "litellm", None, "gemini/gemini-2.5-flash", None, NOW, 1_000, 1_000) == plain
    assert BOOK.price(None, None, None, "gemini-2.5-flash", None, NOW, 1_000, 1_000) == plain


def test_invented_names_neither_grow_the_caches_nor_evict_real_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pricing, "_MOST_LINES", 8)
    monkeypatch.setattr(pricing, "_MOST_MISSES", 8)
    book = PriceBook.load()
    book.price(None, "openai", None, "gpt-4o", None, NOW, 1, 1)

    for number in range(50):
        book.price(f"tenant-{number}", "openai", f"invented-{number}", "gpt-4o", None, NOW, 1, 1)
        book.price(None, f"invented-{number}", None, "gpt-4o", f"tier-{number}", NOW, 1, 1)

    assert list(book._lines) == [(None, "openai", "gpt-4o", None)]
    assert len(book._misses) == 8


def test_pricing_touches_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)

    assert PriceBook.load().price(None, "openai", None, "gpt-4o", None, NOW, 1, 1).status == "priced"


# One-hour cache writes


def test_an_hour_of_cache_costs_the_books_rate_or_twice_the_input_but_never_the_five_minute_rate() -> None:
    with_rate = (None, "anthropic", None, "claude-opus-4-1", None, NOW, 1_000, 0)
    without = (None, "aws.bedrock", None, "anthropic.claude-opus-4-1-20250805-v1:0", None, NOW, 1_000, 0)

    for opus in (with_rate, without):
        assert BOOK.price(*opus) == Price(15_000_000, "priced")
        assert BOOK.price(*opus, cache_write_5m_tokens=1_000) == Price(18_750_000, "priced", -3_750_000)
        assert BOOK.price(*opus, cache_write_1h_tokens=1_000) == Price(30_000_000, "priced", -15_000_000)


# What the cache saved


@pytest.mark.parametrize(
    ("cached", "savings"),
    [
        # gpt-4o: 2.50 USD a million in, half of it when read from the cache; writing costs nothing of its own.
        ({"cache_read_tokens": 1_000}, 1_000 * 1_250),
        ({"cache_read_tokens": 1}, 1_250),
        ({"cache_read_tokens": 0}, 0),
        ({"cache_write_5m_tokens": 0}, 0),
        ({}, None),
    ],
)
def test_openais_cache_saves_what_reading_is_cheaper_by(cached: dict[str, int], savings: int | None) -> None:
    price = BOOK.price(None, "openai", None, "gpt-4o-2024-08-06", None, NOW, 2_000, 100, **cached)

    assert price.cache_savings_nano_usd == savings


@pytest.mark.parametrize(
    ("cached", "savings"),
    [
        # claude-sonnet-4-5: 3 USD a million in; 0.30 read from the cache, 3.75 written for five minutes, 6 for an hour.
        ({"cache_read_tokens": 1_000}, 1_000 * 2_700),
        ({"cache_write_5m_tokens": 1_000}, -1_000 * 750),
        ({"cache_write_1h_tokens": 1_000}, -1_000 * 3_000),
        ({"cache_read_tokens": 500, "cache_write_5m_tokens": 300, "cache_write_1h_tokens": 200}, 1_350_000 - 225_000 - 600_000),
        ({"cache_read_tokens": 100, "cache_write_5m_tokens": 900}, 270_000 - 675_000),
    ],
)
def test_anthropics_cache_saves_less_what_writing_costs(cached: dict[str, int], savings: int) -> None:
    price = BOOK.price(None, "anthropic", None, "claude-sonnet-4-5-20250929", None, NOW, 2_000, 100, **cached)

    assert price.cache_savings_nano_usd == savings


def test_what_the_cache_saved_and_what_the_call_cost_are_the_price_without_a_cache(tmp_path: Path) -> None:
    # One and a half nano-dollars a token, 0.7 from the cache: both prices are rounded, each once, and the two sums still meet.
    book = book_of(tmp_path, '[[models]]\nmodel = "m"\ninput = "0.0015"\noutput = "0"\ncache_read = "0.0007"\n')
    model = (None, None, None, "m", None, NOW)

    for tokens in range(1, 40):
        plain, cached = book.price(*model, tokens, 0), book.price(*model, tokens, 0, tokens // 2)
        assert plain.cost_nano_usd is not None
        assert cached.cost_nano_usd is not None
        assert cached.cache_savings_nano_usd == plain.cost_nano_usd - cached.cost_nano_usd


@pytest.mark.parametrize("counts", [(None, None, 5), (10, 5, 11), (-1, 5, 0)])
def test_without_a_price_nobody_knows_what_the_cache_saved(counts: tuple[int | None, ...]) -> None:
    assert BOOK.price(None, "openai", None, "gpt-4o", None, NOW, *counts).cache_savings_nano_usd is None
    assert BOOK.price(None, "openai", None, "no-such-model", None, NOW, 10, 5, 5).cache_savings_nano_usd is None


# The price file


def book_of(tmp_path: Path, text: str, name: str = "prices.toml") -> PriceBook:
    path = tmp_path / name
    path.write_text(text)
    return PriceBook.load(path)


def test_the_version_names_the_book_and_the_file(tmp_path: Path) -> None:
    one = book_of(tmp_path, '[[models]]\nmodel = "m"\ninput = "1"\n').version
    other = book_of(tmp_path, '[[models]]\nmodel = "m"\ninput = "2"\n').version

    assert BOOK.version == f"genai-prices-{genai_prices.__version__}"
    assert one.startswith(BOOK.version + "+")
    assert len(one) == len(BOOK.version) + 13
    assert one != other


def test_the_documented_example_prices_what_it_says() -> None:
    book = PriceBook.load(REPOSITORY / "docs" / "examples" / "prices.toml")
    llama = ("vllm", None, "clinic-llama-70b", None)
    sonnet = ("anthropic", None, "claude-sonnet-4-5-20250929", None)
    gpt = ("openai", None, "gpt-4o", None)

    assert book.price(None, *llama, NOW, 1_000, 100, 200) == Price(377_000, "priced", 63_000)
    assert book.price(None, *llama, datetime(2027, 1, 1, tzinfo=UTC), 1_000, 100, 200) == Price(321_000, "priced", 54_000)
    assert book.price("harbor-health", *sonnet, NOW, 1_000, 100) == Price(3_600_000, "priced")
    assert book.price("harbor-health", *sonnet, NOW, 1_000, 0, cache_write_1h_tokens=1_000) == Price(
        4_800_000, "priced", -2_400_000
    )
    assert book.price("harbor-health", *gpt, NOW, 1_000, 100) == Price(2_975_000, "priced")
    assert (
        book.price("lakeside", *gpt, NOW, 1_000, 100) == BOOK.price(None, *gpt, NOW, 1_000, 100) == Price(3_500_000, "priced")
    )
    assert book.price(None, "azure.ai.openai", None, "gpt-4o", "batch", NOW, 1_000, 100) == Price(1_750_000, "priced")
    assert book.price(None, None, None, "voice-triage-2", None, NOW, 1_000, 0) == Price(6_000_000, "priced")


@pytest.mark.parametrize("tier", ["batch", "flex", "scale", "gold"])
def test_a_tier_without_a_price_is_unpriced_until_the_file_prices_it(tmp_path: Path, tier: str) -> None:
    book = book_of(tmp_path, f'[[service_tiers]]\ntier = "{tier}"\nmultiplier = "0.5"\nfrom = 2026-02-01\n')
    opus = ("aws.bedrock", None, "anthropic.claude-opus-4-1-20250805-v1:0", tier)

    assert BOOK.price(None, *opus, NOW, 1_000, 0) == Price(None, "unpriced")
    assert book.price(None, *opus, datetime(2026, 1, 31, 23, 59, tzinfo=UTC), 1_000, 0) == Price(None, "unpriced")
    assert book.price(None, *opus, datetime(2026, 2, 1, tzinfo=UTC), 1_000, 0) == Price(7_500_000, "priced")


def test_the_most_specific_entry_wins_and_then_the_latest_in_force(tmp_path: Path) -> None:
    book = book_of(
        tmp_path,
        """
        models:
          - {model: "m-*", input: 1}
          - {model: "m-large*", input: 2}
          - {model: "m-large", input: 3}
          - {model: "m-large", input: 4, from: 2026-06-01}
          - {model: "m-large*", input: 9, from: 2026-10-01, provider: vllm}
        """,
        "prices.yaml",
    )

    def per_token(model: str, at: datetime, provider: str | None = None) -> int | None:
        return book.price(None, provider, None, model, None, at, 1, None).cost_nano_usd

    assert per_token("m-small", NOW) == 1_000
    assert per_token("M-Large-2", NOW) == 2_000
    assert per_token("m-large-2", NOW, "vllm") == 9_000
    assert per_token("m-large", datetime(2026, 5, 31, tzinfo=UTC)) == 3_000
    assert per_token("m-large", NOW, "vllm") == 4_000


def test_rates_of_every_kind_are_charged_once_and_rounded_half_even(tmp_path: Path) -> None:
    rates = {key: Decimal(number) / 8 for number, key in enumerate(RATE_KEYS, start=1)}
    rates["per_request"] = Decimal("0.000000001")
    book = book_of(tmp_path, '[[models]]\nmodel = "m"\n' + "".join(f'{key} = "{rate}"\n' for key, rate in rates.items()))

    price = book.price(None, None, None, "m", None, NOW, 100, 50, 20, 5, 3, 10, 12, 8, 4)

    plain = 100 - (20 - 4) - 5 - 3 - (12 - 4) - 4
    dollars_a_million = (
        plain * rates["input"]
        + (50 - 10 - 8) * rates["output"]
        + (20 - 4) * rates["cache_read"]
        + 5 * rates["cache_write_5m"]
        + 3 * rates["cache_write_1h"]
        + 10 * rates["reasoning"]
        + (12 - 4) * rates["input_audio"]
        + 8 * rates["output_audio"]
        + 4 * rates["cache_audio_read"]
    )
    the_rest = (50 - 10 - 8) * rates["output"] + 10 * rates["reasoning"] + 8 * rates["output_audio"]
    uncached = (100 - 12) * rates["input"] + 12 * rates["input_audio"] + the_rest
    assert price == Price(int(dollars_a_million * 1_000) + 1, "priced", int((uncached - dollars_a_million) * 1_000))


@pytest.mark.parametrize(("tokens_in", "nano"), [(1, 0), (2, 1), (3, 2), (5, 2), (7, 4)])
def test_half_a_nano_dollar_goes_to_the_even_one(tmp_path: Path, tokens_in: int, nano: int) -> None:
    book = book_of(tmp_path, '[[models]]\nmodel = "m"\ninput = "0.0005"\n')

    assert book.price(None, None, None, "m", None, NOW, tokens_in, None) == Price(nano, "priced")


def test_a_yaml_number_is_as_exact_as_text(tmp_path: Path) -> None:
    number = book_of(tmp_path, "models: [{model: m, input: 0.1, output: 1_0.30}]", "a.yaml")
    text = book_of(tmp_path, "models: [{model: m, input: '0.1', output: '10.3'}]", "b.yml")

    many = (None, None, None, "m", None, NOW, 10**9, 10**9)

    assert number.price(*many) == text.price(*many) == Price(10_400 * 10**9, "priced")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("p.toml", '[[models]]\nmodel = "m"\ninptu = "1"\n', r"models\[0\]\.inptu: not a key"),
        ("p.toml", '[[models]]\ninput = "1"\n', r"models\[0\]\.model: missing; add it"),
        ("p.toml", '[[models]]\nmodel = "m"\n', r"models\[0\]: a model needs input"),
        ("p.toml", '[[models]]\nmodel = "m"\ninput = "-1"\n', r"models\[0\]\.input: .*greater than or equal to 0"),
        ("p.toml", '[[models]]\nmodel = "m"\ninput = "20000"\n', r"models\[0\]\.input: .*less than or equal to 10000"),
        ("p.toml", '[[models]]\nmodel = "m"\ninput = "cheap"\n', r"models\[0\]\.input: write it as a decimal"),
        ("p.toml", '[[models]]\nmodel = "m"\ninput = true\n', r"models\[0\]\.input: write it as a decimal"),
        ("p.toml", '[[models]]\nmodel = "m"\ninput = nan\n', r"models\[0\]\.input: must be a finite number"),
        ("p.toml", '[[models]]\nmodel = "m"\ninput = "0.0000000000001"\n', r"models\[0\]\.input: .*12 decimals"),
        ("p.toml", '[[models]]\nmodel = "a*b"\ninput = "1"\n', r"models\[0\]\.model: a \* may only end a prefix"),
        ("p.toml", '[[models]]\nmodel = "m"\ninput = "1"\nfrom = "soon"\n', r"models\[0\]\.from: write it as a day"),
        ("p.toml", '[[models]]\nmodel = "m"\ninput = "1"\nreasoning = "1"\n', r"models\[0\]: a model needs output"),
        ("p.toml", '[[models]]\nmodel = "m"\ninput = "1"\ncache_audio_read = "1"\n', r"needs input_audio .* and cache_read"),
        ("p.toml", '[[models]]\nmodel = "m"\ninput = "1"\n' * 2, r"models: entries 0 and 1 speak of the same"),
        ("p.toml", '[[tenants]]\ntenant = "t"\n', r"tenants\[0\]: a tenant needs either multiplier"),
        ("p.toml", '[[tenants]]\ntenant = "t"\nmodel = "m"\ninput = "1"\nmultiplier = "1"\n', r"not both"),
        ("p.toml", '[[service_tiers]]\ntier = "batch"\nmultiplier = "50"\n', r"multiplier: .*less than or equal to 10"),
        ("p.toml", "[[models\n", "correct the syntax"),
        ("p.yaml", "models: [{model: m, model: n, input: 1}]", "a key is given twice"),
        ("p.yaml", "models: [{model: m, input: .inf}]", "not a decimal number"),
        ("p.yaml", "- 1", "must hold the lists"),
        ("p.json", "{}", r"name the price file \*\.toml"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_place_and_cure(tmp_path: Path, name: str, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        book_of(tmp_path, text, name)

    assert str(tmp_path / name) in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.toml: cannot be read"):
        PriceBook.load(tmp_path / "absent.toml")


def test_an_empty_yaml_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")

    file = PriceFile.read(tmp_path / "empty.yaml")

    assert (file.models, file.tenants, file.service_tiers) == ((), (), ())


def test_prices_by_the_time_of_day_are_told_anew_each_day_and_once() -> None:
    book = PriceBook.load()
    days = [datetime(2025, 6, day, 8, tzinfo=UTC) for day in (2, 3)]
    calls = [days[0], days[0] + timedelta(hours=1), days[1], days[0] + timedelta(hours=2), days[1] + timedelta(hours=1)]

    for at in calls:
        assert book.price(None, "deepseek", None, "deepseek-chat", None, at, 10, 10).status == "priced"

    first, second = book.quotes
    for quote, day in zip((first, second), days, strict=True):
        assert quote.since <= day < quote.until <= quote.since + timedelta(days=1)
    assert first.rates == second.rates
