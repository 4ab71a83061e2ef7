"""What a Kafka cluster says of itself: its topics, its brokers, and how they are set."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource
from aiokafka.errors import KafkaConnectionError, KafkaError

from ...producers.kafka_client import client_options
from ...schemas.errors import LogUnavailable
from ...schemas.settings import Settings

# A controller that is being elected anew answers within some seconds; longer, and a person should hear of it.
REQUEST_TIMEOUT_MS: Final = 15_000
# Kafka's word for "fine".
NO_ERROR: Final = 0


@dataclass(frozen=True, slots=True)
class FoundTopic:
    """A topic as the cluster has it: for each partition, its replicas and those of them that are in sync."""

    replicas: tuple[tuple[int, ...], ...]
    in_sync: tuple[tuple[int, ...], ...]
    leaderless: int

    @property
    def partitions(self) -> int:
        return len(self.replicas)

    @property
    def replication(self) -> int:
        return min(map(len, self.replicas))


@asynccontextmanager
async def kafka_admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """A connection for asking and making. Whatever ends it is `LogUnavailable`, with the reason where one is known."""
    options = client_options(settings)
    where = options["bootstrap_servers"]
    admin = AIOKafkaAdminClient(**options, request_timeout_ms=REQUEST_TIMEOUT_MS)
    try:
        with _Reasons() as reasons:
            try:
                await admin.start()
            except KafkaConnectionError:
                raise LogUnavailable(
                    f"no broker at {where} lets us in over {settings.kafka_security}{reasons};"
                    " check TIDEGATE_URL and the settings TIDEGATE_KAFKA_*"
                ) from None
        yield admin
    except (KafkaError, TimeoutError, OSError) as error:
        raise LogUnavailable(f"{where} did not answer as it should: {type(error).__name__} {error}".rstrip()) from error
    finally:
        await admin.close()


class _Reasons(logging.Handler):
    """Why brokers could not be reached: aiokafka raises that it failed, and only its log knows whether the address, the
    certificate or the password was wrong."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._last = ""

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.args, tuple) and record.args and isinstance(record.args[-1], Exception):
            error = record.args[-1]
            self._last = str(error) or type(error).__name__

    def __str__(self) -> str:
        return f" ({self._last})" if self._last else ""

    def __enter__(self) -> _Reasons:
        logging.getLogger("aiokafka").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("aiokafka").removeHandler(self)


async def topics_of(admin: AIOKafkaAdminClient) -> tuple[dict[str, FoundTopic], list[int]]:
    """All topics that may be seen, and the brokers' ids."""
    found = {}
    for topic in await admin.describe_topics():
        partitions = topic["partitions"]
        if topic["error_code"] == NO_ERROR and partitions:
            found[topic["topic"]] = FoundTopic(
                tuple(tuple(partition["replicas"]) for partition in partitions),
                tuple(tuple(partition["isr"]) for partition in partitions),
                sum(partition["leader"] < 0 for partition in partitions),
            )
    cluster = await admin.describe_cluster()
    return found, sorted(broker["node_id"] for broker in cluster["brokers"])


async def configs_of(admin: AIOKafkaAdminClient, resources: list[ConfigResource]) -> dict[str, dict[str, str]]:
    """The settings in force by resource name; those that may not be looked at are left out."""
    if not resources:
        return {}
    found = {}
    for answer in await admin.describe_configs(resources):
        for resource in answer.to_object()["resources"]:
            if resource["error_code"] == NO_ERROR:
                entries = resource["config_entries"]
                found[resource["resource_name"]] = {entry["config_names"]: entry["config_value"] or "" for entry in entries}
    return found
