"""The texts in a message and its parts, in every provider's nesting: what a model reads or says, and what was retrieved.

    message, part, list of either ──► read_parts ──► Reading: texts, documents, and what was passed over
    document, search hit, chunk   ──► read_document ──┘

Arguments and results of tools are text; documents and search results are retrieved context. Hidden reasoning and media are
passed over. A part of no known shape is read as far as it holds prose, and its reading says so: nothing is lost in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson

from .provider_usage import get_part, items_of

# Why something in a call is not among its texts, or only as a guess: `unknown` is prose in a shape that is not known.
PassedOver = Literal["unknown", "media", "reasoning", "choices"]

GAP: Final = "\n\n"
_SENTENCE_CHARS: Final = 40
# A message in a message in a message …: deeper than any provider nests.
_MOST_DEPTH: Final = 12
# Where a message or part keeps what it says; of several names the first one, as they are the same text again.
_SAID: Final = (
    *("blocks", "parts", "content", "message", "text", "outputText", "generated_text", "generation", "completion"),
    *("summary_text", "translation_text", "transcript", "answer", "value"),
)
# Wrappers, such as LangChain's dumps; as text these names hold something encoded.
_WRAPPED: Final = ("kwargs", "data")
# What there may be beside it, each a text or message of its own.
_BESIDE: Final = (
    *("refusal", "audio", "tool_plan", "tool_calls", "invalid_tool_calls", "function", "custom", "functionCall"),
    *("function_call", "toolUse", "toolResult", "functionResponse", "function_response", "guardContent", "citationsContent"),
    *("executableCode", "executable_code", "codeExecutionResult", "code_execution_result", "call", "action", "operation"),
    *("output", "outputs", "code", "logs", "stdout", "stderr", "diff", "query", "queries", "command", "commands", "lines"),
)
# What a model would have a tool do, and what the tool said: as JSON where it is structured.
_STRUCTURED: Final = ("arguments", "args", "parameters", "input", "tool_kwargs", "response", "json", "variables")
_DOCUMENTS: Final = ("document", "documents", "searchResult", "source_nodes", "tool_results")
_DOCUMENT_TYPES: Final = frozenset({"document", "search_result", "web_search_result", "citable"})
_REASONING_TYPES: Final = frozenset({"thinking", "redacted_thinking", "thinking_delta", "reasoning"})
_REASONING: Final = ("reasoning_content", "reasoning", "reasoningContent", "thinking")
_MEDIA: Final = (
    *("image_url", "inlineData", "inline_data", "fileData", "file_data", "file_id", "image", "images", "video", "audio_url"),
    *("input_audio", "video_url", "file", "url", "file_uri", "bytes", "b64_json", "base64", "source", "document_url"),
)
_MEDIA_TYPE: Final = re.compile(r"(input_|output_)?(image|audio|video|file|media)(_url|_generation_call)?|computer_.*")
# Never a text of the call: what frames it, and what went wrong.
_FRAMED: Final = ("type", "role", "id", "name", "title", "url", "source", "metadata", "tools", "usage", "signature")
_FRAMING: Final = frozenset((*_FRAMED, "encrypted_content", "error"))
_ROLES: Final = frozenset({"system", "human", "user", "ai", "assistant", "tool", "developer", "function"})
# Where retrievers keep a chunk's text, and what they wrap it in.
_CHUNK_TEXT: Final = (
    *("text", "content", "page_content", "document", "body", "snippet", "chunk", "passage", "excerpt", "data", "source"),
    *("node", "payload", "entity", "properties", "_source", "fields", "metadata"),
)
# All that is looked for in a part; most parts have one of them.
_OTHERS: Final = frozenset((*_BESIDE, *_STRUCTURED, *_DOCUMENTS, *_REASONING, *_MEDIA, "results"))
_NAMES: Final = frozenset((*_SAID, *_WRAPPED, *_OTHERS, "type", "block_type", "thought"))


@dataclass(slots=True)
class Reading:
    """What was read, in its order. Its repr shows none of it."""

    texts: list[str] = field(default_factory=list, repr=False)
    documents: list[str] = field(default_factory=list, repr=False)
    passed_over: set[PassedOver] = field(default_factory=set)

    def text(self) -> str | None:
        """All texts as one, an empty line between; no roles, since a role in a text is what an injection looks like."""
        return GAP.join(text for text in self.texts if text.strip()) or None

    def size(self) -> int:
        return len(self.texts) + len(self.documents) + len(self.passed_over)


def read_parts(value: object, reading: Reading, depth: int = 0) -> None:
    """Add every text in a message, a part, or a list of either."""
    if isinstance(value, str):
        if value:
            reading.texts.append(value)
    elif value is None or isinstance(value, bytes | int | float):
        return
    elif depth > _MOST_DEPTH:
        reading.passed_over.add("unknown")
    elif isinstance(value, Sequence):
        # A turn as LangChain takes it: ("human", text).
        turn = isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and value[0] in _ROLES
        for item in value[1:] if turn else value:
            read_parts(item, reading, depth + 1)
    else:
        fields = _fields(value)
        kind = fields.get("type") or fields.get("block_type")
        if not isinstance(kind, str):
            kind = ""
        if kind in _REASONING_TYPES or fields.get("thought") is True:
            reading.passed_over.add("reasoning")
        elif kind in _DOCUMENT_TYPES:
            read_document(value, reading, depth)
        else:
            _read_part(fields, kind, reading, depth)


def _fields(value: object) -> Mapping[str, Any]:
    """What `value` holds by name. To ask an object for one name after the other takes long, where it says which it has."""
    if isinstance(value, Mapping):
        return value
    fields: dict[str, Any] = getattr(value, "__dict__", {})
    if not _NAMES.isdisjoint(fields):
        more = getattr(value, "__pydantic_extra__", None)
        return {**fields, **more} if more else fields
    asked = ((name, get_part(value, name)) for name in _NAMES)
    return {**fields, **{name: found for name, found in asked if found is not None and not _is_code(found)}}


def _read_part(fields: Mapping[str, Any], kind: str, reading: Reading, depth: int) -> None:
    before = reading.size()
    said = next((found for name in _SAID if (found := fields.get(name)) is not None), None)
    if said is None:
        wrapped = get_part(fields, *_WRAPPED)
        said = None if isinstance(wrapped, str) else wrapped
    read_parts(said, reading, depth + 1)
    if not _OTHERS.isdisjoint(fields):
        _read_beside(fields, kind, reading, depth)
    if reading.size() == before and not said:
        if get_part(fields, *_MEDIA) is not None or _MEDIA_TYPE.fullmatch(kind):
            reading.passed_over.add("media")
        else:
            read_prose(fields, reading)


def _read_beside(fields: Mapping[str, Any], kind: str, reading: Reading, depth: int) -> None:
    for name in _BESIDE:
        read_parts(fields.get(name), reading, depth + 1)
    for name in _STRUCTURED:
        reading.texts.extend(_as_text(fields.get(name)))
    searched = fields.get("results") if kind == "file_search_call" else None
    for found in (*(fields.get(name) for name in _DOCUMENTS), searched):
        for document in items_of(found) or (found,):
            read_document(document, reading, depth + 1)
    if get_part(fields, *_REASONING) is not None:
        reading.passed_over.add("reasoning")


def _is_code(value: object) -> bool:
    """Of objects, a method that bears the name of a field; LangChain's texts can be called, and are text."""
    return callable(value) and not isinstance(value, str)


