"""The meter's memory of one source partition as records of a compacted topic, and back.

    u <UsageKey> [# offset]      offset, counters of one scope in one bucket
    s <usage key>                offset, ring of one scope of one series, as it also goes to the policies
    c <call id>                  a call in flight and what it holds
    a <label set>                offset, the account of calls of one tenant, provider and model
    w <series id>                from where a series is watched, and how far its past is counted
    p <producer>                 the number it should send next, when it last spoke, what it dropped
    @                            up to which offset of `calls` all of this has applied, totals, watermark, why it stands

A flush is written as one record batch, so it is there whole or not at all. Numbers come first in a value as eight bytes:
the offset up to which it has applied. Should two workers ever write at once (one was frozen, and wakes after its partition
was given away), the higher offset is the newer one, wherever it stands.

A bucket that leaves the meter's memory is taken back, so the topic holds what is live and no more. An event that comes
later than that is counted in a bucket of its own beside (`#`): whoever wants the whole adds them up.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import orjson

from ...schemas.usage import Usage
from ..aggregate import ScopeSets, UsageKey, UsageState
from ..call_account import Labels
from ..meter import MeterState, Seen
from ..series import CALL, SeriesState, usage_prefix
from ..watch import Watch

OFFSET: Final = struct.Struct(">q")

USAGE: Final = b"u"
SCOPE: Final = b"s"
CALLS: Final = b"c"
WATCH: Final = b"w"
PRODUCER: Final = b"p"
ACCOUNT: Final = b"a"
STATE: Final = b"@"

# (key, value); None takes the key back.
Change = tuple[bytes, bytes | None]

# A flush is one batch of at most 64 MB, and a policy that goes may leave a million scopes of some 100 bytes a key.
_MOST_DEPARTED: Final = 100_000

_encode: Final = msgspec.msgpack.encode
_seen: Final = msgspec.msgpack.Decoder(tuple[int, int, int])
_watch: Final = msgspec.json.Decoder(Watch)


@dataclass(slots=True)
class Memory:
    """What is kept of a partition besides its `MeterState`.

    `scopes`: every scope of every series as last written, for those that are not live. `departed`: what the next flushes
    take back. `told`: up to which offset the policies have surely heard; `untold`: scopes they may not know as they are.
    """

    scopes: dict[bytes, bytes] = field(default_factory=dict)
    watches: dict[str, Watch] = field(default_factory=dict)
    changed_watches: dict[str, Watch | None] = field(default_factory=dict)
    departed: list[bytes] = field(default_factory=list)
    told: int = -1
    untold: set[bytes] = field(default_factory=set)
    # Since when the brake holds the partition, and why.
    stop: dict[str, Any] | None = None
    # Scopes of which nothing counts any more: taken back, and the policies are told.
    lapsed: list[bytes] = field(default_factory=list)
    # What was counted beside a bucket that had left memory and is in the topic yet: (bucket, number, sums, offset).
    beside: list[tuple[UsageKey, int, Usage, int]] = field(default_factory=list)
    # Values that an older one stands behind in the topic: written anew.
    rewrite: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Something is to be written that no record brought about."""
        return bool(self.departed or self.rewrite or self.changed_watches or self.untold or self.lapsed)

    def lapse(self, key: bytes) -> None:
        """Nothing of this scope counts any more."""
        del self.scopes[key]
        self.untold.discard(key)
        self.lapsed.append(key)

    def note(self, series_id: str, watch: Watch) -> None:
        """A series is watched, or more of its past is counted."""
        self.watches[series_id] = self.changed_watches[series_id] = watch

    def forget(self, series_id: str) -> None:
        """A series is watched no more, and its scopes go with it."""
        del self.watches[series_id]
        self.changed_watches[series_id] = None
        prefix = usage_prefix(series_id)
        for key in [key for key in self.scopes if key.startswith(prefix)]:
            del self.scopes[key]
            self.untold.discard(key)
            self.departed.append(SCOPE + key)


