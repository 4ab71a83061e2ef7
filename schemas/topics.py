"""The topics of the log: what flows where, how long it stays. Kafka's names; the embedded log uses the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .envelope import CONTENT_SCHEMA, SCHEMA

_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic. A record stays at least `retention_s` after its append (None: for ever), and until every consumer has
    passed it.

    Of a `compacted` topic only the last record of each key stays; an empty value takes a key back, and itself stays for
    `tombstone_s`, so that whoever follows has time to hear of it.
    """

    name: str
    retention_s: int | None
    compacted: bool = False
    tombstone_s: int = _DAY_S


# Three days of raw calls: a long weekend without anybody looking, and still everything can be replayed.
CALLS: Final = Topic("tidegate.calls", 3 * _DAY_S)
# Texts, sealed by whoever made them. A day is enough for workers that were away over night, and text is nobody's to keep.
CONTENT: Final = Topic("tidegate.content", _DAY_S)
# Priced rows are derived; they stay until the sink has them, and an hour more to look at when something is odd.
METERED: Final = Topic("tidegate.metered", 3_600)
REQUESTS: Final = Topic("tidegate.requests", 3_600)
# Verdicts on content, and its redacted texts, on their way to the store.
FINDINGS: Final = Topic("tidegate.findings", 3_600)
TRANSCRIPTS: Final = Topic("tidegate.transcripts", 3_600)
# The meter's own sums and the prices it found, for the store: so that its rows can be held against both.
USAGE_LEDGER: Final = Topic("tidegate.usage_ledger", 3_600)
PRICE_ROWS: Final = Topic("tidegate.price_rows", 3_600)
# What policies watch, scope by scope, in absolute counters. Compacted: it is the meter's own memory of them, too.
# Each announced call leaves a tombstone there, and nobody but our own steps reads it.
USAGE: Final = Topic("tidegate.usage", None, compacted=True, tombstone_s=60)
# What policies say now: the last record of each key is the word in force, for as long as nobody takes it back.
SIGNALS: Final = Topic("tidegate.signals", None, compacted=True)
# Gates announce themselves every second; one that has been silent for a minute is gone.
GATES: Final = Topic("tidegate.gates", 60, compacted=True)
# What policies have said, for the store: the signals themselves are forgotten as soon as there are newer ones.
SIGNAL_ROWS: Final = Topic("tidegate.signal_rows", 3_600)
ALERTS: Final = Topic("tidegate.alerts", 30 * _DAY_S)
# What the notifier knows: incidents that are open, silences, and messages on their way to people.
INCIDENTS: Final = Topic("tidegate.incidents", None, compacted=True)
# What could not be understood waits for a person.
DEAD_LETTERS: Final = Topic("tidegate.dead_letters", 30 * _DAY_S)
# The lines themselves, sealed, by their place: a person mends them and has them metered. An empty value: that was done.
REFUSED: Final = Topic("tidegate.refused", 30 * _DAY_S, compacted=True)
# Content that nobody could judge, still sealed: a person who may open it looks at it.
QUARANTINE: Final = Topic("tidegate.quarantine", 30 * _DAY_S)

# What workers tell of themselves, each in a chain of its own. For ever: it is what the store's copy is compared with.
AUDIT: Final = Topic("tidegate.audit", None)

# On Kafka usage flows in blocks of many scopes, and the meter keeps its memory in a changelog of its own.
METER_CHANGELOG: Final = Topic("tidegate.meter.changelog", None, compacted=True)
# Guardrails workers tell each other which models and prompt versions they have met: what is new is judged first.
GUARDRAILS_NAMES: Final = Topic("tidegate.guardrails.names", 30 * _DAY_S, compacted=True)

TOPICS: Final = {
    topic.name: topic
    for topic in (
        CALLS,
        CONTENT,
        METERED,
        REQUESTS,
        FINDINGS,
        TRANSCRIPTS,
        USAGE_LEDGER,
        PRICE_ROWS,
        USAGE,
        SIGNALS,
        GATES,
        SIGNAL_ROWS,
        ALERTS,
        INCIDENTS,
        DEAD_LETTERS,
        REFUSED,
        QUARANTINE,
        AUDIT,
    )
}

# Where an emitter's envelopes go.
BY_SCHEMA: Final = {SCHEMA: CALLS, CONTENT_SCHEMA: CONTENT}
