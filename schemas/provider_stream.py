"""The text of a streamed answer, put together from its events, whichever provider's or helper's they are.

    event, line of one, piece of text ──► StreamedText.add ──► pieces by place ──► text

An event adds to a place: a choice's text, a block, a tool call by its index. Places follow each other as they were begun. An
SDK's helper tells the same text again in events of its own: where there are the provider's own, those count.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

import orjson

from .message_parts import GAP, PassedOver, Reading, read_parts
from .provider_usage import get_part, items_of

# Events that repeat or frame what others say: Anthropic's, its helper's, OpenAI's helper's, Cohere's.
_FRAMES: Final = frozenset(
    (
        *("message_start", "message_delta", "message_stop", "content_block_stop", "ping", "error", "thinking", "signature"),
        *("citation", "input_json", "chunk", "content.done", "refusal.done", "tool_calls.function.arguments.done"),
        *("logprobs.content.delta", "logprobs.content.done", "logprobs.refusal.delta", "logprobs.refusal.done"),
        *("message-start", "message-end", "content-end", "tool-call-end", "citation-start", "citation-end"),
        *("stream-start", "search-queries-generation", "citation-generation", "tool-calls-chunk", "stream-end", "debug"),
    )
)
_SILENT_DELTAS: Final = frozenset({"citations_delta", "signature_delta"})
_HELPERS: Final = frozenset({"text", "content.delta", "refusal.delta", "tool_calls.function.arguments.delta"})


class StreamedText:
    """Grows by events. Its repr shows no text."""

    __slots__ = ("_again", "_pieces", "documents", "passed_over")

    def __init__(self) -> None:
        self._pieces: dict[Any, list[str]] = {}
        self._again: dict[Any, list[str]] = {}  # what an SDK's helper tells
        self.documents: list[str] = []
        self.passed_over: set[PassedOver] = set()

    def text(self) -> str | None:
        places = self._pieces or self._again
        return GAP.join(text for pieces in places.values() if (text := "".join(pieces)).strip()) or None

    def add(self, event: object) -> bool:
        """Whether there was text in it."""
        event = stream_event(event)
        if event is None:
            return False
        if isinstance(event, str):
            return self._put("text", event)
        if isinstance(event, tuple) and event:  # LangGraph's, with metadata
            return self.add(event[0])
        wrapped = get_part(event, "data", "chunk") if get_part(event, "choices", "type", "delta") is None else None
        if wrapped is not None and not isinstance(wrapped, str):  # Mistral's; Bedrock's InvokeModel
            return self.add(get_part(wrapped, "bytes") or wrapped)
        for name in ("choices", "candidates", "outputs", "generations"):
            if (many := get_part(event, name)) is not None:
                found = [self._choice(choice) for choice in items_of(many)]
                return any(found)
        kind = get_part(event, "type", "event_type")
        if isinstance(kind, str) and kind.startswith("response."):
            return self._openai_response(kind, event)
        if kind in _HELPERS:
            return self._helper(event)
        if kind in _FRAMES:
            return False
        return self._block(event)

    # --- by shape ----------------------------------------------------------------------------------------------------

    def _choice(self, choice: object) -> bool:
        """Of one choice: a delta, a content of parts, or a text. Of several choices only the first is the answer."""
        if get_part(choice, "index") not in (None, 0):
            self.passed_over.add("choices")
            return False
        delta = get_part(choice, "delta", "content")
        return self._message(choice if delta is None else delta, "text")

    def _openai_response(self, kind: str, event: object) -> bool:
        delta = get_part(event, "delta")
        if not kind.endswith(".delta") or not isinstance(delta, str):
            return False
        if "reasoning" in kind:
            self.passed_over.add("reasoning")
            return False
        if kind in ("response.audio.delta", "response.output_audio.delta"):
            self.passed_over.add("media")
            return False
        return self._put((get_part(event, "output_index"), get_part(event, "content_index")), delta)

    def _helper(self, event: object) -> bool:
        text = get_part(event, "arguments_delta", "delta", "text")
        return isinstance(text, str) and self._put((get_part(event, "index"), get_part(event, "type")), text, self._again)

    def _block(self, event: object) -> bool:
        """Of a block by its index, as Anthropic, Bedrock's Converse and Cohere stream; or a message that is a piece."""
        inner = get_part(event, "contentBlockDelta", "contentBlockStart")
        holder = event if inner is None else inner
        place = get_part(holder, "index", "contentBlockIndex")
        whole = get_part(event, "content_block")
        if whole is not None:
            return self._message(whole, place)
        delta = get_part(holder, "delta", "start")
        if isinstance(delta, str):  # LlamaIndex's
            return self._put("text", delta)
        if get_part(event, "type") == "tool-plan-delta":
            place = "plan"
        if delta is not None:
            message = get_part(delta, "message")
            return self._message(delta if message is None else message, place)
        token = get_part(event, "token")  # Hugging Face's servers
        if token is not None:
            return get_part(token, "special") is not True and self._message(token, "text")
        response = get_part(event, "response")  # Ollama's
        if isinstance(response, str):
            return self._put("text", response)
        message = get_part(event, "message")
        return self._message(event if message is None else message, "text")

    def _message(self, message: object, place: object) -> bool:
        """Pieces of a message: calls of tools by their index, all other text in its place."""
        partial = get_part(message, "partial_json")
        if isinstance(partial, str):
            return self._put(place, partial)
        found = []
        calls = items_of(get_part(message, "tool_call_chunks", "tool_calls"))
        for part in items_of(get_part(message, "parts")):
            if get_part(part, "functionCall", "function_call") is not None:  # Google's come whole
                found.append(self._read(part, ("call", len(self._pieces))))
            else:
                found.append(self._read(part, place))
        if get_part(message, "parts") is None:
            found.append(self._read(get_part(message, "content") if calls else message, place))
        found += [self._call(call) for call in calls]
        return any(found)

    def _call(self, call: object) -> bool:
        """Of a tool's arguments, a piece."""
        index = get_part(call, "index")
        return self._read(call, ("tool", len(self._pieces) if index is None else index))

    def _read(self, part: object, place: object) -> bool:
        if get_part(part, "type") in _SILENT_DELTAS or get_part(part, "citation") is not None:
            return False  # a passage of a document, once more
        reading = Reading()
        read_parts(part, reading)
        self.passed_over |= reading.passed_over
        self.documents += reading.documents
        return self._put(place, "".join(reading.texts))

    def _put(self, place: object, text: str, places: dict[Any, list[str]] | None = None) -> bool:
        if text:
            (self._pieces if places is None else places).setdefault(place, []).append(text)
        return bool(text)


def stream_event(event: object) -> object:
    """An event that is a line, of server-sent events or of JSON, as what it says; None for a line that says nothing."""
    if not isinstance(event, str | bytes):
        return event
    line = event.decode(errors="replace") if isinstance(event, bytes) else event
    body = line.removeprefix("data:").strip()
    if body.startswith("{") and body.endswith("}"):
        with contextlib.suppress(orjson.JSONDecodeError):
            return orjson.loads(body)
    frames = isinstance(event, bytes) and (not body or line.startswith(("event:", "id:", "retry:", ":")))
    return None if frames or body == "[DONE]" else line
