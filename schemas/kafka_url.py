"""Where Kafka is: `kafka://broker:9092,broker2:9092/namespace`, as TIDEGATE_URL has it.

The namespace is what the names of topics and consumer groups begin with, so that several Tidegates share a cluster.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from .errors import UsageError
from .topics import Topic

NAMESPACE: Final = "tidegate"
DEFAULT_PORT: Final = 9092

_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?\Z")
# Kafka's own alphabet; topic names end at 249 characters.
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9._-]{1,150}\Z")


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """`bootstrap` is a comma-separated list of host:port, as Kafka's clients take it."""

    bootstrap: str
    namespace: str = NAMESPACE

    @classmethod
    def parse(cls, url: str) -> KafkaAddress:
        """Raises `UsageError` when this is not an address of Kafka."""
        scheme, found, rest = url.partition("://")
        if not found or scheme.lower() != "kafka":
            raise UsageError("set TIDEGATE_URL to Kafka's address, such as kafka://broker:9092,broker2:9092")
        hosts, _, path = rest.partition("/")
        namespace = path.rstrip("/") or NAMESPACE
        servers = []
        for host in hosts.split(","):
            match = _HOST.match(host)
            if match is None or not 0 < int(match[1] or DEFAULT_PORT) < 65_536:
                raise UsageError(
                    "TIDEGATE_URL must look like kafka://broker:9092,broker2:9092/namespace; user and password go into"
                    " TIDEGATE_KAFKA_USERNAME and TIDEGATE_KAFKA_PASSWORD"
                )
            servers.append(host if match[1] else f"{host}:{DEFAULT_PORT}")
        if not _NAMESPACE.match(namespace):
            raise UsageError("the namespace in TIDEGATE_URL takes letters, digits and . _ - (kafka://broker:9092/namespace)")
        return cls(",".join(servers), namespace)

    def topic(self, topic: Topic) -> str:
        """What a topic is called on this cluster."""
        return self.namespace + topic.name.removeprefix(NAMESPACE)

    def group(self, step: str) -> str:
        """The consumer group of a step."""
        return f"{self.namespace}.{step}"
