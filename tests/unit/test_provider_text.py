"""The texts of a call, out of every shape that providers speak, and of nothing that is no text."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tidegate.producers.call_texts import CallTexts, chunk_body
from tidegate.schemas.provider_text import chunk_text, prompt_text, response_text


def as_objects(value: Any) -> Any:
    """As an SDK has it: attributes in the place of keys."""
    if isinstance(value, dict):
        return SimpleNamespace(**{name: as_objects(item) for name, item in value.items()})
    return [as_objects(item) for item in value] if isinstance(value, list) else value


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


K = [{"type": "text", "text": "K 4.1"}]

PROMPTS = {
    "text": ("Hello?", "Hello?"),
    "chat": ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}], "Be brief.\n\nHello?"),
    "parts": (
        [
            {
                "role": "user",
                "content": [{"type": "text", "text": "Look:"}, {"type": "image_url", "image_url": {"url": "data:xyz"}}],
            }
        ],
        "Look:",
    ),
    "request": (
        {"model": "m", "system": "Be brief.", "messages": user("Hello?")},
        "Be brief.\n\nHello?",
    ),
    "system blocks": ({"system": [{"type": "text", "text": "A"}], "messages": [{"role": "user", "content": "B"}]}, "A\n\nB"),
    "tool result": (
        [
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "K 4.1"}]}],
            }
        ],
        "K 4.1",
    ),
    "tool message": ([{"role": "tool", "tool_call_id": "t", "content": "K 4.1"}], "K 4.1"),
    "document": (
        [{"role": "user", "content": [{"type": "document", "source": {"type": "text", "data": "A letter"}}]}],
        "A letter",
    ),
    "google": (
        {
            "system_instruction": {"parts": [{"text": "A"}]},
            "contents": [{"role": "user", "parts": [{"text": "B"}, {"text": "C"}]}],
        },
        "A\n\nB\n\nC",
    ),
    "openai responses": (
        {"instructions": "A", "input": [{"role": "user", "content": [{"type": "input_text", "text": "B"}]}]},
        "A\n\nB",
    ),
    "input": ({"input": "embed this"}, "embed this"),
    "inputs": ({"input": ["one", "two"]}, "one\n\ntwo"),
    "bedrock": ({"system": [{"text": "A"}], "messages": [{"role": "user", "content": [{"text": "B"}]}]}, "A\n\nB"),
    "one message": ({"role": "user", "content": "B"}, "B"),
    "numbers": ({"input": [1, 2, 3]}, None),
    "nothing": ([], None),
    "blank": ("  ", "  "),
    "none": (None, None),
    "a number": (7, None),
}

RESPONSES = {
    "text": ("Yes.", "Yes."),
    "openai chat": (
        {"choices": [{"message": {"role": "assistant", "content": "Yes."}}, {"message": {"content": "No."}}]},
        "Yes.",
    ),
    "openai tool call": (
        {"choices": [{"message": {"content": None, "tool_calls": [{"function": {"arguments": '{"mrn": 7}'}}]}}]},
        '{"mrn": 7}',
    ),
    "openai refusal": ({"choices": [{"message": {"content": None, "refusal": "I cannot."}}]}, "I cannot."),
    "openai completion": ({"choices": [{"text": "Yes."}]}, "Yes."),
    "openai responses": (
        {
            "object": "response",
            "output": [
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hidden"}]},
                {"type": "message", "content": [{"type": "output_text", "text": "Yes."}]},
                {"type": "function_call", "arguments": "{}"},
            ],
        },
        "Yes.\n\n{}",
    ),
    "anthropic": (
        {"type": "message", "content": [{"type": "thinking", "thinking": "hidden"}, {"type": "text", "text": "Yes."}]},
        "Yes.",
    ),
    "anthropic tool": (
        {"type": "message", "content": [{"type": "text", "text": "I look."}, {"type": "tool_use", "input": {"mrn": 7}}]},
        'I look.\n\n{"mrn":7}',
    ),
    "google": ({"candidates": [{"content": {"parts": [{"text": "hidden", "thought": True}, {"text": "Yes."}]}}]}, "Yes."),
    "google function": ({"candidates": [{"content": {"parts": [{"functionCall": {"args": {"mrn": 7}}}]}}]}, '{"mrn":7}'),
    "bedrock": ({"output": {"message": {"content": [{"text": "Yes."}]}}, "stopReason": "end_turn"}, "Yes."),
    "titan": ({"results": [{"outputText": "Yes."}]}, "Yes."),
    "cohere chat": ({"message": {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]}}, "Yes."),
    "cohere generate": ({"text": "Yes."}, "Yes."),
    "ollama": ({"response": "Yes.", "done": True}, "Yes."),
    "embeddings": ({"object": "list", "data": [{"embedding": [0.1]}]}, None),
    "an error": ({"error": {"message": "no"}}, None),
    "none": (None, None),
}

CHUNKS = {
    "text": ("Ye", "Ye"),
    "openai": ({"choices": [{"delta": {"content": "Ye"}}]}, "Ye"),
    "openai role": ({"choices": [{"delta": {"role": "assistant"}}]}, ""),
    "openai end": ({"choices": [], "usage": {"total_tokens": 3}}, ""),
    "openai tool": ({"choices": [{"delta": {"tool_calls": [{"function": {"arguments": '{"m'}}]}}]}, '{"m'),
    "openai responses": ({"type": "response.output_text.delta", "delta": "Ye"}, "Ye"),
    "openai responses end": ({"type": "response.completed", "response": {"output": [{"content": [{"text": "Yes"}]}]}}, ""),
    "openai thinking": ({"type": "response.reasoning_summary_text.delta", "delta": "hidden"}, ""),
    "anthropic": ({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Ye"}}, "Ye"),
    "anthropic tool": ({"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": '{"m'}}, '{"m'),
    "anthropic thinking": ({"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hidden"}}, ""),
    "anthropic start": ({"type": "message_start", "message": {"content": []}}, ""),
    "google": ({"candidates": [{"content": {"parts": [{"text": "Ye"}]}}]}, "Ye"),
    "bedrock": ({"contentBlockDelta": {"delta": {"text": "Ye"}}}, "Ye"),
    "none": (None, ""),
}


@pytest.mark.parametrize(("given", "text"), PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("form", [lambda given: given, as_objects], ids=["json", "objects"])
def test_what_was_asked_is_found(given: Any, text: str | None, form: Any) -> None:
    assert prompt_text(form(given)) == text


@pytest.mark.parametrize(("given", "text"), RESPONSES.values(), ids=RESPONSES)
def test_what_was_answered_is_found(given: Any, text: str | None) -> None:
    assert response_text(given) == text


@pytest.mark.parametrize("shape", ["openai chat", "anthropic", "google", "openai responses", "bedrock", "openai refusal"])
def test_what_was_answered_is_found_in_an_sdks_objects(shape: str) -> None:
    given, text = RESPONSES[shape]

    assert (response_text(as_objects(given)) or "").split("\n\n")[0] == (text or "").split("\n\n")[0]


@pytest.mark.parametrize(("given", "text"), CHUNKS.values(), ids=CHUNKS)
@pytest.mark.parametrize("form", [lambda given: given, as_objects], ids=["json", "objects"])
def test_what_a_stream_adds_is_found(given: Any, text: str, form: Any) -> None:
    assert chunk_text(form(given)) == text


def test_messages_in_messages_without_end_are_left_at_some_depth() -> None:
    nested: dict[str, Any] = {"content": "far away"}
    for _ in range(50):
        nested = {"content": [nested]}

    assert prompt_text([nested]) is None


@pytest.mark.parametrize(
    ("chunk", "text"),
    [
        ("guide-17", None),
        ("A sentence.", "A sentence."),
        ({"id": "guide-17", "score": 0.8}, None),
        ({"id": "guide-17", "text": "A guide."}, "A guide."),
        ({"page_content": "A guide.", "metadata": {"source": "x"}}, "A guide."),
        (({"content": "A guide."}, 0.8), "A guide."),
        (("A guide, in words.", 0.8), "A guide, in words."),
        ({"document": {"text": "A guide."}}, "A guide."),
        (SimpleNamespace(node=SimpleNamespace(text="A guide."), score=0.8), "A guide."),
        (None, None),
        (b"bytes", None),
        (7, None),
    ],
    ids=range(12),
)
def test_a_chunks_text_is_found_beside_its_id(chunk: Any, text: str | None) -> None:
    assert chunk_body(chunk) == text


def test_the_texts_of_a_call_come_together_and_are_not_shown() -> None:
    found = CallTexts()
    empty = bool(found)

    found.asked("one")
    found.asked([{"role": "user", "content": "two"}])
    found.given(["word", {"text": "chunk"}])
    found.retrieved(["guide-17", {"id": "guide-1", "text": "chunk"}, {"text": "other"}])
    found.streamed("Fi")
    found.streamed("ne")
    streamed = found.found()["response"]
    found.answered({"content": [{"type": "text", "text": "Fine, thanks."}]})

    assert not empty
    assert found
    assert found.found() == {"prompt": "one\n\ntwo", "response": "Fine, thanks.", "context": ["word", "chunk", "other"]}
    assert streamed == "Fine"
    assert "one" not in repr(found)
