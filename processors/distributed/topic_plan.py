"""What the topics are on Kafka: how many partitions, how long a record stays, how large it may be, and why.

    calls            P   delete, 3 days    metered, requests         P   delete, 1 day     alerts   1   delete, 30 days
    content          P   delete, 1 day     findings, transcripts     P   delete, 1 day     signals  1   compact
    meter.changelog  P   compact           dead_letters, quarantine  P   delete, 30 days   gates    1   compact + delete, 60 s
    usage            Q   delete, 1 day     guardrails.names          1   compact + delete, 30 days
    refused          P   compact + delete, 30 days         signal_rows              1   delete, 1 day
    audit            1   for ever                          usage_ledger, price_rows P   delete, 1 day
    incidents        1   compact

P bounds how many meters and sinks share the work, Q how many policies workers. On the embedded log a record waits for its
readers however long they are away; on Kafka nothing waits, so times here are how long a worker may be gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from ...schemas.topics import (
    ALERTS,
    AUDIT,
    CALLS,
    CONTENT,
    DEAD_LETTERS,
    FINDINGS,
    GATES,
    GUARDRAILS_NAMES,
    INCIDENTS,
    METER_CHANGELOG,
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

# At most so many meters share the work. Adding some later is work, and eight cost a small cluster nothing.
PARTITIONS: Final = 8
# One policies worker hears every flush of every meter; more than one is for more scopes than fit into its memory.
POLICY_PARTITIONS: Final = 1
# As many copies as survive one broker under repair while another one fails.
REPLICATION: Final = 3

# These have the partitions of `calls`: a meter writes, and remembers, by the partition it reads, and so do the guardrails,
# whose verdicts go to the partition of `calls` that has the number of the content's.
LIKE_CALLS: Final = (
    *(CONTENT, METERED, REQUESTS, FINDINGS, TRANSCRIPTS, DEAD_LETTERS, REFUSED, QUARANTINE, METER_CHANGELOG),
    *(USAGE_LEDGER, PRICE_ROWS),
)
# The order of what policies and gates say is the order of one partition; of what workers tell, so that a gap is one.
SINGLE: Final = (SIGNALS, GATES, SIGNAL_ROWS, ALERTS, INCIDENTS, AUDIT, GUARDRAILS_NAMES)

_MIB: Final = 1024 * 1024
_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 60 * _MINUTE_MS
_DAY_MS: Final = 24 * _HOUR_MS

Bound = Literal["exactly", "at least", "at most"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One setting of a topic, or of a broker. `bound` says which other values are as good."""

    name: str
    value: str
    why: str
    bound: Bound = "exactly"

    def holds(self, found: str) -> bool:
        """Whether a value will do. -1 is Kafka's word for no bound."""
        if self.bound == "exactly":
            return sorted(found.split(",")) == sorted(self.value.split(","))
        if found == "-1":
            return self.bound == "at least"
        if self.value == "-1":
            return False
        return int(found) >= int(self.value) if self.bound == "at least" else int(found) <= int(self.value)


@dataclass(frozen=True, slots=True)
class PlannedTopic:
    """One topic as it should be. `role` says what it is for, in a line."""

    topic: Topic
    partitions: int
    role: str
    rules: tuple[Rule, ...]

    @property
    def config(self) -> dict[str, str]:
        """As `kafka-topics --config` takes it."""
        return {rule.name: rule.value for rule in self.rules}


