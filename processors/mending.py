"""Mends a refused line, and asks the meter's own step whether it takes it now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from ..schemas.envelope import MAX_EVENT_BYTES, Envelope
from ..schemas.errors import UsageError
from ..schemas.hot import HotRejected, decode_event
from ..schemas.residency import Residency
from .aggregate import ScopeSets, UsageState
from .letters import REPLAYED
from .meter import MeterState, meter
from .pricing import PriceBook

# A letter is one line, or the little that somebody has put in its place.
_MOST_LINES: Final = 1_000


@dataclass(frozen=True, slots=True)
class _Tried:
    offset: int
    appended_ms: int
    value: bytes
    headers: Mapping[str, str]


def lines_of(content: bytes) -> list[bytes]:
    """The events in it, one a line. Raises `UsageError`."""
    lines = [line.strip() for line in content.split(b"\n") if line.strip()]
    if not lines:
        raise UsageError("there is no event in it; `tidegate dlq drop` lets go of what nobody needs")
    if len(lines) > _MOST_LINES or any(len(line) > MAX_EVENT_BYTES for line in lines):
        raise UsageError(f"a dead letter becomes at most {_MOST_LINES} events of {MAX_EVENT_BYTES} bytes each")
    return lines


def still_wrong(
    lines: Sequence[bytes], now_ms: int, book: PriceBook, max_future_s: float, residency: Residency | None = None
) -> str | None:
    """Why the meter would refuse one of them; None when it takes them all. Changes nothing anywhere."""
    envelope = Envelope.of(f"{REPLAYED}tried", 0, lines)
    state = MeterState(0, UsageState(ScopeSets(((),))))
    _, outputs = meter(state, [_Tried(0, now_ms, envelope.value, envelope.headers())], book, max_future_s, residency)
    if outputs.refused:
        return outputs.refused[0].reason
    if any(isinstance(decode_event(line), HotRejected) for line in lines):
        return "it says that a line was refused, and is no call"
    return None


def changed(line: bytes, put: Iterable[str], taken: Iterable[str]) -> bytes:
    """The event with `field=value` put in, where a value is JSON or else text, and fields taken out; `a.b` is `b` within `a`.
    Raises `UsageError`, which quotes nothing of the event."""
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        event = None
    if not isinstance(event, dict):
        raise UsageError("this is not one JSON object, so it has no fields: give all of it anew, with --with FILE")
    for one in put:
        path, equals, text = one.partition("=")
        if not equals or not path:
            raise UsageError("--set takes FIELD=VALUE: --set input_tokens=120")
        place, name = _place(event, path)
        place[name] = _value(text)
    for path in taken:
        place, name = _place(event, path)
        if name not in place:
            raise UsageError("--unset names a field that is not there; `tidegate dlq show --open` shows those that are")
        del place[name]
    return orjson.dumps(event)


def _place(event: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    *above, name = path.split(".")
    for step in above:
        event = event.setdefault(step, {})
        if not isinstance(event, dict):
            raise UsageError("a field that holds no object has no fields within; give the whole of it: --set 'usage={…}'")
    return event, name


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
