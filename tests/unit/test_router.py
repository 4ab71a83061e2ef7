"""The cheapest model that is capable of a task, and that the gate lets go."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from signalling import Stage, policy
from tidegate.producers.fallback import Candidate
from tidegate.producers.router import Model, Router
from tidegate.schemas.errors import GateClosed, UsageError
from tidegate.schemas.policy import RequestLimit

MINI = Model(provider="openai", model="gpt-4o-mini", capability=1, input_usd="0.15", output_usd="0.60", context_tokens=128_000)
HAIKU = Model(
    provider="anthropic", model="claude-haiku-4-5", capability=2, input_usd="1", output_usd="5", context_tokens=200_000
)
GPT = Model(provider="openai", model="gpt-4o", capability=3, input_usd="2.5", output_usd="10", context_tokens=128_000)
SONNET = Model(
    provider="anthropic", model="claude-sonnet-4-5", capability=3, input_usd="3", output_usd="15", context_tokens=1_000_000
)
LOCAL = Model(provider="clinic", model="llama-clinic", capability=1)
MODELS = (SONNET, GPT, HAIKU, LOCAL, MINI)
TASKS = {"chat": 1, "triage": 2, "coding": 3}


def router(stage: Stage | None = None, **fields: Any) -> Router:
    return Router(MODELS, tasks=TASKS, gate=None if stage is None else stage.gate, **fields)


@pytest.mark.parametrize(("task", "model"), [("chat", "gpt-4o-mini"), ("triage", "claude-haiku-4-5"), ("coding", "gpt-4o")])
def test_a_task_gets_the_cheapest_model_that_is_capable_of_it(task: str, model: str) -> None:
    choice = router().choose(task_type=task)

    assert choice.model == model


def test_a_choice_explains_itself() -> None:
    choice = router().choose(task_type="triage", input_tokens=2_000, output_tokens=100)

    assert choice.reason == "cheapest of 3 for triage (capability 2), $0.0025 a call"
    assert choice.cost_usd == Decimal("0.0025")
    assert (choice.provider, choice.decision) == ("anthropic", None)


def test_the_harder_of_task_and_complexity_decides() -> None:
    found = router()

    assert found.choose(task_type="chat", complexity=3).model == "gpt-4o"
    assert found.choose(task_type="coding", complexity=1).model == "gpt-4o"
    assert found.choose(complexity=2).model == "claude-haiku-4-5"


def test_a_task_that_nobody_has_placed_gets_the_most_capable() -> None:
    choice = router().choose(task_type="discharge-letters")

    assert choice.model == "gpt-4o"
    assert "discharge-letters, which is not in the table (capability 3)" in choice.reason
    assert router(otherwise=1).choose(task_type="discharge-letters").model == "gpt-4o-mini"
    assert router(otherwise=1).choose().model == "gpt-4o-mini"


def test_which_is_cheapest_depends_on_the_call() -> None:
    reader = Model(provider="a", model="reader", capability=1, input_usd="1", output_usd="20")
    writer = Model(provider="b", model="writer", capability=1, input_usd="4", output_usd="5")
    found = Router([reader, writer])

    assert found.choose(input_tokens=10_000, output_tokens=100).model == "reader"
    assert found.choose(input_tokens=100, output_tokens=1_000).model == "writer"


def test_a_model_without_a_price_does_not_look_free() -> None:
    found = Router([LOCAL, SONNET])

    assert found.choose(complexity=1).model == "claude-sonnet-4-5"


def test_a_free_model_is_the_cheapest() -> None:
    free = LOCAL.model_copy(update={"input_usd": Decimal(0), "output_usd": Decimal(0)})

    assert Router([MINI, free]).choose(complexity=1).model == "llama-clinic"


def test_a_call_that_has_no_room_in_a_model_goes_to_one_where_it_has() -> None:
    choice = router().choose(task_type="coding", input_tokens=127_900, output_tokens=200)

    assert choice.model == "claude-sonnet-4-5"


def test_without_a_capable_model_the_person_who_asked_is_told() -> None:
    with pytest.raises(UsageError, match=r"capability 2 \(triage .*room for 2,000,000 tokens"):
        router().choose(task_type="triage", input_tokens=2_000_000)
    with pytest.raises(UsageError, match=r"capability 9 .*the most there is is 3"):
        router().choose(complexity=9)


def test_prices_are_compared_exactly() -> None:
    a = {"provider": "a", "model": "a", "capability": 1, "input_usd": 0.3, "output_usd": 0}
    b = {"provider": "b", "model": "b", "capability": 2, "input_usd": "0.30000000000000000", "output_usd": "0"}

    # As binary fractions 0.1 + 0.2 and 0.3 differ; as prices these two are one, and then the more capable is taken.
    assert Router([a, b]).choose(complexity=1, input_tokens=3, output_tokens=0).model == "b"


def test_a_model_whose_gate_is_closed_is_passed_over_and_named() -> None:
    stage = Stage()
    stage.enforce(policy("breaker", measure="error_rate", limit="0.5", scope=["provider_name"], window={"rolling": "5m"}))
    scope = {"provider_name": "openai"}
    stage.tell(stage.signal("breaker", 1.0, state="block", scope=scope, measure="error_rate", reason="breaker: 60% errors"))

    choice = router(stage).choose(task_type="coding")

    assert choice.model == "claude-sonnet-4-5"
    assert choice.reason == (
        "cheapest open one of 2 for coding (capability 3), $0.00675 a call; openai gpt-4o is closed: breaker: 60% errors"
    )
    assert choice.decision is not None
    assert choice.decision.allowed


def test_when_every_capable_model_is_closed_the_refusal_says_which() -> None:
    stage = Stage()
    stage.enforce(policy("stop", measure="requests", limit=0))

    with pytest.raises(
        GateClosed, match=r"none of 2 candidates may be asked: openai gpt-4o: stop: .*; anthropic claude-sonnet"
    ):
        router(stage).choose(task_type="coding")


def test_a_downgrade_is_obeyed_and_asked_of_the_provider_that_has_the_model() -> None:
    stage = Stage()
    stage.enforce(policy("thrift", scope=["tenant"], actions=[{"do": "downgrade", "model": "gpt-4o-mini"}]))
    stage.tell(
        stage.signal(
            "thrift", 1_000, state="downgrade", model="gpt-4o-mini", scope={"tenant": "harbor-health"}, reason="thrift: 1,000"
        )
    )

    choice = router(stage).choose(task_type="triage", scope={"tenant": "harbor-health"})
    other = router(stage).choose(task_type="triage", scope={"tenant": "st-anne"})

    assert (choice.provider, choice.model) == ("openai", "gpt-4o-mini")
    assert choice.reason.endswith("; thrift downgrades claude-haiku-4-5 to gpt-4o-mini: thrift: 1,000")
    assert choice.cost_usd == Decimal("0.0003")
    assert other.model == "claude-haiku-4-5"


def test_bounds_on_a_single_call_are_asked_with_its_size() -> None:
    stage = Stage()
    stage.enforce(RequestLimit(name="triage-call", match={"task_type": ["triage"]}, max_input_tokens=4_000))

    assert router(stage).choose(task_type="triage", input_tokens=4_000)
    with pytest.raises(GateClosed, match="at most 4,000"):
        router(stage).choose(task_type="triage", input_tokens=4_001)


def test_all_capable_models_by_price_make_a_chain() -> None:
    chain = router().chain(task_type="triage")

    assert chain == [
        Candidate("anthropic", "claude-haiku-4-5"),
        Candidate("openai", "gpt-4o"),
        Candidate("anthropic", "claude-sonnet-4-5"),
    ]


def test_a_file_says_the_same_as_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text(
        """
        otherwise = 1
        [tasks]
        triage = 2
        [[models]]
        provider = "openai"
        model = "gpt-4o-mini"
        capability = 1
        input_usd = 0.15
        output_usd = 0.60
        [[models]]
        provider = "anthropic"
        model = "claude-haiku-4-5"
        capability = 2
        """
    )

    found = Router.read(path)

    assert found.models[0].input_usd == Decimal("0.15")
    assert found.choose(task_type="triage").model == "claude-haiku-4-5"
    assert found.choose(task_type="chat").model == "gpt-4o-mini"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("models = []", "models: Tuple should have at least 1 item"),
        ("[[models]]\nprovider='a'\nmodel='m'", r"models\.0\.capability: Field required"),
        ("[[models]]\nprovider='a'\nmodel='m'\ncapability=1\nprice=3", r"models\.0\.price: Extra inputs"),
        ("[[models]]\nprovider='a'\nmodel='m'\ncapability=1\ninput_usd=3", "neither: half a price"),
        ("[tasks]\nx=2\n[[models]]\nprovider='a'\nmodel='m'\ncapability=1", "x: no model has more than capability 1"),
        ("otherwise=2\n[[models]]\nprovider='a'\nmodel='m'\ncapability=1", "otherwise: no model has more"),
        ("models = [", "correct the syntax"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_by_name(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "models.toml"
    path.write_text(text)

    with pytest.raises(UsageError, match=rf"models\.toml: .*{told}"):
        Router.read(path)


def test_a_file_that_is_not_there_and_a_model_that_is_there_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        Router.read(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="openai gpt-4o-mini is there twice"):
        Router([MINI, MINI.model_copy(update={"provider": "OpenAI"})])


@st.composite
def _fleets(draw: st.DrawFn) -> list[Model]:
    price = st.none() | st.tuples(st.decimals(0, 100, places=3), st.decimals(0, 100, places=3))
    fleet = []
    for number in range(draw(st.integers(1, 6))):
        usd = draw(price) or (None, None)
        fleet.append(
            Model(provider="p", model=f"m{number}", capability=draw(st.integers(1, 4)), input_usd=usd[0], output_usd=usd[1])
        )
    return fleet


@given(_fleets(), st.integers(1, 4), st.integers(0, 100_000), st.integers(0, 10_000))
def test_no_capable_model_is_cheaper_than_the_chosen_one(fleet: list[Model], needed: int, taken: int, made: int) -> None:
    capable = {model.model: model.cost_usd(taken, made) for model in fleet if model.capability >= needed}
    if not capable:
        return

    choice = Router(fleet).choose(complexity=needed, input_tokens=taken, output_tokens=made)

    priced = [cost for cost in capable.values() if cost is not None]
    assert choice.model in capable
    assert choice.cost_usd == (min(priced) if priced else None)
