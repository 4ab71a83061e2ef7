"""The texts of a call out of what providers are sent and what they answer: for content, never for metering.

request   text, chat messages, or the keyword arguments of the call ──► `prompt_text`
response  decoded JSON, or an SDK's object ───────────────────────────► `response_text`
chunk     text, or an event of a stream ──────────────────────────────► `chunk_text`

Shapes of OpenAI (chat, responses, completions), Anthropic, Google, Bedrock's Converse, Cohere. Parts follow each other as they
stood, with an empty line between: no roles are written in, since a role in a text is what an injection looks like. Arguments
of tool calls are text too, on their way out; images, audio and hidden reasoning are not. What has no known shape is None.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from .provider_usage import get_part, items_of

_GAP: Final = "\n\n"
# A message in a message in a message …: deeper than any provider nests.
_MOST_DEPTH: Final = 8
# Where requests and messages keep what is said, in the order in which a model reads it.
_REQUEST_PARTS: Final = ("system", "system_instruction", "systemInstruction", "instructions", "preamble")
_ASKED: Final = ("messages", "contents", "chat_history", "input", "inputs", "prompt", "message", "query", "inputText")
_SAID: Final = ("content", "parts", "text", "refusal", "output_text", "input_text", "outputText", "summary_text")
# Parts of these types are thoughts or pictures, not text for anybody.
_SILENT: Final = frozenset({"thinking", "redacted_thinking", "reasoning", "image", "image_url", "input_image", "input_audio"})


def prompt_text(request: object) -> str | None:
    """What was asked: a text, a list of chat messages, or a request with its `messages`, `contents`, `input`, `system` …"""
    if isinstance(request, str):
        return request
    parts = [text for name in _REQUEST_PARTS for text in _texts(get_part(request, name))]
    asked = [text for name in _ASKED for text in _texts(get_part(request, name))]
    return _joined(parts + (asked or list(_texts(request))))


def response_text(response: object) -> str | None:
    """What was answered: the first choice or candidate only, as `finish_reason` is of it; of several, the others are rarely
    shown to anybody."""
    if isinstance(response, str):
        return response
    body = _body(response)
    if isinstance(body, str):
        return body
    for many in ("choices", "candidates", "generations", "results"):
        for choice in items_of(get_part(body, many))[:1]:
            message = get_part(choice, "message", "content")
            return _joined(_texts(choice if message is None else message))
    output = get_part(body, "output")  # of OpenAI's responses; of Bedrock's Converse
    if output is not None:
        message = get_part(output, "message")
        return _joined(_texts(output if message is None else message))
    message = get_part(body, "message")  # of Cohere's chat; of Ollama's
    return _joined(_texts(body if message is None else message))


def chunk_text(chunk: object) -> str:
    """What a stream's event adds to the answer; empty when it adds none."""
    if isinstance(chunk, str):
        return chunk
    for many in ("choices", "candidates"):
        for choice in items_of(get_part(chunk, many))[:1]:
            delta = get_part(choice, "delta")
            if delta is not None:
                return "".join(_texts(delta))
            content = get_part(choice, "content")
            return "".join(_texts(choice if content is None else content))
    kind = get_part(chunk, "type")
    delta = get_part(chunk, "delta")
    if isinstance(kind, str) and (kind.startswith("response.") or kind in _WHOLE):
        return delta if isinstance(delta, str) and kind in _DELTAS else ""
    inner = get_part(get_part(chunk, "contentBlockDelta"), "delta")  # Bedrock's Converse
    found = delta if delta is not None else inner
    partial = get_part(found, "partial_json")
    return "".join(_texts(found)) or (partial if isinstance(partial, str) else "")


_DELTAS: Final = frozenset({"response.output_text.delta", "response.refusal.delta", "response.function_call_arguments.delta"})
# Anthropic's events that repeat or frame what the deltas say.
_WHOLE: Final = frozenset({"message_start", "message_delta", "message_stop", "content_block_start", "content_block_stop"})


def _body(response: object) -> object:
    """What is inside, where the answer is wrapped: Ollama's text, the last event of OpenAI's stream."""
    inner = get_part(response, "response")
    own = any(get_part(response, name) is not None for name in ("choices", "candidates", "content", "output"))
    return response if own or inner is None else inner


def _joined(texts: Any) -> str | None:
    return _GAP.join(text for text in texts if text.strip()) or None


def _texts(value: object, depth: int = 0) -> Iterator[str]:
    """Every text in a message, a part, or a list of either."""
    if isinstance(value, str):
        yield value
        return
    if value is None or isinstance(value, bytes | int | float) or depth > _MOST_DEPTH:
        return
    if isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item, depth + 1)
        return
    if get_part(value, "type") in _SILENT or get_part(value, "thought") is True:
        return
    for name in _SAID:
        said = get_part(value, name)
        if said is not None and not callable(said):
            yield from _texts(said, depth + 1)
            break
    source = get_part(value, "source")
    if get_part(source, "type") == "text":  # Anthropic's documents
        yield from _as_text(get_part(source, "data"))
    yield from _arguments(value)


def _arguments(value: object) -> Iterator[str]:
    """What a model would have a tool do, and what the tool said."""
    for call in items_of(get_part(value, "tool_calls")):
        yield from _as_text(get_part(get_part(call, "function"), "arguments"))
    if get_part(value, "type") == "function_call":
        yield from _as_text(get_part(value, "arguments"))
    if get_part(value, "type") == "function_call_output":
        yield from _as_text(get_part(value, "output"))
    if get_part(value, "type") == "tool_use":
        yield from _as_text(get_part(value, "input"))
    for name, inside in (("functionCall", "args"), ("function_call", "args"), ("toolUse", "input"), ("toolResult", "content")):
        yield from _as_text(get_part(get_part(value, name), inside))


def _as_text(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        yield orjson.dumps(value, default=str).decode()
