"""Topics and brokers as they are, held against the plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ...schemas.kafka_url import KafkaAddress
from ...schemas.settings import Settings
from ...schemas.topics import CALLS, Topic
from .kafka_admin import FoundTopic
from .kafka_tools import kafka_command
from .topic_plan import BROKER_RULES, LIKE_CALLS, REPLICATION, SINGLE, PlannedTopic, Rule, in_sync, plan

_NOT_SHOWN: Final = ("its settings may not be looked at", "grant DescribeConfigs: tidegate topics acls --role operator")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is off. `remedy` is a command where one mends it, else a sentence."""

    topic: str
    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class TopicCheck:
    """What was found, held against the plan."""

    settings: Settings
    address: KafkaAddress
    found: Mapping[str, FoundTopic]
    broker_count: int

    def missing(self) -> Iterator[Problem]:
        for planned in plan():
            if (name := self.address.topic(planned.topic)) not in self.found:
                yield Problem(name, "is missing, or may not be seen", "tidegate topics create")

    def of(self, planned: PlannedTopic, config: Mapping[str, str] | None) -> Iterator[Problem]:
        name = self.address.topic(planned.topic)
        found = self.found[name]
        yield from self._partitions(planned.topic, name, found)
        yield from self._copies(name, found)
        if config is None:
            yield Problem(name, *_NOT_SHOWN)
            return
        yield from self._in_sync(name, found, config["min.insync.replicas"])
        for rule in planned.rules:
            if rule.name != "min.insync.replicas" and not rule.holds(config[rule.name]):
                yield self._off(name, rule, config[rule.name])

    def _partitions(self, topic: Topic, name: str, found: FoundTopic) -> Iterator[Problem]:
        calls = self.found.get(self.address.topic(CALLS))
        if topic in LIKE_CALLS and calls and found.partitions != calls.partitions:
            what = f"has {found.partitions} partitions, {self.address.topic(CALLS)} has {calls.partitions}"
            if found.partitions < calls.partitions:
                yield Problem(
                    name,
                    f"{what}: meters cannot write what they read",
                    self._add_partitions(name, calls.partitions),
                )
            else:
                more = self._add_partitions(self.address.topic(CALLS), found.partitions)
                yield Problem(name, f"{what}: some will stay empty", f"harmless; to use them, stop the meters, then {more}")
        if topic in SINGLE and found.partitions != 1:
            yield Problem(
                name,
                f"has {found.partitions} partitions and must have one: only the first is read",
                "stop everything that uses it, delete the topic, then tidegate topics create",
            )

    def _copies(self, name: str, found: FoundTopic) -> Iterator[Problem]:
        if found.leaderless:
            yield Problem(
                name,
                f"{found.leaderless} of its partitions have no leader",
                "bring back the brokers that hold them",
            )
        behind = sum(len(synced) < len(copies) for copies, synced in zip(found.replicas, found.in_sync, strict=True))
        if behind:
            yield Problem(
                name, f"{behind} of its partitions lack a copy that is in sync", "wait, or look after the broker that is behind"
            )
        wanted = min(REPLICATION, self.broker_count)
        if found.replication < wanted:
            few = "one lost disk loses events" if found.replication == 1 else "a second failure during a repair loses events"
            yield Problem(
                name,
                f"has {_many(found.replication, 'copy', 'copies')} on {self.broker_count} brokers: {few}",
                f"kafka-reassign-partitions.sh, to {wanted} replicas each",
            )

    def _in_sync(self, name: str, found: FoundTopic, config: str) -> Iterator[Problem]:
        rule = in_sync(found.replication)
        if not rule.holds(config):
            yield self._off(name, rule, config)
        elif int(config) >= found.replication > 1 or int(config) > found.replication:
            yield self._off(
                name,
                replace(
                    rule,
                    bound="at most",
                    why="with so few copies, one broker's restart stops every write",
                ),
                config,
            )

    def _off(self, name: str, rule: Rule, value: str) -> Problem:
        wanted = rule.value if rule.bound == "exactly" else f"{rule.bound} {rule.value}"
        # Kafka's own quotation of a value with commas.
        value_there = f"[{rule.value}]" if "," in rule.value else rule.value
        return Problem(
            name,
            f"{rule.name} is {value}, {wanted} is needed: {rule.why}",
            kafka_command(
                self.settings,
                "kafka-configs",
                ["--alter", "--entity-type", "topics", "--entity-name", name, "--add-config", f"{rule.name}={value_there}"],
            ),
        )

    def _add_partitions(self, name: str, count: int) -> str:
        return kafka_command(self.settings, "kafka-topics", ["--alter", "--topic", name, "--partitions", str(count)])

    def brokers(self, configs: Mapping[str, Mapping[str, str]], brokers: Sequence[int]) -> Iterator[Problem]:
        for broker in brokers:
            config = configs.get(str(broker))
            name = f"broker {broker}"
            if config is None:
                yield Problem(name, *_NOT_SHOWN)
                return  # the next one's neither
            for rule in BROKER_RULES:
                if rule.name in config and not rule.holds(config[rule.name]):
                    wanted = rule.value if rule.bound == "exactly" else f"{rule.bound} {rule.value}"
                    yield Problem(
                        name,
                        f"{rule.name} is {config[rule.name]}, {wanted} is needed: {rule.why}",
                        f"set {rule.name}={rule.value} in its server.properties and restart it",
                    )


def _many(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"