def plan(
    partitions: int = PARTITIONS, policy_partitions: int = POLICY_PARTITIONS, replication: int = REPLICATION
) -> tuple[PlannedTopic, ...]:
    """Every topic, `calls` first."""
    shared = (*_ALL_TOPICS, in_sync(replication))
    return (
        PlannedTopic(CALLS, partitions, "what services emit; the meter's input, and what is replayed", (*_CALLS, *shared)),
        PlannedTopic(CONTENT, partitions, "texts that services have sealed, for the guardrails alone", (*_CONTENT, *shared)),
        PlannedTopic(METERED, partitions, "priced calls on their way to the store", (*_ROWS, *shared)),
        PlannedTopic(REQUESTS, partitions, "announced calls on their way to the store", (*_ROWS, *shared)),
        PlannedTopic(FINDINGS, partitions, "verdicts on content on their way to the store", (*_ROWS, *shared)),
        PlannedTopic(TRANSCRIPTS, partitions, "redacted texts on their way to the store", (*_ROWS, *shared)),
        PlannedTopic(USAGE_LEDGER, partitions, "the meters' own sums on their way to the store", (*_ROWS, *shared)),
        PlannedTopic(PRICE_ROWS, partitions, "prices that meters found, on their way to the store", (*_ROWS, *shared)),
        PlannedTopic(DEAD_LETTERS, partitions, "what could not be understood, for a person", (*_DEAD_LETTERS, *shared)),
        PlannedTopic(
            REFUSED, partitions, "those lines themselves, sealed, until a person has seen to them", (*_REFUSED, *shared)
        ),
        PlannedTopic(QUARANTINE, partitions, "sealed texts that nobody could judge, for a person", (*_QUARANTINE, *shared)),
        PlannedTopic(
            METER_CHANGELOG, partitions, "the meter's memory; whoever takes a partition over reads it", _MEMORY + shared
        ),
        PlannedTopic(USAGE, policy_partitions, "what meters counted, for the policies", (*_USAGE, *shared)),
        PlannedTopic(SIGNALS, 1, "what policies say now; every gate reads it from the start", (*_SIGNALS, *shared)),
        PlannedTopic(GATES, 1, "which gates live, and so how to share what remains", (*_GATES, *shared)),
        PlannedTopic(SIGNAL_ROWS, 1, "what policies have said, on its way to the store", (*_ROWS, *shared)),
        PlannedTopic(ALERTS, 1, "what people must know", (*_ALERTS, *shared)),
        PlannedTopic(AUDIT, 1, "what workers did, each in a chain of its own", (*_AUDIT, *shared)),
        PlannedTopic(INCIDENTS, 1, "what is open, and who has been told; the notifier's memory", (*_INCIDENTS, *shared)),
        PlannedTopic(GUARDRAILS_NAMES, 1, "which models and prompt versions were met, and when first", (*_NAMES, *shared)),
    )


def in_sync(replication: int) -> Rule:
    """How many copies an acknowledged record has at least."""
    return Rule(
        "min.insync.replicas",
        "2" if replication >= REPLICATION else "1",
        "with three copies, two must have a record before it counts as written: any one broker may be lost"
        if replication >= REPLICATION
        else "with fewer than three copies, asking for two would stop everything whenever one broker restarts",
        "at least",
    )


def _delete(retention_ms: int, why: str) -> tuple[Rule, ...]:
    return (
        Rule("cleanup.policy", "delete", "records go when their time is over"),
        Rule("retention.ms", str(retention_ms), why, "at least"),
        Rule("retention.bytes", "-1", "time decides, not size: what a sink has not read must not go early", "at least"),
    )


def _max_bytes(mib: int, why: str) -> Rule:
    return Rule("max.message.bytes", str(mib * _MIB), why, "at least")


def _segments(ms: int, why: str) -> Rule:
    return Rule("segment.ms", str(ms), why, "at most")


_ALL_TOPICS: Final = (
    Rule("message.timestamp.type", "LogAppendTime", "one clock, the log's: a service whose clock is wrong moves no window"),
    Rule("compression.type", "producer", "the broker stores what it is given, instead of packing it anew"),
    Rule("unclean.leader.election.enable", "false", "a copy that is behind must not lead: acknowledged events would be gone"),
)

