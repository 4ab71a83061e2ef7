"""The guardrails on one partition of the content topic: records in, jobs out; judgements in, records of five topics out.

    record ─ envelope? ─ seen before? ─ each line: decode ─ hashed? ─ at risk, ordinary, left out? ─ key? ─► job
       │         │            │            │                                                        │
       │         │            └ nothing    └ rejected line                                       unreadable
       └ dead letter                                                                                │
                                                       judgement ◄─ pool ◄─ job                      │
                                                           └───────────────┬────────────────────────┘
      in the order of the records:   scored events ─► calls    redacted texts ─► transcripts
                                     what broke a worker, or could not be read ─► quarantine (sealed), and an alert

Every line of an envelope comes out as one line for the calls topic, under the number that its producer gave it and in the
name of that producer (`verdict_producer`). So the meter, which counts every number once, counts every verdict once, however
often a record is read, judged or sent again; and nothing need be remembered for that.

Where PHI was asked for and not judged there is no transcript: the sealed record goes to quarantine instead.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import orjson

from ...schemas.content import CALL_FIELDS, ContentEvent, decode_content
from ...schemas.envelope import CONTENT_SCHEMAS, MAX_ENVELOPE_BYTES, MAX_ENVELOPE_EVENTS, MAX_EVENT_BYTES, SCHEMA, Envelope
from ...schemas.errors import InvalidEvent, Unreadable
from ...schemas.signal import Alert
from ..meter import KEYED, SourceRecord
from .jobs import Job, Judged
from .sampling import Choice, Sampling

# Producers whose last number is remembered, to know an envelope that comes twice: twice judged is harmless, but work.
_MOST_PRODUCERS: Final = 10_000
# Redacted texts in one record: a record of the transcripts topic may have 16 MB.
_MOST_TRANSCRIPT_BYTES: Final = 12 << 20
# And so many such records at most of one envelope.
_MOST_TRANSCRIPTS: Final = 4
# An incident that goes on is told again after this, with what it has come to.
ALERT_AGAIN_S: Final = 300.0
# Content older than this when it is read means that scoring is behind.
BEHIND_S: Final = 120.0
# And this, that somebody should look: answers go out unwatched. Content itself goes after a day.
ALERT_BEHIND_S: Final = 900.0

Out = tuple[dict[str, str], bytes]
# What a detector may know of the call.
_KNOWN: Final = ("tenant", "prompt_name", "prompt_version", "task_type", "request_model", "response_model")
_OF_CALL: Final = ("call_id", "started_at", *CALL_FIELDS)


class Opening(Protocol):
    """A ring, or where one comes from."""

    def __call__(self, key_id: str, /) -> Any: ...


@dataclass(slots=True, eq=False)
class _Line:
    """One line of a content envelope on its way. `verdict` is what is known of it, sooner or later."""

    seq: int
    raw: bytes
    event: ContentEvent | None = None
    verdict: Judged | None = None
    problem: str | None = None
    job: Job | None = None
    choice: Choice = Choice.ORDINARY


@dataclass(slots=True, eq=False)
class _Record:
    """One record on its way; without an envelope it is a dead letter for `problem`."""

    offset: int
    appended_ms: int
    value: bytes
    envelope: Envelope | None = None
    lines: list[_Line] = field(default_factory=list)
    problem: str | None = None
    # What its producer should send next, once this is passed.
    next_seq: int = 0

    @property
    def finished(self) -> bool:
        return all(line.verdict is not None or line.problem is not None for line in self.lines)


@dataclass(slots=True)
class Outputs:
    """What finished records yield, for five topics, as (headers, value); and how far they reach."""

    next_offset: int = 0
    scored: list[Out] = field(default_factory=list)
    transcripts: list[Out] = field(default_factory=list)
    quarantine: list[Out] = field(default_factory=list)
    dead_letters: list[Out] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    texts: int = 0
    # Producers whose number has moved on, and to what.
    producers: dict[str, int] = field(default_factory=dict)


class Alerting:
    """Tells each kind of trouble at once, and again when it goes on; counts what happened in between. One for an engine."""

    def __init__(self) -> None:
        self._told_at: dict[str, float] = {}
        self._untold: Counter[str] = Counter()

    def tell(self, name: str, kind: str, title: str, now: float, severity: Any = "warning") -> list[Alert]:
        """The alert, or nothing for now."""
        self._untold[name] += 1
        if now - self._told_at.get(name, float("-inf")) < ALERT_AGAIN_S:
            return []
        self._told_at[name] = now
        count, self._untold[name] = self._untold[name], 0
        more = f" ({count} times since the last word)" if count > 1 else ""
        return [Alert(key=f"guardrails|{name}", kind=kind, severity=severity, title=f"guardrails: {title}{more}", at=now)]


class Partition:
    """One partition of content. `next_number()` numbers jobs for the pool, over all partitions; `asked`: the detectors."""

    def __init__(
        self,
        number: int,
        asked: Sequence[str],
        redaction: str,
        sampling: Sampling,
        alerting: Alerting,
        next_number: Callable[[], int],
        *,
        next_offset: int = 0,
        producers: Mapping[str, int] | None = None,
    ) -> None:
        self.number = number
        self.next_offset = next_offset
        self._asked = asked
        self._redaction = redaction
        self._sampling = sampling
        self._alerting = alerting
        self._next_number = next_number
        self._producers: OrderedDict[str, int] = OrderedDict(producers or {})
        self._under_way: deque[_Record] = deque()
        self._lines: dict[int, _Line] = {}

    @property
    def records(self) -> int:
        """Records taken and not finished."""
        return len(self._under_way)

    @property
    def lines(self) -> int:
        """Lines of these records."""
        return sum(len(record.lines) for record in self._under_way)

    @property
    def size_bytes(self) -> int:
        return sum(len(record.value) for record in self._under_way)

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest of them came into the log."""
        return self._under_way[0].appended_ms if self._under_way else None

    @property
    def producers(self) -> Mapping[str, int]:
        """The next number of each producer, latest last."""
        return self._producers

    # ---- in

    def take(self, record: SourceRecord, opening: Opening, fingerprint_key: bytes, now: float) -> list[tuple[Job, Choice]]:
        """Take the next record. Returns what is to be judged of it. `now` is seconds since 1970, the log's clock.

        Raises what `opening` does but `Unreadable`, and then nothing was taken.
        """
        if record.offset < self.next_offset:
            return []
        found = _Record(record.offset, record.appended_ms, record.value)
        try:
            envelope = Envelope.from_record(record.headers, record.value, CONTENT_SCHEMAS)
            raw = envelope.lines()
        except InvalidEvent as error:
            found.problem = error.reason
        else:
            next_seq = self._producers.get(envelope.producer, envelope.seq)
            known = min(max(next_seq - envelope.seq, 0), len(raw))
            found.envelope = envelope
            age_s = now - record.appended_ms / 1_000
            found.lines = [
                self._line(one, seq, record.appended_ms, opening, fingerprint_key, age_s)
                for seq, one in enumerate(raw[known:], envelope.seq + known)
            ]
            found.next_seq = self._producers[envelope.producer] = max(next_seq, envelope.seq + len(raw))
            self._producers.move_to_end(envelope.producer)
            while len(self._producers) > _MOST_PRODUCERS:
                self._producers.popitem(last=False)
        self._under_way.append(found)
        self.next_offset = record.offset + 1
        asked = [line for line in found.lines if line.job is not None]
        self._lines.update({line.job.number: line for line in asked if line.job})
        return [(line.job, line.choice) for line in asked if line.job]

    def _line(self, raw: bytes, seq: int, appended_ms: int, opening: Opening, fingerprint_key: bytes, age_s: float) -> _Line:
        line = _Line(seq, raw)
        try:
            line.event = event = decode_content(raw)
        except InvalidEvent as error:
            line.problem = error.reason
            return line
        if event.mode == "hashed" or event.sealed is None or event.key_id is None:
            line.verdict = Judged(number=-1, outcome="hashed")
            return line
        line.choice = self._sampling.choose(
            event, fingerprint_key, appended_ms, behind=age_s > BEHIND_S, far_behind=age_s > ALERT_BEHIND_S
        )
        if line.choice is Choice.LEFT_OUT:
            line.verdict = Judged(number=-1, outcome="sampled_out")
            return line
        try:
            key = opening(event.key_id)
        except Unreadable as error:
            line.verdict = Judged(number=-1, outcome="unreadable", failed={"content": error.reason})
            return line
        known = {name: value for name in _KNOWN if (value := getattr(event, name)) is not None}
        line.job = Job(
            number=self._next_number(),
            call_id=event.call_id,
            sealed=event.sealed,
            key_id=event.key_id,
            key=key.secret,
            known=known,
        )
        return line

    def heard(self, judged: Judged) -> bool:
        """A judgement is there. Whether it was one of ours."""
        line = self._lines.pop(judged.number, None)
        if line is None:
            return False
        line.verdict, line.job = judged, None
        return True

    # ---- out

    def finished(self, now: float, most_bytes: int = 4 << 20) -> Outputs | None:
        """What the oldest records yield, up to the first that is not finished, or until that is enough; None without any."""
        if not self._under_way or not self._under_way[0].finished:
            return None
        outputs, size = Outputs(), 0
        while self._under_way and self._under_way[0].finished and size < most_bytes:
            record = self._under_way.popleft()
            self._put_out(record, outputs, now)
            outputs.next_offset = record.offset + 1
            if record.envelope is not None:
                outputs.producers[record.envelope.producer] = record.next_seq
            size += len(record.value)
        return outputs

    def _put_out(self, record: _Record, outputs: Outputs, now: float) -> None:
        envelope = record.envelope
        if envelope is None:
            outputs.outcomes["dead_letter"] += 1
            outputs.dead_letters.append(
                ({**self._source(record, f"guardrails:{self.number}"), "count": "1"}, self._dead_letter(record))
            )
            return
        lines: list[bytes] = []
        rows: list[list[bytes]] = []
        room = 0
        for line in record.lines:
            verdict, event = line.verdict, line.event
            if verdict is None or event is None:
                lines.append(self._rejected(line, now))
                outputs.outcomes["rejected"] += 1
                continue
            lines.append(scored_line(event, verdict, now))
            self._count(verdict, outputs)
            closed = verdict.outcome in ("scored", "partial") and "phi" in self._asked and verdict.redacted is None
            if closed or verdict.outcome in ("unreadable", "quarantined"):
                reason = "phi_failed" if closed else next(iter(verdict.failed.values()), verdict.outcome)
                headers = self._source(record, str(self.number)) | {
                    "schema": envelope.schema,
                    "producer": envelope.producer,
                    "seq": str(line.seq),
                    "count": "1",
                    "reason": reason,
                }
                outputs.quarantine.append((headers, line.raw))
                outputs.alerts += self._alert(verdict, closed, reason, now)
            elif verdict.redacted is not None:
                row = self._transcript(record, envelope, line, event, verdict)
                if room < len(row) <= _MOST_TRANSCRIPT_BYTES and len(rows) < _MOST_TRANSCRIPTS:
                    rows.append([])
                    room = _MOST_TRANSCRIPT_BYTES
                if len(row) <= room:
                    rows[-1].append(row)
                    room -= len(row)
                else:
                    outputs.outcomes["transcript_too_large"] += 1
            for name in verdict.failed:
                if name in self._asked and not (closed and name == "phi"):
                    outputs.alerts += self._alerting.tell(
                        f"failing|{name}", "guardrails_detector", f"the detector {name} fails; see its calls' `failed`", now
                    )
        for place, part in enumerate(rows):
            # A sink takes one record of a source and offset: each further part has a source of its own.
            source = self._source(record, f"{self.number}/{place}" if place else str(self.number))
            outputs.transcripts.append(({**source, "count": str(len(part))}, b"\n".join(part)))
        # Numbers are used up in order: what comes twice is not put out twice, and the rest not under other numbers.
        first = record.lines[0].seq if record.lines else 0
        for start, part in _parts(lines):
            verdicts = Envelope(
                verdict_producer(envelope.producer), first + start, len(part), b"\n".join(part), envelope.dropped, SCHEMA
            )
            outputs.scored.append((verdicts.headers(), verdicts.value))

    def _count(self, verdict: Judged, outputs: Outputs) -> None:
        outputs.outcomes[verdict.outcome] += 1
        outputs.outcomes["cached"] += verdict.cached
        outputs.texts += verdict.texts
        outputs.findings.update((one.detector, one.type) for one in verdict.findings)
        outputs.failed.update(verdict.failed.keys())

    def _alert(self, verdict: Judged, closed: bool, reason: str, now: float) -> list[Alert]:
        if closed:
            title = "PHI could not be judged: no transcript is kept, the sealed text waits in quarantine"
            return self._alerting.tell("phi", "guardrails_phi", title, now, "critical")
        if verdict.outcome == "quarantined":
            title = f"a text ends the process that judges it ({reason}); it waits in quarantine, sealed"
            return self._alerting.tell("quarantined", "guardrails_quarantine", title, now)
        title = f"sealed content cannot be opened ({reason}); see `tidegate keys check`"
        return self._alerting.tell(f"unreadable|{reason}", "guardrails_unreadable", title, now)

    def _source(self, record: _Record, partition: str) -> dict[str, str]:
        return {"schema": "rows/1", "source_partition": partition, "source_offset": str(record.offset)}

    def _transcript(self, record: _Record, envelope: Envelope, line: _Line, event: ContentEvent, verdict: Judged) -> bytes:
        redacted = verdict.redacted
        row = of_call(event)
        if redacted is not None:
            row |= {
                "redacted_prompt": redacted.prompt,
                "redacted_response": redacted.response,
                "redacted_context": redacted.context,
            }
        row |= {
            "redaction": self._redaction,
            "producer": envelope.producer,
            "seq": line.seq,
            "ingested_at": _iso(record.appended_ms / 1_000),
            "source_partition": self.number,
            "source_offset": record.offset,
        }
        return orjson.dumps(row)

    def _rejected(self, line: _Line, now: float) -> bytes:
        return orjson.dumps(
            {
                "event": "rejected",
                "rejected_at": _iso(now),
                "source": "content",
                "size_bytes": len(line.raw),
                "sha256": hashlib.sha256(line.raw).hexdigest(),
                "reason": line.problem or "not a content event",
            }
        )

    def _dead_letter(self, record: _Record) -> bytes:
        return orjson.dumps(
            {
                "at": _iso(record.appended_ms / 1_000),
                "stage": "guardrails",
                "source": "content",
                "line": None,
                "size_bytes": len(record.value),
                "sha256": hashlib.sha256(record.value).hexdigest(),
                "reason": record.problem,
                "producer": "",
                "seq": None,
                "source_partition": self.number,
                "source_offset": record.offset,
            }
        )


