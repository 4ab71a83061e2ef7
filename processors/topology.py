"""What the steps are and what flows between them, once; both engines read it here.

calls ──► meter ──► metered ───────────────────────► sink ──► ClickHouse
             ├────► requests ──────────────────────► sink
             ├────► dead_letters ──────────────────► sink
             └────► usage ──► policies ──► alerts ─► sink
                    gates ───────┘  └────► signals ─► gates in services

How usage travels is the engine's affair: compacted by scope in the embedded log, in blocks on Kafka, where the meter keeps
its memory in a changelog of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..schemas.topics import ALERTS, CALLS, DEAD_LETTERS, GATES, METERED, REQUESTS, SIGNALS, USAGE, Topic


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the pipeline; its name is its consumer group."""

    name: str
    reads: tuple[Topic, ...]
    writes: tuple[Topic, ...] = ()


METER: Final = Step("meter", (CALLS,), (METERED, REQUESTS, DEAD_LETTERS, USAGE))
POLICIES: Final = Step("policies", (USAGE, GATES), (SIGNALS, ALERTS))
SINK: Final = Step("sink", (METERED, REQUESTS, DEAD_LETTERS, ALERTS))

STEPS: Final = (METER, POLICIES, SINK)

# Which table of the store takes which topic.
TABLES: Final = {
    METERED.name: "calls",
    REQUESTS.name: "call_requests",
    DEAD_LETTERS.name: "dead_letters",
    ALERTS.name: "alerts",
}


def readers(topic: Topic) -> tuple[Step, ...]:
    """The steps that must have passed a record before it may go."""
    return tuple(step for step in STEPS if topic in step.reads)
