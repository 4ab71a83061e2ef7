"""Retrieved chunks as metering hears of them: id, score and source, never a text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

# An id has no spaces; what has some may be the chunk's own text.
_CHUNK_ID: Final = re.compile(r"[A-Za-z0-9_.:/#@=+~-]{1,128}\Z")


def described(chunk: Any, place: int) -> dict[str, Any]:
    """A chunk's id, or `text-<place>` where it has none that is one; its score and source where it has them."""
    score = None
    if isinstance(chunk, tuple | list) and len(chunk) == 2:
        chunk, score = chunk
    if isinstance(chunk, str):
        return _scored(chunk if _CHUNK_ID.match(chunk) else f"text-{place}", score)
    metadata = _part(chunk, "metadata")
    named = next((str(found) for name in ("chunk_id", "id", "id_", "document_id") if (found := _part(chunk, name))), "")
    score = next(
        (found for name in ("score", "relevance_score", "similarity") if (found := _part(chunk, name)) is not None), score
    )
    kept = _scored(named if _CHUNK_ID.match(named) else f"text-{place}", score)
    source = _part(chunk, "source") or _part(metadata, "source")
    if isinstance(source, str) and _CHUNK_ID.match(source):
        kept["source"] = source
    return kept


def _scored(chunk_id: str, score: object) -> dict[str, Any]:
    kept: dict[str, Any] = {"chunk_id": chunk_id}
    if score is not None and not isinstance(score, str | bytes | bool):
        kept["score"] = float(score)  # type: ignore[arg-type]  # numpy's scalars have no common type; a misfit is counted
    return kept


def _part(holder: Any, name: str) -> Any:
    if isinstance(holder, Mapping):
        return holder.get(name)
    return getattr(holder, name, None)
