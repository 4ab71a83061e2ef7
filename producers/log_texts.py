"""The texts in one line of a service's log: what content is made of, where `log_lines` makes metering of the same line.

{"request": {"messages": …}, "response": {…}, "retrieved_context": [text, {"text": …}]} ──► prompt, response, context
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from ..schemas.provider_text import prompt_text, response_text
from .call_texts import chunk_body

_RETRIEVED: Final = ("retrieved_context", "retrieved_chunks", "retrieval")
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
    texts = {
        "prompt": prompt_text(request) if isinstance(request, dict) else None,
        "response": response_text(response if wrapped else record) if response or not wrapped else None,
        "context": _context(record),
    }
    return texts if any(texts.values()) else None


def _context(record: dict[str, Any]) -> list[str]:
    found = next((record[name] for name in _RETRIEVED if record.get(name) is not None), ())
    chunks = found if isinstance(found, list) else [found]
    bodies = (chunk if isinstance(chunk, str) else chunk_body(chunk) for chunk in chunks)
    return [body for body in bodies if body]
