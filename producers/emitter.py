"""The emitter: what a service calls. It must not block, raise or slow a call; so the caller encodes and leaves.

    caller's thread                              one daemon thread each
    emit ─ encode ─ SimpleQueue.put ──────────►  Pump ──► log, or spool while the log is away
    emit_content ─ SimpleQueue.put ───────────►  ContentPump: seals ──► the same, apart from calls in everything

`emit` takes no lock. `SimpleQueue.put` is one C call and reentrant, so a signal handler may interrupt `emit` anywhere
and itself emit, flush or close. Locks handed to waiters are fresh ones, made for that wait alone.

What was accepted and is not yet in the log or the spool lives in memory: `kill -9` loses at most that.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
import orjson
from pydantic import BaseModel

from ..schemas.call import RejectedEvent, RequestEvent, ResponseEvent
from ..schemas.content import ContentMode, Texts, Where
from ..schemas.envelope import MAX_ENVELOPE_BYTES, MAX_EVENT_BYTES
from ..schemas.hot import HotRejected
from ..schemas.message_parts import PassedOver
from ..schemas.provider_usage import short_code
from ..schemas.residency import Residency
from ..schemas.settings import Settings
from . import lifecycle
from .content import ContentOutlet
from .key_source import KeySource, key_source
from .lane import Lane
from .observe import Observer
from .ports import Log, Settled
from .pump import Awaited, Pump, rejected
from .signals import SignalSource
from .stats import EmitterStats, Tally

if TYPE_CHECKING:
    from .gate import Gate

_REFUSALS: Final = ("buffer_full", "spool_full", "event_too_large", "unencodable", "residency", "closed")

# What is of no known shape can be handed over as text.
_HAND_OVER: Final[Mapping[Where, str]] = {
    "prompt": "call.ask takes the prompt's text",
    "response": "call.answer(text=…) takes the answer's text, call.chunk a piece of it",
    "context": "call.ask(context=…) takes texts",
}

# A parent's connections as a forked child has them: closing one could end it for the parent, so they are kept open.
_inherited: Final[list[Log]] = []

Encodable = Mapping[str, Any] | RequestEvent | ResponseEvent | RejectedEvent | msgspec.Struct


class Emitter(Observer):
    """Takes events from a service to a durable log. Thread-safe; `emit` and `reject` never block and never raise.

    Closing, leaving a `with` block, the end of the interpreter and SIGTERM send what is left, within
    `settings.flush_timeout_s`; what cannot be sent by then goes to the spool, if there is one.

    `producer_id` with `first_seq` is for replays, which give the same event the same number every time. A producer id
    from the settings is a name that each run makes its own: with the bare name, a restarted service would begin at 0
    again, and the meter would take all it sends for repetitions. `reopen` makes another log of the same kind, for content and
    for a forked child; `signals` what the gate follows; `keys` what content is sealed with (default: the settings' ring);
    `residency` which data may rest where the log is (default: all).
    """

    def __init__(
        self,
        log: Log,
        *,
        settings: Settings | None = None,
        producer_id: str | None = None,
        first_seq: int = 0,
        reopen: Callable[[], Log] | None = None,
        signals: Callable[[], SignalSource] | None = None,
        keys: Callable[[], KeySource | None] | None = None,
        residency: Residency | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings if settings is not None else Settings.read()
        super().__init__(self.settings, now, monotonic)
        self._log = log
        self._reopen = reopen
        self._signals = signals
        self._keys = keys if keys is not None else lambda: key_source(self.settings)
        self._residency = residency
        self._gate: Gate | None = None
        self._max_events = self.settings.buffer_events
        self._max_bytes = self.settings.buffer_bytes
        self._wake_events = max(1, self._max_events // 4)
        self._wake_bytes = min(self._max_bytes // 4, MAX_ENVELOPE_BYTES)
        self._begin(producer_id or self._new_producer_id(), first_seq)
        lifecycle.watch(self)

    def _begin(self, producer: str, first_seq: int) -> None:
        """All that changes while running, as it is at the start; a forked child begins again with it."""
        self._closed = False  # nothing is accepted any more
        self._gating = threading.RLock()
        self._emitted = Tally()
        self.unread_answers = Tally()
        self.internal_errors = Tally()
        self._refusals = {reason: Tally() for reason in _REFUSALS}
        self._pump = Pump(
            self._log,
            producer,
            first_seq,
            settings=self.settings,
            refused=self._refused,
            errors=self.internal_errors,
            now=self.now,
            monotonic=self.monotonic,
        )
        self._lane = Lane(self._pump, "tidegate-emitter", self, self.monotonic)
        self._queue, self._nudges = self._pump.queue, self._pump.nudges  # at hand: every emit needs them
        self._content = ContentOutlet(
            self.settings,
            # A replay that begins in the middle has texts of its own, and not those of the beginning again.
            f"{producer[:180]}-{first_seq}" if first_seq else producer,
            open_log=self._reopen,
            keys=self._keys,
            residency=self._residency,
            owner=self,
            errors=self.internal_errors,
            now=self.now,
            monotonic=self.monotonic,
        )

    @property
    def producer(self) -> str:
        """The identity its events are numbered under."""
        return self._pump.shipper.producer

    @property
    def gate(self) -> Gate | None:
        """Answers whether calls may go; made when first asked for. None without a source of signals."""
        if self._gate is None and self._signals is not None:
            with self._gating:
                if self._gate is None:
                    from .gate import Gate, GateSettings  # who only emits does not need it in memory

                    settings = GateSettings(unheard=self.settings.gate_unheard)
                    self._gate = Gate(self._signals(), settings=settings, monotonic=self.monotonic)
        return self._gate

    # --- the caller's side -------------------------------------------------------------------------------------------

    def emit(self, event: Encodable, settled: Settled | None = None) -> bool:
        """Accept one event. False when it was dropped: `stats().dropped` says why.

        `settled` (a gate's reservation) hears where the event went: its place in the log, or None when it was dropped.
        """
        try:
            if type(event) is dict:
                # A copy: orjson leaves a short text in the 4 KB that it wrote it to, and twenty thousand may wait.
                line = bytes(memoryview(orjson.dumps(event)))
            elif isinstance(event, msgspec.Struct):
                line = msgspec.json.encode(event)
            elif isinstance(event, BaseModel):
                # Not model_dump_json: pydantic warns at its own text for a field with a PlainValidator (`started_at`).
                line = bytes(memoryview(orjson.dumps(event.model_dump(exclude_none=True))))
            else:
                line = bytes(memoryview(orjson.dumps(dict(event))))
            if self._residency is not None and self._crosses(self._residency, event, line):
                if settled is not None:
                    settled.placed(None)
                return False
            if settled is None:
                return self._put(line)
            accepted = self._put(line, settled)
            if not accepted:
                settled.placed(None)
            return accepted
        except Exception:  # noqa: BLE001 — the emitter's door: whatever a caller hands in, its call goes on
            if settled is not None:
                settled.placed(None)
            return self._refuse("unencodable")

    def _crosses(self, residency: Residency, event: Encodable, line: bytes) -> bool:
        """Whether an event may not rest where the log is. That it was refused does: who must know hears of it there."""
        if isinstance(event, Mapping):
            kind, tenant, region = (event.get(name) for name in ("event", "tenant", "region"))
        else:
            kind, tenant, region = (getattr(event, name, None) for name in ("event", "tenant", "region"))
        if kind == "rejected" or isinstance(event, HotRejected):
            return False
        crossed = residency.refusal(tenant if isinstance(tenant, str) else None, region if isinstance(region, str) else None)
        if crossed is None:
            return False
        self._refuse("residency")
        _, origin, refused_in = residency.labels(crossed)
        self._tell_once(
            f"residency_refused region={origin} log_region={refused_in}"
            " hint=these events may not rest where TIDEGATE_URL is; send them to a node of their own region"
        )
        self._put(rejected(line, residency.reason(crossed), "emitter", None, self.now(), crossed))
        return True

    def reject(self, line: bytes, reason: str, source: str, line_no: int | None = None) -> bool:
        """Accept the news that an edge could not make an event of `line`; only its fingerprint and size are kept."""
        try:
            return self._put(rejected(line, reason, source, line_no, self.now()))
        except Exception:  # noqa: BLE001 — the emitter's door
            return self._refuse("unencodable")

    def content_mode(self, tenant: str | None) -> ContentMode:
        """What leaves of this tenant's texts."""
        return self._content.mode(tenant)

    def pass_over(self, provider: str | None, found: Iterable[tuple[Where, PassedOver]]) -> None:
        name = short_code(provider) or "unknown"
        for where, reason in sorted(found):
            self._content.pass_over(name, reason)
            if reason == "unknown":
                self._tell_once(f"content_not_understood where={where} provider={name} hint={_HAND_OVER[where]}")

    def emit_content(self, call: Mapping[str, Any], texts: Texts | Mapping[str, Any]) -> bool:
        """Accept the texts of one call: `prompt`, `response` and `context`, any of them absent. They leave as the settings say,
        sealed or hashed or not at all. `call` has its `call_id` and `started_at`, and the scopes that findings are counted by;
        of other fields nothing is sent.

        False when they were dropped: `stats().content.dropped` says why. What is accepted waits in the clear until the
        content thread has sealed it: in memory only, for milliseconds, or for as long as an append to the log hangs.
        """
        try:
            found = texts if isinstance(texts, Mapping) else texts.model_dump()
            prompt, response, context = found.get("prompt"), found.get("response"), found.get("context") or ()
            if isinstance(context, str):
                context = (context,)
            if not all(text is None or isinstance(text, str) for text in (prompt, response, *context)):
                return self._content.refuse_invalid()
            return self._content.emit(call, prompt, response, [chunk for chunk in context if chunk])
        except Exception as error:  # noqa: BLE001 — the emitter's door
            self.note("emit_content", error)
            return self._content.refuse_invalid()

    def _put(self, line: bytes, settled: Settled | None = None) -> bool:
        size = len(line)
        if size > MAX_EVENT_BYTES:
            return self._refuse("event_too_large")
        if self._closed:
            return self._refuse("closed")
        pump = self._pump
        shipper = pump.shipper
        events = self._queue.qsize()
        queued = pump.put_bytes - pump.taken_bytes
        if events + shipper.memory_events >= self._max_events or queued + shipper.memory_bytes + size > self._max_bytes:
            return self._refuse("spool_full" if shipper.spool_full else "buffer_full")
        pump.put_bytes += size
        self._emitted.bump()
        self._queue.put(line if settled is None else Awaited(line, settled))
        if not pump.nudged and (events >= self._wake_events or queued >= self._wake_bytes):
            pump.nudged = True
            self._nudges.put(None)
        if not self._lane.started:
            self._lane.start()
        return not pump.ended or not pump.sweep()

    def _refuse(self, reason: str) -> bool:
        self._refusals[reason].bump()
        return False

    def _refused(self) -> Counter[str]:
        return Counter({reason: count for reason, tally in self._refusals.items() if (count := tally.value())})

    # --- waiting -----------------------------------------------------------------------------------------------------

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until all emitted before is in the log; False when `timeout_s` (default: flush_timeout_s) is over first."""
        bound = self._bound(timeout_s)
        until = self.monotonic() + bound
        calls = self._lane.flush(bound)
        return self._content.flush(max(0.0, until - self.monotonic())) and calls

    def close(self, timeout_s: float | None = None) -> bool:
        """Send what is left, spool what cannot be sent, let go of the log. True when nothing was lost. Idempotent."""
        self._closed = True
        if self._gate is not None:
            self._gate.close()
        bound = self._bound(timeout_s)
        until = self.monotonic() + bound
        # Both work at it at once; calls are waited for first.
        begun = self._content.begin_close(bound)
        calls = self._lane.close(bound)
        return self._content.close(max(0.0, until - self.monotonic()), begun) and calls

    def _bound(self, timeout_s: float | None) -> float:
        return self.settings.flush_timeout_s if timeout_s is None else timeout_s

    async def aflush(self, timeout_s: float | None = None) -> bool:
        """`flush` without holding up the event loop."""
        return await asyncio.to_thread(self.flush, timeout_s)

    async def aclose(self, timeout_s: float | None = None) -> bool:
        """`close` without holding up the event loop."""
        return await asyncio.to_thread(self.close, timeout_s)

    def wait_for_room(self, timeout_s: float | None = None) -> bool:
        """Block until half of each buffer is free: for batch tools, which would rather wait than drop."""
        until = None if timeout_s is None else self.monotonic() + timeout_s
        return self._lane.wait_for_room(timeout_s) and self._content.wait_for_room(
            None if until is None else max(0.0, until - self.monotonic())
        )

    def stats(self) -> EmitterStats:
        """The counts so far."""
        pump = self._pump
        shipper = pump.shipper
        settled = shipper.appended_events + shipper.spooled_events
        after = pump.dropped_after()
        refused = self._refused()
        emitted = self._emitted.value()
        return EmitterStats(
            emitted=emitted,
            appended=shipper.appended_events,
            spooled=shipper.spooled_events,
            pending=max(0, emitted - settled - after.total()),
            invalid=pump.invalid,
            dropped=refused + after,
            adopted=shipper.adopted_events,
            unread_answers=self.unread_answers.value(),
            internal_errors=self.internal_errors.value(),
            content=self._content.stats(),
        )

    def gate_stats(self) -> dict[str, Any] | None:
        """How it stands with the gate; None while nobody has asked it anything."""
        return None if self._gate is None else self._gate.stats()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # --- the end of the process (see lifecycle) ----------------------------------------------------------------------

    def exit_bound_s(self) -> float:
        """How long the end of the process may wait for this emitter."""
        return self.settings.flush_timeout_s

    def last_words(self) -> None:
        """A signal handler runs: the code it interrupted may hold a logging lock, so log nothing from here on."""
        self._pump.hush()
        self._content.hush()

    def forked(self) -> None:
        """Begin again in the child of a fork; everything so far is the parent's."""
        self._pump.shipper.abandon()
        self._content.abandon()
        closed = self._closed
        if self._reopen is not None:
            _inherited.append(self._log)
            self._log = self._reopen()
        self._begin(self._new_producer_id(), 0)
        self._closed = self._pump.ended = self._content.closed = closed

    def _new_producer_id(self) -> str:
        return new_producer_id(self.settings.producer_id, self.settings.service)


def new_producer_id(name: str | None, service: str | None) -> str:
    """`<service>-<host>-<pid>-<12 random hex>`, or `<name>-<12 random hex>`; visible ASCII, at most 200 characters."""
    name = name[:187] if name else f"{(service or 'py')[:80]}-{socket.gethostname()[:80]}-{os.getpid()}"
    return f"{re.sub(r'[^!-~]', '_', name)}-{secrets.token_hex(6)}"
