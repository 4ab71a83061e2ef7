"""A record as the workers take it, whether Faust brought it or we fetched it ourselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One record of a topic; `passed` is called once nobody needs it any more. `appended_ms` is the log's clock."""

    offset: int
    appended_ms: int
    value: bytes
    headers: dict[str, str]
    passed: Callable[[], Any]


def call_record(record: Any, passed: Callable[[], Any]) -> CallRecord:
    """A record as aiokafka has it."""
    return CallRecord(record.offset, record.timestamp, record.value or b"", decode_headers(record.headers), passed)


def decode_headers(headers: Iterable[tuple[str, bytes]]) -> dict[str, str]:
    """Header values as text; what is no UTF-8 is no header of ours, and is refused further on."""
    return {name: (value or b"").decode("utf-8", "replace") for name, value in headers}
