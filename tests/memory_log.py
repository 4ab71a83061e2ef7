"""A Log in memory that fails as it is told, and the rule by which a meter counts each event once."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

import orjson
from tidegate.producers.ports import Position
from tidegate.schemas.envelope import Envelope
from tidegate.schemas.errors import EnvelopeRefused, LogUnavailable


class MemoryLog:
    """`script` says what becomes of the next appends: `ok`, `away` (nothing kept), `torn` (kept in part, then away),
    `lost` (all kept, then away), `refused`. Behind its end `then` goes on for ever. `gate` holds appends up while clear."""

    def __init__(self, script: Iterable[str] = (), then: str = "ok") -> None:
        self.envelopes: list[Envelope] = []
        self.tries = 0
        self.closed = 0
        self.then = then
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.refuses = lambda envelope: False
        self._script = iter(script)

    def append(self, envelopes: Sequence[Envelope]) -> list[Position | None]:
        self.tries += 1
        self.entered.set()
        assert self.gate.wait(20)
        outcome = next(self._script, self.then)
        if outcome == "refused" or any(self.refuses(envelope) for envelope in envelopes):
            raise EnvelopeRefused("told to refuse")
        kept = {"ok": len(envelopes), "lost": len(envelopes), "torn": len(envelopes) // 2, "away": 0}[outcome]
        first = len(self.envelopes)
        self.envelopes.extend(envelopes[:kept])
        if outcome != "ok":
            raise LogUnavailable("told to be away")
        return [Position(0, offset) for offset in range(first, len(self.envelopes))]

    def close(self) -> None:
        self.closed += 1

    def counted(self) -> dict[str, list[tuple[int, dict[str, object]]]]:
        """(number, event) of each producer in the order a meter counts them: a number already seen is skipped."""
        seen: dict[str, list[tuple[int, dict[str, object]]]] = {}
        for envelope in self.envelopes:
            events = seen.setdefault(envelope.producer, [])
            for seq, line in enumerate(envelope.lines(), envelope.seq):
                if not events or seq > events[-1][0]:
                    events.append((seq, orjson.loads(line)))
        return seen

    def call_ids(self) -> list[object]:
        """The call ids of the one producer that has written, as a meter counts them."""
        (events,) = self.counted().values()
        return [event.get("call_id") for _, event in events]

    def numbers(self) -> list[int]:
        """The numbers of the one producer that has written, as a meter counts them."""
        (events,) = self.counted().values()
        return [seq for seq, _ in events]
