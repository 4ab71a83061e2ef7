"""What a judged record of content yields: records of five topics. No text but what is redacted, and what is still sealed.

    record, all judged ─► each line ─┬─► scored or rejected event ─► calls
                                     ├─► redacted texts ───────────► transcripts
                                     └─► the line as it came ──────► quarantine (unless its key is gone), and an alert
    no envelope ─► dead letter

Every line of an envelope comes out as one line for the calls topic, under the number that its producer gave it and in the
name of that producer (`verdict_producer`). So the meter, which counts every number once, counts every verdict once, however
often a record is read, judged or sent again; and nothing need be remembered for that.

Where PHI was asked for and not judged there is no transcript: the sealed record goes to quarantine instead.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from ...schemas.content import CALL_FIELDS, ContentEvent
from ...schemas.envelope import MAX_ENVELOPE_BYTES, MAX_ENVELOPE_EVENTS, MAX_EVENT_BYTES, SCHEMA, Envelope
from ...schemas.errors import KeyGone
from ...schemas.signal import Alert
from ..meter import KEYED
from .alerting import Alerting
from .jobs import Judged
from .under_way import Line, Record

# Redacted texts in one record: a record of the transcripts topic may have 16 MB.
_MOST_TRANSCRIPT_BYTES: Final = 12 << 20
# And so many such records at most of one envelope.
_MOST_TRANSCRIPTS: Final = 4

Out = tuple[dict[str, str], bytes]
_KEY_GONE: Final = KeyGone().reason
_OF_CALL: Final = ("call_id", "started_at", *CALL_FIELDS)


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


@dataclass(frozen=True, slots=True)
class Writing:
    """Puts out the records of one partition. `asked`: the detectors; `redaction`: how transcripts are redacted."""

    number: int
    asked: Sequence[str]
    redaction: str
    alerting: Alerting

    def put_out(self, record: Record, outputs: Outputs, now: float) -> None:
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
            closed = verdict.outcome in ("scored", "partial") and "phi" in self.asked and verdict.redacted is None
            if closed or verdict.outcome in ("unreadable", "quarantined"):
                reason = "phi_failed" if closed else next(iter(verdict.failed.values()), verdict.outcome)
                headers = self._source(record, str(self.number)) | {
                    "schema": envelope.schema,
                    "producer": envelope.producer,
                    "seq": str(line.seq),
                    "count": "1",
                    "reason": reason,
                    "detector": next(iter(verdict.failed), ""),
                }
                if reason == _KEY_GONE:
                    # Nobody can ever look at it.
                    outputs.outcomes[reason] += 1
                else:
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
                if name in self.asked and not (closed and name == "phi"):
                    outputs.alerts += self.alerting.tell(
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
            title = "PHI could not be judged: no transcript is kept, the sealed text waits; see `tidegate quarantine list`"
            return self.alerting.tell("phi", "guardrails_phi", title, now, "critical")
        if verdict.outcome == "quarantined":
            title = f"a text ends the process that judges it ({reason}); it waits sealed; see `tidegate quarantine list`"
            return self.alerting.tell("quarantined", "guardrails_quarantine", title, now)
        title = f"sealed content cannot be opened ({reason}); see `tidegate keys check`"
        return self.alerting.tell(f"unreadable|{reason}", "guardrails_unreadable", title, now)

    def _source(self, record: Record, partition: str) -> dict[str, str]:
        return {"schema": "rows/1", "source_partition": partition, "source_offset": str(record.offset)}

    def _transcript(self, record: Record, envelope: Envelope, line: Line, event: ContentEvent, verdict: Judged) -> bytes:
        redacted = verdict.redacted
        row = of_call(event)
        if redacted is not None:
            row |= {
                "redacted_prompt": redacted.prompt,
                "redacted_response": redacted.response,
                "redacted_context": redacted.context,
            }
        row |= {
            "redaction": self.redaction,
            "producer": envelope.producer,
            "seq": line.seq,
            "ingested_at": _iso(record.appended_ms / 1_000),
            "source_partition": self.number,
            "source_offset": record.offset,
        }
        return orjson.dumps(row)

    def _rejected(self, line: Line, now: float) -> bytes:
        if line.rejected is not None:
            return line.rejected
        return orjson.dumps(
            {
                "event": "rejected",
                "rejected_at": _iso(now),
                "source": "content",
                "size_bytes": len(line.raw),
                "sha256": hashlib.sha256(line.raw).hexdigest(),
                "reason": line.problem or "not a content event",
                **(line.crossed._asdict() if line.crossed is not None else {}),
            }
        )

    def _dead_letter(self, record: Record) -> bytes:
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
    if one.rule is not None:
        found["rule"] = one.rule
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
