"""What a policies worker reads before it judges anything: nothing is kept but what the topics hold.

signals ─► what was said, and up to where all was told (the last heartbeat of the same share, under the same policies)
meter.changelog ─► what is counted, and which scopes counted on since
gates ─► who lives
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from ...schemas.policy import PolicySet
from ...schemas.signal import Gates, decode_gates, heartbeat_number, parse_signal_key
from ...schemas.topics import GATES, METER_CHANGELOG, SIGNALS, USAGE
from ..enforcement import last_policies
from .policies_memory import PoliciesMemory, share_of
from .wire import Wire

log = structlog.get_logger("tidegate.policies")

# Records of a changelog between two looks at the event loop: a group waits ten seconds for a sign of life.
_SLICE: Final = 2_000


@dataclass(slots=True)
class Start:
    """What was found. `last` is the policy set that was in force. `news` are the scopes that counted on since offsets `told`
    of `calls`, as (source partition, usage key). `silent_s` is for how long each gate has said nothing. The signals and the
    gates topic are read to before `*_end`."""

    memory: PoliciesMemory
    beats: dict[int, Gates]
    last: PolicySet | None
    told: list[int]
    news: list[tuple[int, bytes]]
    silent_s: dict[str, float]
    signals_end: int
    gates_end: int


async def read_start(wire: Wire, partition: int, of: int, partitions_of_calls: int) -> Start:
    """What the worker of a usage partition, one `of` so many, begins with."""
    signals_end, gates_end = await wire.end(SIGNALS, 0), await wire.end(GATES, 0)
    # Whatever is in a block before this end is in the changelog, which was written first.
    memory = PoliciesMemory(partitions_of_calls, share_of(partition, of), await wire.end(USAGE, partition))
    beats = await read_words(wire, signals_end, memory)
    last = last_policies(memory)
    told = _told(beats.get(partition), of, partitions_of_calls, last)
    news = await _read_changelogs(wire, memory, told)
    return Start(memory, beats, last, told, news, await _read_gates(wire, gates_end), signals_end, gates_end)


async def read_words(wire: Wire, end: int, memory: PoliciesMemory) -> dict[int, Gates]:
    """Put into a memory what was said last before an offset. Every worker's last heartbeat."""
    beats: dict[int, Gates] = {}
    async for record in wire.follow(SIGNALS, 0, end=end):
        key, value = record.key or b"", record.value or b""
        try:
            number = heartbeat_number(key)
            if number is None:
                parse_signal_key(key)
                memory.said([(key, value)])
            elif value:
                beats[number] = decode_gates(value)
            else:
                beats.pop(number, None)
        except (ValueError, TypeError, msgspec.MsgspecError) as error:
            # Of another version, or nobody's: as if it had not been said.
            log.error("signal_refused", offset=record.offset, error_type=type(error).__name__)
            memory.said([(key, b"")])
    return beats


async def _read_changelogs(wire: Wire, memory: PoliciesMemory, told: list[int]) -> list[tuple[int, bytes]]:
    news = []
    for partition, offset_told in enumerate(told):
        applied: dict[bytes, int] = {}
        some: list[tuple[bytes, bytes | None]] = []
        async for record in wire.follow(METER_CHANGELOG, partition):
            some.append((record.key, record.value))
            if len(some) >= _SLICE:
                memory.remember(partition, some, applied)
                some.clear()
                await asyncio.sleep(0)
        memory.remember(partition, some, applied)
        # A scope may count on without a record, when a call is given up on: the offset told of is news, too.
        news += [(partition, key) for key, offset in applied.items() if offset >= offset_told]
    return news


async def _read_gates(wire: Wire, end: int) -> dict[str, float]:
    """For how long each gate had been silent when the last of all spoke, by the log's clock; ours may differ."""
    seen_ms = {}
    async for record in wire.follow(GATES, 0, end=end):
        name = (record.key or b"").decode("utf-8", "replace")
        if record.value:
            seen_ms[name] = record.timestamp
        else:
            seen_ms.pop(name, None)
    newest = max(seen_ms.values(), default=0)
    return {name: (newest - ms) / 1_000 for name, ms in seen_ms.items()}


def _told(beat: Gates | None, of: int, partitions: int, last: PolicySet | None) -> list[int]:
    """Up to which offset of each source partition everything was told, by the last heartbeat of the same share under the
    same policies."""
    if beat is None or last is None or (beat.of, beat.policies, len(beat.applied)) != (of, last.version, partitions):
        return [-1] * partitions
    return list(beat.applied)
