"""Every metric that Tidegate shows to Prometheus, once: its name, what it counts, its labels, and who shows it.

Names are as the text format has them, without the endings that it adds (`_total` of counters, `_bucket`, `_sum` and `_count`
of histograms). No label is a user, a text or a number of anybody; each has a bounded set of values. docs/metrics.md is this
list for readers.

Counters that are `kept` come out of an account that survives restarts and counts nothing twice, whatever crashes. All others
begin at 0 with their process, as Prometheus expects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram", "summary"]
# Who has a page of metrics: the node, the workers on Kafka by role, and a service by its own page.
Where = Literal["node", "meter", "policies", "sink", "guardrails", "notifier", "service"]


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric. `meaning` is its help text, too."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    shown_by: tuple[Where, ...] = ("node",)
    kept: bool = False

    @property
    def sample(self) -> str:
        """The name to ask a counter or gauge by."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


# calls: kept by the meter

# The seconds up to which buckets of durations reach: from a cached answer to a model that thinks for minutes.
CALL_SECONDS: Final = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 13.0, 20.0, 30.0, 60.0, 120.0, 300.0)
# Of whom a call was asked, and by whom. `other`: more tenants and models than the account has room for.
OF_A_CALL: Final = ("tenant", "provider", "model")
OTHER: Final = "other"
UNKNOWN: Final = "unknown"
OK: Final = "ok"


def _of_calls(name: str, kind: Kind, meaning: str, *more: str) -> Definition:
    return Definition(name, kind, meaning, (*OF_A_CALL, *more, "partition"), ("node", "meter"), kept=True)


REQUESTS: Final = _of_calls("llm_requests", "counter", "Calls by how they ended: ok, or the class of the error", "outcome")
LATENCY: Final = _of_calls(
    "llm_latency_seconds", "histogram", "How long calls took; a bucket's edge and the sum are right to 2 %"
)
TTFT: Final = _of_calls(
    "llm_time_to_first_token_seconds", "histogram", "Time to the first token of streamed calls; right to 2 %, as the latency is"
)
TOKENS: Final = _of_calls(
    "llm_tokens",
    "counter",
    "Tokens by type; input includes cached tokens and output includes reasoning, so types are not to be added up",
    "type",
)
COST: Final = _of_calls("llm_cost", "counter", "US dollars that calls with a known price cost")
UNPRICED: Final = _of_calls("llm_unpriced_requests", "counter", "Calls of which no price is known; their cost is in no sum")
CACHE_HITS: Final = _of_calls("llm_cache_hits", "counter", "Calls that a service answered from a cache of its own")
JUDGED: Final = _of_calls("llm_judged", "counter", "Calls whose texts a detector has judged", "detector")
FLAGGED: Final = _of_calls("llm_flagged", "counter", "Calls in which a detector found something", "detector")
CLAIMS: Final = _of_calls("llm_claims", "counter", "Claims of answers that were held against their source")
UNSUPPORTED_CLAIMS: Final = _of_calls(
    "llm_unsupported_claims", "counter", "Claims that their source does not bear out, or contradicts"
)

# what comes in

EVENTS: Final = Definition(
    "tidegate_events", "counter", "Events by what became of them, since the folder was made", ("outcome",), kept=True
)
HTTP_EVENTS: Final = Definition("tidegate_http_events", "counter", "Events taken over HTTP", ("outcome",))
HTTP_BYTES: Final = Definition("tidegate_http_bytes", "counter", "Bytes of bodies taken over HTTP")
HTTP_REFUSED: Final = Definition("tidegate_http_refused", "counter", "Bodies refused as a whole", ("status",))
WORKER_EVENTS: Final = Definition(
    "tidegate_worker_events",
    "counter",
    "Events by what became of them, in this process",
    ("outcome",),
    ("meter", "policies", "sink", "guardrails", "notifier"),
)
RESIDENCY_REFUSALS: Final = Definition(
    "tidegate_residency_refusals",
    "counter",
    "Writes refused because they may not rest in this region",
    ("tenant", "from", "to"),
    ("node", "meter"),
)

# lags, and what is away

METER_LAG: Final = Definition("tidegate_meter_lag_records", "gauge", "Log records the meter has not applied")
POLICIES_LAG: Final = Definition("tidegate_policies_lag_records", "gauge", "Log records the policies have not heard")
GUARDRAILS_LAG: Final = Definition("tidegate_guardrails_lag_records", "gauge", "Content records without a verdict")
SINK_LAG: Final = Definition("tidegate_sink_lag_records", "gauge", "Log records not yet in the store")
WORKER_LAG: Final = Definition(
    "tidegate_worker_lag_records",
    "gauge",
    "Records of this worker's partitions not passed",
    ("role", "topic", "partition"),
    ("meter", "policies", "sink", "guardrails", "notifier"),
)
BACKLOG_BYTES: Final = Definition("tidegate_backlog_bytes", "gauge", "Bytes of log the meter has not applied")
STORE_AWAY: Final = Definition("tidegate_store_away", "gauge", "1 while the store cannot be reached", (), ("node", "sink"))
LOG_AWAY: Final = Definition("tidegate_log_away", "gauge", "1 while Kafka cannot be reached; lags are then what they were")
METER_STOPPED: Final = Definition(
    "tidegate_meter_stopped", "gauge", "Partitions whose meter the brake holds", (), ("node", "meter")
)
POLICIES_BEAT: Final = Definition(
    "tidegate_policies_beat_timestamp_seconds",
    "gauge",
    "When policies last told gates that they are there, or began; a gate goes stale some seconds after it stands still",
    (),
    ("node", "policies"),
)
GATES: Final = Definition("tidegate_gates", "gauge", "Gates that are alive", (), ("node", "policies"))
FLUSH_SECONDS: Final = Definition(
    "tidegate_worker_flush_seconds",
    "histogram",
    "From the step until all is acknowledged",
    ("role",),
    ("meter", "policies", "sink", "guardrails", "notifier"),
)
QUARANTINE_BYTES: Final = Definition("tidegate_quarantine_bytes", "gauge", "Sealed texts in quarantine")
QUARANTINE_PUSHED_OUT: Final = Definition(
    "tidegate_quarantine_pushed_out_records", "counter", "Sealed texts that newer ones have pushed out of a full quarantine"
)
DEAD_LETTERS_BYTES: Final = Definition("tidegate_dead_letters_bytes", "gauge", "Refused lines that are kept sealed")

