"""A bill beside what was metered: columns as providers name them, models as they call them, and every difference."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate.processors.invoice import NANO, Amount, compare, key, read
from tidegate.schemas.errors import UsageError

DAY = date(2026, 11, 2)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        (
            "usage_date_utc,model,workspace,token_type,cost_usd\n"
            "2026-11-02,Claude Haiku 4.5,Default,input_no_cache,0.05\n"
            "2026-11-02,Claude Haiku 4.5,Default,output,0.20\n",
            Amount(DAY, "Claude Haiku 4.5", cost_nano_usd=250_000_000),
        ),
        (
            "usage_date_utc,model_version,usage_input_tokens_no_cache,usage_input_tokens_cache_write_5m,"
            "usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,usage_output_tokens\n"
            "2026-11-02 00:00:00,claude-haiku-4-5-20251001,100,10,1,1000,7\n",
            Amount(DAY, "claude-haiku-4-5-20251001", input_tokens=1_111, output_tokens=7),
        ),
        (
            '"start_time","end_time","start_time_iso","amount_value","amount_currency","line_item"\n'
            '1793577600,1793664000,2026-11-02T00:00:00+00:00,0.06,usd,"gpt-4o-2024-08-06, input"\n',
            Amount(DAY, "gpt-4o-2024-08-06, input", cost_nano_usd=60_000_000),
        ),
        (
            "start_time,num_model_requests,input_tokens,output_tokens,model\n1793577600,3,1000,100,gpt-4o\n",
            Amount(DAY, "gpt-4o", requests=3, input_tokens=1_000, output_tokens=100),
        ),
        ("\ufeffDate;x,Model,Total Cost\n2026-11-02,m,1\n".replace(";x", ""), Amount(DAY, "m", cost_nano_usd=NANO)),
        ('day,model,cost\n2026-11-02,m,"$1,234.567890123"\n\n', Amount(DAY, "m", cost_nano_usd=1_234_567_890_123)),
        ("day,model,cost,requests\n2026-11-02,m,,2\n", Amount(DAY, "m", requests=2)),
        ("day,model,cost\n2026-11-02,credit,-5.00 USD\n", Amount(DAY, "credit", cost_nano_usd=-5 * NANO)),
        ("timestamp,model,cost\n2026-11-01T22:00:00-05:00,m,1\n", Amount(DAY, "m", cost_nano_usd=NANO)),
    ],
    ids=[
        "anthropic cost",
        "anthropic tokens",
        "openai costs",
        "openai completions",
        "marked",
        "dollars",
        "empty",
        "credit",
        "zone",
    ],
)
def test_a_bill_is_read_as_its_sender_writes_it(text: str, amount: Amount) -> None:
    assert read(text.splitlines(keepends=True)) == [amount]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "columns are none"),
        ("model,cost\nm,1\n", "no day: name a column usage_date_utc"),
        ("day,cost\n2026-11-02,1\n", "no model: name a column"),
        ("day,model\n2026-11-02,m\n", "none of them is a cost"),
        ("day,model,cost\n02/11/2026,m,1\n", "line 2 .* 2026-03-01"),
        ("day,model,cost\n2026-11-02,m,1\n2026-11-02,m,many\n", "line 3 .* a number"),
        ('day,model,cost\n2026-11-02,m,"0,05"\n', "line 2 .* a number"),
        ('day,model,cost\n2026-11-02,m,"1.234,56"\n', "line 2 .* a number"),
        ("day,model,cost\n2026-11-02,m,inf\n", "line 2 .* a number"),
        ("day,model,cost\n2026-11-02\n", "line 2 .* fewer columns"),
        ("day,model,cost,currency\n2026-11-02,m,1,EUR\n", "line 2 .* EUR"),
    ],
)
def test_what_is_no_bill_is_told_with_what_to_do(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        read(text.splitlines(keepends=True))


@pytest.mark.parametrize(
    ("billed", "metered"),
    [
        ("Claude Haiku 4.5", "claude-haiku-4-5-20251001"),
        ("Claude Sonnet 3.5", "claude-3-5-sonnet-latest"),
        ("gpt-4o-2024-08-06, cached input", "gpt-4o"),
        ("gpt-4.1-mini", "gpt-4.1-mini-2025-04-14"),
        ("claude-haiku-4-5@20251001", "anthropic/claude-haiku-4.5"),
    ],
)
def test_two_names_of_one_model_match(billed: str, metered: str) -> None:
    assert key(billed) == key(metered)


@pytest.mark.parametrize(
    ("one", "other"), [("gpt-4o", "gpt-4o-mini"), ("gpt-4.1", "gpt-4"), ("o4-mini", "gpt-4o-mini"), ("o3", "o1")]
)
def test_two_models_do_not(one: str, other: str) -> None:
    assert key(one) != key(other)


def test_versions_of_a_model_are_one_line_and_the_largest_difference_is_first() -> None:
    billed = [
        Amount(DAY, "gpt-4o-2024-05-13, input", cost_nano_usd=3 * NANO),
        Amount(DAY, "gpt-4o-2024-08-06, output", cost_nano_usd=4 * NANO),
        Amount(DAY, "Web search", cost_nano_usd=9 * NANO),
    ]
    metered = [
        Amount(DAY, "gpt-4o-2024-08-06", cost_nano_usd=6 * NANO, unpriced=2),
        Amount(DAY, "gpt-4o", cost_nano_usd=NANO, unpriced=1),
        Amount(date(2026, 11, 3), "gpt-4o", cost_nano_usd=2 * NANO),
    ]

    found = compare(billed, metered)

    assert [(match.model, match.day.day, match.difference("cost_nano_usd")) for match in found] == [
        ("Web search", 2, -9 * NANO),
        ("gpt-4o", 3, 2 * NANO),
        ("gpt-4o", 2, 0),
    ]
    assert found[2].metered is not None
    assert found[2].metered.unpriced == 3
    assert found[2].difference("input_tokens") is None


@given(
    st.lists(st.tuples(st.sampled_from(["a-1", "a-1-2026-01-02", "b"]), st.integers(1, 9), st.integers(0, 10**12)), max_size=20)
)
def test_no_amount_is_lost(amounts: list[tuple[str, int, int]]) -> None:
    lines = [f"2026-11-{day:02d},{model},{Decimal(nano) / NANO:f}\n" for model, day, nano in amounts]

    found = compare(read(["day,model,cost\n", *lines]), [])

    assert sum(match.billed.cost_nano_usd or 0 for match in found if match.billed) == sum(nano for _, _, nano in amounts)
    assert len({(match.day, match.model) for match in found}) == len(found)