def read_document(value: object, reading: Reading, depth: int = 0) -> None:
    """Add a document, search hit or retrieved chunk as one text: its title, what is said of it, and its body."""
    if value is None or isinstance(value, bytes | int | float) or depth > _MOST_DEPTH:
        return
    if isinstance(value, str | Sequence):
        body = _body_of(value, depth)
        reading.documents.extend(() if body is None else (body,))
        return
    inner = get_part(value, "document", "node", "data")
    if isinstance(inner, Mapping) or (inner is not None and not isinstance(inner, str | Sequence)):
        read_document(inner, reading, depth + 1)
        return
    inside = Reading()
    body = _body_of(value, depth)
    if body is not None:
        inside.texts = [text for name in ("title", "context") if isinstance(text := get_part(value, name), str)]
        inside.texts.append(body)
    elif get_part(get_part(value, "source"), "data", "url", "file_id", "bytes") or get_part(value, "encrypted_content"):
        reading.passed_over.add("media")
    elif (outputs := get_part(value, "outputs")) is not None:  # of a tool, as Cohere is told them
        inside.texts.extend(_as_text(outputs))
    else:  # what is shorter than a sentence may be a title or an author
        inside.texts.extend(text for text in _strings(value) if len(text) >= _SENTENCE_CHARS and " " in text)
    if (text := inside.text()) is not None:
        reading.documents.append(text)