def changes(state: MeterState, memory: Memory) -> tuple[list[Change], list[tuple[bytes, bytes]]]:
    """What one flush writes; and, of it, what policies hear, as (usage key, value)."""
    offset = OFFSET.pack(state.next_offset - 1)
    departed, memory.departed = memory.departed[:_MOST_DEPARTED], memory.departed[_MOST_DEPARTED:]
    # A scope may have come back while it waited for its turn.
    written: list[Change] = [(key, None) for key in departed if key[:1] != SCOPE or key[1:] not in memory.scopes]
    written += memory.rewrite.items()
    memory.rewrite = {}
    live, late = state.usage.live, set(state.usage.late)
    add = written.append
    for key in state.usage.changed:
        name = USAGE + key.dump()
        if key in late:
            name += b"#%d" % state.next_offset
            memory.departed.append(name)
        add((name, offset + live[key].dump()))
    account = state.usage.account
    for labels in account.changed:
        add((ACCOUNT + orjson.dumps(labels), offset + account.sets[labels].dump()))
    heard: list[tuple[bytes, bytes]] = []
    for name, value in state.series.records():
        if name.startswith(CALL):
            add((CALLS + name[len(CALL) :], value or None))
        else:
            memory.scopes[name] = value
            heard.append((name, value))
            add((SCOPE + name, offset + value))
    heard += [(name, memory.scopes[name]) for name in memory.untold.difference(name for name, _ in heard)]
    memory.untold = set()
    # A scope that has come back since is told as it is now.
    lapsed = [key for key in memory.lapsed if key not in memory.scopes]
    written += [(SCOPE + key, None) for key in lapsed]
    heard += [(key, b"") for key in lapsed]
    memory.lapsed = []
    for producer in state.changed_producers:
        seen = state.producers.get(producer)
        add((PRODUCER + producer.encode(), _encode((seen.next_seq, seen.seen_ms, seen.dropped)) if seen else None))
    for series_id, watch in memory.changed_watches.items():
        add((WATCH + series_id.encode(), msgspec.json.encode(watch) if watch else None))
    memory.changed_watches = {}
    add((STATE, _state(state, memory)))
    return written, heard


def flushed(state: MeterState, memory: Memory) -> None:
    """What changed is on its way: let go of what is old, and remember to take it back."""
    late = set(state.usage.late)
    memory.departed += [USAGE + key.dump() for key in state.flushed() if key not in late]


def _state(state: MeterState, memory: Memory) -> bytes:
    return orjson.dumps(
        {
            "next_offset": state.next_offset,
            "watermark_s": state.usage.watermark_s,
            "too_old": state.usage.too_old,
            "totals": state.totals,
            "told": memory.told,
            "stop": memory.stop,
        }
    )


def restore(partition: int, records: Iterable[tuple[bytes, bytes | None]], scope_sets: ScopeSets) -> tuple[MeterState, Memory]:
    """A partition's state from its part of the topic, in order. No series is watched yet."""
    newest: dict[bytes, bytes] = {}
    behind: set[bytes] = set()
    for key, value in records:
        if value is None:
            newest.pop(key, None)
            behind.discard(key)
        elif (known := newest.get(key)) is not None and _rank(key, known) > _rank(key, value):
            behind.add(key)
        else:
            newest[key] = value
            behind.discard(key)
    memory = Memory(rewrite={key: newest[key] for key in behind})
    usage = UsageState(scope_sets)
    state = MeterState(partition, usage, SeriesState({}, memory.scopes.get))
    calls: list[tuple[bytes, bytes]] = []
    account: list[tuple[Labels, Usage]] = []
    for key, value in newest.items():
        kind, name = key[:1], key[1:]
        if kind == USAGE:
            bucket, _, fragment = name.rpartition(b"#")
            if bucket and fragment.isdigit():
                memory.departed.append(key)
                offset = int(OFFSET.unpack_from(value)[0])
                memory.beside.append((UsageKey.load(bucket), int(fragment), Usage.load(value[OFFSET.size :]), offset))
            else:
                usage.live[UsageKey.load(name)] = Usage.load(value[OFFSET.size :])
        elif kind == SCOPE:
            memory.scopes[name] = value[OFFSET.size :]
        elif kind == ACCOUNT:
            account.append((tuple(orjson.loads(name)), Usage.load(value[OFFSET.size :])))
        elif kind == CALLS:
            calls.append((CALL + name, value))
        elif kind == WATCH:
            memory.watches[name.decode()] = _watch.decode(value)
        elif kind == PRODUCER:
            state.producers[name.decode()] = Seen(*_seen.decode(value))
        elif kind == STATE:
            told = orjson.loads(value)
            state.next_offset, usage.watermark_s, usage.too_old = told["next_offset"], told["watermark_s"], told["too_old"]
            state.totals, memory.told = told["totals"], told["told"]
            memory.stop = told.get("stop")
    # Who was forgetting a series may not have come to the end of its scopes.
    watched = tuple(usage_prefix(name) for name in memory.watches)
    for name in [name for name in memory.scopes if not name.startswith(watched)]:
        del memory.scopes[name]
        memory.departed.append(SCOPE + name)
    state.series.restore(calls)
    usage.account.restore(account)
    memory.untold = {key[1:] for key, value in newest.items() if key[1:] in memory.scopes and _rank(key, value) > memory.told}
    return state, memory


def _rank(key: bytes, value: bytes) -> int:
    """How new a value is: by what it has applied, not by where it stands."""
    kind = key[:1]
    if kind in (USAGE, SCOPE, ACCOUNT):
        return int(OFFSET.unpack_from(value)[0])
    if kind == STATE:
        return int(orjson.loads(value)["next_offset"])
    return int(_seen.decode(value)[0]) if kind == PRODUCER else 0
