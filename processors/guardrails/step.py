"""The guardrails on one partition of the content topic: records in, jobs out; judgements in, records of five topics out.

    record ─ envelope? ─ seen before? ─ each line: decode ─ hashed? ─ at risk, ordinary, left out? ─ key? ─► job
       │         │            │            │                                                        │
       │         │            └ nothing    └ rejected line                                       unreadable
       └ dead letter                                                                                │
                                                       judgement ◄─ pool ◄─ job                      │
                                                           └───────────────┬────────────────────────┘
      in the order of the records:   scored events ─► calls    redacted texts ─► transcripts
                                     what broke a worker, or could not be read ─► quarantine (sealed), and an alert

What they become is in `outputs.py`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from ...schemas.content import decode_content
from ...schemas.envelope import CONTENT_SCHEMAS, Envelope
from ...schemas.errors import InvalidEvent, Unreadable
from ...schemas.hot import HotRejected, decode_event
from ...schemas.residency import Residency
from ..meter import SourceRecord
from .alerting import Alerting
from .jobs import Job, Judged
from .outputs import Outputs, Writing
from .sampling import Choice, Sampling
from .under_way import Line, Record

# Producers whose last number is remembered, to know an envelope that comes twice: twice judged is harmless, but work.
_MOST_PRODUCERS: Final = 10_000
# Content older than this when it is read means that scoring is behind.
BEHIND_S: Final = 120.0
# And this, that somebody should look: answers go out unwatched. Content itself goes after a day.
ALERT_BEHIND_S: Final = 900.0

# What a detector may know of the call.
_KNOWN: Final = ("tenant", "service", "prompt_name", "prompt_version", "task_type", "request_model", "response_model")


# What is kept elsewhere of a producer that is no longer in memory: its next number.
Recall = Callable[[str], int | None]


class Opening(Protocol):
    """A ring, or where one comes from."""

    def __call__(self, key_id: str, /) -> Any: ...


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
        recall: Recall = lambda _producer: None,
        residency: Residency | None = None,
    ) -> None:
        self.number = number
        self.next_offset = next_offset
        # Bytes of the records under way.
        self.size_bytes = 0
        self._writing = Writing(number, asked, redaction, alerting)
        self._sampling = sampling
        self._next_number = next_number
        self._producers: OrderedDict[str, int] = OrderedDict()
        self._recall = recall
        self._residency = residency
        self._under_way: deque[Record] = deque()
        self._lines: dict[int, Line] = {}

    @property
    def records(self) -> int:
        """Records taken and not finished."""
        return len(self._under_way)

    @property
    def waiting(self) -> int:
        """Lines of these records that have no verdict yet."""
        return len(self._lines)

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
        found = Record(record.offset, record.appended_ms, record.value)
        try:
            envelope = Envelope.from_record(record.headers, record.value, CONTENT_SCHEMAS)
            raw = envelope.lines()
        except InvalidEvent as error:
            found.problem = error.reason
        else:
            next_seq = self._producers.get(envelope.producer) or self._recall(envelope.producer) or envelope.seq
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
        self.size_bytes += len(record.value)
        self.next_offset = record.offset + 1
        asked = [line for line in found.lines if line.job is not None]
        self._lines.update({line.job.number: line for line in asked if line.job})
        return [(line.job, line.choice) for line in asked if line.job]

    def _line(self, raw: bytes, seq: int, appended_ms: int, opening: Opening, fingerprint_key: bytes, age_s: float) -> Line:
        line = Line(seq, raw)
        try:
            line.event = event = decode_content(raw)
        except InvalidEvent as error:
            line.problem = error.reason
            line.rejected = _refused_by_a_door(raw)
            return line
        if self._residency is not None and (crossed := self._residency.refusal(event.tenant, event.region)) is not None:
            line.crossed, line.problem = crossed, self._residency.reason(crossed)
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
            self._writing.put_out(record, outputs, now)
            outputs.next_offset = record.offset + 1
            if record.envelope is not None:
                outputs.producers[record.envelope.producer] = record.next_seq
            size += len(record.value)
        self.size_bytes -= size
        return outputs


def _refused_by_a_door(raw: bytes) -> bytes | None:
    """What stands in the place of content that a door has refused for its region; None for anything else."""
    try:
        event = decode_event(raw)
    except InvalidEvent:
        return None
    return raw if isinstance(event, HotRejected) and event.refused_in is not None and event.sealed is None else None
