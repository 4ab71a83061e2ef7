"""The guardrails' step: every line of content comes out as one line for the meter, in order, whatever became of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import NOW_S, LogRecord, line
from tidegate.processors.guardrails.alerting import Alerting
from tidegate.processors.guardrails.jobs import Entry, Judged, Redacted
from tidegate.processors.guardrails.outputs import Outputs, scored_line, verdict_producer
from tidegate.processors.guardrails.sampling import Choice, Sampling
from tidegate.processors.guardrails.step import Partition
from tidegate.producers.keyring import Key, KeyRing
from tidegate.producers.sealing import seal
from tidegate.schemas.content import Texts, decode_content
from tidegate.schemas.envelope import CONTENT_SCHEMA, MAX_EVENT_BYTES, Envelope
from tidegate.schemas.event import EVENT_ADAPTER
from tidegate.schemas.finding import ScoredEvent

KEY = Key("k-1", None, b"k" * 32, datetime(2026, 1, 1, tzinfo=UTC))
RING = KeyRing([KEY], b"f" * 32)
SEALED = seal(Texts(prompt="How is Ann Example?"), "call-1", KEY)


def content(call_id: str = "call-1", **fields: Any) -> dict[str, Any]:
    """A valid sealed content event."""
    event = {
        "event": "content",
        "call_id": call_id,
        "started_at": "2026-11-02T08:00:00Z",
        "tenant": "harbor-health",
        "request_model": "gpt-4o",
        "mode": "sealed",
        "key_id": "k-1",
        "sealed": SEALED,
    } | fields
    return {name: value for name, value in event.items() if value is not None}


def record(offset: int, seq: int, *events: dict[str, Any] | bytes, producer: str = "svc-content") -> LogRecord:
    envelope = Envelope.of(producer, seq, [line(event) for event in events], schema=CONTENT_SCHEMA)
    return LogRecord.of(offset, envelope)


def partition(asked: tuple[str, ...] = ("phi",), **settings: Any) -> Partition:
    return Partition(3, asked, "tag", Sampling(**settings), Alerting(), count().__next__)


def take(step: Partition, *records: LogRecord, now: float = NOW_S) -> list[int]:
    """The numbers of the jobs that records bring."""
    return [job.number for one in records for job, _ in step.take(one, RING.opening, RING.fingerprint_key, now)]


def fine(number: int, **fields: Any) -> Judged:
    return Judged(number=number, outcome="scored", redacted=Redacted(prompt="How is <PERSON>?"), **fields)


def finished(step: Partition, now: float = NOW_S) -> Outputs:
    outputs = step.finished(now)
    assert outputs is not None
    return outputs


def events(outputs: Outputs) -> list[dict[str, Any]]:
    return [orjson.loads(one) for _, value in outputs.scored for one in value.split(b"\n")]


def test_a_verdict_bears_the_call_the_findings_and_the_number_of_its_content() -> None:
    step = partition()
    [number] = take(step, record(7, 41, content(team="icu")))
    found = Entry(detector="phi", type="PERSON", where="prompt", start=7, end=18, score=0.9, fingerprint="0" * 32)
    dose = Entry(detector="guideline", type="GUIDELINE_DOSE", where="response", start=0, end=9, score=0.8, rule="dose-aspirin")

    step.heard(fine(number, findings=[found, dose], scores={"prompt.toxicity": 0.01}, detectors={"phi": "1"}))
    outputs = finished(step)

    [(headers, value)] = outputs.scored
    verdict = EVENT_ADAPTER.validate_json(value)
    assert headers == {"schema": "calls/1", "producer": "guardrails:svc-content", "seq": "41", "count": "1"}
    assert isinstance(verdict, ScoredEvent)
    assert (verdict.call_id, verdict.team, verdict.outcome) == ("call-1", "icu", "scored")
    told = [(one.type, one.start, one.end, one.rule) for one in verdict.findings]
    assert told == [("PERSON", 7, 18, None), ("GUIDELINE_DOSE", 0, 9, "dose-aspirin")]
    assert verdict.scores == {"prompt.toxicity": 0.01}
    assert outputs.next_offset == 8


def test_a_transcript_holds_the_redacted_texts_and_where_they_came_from() -> None:
    step = partition()
    [number] = take(step, record(7, 41, content()))

    step.heard(fine(number))
    [(headers, value)] = finished(step).transcripts

    row = orjson.loads(value)
    assert headers == {"schema": "rows/1", "source_partition": "3", "source_offset": "7", "count": "1"}
    assert (row["redacted_prompt"], row["redacted_response"], row["redacted_context"]) == ("How is <PERSON>?", None, [])
    assert (row["producer"], row["seq"], row["source_partition"], row["source_offset"]) == ("svc-content", 41, 3, 7)
    assert "sealed" not in row


def test_nothing_overtakes_an_older_record() -> None:
    step = partition()
    numbers = take(step, record(0, 0, content("a")), record(1, 1, content("b"), content("c")), record(2, 3, content("d")))
    assert (step.records, step.waiting) == (3, 4)
    assert step.size_bytes > 4 * len(SEALED)

    for number in numbers[1:]:
        step.heard(fine(number))
    before = step.finished(NOW_S)
    step.heard(fine(numbers[0]))
    after = finished(step)

    assert before is None
    assert [event["call_id"] for event in events(after)] == ["a", "b", "c", "d"]
    assert after.next_offset == 3
    assert (step.records, step.waiting, step.size_bytes) == (0, 0, 0)


def test_every_line_has_its_number_whatever_became_of_it() -> None:
    step = partition(share=0.0, new_for_ms=0)
    hashed = content("h", mode="hashed", key_id=None, sealed=None, fingerprints={"prompt": ["0" * 32]})
    lines = [hashed, b"{torn", content("s"), content("u", key_id="k-gone", tenant="always")]
    step._sampling.always = {"tenant": ["always"]}

    take(step, record(0, 10, *lines))
    outputs = finished(step)

    assert [event.get("outcome", event["event"]) for event in events(outputs)] == [
        "hashed",
        "rejected",
        "sampled_out",
        "unreadable",
    ]
    assert [headers["seq"] for headers, _ in outputs.scored] == ["10"]
    for event in events(outputs):
        EVENT_ADAPTER.validate_python(event)


def test_an_envelope_that_comes_twice_is_judged_once() -> None:
    step = partition()
    numbers = take(step, record(0, 0, content("a")), record(1, 0, content("a")), record(2, 0, content("a"), content("b")))

    for number in numbers:
        step.heard(fine(number))
    outputs = finished(step)

    assert [event["call_id"] for event in events(outputs)] == ["a", "b"]
    assert [headers["seq"] for headers, _ in outputs.scored] == ["0", "1"]
    assert outputs.next_offset == 3


def test_a_record_that_is_no_envelope_is_a_dead_letter_by_its_fingerprint() -> None:
    step = partition()

    take(step, LogRecord(5, b"Ann Example, MRN 4711", {"schema": "content/1"}))
    outputs = finished(step)

    [(headers, value)] = outputs.dead_letters
    assert headers["source_partition"] == "guardrails:3"
    assert orjson.loads(value)["stage"] == "guardrails"
    assert b"Ann" not in value
    assert outputs.scored == []


@pytest.mark.parametrize(
    ("judged", "reason"),
    [
        (lambda number: Judged(number=number, outcome="partial", failed={"phi": "ValueError"}), "phi_failed"),
        (lambda number: Judged(number=number, outcome="partial", failed={"redaction": "KeyError"}), "phi_failed"),
        (lambda number: Judged(number=number, outcome="quarantined", failed={"worker": "timeout"}), "timeout"),
        (lambda number: Judged(number=number, outcome="unreadable", failed={"content": "tampered"}), "tampered"),
    ],
    ids=["phi", "redaction", "worker", "content"],
)
def test_what_phi_was_not_judged_of_leaves_no_transcript_but_its_sealed_record(
    judged: Callable[[int], Judged], reason: str
) -> None:
    step = partition()
    [number] = take(step, record(7, 0, content()))

    step.heard(judged(number))
    outputs = finished(step)

    [(headers, value)] = outputs.quarantine
    assert outputs.transcripts == []
    assert (headers["reason"], headers["source_offset"]) == (reason, "7")
    assert headers["detector"] in {"phi", "redaction", "worker", "content"}
    assert decode_content(value).sealed == SEALED
    assert [alert.severity for alert in outputs.alerts]
    assert len(events(outputs)) == 1


def test_what_no_key_opens_any_more_is_counted_and_told_and_lies_nowhere() -> None:
    step = partition()
    [number] = take(step, record(7, 0, content()))

    step.heard(Judged(number=number, outcome="unreadable", failed={"content": "key_gone"}))
    outputs = finished(step)

    assert outputs.quarantine == outputs.transcripts == []
    assert [event["outcome"] for event in events(outputs)] == ["unreadable"]
    assert outputs.outcomes == {"unreadable": 1, "key_gone": 1, "cached": 0}
    assert [alert.kind for alert in outputs.alerts] == ["guardrails_unreadable"]


def test_a_text_that_is_too_long_leaves_the_room_to_others_and_a_full_record_is_followed_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tidegate.processors.guardrails.outputs._MOST_TRANSCRIPT_BYTES", 2_000)
    step = partition()
    numbers = take(step, record(7, 0, *[content(f"call-{place}") for place in range(5)]))

    for number, size in zip(numbers, (9_000, 1_000, 1_000, 10, 1_000), strict=True):
        step.heard(Judged(number=number, outcome="scored", redacted=Redacted(prompt="x" * size)))
    outputs = finished(step)

    rows = [[orjson.loads(row)["call_id"] for row in value.split(b"\n")] for _, value in outputs.transcripts]
    assert rows == [["call-1"], ["call-2", "call-3"], ["call-4"]]
    assert [headers["source_partition"] for headers, _ in outputs.transcripts] == ["3", "3/1", "3/2"]
    assert {headers["source_offset"] for headers, _ in outputs.transcripts} == {"7"}
    assert outputs.outcomes["transcript_too_large"] == 1


def test_without_the_phi_detector_there_is_a_verdict_and_no_transcript() -> None:
    step = partition(asked=("toxicity",))
    [number] = take(step, record(0, 0, content()))

    step.heard(Judged(number=number, outcome="scored", scores={"prompt.toxicity": 0.9}))
    outputs = finished(step)

    assert [event["outcome"] for event in events(outputs)] == ["scored"]
    assert outputs.transcripts == outputs.quarantine == outputs.alerts == []


def test_an_incident_is_told_at_once_and_then_now_and_again_with_a_count() -> None:
    alerting = Alerting()

    told = [alerting.tell("phi", "guardrails_phi", "it fails", now) for now in (0.0, 1.0, 2.0, 400.0)]

    assert [len(alerts) for alerts in told] == [1, 0, 0, 1]
    assert "3 times" in told[3][0].title


def test_a_verdict_that_is_too_long_keeps_what_matters_and_counts_the_rest() -> None:
    event = decode_content(line(content()))
    many = [
        Entry(detector="d" * 64, type="T" * 64, where="context", chunk=n, start=n, end=n + 9, score=0.5, fingerprint="a" * 32)
        for n in range(200)
    ]
    place = {"start": 1, "end": 2, "score": 0.5, "source": "context", "source_start": 3, "source_end": 4, "chunk": 200}

    encoded = scored_line(event, Judged(number=0, outcome="scored", findings=many, evidence=[place] * 200), NOW_S)

    verdict = EVENT_ADAPTER.validate_json(encoded)
    assert isinstance(verdict, ScoredEvent)
    assert len(encoded) <= MAX_EVENT_BYTES
    assert len(verdict.findings) + verdict.more_findings == 200


def test_verdicts_on_a_request_under_an_idempotency_key_are_forgotten_as_soon_as_it_is() -> None:
    names = [verdict_producer(name) for name in ("svc", "idempotency-key:abc", "x" * 200)]

    assert names[:2] == ["guardrails:svc", "idempotency-key:guardrails:abc"]
    assert len(names[2]) <= 200


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=8),
    st.lists(st.integers(0, 7), max_size=6),
    st.randoms(use_true_random=False),
)
def test_repetition_batching_and_the_order_of_judgements_change_nothing(
    sizes: list[int], repeated: list[int], moments: Any
) -> None:
    envelopes: list[tuple[int, list[dict[str, Any]]]] = []
    seq = 0
    for size in sizes:
        envelopes.append((seq, [content(f"call-{seq + place}") for place in range(size)]))
        seq += size
    stream = list(range(len(sizes)))
    for again in repeated:
        # A retry comes after what it repeats.
        if again < len(sizes):
            stream.insert(moments.randint(stream.index(again) + 1, len(stream)), again)
    step = partition()
    waiting: list[int] = []
    found: list[str] = []
    offsets: list[int] = []

    for offset, which in enumerate(stream):
        waiting += take(step, record(offset, envelopes[which][0], *envelopes[which][1]))
        while waiting and moments.random() < 0.5:
            step.heard(fine(waiting.pop(moments.randrange(len(waiting)))))
        if outputs := step.finished(NOW_S):
            found += [event["call_id"] for event in events(outputs)]
            offsets.append(outputs.next_offset)
    for number in waiting:
        step.heard(fine(number))
    if outputs := step.finished(NOW_S):
        found += [event["call_id"] for event in events(outputs)]
        offsets.append(outputs.next_offset)

    assert found == [f"call-{number}" for number in range(seq)]
    assert offsets[-1] == len(stream)


def test_what_is_at_risk_comes_with_its_priority() -> None:
    step = partition(always={"tenant": ["harbor-health"]}, new_for_ms=0)

    choices = [
        choice
        for one in (record(0, 0, content(tenant="other")), record(1, 1, content()))
        for _, choice in step.take(one, RING.opening, RING.fingerprint_key, NOW_S)
    ]

    assert choices == [Choice.ORDINARY, Choice.AT_RISK]
