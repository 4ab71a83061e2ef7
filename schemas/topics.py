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
# Absolute counters: the last record of a key says all.
USAGE: Final = Topic("tidegate.usage", 3_600, compacted=True)
# What could not be understood waits for a person.
DEAD_LETTERS: Final = Topic("tidegate.dead_letters", 30 * _DAY_S)

TOPICS: Final = {topic.name: topic for topic in (CALLS, METERED, REQUESTS, USAGE, DEAD_LETTERS)}