_CALLS: Final = (
    *_delete(3 * _DAY_MS, "a long weekend without anybody looking, and still everything can be replayed"),
    # A segment goes as a whole, and by default is open for a week.
    _segments(_DAY_MS, "calls leave within a day of their time, on a quiet partition too"),
    _max_bytes(2, "an envelope has up to 900 KB, several may share a batch, and their headers need room"),
)
_CONTENT: Final = (
    Rule("cleanup.policy", "delete", "records go when their time is over"),
    # The other way round than elsewhere: text that was not scored is counted as unknown; text that lies about is a risk.
    Rule(
        "retention.ms", str(_DAY_MS), "guardrails may be away over night; texts, though sealed, shall not lie about", "at most"
    ),
    Rule("retention.bytes", "-1", "time decides, not size: what is not scored must not go early", "at least"),
    _segments(6 * _HOUR_MS, "texts leave within a few hours of their time, on a quiet partition too"),
    _max_bytes(2, "an envelope has up to 900 KB, several may share a batch, and their headers need room"),
)
_ROWS: Final = (
    *_delete(_DAY_MS, "the store may be away over night; nothing on Kafka waits for the sink"),
    _segments(6 * _HOUR_MS, "rows leave within a few hours of their time, on a quiet partition too"),
    _max_bytes(16, "the priced rows of one 900 KB envelope are several times as large"),
)
_DEAD_LETTERS: Final = (
    *_delete(30 * _DAY_MS, "a person looks at them, some day this month"),
    _max_bytes(16, "each line of an envelope may become one, and each says why"),
)
_REFUSED: Final = (
    Rule("cleanup.policy", "compact,delete", "what a person has mended, metered or dropped goes, and so does what is old"),
    Rule("retention.ms", str(30 * _DAY_MS), "a person looks at them, some day this month", "at least"),
    Rule("retention.bytes", str(1024 * _MIB), "a service that sends nonsense must not fill the brokers' disks", "at most"),
    _segments(_DAY_MS, "only closed segments are cleaned: what was let go of is gone within days"),
    _max_bytes(2, "lines of up to 64 KB, sealed, a megabyte of them in a batch"),
)
_QUARANTINE: Final = (
    Rule("cleanup.policy", "delete", "records go when their time is over"),
    Rule("retention.ms", str(30 * _DAY_MS), "a person looks at them, some day this month", "at least"),
    Rule("retention.bytes", str(1024 * _MIB), "a detector that fails for all must not fill the brokers' disks", "at most"),
    _max_bytes(2, "each is a content record as it came"),
)
_USAGE: Final = (
    *_delete(_DAY_MS, "a policies worker that was away longer begins with the meters' memory anyway"),
    _segments(6 * _HOUR_MS, "blocks leave within a few hours of their time"),
    _max_bytes(16, "one block holds all scopes that a flush changed"),
)
_MEMORY: Final = (
    Rule("cleanup.policy", "compact", "the last word on each scope is the memory; it must never expire"),
    # Reading it back is what a hand-over waits for.
    Rule("max.compaction.lag.ms", str(_HOUR_MS), "what is superseded goes within an hour: recovery is short", "at most"),
    Rule("min.compaction.lag.ms", "0", "nobody needs a counter that has a newer one", "at most"),
    Rule("delete.retention.ms", str(_DAY_MS), "a worker reading from the start has a day to hear of a scope's end", "at least"),
    _max_bytes(64, "one flush is one batch, appended whole or not at all, however many scopes it changed"),
    Rule("segment.bytes", str(128 * _MIB), "a batch must fit into a segment", "at least"),
)
_SIGNALS: Final = (
    Rule("cleanup.policy", "compact", "a word is in force until it is taken back, however old"),
    Rule("max.compaction.lag.ms", str(10 * _MINUTE_MS), "a gate reads it all before its first answer", "at most"),
    # Only closed segments are compacted; two heartbeats a second fill one slowly.
    _segments(10 * _MINUTE_MS, "only closed segments are compacted, and every start of a service reads the open one"),
    Rule("min.cleanable.dirty.ratio", "0.1", "small and read often: compact early"),
    Rule(
        "delete.retention.ms",
        str(SIGNALS.tombstone_s * 1000),
        "a gate that was away for a day still hears what was taken back",
        "at least",
    ),
    _max_bytes(4, "all policies in force are one record"),
)
_GATES: Final = (
    Rule("cleanup.policy", "compact,delete", "a gate's last sign of life, and none that is old"),
    Rule("retention.ms", str(60_000), "gates speak every second; one that was silent for a minute is gone", "at least"),
    _segments(_MINUTE_MS, "only closed segments are cleaned; a worker that starts reads all signs of life"),
)
_NAMES: Final = (
    Rule("cleanup.policy", "compact,delete", "the last word on each name that is still in use"),
    Rule("retention.ms", str(30 * _DAY_MS), "a name in use is written again within days; one that is not goes", "at least"),
    Rule("retention.bytes", "-1", "time decides, not size: a name that is lost is new again", "at least"),
    _segments(_DAY_MS, "only closed segments are cleaned, and every worker that starts reads it all"),
    _max_bytes(16, "names that are made up for each call may come by the thousand"),
)
_ALERTS: Final = _delete(30 * _DAY_MS, "what was said to people stays for the review at the end of the month")
_AUDIT: Final = (
    Rule("cleanup.policy", "delete", "nothing here is ever superseded"),
    Rule("retention.ms", "-1", "who did what is kept for ever: a few records a worker's start", "at least"),
    Rule("retention.bytes", "-1", "no record may go for want of room", "at least"),
)

_INCIDENTS: Final = (
    Rule("cleanup.policy", "compact", "an incident is open until it is over, however old"),
    Rule("max.compaction.lag.ms", str(_HOUR_MS), "what is over goes within an hour: a hand-over is short", "at most"),
    _segments(_HOUR_MS, "only closed segments are compacted"),
    _max_bytes(64, "what a storm of alerts changes is one batch, appended whole or not at all"),
)

# What the brokers themselves must allow. Defaults do, unless somebody changed them.
BROKER_RULES: Final = (
    Rule("auto.create.topics.enable", "false", "a misspelt namespace would make topics with the wrong settings"),
    Rule("log.cleaner.enable", "true", "without it the compacted topics grow for ever"),
    Rule(
        "socket.request.max.bytes",
        str(65 * _MIB),
        "one flush of the meter is one request of up to 64 MiB",
        "at least",
    ),
    Rule("offset.metadata.max.bytes", "4096", "the sink keeps its promise and its marks in there", "at least"),
    Rule(
        "offsets.retention.minutes",
        str(31 * 24 * 60),
        "a sink that is away for less than dead letters and alerts stay must know what it has written",
        "at least",
    ),
)
