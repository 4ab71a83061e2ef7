"""The texts of a call out of what providers are sent and what they answer: for content, never for metering.

    request   text, chat messages, or the keyword arguments of the call ──► read_request ─┐
    response  decoded JSON, its bytes, or an SDK's object ────────────────► read_answer ──┴─► Reading

Shapes of OpenAI (chat, responses, completions), Anthropic, Google, Bedrock (Converse, InvokeModel), Cohere, Ollama, Mistral,
Hugging Face's and vLLM's servers, LangChain and LlamaIndex. Parts follow each other as they stood. Events of streams are in
`provider_stream`; what a message is made of, and what is none of its text, in `message_parts`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Final

import orjson

from .message_parts import Reading, read_document, read_parts
from .provider_usage import get_part, items_of

# Where requests keep what is said, in the order in which a model reads it.
_INSTRUCTIONS: Final = ("system", "system_instruction", "systemInstruction", "instructions", "preamble", "system_prompt")
_ASKED: Final = (
    *("chat_history", "messages", "contents", "input", "inputs", "instances", "prompt", "message", "query", "question"),
    *("inputText", "suffix"),
)
_GIVEN: Final = ("documents", "context", "tool_results")
# Of these the first is the answer: the others are rarely shown to anybody, and `finish_reason` is not theirs.
_MANY: Final = ("choices", "candidates", "generations", "results", "outputs", "completions", "predictions")
# What marks an answer that says nothing as one, all the same.
_ANSWERS: Final = (
    *(*_MANY, "output", "message", "content", "text", "response", "embedding", "embeddings", "data", "error"),
    *("usage", "usageMetadata", "usage_metadata", "meta"),
)


def read_request(request: object) -> Reading:
    """What was asked: a text, a list of chat messages, or a request with its `messages`, `contents`, `input`, `system` …;
    documents in it are context."""
    reading = Reading()
    request = decoded(request)
    if request is None or isinstance(request, str | Sequence):
        read_parts(request, reading)
        return reading
    if isinstance(wrapped := _parsed(get_part(request, "body")), Mapping):  # Bedrock's InvokeModel
        return read_request(wrapped)
    config = get_part(request, "config")  # Google's SDK
    for holder, names in ((request, _INSTRUCTIONS), (config, _INSTRUCTIONS), (request, _ASKED)):
        for name in names:
            if (asked := get_part(holder, name)) is not None:
                _read_asked(asked, reading)
    if not reading.size():
        read_parts(request, reading)  # one message
        if not (reading.size() or isinstance(request, Mapping)):
            reading.passed_over.add("unknown")
        return reading
    for name in _GIVEN:
        given = get_part(request, name)
        for document in items_of(given) or (given,):
            read_document(document, reading)
    return reading


def _read_asked(asked: object, reading: Reading) -> None:
    """Hugging Face asks about a text; everybody else asks in messages."""
    read_parts(get_part(asked, "question"), reading)
    if get_part(asked, "question") is None:
        read_parts(asked, reading)
    elif (context := get_part(asked, "context")) is not None:
        read_document(context, reading)


def read_answer(response: object) -> Reading:
    """What was answered: the first choice or candidate only."""
    reading = Reading()
    response = decoded(response)
    body = _body(response)
    if body is None or isinstance(body, str | Sequence):
        read_parts(body, reading)
    else:
        _read_body(body, reading)
    if body is not response:
        for document in items_of(get_part(response, "source_nodes")):  # LlamaIndex's
            read_document(document, reading)
    return reading


def _read_body(body: object, reading: Reading) -> None:
    for name in _MANY:
        if (several := get_part(body, name)) is not None:
            many = items_of(several)
            read_parts(many[:1], reading)
            if len(many) > 1:
                reading.passed_over.add("choices")
            return
    output = get_part(body, "output")  # of OpenAI's responses; of Bedrock's Converse
    read_parts(body if output is None else output, reading)
    if not reading.size() and get_part(body, *_ANSWERS) is None:
        reading.passed_over.add("unknown")


def decoded(value: object) -> object:
    """Bytes, as an HTTP client or Bedrock's InvokeModel has them, as the JSON or else the text that they are."""
    if isinstance(value, bytes | bytearray | memoryview):
        text = bytes(value).decode(errors="replace")
        return text if (parsed := _parsed(text)) is None else parsed
    return value


def _parsed(value: object) -> object:
    if isinstance(value, str | bytes):
        with contextlib.suppress(orjson.JSONDecodeError):
            return orjson.loads(value)
    return None


def _body(response: object) -> object:
    """What is inside, where the answer is wrapped: Ollama's text, the last event of OpenAI's stream."""
    if response is None or isinstance(response, str | Sequence):
        return response
    inner = get_part(response, "response")
    own = any(get_part(response, name) is not None for name in ("choices", "candidates", "content", "output"))
    return response if own or inner is None else inner
