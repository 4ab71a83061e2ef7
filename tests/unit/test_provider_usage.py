"""Every provider's habit of counting comes out the same way; golden files hold what each has been seen to say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate.schemas.call import TOKEN_FIELDS
from tidegate.schemas.provider_response import ResponseFacts, read_response
from tidegate.schemas.provider_usage import canonical_provider, normalise_usage

GOLDEN = sorted((Path(__file__).parents[1] / "golden" / "provider_usage").glob("*.json"))


def attributes(value: Any) -> Any:
    """The same response as an SDK hands it out: objects with attributes in place of mappings."""
    if isinstance(value, Mapping):
        return SimpleNamespace(**{key.replace("-", "_"): attributes(inner) for key, inner in value.items()})
    return [attributes(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_response_seen_in_the_wild_reads_as_it_always_has(path: Path) -> None:
    golden = json.loads(path.read_text())

    facts = read_response(golden["response"], golden["provider_name"])

    assert asdict(facts) == golden["expected"]


@pytest.mark.parametrize("path", [path for path in GOLDEN if "headers" not in path.stem], ids=lambda path: path.stem)
def test_an_sdk_object_reads_as_its_json(path: Path) -> None:
    golden = json.loads(path.read_text())

    facts = read_response(attributes(golden["response"]), golden["provider_name"])

    assert asdict(facts) == golden["expected"]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_raw_usage_alone_gives_the_same_tokens(path: Path) -> None:
    golden = json.loads(path.read_text())
    response = golden["response"]
    response = response.get("response", response)
    usage = next((response[key] for key in ("usage", "usageMetadata", "usage_metadata", "meta") if key in response), None)
    if usage is None:
        usage = response.get("ResponseMetadata", {}).get("HTTPHeaders", response)

    tokens = normalise_usage(usage, golden["provider_name"])

    assert tokens == golden["expected"]["tokens"]
    assert set(tokens) <= set(TOKEN_FIELDS)


@pytest.mark.parametrize(
    ("usage", "says"),
    [
        ({"prompt_tokens": -1, "completion_tokens": 2}, "prompt_tokens must not be negative"),
        ({"prompt_tokens": 1.5, "completion_tokens": 2}, "prompt_tokens must be a whole number"),
        ({"input_tokens": True, "output_tokens": 2}, "input_tokens must be a whole number"),
        ({"input_tokens": "12", "output_tokens": 2}, "input_tokens must be a whole number"),
        ({"inputTokens": float("nan")}, "inputTokens must be a whole number"),
        ({"input_tokens": 5, "input_tokens_details": {"cached_tokens": 6}}, "more cached tokens than input"),
        ({"input_tokens": 5, "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 6}}, "more reasoning"),
        ({"x-amzn-bedrock-input-token-count": "many"}, "headers must be whole numbers"),
        ({"total_tokens": 7}, "no known shape"),
        ({"words": 7}, "no known shape"),
    ],
)
def test_a_usage_that_cannot_be_is_refused_with_what_to_do(usage: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        normalise_usage(usage)

    assert "send" in str(refused.value)


@pytest.mark.parametrize(
    "usage",
    [
        {"SECRET-NAME": "SECRET-TEXT"},
        {"prompt_tokens": "SECRET-TEXT", "SECRET-NAME": 1},
        {"x-amzn-bedrock-SECRET-NAME-token-count": "SECRET-TEXT"},
        {"promptTokenCount": 3, "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": "SECRET-TEXT"}]},
    ],
)
def test_a_refusal_never_repeats_what_was_sent(usage: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="usage") as refused:
        normalise_usage(usage)

    assert "SECRET" not in str(refused.value)


def test_an_empty_usage_states_nothing() -> None:
    assert normalise_usage({}) == {}
    assert normalise_usage({"prompt_tokens": None, "completion_tokens": None}) == {}


def test_openais_name_settles_a_shape_that_anthropic_shares() -> None:
    usage = {"input_tokens": 100, "output_tokens": 5, "cache_read_input_tokens": 40}

    assert normalise_usage(usage, "anthropic")["input_tokens"] == 140
    assert normalise_usage(usage, None)["input_tokens"] == 140
    assert normalise_usage(usage, "azure_openai")["input_tokens"] == 100


def test_reasoning_of_xai_is_outside_when_no_total_tells() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 100, "completion_tokens_details": {"reasoning_tokens": 60}}

    assert normalise_usage(usage, "x_ai")["output_tokens"] == 160
    assert normalise_usage(usage, "openai")["output_tokens"] == 100


@given(
    plain=st.integers(0, 10_000),
    read=st.integers(0, 10_000),
    five=st.integers(0, 10_000),
    hour=st.integers(0, 10_000),
    output=st.integers(0, 10_000),
)
def test_the_same_call_counts_the_same_through_anthropic_bedrock_and_a_gateway(
    plain: int, read: int, five: int, hour: int, output: int
) -> None:
    split = {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour}
    anthropic = {
        "input_tokens": plain,
        "output_tokens": output,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": five + hour,
        "cache_creation": split,
    }
    bedrock = {
        "inputTokens": plain,
        "outputTokens": output,
        "cacheReadInputTokens": read,
        "cacheWriteInputTokens": five + hour,
        "cacheDetails": [{"ttl": "1h", "inputTokens": hour}, {"ttl": "5m", "inputTokens": five}],
    }
    gateway = {
        "prompt_tokens": plain + read + five + hour,
        "completion_tokens": output,
        "prompt_tokens_details": {"cached_tokens": read, "cache_creation_token_details": split},
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": five + hour,
    }

    counts = [normalise_usage(usage) for usage in (anthropic, bedrock, gateway)]

    assert counts[0] == counts[1] == counts[2]
    assert counts[0]["input_tokens"] == plain + read + five + hour


def test_an_object_that_only_dumps_itself_is_read_from_its_dump() -> None:
    class Dumped:
        def to_dict(self) -> dict[str, object]:
            return {"model": "gpt-4o", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}

    facts = read_response(Dumped(), "openai")

    assert facts.tokens == {"input_tokens": 1, "output_tokens": 2}
    assert facts.response_model == "gpt-4o"


def test_an_enum_of_an_sdk_reads_as_its_code() -> None:
    class FinishReason(Enum):
        STOP = 1

    response = SimpleNamespace(candidates=[SimpleNamespace(finish_reason=FinishReason.STOP)])

    assert read_response(response).finish_reason == "stop"


def test_missing_and_malformed_parts_stay_unknown() -> None:
    bare: list[object] = [
        {"choices": None, "object": "chat.completion"},
        {"choices": [None], "usage": None},
        {"candidates": [{}]},
        {"usage": {"prompt_tokens": -4}, "model": 7, "id": ["x"]},
        {"usage": "none", "stop_reason": None},
    ]

    assert [read_response(response) for response in bare] == [ResponseFacts()] * len(bare)


def test_text_where_a_code_belongs_is_dropped() -> None:
    sentence = "the patient said that it hurts"

    facts = read_response(
        {"model": sentence, "id": sentence, "service_tier": sentence, "choices": [{"finish_reason": sentence}], "usage": {}}
    )

    assert facts == ResponseFacts()


@pytest.mark.parametrize("response", [None, "text", b"bytes", 3, [], {}, {"answer": "text"}, object()])
def test_what_is_no_response_at_all_is_refused(response: object) -> None:
    with pytest.raises(ValueError, match="pass the decoded JSON body"):
        read_response(response)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("OpenAI", "openai"),
        ("azure-openai", "azure.ai.openai"),
        ("Vertex AI", "gcp.vertex_ai"),
        ("google", "gcp.gen_ai"),
        ("x-ai", "x_ai"),
        ("mistral", "mistral_ai"),
        ("aws.bedrock", "aws.bedrock"),
        ("gcp.gemini", "gcp.gemini"),
        ("my-own-cluster", "my-own-cluster"),
    ],
)
def test_a_provider_goes_by_its_opentelemetry_name(spelling: str, name: str) -> None:
    assert canonical_provider(spelling) == name
    assert canonical_provider(name) == name