def verdict_producer(producer: str) -> str:
    """In whose name verdicts on a producer's content are put out: each numbers its own, so the meter tells them apart.

    The content of a request under an Idempotency-Key keeps the mark of one: the meter forgets those sooner.
    """
    mark, name = (KEYED, producer.removeprefix(KEYED)) if producer.startswith(KEYED) else ("", producer)
    if len(mark) + len("guardrails:") + len(name) > 200:
        name = hashlib.sha256(name.encode()).hexdigest()
    return f"{mark}guardrails:{name}"


def scored_line(event: ContentEvent, verdict: Judged, now: float) -> bytes:
    """The scored event of a content event, at most `MAX_EVENT_BYTES` long: what matters least goes first."""
    row: dict[str, Any] = {"event": "scored", **of_call(event), "scored_at": _iso(now), "outcome": verdict.outcome}
    findings = [_finding(one) for one in verdict.findings]
    evidence: list[Any] = list(verdict.evidence)
    more = verdict.more_findings
    for name in ("scores", "detectors", "failed"):
        if found := getattr(verdict, name):
            row[name] = found
    if verdict.cached:
        row["cached"] = True
    if verdict.scoring_s is not None:
        row["scoring_s"] = verdict.scoring_s
    while True:
        line = orjson.dumps(row | {"findings": findings, "more_findings": more, "evidence": evidence})
        if len(line) <= MAX_EVENT_BYTES or not (findings or evidence):
            return line
        if evidence:
            evidence = evidence[: len(evidence) // 2]
        else:
            more += len(findings) - len(findings) // 2
            findings = findings[: len(findings) // 2]


def of_call(event: ContentEvent) -> dict[str, Any]:
    """Which call it is of, and what that counts in."""
    return {name: value for name in _OF_CALL if (value := getattr(event, name)) is not None}


def _finding(one: Any) -> dict[str, Any]:
    found = {
        "detector": one.detector,
        "type": one.type,
        "where": one.where,
        "start": one.start,
        "end": one.end,
        "score": one.score,
    }
    if one.chunk:
        found["chunk"] = one.chunk
    if one.leak:
        found["leak"] = True
    if one.fingerprint is not None:
        found["fingerprint"] = one.fingerprint
    return found


def _parts(lines: Sequence[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Lines in as few envelopes as take them, each with the place of its first."""
    start, size = 0, 0
    for place, line in enumerate(lines):
        if place > start and (size + len(line) >= MAX_ENVELOPE_BYTES or place - start >= MAX_ENVELOPE_EVENTS):
            yield start, list(lines[start:place])
            start, size = place, 0
        size += len(line) + 1
    if start < len(lines):
        yield start, list(lines[start:])


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
