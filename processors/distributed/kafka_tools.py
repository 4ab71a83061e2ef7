"""Commands of Kafka's own distribution, as a person would run them against the brokers of these settings."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Final

from ...schemas.kafka_url import KafkaAddress
from ...schemas.settings import Settings

# What these tools must say to be let in: an operator's file, whose content is nobody else's business.
ADMIN_PROPERTIES: Final = "admin.properties"


def kafka_command(settings: Settings, tool: str, arguments: Iterable[str]) -> str:
    """`kafka-topics` and its like with these arguments, quoted for a shell."""
    login = () if settings.kafka_security == "PLAINTEXT" else ("--command-config", ADMIN_PROPERTIES)
    address = KafkaAddress.parse(settings.url)
    return shlex.join([f"{tool}.sh", "--bootstrap-server", address.bootstrap, *login, *arguments])