# the store

SINK_ROWS: Final = Definition("tidegate_sink_rows", "counter", "Rows written into the store", (), ("sink",))
SINK_BATCH_SECONDS: Final = Definition("tidegate_sink_batch_seconds", "summary", "One batch, until committed", (), ("sink",))
SINK_REFUSED_ROWS: Final = Definition("tidegate_sink_refused_rows", "counter", "Rows the store refused", (), ("sink",))
SINK_LOST_RECORDS: Final = Definition(
    "tidegate_sink_lost_records", "counter", "Records gone before the store had them", (), ("sink",)
)

# guardrails


def _of_guardrails(name: str, kind: Kind, meaning: str, *labels: str) -> Definition:
    return Definition(f"tidegate_guardrails_{name}", kind, meaning, labels, ("node", "guardrails"))


GUARD_PROCESSES: Final = _of_guardrails("processes", "gauge", "Scoring processes that are loaded")
GUARD_RESIDENT: Final = _of_guardrails("resident_megabytes", "gauge", "The largest scoring process")
GUARD_QUEUED: Final = _of_guardrails("queued", "gauge", "Calls that wait for a verdict, in memory")
GUARD_OLDEST: Final = _of_guardrails("oldest_age_seconds", "gauge", "Age of the oldest content without a verdict")
GUARD_HELD_BACK: Final = _of_guardrails("held_back", "gauge", "1 while the budget of processor time holds scoring back")
GUARD_TEXTS: Final = _of_guardrails("texts", "counter", "Texts judged: a prompt, an answer, a chunk each")
GUARD_CPU: Final = _of_guardrails("cpu_seconds", "counter", "Processor time that scoring has taken")
GUARD_TRANSCRIPTS: Final = _of_guardrails("transcripts", "counter", "Redacted transcripts put out")
GUARD_QUARANTINED: Final = _of_guardrails("quarantined", "counter", "Sealed records put into quarantine")
GUARD_LOST: Final = _of_guardrails("lost_records", "counter", "Content that retention ate before it was judged")
GUARD_CALLS: Final = _of_guardrails("calls", "counter", "Content lines by what became of them", "outcome")
GUARD_FAILED: Final = _of_guardrails("failed", "counter", "Verdicts that a detector could not give", "detector")
GUARD_RESTARTS: Final = _of_guardrails("restarts", "counter", "Scoring processes replaced", "why")
GUARD_SECONDS: Final = _of_guardrails("scoring_seconds", "counter", "Time that each detector took", "detector")
GUARD_FINDINGS: Final = _of_guardrails("findings", "counter", "Findings, by detector and type", "detector", "type")

# people

INCIDENTS: Final = Definition("tidegate_incidents", "gauge", "Open incidents", ("phase",), ("node", "notifier"))
NOTIFICATIONS_WAITING: Final = Definition(
    "tidegate_notifications_waiting", "gauge", "Messages that no destination has taken yet", (), ("node", "notifier")
)
NOTIFICATIONS: Final = Definition(
    "tidegate_notifications", "counter", "Messages to people by what became of them", ("outcome",), ("node", "notifier")
)

ON_CALL_FILE_REFUSED: Final = Definition(
    "tidegate_on_call_file_refused",
    "gauge",
    "Whether the on-call file as it is now is not taken, and the one before it is in force",
    (),
    ("node", "notifier"),
)

# services

EMITTER_EVENTS: Final = Definition(
    "tidegate_emitter_events", "counter", "Events of this process by where they are gone", ("outcome",), ("service",)
)
EMITTER_DROPPED: Final = Definition(
    "tidegate_emitter_dropped", "counter", "Events that this process has dropped, by reason", ("reason",), ("service",)
)
EMITTER_PENDING: Final = Definition("tidegate_emitter_pending", "gauge", "Events that wait in memory", (), ("service",))
GATE_REFUSED: Final = Definition(
    "tidegate_gate_refused", "counter", "Calls that the gate has refused, by policy", ("policy",), ("service",)
)
GATE_SILENT: Final = Definition(
    "tidegate_gate_silent_seconds",
    "gauge",
    "Since the gate last heard of policies, or began",
    (),
    ("service",),
)

METRICS: Final[tuple[Definition, ...]] = tuple(one for one in list(globals().values()) if isinstance(one, Definition))
