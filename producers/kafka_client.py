"""What every Kafka client of ours is told: where the brokers are, and how they are spoken to."""

from __future__ import annotations

import ssl
from typing import Any

from ..schemas.errors import UsageError
from ..schemas.kafka_url import KafkaAddress
from ..schemas.settings import Settings


def client_options(settings: Settings) -> dict[str, Any]:
    """The arguments that aiokafka's producer, consumer and admin client have in common. Raises `UsageError` when a setting
    is wrong or missing."""
    address = KafkaAddress.parse(settings.url)
    options: dict[str, Any] = {
        "bootstrap_servers": address.bootstrap,
        "client_id": f"tidegate-{settings.service}" if settings.service else "tidegate",
        "security_protocol": settings.kafka_security,
    }
    if settings.kafka_security.endswith("SSL"):
        options["ssl_context"] = _ssl_context(settings)
    if settings.kafka_security.startswith("SASL"):
        if not settings.kafka_username or not settings.kafka_password:
            raise UsageError(
                f"{settings.kafka_security} asks for a name: set TIDEGATE_KAFKA_USERNAME and TIDEGATE_KAFKA_PASSWORD"
            )
        options |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_username,
            "sasl_plain_password": settings.kafka_password,
        }
    return options


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ca_file)
        if settings.kafka_cert_file is not None:
            context.load_cert_chain(settings.kafka_cert_file, settings.kafka_key_file)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"the files of TIDEGATE_KAFKA_CA_FILE, _CERT_FILE and _KEY_FILE cannot be used: {error.strerror or error.args[0]}"
        ) from None
    return context
