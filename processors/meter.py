"""The meter: envelopes of the calls topic in; priced rows, usage and dead letters out.

    record ─ envelope? ─ seen before? ─ each line: decode ─ clock sane? ─ normalise usage ─ price ─┬─ row of metered
       │          │            │                │              │               │                   ├─ usage of its scopes
       │          │            └ duplicates     └──────────────┴───────────────┴─ dead letter      ├─ row of requests
       │          │                                                                                └─ row of findings
       │          └ dead letter
       └ (partition, offset) named in every output

Every line in comes out once: as a row, a dead letter, or a counted duplicate. `totals` keeps that account for ever. Where
most come out as dead letters the brake stops the step: the records behind it are not applied, and come again.
What may not rest in this log's region, by the residency map, is a dead letter of which nothing is kept.
The step looks at no clock but the log's own (`appended_ms`), so that a replay judges every line as it did before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec
import orjson

from ..schemas.call import MAX_TOKENS, RejectedEvent, RequestEvent, ResponseEvent, check_response
from ..schemas.envelope import Envelope
from ..schemas.errors import InvalidEvent
from ..schemas.hot import HotRejected, HotRequest, HotScored, decode_event
from ..schemas.provider_usage import normalise_usage
from ..schemas.residency import CrossRegion, Residency
from ..schemas.usage import ERROR_PLACES
from . import call_account
from .aggregate import UsageKey, UsageState
from .brake import Brake
from .call_account import Example, bucket_of
from .forgetting import Forgotten
from .letters import REPLAYED, REPLAYED_RETENTION_MS, LetterId, Refused, Sealed
from .pricing import PriceBook
from .series import SeriesState

# Before this no LLM API existed: an earlier time is a clock that was never set.
EARLIEST_S: Final = datetime(2015, 1, 1, tzinfo=UTC).timestamp()
# A producer that has been silent for this long is gone; its number would only take room.
PRODUCER_RETENTION_MS: Final = 400 * 86_400_000
# A request under an Idempotency-Key is a producer of its own, and its retries come within minutes. Three days, as the
# raw calls are kept; a year of requests would fill the memory.
KEYED: Final = "idempotency-key:"
KEYED_RETENTION_MS: Final = 3 * 86_400_000


def retention_ms(producer: str) -> int:
    """How long after its last word a producer is known."""
    if producer.startswith(KEYED):
        return KEYED_RETENTION_MS
    return REPLAYED_RETENTION_MS if producer.startswith(REPLAYED) else PRODUCER_RETENTION_MS


# Verdicts bear the numbers of their content, under such a name. Content that went missing is not spending that did.
VERDICTS: Final = ("guardrails:", f"{KEYED}guardrails:")

_encode: Final = msgspec.json.encode

# Names are anybody's: what is noted of models for the gates is bounded.
MOST_ASKED: Final = 1_000
MOST_WAYS: Final = 8

Out = tuple[dict[str, str], bytes]


class _MayNotRest(InvalidEvent):
    """An event is of another region: its line must not be kept."""


class SourceRecord(Protocol):
    """What the meter needs to know of a log record, whichever log it is from."""

    @property
    def offset(self) -> int: ...
    @property
    def appended_ms(self) -> int: ...
    @property
    def value(self) -> bytes: ...
    @property
    def headers(self) -> Any: ...


@dataclass(slots=True)
class Seen:
    """What is known of a producer: the next number it should send, when it last spoke, what it says it dropped."""

    next_seq: int
    seen_ms: int
    dropped: int = 0


@dataclass(slots=True)
class MeterState:
    """Everything the meter knows of one source partition."""

    partition: int
    usage: UsageState
    series: SeriesState = field(default_factory=lambda: SeriesState({}))
    next_offset: int = 0
    producers: dict[str, Seen] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    changed_producers: set[str] = field(default_factory=set)
    # Under which provider, response model and tier each model that was asked has answered: what gates want prices of.
    asked: dict[str, set[tuple[str | None, str | None, str | None]]] = field(default_factory=dict)
    brake: Brake = field(default_factory=Brake)
    # Whose late events are nobody's.
    forgotten: Forgotten | None = None

    def flushed(self) -> list[UsageKey]:
        """What has changed is stored. Returns the buckets of usage that leave memory."""
        self.changed_producers.clear()
        self.series.flushed()
        return self.usage.flushed()


@dataclass(slots=True)
class MeterOutputs:
    """What one step yields besides the state: records for four topics, as (headers, value), the lines that were refused, and
    the writes that an edge or the meter refused because they may not rest where they would."""

    metered: list[Out] = field(default_factory=list)
    requests: list[Out] = field(default_factory=list)
    findings: list[Out] = field(default_factory=list)
    dead_letters: list[Out] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    crossed: list[CrossRegion] = field(default_factory=list)
    # Calls to look at, as an account shows them: of each envelope the slowest one and the last one that failed.
    examples: list[tuple[Any, int, Example]] = field(default_factory=list)
    events: int = 0


def meter(
    state: MeterState,
    records: Sequence[SourceRecord],
    book: PriceBook,
    max_future_s: float,
    residency: Residency | None = None,
) -> tuple[MeterState, MeterOutputs]:
    """Apply records of one partition, in order, to the state given (which is changed), and say what they yield.

    Records below `state.next_offset` were applied before and are skipped: a replay changes nothing. Those from it on are
    left, once the brake has stopped it.
    """
    outputs = MeterOutputs()
    for record in records:
        if record.offset < state.next_offset:
            continue
        if state.brake.stopped:
            break
        _Envelope(state, record, book, max_future_s, residency, outputs).apply()
        state.next_offset = record.offset + 1
    state.usage.roll_up()
    for event, place, example in outputs.examples:
        model = event.response_model or event.request_model
        state.usage.account.show((event.tenant, event.provider_name, model), place, example)
    return state, outputs


class _Envelope:
    """One record on its way through; holds what its lines share."""

    def __init__(
        self,
        state: MeterState,
        record: SourceRecord,
        book: PriceBook,
        max_future_s: float,
        residency: Residency | None,
        outputs: MeterOutputs,
    ) -> None:
        self.state = state
        self.record = record
        self.book = book
        self.residency = residency
        self.outputs = outputs
        self.appended_s = record.appended_ms / 1_000
        self.latest_s = self.appended_s + max_future_s
        self.rows: list[bytes] = []
        self.requests: list[bytes] = []
        self.findings: list[bytes] = []
        self.dead: list[bytes] = []
        self.slowest: Any = None
        self.slowest_s = 0.0
        self.failed: Any = None

    def apply(self) -> None:
        record, totals = self.record, self.state.totals
        try:
            envelope = Envelope.from_record(record.headers, record.value)
        except InvalidEvent as error:
            _count(totals, "bad_envelopes")
            self._dead_letter(record.value, error.reason, producer="", seq=None)
            self._brake("", refused := record.value.count(b"\n") + 1, refused)
            self._send()
            return
        _count(totals, "envelopes")
        seen = self._seen(envelope)
        try:
            lines = envelope.lines()
        except InvalidEvent as error:
            # The numbers it claims are used up; what it held is one dead letter to look at.
            if envelope.seq + envelope.count > seen.next_seq:
                _count(totals, "bad_envelopes")
                self._dead_letter(record.value, error.reason, producer=envelope.producer, seq=envelope.seq)
                seen.next_seq = envelope.seq + envelope.count
                self._brake(envelope.producer, refused := record.value.count(b"\n") + 1, refused)
                self._send()
            return
        known = min(max(seen.next_seq - envelope.seq, 0), len(lines))
        _count(totals, "events", len(lines))
        _count(totals, "duplicates", known)
        if known == len(lines):
            return
        if envelope.seq > seen.next_seq:
            if envelope.producer.startswith(VERDICTS):
                _count(totals, "content_lost", envelope.seq - seen.next_seq)
            else:
                _count(totals, "lost", envelope.seq - seen.next_seq)
        self._prepare_tail(envelope)
        self.producer = envelope.producer
        refused = 0
        for seq, line in enumerate(lines[known:], envelope.seq + known):
            try:
                self._event(line, seq)
            except InvalidEvent as error:
                _count(totals, "dead_letters")
                refused += 1
                kept = not isinstance(error, _MayNotRest)
                self._dead_letter(line, error.reason, producer=envelope.producer, seq=seq, kept=kept)
        seen.next_seq = envelope.seq + len(lines)
        _count(totals, "responses", len(self.rows))
        _count(totals, "requests", len(self.requests))
        _count(totals, "scored", len(self.findings))
        self._show()
        self.outputs.events += len(lines) - known
        self._brake(envelope.producer, len(lines) - known, refused)
        self._send()

    def _seen(self, envelope: Envelope) -> Seen:
        producers = self.state.producers
        seen = producers.get(envelope.producer)
        if seen is None:
            # A producer whose first numbers never came has lost nothing that we know of: a replay may start later.
            seen = producers[envelope.producer] = Seen(0 if envelope.seq == 0 else envelope.seq, self.record.appended_ms)
        self.state.changed_producers.add(envelope.producer)
        seen.seen_ms = self.record.appended_ms
        if envelope.dropped > seen.dropped:
            if envelope.producer.startswith(VERDICTS):
                _count(self.state.totals, "content_dropped", envelope.dropped - seen.dropped)
            else:
                _count(self.state.totals, "dropped", envelope.dropped - seen.dropped)
            seen.dropped = envelope.dropped
        return seen

    def _prepare_tail(self, envelope: Envelope) -> None:
        """What all rows of this envelope end in."""
        self.tail = (
            ","
            + orjson.dumps(
                {
                    "producer": envelope.producer,
                    "ingested_at": _iso(self.record.appended_ms),
                    "source_partition": self.state.partition,
                    "source_offset": self.record.offset,
                }
            )[1:].decode()
        )
        self.book_version = orjson.dumps(self.book.version).decode()

    def _event(self, line: bytes, seq: int) -> None:
        event = decode_event(line)
        forgotten = self.state.forgotten
        if forgotten is not None and forgotten.has(event):
            event = decode_event(forgotten.erased(line))
        if isinstance(event, HotRejected):
            _count(self.state.totals, "rejected")
            self.dead.append(_rejected_row(event, self.producer, seq, self.state.partition, self.record.offset))
            if event.refused_in is not None:
                self._crossed(CrossRegion(event.tenant, event.region, event.refused_in))
            elif event.sealed is not None and event.key_id is not None:
                sealed = Sealed(event.key_id, event.sealed)
                self._keep("edge", event.reason, self.producer, seq, event.size_bytes, event.sha256, sealed=sealed)
            return
        # First: of what may not rest here nothing may be kept, whatever else is wrong with it.
        if self.residency is not None and (crossed := self.residency.refusal(event.tenant, event.region)) is not None:
            self._crossed(crossed)
            raise _MayNotRest(self.residency.reason(crossed))
        started_s = event.started_at.timestamp()
        if started_s > self.latest_s:
            raise InvalidEvent("started_at is too far ahead of the log's clock; check the producer's clock - at `$.started_at`")
        if started_s < EARLIEST_S:
            raise InvalidEvent("started_at is before 2015; check the producer's clock - at `$.started_at`")
        if isinstance(event, HotRequest):
            self.requests.append(_encode(event)[:-1] + f',"seq":{seq}{self.tail}'.encode())
            self.state.series.request(event, self.record.appended_ms, self._estimate(event))
            return
        if isinstance(event, HotScored):
            self.findings.append(_encode(event)[:-1] + f',"seq":{seq}{self.tail}'.encode())
            self.state.usage.add_scored(event, started_s)
            self.state.series.scored(event, started_s, self.appended_s)
            return
        if event.usage is not None:
            event = _normalised(event)
        self._note_asked(event)
        price = self.book.price(
            event.tenant,
            event.provider_name,
            event.response_model,
            event.request_model,
            event.service_tier,
            event.started_at,
            event.input_tokens,
            event.output_tokens,
            event.cache_read_tokens,
            event.cache_write_5m_tokens,
            event.cache_write_1h_tokens,
            event.reasoning_tokens,
            event.input_audio_tokens,
            event.output_audio_tokens,
            event.cache_audio_read_tokens,
            event.cache_hit,
        )
        cost, status = price.cost_nano_usd, price.status
        self.state.usage.add(event, started_s, cost)
        self.state.series.response(event, started_s, cost, status == "unpriced", self.appended_s)
        if event.error_type is not None:
            self.failed = event
        if (latency_s := event.latency_s) is not None and latency_s >= self.slowest_s:
            self.slowest, self.slowest_s = event, latency_s
        stated = "null" if cost is None else cost
        savings = price.cache_savings_nano_usd
        if savings is not None:
            stated = f'{stated},"cache_savings_nano_usd":{savings}'
        priced = f',"cost_nano_usd":{stated},"price_status":"{status}","price_book":{self.book_version},"seq":{seq}{self.tail}'
        # Encoded anew, not spliced into the sender's bytes: a key given twice there would poison the whole batch later.
        self.rows.append(_encode(event)[:-1] + priced.encode())

    def _show(self) -> None:
        examples = self.outputs.examples
        if (event := self.slowest) is not None:
            place = call_account.LATENCY + bucket_of(self.slowest_s)
            examples.append((event, place, Example(event.call_id, self.slowest_s, self.appended_s)))
        if (event := self.failed) is not None:
            examples.append((event, ERROR_PLACES[event.error_type], Example(event.call_id, 1.0, self.appended_s)))

    def _crossed(self, crossed: CrossRegion) -> None:
        _count(self.state.totals, "residency")
        self.outputs.crossed.append(crossed)

    def _note_asked(self, event: ResponseEvent) -> None:
        way = (event.provider_name, event.response_model, event.service_tier)
        asked = self.state.asked
        ways = asked.get(event.request_model)
        if ways is None:
            if len(asked) < MOST_ASKED:
                asked[event.request_model] = {way}
        elif way not in ways and len(ways) < MOST_WAYS:
            ways.add(way)

    def _estimate(self, event: RequestEvent) -> int | None:
        """What an announced call is expected to cost; None when nothing was estimated, or no price is known."""
        return self.book.price(
            event.tenant,
            event.provider_name,
            None,
            event.request_model,
            event.service_tier,
            event.started_at,
            event.estimated_input_tokens,
            event.estimated_output_tokens,
        ).cost_nano_usd

    def _brake(self, producer: str, lines: int, refused: int) -> None:
        # What a person has replayed says nothing about a deploy, and a verdict nothing about who sent the content.
        if producer.startswith((REPLAYED, *VERDICTS)):
            return
        if producer.startswith(KEYED):
            producer = KEYED
        self.state.brake.count(self.record.offset, self.record.appended_ms, producer, lines, refused)

    def _keep(
        self, stage: str, reason: str, producer: str, seq: int | None, size_bytes: int, sha256: str,
        line: bytes = b"", sealed: Sealed | None = None,
    ) -> None:  # fmt: skip
        letter_id = LetterId(self.state.partition, self.record.offset, seq)
        self.outputs.refused.append(Refused(letter_id, stage, reason, producer, size_bytes, sha256, line, sealed))

    def _dead_letter(self, value: bytes, reason: str, producer: str, seq: int | None, kept: bool = True) -> None:
        sha256 = hashlib.sha256(value).hexdigest()
        self._keep("meter", reason, producer, seq, len(value), sha256, value if kept else b"")
        self.dead.append(
            orjson.dumps(
                {
                    "at": _iso(self.record.appended_ms),
                    "stage": "meter",
                    "source": "log",
                    "line": None,
                    "size_bytes": len(value),
                    "sha256": sha256,
                    "reason": reason,
                    "producer": producer,
                    "seq": seq,
                    "source_partition": self.state.partition,
                    "source_offset": self.record.offset,
                }
            )
        )

    def _send(self) -> None:
        headers = {"schema": "rows/1", "source_partition": str(self.state.partition), "source_offset": str(self.record.offset)}
        for rows, out in (
            (self.rows, self.outputs.metered),
            (self.requests, self.outputs.requests),
            (self.findings, self.outputs.findings),
            (self.dead, self.outputs.dead_letters),
        ):
            if rows:
                out.append(({**headers, "count": str(len(rows))}, b"\n".join(rows)))


def _normalised(event: ResponseEvent) -> ResponseEvent:
    """The event with token fields in place of the provider's raw usage object. Raises `InvalidEvent`."""
    try:
        tokens = normalise_usage(event.usage or {}, event.provider_name)
        if max(tokens.values(), default=0) > MAX_TOKENS:
            raise ValueError(f"usage holds a count above {MAX_TOKENS}")
        normalised: ResponseEvent = msgspec.structs.replace(event, usage=None, **tokens)  # type: ignore[type-var]  # a hot struct
        check_response(normalised)
    except ValueError as error:
        raise InvalidEvent(f"{error} - at `$.usage`"[:256]) from None
    return normalised


def _rejected_row(event: RejectedEvent, producer: str, seq: int, partition: int, offset: int) -> bytes:
    return orjson.dumps(
        {
            "at": event.rejected_at,
            "stage": "edge",
            "source": event.source,
            "line": event.line,
            "size_bytes": event.size_bytes,
            "sha256": event.sha256,
            "reason": event.reason,
            "producer": producer,
            "seq": seq,
            "source_partition": partition,
            "source_offset": offset,
        }
    )


def _count(totals: dict[str, int], name: str, by: int = 1) -> None:
    if by:
        totals[name] = totals.get(name, 0) + by


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1_000, UTC).isoformat(timespec="milliseconds")
