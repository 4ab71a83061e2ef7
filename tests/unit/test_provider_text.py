"""The texts of a call, out of every shape that providers speak, and of nothing that is no text."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel
from tidegate.producers.call_texts import CallTexts
from tidegate.schemas.message_parts import chunk_body
from tidegate.schemas.provider_stream import StreamedText
from tidegate.schemas.provider_text import read_answer, read_request


def as_objects(value: Any) -> Any:
    """As an SDK has it: attributes in the place of keys."""
    if isinstance(value, dict):
        return SimpleNamespace(**{name: as_objects(item) for name, item in value.items()})
    return [as_objects(item) for item in value] if isinstance(value, list) else value


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def streamed(*events: Any) -> str | None:
    stream = StreamedText()
    for event in events:
        stream.add(event)
    return stream.text()


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
    "google function": (
        {
            "contents": [
                {"role": "model", "parts": [{"functionCall": {"name": "chart", "args": {"mrn": 7}}}]},
                {"role": "user", "parts": [{"functionResponse": {"name": "chart", "response": {"k": "4.1"}}}]},
            ],
        },
        '{"mrn":7}\n\n{"k":"4.1"}',
    ),
    "google sdk": ({"model": "m", "contents": "B", "config": {"system_instruction": "A"}}, "A\n\nB"),
    "google camel": ({"systemInstruction": {"parts": [{"text": "A"}]}, "contents": [{"parts": [{"text": "B"}]}]}, "A\n\nB"),
    "responses items": (
        {
            "input": [
                {"type": "message", "role": "user", "content": "A"},
                {"type": "function_call", "name": "chart", "arguments": '{"mrn": 7}'},
                {"type": "function_call_output", "output": "K 4.1"},
                {"type": "function_call_output", "output": [{"type": "input_text", "text": "Na 140"}]},
                {"type": "custom_tool_call", "input": "look"},
                {"type": "custom_tool_call_output", "output": "seen"},
                {"type": "mcp_call", "arguments": "{}", "output": "done"},
                {"type": "local_shell_call", "action": {"type": "exec", "command": ["ls"]}},
            ]
        },
        'A\n\n{"mrn": 7}\n\nK 4.1\n\nNa 140\n\nlook\n\nseen\n\ndone\n\n{}\n\nls',
    ),
    "responses prompt": ({"prompt": {"id": "p", "variables": {"name": "Rosa"}}}, '{"name":"Rosa"}'),
    "openai history": (
        [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": '{"mrn": 7}'}}]}],
        '{"mrn": 7}',
    ),
    "openai old function": ([{"role": "assistant", "function_call": {"name": "f", "arguments": '{"mrn": 7}'}}], '{"mrn": 7}'),
    "cohere v1": (
        {"preamble": "A", "chat_history": [{"role": "USER", "message": "B"}], "message": "C"},
        "A\n\nB\n\nC",
    ),
    "ollama generate": ({"system": "A", "prompt": "B", "context": [1, 2, 3]}, "A\n\nB"),
    "titan": ({"inputText": "A"}, "A"),
    "invoke model": ({"modelId": "m", "body": '{"prompt": "A"}'}, "A"),
    "invoke model bytes": ({"modelId": "m", "body": b'{"messages": [{"role": "user", "content": "A"}]}'}, "A"),
    "hugging face": ({"inputs": "A", "parameters": {"max_new_tokens": 5}}, "A"),
    "langchain turns": ([("system", "A"), ("human", "B")], "A\n\nB"),
    "langchain dumps": ([{"type": "human", "data": {"content": "A"}}, {"lc": 1, "kwargs": {"content": "B"}}], "A\n\nB"),
    "langchain parts": ([{"type": "human", "content": [{"type": "text", "text": "A"}, "B"]}], "A\n\nB"),
    "langchain calls": ([{"type": "ai", "content": "", "tool_calls": [{"name": "f", "args": {"mrn": 7}}]}], '{"mrn":7}'),
    "a pair of messages": (({"role": "user", "content": "A"}, {"role": "user", "content": "B"}), "A\n\nB"),
    "odd type": ([{"type": ["text"], "text": "A"}], "A"),
    "empty content beside prose": ([{"content": "", "utterance": "How are you?"}], "How are you?"),
    "llamaindex": ([{"role": "user", "blocks": [{"block_type": "text", "text": "A"}]}], "A"),
    "bedrock tools": (
        [
            {"role": "assistant", "content": [{"toolUse": {"name": "f", "input": {"mrn": 7}}}]},
            {"role": "user", "content": [{"toolResult": {"content": [{"text": "A"}, {"json": {"k": 4}}]}}]},
        ],
        '{"mrn":7}\n\nA\n\n{"k":4}',
    ),
    "anthropic tool": (
        [{"role": "assistant", "content": [{"type": "server_tool_use", "input": {"query": "x"}}]}],
        '{"query":"x"}',
    ),
    "own prose": ([{"role": "user", "utterance": "How are you?"}], "How are you?"),
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
    "blank": ("  ", None),
    "none": (None, None),
    "a number": (7, None),
}

LETTER = "A letter"
IBUPROFEN = "Ibuprofen with an ACE inhibitor: check potassium."
CONTEXTS = {
    "anthropic document": (user([{"type": "document", "source": {"type": "text", "data": LETTER}}]), [LETTER]),
    "anthropic titled": (
        user([{"type": "document", "title": "T", "context": "C", "source": {"type": "content", "content": K}}]),
        ["T\n\nC\n\nK 4.1"],
    ),
    "anthropic search": (
        user([{"type": "tool_result", "content": [{"type": "search_result", "source": "x.org", "title": "T", "content": K}]}]),
        ["T\n\nK 4.1"],
    ),
    "cohere v1": ({"message": "Q", "documents": [{"id": "d", "title": "T", "snippet": LETTER}]}, [f"T\n\n{LETTER}"]),
    "cohere v2": ({"messages": user("Q"), "documents": [LETTER, {"id": "d", "data": {"text": "B"}}]}, [LETTER, "B"]),
    "cohere part": (user([{"type": "document", "document": {"data": {"text": LETTER}}}]), [LETTER]),
    "cohere tool": ({"message": "Q", "tool_results": [{"call": {}, "outputs": [{"k": "4.1"}]}]}, ['[{"k":"4.1"}]']),
    "bedrock": (user([{"document": {"name": "n", "source": {"text": LETTER}}}]), [LETTER]),
    "rerank": ({"query": "Q", "documents": [LETTER, {"text": "B"}]}, [LETTER, "B"]),
    "hugging face": ({"inputs": {"question": "Q", "context": LETTER}}, [LETTER]),
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
    "openai audio": ({"choices": [{"message": {"content": None, "audio": {"data": "x", "transcript": "Yes."}}}]}, "Yes."),
    "openai transcription": ({"text": "Yes.", "usage": {"seconds": 3}}, "Yes."),
    "openai code": (
        {"output": [{"type": "code_interpreter_call", "code": "1+1", "outputs": [{"type": "logs", "logs": "2"}]}]},
        "2\n\n1+1",
    ),
    "anthropic ran": (
        {"content": [{"type": "code_execution_tool_result", "content": {"stdout": "Yes.", "stderr": "", "content": []}}]},
        "Yes.",
    ),
    "anthropic cited": (
        {"content": [{"type": "text", "text": "Yes.", "citations": [{"cited_text": "It is so."}]}]},
        "Yes.",
    ),
    "google code": (
        {"candidates": [{"content": {"parts": [{"executableCode": {"code": "1"}}, {"codeExecutionResult": {"output": "2"}}]}}]},
        "1\n\n2",
    ),
    "bedrock cited": ({"output": {"message": {"content": [{"citationsContent": {"content": [{"text": "Yes."}]}}]}}}, "Yes."),
    "llama": ({"generation": "Yes.", "stop_reason": "stop"}, "Yes."),
    "mistral invoke": ({"outputs": [{"text": "Yes.", "stop_reason": "stop"}]}, "Yes."),
    "jurassic": ({"completions": [{"data": {"text": "Yes."}}]}, "Yes."),
    "cohere invoke": ({"generations": [{"text": "Yes."}]}, "Yes."),
    "cohere tool": ({"text": "", "tool_calls": [{"name": "f", "parameters": {"mrn": 7}}]}, '{"mrn":7}'),
    "cohere plan": ({"message": {"tool_plan": "I look.", "tool_calls": [{"function": {"arguments": "{}"}}]}}, "I look.\n\n{}"),
    "ollama chat": ({"message": {"role": "assistant", "content": "Yes."}, "done": True}, "Yes."),
    "ollama tool": ({"message": {"content": "", "tool_calls": [{"function": {"arguments": {"mrn": 7}}}]}}, '{"mrn":7}'),
    "hugging face": ([{"generated_text": "Yes."}], "Yes."),
    "hugging face one": ({"generated_text": "Yes."}, "Yes."),
    "hugging face summary": ([{"summary_text": "Yes."}], "Yes."),
    "vllm": ({"text": ["Yes."]}, "Yes."),
    "watsonx": ({"results": [{"generated_text": "Yes."}]}, "Yes."),
    "vertex": ({"predictions": ["Yes."]}, "Yes."),
    "langchain": ({"type": "ai", "content": [{"type": "text", "text": "Yes."}]}, "Yes."),
    "langchain result": ({"generations": [[{"text": "Yes.", "message": {"content": "Yes."}}]]}, "Yes."),
    "llamaindex": ({"message": {"role": "assistant", "blocks": [{"block_type": "text", "text": "Yes."}]}}, "Yes."),
    "bytes": (b'{"generation": "Yes."}', "Yes."),
    "bytes of text": ("Ja, schön.".encode(), "Ja, schön."),
    "one word of no shape": ({"reply": "Yes."}, None),
    "prose of no shape": ({"reply": {"says": "It is so."}}, "It is so."),
    "rerank": ({"results": [{"index": 0, "relevance_score": 0.9}]}, None),
    "blocked": ({"candidates": [], "promptFeedback": {"blockReasonMessage": "It was blocked."}}, None),
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

# Of whole streams: pieces of one place are one text, and places are apart.
STREAMS: dict[str, tuple[list[Any], str | None]] = {
    "choices": (
        [
            {"choices": [{"index": 0, "delta": {"content": "Fi"}}]},
            {"choices": [{"index": 1, "delta": {"content": "No"}}]},
            {"choices": [{"index": 0, "delta": {"content": "ne"}}]},
        ],
        "Fine",
    ),
    "openai tools": (
        [
            {"choices": [{"delta": {"content": "I look."}}]},
            {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]}}]},
            {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]}}]},
            {"choices": [{"delta": {"tool_calls": [{"index": 1, "function": {"arguments": '{"b"'}}]}}]},
            {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}}]},
            {"choices": [{"delta": {"tool_calls": [{"index": 1, "function": {"arguments": ": 2}"}}]}}]},
        ],
        'I look.\n\n{"a": 1}\n\n{"b": 2}',
    ),
    "openai lines": (
        [
            b'data: {"choices": [{"delta": {"content": "Fi"}}]}',
            b"",
            b": keep-alive",
            'data: {"choices": [{"delta": {"content": "ne"}}]}',
            "data: [DONE]",
        ],
        "Fine",
    ),
    "openai audio": ([{"choices": [{"delta": {"audio": {"data": "x", "transcript": "Fine"}}}]}], "Fine"),
    "openai helper": (
        [
            {"type": "chunk", "chunk": {"choices": [{"delta": {"content": "Fine"}}]}},
            {"type": "content.delta", "delta": "Fine", "snapshot": "Fine"},
            {"type": "content.done", "content": "Fine"},
        ],
        "Fine",
    ),
    "responses": (
        [
            {"type": "response.created", "response": {"instructions": "Be brief."}},
            {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Fi"},
            {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "ne"},
            {"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "Fine"},
            {"type": "response.custom_tool_call_input.delta", "output_index": 1, "delta": "look"},
            {"type": "response.output_audio_transcript.delta", "output_index": 2, "content_index": 0, "delta": "Aloud"},
        ],
        "Fine\n\nlook\n\nAloud",
    ),
    "anthropic": (
        [
            {"type": "message_start", "message": {"content": [], "usage": {"input_tokens": 3}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "I "}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "look."}},
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "citations_delta", "citation": {"cited_text": "So it is."}},
            },
            {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "name": "f", "input": {}}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"mrn"'}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": ": 7}"}},
            {"type": "message_stop"},
        ],
        'I look.\n\n{"mrn": 7}',
    ),
    "anthropic helper": (
        [
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Fine"}},
            {"type": "text", "text": "Fine", "snapshot": "Fine"},
            {"type": "content_block_stop", "index": 0, "content_block": {"type": "text", "text": "Fine"}},
        ],
        "Fine",
    ),
    "anthropic helper alone": (
        [{"type": "text", "text": "Fi", "snapshot": ""}, {"type": "text", "text": "ne", "snapshot": ""}],
        "Fine",
    ),
    "google": (
        [
            {"candidates": [{"content": {"parts": [{"text": "hidden", "thought": True}]}}]},
            {"candidates": [{"content": {"parts": [{"text": "I "}]}}]},
            {"candidates": [{"content": {"parts": [{"text": "look."}, {"functionCall": {"args": {"a": 1}}}]}}]},
            {"candidates": [{"content": {"parts": [{"functionCall": {"args": {"b": 2}}}]}, "finishReason": "STOP"}]},
        ],
        'I look.\n\n{"a":1}\n\n{"b":2}',
    ),
    "bedrock": (
        [
            {"messageStart": {"role": "assistant"}},
            {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "hidden"}}}},
            {"contentBlockDelta": {"contentBlockIndex": 1, "delta": {"text": "Fi"}}},
            {"contentBlockDelta": {"contentBlockIndex": 1, "delta": {"text": "ne"}}},
            {"contentBlockStart": {"contentBlockIndex": 2, "start": {"toolUse": {"name": "f", "toolUseId": "t"}}}},
            {"contentBlockDelta": {"contentBlockIndex": 2, "delta": {"toolUse": {"input": '{"a"'}}}},
            {"contentBlockDelta": {"contentBlockIndex": 2, "delta": {"toolUse": {"input": ": 1}"}}}},
            {"messageStop": {"stopReason": "tool_use"}},
        ],
        'Fine\n\n{"a": 1}',
    ),
    "bedrock invoke": ([{"chunk": {"bytes": b'{"outputText": "Fi"}'}}, {"chunk": {"bytes": b'{"generation": "ne"}'}}], "Fine"),
    "mistral": ([{"data": {"choices": [{"delta": {"content": "Fine"}}]}}], "Fine"),
    "cohere v2": (
        [
            {"type": "message-start", "delta": {"message": {"role": "assistant"}}},
            {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "I look."}}},
            {"type": "tool-call-start", "index": 0, "delta": {"message": {"tool_calls": {"function": {"arguments": ""}}}}},
            {"type": "tool-call-delta", "index": 0, "delta": {"message": {"tool_calls": {"function": {"arguments": '{"a"'}}}}},
            {"type": "tool-call-delta", "index": 0, "delta": {"message": {"tool_calls": {"function": {"arguments": ": 1}"}}}}},
            {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL"}},
        ],
        'I look.\n\n{"a": 1}',
    ),
    "cohere v2 text": (
        [
            {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"thinking": "hidden"}}}},
            {"type": "content-delta", "index": 1, "delta": {"message": {"content": {"text": "Fi"}}}},
            {"type": "content-delta", "index": 1, "delta": {"message": {"content": {"text": "ne"}}}},
            {"type": "citation-start", "index": 0, "delta": {"message": {"citations": {"text": "It is so."}}}},
        ],
        "Fine",
    ),
    "cohere v1": (
        [
            {"event_type": "text-generation", "text": "Fi"},
            {"event_type": "text-generation", "text": "ne"},
            {"event_type": "stream-end", "response": {"text": "Fine"}},
        ],
        "Fine",
    ),
    "ollama chat": ([b'{"message": {"content": "Fi"}, "done": false}', '{"message": {"content": "ne"}, "done": true}'], "Fine"),
    "ollama generate": ([{"response": "Fi", "done": False}, {"response": "ne", "done": True, "context": [1]}], "Fine"),
    "hugging face": (
        [
            {"token": {"text": "Fi", "special": False}, "generated_text": None},
            {"token": {"text": "ne", "special": False}, "generated_text": None},
            {"token": {"text": "</s>", "special": True}, "generated_text": "Fine"},
        ],
        "Fine",
    ),
    "langchain": (
        [
            {"type": "AIMessageChunk", "content": "Fi", "tool_call_chunks": []},
            {"type": "AIMessageChunk", "content": "ne", "tool_call_chunks": []},
            {"type": "AIMessageChunk", "content": "", "tool_call_chunks": [{"args": '{"a"', "index": 0}]},
            {"type": "AIMessageChunk", "content": "", "tool_call_chunks": [{"args": ": 1}", "index": 0}]},
        ],
        'Fine\n\n{"a": 1}',
    ),
    "llamaindex": ([{"delta": "Fi", "message": {"content": "Fi"}}, {"delta": "ne", "message": {"content": "Fine"}}], "Fine"),
    "pieces": (["Note", ":", " data", ": fine"], "Note: data: fine"),
}

PASSED_OVER: dict[str, tuple[Any, set[str]]] = {
    "image": (user([{"type": "image_url", "image_url": {"url": "data:xyz"}}]), {"media"}),
    "anthropic image": (user([{"type": "image", "source": {"type": "base64", "data": "x"}}]), {"media"}),
    "letter as pdf": (user([{"type": "document", "source": {"type": "base64", "data": "x"}}]), {"media"}),
    "openai file": (user([{"type": "file", "file": {"file_data": "x"}}]), {"media"}),
    "google image": ({"contents": [{"parts": [{"inlineData": {"data": "x"}}]}]}, {"media"}),
    "bedrock image": (user([{"image": {"format": "png", "source": {"bytes": b"x"}}}]), {"media"}),
    "thinking": (user([{"type": "thinking", "thinking": "hidden"}, {"type": "text", "text": "A"}]), {"reasoning"}),
    "own prose": (user([{"utterance": "How are you?"}]), {"unknown"}),
    "an object": (object(), {"unknown"}),
    "nothing to read": ({"messages": []}, set()),
    "text": ("A", set()),
    "cache point": (user([{"text": "A"}, {"cachePoint": {"type": "default"}}]), set()),
}


@pytest.mark.parametrize(("given", "text"), PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("form", [lambda given: given, as_objects], ids=["json", "objects"])
def test_what_was_asked_is_found(given: Any, text: str | None, form: Any) -> None:
    assert read_request(form(given)).text() == text


@pytest.mark.parametrize(("given", "text"), RESPONSES.values(), ids=RESPONSES)
def test_what_was_answered_is_found(given: Any, text: str | None) -> None:
    assert read_answer(given).text() == text


@pytest.mark.parametrize("shape", ["openai chat", "anthropic", "google", "openai responses", "bedrock", "openai refusal"])
def test_what_was_answered_is_found_in_an_sdks_objects(shape: str) -> None:
    given, text = RESPONSES[shape]

    assert (read_answer(as_objects(given)).text() or "").split("\n\n")[0] == (text or "").split("\n\n")[0]


@pytest.mark.parametrize(("given", "text"), CHUNKS.values(), ids=CHUNKS)
@pytest.mark.parametrize("form", [lambda given: given, as_objects], ids=["json", "objects"])
def test_what_a_stream_adds_is_found(given: Any, text: str, form: Any) -> None:
    assert (streamed(form(given)) or "") == text


@pytest.mark.parametrize(("given", "documents"), CONTEXTS.values(), ids=CONTEXTS)
@pytest.mark.parametrize("form", [lambda given: given, as_objects], ids=["json", "objects"])
def test_documents_in_a_request_are_context_and_not_prompt(given: Any, documents: list[str], form: Any) -> None:
    reading = read_request(form(given))

    assert (reading.documents, reading.text()) in ((documents, None), (documents, "Q"))


def test_documents_in_an_answer_are_context() -> None:
    cohere = read_answer({"text": "Yes.", "documents": [{"id": "d", "text": LETTER}]})
    searched = read_answer({"output": [{"type": "file_search_call", "queries": ["q"], "results": [{"text": LETTER}]}]})
    llamaindex = read_answer({"response": "Yes.", "source_nodes": [{"node": {"text": LETTER}, "score": 0.8}]})

    assert [reading.documents for reading in (cohere, searched, llamaindex)] == [[LETTER]] * 3
    assert (cohere.text(), searched.text(), llamaindex.text()) == ("Yes.", "q", "Yes.")


@pytest.mark.parametrize(("events", "text"), STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("form", [lambda given: given, as_objects], ids=["json", "objects"])
def test_a_stream_is_put_together_by_its_places(events: list[Any], text: str | None, form: Any) -> None:
    stream = StreamedText()

    for event in events:
        stream.add(form(event))

    assert stream.text() == text
    assert "unknown" not in stream.passed_over


@pytest.mark.parametrize(("given", "reasons"), PASSED_OVER.values(), ids=PASSED_OVER)
def test_what_is_passed_over_is_said(given: Any, reasons: set[str]) -> None:
    assert read_request(given).passed_over == reasons


def test_an_answer_says_what_it_leaves_out() -> None:
    several = read_answer({"choices": [{"message": {"content": "Yes."}}, {"message": {"content": "No."}}]})
    thought = read_answer({"choices": [{"message": {"content": "Yes.", "reasoning_content": "hidden"}}]})
    unknown = [read_answer(answer).passed_over for answer in ({"reply": "Yes."}, {"reply": "It is so."}, object())]
    empty = [RESPONSES[name][0] for name in ("embeddings", "an error", "none", "rerank", "blocked")]

    assert (several.passed_over, thought.passed_over) == ({"choices"}, {"reasoning"})
    assert unknown == [{"unknown"}] * 3
    assert [read_answer(answer).passed_over for answer in empty] == [set()] * len(empty)


def test_an_sdks_methods_are_no_text() -> None:
    class Answer(BaseModel):  # as most SDKs have it, with `json`, `copy` and more
        content: str

        def text(self) -> str:
            raise AssertionError("an SDK's method was called")

    reading = read_answer(Answer(content="Yes."))

    assert (reading.text(), reading.passed_over) == ("Yes.", set())


def test_arguments_that_are_no_json_are_text_all_the_same() -> None:
    broken = [{"role": "assistant", "content": [{"type": "tool_use", "input": {"note": "half \ud83d of it"}}]}]
    endless: dict[str, Any] = {"note": "round and round"}
    endless["again"] = endless

    assert read_request(broken).text() == "half \ud83d of it"
    assert (read_request([{"tool_calls": [{"args": endless}]}]).text() or "").startswith("round and round")


def test_messages_in_messages_without_end_are_left_at_some_depth() -> None:
    nested: dict[str, Any] = {"content": "far away"}
    for _ in range(50):
        nested = {"content": [nested]}

    reading = read_request([nested])

    assert (reading.text(), reading.passed_over) == (None, {"unknown"})


@pytest.mark.parametrize(
    ("chunk", "text"),
    [
        ("guide-17", None),
        ("A sentence.", "A sentence."),
        ({"id": "guide-17", "score": 0.8}, None),
        ({"id": "guide-17", "text": "A guide."}, "A guide."),
        ({"id": "guide-17", "section": "Chapter one", "author": "The clinic"}, None),
        ({"id": "guide-17", "wording": IBUPROFEN}, IBUPROFEN),
        ({"page_content": "A guide.", "metadata": {"source": "x"}}, "A guide."),
        (({"content": "A guide."}, 0.8), "A guide."),
        (("A guide, in words.", 0.8), "A guide, in words."),
        ({"document": {"text": "A guide."}}, "A guide."),
        (SimpleNamespace(node=SimpleNamespace(text="A guide."), score=0.8), "A guide."),
        (None, None),
        (b"bytes", None),
        (7, None),
    ],
    ids=range(14),
)
def test_a_chunks_text_is_found_beside_its_id(chunk: Any, text: str | None) -> None:
    assert chunk_body(chunk) == text


def test_the_texts_of_a_call_come_together_and_are_not_shown() -> None:
    found = CallTexts()
    empty = found.found()

    found.asked("one")
    found.asked([{"role": "user", "content": "two"}])
    found.given(["word", {"text": "chunk"}])
    found.retrieved(["guide-17", {"id": "guide-1", "text": "chunk"}, {"text": "other"}])
    found.stream.add("Fi")
    found.stream.add("ne")
    streamed = found.found()["response"]
    found.answered({"content": [{"type": "text", "text": "Fine, thanks."}]})

    assert not any(empty.values())
    assert found.found() == {"prompt": "one\n\ntwo", "response": "Fine, thanks.", "context": ["word", "chunk", "other"]}
    assert streamed == "Fine"
    assert "one" not in repr(found)
