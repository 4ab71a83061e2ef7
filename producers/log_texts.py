"""The texts in one line of a service's log: what content is made of, where `log_lines` makes metering of the same line.

{"request": {"messages": …}, "response": {…}, "retrieved_context": [text, {"text": …}]} ──► prompt, response, context
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from ..schemas.message_parts import Reading, chunk_body
from ..schemas.provider_text import read_answer, read_request

_RETRIEVED: Final = ("retrieved_context", "retrieved_chunks", "retrieval")
# One of these has every line that is a provider's answer and nothing else.
_ANSWERED: Final = frozenset({"choices", "candidates", "content", "generations", "message", "output", "outputs", "results"})
_BOM: Final = b"\xef\xbb\xbf"


def read_texts(line: bytes) -> dict[str, Any] | None:
    """As `emit_content` takes them; None for a line that has none, such as a native one, or is no JSON object. Pure."""
    try:
        record = orjson.loads(line.removeprefix(_BOM))
    except orjson.JSONDecodeError:
        return None
    if not isinstance(record, dict):
        return None
    request, response = record.get("request"), record.get("response")
    if isinstance(response, dict) and isinstance(response.get("body"), dict) and "status_code" in response:
        response = response["body"]
    wrapped = isinstance(request, dict) or isinstance(response, dict)
    asked = read_request(request) if isinstance(request, dict) else Reading()
    answered = read_answer(response if wrapped else record) if response or not wrapped else Reading()
    if "unknown" in answered.passed_over and not wrapped and _ANSWERED.isdisjoint(record):
        answered = Reading()  # a line of another kind: what is prose in it, such as a label, was no answer
    context = dict.fromkeys([*asked.documents, *answered.documents, *_context(record)])
    texts = {"prompt": asked.text(), "response": answered.text(), "context": list(context)}
    return texts if any(texts.values()) else None


def _context(record: dict[str, Any]) -> list[str]:
    found = next((record[name] for name in _RETRIEVED if record.get(name) is not None), ())
    chunks = found if isinstance(found, list) else [found]
    bodies = (chunk if isinstance(chunk, str) else chunk_body(chunk) for chunk in chunks)
    return [body for body in bodies if body]
