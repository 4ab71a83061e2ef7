"""The topics of the log: what flows where, how long it stays. Kafka's names; the embedded log uses the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic. `retention_s` counts from the append; consumed or not, a record stays at least that long.

    `compacted` topics keep the last record of each key for ever.
    """

    name: str
    retention_s: int
    compacted: bool = False


# Three days of raw calls: a long weekend without anybody looking, and still everything can be replayed.
CALLS: Final = Topic("tidegate.calls", 3 * _DAY_S)
# Priced rows are derived; they stay only until the sink and a replay of it are safely done.
METERED: Final = Topic("tidegate.metered", _DAY_S // 4)
# Absolute counters: the last record of a key says all.
USAGE: Final = Topic("tidegate.usage", _DAY_S // 4, compacted=True)
# What could not be understood waits for a person.
DEAD_LETTERS: Final = Topic("tidegate.dead_letters", 30 * _DAY_S)

TOPICS: Final = {topic.name: topic for topic in (CALLS, METERED, USAGE, DEAD_LETTERS)}