def _body_of(value: object, depth: int = 0) -> str | None:
    """The text of a document or chunk, wherever it is kept; None for an id, or something encoded."""
    if isinstance(value, str):
        return value or None
    if value is None or isinstance(value, bytes | int | float) or depth > _MOST_DEPTH:
        return None
    if isinstance(value, Sequence):
        return GAP.join(text for item in value if (text := _body_of(item, depth + 1))) or None
    kind = get_part(value, "type")
    for name in _CHUNK_TEXT:
        found = get_part(value, name)
        if found is None or _is_code(found) or (isinstance(found, str) and _is_no_text(name, kind)):
            continue
        if (text := _body_of(found, depth + 1)) is not None:
            return text
    return None


def _is_no_text(name: str, kind: object) -> bool:
    """`source` as text is an address; `data` is text in a source of that type, else something encoded."""
    return name == "source" or (name == "data" and kind in ("base64", "url", "file", "image"))


def chunk_body(chunk: object) -> str | None:
    """The text of a retrieved chunk, given as itself, in a mapping or object, or with its score; None for an id alone."""
    if isinstance(chunk, tuple | list) and len(chunk) == 2 and not isinstance(chunk[1], str):
        chunk = chunk[0]
    if isinstance(chunk, str):
        return chunk if any(mark.isspace() for mark in chunk) else None
    reading = Reading()
    read_document(chunk, reading)
    return reading.documents[0] if reading.documents else None


def read_prose(value: object, reading: Reading) -> None:
    """Add the strings in a value of no known shape that are prose: those with a space in them."""
    found = [text for text in _strings(value) if any(mark.isspace() for mark in text.strip())]
    if found:
        reading.texts.extend(found)
        reading.passed_over.add("unknown")


def _strings(value: object, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif value is None or isinstance(value, bytes | int | float) or depth > _MOST_DEPTH:
        return
    elif isinstance(value, Sequence):
        if value and not isinstance(value[0], int | float):  # an embedding has thousands of them
            for item in value:
                yield from _strings(item, depth + 1)
    else:
        fields: Mapping[Any, Any] = value if isinstance(value, Mapping) else getattr(value, "__dict__", {})
        for name, inner in fields.items():
            if name not in _FRAMING:
                yield from _strings(inner, depth + 1)


def _as_text(value: object) -> Iterator[str]:
    """As JSON where it is structured; of numbers alone, such as a text's tokens, nothing."""
    if isinstance(value, str):
        yield value
    elif value and not isinstance(value, bytes | int | float):
        try:
            text = orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode()
        except orjson.JSONEncodeError:  # half a surrogate pair, or something that holds itself
            yield from _strings(value)
            return
        if not (text == "{}" or (isinstance(value, Sequence) and isinstance(value[0], int | float))):
            yield text


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return list(value)
    fields = getattr(value, "__dict__", None)
    return str(value) if fields is None else fields
