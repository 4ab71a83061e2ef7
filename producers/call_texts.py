"""The texts of one observed call, as they come together: what was asked, retrieved, streamed and answered."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ..schemas.provider_text import prompt_text, response_text
from ..schemas.provider_usage import get_part

# Where retrievers keep a chunk's text.
_CHUNK_TEXT: Final = ("text", "content", "page_content", "document", "body")
# Nobody retrieves more, but an iterator may not end.
_MOST_READ: Final = 4_096


class CallTexts:
    """In the clear and in memory, until the call ends. Its repr says nothing of them."""

    __slots__ = ("_context", "_prompt", "_response", "_stream")

    def __init__(self) -> None:
        self._prompt: list[str] = []
        self._context: dict[str, None] = {}  # in order; said twice it counts once
        self._stream: list[str] = []
        self._response: str | None = None

    def __bool__(self) -> bool:
        return bool(self._prompt or self._context or self._stream or self._response)

    def asked(self, prompt: object) -> None:
        if (text := prompt_text(prompt)) is not None:
            self._prompt.append(text)

    def given(self, context: Iterable[object]) -> None:
        """Texts, or chunks that have one."""
        for chunk in (context,) if isinstance(context, str | Mapping) else itertools.islice(context, _MOST_READ):
            if (text := chunk if isinstance(chunk, str) else chunk_body(chunk)) is not None:
                self._context[text] = None

    def retrieved(self, chunks: Iterable[object]) -> None:
        """Chunks, of which some may be ids only."""
        for chunk in chunks:
            if (text := chunk_body(chunk)) is not None:
                self._context[text] = None

    def streamed(self, text: str) -> None:
        self._stream.append(text)

    def answered(self, response: object) -> None:
        if (text := response_text(response)) is not None:
            self._response = text

    def found(self) -> dict[str, Any]:
        """As `emit_content` takes them. A response that was read whole is the answer; else what was streamed is."""
        return {
            "prompt": "\n\n".join(self._prompt) or None,
            "response": self._response or "".join(self._stream) or None,
            "context": list(self._context),
        }


def chunk_body(chunk: object) -> str | None:
    """The text of a retrieved chunk, given as itself, in a mapping or object, or with its score; None for an id alone."""
    if isinstance(chunk, tuple | list) and len(chunk) == 2 and not isinstance(chunk[1], str):
        chunk = chunk[0]
    if isinstance(chunk, str):
        return chunk if any(mark.isspace() for mark in chunk) else None
    if isinstance(chunk, bytes) or chunk is None:
        return None
    for name in _CHUNK_TEXT:
        found = get_part(chunk, name)
        if isinstance(found, str):
            return found or None
        if isinstance(found, Mapping):
            return chunk_body(found)
    node = get_part(chunk, "node")  # LlamaIndex's scored nodes
    return None if node is None else chunk_body(node)
