"""What the steps are and what flows between them, once; both engines read it here.

calls ──► meter ──► metered ───────────────────────► sink ──► ClickHouse
  ▲          ├────► requests ──────────────────────► sink
  │          ├────► findings ──────────────────────► sink
  │          ├────► dead_letters ──────────────────► sink
  │          ├────► refused, for a person
  │          ├────► alerts ────────────────────────► sink
  │          ├────► usage_ledger, price_rows ──────► sink
  │          └────► usage ──► policies ──► alerts ─► sink
  │                 gates ───────┘  ├────► signal_rows ► sink
  │                                 └────► signals ─► gates in services
  └── scored ──┐
content ──► guardrails ──► transcripts ────────────► sink
                  ├──────► alerts ─────────────────► sink
                  └──────► quarantine, for a person
audit, from workers on Kafka ──────────────────────► sink
alerts ──► notifier ─► incidents, and messages to people

What the guardrails say of content comes back as `scored` events in the calls topic, so that findings are counted as calls
are. Each is numbered as its content was, under a name of its own (guardrails:<producer>), so that content that is scored again
is a duplicate.

How usage travels is the engine's affair: compacted by scope in the embedded log, in blocks on Kafka, where the meter keeps
its memory in a changelog of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..schemas.topics import (
    ALERTS,
    AUDIT,
    CALLS,
    CONTENT,
    DEAD_LETTERS,
    FINDINGS,
    GATES,
    INCIDENTS,
    METERED,
    PRICE_ROWS,
    QUARANTINE,
    REFUSED,
    REQUESTS,
    SIGNAL_ROWS,
    SIGNALS,
    TRANSCRIPTS,
    USAGE,
    USAGE_LEDGER,
    Topic,
)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the pipeline; its name is its consumer group."""

    name: str
    reads: tuple[Topic, ...]
    writes: tuple[Topic, ...] = ()


METER: Final = Step(
    "meter", (CALLS,), (METERED, REQUESTS, FINDINGS, DEAD_LETTERS, REFUSED, USAGE_LEDGER, PRICE_ROWS, USAGE, ALERTS)
)
GUARDRAILS: Final = Step("guardrails", (CONTENT,), (CALLS, TRANSCRIPTS, QUARANTINE, DEAD_LETTERS, ALERTS))
POLICIES: Final = Step("policies", (USAGE, GATES), (SIGNALS, SIGNAL_ROWS, ALERTS))
SINK: Final = Step(
    "sink", (METERED, REQUESTS, FINDINGS, TRANSCRIPTS, DEAD_LETTERS, USAGE_LEDGER, PRICE_ROWS, SIGNAL_ROWS, ALERTS, AUDIT)
)
# What policies say is told by their heartbeat in the signals: a notifier misses them when that is silent.
NOTIFIER: Final = Step("notifier", (ALERTS,), (INCIDENTS,))

STEPS: Final = (METER, GUARDRAILS, POLICIES, SINK, NOTIFIER)

# Which table of the store takes which topic.
TABLES: Final = {
    METERED.name: "calls",
    REQUESTS.name: "call_requests",
    FINDINGS.name: "scored_calls",
    TRANSCRIPTS.name: "transcripts",
    DEAD_LETTERS.name: "dead_letters",
    USAGE_LEDGER.name: "usage_ledger",
    PRICE_ROWS.name: "prices",
    SIGNAL_ROWS.name: "signals",
    ALERTS.name: "alerts",
    AUDIT.name: "audit",
}


def readers(topic: Topic) -> tuple[Step, ...]:
    """The steps that must have passed a record before it may go."""
    return tuple(step for step in STEPS if topic in step.reads)
