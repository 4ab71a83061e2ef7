"""The texts of one observed call, as they come together: what was asked, retrieved, streamed and answered."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ..schemas.content import Where
from ..schemas.message_parts import GAP, PassedOver, Reading, chunk_body
from ..schemas.provider_stream import StreamedText
from ..schemas.provider_text import read_answer, read_request

# Nobody retrieves more, but an iterator may not end.
_MOST_READ: Final = 4_096


class CallTexts:
    """In the clear and in memory, until the call ends. Its repr says nothing of them."""

    __slots__ = ("_context", "_prompt", "_response", "passed_over", "stream")

    def __init__(self) -> None:
        self._prompt: list[str] = []
        self._context: dict[str, None] = {}  # in order; said twice it counts once
        self._response: str | None = None
        self.stream = StreamedText()
        self.passed_over: set[tuple[Where, PassedOver]] = set()

    def asked(self, prompt: object) -> None:
        if (text := self._taken("prompt", read_request(prompt))) is not None:
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

    def answered(self, response: object) -> None:
        if (text := self._taken("response", read_answer(response))) is not None:
            self._response = text

    def _taken(self, where: Where, reading: Reading) -> str | None:
        self._context.update(dict.fromkeys(reading.documents))
        self.passed_over.update((where, reason) for reason in reading.passed_over)
        return reading.text()

    def found(self) -> dict[str, Any]:
        """As `emit_content` takes them. A response that was read whole is the answer; else what was streamed is."""
        self._context.update(dict.fromkeys(self.stream.documents))
        self.passed_over.update(("response", reason) for reason in self.stream.passed_over)
        return {
            "prompt": GAP.join(self._prompt) or None,
            "response": self._response or self.stream.text(),
            "context": list(self._context),
        }
