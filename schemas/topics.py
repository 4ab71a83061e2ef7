"""The topics of the log: what flows where, how long it stays. Kafka's names; the embedded log uses the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic. A record stays at least `retention_s` after its append, and until every consumer has passed it.

    A `compacted` topic says everything in the last record of each key.
    """

    name: str
    retention_s: int
    compacted: bool = False


# Three days of raw calls: a long weekend without anybody looking, and still everything can be replayed.
CALLS: Final = Topic("tidegate.calls", 3 * _DAY_S)
# Priced rows are derived; they stay until the sink has them, and an hour more to look at when something is odd.
METERED: Final = Topic("tidegate.metered", 3_600)
REQUESTS: Final = Topic("tidegate.requests", 3_600)
# Absolute counters of what policies watch: the meter's state holds them all, so an hour is for looking only.
USAGE: Final = Topic("tidegate.usage", 3_600)
# What policies say now, and to whom: the last record of each key is the word in force.
SIGNALS: Final = Topic("tidegate.signals", 86_400, compacted=True)
GATES: Final = Topic("tidegate.gates", 60, compacted=True)
ALERTS: Final = Topic("tidegate.alerts", 30 * _DAY_S)
# What could not be understood waits for a person.
DEAD_LETTERS: Final = Topic("tidegate.dead_letters", 30 * _DAY_S)

TOPICS: Final = {topic.name: topic for topic in (CALLS, METERED, REQUESTS, USAGE, SIGNALS, GATES, ALERTS, DEAD_LETTERS)}
