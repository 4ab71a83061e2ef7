"""Making the topics, and saying what is off about them.

    create_topics ─► what is missing, as planned; what exists is left as it is
    check_topics  ─► one `Problem` for each difference that matters, with what to do about it

Both look at all topics at once and never ask for one by name: with auto.create on, asking would make it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    InvalidConfigurationError,
    InvalidReplicationFactorError,
    KafkaError,
    PolicyViolationError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)

from ...schemas.errors import LogUnavailable, TidegateError, UsageError
from ...schemas.kafka_url import KafkaAddress
from ...schemas.settings import Settings
from ...schemas.topics import CALLS
from .kafka_admin import NO_ERROR, REQUEST_TIMEOUT_MS, configs_of, kafka_admin, topics_of
from .topic_check import Problem, TopicCheck
from .topic_plan import PARTITIONS, POLICY_PARTITIONS, REPLICATION, PlannedTopic, plan

__all__ = ["PlannedTopic", "Problem", "check_topics", "create_topics"]

# A new topic has its leaders within a second or two; a busy cluster may take ten times that.
_VISIBLE_TIMEOUT_S: Final = 30.0
_LOOK_S: Final = 0.1


async def create_topics(
    settings: Settings,
    partitions: int | None = None,
    policy_partitions: int | None = None,
    replication: int | None = None,
) -> list[PlannedTopic]:
    """Make the topics that are missing; what was made, once every partition of them has a leader.

    What exists is left as it is, and new topics follow it: where `calls` stands already, its number of partitions wins over
    `partitions`. Without `replication`: three copies, or as many as there are brokers. Raises `UsageError` when the cluster
    refuses, `LogUnavailable` when it does not answer.
    """
    for name, value in (("partitions", partitions), ("policy-partitions", policy_partitions), ("replication", replication)):
        if value is not None and value < 1:
            raise UsageError(f"--{name} {value}: give 1 or more")
    name_of = KafkaAddress.parse(settings.url).topic
    async with kafka_admin(settings) as admin:
        found, brokers = await topics_of(admin)
        copies = replication or min(REPLICATION, len(brokers))
        made: list[PlannedTopic] = []
        if name_of(CALLS) not in found:
            # First and alone: whoever makes them at the same time may have asked for another number of partitions, and the
            # others must follow what became of that.
            calls, *_ = plan(partitions or PARTITIONS, replication=copies)
            made += await _made(admin, {name_of(CALLS): calls}, copies, len(brokers))
            found, _ = await topics_of(admin)
        wanted = plan(found[name_of(CALLS)].partitions, policy_partitions or POLICY_PARTITIONS, copies)
        missing = {name_of(planned.topic): planned for planned in wanted if name_of(planned.topic) not in found}
        if missing:
            made += await _made(admin, missing, copies, len(brokers))
        return made


async def _made(
    admin: AIOKafkaAdminClient, missing: Mapping[str, PlannedTopic], copies: int, brokers: int
) -> list[PlannedTopic]:
    """Make topics by their names; those that nobody else has made meanwhile."""
    answer = await admin.create_topics(
        [NewTopic(name, topic.partitions, copies, topic_configs=topic.config) for name, topic in missing.items()],
        timeout_ms=REQUEST_TIMEOUT_MS,
    )
    made = []
    for name, code, message, *_ in answer.topic_errors:
        error = for_code(code)
        if code == NO_ERROR:
            made.append(missing[name])
        elif error is not TopicAlreadyExistsError:
            raise _refusal(error, name, message, brokers)
    await _until_led(admin, list(missing))
    return made


def _refusal(error: type[KafkaError], name: str, message: str | None, brokers: int) -> TidegateError:
    if issubclass(error, TopicAuthorizationFailedError | ClusterAuthorizationFailedError):
        return UsageError(f"not allowed to make {name}: see `tidegate topics acls --role operator`")
    if issubclass(error, InvalidReplicationFactorError):
        return UsageError(f"{name}: there are {brokers} brokers to keep copies on; give --replication {brokers} or less")
    if issubclass(error, InvalidConfigurationError | PolicyViolationError):
        return UsageError(f"the cluster does not take {name} as planned: {message}; see `tidegate topics plan`")
    return LogUnavailable(f"{name} could not be made: {message or error.__name__}; try again")


async def _until_led(admin: AIOKafkaAdminClient, names: Sequence[str]) -> None:
    """A topic that was just made is not yet known to every broker; a client that came now would be told there is none."""
    deadline = asyncio.get_running_loop().time() + _VISIBLE_TIMEOUT_S
    while True:
        found, _ = await topics_of(admin)
        waiting = [name for name in names if name not in found or found[name].leaderless]
        if not waiting:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise LogUnavailable(f"{', '.join(waiting)} was made but has no leader after {_VISIBLE_TIMEOUT_S:g} s; try again")
        await asyncio.sleep(_LOOK_S)


async def check_topics(settings: Settings) -> list[Problem]:
    """What differs from the plan in a way that loses, stops or slows something; [] when all is well.

    Raises `LogUnavailable` when no broker answers. What may not be looked at is a problem, too.
    """
    address = KafkaAddress.parse(settings.url)
    async with kafka_admin(settings) as admin:
        found, brokers = await topics_of(admin)
        present = [planned for planned in plan() if address.topic(planned.topic) in found]
        configs = await configs_of(
            admin, [ConfigResource(ConfigResourceType.TOPIC, address.topic(planned.topic)) for planned in present]
        )
        of_brokers = await configs_of(admin, [ConfigResource(ConfigResourceType.BROKER, str(broker)) for broker in brokers])
    checked = TopicCheck(settings, address, found, len(brokers))
    return [
        *checked.missing(),
        *(problem for planned in present for problem in checked.of(planned, configs.get(address.topic(planned.topic)))),
        *checked.brokers(of_brokers, brokers),
    ]
